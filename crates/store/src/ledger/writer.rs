//! The thread: takes all that waits, makes it durable in one commit, and begins again.

use super::batch::Batch;
use super::file::{Found, LedgerFile, Opener, Record, Row};
use super::{Command, LookReply, Take};
use crate::LimitId;
use crate::error::StoreError;
use crate::figures::Counters;
use crate::quota::{ClockRow, QuotaCell, QuotaCells, QuotaClock, is_over, seconds_down};
use crate::records::RecordCommand;
use ahash::RandomState;
use portcullis_core::Moment;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many rows one call of `tidy` looks at: a few milliseconds, in which nobody's commit waits long.
const ROWS_PER_TIDY: usize = 4096;
/// How many cells leave memory in one commit, unless the table is above its bound by more.
const CELLS_AT_ONCE: usize = 4096;
/// How many a close writes in one commit.
const CELLS_PER_COMMIT: usize = 65_536;
/// A full table makes room for up to this part of itself, so that it does not do so for every new key.
const ROOM: usize = 16;
/// Two clocks that drift apart by more than this have been set, not read at different instants.
const CLOCK_WAS_SET_MS: u64 = 1000;
/// How old the clock in the file may grow: what a crash behind a wall clock that went back forgets of it.
const CLOCK_AGE_MS: i64 = 3_600_000;

/// The quota tables that exist. Locked when policies are compiled and by the thread, never by a request.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<LimitId, Arc<QuotaCells>, RandomState>>);

impl Registry {
    pub(crate) fn cells(&self, id: &LimitId) -> Arc<QuotaCells> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tables.entry(id.clone()).or_insert_with(|| Arc::new(QuotaCells::new(id.clone()))))
    }

    pub(crate) fn all(&self) -> Vec<Arc<QuotaCells>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Drops the tables that are empty and that nothing but this registry knows.
    fn forget_unused(&self) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|_, cells| Arc::strong_count(cells) > 1 || cells.held() > 0);
    }

    fn find(&self, id: &LimitId) -> Option<Arc<QuotaCells>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// The state of the thread.
pub(crate) struct Ledger {
    pub(crate) receiver: Receiver<Command>,
    /// `None` after a failure, until it could be opened again.
    pub(crate) file: Option<LedgerFile>,
    pub(crate) opener: Opener,
    /// How long to leave a failing disk alone before the file is opened again.
    pub(crate) retry: Duration,
    pub(crate) failed: Option<(Instant, StoreError)>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<QuotaClock>,
    /// The latest reading of both clocks that any command brought.
    pub(crate) latest: ClockRow,
    /// As the file has it.
    pub(crate) written: ClockRow,
    pub(crate) counters: Arc<Counters>,
    /// How many cells of one table stay in memory.
    pub(crate) capacity: usize,
    /// Where the next look for windows that are over begins.
    pub(crate) tidied: Option<Found>,
}

/// What came in while the last commit was on its way.
#[derive(Default)]
struct Pending {
    takes: Vec<Take>,
    extends: Vec<Command>,
    looks: Vec<(LimitId, Arc<str>, LookReply)>,
    records: Vec<RecordCommand>,
    tidy: bool,
    close: Vec<std::sync::mpsc::SyncSender<Result<(), StoreError>>>,
}

impl Pending {
    fn len(&self) -> usize {
        self.takes.len().saturating_add(self.extends.len()).saturating_add(self.looks.len())
    }
}

impl Ledger {
    /// Works until the store is closed, or until nobody is left who could ask.
    pub(crate) fn run(mut self) {
        while let Ok(first) = self.receiver.recv() {
            let mut pending = Pending::default();
            self.sort(first, &mut pending);
            while pending.close.is_empty()
                && pending.len() < super::QUEUE
                && let Ok(next) = self.receiver.try_recv()
            {
                self.sort(next, &mut pending);
            }
            self.decide(pending.takes, pending.extends);
            pending.looks.into_iter().for_each(|(id, key, reply)| self.look(&id, &key, reply));
            pending.records.into_iter().for_each(|command| self.record(command));
            self.make_room();
            if pending.tidy {
                self.tidy();
            }
            if !pending.close.is_empty() {
                let result = self.close();
                for done in pending.close {
                    // Whoever asked may have stopped waiting.
                    drop(done.send(result.clone()));
                }
                return;
            }
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
    }

    fn sort(&mut self, command: Command, pending: &mut Pending) {
        match command {
            Command::Take(take) => {
                self.note(take.unit.now);
                pending.takes.push(take);
            }
            Command::Extend { now, .. } => {
                self.note(now);
                pending.extends.push(command);
            }
            Command::Look { id, key, reply } => pending.looks.push((id, key, reply)),
            Command::Record(command) => pending.records.push(command),
            Command::Tidy { now } => {
                self.note(now);
                pending.tidy = true;
            }
            Command::Close { done } => pending.close.push(done),
        }
    }

    /// Readings come from many threads and not in order; windows are judged by the latest.
    fn note(&mut self, now: Moment) {
        let store_ms = self.clock.at(now);
        if store_ms >= self.latest.store_ms {
            self.latest = ClockRow { store_ms, unix_ms: now.unix_ms };
        }
    }

    fn decide(&mut self, takes: Vec<Take>, extends: Vec<Command>) {
        if takes.is_empty() && extends.is_empty() {
            return;
        }
        let now_ms = self.latest.store_ms;
        let unreadable = RefCell::new(None);
        let mut batch = Batch::default();
        {
            let file = self.file();
            let records = |id: &LimitId, key: &str| match &file {
                Ok(file) => file.record(id, key).inspect_err(|error| {
                    unreadable.replace(Some(error.clone()));
                }),
                Err(error) => Err(error.clone()),
            };
            for take in takes {
                batch.take(take, now_ms, &records);
            }
        }
        for extend in extends {
            if let Command::Extend { cells, cell, rule, .. } = extend {
                batch.extend(cells, cell, rule);
            }
        }
        if let Some(error) = unreadable.into_inner() {
            self.fail(error);
        }
        let written = self.write(&batch.rows());
        batch.settle(&written);
    }

    fn look(&mut self, id: &LimitId, key: &str, reply: LookReply) {
        let found = self.file().and_then(|file| file.record(id, key));
        // Whoever asked may have stopped waiting.
        drop(reply.send(self.noted(found)));
    }

    fn record(&mut self, command: RecordCommand) {
        // Whoever asked may have stopped waiting.
        match command {
            RecordCommand::Beginning { subject, start, reply } => {
                let found = self.file().and_then(|file| file.records(&subject, &start));
                drop(reply.send(self.noted(found)));
            }
            RecordCommand::Change { subject, changes, reply } => {
                let written = self.file().and_then(|file| file.write_records(&subject, &changes));
                drop(reply.send(self.noted(written)));
            }
        }
    }

    /// An outcome of the file, whose failure closes it.
    fn noted<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &outcome
            && self.file.is_some()
        {
            self.fail(error.clone());
        }
        outcome
    }

    /// The open file, opened again if it failed and was left alone long enough.
    fn file(&mut self) -> Result<&LedgerFile, StoreError> {
        if self.file.is_none() {
            if let Some((since, error)) = &self.failed
                && since.elapsed() < self.retry
            {
                return Err(error.clone());
            }
            match (self.opener)() {
                Ok(file) => {
                    tracing::info!("the store can be written again");
                    self.file = Some(file);
                }
                Err(error) => self.fail(StoreError::Disk(Arc::from(error.to_string()))),
            }
        }
        match (&self.file, &self.failed) {
            (Some(file), _) => Ok(file),
            (None, Some((_, error))) => Err(error.clone()),
            (None, None) => Err(StoreError::Closed),
        }
    }

    /// After an error redb takes no more writes, so the file is let go of and opened anew. What was committed is
    /// on disk; what was not was never handed out.
    fn fail(&mut self, error: StoreError) {
        tracing::error!(%error, "the store failed");
        self.file = None;
        self.failed = Some((Instant::now(), error));
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        self.counters.failing.store(true, Ordering::Relaxed);
    }

    fn write(&mut self, rows: &[Row<'_>]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.commit(rows)
    }

    fn commit(&mut self, rows: &[Row<'_>]) -> Result<(), StoreError> {
        let clock = self.latest;
        let begun = Instant::now();
        let result = self.file()?.write(rows, clock);
        match &result {
            Ok(()) => {
                self.counters.committed(begun.elapsed());
                self.failed = None;
                self.written = clock;
            }
            Err(error) => self.fail(error.clone()),
        }
        result
    }

    /// Removes windows that are over, writes the clock down when it is due, and tries a disk that has failed: a
    /// gateway that is not ready gets no requests, and none of them would try it.
    fn tidy(&mut self) {
        for cells in self.registry.all().iter().filter(|cells| cells.period().is_none()) {
            // A limit that no policy names any more needs no memory. If this fails, the next call tries again.
            drop(self.put_away(cells, &cells.some(CELLS_AT_ONCE)));
        }
        self.registry.forget_unused();
        let now = seconds_down(self.latest.store_ms);
        let after = self.tidied.take();
        let found = match self.file().and_then(|file| file.scan(after.as_ref(), ROWS_PER_TIDY)) {
            Ok(found) => found,
            Err(error) if self.file.is_some() => return self.fail(error),
            Err(_) => return,
        };
        let over = |found: &&Found| {
            // A limit may have been given a longer period since; a limit that is gone keeps the one it had.
            let period = self.registry.find(&found.id).and_then(|cells| cells.period());
            is_over(found.record.start, period.unwrap_or(0).max(found.record.period), now)
        };
        let rows: Vec<Row<'_>> = found
            .iter()
            .filter(over)
            .map(|found| Row { id: &found.id, key: &found.key, record: None })
            .collect();
        let clock_is_due = self.latest.drift_ms().abs_diff(self.written.drift_ms()) > CLOCK_WAS_SET_MS
            || self.latest.store_ms.saturating_sub(self.written.store_ms) > CLOCK_AGE_MS;
        if !rows.is_empty() || clock_is_due || self.failed.is_some() {
            // A failure is counted and logged where it happens, and these rows are found again.
            drop(self.commit(&rows));
        }
        if found.len() == ROWS_PER_TIDY {
            self.tidied = found.into_iter().next_back();
        }
    }

    /// Puts cells of a table that has grown too large on disk as they are, exactly, and forgets them. The next
    /// request of such a caller waits once while they are read back; nothing is forgiven.
    fn make_room(&mut self) {
        for cells in self.registry.all() {
            if cells.held() > self.capacity {
                let excess = cells.held().saturating_sub(self.capacity);
                let leaving = cells.some(excess.saturating_add((self.capacity / ROOM).min(CELLS_AT_ONCE)));
                // If it fails, the table stays larger than it should until the disk is well.
                drop(self.put_away(&cells, &leaving));
            }
        }
    }

    fn put_away(&mut self, cells: &QuotaCells, leaving: &[Arc<QuotaCell>]) -> Result<(), StoreError> {
        let ended: Vec<(&QuotaCell, u32)> =
            leaving.iter().filter_map(|cell| cell.retire().map(|used| (&**cell, used))).collect();
        let rows: Vec<Row<'_>> = ended
            .iter()
            .filter(|(cell, used)| *used != cell.durable())
            .map(|(cell, used)| {
                let record = Record { start: cell.start(), units: *used, period: cell.period() };
                Row { id: cells.id(), key: cell.key(), record: Some(record) }
            })
            .collect();
        let written = self.write(&rows);
        for (cell, used) in ended {
            match written {
                Ok(()) => cells.forget(cell),
                // Whether a write that failed is on disk nobody knows, so no unit beyond what it would say is
                // handed out before another one has succeeded.
                Err(_) => {
                    let key = Arc::clone(cell.key());
                    let again = QuotaCell::new(key, cell.start(), cell.period(), used, used);
                    cells.put(again.having_told(cell.told()));
                }
            }
        }
        written
    }

    /// Writes what was really used, so that a clean restart loses nothing, and lets go of the file.
    fn close(&mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
        for cells in self.registry.all() {
            let mut every = cells.some(usize::MAX);
            // In the order of the file: neighbours share pages, and each page is written once.
            every.sort_unstable_by(|one, other| one.key().cmp(other.key()));
            for some in every.chunks(CELLS_PER_COMMIT) {
                result = result.and(self.put_away(&cells, some));
            }
        }
        // Time that has passed is written even if nobody took anything, or a gateway that is started again and
        // again behind a wrong wall clock would stand still in its windows.
        if result.is_ok() && self.latest != self.written {
            result = self.commit(&[]);
        }
        match self.file.take() {
            Some(file) => result.and(file.close()),
            None => result,
        }
    }
}
