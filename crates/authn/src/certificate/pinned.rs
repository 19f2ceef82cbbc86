//! Which certificates are meant: authorities, names, keys.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_core::{
    Moment, NameAttribute, PeerCertificate, Reason, Rejection, Scheme, SubjectAlternativeName,
};

use super::whole_name::WholeName;

/// Which certificates are meant: those of named authorities that show what is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PinnedCertificates {
    /// The authorities of which one must vouch for it. None: any of those that the listeners know.
    pub(super) trust: Vec<Arc<str>>,
    pub(super) pins: Pins,
    /// Whether one of the keys pinned is enough, vouched for or not.
    pub(super) possession: bool,
}

/// What a certificate must show; all of it (CRT-05).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins {
    pub(super) subject: NameRule,
    pub(super) issuer: NameRule,
    pub(super) serials: Vec<Arc<[u8]>>,
    pub(super) names: Vec<NamePin>,
    pub(super) fingerprints: Vec<[u8; 32]>,
    pub(super) keys: Vec<[u8; 32]>,
}

impl Pins {
    /// Whether they say which key it must be: then it does not matter who certified it.
    pub(super) fn name_a_key(&self) -> bool {
        !self.fingerprints.is_empty() || !self.keys.is_empty()
    }
}

/// What a distinguished name must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameRule {
    /// Attributes, all of which it must have.
    pub(super) attributes: Vec<NamePins>,
    /// Whole names, of which it must be one.
    pub(super) whole: Vec<WholeName>,
}

impl NameRule {
    /// Whether any name will do.
    pub(super) const fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.whole.is_empty()
    }

    fn judge(&self, whose: &'static str, name: &[NameAttribute]) -> Result<(), Unacceptable> {
        if !self.whole.is_empty() && !self.whole.iter().any(|whole| whole.is(name)) {
            return Err(Unacceptable::WholeNameDiffers(whose));
        }
        self.attributes.iter().try_for_each(|pin| pin.judge(whose, name))
    }
}

/// The one value of an attribute of a distinguished name is one of these, exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamePins {
    pub(super) oid: Arc<str>,
    pub(super) values: Vec<Arc<str>>,
}

/// One of these alternative names is in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NamePin {
    Dns(Vec<Arc<str>>),
    Uri(Vec<Arc<str>>),
    Email(Vec<Arc<str>>),
    Ip(Vec<IpAddr>),
}

/// Why a certificate that proved possession of its key is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unacceptable {
    #[error("it does not count now: {}", .0.code())]
    Objected(Reason),
    #[error("its path does not lead to an anchor this API trusts")]
    Untrusted,
    #[error("nobody has looked at its path, and it is not said here that possession of the key is enough")]
    PossessionAlone,
    #[error("the {0} is not the one pinned")]
    WholeNameDiffers(&'static str),
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
    #[error("it is not registered for any client")]
    Unregistered,
    #[error("it is registered for more than one client")]
    Contested,
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
            | Unacceptable::PossessionAlone
            | Unacceptable::WholeNameDiffers(_)
            | Unacceptable::AttributeMissing(..)
            | Unacceptable::AttributeRepeated(..)
            | Unacceptable::AttributeDiffers(..)
            | Unacceptable::SerialDiffers
            | Unacceptable::KeyDiffers
            | Unacceptable::Unregistered
            | Unacceptable::Contested
            | Unacceptable::NameDiffers
            | Unacceptable::UriRepeated
            | Unacceptable::FingerprintDiffers => Reason::CertificateRefused,
        };
        Self::new(reason).of(Scheme::Certificate).because(error.to_string())
    }
}

impl PinnedCertificates {
    /// Exactly these certificates, whoever certified them; with `possession` also where nobody did.
    pub(super) fn of_certificates(fingerprints: Vec<[u8; 32]>, possession: bool) -> Self {
        Self { trust: Vec::new(), pins: Pins { fingerprints, ..Pins::default() }, possession }
    }

    /// All certificates of these keys, whoever certified them; with `possession` also where nobody did.
    pub(super) fn of_keys(keys: Vec<[u8; 32]>, possession: bool) -> Self {
        Self { trust: Vec::new(), pins: Pins { keys, ..Pins::default() }, possession }
    }

    /// Whether it names authorities, of which one must vouch for the certificate.
    pub(super) fn has_authorities(&self) -> bool {
        !self.trust.is_empty()
    }

    /// Whether it takes fewer than all certificates of its authorities.
    pub(super) const fn is_pinned(&self) -> bool {
        !(self.pins.subject.is_empty() && self.pins.names.is_empty() && self.pins.fingerprints.is_empty())
    }

    /// Whether every certificate that is addressed to the other is addressed to this one as well.
    pub(super) fn covers(&self, other: &Self) -> bool {
        !self.trust.is_empty()
            && !other.trust.is_empty()
            && other.trust.iter().all(|anchor| self.trust.contains(anchor))
    }

    /// Whether this very certificate is taken at this moment.
    pub(super) fn takes(&self, certificate: &PeerCertificate, now: Moment) -> bool {
        self.judge(certificate, now).is_ok()
    }

    /// Whether it would be taken at a moment of its life.
    pub(super) fn fits(&self, certificate: &PeerCertificate) -> bool {
        self.judge_names(certificate).is_ok()
    }

    /// Whether one of its authorities vouches for the certificate.
    pub(super) fn trusts(&self, certificate: &PeerCertificate) -> bool {
        certificate.trusted_by.iter().any(|anchor| self.trust.contains(anchor))
    }

    /// Everything, and the time.
    pub(super) fn judge(&self, certificate: &PeerCertificate, now: Moment) -> Result<(), Unacceptable> {
        if let Some(reason) = certificate.objection(now) {
            return Err(Unacceptable::Objected(reason));
        }
        self.judge_names(certificate)
    }

    /// Everything that does not change with time.
    pub(super) fn judge_names(&self, certificate: &PeerCertificate) -> Result<(), Unacceptable> {
        // SECURITY: without authorities one of the keys pinned must be its own. And a key alone is enough only where that is
        // written: a listener that looks at no path must not let those in whom their authority has revoked (CRT-07).
        if self.trust.is_empty() {
            if !self.pins.name_a_key() {
                return Err(Unacceptable::Untrusted);
            }
            if !self.possession && !certificate.is_vouched_for() {
                return Err(Unacceptable::PossessionAlone);
            }
        } else if !self.trusts(certificate) {
            return Err(Unacceptable::Untrusted);
        }
        self.pins.subject.judge("subject", &certificate.subject)?;
        self.pins.issuer.judge("issuer", &certificate.issuer)?;
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
