//! The generic cell rate algorithm, in one atomic.
//!
//! A cell holds its theoretical arrival time (TAT): the moment at which everything taken so far would have drained at
//! the rate. A unit may be taken as long as that moment, one interval later, lies no further ahead than the burst.

use super::RateRule;
use std::sync::atomic::{AtomicU64, Ordering};

/// The state of a cell that was dropped from its table. Whoever finds it looks the key up again.
const RETIRED: u64 = u64::MAX;

/// Times and tolerances are cut here, so that no sum of three of them overflows or meets [`RETIRED`]. In
/// nanoseconds, about 146 years.
const LONGEST_NS: u64 = u64::MAX / 4;

/// A rule as the two numbers the algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Nanoseconds between two units at the steady rate; zero means that nothing is ever allowed.
    interval_ns: u64,
    /// How far ahead the arrival time may lie, in nanoseconds: the burst.
    tolerance_ns: u64,
}

impl Pace {
    /// The interval is rounded up, so a rate that does not divide its time is a hair stricter, never laxer.
    pub(crate) fn of(rule: RateRule) -> Self {
        if rule.count == 0 || rule.burst == 0 {
            return Self { interval_ns: 0, tolerance_ns: 0 };
        }
        let interval_ns = rule.per.as_nanos().div_ceil(u128::from(rule.count)).max(1);
        let interval_ns = u64::try_from(interval_ns).unwrap_or(LONGEST_NS).min(LONGEST_NS);
        let tolerance_ns = interval_ns.saturating_mul(rule.burst).min(LONGEST_NS);
        Self { interval_ns, tolerance_ns }
    }

    pub(crate) const fn tolerance_ns(self) -> u64 {
        self.tolerance_ns
    }

    pub(crate) const fn never(self) -> bool {
        self.interval_ns == 0
    }
}

/// What came of asking a cell for a unit; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Taken: how many more could be taken now, and how long until all are back.
    Taken { remaining: u64, reset_ns: u64 },
    /// Not taken, and nothing has changed.
    Refused { retry_after_ns: u64 },
    /// The cell no longer counts.
    Retired,
}

/// One caller's state under one limit.
#[derive(Debug, Default)]
pub(crate) struct RateCell(AtomicU64);

impl RateCell {
    /// Takes a unit, if there is one.
    pub(crate) fn take(&self, now_ns: u64, pace: Pace) -> Asked {
        let now = now_ns.min(LONGEST_NS);
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if seen == RETIRED {
                return Asked::Retired;
            }
            let next = seen.max(now).saturating_add(pace.interval_ns);
            let ahead = next.saturating_sub(now);
            if ahead > pace.tolerance_ns {
                return Asked::Refused { retry_after_ns: ahead.saturating_sub(pace.tolerance_ns) };
            }
            // Relaxed is enough: the count is the only thing the cell guards, and all changes of one atomic have
            // one order.
            match self.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let left = pace.tolerance_ns.saturating_sub(ahead);
                    let remaining = left.checked_div(pace.interval_ns).unwrap_or(0);
                    return Asked::Taken { remaining, reset_ns: ahead };
                }
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Puts one unit back. What has drained meanwhile is not put back twice over: an arrival time in the past
    /// counts as now.
    pub(crate) fn give_back(&self, pace: Pace) {
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen != RETIRED {
            let next = seen.saturating_sub(pace.interval_ns);
            match self.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Ends the cell if all it has counted has drained, so that dropping it forgives nothing.
    pub(crate) fn retire_if_idle(&self, now_ns: u64) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen <= now_ns && self.0.compare_exchange(seen, RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Cuts a debt that no rule of today could have made, after a rule was tightened: a caller that had used up a
    /// long burst waits for the whole of the new one, not for the whole of the old.
    pub(crate) fn cut_debt(&self, now_ns: u64, tolerance_ns: u64, slack_ns: u64) {
        let most = now_ns.saturating_add(tolerance_ns);
        let seen = self.0.load(Ordering::Relaxed);
        if seen != RETIRED && seen > most.saturating_add(slack_ns) {
            // A cell that moved meanwhile is left for the next sweep.
            let _ = self.0.compare_exchange(seen, most, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.0.load(Ordering::Relaxed) == RETIRED
    }
}
