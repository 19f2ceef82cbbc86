//! An upstream as compiled from a policy file: where its endpoints are and how they are spoken to.

mod spec;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, Scheme};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::connect::{Handshake, Host, Protocol};

pub use spec::UpstreamSpec;

/// Where requests go. Compiled once, never changed, shared by all workers through the snapshot.
#[derive(Debug)]
pub struct Upstream {
    id: UpstreamId,
    definition: Arc<Definition>,
    /// Limit for the head of an answer, and for the silence between two parts of its body.
    timeout: Duration,
    /// Limit for name resolution, connection and TLS handshake together.
    connect_timeout: Duration,
    /// Spreads the workers' first choices over the endpoints. Touched once per worker.
    workers_seen: AtomicUsize,
}

/// Distinguishes every compiled upstream of this process from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UpstreamId(u64);

/// What makes two connections interchangeable. SECURITY: connections outlive a reload only if all of this is
/// equal: same name, same endpoints, same trust, same client certificate (PRX-07).
#[derive(Debug, PartialEq)]
pub(crate) struct Definition {
    name: Arc<str>,
    pub(crate) endpoints: Vec<Arc<Origin>>,
    security: Option<Security>,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    /// What stands for the endpoint where a request names no host itself.
    pub(crate) authority: Authority,
    pub(crate) authority_value: HeaderValue,
    /// The one protocol it must speak; `None` leaves it to the handshake.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) handshake: Option<Handshake>,
}

/// The parts of a TLS setting that decide whether two of them are the same.
#[derive(Debug)]
struct Security {
    anchors: Arc<RootCertStore>,
    server_name: Option<ServerName<'static>>,
    /// The chain alone says which key it is: a key that does not belong to it is refused when compiling.
    chain: Option<Vec<CertificateDer<'static>>>,
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        self.anchors.roots == other.anchors.roots
            && self.server_name == other.server_name
            && self.chain == other.chain
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host
            && self.port == other.port
            && self.scheme == other.scheme
            && self.protocol == other.protocol
    }
}

impl Upstream {
    fn new(definition: Definition, timeout: Duration, connect_timeout: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: UpstreamId(NEXT.fetch_add(1, Ordering::Relaxed)),
            definition: Arc::new(definition),
            timeout,
            connect_timeout,
            workers_seen: AtomicUsize::new(0),
        }
    }

    /// The name in the policy files.
    pub fn name(&self) -> &Arc<str> {
        &self.definition.name
    }

    /// Limit for the head of an answer, and for the silence between two parts of its body.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) const fn id(&self) -> UpstreamId {
        self.id
    }

    pub(crate) const fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// Where the next worker starts its round: each somewhere else, so that the first requests of all workers do
    /// not meet at one endpoint.
    pub(crate) fn first_turn(&self) -> usize {
        self.workers_seen.fetch_add(1, Ordering::Relaxed)
    }
}
