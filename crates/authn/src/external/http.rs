//! Asking over HTTP.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use portcullis_core::json::{self, Limits, Object};
use portcullis_core::{FetchRequest, FetchResponse, Reason, Rejection};

use super::answer::{Allowed, Denied, MAX_ANSWER, Verdict};
use super::question::{Question, certificate_field};

/// The fields that tell about the request, beside its own.
pub(super) const OWN_FIELDS: [HeaderName; 6] = [
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-original-scheme"),
    HeaderName::from_static("x-original-address"),
    HeaderName::from_static("x-original-certificate"),
];

/// The request that asks. With content it is a POST, without a GET.
///
/// # Errors
/// What is to be told does not fit into a field.
pub(super) fn request(
    url: &str,
    timeout: Duration,
    question: Question<'_>,
) -> Result<FetchRequest, Rejection> {
    let method = if question.content.is_some() { Method::POST } else { Method::GET };
    let mut request = FetchRequest::new(method, url);
    request.max_bytes = MAX_ANSWER;
    request.connect_timeout = timeout;
    request.total_timeout = timeout;
    let certificate = question.certificate.map(certificate_field);
    let [method, uri, host, scheme, address, shown] = OWN_FIELDS;
    let told = [
        (method, Some(question.method)),
        (uri, Some(question.target)),
        (host, Some(question.host.as_str())),
        (scheme, Some(question.scheme)),
        (address, Some(question.address.as_str())),
        (shown, certificate.as_deref()),
    ];
    request.headers = question.headers;
    for (name, value) in told {
        let Some(value) = value else { continue };
        let value = HeaderValue::from_str(value).map_err(|_unfit| {
            Rejection::new(Reason::CredentialsMalformed).because(format!("`{name}` cannot be told"))
        })?;
        request.headers.insert(name, value);
    }
    request.body = question.content.unwrap_or_default();
    Ok(request)
}

/// Reads an answer. SECURITY: 2xx allows, 401 and 403 deny; whatever else comes back says nothing about the caller,
/// a redirect among it.
///
/// # Errors
/// The answer is none of these, or cannot be read.
pub(super) fn verdict(response: FetchResponse) -> Result<Verdict, Rejection> {
    let unauthenticated = response.status == StatusCode::UNAUTHORIZED;
    if unauthenticated || response.status == StatusCode::FORBIDDEN {
        let denied = Denied { unauthenticated, headers: response.headers, body: response.body };
        return Ok(Verdict::Denied(denied));
    }
    if !response.status.is_success() {
        return Err(Rejection::new(Reason::ExternalUnavailable)
            .because(format!("the external service answered {}", response.status.as_u16())));
    }
    let members = match is_json(&response.headers) && !response.body.is_empty() {
        false => Object::default(),
        true => json::parse_object(&response.body, Limits::default()).map_err(|error| {
            Rejection::new(Reason::ExternalUnavailable)
                .because(format!("the external service's answer is not a JSON object: {error}"))
        })?,
    };
    let counts_for = max_age(&response.headers);
    Ok(Verdict::Allowed(Allowed { headers: response.headers, members, counts_for }))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// The time an answer gives itself (RFC 9111 section 5.2.2). Zero where it does not want to be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut time = None;
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in field.to_str().unwrap_or("no-store").split(',').map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return Some(Duration::ZERO);
            }
            if name.eq_ignore_ascii_case("max-age") {
                let seconds = Duration::from_secs(value.trim_matches('"').parse().unwrap_or(0));
                time = Some(time.map_or(seconds, |other: Duration| other.min(seconds)));
            }
        }
    }
    time
}
