//! `Reply` → `Response`: every request ends here, with its metrics and its log line at the end of the body.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use portcullis_proxy::BodyError;
use tower::{Layer, Service};

use crate::body::ReplyBody;
use crate::exchange::Reply;
use crate::passage::Passage;

/// See [`Observe`].
#[derive(Clone, Copy)]
pub(crate) struct ObserveLayer;

impl<N> Layer<N> for ObserveLayer {
    type Service = Observe<N>;

    fn layer(&self, next: N) -> Observe<N> {
        Observe { next }
    }
}

/// Attaches the record of a request to the end of its answer.
#[derive(Clone, Copy)]
pub(crate) struct Observe<N> {
    next: N,
}

impl<A, N: Service<A, Response = Reply, Error = Infallible>> Service<A> for Observe<N> {
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = ObserveFuture<N::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, given: A) -> Self::Future {
        ObserveFuture { running: self.next.call(given) }
    }
}

pin_project! {
    /// The rest of the stack.
    pub(crate) struct ObserveFuture<T> {
        #[pin]
        running: T,
    }
}

impl<T: Future<Output = Result<Reply, Infallible>>> Future for ObserveFuture<T> {
    type Output = Result<Response<ObservedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(reply) = ready!(self.project().running.poll(cx));
        let Reply { response, mut passage } = reply;
        passage.settle(response.status());
        Poll::Ready(Ok(response.map(|body| ObservedBody { body, passage: Some(passage) })))
    }
}

/// The answer's body. The record of the request ends with it: after its last byte, or when the client goes.
pub(crate) struct ObservedBody {
    body: ReplyBody,
    passage: Option<Box<Passage>>,
}

impl ObservedBody {
    /// For an answer that has no record any more.
    pub(crate) const fn unobserved(body: ReplyBody) -> Self {
        Self { body, passage: None }
    }
}

impl ObservedBody {
    /// The record of the request, for as long as its answer has not ended.
    pub(crate) fn passage(&self) -> Option<&Passage> {
        self.passage.as_deref()
    }
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let (Some(data), Some(passage)) = (frame.data_ref(), &mut this.passage) {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    passage.ledger.bytes_out = passage.ledger.bytes_out.saturating_add(length);
                }
            }
            Some(Err(error)) => {
                if let Some(mut passage) = this.passage.take() {
                    passage.ledger.reason = Some(error.reason());
                    passage.ledger.inner = Some(error.to_string());
                }
            }
            None => this.passage = None,
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
