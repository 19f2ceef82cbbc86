//! The task that looks after one source.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Method;
use http::header::{ACCEPT, HeaderValue, IF_NONE_MATCH};
use portcullis_core::{FetchError, FetchRequest, FetchResponse};
use portcullis_jose::digest::sha256;
use portcullis_jose::{JwkSet, JwkSetError, JwkSource};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::flight::COOL_DOWN;
use super::lifetime::{life, offered, refresh_after, retry_after};
use super::source::{KeySet, Source, lock, next_generation};
use super::status::{RefreshReason, RefreshResult};
use crate::discovery::DiscoveryError;

/// The largest key set, in bytes (JKS-01).
const MAX_BYTES: usize = 512 * 1024;
/// Time to connect (JKS-01).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the whole fetch (JKS-01).
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a fetch gave no set.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("the answer is no key set: {0}")]
    Garbage(#[from] JwkSetError),
    #[error("the key set has no usable key ({0} left out)")]
    Empty(usize),
    #[error("the fetch broke off")]
    Lost,
}

/// Fetches whenever it is due or wanted, until nobody holds the source any more.
pub(super) async fn look_after(source: Weak<Source>, wake: Arc<Notify>, background: Handle) {
    loop {
        let due_in = match source.upgrade() {
            Some(source) => lock(&source.flight).due_in(source.clock.now().monotonic),
            None => return,
        };
        if !due_in.is_zero() {
            // Woken early or not, what is due is asked again.
            let _ = tokio::time::timeout(due_in, wake.notified()).await;
            continue;
        }
        let Some(source) = source.upgrade() else { return };
        let reason = lock(&source.flight).start();
        // A task of its own, so that a panic in a fetch ends the fetch and not the care for the source.
        let fetched = background.spawn(fetch(source.clone())).await;
        record(&source, reason, fetched.unwrap_or(Err(RefreshError::Lost)));
    }
}

/// One fetch. A good answer replaces the set, it is never merged: a key the server no longer names stops
/// verifying at once (JKS-08).
async fn fetch(source: Arc<Source>) -> Result<RefreshResult, RefreshError> {
    let url = source.url().await?;
    let held = source.current.load_full();
    // SECURITY: what another place has called its set says nothing of the set of this one: its validators are not sent
    // there, and nothing there confirms them.
    let here = held.as_deref().filter(|held| held.url == url);
    let mut request = FetchRequest {
        max_bytes: MAX_BYTES,
        connect_timeout: CONNECT_TIMEOUT,
        total_timeout: TOTAL_TIMEOUT,
        ..FetchRequest::new(Method::GET, &*url)
    };
    request.headers.insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
    let etag = here.and_then(|set| HeaderValue::from_str(set.etag.as_deref()?).ok());
    if let Some(etag) = etag {
        request.headers.insert(IF_NONE_MATCH, etag);
    }
    // The fetcher has its own limits; this one holds whatever it does.
    let response = tokio::time::timeout(TOTAL_TIMEOUT + CONNECT_TIMEOUT, source.fetch.fetch(request))
        .await
        .map_err(|_| RefreshError::TimedOut(TOTAL_TIMEOUT))??;
    let set = read(&response, &url, here, source.clock.now().monotonic)?;
    let same = held.is_some_and(|held| held.generation == set.generation);
    source.current.store(Some(Arc::new(set)));
    Ok(if same { RefreshResult::Unchanged } else { RefreshResult::Replaced })
}

/// The set an answer stands for. `held` is what this very place gave before.
fn read(
    response: &FetchResponse,
    url: &Arc<str>,
    held: Option<&KeySet>,
    now: Duration,
) -> Result<KeySet, RefreshError> {
    let confirmed = |held: &KeySet, etag: Option<String>| KeySet {
        url: url.clone(),
        keys: held.keys.clone(),
        generation: held.generation,
        digest: held.digest,
        etag,
        offered: offered(response),
        confirmed_at: now,
    };
    match (response.status.as_u16(), held) {
        (304, Some(held)) if held.etag.is_some() => Ok(confirmed(held, held.etag.clone())),
        (200, held) => {
            let digest = sha256(&response.body);
            if let Some(held) = held.filter(|held| held.digest == digest) {
                return Ok(confirmed(held, response.etag().map(str::to_owned)));
            }
            let keys = JwkSet::parse(&response.body, JwkSource::Remote)?;
            if keys.is_empty() {
                // Taking it would turn a broken server into a revocation of everything (JKS-07).
                return Err(RefreshError::Empty(keys.skipped().len()));
            }
            Ok(KeySet {
                url: url.clone(),
                keys: Arc::new(keys),
                generation: next_generation(),
                digest,
                etag: response.etag().map(str::to_owned),
                offered: offered(response),
                confirmed_at: now,
            })
        }
        (status, _) => Err(RefreshError::Status(status)),
    }
}

/// Writes down what came of it, and wakes the requests that wait.
fn record(source: &Source, reason: RefreshReason, outcome: Result<RefreshResult, RefreshError>) {
    let good = outcome.is_ok();
    let mut record = lock(&source.record);
    match outcome {
        Ok(result) => {
            record.count(reason, result);
            record.last_error = None;
            lock(&source.absent).clear();
        }
        Err(error) => {
            record.count(reason, RefreshResult::Failed);
            tracing::warn!(url = %source.shown(), reason = reason.as_str(), %error, "key set not refreshed");
            record.last_error = Some(error.to_string());
        }
    }
    drop(record);
    let now = source.clock.now().monotonic;
    let random = ahash::RandomState::new().hash_one(now);
    let refresh = source.shortest_refresh().unwrap_or(COOL_DOWN);
    let offered = source.current.load().as_ref().and_then(|set| set.offered);
    let done = lock(&source.flight).finish(now, good, |failures| match failures {
        0 => refresh_after(life(offered, refresh), random),
        failures => retry_after(failures, random),
    });
    source.finished.send_replace(done);
}
