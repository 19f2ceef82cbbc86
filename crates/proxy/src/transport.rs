//! A connected socket, plain or inside TLS, as one type, so that what speaks over it is compiled once.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP. Boxed: the session's state is more than a thousand bytes.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Whether nothing has arrived, not even the end. Only what the event loop has noticed counts; a plain connection
    /// of which it has noticed nothing costs no system call.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut space = [0];
        match self {
            Self::Plain(stream) => {
                matches!(stream.try_read(&mut space), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // A session ticket may have come meanwhile; it is the session's own, and no byte of any answer. Polled
            // unconstrained, because a task out of budget is told that nothing is there.
            Self::Tls(stream) => {
                let mut buffer = ReadBuf::new(&mut space);
                let reading = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer));
                let reading = pin!(tokio::task::unconstrained(reading));
                reading.poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => {
                // A lone slice costs less as `send` than as `writev`.
                let mut full = slices.iter().filter(|slice| !slice.is_empty());
                if let (Some(only), None) = (full.next(), full.next()) {
                    return Pin::new(stream).poll_write(cx, only);
                }
                Pin::new(stream).poll_write_vectored(cx, slices)
            }
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
