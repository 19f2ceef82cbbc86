//! Numbers about the store, for metrics and readiness.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One reading of the store's numbers. Counters grow from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Commits that are on disk.
    pub commits: u64,
    /// How long the last of them took.
    pub last_commit: Duration,
    /// How long they took together.
    pub total_commit: Duration,
    /// Reads, writes and openings of the file that failed.
    pub errors: u64,
    /// Whether the last use of the file failed, or the thread that writes has ended. Quotas are refused then as far
    /// as they are not durable already.
    pub failing: bool,
    /// Rate cells in memory.
    pub rate_keys: usize,
    /// Takes that the shared overflow cells of full rate tables have answered.
    pub rate_overflows: u64,
    /// Quota windows in memory.
    pub quota_keys: usize,
}

/// What the thread counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    last_commit_ns: AtomicU64,
    total_commit_ns: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) failing: AtomicBool,
}

impl Counters {
    pub(crate) fn committed(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.last_commit_ns.store(took_ns, Ordering::Relaxed);
        self.total_commit_ns.fetch_add(took_ns, Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> StoreFigures {
        StoreFigures {
            commits: self.commits.load(Ordering::Relaxed),
            last_commit: Duration::from_nanos(self.last_commit_ns.load(Ordering::Relaxed)),
            total_commit: Duration::from_nanos(self.total_commit_ns.load(Ordering::Relaxed)),
            errors: self.errors.load(Ordering::Relaxed),
            failing: self.failing.load(Ordering::Relaxed),
            ..StoreFigures::default()
        }
    }
}
