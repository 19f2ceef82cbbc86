//! TLS towards servers we call: whom to trust, and what to show when asked who we are.
//!
//! SECURITY: names are matched against the subject alternative names only (RFC 9525, SRV-01), and there is no
//! setting that skips verification.

use std::sync::Arc;

use portcullis_core::FetchIdentity;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::connect::Protocol;

/// Why TLS material cannot be used. The text never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The PEM text holds no certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("certificate {number} in it cannot be read: {why}")]
    BadCertificate {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The machine's own store holds nothing usable.
    #[error("this machine has no trusted certificates of its own{0}")]
    NoSystemTrust(String),
    /// The private key cannot be read.
    #[error("there is no private key in it that can be used: {0}")]
    BadKey(String),
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The library refuses the combination.
    #[error("TLS cannot be set up: {0}")]
    Settings(String),
}

/// The certificates in a PEM text, in its order.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut found = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate
            .map_err(|why| TlsError::BadCertificate { number: index + 1, why: why.to_string() })?;
        found.push(certificate);
    }
    if found.is_empty() { Err(TlsError::NoCertificate) } else { Ok(found) }
}

/// Trust anchors from a PEM text. Every certificate in it must be usable: a file that is half read would be a
/// trust set nobody wrote.
pub(crate) fn anchors(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
        store
            .add(certificate)
            .map_err(|why| TlsError::BadCertificate { number: index + 1, why: why.to_string() })?;
    }
    Ok(store)
}

/// The trust anchors of the machine. Some of them may be unreadable to us without harm: leaving one out only
/// refuses more.
pub(crate) fn system_anchors() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (usable, _unusable) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(TlsError::NoSystemTrust(why));
    }
    Ok(store)
}

/// Whether a certificate of our own can be shown to anybody.
///
/// # Errors
/// What is wrong with it or its key.
pub fn check_identity(identity: &FetchIdentity) -> Result<(), TlsError> {
    client_identity(&identity.chain, identity.key.expose()).map(|_usable| ())
}

/// A certificate chain and the key it belongs to.
pub(crate) fn client_identity(chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|why| TlsError::BadKey(why.to_string()))?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_refused| TlsError::BadKey("it is of a kind that is not supported".into()))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch),
        Err(why) => Err(TlsError::BadCertificate { number: 1, why: why.to_string() }),
    }
}

/// Settings for connections to one kind of server: TLS 1.2 and 1.3, nothing older.
pub(crate) fn client_config(
    anchors: Arc<RootCertStore>,
    identity: Option<CertifiedKey>,
    offered: &[Protocol],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|why| TlsError::Settings(why.to_string()))?
        .with_root_certificates(anchors);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::new(identity)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = offered.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    // SECURITY: sessions are remembered per set of settings, so none made with one client certificate or one set
    // of anchors is ever resumed under another (PRX-07).
    config.resumption = Resumption::in_memory_sessions(64);
    Ok(config)
}

/// aws-lc-rs with AES-128-GCM first: on machines with AES instructions it is the cheapest of the equally good.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}
