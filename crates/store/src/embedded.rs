//! The store inside this process: rates in memory, quotas in memory and in a file.

use crate::error::{OpenError, StoreError};
use crate::figures::{Counters, StoreFigures};
use crate::ledger::{Command, Commands, Ledger, LedgerFile, Opener, Registry};
use crate::quota::{ClockRow, QuotaClock, QuotaRule, QuotaTable};
use crate::rate::{CellKind, RateCells, RateRule, RateTable, WindowClock};
use crate::records::Records;
use crate::shared::SharedRecords;
use crate::{KEYS_PER_TABLE, LimitId};
use ahash::RandomState;
use portcullis_core::Moment;
use redb::Builder;
use redb::backends::InMemoryBackend;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a request waits for its unit to be made durable.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a failing disk is left alone before the file is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// What tests set to other values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) keys_per_table: usize,
    pub(crate) deadline: Duration,
    pub(crate) retry: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { keys_per_table: KEYS_PER_TABLE, deadline: DEADLINE, retry: RETRY }
    }
}

/// A store of one process.
#[derive(Debug)]
pub struct Embedded {
    /// Locked when policies are compiled and by sweeps, never by a request.
    rates: Mutex<HashMap<(LimitId, CellKind), Arc<RateCells>, RandomState>>,
    windows: Arc<WindowClock>,
    quotas: Arc<Registry>,
    clock: Arc<QuotaClock>,
    commands: Commands,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<()>>>,
    keys_per_table: usize,
    is_new: bool,
}

impl Embedded {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let (file, is_new) = LedgerFile::open_or_create(path)?;
        let last = file
            .clock()
            .map_err(|error| OpenError::Corrupt { path: path.to_owned(), detail: error.to_string() })?;
        let path = path.to_owned();
        // Only the first opening may make a file: one that has vanished under a running gateway is a failure.
        let store = Self::over(file, last, Box::new(move || LedgerFile::open(&path)), Tuning::default())?;
        Ok(Self { is_new, ..store })
    }

    pub(crate) fn in_memory() -> Result<Self, OpenError> {
        let cannot = |error: redb::Error| OpenError::CannotCreate {
            path: "memory".into(),
            source: io::Error::other(error),
        };
        let database = Builder::new()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| cannot(error.into()))?;
        let file = LedgerFile::begin(database).map_err(cannot)?;
        let gone = || Err(OpenError::NotOurs { path: "memory".into() });
        Self::over(file, None, Box::new(gone), Tuning::default())
    }

    /// A store over an open file and the clock it remembers.
    pub(crate) fn over(
        file: LedgerFile,
        last: Option<ClockRow>,
        opener: Opener,
        tuning: Tuning,
    ) -> Result<Self, OpenError> {
        let clock = Arc::new(QuotaClock::after(last));
        let quotas = Arc::new(Registry::default());
        let counters = Arc::new(Counters::default());
        let (commands, receiver) = Commands::queue(tuning.deadline);
        let known = last.unwrap_or(ClockRow { store_ms: 0, unix_ms: 0 });
        let ledger = Ledger {
            receiver,
            file: Some(file),
            opener,
            retry: tuning.retry,
            failed: None,
            registry: Arc::clone(&quotas),
            clock: Arc::clone(&clock),
            latest: known,
            written: known,
            counters: Arc::clone(&counters),
            capacity: tuning.keys_per_table,
            tidied: None,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || ledger.run())
            .map_err(OpenError::Thread)?;
        Ok(Self {
            rates: Mutex::new(HashMap::default()),
            windows: Arc::default(),
            quotas,
            clock,
            commands,
            counters,
            thread: Mutex::new(Some(thread)),
            keys_per_table: tuning.keys_per_table,
            is_new: false,
        })
    }

    pub(crate) fn rates(&self, id: &LimitId, rule: RateRule) -> Arc<RateTable> {
        let mut tables = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = CellKind::of(rule);
        let made = || Arc::new(RateCells::new(kind, self.keys_per_table, Arc::clone(&self.windows)));
        let cells = tables.entry((id.clone(), kind)).or_insert_with(made);
        RateTable::over(cells, rule)
    }

    pub(crate) fn quotas(&self, id: &LimitId, rule: QuotaRule) -> Arc<QuotaTable> {
        QuotaTable::over(&self.quotas.cells(id), rule, Arc::clone(&self.clock), self.commands.clone())
    }

    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn records(&self, subject: &str, shared: Option<SharedRecords>) -> Records {
        Records::new(subject, self.commands.clone(), shared)
    }

    pub(crate) fn sweep(&self, now: Moment) {
        for cells in self.rate_cells() {
            cells.sweep(now);
        }
        self.rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, cells| Arc::strong_count(cells) > 1 || cells.held() > 0);
        let store_ms = self.clock.at(now);
        for cells in self.quotas.all() {
            cells.sweep(store_ms);
        }
        // A full queue or a closed store has nothing to tidy now; the next sweep comes.
        drop(self.commands.send(Command::Tidy { now }));
    }

    pub(crate) fn figures(&self) -> StoreFigures {
        let rates = self.rate_cells();
        let ended = match &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(thread) => thread.is_finished(),
            None => true,
        };
        let counted = self.counters.read();
        StoreFigures {
            failing: counted.failing || ended,
            rate_keys: rates.iter().map(|cells| cells.held()).sum(),
            rate_overflows: rates.iter().map(|cells| cells.overflowed()).sum(),
            quota_keys: self.quotas.all().iter().map(|cells| cells.held()).sum(),
            ..counted
        }
    }

    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else {
            return Ok(());
        };
        let result = self.commands.close();
        thread.join().map_err(|_| StoreError::Closed)?;
        result
    }

    fn rate_cells(&self) -> Vec<Arc<RateCells>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
