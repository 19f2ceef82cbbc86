//! What one worker remembers of certificates that proxies told it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use portcullis_core::PeerCertificate;

use super::format::Found;

/// Certificates one half of the memory holds.
const HALF: usize = 512;

/// The longest header text, with its chain, that is remembered, in bytes.
const LONGEST: usize = 16 << 10;

/// A bounded memory: header bytes to the certificate they say. Only what was taken gets in, so strangers cannot push
/// anybody out. What is remembered is the certificate and the time in which its path holds; whether that time is now
/// is asked on every request.
///
/// Two halves: the older is dropped whole when the newer is full, and what is asked for moves to the newer.
#[derive(Debug, Default)]
pub(crate) struct ForwardedMemory {
    hasher: RandomState,
    newer: RefCell<HashMap<u64, Entry, RandomState>>,
    older: RefCell<HashMap<u64, Entry, RandomState>>,
    counts: Cell<ForwardedCounts>,
}

/// What came of the requests that arrived on listeners behind proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForwardedCounts {
    /// A certificate was told and taken.
    pub(crate) taken: u64,
    /// The proxy told of none.
    pub(crate) absent: u64,
    /// A certificate was told and refused.
    pub(crate) refused: u64,
    /// What the proxy sent cannot be read.
    pub(crate) unreadable: u64,
    /// The sender is not the proxy, so that nobody looked.
    pub(crate) not_the_proxy: u64,
}

#[derive(Debug)]
struct Entry {
    told_at: (u64, u64),
    leaf: Box<[u8]>,
    chain: Box<[u8]>,
    certificate: Arc<PeerCertificate>,
}

impl Entry {
    fn is(&self, told_at: (u64, u64), found: &Found<'_>) -> bool {
        self.told_at == told_at && *self.leaf == *found.leaf && *self.chain == *found.chain
    }
}

impl ForwardedMemory {
    /// The certificate these bytes said at a listener, whose generation `told_at` is.
    pub(crate) fn find(&self, told_at: (u64, u64), found: &Found<'_>) -> Option<Arc<PeerCertificate>> {
        let hash = self.hash(told_at, found);
        if let Some(entry) = self.newer.borrow().get(&hash).filter(|entry| entry.is(told_at, found)) {
            return Some(Arc::clone(&entry.certificate));
        }
        let entry = self.older.borrow_mut().remove(&hash).filter(|entry| entry.is(told_at, found))?;
        let certificate = Arc::clone(&entry.certificate);
        self.keep(hash, entry);
        Some(certificate)
    }

    /// A chain longer than [`LONGEST`] is verified each time, so that the memory stays small.
    pub(crate) fn remember(
        &self,
        told_at: (u64, u64),
        found: &Found<'_>,
        certificate: &Arc<PeerCertificate>,
    ) {
        if found.leaf.len() + found.chain.len() > LONGEST {
            return;
        }
        let entry = Entry {
            told_at,
            leaf: found.leaf.into(),
            chain: (*found.chain).into(),
            certificate: Arc::clone(certificate),
        };
        self.keep(self.hash(told_at, found), entry);
    }

    /// Counts one request.
    pub(crate) fn count(&self, change: impl FnOnce(&mut ForwardedCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(crate) const fn counts(&self) -> ForwardedCounts {
        self.counts.get()
    }

    fn keep(&self, hash: u64, entry: Entry) {
        let mut newer = self.newer.borrow_mut();
        if newer.len() >= HALF {
            self.older.replace(std::mem::take(&mut *newer));
        }
        newer.insert(hash, entry);
    }

    /// Callers choose certificates, so the hash is keyed; a collision costs a verification, no more.
    fn hash(&self, told_at: (u64, u64), found: &Found<'_>) -> u64 {
        self.hasher.hash_one((told_at, found.leaf, &*found.chain))
    }
}
