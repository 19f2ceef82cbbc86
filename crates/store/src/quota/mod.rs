//! Quotas: how many requests in a long time, remembered over restarts.

#[cfg(test)]
mod carry_tests;
mod cell;
mod clock;
#[cfg(test)]
mod tests;

use crate::error::StoreError;
use crate::ledger::{Command, Commands, TakeFor};
use crate::live::Live;
use crate::{BLOCKS_PER_QUOTA, LARGEST_BLOCK, LimitId, MAX_KEY_BYTES};
use ahash::RandomState;
pub(crate) use cell::{Asked, QuotaCell};
pub(crate) use clock::{ClockRow, QuotaClock, seconds_down, seconds_up};
use papaya::HashMap;
use portcullis_core::Moment;
use std::sync::Arc;
use std::time::Duration;

/// How many units in a window that opens with the caller's first admitted request and lasts for a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaRule {
    /// How many units, with those that are carried over. Zero allows nothing.
    pub count: u32,
    /// How long a window lasts. Counted in whole seconds, rounded up, at least one and at most [`u32::MAX`].
    pub per: Duration,
    /// How many of the units are there only if the caller's last window left them unused: a window without one before
    /// it opens with as many used. The last window must have ended less than a period ago.
    pub carried: u32,
    /// Percentages of the count without what is carried over, of which [`QuotaOutcome::Taken`] says when they are reached. Zero is none.
    pub alerts: [u8; MAX_ALERTS],
}

/// How many percentages a quota can have.
pub const MAX_ALERTS: usize = 4;

/// What came of asking for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaOutcome {
    /// The unit is the caller's, and will be counted as used even if the power fails now.
    Taken {
        /// How many more are left of this window.
        remaining: u64,
        /// How long until the window is over.
        reset: Duration,
        /// The highest percentage that this unit was the first of its window to reach.
        reached: Option<u8>,
    },
    /// The quota is used up, and nothing was counted.
    Refused {
        /// How long until the window is over. For a quota of zero, its period.
        retry_after: Duration,
    },
}

impl QuotaOutcome {
    /// The same, with the highest of the percentages of a rule that were reached by it.
    pub(crate) fn reaching(self, rule: &QuotaRule, bits: u8) -> Self {
        match self {
            Self::Taken { remaining, reset, .. } if bits != 0 => {
                Self::Taken { remaining, reset, reached: rule.highest(bits) }
            }
            other => other,
        }
    }
}

/// Whose units they are.
#[derive(Clone, Copy, Debug)]
pub struct QuotaKey<'k> {
    /// The caller's key.
    pub key: &'k str,
    /// Where each window has a key of its own: that of the window before, whose unused units may be carried over.
    pub last: Option<&'k str>,
}

/// Where a caller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStanding {
    /// Units that are left. What is reserved and not in memory counts as used.
    pub remaining: u32,
    /// How long until the window is over; `None` if none is open.
    pub left: Option<Duration>,
}

/// The counters of one limit, seen through one rule.
///
/// A reload makes a new table over the same counters, so requests of the old snapshot are judged by the old rule to
/// their end. A changed count or period applies to windows that are already open: what is used stays used.
#[derive(Debug)]
pub struct QuotaTable {
    rule: QuotaRule,
    cells: Arc<QuotaCells>,
    clock: Arc<QuotaClock>,
    commands: Commands,
}

impl QuotaTable {
    pub(crate) fn over(
        cells: &Arc<QuotaCells>,
        rule: QuotaRule,
        clock: Arc<QuotaClock>,
        commands: Commands,
    ) -> Arc<Self> {
        let table = Arc::new(Self { rule, cells: Arc::clone(cells), clock, commands });
        cells.tables.add(&table);
        table
    }

    /// The rule this table judges by.
    pub fn rule(&self) -> QuotaRule {
        self.rule
    }

    /// Takes one unit from `key`, if there is one.
    ///
    /// Ready at once, without a lock or an allocation, as long as durable units are left of an open window. Else it
    /// waits for one commit: when a window opens, when a caller is first seen after a start, and when requests
    /// outrun the background. A request that is dropped while it waits gives its unit back.
    ///
    /// # Errors
    /// When the unit could not be made durable. The request must be refused, and not because of its quota. Units
    /// that were durable before are still handed out while the disk fails.
    pub async fn take(&self, key: &str, now: Moment) -> Result<QuotaOutcome, StoreError> {
        self.take_of(self.rule.count, QuotaKey { key, last: None }, now).await
    }

    /// Takes one unit by another count than that of the rule, with those that are carried over: a caller may have one
    /// of its own.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub async fn take_of(
        &self,
        count: u32,
        key: QuotaKey<'_>,
        now: Moment,
    ) -> Result<QuotaOutcome, StoreError> {
        let rule = QuotaRule { count, ..self.rule };
        let QuotaKey { key, last } = key;
        if count <= rule.carried {
            return Ok(QuotaOutcome::Refused { retry_after: rule.per });
        }
        if let Some(outcome) = self.take_at_once(rule, key, now) {
            return Ok(outcome);
        }
        // SECURITY: a key is as long as its caller makes it, and is kept in memory and on disk.
        if key.len() > MAX_KEY_BYTES {
            return Err(StoreError::KeyTooLong);
        }
        // Boxed, so that the rare wait does not widen the future of every request.
        let take = TakeFor {
            cells: Arc::clone(&self.cells),
            key: Arc::from(key),
            last: last.map(Arc::from),
            rule,
            now,
        };
        Box::pin(self.commands.take(take)).await
    }

    /// Where a caller stands under a count, the rule's or one of its own. Nothing is taken; a caller that is not in
    /// memory is looked for in the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn look(
        &self,
        count: u32,
        key: QuotaKey<'_>,
        now: Moment,
    ) -> Result<QuotaStanding, StoreError> {
        let rule = QuotaRule { count, ..self.rule };
        let now_ms = self.clock.at(now);
        let found = self.find(key.key).await?;
        let open = found.and_then(|(start, used)| Some((used, rule.time_left(start, now_ms)?)));
        if let Some((used, left)) = open {
            return Ok(QuotaStanding { remaining: count.saturating_sub(used), left: Some(left) });
        }
        let last = match key.last {
            Some(last) => self.find(last).await?,
            None => found,
        };
        let used = rule.opens_with(last, seconds_down(now_ms));
        Ok(QuotaStanding { remaining: count.saturating_sub(used), left: None })
    }

    /// The window that is remembered of a key: its first second, and the units used.
    async fn find(&self, key: &str) -> Result<Option<(u32, u32)>, StoreError> {
        if let Some(cell) = self.cells.find(key) {
            return Ok(cell.used().map(|used| (cell.start(), used)));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(StoreError::KeyTooLong);
        }
        let found = Box::pin(self.commands.look(self.cells.id().clone(), Arc::from(key))).await?;
        Ok(found.map(|record| (record.start, record.units)))
    }

    /// Puts back a unit that was taken by a request that is not to be counted after all. `now` is the same reading that the
    /// unit was taken with. Nothing is written: the next commit or a clean close will tell.
    pub fn give_back(&self, key: &str, now: Moment) {
        if let Some(cell) = self.cells.map.pin().get(key) {
            cell.give_back(seconds_up(self.clock.at(now)));
        }
    }

    fn take_at_once(&self, rule: QuotaRule, key: &str, now: Moment) -> Option<QuotaOutcome> {
        let cells = self.cells.map.pin();
        let cell = cells.get(key)?;
        match cell.take(self.clock.at(now), &rule) {
            Asked::Decided { outcome, extend } => {
                if extend {
                    self.extend(rule, cell, now);
                }
                Some(outcome)
            }
            Asked::Exhausted | Asked::Expired | Asked::Retired => None,
        }
    }

    fn extend(&self, rule: QuotaRule, cell: &Arc<QuotaCell>, now: Moment) {
        let (cells, cell) = (Arc::clone(&self.cells), Arc::clone(cell));
        if let Err(command) = self.commands.send(Command::Extend { cells, cell, rule, now })
            && let Command::Extend { cell, .. } = *command
        {
            cell.may_ask_again();
        }
    }
}

/// The counters of one limit that are in memory. Cells are put in by the ledger alone.
#[derive(Debug)]
pub(crate) struct QuotaCells {
    id: LimitId,
    /// SECURITY: keys are chosen by callers, so the hasher is keyed with fresh random seeds.
    map: HashMap<Arc<str>, Arc<QuotaCell>, RandomState>,
    tables: Live<QuotaTable>,
}

impl QuotaCells {
    pub(crate) fn new(id: LimitId) -> Self {
        Self { id, map: HashMap::with_hasher(RandomState::new()), tables: Live::default() }
    }

    pub(crate) const fn id(&self) -> &LimitId {
        &self.id
    }

    /// How long a window of this limit must be remembered at most, in seconds; `None` if no policy names the limit.
    pub(crate) fn period(&self) -> Option<u32> {
        self.tables.largest(|table| table.rule.remembered())
    }

    pub(crate) fn held(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn find(&self, key: &str) -> Option<Arc<QuotaCell>> {
        self.map.pin().get(key).filter(|cell| !cell.is_retired()).cloned()
    }

    /// Puts a cell in the place of whatever has its key, which stops counting.
    pub(crate) fn put(&self, cell: QuotaCell) -> Arc<QuotaCell> {
        let cells = self.map.pin();
        if let Some(old) = cells.get(cell.key()) {
            old.retire();
        }
        let cell = Arc::new(cell);
        cells.insert(Arc::clone(cell.key()), Arc::clone(&cell));
        cell
    }

    /// Forgets a retired cell.
    pub(crate) fn forget(&self, cell: &QuotaCell) {
        // Whether it was still there does not matter: a new cell of the same key is not retired, and stays.
        let _ = self.map.pin().remove_if(cell.key(), |_, held| held.is_retired());
    }

    /// Up to `most` cells, in no order a caller could choose.
    pub(crate) fn some(&self, most: usize) -> Vec<Arc<QuotaCell>> {
        self.map.pin().values().take(most).cloned().collect()
    }

    /// Forgets the windows that are over; nothing of them needs to be written.
    pub(crate) fn sweep(&self, now_ms: i64) {
        let Some(period) = self.period() else {
            // Nobody takes from these any more; the ledger puts them on disk.
            return;
        };
        let now = seconds_down(now_ms);
        for cell in self.map.pin().values() {
            if is_over(cell.start(), period, now) {
                cell.retire();
                self.forget(cell);
            }
        }
    }
}

/// Whether a window of `period` seconds that began at `start` is over at second `now`.
pub(crate) fn is_over(start: u32, period: u32, now: u32) -> bool {
    u64::from(now) >= u64::from(start).saturating_add(u64::from(period))
}

impl QuotaRule {
    /// A count in a period, of which nothing is carried over and nobody is told.
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per, carried: 0, alerts: [0; MAX_ALERTS] }
    }

    /// The period in whole seconds, rounded up, at least one.
    pub(crate) fn period(&self) -> u32 {
        let seconds = self.per.as_secs().saturating_add(u64::from(self.per.subsec_nanos() > 0));
        u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
    }

    /// How long a window is remembered, in seconds: as long as what it left may be carried over.
    pub(crate) fn remembered(&self) -> u32 {
        if self.carried > 0 { self.period().saturating_mul(2) } else { self.period() }
    }

    /// How many units a new window opens with as used. `last` is the caller's last window that is remembered: when it
    /// began, and what was used of it.
    pub(crate) fn opens_with(&self, last: Option<(u32, u32)>, now: u32) -> u32 {
        let recent = last.filter(|(start, _)| !is_over(*start, self.remembered(), now));
        let unused = recent.map_or(0, |(_, used)| self.count.saturating_sub(used));
        self.carried.saturating_sub(unused)
    }

    /// How long a window that began at second `start` still lasts; `None` if it is over.
    pub(crate) fn time_left(&self, start: u32, now_ms: i64) -> Option<Duration> {
        let end_s = i64::from(start).saturating_add(i64::from(self.period()));
        let left_ms = end_s.saturating_mul(1000).saturating_sub(now_ms);
        u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0).map(Duration::from_millis)
    }

    /// The answer to the request that took unit number `units`.
    pub(crate) fn taken(&self, units: u64, left: Duration) -> QuotaOutcome {
        let remaining = u64::from(self.count).saturating_sub(units);
        // A window's start is rounded up to a second, so a fresh one lasts a part of a second longer than it must.
        let reset = left.min(Duration::from_secs(u64::from(self.period())));
        QuotaOutcome::Taken { remaining, reset, reached: None }
    }

    /// Which of the percentages are reached when so many units are used, a bit each: as much of the count is left as
    /// they leave of it, whatever was carried over.
    pub(crate) fn reached(&self, units: u64) -> u8 {
        let [first, ..] = self.alerts;
        if first == 0 {
            return 0;
        }
        let left = u64::from(self.count).saturating_sub(units).saturating_mul(100);
        let whole = u64::from(self.count.saturating_sub(self.carried));
        let is_reached = |percent: u8| {
            percent > 0 && left <= whole.saturating_mul(u64::from(100_u8.saturating_sub(percent)))
        };
        self.alerts.iter().rev().fold(0, |bits, percent| (bits << 1) | u8::from(is_reached(*percent)))
    }

    /// The highest of the percentages that are reached where so many are left.
    pub fn reached_with(&self, remaining: u64) -> Option<u8> {
        self.highest(self.reached(u64::from(self.count).saturating_sub(remaining)))
    }

    /// The highest of some of the percentages.
    pub(crate) fn highest(&self, bits: u8) -> Option<u8> {
        let some = self.alerts.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        some.map(|(_, percent)| *percent).max()
    }

    /// How many units are made durable at a time.
    pub(crate) fn block(&self) -> u32 {
        (self.count / BLOCKS_PER_QUOTA).clamp(1, LARGEST_BLOCK)
    }
}
