//! Registered callers declared in files.

mod compile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::{AuthMethod, Client, Identity};

pub use compile::ClientsSpec;

use crate::api_key::{ApiKeys, KeyOwner};

/// All declared clients, and what leads to them.
#[derive(Debug, Default)]
pub struct Clients {
    by_name: BTreeMap<Arc<str>, Arc<Client>>,
    keys: Option<Arc<ApiKeys>>,
}

impl Clients {
    /// The client of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Client>> {
        self.by_name.get(name)
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
    pub(crate) const fn keys(&self) -> Option<&Arc<ApiKeys>> {
        self.keys.as_ref()
    }
}

/// Whom the API keys of a client lead to: the client itself. Its name is the only part of the key that can hold
/// a `:`, and it comes last, so no two clients share a key.
pub(crate) fn key_owner(client: &Arc<Client>) -> KeyOwner {
    KeyOwner {
        expires_at: client.expires_at,
        identity: Arc::new(Identity {
            method: AuthMethod::ApiKey,
            key: format!("client:{}", client.name).into(),
            subject: client.name.clone(),
            issuer: None,
            client: Some(client.clone()),
            claims: Arc::default(),
            scopes: Arc::default(),
            certificate: None,
            expires_at: client.expires_at.map(|end| end.saturating_sub(1)),
        }),
    }
}
