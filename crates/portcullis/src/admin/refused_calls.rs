//! Calls that would change something and are refused before anything is tried, in the audit log.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};

use super::Admin;
use super::problem::Code;
use crate::audit::{Audit, Outcome};

/// On an answer whose call is in the audit log already.
#[derive(Clone, Copy)]
pub(super) struct WrittenDown;

/// Writes down each call that is refused and that nobody else has written down.
pub(super) async fn write_down(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let Some(audit) = admin.audit.filter(|_| !request.method().is_safe()) else {
        return next.run(request).await;
    };
    // SECURITY: the path as it is declared, and not as it was called: it may hold a key that was put where its id belongs.
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let of = match path {
        Some(path) => format!("{} {path}", word(request.method())),
        None => word(request.method()).to_owned(),
    };
    let mut response = next.run(request).await;
    let (status, extensions) = (response.status(), response.extensions());
    let is_refused = status.is_client_error() || status.is_server_error();
    if is_refused && extensions.get::<WrittenDown>().is_none() {
        let why = extensions.get::<Code>().map_or_else(|| status.to_string(), |code| code.0.to_owned());
        // This waits for the disk. Where it cannot be written, the log says so, and nothing was given to anybody.
        let _ = tokio::task::spawn_blocking(move || record(&audit, &of, status, &why)).await;
        response.extensions_mut().insert(WrittenDown);
    }
    response
}

/// SECURITY: a method is a word of the caller's choice, of any length.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "another method",
    }
}

fn record(audit: &Audit, of: &str, status: StatusCode, why: &str) {
    let of = ("call refused", Some(of));
    let written = match status {
        // Nobody has shown a token before a path is found not to take a method.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => {
            audit.record_stranger(of, why)
        }
        StatusCode::INTERNAL_SERVER_ERROR => audit.record(of, Some(why), Outcome::Unknown),
        _ => audit.record(of, Some(why), Outcome::Refused),
    };
    if let Err(error) = written {
        tracing::error!(action = of.0, %error, "the audit log cannot be written");
    }
}
