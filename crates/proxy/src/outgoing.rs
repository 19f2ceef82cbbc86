//! The request as it leaves: its body under limits, its target and framing in the form the next hop needs.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::{Body, Frame, SizeHint};

use crate::error::{BodyFault, ForwardError};
use crate::pool::deadline::{Turn, Watch};
use crate::upstream::Origin;

/// What the caller's body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Longest body, in bytes.
    pub max_bytes: u64,
    /// Longest silence between two parts of it.
    pub idle: Duration,
    /// Longest time for all of it, from the first wait for a part of it: a caller who sends a byte now and then is
    /// never silent, and would keep its connection, the upstream's, and what belongs to them for ever.
    pub total: Duration,
}

/// The caller's body on its way to the upstream.
///
/// SECURITY: trailers are dropped. They come after every check was made, and an upstream that merges them into
/// the head would take identity headers from a caller this way.
#[derive(Debug)]
pub(crate) struct Outgoing<B> {
    body: B,
    limit: u64,
    left: u64,
    watch: Option<Rc<Watch>>,
}

/// Why hyper is to stop sending; the reason itself is left with the watch.
#[derive(Debug, thiserror::Error)]
#[error("the request's body failed")]
pub(crate) struct Stopped;

impl<B: Body> Outgoing<B> {
    /// Puts a body under limits; one that says at once that it is too long is refused at once.
    pub(crate) fn new(body: B, limits: BodyLimits) -> Result<Self, ForwardError> {
        if body.size_hint().lower() > limits.max_bytes {
            return Err(ForwardError::RequestBody(BodyFault::TooLarge(limits.max_bytes)));
        }
        Ok(Self { body, limit: limits.max_bytes, left: limits.max_bytes, watch: None })
    }

    /// Ties the body to the exchange that carries it.
    pub(crate) fn attach(&mut self, watch: &Rc<Watch>) {
        if !self.body.is_end_stream() {
            self.watch = Some(Rc::clone(watch));
        }
    }

    fn turn_to(&self, turn: Turn) {
        if let Some(watch) = &self.watch {
            watch.turn_to(turn);
        }
    }

    fn stop(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        if let Some(watch) = &self.watch {
            watch.note_fault(fault);
        }
        Poll::Ready(Some(Err(Stopped)))
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            this.turn_to(Turn::Caller);
            return Poll::Pending;
        };
        this.turn_to(Turn::Upstream);
        match frame {
            None => Poll::Ready(None),
            Some(Err(error)) => this.stop(BodyFault::Broken(error.to_string())),
            Some(Ok(frame)) => match frame.into_data() {
                Err(_trailers) => Poll::Ready(None),
                Ok(_) if let Some(fault) = this.watch.as_ref().and_then(|watch| watch.overdue_body()) => {
                    this.stop(fault)
                }
                Ok(data) => match this.left.checked_sub(data.len() as u64) {
                    None => this.stop(BodyFault::TooLarge(this.limit)),
                    Some(left) => {
                        this.left = left;
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                },
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Gives a request the form HTTP/1.1 wants: origin-form target, `Host`, one framing field.
///
/// The target is the caller's path and query, byte for byte; `Host` is the caller's. May be applied to a request
/// that was already given the other form.
pub(crate) fn for_http1<B: Body>(request: &mut Request<B>, origin: &Origin) -> Result<(), ForwardError> {
    refuse_tunnel(request)?;
    let inbound = std::mem::replace(request.version_mut(), Version::HTTP_11);
    if !request.headers().contains_key(HOST) {
        let host = match request.uri().authority() {
            Some(authority) => {
                HeaderValue::from_str(authority.as_str()).map_err(|_refused| ForwardError::HostInvalid)?
            }
            None => origin.authority_value.clone(),
        };
        request.headers_mut().insert(HOST, host);
    }
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        (parts.scheme, parts.authority) = (None, None);
        parts.path_and_query = Some(origin_form(parts.path_and_query));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_refused| ForwardError::HostInvalid)?;
    }
    if inbound == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    // `TE` would have to be named by a `Connection` field of ours; no trailers are asked of an HTTP/1.1 upstream.
    request.headers_mut().remove(TE);
    if frame(request) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}

/// Gives a request the form HTTP/2 wants: scheme and authority beside the path, no `Host`, no connection fields.
///
/// `TE: trailers` stays, if [`crate::hygiene`] left it: gRPC servers insist on it (RFC 9113 section 8.2.2).
pub(crate) fn for_http2<B: Body>(request: &mut Request<B>, origin: &Origin) -> Result<(), ForwardError> {
    refuse_tunnel(request)?;
    *request.version_mut() = Version::HTTP_2;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    // SECURITY: scheme and authority come from us and from the `Host` that was routed on, never from a leftover
    // of the inbound target.
    parts.authority = Some(match request.headers_mut().remove(HOST) {
        Some(host) => authority(&host)?,
        None => parts.authority.unwrap_or_else(|| origin.authority.clone()),
    });
    parts.scheme = Some(origin.scheme.clone());
    parts.path_and_query = Some(origin_form(parts.path_and_query));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_refused| ForwardError::HostInvalid)?;
    frame(request);
    Ok(())
}

fn refuse_tunnel<B>(request: &Request<B>) -> Result<(), ForwardError> {
    if request.method() == Method::CONNECT { Err(ForwardError::TunnelRefused) } else { Ok(()) }
}

fn authority(host: &HeaderValue) -> Result<Authority, ForwardError> {
    match Authority::try_from(host.as_bytes()) {
        Ok(authority) if !authority.as_str().contains('@') => Ok(authority),
        _ => Err(ForwardError::HostInvalid),
    }
}

fn origin_form(path: Option<PathAndQuery>) -> PathAndQuery {
    match path {
        Some(path) if !path.as_str().is_empty() => path,
        _ => PathAndQuery::from_static("/"),
    }
}

/// HTTP/2 may split `Cookie` into crumbs; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Parts of valid values with `; ` between them are a valid value.
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

/// Makes the framing fields say what the body is, and returns whether its length is unknown.
///
/// SECURITY: the framing the upstream sees is derived from the body we hold, never from the caller's fields, so
/// the two cannot disagree about where the request ends.
fn frame<B: Body>(request: &mut Request<B>) -> bool {
    let length = request.body().size_hint().exact();
    let ended = request.body().is_end_stream();
    // Servers expect a length where the method means to send something, even if it is nothing (RFC 9110 section 8.6).
    let expects_content = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    match length {
        _ if ended => {
            if expects_content {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            } else {
                headers.remove(CONTENT_LENGTH);
            }
            false
        }
        Some(length) => {
            if !says(headers, length) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            false
        }
        None => {
            headers.remove(CONTENT_LENGTH);
            true
        }
    }
}

fn says(headers: &HeaderMap, length: u64) -> bool {
    let mut written = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(only), None) = (written.next(), written.next()) else { return false };
    let digits = only.as_bytes();
    // `parse` alone would take a leading plus sign.
    digits.iter().all(u8::is_ascii_digit)
        && only.to_str().ok().and_then(|text| text.parse::<u64>().ok()) == Some(length)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request, Version};
    use serde_json::json;

    use super::{for_http1, for_http2};
    use crate::ForwardError;
    use crate::rig::{TestBody, body, no_body, upstream};

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn request(version: Version, target: &str, fields: &[(&str, &str)], body: TestBody) -> Request<TestBody> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(body).unwrap()
    }

    #[test]
    fn http1_form_of_a_request() {
        let upstream = upstream(json!({ "urls": "http://accounts:8080" }));
        let origin = &upstream.definition().endpoints[0];
        for (version, target, fields, expected_target, expected) in [
            (Version::HTTP_11, "/a?b", &[("host", "h")][..], "/a?b", &["host: h"][..]),
            (Version::HTTP_10, "/a", &[("host", "h")], "/a", &["host: h"]),
            (Version::HTTP_11, "http://h/a?b", &[("host", "h")], "/a?b", &["host: h"]),
            (Version::HTTP_11, "http://h", &[("host", "h")], "/", &["host: h"]),
            (Version::HTTP_2, "https://h:1/a", &[], "/a", &["host: h:1"]),
            (Version::HTTP_11, "/a", &[], "/a", &["host: accounts:8080"]),
            (Version::HTTP_11, "*", &[("host", "h")], "*", &["host: h"]),
            // RFC 9113 section 8.2.3: crumbs are joined where they may have been split.
            (
                Version::HTTP_2,
                "https://h/",
                &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")],
                "/",
                &["cookie: a=1; b=2; c=3", "host: h"],
            ),
            (Version::HTTP_11, "/", &[("host", "h"), ("te", "trailers")], "/", &["host: h"]),
            // There is no body, so there is no framing to speak of.
            (Version::HTTP_11, "/", &[("host", "h"), ("content-length", "5")], "/", &["host: h"]),
            (Version::HTTP_11, "/", &[("host", "h"), ("transfer-encoding", "chunked")], "/", &["host: h"]),
        ] {
            let mut request = request(version, target, fields, no_body());
            for_http1(&mut request, origin).unwrap();
            assert_eq!(request.version(), Version::HTTP_11);
            assert_eq!(request.uri().to_string(), expected_target);
            assert_eq!(lines(request.headers()), expected, "{target}");
        }
    }

    #[test]
    fn framing_is_the_bodys_own_whatever_the_fields_say() {
        let upstream = upstream(json!({ "urls": "http://accounts" }));
        let origin = &upstream.definition().endpoints[0];
        for fields in [
            &[("content-length", "5")][..],
            &[("content-length", "6")],
            &[("content-length", "+5")],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5"), ("content-length", "4")],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[],
        ] {
            for form in [for_http1, for_http2] {
                let mut request = request(Version::HTTP_11, "/", fields, body("hello"));
                form(&mut request, origin).unwrap();
                request.headers_mut().remove("host");
                assert_eq!(lines(request.headers()), ["content-length: 5"], "{fields:?}");
            }
        }
        for (method, expected) in
            [("POST", &["content-length: 0"][..]), ("PUT", &["content-length: 0"]), ("DELETE", &[])]
        {
            let mut request = request(Version::HTTP_2, "http://h/", &[], no_body());
            *request.method_mut() = method.parse().unwrap();
            for_http1(&mut request, origin).unwrap();
            request.headers_mut().remove("host");
            assert_eq!(lines(request.headers()), expected, "{method}");
        }
    }

    #[test]
    fn http2_form_of_a_request() {
        let upstream = upstream(json!({ "urls": "http://accounts:8080", "http": 2 }));
        let origin = &upstream.definition().endpoints[0];
        for (target, fields, expected) in [
            ("/a?b", &[("host", "h:1")][..], "http://h:1/a?b"),
            ("https://other/a", &[("host", "h")], "http://h/a"),
            ("https://h/a", &[], "http://h/a"),
            ("/a", &[], "http://accounts:8080/a"),
        ] {
            let mut request = request(Version::HTTP_11, target, fields, no_body());
            for_http2(&mut request, origin).unwrap();
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.uri().to_string(), expected);
            assert!(request.headers().is_empty());
            // A request that did not go out on HTTP/2 may go out on HTTP/1.1.
            for_http1(&mut request, origin).unwrap();
            assert!(expected.ends_with(&request.uri().to_string()));
            assert!(expected.contains(request.headers()["host"].to_str().unwrap()));
        }
        for host in ["user@h", "h h", "h/p", ""] {
            let mut request = request(Version::HTTP_11, "/", &[("host", host)], no_body());
            assert_eq!(for_http2(&mut request, origin), Err(ForwardError::HostInvalid), "{host}");
        }
    }
}
