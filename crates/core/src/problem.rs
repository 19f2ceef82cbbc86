//! The body of a refusal (RFC 9457).

use crate::{Reason, Rejection};
use serde::Serialize;

/// A problem document. Its members are a public contract.
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    request_id: &'a str,
    #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: Vec<&'a str>,
}

impl<'a> Problem<'a> {
    /// The document for one refusal. Only the outer words of the detail are used.
    pub fn new(rejection: &'a Rejection, request_id: &'a str) -> Self {
        let reason = rejection.reason();
        Self {
            kind: problem_type(reason),
            title: reason.title(),
            status: reason.status().as_u16(),
            code: reason.code(),
            detail: rejection.detail().and_then(|detail| detail.outer.as_deref()),
            request_id,
            violated_policies: rejection
                .detail()
                .map(|detail| detail.violated.iter().map(|limit| &**limit).collect())
                .unwrap_or_default(),
        }
    }

    /// The document as JSON bytes, with a line end for whoever reads it in a terminal.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec());
        json.push(b'\n');
        json
    }
}

/// Limits have a registered problem type (draft-ietf-httpapi-ratelimit-headers section 6); the rest is told
/// apart by `code`.
fn problem_type(reason: Reason) -> &'static str {
    if reason.status() == http::StatusCode::TOO_MANY_REQUESTS {
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    } else {
        "about:blank"
    }
}

#[cfg(test)]
mod tests {
    use super::Problem;
    use crate::{Reason, Rejection};

    #[test]
    fn inner_words_stay_inside() {
        let rejection = Rejection::new(Reason::RateLimited).because("inner").violating("burst".into());
        let json = String::from_utf8(Problem::new(&rejection, "r-1").to_json()).expect("UTF-8");
        assert_eq!(
            json,
            "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\"title\":\"Too many \
             requests.\",\"status\":429,\"code\":\"rate_limited\",\"request_id\":\"r-1\",\"violated-policies\":[\"burst\"]}\n"
        );
    }
}
