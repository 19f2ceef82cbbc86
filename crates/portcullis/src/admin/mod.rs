//! The admin listener: is it alive, is it ready, how is it doing; and, for those who have the token, changes.
//!
//! SECURITY: on a loopback address whoever reaches it may look, and every request must be for a loopback host: a web page that
//! had its own name resolve to 127.0.0.1 would send that name. Elsewhere it speaks TLS, see `door`.

mod api_keys;
mod changes;
mod clients;
mod config;
mod denials;
pub(crate) mod door;
mod limits;
mod openapi;
mod problem;
mod refused_calls;
mod revoked_tokens;
mod state;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use axum::extract::{FromRef, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use portcullis_gateway::{Check, Gateway};
use serde::Serialize;
use tokio::sync::Notify;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::Audit;

/// The format Prometheus asks for.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The body of `/livez`.
#[derive(Serialize, ToSchema)]
struct Liveness {
    alive: bool,
}

/// The body of `/readyz`.
#[derive(Serialize, ToSchema)]
struct Readiness<'a> {
    /// Whether every check is well.
    ready: bool,
    checks: Vec<ReadinessCheck<'a>>,
}

/// One part of the gateway that may be well or not.
#[derive(Serialize, ToSchema)]
struct ReadinessCheck<'a> {
    name: &'a str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// A text that takes a moment to make.
pub(crate) type Text = Pin<Box<dyn Future<Output = String> + Send>>;

/// What the admin listener shows.
pub(crate) trait Observed: Send + Sync + 'static {
    /// Every check, well or not.
    fn checks(&self) -> Vec<Check>;

    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> Text;
}

/// What can be changed, and where that is written down.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) gateway: Weak<Gateway>,
    pub(crate) audit: Option<Arc<Audit>>,
    /// Told when the process is to end.
    pub(crate) ending: Arc<Notify>,
}

impl FromRef<Admin> for Weak<Gateway> {
    fn from_ref(admin: &Admin) -> Self {
        admin.gateway.clone()
    }
}

/// The service: what is seen of a gateway, and what can be changed in it.
pub(crate) fn router(observed: Arc<dyn Observed>, admin: Admin) -> Router {
    openapi::finished(routes(observed, admin))
        .layer(middleware::from_fn(loopback_host_only))
        .layer(middleware::map_response(problem::as_problem))
}

/// The same for whoever reaches it over TLS.
pub(crate) fn router_over_tls(observed: Arc<dyn Observed>, admin: Admin) -> Router {
    let (gateway, writing) = (admin.gateway.clone(), admin.clone());
    openapi::finished(routes(observed, admin))
        .layer(middleware::from_fn_with_state(gateway, door::known_only))
        .layer(middleware::from_fn_with_state(writing, refused_calls::write_down))
        .layer(middleware::map_response(problem::as_problem))
}

/// Every route, with what the document says of it.
fn routes(observed: Arc<dyn Observed>, admin: Admin) -> OpenApiRouter {
    OpenApiRouter::with_openapi(openapi::beginning())
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .with_state(observed)
        .routes(routes!(openapi::show))
        .merge(revoked_tokens::router(admin.clone()))
        .merge(api_keys::router(admin.clone()))
        .merge(clients::router(admin.clone()))
        .merge(config::router(admin.clone()))
        .merge(state::router(admin.gateway.clone()))
        .merge(limits::router(admin.gateway.clone()))
        .merge(denials::router(admin.gateway))
}

/// The process answers, which is all this says. A restart would mend nothing that `/readyz` reports.
#[utoipa::path(
    get, path = "/livez", operation_id = "isAlive", tag = "health",
    responses((status = 200, description = "It answers.", body = Liveness)),
)]
async fn livez() -> Response {
    answer(StatusCode::OK, Json(Liveness { alive: true }))
}

/// Whether requests can be served, and what stands in the way.
#[utoipa::path(
    get, path = "/readyz", operation_id = "isReady", tag = "health",
    responses(
        (status = 200, description = "Every check is well.", body = Readiness<'_>),
        (status = 503, description = "A check is not well.", body = Readiness<'_>),
    ),
)]
async fn readyz(State(observed): State<Arc<dyn Observed>>) -> Response {
    let checks = observed.checks();
    let ready = checks.iter().all(|check| check.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = checks.iter().map(|Check { name, ready, detail }| ReadinessCheck {
        name,
        ready: *ready,
        detail: detail.as_deref(),
    });
    answer(status, Json(Readiness { ready, checks: checks.collect() }))
}

/// All metrics, as Prometheus asks for them.
#[utoipa::path(
    get, path = "/metrics", operation_id = "showMetrics", tag = "health",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")),
)]
async fn metrics(State(observed): State<Arc<dyn Observed>>) -> Response {
    answer(StatusCode::OK, ([(CONTENT_TYPE, PROMETHEUS_TEXT)], observed.metrics().await))
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
        let how = "the admin listener answers requests for a loopback host only";
        problem::problem(StatusCode::FORBIDDEN, "not_loopback", how)
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
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{Admin, Observed, Text, router};
    use axum::body::Body;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use portcullis_gateway::Check;
    use std::sync::{Arc, Weak};
    use tower::ServiceExt as _;

    struct Fixed {
        ready: bool,
    }

    impl Observed for Fixed {
        fn checks(&self) -> Vec<Check> {
            let detail = (!self.ready).then(|| "no keys yet".to_owned());
            vec![
                Check { name: "store".into(), ready: true, detail: None },
                Check { name: "issuer bank-idp".into(), ready: self.ready, detail },
            ]
        }

        fn metrics(&self) -> Text {
            Box::pin(async { "portcullis_build_info 1\n".into() })
        }
    }

    /// Status and body of a `GET` with these `Host` fields.
    fn answer(ready: bool, path: &str, hosts: &[&str]) -> (StatusCode, String) {
        let request = hosts.iter().fold(Request::get(path), |request, host| request.header("host", *host));
        let request = request.body(Body::empty()).expect("a request");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let response = router(
                Arc::new(Fixed { ready }),
                Admin { gateway: Weak::new(), audit: None, ending: Arc::default() },
            )
            .oneshot(request)
            .await
            .expect("an answer");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            (head.status, String::from_utf8(body.to_vec()).expect("text"))
        })
    }

    #[test]
    fn readiness_is_the_sum_of_its_checks() {
        let (status, body) = answer(true, "/readyz", &["127.0.0.1:9901"]);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            r#"{"ready":true,"checks":[{"name":"store","ready":true},{"name":"issuer bank-idp","ready":true}]}"#
        );
        let (status, body) = answer(false, "/readyz", &["127.0.0.1:9901"]);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            r#"{"ready":false,"checks":[{"name":"store","ready":true},{"name":"issuer bank-idp","ready":false,"detail":"no keys yet"}]}"#
        );
    }

    #[test]
    fn a_gateway_that_is_not_ready_is_alive() {
        assert_eq!(answer(false, "/livez", &["localhost"]).0, StatusCode::OK);
    }

    #[test]
    fn metrics_are_text() {
        assert_eq!(
            answer(true, "/metrics", &["[::1]:9901"]),
            (StatusCode::OK, "portcullis_build_info 1\n".into())
        );
    }

    #[test]
    fn only_loopback_hosts_are_answered() {
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1", "127.1.2.3:1", "[::1]"] {
            assert_eq!(answer(true, "/livez", &[host]).0, StatusCode::OK, "{host}");
        }
        for hosts in [
            &["evil.example"][..],
            &["localhost.evil.example"],
            &["10.0.0.1"],
            &["[::ffff:10.0.0.1]"],
            &["user@localhost"],
            &["localhost", "evil.example"],
            &[""],
            &[],
        ] {
            for path in ["/livez", "/readyz", "/metrics", "/nothing"] {
                assert_eq!(answer(true, path, hosts).0, StatusCode::FORBIDDEN, "{hosts:?} {path}");
            }
        }
    }
}
