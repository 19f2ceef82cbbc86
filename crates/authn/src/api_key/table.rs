//! All declared keys, frozen.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::{Identity, Place, Secret};
use portcullis_jose::digest::KeyedHash;

use super::key::KeyHash;

/// Whom a key leads to.
#[derive(Clone, Debug)]
pub(crate) struct KeyOwner {
    /// Made once, shared by all keys of the client and all their requests.
    pub(crate) identity: Arc<Identity>,
    /// Second since 1970 from which the client no longer counts.
    pub(crate) expires_at: Option<i64>,
    /// Where it is declared.
    pub(crate) declared: Place,
}

/// The keys of all declared clients, found by the keyed hash of the whole key.
///
/// SECURITY: what is looked up and compared is an HMAC under a secret the caller does not have, so the time of
/// the look-up says nothing about any key.
pub(crate) struct ApiKeys {
    pepper: KeyedHash,
    owners: HashMap<KeyHash, KeyOwner, ahash::RandomState>,
}

impl ApiKeys {
    pub(crate) fn new(pepper: &Secret) -> Self {
        Self { pepper: KeyedHash::new(pepper), owners: HashMap::default() }
    }

    /// Adds a key; hands back the owner it already has, if it has one.
    pub(crate) fn add(&mut self, hash: KeyHash, owner: KeyOwner) -> Option<KeyOwner> {
        match self.owners.entry(hash) {
            std::collections::hash_map::Entry::Occupied(taken) => Some(taken.get().clone()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(owner);
                None
            }
        }
    }

    /// Whose key it is.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&KeyOwner> {
        self.owners.get(&KeyHash(self.pepper.digest(key)))
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({} keys)", self.owners.len())
    }
}
