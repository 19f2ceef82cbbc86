//! What a provider says about itself: where its keys are, and where tokens are introspected (RFC 8414, OpenID
//! Connect Discovery).
//!
//! A document is read by whoever needs it in the background, and kept for a while. SECURITY: it decides which keys
//! verify tokens, so it must come from the issuer's own host, name exactly the issuer that is configured, and lead
//! nowhere but to that host and those that are configured beside it (DSC-01, DSC-02, JKS-02).

mod document;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode};
use portcullis_core::json::JsonError;
use portcullis_core::{Clock, Fetch, FetchError, FetchRequest, FetchTrust};
use tokio::sync::Mutex;

pub use document::{Metadata, Reach};
pub(crate) use spec::DiscoverSpec;

/// The largest document, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long a document counts before it is read again.
const LIFE: Duration = Duration::from_mins(10);

/// For so long after a failure nobody tries again.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// Held while the document is read, so that it is read once for all who wait. Only the background waits here.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The last good document, and when it was read.
    metadata: Option<(Arc<Metadata>, Duration)>,
    failed: Option<(DiscoveryError, Duration)>,
}

impl Discovery {
    pub(crate) fn new(settings: DiscoverySettings, fetch: Arc<dyn Fetch>, clock: Clock) -> Self {
        Self { settings, fetch, clock, held: Mutex::default() }
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

    /// What the provider says, read anew if it is time. To be asked in the background.
    ///
    /// # Errors
    /// It could not be read, and what was read before is too old.
    pub(crate) async fn metadata(&self) -> Result<Arc<Metadata>, DiscoveryError> {
        let mut held = self.held.lock().await;
        let now = self.clock.now().monotonic;
        let age = |read: &Duration| now.saturating_sub(*read);
        if let Some((metadata, read)) = &held.metadata
            && age(read) < LIFE
        {
            return Ok(metadata.clone());
        }
        let usable = held.metadata.clone().filter(|(_, read)| age(read) < LIFE + self.settings.serve_stale);
        let usable = usable.map(|(metadata, _)| metadata);
        if let Some((error, failed)) = &held.failed
            && age(failed) < PAUSE
        {
            return usable.ok_or_else(|| error.clone());
        }
        match self.read().await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                let now = self.clock.now().monotonic;
                *held = Held { metadata: Some((metadata.clone(), now)), failed: None };
                Ok(metadata)
            }
            Err(error) => {
                tracing::warn!(issuer = %self.settings.issuer, %error, "the provider could not be discovered");
                held.failed = Some((error.clone(), self.clock.now().monotonic));
                usable.ok_or(error)
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
                status if status.is_client_error() => missing = status,
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
