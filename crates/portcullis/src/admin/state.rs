//! `/v1/issuers`, `/v1/certificates` and `/v1/plans`: what is in force, and how it is doing.

use std::sync::Weak;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use portcullis_authn::KeySourceStatus;
use portcullis_gateway::{ExpiryKind, Gateway};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer;
use super::changes::ended;
use super::openapi::guarded;
use super::problem::problem;

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> OpenApiRouter {
    let router = OpenApiRouter::new()
        .routes(routes!(issuers))
        .routes(routes!(refresh))
        .routes(routes!(certificates))
        .routes(routes!(plans));
    guarded(router, gateway.clone(), &[]).with_state(gateway)
}

/// A set of keys that is fetched.
#[derive(Serialize, ToSchema)]
struct KeySet {
    /// Where; the issuer itself where keys are discovered.
    url: String,
    /// The issuer entries that use it.
    issuers: Vec<String>,
    /// The registered clients who publish their keys there.
    clients: Vec<String>,
    /// Keys that can verify something.
    keys: usize,
    /// Entries of the set that were left out.
    skipped: usize,
    /// Whether tokens can be verified with it now.
    usable: bool,
    /// Seconds since the server last said that these are its keys; absent if it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Why the last fetch failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// All sets of keys that are fetched.
#[derive(Serialize, ToSchema)]
struct KeySets {
    key_sets: Vec<KeySet>,
}

impl From<KeySourceStatus> for KeySet {
    fn from(status: KeySourceStatus) -> Self {
        let names = |names: Vec<std::sync::Arc<str>>| names.iter().map(ToString::to_string).collect();
        Self {
            url: status.url.to_string(),
            issuers: names(status.issuers),
            clients: names(status.clients),
            keys: status.keys,
            skipped: status.skipped,
            usable: status.usable,
            age_seconds: status.age.map(|age| age.as_secs()),
            last_error: status.last_error,
        }
    }
}

/// The key sets of issuers and clients, and how they are doing.
#[utoipa::path(
    get, path = "/v1/issuers", operation_id = "listKeySets", tag = "issuers",
    responses((status = 200, description = "Those that are fetched.", body = KeySets)),
)]
async fn issuers(State(gateway): State<Weak<Gateway>>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let key_sets = gateway.key_sources().into_iter().map(KeySet::from).collect();
    answer(StatusCode::OK, Json(KeySets { key_sets }))
}

/// Fetches the keys of an issuer now, whatever callers have caused before, and waits for it for some seconds. It changes
/// nothing that is not on its server.
#[utoipa::path(
    post, path = "/v1/issuers/{issuer}/refresh", operation_id = "refreshKeySet", tag = "issuers",
    params(("issuer" = String, Path, description = "The name of the issuer entry.")),
    responses((status = 200, description = "How they are doing now; `last_error` says if it failed.", body = KeySets)),
)]
async fn refresh(State(gateway): State<Weak<Gateway>>, Path(issuer): Path<String>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let refreshed = gateway.refresh_keys(&issuer).await;
    if refreshed.is_empty() {
        let how = "no issuer of this name has keys that are fetched";
        return problem(StatusCode::NOT_FOUND, "unknown_issuer", how);
    }
    answer(StatusCode::OK, Json(KeySets { key_sets: refreshed.into_iter().map(KeySet::from).collect() }))
}

/// A certificate or revocation list in force.
#[derive(Serialize, ToSchema)]
struct Certificate {
    listener: String,
    /// The file, as it is written in the policy files.
    file: String,
    /// `certificate` or `revocation_list`.
    kind: &'static str,
    /// When it ends, or the next list is due.
    ends: String,
}

/// What listeners show and trust.
#[derive(Serialize, ToSchema)]
struct Certificates {
    certificates: Vec<Certificate>,
}

/// The certificates, authorities and revocation lists of the listeners, those that end first first.
#[utoipa::path(
    get, path = "/v1/certificates", operation_id = "listCertificates", tag = "certificates",
    responses((status = 200, description = "They.", body = Certificates)),
)]
async fn certificates(State(gateway): State<Weak<Gateway>>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let mut expiries = gateway.expiries();
    expiries.sort_by_key(|(_, expiry)| expiry.at);
    let certificates = expiries.into_iter().map(|(listener, expiry)| Certificate {
        listener: listener.to_string(),
        file: expiry.name.to_string(),
        kind: match expiry.kind {
            ExpiryKind::Certificate => "certificate",
            ExpiryKind::RevocationList => "revocation_list",
        },
        ends: Timestamp::from_second(expiry.at).unwrap_or(Timestamp::MAX).to_string(),
    });
    answer(StatusCode::OK, Json(Certificates { certificates: certificates.collect() }))
}

/// A plan.
#[derive(Serialize, ToSchema)]
struct Plan {
    name: String,
    /// Whether whoever has it is refused.
    disabled: bool,
}

/// All plans.
#[derive(Serialize, ToSchema)]
struct Plans {
    plans: Vec<Plan>,
}

/// The plans in force. They are changed in `plans.yaml`.
#[utoipa::path(
    get, path = "/v1/plans", operation_id = "listPlans", tag = "plans",
    responses((status = 200, description = "They.", body = Plans)),
)]
async fn plans(State(gateway): State<Weak<Gateway>>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let plans = gateway.plans().into_iter().map(|(name, disabled)| Plan { name: name.to_string(), disabled });
    answer(StatusCode::OK, Json(Plans { plans: plans.collect() }))
}
