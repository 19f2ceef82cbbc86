//! The body of a request: as it arrives, or whole where somebody had to see all of it before it may go on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::listener::IncomingBody;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// It comes piece by piece, and nobody has read any of it.
    Streaming(IncomingBody),
    /// It was read to its end; `None` once it has been handed on, and where there was none.
    Whole(Option<Bytes>),
}

impl RequestBody {
    /// All of a body. SECURITY: its length is the only thing the framing towards the upstream is made from, so what
    /// was judged and what is sent cannot differ.
    pub(crate) fn whole(content: Bytes) -> Self {
        Self::Whole((!content.is_empty()).then_some(content))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = <IncomingBody as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Streaming(body) => Pin::new(body).poll_frame(cx),
            Self::Whole(content) => Poll::Ready(content.take().map(|content| Ok(Frame::data(content)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streaming(body) => body.is_end_stream(),
            Self::Whole(content) => content.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streaming(body) => body.size_hint(),
            Self::Whole(content) => SizeHint::with_exact(
                content.as_ref().map_or(0, |content| u64::try_from(content.len()).unwrap_or(u64::MAX)),
            ),
        }
    }
}
