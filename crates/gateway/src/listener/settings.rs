//! Listeners, compiled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_core::{Clock, Diagnostic, Faults, FetchTrust, Fetchers, Materials, Spanned, TlsPolicyId};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::client_verifier::ClientVerifier;
use super::forwarded::{ForwardedCertificates, ForwardedSpec};
use super::limits::ListenLimits;
use super::ocsp::Ocsp;
use super::policy_id::TlsPolicyIds;
use super::proxy_protocol::ProxyProtocol;
use super::revocation::Revocation;
use super::spec::{
    Ask, CertificateSpec, ClientCertificatesSpec, HostSpec, ListenSpec, RevocationSpec, TlsSpec, Verify,
};
use super::tls::{self, Certificates, TlsPolicy, TlsSettings};
use super::trust::{self, TrustSet};
use super::x509;

/// One listener, ready to be bound.
#[derive(Debug)]
pub struct ListenerSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Its bounds.
    pub limits: ListenLimits,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) forwarded: Option<ForwardedCertificates>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    expiries: Vec<Expiry>,
    revocations: Vec<Arc<Revocation>>,
    /// Held by every connection that came under these settings.
    used: Arc<()>,
}

/// How others are asked while the gateway runs.
#[derive(Clone, Debug)]
pub struct Online {
    /// Makes the clients.
    pub fetchers: Fetchers,
    /// Where questions are asked; `None` where policies are only compiled.
    pub background: Option<tokio::runtime::Handle>,
}

/// When something a listener uses ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The file, as it is written in the policy files.
    pub name: Arc<str>,
    /// What it is.
    pub kind: ExpiryKind,
    /// Second since 1970.
    pub at: i64,
}

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryKind {
    /// A server certificate or a trust anchor.
    Certificate,
    /// A revocation list: the second at which the next one is due.
    RevocationList,
}

impl ListenerSettings {
    /// Compiles all listeners; `None` if any has a fault.
    pub fn compile_all(
        specs: &[ListenSpec],
        materials: &dyn Materials,
        ids: &TlsPolicyIds,
        clock: &Clock,
        online: &Online,
        faults: &mut Faults,
    ) -> Option<Vec<Self>> {
        let provider = Arc::new(tls::provider());
        let (trusted, expiries, revocations) = (Vec::new(), Vec::new(), Vec::new());
        let mut compiler =
            Compiler { online, materials, clock, ids, provider, faults, trusted, expiries, revocations };
        compiler.distinct_addresses(specs);
        compiler.distinct_names(specs);
        let compiled: Vec<_> = specs.iter().map(|spec| compiler.listener(spec)).collect();
        compiled.into_iter().collect()
    }

    /// The TLS policy that requests for a host need on this listener; `None` on a plain one. A request whose
    /// connection was made under another is misdirected (TLS-03). The host is lower case, without port.
    pub fn policy_for_host(&self, host: &str) -> Option<TlsPolicyId> {
        self.tls.as_ref().map(|tls| tls.policy_for(Some(host)).id)
    }

    /// Whether a connection from there comes by a proxy in front of this listener: from where one tells certificates, or
    /// any where all must be announced.
    pub(crate) fn knows_a_proxy_at(&self, hop: IpAddr) -> bool {
        self.proxy_protocol.is_some()
            || self.forwarded.as_ref().is_some_and(|forwarded| forwarded.is_near(hop))
    }

    /// Every field a proxy in front of this listener speaks in.
    pub(crate) fn proxy_fields(&self) -> impl Iterator<Item = &http::HeaderName> {
        self.forwarded.iter().flat_map(ForwardedCertificates::fields)
    }

    /// Certificates and revocation lists in force, each with the second it ends.
    pub fn expiries(&self) -> Vec<Expiry> {
        let lists = self.revocations.iter().flat_map(|revocation| revocation.expiries());
        self.expiries.iter().cloned().chain(lists).collect()
    }

    /// To be held by a connection that came under these settings.
    pub(crate) fn in_use(&self) -> Arc<()> {
        Arc::clone(&self.used)
    }

    /// Whether there are such connections.
    pub(crate) fn is_used(&self) -> bool {
        Arc::strong_count(&self.used) > 1
    }

    /// What its verifiers ask about revoked certificates.
    pub(crate) fn revocations(&self) -> &[Arc<Revocation>] {
        &self.revocations
    }
}

pub(super) struct Compiler<'c> {
    online: &'c Online,
    pub(super) materials: &'c dyn Materials,
    clock: &'c Clock,
    ids: &'c TlsPolicyIds,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) faults: &'c mut Faults,
    /// Every name of `trust` so far, with what it stands for.
    trusted: Vec<(Spanned<String>, Vec<rustls_pki_types::CertificateDer<'static>>)>,
    expiries: Vec<Expiry>,
    revocations: Vec<Arc<Revocation>>,
}

impl Compiler<'_> {
    fn distinct_addresses(&mut self, specs: &[ListenSpec]) {
        for (number, spec) in specs.iter().enumerate() {
            let earlier = specs
                .iter()
                .take(number)
                .find(|other| other.address.value == spec.address.value && spec.address.value.port() != 0);
            if let Some(other) = earlier {
                let message = format!("`{}` listens there already", other.name.value);
                self.faults.push(
                    Diagnostic::error("address_twice", spec.address.place, message)
                        .related(other.address.place, "here"),
                );
            }
        }
    }

    /// SECURITY: policies name what they trust without naming a listener, so a name for which a proxy answers may not
    /// stand for authorities elsewhere.
    fn distinct_names(&mut self, specs: &[ListenSpec]) {
        let forwarded = || specs.iter().filter_map(|spec| spec.forwarded.as_ref());
        for name in forwarded().filter_map(ForwardedSpec::vouched_name) {
            let handshakes = specs.iter().flat_map(ListenSpec::handshake_trust_names);
            let mut verified = handshakes.chain(forwarded().flat_map(ForwardedSpec::verified_names));
            if let Some(other) = verified.find(|other| other.value == name.value) {
                let message =
                    format!("`{}` stands for authorities elsewhere, and here for a proxy's word", name.value);
                self.faults.push(
                    Diagnostic::error("trust_differs", name.place, message)
                        .related(other.place, "defined here with authorities")
                        .note("policies refer to it by this name, so it needs one meaning"),
                );
            }
        }
    }

    fn listener(&mut self, spec: &ListenSpec) -> Option<ListenerSettings> {
        let tls = match &spec.tls {
            Some(tls) => Some(self.tls(tls)?),
            None => None,
        };
        let forwarded = match &spec.forwarded {
            Some(forwarded) => {
                let names = spec.handshake_trust_names();
                let anchors: Vec<_> = names.map(|name| (name.value.clone(), name.place)).collect();
                Some(self.forwarded(forwarded, &anchors)?)
            }
            None => None,
        };
        Some(ListenerSettings {
            name: spec.name.value.as_str().into(),
            address: spec.address.value,
            limits: spec.limits.clone(),
            tls,
            forwarded,
            proxy_protocol: spec.proxy_protocol.clone(),
            expiries: std::mem::take(&mut self.expiries),
            revocations: std::mem::take(&mut self.revocations),
            used: Arc::default(),
        })
    }

    fn tls(&mut self, spec: &TlsSpec) -> Option<TlsSettings> {
        let certificates = self.certificates(&spec.certificates);
        let own = self.clients(&spec.clients);
        let mut hosts: Vec<(&HostSpec, _, _)> = Vec::new();
        let mut whole = true;
        for host in &spec.hosts {
            let clients = match &host.clients {
                Some(clients) => self.clients(clients),
                None => own.clone(),
            };
            let certificates = if host.certificates.is_empty() {
                certificates.clone()
            } else {
                self.certificates(&host.certificates)
            };
            match clients.zip(certificates) {
                Some((clients, certificates)) => hosts.push((host, clients, certificates)),
                None => whole = false,
            }
        }
        let own = self.policy(own?, &certificates?)?;
        let mut settings = TlsSettings { own, hosts: std::collections::HashMap::default() };
        for (host, clients, certificates) in hosts {
            if !certificates.cover(&host.name.value) {
                let message = format!("no certificate of this listener is valid for `{}`", host.name.value);
                self.faults.push(Diagnostic::warning("certificate_name", host.name.place, message));
            }
            let policy = self.policy(clients, &certificates)?;
            settings.hosts.insert(host.name.value.as_str().into(), policy);
        }
        whole.then_some(settings)
    }

    fn policy(&mut self, clients: Clients, certificates: &Arc<Certificates>) -> Option<TlsPolicy> {
        let verifier = clients.0;
        let config =
            tls::server_config(&self.provider, self.clock, Arc::clone(certificates), verifier.as_ref());
        match config {
            Ok(config) => Some(TlsPolicy { id: clients.1, config: Arc::new(config), verifier }),
            Err(error) => {
                self.faults.push(Diagnostic::nowhere("tls", error.to_string()));
                None
            }
        }
    }

    fn clients(&mut self, spec: &ClientCertificatesSpec) -> Option<Clients> {
        if spec.ask == Ask::Never {
            return Some(Clients(None, self.ids.without_certificates()));
        }
        let sets: Vec<_> = spec.trust.iter().map(|(name, path)| self.trust(name, path)).collect();
        let revocation = spec.revocation.as_ref().map(|spec| self.revocation(spec));
        let sets = sets.into_iter().collect::<Option<Vec<_>>>()?;
        let revocation = match revocation {
            Some(loaded) => Some(loaded?),
            None => None,
        };
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = ClientVerifier::new(spec.ask, sets, revocation, spec.purpose, algorithms);
        let verifier = match spec.verify {
            Verify::Path => verifier,
            Verify::Possession => verifier.of_possession(),
        };
        let id = self.ids.of(&verifier);
        Some(Clients(Some(Arc::new(verifier)), id))
    }

    pub(super) fn revocation(&mut self, spec: &RevocationSpec) -> Option<Arc<Revocation>> {
        let now = self.clock.now().unix_seconds();
        let algorithms = self.provider.signature_verification_algorithms;
        let online = match &spec.ocsp {
            // Answers are signed, and responders are mostly asked without TLS.
            Some(ocsp) => {
                let trust = FetchTrust { plain_http: true, ..FetchTrust::default() };
                let fetch = match self.online.fetchers.get(&trust) {
                    Ok(fetch) => fetch,
                    Err(why) => {
                        self.faults.push(Diagnostic::nowhere("no_fetcher", why));
                        return None;
                    }
                };
                let background = self.online.background.clone();
                Some(Arc::new(Ocsp::new(ocsp.clone(), fetch, background, self.clock.clone(), algorithms)))
            }
            None => None,
        };
        let revocation = Arc::new(Revocation::load(spec, self.materials, now, online, self.faults)?);
        self.revocations.push(Arc::clone(&revocation));
        Some(revocation)
    }

    /// SECURITY: policies name anchors without naming a listener, so one name must stand for the same
    /// authorities wherever it is defined.
    pub(super) fn trust(&mut self, name: &Spanned<String>, path: &Spanned<String>) -> Option<TrustSet> {
        let set = TrustSet::load(name, path, self.materials, self.faults)?;
        match self.trusted.iter().find(|(known, _)| known.value == name.value) {
            Some((known, certificates)) if *certificates != set.certificates => {
                let message = format!("`{}` stands for other authorities elsewhere", name.value);
                self.faults.push(
                    Diagnostic::error("trust_differs", name.place, message)
                        .related(known.place, "defined here with another content")
                        .note("policies refer to authorities by this name, so it needs one meaning"),
                );
                return None;
            }
            Some(_) => {}
            None => self.trusted.push((name.clone(), set.certificates.clone())),
        }
        self.note_expiries(&path.value, &set.certificates);
        Some(set)
    }

    fn certificates(&mut self, specs: &[CertificateSpec]) -> Option<Arc<Certificates>> {
        let loaded: Vec<_> = specs.iter().map(|spec| self.certificate(spec)).collect();
        let keys: Vec<_> = loaded.into_iter().collect::<Option<_>>()?;
        Some(Arc::new(Certificates::new(keys)))
    }

    fn certificate(&mut self, spec: &CertificateSpec) -> Option<Arc<CertifiedKey>> {
        let chain = trust::certificates(&spec.chain, self.materials, self.faults);
        let key = spec.key.resolve(self.materials, self.faults);
        let (chain, key) = (chain?, key?);
        let Ok(key) = PrivateKeyDer::from_pem_slice(key.expose()) else {
            self.faults.error("bad_key", spec.place, "the key is not a PEM private key");
            return None;
        };
        self.note_expiries(&spec.chain.value, &chain);
        match CertifiedKey::from_der(chain, key, &self.provider) {
            Ok(certified) => Some(Arc::new(certified)),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let message = format!("the key does not belong to the certificate of `{}`", spec.chain.value);
                self.faults.error("key_differs", spec.place, message);
                None
            }
            Err(error) => {
                self.faults.error(
                    "bad_certificate",
                    spec.place,
                    format!("the certificate cannot be used: {error}"),
                );
                None
            }
        }
    }

    /// The first certificate of a file to end stands for the file.
    fn note_expiries(&mut self, path: &str, certificates: &[rustls_pki_types::CertificateDer<'static>]) {
        let ends =
            certificates.iter().filter_map(|der| x509::certificate(der)).map(|facts| facts.window.until);
        if let Some(at) = ends.min() {
            self.expiries.push(Expiry { name: path.into(), kind: ExpiryKind::Certificate, at });
        }
    }
}

/// What is asked of clients, and its number.
#[derive(Clone)]
struct Clients(Option<Arc<ClientVerifier>>, TlsPolicyId);
