//! `Reply` → `Response`: every request ends here, with its metrics and its log line at the end of the body.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use portcullis_proxy::BodyError;
use tower::{Layer, Service};

use crate::access_log::Record;
use crate::body::ReplyBody;
use crate::exchange::Reply;
use crate::forward::hex;
use crate::ledger::{AuthRecord, Ledger};
use crate::listener::Inbound;
use crate::snapshot::LocalSnapshot;
use crate::worker::Worker;

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
        let Reply { response, worker, snapshot, inbound, ledger } = reply;
        let observation = Some(Observation { worker, snapshot, inbound, ledger });
        Poll::Ready(Ok(response.map(|body| ObservedBody { body, observation })))
    }
}

/// The answer's body, which closes the record when it ends: after its last byte, or when the client goes.
pub(crate) struct ObservedBody {
    body: ReplyBody,
    observation: Option<Observation>,
}

struct Observation {
    worker: Rc<Worker>,
    snapshot: Rc<LocalSnapshot>,
    inbound: Rc<Inbound>,
    ledger: Box<Ledger>,
}

impl ObservedBody {
    /// For an answer that has no record any more.
    pub(crate) const fn unobserved(body: ReplyBody) -> Self {
        Self { body, observation: None }
    }

    fn close(&mut self) {
        if let Some(observation) = self.observation.take() {
            observation.close();
        }
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        // A client that goes away in the middle of an answer has had its request all the same.
        self.close();
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
                if let (Some(data), Some(observation)) = (frame.data_ref(), &mut this.observation) {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    observation.ledger.bytes_out = observation.ledger.bytes_out.saturating_add(length);
                }
            }
            Some(Err(error)) => {
                if let Some(observation) = &mut this.observation {
                    observation.ledger.reason = Some(error.reason());
                    observation.ledger.inner = Some(error.to_string());
                }
                this.close();
            }
            None => this.close(),
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

impl Observation {
    fn close(self) {
        let total = self.worker.since(self.ledger.opened);
        self.worker.shard.end(&self.ledger, total);
        if let Some(log) = &self.worker.access_log {
            log.write(self.record(total));
        }
    }

    fn record(&self, total: Duration) -> Record {
        let ledger = &self.ledger;
        let api = ledger.api.as_ref();
        let rule = ledger.rule.and_then(|permit| Some((api?, permit)));
        let template = rule.and_then(|(api, permit)| api.rules.path_template(permit));
        Record {
            ts: timestamp(ledger.opened.unix_ms),
            request_id: ledger.id.to_string(),
            listener: self.inbound.connection().listener.clone(),
            api: api.map(|api| api.name.clone()),
            rule: rule.and_then(|(api, permit)| api.rules.rule_name(permit).cloned()),
            method: ledger.method.to_string(),
            path: template
                .map(|template| template.to_string())
                .or_else(|| ledger.path.clone())
                .or_else(|| Some(api?.path.to_string())),
            status: ledger.status.as_u16(),
            decision: if ledger.reason.is_none() { "allow" } else { "deny" },
            reason: ledger.reason.map(|reason| reason.code()),
            detail: ledger.inner.clone(),
            limit: ledger.limit.clone(),
            identity: ledger.principal.clone(),
            auth: match ledger.auth {
                AuthRecord::Verified { method, .. } => Some(method.as_str()),
                AuthRecord::NotReached | AuthRecord::Refused { .. } => None,
            },
            cert: ledger.certificate.map(|thumbprint| hex(thumbprint.get(..8).unwrap_or_default())),
            client: self.inbound.connection().address().to_string(),
            gateway_ms: milliseconds(ledger.forwarded_at.unwrap_or(total)),
            upstream_ms: ledger
                .forwarded_at
                .and_then(|sent| Some(milliseconds(ledger.answered_at?.saturating_sub(sent)))),
            total_ms: milliseconds(total),
            out: ledger.bytes_out,
            config: self.snapshot.shared.hash.clone(),
        }
    }
}

fn timestamp(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| String::new(), |instant| format!("{instant:.3}"))
}

/// Microseconds are as fine as it makes sense to read.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}
