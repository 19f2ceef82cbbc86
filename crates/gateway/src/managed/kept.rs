//! The one writer of what the store keeps of a subject.
//!
//! When a change fails, nobody knows whether it is on disk: a commit may fail after its last byte was written, and a
//! change that was not answered in time is carried out later. So each change says what is to be true then, and that is
//! owed: written with the next change, by the next look after things, or at the end.

use std::collections::BTreeMap;

use portcullis_store::{RecordChanges, RecordRow, Records, StoreError};

/// The records of a subject, and what is owed to the disk.
pub(super) struct Kept<D = Records> {
    disk: D,
    /// What the disk is to hold by now and may not.
    owed: RecordChanges,
}

/// Where changes go; a trait, so that tests can let a disk fail in every way.
pub(super) trait Disk {
    /// As [`Records::change`]; what is asked for later is done later.
    fn change(&self, changes: RecordChanges, expected: Option<&RecordChanges>) -> Result<(), StoreError>;
}

impl Disk for Records {
    fn change(&self, changes: RecordChanges, expected: Option<&RecordChanges>) -> Result<(), StoreError> {
        Self::change(self, changes, expected)
    }
}

impl Kept {
    /// Every record, as it was left by an earlier run, or by another gateway.
    pub(super) fn all(&self) -> Result<Vec<RecordRow>, StoreError> {
        self.disk.all()
    }

    /// Whether other gateways have the same records.
    pub(super) const fn is_shared(&self) -> bool {
        self.disk.shared().is_some()
    }

    /// Copies what another gateway has written.
    pub(super) fn copy(&self, changes: RecordChanges) {
        self.disk.copy(changes);
    }
}

impl<D: Disk> Kept<D> {
    pub(super) const fn new(disk: D) -> Self {
        Self { disk, owed: BTreeMap::new() }
    }

    /// Writes what gives somebody something, before it is in force. If it fails, it is not to be: `before`, which says
    /// what these records were, is owed. Nothing is written, and nothing owed, where another gateway has changed one of
    /// them meanwhile.
    pub(super) fn attempt(
        &mut self,
        changes: RecordChanges,
        before: RecordChanges,
    ) -> Result<(), StoreError> {
        let written = self.write(changes, Some(&before));
        written.inspect_err(|why| {
            if *why != StoreError::Conflict {
                self.owed.extend(before);
            }
        })
    }

    /// Writes what takes something from somebody, and is in force already. If it fails, it is owed.
    pub(super) fn insist(&mut self, changes: RecordChanges) -> Result<(), StoreError> {
        self.write(changes.clone(), None).inspect_err(|_| self.owed.extend(changes))
    }

    /// Writes what is owed.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.owed.is_empty() { Ok(()) } else { self.write(RecordChanges::new(), None) }
    }

    /// Whether this record may be another one on disk than it is to be.
    pub(super) fn owes(&self, key: &str) -> bool {
        self.owed.contains_key(key)
    }

    /// Writes changes, and with them what is owed and they do not replace.
    fn write(&mut self, changes: RecordChanges, expected: Option<&RecordChanges>) -> Result<(), StoreError> {
        let mut all = self.owed.clone();
        all.extend(changes);
        // What is owed is not known to be on disk, so nothing can be expected of it.
        let expected = expected.filter(|expected| !expected.keys().any(|key| self.owed.contains_key(key)));
        self.disk.change(all, expected)?;
        self.owed.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use portcullis_store::{RecordChanges, StoreError};

    use super::{Disk, Kept};

    /// How a disk fails.
    #[derive(Clone, Copy)]
    enum Mood {
        Well,
        /// Nothing is written, and it says so.
        Full,
        /// It says that it failed, and everything is written all the same.
        Late,
    }

    struct Moody {
        mood: Cell<Mood>,
        rows: RefCell<BTreeMap<String, Vec<u8>>>,
    }

    impl Disk for &Moody {
        fn change(&self, changes: RecordChanges, expected: Option<&RecordChanges>) -> Result<(), StoreError> {
            let rows = self.rows.borrow();
            let is_other = |(key, value): (&String, &Option<Vec<u8>>)| rows.get(key) != value.as_ref();
            if expected.into_iter().flatten().any(is_other) {
                return Err(StoreError::Conflict);
            }
            drop(rows);
            if matches!(self.mood.get(), Mood::Full) {
                return Err(StoreError::Disk("full".into()));
            }
            for (key, value) in changes {
                match value {
                    Some(value) => drop(self.rows.borrow_mut().insert(key, value)),
                    None => drop(self.rows.borrow_mut().remove(&key)),
                }
            }
            if matches!(self.mood.get(), Mood::Late) { Err(StoreError::TimedOut) } else { Ok(()) }
        }
    }

    impl Moody {
        fn holds(&self) -> Vec<(String, Vec<u8>)> {
            self.rows.borrow().clone().into_iter().collect()
        }
    }

    fn change(key: &str, value: Option<&str>) -> RecordChanges {
        [(key.to_owned(), value.map(|value| value.as_bytes().to_vec()))].into()
    }

    fn row(key: &str, value: &str) -> (String, Vec<u8>) {
        (key.to_owned(), value.as_bytes().to_vec())
    }

    /// However a write fails: what was refused is undone, and what is in force is written.
    #[test]
    fn the_disk_comes_to_hold_what_is_in_force() {
        for mood in [Mood::Full, Mood::Late] {
            let disk = Moody { mood: Cell::new(Mood::Well), rows: RefCell::default() };
            let mut kept = Kept::new(&disk);
            kept.insist(change("old", Some("1"))).expect("written");
            disk.mood.set(mood);
            kept.attempt(change("new", Some("2")), change("new", None)).expect_err("the disk fails");
            kept.attempt(change("old", Some("3")), change("old", Some("1"))).expect_err("the disk fails");
            kept.insist(change("revoked", Some("4"))).expect_err("the disk fails");
            kept.settle().expect_err("the disk fails");
            assert!(kept.owes("new") && kept.owes("old") && kept.owes("revoked"));
            disk.mood.set(Mood::Well);
            kept.settle().expect("written");
            assert!(!kept.owes("new") && !kept.owes("old") && !kept.owes("revoked"));
            assert_eq!(disk.holds(), [row("old", "1"), row("revoked", "4")]);
        }
    }

    /// Where another gateway was faster nothing is written, now or later.
    #[test]
    fn what_is_not_as_expected_is_not_written() {
        let disk = Moody { mood: Cell::new(Mood::Well), rows: RefCell::default() };
        let mut kept = Kept::new(&disk);
        kept.insist(change("a", Some("another's"))).expect("written");
        let late = kept.attempt(change("a", Some("1")), change("a", None));
        assert_eq!(late, Err(StoreError::Conflict));
        kept.settle().expect("nothing is owed");
        assert_eq!(disk.holds(), [row("a", "another's")]);
    }

    /// What is owed goes with the next change, which has the last word.
    #[test]
    fn the_next_change_brings_what_is_owed() {
        let disk = Moody { mood: Cell::new(Mood::Late), rows: RefCell::default() };
        let mut kept = Kept::new(&disk);
        kept.attempt(change("a", Some("1")), change("a", None)).expect_err("the disk fails");
        kept.insist(change("b", Some("2"))).expect_err("the disk fails");
        disk.mood.set(Mood::Well);
        kept.attempt(change("b", None), change("b", Some("2"))).expect("written");
        assert_eq!(disk.holds(), []);
        assert!(!kept.owes("b"));
    }
}
