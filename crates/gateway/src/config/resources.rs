//! What outlives a snapshot: counters, memories, and whoever asks other servers.

use std::sync::Arc;

use portcullis_authn::{GuardLedger, Introspections, KeySources, NoRandomness, Nonces, PasswordChecks};
use portcullis_core::{Callers, Clock, Fetchers};
use portcullis_proxy::{GrpcCaller, HttpFetcher};
use portcullis_store::{OpenError, Replays, Store};

use crate::listener::{Online, TlsPolicyIds};
use crate::quota_alerts::QuotaAlerts;

/// What a snapshot uses and does not own: it outlives every reload.
pub(crate) struct Resources {
    /// Counters and quotas.
    pub(crate) store: Store,
    /// What may be used once and has been used.
    pub(crate) replays: Replays,
    /// Nonces for proofs of possession, under a key of this process.
    pub(crate) nonces: Nonces,
    /// Key sets of issuers.
    pub(crate) keys: KeySources,
    /// Providers that are asked about tokens.
    pub(crate) introspections: Introspections,
    /// Clients that ask other servers.
    pub(crate) fetchers: Fetchers,
    /// Clients of gRPC services.
    pub(crate) callers: Callers,
    /// Where passwords are checked.
    pub(crate) passwords: PasswordChecks,
    /// Who has failed to authenticate of late.
    pub(crate) failures: Arc<GuardLedger>,
    /// How listeners ask about certificates.
    pub(crate) online: Online,
    /// Stable numbers of TLS policies.
    pub(crate) tls_policies: TlsPolicyIds,
    /// Who is told that quotas are nearly used up.
    pub(crate) quota_alerts: QuotaAlerts,
    /// Time.
    pub(crate) clock: Clock,
}

/// Why there are no resources.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoResources {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl Resources {
    /// Resources for compiling only: counters that nobody will read, key sets that are never fetched.
    ///
    /// # Errors
    /// The system gives no thread, or no randomness.
    pub(crate) fn detached() -> Result<Self, NoResources> {
        let (fetchers, callers) = (fetchers(None), callers(None));
        Ok(Self {
            store: Store::in_memory()?,
            replays: Replays::new(Clock::System.now()),
            nonces: Nonces::new()?,
            keys: KeySources::offline(fetchers.clone(), Clock::System),
            online: Online { fetchers: fetchers.clone(), background: None },
            introspections: Introspections::new(Clock::System, None),
            fetchers,
            callers,
            passwords: PasswordChecks::default(),
            failures: Arc::default(),
            tls_policies: TlsPolicyIds::default(),
            quota_alerts: QuotaAlerts::default(),
            clock: Clock::System,
        })
    }

    /// Resources of a gateway that is rehearsed: living ones, with others in the place of the network.
    ///
    /// # Errors
    /// The system gives no thread, or no randomness.
    pub(crate) fn rehearsed(
        outside: (Fetchers, Callers),
        clock: Clock,
        background: tokio::runtime::Handle,
    ) -> Result<Self, NoResources> {
        let (fetchers, callers) = outside;
        let keys = KeySources::new(fetchers.clone(), clock.clone(), background.clone());
        let online = Online { fetchers: fetchers.clone(), background: Some(background.clone()) };
        let introspections = Introspections::new(clock.clone(), Some(background));
        Ok(Self {
            keys,
            online,
            introspections,
            fetchers,
            callers,
            replays: Replays::new(clock.now()),
            clock,
            ..Self::detached()?
        })
    }

    /// The same, with the servers the policies name.
    ///
    /// # Errors
    /// See [`NoResources`].
    pub(crate) fn rehearsed_for_real(
        clock: Clock,
        background: tokio::runtime::Handle,
    ) -> Result<Self, NoResources> {
        let outside = (fetchers(Some(background.clone())), callers(Some(background.clone())));
        Self::rehearsed(outside, clock, background)
    }

    /// Resources of a running gateway, fetching on the given runtime.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(crate) fn living(
        store: Store,
        clock: Clock,
        background: tokio::runtime::Handle,
    ) -> Result<Self, NoRandomness> {
        let (fetchers, callers) = (fetchers(Some(background.clone())), callers(Some(background.clone())));
        let replays = Replays::new(clock.now());
        store.shared().into_iter().for_each(|shared| replays.share(shared));
        Ok(Self {
            store,
            replays,
            nonces: Nonces::new()?,
            keys: KeySources::new(fetchers.clone(), clock.clone(), background.clone()),
            online: Online { fetchers: fetchers.clone(), background: Some(background.clone()) },
            introspections: Introspections::new(clock.clone(), Some(background)),
            fetchers,
            callers,
            passwords: PasswordChecks::default(),
            failures: Arc::default(),
            tls_policies: TlsPolicyIds::default(),
            quota_alerts: QuotaAlerts::default(),
            clock,
        })
    }
}

/// Whatever is fetched is fetched by the same client, on the background runtime; on none where nothing may be asked.
fn fetchers(background: Option<tokio::runtime::Handle>) -> Fetchers {
    Fetchers::new(move |trust| {
        let fetcher = HttpFetcher::new(trust, background.clone()).map_err(|error| error.to_string())?;
        Ok(Arc::new(fetcher))
    })
}

/// So is whatever is called over gRPC.
fn callers(background: Option<tokio::runtime::Handle>) -> Callers {
    Callers::new(move |url, trust| Ok(Arc::new(GrpcCaller::new(url, trust, background.as_ref())?)))
}
