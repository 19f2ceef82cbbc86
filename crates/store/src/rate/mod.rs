//! Rates: how many requests in a short time.
//!
//! Cells live in memory alone. A restart forgives what was taken in the last burst, which is what a rate is: a
//! guard of the moment. What must survive is a quota.

mod gcra;
#[cfg(test)]
mod tests;

use crate::MAX_KEY_BYTES;
use crate::live::Live;
use ahash::RandomState;
use compact_str::CompactString;
use gcra::{Asked, Pace, RateCell};
use papaya::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How far ahead of the sweep's own reading a cell may be before its debt is cut: no sweep takes this long, so a
/// debt made by a taker with a newer reading is never mistaken for one of an older rule.
const SWEEP_SLACK: Duration = Duration::from_secs(60);

/// A steady rate and what may be taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// How many units in `per`. Zero allows nothing.
    pub count: u64,
    /// In how long.
    pub per: Duration,
    /// How many units an idle caller may take at once. Zero allows nothing.
    pub burst: u64,
}

/// What came of asking for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateOutcome {
    /// The unit is the caller's.
    Taken {
        /// How many more could be taken at this moment.
        remaining: u64,
        /// How long until the whole burst is there again.
        reset: Duration,
    },
    /// There is none, and nothing was counted.
    Refused {
        /// How long until one is there. For a rule that allows nothing, its time.
        retry_after: Duration,
    },
}

/// The cells of one limit, seen through one rule.
///
/// A reload makes a new table over the same cells, so requests of the old snapshot are judged by the old rule to
/// their end.
#[derive(Debug)]
pub struct RateTable {
    rule: RateRule,
    pace: Pace,
    cells: Arc<RateCells>,
}

impl RateTable {
    pub(crate) fn over(cells: &Arc<RateCells>, rule: RateRule) -> Arc<Self> {
        let table = Arc::new(Self { rule, pace: Pace::of(rule), cells: Arc::clone(cells) });
        cells.tables.add(&table);
        table
    }

    /// The rule this table judges by.
    pub fn rule(&self) -> RateRule {
        self.rule
    }

    /// Takes one unit from `key`, if there is one. `now` is the monotonic clock. Takes no lock, and allocates only
    /// for a key that is new.
    pub fn take(&self, key: &str, now: Duration) -> RateOutcome {
        if self.pace.never() {
            return RateOutcome::Refused { retry_after: self.rule.per };
        }
        match self.cells.take(key, nanoseconds(now), self.pace) {
            Asked::Taken { remaining, reset_ns } => {
                RateOutcome::Taken { remaining, reset: Duration::from_nanos(reset_ns) }
            }
            Asked::Refused { retry_after_ns } => {
                RateOutcome::Refused { retry_after: Duration::from_nanos(retry_after_ns) }
            }
            Asked::Retired => RateOutcome::Refused { retry_after: self.rule.per },
        }
    }

    /// Puts back a unit that was taken by a request which another limit refused. A unit that came from the shared
    /// overflow cell stays taken.
    pub fn give_back(&self, key: &str) {
        if let Some(cell) = self.cells.map.pin().get(key) {
            cell.give_back(self.pace);
        }
    }
}

/// The cells of one limit.
#[derive(Debug)]
pub(crate) struct RateCells {
    /// SECURITY: keys are chosen by callers, so the hasher is keyed with fresh random seeds.
    /// Keys of up to 24 bytes lie in their entries: one look into memory less for each request.
    map: HashMap<CompactString, RateCell, RandomState>,
    /// How many keys the map holds or is about to: counted before an insertion, so the bound is never passed.
    held: AtomicUsize,
    capacity: usize,
    /// SECURITY: when every cell is live, strangers share this one. Dropping a live cell instead would let a caller
    /// wash off its own debt by making up other keys.
    overflow: RateCell,
    overflowed: AtomicU64,
    tables: Live<RateTable>,
}

impl RateCells {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            map: HashMap::with_hasher(RandomState::new()),
            held: AtomicUsize::new(0),
            capacity,
            overflow: RateCell::default(),
            overflowed: AtomicU64::new(0),
            tables: Live::default(),
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many takes the shared overflow cell has answered.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Drops the cells whose arrival time lies in the past. Whoever holds such a cell finds it retired and looks
    /// the key up again, so no unit is counted where nobody will look.
    pub(crate) fn sweep(&self, now: Duration) {
        let now_ns = nanoseconds(now);
        let longest = self.tables.largest(|table| table.pace.tolerance_ns());
        let cut = |cell: &RateCell| {
            if let Some(tolerance_ns) = longest {
                cell.cut_debt(now_ns, tolerance_ns, nanoseconds(SWEEP_SLACK));
            }
        };
        cut(&self.overflow);
        for (key, cell) in &self.map.pin() {
            if cell.retire_if_idle(now_ns) {
                self.remove_retired(key);
            } else {
                cut(cell);
            }
        }
    }

    fn take(&self, key: &str, now_ns: u64, pace: Pace) -> Asked {
        loop {
            let cells = self.map.pin();
            let own = match cells.get(key) {
                Some(cell) => Some(cell),
                None if self.reserve_place(key) => {
                    match cells.try_insert_with(CompactString::from(key), RateCell::default) {
                        Ok(cell) => Some(cell),
                        Err(cell) => {
                            self.held.fetch_sub(1, Ordering::Relaxed);
                            Some(cell)
                        }
                    }
                }
                None => None,
            };
            let Some(cell) = own else {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                return self.overflow.take(now_ns, pace);
            };
            match cell.take(now_ns, pace) {
                Asked::Retired => self.remove_retired(key),
                asked => return asked,
            }
        }
    }

    /// SECURITY: a key is as long as its caller makes it; long ones get no cell, so memory stays bounded.
    fn reserve_place(&self, key: &str) -> bool {
        key.len() <= MAX_KEY_BYTES
            && self
                .held
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                    (held < self.capacity).then_some(held.saturating_add(1))
                })
                .is_ok()
    }

    fn remove_retired(&self, key: &str) {
        if let Ok(Some(_)) = self.map.pin().remove_if(key, |_, cell| cell.is_retired()) {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
