//! How much of the memory one owner of credentials may hold.
//!
//! While there is room enough, as much as it likes. From where the memory is half full, whoever holds a share gets
//! nothing more until some of it ends. What counts is how many entries an owner holds, not how long they live.
//!
//! Entries say whose they are by a number of 16 bits, so owners that meet there have one share together. Nobody can
//! choose where theirs is.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Tag;

/// Numbers of owners. What is counted for them takes a quarter of a megabyte.
const MARKS: usize = 1 << 16;
/// The part of the memory that one owner may hold where it is half full.
const PART: usize = 8;

/// The number of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark([u8; 2]);

/// What all owners hold.
#[derive(Debug)]
pub(super) struct Shares {
    held: Box<[AtomicU32]>,
    share: u32,
}

impl Mark {
    /// The number of an owner whose tag is a keyed hash.
    pub(super) const fn of(Tag([first, second, ..]): Tag) -> Self {
        Self([first, second])
    }
}

impl Shares {
    /// Shares of a memory for so many entries.
    pub(super) fn of_capacity(capacity: usize) -> Self {
        let share = u32::try_from(capacity.div_ceil(PART).max(1)).unwrap_or(u32::MAX);
        Self { held: (0..MARKS).map(|_| AtomicU32::new(0)).collect(), share }
    }

    fn held(&self, owner: Mark) -> Option<&AtomicU32> {
        self.held.get(usize::from(u16::from_le_bytes(owner.0)))
    }

    /// Counts one more entry of an owner; where the memory is crowded, only within its share.
    pub(super) fn take(&self, owner: Mark, crowded: bool) -> bool {
        let Some(held) = self.held(owner) else { return false };
        let more = |held: u32| (!crowded || held < self.share).then(|| held.saturating_add(1));
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one less.
    pub(super) fn give_back(&self, owner: Mark) {
        if let Some(held) = self.held(owner) {
            held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
