//! What operators tell a running gateway over the admin API: kept in the store, put in force again by every start.

mod api_key_record;
mod api_keys;
mod revocations;

use std::sync::Arc;

use portcullis_authn::RevokedTokens;
use portcullis_store::Store;

pub use api_key_record::{ApiKeyChange, ApiKeyView, NewApiKey};
pub(crate) use api_keys::KeyRing;
pub use api_keys::{ApiKeyError, ManagedApiKeys};
pub(crate) use revocations::PushedRevocations;
pub use revocations::RevokeError;

/// Under which subject the store keeps what was told of revoked tokens.
const REVOKED_TOKENS: &str = "revoked_tokens";
/// Under which subject it keeps API keys.
const API_KEYS: &str = "api_keys";

/// Everything that is managed while the gateway runs.
pub(crate) struct Managed {
    pub(crate) revocations: PushedRevocations,
    /// `None` if no pepper is set.
    pub(crate) api_keys: Option<Arc<ManagedApiKeys>>,
}

/// Why what was told before cannot be put in force again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What was revoked.
    #[error("the revoked tokens the store holds: {0}")]
    Revocations(#[from] RevokeError),
    /// Keys that were made.
    #[error("the API keys the store holds: {0}")]
    ApiKeys(#[from] ApiKeyError),
}

impl Managed {
    /// Puts in force what was told before. `durable` says whether the store has a file.
    pub(crate) fn restore(
        store: &Store,
        durable: bool,
        lists: &[Arc<RevokedTokens>],
        ring: Option<KeyRing>,
    ) -> Result<Self, RestoreError> {
        let revocations = PushedRevocations::restore(store.records(REVOKED_TOKENS), lists)?;
        let records = store.records(API_KEYS);
        let api_keys = ring.map(|ring| ManagedApiKeys::restore(records, durable, ring)).transpose()?;
        Ok(Self { revocations, api_keys: api_keys.map(Arc::new) })
    }
}
