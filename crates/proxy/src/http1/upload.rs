//! The request on its way out: its head, and its body as the caller sends it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body;
use tokio::io::AsyncWrite as _;

use super::request_head::Framing;
use crate::error::BodyFault;
use crate::outgoing::Outgoing;
use crate::pool::deadline::{Turn, Watch};
use crate::transport::Transport;

/// A piece of the body up to this length is copied behind what goes out before it: cheaper than a second part of a
/// write. A longer one goes out from where it lies.
const COPIED: usize = 4 * 1024;
/// So much is gathered before it is written.
const GATHERED: usize = 16 * 1024;

/// What of a request has not gone out.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    /// The head, framing and small pieces, in order.
    out: Vec<u8>,
    /// How much of `out` is gone.
    gone: usize,
    /// A long piece, behind `out`.
    piece: Bytes,
    /// The end of its chunk.
    behind: &'static [u8],
    framing: Framing,
    /// What the caller has still to send.
    body: Option<Outgoing<B>>,
    unflushed: bool,
    /// Whether the connection has taken any of it.
    begun: bool,
    broken: Option<io::ErrorKind>,
}

impl<B> Upload<B> {
    /// Nothing to send.
    pub(crate) const fn new() -> Self {
        Self {
            out: Vec::new(),
            gone: 0,
            piece: Bytes::new(),
            behind: b"",
            framing: Framing::None,
            body: None,
            unflushed: false,
            begun: false,
            broken: None,
        }
    }

    /// Begins a request with its head, which `write` writes.
    pub(crate) fn begin<E>(
        &mut self,
        body: Outgoing<B>,
        write: impl FnOnce(&mut Vec<u8>, &Outgoing<B>) -> Result<Framing, E>,
    ) -> Result<(), E> {
        self.out.clear();
        self.gone = 0;
        self.begun = false;
        match write(&mut self.out, &body) {
            Ok(framing) => {
                self.framing = framing;
                self.body = (framing != Framing::None).then_some(body);
                self.unflushed = true;
                Ok(())
            }
            Err(error) => {
                self.out.clear();
                Err(error)
            }
        }
    }

    /// Whether all of the request has gone out.
    pub(crate) const fn is_done(&self) -> bool {
        !self.unflushed && self.body.is_none() && self.broken.is_none()
    }

    /// Whether the upstream can know of the request.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// What became of the connection while it was written to, if it broke.
    pub(crate) const fn broken(&self) -> Option<io::ErrorKind> {
        self.broken
    }

    /// Gives back memory that a large head took.
    pub(crate) fn shrink(&mut self) {
        if self.out.capacity() > GATHERED {
            self.out = Vec::new();
        }
    }

    fn is_written(&self) -> bool {
        self.out.len() == self.gone && self.piece.is_empty() && self.behind.is_empty()
    }

    fn poll_write(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = self.out.get(self.gone..).unwrap_or_default();
        let written = if self.piece.is_empty() && self.behind.is_empty() {
            ready!(Pin::new(transport).poll_write(cx, out))?
        } else {
            let parts = [IoSlice::new(out), IoSlice::new(&self.piece), IoSlice::new(self.behind)];
            ready!(Pin::new(transport).poll_write_vectored(cx, &parts))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.begun = true;
        self.forget(written);
        Poll::Ready(Ok(()))
    }

    fn forget(&mut self, written: usize) {
        let of_out = written.min(self.out.len() - self.gone);
        self.gone += of_out;
        let of_piece = (written - of_out).min(self.piece.len());
        self.piece.advance(of_piece);
        self.behind = self.behind.get(written - of_out - of_piece..).unwrap_or_default();
        if self.gone == self.out.len() {
            self.out.clear();
            self.gone = 0;
        }
        if self.piece.is_empty() {
            self.piece = Bytes::new();
        }
    }
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Sends as much as there is and the upstream takes. Ready when all is sent, and when the connection takes no more:
    /// then an answer may have come nevertheless, and [`Upload::broken`] says why the rest stays here.
    ///
    /// # Errors
    /// What is wrong with the caller's body. The upstream waits for the rest of it in vain.
    pub(crate) fn poll(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Result<(), BodyFault>> {
        if self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_all(transport, cx, watch) {
            Poll::Ready(Err(Halt::Connection(error))) => {
                self.broken = Some(error.kind());
                self.body = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(Halt::Body(fault))) => Poll::Ready(Err(fault)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_all(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Result<(), Halt>> {
        loop {
            let starved = self.gather(cx, watch)?.is_pending();
            let bodied = self.framing != Framing::None;
            while !self.is_written() {
                ready!(self.poll_write(transport, cx))?;
                if bodied {
                    // It takes some of it: it is not silent.
                    watch.turn_to(Turn::Upstream);
                }
            }
            if self.unflushed {
                ready!(Pin::new(&mut *transport).poll_flush(cx))?;
                self.unflushed = false;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if starved {
                watch.turn_to(Turn::Caller);
                return Poll::Pending;
            }
        }
    }

    /// Takes what the caller has sent. Pending if that is less than there is room for.
    fn gather(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Result<Poll<()>, Halt> {
        while self.piece.is_empty() && self.behind.is_empty() && self.out.len() < GATHERED {
            let Some(body) = &mut self.body else { break };
            match body.poll_piece(cx, watch) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(None) => self.end()?,
                Poll::Ready(Some(piece)) => self.take(piece?)?,
            }
        }
        Ok(Poll::Ready(()))
    }

    fn take(&mut self, piece: Bytes) -> Result<(), Halt> {
        // SECURITY: an empty chunk would be the last one.
        if piece.is_empty() {
            return Ok(());
        }
        self.unflushed = true;
        self.behind = match &mut self.framing {
            Framing::None => return Err(Halt::unlike_its_length()),
            Framing::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or_else(Halt::unlike_its_length)?;
                if *left == 0 {
                    self.body = None;
                }
                b""
            }
            Framing::Chunked => {
                push_hex(&mut self.out, piece.len());
                self.out.extend_from_slice(b"\r\n");
                b"\r\n"
            }
        };
        if piece.len() <= COPIED {
            self.out.extend_from_slice(&piece);
            self.out.extend_from_slice(std::mem::take(&mut self.behind));
        } else {
            self.piece = piece;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Halt> {
        self.body = None;
        match self.framing {
            Framing::None => Ok(()),
            // The upstream would wait for the rest, or take the next request for it.
            Framing::Length(_left) => Err(Halt::unlike_its_length()),
            Framing::Chunked => {
                self.unflushed = true;
                self.out.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }
}

/// Why nothing more goes out.
#[derive(Debug)]
enum Halt {
    Connection(io::Error),
    Body(BodyFault),
}

impl Halt {
    fn unlike_its_length() -> Self {
        Self::Body(BodyFault::Broken("it is not as long as it was announced".into()))
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<BodyFault> for Halt {
    fn from(fault: BodyFault) -> Self {
        Self::Body(fault)
    }
}

fn push_hex(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = u8::try_from((number >> (4 * digit)) & 0xf).unwrap_or(0);
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}

#[cfg(test)]
mod tests {
    use super::push_hex;

    #[test]
    fn sizes_of_chunks_are_hexadecimal() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 20, usize::MAX] {
            let mut out = Vec::new();
            push_hex(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{number:x}"));
        }
    }
}
