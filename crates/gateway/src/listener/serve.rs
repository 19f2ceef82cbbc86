//! Serves one accepted connection: HTTP/1.1 by ourselves, HTTP/2 by hyper.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::IncomingBody;
use super::drain::Draining;
use super::event::Event;
use super::framing::HeadLimits;
use super::http1::{self, Broken};
use super::inbound::Inbound;
use super::limits::{
    CONNECTION_WINDOW_BYTES, LOCAL_RESET_STREAMS, ListenLimits, PENDING_RESET_STREAMS, PING_INTERVAL,
    PING_TIMEOUT, STREAM_SEND_BYTES, STREAM_WINDOW_BYTES,
};
use super::settings::ListenerSettings;
use super::watch::{Protocol, Watched};
use super::wire::Wire;

/// What a worker does with the requests of its listeners. Everything here stays on one thread.
pub trait Serve: 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static;
    /// A request on its way.
    type Future: Future<Output = Response<Self::Body>> + 'static;

    /// Takes one request. SECURITY: a request for which [`Inbound::framing_fault`] has an answer must be refused
    /// with it; its connection is closed behind the answer.
    fn serve(&self, request: Request<IncomingBody>, inbound: &Rc<Inbound>) -> Self::Future;

    /// The settings of a listener as they are in force now, for a connection that comes.
    fn settings(&self, listener: &str) -> Option<Arc<ListenerSettings>>;

    /// Learns what happens at the door of a listener. Called for connections, never for requests.
    fn observe(&self, listener: &Arc<str>, event: Event);
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In good order, or because the other side went away.
    Closed,
    /// We cut it: it stalled or was abused.
    Cut,
    /// It did not speak HTTP.
    Malformed,
}

/// Carries the requests of one connection until it ends.
pub(crate) async fn connection<S: Serve, T: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: T,
    inbound: Rc<Inbound>,
    serve: Rc<S>,
    draining: Draining,
    limits: &ListenLimits,
) -> Ending {
    if inbound.is_http2() {
        let wire = TokioIo::new(Wire::new(io, Rc::clone(&inbound)));
        let service = PerConnection { serve, inbound: Rc::clone(&inbound) };
        let connection = http2_builder(limits).serve_connection(wire, service);
        return match Watched::new(connection, inbound, draining, limits.clone()).await {
            None => Ending::Cut,
            Some(Err(error)) if error.is_parse() => Ending::Malformed,
            Some(_) => Ending::Closed,
        };
    }
    let connection = http1::connection(io, Rc::clone(&inbound), serve, HeadLimits::from(limits));
    match Watched::new(connection, inbound, draining, limits.clone()).await {
        None => Ending::Cut,
        Some(Err(Broken::Malformed(_))) => Ending::Malformed,
        Some(_) => Ending::Closed,
    }
}

fn http2_builder(limits: &ListenLimits) -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local);
    // Extended CONNECT stays off: nothing here tunnels (CVE-2025-64763 and its kin).
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_SEND_BYTES)
        .max_header_list_size(u32::try_from(limits.headers_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESET_STREAMS)
        .max_local_error_reset_streams(LOCAL_RESET_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Runs HTTP/2 streams on the worker's own thread. A panic in one ends that stream only.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(stream);
    }
}

impl<I, S: Serve> Protocol for http2::Connection<I, PerConnection<S>, Local>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// hyper's view of the service: the worker's service and the connection.
struct PerConnection<S> {
    serve: Rc<S>,
    inbound: Rc<Inbound>,
}

impl<S: Serve> Service<Request<Incoming>> for PerConnection<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::new(Rc::clone(&self.inbound), self.inbound.begin());
        let request = request.map(IncomingBody::Http2);
        Answering { future: self.serve.serve(request, &self.inbound), in_flight: Some(in_flight) }
    }
}

/// Counts one request for as long as its answer is being made and sent.
#[derive(Debug)]
pub(crate) struct InFlight {
    inbound: Rc<Inbound>,
    number: u64,
    answered: bool,
}

impl InFlight {
    pub(crate) const fn new(inbound: Rc<Inbound>, number: u64) -> Self {
        Self { inbound, number, answered: false }
    }

    /// There is an answer: what becomes of it is not the request's fault any more.
    pub(crate) const fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.inbound.end(self.number);
        if !self.answered {
            self.inbound.abandon();
        }
    }
}

pin_project! {
    /// A request on its way.
    struct Answering<F> {
        #[pin]
        future: F,
        in_flight: Option<InFlight>,
    }
}

impl<F: Future<Output = Response<B>>, B> Future for Answering<F> {
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx));
        let mut in_flight = this.in_flight.take();
        if let Some(in_flight) = &mut in_flight {
            in_flight.answered();
        }
        Poll::Ready(Ok(response.map(|body| Answer { body, in_flight })))
    }
}

pin_project! {
    /// The body of an answer; the request is in flight until it is gone.
    struct Answer<B> {
        #[pin]
        body: B,
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Some(InFlight { inbound, number, .. }) = this.in_flight {
            inbound.set_unclaimed(*number, matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
