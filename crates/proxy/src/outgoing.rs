//! The request as it leaves: its body under limits, and the form HTTP/2 wants.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
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
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// What the caller sends next; `None` behind the last of it. Once something came it is the upstream's turn; while
    /// nothing comes, whose turn it is depends on whether all that came before has been sent.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Option<Result<Bytes, BodyFault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Poll::Pending };
        watch.turn_to(Turn::Upstream);
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(BodyFault::Broken(error.to_string()))),
            Some(Ok(frame)) => match frame.into_data() {
                Err(_trailers) => None,
                Ok(data) => Some(self.count(data, watch)),
            },
        })
    }

    fn count(&mut self, data: Bytes, watch: &Watch) -> Result<Bytes, BodyFault> {
        if let Some(fault) = watch.overdue_body() {
            return Err(fault);
        }
        self.left = self.left.checked_sub(data.len() as u64).ok_or(BodyFault::TooLarge(self.limit))?;
        Ok(data)
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
        // Without a watch nothing is left of the body.
        let Some(watch) = this.watch.clone() else { return Poll::Ready(None) };
        match this.poll_piece(cx, &watch) {
            Poll::Pending => {
                watch.turn_to(Turn::Caller);
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(Err(fault))) => {
                watch.note_fault(fault);
                Poll::Ready(Some(Err(Stopped)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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

/// Makes the length say what the body is.
///
/// SECURITY: the length the upstream sees is derived from the body we hold, never from the caller's fields, so the
/// two cannot disagree about where the request ends.
fn frame<B: Body>(request: &mut Request<B>) {
    let length = request.body().size_hint().exact();
    let ended = request.body().is_end_stream();
    // Servers expect a length where the method means to send something, even if it is nothing (RFC 9110 section 8.6).
    let expects_content = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    match length {
        _ if ended && expects_content => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(length) if !ended => {
            if !says(headers, length) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        _ => {
            headers.remove(CONTENT_LENGTH);
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

    use super::for_http2;
    use crate::rig::{TestBody, body, no_body, upstream};
    use crate::{ForwardError, http1};

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
            let mut request = request(Version::HTTP_11, "/", fields, body("hello"));
            for_http2(&mut request, origin).unwrap();
            assert_eq!(lines(request.headers()), ["content-length: 5"], "{fields:?}");
        }
        for (method, expected) in
            [("POST", &["content-length: 0"][..]), ("PUT", &["content-length: 0"]), ("DELETE", &[])]
        {
            let mut request = request(Version::HTTP_2, "http://h/", &[], no_body());
            *request.method_mut() = method.parse().unwrap();
            for_http2(&mut request, origin).unwrap();
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
            let (head, body) = request.into_parts();
            let mut written = Vec::new();
            http1::request_head::write(&mut written, &head, &body, origin).unwrap();
            let lines = String::from_utf8(written).unwrap();
            let (host, path) = expected.trim_start_matches("http://").split_once('/').unwrap();
            assert_eq!(lines, format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        }
        for host in ["user@h", "h h", "h/p", ""] {
            let mut request = request(Version::HTTP_11, "/", &[("host", host)], no_body());
            assert_eq!(for_http2(&mut request, origin), Err(ForwardError::HostInvalid), "{host}");
        }
    }
}
