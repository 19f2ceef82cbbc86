//! How a call of the admin API that may not be is answered (RFC 9457).

use axum::Json;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

use utoipa::ToSchema;

use super::answer;

/// What an answer that says no is sent as.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// On an answer that says no: its code.
#[derive(Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// The body of an answer that says no.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    /// What it is about, for programs: a code keeps its meaning.
    code: &'static str,
    /// What it is about, for people.
    detail: &'a str,
    /// What is wrong with policy files, as `portcullis check --format json` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    faults: Option<&'a Value>,
}

/// Says no.
pub(super) fn problem(status: StatusCode, code: &'static str, detail: &str) -> Response {
    problem_with(status, code, detail, None)
}

fn problem_with(status: StatusCode, code: &'static str, detail: &str, faults: Option<&Value>) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = Problem { kind: "about:blank", title, status: status.as_u16(), code, detail, faults };
    let mut response = answer(status, Json(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response.extensions_mut().insert(Code(code));
    response
}

/// An error of a call, and how it is told.
pub(super) trait Refusal: std::fmt::Display {
    /// Status and code.
    fn refusal(&self) -> (StatusCode, &'static str);

    /// What is wrong with policy files.
    fn faults(&self) -> Option<&Value> {
        None
    }

    /// Whether what was asked for is in force all the same.
    fn is_in_force(&self) -> bool {
        false
    }
}

/// Tells an error.
pub(super) fn refused(error: &impl Refusal) -> Response {
    let (status, code) = error.refusal();
    problem_with(status, code, &error.to_string(), error.faults())
}

/// Tells in the same way what was refused before any of this code was asked.
pub(super) async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_told = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    if !status.is_client_error() || is_told {
        return response;
    }
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("no_such_path", "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => ("no_such_method", "this path has other methods, see `Allow`"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is larger than any that makes sense here"),
        _ => ("unfit", "the request cannot be read"),
    };
    let mut told = problem(status, code, detail);
    if let Some(allow) = response.headers().get(http::header::ALLOW) {
        told.headers_mut().insert(http::header::ALLOW, allow.clone());
    }
    told
}
