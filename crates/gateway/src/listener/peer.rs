//! From a finished handshake to the connection the stages judge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Clock, Connection, PeerCertificate, TlsFacts};
use rustls::{ProtocolVersion, ServerConnection};
use rustls_pki_types::UnixTime;

use super::standing::HandshakeChain;
use super::tls::TlsPolicy;

/// Who is at the other end of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The caller's end.
    pub(crate) peer: SocketAddr,
    /// The socket's, where it is a proxy that announced the caller.
    pub(crate) proxy: Option<SocketAddr>,
    /// Whether the peer is a proxy that has not announced the caller.
    pub(crate) shared: bool,
}

/// Why a finished handshake still makes no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The chain was taken a moment ago and is not any more: its last second passed in between.
    #[error("the client's certificate is not acceptable: {0}")]
    Certificate(rustls::Error),
    /// rustls does not say which version was agreed.
    #[error("no protocol version")]
    Version,
}

/// The facts of a connection over TLS, and what is needed to ask for its certificate again.
///
/// # Errors
/// The handshake left something out that the stages depend on.
pub(crate) fn connection(
    ends: Ends,
    listener: &Arc<str>,
    policy: &TlsPolicy,
    session: &ServerConnection,
    clock: &Clock,
) -> Result<(Connection, Option<HandshakeChain>), PeerError> {
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => return Err(PeerError::Version),
    };
    let generation = policy.verifier.as_ref().map_or(0, |verifier| verifier.generation());
    let connection = Connection {
        peer: ends.peer,
        proxy: ends.proxy,
        shared: ends.shared,
        listener: Arc::clone(listener),
        tls: Some(TlsFacts {
            policy: policy.id,
            version,
            server_name: session.server_name().map(|name| name.to_ascii_lowercase().into()),
        }),
        handshake_certificate: certificate(policy, session, clock).map_err(PeerError::Certificate)?,
    };
    let chain = match (&policy.verifier, session.peer_certificates()) {
        (Some(verifier), Some(chain)) if verifier.revokes() => {
            Some(HandshakeChain::new(verifier, chain, generation))
        }
        _ => None,
    };
    Ok((connection, chain))
}

/// The client's certificate as its verifier knows it: parsed once for as long as it is remembered.
fn certificate(
    policy: &TlsPolicy,
    session: &ServerConnection,
    clock: &Clock,
) -> Result<Option<Arc<PeerCertificate>>, rustls::Error> {
    let (Some(verifier), Some([leaf, intermediates @ ..])) = (&policy.verifier, session.peer_certificates())
    else {
        return Ok(None);
    };
    let seconds = u64::try_from(clock.now().unix_seconds()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.accept(leaf, intermediates, now).map(Some)
}
