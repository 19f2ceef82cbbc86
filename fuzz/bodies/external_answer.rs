//! What is done with the answer of a service that decides, and what must hold whatever it is.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use portcullis_authn::{ExternalAnswer, grpc_answer, http_answer};
use portcullis_core::FetchResponse;

/// Members of a `CheckResponse` that must take away whatever it allowed: an empty `denied_response`, and the status
/// `PERMISSION_DENIED`.
const REFUSALS: [&[u8]; 2] = [b"\x12\x00", b"\x0a\x02\x08\x07"];

/// Reads an answer: the message of a gRPC answer behind a zero byte, else a status, fields and a body over HTTP.
pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, message)) => over_grpc(message),
        _ => over_http(bytes),
    }
}

/// Only a 2xx allows and only 401 and 403 deny. What an answer names is a name.
fn over_http(bytes: &[u8]) {
    let Some(response) = read(bytes) else { return };
    let status = response.status;
    for subject in ["header.x-user", "body.sub", "body.user.name", "elsewhere"] {
        match http_answer(response.clone(), subject) {
            ExternalAnswer::Allows(named) => {
                assert!(status.is_success(), "{status}");
                assert_named(named.as_deref());
            }
            ExternalAnswer::Denies => {
                assert!([StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status), "{status}");
            }
            ExternalAnswer::Nothing => {}
        }
    }
}

/// Whatever a message allows, it does not allow together with a refusal.
fn over_grpc(message: &[u8]) {
    let answer = grpc_answer(Bytes::copy_from_slice(message), "header.x-user");
    let ExternalAnswer::Allows(named) = answer else { return };
    assert_named(named.as_deref());
    for refusal in REFUSALS {
        let both = [message, refusal].concat();
        let answer = grpc_answer(both.into(), "header.x-user");
        assert!(!matches!(answer, ExternalAnswer::Allows(_)), "{answer:?}");
    }
}

fn assert_named(named: Option<&str>) {
    if let Some(name) = named {
        assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}");
    }
}

/// A status line of digits, fields, an empty line, the body.
fn read(bytes: &[u8]) -> Option<FetchResponse> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 2..)?);
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut response = FetchResponse::ok(body.to_vec());
    response.status = StatusCode::from_bytes(lines.next()?).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?;
        response.headers.append(name, value);
    }
    Some(response)
}
