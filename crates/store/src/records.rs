//! What operators have told a running gateway and a restart must not forget: few, small, and written at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::StoreError;
use crate::ledger::Commands;

/// The records of one subject, by their keys. Every call waits for the disk, so none is made on a worker.
#[derive(Clone, Debug)]
pub struct Records {
    subject: Arc<str>,
    commands: Commands,
}

impl Records {
    pub(crate) fn new(subject: &str, commands: Commands) -> Self {
        Self { subject: subject.into(), commands }
    }

    /// Every record whose key begins like that, in the order of the keys. Waits as long as it takes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn beginning(&self, start: &str) -> Result<Vec<RecordRow>, StoreError> {
        self.commands.read_records(Arc::clone(&self.subject), start.to_owned())
    }

    /// Writes and removes records, all or none; one that is removed and is not there counts as removed. When this
    /// returns, it is on disk.
    ///
    /// # Errors
    /// The store cannot be written, or does not answer within two seconds. Whether anything was written is not known
    /// then, and may be decided later; but what is asked for after this is done after it.
    pub fn change(&self, changes: RecordChanges) -> Result<(), StoreError> {
        self.commands.change_records(Arc::clone(&self.subject), changes)
    }
}

/// A record's key, and the record.
pub type RecordRow = (String, Vec<u8>);

/// What is to become of records, by their keys. Without a value, a record goes.
pub type RecordChanges = BTreeMap<String, Option<Vec<u8>>>;

/// Where whoever asked hears what came of it.
pub(crate) type RecordReply<T> = std::sync::mpsc::SyncSender<Result<T, StoreError>>;

/// What the store's thread is asked to do with records.
#[derive(Debug)]
pub(crate) enum RecordCommand {
    Beginning { subject: Arc<str>, start: String, reply: RecordReply<Vec<RecordRow>> },
    Change { subject: Arc<str>, changes: RecordChanges, reply: RecordReply<()> },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{RecordChanges, Records, Store, StoreError, StoreSettings};

    fn open(path: &Path) -> Store {
        Store::open(&StoreSettings { path: path.to_owned() }).expect("a store")
    }

    fn keys(store: &Store, subject: &str, start: &str) -> Vec<String> {
        let found = store.records(subject).beginning(start).expect("records");
        found.into_iter().map(|(key, _)| key).collect()
    }

    fn put(records: &Records, key: &str, value: &[u8]) -> Result<(), StoreError> {
        records.change(RecordChanges::from([(key.to_owned(), Some(value.to_vec()))]))
    }

    #[test]
    fn records_survive_a_restart_and_subjects_are_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let store = open(&path);
        let records = store.records("one");
        assert!(keys(&store, "one", "").is_empty(), "a new store knows nothing");
        for key in ["a/1", "a/2", "b/1", "a"] {
            put(&records, key, key.as_bytes()).expect("written");
        }
        put(&records, "a/1", b"anew").expect("written");
        put(&store.records("other"), "a/9", b"").expect("written");
        let gone = ["a/2", "never"].map(|key| (key.to_owned(), None));
        records.change(gone.into()).expect("removed");
        store.close().expect("closed");
        assert_eq!(put(&records, "late", b""), Err(StoreError::Closed));
        let store = open(&path);
        assert_eq!(keys(&store, "one", ""), ["a", "a/1", "b/1"]);
        assert_eq!(keys(&store, "one", "a/"), ["a/1"]);
        assert_eq!(keys(&store, "other", "a/"), ["a/9"]);
        assert_eq!(store.records("one").beginning("a/").expect("records")[0].1, b"anew");
        assert!(keys(&store, "on", "").is_empty());
        store.close().expect("closed");
    }

    /// What was acknowledged is on disk, without a clean close.
    #[test]
    fn a_store_that_is_never_closed_has_kept_what_it_acknowledged() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let copy = directory.path().join("copy.redb");
        let store = open(&path);
        put(&store.records("one"), "a", b"1").expect("written");
        std::fs::copy(&path, &copy).expect("what a crash would leave");
        assert_eq!(keys(&open(&copy), "one", ""), ["a"]);
    }
}
