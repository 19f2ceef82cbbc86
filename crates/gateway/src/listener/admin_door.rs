//! The admin listener's side of TLS, for whoever serves it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Clock;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ListenerSettings;
use super::client_verifier::ClientVerifier;

/// A connection after its handshake.
pub type AdminStream = TlsStream<TcpStream>;

/// The certificates a peer has shown in its handshake, its own first.
#[derive(Clone, Debug)]
pub struct Shown(Arc<[CertificateDer<'static>]>);

/// What the certificate of a peer of the admin listener is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCertificate {
    /// None is asked for.
    NotAsked,
    /// It is one of the named authorities, and holds now.
    Good,
    /// It was taken in the handshake, and is not any more: it has ended, was revoked, or its authority is no longer named.
    Refused,
}

/// How the admin listener speaks TLS, as the policies in force say.
#[derive(Clone, Debug)]
pub struct AdminDoor {
    settings: Arc<ListenerSettings>,
    clock: Clock,
}

impl AdminDoor {
    pub(crate) const fn new(settings: Arc<ListenerSettings>, clock: Clock) -> Self {
        Self { settings, clock }
    }

    /// Shakes hands, within the time a listener gives for that. HTTP/1.1 is spoken afterwards.
    ///
    /// # Errors
    /// The peer does not, or shows no certificate where one is required, or one that is not taken.
    pub async fn handshake(&self, stream: TcpStream) -> io::Result<(AdminStream, Shown)> {
        let Some(tls) = &self.settings.tls else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut config = ServerConfig::clone(&tls.own.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let accepting = TlsAcceptor::from(Arc::new(config)).accept(stream);
        let stream = tokio::time::timeout(self.settings.limits.handshake_timeout, accepting).await??;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = chain.iter().map(|der| der.clone().into_owned()).collect();
        Ok((stream, Shown(shown)))
    }

    /// What was shown in a handshake, judged now: by the authorities and lists of revoked certificates in force, which may be
    /// others than at the handshake.
    pub fn judge(&self, shown: &Shown) -> AdminCertificate {
        match self.verifier() {
            None => AdminCertificate::NotAsked,
            Some(verifier) => match shown.0.split_first() {
                Some((leaf, others)) if verifier.accept(leaf, others, self.now()).is_ok() => {
                    AdminCertificate::Good
                }
                _ => AdminCertificate::Refused,
            },
        }
    }

    fn verifier(&self) -> Option<&Arc<ClientVerifier>> {
        self.settings.tls.as_ref()?.own.verifier.as_ref()
    }

    fn now(&self) -> UnixTime {
        let seconds = u64::try_from(self.clock.now().unix_seconds()).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }
}
