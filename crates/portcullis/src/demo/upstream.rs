//! The upstream of the demo: it answers every request with what it received.

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

/// A text body up to this many bytes is shown; of a longer one only the size.
const SHOWN_BYTES: usize = 4096;

/// The service.
pub(crate) fn router() -> Router {
    Router::new().fallback(echo)
}

async fn echo(request: Request<Body>) -> Response {
    let (head, mut body) = request.into_parts();
    let (mut bytes, mut shown) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return StatusCode::BAD_REQUEST.into_response() };
        if let Ok(data) = frame.into_data() {
            bytes += data.len();
            if bytes <= SHOWN_BYTES {
                shown.extend_from_slice(&data);
            }
        }
    }
    let mut answer = Map::new();
    answer.insert("method".into(), head.method.as_str().into());
    answer.insert("path".into(), head.uri.path().into());
    if let Some(query) = head.uri.query() {
        answer.insert("query".into(), query.into());
    }
    answer.insert("headers".into(), headers(&head.headers));
    if bytes > 0 {
        answer.insert("body_bytes".into(), bytes.into());
    }
    if let (true, Ok(text)) = (0 < bytes && bytes <= SHOWN_BYTES, String::from_utf8(shown)) {
        answer.insert("body".into(), text.into());
    }
    let text = format!("{:#}\n", Value::Object(answer));
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Each header with its value, or with the list of its values if it came more than once.
fn headers(headers: &HeaderMap) -> Value {
    let mut shown = Map::new();
    for name in headers.keys() {
        let mut values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let value = if values.len() == 1 { values.pop().into() } else { json!(values) };
        shown.insert(name.to_string(), value);
    }
    Value::Object(shown)
}
