//! The counts themselves, shared by all workers and kept over every reload.

use std::hash::RandomState;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::records::Records;

/// Cells that say whether an address may have failed. Two addresses in one cell cost a look, no more.
const CELLS: usize = 1 << 14;

/// Addresses that are remembered; 2 MiB.
const ADDRESSES: usize = 1 << 16;

/// Names, and addresses under names, that are remembered; 4 MiB.
const NAMES: usize = 1 << 17;

/// What the guard remembers. It has a bound, and takes its memory only as failures come.
#[derive(Debug)]
pub struct GuardLedger {
    /// For names. SipHash under a key of this process: callers choose what is hashed.
    pub(super) hasher: RandomState,
    /// For networks: every request is hashed by it, and nobody is shown what comes out.
    pub(super) networks: ahash::RandomState,
    /// For each cell the second, by the monotonic clock, until which a failure there is remembered.
    watched: Box<[AtomicU32]>,
    pub(super) addresses: Records,
    pub(super) names: Records,
    failures: AtomicU64,
    refused_by_name: AtomicU64,
    refused_by_address: AtomicU64,
    /// What is remembered of attempts at chains in shadow, if there are any.
    trials: OnceLock<Arc<Self>>,
}

/// How the guard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardCounts {
    /// Failures written down.
    pub failures: u64,
    /// Attempts refused because of failures of their address under their name.
    pub refused_by_name: u64,
    /// Attempts refused because of failures of their address.
    pub refused_by_address: u64,
    /// Addresses remembered now.
    pub addresses: usize,
    /// Names, and addresses under names, remembered now.
    pub names: usize,
}

impl Default for GuardLedger {
    fn default() -> Self {
        Self::with_room(ADDRESSES, NAMES)
    }
}

impl GuardLedger {
    /// Room for about so many records.
    pub(super) fn with_room(addresses: usize, names: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            networks: ahash::RandomState::new(),
            watched: (0..CELLS).map(|_| AtomicU32::new(0)).collect(),
            addresses: Records::new(addresses),
            names: Records::new(names),
            failures: AtomicU64::new(0),
            refused_by_name: AtomicU64::new(0),
            refused_by_address: AtomicU64::new(0),
            trials: OnceLock::new(),
        }
    }

    /// The counts of chains in shadow. SECURITY: apart, for what fails there must make nobody wait elsewhere.
    pub(super) fn of_trials(&self) -> Arc<Self> {
        Arc::clone(self.trials.get_or_init(Arc::default))
    }

    /// What was counted, at a time of the monotonic clock.
    pub fn counts(&self, now: std::time::Duration) -> GuardCounts {
        let now = super::milliseconds(now);
        GuardCounts {
            failures: self.failures.load(Ordering::Relaxed),
            refused_by_name: self.refused_by_name.load(Ordering::Relaxed),
            refused_by_address: self.refused_by_address.load(Ordering::Relaxed),
            addresses: self.addresses.held(now),
            names: self.names.held(now),
        }
    }

    fn cell(&self, network: u64) -> Option<&AtomicU32> {
        self.watched.get(usize::try_from(network).unwrap_or_default() % CELLS)
    }

    /// The one read of the good path.
    pub(super) fn is_watched(&self, network: u64, now: u64) -> bool {
        self.cell(network).is_some_and(|cell| u64::from(cell.load(Ordering::Relaxed)) > now / 1000)
    }

    /// Counts a failure, which is remembered until then.
    pub(super) fn failed(&self, network: u64, until: u64) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(cell) = self.cell(network) {
            let second = u32::try_from(until / 1000 + 1).unwrap_or(u32::MAX);
            cell.fetch_max(second, Ordering::Relaxed);
        }
    }

    pub(super) fn refused(&self, by_name: bool) {
        let counter = if by_name { &self.refused_by_name } else { &self.refused_by_address };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
