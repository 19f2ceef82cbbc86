//! One caller's state under one limit: a number that its limit's algorithm reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// The state of a cell that was dropped from its table. Whoever finds it looks the key up again.
pub(super) const RETIRED: u64 = u64::MAX;

/// One caller's state under one limit. Of a table, all cells are read by one algorithm, and for each a new cell is
/// zero.
#[derive(Debug, Default)]
pub(crate) struct RateCell(pub(super) AtomicU64);

impl RateCell {
    pub(super) fn is_retired(&self) -> bool {
        self.0.load(Ordering::Relaxed) == RETIRED
    }
}

/// What came of asking a cell for a unit; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Taken: how many more could be taken now, and how long until all are back.
    Taken { remaining: u64, reset_ns: u64 },
    /// Not taken, and nothing has changed.
    Refused { retry_after_ns: u64 },
    /// The cell no longer counts.
    Retired,
}
