//! Client certificates of which only the key counts (RFC 8705 section 2.2, CRT-07).
//!
//! The handshake proves that the peer holds the key, and that is all: self-signed certificates, those of unknown
//! authorities, those of version 1 and those of authorities themselves are taken. They lead to no named anchor, so a
//! policy that names authorities takes none of them; what they are good for is an exact key that a policy or a client
//! has pinned and says to be enough, and a token that is bound to the certificate. webpki parses no such certificate, so the key is taken
//! out here.

use std::sync::Arc;

use portcullis_authn::{Validity, peer_certificate};
use portcullis_core::{CertificateSource, PeerCertificate};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

use super::x509;

/// What the certificate says of itself: it must be readable, of a strong key, and valid now.
pub(super) fn judge(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<PeerCertificate, Error> {
    let facts = x509::certificate(leaf).ok_or(CertificateError::BadEncoding)?;
    if !facts.is_strong {
        return Err(CertificateError::ApplicationVerificationFailure.into());
    }
    if !facts.window.holds_at(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) {
        return Err(CertificateError::Expired.into());
    }
    let always = Validity { from: i64::MIN, until: i64::MAX };
    let peer = peer_certificate(leaf, always, Vec::new(), CertificateSource::Handshake)
        .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
    // SECURITY: whoever made the certificate wrote into it what they liked. Names nobody vouches for are not handed on,
    // so that no rule, binding of claims, URL or header can take them for the truth.
    Ok(PeerCertificate {
        subject: Vec::new(),
        subject_text: Arc::default(),
        issuer: Vec::new(),
        issuer_text: Arc::default(),
        serial: Arc::default(),
        alternative_names: Vec::new(),
        ..peer
    })
}

pub(super) fn verify_tls13(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, &key(leaf)?, signed, algorithms)
}

/// The same for TLS 1.2, which rustls offers for no bare key.
pub(super) fn verify_tls12(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = key(leaf)?;
    let key = RawPublicKeyEntity::try_from(&spki).map_err(|_unreadable| CertificateError::BadEncoding)?;
    let (_, candidates) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    for algorithm in *candidates {
        match key.verify_signature(*algorithm, message, signed.signature()) {
            Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
            // One scheme of TLS 1.2 stands for several curves.
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_) => return Err(CertificateError::BadSignature.into()),
        }
    }
    Err(CertificateError::BadSignature.into())
}

fn key(leaf: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let key = x509::public_key(leaf).ok_or(CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(key))
}
