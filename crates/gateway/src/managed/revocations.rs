//! Tokens that are revoked while the gateway runs (REV-02): told over the admin API, kept in the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_authn::{BadEntry, RevokedEntry, RevokedTokens};
use portcullis_core::Moment;
use portcullis_store::{Records, StoreError};

/// Most entries one issuer may have been told, so that a script that has run wild does not fill the disk.
const MOST: usize = 100_000;

/// Stands between issuer and entry in the key of a record; no name of an entry of `issuers` holds one.
const BETWEEN: char = '\n';

/// Why a revocation was not taken, or not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// There is no such issuer, or none that takes revocations.
    #[error("no issuer of this name has `revoked: {{ push: true }}`")]
    UnknownIssuer,
    /// The entry cannot be read.
    #[error("{0}")]
    BadEntry(#[from] BadEntry),
    /// There is no such entry.
    #[error("no entry of this issuer has this id")]
    UnknownEntry,
    /// There are too many.
    #[error("the issuer has {MOST} entries already; take back what is over, or list tokens in files")]
    Full,
    /// The store could not keep it.
    #[error("the revocation is not kept: {0}")]
    Store(#[from] StoreError),
}

/// What was told of each issuer that takes revocations.
pub(crate) struct PushedRevocations {
    records: Records,
    /// Held while one is changed, so that no two changes lose one of them. Never locked by a request.
    told: Mutex<HashMap<Arc<str>, Told>>,
}

/// One issuer's, by the ids of the entries.
struct Told {
    list: Arc<RevokedTokens>,
    entries: BTreeMap<String, RevokedEntry>,
}

impl PushedRevocations {
    /// Puts in force what was told before. SECURITY: an entry that cannot be read back is an error of the start:
    /// without it a revoked token would open doors again.
    pub(crate) fn restore(records: Records, lists: &[Arc<RevokedTokens>]) -> Result<Self, RevokeError> {
        let mut told = HashMap::new();
        for list in lists.iter().filter(|list| list.push_place().is_some()) {
            let mut entries = BTreeMap::new();
            for (key, text) in records.beginning(&key(list.issuer(), ""))? {
                let id = key.rsplit(BETWEEN).next().unwrap_or_default().to_owned();
                entries.insert(id, RevokedEntry::parse(&text)?);
            }
            let restored = Told { list: Arc::clone(list), entries };
            restored.put_in_force();
            told.insert(Arc::clone(list.issuer()), restored);
        }
        Ok(Self { records, told: Mutex::new(told) })
    }

    /// The entries of an issuer, by their ids.
    pub(crate) fn of(&self, issuer: &str) -> Result<BTreeMap<String, RevokedEntry>, RevokeError> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(issuer).map(|told| told.entries.clone()).ok_or(RevokeError::UnknownIssuer)
    }

    /// Takes an entry, and says whether it is new. When this returns it is on disk and in force on every worker.
    pub(crate) fn add(&self, issuer: &str, entry: RevokedEntry, now: Moment) -> Result<bool, RevokeError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.get_mut(issuer).ok_or(RevokeError::UnknownIssuer)?;
        let id = entry.id();
        if told.entries.contains_key(&id) {
            return Ok(false);
        }
        if told.entries.len() >= MOST {
            self.forget_what_is_over(issuer, told, now)?;
        }
        if told.entries.len() >= MOST {
            return Err(RevokeError::Full);
        }
        self.records.put(&key(issuer, &id), entry.to_json().to_string().into_bytes())?;
        told.entries.insert(id, entry);
        told.put_in_force();
        Ok(true)
    }

    /// Takes an entry back.
    pub(crate) fn remove(&self, issuer: &str, id: &str) -> Result<(), RevokeError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.get_mut(issuer).ok_or(RevokeError::UnknownIssuer)?;
        if !told.entries.contains_key(id) {
            return Err(RevokeError::UnknownEntry);
        }
        self.records.remove(&[key(issuer, id)])?;
        told.entries.remove(id);
        told.put_in_force();
        Ok(())
    }

    fn forget_what_is_over(&self, issuer: &str, told: &mut Told, now: Moment) -> Result<(), RevokeError> {
        let over: Vec<String> =
            told.entries.iter().filter(|(_, entry)| entry.is_over(now)).map(|(id, _)| id.clone()).collect();
        let keys: Vec<String> = over.iter().map(|id| key(issuer, id)).collect();
        self.records.remove(&keys)?;
        over.iter().for_each(|id| drop(told.entries.remove(id)));
        Ok(())
    }
}

impl Told {
    fn put_in_force(&self) {
        self.list.set_pushed(self.entries.values().cloned().collect());
    }
}

fn key(issuer: &str, id: &str) -> String {
    format!("{issuer}{BETWEEN}{id}")
}
