//! Whether the certificate of a connection still stands, asked again when revocation lists have changed (TLS-05).

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Moment, PeerCertificate, Standing};
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::client_verifier::ClientVerifier;
use super::ocsp::Ocsp;

/// What a connection keeps of its handshake where lists of revoked certificates may change under it.
#[derive(Debug)]
pub(crate) struct HandshakeChain {
    verifier: Arc<ClientVerifier>,
    /// As the peer showed it, leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// Under which lists `found` was found.
    generation: Cell<u64>,
    /// What was found last; `None` while the finding of the handshake holds.
    found: RefCell<Option<Arc<PeerCertificate>>>,
}

impl HandshakeChain {
    /// `generation` is the verifier's from before the handshake's own finding.
    pub(crate) fn new(verifier: &Arc<ClientVerifier>, chain: &[CertificateDer<'_>], generation: u64) -> Self {
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Self {
            verifier: Arc::clone(verifier),
            chain,
            generation: Cell::new(generation),
            found: RefCell::default(),
        }
    }

    /// The certificate as it stands now, where that is another finding than the handshake's. One comparison as long
    /// as no list changes.
    pub(crate) fn superseding(&self, first: &PeerCertificate, now: Moment) -> Option<Arc<PeerCertificate>> {
        let generation = self.verifier.generation();
        if generation != self.generation.get() {
            self.found.replace(Some(self.judge(first, now)));
            self.generation.set(generation);
        }
        self.found.borrow().clone()
    }

    /// Who is asked online about its certificate.
    pub(crate) fn online(&self) -> Option<&Arc<Ocsp>> {
        self.verifier.online()
    }

    fn judge(&self, first: &PeerCertificate, now: Moment) -> Arc<PeerCertificate> {
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let judged = match self.chain.split_first() {
            Some((leaf, intermediates)) => self.verifier.accept(leaf, intermediates, at),
            None => Err(CertificateError::UnknownRevocationStatus.into()),
        };
        judged.unwrap_or_else(|error| Arc::new(PeerCertificate { standing: of(&error), ..first.clone() }))
    }
}

/// How a certificate stands that the verifier took once and does not take now.
fn of(error: &Error) -> Standing {
    match error {
        Error::InvalidCertificate(CertificateError::Revoked) => Standing::Revoked,
        Error::InvalidCertificate(
            CertificateError::UnknownRevocationStatus | CertificateError::ExpiredRevocationList,
        ) => Standing::Unknown,
        // Nothing but lists and time has changed, so it is time.
        _ => Standing::Ended,
    }
}
