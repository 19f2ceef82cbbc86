//! What limits there are, and where a caller stands with each, without taking anything.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{PlanId, Rejection};
use portcullis_store::QuotaKey;

use super::limit::{Counter, Limit, left};
use super::measure::Measure;
use super::slot::Slot;
use super::{LimitFacts, Limits, fields};

/// Where a caller stands with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub name: Arc<str>,
    /// Whether it is a quota, and not a rate.
    pub is_quota: bool,
    /// How many units in the window.
    pub limit: u64,
    /// The window.
    pub window: Duration,
    /// Units that are left.
    pub remaining: u64,
    /// How long until all of them are there again; `None` if they are.
    pub reset: Option<Duration>,
}

/// A limit, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitView {
    /// Its name.
    pub name: Arc<str>,
    /// The plan it is of; `None` where it is the API's own.
    pub plan: Option<PlanId>,
    /// Whether it is a quota, and not a rate.
    pub is_quota: bool,
    /// How many units in the window; the most there can be where callers have counts of their own.
    pub limit: u64,
    /// The window.
    pub window: Duration,
    /// What it counts by, in the words of policy files.
    pub per: Vec<String>,
    /// Whether it is tried, and refuses nothing.
    pub is_shadow: bool,
}

impl Limits {
    /// Every limit, those of all plans among them.
    pub fn views(&self) -> impl Iterator<Item = LimitView> {
        self.slots.iter().flat_map(Slot::all).map(Limit::view)
    }

    /// Where somebody stands with every limit that would count a request of theirs and is not in shadow, as [`usage`] says
    /// it, each by itself: what a limit counts by may be unknown.
    ///
    /// [`usage`]: Self::usage
    pub async fn usage_of(&self, facts: &LimitFacts<'_>) -> Vec<(Arc<str>, Result<Usage, Rejection>)> {
        let mut usages = Vec::new();
        for limit in self.enforced(facts) {
            usages.push((Arc::clone(&limit.name), limit.usage(facts).await));
        }
        usages
    }

    /// Where a caller stands with every limit that counts what is admitted, whichever requests it is about; not with those
    /// in shadow.
    ///
    /// # Errors
    /// The request has not what a limit counts by, or that cannot be read.
    pub async fn usage(&self, facts: &LimitFacts<'_>) -> Result<Vec<Usage>, Rejection> {
        let mut usages = Vec::new();
        for limit in self.enforced(facts).filter(|limit| !limit.is_early()) {
            usages.push(limit.usage(facts).await?);
        }
        Ok(usages)
    }

    fn enforced(&self, facts: &LimitFacts<'_>) -> impl Iterator<Item = &Limit> {
        let limits = self.slots.iter().filter_map(|slot| slot.limit(facts.plans()));
        limits.filter(|limit| !limit.shadow)
    }
}

impl Limit {
    fn view(&self) -> LimitView {
        let (limit, window) = fields::promised(self.measure(), None);
        LimitView {
            name: Arc::clone(&self.name),
            plan: self.plan,
            is_quota: matches!(self.measure(), Measure::Quota { .. }),
            limit,
            window,
            per: self.per.iter().map(|per| per.word().into_owned()).collect(),
            is_shadow: self.shadow,
        }
    }

    async fn usage(&self, facts: &LimitFacts<'_>) -> Result<Usage, Rejection> {
        let own = facts.principal.and_then(|caller| Some(self.own.as_ref()?.of(caller)));
        let rule = self.rule(facts.principal);
        let (limit, window) = fields::promised(rule.measure(), own);
        let (remaining, reset) = match &self.shared {
            Some(shared) => {
                let ask = self.ask(shared, facts)?;
                shared.counters.look(ask).await.map_err(|error| self.undecided(&error))?
            }
            None => self.look(facts).await?,
        };
        let (is_quota, remaining) = (matches!(rule.measure(), Measure::Quota { .. }), remaining.min(limit));
        let reset = (remaining < limit).then(|| {
            match self.window(facts).ok().flatten() {
                Some(by_calendar) => left(Some(&*by_calendar), facts.now, reset),
                // A window's first second is rounded up.
                None => reset.min(window),
            }
        });
        Ok(Usage { name: Arc::clone(&self.name), is_quota, limit, window, remaining, reset })
    }

    /// What is left, and until when, by counters that are this gateway's alone.
    async fn look(&self, facts: &LimitFacts<'_>) -> Result<(u64, Duration), Rejection> {
        let window = self.window(facts)?;
        let key = self.key(window.as_deref(), facts).map_err(|why| self.uncountable(&why))?;
        match &self.rule(facts.principal).counter {
            Counter::Rate(table) => {
                let own = facts.principal.and_then(|caller| Some(self.own.as_ref()?.of(caller)));
                let count = own.unwrap_or_else(|| table.rule().count);
                let standing = table.look(count, key.as_str(), facts.now);
                Ok((standing.remaining, standing.reset))
            }
            Counter::Quota(table) => {
                let last = self.last_key(table, window.as_deref(), facts);
                let quota = QuotaKey { key: key.as_str(), last: last.as_deref() };
                let count = self.quota_count(table, facts.principal);
                let looked = table.look(count, quota, facts.now).await;
                let standing = looked.map_err(|error| self.undecided(&error))?;
                Ok((standing.remaining.into(), standing.left.unwrap_or_default()))
            }
        }
    }
}
