//! Asking in Envoy's external authorization protocol, version 3.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue as Field};
use portcullis_core::json::{Object, Value};
use portcullis_core::{PeerCertificate, Reason, Rejection, SubjectAlternativeName, UnaryCall};
use prost::Message as _;

use super::answer::{Allowed, Denied, MAX_ANSWER, Verdict};
use super::messages::{
    Address, Attributes, CHECK, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue,
    HeaderValueOption, HttpRequest, HttpStatus, Kind, OkHttpResponse, Peer, Request, SocketAddress, Status,
    Struct, StructValue, Timestamp, TlsSession,
};
use super::question::Question;

/// The number in the dynamic metadata that says how many seconds the answer counts.
const MAX_AGE: &str = "cache_max_age";

/// How deep metadata may be nested.
const DEPTH: usize = 8;

/// gRPC's UNAUTHENTICATED and PERMISSION_DENIED.
const UNAUTHENTICATED: i32 = 16;
const PERMISSION_DENIED: i32 = 7;

/// The message of an answer that allows with this metadata, or denies with a status, and these headers.
pub(super) fn reply(verdict: Result<&[(String, String)], i32>, headers: &[(String, String)]) -> Bytes {
    let headers = || {
        let field = |(key, value): &(String, String)| HeaderValueOption {
            header: Some(HeaderValue { key: key.clone(), value: value.clone(), raw_value: Bytes::new() }),
        };
        headers.iter().map(field).collect()
    };
    let text = |(name, value): &(String, String)| {
        (name.clone(), StructValue { kind: Some(Kind::Text(value.clone())) })
    };
    let response = match verdict {
        Ok(metadata) => CheckResponse {
            status: Some(Status { code: 0 }),
            denied_response: None,
            ok_response: Some(OkHttpResponse { headers: headers() }),
            dynamic_metadata: Some(Struct { fields: metadata.iter().map(text).collect() }),
        },
        Err(status) => CheckResponse {
            status: Some(Status { code: PERMISSION_DENIED }),
            denied_response: Some(DeniedHttpResponse {
                status: Some(HttpStatus { code: status }),
                headers: headers(),
                body: String::new(),
            }),
            ok_response: None,
            dynamic_metadata: None,
        },
    };
    response.encode_to_vec().into()
}

/// The call that asks.
pub(super) fn call(context: &[(String, String)], timeout: Duration, question: Question<'_>) -> UnaryCall {
    let certificate = question.certificate;
    let source = Peer {
        address: Some(Address {
            socket_address: Some(SocketAddress {
                address: question.address.clone(),
                port_value: u32::from(question.port),
            }),
        }),
        principal: certificate.map(principal).unwrap_or_default(),
        certificate: certificate.map(escaped_pem).unwrap_or_default(),
    };
    let time = Timestamp {
        seconds: question.unix_ms.div_euclid(1000),
        nanos: i32::try_from(question.unix_ms.rem_euclid(1000) * 1_000_000).unwrap_or_default(),
    };
    let tls_session = question.server_name.map(|sni| TlsSession { sni: sni.to_owned() });
    let attributes = Attributes {
        source: Some(source),
        request: Some(Request { time: Some(time), http: Some(http_request(question)) }),
        context_extensions: context.iter().cloned().collect(),
        tls_session,
    };
    let message = CheckRequest { attributes: Some(attributes) }.encode_to_vec();
    UnaryCall { path: CHECK, message: message.into(), max_bytes: MAX_ANSWER, timeout }
}

fn http_request(question: Question<'_>) -> HttpRequest {
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in &question.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    for (name, value) in [
        (":method", question.method),
        (":path", question.target),
        (":authority", question.host.as_str()),
        (":scheme", question.scheme),
    ] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let size = question.content.as_ref().map_or(-1, |content| i64::try_from(content.len()).unwrap_or(-1));
    let (body, raw_body) =
        match question.content.map(|content| (String::from_utf8(content.to_vec()), content)) {
            None => (String::new(), Bytes::new()),
            Some((Ok(text), _)) => (text, Bytes::new()),
            Some((Err(_), raw)) => (String::new(), raw),
        };
    HttpRequest {
        method: question.method.to_owned(),
        headers,
        path: question.target.to_owned(),
        host: question.host,
        scheme: question.scheme.to_owned(),
        size,
        protocol: question.protocol.to_owned(),
        body,
        raw_body,
    }
}

/// What the caller's certificate calls it: the first URI, then the first DNS name, then the subject.
fn principal(certificate: &PeerCertificate) -> String {
    let names = &certificate.alternative_names;
    let uri = names.iter().find_map(|name| match name {
        SubjectAlternativeName::Uri(uri) => Some(uri.to_string()),
        _ => None,
    });
    let dns = || {
        names.iter().find_map(|name| match name {
            SubjectAlternativeName::Dns(dns) => Some(dns.to_string()),
            _ => None,
        })
    };
    uri.or_else(dns).unwrap_or_else(|| certificate.subject_text.to_string())
}

/// PEM in percent-encoding, the form in which Envoy tells certificates.
fn escaped_pem(certificate: &PeerCertificate) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = STANDARD.encode(&certificate.der);
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    let mut escaped = String::with_capacity(pem.len() + 64);
    for byte in pem.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _written = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Reads an answer. SECURITY: status OK allows; otherwise only a 401 or 403 that the answer names, or a status of the
/// call that means the same, denies. A service that is broken says nothing about the caller.
///
/// # Errors
/// The answer is none of these, or cannot be read.
pub(super) fn verdict(message: Bytes) -> Result<Verdict, Rejection> {
    let unusable = |why: String| Rejection::new(Reason::ExternalUnavailable).because(why);
    let response = CheckResponse::decode(message)
        .map_err(|error| unusable(format!("the external service's answer cannot be read: {error}")))?;
    let status =
        response.status.ok_or_else(|| unusable("the external service's answer has no status".into()))?;
    if status.code != 0 {
        return denied(status.code, response.denied_response)
            .map(Verdict::Denied)
            .ok_or_else(|| unusable(format!("the external service answered with status {}", status.code)));
    }
    if response.denied_response.is_some() {
        return Err(unusable("the external service allows and denies".into()));
    }
    let headers = fields(response.ok_response.map(|ok| ok.headers).unwrap_or_default())
        .ok_or_else(|| unusable("the external service's answer has fields that are none".into()))?;
    let members = response.dynamic_metadata.unwrap_or_default();
    let counts_for = members.fields.get(MAX_AGE).map(|value| match value.kind {
        // SECURITY: what is no time, such as a negative one, is none to remember an answer for.
        Some(Kind::Number(seconds)) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        _ => Duration::ZERO,
    });
    let members = object(&members, DEPTH)
        .ok_or_else(|| unusable("the external service's metadata is nested too deeply".into()))?;
    Ok(Verdict::Allowed(Allowed { headers, members, counts_for }))
}

fn denied(code: i32, response: Option<DeniedHttpResponse>) -> Option<Denied> {
    let response = response.unwrap_or_default();
    let status = match response.status.map_or(0, |status| status.code) {
        0 if code == UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        0 if code == PERMISSION_DENIED => StatusCode::FORBIDDEN,
        status => StatusCode::from_u16(u16::try_from(status).ok()?).ok()?,
    };
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return None;
    }
    let mut headers = fields(response.headers)?;
    if !headers.contains_key(CONTENT_TYPE) && !response.body.is_empty() {
        headers.insert(CONTENT_TYPE, Field::from_static("text/plain"));
    }
    let unauthenticated = status == StatusCode::UNAUTHORIZED;
    Some(Denied { unauthenticated, headers, body: response.body.into() })
}

/// The fields of an answer; `None` if one of them is no field.
fn fields(options: Vec<HeaderValueOption>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in options.into_iter().filter_map(|option| option.header) {
        let name = HeaderName::from_bytes(header.key.as_bytes()).ok()?;
        let value =
            if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value.to_vec() };
        headers.append(name, Field::from_bytes(&value).ok()?);
    }
    Some(headers)
}

/// Metadata as JSON.
fn object(metadata: &Struct, depth: usize) -> Option<Object> {
    let depth = depth.checked_sub(1)?;
    metadata.fields.iter().map(|(name, member)| Some((name.as_str().into(), value(member, depth)?))).collect()
}

fn value(member: &StructValue, depth: usize) -> Option<Value> {
    Some(match &member.kind {
        None | Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Number(number)) => whole(*number).map_or(Value::Number(*number), Value::Integer),
        Some(Kind::Text(text)) => Value::Text(text.as_str().into()),
        Some(Kind::Bool(bool)) => Value::Bool(*bool),
        Some(Kind::Struct(members)) => Value::Object(std::sync::Arc::new(object(members, depth)?)),
        Some(Kind::List(list)) => {
            let depth = depth.checked_sub(1)?;
            Value::List(list.values.iter().map(|item| value(item, depth)).collect::<Option<_>>()?)
        }
    })
}

/// A number without fraction that a double holds exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = number.fract() == 0.0 && (-EXACT..=EXACT).contains(&number);
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 53 bits")]
    exact.then_some(number as i64)
}
