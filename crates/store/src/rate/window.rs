//! Counting in windows of the clock, in one atomic.
//!
//! A cell holds the number of a window, what was taken in it, and what was taken in the one before. A **fixed** window
//! counts what was taken in the present one alone, so up to twice the count may pass around a boundary. A **sliding**
//! window adds the part of the last one that still lies within one period, as if its units had been spread evenly.
//!
//! # The error of the sliding window
//!
//! With `n` units in a period `p`, no stretch of `t <= p` ever sees more than `n * (1 + t / p)` units: of the last
//! window's `m <= n` units, by the part `f <= t / p` of the present one at most `m * f` are forgotten too early. That is
//! what the generic cell rate algorithm with a burst of `n` lets through; at a boundary, where a fixed window lets `2n`
//! pass in no time, it is `n`. The other way, units that were taken early in the last window count longer than they
//! should, by less than a period. The weighted part is rounded up: never laxer.

use super::RateStanding;
use super::cell::{Asked, RETIRED, RateCell};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use portcullis_core::Moment;

/// The largest count of a limit that counts in windows, so that two of them and a number of a window are one word.
pub const MOST_IN_A_WINDOW: u64 = 1_000_000;

const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Windows are numbered modulo this and one. A sweep drops what is two windows old, so a number is never met again: with
/// windows of a second, that takes 194 days.
const INDEX_MASK: u64 = (1 << 24) - 1;
/// A cell as far ahead as this is behind.
const HALF: u64 = 1 << 23;

/// Stands for "no reading yet".
const UNSET: i64 = i64::MIN;

/// The clock that windows are aligned to: the wall clock as it stood at the first reading, going on by the monotonic
/// one. So nobody opens a window early by setting the wall clock, and none is frozen by it.
#[derive(Debug)]
pub(crate) struct WindowClock(AtomicI64);

impl Default for WindowClock {
    fn default() -> Self {
        Self(AtomicI64::new(UNSET))
    }
}

impl WindowClock {
    /// Milliseconds since 1970.
    pub(super) fn at(&self, now: Moment) -> u64 {
        let monotonic_ms = i64::try_from(now.monotonic.as_millis()).unwrap_or(i64::MAX);
        let mut offset = self.0.load(Ordering::Relaxed);
        if offset == UNSET {
            let first = now.unix_ms.saturating_sub(monotonic_ms);
            offset = match self.0.compare_exchange(UNSET, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => first,
                Err(set_meanwhile) => set_meanwhile,
            };
        }
        u64::try_from(monotonic_ms.saturating_add(offset)).unwrap_or(0)
    }
}

/// A rule as windows need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    /// Units in a window; zero means that nothing is ever allowed.
    count: u64,
    per_ms: u64,
    sliding: bool,
}

/// A moment within a window.
#[derive(Clone, Copy, Debug)]
struct Within {
    index: u64,
    elapsed_ms: u64,
}

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    index: u64,
    previous: u64,
    current: u64,
}

impl State {
    const fn unpack(word: u64) -> Self {
        Self {
            index: word >> (2 * COUNT_BITS),
            previous: (word >> COUNT_BITS) & COUNT_MASK,
            current: word & COUNT_MASK,
        }
    }

    const fn pack(self) -> u64 {
        (self.index << (2 * COUNT_BITS)) | (self.previous << COUNT_BITS) | self.current
    }

    /// How many windows ago this was the present one, seen from a number; in the upper half of the numbers it lies
    /// ahead.
    const fn age(self, index: u64) -> u64 {
        index.wrapping_sub(self.index) & INDEX_MASK
    }

    /// What the cell means at a moment, and how far into its window that is. Another thread may have read a later clock
    /// and moved the cell on: then its window has just begun for this one too.
    const fn seen_at(self, within: Within) -> (Self, u64) {
        let Within { index, elapsed_ms } = within;
        match self.age(index) {
            0 => (self, elapsed_ms),
            1 => (Self { index, previous: self.current, current: 0 }, elapsed_ms),
            HALF.. if self.previous > 0 || self.current > 0 => (self, 0),
            _ => (Self { index, previous: 0, current: 0 }, elapsed_ms),
        }
    }
}

impl Windows {
    pub(super) fn new(count: u64, per: Duration, sliding: bool) -> Self {
        let per_ms = u64::try_from(per.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::MAX >> COUNT_BITS);
        Self { count: count.min(MOST_IN_A_WINDOW), per_ms, sliding }
    }

    pub(super) const fn never(self) -> bool {
        self.count == 0
    }

    const fn at(self, now_ms: u64) -> Within {
        Within { index: (now_ms / self.per_ms) & INDEX_MASK, elapsed_ms: now_ms % self.per_ms }
    }

    /// How many units count at a moment of the state's window.
    const fn used(self, state: State, elapsed_ms: u64) -> u64 {
        if !self.sliding {
            return state.current;
        }
        let left_ms = self.per_ms.saturating_sub(elapsed_ms);
        state.current + (state.previous * left_ms).div_ceil(self.per_ms)
    }

    /// How long until a unit is there, if nobody takes any.
    fn wait_ms(self, state: State, elapsed_ms: u64) -> u64 {
        let to_the_next_ms = self.per_ms.saturating_sub(elapsed_ms);
        if !self.sliding {
            return to_the_next_ms;
        }
        // How far into a window the units of the one before it leave room for these.
        let part_ms = |units: u64, room: u64| {
            self.per_ms.saturating_sub((room * self.per_ms).checked_div(units).unwrap_or(self.per_ms))
        };
        match (self.count - 1).checked_sub(state.current) {
            Some(room) => part_ms(state.previous, room).saturating_sub(elapsed_ms),
            None => to_the_next_ms + part_ms(state.current, self.count - 1),
        }
    }

    /// How long until nothing counts any more.
    const fn reset_ms(self, state: State, elapsed_ms: u64) -> u64 {
        let to_the_next_ms = self.per_ms.saturating_sub(elapsed_ms);
        match (state.current, state.previous) {
            (0, 0) => 0,
            (0, _) if !self.sliding => 0,
            (1.., _) if self.sliding => to_the_next_ms + self.per_ms,
            _ => to_the_next_ms,
        }
    }
}

impl RateCell {
    /// Takes a unit, if there is one.
    pub(super) fn take_in_window(&self, now_ms: u64, windows: Windows) -> Asked {
        let within = windows.at(now_ms);
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if seen == RETIRED {
                return Asked::Retired;
            }
            let (state, elapsed_ms) = State::unpack(seen).seen_at(within);
            let used = windows.used(state, elapsed_ms);
            if used >= windows.count {
                let retry_after_ns = nanoseconds(windows.wait_ms(state, elapsed_ms).max(1));
                return Asked::Refused { retry_after_ns };
            }
            let next = State { current: state.current + 1, ..state };
            match self.0.compare_exchange_weak(seen, next.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    return Asked::Taken {
                        remaining: windows.count - used - 1,
                        reset_ns: nanoseconds(windows.reset_ms(next, elapsed_ms)),
                    };
                }
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Where the cell stands, without taking anything.
    pub(super) fn look_in_window(&self, now_ms: u64, windows: Windows) -> RateStanding {
        let seen = self.0.load(Ordering::Relaxed);
        let word = if seen == RETIRED { 0 } else { seen };
        let (state, elapsed_ms) = State::unpack(word).seen_at(windows.at(now_ms));
        RateStanding {
            remaining: windows.count.saturating_sub(windows.used(state, elapsed_ms)),
            reset: Duration::from_millis(windows.reset_ms(state, elapsed_ms)),
        }
    }

    /// Puts one unit back that was taken at a moment, into the window it was taken from. One whose window no longer
    /// counts has come back by itself.
    pub(super) fn give_back_in_window(&self, taken_ms: u64, windows: Windows) {
        let taken = windows.at(taken_ms);
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen != RETIRED {
            let state = State::unpack(seen);
            let next = match taken.index.wrapping_sub(state.index) & INDEX_MASK {
                0 => State { current: state.current.saturating_sub(1), ..state },
                INDEX_MASK => State { previous: state.previous.saturating_sub(1), ..state },
                _ => return,
            };
            match self.0.compare_exchange_weak(seen, next.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Ends the cell if neither of its windows counts any more, so that dropping it forgives nothing.
    pub(super) fn retire_if_past(&self, now_ms: u64, windows: Windows) -> bool {
        self.set_if_past(now_ms, windows, RETIRED)
    }

    /// The same for a cell that is never dropped, which begins again: left alone for long, its number would be taken
    /// for a window that is yet to come.
    pub(super) fn empty_if_past(&self, now_ms: u64, windows: Windows) {
        self.set_if_past(now_ms, windows, 0);
    }

    fn set_if_past(&self, now_ms: u64, windows: Windows, word: u64) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        let (state, _) = State::unpack(seen).seen_at(windows.at(now_ms));
        seen != RETIRED
            && state.previous == 0
            && state.current == 0
            && self.0.compare_exchange(seen, word, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

const fn nanoseconds(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}
