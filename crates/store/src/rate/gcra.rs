//! The generic cell rate algorithm, in one atomic.
//!
//! Here a cell holds its theoretical arrival time (TAT): the moment at which everything taken so far would have drained at
//! the rate. A unit may be taken as long as that moment, one interval later, lies no further ahead than the burst.

use super::cell::{Asked, RETIRED, RateCell};
use super::{RateRule, RateStanding};
use std::sync::atomic::Ordering;
use std::time::Duration;

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

impl RateCell {
    /// Takes a unit, if there is one.
    pub(super) fn take_at_pace(&self, now_ns: u64, pace: Pace) -> Asked {
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

    /// Where the cell stands, without taking anything.
    pub(super) fn look_at_pace(&self, now_ns: u64, pace: Pace) -> RateStanding {
        let now = now_ns.min(LONGEST_NS);
        let seen = self.0.load(Ordering::Relaxed);
        let ahead = if seen == RETIRED { 0 } else { seen.saturating_sub(now) };
        let left = pace.tolerance_ns.saturating_sub(ahead);
        RateStanding {
            remaining: left.checked_div(pace.interval_ns).unwrap_or(0),
            reset: Duration::from_nanos(ahead),
        }
    }

    /// Puts one unit back that was taken at `taken_ns`, when everything was to have drained `reset_ns` later. Of a unit
    /// that is put back late, only what has not drained by itself is put back: without the unit, the arrival time
    /// would lie at least that much earlier, whatever was taken since.
    pub(super) fn give_back_at_pace(&self, taken_ns: u64, reset_ns: u64, now_ns: u64, pace: Pace) {
        let drained_ns = taken_ns.min(LONGEST_NS).saturating_add(reset_ns);
        let undrained_ns = pace.interval_ns.min(drained_ns.saturating_sub(now_ns.min(LONGEST_NS)));
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen != RETIRED && undrained_ns > 0 {
            let next = seen.saturating_sub(undrained_ns);
            match self.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Ends the cell if all it has counted has drained, so that dropping it forgives nothing.
    pub(super) fn retire_if_drained(&self, now_ns: u64) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen <= now_ns && self.0.compare_exchange(seen, RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Cuts a debt that no rule of today could have made, after a rule was tightened: a caller that had used up a
    /// long burst waits for the whole of the new one, not for the whole of the old.
    pub(super) fn cut_debt(&self, now_ns: u64, tolerance_ns: u64, slack_ns: u64) {
        let most = now_ns.saturating_add(tolerance_ns);
        let seen = self.0.load(Ordering::Relaxed);
        if seen != RETIRED && seen > most.saturating_add(slack_ns) {
            // A cell that moved meanwhile is left for the next sweep.
            let _ = self.0.compare_exchange(seen, most, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
