//! One provider that is asked about tokens, as requests see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_core::json::Object;
use portcullis_core::{Clock, Fetch, Moment, QUESTIONS_AT_ONCE, Reason, Rejection};
use portcullis_jose::ClaimRules;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Endpoint;
use super::breaker::Breaker;
use super::client::OurClient;
use super::memory::{Memory, TokenDigest};
use super::question::{self, Blame};
use super::status::IntrospectionStatus;
use crate::issuers::Issuer;
use crate::keys::lock;

/// Questions to one provider that may be under way at once. More are turned away: a queue would only make everybody wait.
const AT_ONCE: usize = QUESTIONS_AT_ONCE;

/// Room for answers that let somebody in.
const ACTIVE_BYTES: usize = 16 * 1024 * 1024;

/// Room for answers that do not. SECURITY: a room of its own, so that garbage pushes out nothing but garbage.
const REFUSED_BYTES: usize = 1024 * 1024;

/// Room for what is known of questions that failed.
const FAILED_BYTES: usize = 256 * 1024;

/// How long nobody asks again about a token whose question failed: as long as its caller is told to wait.
const FAILED: Duration = Duration::from_secs(1);

/// How a provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// How long a request waits, and how long a question may take.
    pub(super) timeout: Duration,
    /// How long an answer counts: the longest time a revoked token still opens doors.
    pub(super) cache: Duration,
    /// The same for answers that let nobody in.
    pub(super) negative_cache: Duration,
}

/// Who signs answers, and for whom.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) issuer: Arc<Issuer>,
    pub(super) provider: Arc<str>,
    pub(super) recipient: Arc<str>,
}

/// What a provider says of a token.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It is nothing.
    Inactive,
    /// It counts, and says this.
    Active(Arc<Active>),
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) claims: Object,
    /// Whether it can let anybody in: what it says is sound, and the token has not ended.
    pub(super) lets_in: bool,
    /// When it must be asked for again, by the monotonic clock.
    pub(crate) until: Duration,
    /// Bytes of the answer as it arrived.
    pub(super) bytes: usize,
}

/// Nobody could say anything about a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("the provider gave no answer that says something: {0}")]
    Failed(Arc<str>),
    #[error("the provider did not answer within {0:?}")]
    TooSlow(Duration),
    #[error("the provider has failed too often, and is asked again in {0:?}")]
    Shut(Duration),
    #[error("too many questions are under way")]
    Busy,
}

impl From<Unavailable> for Rejection {
    fn from(error: Unavailable) -> Self {
        let wait = match error {
            Unavailable::Shut(wait) => wait,
            Unavailable::Failed(_) | Unavailable::TooSlow(_) | Unavailable::Busy => FAILED,
        };
        Self::new(Reason::IntrospectionUnavailable).because(error.to_string()).retry_after(wait)
    }
}

type Outcome = Result<Answer, Unavailable>;

/// A provider. It outlives a reload that does not change it.
pub(super) struct Provider {
    pub(super) name: Arc<str>,
    pub(super) endpoint: Endpoint,
    pub(super) client: OurClient,
    pub(super) signed: Option<Signed>,
    pub(super) rules: ClaimRules,
    pub(super) settings: Settings,
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) clock: Clock,
    pub(super) background: Option<Handle>,
    pub(super) state: Mutex<State>,
}

/// What changes from one question to the next.
pub(super) struct State {
    active: Memory<Arc<Active>>,
    refused: Memory<Answer>,
    /// Why the provider said nothing, for a moment.
    failed: Memory<Unavailable>,
    /// The questions under way, by token.
    flights: HashMap<TokenDigest, watch::Receiver<Option<Outcome>>, ahash::RandomState>,
    breaker: Breaker,
    counts: IntrospectionStatus,
}

impl Default for State {
    fn default() -> Self {
        Self {
            active: Memory::new(ACTIVE_BYTES),
            refused: Memory::new(REFUSED_BYTES),
            failed: Memory::new(FAILED_BYTES),
            flights: HashMap::default(),
            breaker: Breaker::default(),
            counts: IntrospectionStatus::default(),
        }
    }
}

impl Provider {
    /// What the provider says of a token: what it said a moment ago, or what it says now. SECURITY: the question
    /// belongs to the background. A caller that hangs up leaves it running for the others who wait for the same token.
    pub(super) async fn ask(self: &Arc<Self>, token: &[u8], now: Moment) -> Outcome {
        let mut outcome = match self.look(token, now.monotonic)? {
            Looked::Known(answer) => return Ok(answer),
            Looked::Asked(outcome) => outcome,
        };
        let limit = self.settings.timeout;
        match tokio::time::timeout(limit, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(answered)) => answered.clone().unwrap_or(Err(Unavailable::Busy)),
            Ok(Err(_gone)) => Err(Unavailable::Failed("the question broke off".into())),
            Err(_elapsed) => Err(Unavailable::TooSlow(limit)),
        }
    }

    fn look(self: &Arc<Self>, token: &[u8], now: Duration) -> Result<Looked, Unavailable> {
        let digest = TokenDigest::of(token);
        let mut state = lock(&self.state);
        let known = state.active.find(digest, now).cloned().map(Answer::Active);
        if let Some(answer) = known.or_else(|| state.refused.find(digest, now).cloned()) {
            state.counts.hits += 1;
            return Ok(Looked::Known(answer));
        }
        // SECURITY: one token that the provider stumbles over must not be asked about again and again.
        if let Some(failure) = state.failed.find(digest, now).cloned() {
            state.counts.turned_away += 1;
            return Err(failure);
        }
        if let Some(outcome) = state.flights.get(&digest).cloned() {
            state.counts.joined += 1;
            return Ok(Looked::Asked(outcome));
        }
        let Some(background) = &self.background else {
            return Err(Unavailable::Failed("nobody is asked while policies are checked".into()));
        };
        if state.flights.len() >= AT_ONCE {
            state.counts.turned_away += 1;
            return Err(Unavailable::Busy);
        }
        if let Err(wait) = state.breaker.enter(now) {
            state.counts.turned_away += 1;
            return Err(Unavailable::Shut(wait));
        }
        state.counts.misses += 1;
        let (sender, outcome) = watch::channel(None);
        state.flights.insert(digest, outcome.clone());
        background.spawn(self.clone().fly(digest, token.into(), sender, background.clone()));
        Ok(Looked::Asked(outcome))
    }

    /// One question, to its end.
    async fn fly(
        self: Arc<Self>,
        digest: TokenDigest,
        token: Arc<[u8]>,
        sender: watch::Sender<Option<Outcome>>,
        background: Handle,
    ) {
        // A task of its own, so that a panic ends the question and nothing else.
        let asking = background.spawn(question::ask(self.clone(), token));
        let answer = asking.await.unwrap_or(Err(question::AskError::Lost));
        let now = self.clock.now().monotonic;
        let outcome = self.record(digest, answer, now);
        sender.send_replace(Some(outcome));
    }

    /// Writes down what came of it.
    fn record(
        &self,
        token: TokenDigest,
        answer: Result<Answer, question::AskError>,
        now: Duration,
    ) -> Outcome {
        let mut state = lock(&self.state);
        state.flights.remove(&token);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                state.counts.failed += 1;
                let blame = error.blame();
                match blame {
                    Blame::Provider => state.breaker.fail(now),
                    Blame::Question => state.breaker.succeed(),
                    Blame::Nobody => state.breaker.abandon(),
                }
                let shut = state.breaker.is_shut();
                let why = error.to_string();
                tracing::warn!(issuer = %self.name, error = %why, shut, "a token could not be introspected");
                state.counts.last_error = Some(why.clone());
                let failure = Unavailable::Failed(why.into());
                if blame != Blame::Nobody {
                    state.failed.remember(token, failure.clone(), 0, now.saturating_add(FAILED), now);
                }
                return Err(failure);
            }
        };
        state.breaker.succeed();
        state.counts.last_error = None;
        let briefly = now.saturating_add(self.settings.negative_cache);
        match &answer {
            Answer::Inactive => {
                state.counts.inactive += 1;
                state.refused.remember(token, answer.clone(), 0, briefly, now);
            }
            Answer::Active(active) => {
                state.counts.active += 1;
                // What is parsed takes about three times what arrived.
                let bytes = 3 * active.bytes;
                if active.lets_in {
                    state.active.remember(token, active.clone(), bytes, active.until, now);
                } else {
                    // It has no place among those that do.
                    state.refused.remember(token, answer.clone(), bytes, briefly, now);
                }
            }
        }
        Ok(answer)
    }

    pub(super) fn status(&self) -> IntrospectionStatus {
        let state = lock(&self.state);
        IntrospectionStatus {
            issuer: self.name.clone(),
            url: self.endpoint.shown(),
            evictions: state.active.evictions() + state.refused.evictions(),
            held: state.active.len() + state.refused.len(),
            bytes: state.active.bytes() + state.refused.bytes() + state.failed.bytes(),
            under_way: state.flights.len(),
            shut: state.breaker.is_shut(),
            ..state.counts.clone()
        }
    }
}

/// What a look at what is known gives.
enum Looked {
    Known(Answer),
    Asked(watch::Receiver<Option<Outcome>>),
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({} as {:?})", self.name, self.client)
    }
}
