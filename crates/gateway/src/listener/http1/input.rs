//! What a client sends, taken from its socket and cut into requests.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::Request;
use tokio::io::{AsyncRead, ReadBuf};

use super::body::{BodySender, BrokenBody, channel};
use super::request::{self, Facts};
use crate::listener::IncomingBody;
use crate::listener::framing::{BodyReader, FramingFault, HeadLimits, HeadReader, Piece};
use crate::listener::limits::{BODY_READ_BYTES, HEAD_READ_BYTES, KEPT_BUFFER_BYTES};

/// One connection's input.
#[derive(Debug)]
pub(super) struct Input {
    buffer: BytesMut,
    head: HeadReader,
    body: BodyReader,
    /// Where the body of the request being served goes.
    sender: Option<BodySender>,
    /// The client has said all it will say.
    ended: bool,
    /// Something is at fault: nothing more is to be read.
    broken: bool,
}

/// What became of an attempt to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Whoever reads the body has something new to look at.
    Served,
    /// The client is to be asked for the body it holds back.
    Invite,
    /// Nothing can be done now.
    Wait,
}

impl Input {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            head: HeadReader::new(limits),
            body: BodyReader::Ended,
            sender: None,
            ended: false,
            broken: false,
        }
    }

    /// The next request, if its head is whole.
    ///
    /// # Errors
    /// The head is at fault.
    pub(super) fn request(&mut self) -> Result<Option<(Request<IncomingBody>, Facts)>, FramingFault> {
        let found = self.head.read(&self.buffer);
        let Some(body) = found.inspect_err(|_fault| self.broken = true)? else { return Ok(None) };
        let bytes = self.buffer.split_to(self.head.map().length).freeze();
        let made = request::request(&bytes, self.head.map()).inspect_err(|_fault| self.broken = true);
        self.head.reset();
        let (mut request, facts) = made?;
        self.body = body;
        if !self.body.is_ended() {
            let (sender, reader) = channel(self.body.left());
            self.sender = Some(sender);
            *request.body_mut() = IncomingBody::Http1(reader);
        }
        Ok(Some((request, facts)))
    }

    /// Bytes held of requests that are not being served.
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the whole of the request being served is here.
    pub(super) const fn is_between_requests(&self) -> bool {
        self.body.is_ended() && !self.broken
    }

    /// Whether more of what was begun may be under way that nobody will read.
    pub(super) const fn is_unfinished(&self) -> bool {
        (self.broken || !self.body.is_ended()) && !self.ended
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes up what the socket holds; `false` at the end of the input.
    pub(super) fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let left =
            self.body.left().map_or(BODY_READ_BYTES, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let wanted = left.clamp(HEAD_READ_BYTES, BODY_READ_BYTES);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BUFFER_BYTES && self.body.is_ended() {
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < wanted / 2 {
            self.buffer.reserve(wanted);
        }
        let reading = pin!(tokio::io::AsyncReadExt::read_buf(io, &mut self.buffer));
        let read = ready!(reading.poll(cx))?;
        self.ended = read == 0;
        Poll::Ready(Ok(read > 0))
    }

    /// Goes on with the body of the request being served.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn go_on<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        facts: &mut Facts,
        cx: &mut Context<'_>,
    ) -> Result<Step, Trouble> {
        let Some(sender) = self.sender.as_ref().filter(|sender| sender.has_reader()) else {
            return Ok(Step::Wait);
        };
        if self.broken || self.body.is_ended() || !sender.is_wanted(cx) {
            return Ok(Step::Wait);
        }
        loop {
            let Some(sender) = &self.sender else { return Ok(Step::Wait) };
            match self.body.read(&mut self.buffer) {
                Ok(Piece::Data(piece)) => {
                    sender.give(piece, self.body.is_ended(), cx);
                    return Ok(Step::Served);
                }
                Ok(Piece::End) => {
                    sender.end(cx);
                    return Ok(Step::Served);
                }
                Ok(Piece::More) => {}
                Err(fault) => {
                    self.broken = true;
                    sender.fail(BrokenBody::Framing(fault), cx);
                    return Err(Trouble::Fault(fault));
                }
            }
            if self.buffer.is_empty() && std::mem::take(&mut facts.expects_continue) {
                return Ok(Step::Invite);
            }
            if self.ended {
                sender.fail(BrokenBody::Ended, cx);
                self.broken = true;
                return Ok(Step::Served);
            }
            match self.poll_fill(io, cx) {
                Poll::Ready(filled) => filled.map_err(Trouble::Lost)?,
                Poll::Pending => return Ok(Step::Wait),
            };
        }
    }

    /// Lets go of the request that was served. What is left of its body and is already here is dropped; `false` if
    /// more of it would have to be waited for, so that the connection cannot go on.
    pub(super) fn settle(&mut self) -> bool {
        self.sender = None;
        while !self.broken {
            match self.body.read(&mut self.buffer) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::End) => return true,
                Ok(Piece::More) => return false,
                Err(_fault) => self.broken = true,
            }
        }
        false
    }

    /// Whether the body of the request being served has nobody to read it any more.
    pub(super) fn is_forsaken(&self) -> bool {
        self.sender.as_ref().is_none_or(|sender| !sender.has_reader())
    }

    /// Reads and drops.
    pub(super) async fn discard<T: AsyncRead + Unpin>(&mut self, io: &mut T, mut most: usize) {
        let mut space = [0; 4096];
        while most > 0 {
            let mut buffer = ReadBuf::new(&mut space);
            let read = std::future::poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut buffer)).await;
            if read.is_err() || buffer.filled().is_empty() {
                return;
            }
            most = most.saturating_sub(buffer.filled().len());
        }
    }
}

/// Why a connection cannot go on as it was.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The request being served is at fault.
    Fault(FramingFault),
    /// The socket is gone.
    Lost(io::Error),
}
