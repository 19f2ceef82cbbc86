//! `/v1/issuers/{issuer}/revoked-tokens`: tokens that count no more from this moment on (REV-02).

use std::sync::Weak;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::{Json, middleware};
use http::StatusCode;
use http::header::HeaderMap;
use portcullis_authn::RevokedEntry;
use portcullis_gateway::{EventKind, Gateway, RevokeError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::{Action, Made, change, look, not_json};
use super::openapi::{No, guarded};
use super::problem::{Refusal, refused};
use super::{Admin, answer, refused_calls};

/// Most entries of one call.
const MOST: usize = 1_000;
/// The largest entry there can be has three names of 255 bytes.
const MOST_BYTES: usize = MOST * 1024;

/// What these calls may be answered with besides what all are.
const FULL: No = (StatusCode::CONFLICT, "There are too many entries.");

/// Which tokens an entry is about: those of which everything holds that it says. It says more than `until`, or it would name every
/// token.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
#[expect(dead_code, reason = "it is read and written by `RevokedEntry`; this says how it looks")]
struct Entry {
    /// The token's own name.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    jti: Option<String>,
    /// Its subject.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    sub: Option<String>,
    /// The client it was issued to, or the registered client that signed it.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    client: Option<String>,
    #[schema(schema_with = issued_before, required = false)]
    issued_before: Option<i64>,
    #[schema(schema_with = until, required = false)]
    until: Option<i64>,
}

fn issued_before() -> Object {
    moment("When it was issued before")
}

fn until() -> Object {
    moment("When the entry counts no more")
}

/// Text or number: utoipa knows no such type.
fn moment(of: &str) -> Object {
    let meaning = format!(
        "{of}: seconds since 1970, or a text such as `2027-06-30T12:00:00Z`. It is always shown as seconds."
    );
    let either = SchemaType::from_iter([Type::Integer, Type::String]);
    ObjectBuilder::new().schema_type(either).description(Some(meaning)).build()
}

/// One entry, or up to 1000.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is read by `RevokedEntry`; this says how it looks")]
enum Entries {
    One(Entry),
    Several(Vec<Entry>),
}

/// An entry and its name.
#[derive(Clone, Serialize, ToSchema)]
struct ShownEntry {
    /// What it is taken back by.
    id: String,
    #[schema(value_type = Entry)]
    entry: Value,
}

/// The entries of an issuer that were told to the running gateway.
#[derive(Serialize, ToSchema)]
struct RevokedTokens {
    issuer: String,
    entries: Vec<ShownEntry>,
}

/// What came of entries that were told: of one, itself; of a list, how many are new.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Told {
    One(ShownEntry),
    Several { new: usize, entries: Vec<ShownEntry> },
}

/// How many entries were taken back.
#[derive(Serialize, ToSchema)]
struct TakenBack {
    taken_back: usize,
}

/// The service.
pub(super) fn router(admin: Admin) -> OpenApiRouter {
    let router = OpenApiRouter::new()
        .routes(routes!(list, add, remove_all))
        .routes(routes!(remove))
        .layer(DefaultBodyLimit::max(MOST_BYTES));
    guarded(router, admin.gateway.clone(), &[FULL])
        .route_layer(middleware::from_fn_with_state(admin.clone(), refused_calls::write_down))
        .with_state(admin)
}

/// Lists the tokens that were revoked while the gateway ran.
#[utoipa::path(
    get, path = "/v1/issuers/{issuer}/revoked-tokens", operation_id = "listRevokedTokens", tag = "revoked tokens",
    params(("issuer" = String, Path, description = "The name of the issuer.")),
    responses((status = 200, description = "The entries.", body = RevokedTokens)),
)]
async fn list(State(gateway): State<Weak<Gateway>>, Path(issuer): Path<String>) -> Response {
    let seen = move |gateway: &Gateway| {
        let entries = gateway.revoked(&issuer)?.iter().map(|(id, entry)| shown(id, entry)).collect();
        Ok::<_, RevokeError>(RevokedTokens { issuer, entries })
    };
    look(&gateway, seen).await
}

/// Revokes tokens, from this moment on.
#[utoipa::path(
    post, path = "/v1/issuers/{issuer}/revoked-tokens", operation_id = "revokeTokens", tag = "revoked tokens", request_body = Entries,
    params(("issuer" = String, Path, description = "The name of the issuer.")),
    responses(
        (status = 200, description = "They were revoked before.", body = Told),
        (status = 201, description = "They count no more.", body = Told),
    ),
)]
async fn add(
    State(admin): State<Admin>,
    Path(issuer): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = not_json(&headers) {
        return refusal;
    }
    let entries = match RevokedEntry::parse_some(&body, MOST) {
        Ok(entries) => entries,
        Err(why) => return refused(&RevokeError::from(why)),
    };
    let is_list = body.trim_ascii_start().starts_with(b"[");
    let of = issuer.clone();
    let make = move |gateway: &Gateway| {
        let is_new = gateway.revoke(&issuer, entries.clone())?;
        let mut all: Vec<ShownEntry> = entries.iter().map(|entry| shown(&entry.id(), entry)).collect();
        let new: Vec<&ShownEntry> =
            all.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(one, _)| one).collect();
        let status = if new.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
        let note = (!new.is_empty()).then(|| json!(new).to_string());
        let new = new.len();
        let told = match all.pop() {
            Some(one) if !is_list => Told::One(one),
            last => {
                all.extend(last);
                Told::Several { new, entries: all }
            }
        };
        Ok::<_, RevokeError>(Made { answer: answer(status, Json(told)), note })
    };
    change(&admin, Action { kind: EventKind::TokenRevoked, name: "tokens revoked", takes: true }, of, make)
        .await
}

/// Takes one entry back.
#[utoipa::path(
    delete, path = "/v1/issuers/{issuer}/revoked-tokens/{id}", operation_id = "takeRevocationBack", tag = "revoked tokens",
    params(("issuer" = String, Path, description = "The name of the issuer."), ("id" = String, Path, description = "The id of the entry.")),
    responses((status = 204, description = "It is taken back.")),
)]
async fn remove(State(admin): State<Admin>, Path((issuer, id)): Path<(String, String)>) -> Response {
    let of = issuer.clone();
    let make = move |gateway: &Gateway| {
        gateway.take_back(&issuer, &id)?;
        Ok::<_, RevokeError>(Made { answer: answer(StatusCode::NO_CONTENT, ()), note: Some(id) })
    };
    change(
        &admin,
        Action { kind: EventKind::TokenRevoked, name: "revocation taken back", takes: false },
        of,
        make,
    )
    .await
}

/// Takes all entries back.
#[utoipa::path(
    delete, path = "/v1/issuers/{issuer}/revoked-tokens", operation_id = "takeAllRevocationsBack", tag = "revoked tokens",
    params(("issuer" = String, Path, description = "The name of the issuer.")),
    responses((status = 200, description = "They are taken back.", body = TakenBack)),
)]
async fn remove_all(State(admin): State<Admin>, Path(issuer): Path<String>) -> Response {
    let of = issuer.clone();
    let make = move |gateway: &Gateway| {
        let count = gateway.take_all_back(&issuer)?;
        let note = (count > 0).then(|| format!("all {count}"));
        Ok::<_, RevokeError>(Made {
            answer: answer(StatusCode::OK, Json(TakenBack { taken_back: count })),
            note,
        })
    };
    change(
        &admin,
        Action { kind: EventKind::TokenRevoked, name: "revocation taken back", takes: false },
        of,
        make,
    )
    .await
}

fn shown(id: &str, entry: &RevokedEntry) -> ShownEntry {
    ShownEntry { id: id.to_owned(), entry: entry.to_json() }
}

impl Refusal for RevokeError {
    fn refusal(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownIssuer => (StatusCode::NOT_FOUND, "unknown_issuer"),
            Self::UnknownEntry => (StatusCode::NOT_FOUND, "unknown_entry"),
            Self::BadEntry(_) | Self::Over => (StatusCode::BAD_REQUEST, "bad_entry"),
            Self::Full => (StatusCode::CONFLICT, "too_many_entries"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::InForceNotKept(_) => (StatusCode::SERVICE_UNAVAILABLE, "in_force_not_kept"),
        }
    }

    fn is_in_force(&self) -> bool {
        matches!(self, Self::InForceNotKept(_))
    }
}
