//! `/v1/issuers/{issuer}/revoked-tokens`: tokens that count no more from this moment on (REV-02).

use std::sync::Weak;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Json, Router, middleware};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use portcullis_authn::RevokedEntry;
use portcullis_gateway::{Gateway, RevokeError};
use serde_json::{Value, json};

use super::answer;
use super::changes::{ended, problem, token_only};

/// The largest entry there can be has three names of 255 bytes.
const MOST_BYTES: usize = 8 * 1024;

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> Router {
    Router::new()
        .route("/v1/issuers/{issuer}/revoked-tokens", get(list).post(add))
        .route("/v1/issuers/{issuer}/revoked-tokens/{id}", delete(remove))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn_with_state(gateway.clone(), token_only))
        .with_state(gateway)
}

async fn list(State(gateway): State<Weak<Gateway>>, Path(issuer): Path<String>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    match gateway.revoked(&issuer) {
        Ok(entries) => {
            let entries: Vec<Value> = entries.iter().map(|(id, entry)| shown(id, entry)).collect();
            answer(StatusCode::OK, Json(json!({ "issuer": issuer, "entries": entries })))
        }
        Err(error) => refusal(&error),
    }
}

async fn add(
    State(gateway): State<Weak<Gateway>>,
    Path(issuer): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // SECURITY: a form of a web page cannot be of this type without asking first.
    if headers.get(CONTENT_TYPE).is_none_or(|kind| !is_json(kind.as_bytes())) {
        let how = "an entry is sent as `Content-Type: application/json`";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", how);
    }
    let entry = match RevokedEntry::parse(&body) {
        Ok(entry) => entry,
        Err(why) => return refusal(&why.into()),
    };
    let (id, said) = (entry.id(), shown(&entry.id(), &entry));
    change(
        gateway,
        "revoked",
        issuer,
        id,
        move |gateway, issuer, _id| gateway.revoke(issuer, entry),
        |new| {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            answer(status, Json(said))
        },
    )
    .await
}

async fn remove(
    State(gateway): State<Weak<Gateway>>,
    Path((issuer, id)): Path<(String, String)>,
) -> Response {
    let take_back = |gateway: &Gateway, issuer: &str, id: &str| gateway.take_back(issuer, id);
    change(gateway, "revocation taken back", issuer, id, take_back, |()| answer(StatusCode::NO_CONTENT, ()))
        .await
}

/// Makes a change on a thread that may wait for the disk, and writes down that it was made.
async fn change<T: Send + 'static>(
    gateway: Weak<Gateway>,
    action: &'static str,
    issuer: String,
    id: String,
    make: impl FnOnce(&Gateway, &str, &str) -> Result<T, RevokeError> + Send + 'static,
    done: impl FnOnce(T) -> Response,
) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let made = tokio::task::spawn_blocking(move || {
        let made = make(&gateway, &issuer, &id);
        match &made {
            Ok(_) => tracing::info!(%issuer, entry = %id, action, "changed over the admin API"),
            Err(why) => tracing::warn!(%issuer, entry = %id, action, %why, "not changed over the admin API"),
        }
        made
    });
    match made.await {
        Ok(Ok(made)) => done(made),
        Ok(Err(error)) => refusal(&error),
        Err(_panicked) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something is broken"),
    }
}

fn is_json(kind: &[u8]) -> bool {
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

fn shown(id: &str, entry: &RevokedEntry) -> Value {
    json!({ "id": id, "entry": entry.to_json() })
}

fn refusal(error: &RevokeError) -> Response {
    let (status, code) = match error {
        RevokeError::UnknownIssuer => (StatusCode::NOT_FOUND, "unknown_issuer"),
        RevokeError::UnknownEntry => (StatusCode::NOT_FOUND, "unknown_entry"),
        RevokeError::BadEntry(_) => (StatusCode::BAD_REQUEST, "bad_entry"),
        RevokeError::Full => (StatusCode::CONFLICT, "too_many_entries"),
        RevokeError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
    };
    problem(status, code, &error.to_string())
}
