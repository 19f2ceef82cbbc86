//! One thread of the data path, and all that belongs to it alone.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use metrics::Label;
use pin_project_lite::pin_project;
use portcullis_authn::{CacheCounts, ExternalCounts, WorkerTokens};
use portcullis_core::{Clock, Moment, Problem, Reason, Rejection};
use portcullis_proxy::Pools;

use crate::access_log::AccessLog;
use crate::body::ReplyBody;
use crate::content::Room;
use crate::denials::Denials;
use crate::events::Events;
use crate::exchange::{Accepted, Exchange};
use crate::ledger::{Ledger, RequestIds};
use crate::listener::forwarded::{CallersCertificate, ForwardedCounts, ForwardedMemory};
use crate::listener::ocsp::OnlineMemory;
use crate::listener::{Event, Inbound, IncomingBody, ListenerSettings, Serve};
use crate::passage::Passage;
use crate::request_body::RequestBody;
use crate::snapshot::{LocalSnapshot, Snapshot};
use crate::stack::Stack;
use crate::stages::observe::ObservedBody;
use crate::telemetry::Telemetry;

/// Memory of one worker for verified tokens: about twenty thousand of them.
const TOKEN_CACHE_BYTES: usize = 32 << 20;

/// What a worker's requests share. Nothing here is seen by another thread.
pub(crate) struct Worker {
    pub(crate) tokens: WorkerTokens,
    pub(crate) forwarded: ForwardedMemory,
    pub(crate) online: OnlineMemory,
    pub(crate) pools: Pools<RequestBody>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) denials: Denials,
    /// Where is told of refusals.
    pub(crate) events: Events,
    /// For content that is gathered before a request is judged.
    pub(crate) room: Rc<Room>,
    cache_told: Cell<CacheCounts>,
    forwarded_told: Cell<ForwardedCounts>,
    passwords_told: Cell<(u64, u64)>,
    external_told: Cell<ExternalCounts>,
    clock: Clock,
    ids: RequestIds,
    snapshot: RefCell<Rc<LocalSnapshot>>,
    /// Snapshots that requests under way may still be judged by.
    retired: RefCell<Vec<Rc<LocalSnapshot>>>,
}

impl Worker {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        pools: Pools<RequestBody>,
        access_log: Option<AccessLog>,
        events: Events,
        clock: Clock,
    ) -> Self {
        Self {
            tokens: WorkerTokens::new(TOKEN_CACHE_BYTES),
            forwarded: ForwardedMemory::default(),
            online: OnlineMemory::default(),
            forwarded_told: Cell::default(),
            pools,
            access_log,
            denials: Denials::default(),
            events,
            room: Rc::default(),
            cache_told: Cell::default(),
            passwords_told: Cell::default(),
            external_told: Cell::default(),
            clock,
            ids: RequestIds::default(),
            snapshot: RefCell::new(Rc::new(LocalSnapshot::new(snapshot))),
            retired: RefCell::default(),
        }
    }

    /// Judges the requests that come from here on by another snapshot. Those under way keep theirs.
    pub(crate) fn adopt(&self, snapshot: Arc<Snapshot>) {
        let old = self.snapshot.replace(Rc::new(LocalSnapshot::new(snapshot)));
        self.retired.borrow_mut().push(old);
    }

    /// The settings of a listener, for a connection that comes now.
    pub(crate) fn listener(&self, name: &str) -> Option<Arc<ListenerSettings>> {
        self.snapshot.borrow().shared.doors.listener(name).cloned()
    }

    /// Time since the request was opened.
    pub(crate) fn since(&self, opened: Moment) -> Duration {
        self.clock.monotonic().saturating_sub(opened.monotonic)
    }

    /// Time.
    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Gives what was counted to the registry.
    pub(crate) fn hand_over(&self, telemetry: &Telemetry) {
        let snapshot = Rc::clone(&self.snapshot.borrow());
        snapshot.shard.hand_over(telemetry, &snapshot);
        self.retired.borrow_mut().retain(|retired| {
            retired.shard.hand_over(telemetry, retired);
            // One that no request holds can count no more.
            Rc::strong_count(retired) > 1
        });
        let counts = self.tokens.counts();
        let told = self.cache_told.replace(counts);
        let events = [
            ("hit", counts.hits, told.hits),
            ("miss", counts.misses, told.misses),
            ("eviction", counts.evictions, told.evictions),
        ];
        count_cache_events(telemetry, "tokens", events);
        let counts = self.forwarded.counts();
        let told = self.forwarded_told.replace(counts);
        let results = [
            ("taken", counts.taken, told.taken),
            ("absent", counts.absent, told.absent),
            ("refused", counts.refused, told.refused),
            ("unreadable", counts.unreadable, told.unreadable),
            ("not_the_proxy", counts.not_the_proxy, told.not_the_proxy),
        ];
        count_results(telemetry, "portcullis_forwarded_certificates_total", results);
        let counts = self.tokens.external_counts();
        let told = self.external_told.replace(counts);
        let results = [
            ("allowed", counts.allowed, told.allowed),
            ("denied", counts.denied, told.denied),
            ("unavailable", counts.unavailable, told.unavailable),
            ("busy", counts.busy, told.busy),
            ("remembered", counts.remembered, told.remembered),
        ];
        count_results(telemetry, "portcullis_external_answers_total", results);
        let (hits, misses) = self.tokens.password_counts();
        let (hits_told, misses_told) = self.passwords_told.replace((hits, misses));
        let events = [("hit", hits, hits_told), ("miss", misses, misses_told)];
        count_cache_events(telemetry, "passwords", events);
    }

    pub(crate) fn open(
        self: &Rc<Self>,
        request: Request<IncomingBody>,
        inbound: &Rc<Inbound>,
    ) -> Exchange<Accepted> {
        let snapshot = Rc::clone(&self.snapshot.borrow());
        snapshot.shard.begin();
        let (head, body) = request.into_parts();
        let now = self.clock.now();
        let ledger = Ledger::open(self.ids.next(now), now, head.method.clone());
        let passage = Box::new(Passage {
            head,
            body: RequestBody::Streaming(body),
            inbound: Rc::clone(inbound),
            certificate_from: CallersCertificate::default(),
            snapshot,
            worker: Rc::clone(self),
            reserved: Default::default(),
            ledger,
        });
        Exchange { passage, proof: Accepted }
    }

    /// The answer to a request in whose stages something broke that cannot break.
    fn apologise(&self) -> Response<ObservedBody> {
        self.snapshot.borrow().shard.panicked();
        let request_id = self.ids.next(self.clock.now()).to_string();
        let rejection = Rejection::new(Reason::InternalError);
        let body = Bytes::from(Problem::new(&rejection, &request_id).to_json());
        let mut response = Response::new(ObservedBody::unobserved(ReplyBody::Own(Some(body))));
        *response.status_mut() = rejection.reason().status();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// Counts what has been added to each result since it was told last.
fn count_results(telemetry: &Telemetry, metric: &'static str, results: [(&'static str, u64, u64); 5]) {
    for (result, now, before) in results.into_iter().filter(|(_, now, before)| now > before) {
        telemetry.count(metric, vec![Label::from_static_parts("result", result)], now - before);
    }
}

/// Counts what has been added to each event of a cache since it was told last, also where it is nothing: a cache that
/// is never hit is to be seen.
fn count_cache_events<const N: usize>(
    telemetry: &Telemetry,
    cache: &'static str,
    events: [(&'static str, u64, u64); N],
) {
    for (event, now, before) in events {
        let labels = vec![Label::from_static_parts("cache", cache), Label::from_static_parts("event", event)];
        telemetry.count("portcullis_cache_events_total", labels, now.saturating_sub(before));
    }
}

/// Hands requests from the listeners to the stack.
pub(crate) struct Door<S> {
    pub(crate) worker: Rc<Worker>,
    pub(crate) stack: S,
    pub(crate) telemetry: Telemetry,
}

impl<S: Stack> Serve for Door<S> {
    type Body = ObservedBody;
    type Future = Guarded<S::Future>;

    fn serve(&self, request: Request<IncomingBody>, inbound: &Rc<Inbound>) -> Self::Future {
        let mut stack = self.stack;
        Guarded { running: stack.call(self.worker.open(request, inbound)), worker: Rc::clone(&self.worker) }
    }

    fn settings(&self, listener: &str) -> Option<Arc<ListenerSettings>> {
        self.worker.listener(listener)
    }

    fn observe(&self, listener: &Arc<str>, event: Event) {
        self.telemetry.door(listener, event);
    }
}

pin_project! {
    /// The stack's future, in which a panic ends this request alone.
    pub(crate) struct Guarded<F> {
        #[pin]
        running: F,
        worker: Rc<Worker>,
    }
}

impl<F> Future for Guarded<F>
where
    F: Future<Output = Result<Response<ObservedBody>, std::convert::Infallible>>,
{
    type Output = Response<ObservedBody>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Nothing of the request is used after a panic, and what outlives it (pools, caches, cells) is changed
        // only between awaits and never left half-way by code that can panic.
        let polled = catch_unwind(AssertUnwindSafe(|| this.running.poll(cx)));
        Poll::Ready(match polled {
            Ok(polled) => match ready!(polled) {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(_) => this.worker.apologise(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use portcullis_core::Clock;
    use portcullis_proxy::{PoolSettings, Pools};

    use super::{Guarded, Worker};
    use crate::events::Events;
    use crate::snapshot::{Doors, Snapshot};

    #[test]
    fn a_panic_in_a_stage_ends_that_request_with_500_and_nothing_else() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let snapshot = Snapshot {
                apis: Vec::new(),
                routes: Default::default(),
                upstreams: Vec::new(),
                doors: Doors::default(),
                admin_door: None,
                proxy_fields: Vec::new(),
                revoked: Vec::new(),
                weak_passwords: 0,
                hash: "none".into(),
            };
            let pools = Pools::new(PoolSettings::default());
            let worker =
                Rc::new(Worker::new(Arc::new(snapshot), pools, None, Events::default(), Clock::System));
            let running = async { panic!("a stage that cannot fail has failed") };
            let mut guarded = pin!(Guarded { running, worker: Rc::clone(&worker) });
            let Poll::Ready(response) = guarded.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("an answer at once")
            };
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        });
    }
}
