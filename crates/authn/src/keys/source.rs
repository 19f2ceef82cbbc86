//! One source of keys, as requests see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use portcullis_core::{Clock, Fetch, FetchTrust, Moment};
use portcullis_jose::JwkSet;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::absent::AbsentKids;
use super::flight::{Asked, Flight};
use super::lifetime::life;
use super::refresh;
use super::status::{KeySourceStatus, Record};
use super::{KeySettings, KeysOf};
use crate::discovery::{Discovery, DiscoveryError};

/// How long a request waits for a fetch that may answer it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keys, and when the server last said that they are its keys.
#[derive(Debug)]
pub(crate) struct KeySet {
    /// The keys.
    pub(crate) keys: Arc<JwkSet>,
    /// Changes when the keys change, and is never used twice (JKS-09).
    pub(crate) generation: u64,
    /// Where they were found.
    pub(super) url: Arc<str>,
    /// SHA-256 of the document.
    pub(super) digest: [u8; 32],
    /// The `ETag` of the document.
    pub(super) etag: Option<String>,
    /// The life the server offered.
    pub(super) offered: Option<Duration>,
    /// Monotonic.
    pub(super) confirmed_at: Duration,
}

/// A generation no set had before.
pub(super) fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// There are no keys to check anything with, so nothing can be said about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's keys could not be fetched")]
pub(crate) struct KeysUnavailable;

/// One issuer's hold on a source. The source lives as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct KeySource {
    source: Arc<Source>,
    settings: Arc<KeySettings>,
}

impl KeySource {
    pub(super) fn new(source: Arc<Source>, settings: KeySettings) -> Self {
        let settings = Arc::new(settings);
        let mut users = lock(&source.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(&settings));
        drop(users);
        Self { source, settings }
    }

    /// The keys, if there are any that still count: those of the last good fetch, for their life and the time
    /// they may be served stale (JKS-07).
    pub(crate) fn current(&self, now: Moment) -> Option<Arc<KeySet>> {
        let set = self.source.current.load();
        set.as_ref().filter(|set| self.settings.counts(set, now)).cloned()
    }

    /// The generation of the keys, if there are any that still count. Takes no reference.
    pub(crate) fn generation(&self, now: Moment) -> Option<u64> {
        let set = self.source.current.load();
        set.as_ref().filter(|set| self.settings.counts(set, now)).map(|set| set.generation)
    }

    /// Waits for keys, as long as a request may.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn first(&self, now: Moment) -> Result<Arc<KeySet>, KeysUnavailable> {
        self.source.start();
        if let Some(set) = self.current(now) {
            return Ok(set);
        }
        let asked = lock(&self.source.flight).join();
        self.source.wait(asked).await;
        self.current(now).ok_or(KeysUnavailable)
    }

    /// The set without that key id has been `seen`: another one, if the server has another one (JKS-05).
    /// `None` means that the server was asked not long ago, and the key id is unknown.
    ///
    /// # Errors
    /// The server could not be asked, so it is not known whether it knows the key id.
    pub(crate) async fn without(
        &self,
        kid: &str,
        seen: u64,
        now: Moment,
    ) -> Result<Option<Arc<KeySet>>, KeysUnavailable> {
        if let Some(set) = self.current(now).filter(|set| set.generation != seen) {
            return Ok(Some(set));
        }
        if lock(&self.source.absent).contains(kid, now.monotonic) {
            return Ok(None);
        }
        let asked = self.source.ask(now);
        let waited = self.source.wait(asked).await;
        // Of a client's own set that still counts, one key name more or less is no news: who makes names up is told so, and
        // counted, whatever has become of the client's server.
        if asked == Asked::NotNow && self.settings.of == KeysOf::Client && self.current(now).is_some() {
            return Ok(None);
        }
        if !waited || lock(&self.source.flight).has_failed() {
            return Err(KeysUnavailable);
        }
        let set = self.current(now).ok_or(KeysUnavailable)?;
        let unknown = !set.keys.key_ids().any(|known| **known == *kid);
        if unknown && asked != Asked::NotNow {
            lock(&self.source.absent).remember(kid, now.monotonic);
        }
        Ok((set.generation != seen).then_some(set))
    }
}

impl KeySettings {
    fn counts(&self, set: &KeySet, now: Moment) -> bool {
        let life = life(set.offered, self.refresh).saturating_add(self.serve_stale);
        now.monotonic.saturating_sub(set.confirmed_at) <= life
    }
}

/// Where keys are.
#[derive(Clone, Debug)]
pub(super) enum Whence {
    /// At this URL.
    Url(Arc<str>),
    /// Where the provider says. It is read anew whenever it is old, so the keys follow it.
    Discovered(Arc<Discovery>),
}

impl Whence {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Url(own), Self::Url(other)) => own == other,
            // There is one object for each provider and settings.
            (Self::Discovered(own), Self::Discovered(other)) => Arc::ptr_eq(own, other),
            (Self::Url(_), Self::Discovered(_)) | (Self::Discovered(_), Self::Url(_)) => false,
        }
    }
}

/// One URL, or one provider, under one trust.
pub(super) struct Source {
    whence: Whence,
    trust: FetchTrust,
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) clock: Clock,
    background: Option<Handle>,
    started: AtomicBool,
    pub(super) current: ArcSwapOption<KeySet>,
    pub(super) flight: Mutex<Flight>,
    pub(super) finished: watch::Sender<u64>,
    pub(super) wake: Arc<Notify>,
    pub(super) absent: Mutex<AbsentKids>,
    pub(super) record: Mutex<Record>,
    users: Mutex<Vec<Weak<KeySettings>>>,
}

impl Source {
    pub(super) fn new(
        whence: Whence,
        trust: FetchTrust,
        fetch: Arc<dyn Fetch>,
        clock: Clock,
        background: Option<Handle>,
    ) -> Self {
        let now = clock.now().monotonic;
        Self {
            whence,
            trust,
            fetch,
            clock,
            background,
            started: AtomicBool::new(false),
            current: ArcSwapOption::empty(),
            flight: Mutex::new(Flight::new(now)),
            finished: watch::Sender::new(0),
            wake: Arc::new(Notify::new()),
            absent: Mutex::default(),
            record: Mutex::default(),
            users: Mutex::default(),
        }
    }

    pub(super) fn is_for(&self, whence: &Whence, trust: &FetchTrust) -> bool {
        self.whence.is(whence) && self.trust == *trust
    }

    pub(super) fn is_per_certificate(&self) -> bool {
        lock(&self.users).iter().filter_map(Weak::upgrade).any(|user| user.of == KeysOf::Certificate)
    }

    /// Where the keys are now.
    ///
    /// # Errors
    /// The provider does not say.
    pub(super) async fn url(&self) -> Result<Arc<str>, DiscoveryError> {
        match &self.whence {
            Whence::Url(url) => Ok(url.clone()),
            Whence::Discovered(discovery) => discovery.metadata().await?.jwks_uri(),
        }
    }

    /// What it is called: its URL, or its provider.
    pub(super) fn shown(&self) -> Arc<str> {
        match &self.whence {
            Whence::Url(url) => url.clone(),
            Whence::Discovered(discovery) => discovery.issuer().clone(),
        }
    }

    /// Starts the task that looks after the source, if it is not running.
    pub(super) fn start(self: &Arc<Self>) {
        let Some(background) = &self.background else { return };
        if !self.started.swap(true, Ordering::Relaxed) {
            background.spawn(refresh::look_after(
                Arc::downgrade(self),
                self.wake.clone(),
                background.clone(),
            ));
        }
    }

    /// The shortest `refresh` of those who use it; `None` if nobody does any more.
    pub(super) fn shortest_refresh(&self) -> Option<Duration> {
        lock(&self.users).iter().filter_map(Weak::upgrade).map(|user| user.refresh).min()
    }

    pub(super) fn status(&self, now: Moment) -> Option<KeySourceStatus> {
        let users = lock(&self.users).iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let names = |of: KeysOf| {
            let names = users.iter().filter(|user| user.of == of).map(|user| user.issuer.clone());
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let (issuers, clients) = (names(KeysOf::Issuer), names(KeysOf::Client));
        if issuers.is_empty() && clients.is_empty() {
            return None;
        }
        let set = self.current.load_full();
        // What a client asks for beside it makes no issuer unusable.
        let deciding = if issuers.is_empty() { KeysOf::Client } else { KeysOf::Issuer };
        let mut deciding = users.iter().filter(|user| user.of == deciding);
        let usable = set.as_ref().is_some_and(|set| deciding.all(|user| user.counts(set, now)));
        let record = lock(&self.record);
        Some(KeySourceStatus {
            url: self.shown(),
            issuers,
            clients,
            keys: set.as_ref().map_or(0, |set| set.keys.len()),
            skipped: set.as_ref().map_or(0, |set| set.keys.skipped().len()),
            usable,
            age: set.as_ref().map(|set| now.monotonic.saturating_sub(set.confirmed_at)),
            last_error: record.last_error.clone(),
            refreshes: record.counts(),
            cool_downs: record.cool_downs,
        })
    }

    fn ask(&self, now: Moment) -> Asked {
        if self.background.is_none() {
            return Asked::NotNow;
        }
        let asked = lock(&self.flight).ask(now.monotonic);
        match asked {
            Asked::WaitFor(_) => self.wake.notify_one(),
            Asked::NotNow => lock(&self.record).cool_downs += 1,
        }
        asked
    }

    /// Fetches because an operator wants it, and waits for it, within bounds. Whether it came to an end.
    pub(super) async fn refresh(&self) -> bool {
        let wanted = lock(&self.flight).demand();
        self.wake.notify_one();
        self.wait(Asked::WaitFor(wanted)).await
    }

    /// Waits for what was asked, within bounds; whether it came to an end. SECURITY: the fetch belongs to the
    /// background task. A caller that hangs up leaves it running for the others.
    async fn wait(&self, asked: Asked) -> bool {
        let Asked::WaitFor(wanted) = asked else { return true };
        if self.background.is_none() {
            return false;
        }
        let mut finished = self.finished.subscribe();
        matches!(tokio::time::timeout(PATIENCE, finished.wait_for(|done| *done >= wanted)).await, Ok(Ok(_)))
    }
}

impl Drop for Source {
    /// Ends the task that looks after it.
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.shown())
    }
}

/// What these locks guard is whole at every moment, so a panic elsewhere poisons nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
