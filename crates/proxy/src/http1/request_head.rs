//! The head of a request as it goes out on HTTP/1.1.

use std::io::Write as _;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Uri, Version};
use http_body::Body;

use crate::error::ForwardError;
use crate::upstream::Origin;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It goes out in chunks.
    Chunked,
}

/// Writes origin-form target, `Host`, one framing field, and all other fields as they are; says how the body is framed.
///
/// The target is the caller's path and query, byte for byte; `Host` is the caller's.
///
/// SECURITY: the framing the upstream sees is derived from the body we hold, never from the caller's fields, so the two
/// cannot disagree about where the request ends. Fields about the connection are not passed on even if one was left:
/// the connection is ours.
///
/// # Errors
/// [`ForwardError::HostInvalid`], [`ForwardError::TunnelRefused`]; part of the head may then have been written.
pub(crate) fn write<B: Body>(
    out: &mut Vec<u8>,
    head: &Parts,
    body: &B,
    origin: &Origin,
) -> Result<Framing, ForwardError> {
    if head.method == Method::CONNECT {
        return Err(ForwardError::TunnelRefused);
    }
    let target = target(&head.uri);
    // SECURITY: `Uri` holds neither white space nor controls. If ever it did, the rest of the target would be read as
    // fields, or as a request of its own.
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(ForwardError::HostInvalid);
    }
    for part in [head.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    field(out, &HOST, host(head, origin)?);
    let crumbs = head.version == Version::HTTP_2;
    for (name, value) in &head.headers {
        if is_ours(name) || (crumbs && *name == COOKIE) {
            continue;
        }
        field(out, name, value.as_bytes());
    }
    if crumbs {
        join_cookies(out, &head.headers);
    }
    Ok(frame(out, &head.method, body))
}

fn target(uri: &Uri) -> &str {
    match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        Some(target) if !target.is_empty() => target,
        _ => "/",
    }
}

fn host<'a>(head: &'a Parts, origin: &'a Origin) -> Result<&'a [u8], ForwardError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.as_bytes()),
        (Some(_), Some(_)) => Err(ForwardError::HostInvalid),
        (None, _) => Ok(match head.uri.authority() {
            Some(authority) => authority.as_str().as_bytes(),
            None => origin.authority_value.as_bytes(),
        }),
    }
}

/// Fields that are written by us or not at all. `TE` would have to be named by a `Connection` field of ours; no trailers
/// are asked of an HTTP/1.1 upstream, and none are sent to it.
fn is_ours(name: &HeaderName) -> bool {
    *name == HOST
        || *name == CONTENT_LENGTH
        || *name == TRANSFER_ENCODING
        || *name == CONNECTION
        || *name == TE
        || *name == TRAILER
        || *name == UPGRADE
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// HTTP/2 may split `Cookie` into crumbs; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut before: &[u8] = b"cookie: ";
    for crumb in headers.get_all(COOKIE) {
        out.extend_from_slice(before);
        out.extend_from_slice(crumb.as_bytes());
        before = b"; ";
    }
    if headers.contains_key(COOKIE) {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the framing field and the end of the head.
fn frame<B: Body>(out: &mut Vec<u8>, method: &Method, body: &B) -> Framing {
    // Servers expect a length where the method means to send something, even if it is nothing (RFC 9110 section 8.6).
    let expects_content = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    let framing = match body.size_hint().exact() {
        _ if body.is_end_stream() => Framing::None,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    match framing {
        Framing::None if expects_content => out.extend_from_slice(b"content-length: 0\r\n\r\n"),
        Framing::None => out.extend_from_slice(b"\r\n"),
        Framing::Length(length) => {
            // Writing to memory cannot fail.
            let _ = write!(out, "content-length: {length}\r\n\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
    }
    framing
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};
    use serde_json::json;

    use super::{Framing, write};
    use crate::ForwardError;
    use crate::rig::{TestBody, body, no_body, upstream};

    fn written(request: Request<TestBody>) -> Result<(String, Framing), ForwardError> {
        let upstream = upstream(json!({ "urls": "http://accounts:8080" }));
        let (head, body) = request.into_parts();
        let mut out = Vec::new();
        let framing = write(&mut out, &head, &body, &upstream.definition().endpoints[0])?;
        Ok((String::from_utf8(out).unwrap(), framing))
    }

    fn request(version: Version, target: &str, fields: &[(&str, &str)], body: TestBody) -> Request<TestBody> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(body).unwrap()
    }

    #[test]
    fn head_of_a_request() {
        for (version, target, fields, expected) in [
            (Version::HTTP_11, "/a?b", &[("host", "h")][..], "GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n"),
            (Version::HTTP_10, "/a", &[("host", "h")], "GET /a HTTP/1.1\r\nhost: h\r\n\r\n"),
            (Version::HTTP_11, "http://h/a?b", &[("host", "h")], "GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n"),
            (Version::HTTP_11, "http://h", &[("host", "h")], "GET / HTTP/1.1\r\nhost: h\r\n\r\n"),
            (Version::HTTP_2, "https://h:1/a", &[], "GET /a HTTP/1.1\r\nhost: h:1\r\n\r\n"),
            (Version::HTTP_11, "/a", &[], "GET /a HTTP/1.1\r\nhost: accounts:8080\r\n\r\n"),
            (Version::HTTP_11, "*", &[("host", "h")], "GET * HTTP/1.1\r\nhost: h\r\n\r\n"),
            // RFC 9113 section 8.2.3: crumbs are joined where they may have been split.
            (
                Version::HTTP_2,
                "https://h/",
                &[("cookie", "a=1"), ("cookie", "b=2"), ("x", "y"), ("cookie", "c=3")],
                "GET / HTTP/1.1\r\nhost: h\r\nx: y\r\ncookie: a=1; b=2; c=3\r\n\r\n",
            ),
            (
                Version::HTTP_11,
                "/",
                &[("a", "1"), ("host", "h"), ("a", "2"), ("b", "")],
                "GET / HTTP/1.1\r\nhost: h\r\na: 1\r\na: 2\r\nb: \r\n\r\n",
            ),
            // The connection is ours, and there is no body, so there is no framing to speak of.
            (
                Version::HTTP_11,
                "/",
                &[
                    ("host", "h"),
                    ("te", "trailers"),
                    ("content-length", "5"),
                    ("transfer-encoding", "chunked"),
                    ("connection", "x"),
                    ("upgrade", "h2c"),
                    ("trailer", "x"),
                ],
                "GET / HTTP/1.1\r\nhost: h\r\n\r\n",
            ),
        ] {
            let request = request(version, target, fields, no_body());
            assert_eq!(written(request), Ok((expected.to_owned(), Framing::None)), "{target}");
        }
    }

    #[test]
    fn framing_is_the_bodys_own_whatever_the_fields_say() {
        for fields in [
            &[("content-length", "5")][..],
            &[("content-length", "6")],
            &[("content-length", "+5")],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5"), ("content-length", "4")],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[],
        ] {
            let request = request(Version::HTTP_11, "http://h/", fields, body("hello"));
            let expected = "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n".to_owned();
            assert_eq!(written(request), Ok((expected, Framing::Length(5))), "{fields:?}");
        }
        for (method, field) in
            [("POST", "content-length: 0\r\n"), ("PUT", "content-length: 0\r\n"), ("DELETE", "")]
        {
            let mut request = request(Version::HTTP_2, "http://h/", &[], no_body());
            *request.method_mut() = method.parse().unwrap();
            let expected = format!("{method} / HTTP/1.1\r\nhost: h\r\n{field}\r\n");
            assert_eq!(written(request), Ok((expected, Framing::None)));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let two = request(Version::HTTP_11, "/", &[("host", "a"), ("host", "b")], no_body());
        assert_eq!(written(two), Err(ForwardError::HostInvalid));
        let mut tunnel = request(Version::HTTP_11, "/", &[("host", "a")], no_body());
        *tunnel.method_mut() = http::Method::CONNECT;
        assert_eq!(written(tunnel), Err(ForwardError::TunnelRefused));
    }
}
