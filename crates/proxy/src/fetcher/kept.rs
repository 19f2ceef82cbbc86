//! Connections kept open between two questions to the same server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use portcullis_core::QUESTIONS_AT_ONCE;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connect::Host;

/// Connections to one server that are kept while nobody asks.
const KEPT: usize = 16;

/// How long one is kept unused. Servers close them after about as long.
pub(super) const UNUSED: Duration = Duration::from_secs(30);

/// How long one is used at all, so that a change of addresses or certificates is noticed.
const OLDEST: Duration = Duration::from_mins(5);

/// Where a connection leads. The trust it was made under is the fetcher's, so connections never mix trusts (PRX-07).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    pub(super) secure: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// A connection that speaks HTTP/1.1.
pub(super) struct Open {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) born: Instant,
}

/// One server.
pub(super) struct Server {
    /// A place for each question. More of them wait, within their own limits.
    pub(super) places: Semaphore,
    unused: Mutex<Vec<(Open, Instant)>>,
}

impl Server {
    /// The connection that was used last, if it still is one.
    pub(super) fn take(&self, now: Instant) -> Option<Open> {
        let mut unused = lock(&self.unused);
        while let Some((open, since)) = unused.pop() {
            if open.counts(since, now) {
                return Some(open);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn keep(&self, open: Open, now: Instant) {
        let mut unused = lock(&self.unused);
        if open.counts(now, now) && unused.len() < KEPT {
            unused.push((open, now));
        }
    }
}

impl Open {
    fn counts(&self, since: Instant, now: Instant) -> bool {
        !self.sender.is_closed()
            && now.saturating_duration_since(since) < UNUSED
            && now.saturating_duration_since(self.born) < OLDEST
    }
}

/// All servers one fetcher has asked lately.
#[derive(Default)]
pub(super) struct Servers(Mutex<HashMap<Destination, Arc<Server>>>);

impl Servers {
    pub(super) fn get(&self, destination: &Destination) -> Arc<Server> {
        let mut servers = lock(&self.0);
        if let Some(server) = servers.get(destination) {
            return Arc::clone(server);
        }
        let server = Arc::new(Server { places: Semaphore::new(QUESTIONS_AT_ONCE), unused: Mutex::default() });
        servers.insert(destination.clone(), Arc::clone(&server));
        server
    }

    /// Closes what has been unused for too long, and forgets servers nobody asks any more.
    pub(super) fn sweep(&self, now: Instant) {
        lock(&self.0).retain(|_, server| {
            let mut unused = lock(&server.unused);
            unused.retain(|(open, since)| open.counts(*since, now));
            !unused.is_empty() || Arc::strong_count(server) > 1
        });
    }
}

/// What these locks guard is whole at every moment, so a panic elsewhere poisons nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
