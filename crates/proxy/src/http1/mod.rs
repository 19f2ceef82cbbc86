//! HTTP/1.1 towards upstreams: one connection, one exchange at a time.
//!
//! A connection is a plain value. Whoever holds it polls it; there is no task, no channel and no lock between the request
//! and the socket. [`Connection`] sends one request and reads one answer; who may use it when is the pool's affair.
//!
//! SECURITY: an upstream's bytes are read strictly. Where two readers could see different answers in them - two lengths,
//! a bare line feed, a coding nobody asked for - there is no answer, and the connection is never used again. Nor is one
//! with bytes on it that belong to no request: they would be taken for the answer to the next one.

mod decoder;
mod head;
mod lines;
mod reading;
pub(crate) mod request_head;
#[cfg(test)]
mod tests;
mod upload;

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body::Body;
use tokio::io::AsyncReadExt as _;

use crate::error::{BodyFault, ForwardError};
use crate::outgoing::Outgoing;
use crate::pool::deadline::Watch;
use crate::transport::Transport;
use crate::upstream::Origin;

use decoder::Decoder;
use lines::Lines;
use upload::Upload;

pub(crate) use decoder::Piece;
pub(crate) use head::{Framing, Head};
pub use reading::{AnswerRead, read_answer};

/// Room for a head, and for what comes with it. A connection keeps as much between exchanges.
const SMALL: usize = 8 * 1024;
/// With less room than this, more is made before reading.
const LEAST: usize = 2 * 1024;
/// First read of a body that is known to be long.
const MEDIUM: usize = 64 * 1024;
/// Largest piece of a body read at once.
const LARGE: usize = 256 * 1024;
/// Interim answers before an answer.
const INTERIM: u32 = 32;

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first bytes are not those of an answer.
    #[error("the upstream does not speak HTTP/1")]
    NotHttp,
    /// Not a head.
    #[error("the upstream sent a malformed head")]
    Head,
    /// A line feed alone, where a line ends with two characters.
    #[error("the upstream ended a line with a bare line feed")]
    BareLineFeed,
    /// A head or trailer section too long.
    #[error("the upstream sent a head too large")]
    TooLarge,
    /// Too many fields.
    #[error("the upstream sent too many fields")]
    TooManyFields,
    /// More than one word about the length of the body.
    #[error("the upstream gave the length twice")]
    TwoLengths,
    /// A length that is none.
    #[error("the upstream gave an invalid length")]
    Length,
    /// Not chunked, or not in HTTP/1.1.
    #[error("the upstream used a transfer coding nobody asked for")]
    Coding,
    /// A status that has no body, and a length that says otherwise.
    #[error("the upstream announced a body where there is none")]
    BodyWhereNoneMayBe,
    /// 101 without an upgrade.
    #[error("the upstream switched protocols unasked")]
    Switched,
    /// An answer before the request.
    #[error("the upstream answered before it was asked")]
    Unasked,
    /// One interim answer after the other.
    #[error("the upstream sent too many interim answers")]
    TooManyInterim,
    /// Not the size of a chunk.
    #[error("the upstream sent an invalid chunk size")]
    ChunkSize,
    /// A chunk longer than its size.
    #[error("the upstream sent a chunk longer than its size")]
    ChunkEnd,
}

/// Why the rest of an answer will not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// It cannot be understood.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The connection failed.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The connection ended in good order, too early.
    #[error("the connection ended within the answer")]
    Ended,
}

/// One connection and the exchange on it.
#[derive(Debug)]
pub(crate) struct Connection<B> {
    transport: Transport,
    upload: Upload<B>,
    incoming: Incoming,
    /// The method is HEAD.
    asked_head: bool,
    /// Whether the answer leaves the connection open.
    keeps: bool,
}

/// The answer as it arrives.
#[derive(Debug)]
struct Incoming {
    /// What has arrived and was not looked at.
    arrived: BytesMut,
    /// How much room was last made. Pieces of it may still be in use elsewhere.
    room: usize,
    /// How much to read at once.
    stride: usize,
    lines: Lines,
    interim: u32,
    decoder: Decoder,
}

impl<B> Connection<B> {
    /// A connection on which nothing has happened.
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, upload: Upload::new(), incoming: Incoming::new(), asked_head: false, keeps: false }
    }

    /// Whether nothing has arrived since the last exchange, not even the end of the connection. What has not been
    /// noticed by the event loop is not seen; asking costs no system call.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.incoming.arrived.is_empty() && self.transport.is_quiet()
    }

    /// Whether the exchange is over in both directions and another may follow.
    pub(crate) fn is_free(&self) -> bool {
        self.keeps && self.upload.is_done() && self.incoming.arrived.is_empty()
    }

    /// Whether all of the request has gone out.
    pub(crate) const fn is_sent(&self) -> bool {
        self.upload.is_done()
    }

    /// Gives back memory that a long answer took.
    pub(crate) fn shrink(&mut self) {
        if self.incoming.room > SMALL {
            self.incoming.arrived = BytesMut::new();
            self.incoming.room = 0;
        }
        self.upload.shrink();
    }

    /// The next piece of the answer's body.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        loop {
            match self.incoming.decoder.next(&mut self.incoming.arrived)? {
                Piece::Nothing => {}
                piece => return Poll::Ready(Ok(piece)),
            }
            self.incoming.lengthen();
            if ready!(self.incoming.poll_read(&mut self.transport, cx))? == 0 {
                let whole = self.incoming.decoder.ends_with_connection();
                return Poll::Ready(if whole { Ok(Piece::End) } else { Err(Broken::Ended) });
            }
        }
    }

    /// Whether the answer's body has been taken whole.
    pub(crate) fn is_over(&mut self) -> bool {
        self.incoming.decoder.is_over(&mut self.incoming.arrived)
    }

    /// All of the answer's body, if all of it has arrived.
    pub(crate) fn whole(&mut self) -> Option<Bytes> {
        let left = usize::try_from(self.incoming.decoder.left()?).ok()?;
        if left == 0 {
            return Some(Bytes::new());
        }
        if left > self.incoming.arrived.len() {
            return None;
        }
        self.incoming.decoder = Decoder::new(Framing::None);
        Some(self.incoming.arrived.split_to(left).freeze())
    }

    /// Bytes of the answer's body that are to come, where that is known.
    pub(crate) const fn left(&self) -> Option<u64> {
        self.incoming.decoder.left()
    }
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Begins an exchange. Nothing goes out before the answer is asked for.
    ///
    /// # Errors
    /// The request cannot be sent in this form. Nothing of it was.
    pub(crate) fn begin(
        &mut self,
        request: Request<Outgoing<B>>,
        origin: &Origin,
    ) -> Result<(), ForwardError> {
        let (head, body) = request.into_parts();
        self.asked_head = head.method == Method::HEAD;
        self.keeps = false;
        self.incoming.begin();
        self.upload.begin(body, |out, body| request_head::write(out, &head, body, origin))
    }

    /// Sends what there is to send and reads until the head of the answer is there.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Result<Head, ForwardError>> {
        if let Poll::Ready(Err(fault)) = self.poll_upload(cx, watch) {
            return Poll::Ready(Err(ForwardError::RequestBody(fault)));
        }
        loop {
            if let Some(head) = self.incoming.head(self.asked_head).map_err(malformed)? {
                // SECURITY: what was said before anything was asked answers somebody else, or nobody.
                if !self.upload.has_begun() {
                    return Poll::Ready(Err(malformed(Fault::Unasked)));
                }
                self.keeps = head.keeps;
                self.incoming.decoder = Decoder::new(head.framing);
                return Poll::Ready(Ok(head));
            }
            match ready!(self.incoming.poll_read(&mut self.transport, cx)) {
                Ok(0) => return Poll::Ready(Err(self.no_answer(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.no_answer(Some(error)))),
            }
        }
    }

    /// Sends what there is to send.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<(), BodyFault>> {
        if self.upload.is_done() {
            return Poll::Ready(Ok(()));
        }
        self.upload.poll(&mut self.transport, cx, watch)
    }

    fn no_answer(&self, error: Option<io::Error>) -> ForwardError {
        let when = if self.incoming.arrived.is_empty() { "before" } else { "within" };
        ForwardError::Malformed(match (self.upload.broken(), error) {
            (Some(kind), _) => format!("the connection broke while the request was sent: {kind}"),
            (None, Some(error)) => format!("the connection broke {when} the answer: {error}"),
            (None, None) => format!("the upstream closed the connection {when} its answer"),
        })
    }
}

fn malformed(fault: Fault) -> ForwardError {
    ForwardError::Malformed(fault.to_string())
}

impl Incoming {
    fn new() -> Self {
        Self {
            arrived: BytesMut::new(),
            room: 0,
            stride: SMALL,
            lines: Lines::new(),
            interim: 0,
            decoder: Decoder::Length(0),
        }
    }

    fn begin(&mut self) {
        self.stride = SMALL;
        self.lines = Lines::new();
        self.interim = 0;
        self.decoder = Decoder::Length(0);
    }

    /// The head of the answer, if it has arrived. Interim answers are passed over: the caller was told to go on when
    /// the request was admitted, and early hints are for browsers.
    fn head(&mut self, asked_head: bool) -> Result<Option<Head>, Fault> {
        const START: &[u8] = b"HTTP/1.";
        loop {
            // What is not HTTP may never send an empty line, and would be waited for.
            let start = self.arrived.get(..START.len()).unwrap_or(&self.arrived);
            if !START.starts_with(start) {
                return Err(Fault::NotHttp);
            }
            let Some(end) = self.lines.end(&self.arrived, head::HEAD)? else { return Ok(None) };
            let head = head::parse(&self.arrived.split_to(end).freeze(), self.lines.count(), asked_head)?;
            self.lines = Lines::new();
            if !head.status.is_informational() {
                return Ok(Some(head));
            }
            // SECURITY: no upgrade was asked for, so 101 is a lie or belongs to somebody else's request. What follows
            // it is not HTTP.
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Fault::Switched);
            }
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(Fault::TooManyInterim);
            }
        }
    }

    /// A body follows of which more is to come: reads more at once, the longer it is.
    fn lengthen(&mut self) {
        if self.stride == SMALL && self.decoder.left().is_some_and(|left| left > MEDIUM as u64) {
            self.stride = MEDIUM;
        }
    }

    fn poll_read(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.arrived.capacity() - self.arrived.len();
        let read = ready!(pin!(transport.read_buf(&mut self.arrived)).poll(cx))?;
        if read == room {
            // There may be more where this came from.
            self.stride = (2 * self.stride).min(LARGE);
        }
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self) {
        // What was handed out of the last room and is not in use any more is room again.
        if self.arrived.try_reclaim(self.stride) {
            return;
        }
        let room = self.arrived.capacity() - self.arrived.len();
        if room < LEAST.max(self.stride / 4) {
            self.arrived.reserve(self.stride);
            self.room = self.stride;
        }
    }
}
