//! What operators tell a running gateway over the admin API: kept in the store, put in force again by every start. Gateways
//! that share a store are told together: what one of them is told is in force at the others a moment later.

mod api_key_error;
mod api_key_record;
mod api_keys;
mod clients;
mod followed_keys;
mod kept;
mod revocations;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_authn::RevokedTokens;
use portcullis_core::Moment;
use portcullis_store::{Follower, SharedRecords, Store, StoreError};

pub use api_key_error::ApiKeyError;
pub use api_key_record::{ApiKeyChange, ApiKeyView, KeyState, NewApiKey};
pub(crate) use api_keys::KeyRing;
pub use api_keys::ManagedApiKeys;
pub(crate) use clients::{ClientRows, ManagedClients};
pub(crate) use revocations::PushedRevocations;
pub use revocations::RevokeError;

/// Under which subject the store keeps what was told of revoked tokens.
const REVOKED_TOKENS: &str = "revoked_tokens";
/// Under which subject it keeps clients.
const CLIENTS: &str = "clients";
/// Under which subject it keeps API keys.
const API_KEYS: &str = "api_keys";

/// Everything that is managed while the gateway runs. Clones are the same.
#[derive(Clone)]
pub(crate) struct Managed {
    pub(crate) revocations: Arc<PushedRevocations>,
    /// `None` if no pepper is set.
    pub(crate) api_keys: Option<Arc<ManagedApiKeys>>,
    pub(crate) clients: Arc<ManagedClients>,
    /// Where other gateways are told the same.
    shared: Option<SharedRecords>,
    /// Whether everything is known that they were told.
    is_heard: Arc<AtomicBool>,
    /// Whether there may be others.
    others_are_told: bool,
}

/// Why what was told before cannot be put in force again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store cannot be read.
    #[error("what operators told before cannot be read: {0}")]
    Store(StoreError),
    /// An entry is not to be understood.
    #[error("the store holds a revocation of tokens of issuer `{issuer}` that cannot be read: {why}")]
    Revocation {
        /// Whose tokens.
        issuer: String,
        /// What is wrong with it.
        why: String,
    },
    /// Tokens that were revoked would count again.
    #[error(
        "{count} revocations of tokens of issuer `{issuer}` would be lost: no issuer of this name has `revoked: {{ push: \
         true }}`; give it that, and take the revocations back before it goes: DELETE /v1/issuers/{issuer}/revoked-tokens"
    )]
    Orphaned {
        /// Whose tokens.
        issuer: String,
        /// How many entries.
        count: usize,
    },
    /// An issuer takes revocations now, and none did when the gateway began to hear what others are told.
    #[error(
        "`revoked: {{ push: true }}` cannot be written for the first time while a gateway runs that shares its store"
    )]
    NeedsRestart,
    /// A key that was made.
    #[error("the store holds a key of client `{client}` that cannot be read: {why}")]
    ApiKey {
        /// Whose key.
        client: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Managed {
    /// Puts in force what was told before. `durable` says whether the store has a file.
    pub(crate) fn restore(
        store: &Store,
        durable: bool,
        clients: ManagedClients,
        lists: &[Arc<RevokedTokens>],
        ring: Option<KeyRing>,
        now: Moment,
    ) -> Result<Self, RestoreError> {
        // A gateway that takes none has nothing to hear of the others, and starts without their server.
        let takes_any = lists.iter().any(|list| list.push_place().is_some());
        let told = if takes_any { store.records(REVOKED_TOKENS) } else { store.own_records(REVOKED_TOKENS) };
        let mut shared = told.shared().cloned();
        if clients.is_shared() {
            shared = store.records(CLIENTS).shared().cloned();
        }
        let revocations = PushedRevocations::restore(told, lists, now)?;
        let api_keys = ring.map(|ring| {
            let made = store.records(API_KEYS);
            shared = made.shared().cloned().or(shared.take());
            ManagedApiKeys::restore(made, durable, ring)
        });
        let api_keys = api_keys.transpose()?;
        let managed = Self {
            revocations: Arc::new(revocations),
            api_keys: api_keys.map(Arc::new),
            clients: Arc::new(clients),
            shared,
            is_heard: Arc::new(AtomicBool::new(true)),
            others_are_told: store.shared().is_some(),
        };
        if durable {
            managed.tell(store.is_new(), lists);
        }
        Ok(managed)
    }

    /// SECURITY: a volume that was not mounted looks like a first start, and then what was revoked opens doors again.
    fn tell(&self, is_new: bool, lists: &[Arc<RevokedTokens>]) {
        let (revocations, keys) =
            (self.revocations.count(), self.api_keys.as_ref().map_or(0, |keys| keys.count()));
        if !is_new {
            tracing::info!(revocations, api_keys = keys, "the store was opened");
        } else if lists.iter().any(|list| list.push_place().is_some()) {
            tracing::warn!(
                "a new store was made; if this is not the first start, tokens revoked before count again"
            );
        } else {
            tracing::info!("a new store was made");
        }
    }

    /// Puts what was told in force under another configuration, which `publish` puts in force; nothing is told meanwhile.
    ///
    /// # Errors
    /// That configuration would lose what was told, or needs what only a start can give. Then nothing has changed.
    pub(crate) fn adopt(
        &self,
        lists: &[Arc<RevokedTokens>],
        ring: Option<KeyRing>,
        now: Moment,
        publish: impl FnOnce(),
    ) -> Result<(), RestoreError> {
        let takes_any = lists.iter().any(|list| list.push_place().is_some());
        if takes_any && self.others_are_told && !self.revocations.is_shared() {
            return Err(RestoreError::NeedsRestart);
        }
        self.revocations.adopt(lists, now, || match (&self.api_keys, ring) {
            (Some(keys), Some(ring)) => keys.adopt(ring, publish),
            _ => publish(),
        })
    }

    /// Puts in force what other gateways are told, for as long as the gateway runs.
    pub(crate) fn follow(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (shared, is_heard) = (self.shared.clone()?, Arc::clone(&self.is_heard));
        let mut followers: Vec<Arc<dyn Follower>> = vec![];
        if self.revocations.is_shared() {
            followers.push(Arc::clone(&self.revocations) as _);
        }
        if self.clients.is_shared() {
            followers.push(Arc::clone(&self.clients) as _);
        }
        followers.extend(self.api_keys.iter().map(|keys| Arc::clone(keys) as _));
        Some(async move { shared.follow(&followers, |heard| is_heard.store(heard, Ordering::Relaxed)).await })
    }

    /// Whether everything is known that other gateways were told; `None` where there are none.
    pub(crate) fn is_heard(&self) -> Option<bool> {
        self.shared.as_ref().map(|_| self.is_heard.load(Ordering::Relaxed))
    }

    /// Removes what is over, and writes what is owed to the disk. To be called every few seconds, never by a worker.
    pub(crate) fn tidy(&self, now: Moment) {
        self.revocations.tidy(now);
        self.clients.tidy();
        if let Some(keys) = &self.api_keys {
            keys.tidy(now);
        }
    }

    /// The clients that were registered. Where somebody may register some, those of all gateways that share the store.
    pub(crate) fn registered(store: &Store, by_anybody: bool) -> Result<ManagedClients, RestoreError> {
        let records = if by_anybody { store.records(CLIENTS) } else { store.own_records(CLIENTS) };
        ManagedClients::restore(records).map_err(RestoreError::Store)
    }

    /// Writes what is to outlive the gateway and is not on disk yet.
    pub(crate) fn finish(&self, now: Moment) {
        self.revocations.tidy(now);
        if let Some(keys) = &self.api_keys {
            keys.finish();
        }
    }
}
