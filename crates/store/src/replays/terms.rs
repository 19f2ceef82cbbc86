//! How long credentials of one kind count that do not say so themselves.
//!
//! Rules may take one kind for different times, and change while the gateway runs. So what is used up is remembered for
//! as long as the most patient rule there has been since the start would take it, whichever rule has taken it.
//!
//! A rule that is loosened meanwhile would take what a stricter one has used up and the memory has forgotten. So what may
//! have been used by then, which is all that was made no later than the latest that has been, counts for as long as it
//! did before, and no longer.

use std::sync::atomic::{AtomicI64, Ordering};

/// The terms of one kind.
#[derive(Debug)]
pub(super) struct Terms {
    /// Seconds for which the most patient rule takes a credential after it was made.
    longest: AtomicI64,
    /// The latest second at which a credential was made that somebody wanted to use.
    latest: AtomicI64,
    /// Credentials made in this second or before may have been used under stricter rules,
    loosened: AtomicI64,
    /// and count for so many seconds.
    strictest: AtomicI64,
}

impl Terms {
    pub(super) const fn new(longest: i64) -> Self {
        Self {
            longest: AtomicI64::new(longest),
            latest: AtomicI64::new(i64::MIN),
            loosened: AtomicI64::new(i64::MIN),
            strictest: AtomicI64::new(i64::MAX),
        }
    }

    /// Hears of a rule. Rules are read one after the other, and before they are in force.
    pub(super) fn allow(&self, longest: i64) {
        let before = self.longest.load(Ordering::SeqCst);
        if longest <= before {
            return;
        }
        // A use that does not know of the new rule has said by now when its credential was made.
        self.longest.store(longest, Ordering::SeqCst);
        let latest = self.latest.load(Ordering::SeqCst);
        if latest > i64::MIN {
            self.strictest.fetch_min(before, Ordering::SeqCst);
            self.loosened.fetch_max(latest, Ordering::SeqCst);
        }
    }

    /// The first second in which a credential that is used now may be forgotten; `None` if it may have been used and
    /// forgotten before.
    pub(super) fn kept_until(&self, issued: i64, now: i64) -> Option<i64> {
        if self.latest.load(Ordering::SeqCst) < issued {
            self.latest.fetch_max(issued, Ordering::SeqCst);
        }
        let doubtful = issued <= self.loosened.load(Ordering::SeqCst)
            && now.saturating_sub(issued) > self.strictest.load(Ordering::SeqCst);
        let kept = issued.saturating_add(self.longest.load(Ordering::SeqCst)).saturating_add(1);
        (!doubtful).then_some(kept)
    }
}
