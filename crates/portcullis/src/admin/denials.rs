//! `/v1/denials`: the last refusals, and why.

use std::sync::Weak;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router, middleware};
use http::StatusCode;
use portcullis_gateway::{Denial, DenialFilter, Gateway};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer;
use super::changes::{ended, token_only};
use super::problem::problem;

/// How many are told where nothing is said, and at most.
const SOME: usize = 50;
const MOST: usize = 1_000;

/// The service.
pub(super) fn router(gateway: Weak<Gateway>) -> Router {
    Router::new()
        .route("/v1/denials", get(list))
        .route("/v1/denials/{request_id}", get(show))
        .route_layer(middleware::from_fn_with_state(gateway.clone(), token_only))
        .with_state(gateway)
}

/// Which are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    api: Option<String>,
    reason: Option<String>,
    limit: Option<usize>,
}

async fn list(State(gateway): State<Weak<Gateway>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let Query(Asked { api, reason, limit }) = match asked {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "unfit", &why.body_text()),
    };
    let most = limit.unwrap_or(SOME).min(MOST);
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let denials = gateway.denials(&DenialFilter { request_id: None, api, reason, most }).await;
    let denials: Vec<Value> = denials.iter().map(Denial::to_json).collect();
    answer(StatusCode::OK, Json(json!({ "denials": denials })))
}

async fn show(State(gateway): State<Weak<Gateway>>, Path(request_id): Path<String>) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    let filter = DenialFilter { request_id: Some(request_id), most: 1, ..DenialFilter::default() };
    match gateway.denials(&filter).await.first() {
        Some(denial) => answer(StatusCode::OK, Json(denial.to_json())),
        None => {
            let why = "no refusal of this id is remembered: it passed, or it is too long ago";
            problem(StatusCode::NOT_FOUND, "unknown_request", why)
        }
    }
}
