//! `/v1/issuers/{issuer}/revoked-tokens`: tokens that count no more from this moment on (REV-02).

use std::sync::Weak;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Json, Router, middleware};
use http::StatusCode;
use http::header::HeaderMap;
use portcullis_authn::RevokedEntry;
use portcullis_gateway::{Gateway, RevokeError};
use serde_json::{Value, json};

use super::answer;
use super::changes::{Refusal, change, look, not_json, refused, token_only};

/// The largest entry there can be has three names of 255 bytes.
const MOST_BYTES: usize = 8 * 1024;

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> Router {
    Router::new()
        .route("/v1/issuers/{issuer}/revoked-tokens", get(list).post(add))
        .route("/v1/issuers/{issuer}/revoked-tokens/{id}", delete(remove))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .route_layer(middleware::from_fn_with_state(gateway.clone(), token_only))
        .with_state(gateway)
}

async fn list(State(gateway): State<Weak<Gateway>>, Path(issuer): Path<String>) -> Response {
    let seen = move |gateway: &Gateway| {
        let entries: Vec<Value> =
            gateway.revoked(&issuer)?.iter().map(|(id, entry)| shown(id, entry)).collect();
        Ok::<_, RevokeError>(json!({ "issuer": issuer, "entries": entries }))
    };
    look(&gateway, seen).await
}

async fn add(
    State(gateway): State<Weak<Gateway>>,
    Path(issuer): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = not_json(&headers) {
        return refusal;
    }
    let entry = match RevokedEntry::parse(&body) {
        Ok(entry) => entry,
        Err(why) => return refused(&RevokeError::from(why)),
    };
    let (id, said) = (entry.id(), shown(&entry.id(), &entry));
    let make = move |gateway: &Gateway| gateway.revoke(&issuer, entry);
    let done = |new| answer(if new { StatusCode::CREATED } else { StatusCode::OK }, Json(&said));
    change(&gateway, "tokens revoked", id, make, done).await
}

async fn remove(
    State(gateway): State<Weak<Gateway>>,
    Path((issuer, id)): Path<(String, String)>,
) -> Response {
    let of = id.clone();
    let make = move |gateway: &Gateway| gateway.take_back(&issuer, &id);
    change(&gateway, "revocation taken back", of, make, |()| answer(StatusCode::NO_CONTENT, ())).await
}

fn shown(id: &str, entry: &RevokedEntry) -> Value {
    json!({ "id": id, "entry": entry.to_json() })
}

impl Refusal for RevokeError {
    fn refusal(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownIssuer => (StatusCode::NOT_FOUND, "unknown_issuer"),
            Self::UnknownEntry => (StatusCode::NOT_FOUND, "unknown_entry"),
            Self::BadEntry(_) => (StatusCode::BAD_REQUEST, "bad_entry"),
            Self::Full => (StatusCode::CONFLICT, "too_many_entries"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        }
    }
}
