//! TLS as this gateway speaks it: one server configuration for each policy.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use portcullis_core::{Clock, TlsPolicyId};
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{Error, ServerConfig, version};
use rustls_pki_types::UnixTime;

use super::client_verifier::ClientVerifier;
use super::limits::REMEMBERED_SESSIONS;

/// The TLS side of a listener.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    /// For server names that are not in `hosts`, and for clients that send none.
    pub(crate) own: TlsPolicy,
    /// By server name, lower case, without a trailing dot.
    pub(crate) hosts: HashMap<Box<str>, TlsPolicy, RandomState>,
}

/// One set of TLS settings.
#[derive(Debug)]
pub(crate) struct TlsPolicy {
    pub(crate) id: TlsPolicyId,
    pub(crate) config: Arc<ServerConfig>,
    /// `None` where no certificate is asked for.
    pub(crate) verifier: Option<Arc<ClientVerifier>>,
}

impl TlsSettings {
    /// The policy for a server name or host.
    pub(crate) fn policy_for(&self, name: Option<&str>) -> &TlsPolicy {
        let Some(name) = name.filter(|_| !self.hosts.is_empty()) else { return &self.own };
        let name = name.strip_suffix('.').unwrap_or(name);
        let found = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.hosts.get(name.to_ascii_lowercase().as_str())
        } else {
            self.hosts.get(name)
        };
        found.unwrap_or(&self.own)
    }
}

/// What of the TLS protocol is spoken (TLS-01). AES-128 stands first because SHA-384, which comes with AES-256,
/// is a tenth of a handshake; P-256 stands behind X25519 for clients that have nothing else.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

/// The server configuration of one policy.
///
/// # Errors
/// The provider has no suite for TLS 1.2 or 1.3.
pub(crate) fn server_config(
    provider: &Arc<CryptoProvider>,
    clock: &Clock,
    certificates: Arc<Certificates>,
    verifier: Option<&Arc<ClientVerifier>>,
) -> Result<ServerConfig, Error> {
    let time = Arc::new(WallClock(clock.clone()));
    let builder = ServerConfig::builder_with_details(Arc::clone(provider), time)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?;
    let mut config = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::<ClientVerifier>::clone(verifier)),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(certificates);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.max_early_data_size = 0;
    // SECURITY: a resumed session brings back the chain of its first handshake without verifying it again, and
    // rustls does not ask under which verifier that was (TLS-04, CVE-2025-23419, CVE-2025-68121). Where clients
    // are asked for certificates nothing is resumed; elsewhere each policy has a memory of its own.
    if verifier.is_some() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.session_storage = ServerSessionMemoryCache::new(REMEMBERED_SESSIONS);
        config.send_tls13_tickets = 1;
    }
    Ok(config)
}

/// Certificates are judged by the same clock as everything else.
#[derive(Debug)]
struct WallClock(Clock);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

type ByName = HashMap<Box<str>, Vec<Arc<CertifiedKey>>, RandomState>;

/// The server's certificates, found by the name the client asks for.
#[derive(Debug)]
pub(crate) struct Certificates {
    exact: ByName,
    /// By what follows `*.`.
    wildcard: ByName,
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// In the order written; names come from the certificates themselves.
    pub(crate) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let (mut exact, mut wildcard) = (ByName::default(), ByName::default());
        for key in &keys {
            for name in names(key) {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest),
                    None => (&mut exact, name.as_str()),
                };
                table.entry(name.into()).or_default().push(Arc::clone(key));
            }
        }
        Self { exact, wildcard, all: keys }
    }

    /// Whether any certificate is valid for a host.
    pub(crate) fn cover(&self, host: &str) -> bool {
        self.named(host).is_some()
    }

    fn named(&self, host: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.exact.get(host).or_else(|| self.wildcard.get(host.split_once('.')?.1))
    }
}

fn names(key: &CertifiedKey) -> Vec<String> {
    let leaf = key.cert.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
    leaf.map(|leaf| leaf.valid_dns_names().map(str::to_ascii_lowercase).collect()).unwrap_or_default()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name =
            hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        // A client without a name, or with one we have no certificate for, gets the first certificate and will
        // say itself whether it takes it.
        let candidates = name.and_then(|name| self.named(&name)).unwrap_or(&self.all);
        let schemes = hello.signature_schemes();
        candidates.iter().find(|key| key.key.choose_scheme(schemes).is_some()).map(Arc::clone)
    }
}
