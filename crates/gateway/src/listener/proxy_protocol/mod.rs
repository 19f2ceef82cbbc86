//! The PROXY protocol: a proxy in front that relays bytes says for whom, before anything else.
//!
//! On a listener that asks for it every connection must come from one of the named addresses and begin with the
//! header. SECURITY: there is no "if present": a connection without it would have the proxy's address, and one from
//! elsewhere could choose its own. Both are closed unread.

mod parse;
mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

pub use parse::{Announced, ProxyHeaderError, proxy_header};

/// Bytes looked at in one go: more than a header without certificates ever has.
const GLANCE: usize = 512;

/// `proxy_protocol` of a listener.
#[derive(Clone, Debug)]
pub(crate) struct ProxyProtocol {
    from: Vec<IpNet>,
    timeout: Duration,
}

/// Why a connection is closed before a byte of it was served: a closed set, for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderFailure {
    /// It comes from elsewhere.
    NotTheProxy,
    /// The header did not come in time.
    Timeout,
    /// The other side went away within it.
    Disconnected,
    /// There is none, or it is broken.
    Malformed,
}

impl ProxyHeaderFailure {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotTheProxy => "proxy_header_not_from_proxy",
            Self::Timeout => "proxy_header_timeout",
            Self::Disconnected => "proxy_header_disconnected",
            Self::Malformed => "proxy_header_malformed",
        }
    }
}

impl ProxyProtocol {
    /// Takes the header off a connection; what follows it stays unread. Gives the client's address, `None` where the
    /// proxy speaks for itself.
    pub(crate) async fn take(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<Option<SocketAddr>, ProxyHeaderFailure> {
        if !self.is_near(peer.ip().to_canonical()) {
            return Err(ProxyHeaderFailure::NotTheProxy);
        }
        match tokio::time::timeout(self.timeout, header(stream)).await {
            Ok(Ok(Announced::Client(client))) => Ok(Some(client)),
            Ok(Ok(Announced::Itself)) => Ok(None),
            Ok(Err(failure)) => Err(failure),
            Err(_elapsed) => Err(ProxyHeaderFailure::Timeout),
        }
    }

    fn is_near(&self, peer: IpAddr) -> bool {
        self.from.iter().any(|range| range.contains(&peer))
    }
}

async fn header(stream: &mut TcpStream) -> Result<Announced, ProxyHeaderFailure> {
    let gone = |_: io::Error| ProxyHeaderFailure::Disconnected;
    let mut seen = Vec::new();
    let mut glance = [0; GLANCE];
    loop {
        // Looked at first and taken after: what stands behind the header belongs to TLS or HTTP.
        let there = stream.peek(&mut glance).await.map_err(gone)?;
        let fresh = glance.get(..there).unwrap_or_default();
        if fresh.is_empty() {
            return Err(ProxyHeaderFailure::Disconnected);
        }
        let before = seen.len();
        seen.extend_from_slice(fresh);
        let read = proxy_header(&seen).map_err(|_| ProxyHeaderFailure::Malformed)?;
        // Without an end in sight all of it belongs to the header.
        let used = read.map_or(there, |(_, length)| length.saturating_sub(before));
        let taken = glance.get_mut(..used).unwrap_or_default();
        stream.read_exact(taken).await.map_err(gone)?;
        if let Some((announced, _)) = read {
            return Ok(announced);
        }
    }
}
