//! Events: what operators want to be told of, in the words of the log, over webhooks.
//!
//! Whoever has something to tell puts it in a queue and never waits; a full queue is counted. The background gathers
//! refusals, of which there may be as many as strangers want, and hands everything else on at once. Both have queues of
//! their own all the way, so no flood of refusals takes the place of what is told by itself.

mod deliver;
mod gather;
mod spec;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use portcullis_core::{Clock, Reason};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};

pub(crate) use deliver::Webhook;
use deliver::run;
pub(crate) use spec::EventsSpec;

use crate::telemetry::Telemetry;

/// How many refusals may wait to be gathered.
const REFUSED: usize = 4_096;
/// How many other events may wait to be handed on.
const RARE: usize = 1_024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// Somebody could not show who they are.
    AuthFailed,
    /// A limit has refused somebody.
    LimitExceeded,
    /// A quota is nearly used up.
    QuotaAlert,
    /// An API key was made, changed, rotated or revoked.
    KeyChanged,
    /// A client was registered, changed or removed.
    ClientChanged,
    /// Tokens were revoked, or a revocation was taken back.
    TokenRevoked,
    /// A certificate ends soon, or has ended.
    CertificateEnding,
    /// Other policies are in force, or the gateway is ending.
    ConfigChanged,
}

impl EventKind {
    pub(crate) const ALL: [(&'static str, Self); 8] = [
        ("auth.failed", Self::AuthFailed),
        ("limit.exceeded", Self::LimitExceeded),
        ("quota.alert", Self::QuotaAlert),
        ("key.changed", Self::KeyChanged),
        ("client.changed", Self::ClientChanged),
        ("token.revoked", Self::TokenRevoked),
        ("certificate.ending", Self::CertificateEnding),
        ("config.changed", Self::ConfigChanged),
    ];

    /// The word in policy files and in events.
    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

/// A request that was refused, as far as events tell of it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) api: Arc<str>,
    pub(crate) reason: Reason,
    /// The limit that refused it.
    pub(crate) limit: Option<Arc<str>>,
    pub(crate) identity: Option<Arc<str>>,
    pub(crate) client: String,
    pub(crate) request_id: String,
}

/// What is to be told, and to whom.
struct Inbox {
    /// Other webhooks in the place of those there were.
    webhooks: UnboundedReceiver<Vec<Webhook>>,
    /// What happened to requests; told with others of its kind.
    refused: Receiver<(EventKind, Refused)>,
    /// What is rare, told by itself.
    rare: Receiver<(EventKind, Value)>,
}

/// Where events are put. Clones lead to the same queue; one without webhooks leads nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    refused: Sender<(EventKind, Refused)>,
    rare: Sender<(EventKind, Value)>,
    /// Which kinds anybody wants to hear of.
    wanted: ArcSwap<Vec<EventKind>>,
    webhooks: UnboundedSender<Vec<Webhook>>,
    dropped: AtomicU64,
}

impl Events {
    /// A queue, and what hands on what is in it for as long as there is a clone of this one.
    pub(crate) fn begin(telemetry: &Telemetry, clock: &Clock) -> (Self, impl Future<Output = ()> + use<>) {
        let ((refused, refusals), (rare, others)) = (channel(REFUSED), channel(RARE));
        let (webhooks, told) = unbounded_channel();
        let queue = Queue { refused, rare, wanted: ArcSwap::default(), webhooks, dropped: AtomicU64::new(0) };
        let inbox = Inbox { webhooks: told, refused: refusals, rare: others };
        (Self(Some(Arc::new(queue))), run(inbox, telemetry.clone(), clock.clone()))
    }

    /// Tells these from now on, and nobody else. What waits for those there were is still handed on.
    pub(crate) fn tell_to(&self, webhooks: Vec<Webhook>) {
        let Some(queue) = &self.0 else { return };
        let wanted = EventKind::ALL.iter().map(|(_, kind)| *kind);
        let wanted = wanted.filter(|kind| webhooks.iter().any(|webhook| webhook.wants(*kind)));
        queue.wanted.store(Arc::new(wanted.collect()));
        // Nobody hears of it where the gateway has ended.
        let _ = queue.webhooks.send(webhooks);
    }

    /// A request was refused. `describe` is asked only if somebody wants to hear of it.
    pub(crate) fn refused(&self, reason: Reason, describe: impl FnOnce() -> Option<Refused>) {
        let kind = match reason {
            Reason::RateLimited | Reason::QuotaExhausted => EventKind::LimitExceeded,
            Reason::TooManyFailures | Reason::TokenRevoked | Reason::TokenReplayed => EventKind::AuthFailed,
            reason if reason.is_failed_proof() => EventKind::AuthFailed,
            _ => return,
        };
        if self.wants(kind)
            && let Some(refused) = describe()
        {
            self.put(|queue| queue.refused.try_send((kind, refused)).is_ok());
        }
    }

    /// Something else happened. SECURITY: `data` holds no secret.
    pub(crate) fn tell(&self, kind: EventKind, data: Value) {
        if self.wants(kind) {
            self.put(|queue| queue.rare.try_send((kind, data)).is_ok());
        }
    }

    /// How many events found the queue full.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.dropped.load(Ordering::Relaxed))
    }

    fn wants(&self, kind: EventKind) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.wanted.load().contains(&kind))
    }

    fn put(&self, put: impl FnOnce(&Queue) -> bool) {
        if let Some(queue) = &self.0
            && !put(queue)
        {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The body of an event, as the Standard Webhooks have it: what, when, and about what.
fn body(kind: EventKind, data: Value, clock: &Clock) -> String {
    let now = Timestamp::from_millisecond(clock.now().unix_ms).unwrap_or_default();
    json!({ "type": kind.as_str(), "timestamp": format!("{now:.3}"), "data": data }).to_string()
}
