//! State that outlives a request: rate cells, durable quotas, what operators have told ([`Records`]), and what may be
//! used once ([`Replays`]).
//!
//! A **rate** guards the moment, a **quota** keeps a promise over days. Both are decided in memory by one atomic of
//! the caller's own cell, shared by all workers, without a lock. What is different is what is remembered.
//!
//! # What is counted
//!
//! Checking and taking are one step, so the last unit goes to one request, however many ask at once. A request that
//! is refused costs nothing: a unit that was taken from one limit before another refused is given back by the caller
//! of this crate.
//!
//! Counters belong to a [`LimitId`], not to a rule. An edited rule goes on with what was counted: a smaller quota
//! may be used up at once, a larger one has more left, a changed period applies to windows that are open. A rate's
//! debt is cut to the burst of the new rule once no request is judged by the old one.
//!
//! # Rates
//!
//! By default the generic cell rate algorithm over the monotonic clock. Intervals are rounded up to a nanosecond: stricter by a
//! hair, never laxer. A restart forgives what was taken in the last burst, and nothing else does: not a clock that
//! was set, not a reload, not a flood of other callers. A rate may also be counted in windows of the clock, sliding or
//! fixed ([`Algorithm`]), aligned to the wall clock as it stood when the store was first asked; one whose algorithm, or
//! whose window, is changed begins anew. A cell is one atomic for each of them.
//!
//! # Quotas
//!
//! A window opens with the caller's first admitted request and lasts the period; it is never shorter, and at most a
//! second longer because starts are whole seconds, rounded up.
//!
//! **No unit is handed out that is not on disk.** Units are reserved in blocks, of a hundredth of the quota, at least
//! 1 and at most 1024. A thread of its own makes them durable: one redb transaction, with an fsync, for all that
//! waits at that moment. It is asked for the next block when half of one is left, so requests wait only when a window
//! opens, when a caller is first seen after a start, when they outrun the disk, and for each unit of a quota below
//! 200 that is taken faster than a commit. Waiting ends after two seconds; more than 16,384 do not wait at all.
//!
//! # Crashes
//!
//! After `kill -9` or a power failure what was reserved counts as used.
//!
//! - **Admitted too much: nothing.** Provided that the disk keeps what it has acknowledged.
//! - **Lost: at most one block per caller and crash**, that is 1 % of the quota, or one unit of a small one; and units
//!   that were given back since the caller's last commit. Each commit that fails may cost a caller who waits for it
//!   another block, if it reached the disk all the same.
//!
//! [`Store::close`] writes what was really used, and a restart after it loses nothing.
//!
//! # When the disk fails
//!
//! Units that are durable are handed out, a quota that is known to be used up is refused as such, and everything
//! else is a [`StoreError`], which refuses the request as undecided (LIM-04). Rates go on. The file is opened again
//! once a second while requests come, and at each sweep, until it can be written; nothing is forgiven then.
//!
//! # Consistency
//!
//! One process. The file is locked, a second gateway that opens it is refused, and two gateways with a file each
//! count apart: together they admit up to twice the limit.
//!
//! Gateways that count together have their counters in Redis: see [`SharedCounters`].
//!
//! # Bounds
//!
//! A table keeps at most 1,000,000 callers in memory. When a rate table is full of live cells, new callers share one
//! cell between them until a sweep finds room: no live cell is dropped, so nobody washes off a debt by making up
//! keys. When a quota table is full, callers are written to the file exactly and read again when they return; the
//! bound may be passed for a moment by what one commit brings. Keys are at most [`MAX_KEY_BYTES`] long. A window
//! costs about 200 bytes of memory beside its key, and in the file about 100 beside the names of API, limit and
//! caller. The file forgets a window when it is over; its pages are used again, but the file does not shrink.
//!
//! A rate and a quota of a caller take 350 bytes together, with a key of 27. Both are checked in 0.26 µs of processor
//! with a thousand callers; with a million that come in an order no cache foresees, in 4.5 µs, most of them the rate's:
//! its map grows bit by bit, so that no worker ever stands still, and is slower for it than one that grows at once (1.7 µs
//! for both, and a worker that stands still for 0.26 s). `examples/limit_check.rs` measures this.
//!
//! # Clocks
//!
//! Rates go by the monotonic clock. Quotas go by a clock of the store's own that nobody can set: within a run it
//! follows the monotonic clock, and from one run to the next it advances by what the wall clock says has passed, at
//! most 400 days, and not at all if the wall clock went back. So setting the wall clock of a running gateway changes
//! nothing; setting it back never forgives and never freezes a window; only a wall clock that jumps ahead while the
//! gateway is down ends windows early. While the machine sleeps, windows stand still.
//!
//! # The file
//!
//! A redb database with a mark of ours. A file without the mark is never written to, not even to repair it: it is
//! looked at through a copy in memory first. A new store is made beside its place and linked there when it is whole.

mod embedded;
mod error;
mod figures;
mod ledger;
mod limit_id;
mod live;
mod quota;
mod rate;
mod records;
mod replays;
mod shared;

pub use embedded::Embedded;
pub use error::{OpenError, StoreError};
pub use figures::StoreFigures;
pub use limit_id::LimitId;
pub use quota::{MAX_ALERTS, QuotaKey, QuotaOutcome, QuotaRule, QuotaStanding, QuotaTable};
pub use rate::{Algorithm, MOST_IN_A_WINDOW, RateOutcome, RateRule, RateStanding, RateTable, RateUnit};
pub use records::{RecordChanges, RecordRow, Records};
pub use replays::{Claim, REPLAYS, ReplayFigures, ReplaySpace, Replays, SingleUse, claim_all};
pub use shared::{
    FAILURES, Follower, Heard, SharedAsk, SharedCounters, SharedFigures, SharedKey, SharedOutcome,
    SharedRecords, SharedRule, SharedSettings, SharedUnit, Topology,
};

use portcullis_core::Moment;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The longest key of a caller, in bytes. A longer one is an error of a quota, and of a rate shares the cell of the
/// strangers.
pub const MAX_KEY_BYTES: usize = 1024;
/// How many callers one table keeps in memory.
pub(crate) const KEYS_PER_TABLE: usize = 1_000_000;
/// A quota is made durable in blocks of this part of it, at least one unit ...
pub(crate) const BLOCKS_PER_QUOTA: u32 = 100;
/// ... and at most this many.
pub(crate) const LARGEST_BLOCK: u32 = 1024;

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
    /// Counters and what operators tell on a server that several gateways share; everything else as for one that stands
    /// alone.
    Redis(Arc<Embedded>, Shared),
}

/// What several gateways share. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shared {
    counters: SharedCounters,
    records: SharedRecords,
}

impl Shared {
    /// What is at a server, asked on that runtime. It is not looked for before the first question.
    ///
    /// # Errors
    /// The address or the trust cannot be used.
    pub fn at(settings: &SharedSettings, background: &Handle) -> Result<Self, OpenError> {
        let counters = SharedCounters::new(settings, background.clone())?;
        Ok(Self { counters, records: SharedRecords::new(settings, background.clone())? })
    }
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

    /// The same, with its counters and its records shared.
    #[must_use]
    pub fn sharing(self, shared: Shared) -> Self {
        let (Self::Embedded(own) | Self::Redis(own, _)) = self;
        Self::Redis(own, shared)
    }

    /// The counters that are shared, if some are. Those of this process stand in for them where a policy says so.
    pub const fn shared(&self) -> Option<&SharedCounters> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(_, shared) => Some(&shared.counters),
        }
    }

    /// The rate counters of a limit, under a rule. Asking again for the same limit, with whatever rule, gives the
    /// same counters.
    pub fn rates(&self, id: &LimitId, rule: RateRule) -> Arc<RateTable> {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.rates(id, rule),
        }
    }

    /// The quota counters of a limit, under a rule. Asking again for the same limit, with whatever rule, gives the
    /// same counters.
    pub fn quotas(&self, id: &LimitId, rule: QuotaRule) -> Arc<QuotaTable> {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.quotas(id, rule),
        }
    }

    /// Whether opening it made its file: then nothing is known of an earlier run.
    pub fn is_new(&self) -> bool {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.is_new(),
        }
    }

    /// What operators have told about a subject, this gateway or another one that shares its store.
    pub fn records(&self, subject: &str) -> Records {
        match self {
            Self::Embedded(store) => store.records(subject, None),
            Self::Redis(store, shared) => store.records(subject, Some(shared.records.clone())),
        }
    }

    /// The same, of what this gateway alone was told, or has a copy of.
    pub fn own_records(&self, subject: &str) -> Records {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.records(subject, None),
        }
    }

    /// Forgets idle rate cells and quota windows that are over, in memory and in the file. To be called every few
    /// seconds, by the background and never by a worker: it looks at every cell. What it drops would have answered
    /// like a new one.
    pub fn sweep(&self, now: Moment) {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.sweep(now),
        }
    }

    /// The store's numbers at this moment.
    pub fn figures(&self) -> StoreFigures {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.figures(),
        }
    }

    /// Writes what was really used and lets go of the file; quotas are refused from then on. Blocks until it is
    /// done. Closing again does nothing.
    ///
    /// # Errors
    /// When the exact counts could not be written. What is on disk then is what it would be after a crash.
    pub fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) | Self::Redis(store, _) => store.close(),
        }
    }
}
