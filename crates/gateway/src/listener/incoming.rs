//! The body of a request, whichever protocol it comes by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http1::{BrokenBody, RequestBody};

/// The body of a request. The stages know no more of protocols than this.
#[derive(Debug)]
pub enum IncomingBody {
    /// There is none.
    Empty,
    /// It comes by HTTP/1.1.
    Http1(RequestBody),
    /// It comes by HTTP/2.
    Http2(hyper::body::Incoming),
}

/// Why the rest of a body will not come.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// By HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] BrokenBody),
    /// By HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Http2(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
