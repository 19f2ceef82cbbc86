//! `/v1/limits` and `/v1/usage`: the limits in force, and where a caller stands with them.

use std::net::IpAddr;
use std::sync::Weak;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use portcullis_core::Rejection;
use portcullis_gateway::{ApiLimits, Caller, CallerUsage, Gateway, UsageError};
use portcullis_policy::Usage;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer;
use super::changes::ended;
use super::openapi::guarded;
use super::problem::{Refusal, problem, refused};

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> OpenApiRouter {
    let router = OpenApiRouter::new().routes(routes!(limits)).routes(routes!(usage));
    guarded(router, gateway.clone(), &[]).with_state(gateway)
}

/// A limit.
#[derive(Serialize, ToSchema)]
struct Limit {
    api: String,
    name: String,
    /// The plan it is of; absent where it is the API's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    /// `rate` or `quota`.
    kind: &'static str,
    /// Units in the window; the most there can be where callers have counts of their own.
    limit: u64,
    window_seconds: f64,
    /// What it counts by, as in policy files.
    per: Vec<String>,
    /// Whether it is tried, and refuses nothing.
    shadow: bool,
}

/// All limits.
#[derive(Serialize, ToSchema)]
struct Limits {
    limits: Vec<Limit>,
}

const fn kind(is_quota: bool) -> &'static str {
    if is_quota { "quota" } else { "rate" }
}

/// The limits in force, of all APIs and plans. They are changed in the policy files.
#[utoipa::path(
    get, path = "/v1/limits", operation_id = "listLimits", tag = "limits",
    responses((status = 200, description = "They.", body = Limits)),
)]
async fn limits(State(gateway): State<Weak<Gateway>>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let of = |ApiLimits { api, limits }: ApiLimits| {
        limits.into_iter().map(move |(view, plan)| Limit {
            api: api.to_string(),
            name: view.name.to_string(),
            plan: plan.map(|plan| plan.to_string()),
            kind: kind(view.is_quota),
            limit: view.limit,
            window_seconds: view.window.as_secs_f64(),
            per: view.per,
            shadow: view.is_shadow,
        })
    };
    answer(StatusCode::OK, Json(Limits { limits: gateway.limits().into_iter().flat_map(of).collect() }))
}

/// Whose usage is asked for. What is not said is not known, and limits that count by it are told without a number.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// The API.
    api: String,
    /// The registered client.
    client: Option<String>,
    /// The caller's key, where it is no registered client: `jwt:ISSUER:SUBJECT`, `oauth_client:ISSUER:CLIENT`.
    caller: Option<String>,
    /// The caller's group, where limits differ by it.
    group: Option<String>,
    /// The caller's address.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
}

/// Where the caller stands with one limit.
#[derive(Serialize, ToSchema)]
struct Standing {
    name: String,
    /// `rate` or `quota`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Units in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<f64>,
    /// Units that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    /// Seconds until all are there again; absent if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_seconds: Option<f64>,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

/// Where the caller stands.
#[derive(Serialize, ToSchema)]
struct Standings {
    /// The caller's plans; absent where the API takes none, or where they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    plans: Option<Vec<String>>,
    /// The reason for which the caller would be refused for want of plans; those a token names are not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_plans: Option<&'static str>,
    limits: Vec<Standing>,
}

impl Refusal for UsageError {
    fn refusal(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownApi => (StatusCode::NOT_FOUND, "unknown_api"),
            Self::UnknownClient => (StatusCode::NOT_FOUND, "unknown_client"),
        }
    }
}

/// Where a caller stands with the limits of an API. Nothing is counted.
#[utoipa::path(
    get, path = "/v1/usage", operation_id = "showUsage", tag = "limits", params(Asked),
    responses((status = 200, description = "How much is left.", body = Standings)),
)]
async fn usage(
    State(gateway): State<Weak<Gateway>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Query(Asked { api, client, caller, group, address }) = match asked {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "unfit", &why.body_text()),
    };
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let caller = Caller { key: caller, client, group, address };
    match gateway.usage_of(&api, &caller).await {
        Ok(usage) => answer(StatusCode::OK, Json(Standings::from(usage))),
        Err(error) => refused(&error),
    }
}

impl From<CallerUsage> for Standings {
    fn from(CallerUsage { plans, no_plans, limits }: CallerUsage) -> Self {
        Self {
            plans: plans.map(|plans| plans.iter().map(ToString::to_string).collect()),
            no_plans: no_plans.map(|reason| reason.code()),
            limits: limits.into_iter().map(|(name, usage)| standing(name.to_string(), usage)).collect(),
        }
    }
}

fn standing(name: String, usage: Result<Usage, Rejection>) -> Standing {
    match usage {
        Ok(Usage { is_quota, limit, window, remaining, reset, .. }) => Standing {
            name,
            kind: Some(kind(is_quota)),
            limit: Some(limit),
            window_seconds: Some(window.as_secs_f64()),
            remaining: Some(remaining),
            reset_seconds: reset.map(|reset| reset.as_secs_f64().ceil()),
            unknown: None,
        },
        Err(rejection) => {
            let inner = rejection.detail().and_then(|detail| detail.inner.clone());
            Standing {
                name,
                kind: None,
                limit: None,
                window_seconds: None,
                remaining: None,
                reset_seconds: None,
                unknown: Some(inner.unwrap_or_else(|| rejection.reason().code().to_owned())),
            }
        }
    }
}
