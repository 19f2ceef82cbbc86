//! Rates: how many requests in a short time.
//!
//! Cells live in memory alone. A restart forgives what was taken in the last burst, which is what a rate is: a
//! guard of the moment. What must survive is a quota.

mod cell;
mod gcra;
#[cfg(test)]
mod tests;
mod window;
#[cfg(test)]
mod window_tests;

use crate::MAX_KEY_BYTES;
use crate::live::Live;
use ahash::RandomState;
use cell::{Asked, RateCell};
use compact_str::CompactString;
use gcra::Pace;
use papaya::HashMap;
use portcullis_core::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
pub use window::MOST_IN_A_WINDOW;
pub(crate) use window::WindowClock;
use window::Windows;

/// How far ahead of the sweep's own reading a cell may be before its debt is cut: no sweep takes this long, so a
/// debt made by a taker with a newer reading is never mistaken for one of an older rule.
const SWEEP_SLACK: Duration = Duration::from_secs(60);

/// How a rate is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The generic cell rate algorithm: a burst, and then the steady rate.
    #[default]
    Gcra,
    /// The present window of the clock, and of the last one the part that still lies within a period. At most
    /// [`MOST_IN_A_WINDOW`] units.
    SlidingWindow,
    /// The present window of the clock alone: around its end, twice the count may pass. At most [`MOST_IN_A_WINDOW`]
    /// units.
    FixedWindow,
}

/// How many units in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// How many units in `per`. Zero allows nothing.
    pub count: u64,
    /// In how long. Windows last whole milliseconds.
    pub per: Duration,
    /// How many units an idle caller may take at once. Zero allows nothing. Windows know no burst.
    pub burst: u64,
    /// How they are counted.
    pub algorithm: Algorithm,
}

/// What came of asking for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateOutcome {
    /// The unit is the caller's.
    Taken {
        /// How many more could be taken at this moment.
        remaining: u64,
        /// How long until nothing of what was taken counts any more.
        reset: Duration,
    },
    /// There is none, and nothing was counted.
    Refused {
        /// How long until one is there. For a rule that allows nothing, its time.
        retry_after: Duration,
    },
}

/// Where a caller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStanding {
    /// How many units could be taken at this moment.
    pub remaining: u64,
    /// How long until nothing of what was taken counts any more.
    pub reset: Duration,
}

/// A unit that was taken, for giving it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateUnit {
    /// The count it was taken under.
    pub count: u64,
    /// The reading it was taken with.
    pub taken: Moment,
    /// What [`RateOutcome::Taken`] said then.
    pub reset: Duration,
}

/// A rule as its algorithm needs it.
#[derive(Clone, Copy, Debug)]
enum Measure {
    Gcra(Pace),
    Windows(Windows),
}

impl Measure {
    fn of(rule: RateRule) -> Self {
        match rule.algorithm {
            Algorithm::Gcra => Self::Gcra(Pace::of(rule)),
            Algorithm::SlidingWindow => Self::Windows(Windows::new(rule.count, rule.per, true)),
            Algorithm::FixedWindow => Self::Windows(Windows::new(rule.count, rule.per, false)),
        }
    }

    const fn never(self) -> bool {
        match self {
            Self::Gcra(pace) => pace.never(),
            Self::Windows(windows) => windows.never(),
        }
    }
}

/// The cells of one limit, seen through one rule.
///
/// A reload makes a new table over the same cells, so requests of the old snapshot are judged by the old rule to
/// their end.
#[derive(Debug)]
pub struct RateTable {
    rule: RateRule,
    measure: Measure,
    cells: Arc<RateCells>,
}

impl RateTable {
    pub(crate) fn over(cells: &Arc<RateCells>, rule: RateRule) -> Arc<Self> {
        let table = Arc::new(Self { rule, measure: Measure::of(rule), cells: Arc::clone(cells) });
        cells.tables.add(&table);
        table
    }

    /// The rule this table judges by.
    pub fn rule(&self) -> RateRule {
        self.rule
    }

    /// Takes one unit from `key`, if there is one. Takes no lock, and allocates only for a key that is new.
    pub fn take(&self, key: &str, now: Moment) -> RateOutcome {
        self.take_by(self.measure, key, now)
    }

    /// Takes one unit from `key` by another count than that of the rule, which is also the burst: a caller may have
    /// one of its own. It must not be larger than the rule's.
    pub fn take_of(&self, count: u64, key: &str, now: Moment) -> RateOutcome {
        self.take_by(self.measure_of(count), key, now)
    }

    fn take_by(&self, measure: Measure, key: &str, now: Moment) -> RateOutcome {
        if measure.never() {
            return RateOutcome::Refused { retry_after: self.rule.per };
        }
        match self.cells.take(key, now, measure) {
            Asked::Taken { remaining, reset_ns } => {
                RateOutcome::Taken { remaining, reset: Duration::from_nanos(reset_ns) }
            }
            Asked::Refused { retry_after_ns } => {
                RateOutcome::Refused { retry_after: Duration::from_nanos(retry_after_ns) }
            }
            Asked::Retired => RateOutcome::Refused { retry_after: self.rule.per },
        }
    }

    /// Where `key` stands under a count, the rule's or one of its own. Nothing is taken and nothing remembered.
    pub fn look(&self, count: u64, key: &str, now: Moment) -> RateStanding {
        let measure = self.measure_of(count);
        let cells = self.cells.map.pin();
        let unused = RateCell::default();
        let cell = cells.get(key).unwrap_or(&unused);
        match measure {
            Measure::Gcra(pace) => cell.look_at_pace(nanoseconds(now.monotonic), pace),
            Measure::Windows(windows) => cell.look_in_window(self.cells.clock.at(now), windows),
        }
    }

    /// Puts back a unit that was taken by a request that is not to be counted after all. What of it has come back by
    /// itself meanwhile is not put back again. A unit that came from the shared overflow cell stays taken.
    pub fn give_back(&self, key: &str, unit: RateUnit, now: Moment) {
        let cells = self.cells.map.pin();
        let Some(cell) = cells.get(key) else { return };
        match self.measure_of(unit.count) {
            Measure::Gcra(pace) => {
                let (taken_ns, reset_ns) = (nanoseconds(unit.taken.monotonic), nanoseconds(unit.reset));
                cell.give_back_at_pace(taken_ns, reset_ns, nanoseconds(now.monotonic), pace);
            }
            Measure::Windows(windows) => cell.give_back_in_window(self.cells.clock.at(unit.taken), windows),
        }
    }

    fn measure_of(&self, count: u64) -> Measure {
        match count == self.rule.count {
            true => self.measure,
            false => Measure::of(RateRule { count, burst: count, ..self.rule }),
        }
    }
}

/// How the numbers in cells are to be read. A limit whose rule is changed to another kind begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CellKind {
    /// They drain with time.
    Drained,
    /// They count in windows of this length.
    Windows { per: Duration },
}

impl CellKind {
    pub(crate) const fn of(rule: RateRule) -> Self {
        match rule.algorithm {
            Algorithm::Gcra => Self::Drained,
            Algorithm::SlidingWindow | Algorithm::FixedWindow => Self::Windows { per: rule.per },
        }
    }
}

/// The cells of one limit.
#[derive(Debug)]
pub(crate) struct RateCells {
    kind: CellKind,
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
    clock: Arc<WindowClock>,
    tables: Live<RateTable>,
}

impl RateCells {
    pub(crate) fn new(kind: CellKind, capacity: usize, clock: Arc<WindowClock>) -> Self {
        Self {
            kind,
            map: HashMap::with_hasher(RandomState::new()),
            held: AtomicUsize::new(0),
            capacity,
            overflow: RateCell::default(),
            overflowed: AtomicU64::new(0),
            clock,
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

    /// Drops the cells that would answer like new ones. Whoever holds such a cell finds it retired and looks the key
    /// up again, so no unit is counted where nobody will look.
    pub(crate) fn sweep(&self, now: Moment) {
        match self.kind {
            CellKind::Drained => self.sweep_drained(nanoseconds(now.monotonic)),
            CellKind::Windows { per } => {
                let (now_ms, windows) = (self.clock.at(now), Windows::new(1, per, true));
                self.overflow.empty_if_past(now_ms, windows);
                for (key, cell) in &self.map.pin() {
                    if cell.retire_if_past(now_ms, windows) {
                        self.remove_retired(key);
                    }
                }
            }
        }
    }

    fn sweep_drained(&self, now_ns: u64) {
        let longest = self.tables.largest(|table| match table.measure {
            Measure::Gcra(pace) => pace.tolerance_ns(),
            Measure::Windows(_) => 0,
        });
        let cut = |cell: &RateCell| {
            if let Some(tolerance_ns) = longest {
                cell.cut_debt(now_ns, tolerance_ns, nanoseconds(SWEEP_SLACK));
            }
        };
        cut(&self.overflow);
        for (key, cell) in &self.map.pin() {
            if cell.retire_if_drained(now_ns) {
                self.remove_retired(key);
            } else {
                cut(cell);
            }
        }
    }

    fn take(&self, key: &str, now: Moment, measure: Measure) -> Asked {
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
                return self.ask(&self.overflow, now, measure);
            };
            match self.ask(cell, now, measure) {
                Asked::Retired => self.remove_retired(key),
                asked => return asked,
            }
        }
    }

    fn ask(&self, cell: &RateCell, now: Moment, measure: Measure) -> Asked {
        match measure {
            Measure::Gcra(pace) => cell.take_at_pace(nanoseconds(now.monotonic), pace),
            Measure::Windows(windows) => cell.take_in_window(self.clock.at(now), windows),
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
