//! The answer: whether it may be passed on, and its body as it arrives.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::deadline::{Turn, Watch};
use super::endpoint::Lease;
use super::shared::Stream;
use crate::error::{BodyError, ForwardError};
use crate::hygiene;

/// The body of an answer. Read to its end, it hands its connection back for the next request; dropped earlier, it
/// closes it.
#[derive(Debug)]
pub struct UpstreamBody<B> {
    incoming: Incoming,
    carrier: Carrier<B>,
    /// Whether the announced length is this body's, and not what another method would have got.
    length_counts: bool,
}

/// What the answer arrives on.
#[derive(Debug)]
enum Carrier<B> {
    Http1(Lease<B>),
    Http2(Stream),
    /// The answer is complete, or has failed.
    None,
}

/// Takes an answer from an HTTP/1.1 connection.
pub(crate) fn from_http1<B>(
    answer: Response<Incoming>,
    lease: Lease<B>,
) -> Result<Response<UpstreamBody<B>>, ForwardError> {
    check_framing(answer.headers())?;
    // hyper itself holds an HTTP/1.1 body to its announced length.
    passed_on(answer, Carrier::Http1(lease), false)
}

/// Takes an answer from an HTTP/2 connection, whose framing is not in the headers.
pub(crate) fn from_http2<B>(
    answer: Response<Incoming>,
    stream: Stream,
    method: &Method,
) -> Result<Response<UpstreamBody<B>>, ForwardError> {
    let length_counts = method != Method::HEAD && answer.status() != StatusCode::NOT_MODIFIED;
    passed_on(answer, Carrier::Http2(stream), length_counts)
}

/// An error with its causes, on one line.
pub(crate) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn passed_on<B>(
    answer: Response<Incoming>,
    carrier: Carrier<B>,
    length_counts: bool,
) -> Result<Response<UpstreamBody<B>>, ForwardError> {
    // SECURITY: no upgrade was asked for, so 101 is a lie or belongs to somebody else's request. What follows it
    // is not HTTP, and the connection must not be used again.
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ForwardError::Malformed("the upstream switched protocols unasked".into()));
    }
    let (mut head, incoming) = answer.into_parts();
    // Which version the upstream speaks is nobody's business behind us, nor are hyper's own notes.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let mut body = UpstreamBody { incoming, carrier, length_counts };
    if body.incoming.is_end_stream() {
        body.finish();
    }
    Ok(Response::from_parts(head, body))
}

/// SECURITY: refuses an answer whose length can be read in two ways. hyper would take one of them and leave the
/// other in the headers for the next reader to believe (RFC 9112 section 6.3).
fn check_framing(headers: &HeaderMap) -> Result<(), ForwardError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let ambiguous = lengths.next().is_some()
        || length.is_some_and(|length| !length.as_bytes().iter().all(u8::is_ascii_digit));
    if ambiguous {
        return Err(ForwardError::Malformed("the upstream gave more than one length".into()));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if length.is_some() {
        return Err(ForwardError::Malformed("the upstream gave both a length and a transfer coding".into()));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(ForwardError::Malformed("the upstream used a transfer coding nobody asked for".into()));
    }
    Ok(())
}

impl<B> Carrier<B> {
    fn watch(&self) -> Option<&Watch> {
        match self {
            Self::Http1(lease) => Some(lease.watch()),
            Self::Http2(stream) => Some(stream.watch()),
            Self::None => None,
        }
    }
}

impl<B> UpstreamBody<B> {
    /// The answer is complete: the connection is free for the next request.
    fn finish(&mut self) {
        if let Carrier::Http1(lease) = std::mem::replace(&mut self.carrier, Carrier::None) {
            lease.give_back();
        }
    }

    /// The answer broke off: the connection is closed.
    fn fail(&mut self, otherwise: impl FnOnce() -> String) -> BodyError {
        let error = match self.carrier.watch() {
            Some(watch) => match (watch.expired(), watch.take_fault()) {
                (Some(Turn::Upstream), _) => BodyError::TimedOut(watch.patience().upstream),
                (_, Some(fault)) => BodyError::RequestBody(fault),
                (_, None) => BodyError::Broken(otherwise()),
            },
            None => BodyError::Broken(otherwise()),
        };
        self.carrier = Carrier::None;
        error
    }
}

impl<B> Body for UpstreamBody<B>
where
    B: Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            return match this.carrier.watch() {
                Some(watch) if watch.expired().is_some() => {
                    Poll::Ready(Some(Err(this.fail(|| "it fell silent".into()))))
                }
                Some(watch) => {
                    watch.wait(cx);
                    Poll::Pending
                }
                None => Poll::Pending,
            };
        };
        if let Some(watch) = this.carrier.watch() {
            watch.rest();
        }
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    hygiene::prepare_trailers(trailers);
                    this.finish();
                } else if this.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(this.fail(|| explain(&error))))),
            // A stream may be reset "without error" before all of its announced length has come.
            None if this.length_counts && this.incoming.size_hint().lower() > 0 => {
                Poll::Ready(Some(Err(this.fail(|| "it ended before its announced length".into()))))
            }
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
