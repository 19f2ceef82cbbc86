//! `/v1/denials`: the last refusals, and why.

use std::sync::Weak;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use portcullis_gateway::{Denial, DenialFilter, Gateway};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer;
use super::changes::ended;
use super::openapi::guarded;
use super::problem::problem;

/// How many are told where nothing is said, and at most.
const SOME: usize = 50;
const MOST: usize = 1_000;

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> OpenApiRouter {
    let router = OpenApiRouter::new().routes(routes!(list)).routes(routes!(show));
    guarded(router, gateway.clone(), &[]).with_state(gateway)
}

/// Which are asked for.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Those of this API.
    api: Option<String>,
    /// Those for this reason, or that a chain in shadow would have made for it.
    reason: Option<String>,
    /// How many at most: 50 where nothing is said, and never more than 1000.
    limit: Option<usize>,
}

/// The last refusals.
#[derive(Serialize, ToSchema)]
struct Denials {
    /// The latest first.
    denials: Vec<Denial>,
}

/// The last refusals, and why.
#[utoipa::path(
    get, path = "/v1/denials", operation_id = "listDenials", tag = "denials", params(Asked),
    responses((status = 200, description = "Those that are remembered.", body = Denials)),
)]
async fn list(State(gateway): State<Weak<Gateway>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let Query(Asked { api, reason, limit }) = match asked {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "unfit", &why.body_text()),
    };
    let most = limit.unwrap_or(SOME).min(MOST);
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let denials = gateway.denials(&DenialFilter { request_id: None, api, reason, most }).await;
    answer(StatusCode::OK, Json(Denials { denials }))
}

/// One refusal, by the id of its request.
#[utoipa::path(
    get, path = "/v1/denials/{request_id}", operation_id = "showDenial", tag = "denials",
    params(("request_id" = String, Path, description = "The request's id.")),
    responses((status = 200, description = "The refusal.", body = Denial)),
)]
async fn show(State(gateway): State<Weak<Gateway>>, Path(request_id): Path<String>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let filter = DenialFilter { request_id: Some(request_id), most: 1, ..DenialFilter::default() };
    match gateway.denials(&filter).await.first() {
        Some(denial) => answer(StatusCode::OK, Json(denial)),
        None => {
            let why = "no refusal of this id is remembered: it passed, or it is too long ago";
            problem(StatusCode::NOT_FOUND, "unknown_request", why)
        }
    }
}
