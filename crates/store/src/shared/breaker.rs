//! Leaves a server in peace that does not answer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// So many failures in a row open it.
pub const FAILURES: u32 = 5;
/// How long it stays open before somebody may try.
const OPEN: Duration = Duration::from_millis(500);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    /// Until when nobody is let through, in milliseconds of the owner's clock; the one who moves it on may try.
    shut_until: AtomicU64,
}

impl Breaker {
    /// Whether a question may be asked.
    pub(super) fn lets_through(&self, now: Duration) -> bool {
        if !self.is_open() {
            return true;
        }
        let (now, seen) = (milliseconds(now), self.shut_until.load(Ordering::Relaxed));
        let next = now.saturating_add(milliseconds(OPEN));
        now >= seen
            && self.shut_until.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether questions are held back.
    pub(super) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// An answer came. Whether it had been open.
    pub(super) fn succeeded(&self) -> bool {
        self.failures.swap(0, Ordering::Relaxed) >= FAILURES
    }

    /// None came. Whether this opened it.
    pub(super) fn failed(&self, now: Duration) -> bool {
        let opened = self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES;
        self.shut_until.store(milliseconds(now.saturating_add(OPEN)), Ordering::Relaxed);
        opened
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
