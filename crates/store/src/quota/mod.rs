//! Quotas: how many requests in a long time, remembered over restarts.

mod cell;
mod clock;
#[cfg(test)]
mod tests;

use crate::error::StoreError;
use crate::ledger::{Command, Commands};
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
    /// How many units. Zero allows nothing.
    pub count: u32,
    /// How long a window lasts. Counted in whole seconds, rounded up, at least one and at most [`u32::MAX`].
    pub per: Duration,
}

/// What came of asking for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaOutcome {
    /// The unit is the caller's, and will be counted as used even if the power fails now.
    Taken {
        /// How many more are left of this window.
        remaining: u64,
        /// How long until the window is over.
        reset: Duration,
    },
    /// The quota is used up, and nothing was counted.
    Refused {
        /// How long until the window is over. For a quota of zero, its period.
        retry_after: Duration,
    },
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
        if self.rule.count == 0 {
            return Ok(QuotaOutcome::Refused { retry_after: self.rule.per });
        }
        if let Some(outcome) = self.take_at_once(key, now) {
            return Ok(outcome);
        }
        // SECURITY: a key is as long as its caller makes it, and is kept in memory and on disk.
        if key.len() > MAX_KEY_BYTES {
            return Err(StoreError::KeyTooLong);
        }
        // Boxed, so that the rare wait does not widen the future of every request.
        Box::pin(self.commands.take(Arc::clone(&self.cells), Arc::from(key), self.rule, now)).await
    }

    /// Puts back a unit that was taken by a request which another limit refused. `now` is the same reading that the
    /// unit was taken with. Nothing is written: the next commit or a clean close will tell.
    pub fn give_back(&self, key: &str, now: Moment) {
        if let Some(cell) = self.cells.map.pin().get(key) {
            cell.give_back(seconds_up(self.clock.at(now)));
        }
    }

    fn take_at_once(&self, key: &str, now: Moment) -> Option<QuotaOutcome> {
        let cells = self.cells.map.pin();
        let cell = cells.get(key)?;
        match cell.take(self.clock.at(now), &self.rule) {
            Asked::Decided { outcome, extend } => {
                if extend {
                    self.extend(cell, now);
                }
                Some(outcome)
            }
            Asked::Exhausted | Asked::Expired | Asked::Retired => None,
        }
    }

    fn extend(&self, cell: &Arc<QuotaCell>, now: Moment) {
        let (cells, cell) = (Arc::clone(&self.cells), Arc::clone(cell));
        if let Err(command) = self.commands.send(Command::Extend { cells, cell, rule: self.rule, now })
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

    /// The longest period, in seconds, that a window of this limit may last; `None` if no policy names the limit.
    pub(crate) fn period(&self) -> Option<u32> {
        self.tables.largest(|table| table.rule.period())
    }

    pub(crate) fn held(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn find(&self, key: &str) -> Option<Arc<QuotaCell>> {
        self.map.pin().get(key).filter(|cell| !cell.is_retired()).cloned()
    }

    /// Puts a cell in the place of whatever has its key, which stops counting.
    pub(crate) fn put(&self, cell: QuotaCell) {
        let cells = self.map.pin();
        if let Some(old) = cells.get(cell.key()) {
            old.retire();
        }
        cells.insert(Arc::clone(cell.key()), Arc::new(cell));
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
    /// The period in whole seconds, rounded up, at least one.
    pub(crate) fn period(&self) -> u32 {
        let seconds = self.per.as_secs().saturating_add(u64::from(self.per.subsec_nanos() > 0));
        u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
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
        QuotaOutcome::Taken { remaining, reset: left.min(Duration::from_secs(u64::from(self.period()))) }
    }

    /// How many units are made durable at a time.
    pub(crate) fn block(&self) -> u32 {
        (self.count / BLOCKS_PER_QUOTA).clamp(1, LARGEST_BLOCK)
    }
}
