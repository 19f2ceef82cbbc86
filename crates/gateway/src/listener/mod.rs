//! The door: sockets, TLS, HTTP/1.1 as we read it ourselves, and HTTP/2 as hyper reads it.

mod accept;
pub(crate) mod admin_door;
mod chain_cache;
mod client_verifier;
pub(crate) mod digest;
mod drain;
mod event;
pub(crate) mod forwarded;
mod framing;
mod http1;
mod inbound;
mod incoming;
mod limits;
mod listed;
pub(crate) mod ocsp;
mod peer;
mod policy_id;
mod possession;
mod proxy_protocol;
pub(crate) mod revocation;
mod serve;
mod settings;
pub(crate) mod spec;
mod standing;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod watch;
mod wire;
mod x509;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use accept::{BindError, Bound, run};
pub use drain::Drain;
pub use event::{CertificateOutcome, Event, HandshakeFailure};
pub use forwarded::{CERTIFICATE_FORMATS, read_certificate_header};
pub use framing::{FramingFault, Reading, read_along};
pub use http1::{BrokenBody, RequestBody};
pub use inbound::Inbound;
pub use incoming::{IncomingBody, IncomingError};
pub use limits::ListenLimits;
pub(crate) use limits::{LINGER_BYTES, LINGER_TIMEOUT};
pub use policy_id::TlsPolicyIds;
pub use proxy_protocol::{Announced, ProxyHeaderError, ProxyHeaderFailure, proxy_header};
pub use serve::Serve;
pub use settings::{Expiry, ExpiryKind, ListenerSettings, Online};
pub use spec::{ListenSpec, TlsSpec};

/// What is bound: a listener's name, its address, and the connections it has over all workers. Its settings may change
/// while it is bound; a connection keeps those it came under.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    address: SocketAddr,
    open: AtomicUsize,
}

impl Listener {
    /// Its name.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where it listens, with the port the system chose if the settings left it open.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open connections over all workers.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes up one connection more, unless there are as many as there may be.
    fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let taken = self.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        // The place is given back by its drop if there was none.
        (taken < most).then_some(place)
    }
}

/// One of the connections a listener may have.
#[derive(Debug)]
struct Place(Arc<Listener>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
