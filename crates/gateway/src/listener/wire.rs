//! The byte stream under hyper, watched.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::Scanner;
use super::inbound::Inbound;
use super::limits::{LINGER_BYTES, LINGER_TIMEOUT};

/// A stream that scans what it reads, notes when it blocks, and closes without cutting off its last answer.
#[derive(Debug)]
pub(crate) struct Wire<T> {
    io: T,
    inbound: Rc<Inbound>,
    /// `None` for HTTP/2, whose frames leave nothing to guess.
    scanner: Option<Scanner>,
    end_of_input: bool,
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    left: usize,
    timeout: Pin<Box<Sleep>>,
}

impl<T> Wire<T> {
    pub(crate) const fn new(io: T, inbound: Rc<Inbound>, scanner: Option<Scanner>) -> Self {
        Self { io, inbound, scanner, end_of_input: false, linger: None }
    }

    /// hyper takes the end of the input for the end of the client, and would drop a request that is being served,
    /// or one whose last bytes came together with the end. Some clients end their side as soon as they have said
    /// all and then wait for the answer, so a request that is whole keeps hyper from knowing; `Watched` sees to it
    /// that this does not last.
    fn end_of_input(&mut self) -> Poll<io::Result<()>> {
        self.end_of_input = true;
        let whole = self.scanner.as_ref().is_some_and(Scanner::is_between_requests);
        if whole && !self.inbound.is_idle() {
            self.inbound.set_input_ended();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client may still be sending what nobody will read.
    fn has_unread_input(&self) -> bool {
        let unfinished = self.scanner.as_ref().is_some_and(|scanner| !scanner.is_between_requests());
        unfinished && !self.end_of_input
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.scanner.as_ref().is_some_and(Scanner::is_broken) {
            return Poll::Ready(Err(broken()));
        }
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return this.end_of_input();
        }
        let Some(scanner) = &mut this.scanner else { return Poll::Ready(Ok(())) };
        let (passed, whole) = (scanner.feed(fresh), fresh.len());
        this.inbound.set_within_head(scanner.is_within_head());
        if let Some((request, fault)) = scanner.fault() {
            this.inbound.set_fault(request, fault);
        }
        if passed == 0 {
            // An empty read would look like the end of the input.
            buf.set_filled(before);
            return Poll::Ready(Err(broken()));
        }
        if passed < whole {
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(()))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the framing of the request body is broken")
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.inbound.set_write_blocked(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.inbound.set_write_blocked(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.inbound.set_write_blocked(flushed.is_pending());
        flushed
    }

    /// Ends our side; then, if the client is still sending, reads and drops a little of it. Closing a socket
    /// with unread input resets it, and a reset can overtake the answer that explains it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.has_unread_input() {
                return Poll::Ready(Ok(()));
            }
            let timeout = Box::pin(tokio::time::sleep(LINGER_TIMEOUT));
            this.linger = Some(Linger { left: LINGER_BYTES, timeout });
        }
        let Some(linger) = &mut this.linger else { return Poll::Ready(Ok(())) };
        let mut space = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut this.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && linger.left > 0 => {
                    linger.left = linger.left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Future::poll(linger.timeout.as_mut(), cx).map(Ok),
            }
        }
    }
}
