//! The one combinator of the request's path.
//!
//! A stage is a plain `async fn` that takes a request with the proof of the stage before and gives it back with
//! its own, or ends it. [`stage`] makes a tower layer of it. Nothing is boxed: the future of the whole stack is
//! one value inside the connection's task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::exchange::{Ended, Reply};

/// Makes a layer of an `async fn(A) -> Result<B, Ended>`.
pub(crate) fn stage<F>(run: F) -> StageLayer<F> {
    StageLayer { run }
}

/// See [`stage`].
#[derive(Clone, Copy)]
pub(crate) struct StageLayer<F> {
    run: F,
}

impl<F: Clone, N> Layer<N> for StageLayer<F> {
    type Service = Stage<F, N>;

    fn layer(&self, next: N) -> Stage<F, N> {
        Stage { run: self.run.clone(), next }
    }
}

/// One stage and what follows it.
#[derive(Clone, Copy)]
pub(crate) struct Stage<F, N> {
    run: F,
    next: N,
}

impl<A, B, F, R, N> Service<A> for Stage<F, N>
where
    F: Fn(A) -> R,
    R: Future<Output = Result<B, Ended>>,
    N: Service<B, Response = Reply, Error = Ended> + Clone,
{
    type Response = Reply;
    type Error = Ended;
    type Future = StageFuture<R, N, N::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        // Every stage is always ready: the one place that says "too busy" is the listener's connection cap.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, given: A) -> Self::Future {
        StageFuture { state: State::Here { running: (self.run)(given), next: self.next.clone() } }
    }
}

pin_project! {
    /// This stage, then the rest of the stack.
    pub(crate) struct StageFuture<R, N, T> {
        #[pin]
        state: State<R, N, T>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<R, N, T> {
        Here { #[pin] running: R, next: N },
        Beyond { #[pin] rest: T },
    }
}

impl<B, R, N> Future for StageFuture<R, N, N::Future>
where
    R: Future<Output = Result<B, Ended>>,
    N: Service<B, Response = Reply, Error = Ended>,
{
    type Output = Result<Reply, Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let rest = match self.as_mut().project().state.project() {
                StateProjection::Here { running, next } => next.call(ready!(running.poll(cx))?),
                StateProjection::Beyond { rest } => return rest.poll(cx),
            };
            self.as_mut().project().state.set(State::Beyond { rest });
        }
    }
}
