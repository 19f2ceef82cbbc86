//! Keys that are made while the gateway runs, for clients that are declared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use portcullis_core::{AuthMethod, Client};

use super::table::{ApiKeys, KeyOwner, KeyTerms};
use super::{KeyHash, identity_until};

/// Never used, in the place of a second.
const NEVER: i64 = i64::MIN;

/// A key beside the declared ones, and when it was last used.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) owner: KeyOwner,
    last_used: AtomicI64,
}

impl Issued {
    /// Written once a second at most, so that a busy key's line stays with every processor.
    pub(super) fn note_use(&self, unix_seconds: i64) {
        if self.last_used.load(Ordering::Relaxed) < unix_seconds {
            self.last_used.store(unix_seconds, Ordering::Relaxed);
        }
    }
}

/// What a new key is.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What is stored of it.
    pub hash: KeyHash,
    /// What it is called in logs and headers.
    pub name: Arc<str>,
    /// When and where it counts.
    pub terms: KeyTerms,
    /// Second since 1970 at which it was last used, if it was.
    pub last_used: Option<i64>,
}

/// Why a key cannot be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotIssue {
    /// No declared client has that name.
    #[error("no client has this name")]
    UnknownClient,
    /// The value is somebody's key already.
    #[error("this value is a key already")]
    Taken,
    /// A declared key of the client has that name.
    #[error("a key of this client has this name already")]
    NameTaken,
}

/// The keys of declared clients that are not declared themselves. Clones are one set.
#[derive(Clone, Debug)]
pub struct IssuedKeys {
    table: Arc<ApiKeys>,
    clients: Arc<BTreeMap<Arc<str>, Arc<Client>>>,
}

impl IssuedKeys {
    pub(crate) const fn new(table: Arc<ApiKeys>, clients: Arc<BTreeMap<Arc<str>, Arc<Client>>>) -> Self {
        Self { table, clients }
    }

    /// Whether a client of that name is declared.
    pub fn knows(&self, client: &str) -> bool {
        self.clients.contains_key(client)
    }

    /// What would be stored of a key.
    pub fn hash(&self, key: &str) -> KeyHash {
        self.table.hash(key)
    }

    /// Whether a key can be issued.
    ///
    /// # Errors
    /// See [`CannotIssue`].
    pub fn check(&self, client: &str, key: &NewKey) -> Result<(), CannotIssue> {
        self.free(client, key).map(drop)
    }

    /// Lets a key count from the next request on.
    ///
    /// # Errors
    /// See [`CannotIssue`]; nothing has changed then.
    pub fn issue(&self, client: &str, key: NewKey) -> Result<(), CannotIssue> {
        let client = self.free(client, &key)?;
        self.put(client, key);
        Ok(())
    }

    /// The client, if neither the key nor its name is somebody's already.
    fn free(&self, client: &str, key: &NewKey) -> Result<&Arc<Client>, CannotIssue> {
        let client = self.clients.get(client).ok_or(CannotIssue::UnknownClient)?;
        if self.table.declares(&key.hash) || self.is_issued(&key.hash) {
            return Err(CannotIssue::Taken);
        }
        if self.table.declares_name(client, &key.name) {
            return Err(CannotIssue::NameTaken);
        }
        Ok(client)
    }

    /// Whether this is an issued key, be it on terms on which it does not count at this moment.
    pub fn is_issued(&self, hash: &KeyHash) -> bool {
        self.table.issued.pin().contains_key(hash)
    }

    /// Second since 1970 from which the client is none any more, if that is declared.
    pub fn end_of(&self, client: &str) -> Option<i64> {
        self.clients.get(client).and_then(|client| client.expires_at)
    }

    /// Puts other terms in the place of those of an issued key. Nothing happens if it is none any more.
    pub fn change(&self, client: &str, key: NewKey) {
        if let Some(client) = self.clients.get(client)
            && self.is_issued(&key.hash)
        {
            self.put(client, key);
        }
    }

    /// Takes a key out of use.
    pub fn withdraw(&self, hash: &KeyHash) {
        self.table.issued.pin().remove(hash);
    }

    /// Second since 1970 at which an issued key was last used.
    pub fn last_used(&self, hash: &KeyHash) -> Option<i64> {
        let issued = self.table.issued.pin();
        let last = issued.get(hash)?.last_used.load(Ordering::Relaxed);
        (last != NEVER).then_some(last)
    }

    fn put(&self, client: &Arc<Client>, key: NewKey) {
        let NewKey { hash, name, terms, last_used } = key;
        let owner = KeyOwner {
            identity: identity_until(client, AuthMethod::ApiKey, Some(name), terms.expires_at),
            client_expires_at: client.expires_at,
            terms,
            bound_to: None,
        };
        let last_used = AtomicI64::new(last_used.unwrap_or(NEVER));
        self.table.issued.pin().insert(hash, Arc::new(Issued { owner, last_used }));
    }
}
