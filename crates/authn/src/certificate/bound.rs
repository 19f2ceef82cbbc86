//! Certificates that another credential is bound to: it counts only together with one of them.

use portcullis_core::{Diagnostic, Moment, PeerCertificate, Place, Reason};

use super::PinnedCertificates;
use super::pinned::Unacceptable;

/// What must come with a credential.
#[derive(Clone, Debug)]
pub(crate) struct CertificateBinding(PinnedCertificates);

impl CertificateBinding {
    pub(super) const fn new(pinned: PinnedCertificates) -> Self {
        Self(pinned)
    }

    /// Judges the caller's certificate, on every request. SECURITY: no certificate, another one, and one that does not
    /// count now are all refusals (trap 1), in this order: whose it is comes before what is wrong with it.
    pub(crate) fn check(&self, certificate: Option<&PeerCertificate>, now: Moment) -> Result<(), Unbound> {
        let certificate = certificate.ok_or(Unbound::None)?;
        self.0.judge_names(certificate).map_err(Unbound::Another)?;
        certificate.objection(now).map_or(Ok(()), |reason| Err(Unbound::Objected(reason)))
    }
}

/// Why a credential does not count with the caller's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbound {
    #[error("it is bound to a certificate, and there is none")]
    None,
    #[error("it is bound to another certificate: {0}")]
    Another(Unacceptable),
    #[error("the certificate it is bound to does not count now")]
    Objected(Reason),
}

/// Where a binding is written that nothing could ever satisfy.
pub(super) fn never_asked(place: Place) -> Diagnostic {
    Diagnostic::error(
        "certificate_never_asked",
        place,
        "no listener asks for client certificates, so nobody could ever show this one",
    )
    .note("add `client_certificates:` with `ask` to a listener's `tls`, or `client_certificate_header`")
}

/// Where a key is pinned whose holder nobody could vouch for, and it is not said that this does not matter.
pub(super) fn never_vouched(place: Place) -> Diagnostic {
    Diagnostic::error(
        "certificate_never_vouched",
        place,
        "no listener knows an authority, so nobody could vouch for this certificate",
    )
    .note("add `verify: possession` beside it, if it is enough that the caller holds the key")
}
