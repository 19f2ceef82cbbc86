//! The admin listener: is it alive, is it ready, and how is it doing.
//!
//! SECURITY: there is no authentication here, so the policies may only name a loopback address, and every
//! request must be for a loopback host: a web page that had its own name resolve to 127.0.0.1 would send that
//! name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

/// The format Prometheus asks for.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One thing that must be well before the gateway can do its work.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// What is looked at (`issuer bank-idp`).
    pub(crate) name: String,
    /// Whether it is well.
    pub(crate) ready: bool,
    /// What there is to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// What the admin listener shows.
pub(crate) trait Observed: Send + Sync + 'static {
    /// Every check, well or not.
    fn checks(&self) -> Vec<Check>;

    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// The service.
pub(crate) fn router(observed: Arc<dyn Observed>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(loopback_host_only))
        .with_state(observed)
}

/// The process answers, which is all this says. A restart would mend nothing that `/readyz` reports.
async fn livez() -> Response {
    answer(StatusCode::OK, Json(json!({ "alive": true })))
}

async fn readyz(State(observed): State<Arc<dyn Observed>>) -> Response {
    let checks = observed.checks();
    let ready = checks.iter().all(|check| check.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, Json(json!({ "ready": ready, "checks": checks })))
}

async fn metrics(State(observed): State<Arc<dyn Observed>>) -> Response {
    answer(StatusCode::OK, ([(CONTENT_TYPE, PROMETHEUS_TEXT)], observed.metrics()))
}

fn answer(status: StatusCode, body: impl axum::response::IntoResponse) -> Response {
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}

async fn loopback_host_only(request: Request, next: Next) -> Response {
    if names_loopback(request.headers()) {
        next.run(request).await
    } else {
        answer(StatusCode::FORBIDDEN, "the admin listener answers requests for a loopback host only\n")
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    // User information never belongs in `Host`.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The line of the ready message that says where the admin listener is.
pub(crate) fn ready_line(address: SocketAddr) -> String {
    format!("ready admin address={address}\n")
}
