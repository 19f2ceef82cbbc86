//! How much of the memory one owner of credentials may take.
//!
//! Entries do not say whose they are; that would make each of them larger. What an owner holds is bounded by how fast it
//! may take entries instead: as many as its share at once, and then one for each that ends. An entry that lives for `L`
//! seconds moves the owner's mark forward by `L / share` seconds, and the mark may lie `L` seconds ahead of now. So of
//! entries of one life time an owner holds at most twice its share.
//!
//! Owners that meet at one mark have one share together. There are many marks, and nobody can choose where theirs is.

use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_core::Moment;

use super::Tag;

/// Marks. Together they take half a megabyte.
const MARKS: usize = 1 << 16;
/// The part of the memory that one owner's entries take at once; twice that in the course of their life.
const PART: usize = 8;

/// The marks of all owners.
#[derive(Debug)]
pub(super) struct Shares {
    /// Nanoseconds of the monotonic clock up to which an owner has taken entries.
    marks: Box<[AtomicU64]>,
    entries: u64,
}

/// The share of one owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<'m> {
    mark: Option<&'m AtomicU64>,
    entries: u64,
}

impl Shares {
    /// Shares of a memory for so many entries.
    pub(super) fn of_capacity(capacity: usize) -> Self {
        let entries = u64::try_from(capacity.div_ceil(PART).max(1)).unwrap_or(u64::MAX);
        Self { marks: (0..MARKS).map(|_| AtomicU64::new(0)).collect(), entries }
    }

    /// The share of an owner, whose tag is a keyed hash.
    pub(super) fn of(&self, owner: Tag) -> Share<'_> {
        let at = usize::try_from(owner.0).unwrap_or_default() % MARKS;
        Share { mark: self.marks.get(at), entries: self.entries }
    }
}

impl Share<'_> {
    /// Takes an entry that lives for so many seconds, if there is room in the share.
    pub(super) fn take(self, seconds: i64, now: Moment) -> bool {
        let Some(mark) = self.mark else { return false };
        let now = u64::try_from(now.monotonic.as_nanos()).unwrap_or(u64::MAX);
        let life = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
        let step = life.div_ceil(self.entries).max(1);
        let taken = mark.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |mark| {
            let next = mark.max(now).saturating_add(step);
            (next.saturating_sub(now) <= life).then_some(next)
        });
        taken.is_ok()
    }
}
