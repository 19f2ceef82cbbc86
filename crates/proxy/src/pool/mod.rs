//! The connections of one worker.
//!
//! Nothing here is shared between threads: a connection is opened, used, kept and closed by the worker whose
//! requests it carries. HTTP/1.1 connections are kept last in, first out, so that as few as possible stay warm and
//! the rest are closed by their idle deadline.

#[cfg(test)]
mod allocation_tests;
mod answer;
pub(crate) mod deadline;
mod endpoint;
mod lease;
mod sending;
mod shared;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::task::AbortHandle;

use crate::error::ForwardError;
use crate::outgoing::{BodyLimits, Outgoing};
use crate::upstream::{Definition, Upstream, UpstreamId};
use deadline::{Deadlines, Patience};
use endpoint::{Endpoint, Failure};

pub use answer::UpstreamBody;
pub(crate) use answer::explain;
pub use sending::Sending;

/// How many connections are kept when nobody uses them, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Idle HTTP/1.1 connections kept per endpoint and worker.
    pub max_idle: usize,
    /// An idle connection is closed after this long. Shorter than most servers' own limit, so that it is we who
    /// close, and no request meets a connection that is just being closed from the other side.
    pub idle_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { max_idle: 256, idle_timeout: Duration::from_secs(15) }
    }
}

/// All upstream connections of one worker. `B` is the body of the requests it forwards.
#[derive(Debug)]
pub struct Pools<B> {
    inner: Rc<Inner<B>>,
}

impl<B> Clone for Pools<B> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

#[derive(Debug)]
struct Inner<B> {
    settings: PoolSettings,
    deadlines: Rc<Deadlines>,
    keeper: OnceCell<AbortHandle>,
    known: RefCell<HashMap<UpstreamId, Known<B>, ahash::RandomState>>,
}

/// A pool and the compiled upstream it serves. After a reload several upstreams may share one pool for a while.
#[derive(Debug)]
struct Known<B> {
    upstream: Weak<Upstream>,
    pool: Rc<Pool<B>>,
}

#[derive(Debug)]
struct Pool<B> {
    definition: Arc<Definition>,
    endpoints: Vec<Rc<Endpoint<B>>>,
    turn: Cell<usize>,
}

impl<B> Pools<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    /// No connections yet.
    pub fn new(settings: PoolSettings) -> Self {
        Self {
            inner: Rc::new(Inner {
                settings,
                deadlines: Rc::default(),
                keeper: OnceCell::new(),
                known: RefCell::default(),
            }),
        }
    }

    /// Sends a request to an endpoint of the upstream; ready with the head of its answer, with the body to come.
    ///
    /// The target goes out as it is, as path and query; so does `Host`. Header hygiene is not done here. Must be
    /// called on a `LocalSet` or local runtime, because some of what carries it are tasks of this thread. Dropping the
    /// future, or the body before its end, closes an HTTP/1.1 connection or resets an HTTP/2 stream.
    ///
    /// SECURITY: a request goes out a second time only if it provably never went out the first time: the
    /// connection was not made, or hyper gave the request back unsent. It never depends on the method (PRX-08).
    /// On a kept HTTP/1.1 connection it goes out once, whatever comes of it.
    ///
    /// # Errors
    /// [`ForwardError`]; it converts to the refusal.
    pub fn send(&self, upstream: &Arc<Upstream>, request: Request<B>, limits: BodyLimits) -> Sending<B> {
        self.begin(upstream, request, limits).unwrap_or_else(Sending::refused)
    }

    fn begin(
        &self,
        upstream: &Arc<Upstream>,
        request: Request<B>,
        limits: BodyLimits,
    ) -> Result<Sending<B>, ForwardError> {
        let (mut head, body) = request.into_parts();
        // hyper keeps notes for itself there: an upgrade it could make, the spelling of names.
        head.extensions.clear();
        let request = Request::from_parts(head, Outgoing::new(body, limits)?);
        let pool = self.inner.pool(upstream);
        let patience = Patience { upstream: upstream.timeout(), caller: limits.idle, body: limits.total };
        let turn = pool.next_turn();
        let first = pool.round(turn).next();
        if let Some((endpoint, lease)) = first.and_then(|first| Some((first, first.check_out()?))) {
            endpoint.begin(&lease, request, patience)?;
            return Ok(Sending::kept(lease));
        }
        Ok(Sending::searching(Box::pin(search(pool, turn, Arc::clone(upstream), request, patience))))
    }
}

/// Asks one endpoint after the other, from this one on, until one takes the request.
async fn search<B>(
    pool: Rc<Pool<B>>,
    turn: usize,
    upstream: Arc<Upstream>,
    request: Request<Outgoing<B>>,
    patience: Patience,
) -> Result<Response<UpstreamBody<B>>, ForwardError>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let (mut request, mut failure) = (Some(request), String::new());
    for endpoint in pool.round(turn) {
        match endpoint.exchange(&mut request, upstream.connect_timeout(), patience).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Sent(error)) => return Err(error),
            Err(Failure::Unsent(why)) => {
                tracing::debug!(upstream = %upstream.name(), %why, "an endpoint was passed over");
                failure = why;
            }
        }
    }
    Err(ForwardError::Unreachable(failure))
}

impl<B> Inner<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    fn pool(self: &Rc<Self>, upstream: &Arc<Upstream>) -> Rc<Pool<B>> {
        if let Some(known) = self.known.borrow().get(&upstream.id()) {
            return Rc::clone(&known.pool);
        }
        self.keeper.get_or_init(|| {
            let (inner, deadlines) = (Rc::downgrade(self), Rc::clone(&self.deadlines));
            let keeping = async move {
                deadlines.keep(|| inner.upgrade().iter().for_each(|inner| inner.sweep())).await;
            };
            tokio::task::spawn_local(keeping).abort_handle()
        });
        let mut known = self.known.borrow_mut();
        let equal = known.values().find(|known| known.pool.definition == *upstream.definition());
        let pool = match equal {
            Some(known) => Rc::clone(&known.pool),
            None => Rc::new(Pool::new(upstream, self.settings, &self.deadlines)),
        };
        known.insert(upstream.id(), Known { upstream: Arc::downgrade(upstream), pool: Rc::clone(&pool) });
        pool
    }

    /// Forgets connections that are closed, and pools whose upstream no snapshot knows any more once their last
    /// connection is gone: until then a reload may bring the same upstream back.
    fn sweep(&self) {
        self.known.borrow_mut().retain(|_id, known| {
            let mut in_use = known.upstream.strong_count() > 0;
            for endpoint in &known.pool.endpoints {
                in_use |= endpoint.sweep();
            }
            in_use
        });
    }
}

impl<B> Drop for Inner<B> {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }
}

impl<B> Pool<B> {
    fn new(upstream: &Upstream, settings: PoolSettings, deadlines: &Rc<Deadlines>) -> Self {
        let definition = Arc::clone(upstream.definition());
        let endpoints = definition
            .endpoints
            .iter()
            .map(|origin| Rc::new(Endpoint::new(Arc::clone(origin), settings, Rc::clone(deadlines))))
            .collect();
        Self { definition, endpoints, turn: Cell::new(upstream.first_turn()) }
    }

    fn next_turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Every endpoint once, beginning with the one whose turn it is.
    fn round(&self, turn: usize) -> impl Iterator<Item = &Rc<Endpoint<B>>> {
        let first = turn.checked_rem(self.endpoints.len()).unwrap_or(0);
        let (before, from) = self.endpoints.split_at(first);
        from.iter().chain(before)
    }
}
