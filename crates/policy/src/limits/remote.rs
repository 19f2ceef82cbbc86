//! Limits that gateways count together: all of a request are asked in one round trip.

use std::time::Duration;

use portcullis_core::{Reason, Rejection};
use portcullis_store::{
    LimitId, QuotaRule, RateRule, SharedAsk, SharedCounters, SharedKey, SharedOutcome, SharedRule,
    SharedUnit, StoreError,
};

use super::key::Key;
use super::limit::{Counter, Held, Limit, left};
use super::spec::WhenStoreFails;
use super::{Admission, LimitFacts, Standing, Taken};

/// Where a limit is counted together with other gateways.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: SharedCounters,
    id: LimitId,
    lease: u32,
}

/// A unit that other gateways count, too.
#[derive(Debug)]
pub(super) struct SharedHeld {
    ask: SharedAsk,
    unit: SharedUnit,
}

/// A unit of a block, which is put back where nothing comes of the request.
pub(super) struct Leased<'l> {
    shared: &'l Shared,
    ask: SharedAsk,
    unit: SharedUnit,
}

impl Leased<'_> {
    pub(super) fn put_back(&self) {
        self.shared.counters.put_back_leased(&self.ask, self.unit);
    }
}

/// What a limit says of a request.
pub(super) enum Said {
    /// A unit is taken.
    Taken { standing: Standing, reset: Duration, held: Option<SharedHeld>, reached: Option<Box<Reached>> },
    /// The request is not counted.
    Uncounted,
}

/// A percentage of a quota that other gateways count, too. It is told when the request is admitted.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    ask: SharedAsk,
    unit: SharedUnit,
    percent: u8,
    remaining: u64,
    left: Duration,
}

impl Shared {
    pub(super) fn new(counters: &SharedCounters, id: LimitId, lease: u32) -> Self {
        Self { counters: counters.clone(), id, lease }
    }

    /// A unit of a block that was taken before.
    pub(super) fn take_leased(&self, ask: &SharedAsk) -> Option<(SharedOutcome, Leased<'_>)> {
        let outcome = self.counters.take_leased(ask)?;
        let SharedOutcome::Taken { unit, .. } = outcome else { return None };
        Some((outcome, Leased { shared: self, ask: ask.clone(), unit }))
    }

    pub(super) fn give_back(&self, SharedHeld { ask, unit }: &SharedHeld) {
        self.counters.give_back(ask.clone(), *unit);
    }
}

/// Asks for a unit of each of these limits in one go, and notes what is said.
///
/// # Errors
/// One of them refuses, or cannot be asked.
pub(super) async fn take<'a>(
    asked: Vec<(usize, &'a Limit, SharedAsk)>,
    facts: &LimitFacts<'_>,
    admission: &mut Admission,
    (taken, held): (&mut Taken<'a>, &mut Vec<Held>),
) -> Result<(), Rejection> {
    let Some(shared) = asked.first().and_then(|(_, limit, _)| limit.shared.as_ref()) else { return Ok(()) };
    let asks = asked.iter().map(|(.., ask)| ask.clone()).collect();
    let outcomes = match shared.counters.take(asks).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            for (at, limit, _) in asked {
                let said = limit.without_others(&error, facts).await;
                admission.note(at, limit, said, (&mut *taken, &mut *held))?;
            }
            return Ok(());
        }
    };
    // One that refuses decides, and others may not have been asked.
    let refusal = asked
        .iter()
        .zip(&outcomes)
        .find(|((.., ask), outcome)| !ask.is_soft() && matches!(outcome, SharedOutcome::Refused { .. }));
    if let Some(((at, limit, ask), outcome)) = refusal {
        let said = limit.hear(ask.clone(), *outcome, facts);
        admission.note(*at, limit, said, (&mut *taken, &mut *held))?;
    }
    let outcomes = outcomes.into_iter().chain(std::iter::repeat(SharedOutcome::NotAsked));
    for ((at, limit, ask), outcome) in asked.into_iter().zip(outcomes) {
        let said = limit.hear(ask, outcome, facts);
        admission.note(at, limit, said, (&mut *taken, &mut *held))?;
    }
    Ok(())
}

impl Limit {
    /// The question for a unit of a limit that is shared.
    pub(super) fn ask(&self, shared: &Shared, facts: &LimitFacts<'_>) -> Result<SharedAsk, Rejection> {
        let window = self.window(facts)?;
        let caller = Key::of(&self.per, facts).map_err(|why| self.uncountable(&why))?;
        let windows = window.as_deref().map(|window| (&*window.first_day, &*window.last_first_day));
        let rule = match &self.rule(facts.principal).counter {
            Counter::Rate(table) => {
                let own = facts.principal.and_then(|caller| Some(self.own.as_ref()?.of(caller)));
                let rule = own.map(|count| RateRule { count, burst: count, ..table.rule() });
                SharedRule::Rate(rule.unwrap_or_else(|| table.rule()))
            }
            Counter::Quota(table) => {
                let count = self.quota_count(table, facts.principal);
                SharedRule::Quota(QuotaRule { count, ..table.rule() })
            }
        };
        let ask = SharedAsk::new(&shared.id, rule, SharedKey { caller: caller.as_str(), windows });
        let ask = ask.map_err(|error| self.undecided(&error))?;
        Ok(ask.softly(self.shadow).in_blocks_of(shared.lease, facts.now.monotonic))
    }

    /// What the answer means.
    pub(super) fn hear(
        &self,
        ask: SharedAsk,
        outcome: SharedOutcome,
        facts: &LimitFacts<'_>,
    ) -> Result<Said, Rejection> {
        let window = self.window(facts)?;
        let window = window.as_deref();
        match (outcome, &self.rule(facts.principal).counter) {
            (SharedOutcome::Taken { remaining, reset, unit }, counter) => {
                let left = left(window, facts.now, reset);
                let percent = match counter {
                    Counter::Quota(table) => {
                        let count = self.quota_count(table, facts.principal);
                        QuotaRule { count, ..table.rule() }.reached_with(remaining)
                    }
                    Counter::Rate(_) => None,
                };
                let reached = percent
                    .map(|percent| Box::new(Reached { ask: ask.clone(), unit, percent, remaining, left }));
                let standing = Standing::new(remaining, left);
                Ok(Said::Taken { standing, reset, held: Some(SharedHeld { ask, unit }), reached })
            }
            (SharedOutcome::Refused { retry_after }, Counter::Rate(_)) => {
                Err(self.refusal(Reason::RateLimited, retry_after))
            }
            (SharedOutcome::Refused { retry_after }, Counter::Quota(_)) => {
                Err(self.refusal(Reason::QuotaExhausted, left(window, facts.now, retry_after)))
            }
            (SharedOutcome::NotAsked, _) => Err(self.undecided(&StoreError::NoAnswer)),
        }
    }

    /// Tells that a percentage is reached, unless another gateway or an earlier request has.
    pub(super) fn tell(&self, reached: Reached, facts: &LimitFacts<'_>) {
        let Some(shared) = &self.shared else { return };
        let Reached { ask, unit, percent, remaining, left } = reached;
        let alert = self.alert(facts, percent, remaining);
        shared.counters.tell_once(&ask, (unit, percent), (facts.now.monotonic, left), alert);
    }

    /// Decides where the counters that are shared cannot be asked.
    pub(super) async fn without_others(
        &self,
        error: &StoreError,
        facts: &LimitFacts<'_>,
    ) -> Result<Said, Rejection> {
        match self.when_store_fails {
            WhenStoreFails::Deny => Err(self.undecided(error)),
            WhenStoreFails::Allow => Ok(Said::Uncounted),
            WhenStoreFails::Local => {
                let (standing, reset) = self.take(facts).await?;
                Ok(Said::Taken { standing, reset, held: None, reached: None })
            }
        }
    }
}
