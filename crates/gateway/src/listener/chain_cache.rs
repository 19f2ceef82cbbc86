//! Client chains that were verified before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use portcullis_core::PeerCertificate;

use super::digest::Digest;

/// A bounded memory of verified chains. Only chains that lead to a trusted authority get in, so strangers cannot
/// push anybody out. It belongs to one verifier, whose anchors and revocation lists never change: other trust is
/// another verifier with an empty memory.
///
/// Two halves: the older is dropped whole when the newer is full, and what is asked for moves to the newer.
#[derive(Debug)]
pub(crate) struct ChainCache {
    half: usize,
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<Digest, Arc<PeerCertificate>, RandomState>,
    older: HashMap<Digest, Arc<PeerCertificate>, RandomState>,
}

impl ChainCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { half: (capacity / 2).max(1), halves: Mutex::default() }
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<PeerCertificate>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = halves.newer.get(digest) {
            return Some(Arc::clone(found));
        }
        let found = halves.older.remove(digest)?;
        halves.keep(*digest, &found, self.half);
        Some(found)
    }

    pub(crate) fn remember(&self, digest: Digest, certificate: &Arc<PeerCertificate>) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.older.remove(&digest);
        halves.keep(digest, certificate, self.half);
    }
}

impl Halves {
    fn keep(&mut self, digest: Digest, certificate: &Arc<PeerCertificate>, half: usize) {
        if self.newer.len() >= half {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(digest, Arc::clone(certificate));
    }
}
