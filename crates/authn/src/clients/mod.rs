//! Registered callers declared in files.
//!
//! A client has credentials of several kinds. Each kind is read and indexed in the folder of its authenticator;
//! here they are one list, and one client.

mod compile;
mod credential;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::{AuthMethod, Client, Identity};

pub(crate) use compile::read_moment;
pub use compile::{ClientsSpec, FindPlans, Registering, moment};

use crate::api_key::{ApiKeys, IssuedKeys};
use crate::basic::Users;
use crate::certificate::CertificateOwners;
use crate::jwt::ClientKeys;
use crate::signing::SignatureKeys;

/// All declared clients, and what leads to them.
#[derive(Debug, Default)]
pub struct Clients {
    by_name: Arc<BTreeMap<Arc<str>, Arc<Client>>>,
    indexes: Indexes,
}

/// The credentials of all clients, one index for each kind.
#[derive(Debug, Default)]
struct Indexes {
    /// `None` if no pepper is set.
    api_keys: Option<Arc<ApiKeys>>,
    users: Arc<Users>,
    certificates: Arc<CertificateOwners>,
    hmac_keys: Arc<SignatureKeys>,
    signature_keys: Arc<SignatureKeys>,
    jwt_keys: Arc<ClientKeys>,
}

impl Clients {
    /// The client of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Client>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub const fn all(&self) -> &Arc<BTreeMap<Arc<str>, Arc<Client>>> {
        &self.by_name
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Their API keys; `None` if no pepper is set.
    pub(crate) const fn api_keys(&self) -> Option<&Arc<ApiKeys>> {
        self.indexes.api_keys.as_ref()
    }

    /// Where keys are added while the gateway runs; `None` if no pepper is set.
    pub fn issued_keys(&self) -> Option<IssuedKeys> {
        let table = self.indexes.api_keys.clone()?;
        Some(IssuedKeys::new(table, Arc::clone(&self.by_name)))
    }

    /// Their keys for signed requests of the older form.
    pub(crate) const fn hmac_keys(&self) -> &Arc<SignatureKeys> {
        &self.indexes.hmac_keys
    }

    /// Their keys for message signatures.
    pub(crate) const fn signature_keys(&self) -> &Arc<SignatureKeys> {
        &self.indexes.signature_keys
    }

    /// Their certificates.
    pub(crate) const fn certificates(&self) -> &Arc<CertificateOwners> {
        &self.indexes.certificates
    }

    /// Their user names.
    pub(crate) const fn users(&self) -> &Arc<Users> {
        &self.indexes.users
    }

    /// How many passwords are stored in a form that is cheaper to guess than a new one would be.
    pub fn weak_passwords(&self) -> usize {
        self.indexes.users.weak()
    }

    /// Their keys for tokens they sign themselves.
    pub(crate) const fn jwt_keys(&self) -> &Arc<ClientKeys> {
        &self.indexes.jwt_keys
    }
}

/// Whom a credential of a client leads to: the client itself. Its name is the only part of the key that can hold
/// a `:`, and it comes last, so no two clients share a key. `key_id` is what the credential itself is called.
pub(crate) fn identity_of(
    client: &Arc<Client>,
    method: AuthMethod,
    key_id: Option<Arc<str>>,
) -> Arc<Identity> {
    Arc::new(Identity {
        method,
        key: format!("client:{}", client.name).into(),
        subject: client.name.clone(),
        issuer: None,
        client: Some(client.clone()),
        key_id,
        claims: Arc::default(),
        scopes: Arc::default(),
        certificate: None,
        expires_at: client.expires_at.map(|end| end.saturating_sub(1)),
    })
}
