//! What operators have told a running gateway and a restart must not forget: few, small, and written at once.

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

    /// Every record whose key begins like that, in the order of the keys.
    ///
    /// # Errors
    /// The store cannot be read, or does not answer in time.
    pub fn beginning(&self, start: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.commands.ask(|reply| RecordCommand::Beginning {
            subject: self.subject.clone(),
            start: start.to_owned(),
            reply,
        })
    }

    /// Writes a record, in the place of one of that key. When this returns, it is on disk.
    ///
    /// # Errors
    /// The store cannot be written, or does not answer in time. Whether the record was written is not known then.
    pub fn put(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        self.change(vec![(key.to_owned(), Some(value))])
    }

    /// Removes records, all or none. Those that are not there count as removed.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn remove(&self, keys: &[String]) -> Result<(), StoreError> {
        self.change(keys.iter().map(|key| (key.clone(), None)).collect())
    }

    /// Writes and removes records, all or none. Without a value, a record goes.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn change(&self, changes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        self.commands.ask(|reply| RecordCommand::Change { subject: self.subject.clone(), changes, reply })
    }
}

/// Where whoever asked hears what came of it.
pub(crate) type RecordReply<T> = std::sync::mpsc::SyncSender<Result<T, StoreError>>;

/// What the store's thread is asked to do with records.
#[derive(Debug)]
pub(crate) enum RecordCommand {
    Beginning {
        subject: Arc<str>,
        start: String,
        reply: RecordReply<Vec<(String, Vec<u8>)>>,
    },
    /// Without a value, the record goes.
    Change {
        subject: Arc<str>,
        changes: Vec<(String, Option<Vec<u8>>)>,
        reply: RecordReply<()>,
    },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Store, StoreSettings};

    fn open(path: &Path) -> Store {
        Store::open(&StoreSettings { path: path.to_owned() }).expect("a store")
    }

    fn keys(store: &Store, subject: &str, start: &str) -> Vec<String> {
        let found = store.records(subject).beginning(start).expect("records");
        found.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn records_survive_a_restart_and_subjects_are_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let store = open(&path);
        let records = store.records("one");
        assert!(keys(&store, "one", "").is_empty(), "a new store knows nothing");
        for key in ["a/1", "a/2", "b/1", "a"] {
            records.put(key, key.as_bytes().to_vec()).expect("written");
        }
        records.put("a/1", b"anew".to_vec()).expect("written");
        store.records("other").put("a/9", Vec::new()).expect("written");
        records.remove(&["a/2".to_owned(), "never".to_owned()]).expect("removed");
        store.close().expect("closed");
        assert!(records.put("late", Vec::new()).is_err(), "the store is closed");
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
        store.records("one").put("a", b"1".to_vec()).expect("written");
        std::fs::copy(&path, &copy).expect("what a crash would leave");
        assert_eq!(keys(&open(&copy), "one", ""), ["a"]);
    }
}
