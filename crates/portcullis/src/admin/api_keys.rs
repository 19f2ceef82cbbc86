//! `/v1/clients/{client}/keys`: API keys that are made, rotated and revoked while the gateway runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::{Json, middleware};
use http::StatusCode;
use http::header::HeaderMap;
use portcullis_core::quantity;
use portcullis_gateway::{
    ApiKeyChange, ApiKeyError, ApiKeyView, EventKind, Gateway, ManagedApiKeys, NewApiKey,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::{Action, Made, change, look, not_json};
use super::openapi::{No, guarded};
use super::problem::{Refusal, problem};
use super::{Admin, answer, refused_calls};

/// The largest body that says something of a key.
const MOST_BYTES: usize = 64 * 1024;
/// How long a key counts beside its successor, where nothing is said.
const OVERLAP: Duration = Duration::from_hours(24);

/// What these calls may be answered with besides what all are.
const CONFLICT: No = (
    StatusCode::CONFLICT,
    "It contradicts what is there: a name or a value is taken, the key was rotated already, or no keys can be made here.",
);

/// The service.
pub(super) fn router(admin: Admin) -> OpenApiRouter {
    let router = OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, alter, revoke))
        .routes(routes!(rotate))
        .layer(DefaultBodyLimit::max(MOST_BYTES));
    guarded(router, admin.gateway.clone(), &[CONFLICT])
        .route_layer(middleware::from_fn_with_state(admin.clone(), refused_calls::write_down))
        .with_state(admin)
}

/// A key that was just made: what everybody may see of it, and, this once, itself.
#[derive(Serialize, ToSchema)]
struct MadeApiKey<'a> {
    /// The key, which is never shown again.
    key: &'a str,
    #[serde(flatten)]
    view: &'a ApiKeyView,
}

/// The keys of a client that were made in the running gateway.
#[derive(Serialize, ToSchema)]
struct ApiKeys {
    client: String,
    keys: Vec<ApiKeyView>,
}

/// What is said of a rotation.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// How long both count, such as `24h`, which it is where nothing is said.
    #[schema(example = "1h")]
    overlap: Option<String>,
    /// When the successor ends, where that is not when the key would have.
    expires: Option<String>,
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
                ApiKeyError::NotInForce => (StatusCode::CONFLICT, "not_in_force"),
                ApiKeyError::ChangedElsewhere => (StatusCode::CONFLICT, "changed_elsewhere"),
                ApiKeyError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
                ApiKeyError::InForceNotKept(_) => (StatusCode::SERVICE_UNAVAILABLE, "in_force_not_kept"),
                ApiKeyError::Randomness(_) | ApiKeyError::Damaged(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
                }
            },
        }
    }

    fn is_in_force(&self) -> bool {
        matches!(self, Self::Keys(ApiKeyError::InForceNotKept(_)))
    }
}

/// Lists the keys of a client that were made in the running gateway.
#[utoipa::path(
    get, path = "/v1/clients/{client}/keys", operation_id = "listApiKeys", tag = "API keys",
    params(("client" = String, Path, description = "The name of the client.")),
    responses((status = 200, description = "The keys.", body = ApiKeys)),
)]
async fn list(State(gateway): State<Weak<Gateway>>, Path(client): Path<String>) -> Response {
    let seen = move |gateway: &Gateway| {
        let keys = keys(gateway)?.of(&client, gateway.clock().now())?;
        Ok::<_, KeyRefusal>(ApiKeys { client, keys })
    };
    look(&gateway, seen).await
}

/// Shows one of them.
#[utoipa::path(
    get, path = "/v1/clients/{client}/keys/{id}", operation_id = "showApiKey", tag = "API keys",
    params(("client" = String, Path, description = "The name of the client."), ("id" = String, Path, description = "The id of the key.")),
    responses((status = 200, description = "The key.", body = ApiKeyView)),
)]
async fn show(State(gateway): State<Weak<Gateway>>, Path((client, id)): Path<(String, String)>) -> Response {
    let seen = move |gateway: &Gateway| {
        Ok::<_, KeyRefusal>(keys(gateway)?.one(&client, &id, gateway.clock().now())?)
    };
    look(&gateway, seen).await
}

/// Makes a key. Its value is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/v1/clients/{client}/keys", operation_id = "makeApiKey", tag = "API keys", request_body = Option<NewApiKey>,
    params(("client" = String, Path, description = "The name of the client.")),
    responses((status = 201, description = "It counts.", body = MadeApiKey<'_>)),
)]
async fn create(
    State(admin): State<Admin>,
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
        let (view, key) = keys(gateway)?.create(&client, &asked, gateway.clock().now())?;
        Ok::<_, KeyRefusal>(made(&view, &key, format!("{}, {:?}", view.id, view.name)))
    };
    change(&admin, Action { kind: EventKind::KeyChanged, name: "API key made", takes: false }, of, make).await
}

/// Makes its successor, and lets both count for a while.
#[utoipa::path(
    post, path = "/v1/clients/{client}/keys/{id}/rotate", operation_id = "rotateApiKey", tag = "API keys", request_body = Option<Rotation>,
    params(("client" = String, Path, description = "The name of the client."), ("id" = String, Path, description = "The id of the key.")),
    responses((status = 201, description = "The successor counts.", body = MadeApiKey<'_>)),
)]
async fn rotate(
    State(admin): State<Admin>,
    Path((client, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Rotation { overlap, expires } = match said(&headers, &body) {
        Ok(rotation) => rotation,
        Err(refusal) => return *refusal,
    };
    let overlap = match overlap.as_deref().map_or(Ok(OVERLAP), quantity::duration) {
        Ok(overlap) => overlap,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "unfit", &format!("`overlap`: {why}")),
    };
    let of = format!("{client}/{id}");
    let make = move |gateway: &Gateway| {
        let now = gateway.clock().now();
        let (view, key) = keys(gateway)?.rotate(&client, &id, overlap, &expires, now)?;
        Ok::<_, KeyRefusal>(made(&view, &key, format!("its successor is {}", view.id)))
    };
    change(&admin, Action { kind: EventKind::KeyChanged, name: "API key rotated", takes: false }, of, make)
        .await
}

/// Disables it, lets it count again, or moves its end.
#[utoipa::path(
    patch, path = "/v1/clients/{client}/keys/{id}", operation_id = "changeApiKey", tag = "API keys", request_body = Option<ApiKeyChange>,
    params(("client" = String, Path, description = "The name of the client."), ("id" = String, Path, description = "The id of the key.")),
    responses((status = 200, description = "The key as it is now.", body = ApiKeyView)),
)]
async fn alter(
    State(admin): State<Admin>,
    Path((client, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: ApiKeyChange = match said(&headers, &body) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let takes = asked.disabled == Some(true);
    let of = format!("{client}/{id}");
    let make = move |gateway: &Gateway| {
        let (view, is_other) = keys(gateway)?.change(&client, &id, &asked, gateway.clock().now())?;
        let expires = view.expires.map_or_else(|| "never".to_owned(), |end| end.to_string());
        let note = is_other.then(|| format!("disabled: {}, expires: {expires}", view.disabled));
        Ok::<_, KeyRefusal>(Made { answer: answer(StatusCode::OK, Json(&view)), note })
    };
    change(&admin, Action { kind: EventKind::KeyChanged, name: "API key changed", takes }, of, make).await
}

/// Takes it out of use, for good.
#[utoipa::path(
    delete, path = "/v1/clients/{client}/keys/{id}", operation_id = "revokeApiKey", tag = "API keys",
    params(("client" = String, Path, description = "The name of the client."), ("id" = String, Path, description = "The id of the key.")),
    responses((status = 204, description = "It counts no more.")),
)]
async fn revoke(State(admin): State<Admin>, Path((client, id)): Path<(String, String)>) -> Response {
    let of = format!("{client}/{id}");
    let make = move |gateway: &Gateway| {
        keys(gateway)?.revoke(&client, &id)?;
        let note = Some("it counts no more".to_owned());
        Ok::<_, KeyRefusal>(Made { answer: answer(StatusCode::NO_CONTENT, ()), note })
    };
    change(&admin, Action { kind: EventKind::KeyChanged, name: "API key revoked", takes: true }, of, make)
        .await
}

fn made(view: &ApiKeyView, key: &str, note: String) -> Made {
    Made { answer: answer(StatusCode::CREATED, Json(MadeApiKey { key, view })), note: Some(note) }
}

fn keys(gateway: &Gateway) -> Result<&Arc<ManagedApiKeys>, KeyRefusal> {
    gateway.api_keys().ok_or(KeyRefusal::NoKeys)
}

/// What a body says; nothing is said by no body at all, and by `null`.
fn said<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &Bytes) -> Result<T, Box<Response>> {
    if body.is_empty() {
        return Ok(T::default());
    }
    if let Some(refusal) = not_json(headers) {
        return Err(Box::new(refusal));
    }
    serde_json::from_slice::<Option<T>>(body)
        .map(Option::unwrap_or_default)
        .map_err(|error| Box::new(problem(StatusCode::BAD_REQUEST, "unfit", &error.to_string())))
}
