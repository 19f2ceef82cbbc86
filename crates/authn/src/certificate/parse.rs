//! From the DER of a handshake to the certificate the rest of the gateway speaks of.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_core::{CertificateSource, PeerCertificate, Standing, SubjectAlternativeName};
use portcullis_jose::digest::sha256;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::name;

/// Why a certificate's bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not one well-formed X.509 certificate.
    #[error("not one well-formed X.509 certificate")]
    Malformed,
    /// An extension occurs twice, so readers could disagree about it.
    #[error("an extension occurs more than once")]
    ExtensionRepeated,
}

/// A stretch of time, both ends included, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub from: i64,
    /// Last second.
    pub until: i64,
}

impl Validity {
    /// The time in which both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

/// SHA-256 of a certificate's DER: `x5t#S256` before its encoding (RFC 8705 section 3.1).
pub fn thumbprint(der: &[u8]) -> [u8; 32] {
    sha256(der)
}

/// A certificate of which a trusted proxy tells the fingerprint and nothing else. It satisfies bindings and pinned
/// fingerprints, and no pin on a name; how long it is valid only the proxy knows.
pub fn fingerprint_alone(thumbprint: [u8; 32], trusted_by: Vec<Arc<str>>) -> PeerCertificate {
    PeerCertificate {
        der: Arc::default(),
        thumbprint,
        key_thumbprint: None,
        subject: Vec::new(),
        subject_text: Arc::default(),
        issuer_text: Arc::default(),
        issuer: Vec::new(),
        serial: Arc::default(),
        alternative_names: Vec::new(),
        valid_from: i64::MIN,
        valid_until: i64::MAX,
        trusted_by,
        source: CertificateSource::Proxy,
        issuer_der: None,
        standing: Standing::Good,
    }
}

/// The validity of one certificate of a path: the gateway joins those of all of them (TLS-05).
///
/// # Errors
/// The bytes are not one certificate.
pub fn validity(der: &[u8]) -> Result<Validity, CertificateError> {
    Ok(own_validity(&parse(der)?))
}

/// Parses the leaf certificate of a peer, once, at the handshake.
///
/// `path` is the time in which the rest of its path is valid and its revocation lists are current;
/// `trusted_by` the named anchors the path leads to. Both are the verifier's findings: nothing here builds or
/// checks a path. The thumbprint is taken over the bytes as they came (CRT-08, RFC 8705 section 3.1).
///
/// # Errors
/// The bytes are not one certificate, or name an extension twice.
pub fn peer_certificate(
    der: &[u8],
    path: Validity,
    trusted_by: Vec<Arc<str>>,
    source: CertificateSource,
) -> Result<PeerCertificate, CertificateError> {
    let certificate = parse(der)?;
    let valid = own_validity(&certificate).and(path);
    Ok(PeerCertificate {
        der: der.into(),
        thumbprint: sha256(der),
        key_thumbprint: Some(sha256(certificate.public_key().raw)),
        subject: name::attributes(certificate.subject()),
        subject_text: name::text(certificate.subject()).into(),
        issuer_text: name::text(certificate.issuer()).into(),
        issuer: name::attributes(certificate.issuer()),
        serial: serial(certificate.raw_serial()).into(),
        alternative_names: alternative_names(&certificate)?,
        valid_from: valid.from,
        valid_until: valid.until,
        trusted_by,
        source,
        issuer_der: None,
        standing: Standing::Good,
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Malformed),
    }
}

fn own_validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
}

fn serial(raw: &[u8]) -> &[u8] {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    raw.get(zeros..).unwrap_or_default()
}

/// SECURITY: a name of a kind we do not know, or whose bytes are not what its kind demands, is left out: it can
/// then satisfy no pin.
fn alternative_names(
    certificate: &X509Certificate<'_>,
) -> Result<Vec<SubjectAlternativeName>, CertificateError> {
    certificate.extensions_map().map_err(|_| CertificateError::ExtensionRepeated)?;
    let names = certificate.iter_extensions().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    Ok(names.flatten().filter_map(alternative_name).collect())
}

fn alternative_name(name: &GeneralName<'_>) -> Option<SubjectAlternativeName> {
    let clean = |text: &str| -> Option<Arc<str>> {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.into())
    };
    match name {
        GeneralName::DNSName(text) => clean(text).map(SubjectAlternativeName::Dns),
        GeneralName::URI(text) => clean(text).map(SubjectAlternativeName::Uri),
        GeneralName::RFC822Name(text) => clean(text).map(SubjectAlternativeName::Email),
        GeneralName::IPAddress(bytes) => address(bytes).map(SubjectAlternativeName::Ip),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
