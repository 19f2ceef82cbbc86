//! The body of an answer as it arrives.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::deadline::{Lapse, Watch};
use super::lease::Lease;
use super::shared::Stream;
use crate::error::{BodyError, ForwardError};
use crate::http1::Piece;
use crate::hygiene;

/// The body of an answer. Read to its end, it hands its connection back for the next request; dropped earlier, it
/// closes it.
#[derive(Debug)]
pub struct UpstreamBody<B> {
    source: Source<B>,
}

#[derive(Debug)]
enum Source<B> {
    /// All of it is here. The connection that brought it is not needed any more.
    Whole(Bytes),
    /// It arrives on an HTTP/1.1 connection.
    Http1(Lease<B>),
    /// It arrives on an HTTP/2 connection.
    Http2(Streaming),
    /// It is over, or has failed.
    Over,
}

/// What a body says when it is asked for more.
type NextFrame = Option<Result<Frame<Bytes>, BodyError>>;

/// An answer on an HTTP/2 connection.
#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    stream: Stream,
    /// Whether the announced length is this body's, and not what another method would have got.
    length_counts: bool,
}

/// Takes an answer from an HTTP/2 connection, whose framing is not in the headers.
pub(crate) fn from_http2<B>(
    answer: Response<Incoming>,
    stream: Stream,
    method: &Method,
) -> Result<Response<UpstreamBody<B>>, ForwardError> {
    let length_counts = method != Method::HEAD && answer.status() != StatusCode::NOT_MODIFIED;
    // SECURITY: HTTP/2 knows no upgrade, so 101 is a lie (RFC 9113 section 8.6).
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ForwardError::Malformed("the upstream switched protocols unasked".into()));
    }
    let (mut head, incoming) = answer.into_parts();
    // Which version the upstream speaks is nobody's business behind us, nor are hyper's own notes.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let source = if incoming.is_end_stream() {
        Source::Over
    } else {
        Source::Http2(Streaming { incoming, stream, length_counts })
    };
    Ok(Response::from_parts(head, UpstreamBody { source }))
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

impl<B> UpstreamBody<B> {
    /// One of which all is here.
    pub(crate) const fn whole(body: Bytes) -> Self {
        Self { source: Source::Whole(body) }
    }

    /// One that arrives on this connection.
    pub(crate) const fn arriving(lease: Lease<B>) -> Self {
        Self { source: Source::Http1(lease) }
    }

    /// The answer is complete: the connection is free for the next request.
    fn finish(&mut self) {
        if let Source::Http1(lease) = std::mem::replace(&mut self.source, Source::Over) {
            lease.give_back();
        }
    }

    fn poll_http1(&mut self, cx: &mut Context<'_>) -> Poll<NextFrame> {
        let Source::Http1(lease) = &self.source else { return Poll::Ready(None) };
        match ready!(lease.poll_piece(cx)) {
            Ok((piece, last)) => {
                if last {
                    self.finish();
                }
                Poll::Ready(match piece {
                    Piece::Data(data) => Some(Ok(Frame::data(data))),
                    Piece::Trailers(trailers) => passed_on(Frame::trailers(trailers)),
                    Piece::End | Piece::Nothing => None,
                })
            }
            Err(error) => {
                self.source = Source::Over;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn poll_http2(&mut self, cx: &mut Context<'_>) -> Poll<NextFrame> {
        let Source::Http2(streaming) = &mut self.source else { return Poll::Ready(None) };
        let (polled, over) = ready!(streaming.poll_frame(cx));
        if over || matches!(polled, Some(Err(_))) {
            self.source = Source::Over;
        }
        Poll::Ready(polled)
    }
}

fn passed_on(mut frame: Frame<Bytes>) -> NextFrame {
    if let Some(trailers) = frame.trailers_mut() {
        hygiene::prepare_trailers(trailers);
    }
    Some(Ok(frame))
}

impl Streaming {
    /// The next frame, and whether it is the last.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<(NextFrame, bool)> {
        let watch = self.stream.watch();
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            if watch.expired().is_some() {
                return Poll::Ready((Some(Err(failed(watch, || "it fell silent".into()))), true));
            }
            watch.wait(cx);
            return Poll::Pending;
        };
        watch.rest();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let last = frame.is_trailers() || self.incoming.is_end_stream();
                (passed_on(frame), last)
            }
            Some(Err(error)) => (Some(Err(failed(watch, || explain(&error)))), true),
            // A stream may be reset "without error" before all of its announced length has come.
            None if self.length_counts && self.incoming.size_hint().lower() > 0 => {
                (Some(Err(failed(watch, || "it ended before its announced length".into()))), true)
            }
            None => (None, true),
        })
    }
}

fn failed(watch: &Watch, otherwise: impl FnOnce() -> String) -> BodyError {
    match watch.lapse() {
        Some(Lapse::Upstream(limit)) => BodyError::TimedOut(limit),
        Some(Lapse::Caller(fault)) => BodyError::RequestBody(fault),
        None => BodyError::Broken(otherwise()),
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
        match &mut this.source {
            Source::Whole(body) => {
                let body = std::mem::take(body);
                this.source = Source::Over;
                Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
            }
            Source::Http1(_) => this.poll_http1(cx),
            Source::Http2(_) => this.poll_http2(cx),
            Source::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(body) => body.is_empty(),
            Source::Http1(_) => false,
            Source::Http2(streaming) => streaming.incoming.is_end_stream(),
            Source::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Source::Http1(lease) => lease.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Http2(streaming) => streaming.incoming.size_hint(),
            Source::Over => SizeHint::with_exact(0),
        }
    }
}
