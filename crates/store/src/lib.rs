//! State that outlives a request: rate cells and durable quotas.
mod embedded;
mod error;
mod figures;
mod ledger;
mod limit_id;
mod live;
mod quota;
mod rate;

pub use embedded::Embedded;
pub use error::{OpenError, StoreError};
pub use figures::StoreFigures;
pub use limit_id::LimitId;
pub use quota::{QuotaOutcome, QuotaRule, QuotaTable};
pub use rate::{RateOutcome, RateRule, RateTable};

use portcullis_core::Moment;
use std::path::PathBuf;
use std::sync::Arc;

/// How many callers one table keeps in memory.
pub const KEYS_PER_TABLE: usize = 1_000_000;
/// The longest caller's key that gets a cell of its own, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// A quota is made durable in blocks of this part of it: a hundredth, at least one unit ...
pub const BLOCKS_PER_QUOTA: u32 = 100;
/// ... and at most this many. One block per caller is the most that a crash takes away.
pub const LARGEST_BLOCK: u32 = 1024;

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The file that quotas are kept in. It is made if it does not exist; its directory is not.
    pub path: PathBuf,
}

/// The state that outlives a request. Clones are one store.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process and one file, for a gateway that stands alone.
    Embedded(Arc<Embedded>),
}

impl Store {
    /// Opens the store's file, or makes it.
    ///
    /// # Errors
    /// See [`OpenError`]. A file that is not ours is never changed.
    pub fn open(settings: &StoreSettings) -> Result<Self, OpenError> {
        Ok(Self::Embedded(Arc::new(Embedded::open(&settings.path)?)))
    }

    /// A store without a file, for tests and for explanations: it counts, and forgets when it is dropped.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn in_memory() -> Result<Self, OpenError> {
        Ok(Self::Embedded(Arc::new(Embedded::in_memory()?)))
    }

    /// The rate counters of a limit, under a rule. Asking again for the same limit, with whatever rule, gives the
    /// same counters.
    pub fn rates(&self, id: &LimitId, rule: RateRule) -> Arc<RateTable> {
        match self {
            Self::Embedded(store) => store.rates(id, rule),
        }
    }

    /// The quota counters of a limit, under a rule. Asking again for the same limit, with whatever rule, gives the
    /// same counters.
    pub fn quotas(&self, id: &LimitId, rule: QuotaRule) -> Arc<QuotaTable> {
        match self {
            Self::Embedded(store) => store.quotas(id, rule),
        }
    }

    /// Forgets idle rate cells and quota windows that are over, in memory and in the file. To be called every few
    /// seconds, by the background and never by a worker: it looks at every cell. What it drops would have answered
    /// like a new one.
    pub fn sweep(&self, now: Moment) {
        match self {
            Self::Embedded(store) => store.sweep(now),
        }
    }

    /// The store's numbers at this moment.
    pub fn figures(&self) -> StoreFigures {
        match self {
            Self::Embedded(store) => store.figures(),
        }
    }

    /// Writes what was really used and lets go of the file; quotas are refused from then on. Blocks until it is
    /// done. Closing again does nothing.
    ///
    /// # Errors
    /// When the exact counts could not be written. What is on disk then is what it would be after a crash.
    pub fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.close(),
        }
    }
}
