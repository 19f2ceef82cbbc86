//! `certificate`: the caller's certificate names the caller.
//!
//! The listener has verified the path; here the API says which of the verified certificates it takes. Trust in a
//! certificate authority alone admits everybody it ever certified, so an alternative usually pins something else
//! as well (CRT-05).

pub(crate) mod name;
mod parse;
mod proxy;
mod spec;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_core::{
    AuthMethod, Identity, Moment, NameAttribute, PeerCertificate, Reason, Rejection, Scheme,
    SubjectAlternativeName,
};

pub use parse::{CertificateError, Validity, fingerprint_alone, peer_certificate, thumbprint, validity};
pub use proxy::{ProxyProof, ProxyProofSpec};
pub(crate) use spec::CertificateSpec;

use crate::chain::{Evidence, Outcome};
use crate::identity::is_name;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    trust: Vec<Arc<str>>,
    pins: Pins,
}

/// What a certificate must show; all of it (CRT-05).
#[derive(Clone, Debug, Default)]
struct Pins {
    subject: Vec<NamePins>,
    issuer: Vec<NamePins>,
    serials: Vec<Arc<[u8]>>,
    names: Vec<NamePin>,
    fingerprints: Vec<[u8; 32]>,
    keys: Vec<[u8; 32]>,
}

impl Pins {
    /// Whether they say which key it must be: then it does not matter who certified it.
    fn name_a_key(&self) -> bool {
        !self.fingerprints.is_empty() || !self.keys.is_empty()
    }
}

/// The one value of an attribute of a distinguished name is one of these, exactly.
#[derive(Clone, Debug)]
struct NamePins {
    oid: Arc<str>,
    values: Vec<Arc<str>>,
}

/// One of these alternative names is in the certificate.
#[derive(Clone, Debug)]
enum NamePin {
    Dns(Vec<Arc<str>>),
    Uri(Vec<Arc<str>>),
    Email(Vec<Arc<str>>),
    Ip(Vec<IpAddr>),
}

/// Why a certificate that proved possession of its key is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Unacceptable {
    #[error("it does not count now: {}", .0.code())]
    Objected(Reason),
    #[error("its path does not lead to an anchor this API trusts")]
    Untrusted,
    #[error("{0} attribute {1} is missing")]
    AttributeMissing(&'static str, Arc<str>),
    #[error("{0} attribute {1} is repeated where one value is meant")]
    AttributeRepeated(&'static str, Arc<str>),
    #[error("{0} attribute {1} has another value")]
    AttributeDiffers(&'static str, Arc<str>),
    #[error("its serial number is not one of those pinned")]
    SerialDiffers,
    #[error("its key is not one of those pinned")]
    KeyDiffers,
    #[error("no alternative name is one of those pinned")]
    NameDiffers,
    #[error("it names more than one URI where one is meant")]
    UriRepeated,
    #[error("its fingerprint is not one of those pinned")]
    FingerprintDiffers,
}

impl From<Unacceptable> for Rejection {
    fn from(error: Unacceptable) -> Self {
        let reason = match error {
            Unacceptable::Objected(reason) => reason,
            Unacceptable::Untrusted
            | Unacceptable::AttributeMissing(..)
            | Unacceptable::AttributeRepeated(..)
            | Unacceptable::AttributeDiffers(..)
            | Unacceptable::SerialDiffers
            | Unacceptable::KeyDiffers
            | Unacceptable::NameDiffers
            | Unacceptable::UriRepeated
            | Unacceptable::FingerprintDiffers => Reason::CertificateRefused,
        };
        Self::new(reason).of(Scheme::Certificate).because(error.to_string())
    }
}

impl ClientCertificate {
    /// Whether the caller's certificate comes from an authority this alternative is about. Anchors tell
    /// certificates apart the way issuers tell tokens apart; pins judge.
    pub(crate) fn is_addressed(&self, evidence: &Evidence<'_>) -> bool {
        evidence.certificate.is_some_and(|certificate| match self.trust.is_empty() {
            // Without authorities its own key tells whether it is meant.
            true => self.judge_names(certificate).is_ok(),
            false => self.trusts(certificate),
        })
    }

    /// Whether it takes fewer than all certificates of its authorities.
    pub(crate) const fn is_pinned(&self) -> bool {
        !(self.pins.subject.is_empty() && self.pins.names.is_empty() && self.pins.fingerprints.is_empty())
    }

    /// Whether every certificate that is addressed to the other is addressed to this one as well.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        !self.trust.is_empty()
            && !other.trust.is_empty()
            && other.trust.iter().all(|anchor| self.trust.contains(anchor))
    }

    /// Judges the caller's certificate.
    pub(crate) fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        let Some(certificate) = evidence.certificate else { return Outcome::Absent };
        match self.judge(certificate, evidence.now) {
            Ok(()) => Outcome::Verified(evidence.worker.certificate_identity(certificate), None),
            Err(error) => Outcome::Rejected(error.into()),
        }
    }

    /// Whether this very certificate is taken at this moment.
    fn takes(&self, certificate: &PeerCertificate, now: Moment) -> bool {
        self.judge(certificate, now).is_ok()
    }

    /// Whether it would be taken at a moment of its life.
    fn fits(&self, certificate: &PeerCertificate) -> bool {
        self.judge_names(certificate).is_ok()
    }

    fn trusts(&self, certificate: &PeerCertificate) -> bool {
        certificate.trusted_by.iter().any(|anchor| self.trust.contains(anchor))
    }

    fn judge(&self, certificate: &PeerCertificate, now: Moment) -> Result<(), Unacceptable> {
        if let Some(reason) = certificate.objection(now) {
            return Err(Unacceptable::Objected(reason));
        }
        self.judge_names(certificate)
    }

    /// Everything that does not change with time.
    fn judge_names(&self, certificate: &PeerCertificate) -> Result<(), Unacceptable> {
        // SECURITY: without authorities nobody has looked at its path, so one of the keys pinned must be its own (CRT-07).
        let by_key = self.trust.is_empty() && self.pins.name_a_key();
        if !by_key && !self.trusts(certificate) {
            return Err(Unacceptable::Untrusted);
        }
        self.pins.subject.iter().try_for_each(|pin| pin.judge("subject", &certificate.subject))?;
        self.pins.issuer.iter().try_for_each(|pin| pin.judge("issuer", &certificate.issuer))?;
        if !self.pins.serials.is_empty() && !self.pins.serials.contains(&certificate.serial) {
            return Err(Unacceptable::SerialDiffers);
        }
        self.pins.names.iter().try_for_each(|pin| pin.judge(certificate))?;
        let fingerprints = &self.pins.fingerprints;
        if !fingerprints.is_empty() && !fingerprints.contains(&certificate.thumbprint) {
            return Err(Unacceptable::FingerprintDiffers);
        }
        let keys = &self.pins.keys;
        if !keys.is_empty() && !certificate.key_thumbprint.is_some_and(|key| keys.contains(&key)) {
            return Err(Unacceptable::KeyDiffers);
        }
        Ok(())
    }
}

impl NamePins {
    /// SECURITY: a repeated attribute is refused even if one of its values fits, because another reader of the
    /// same certificate may take the other one.
    fn judge(&self, whose: &'static str, name: &[NameAttribute]) -> Result<(), Unacceptable> {
        let mut values = name.iter().filter(|attribute| attribute.oid == self.oid);
        match (values.next(), values.next()) {
            (None, _) => Err(Unacceptable::AttributeMissing(whose, self.oid.clone())),
            (Some(_), Some(_)) => Err(Unacceptable::AttributeRepeated(whose, self.oid.clone())),
            (Some(attribute), None) if self.values.contains(&attribute.value) => Ok(()),
            (Some(_), None) => Err(Unacceptable::AttributeDiffers(whose, self.oid.clone())),
        }
    }
}

impl NamePin {
    /// Host names are compared without regard to case (RFC 4343) and without wildcards, everything else exactly.
    /// A URI names a workload, so there must be exactly one.
    fn judge(&self, certificate: &PeerCertificate) -> Result<(), Unacceptable> {
        use SubjectAlternativeName::{Dns, Email, Ip, Uri};
        let names = &certificate.alternative_names;
        let fits = match self {
            Self::Dns(pinned) => names.iter().any(
                |name| matches!(name, Dns(name) if pinned.iter().any(|pin| pin.eq_ignore_ascii_case(name))),
            ),
            Self::Email(pinned) => {
                names.iter().any(|name| matches!(name, Email(name) if pinned.contains(name)))
            }
            Self::Ip(pinned) => names.iter().any(|name| matches!(name, Ip(name) if pinned.contains(name))),
            Self::Uri(pinned) => {
                let mut uris = names.iter().filter(|name| matches!(name, Uri(_)));
                match (uris.next(), uris.next()) {
                    (Some(_), Some(_)) => return Err(Unacceptable::UriRepeated),
                    (Some(Uri(name)), None) => pinned.contains(name),
                    _ => false,
                }
            }
        };
        if fits { Ok(()) } else { Err(Unacceptable::NameDiffers) }
    }
}

/// The thumbprint in hex, as tools print it.
pub(crate) fn thumbprint_text(certificate: &PeerCertificate) -> String {
    let mut text = String::with_capacity(64);
    name::push_hex(&mut text, &certificate.thumbprint);
    text
}

/// What a certificate alone says about its holder. The key is the thumbprint, because names are only as unique as
/// each authority makes them; a renewed certificate is thus another caller, unless `identity` names the callers
/// by an attribute of the subject. The readable subject is the common name if there is exactly one, else the
/// whole subject.
pub(crate) fn identity(certificate: &Arc<PeerCertificate>) -> Identity {
    let mut names = certificate.subject_values(name::COMMON_NAME);
    let subject = match (names.next(), names.next()) {
        (Some(name), None) if is_name(name) => name.clone(),
        _ if is_name(&certificate.subject_text) => certificate.subject_text.clone(),
        _ => thumbprint_text(certificate).into(),
    };
    Identity {
        method: AuthMethod::Certificate,
        key: format!("certificate:{}", thumbprint_text(certificate)).into(),
        subject,
        issuer: None,
        client: None,
        claims: Arc::default(),
        scopes: Arc::default(),
        certificate: Some(certificate.clone()),
        expires_at: Some(certificate.valid_until),
    }
}
