//! What operators have told a running gateway and a restart must not forget: few, small, and written at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::StoreError;
use crate::ledger::Commands;
use crate::shared::SharedRecords;

/// The records of one subject, by their keys. Every call waits for the disk, or for other gateways, so none is made on a
/// worker.
///
/// Where gateways share them, those at their server count, and what is on this one's disk is a copy, for a start without the
/// server.
#[derive(Clone, Debug)]
pub struct Records {
    subject: Arc<str>,
    commands: Commands,
    shared: Option<SharedRecords>,
}

/// Under which subject a gateway keeps the marks of the records it has a copy of, by their subjects.
const COPIED: &str = "shared_records";

impl Records {
    pub(crate) fn new(subject: &str, commands: Commands, shared: Option<SharedRecords>) -> Self {
        Self { subject: subject.into(), commands, shared }
    }

    /// Where they are shared with other gateways.
    pub const fn shared(&self) -> Option<&SharedRecords> {
        self.shared.as_ref()
    }

    /// Every record, in the order of the keys. Waits as long as it takes.
    ///
    /// # Errors
    /// The store cannot be read. Where records are shared, and there is no copy of them yet: other gateways' server does
    /// not answer.
    pub fn all(&self) -> Result<Vec<RecordRow>, StoreError> {
        let mine = self.beginning("")?;
        let Some(shared) = &self.shared else { return Ok(mine) };
        let marks = self.commands.read_records(COPIED.into(), String::new())?;
        let mark = marks.into_iter().find(|(subject, _)| **subject == *self.subject);
        let mark = mark.map(|(_, mark)| String::from_utf8_lossy(&mark).into_owned());
        let is_copy = mark.is_some();
        match shared.read(&self.subject, || mine.clone(), mark) {
            Ok(rows) => {
                let gone =
                    mine.into_iter().filter(|(key, _)| !rows.contains_key(key)).map(|(key, _)| (key, None));
                let there = rows.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
                self.copy(gone.chain(there).collect());
                Ok(rows.into_iter().collect())
            }
            Err(error) if is_copy => {
                tracing::warn!(subject = %self.subject, %error, "what operators have told is known as of the last time");
                Ok(mine)
            }
            Err(error) => Err(error),
        }
    }

    /// Every record on this gateway's own disk whose key begins like that.
    pub(crate) fn beginning(&self, start: &str) -> Result<Vec<RecordRow>, StoreError> {
        self.commands.read_records(Arc::clone(&self.subject), start.to_owned())
    }

    /// Writes and removes records, all or none; one that is removed and is not there counts as removed. When this
    /// returns, it is on disk, or at the server that gateways share. Where they do, and `expected` is given, only if these
    /// records are like that.
    ///
    /// # Errors
    /// The store cannot be written, or does not answer within two seconds. Whether anything was written is not known
    /// then, and may be decided later; but what is asked for after this is done after it. With [`StoreError::Conflict`]
    /// nothing was written.
    pub fn change(&self, changes: RecordChanges, expected: Option<&RecordChanges>) -> Result<(), StoreError> {
        match &self.shared {
            None => self.commands.change_records(Arc::clone(&self.subject), changes),
            Some(shared) => {
                shared.change(&self.subject, &changes, expected)?;
                self.copy(changes);
                Ok(())
            }
        }
    }

    /// Copies what is at the server that gateways share. What cannot be written here is known there.
    pub fn copy(&self, changes: RecordChanges) {
        let copied = self.commands.change_records(Arc::clone(&self.subject), changes);
        let mark = self.shared.as_ref().and_then(|shared| shared.unwritten_mark(&self.subject));
        let marked = mark.map_or(Ok(()), |mark| {
            let changes = RecordChanges::from([(self.subject.to_string(), Some(mark.into_bytes()))]);
            self.commands.change_records(COPIED.into(), changes)
        });
        if let Err(error) = copied.and(marked) {
            tracing::warn!(subject = %self.subject, %error, "the copy of what operators have told is not on disk");
        }
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
        records.change(RecordChanges::from([(key.to_owned(), Some(value.to_vec()))]), None)
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
        records.change(gone.into(), None).expect("removed");
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
