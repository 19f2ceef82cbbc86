//! What a provider says about itself: where its keys are, and where tokens are introspected (RFC 8414, OpenID
//! Connect Discovery).
//!
//! A document is read in the background when it is first needed, kept for a while, and read again behind those who use it. SECURITY: it decides which keys
//! verify tokens, so it must come from the issuer's own host, name exactly the issuer that is configured, and lead
//! nowhere but to that host and those that are configured beside it (DSC-01, DSC-02, JKS-02).

mod document;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{ACCEPT, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode};
use portcullis_core::json::JsonError;
use portcullis_core::{Clock, Fetch, FetchError, FetchRequest, FetchTrust};
use tokio::runtime::Handle;

pub use document::{Metadata, Reach};
pub(crate) use spec::DiscoverSpec;

use crate::keys::lock;

/// The largest document, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long a document counts before it is read again.
const LIFE: Duration = Duration::from_mins(10);

/// For so long after a failure nobody tries again; after each further one in a row, twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause. Short, because the provider may be back any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Why nothing is known about a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// It could not be fetched.
    #[error("the provider's metadata could not be fetched: {0}")]
    Fetch(#[from] FetchError),
    /// It was answered with another status than 200.
    #[error("the provider's metadata was answered {0}")]
    Status(u16),
    /// It is not one strict JSON object.
    #[error("the provider's metadata is not acceptable JSON: {0}")]
    Json(#[from] JsonError),
    /// It names another issuer than the configured one, or none.
    #[error("the provider's metadata is of another issuer")]
    OtherIssuer,
    /// It does not say where this is.
    #[error("the provider's metadata has no `{0}`")]
    Missing(&'static str),
    /// It leads where it may not, and why that is so.
    #[error("`{0}` of the provider's metadata may not be asked: {1}")]
    Refused(&'static str, &'static str),
}

/// What defines a provider: the same settings lead to the same object, also after a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiscoverySettings {
    /// The issuer, as configured.
    pub(crate) issuer: Arc<str>,
    /// Where its document may be, in the order they are tried.
    pub(crate) documents: Vec<String>,
    /// Hosts beside the issuer's own that it may lead to; without a port, to that of https alone.
    pub(crate) hosts: Vec<Authority>,
    pub(crate) trust: FetchTrust,
    /// How long a document still counts that could not be read again.
    pub(crate) serve_stale: Duration,
}

impl DiscoverySettings {
    fn reach(&self) -> Reach<'_> {
        Reach { issuer: &self.issuer, hosts: &self.hosts, loopback_http: self.trust.loopback_http }
    }
}

/// One provider.
pub(crate) struct Discovery {
    settings: DiscoverySettings,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    background: Option<Handle>,
    held: Mutex<Held>,
    /// Held while the document is read, so that it is read once for all who wait.
    reading: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Held {
    /// The last good document, and when it was read.
    metadata: Option<(Arc<Metadata>, Duration)>,
    failed: Option<Failure>,
}

/// The document could not be read, so many times in a row.
struct Failure {
    error: DiscoveryError,
    times: u32,
    /// Nobody tries again before this time.
    until: Duration,
}

/// What a look at what is held gives.
enum Looked {
    /// It need not be read.
    Fresh(Arc<Metadata>),
    /// It still counts, and should be read again if it has not just failed to be.
    Stale(Arc<Metadata>, bool),
    /// Nothing counts, and it was tried a moment ago.
    Failed(DiscoveryError),
    Nothing,
}

impl Held {
    fn look(&self, now: Duration, serve_stale: Duration) -> Looked {
        let failure = self.failed.as_ref().filter(|failure| now < failure.until);
        match (&self.metadata, failure) {
            (Some((metadata, read)), _) if now.saturating_sub(*read) < LIFE => {
                Looked::Fresh(metadata.clone())
            }
            (Some((metadata, read)), failure) if now.saturating_sub(*read) < LIFE + serve_stale => {
                Looked::Stale(metadata.clone(), failure.is_none())
            }
            (_, Some(failure)) => Looked::Failed(failure.error.clone()),
            (_, None) => Looked::Nothing,
        }
    }
}

impl Discovery {
    /// A provider whose document is read again on the given runtime.
    pub(crate) fn new(
        settings: DiscoverySettings,
        fetch: Arc<dyn Fetch>,
        clock: Clock,
        background: Option<Handle>,
    ) -> Self {
        Self { settings, fetch, clock, background, held: Mutex::default(), reading: Arc::default() }
    }

    pub(crate) const fn settings(&self) -> &DiscoverySettings {
        &self.settings
    }

    pub(crate) const fn issuer(&self) -> &Arc<str> {
        &self.settings.issuer
    }

    pub(crate) const fn trust(&self) -> &FetchTrust {
        &self.settings.trust
    }

    /// What the provider says. What still counts is given at once, and read again behind it if it is time; only where
    /// there is nothing is the reading waited for. To be asked in the background.
    ///
    /// # Errors
    /// It could not be read, and what was read before is too old.
    pub(crate) async fn metadata(self: &Arc<Self>) -> Result<Arc<Metadata>, DiscoveryError> {
        match self.look() {
            Looked::Fresh(metadata) => return Ok(metadata),
            Looked::Stale(metadata, due) => {
                if due {
                    self.renew();
                }
                return Ok(metadata);
            }
            Looked::Failed(error) => return Err(error),
            Looked::Nothing => {}
        }
        let _alone = self.reading.lock().await;
        // Whoever was reading before may have found it, or found that it cannot be read.
        match self.look() {
            Looked::Fresh(metadata) | Looked::Stale(metadata, _) => Ok(metadata),
            Looked::Failed(error) => Err(error),
            Looked::Nothing => self.read_anew().await,
        }
    }

    fn look(&self) -> Looked {
        lock(&self.held).look(self.clock.now().monotonic, self.settings.serve_stale)
    }

    /// Reads the document again in the background, if nobody is doing so.
    fn renew(self: &Arc<Self>) {
        let Some(background) = &self.background else { return };
        let Ok(alone) = self.reading.clone().try_lock_owned() else { return };
        let provider = self.clone();
        background.spawn(async move {
            // What it says is held for whoever asks next, and what went wrong is written down.
            let _ = provider.read_anew().await;
            drop(alone);
        });
    }

    /// Reads the document and writes down what came of it.
    async fn read_anew(&self) -> Result<Arc<Metadata>, DiscoveryError> {
        let read = self.read().await;
        let now = self.clock.now().monotonic;
        let mut held = lock(&self.held);
        match read {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                *held = Held { metadata: Some((metadata.clone(), now)), failed: None };
                Ok(metadata)
            }
            Err(error) => {
                tracing::warn!(issuer = %self.settings.issuer, %error, "the provider could not be discovered");
                let times = held.failed.as_ref().map_or(0, |failure| failure.times);
                let pause =
                    PAUSE.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
                held.failed = Some(Failure {
                    error: error.clone(),
                    times: times.saturating_add(1),
                    until: now.saturating_add(pause),
                });
                Err(error)
            }
        }
    }

    /// Reads the first document that is there. SECURITY: one that is there and is not acceptable ends the search:
    /// another place is another document, never a second opinion.
    async fn read(&self) -> Result<Metadata, DiscoveryError> {
        let mut missing = StatusCode::NOT_FOUND;
        for url in &self.settings.documents {
            let mut request = FetchRequest::new(Method::GET, url.as_str());
            request.max_bytes = MAX_BYTES;
            request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
            let response = self.fetch.fetch(request).await?;
            match response.status {
                StatusCode::OK => {
                    return Metadata::read(&response.body, self.settings.reach());
                }
                status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => missing = status,
                status => return Err(DiscoveryError::Status(status.as_u16())),
            }
        }
        Err(DiscoveryError::Status(missing.as_u16()))
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Discovery({})", self.settings.issuer)
    }
}
