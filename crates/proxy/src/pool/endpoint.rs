//! One endpoint as one worker sees it: its idle connections, and how a request gets onto one.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::PoolSettings;
use super::answer::{self, UpstreamBody};
use super::deadline::{Deadlines, Patience, Turn, Watch};
use super::lease::{Kept, Lease};
use super::shared::{Shared, Stream};
use crate::connect::{self, ConnectError, Host, Protocol};
use crate::error::ForwardError;
use crate::lookup::Lookup;
use crate::outgoing::{self, Outgoing};
use crate::transport::Transport;
use crate::upstream::Origin;

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint<B> {
    origin: Arc<Origin>,
    settings: PoolSettings,
    deadlines: Rc<Deadlines>,
    /// HTTP/1.1 connections without an exchange; the warmest last.
    idle: RefCell<Vec<Rc<Kept<B>>>>,
    /// The HTTP/2 connection.
    shared: RefCell<Option<Shared<B>>>,
    /// Held while the HTTP/2 connection is being made, so that it is made once.
    opening: tokio::sync::Mutex<()>,
    /// What the endpoint chose the last time it was free to choose.
    chosen: Cell<Option<Protocol>>,
    lookup: Rc<Lookup>,
}

/// Why an endpoint did not answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing went out; the request is back where it was taken from.
    Unsent(String),
    /// Something may have gone out.
    Sent(ForwardError),
}

impl From<ForwardError> for Failure {
    fn from(error: ForwardError) -> Self {
        Self::Sent(error)
    }
}

enum Opened<B> {
    Http1(Lease<B>),
    Http2(Shared<B>),
}

impl<B> Endpoint<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    /// Makes one exchange. `request` is taken when it goes out, and put back if it did not.
    pub(crate) async fn exchange(
        self: &Rc<Self>,
        request: &mut Option<Request<Outgoing<B>>>,
        connect_limit: Duration,
        patience: Patience,
    ) -> Result<Response<UpstreamBody<B>>, Failure> {
        if let Some(lease) = self.check_out() {
            return self.over_http1(lease, request, patience).await;
        }
        if let Some(shared) = self.shared() {
            match self.over_http2(shared, request, patience).await {
                Err(Failure::Unsent(_)) => {}
                decided => return decided,
            }
        }
        // Boxed, so that the rare making of a connection does not widen the future of every request.
        match Box::pin(self.open(connect_limit)).await {
            Ok(Opened::Http1(lease)) => self.over_http1(lease, request, patience).await,
            Ok(Opened::Http2(shared)) => self.over_http2(shared, request, patience).await,
            Err(error) => Err(Failure::Unsent(error.to_string())),
        }
    }

    async fn over_http1(
        &self,
        lease: Lease<B>,
        request: &mut Option<Request<Outgoing<B>>>,
        patience: Patience,
    ) -> Result<Response<UpstreamBody<B>>, Failure> {
        let Some(request) = request.take() else {
            return Err(Failure::Unsent("there is nothing to send".into()));
        };
        self.begin(&lease, request, patience)?;
        let head = std::future::poll_fn(|cx| lease.poll_head(cx)).await?;
        Ok(lease.answer(head))
    }

    /// Begins an exchange on a connection that is idle, if there is one.
    ///
    /// # Errors
    /// The request cannot be sent. Nothing of it was.
    pub(crate) fn begin(
        &self,
        lease: &Lease<B>,
        request: Request<Outgoing<B>>,
        patience: Patience,
    ) -> Result<(), ForwardError> {
        lease.begin(request, &self.origin, patience)
    }

    async fn over_http2(
        &self,
        mut shared: Shared<B>,
        request: &mut Option<Request<Outgoing<B>>>,
        patience: Patience,
    ) -> Result<Response<UpstreamBody<B>>, Failure> {
        let stream = Stream::open(&shared, &self.deadlines, self.settings.idle_timeout);
        let Some(outgoing) = request.as_mut() else {
            return Err(Failure::Unsent("there is nothing to send".into()));
        };
        outgoing::for_http2(outgoing, &self.origin)?;
        outgoing.body_mut().attach(stream.watch());
        stream.watch().begin(patience);
        let Some(outgoing) = request.take() else {
            return Err(Failure::Unsent("there is nothing to send".into()));
        };
        let method = outgoing.method().clone();
        let answer = shared.sender.try_send_request(outgoing);
        match head(answer, stream.watch()).await {
            Some(Ok(answer)) => Ok(answer::from_http2(answer, stream, &method)?),
            refused => {
                let failure = failure(refused.and_then(Result::err), stream.watch(), request);
                // A connection that lets a request time out or gives one back may be dead without knowing it.
                // Those on it may finish; new ones get another. What callers do wrong never costs a connection.
                if matches!(failure, Failure::Unsent(_) | Failure::Sent(ForwardError::TimedOut(_))) {
                    self.shared.borrow_mut().take_if(|current| current.is(&shared));
                }
                Err(failure)
            }
        }
    }

    fn shared(&self) -> Option<Shared<B>> {
        self.shared.borrow().as_ref().filter(|shared| shared.is_usable()).cloned()
    }

    async fn open(self: &Rc<Self>, limit: Duration) -> Result<Opened<B>, ConnectError> {
        connect::within(limit, |end| async move {
            // Until an endpoint is known to want a connection per exchange, one attempt is made at a time: if it
            // turns out to share, all who wait here share it.
            let alone = self.origin.protocol.or(self.chosen.get()) != Some(Protocol::Http1);
            let turn = if alone { Some(self.opening.lock().await) } else { None };
            if let Some(shared) = self.shared() {
                return Ok(Opened::Http2(shared));
            }
            let (transport, protocol) = self.connect(limit, end).await?;
            self.chosen.set(Some(protocol));
            let opened = match protocol {
                Protocol::Http1 => {
                    Opened::Http1(Lease::new(Kept::new(transport, &self.deadlines), Rc::clone(self)))
                }
                Protocol::Http2 => {
                    let shared =
                        Shared::start(transport, &self.deadlines, self.settings.idle_timeout).await?;
                    self.shared.replace(Some(shared.clone()));
                    Opened::Http2(shared)
                }
            };
            drop(turn);
            Ok(opened)
        })
        .await
    }

    async fn connect(&self, limit: Duration, end: Instant) -> Result<(Transport, Protocol), ConnectError> {
        let origin = &*self.origin;
        let addresses = match &origin.host {
            Host::Address(address) => vec![SocketAddr::new(*address, origin.port)],
            Host::Name(name) => {
                let asked = Arc::clone(&self.origin);
                let question = async move { connect::resolve(&asked.host, asked.port).await };
                self.lookup.addresses(name, limit, question).await?
            }
        };
        let stream = connect::dial(&addresses, end).await?;
        let Some(handshake) = &origin.handshake else {
            return Ok((Transport::Plain(stream), origin.protocol.unwrap_or(Protocol::Http1)));
        };
        let (transport, chosen) = connect::shake_hands(stream, handshake).await?;
        // A server that chooses nothing knows nothing of HTTP/2 (RFC 9113 section 3.2).
        let chosen = chosen.unwrap_or(Protocol::Http1);
        if origin.protocol.is_some_and(|wanted| wanted != chosen) {
            return Err(ConnectError::Protocol);
        }
        Ok((transport, chosen))
    }
}

impl<B> Endpoint<B> {
    pub(crate) fn new(origin: Arc<Origin>, settings: PoolSettings, deadlines: Rc<Deadlines>) -> Self {
        Self {
            origin,
            settings,
            deadlines,
            idle: RefCell::default(),
            shared: RefCell::new(None),
            opening: tokio::sync::Mutex::default(),
            chosen: Cell::new(None),
            lookup: Rc::default(),
        }
    }

    /// The warmest idle connection on which nothing has happened since it became idle.
    ///
    /// SECURITY: what has come since then belongs to no request, and would be taken for the answer to the next one.
    pub(crate) fn check_out(self: &Rc<Self>) -> Option<Lease<B>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let kept = idle.pop()?;
            if kept.is_usable() {
                return Some(Lease::new(kept, Rc::clone(self)));
            }
        }
    }

    /// Takes a connection back whose exchange is over.
    pub(crate) fn keep(&self, kept: &Rc<Kept<B>>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.settings.max_idle {
            idle.retain(|kept| kept.is_usable());
        }
        if idle.len() < self.settings.max_idle {
            kept.watch().idle(self.settings.idle_timeout);
            idle.push(Rc::clone(kept));
        }
    }

    #[cfg(test)]
    pub(crate) fn idle_len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Forgets connections that are closed, and returns whether any is left.
    pub(crate) fn sweep(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| kept.is_usable());
        let mut shared = self.shared.borrow_mut();
        shared.take_if(|shared| !shared.is_usable());
        !idle.is_empty() || shared.is_some()
    }
}

/// Waits for the head of an answer; `None` when the deadline passed first.
async fn head<B, F>(answer: F, watch: &Watch) -> Option<F::Output>
where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing<B>>>>>,
{
    let mut answer = pin!(answer);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            watch.rest();
            return Poll::Ready(Some(answer));
        }
        if watch.expired().is_some() {
            return Poll::Ready(None);
        }
        watch.wait(cx);
        Poll::Pending
    })
    .await
}

/// What became of a request that got no answer. Puts it back if it was never sent.
fn failure<B>(
    error: Option<TrySendError<Request<Outgoing<B>>>>,
    watch: &Watch,
    request: &mut Option<Request<Outgoing<B>>>,
) -> Failure {
    if watch.expired() == Some(Turn::Upstream) {
        return Failure::Sent(ForwardError::TimedOut(watch.patience().upstream));
    }
    if let Some(fault) = watch.take_fault() {
        return Failure::Sent(ForwardError::RequestBody(fault));
    }
    let Some(mut error) = error else {
        return Failure::Sent(ForwardError::Malformed("the exchange ended without an answer".into()));
    };
    *request = error.take_message();
    let why = answer::explain(&error.into_error());
    if request.is_some() { Failure::Unsent(why) } else { Failure::Sent(ForwardError::Malformed(why)) }
}
