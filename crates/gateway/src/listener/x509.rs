//! What path validation needs from certificates and revocation lists beyond what webpki tells.

use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;

/// A stretch of time, both ends included, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Window {
    /// All of time.
    pub(crate) const ALWAYS: Self = Self { from: i64::MIN, until: i64::MAX };

    /// The time in which both hold.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// Whether it holds at that second.
    pub(crate) const fn holds_at(self, seconds: i64) -> bool {
        self.from <= seconds && seconds <= self.until
    }
}

/// One certificate of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateFacts {
    pub(crate) window: Window,
    /// `basicConstraints` says `cA`.
    pub(crate) is_authority: bool,
    /// `keyUsage` is absent or holds `digitalSignature` (CRT-02).
    pub(crate) may_sign: bool,
    /// `keyUsage` is absent or holds `keyCertSign` (CRT-01).
    pub(crate) may_certify: bool,
    /// What `extendedKeyUsage` says.
    pub(crate) purposes: Purposes,
    /// An RSA key of 2048 bits or more, or a key of another kind (CRT-01).
    pub(crate) is_strong: bool,
    /// Its authority has written that nobody will ever say whether it was revoked (RVK-03, RFC 9608). SECURITY: an
    /// authority's certificate may not say so, and one that also names a list or a responder says two things, so it is
    /// taken for one that says nothing.
    pub(crate) is_never_revoked: bool,
}

/// Whether a certificate may authenticate a client (CRT-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purposes {
    /// It does not say.
    NotStated,
    /// It says so.
    ClientAuthentication,
    /// It names purposes, and this is none of them.
    Others,
}

/// The smallest RSA key.
const RSA_BITS: usize = 2_048;
/// `id-ce-noRevAvail` (RFC 9608 section 2).
const NO_REVOCATION_AVAILABLE: Oid<'static> = oid!(2.5.29.56);
/// `id-ce-freshestCRL` (RFC 5280 section 4.2.1.15).
const FRESHEST_LIST: Oid<'static> = oid!(2.5.29.46);
/// `id-ad-ocsp` (RFC 5280 section 4.2.2.1).
const RESPONDER: Oid<'static> = oid!(1.3.6.1.5.5.7.48.1);

/// Reads a certificate; `None` if it is not exactly one well-formed certificate.
pub(crate) fn certificate(der: &[u8]) -> Option<CertificateFacts> {
    let Ok(([], certificate)) = X509Certificate::from_der(der) else { return None };
    let usage = certificate.key_usage().ok()?;
    let purposes = match certificate.extended_key_usage().ok()? {
        None => Purposes::NotStated,
        Some(usage) if usage.value.client_auth => Purposes::ClientAuthentication,
        Some(_) => Purposes::Others,
    };
    let validity = certificate.validity();
    Some(CertificateFacts {
        window: Window { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() },
        is_authority: certificate.is_ca(),
        purposes,
        may_sign: usage.as_ref().is_none_or(|usage| usage.value.digital_signature()),
        is_strong: match certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => key.key_size() >= RSA_BITS,
            Ok(_) => true,
            Err(_) => false,
        },
        may_certify: usage.as_ref().is_none_or(|usage| usage.value.key_cert_sign()),
        is_never_revoked: is_never_revoked(&certificate),
    })
}

fn is_never_revoked(certificate: &X509Certificate<'_>) -> bool {
    let names_a_source = |extension: &X509Extension<'_>| match extension.parsed_extension() {
        ParsedExtension::CRLDistributionPoints(_) => true,
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.accessdescs.iter().any(|description| description.access_method == RESPONDER)
        }
        _ => extension.oid == FRESHEST_LIST,
    };
    !certificate.is_ca()
        && certificate.iter_extensions().any(|extension| extension.oid == NO_REVOCATION_AVAILABLE)
        && !certificate.iter_extensions().any(names_a_source)
}

/// The subject public key info of a certificate of any version, as it stands there.
pub(crate) fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let Ok(([], certificate)) = X509Certificate::from_der(der) else { return None };
    Some(certificate.public_key().raw.to_vec())
}

/// One revocation list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RevocationListFacts {
    pub(crate) this_update: i64,
    pub(crate) next_update: i64,
}

/// Reads a revocation list; `None` if it is not exactly one, or does not say when the next one comes (RFC 5280
/// section 5.1.2.5 demands it).
pub(crate) fn revocation_list(der: &[u8]) -> Option<RevocationListFacts> {
    let Ok(([], list)) = CertificateRevocationList::from_der(der) else { return None };
    Some(RevocationListFacts {
        this_update: list.last_update().timestamp(),
        next_update: list.next_update()?.timestamp(),
    })
}
