//! The store's file.
//!
//! A redb database with four tables. `portcullis` says that the file is ours and in which format; a file without it
//! is never written to. `clock` holds the last reading of the quota clock, `quotas` one row per open window, `records`
//! what operators have told a running gateway.

use super::probation::Probation;
use crate::LimitId;
use crate::error::{OpenError, StoreError};
use crate::quota::ClockRow;
use crate::records::RecordChanges;
use ahash::RandomState;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, StorageError, TableDefinition, TableError,
};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The format this version reads and writes.
const FORMAT: u32 = 2;
/// How a redb file begins.
const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Memory for pages of the file. A row is read once per caller and start, so a larger cache would hold dead pages.
const CACHE_BYTES: usize = 32 << 20;

const MARK: TableDefinition<'_, &str, u32> = TableDefinition::new("portcullis");
const CLOCK: TableDefinition<'_, (), (i64, i64)> = TableDefinition::new("clock");
const QUOTAS: TableDefinition<'_, QuotaKey<'_>, (u32, u32, u32)> = TableDefinition::new("quotas");

const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");

/// Api, limit, caller: kept apart, so no choice of names makes two of them one.
type QuotaKey<'k> = (&'k str, &'k str, &'k str);

/// How the file is opened, and opened again after the disk has failed.
pub(crate) type Opener = Box<dyn Fn() -> Result<LedgerFile, OpenError> + Send>;

/// What the file remembers of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The window's first second, by the store's clock.
    pub(crate) start: u32,
    /// Units reserved; after a clean close, units used.
    pub(crate) units: u32,
    /// In seconds.
    pub(crate) period: u32,
}

impl From<(u32, u32, u32)> for Record {
    fn from((start, units, period): (u32, u32, u32)) -> Self {
        Self { start, units, period }
    }
}

/// One change; without a record, the row is removed.
#[derive(Debug)]
pub(crate) struct Row<'r> {
    pub(crate) id: &'r LimitId,
    pub(crate) key: &'r str,
    pub(crate) record: Option<Record>,
}

/// A row found by a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: LimitId,
    pub(crate) key: String,
    pub(crate) record: Record,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    database: Database,
}

impl LedgerFile {
    /// Opens the store at `path`, or makes one if nothing is there, and says whether it made it.
    pub(crate) fn open_or_create(path: &Path) -> Result<(Self, bool), OpenError> {
        let is_new = fs::metadata(path)
            .is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory));
        if is_new {
            create(path)?;
        }
        Ok((Self::open(path)?, is_new))
    }

    /// Opens the store at `path`. Nothing is written before the file has proved to be ours.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        prove_ours(path)?;
        let database = builder().open(path).map_err(|error| refusal(path, error))?;
        check_mark(&database, path)?;
        Ok(Self { database })
    }

    /// Makes a store out of an empty database.
    pub(crate) fn begin(database: Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(MARK)?.insert("format", FORMAT)?;
        transaction.open_table(QUOTAS)?;
        transaction.open_table(CLOCK)?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        Ok(Self { database })
    }

    /// What the clock stood at when the file was last written.
    pub(crate) fn clock(&self) -> Result<Option<ClockRow>, StoreError> {
        let row = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(CLOCK)?;
            Ok(table.get(())?.map(|row| row.value()))
        };
        Ok(row().map_err(disk)?.map(|(store_ms, unix_ms)| ClockRow { store_ms, unix_ms }))
    }

    /// What is remembered of one caller.
    pub(crate) fn record(&self, id: &LimitId, key: &str) -> Result<Option<Record>, StoreError> {
        let row = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(QUOTAS)?;
            Ok(table.get((id.api(), id.limit(), key))?.map(|row| Record::from(row.value())))
        };
        row().map_err(disk)
    }

    /// Up to `most` rows in the order of their keys, after the given one or from the first.
    pub(crate) fn scan(&self, after: Option<&Found>, most: usize) -> Result<Vec<Found>, StoreError> {
        let rows = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(QUOTAS)?;
            let start = after.map_or(Bound::Unbounded, |found| {
                Bound::Excluded((found.id.api(), found.id.limit(), found.key.as_str()))
            });
            let mut rows = Vec::new();
            for row in table.range::<QuotaKey<'_>>((start, Bound::Unbounded))?.take(most) {
                let (key, record) = row?;
                let (api, limit, key) = key.value();
                let record = Record::from(record.value());
                rows.push(Found { id: LimitId::new(api, limit), key: key.to_owned(), record });
            }
            Ok(rows)
        };
        rows().map_err(disk)
    }

    /// Writes all rows in one transaction; when this returns, they are on disk.
    pub(crate) fn write(&self, rows: &[Row<'_>], clock: ClockRow) -> Result<(), StoreError> {
        self.commit(rows, clock).map_err(disk)
    }

    fn commit(&self, rows: &[Row<'_>], clock: ClockRow) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(QUOTAS)?;
            for row in rows {
                let key = (row.id.api(), row.id.limit(), row.key);
                match row.record {
                    Some(Record { start, units, period }) => drop(table.insert(key, (start, units, period))?),
                    None => drop(table.remove(key)?),
                }
            }
            transaction.open_table(CLOCK)?.insert((), (clock.store_ms, clock.unix_ms))?;
        }
        Ok(transaction.commit()?)
    }

    /// The records of a subject whose keys begin like that.
    pub(crate) fn records(&self, subject: &str, start: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let mut rows = Vec::new();
            for row in table.range((subject, start)..)? {
                let (key, value) = row?;
                let (of, key) = key.value();
                if of != subject || !key.starts_with(start) {
                    break;
                }
                rows.push((key.to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        };
        rows().map_err(disk)
    }

    /// Writes and removes records of a subject in one transaction; when this returns, that is on disk.
    pub(crate) fn write_records(&self, subject: &str, changes: &RecordChanges) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for (key, value) in changes {
                    let key = (subject, key.as_str());
                    match value {
                        Some(value) => drop(table.insert(key, value.as_slice())?),
                        None => drop(table.remove(key)?),
                    }
                }
            }
            Ok(transaction.commit()?)
        };
        write().map_err(disk)
    }

    /// Lets go of the file.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.database.close().map_err(disk)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Looks at the file through a backend that keeps every write to itself.
///
/// SECURITY: opening a redb file that was not closed cleanly repairs it, that is, writes to it. A file must not be
/// changed before it has proved to be ours, so repair and integrity check run on a copy of the pages they touch.
fn prove_ours(path: &Path) -> Result<(), OpenError> {
    let cannot = |source| OpenError::CannotOpen { path: path.to_owned(), source };
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(cannot(io::Error::from(ErrorKind::InvalidInput)));
    }
    let mut magic = [0; REDB_MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == REDB_MAGIC => {}
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(cannot(error)),
        _ => return Err(OpenError::NotOurs { path: path.to_owned() }),
    }
    let backend = FileBackend::new(file).map_err(|error| refusal(path, error))?;
    // Pages of a damaged file can trip the database's own assertions; that is a damaged file, not a reason to die.
    let proof = catch_unwind(AssertUnwindSafe(|| {
        let database = builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(Probation::over(backend))
            .map_err(|error| refusal(path, error))?;
        check_mark(&database, path)
    }));
    proof.unwrap_or_else(|_| Err(corrupt(path, "its pages do not fit together")))
}

fn check_mark(database: &Database, path: &Path) -> Result<(), OpenError> {
    let transaction = database.begin_read().map_err(|error| corrupt(path, error))?;
    let not_ours = || OpenError::NotOurs { path: path.to_owned() };
    let mark = match transaction.open_table(MARK) {
        Ok(mark) => mark,
        Err(TableError::Storage(error)) => return Err(corrupt(path, error)),
        Err(_) => return Err(not_ours()),
    };
    let found = mark.get("format").map_err(|error| corrupt(path, error))?.ok_or_else(not_ours)?.value();
    if found != FORMAT {
        return Err(OpenError::OtherFormat { path: path.to_owned(), found, expected: FORMAT });
    }
    transaction.open_table(CLOCK).map_err(|error| corrupt(path, error))?;
    transaction.open_table(QUOTAS).map_err(|error| corrupt(path, error))?;
    transaction.open_table(RECORDS).map_err(|error| corrupt(path, error))?;
    Ok(())
}

/// Makes a new store beside its place and links it there when it is complete. So a start that is cut short leaves no
/// half a store, and a file that appeared meanwhile is not replaced.
fn create(path: &Path) -> Result<(), OpenError> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if !directory.exists() {
        return Err(OpenError::DirectoryMissing { directory: directory.to_owned() });
    }
    let cannot = |source| OpenError::CannotCreate { path: path.to_owned(), source };
    let draft = draft_path(path, directory);
    let file = create_private(&draft).map_err(cannot)?;
    let made = fill(file).map_err(cannot).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(cannot),
    });
    fs::remove_file(&draft).map_err(cannot)?;
    made?;
    // The directory's own entry must be on disk too before units are handed out on the strength of the file.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(cannot)
}

fn fill(file: File) -> io::Result<()> {
    let backend = FileBackend::new(file).map_err(io::Error::other)?;
    let database = builder().create_with_backend(backend).map_err(io::Error::other)?;
    LedgerFile::begin(database).and_then(|store| Ok(store.database.close()?)).map_err(io::Error::other)
}

/// A name that no other start uses, so that a leftover of one that was cut short is in nobody's way.
fn draft_path(path: &Path, directory: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = RandomState::new().hash_one(std::process::id());
    directory.join(format!(".{name}.{unique:016x}.new"))
}

/// The file says who called and how often: nobody else's business.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn refusal(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Locked { path: path.to_owned() }
        }
        // Stores have only ever been written in the current version of redb's format.
        DatabaseError::UpgradeRequired(_) => OpenError::NotOurs { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                corrupt(path, source)
            }
            _ => OpenError::CannotOpen { path: path.to_owned(), source },
        },
        other => corrupt(path, other),
    }
}

fn corrupt(path: &Path, detail: impl ToString) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), detail: detail.to_string() }
}

fn disk(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Disk(Arc::from(error.into().to_string()))
}
