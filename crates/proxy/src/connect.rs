//! From a host name to a connected transport: resolve, dial, shake hands.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::transport::Transport;

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// To be resolved each time a connection is made.
    Name(Arc<str>),
    /// A literal address.
    Address(IpAddr),
}

/// The two forms of HTTP spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, one exchange at a time on a connection.
    Http1,
    /// HTTP/2, exchanges side by side on one connection.
    Http2,
}

impl Protocol {
    /// The name in the TLS handshake (RFC 7301).
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// How to shake hands.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    /// Trust, client certificate, protocols offered.
    pub(crate) config: Arc<ClientConfig>,
    /// The name the server's certificate must carry.
    pub(crate) server_name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name has no address.
    #[error("`{0}` cannot be resolved: {1}")]
    Resolve(Arc<str>, String),
    /// No address took the connection.
    #[error("{0}")]
    Dial(String),
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(String),
    /// The server did not choose a protocol that was offered.
    #[error("the server does not speak the HTTP version it must")]
    Protocol,
    /// Too slow.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
}

/// All addresses of a host.
///
/// # Errors
/// [`ConnectError::Resolve`].
pub(crate) async fn resolve(host: &Host, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let name = match host {
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, port)]),
        Host::Name(name) => name,
    };
    let found = tokio::net::lookup_host((&**name, port))
        .await
        .map_err(|error| ConnectError::Resolve(Arc::clone(name), error.to_string()))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() {
        return Err(ConnectError::Resolve(Arc::clone(name), "it has no address".into()));
    }
    Ok(addresses)
}

/// Dials the addresses in turn until one answers. The time left is shared out over the addresses left, so that
/// one that swallows packets cannot use up the turn of those behind it.
pub(crate) async fn dial(addresses: &[SocketAddr], end: Instant) -> Result<TcpStream, ConnectError> {
    let mut failure = ConnectError::Dial("there is no address".into());
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let now = Instant::now();
        let share = end.saturating_duration_since(now) / left.max(1);
        left = left.saturating_sub(1);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Heads and small bodies are written in one piece; waiting for more to join them only adds delay.
                stream.set_nodelay(true).map_err(|error| dial_failure(*address, &error))?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = dial_failure(*address, &error),
            Err(_elapsed) => failure = ConnectError::Dial(format!("{address} does not answer")),
        }
    }
    Err(failure)
}

fn dial_failure(address: SocketAddr, error: &io::Error) -> ConnectError {
    ConnectError::Dial(format!("{address}: {error}"))
}

/// Shakes hands, and says which protocol the server chose, if it chose one.
pub(crate) async fn shake_hands(
    stream: TcpStream,
    handshake: &Handshake,
) -> Result<(Transport, Option<Protocol>), ConnectError> {
    let connector = TlsConnector::from(Arc::clone(&handshake.config));
    let stream = connector
        .connect(handshake.server_name.clone(), stream)
        .await
        .map_err(|error| ConnectError::Handshake(error.to_string()))?;
    let chosen = match stream.get_ref().1.alpn_protocol() {
        None => None,
        Some(name) if name == Protocol::Http1.alpn() => Some(Protocol::Http1),
        Some(name) if name == Protocol::Http2.alpn() => Some(Protocol::Http2),
        Some(_) => return Err(ConnectError::Protocol),
    };
    Ok((Transport::Tls(Box::new(stream)), chosen))
}

/// Runs the whole of a connection attempt under one limit; the attempt is told when it ends.
pub(crate) async fn within<T, F>(
    limit: Duration,
    attempt: impl FnOnce(Instant) -> F,
) -> Result<T, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let end = Instant::now() + limit;
    timeout_at(end, attempt(end)).await.unwrap_or(Err(ConnectError::TimedOut(limit)))
}
