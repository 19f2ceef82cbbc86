//! Key sets of issuers, fetched in the background.
//!
//! One source per URL and trust. A source is looked after by one task of the background runtime, which does all
//! its fetching: there is never more than one fetch in flight, and a request that goes away takes no fetch with
//! it. Requests only look, and where looking is not enough they wait a bounded time for the fetch that is under
//! way (JKS-01 to JKS-11).

mod absent;
mod by_certificate;
mod flight;
mod lifetime;
mod refresh;
mod source;
mod status;
mod template;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use portcullis_core::{Clock, FetchTrust, Fetchers};
use tokio::runtime::Handle;

pub(crate) use by_certificate::CertificateKeys;
pub(crate) use source::{KeySource, KeysUnavailable, lock};
pub use status::{KeySourceStatus, RefreshCount, RefreshReason, RefreshResult};
pub(crate) use template::{NoUrl, UrlTemplate};

use source::{Source, Whence};

use crate::discovery::{Discovery, DiscoverySettings};

/// How one issuer entry wants its keys kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySettings {
    /// The issuer entry, for the status.
    pub(crate) issuer: Arc<str>,
    /// The longest time until the server is asked again; its `Cache-Control` may say less.
    pub(crate) refresh: Duration,
    /// How long after that a set still counts that could not be refreshed.
    pub(crate) serve_stale: Duration,
    /// Whose keys they are.
    pub(crate) of: KeysOf,
}

/// Whose keys a set holds, and thus who looks at how it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeysOf {
    /// An issuer's: without them the gateway is not ready.
    Issuer,
    /// A registered client's: one caller's matter, and the operator may want to know.
    Client,
    /// Those found by a caller's certificate: one caller's matter, and they come and go by the thousand.
    Certificate,
}

/// All key sources of the process. They outlive a reload: what is defined by the same URL and trust is found
/// again with its keys. Cloning shares them.
#[derive(Clone)]
pub struct KeySources(Arc<Sources>);

struct Sources {
    fetchers: Fetchers,
    clock: Clock,
    background: Option<Handle>,
    living: Mutex<Vec<Weak<Source>>>,
    discoveries: Mutex<Vec<Weak<Discovery>>>,
    entries: Mutex<HashMap<[u8; 32], EntryId>>,
}

/// One issuer entry, for the caches of the workers: the same number for the same settings and keys, also after a
/// reload, and never the same for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EntryId(u64);

impl KeySources {
    /// Sources that fetch on the given runtime, through these clients.
    pub fn new(fetchers: Fetchers, clock: Clock, background: Handle) -> Self {
        Self::with(fetchers, clock, Some(background))
    }

    /// Sources that never fetch, for checking policies: every key set is unavailable.
    pub fn offline(fetchers: Fetchers, clock: Clock) -> Self {
        Self::with(fetchers, clock, None)
    }

    fn with(fetchers: Fetchers, clock: Clock, background: Option<Handle>) -> Self {
        Self(Arc::new(Sources {
            fetchers,
            clock,
            background,
            living: Mutex::default(),
            discoveries: Mutex::default(),
            entries: Mutex::default(),
        }))
    }

    /// Starts fetching for every source that has not started. Called once policies are in force: compiling alone
    /// asks nobody, so checking a policy cannot be made to send requests.
    pub fn warm(&self) {
        for source in self.living() {
            source.start();
        }
    }

    /// How many key sets are kept for callers' certificates.
    pub fn per_certificate(&self) -> usize {
        self.living().iter().filter(|source| source.is_per_certificate()).count()
    }

    /// How every source in use is doing, for readiness, metrics and the admin API (JKS-11). Without those that were found
    /// by a caller's certificate.
    pub fn status(&self) -> Vec<KeySourceStatus> {
        let now = self.0.clock.now();
        self.living().iter().filter_map(|source| source.status(now)).collect()
    }

    /// Fetches the keys of an issuer entry now, and waits for it, within bounds: how they are doing then. Nothing for an
    /// entry whose keys are not fetched.
    pub async fn refresh(&self, issuer: &str) -> Vec<KeySourceStatus> {
        let is_its = |status: &KeySourceStatus| status.issuers.iter().any(|of| **of == *issuer);
        let now = self.0.clock.now();
        let mut refreshed = Vec::new();
        for source in self.living() {
            if source.status(now).is_some_and(|status| is_its(&status)) {
                // What came of it is in the status.
                let _ = source.refresh().await;
                refreshed.extend(source.status(self.0.clock.now()));
            }
        }
        refreshed
    }

    /// The clients everything is fetched with.
    pub(crate) fn fetchers(&self) -> &Fetchers {
        &self.0.fetchers
    }

    /// The provider of these settings, living or new.
    ///
    /// # Errors
    /// What is wrong with the trust.
    pub(crate) fn discovery(&self, settings: DiscoverySettings) -> Result<Arc<Discovery>, String> {
        let mut living = lock(&self.0.discoveries);
        living.retain(|discovery| discovery.strong_count() > 0);
        let mut known = living.iter().filter_map(Weak::upgrade);
        if let Some(discovery) = known.find(|discovery| *discovery.settings() == settings) {
            return Ok(discovery);
        }
        let fetch = self.0.fetchers.get(&settings.trust)?;
        let background = self.0.background.clone();
        let discovery = Arc::new(Discovery::new(settings, fetch, self.0.clock.clone(), background));
        living.push(Arc::downgrade(&discovery));
        Ok(discovery)
    }

    /// The source of a URL, living or new.
    ///
    /// # Errors
    /// What is wrong with the trust.
    pub(crate) fn source(
        &self,
        url: &str,
        trust: FetchTrust,
        settings: KeySettings,
    ) -> Result<KeySource, String> {
        self.source_from(Whence::Url(url.into()), trust, settings)
    }

    /// The source of the keys a provider names, living or new.
    ///
    /// # Errors
    /// What is wrong with the trust.
    pub(crate) fn discovered(
        &self,
        discovery: &Arc<Discovery>,
        settings: KeySettings,
    ) -> Result<KeySource, String> {
        let trust = discovery.trust().clone();
        self.source_from(Whence::Discovered(discovery.clone()), trust, settings)
    }

    fn source_from(
        &self,
        whence: Whence,
        trust: FetchTrust,
        settings: KeySettings,
    ) -> Result<KeySource, String> {
        let mut living = lock(&self.0.living);
        living.retain(|source| source.strong_count() > 0);
        let known = living.iter().filter_map(Weak::upgrade).find(|source| source.is_for(&whence, &trust));
        let source = match known {
            Some(source) => source,
            None => {
                let fetch = self.0.fetchers.get(&trust)?;
                let source = Arc::new(Source::new(
                    whence,
                    trust,
                    fetch,
                    self.0.clock.clone(),
                    self.0.background.clone(),
                ));
                living.push(Arc::downgrade(&source));
                source
            }
        };
        Ok(KeySource::new(source, settings))
    }

    /// The number of the issuer entry that is described by this digest.
    pub(crate) fn entry_id(&self, description: [u8; 32]) -> EntryId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut entries = lock(&self.0.entries);
        *entries.entry(description).or_insert_with(|| EntryId(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn living(&self) -> Vec<Arc<Source>> {
        let living = lock(&self.0.living);
        living.iter().filter_map(Weak::upgrade).collect()
    }
}

impl std::fmt::Debug for KeySources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.living().iter().map(|source| source.shown())).finish()
    }
}
