//! The upstream of the demo: it answers every request with what it received.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;

/// A text body up to this many bytes is shown; of a longer one only the size.
const SHOWN_BYTES: usize = 4096;

/// The service.
pub(crate) fn router() -> Router {
    Router::new().fallback(echo)
}

/// What was received.
#[derive(Serialize)]
struct Received<'r> {
    method: &'r str,
    path: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'r str>,
    headers: BTreeMap<&'r str, Values>,
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// The value of a header, or the list of its values if it came more than once.
#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
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
    let received = Received {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: headers(&head.headers),
        body_bytes: bytes,
        body: String::from_utf8(shown).ok().filter(|_| 0 < bytes && bytes <= SHOWN_BYTES),
    };
    match serde_json::to_string_pretty(&received) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn headers(headers: &HeaderMap) -> BTreeMap<&str, Values> {
    let mut shown = BTreeMap::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        let mut values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let values = match values.pop() {
            Some(only) if values.is_empty() => Values::One(only),
            last => {
                values.extend(last);
                Values::Several(values)
            }
        };
        shown.insert(name.as_str(), values);
    }
    shown
}
