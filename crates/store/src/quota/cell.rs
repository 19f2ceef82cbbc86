//! One window of one caller: what is used of it, and how much of it is durable.

use super::{QuotaOutcome, QuotaRule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The count of a cell that no longer counts: its window is over, or its table has dropped it.
const RETIRED: u64 = u64::MAX;

/// What came of asking a cell for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Decided from memory. `extend` asks for more units to be made durable before these run out.
    Decided { outcome: QuotaOutcome, extend: bool },
    /// The durable units are used up, the quota is not.
    Exhausted,
    /// The window is over.
    Expired,
    /// The cell no longer counts.
    Retired,
}

/// **A unit is handed out only if it is durable**: `used` never passes `durable`.
///
/// Takers move `used`. `durable` is raised by the ledger's one thread, after the commit, and never falls, so a taker
/// that has read it may rely on it: the ledger retires a cell before it writes a smaller number. A cell is one window
/// and is never used for the next, so a taker that was overtaken by the end of the window cannot count in the wrong
/// one.
#[derive(Debug)]
pub(crate) struct QuotaCell {
    key: Arc<str>,
    /// The window's first second, by the store's clock.
    start: u32,
    /// The period of the rule the window opened under, in seconds: how long the file must remember it.
    period: u32,
    /// Units handed out: at most a `u32`, or [`RETIRED`].
    used: AtomicU64,
    durable: AtomicU32,
    /// Whether the ledger has been asked for more and has not answered yet.
    asked: AtomicBool,
    /// Which percentages of the rule have been told of, a bit each.
    told: AtomicU8,
}

impl QuotaCell {
    /// A window of which `used` units are taken and `durable` units are written down.
    pub(crate) fn new(key: Arc<str>, start: u32, period: u32, used: u32, durable: u32) -> Self {
        Self {
            key,
            start,
            period,
            used: AtomicU64::new(u64::from(used)),
            durable: AtomicU32::new(durable),
            asked: AtomicBool::new(false),
            told: AtomicU8::new(0),
        }
    }

    /// The same window, of which these percentages need not be told any more.
    pub(crate) fn having_told(self, bits: u8) -> Self {
        Self { told: AtomicU8::new(bits), ..self }
    }

    /// Notes that percentages are reached, and says which of them were not before.
    pub(crate) fn tell(&self, bits: u8) -> u8 {
        // Nearly always there is nothing new, and nothing is written.
        match bits & !self.told() {
            0 => 0,
            _ => bits & !self.told.fetch_or(bits, Ordering::Relaxed),
        }
    }

    pub(crate) fn told(&self) -> u8 {
        self.told.load(Ordering::Relaxed)
    }

    pub(crate) const fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(crate) const fn start(&self) -> u32 {
        self.start
    }

    pub(crate) const fn period(&self) -> u32 {
        self.period
    }

    /// Takes a unit, if a durable one is left. `now_ms` is the store's clock.
    pub(crate) fn take(&self, now_ms: i64, rule: &QuotaRule) -> Asked {
        let mut seen = self.used.load(Ordering::Acquire);
        loop {
            if seen == RETIRED {
                return Asked::Retired;
            }
            let Some(left) = rule.time_left(self.start, now_ms) else {
                return Asked::Expired;
            };
            if seen >= u64::from(rule.count) {
                return Asked::Decided {
                    outcome: QuotaOutcome::Refused { retry_after: left },
                    extend: false,
                };
            }
            let durable = self.durable.load(Ordering::Acquire);
            if seen >= u64::from(durable) {
                return Asked::Exhausted;
            }
            let units = seen.saturating_add(1);
            match self.used.compare_exchange_weak(seen, units, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let extend = durable < rule.count
                        && u64::from(durable).saturating_sub(units) <= u64::from(rule.block() / 2)
                        && !self.asked.load(Ordering::Relaxed)
                        && !self.asked.swap(true, Ordering::Relaxed);
                    let new = self.tell(rule.reached(units));
                    return Asked::Decided { outcome: rule.taken(units, left).reaching(rule, new), extend };
                }
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Puts one unit back, if it can have come from here: a window that opened after the request is not the one it
    /// took from.
    pub(crate) fn give_back(&self, taken_by_second: u32) {
        if self.start > taken_by_second {
            return;
        }
        let mut seen = self.used.load(Ordering::Acquire);
        while seen != RETIRED && seen > 0 {
            let units = seen.saturating_sub(1);
            match self.used.compare_exchange_weak(seen, units, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// How many units are used; `None` if the cell no longer counts.
    pub(crate) fn used(&self) -> Option<u32> {
        u32::try_from(self.used.load(Ordering::Acquire)).ok()
    }

    pub(crate) fn durable(&self) -> u32 {
        self.durable.load(Ordering::Acquire)
    }

    /// Counts `granted` units as used and says that `durable` units are written down. Ledger only, after the commit.
    /// False if the cell no longer counts.
    pub(crate) fn extend(&self, granted: u32, durable: u32) -> bool {
        let counted = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            (used != RETIRED).then(|| used.saturating_add(u64::from(granted)))
        });
        // After `used`: between the two a taker sees too little that is durable and comes to the ledger. The other
        // way round it would take what was granted.
        self.durable.fetch_max(durable, Ordering::AcqRel);
        self.may_ask_again();
        counted.is_ok()
    }

    /// Ends the cell and tells what it had counted. From here on no taker moves it.
    pub(crate) fn retire(&self) -> Option<u32> {
        u32::try_from(self.used.swap(RETIRED, Ordering::AcqRel)).ok()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.used.load(Ordering::Acquire) == RETIRED
    }

    #[cfg(test)]
    pub(crate) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// The ledger has answered, or could not be asked.
    pub(crate) fn may_ask_again(&self) {
        self.asked.store(false, Ordering::Release);
    }
}
