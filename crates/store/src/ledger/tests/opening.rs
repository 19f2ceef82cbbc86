use super::{TENS, at, is_taken, open, quotas, take_some, wait};
use crate::ledger::{LedgerFile, tests::crash};
use crate::{OpenError, Store, StoreSettings};
use redb::{Database, TableDefinition};
use std::fs;
use std::path::Path;

fn refusal(path: &Path) -> OpenError {
    Store::open(&StoreSettings { path: path.to_owned() }).unwrap_err()
}

/// Opens what must be refused, and proves that looking at it has changed nothing.
fn untouched_refusal(path: &Path) -> OpenError {
    let before = fs::read(path).unwrap();
    let error = refusal(path);
    assert!(fs::read(path).unwrap() == before, "the file was changed");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "something was left beside it");
    error
}

/// A store with a few rows, closed.
fn store_with_rows(path: &Path) {
    let store = open(path);
    let table = quotas(&store, TENS);
    for n in 0..200 {
        assert!(is_taken(wait(table.take(&format!("caller {n}"), at(0))).unwrap()));
    }
    store.close().unwrap();
}

#[test]
fn a_store_is_made_where_there_is_none_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.redb");
    open(&path).close().unwrap();
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["portcullis.redb"]);
    open(&path).close().unwrap();
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.redb");
    open(&path).close().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_store_in_use_is_not_opened_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    assert!(matches!(refusal(&path), OpenError::Locked { .. }));
    let table = quotas(&store, TENS);
    assert_eq!(take_some(&table, "a", at(0), 25), 25, "the first goes on undisturbed");
    assert!(matches!(refusal(&path), OpenError::Locked { .. }));
    store.close().unwrap();
    open(&path).close().unwrap();
}

#[test]
fn a_store_in_use_by_another_process_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut other = crash::Taker::start(&path);
    assert!(other.admits(1));
    let error = refusal(&path);
    assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{} is in use by another process", path.display()));
    other.kill();
    open(&path).close().unwrap();
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let kinds: [&[u8]; 6] = [
        b"",
        b"redb",
        b"my notes, and nobody else's",
        &[0; 100_000],
        b"redb\x1a\x0a\xa9\x0d\x0b",
        b"SQLite format 3\0",
    ];
    for bytes in kinds {
        fs::write(&path, bytes).unwrap();
        let error = untouched_refusal(&path);
        assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
    }
}

const THEIRS: TableDefinition<'_, &str, &str> = TableDefinition::new("theirs");

fn database_of_another_program(path: &Path) -> Database {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(THEIRS).unwrap().insert("a", "b").unwrap();
    transaction.commit().unwrap();
    database
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("theirs");
    drop(database_of_another_program(&path));
    let error = untouched_refusal(&path);
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
}

#[test]
fn a_database_of_another_program_that_crashed_is_not_repaired() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = database_of_another_program(&one.path().join("theirs"));
    let path = two.path().join("theirs");
    fs::copy(one.path().join("theirs"), &path).unwrap();
    drop(database);
    let error = untouched_refusal(&path);
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
    assert!(Database::open(&path).is_ok(), "its own program can repair it");
}

#[test]
fn a_database_with_a_table_of_our_name_and_other_types_is_not_ours() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("theirs");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("portcullis")).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = untouched_refusal(&path);
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
}

#[test]
fn a_store_of_a_later_format_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    store_with_rows(&path);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u32>::new("portcullis"))
        .unwrap()
        .insert("format", 3)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = untouched_refusal(&path);
    assert!(matches!(error, OpenError::OtherFormat { found: 3, expected: 2, .. }), "{error:?}");
}

#[test]
fn a_truncated_store_is_damaged_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    store_with_rows(&path);
    let whole = fs::read(&path).unwrap();
    for length in [9, 100, 320, 4096, 4097, 8192, 65_536, whole.len() / 2, whole.len() - 4096] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = untouched_refusal(&path);
        assert!(matches!(error, OpenError::Corrupt { .. }), "{length}: {error:?}");
    }
}

#[test]
fn a_damaged_store_is_refused_or_read_rightly_and_never_ends_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    store_with_rows(&path);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    // One byte of the header or of the pages is turned over, in pages that are in use and in those that are not.
    for offset in (9..320).step_by(7).chain((4096..whole.len().min(120_000)).step_by(900)) {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0xff;
        fs::write(&path, &damaged).unwrap();
        match LedgerFile::open(&path) {
            Ok(file) => {
                let rows = file.scan(None, 1_000).unwrap();
                assert_eq!(rows.len(), 200, "at {offset}");
                assert!(rows.iter().all(|row| row.record.units == 1), "at {offset}");
            }
            Err(OpenError::Corrupt { .. } | OpenError::NotOurs { .. }) => refused += 1,
            Err(error) => panic!("at {offset}: {error:?}"),
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_missing_directory_is_named_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("data");
    let error = refusal(&missing.join("store"));
    assert!(
        matches!(&error, OpenError::DirectoryMissing { directory } if *directory == missing),
        "{error:?}"
    );
    assert_eq!(error.to_string(), format!("the directory {} does not exist", missing.display()));
    assert!(!missing.exists());
}

#[test]
fn a_place_that_cannot_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let mut places = vec![file.join("store")];
    if cfg!(target_os = "linux") {
        // A directory in which nobody, not even root, makes a file.
        places.push("/proc/self/store".into());
    }
    for place in places {
        let error = refusal(&place);
        assert!(matches!(error, OpenError::CannotCreate { .. }), "{error:?}");
    }
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::CannotOpen { .. }), "{error:?}");
}
