//! Who may change something, and how a call that may not is answered.

use std::sync::Weak;

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use portcullis_core::Secret;
use portcullis_gateway::{EventKind, Gateway};
use portcullis_jose::digest::constant_time_eq;
use serde::Serialize;

use super::door::Certified;
use super::problem::{Refusal, problem, refused};
use super::refused_calls::WrittenDown;
use super::{Admin, answer};
use crate::audit::{Audit, Outcome};

/// What a change came to.
pub(super) struct Made {
    /// What whoever asked is told.
    pub(super) answer: Response,
    /// What is written down of it, and is no secret; nothing, if all is as it was.
    pub(super) note: Option<String>,
}

/// What is changed, and how that is called.
pub(super) struct Action {
    pub(super) kind: EventKind,
    pub(super) name: &'static str,
    /// Whether it takes something away. SECURITY: that is made also where it cannot be written down: a full disk must not keep
    /// a stolen key in force.
    pub(super) takes: bool,
}

/// Makes a change on a thread that may wait for the disk, and writes down what was made or why it was not. `of` says what
/// is changed. With an audit log, that somebody asked for it is on the disk before anything is tried.
pub(super) async fn change<E: Refusal + Send + 'static>(
    admin: &Admin,
    action: Action,
    of: String,
    make: impl FnOnce(&Gateway) -> Result<Made, E> + Send + 'static,
) -> Response {
    let Some(gateway) = admin.gateway.upgrade() else { return ended() };
    let audit = admin.audit.clone();
    let made = tokio::task::spawn_blocking(move || {
        // SECURITY: not yet of what: it may be a key that was put where its id belongs.
        let asked = write_down(audit.as_deref(), (action.name, None), None, Outcome::Asked);
        let unwritten = match asked {
            Err(refusal) if !action.takes => return *refusal,
            asked => asked.is_err(),
        };
        let (answer, outcome, what) = make_and_tell(&gateway, &action, &of, make);
        let of = what.as_ref().map(|_| of.as_str());
        // Where this cannot be written, that it was asked for is there, and what came of it is in the log.
        let written = write_down(audit.as_deref(), (action.name, of), what.as_deref(), outcome);
        if unwritten && written.is_err() && outcome == Outcome::Made { in_force_unwritten() } else { answer }
    });
    let Ok(mut answer) = made.await else { return broken() };
    answer.extensions_mut().insert(WrittenDown);
    answer
}

/// What is said of something that was taken away and is not in the audit log.
fn in_force_unwritten() -> Response {
    let how = "it is in force, and could not be written down in the audit log: the disk needs somebody to look at it";
    problem(StatusCode::SERVICE_UNAVAILABLE, "in_force_not_written_down", how)
}

/// The answer, what came of it, and what is written down; nothing of what may be no name.
fn make_and_tell<E: Refusal>(
    gateway: &Gateway,
    Action { kind, name, .. }: &Action,
    of: &str,
    make: impl FnOnce(&Gateway) -> Result<Made, E>,
) -> (Response, Outcome, Option<String>) {
    let why = match make(gateway) {
        Ok(Made { answer, note: None }) => return (answer, Outcome::Unchanged, Some(String::new())),
        Ok(Made { answer, note: Some(what) }) => {
            tracing::info!(action = name, of, what, "changed over the admin API");
            gateway.tell_change(*kind, name, of, &what);
            return (answer, Outcome::Made, Some(what));
        }
        Err(why) => why,
    };
    let (outcome, told) = match why.refusal() {
        _ if why.is_in_force() => {
            tracing::error!(action = name, of, %why, "changed over the admin API");
            gateway.tell_change(*kind, name, of, &why.to_string());
            (Outcome::InForceNotKept, Some(why.to_string()))
        }
        // SECURITY: what nobody knows may be a key that was put where its id belongs.
        (StatusCode::NOT_FOUND, code) => {
            tracing::warn!(action = name, code, "not changed over the admin API");
            (Outcome::Refused, None)
        }
        _ => {
            tracing::warn!(action = name, of, %why, "not changed over the admin API");
            (Outcome::Refused, Some(why.to_string()))
        }
    };
    (refused(&why), outcome, told)
}

fn write_down(
    audit: Option<&Audit>,
    of: (&str, Option<&str>),
    what: Option<&str>,
    outcome: Outcome,
) -> Result<(), Box<Response>> {
    let Some(audit) = audit else { return Ok(()) };
    audit.record(of, what.filter(|what| !what.is_empty()), outcome).map_err(|error| {
        tracing::error!(action = of.0, %error, "the audit log cannot be written");
        let how = "what is changed cannot be written down, so nothing is changed";
        Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", how))
    })
}

/// Looks something up on a thread that may wait for a change that is being made.
pub(super) async fn look<T: Serialize + Send + 'static, E: Refusal + Send + 'static>(
    gateway: &Weak<Gateway>,
    seen: impl FnOnce(&Gateway) -> Result<T, E> + Send + 'static,
) -> Response {
    let Some(gateway) = gateway.upgrade() else { return ended() };
    match tokio::task::spawn_blocking(move || seen(&gateway)).await {
        Ok(Ok(seen)) => answer(StatusCode::OK, Json(seen)),
        Ok(Err(error)) => refused(&error),
        Err(_panicked) => broken(),
    }
}

fn broken() -> Response {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something is broken; the log has more")
}

/// What is said to a body of another type. SECURITY: a form of a web page cannot be JSON without asking first.
pub(super) fn not_json(headers: &HeaderMap) -> Option<Response> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    if essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return None;
    }
    let how = "it is sent as `Content-Type: application/json`";
    Some(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", how))
}

/// What is said when the gateway a call is about is no longer there.
pub(super) fn ended() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "ended", "the gateway is coming to its end")
}

/// SECURITY: on loopback is everybody who has an account on the machine, and every page in its browsers. What changes
/// something, and what tells about callers, is for those who have the token.
pub(super) async fn token_only(
    State(gateway): State<Weak<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let refusal = match gateway.upgrade() {
        None => Some(ended()),
        Some(gateway) => match gateway.admin_token() {
            // Where the policies name no token, the certificate of the connection is what lets in.
            None if request.extensions().get::<Certified>().is_some() => None,
            token => refusal(token.as_ref(), request.headers()),
        },
    };
    match refusal {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// What is said to those who do not show the token.
pub(super) fn refusal(token: Option<&Secret>, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = token else {
        let how = "nobody may change anything: add `token: { file: secrets/admin-token }` to `admin` in gateway.yaml";
        return Some(problem(StatusCode::FORBIDDEN, "no_admin_token", how));
    };
    if shown(headers).is_some_and(|shown| constant_time_eq(shown, token.expose())) {
        return None;
    }
    let how = "show the token of `admin` in gateway.yaml: `Authorization: Bearer …`";
    let challenge = [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"admin\""))];
    Some((challenge, problem(StatusCode::UNAUTHORIZED, "admin_token_wrong", how)).into_response())
}

/// The one token of a request.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use portcullis_core::Secret;

    use super::refusal;

    const TOKEN: &str = "EXAMPLE-0123456789-0123456789-0123";

    fn status(token: Option<&str>, values: &[&str]) -> Option<StatusCode> {
        let token = token.map(|token| Secret::new(token.as_bytes().to_vec()));
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        refusal(token.as_ref(), &headers).map(|response| response.status())
    }

    #[test]
    fn the_token_is_shown_whole_and_once() {
        let good = format!("Bearer {TOKEN}");
        assert_eq!(status(Some(TOKEN), &[&good]), None);
        assert_eq!(status(Some(TOKEN), &[&format!("bEARER {TOKEN}")]), None);
        let shorter = &good[..good.len() - 1];
        for values in [
            &[][..],
            &[shorter],
            &[&format!("{good}4")],
            &[&format!("{good} ")],
            &[&format!("Bearer  {TOKEN}")],
            &[TOKEN],
            &[&format!("Basic {TOKEN}")],
            &["Bearer "],
            &["Bearer"],
            &[&good, &good],
        ] {
            assert_eq!(status(Some(TOKEN), values), Some(StatusCode::UNAUTHORIZED), "{values:?}");
        }
        assert_eq!(status(None, &[&good]), Some(StatusCode::FORBIDDEN), "without a token nobody may");
    }
}
