//! What a client is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::listener::limits::{COPIED_PIECE_BYTES, KEPT_BUFFER_BYTES};

/// Bytes on their way to the socket: small things copied together so that one write takes them, then at most one
/// large piece as it is, and what belongs behind it.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) small: Vec<u8>,
    written: usize,
    piece: Bytes,
    behind: &'static [u8],
}

impl Output {
    /// Adds a piece of a body.
    pub(super) fn push(&mut self, piece: Bytes, behind: &'static [u8]) {
        if piece.len() <= COPIED_PIECE_BYTES {
            self.small.extend_from_slice(&piece);
            self.small.extend_from_slice(behind);
        } else {
            (self.piece, self.behind) = (piece, behind);
        }
    }

    /// Whether what is held should be written before more is added.
    pub(super) fn is_full(&self) -> bool {
        !self.piece.is_empty() || !self.behind.is_empty() || self.small.len() > KEPT_BUFFER_BYTES
    }

    fn is_empty(&self) -> bool {
        self.written == self.small.len() && self.piece.is_empty() && self.behind.is_empty()
    }

    /// Writes all of it; nothing to write costs nothing.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.small.is_empty() && self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.is_empty() {
            let small = self.small.get(self.written..).unwrap_or_default();
            let count = if self.piece.is_empty() && self.behind.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, small))?
            } else {
                let parts = [IoSlice::new(small), IoSlice::new(&self.piece), IoSlice::new(self.behind)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        self.small.clear();
        self.written = 0;
        if self.small.capacity() > KEPT_BUFFER_BYTES {
            self.small = Vec::new();
        }
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, count: usize) {
        let small = count.min(self.small.len() - self.written);
        self.written += small;
        let piece = (count - small).min(self.piece.len());
        let _ = self.piece.split_to(piece);
        self.behind = self.behind.get(count - small - piece..).unwrap_or_default();
    }
}
