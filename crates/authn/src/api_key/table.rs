//! All keys: the declared ones, frozen, and those that were made since.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_core::{Client, Identity, Place, Secret, Spanned};
use portcullis_jose::digest::KeyedHash;

use super::issued::Issued;
use super::key::KeyHash;
use crate::certificate::CertificateBinding;

/// Whom a key leads to, and when and where it counts.
#[derive(Clone, Debug)]
pub(crate) struct KeyOwner {
    /// Made once, shared by all requests with the key.
    pub(crate) identity: Arc<Identity>,
    /// Second since 1970 from which the client no longer counts.
    pub(crate) client_expires_at: Option<i64>,
    pub(crate) terms: KeyTerms,
    /// The certificate that must come with it.
    pub(crate) bound_to: Option<CertificateBinding>,
}

/// The owner of a key, by where the key comes from.
pub(super) enum Found<'t> {
    /// The policy files.
    Declared(&'t KeyOwner),
    /// It was made while gateways ran.
    Issued(Arc<Issued>),
}

impl Found<'_> {
    pub(super) fn owner(&self) -> &KeyOwner {
        match self {
            Self::Declared(owner) => owner,
            Self::Issued(issued) => &issued.owner,
        }
    }

    /// Whoever looks after keys that are made while the gateway runs sees which are in use.
    pub(super) fn note_use(&self, unix_seconds: i64) {
        match self {
            Self::Declared(_) => {}
            Self::Issued(issued) => issued.note_use(unix_seconds),
        }
    }
}

/// What is said of one key (KEY-02).
#[derive(Clone, Debug, Default)]
pub struct KeyTerms {
    /// First second since 1970 at which it counts.
    pub not_before: Option<i64>,
    /// Second since 1970 from which it no longer counts.
    pub expires_at: Option<i64>,
    /// It does not count, but its line stays.
    pub disabled: bool,
    /// The APIs it may be used at; all, if none is named.
    pub apis: Option<Box<[Box<str>]>>,
    /// The networks it may be used from; all, if none is named.
    pub networks: Option<Box<[IpNet]>>,
}

/// Why a key that is known does not count for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyRefused {
    #[error("the key is disabled")]
    Disabled,
    #[error("the key does not count yet")]
    NotYetValid,
    #[error("the key has expired")]
    Expired,
    #[error("the key is not for this API")]
    OtherApi,
    #[error("the key is not for this address")]
    OtherNetwork,
}

impl KeyTerms {
    /// Whether the key counts here, now.
    pub(crate) fn judge(&self, api: &str, address: IpAddr, unix_seconds: i64) -> Result<(), KeyRefused> {
        if self.disabled {
            return Err(KeyRefused::Disabled);
        }
        if self.not_before.is_some_and(|from| unix_seconds < from) {
            return Err(KeyRefused::NotYetValid);
        }
        if self.expires_at.is_some_and(|end| unix_seconds >= end) {
            return Err(KeyRefused::Expired);
        }
        if self.apis.as_ref().is_some_and(|apis| !apis.iter().any(|allowed| **allowed == *api)) {
            return Err(KeyRefused::OtherApi);
        }
        if self.networks.as_ref().is_some_and(|all| !all.iter().any(|network| network.contains(&address))) {
            return Err(KeyRefused::OtherNetwork);
        }
        Ok(())
    }
}

/// The keys of all declared clients, those of the policy files and those that were made since, found by the keyed hash of the whole key.
///
/// SECURITY: what is looked up and compared is an HMAC under a secret the caller does not have, so the time of
/// the look-up says nothing about any key.
pub(crate) struct ApiKeys {
    pepper: KeyedHash,
    /// Each with the place it is declared at.
    owners: HashMap<KeyHash, (KeyOwner, Place), ahash::RandomState>,
    pub(super) issued: papaya::HashMap<KeyHash, Arc<Issued>, ahash::RandomState>,
    /// Where keys of each client that have a name are declared.
    names: HashMap<(Arc<str>, Box<str>), Place, ahash::RandomState>,
}

impl ApiKeys {
    pub(crate) fn new(pepper: &Secret) -> Self {
        let issued = papaya::HashMap::with_hasher(ahash::RandomState::new());
        Self { pepper: KeyedHash::new(pepper), owners: HashMap::default(), issued, names: HashMap::default() }
    }

    /// Adds a declared key; hands back the owner it already has, if it has one, and where that is declared.
    pub(crate) fn add(
        &mut self,
        hash: KeyHash,
        owner: KeyOwner,
        declared: Place,
    ) -> Option<(KeyOwner, Place)> {
        match self.owners.entry(hash) {
            Entry::Occupied(taken) => Some(taken.get().clone()),
            Entry::Vacant(free) => {
                free.insert((owner, declared));
                None
            }
        }
    }

    /// Takes a name for a key of a client, or says where another of its keys has it.
    pub(super) fn claim_name(&mut self, client: &Client, name: &Spanned<String>) -> Option<Place> {
        match self.names.entry((client.name.clone(), name.value.as_str().into())) {
            Entry::Occupied(taken) => Some(*taken.get()),
            Entry::Vacant(free) => {
                free.insert(name.place);
                None
            }
        }
    }

    /// What would be stored of it, if it were a key.
    pub(super) fn hash(&self, text: &str) -> KeyHash {
        KeyHash(self.pepper.digest(text.as_bytes()))
    }

    /// Whether the policy files declare the key.
    pub(super) fn declares(&self, hash: &KeyHash) -> bool {
        self.owners.contains_key(hash)
    }

    /// Whether a declared key of the client has that name.
    pub(super) fn declares_name(&self, client: &Client, name: &str) -> bool {
        self.names.contains_key(&(client.name.clone(), Box::from(name)))
    }

    /// Whose key it is.
    pub(super) fn find(&self, key: &[u8]) -> Option<Found<'_>> {
        let hash = KeyHash(self.pepper.digest(key));
        match self.owners.get(&hash) {
            Some((owner, _)) => Some(Found::Declared(owner)),
            None if self.issued.is_empty() => None,
            None => self.issued.pin().get(&hash).map(|issued| Found::Issued(Arc::clone(issued))),
        }
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({} keys)", self.owners.len() + self.issued.len())
    }
}
