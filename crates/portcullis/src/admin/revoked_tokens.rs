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
use portcullis_gateway::{EventKind, Gateway, RevokeError};
use serde_json::{Value, json};

use super::changes::{Action, Made, change, look, not_json, token_only};
use super::problem::{Refusal, refused};
use super::{Admin, answer, refused_calls};

/// Most entries of one call.
const MOST: usize = 1_000;
/// The largest entry there can be has three names of 255 bytes.
const MOST_BYTES: usize = MOST * 1024;

/// The service.
pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/issuers/{issuer}/revoked-tokens", get(list).post(add).delete(remove_all))
        .route("/v1/issuers/{issuer}/revoked-tokens/{id}", delete(remove))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .route_layer(middleware::from_fn_with_state(admin.gateway.clone(), token_only))
        .route_layer(middleware::from_fn_with_state(admin.clone(), refused_calls::write_down))
        .with_state(admin)
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
        let all: Vec<Value> = entries.iter().map(|entry| shown(&entry.id(), entry)).collect();
        let new: Vec<&Value> =
            all.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(one, _)| one).collect();
        let status = if new.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
        let note = (!new.is_empty()).then(|| json!(new).to_string());
        let told = match all.first() {
            Some(one) if !is_list => one.clone(),
            _ => json!({ "new": new.len(), "entries": all }),
        };
        Ok::<_, RevokeError>(Made { answer: answer(status, Json(told)), note })
    };
    change(&admin, Action { kind: EventKind::TokenRevoked, name: "tokens revoked", takes: true }, of, make)
        .await
}

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

async fn remove_all(State(admin): State<Admin>, Path(issuer): Path<String>) -> Response {
    let of = issuer.clone();
    let make = move |gateway: &Gateway| {
        let count = gateway.take_all_back(&issuer)?;
        let note = (count > 0).then(|| format!("all {count}"));
        let told = json!({ "taken_back": count });
        Ok::<_, RevokeError>(Made { answer: answer(StatusCode::OK, Json(told)), note })
    };
    change(
        &admin,
        Action { kind: EventKind::TokenRevoked, name: "revocation taken back", takes: false },
        of,
        make,
    )
    .await
}

fn shown(id: &str, entry: &RevokedEntry) -> Value {
    json!({ "id": id, "entry": entry.to_json() })
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
