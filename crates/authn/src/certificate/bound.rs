//! Certificates that another credential is bound to: it counts only together with one of them.

use portcullis_core::{Moment, PeerCertificate, Place, Reason, Rejection};

use super::PinnedCertificates;

/// What must come with a credential.
#[derive(Clone, Debug)]
pub(crate) struct CertificateBinding(PinnedCertificates);

impl CertificateBinding {
    pub(super) const fn new(pinned: PinnedCertificates) -> Self {
        Self(pinned)
    }

    /// Judges the caller's certificate, on every request. SECURITY: no certificate, another one, and one that does not
    /// count now are all refusals (trap 1), in this order: whose it is comes before what is wrong with it.
    pub(crate) fn check(&self, certificate: Option<&PeerCertificate>, now: Moment) -> Result<(), Rejection> {
        let Some(certificate) = certificate else {
            return Err(Rejection::new(Reason::CertificateMissing)
                .because("the credential is bound to a certificate, and there is none"));
        };
        if let Err(why) = self.0.judge_names(certificate) {
            return Err(Rejection::new(Reason::CertificateMismatch)
                .because(format!("the credential is bound to another certificate: {why}")));
        }
        match certificate.objection(now) {
            Some(reason) => Err(Rejection::new(reason).because("the certificate does not count now")),
            None => Ok(()),
        }
    }
}

/// Where a binding is written that nothing could ever satisfy.
pub(super) fn never_asked(place: Place) -> portcullis_core::Diagnostic {
    portcullis_core::Diagnostic::error(
        "certificate_never_asked",
        place,
        "no listener asks for client certificates, so nobody could ever show this one",
    )
    .note("add `client_certificates:` with `ask` to a listener's `tls`, or `client_certificate_header`")
}
