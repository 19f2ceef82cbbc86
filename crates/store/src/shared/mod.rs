//! Counters in Redis, for gateways that count together, and what may be used once.
//!
//! All limits of a request are asked in one round trip, by one script that runs alone on the server: it takes a unit of
//! each or none of any. So nothing is ever admitted too much, however many gateways ask at once, and the server's clock
//! is the only one: gateways whose clocks differ agree. A counter expires when nothing of it counts any more.
//!
//! # Blocks
//!
//! Of a quota, a gateway may take several units at once and hand them out without asking again (`lease.rs`): never too
//! much is admitted, most requests wait for nobody, and the last units may be refused at one gateway while another still
//! holds some.
//!
//! # What is lost
//!
//! A unit whose answer does not arrive counts as used, for it may have been taken. What a server loses at a crash or at
//! a failover to a replica that lags is what it had not handed on: that is for its persistence and its replication to
//! say, and may be admitted again.
//!
//! # What may be used once
//!
//! A credential counts once at all of the gateways together ([`claim_all`](crate::claim_all)): each looks into its own
//! memory first, and then notes the use at the server, which remembers it a minute longer than it counts, for clocks that
//! differ. Where the server does not answer, nothing is used up, and nothing passes.
//!
//! # When it does not answer
//!
//! Each question waits for the configured time at most. After [`FAILURES`] in a row none is asked for a moment (the
//! breaker is open), and then one is let through to see whether it answers again; meanwhile requests do not wait at
//! all. What becomes of a limit that cannot be asked is for the policy to say; here it is a [`StoreError`].

mod ask;
mod breaker;
mod lease;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_core::Secret;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, RedisError, Script, TlsCertificates};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::QuotaRule;
use crate::error::{OpenError, StoreError};
use ask::{PREFIX, is_taken, outcome};
use breaker::Breaker;
use lease::{Leased, Leases};

pub use ask::{SharedAsk, SharedOutcome, SharedRule, SharedUnit};
pub use breaker::FAILURES;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS. It may hold a password.
    pub url: Secret,
    /// PEM of the authorities a TLS server's certificate must come from; those of the system without it.
    pub trust: Option<Vec<u8>>,
    /// How long a question waits.
    pub timeout: Duration,
}

impl SharedSettings {
    /// Whether the address and the trust can be used. No server is asked.
    ///
    /// # Errors
    /// They cannot.
    pub fn check(&self) -> Result<(), OpenError> {
        self.client().map(drop)
    }

    fn client(&self) -> Result<Client, OpenError> {
        let url = std::str::from_utf8(self.url.expose()).map_err(|_not_text| OpenError::BadAddress)?.trim();
        let client = match &self.trust {
            None => Client::open(url),
            Some(pem) => {
                let root_cert = Some(pem.clone());
                Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })
            }
        };
        client.map_err(unusable)
    }
}

/// SECURITY: without the error's own words, which may repeat the address, and a password in it.
fn unusable(_error: RedisError) -> OpenError {
    OpenError::BadAddress
}

/// The server's counters. Clones are one.
#[derive(Clone)]
pub struct SharedCounters(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    background: Handle,
    take: Script,
    give_back: Script,
    claim: Script,
    timeout: Duration,
    breaker: Breaker,
    leases: Leases,
    started: Instant,
    figures: Figures,
}

#[derive(Default)]
struct Figures {
    answered: AtomicU64,
    failed: AtomicU64,
    not_asked: AtomicU64,
    micros: AtomicU64,
}

/// How asking the server went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedFigures {
    /// Questions that were answered.
    pub answered: u64,
    /// Questions that failed or were not answered in time.
    pub failed: u64,
    /// Questions that were not asked because the ones before had failed.
    pub not_asked: u64,
    /// How long the answered ones took together, in microseconds.
    pub micros: u64,
    /// Whether none is asked for the moment.
    pub is_open: bool,
}

/// A credential that may be used once, of a kind, and how long it is remembered.
pub(crate) struct UsedUp<'a> {
    pub(crate) space: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) remembered: Duration,
}

impl SharedCounters {
    /// Counters of a server, asked on that runtime. It is not looked for before the first question.
    ///
    /// # Errors
    /// The address or the trust cannot be used.
    pub fn new(settings: &SharedSettings, background: Handle) -> Result<Self, OpenError> {
        let client = settings.client()?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(settings.timeout.max(Duration::from_millis(250))))
            .set_response_timeout(Some(settings.timeout))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100));
        let entered = background.enter();
        let connection = client.get_connection_manager_lazy(config).map_err(unusable)?;
        drop(entered);
        Ok(Self(Arc::new(Inner {
            connection,
            background,
            take: Script::new(include_str!("take.lua")),
            give_back: Script::new(include_str!("give_back.lua")),
            claim: Script::new(include_str!("claim.lua")),
            timeout: settings.timeout,
            breaker: Breaker::default(),
            leases: Leases::default(),
            started: Instant::now(),
            figures: Figures::default(),
        })))
    }

    /// A unit of a block that was taken before, without asking anybody; `None` if there is none.
    pub fn take_leased(&self, ask: &SharedAsk) -> Option<SharedOutcome> {
        let (block, now) = ask.block?;
        let Leased { remaining, reset, unit, ask: next } = self.0.leases.take(&ask.key, block, now)?;
        if next {
            let (this, ask) = (self.clone(), ask.clone());
            self.0.background.spawn(async move { this.lease_next(&ask, block).await });
        }
        Some(SharedOutcome::Taken { remaining, reset, unit })
    }

    /// Puts back a unit of [`Self::take_leased`] that nothing has come of.
    pub fn put_back_leased(&self, ask: &SharedAsk, unit: SharedUnit) {
        if !self.0.leases.put_back(&ask.key, unit) {
            // The block went back meanwhile.
            self.give_back(ask.clone(), unit);
        }
    }

    /// Takes one unit of every limit, or none of any; the answers are in the order of the questions, up to the first
    /// refusal. A request that is dropped while it waits gives its units back.
    ///
    /// # Errors
    /// The server cannot be asked or does not answer. Then the units may have been taken.
    pub async fn take(&self, asks: Vec<SharedAsk>) -> Result<Vec<SharedOutcome>, StoreError> {
        if !self.0.breaker.lets_through(self.0.started.elapsed()) {
            self.0.figures.not_asked.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::NoAnswer);
        }
        let (sender, receiver) = oneshot::channel();
        let this = self.clone();
        // On a task of its own: what was asked is heard to its end, whether or not the request still waits.
        self.0.background.spawn(async move {
            let outcome = this.ask(&asks).await;
            if let Err(Ok(unheard)) = sender.send(outcome)
                && is_taken(&asks, &unheard)
            {
                for (ask, outcome) in asks.iter().zip(unheard) {
                    if let SharedOutcome::Taken { unit, .. } = outcome {
                        this.return_units(&ask.key, ask.rule, (unit, 1)).await;
                    }
                }
            }
        });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn ask(&self, asks: &[SharedAsk]) -> Result<Vec<SharedOutcome>, StoreError> {
        let leases = &self.0.leases;
        let wanted = |ask: &SharedAsk| ask.block.map_or(1, |(block, _)| leases.wanted(&ask.key, block));
        let wanted: Vec<u32> = asks.iter().map(wanted).collect();
        let heard = self.question(asks, &wanted).await;
        let numbers = heard.as_deref().unwrap_or_default();
        let outcomes: Vec<SharedOutcome> = numbers.chunks_exact(4).map(outcome).collect();
        let taken = is_taken(asks, &outcomes);
        let answers = numbers.chunks_exact(4).map(Some).chain(std::iter::repeat(None));
        for ((ask, _), answer) in asks.iter().zip(wanted).zip(answers).filter(|((_, wanted), _)| *wanted > 1)
        {
            let grant = answer.filter(|_| taken).and_then(|answer| ask.grant(answer));
            // One of them is the request's own.
            leases.granted(&ask.key, grant.map(|(units, lease)| (units.saturating_sub(1), lease)));
        }
        heard.map(|_| outcomes)
    }

    /// Takes the next block of a limit, before the one at hand is used up.
    async fn lease_next(&self, ask: &SharedAsk, block: u32) {
        let grant = if self.0.breaker.lets_through(self.0.started.elapsed()) {
            let heard = self.question(std::slice::from_ref(ask), &[block]).await;
            heard.ok().and_then(|numbers| ask.grant(&numbers))
        } else {
            None
        };
        self.0.leases.granted(&ask.key, grant);
    }

    /// Asks for so many units of each limit.
    async fn question(&self, asks: &[SharedAsk], wanted: &[u32]) -> Result<Vec<i64>, StoreError> {
        let mut call = self.0.take.prepare_invoke();
        for (ask, wanted) in asks.iter().zip(wanted) {
            call.key(&ask.key).key(ask.last.as_ref().unwrap_or(&ask.key));
            let (kind, numbers) = ask.rule.arguments();
            call.arg(kind).arg(u8::from(ask.soft)).arg(&numbers[..]).arg(wanted);
        }
        let asked = Instant::now();
        let mut connection = self.0.connection.clone();
        let answer =
            tokio::time::timeout(self.0.timeout, call.invoke_async::<Vec<i64>>(&mut connection)).await;
        self.heard(answer.ok(), asked)
    }

    /// How many units of one limit are left, and how long until nothing of what was taken, and of one unit more, counts any
    /// more. Nothing is taken; units that gateways have leased count as used.
    ///
    /// # Errors
    /// The server cannot be asked or does not answer.
    pub async fn look(&self, ask: SharedAsk) -> Result<(u64, Duration), StoreError> {
        if !self.0.breaker.lets_through(self.0.started.elapsed()) {
            return Err(StoreError::NoAnswer);
        }
        let this = self.clone();
        let asking = self.0.background.spawn(async move {
            let mut call = this.0.take.prepare_invoke();
            call.key(&ask.key).key(ask.last.as_ref().unwrap_or(&ask.key));
            let (kind, numbers) = ask.rule.arguments();
            call.arg(kind).arg(1).arg(&numbers[..]).arg(1).arg("look");
            let (asked, mut connection) = (Instant::now(), this.0.connection.clone());
            let answer =
                tokio::time::timeout(this.0.timeout, call.invoke_async::<Vec<i64>>(&mut connection)).await;
            this.heard(answer.ok(), asked)
        });
        let numbers = asking.await.unwrap_or(Err(StoreError::Closed))?;
        match outcome(&numbers) {
            SharedOutcome::Taken { remaining, reset, .. } => Ok((remaining.saturating_add(1), reset)),
            SharedOutcome::Refused { retry_after } => Ok((0, retry_after)),
            SharedOutcome::NotAsked => Err(StoreError::NoAnswer),
        }
    }

    /// Gives back a unit that was taken. Nobody waits for it; one that the server does not hear of stays used.
    pub fn give_back(&self, ask: SharedAsk, unit: SharedUnit) {
        let this = self.clone();
        self.0.background.spawn(async move { this.return_units(&ask.key, ask.rule, (unit, 1)).await });
    }

    /// Returns the blocks that lie idle; all of them where no time is given, for a gateway that ends.
    pub async fn return_leases(&self, now: Option<Duration>) {
        // Only its kind matters: what is leased are units of quotas.
        let rule = SharedRule::Quota(QuotaRule::new(0, Duration::ZERO));
        for (key, unit, units) in self.0.leases.idle(now) {
            self.return_units(&key, rule, (unit, units)).await;
        }
    }

    async fn return_units(&self, key: &str, rule: SharedRule, (unit, units): (SharedUnit, u32)) {
        if !self.0.breaker.lets_through(self.0.started.elapsed()) {
            return;
        }
        let (kind, [interval, ..]) = rule.arguments();
        let mut call = self.0.give_back.prepare_invoke();
        call.key(key).arg(kind).arg(unit.0).arg(interval).arg(units);
        let (asked, mut connection) = (Instant::now(), self.0.connection.clone());
        let answer = tokio::time::timeout(self.0.timeout, call.invoke_async::<i64>(&mut connection)).await;
        // What cannot be given back stays used: stricter, never laxer.
        let _ = self.heard(answer.ok(), asked);
    }

    /// Notes that credentials are used up, or, if one of them is already, none: the position of that one.
    pub(crate) async fn claim(&self, used: &[UsedUp<'_>]) -> Result<Option<usize>, StoreError> {
        if !self.0.breaker.lets_through(self.0.started.elapsed()) {
            self.0.figures.not_asked.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::NoAnswer);
        }
        let keys = used.iter().map(|UsedUp { space, key, remembered }| {
            // SECURITY: the name with its length, so that no two pairs of name and key run together.
            let mut full = format!("{PREFIX}once:{}:{space}:", space.len()).into_bytes();
            full.extend_from_slice(key);
            (full, u64::try_from(remembered.as_millis()).unwrap_or(u64::MAX).max(1))
        });
        let (keys, this) = (keys.collect::<Vec<_>>(), self.clone());
        let asking = self.0.background.spawn(async move {
            let mut call = this.0.claim.prepare_invoke();
            for (key, remembered) in &keys {
                call.key(key).arg(remembered);
            }
            let (asked, mut connection) = (Instant::now(), this.0.connection.clone());
            let answer =
                tokio::time::timeout(this.0.timeout, call.invoke_async::<usize>(&mut connection)).await;
            this.heard(answer.ok(), asked)
        });
        let first = asking.await.unwrap_or(Err(StoreError::Closed))?;
        Ok(first.checked_sub(1))
    }

    fn heard<T>(&self, answer: Option<Result<T, RedisError>>, asked: Instant) -> Result<T, StoreError> {
        let Inner { breaker, figures, started, .. } = &*self.0;
        match answer {
            Some(Ok(value)) => {
                let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                figures.micros.fetch_add(micros, Ordering::Relaxed);
                figures.answered.fetch_add(1, Ordering::Relaxed);
                if breaker.succeeded() {
                    tracing::info!("the shared store answers again");
                }
                Ok(value)
            }
            failed => {
                figures.failed.fetch_add(1, Ordering::Relaxed);
                let why = failed.and_then(Result::err);
                if breaker.failed(started.elapsed()) {
                    // SECURITY: only the kind of it: what a server says may repeat what it was sent.
                    let kind = why.as_ref().map(RedisError::kind);
                    tracing::error!(kind = %shown(kind), "the shared store does not answer; limits go by `when_store_fails`");
                }
                Err(StoreError::NoAnswer)
            }
        }
    }

    /// How asking went.
    pub fn figures(&self) -> SharedFigures {
        let Figures { answered, failed, not_asked, micros } = &self.0.figures;
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        SharedFigures {
            answered: read(answered),
            failed: read(failed),
            not_asked: read(not_asked),
            micros: read(micros),
            is_open: self.0.breaker.is_open(),
        }
    }
}

fn shown(kind: Option<ErrorKind>) -> String {
    kind.map_or_else(|| "no answer in time".to_owned(), |kind| format!("{kind:?}"))
}

impl fmt::Debug for SharedCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedCounters")
    }
}
