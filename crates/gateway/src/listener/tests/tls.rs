//! Certificates made for a test, and a client that uses them.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::client::ClientSessionStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Rig;

/// A chain and its key, PEM, and the leaf's serial number.
#[derive(Clone)]
pub(super) struct Credential {
    pub(super) chain: String,
    pub(super) key: String,
    pub(super) serial: u64,
}

impl Credential {
    pub(super) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<_, _>>().expect("PEM")
    }
}

/// A certificate authority, possibly below another one.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    own: String,
    /// What a leaf below it sends along: the intermediates up to, and without, the root.
    above: String,
}

pub(super) fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Valid from 2020 to 2040.
pub(super) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

pub(super) fn client_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self::root(authority_params(name))
    }

    pub(super) fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), own, above: String::new() }
    }

    /// An authority below this one.
    pub(super) fn intermediate(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let own = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let above = format!("{own}{}", self.above);
        Self { issuer: Issuer::new(params, key), own, above }
    }

    pub(super) fn pem(&self) -> &str {
        &self.own
    }

    pub(super) fn sign(&self, params: CertificateParams) -> Credential {
        let key = KeyPair::generate().expect("a key");
        let (chain, serial) = self.certify(params, &key);
        Credential { chain, key: key.serialize_pem(), serial }
    }

    /// A certificate for somebody else's key, and its serial number.
    pub(super) fn certify(&self, mut params: CertificateParams, key: &impl PublicKeyData) -> (String, u64) {
        let serial = u64::from_be_bytes(std::array::from_fn(|byte| key.der_bytes()[byte + 8])) >> 1;
        params.serial_number = Some(SerialNumber::from(serial));
        let leaf = params.signed_by(key, &self.issuer).expect("a certificate").pem();
        (format!("{leaf}{}", self.above), serial)
    }

    pub(super) fn server(&self, names: &[&str]) -> Credential {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names).expect("names");
        (server.not_before, server.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(server)
    }

    pub(super) fn client(&self, name: &str) -> Credential {
        self.sign(client_params(name))
    }

    /// A revocation list that is due to be replaced in 2039.
    pub(super) fn revoking(&self, revoked: &[&Credential]) -> String {
        self.revoking_between(revoked, 2021, 2039)
    }

    pub(super) fn revoking_between(&self, revoked: &[&Credential], from: i32, until: i32) -> String {
        let revoked = revoked.iter().map(|credential| RevokedCertParams {
            serial_number: SerialNumber::from(credential.serial),
            revocation_time: date_time_ymd(from, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// A TLS client that takes any server.
pub(super) struct Client {
    pub(super) config: ClientConfig,
    pub(super) server_name: &'static str,
}

impl Client {
    pub(super) fn new(certificate: Option<&Credential>) -> Self {
        Self::speaking(certificate, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub(super) fn speaking(
        certificate: Option<&Credential>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let mut config = match certificate {
            Some(credential) => {
                let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(credential.certificates(), key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Self { config, server_name: "api.bank.example" }
    }

    pub(super) fn named(mut self, server_name: &'static str) -> Self {
        self.server_name = server_name;
        self
    }

    pub(super) fn offering(mut self, protocols: &[&[u8]]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self
    }

    pub(super) async fn connect(&self, rig: &Rig) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.server_name).expect("a name");
        TlsConnector::from(Arc::new(self.config.clone())).connect(name, rig.connect().await).await
    }

    /// Makes one request. A handshake that the server refuses shows here: with TLS 1.3 the client's side of it
    /// is complete before the server has seen the certificate.
    pub(super) async fn get(&self, rig: &Rig) -> io::Result<String> {
        let mut stream = self.connect(rig).await?;
        read(&mut stream).await
    }
}

pub(super) async fn read(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client that offers the sessions of one server name to every other.
#[derive(Debug)]
pub(super) struct Promiscuous(rustls::client::ClientSessionMemoryCache);

impl Promiscuous {
    pub(super) fn store() -> rustls::client::Resumption {
        rustls::client::Resumption::store(Arc::new(Self(rustls::client::ClientSessionMemoryCache::new(32))))
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("one.example").expect("a name")
    }
}

impl ClientSessionStore for Promiscuous {
    fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}
