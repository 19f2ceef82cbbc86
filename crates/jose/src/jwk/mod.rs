//! Sets of keys (RFC 7517) and which of them may verify a token.

mod document;
mod entry;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{Algorithm, KeyError, VerifyingKey};

pub(crate) use entry::public_key;

/// How many keys are tried for a token without `kid` (JWK-05).
const TRIES_MAX: usize = 8;
/// Bytes of a set (JKS-01).
const SET_MAX: usize = 512 * 1024;
/// Entries of a set (JKS-01).
const ENTRIES_MAX: usize = 100;

/// Where a set came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwkSource {
    /// From another machine. SECURITY: symmetric keys are dropped, because a secret that is published is none.
    Remote,
    /// From the operator's own files.
    Local,
}

/// Why bytes are not a key set at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkSetError {
    /// More than 512 KiB.
    #[error("the key set is larger than 512 KiB")]
    TooLarge,
    /// More than 100 entries.
    #[error("the key set has more than 100 entries")]
    TooManyKeys,
    /// Not one JSON object with an array `keys`.
    #[error("the key set is not a JSON object with one array `keys`")]
    Malformed,
}

/// An entry that does not count, and why. A set with such entries works; somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the array, from 0.
    pub index: usize,
    /// Its `kid`, if it had a usable one.
    pub key_id: Option<Arc<str>>,
    /// What is wrong with it.
    pub why: KeyError,
}

/// The keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<VerifyingKey>,
    skipped: Vec<SkippedKey>,
    /// No key has a name, and the operator gave them one by one: then a token's `kid` cannot choose.
    nameless: bool,
}

impl JwkSet {
    /// Reads a key set. Entries that we do not take are left out one by one (JWK-01), so a set may come out empty.
    ///
    /// # Errors
    /// The bytes are not a key set at all.
    pub fn parse(bytes: &[u8], source: JwkSource) -> Result<Self, JwkSetError> {
        if bytes.len() > SET_MAX {
            return Err(JwkSetError::TooLarge);
        }
        let mut set = Self::default();
        let mut read = Vec::new();
        for (index, text) in document::entries(bytes)?.into_iter().enumerate() {
            match entry::read(text, source) {
                Ok(key) => read.push((index, key)),
                Err(entry::Refused { key_id, why }) => set.skipped.push(SkippedKey { index, key_id, why }),
            }
        }
        set.admit(read);
        Ok(set)
    }

    /// A set of keys that the operator gave one by one. If none of them has a name, a token's `kid` is not looked
    /// at; that is the case of PEM files, which cannot hold a name.
    pub fn from_keys(keys: Vec<VerifyingKey>) -> Self {
        let mut set = Self { nameless: keys.iter().all(|key| key.key_id().is_none()), ..Self::default() };
        set.admit(keys.into_iter().enumerate().collect());
        set
    }

    /// The keys that may have signed a token with this `kid` and algorithm.
    ///
    /// With a `kid`, that is the key of exactly that name or none: there is no falling back to trying all of them.
    /// Without, it is every fitting key, but none at all if they are more than eight (JWK-05).
    pub fn candidates<'s>(&'s self, key_id: Option<&'s str>, algorithm: Algorithm) -> Candidates<'s> {
        let key_id = if self.nameless { None } else { key_id };
        let mut candidates = Candidates { keys: self.keys.iter(), key_id, algorithm, too_many: false };
        if key_id.is_none() && candidates.clone().count() > TRIES_MAX {
            candidates.keys = [].iter();
            candidates.too_many = true;
        }
        candidates
    }

    /// Number of keys that count.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key counts.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that count.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The names of the keys that count and have one.
    pub fn key_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.keys.iter().filter_map(VerifyingKey::key_id)
    }

    /// The entries that do not count.
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// Takes in the keys that may stand beside each other.
    fn admit(&mut self, keys: Vec<(usize, VerifyingKey)>) {
        // JWT-11, JWK-02: a set is symmetric or asymmetric. Where it is mixed the secrets go, so that nothing that
        // is published can ever be an HMAC key beside them. Entries refused for another reason count as well.
        let asymmetric = keys.iter().any(|(_, key)| !key.is_symmetric())
            || self.skipped.iter().any(|skipped| skipped.why != KeyError::SymmetricRefused);
        let refusals: Vec<Option<KeyError>> = keys
            .iter()
            .map(|(index, key)| {
                if key.is_symmetric() && asymmetric {
                    return Some(KeyError::SymmetricRefused);
                }
                keys.iter().filter(|(other, _)| other != index).find_map(|(_, other)| ambiguity(key, other))
            })
            .collect();
        for ((index, key), refusal) in keys.into_iter().zip(refusals) {
            match refusal {
                Some(why) => {
                    self.skipped.push(SkippedKey { index, key_id: key.key_id().cloned(), why });
                }
                None => self.keys.push(key),
            }
        }
        self.skipped.sort_by_key(|skipped| skipped.index);
    }
}

/// JWK-04: keys of one name must differ in the algorithms they serve. Where they do not, neither counts: which one
/// is meant would depend on the order of the set.
fn ambiguity(key: &VerifyingKey, other: &VerifyingKey) -> Option<KeyError> {
    let name = key.key_id()?;
    if other.key_id() != Some(name) {
        return None;
    }
    key.algorithms().find(|algorithm| other.allows(*algorithm)).map(KeyError::Ambiguous)
}

/// The keys to try for one token, in the order of the set.
#[derive(Clone, Debug)]
pub struct Candidates<'s> {
    keys: std::slice::Iter<'s, VerifyingKey>,
    key_id: Option<&'s str>,
    algorithm: Algorithm,
    too_many: bool,
}

impl Candidates<'_> {
    /// Whether there are none because there would be more than eight.
    pub const fn too_many(&self) -> bool {
        self.too_many
    }
}

impl<'s> Iterator for Candidates<'s> {
    type Item = &'s VerifyingKey;

    fn next(&mut self) -> Option<Self::Item> {
        let (key_id, algorithm) = (self.key_id, self.algorithm);
        self.keys.find(|key| {
            key.allows(algorithm) && (key_id.is_none() || key.key_id().map(|own| &**own) == key_id)
        })
    }
}
