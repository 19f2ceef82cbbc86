//! A bounded table of failures.

use std::sync::{Mutex, PoisonError};

/// Records that may stand in each other's place.
const WAYS: usize = 8;

const SHARDS: usize = 64;

/// What is remembered under one key. All times are milliseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The keyed hash it is found by; zero where nothing is.
    key: u64,
    /// When the last of its failures will be forgotten.
    pub(super) clear_at: u64,
    /// The last failure, or the last attempt that used up a wait.
    pub(super) since: u64,
    /// Until when a success speaks for it.
    pub(super) trusted_until: u64,
}

impl Record {
    /// The failures that are remembered at a time, of which one is forgotten every `forget` milliseconds.
    pub(super) fn failures(&self, now: u64, forget: u64) -> u64 {
        self.clear_at.saturating_sub(now).div_ceil(forget.max(1))
    }
}

/// Records by keyed hash. SECURITY: strangers choose what is entered, so the room is fixed, and the key of the hash
/// is this process's own secret: nobody can aim at a record. What makes room is, of the eight records that share a
/// place, the one that is forgotten soonest. To push out a record of its own an attacker would have to fail more often
/// than that record says in each of eight others that it cannot choose, so erasing costs more than waiting.
#[derive(Debug)]
pub(super) struct Records {
    shards: Box<[Mutex<Vec<[Record; WAYS]>>]>,
    /// Places of one shard, made when the first record is entered.
    places: usize,
}

impl Records {
    /// Room for about `records`.
    pub(super) fn new(records: usize) -> Self {
        let places = records.div_ceil(SHARDS * WAYS).max(1);
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), places }
    }

    /// The record of a key.
    pub(super) fn find(&self, key: u64) -> Option<Record> {
        self.change(key, |record| *record)
    }

    /// Changes the record of a key, if there is one.
    pub(super) fn change<T>(&self, key: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let key = key.max(1);
        self.at(key, false, |ways| ways.iter_mut().find(|record| record.key == key).map(change)).flatten()
    }

    /// Changes the record of a key, which is made if there is none.
    pub(super) fn enter<T: Default>(&self, key: u64, now: u64, change: impl FnOnce(&mut Record) -> T) -> T {
        let key = key.max(1);
        self.at(key, true, |ways| {
            let found = ways.iter().position(|record| record.key == key).or_else(|| {
                let soonest =
                    |record: &(usize, &Record)| (record.1.clear_at.max(now), record.1.trusted_until);
                let (at, _) = ways.iter().enumerate().min_by_key(soonest)?;
                *ways.get_mut(at)? = Record { key, ..Record::default() };
                Some(at)
            });
            found.and_then(|at| ways.get_mut(at)).map(change)
        })
        .flatten()
        .unwrap_or_default()
    }

    /// How many records are held that are not forgotten.
    pub(super) fn held(&self, now: u64) -> usize {
        let live = |ways: &[Record; WAYS]| ways.iter().filter(|record| record.clear_at > now).count();
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).iter().map(live).sum::<usize>())
            .sum()
    }

    fn at<T>(&self, key: u64, make: bool, look: impl FnOnce(&mut [Record; WAYS]) -> T) -> Option<T> {
        let index = |of: u64, count: usize| {
            usize::try_from(of).unwrap_or_default().checked_rem(count).unwrap_or_default()
        };
        let shard = self.shards.get(index(key >> 32, SHARDS))?;
        let mut places = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if places.is_empty() {
            if !make {
                return None;
            }
            places.resize(self.places, [Record::default(); WAYS]);
        }
        let at = index(key & 0xffff_ffff, self.places);
        places.get_mut(at).map(look)
    }
}
