//! Limits that gateways count together: all of a request are asked in one round trip.

use std::time::Duration;

use portcullis_core::{Reason, Rejection};
use portcullis_store::{
    LimitId, QuotaRule, RateRule, SharedAsk, SharedCounters, SharedOutcome, SharedRule, SharedUnit,
    StoreError,
};

use super::limit::{Counter, Limit, left};
use super::spec::WhenStoreFails;
use super::{LimitFacts, Standing};

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
    Taken { standing: Standing, reset: Duration, held: Option<SharedHeld> },
    /// The request is not counted.
    Uncounted,
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

impl Limit {
    /// The question for a unit of a limit that is shared.
    pub(super) fn ask(&self, shared: &Shared, facts: &LimitFacts<'_>) -> Result<SharedAsk, Rejection> {
        let window = self.window(facts)?;
        let key = self.key(window.as_deref(), facts).map_err(|why| self.uncountable(&why))?;
        let undecided = |error: StoreError| self.undecided(&error);
        let ask = |rule| SharedAsk::new(&shared.id, rule, key.as_str()).map_err(undecided);
        let ask = match &self.rule(facts.principal).counter {
            Counter::Rate(table) => {
                let own = facts.principal.and_then(|caller| Some(self.own.as_ref()?.of(caller)));
                let rule = own
                    .map_or_else(|| table.rule(), |count| RateRule { count, burst: count, ..table.rule() });
                ask(SharedRule::Rate(rule))
            }
            Counter::Quota(table) => {
                let rule = QuotaRule { count: self.quota_count(table, facts.principal), ..table.rule() };
                let last = self.last_key(table, window.as_deref(), facts);
                let ask = ask(SharedRule::Quota(rule))?;
                last.map_or(Ok(ask.clone()), |last| ask.after(&shared.id, &last).map_err(undecided))
            }
        };
        Ok(ask?.softly(self.shadow).in_blocks_of(shared.lease, facts.now.monotonic))
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
                if let Counter::Quota(table) = counter {
                    let rule = QuotaRule { count: self.quota_count(table, facts.principal), ..table.rule() };
                    if let Some(percent) = rule.reached_with(remaining) {
                        self.alert(facts, percent, remaining);
                    }
                }
                let standing = Standing::new(remaining, left(window, facts.now, reset));
                Ok(Said::Taken { standing, reset, held: Some(SharedHeld { ask, unit }) })
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
                Ok(Said::Taken { standing, reset, held: None })
            }
        }
    }
}
