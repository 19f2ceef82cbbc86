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
mod once;
#[cfg(test)]
mod record_tests;
mod records;
mod servers;
mod settings;
#[cfg(test)]
mod tests;
mod told;
#[cfg(test)]
mod topology_tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::FromRedisValue;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::QuotaRule;
use crate::error::{OpenError, StoreError};
use ask::{is_taken, outcome};
use breaker::Breaker;
use lease::{Leased, Leases};
use servers::{Call, Kept, Servers};
use told::Told;

pub use ask::{SharedAsk, SharedKey, SharedOutcome, SharedRule, SharedUnit};
pub use breaker::FAILURES;
pub(crate) use once::UsedUp;
pub use records::{Follower, Heard, SharedRecords};
pub use settings::{SharedSettings, Topology};

/// How many blocks are returned at once.
const RETURNED_AT_ONCE: usize = 16;

/// The server's counters. Clones are one.
#[derive(Clone)]
pub struct SharedCounters(Arc<Inner>);

struct Inner {
    servers: Servers,
    background: Handle,
    take: Kept,
    give_back: Kept,
    claim: Kept,
    tell: Kept,
    breaker: Breaker,
    leases: Leases,
    told: Told,
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

impl SharedCounters {
    /// Counters of a server, asked on that runtime. It is not looked for before the first question.
    ///
    /// # Errors
    /// The address or the trust cannot be used.
    pub fn new(settings: &SharedSettings, background: Handle) -> Result<Self, OpenError> {
        Ok(Self(Arc::new(Inner {
            servers: Servers::new(settings, &background)?,
            background,
            take: Kept::new(include_str!("take.lua")),
            give_back: Kept::new(include_str!("give_back.lua")),
            claim: Kept::new(include_str!("claim.lua")),
            tell: Kept::new(include_str!("tell.lua")),
            breaker: Breaker::default(),
            leases: Leases::default(),
            told: Told::default(),
            started: Instant::now(),
            figures: Figures::default(),
        })))
    }

    /// A unit of a block that was taken before, without asking anybody; `None` if there is none.
    pub fn take_leased(&self, ask: &SharedAsk) -> Option<SharedOutcome> {
        let ((block, now), rule) = (ask.block?, ask.quota()?);
        let Leased { remaining, reset, unit, ask: next } = self.0.leases.take(&ask.key, &rule, block, now)?;
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

    /// Takes one unit of every limit, or none of any; the answers are in the order of the questions. Where one that is in
    /// the way has refused, nothing was taken, and some may not have been asked. A request that is dropped while it
    /// waits gives its units back.
    ///
    /// # Errors
    /// The server cannot be asked or does not answer. Then the units may have been taken.
    pub async fn take(&self, asks: Vec<SharedAsk>) -> Result<Vec<SharedOutcome>, StoreError> {
        if !self.lets_through() {
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
                this.undo(asks.iter().zip(unheard)).await;
            }
        });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Asks in one round trip; in a cluster, in one for each key of the caller (`per`), for they may be on different servers.
    async fn ask(&self, asks: &[SharedAsk]) -> Result<Vec<SharedOutcome>, StoreError> {
        if !self.0.servers.is_cluster() {
            return self.ask_together(&asks.iter().collect::<Vec<_>>()).await;
        }
        let mut outcomes = vec![SharedOutcome::NotAsked; asks.len()];
        let mut tags: Vec<u16> = asks.iter().map(|ask| ask.tag).collect();
        tags.sort_unstable();
        tags.dedup();
        for tag in tags {
            let together: Vec<_> = asks.iter().filter(|ask| ask.tag == tag).collect();
            let heard = self.ask_together(&together).await;
            let mut answers = heard.iter().flatten();
            let places = asks.iter().zip(&mut outcomes).filter(|(ask, _)| ask.tag == tag);
            places.zip(&mut answers).for_each(|((_, outcome), answer)| *outcome = *answer);
            let refused = heard.as_ref().is_ok_and(|heard| !is_taken(together, heard));
            if heard.is_err() || refused {
                // What refuses or fails has taken nothing, or nobody knows; the servers before it have.
                let taken = asks.iter().zip(outcomes.iter().copied()).filter(|(ask, _)| ask.tag != tag);
                self.undo(taken).await;
                return heard.map(|_| outcomes);
            }
        }
        Ok(outcomes)
    }

    /// Asks in one round trip for limits whose counters are on one server.
    async fn ask_together(&self, asks: &[&SharedAsk]) -> Result<Vec<SharedOutcome>, StoreError> {
        let leases = &self.0.leases;
        let block = |ask: &SharedAsk| Some((ask.block?.0, ask.quota()?));
        let wanted = |ask: &&SharedAsk| match block(ask) {
            Some((block, rule)) => leases.wanted(&ask.key, &rule, block),
            None => 1,
        };
        let wanted: Vec<u32> = asks.iter().map(wanted).collect();
        let heard = self.question(asks, &wanted).await;
        let numbers = heard.as_deref().unwrap_or_default();
        let outcomes: Vec<SharedOutcome> = numbers.chunks_exact(4).map(outcome).collect();
        let taken = is_taken(asks.iter().copied(), &outcomes);
        let answers = numbers.chunks_exact(4).map(Some).chain(std::iter::repeat(None));
        for ((ask, wanted), answer) in asks.iter().zip(wanted).zip(answers) {
            if ask.block.is_some() {
                leases.answered(&ask.key, heard.is_ok());
            }
            if wanted > 1 {
                let grant = answer.filter(|_| taken).and_then(|answer| ask.grant(answer));
                // One of them is the request's own.
                leases.granted(&ask.key, grant.map(|(units, lease)| (units.saturating_sub(1), lease)));
            }
        }
        heard.map(|_| outcomes)
    }

    /// Gives back what was taken.
    async fn undo<'a>(&self, taken: impl Iterator<Item = (&'a SharedAsk, SharedOutcome)>) {
        for (ask, outcome) in taken {
            if let SharedOutcome::Taken { unit, .. } = outcome {
                self.return_units(&ask.key, ask.rule, (unit, 1)).await;
            }
        }
    }

    /// Takes the next block of a limit, before the one at hand is used up.
    async fn lease_next(&self, ask: &SharedAsk, block: u32) {
        let grant = if self.lets_through() {
            let heard = self.question(&[ask], &[block]).await;
            self.0.leases.answered(&ask.key, heard.is_ok());
            heard.ok().and_then(|numbers| ask.grant(&numbers))
        } else {
            None
        };
        self.0.leases.granted(&ask.key, grant);
    }

    /// Asks for so many units of each limit.
    async fn question(&self, asks: &[&SharedAsk], wanted: &[u32]) -> Result<Vec<i64>, StoreError> {
        let mut call = self.0.take.call();
        for (ask, wanted) in asks.iter().zip(wanted) {
            ask.put(&mut call, ask.soft, *wanted);
        }
        self.answer(call.kept_by_replicas()).await
    }

    /// How many units of one limit are left, and how long until nothing of what was taken, and of one unit more, counts any
    /// more. Nothing is taken; units that gateways have leased count as used.
    ///
    /// # Errors
    /// The server cannot be asked or does not answer.
    pub async fn look(&self, ask: SharedAsk) -> Result<(u64, Duration), StoreError> {
        if !self.lets_through() {
            return Err(StoreError::NoAnswer);
        }
        let this = self.clone();
        let asking = self.0.background.spawn(async move {
            let mut call = this.0.take.call();
            ask.put(&mut call, true, 1);
            this.answer::<Vec<i64>>(call.arg("look")).await
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

    /// Returns the blocks that lie idle; all of them where no time is given, for a gateway that ends. None while the server
    /// does not answer: they can be handed out still.
    pub async fn return_leases(&self, now: Option<Duration>) {
        if let Some(now) = now {
            self.0.told.forget(now);
        }
        if self.0.breaker.is_open() {
            return;
        }
        // Only its kind matters: what is leased are units of quotas.
        let rule = SharedRule::Quota(QuotaRule::new(0, Duration::ZERO));
        let idle = futures_util::stream::iter(self.0.leases.idle(now));
        let returned = idle.for_each_concurrent(RETURNED_AT_ONCE, async |(key, unit, units)| {
            self.return_units(&key, rule, (unit, units)).await;
        });
        returned.await;
    }

    async fn return_units(&self, key: &str, rule: SharedRule, (unit, units): (SharedUnit, u32)) {
        if !self.lets_through() {
            return;
        }
        let (kind, [interval, ..]) = rule.arguments();
        let mut call = self.0.give_back.call();
        call.key(key.as_bytes()).arg(kind).arg(unit.0).arg(interval).arg(units);
        // What cannot be given back stays used: stricter, never laxer.
        let _ = self.answer::<i64>(&call).await;
    }

    /// Whether the server may be asked now.
    fn lets_through(&self) -> bool {
        let may = self.0.breaker.lets_through(self.0.started.elapsed());
        if !may {
            self.0.figures.not_asked.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Asks, and notes how it went.
    async fn answer<T: FromRedisValue>(&self, call: &Call<'_>) -> Result<T, StoreError> {
        let Inner { servers, breaker, figures, started, .. } = &*self.0;
        let asked = Instant::now();
        match servers.ask(call).await {
            Ok(value) => {
                let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                figures.micros.fetch_add(micros, Ordering::Relaxed);
                figures.answered.fetch_add(1, Ordering::Relaxed);
                if breaker.succeeded() {
                    tracing::info!("the shared store answers again");
                }
                Ok(value)
            }
            Err(failure) => {
                figures.failed.fetch_add(1, Ordering::Relaxed);
                if breaker.failed(started.elapsed()) {
                    tracing::error!(kind = %failure, "the shared store does not answer; limits go by `when_store_fails`");
                }
                if breaker.is_open() {
                    // It may hang, or another may be in its place.
                    servers.renew();
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

impl fmt::Debug for SharedCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedCounters")
    }
}
