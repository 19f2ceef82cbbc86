//! `/v1/clients/{client}/keys`: API keys that are made, rotated and revoked while the gateway runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use http::StatusCode;
use http::header::HeaderMap;
use portcullis_core::quantity;
use portcullis_gateway::{ApiKeyChange, ApiKeyError, ApiKeyView, Gateway, ManagedApiKeys, NewApiKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer;
use super::changes::{Refusal, change, look, not_json, problem, token_only};

/// The largest body that says something of a key.
const MOST_BYTES: usize = 64 * 1024;
/// How long a key counts beside its successor, where nothing is said.
const OVERLAP: Duration = Duration::from_hours(24);

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> Router {
    Router::new()
        .route("/v1/clients/{client}/keys", get(list).post(create))
        .route("/v1/clients/{client}/keys/{id}", get(show).patch(alter).delete(revoke))
        .route("/v1/clients/{client}/keys/{id}/rotate", post(rotate))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .route_layer(middleware::from_fn_with_state(gateway.clone(), token_only))
        .with_state(gateway)
}

/// A key that was just made: what everybody may see of it, and, this once, itself.
#[derive(Serialize)]
struct Made<'a> {
    key: &'a str,
    #[serde(flatten)]
    view: &'a ApiKeyView,
}

/// What is said of a rotation.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    overlap: Option<String>,
}

/// Why a call about keys is refused.
#[derive(Debug, thiserror::Error)]
enum KeyRefusal {
    #[error(
        "there are no API keys here: add `api_keys: {{ pepper: {{ file: secrets/pepper }} }}` to gateway.yaml"
    )]
    NoKeys,
    #[error(transparent)]
    Keys(#[from] ApiKeyError),
}

impl Refusal for KeyRefusal {
    fn refusal(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoKeys => (StatusCode::CONFLICT, "no_pepper"),
            Self::Keys(error) => match error {
                ApiKeyError::UnknownClient => (StatusCode::NOT_FOUND, "unknown_client"),
                ApiKeyError::UnknownKey => (StatusCode::NOT_FOUND, "unknown_key"),
                ApiKeyError::UnknownApi(_) => (StatusCode::BAD_REQUEST, "unknown_api"),
                ApiKeyError::Unfit(_) => (StatusCode::BAD_REQUEST, "unfit"),
                ApiKeyError::Taken => (StatusCode::CONFLICT, "value_taken"),
                ApiKeyError::NameTaken => (StatusCode::CONFLICT, "name_taken"),
                ApiKeyError::Replaced(_) => (StatusCode::CONFLICT, "rotated_already"),
                ApiKeyError::Full => (StatusCode::CONFLICT, "too_many_keys"),
                ApiKeyError::NotKept => (StatusCode::CONFLICT, "no_store"),
                ApiKeyError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
                ApiKeyError::Randomness(_) | ApiKeyError::Damaged { .. } => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
                }
            },
        }
    }
}

async fn list(State(gateway): State<Weak<Gateway>>, Path(client): Path<String>) -> Response {
    let seen = move |gateway: &Gateway| {
        let keys = keys(gateway)?.of(&client)?;
        Ok::<_, KeyRefusal>(json!({ "client": client, "keys": keys }))
    };
    look(&gateway, seen).await
}

async fn show(State(gateway): State<Weak<Gateway>>, Path((client, id)): Path<(String, String)>) -> Response {
    look(&gateway, move |gateway| Ok::<_, KeyRefusal>(keys(gateway)?.one(&client, &id)?)).await
}

async fn create(
    State(gateway): State<Weak<Gateway>>,
    Path(client): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: NewApiKey = match said(&headers, &body) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let of = client.clone();
    let make = move |gateway: &Gateway| {
        keys(gateway).and_then(|keys| Ok(keys.create(&client, &asked, gateway.clock().now())?))
    };
    change(&gateway, "API key made", of, make, made).await
}

async fn rotate(
    State(gateway): State<Weak<Gateway>>,
    Path((client, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let rotation: Rotation = match said(&headers, &body) {
        Ok(rotation) => rotation,
        Err(refusal) => return *refusal,
    };
    let overlap = match rotation.overlap.as_deref().map_or(Ok(OVERLAP), quantity::duration) {
        Ok(overlap) => overlap,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "unfit", &format!("`overlap`: {why}")),
    };
    let of = format!("{client}/{id}");
    let make = move |gateway: &Gateway| {
        keys(gateway).and_then(|keys| Ok(keys.rotate(&client, &id, overlap, gateway.clock().now())?))
    };
    change(&gateway, "API key rotated", of, make, made).await
}

async fn alter(
    State(gateway): State<Weak<Gateway>>,
    Path((client, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: ApiKeyChange = match said(&headers, &body) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let of = format!("{client}/{id}");
    let make = move |gateway: &Gateway| keys(gateway).and_then(|keys| Ok(keys.change(&client, &id, &asked)?));
    change(&gateway, "API key changed", of, make, |view| answer(StatusCode::OK, Json(view))).await
}

async fn revoke(
    State(gateway): State<Weak<Gateway>>,
    Path((client, id)): Path<(String, String)>,
) -> Response {
    let of = format!("{client}/{id}");
    let make = move |gateway: &Gateway| keys(gateway).and_then(|keys| Ok(keys.revoke(&client, &id)?));
    change(&gateway, "API key revoked", of, make, |()| answer(StatusCode::NO_CONTENT, ())).await
}

fn made((view, key): (ApiKeyView, String)) -> Response {
    answer(StatusCode::CREATED, Json(Made { key: &key, view: &view }))
}

fn keys(gateway: &Gateway) -> Result<&Arc<ManagedApiKeys>, KeyRefusal> {
    gateway.api_keys().ok_or(KeyRefusal::NoKeys)
}

/// What a body says; nothing said is said by no body at all.
fn said<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &Bytes) -> Result<T, Box<Response>> {
    if body.is_empty() {
        return Ok(T::default());
    }
    if let Some(refusal) = not_json(headers) {
        return Err(Box::new(refusal));
    }
    serde_json::from_slice(body)
        .map_err(|error| Box::new(problem(StatusCode::BAD_REQUEST, "unfit", &error.to_string())))
}
