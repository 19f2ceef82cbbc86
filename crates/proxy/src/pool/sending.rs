//! A request on its way, until the head of its answer is there.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::answer::UpstreamBody;
use super::lease::Lease;
use crate::error::ForwardError;

type Answer<B> = Result<Response<UpstreamBody<B>>, ForwardError>;

/// A request on its way. Small: what it needs lies with the connection.
#[must_use = "nothing is sent before it is polled"]
pub struct Sending<B> {
    state: State<B>,
}

enum State<B> {
    /// On a connection that was kept: the way of nearly all requests, and it allocates nothing.
    Kept(Lease<B>),
    /// Everything else: connections are made, endpoints passed over, HTTP/2 spoken.
    Searching(Pin<Box<dyn Future<Output = Answer<B>>>>),
    /// It cannot be sent.
    Refused(ForwardError),
    /// Answered.
    Over,
}

impl<B> Sending<B> {
    pub(super) const fn kept(lease: Lease<B>) -> Self {
        Self { state: State::Kept(lease) }
    }

    pub(super) fn searching(search: Pin<Box<dyn Future<Output = Answer<B>>>>) -> Self {
        Self { state: State::Searching(search) }
    }

    pub(super) const fn refused(error: ForwardError) -> Self {
        Self { state: State::Refused(error) }
    }
}

impl<B> std::fmt::Debug for Sending<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

impl<B> Future for Sending<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    type Output = Answer<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        let head = match &mut self.state {
            State::Kept(lease) => ready!(lease.poll_head(cx)),
            State::Searching(search) => {
                let answer = ready!(search.as_mut().poll(cx));
                self.state = State::Over;
                return Poll::Ready(answer);
            }
            State::Refused(_) | State::Over => Err(ForwardError::Malformed("the exchange is over".into())),
        };
        Poll::Ready(match (std::mem::replace(&mut self.state, State::Over), head) {
            (State::Kept(lease), Ok(head)) => Ok(lease.answer(head)),
            (State::Refused(error), _) | (_, Err(error)) => Err(error),
            (State::Searching(_) | State::Over, Ok(_)) => {
                Err(ForwardError::Malformed("the exchange is over".into()))
            }
        })
    }
}
