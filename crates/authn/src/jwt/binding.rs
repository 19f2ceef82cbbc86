//! Whether the caller is the one a token is bound to (RFC 8705 section 3).

use portcullis_core::{Moment, PeerCertificate, Reason, Rejection};
use portcullis_jose::Confirmation;

/// Why a token may not be used by this caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BindingError {
    #[error("the API takes only tokens bound to a certificate, and this one is not")]
    NotBound,
    #[error("the token is bound to a proof key, which cannot be checked")]
    Unsupported,
    #[error("the token is bound to a certificate, and the caller has none")]
    CertificateMissing,
    #[error("the token is bound to another certificate")]
    CertificateMismatch,
    #[error("the certificate does not count now: {0}")]
    CertificateObjected(&'static str, Reason),
}

impl From<BindingError> for Rejection {
    fn from(error: BindingError) -> Self {
        let reason = match error {
            BindingError::NotBound => Reason::TokenNotBound,
            BindingError::Unsupported => Reason::TokenBindingUnsupported,
            BindingError::CertificateMissing => Reason::CertificateMissing,
            BindingError::CertificateMismatch => Reason::CertificateMismatch,
            BindingError::CertificateObjected(_, reason) => reason,
        };
        Self::new(reason).because(error.to_string())
    }
}

/// Judges the binding. SECURITY: a token that says it is bound is held to it whether or not the API asks for bound
/// tokens, on every request, against the certificate of this very caller (CNF-03, CNF-06, AT-04). Every member
/// of `cnf` that is understood must hold (CNF-02).
pub(super) fn check(
    confirmation: Option<&Confirmation>,
    required: bool,
    certificate: Option<&PeerCertificate>,
    now: Moment,
) -> Result<(), Rejection> {
    judge(confirmation, required, certificate, now).map_err(Rejection::from)
}

fn judge(
    confirmation: Option<&Confirmation>,
    required: bool,
    certificate: Option<&PeerCertificate>,
    now: Moment,
) -> Result<(), BindingError> {
    let Some(confirmation) = confirmation else {
        return if required { Err(BindingError::NotBound) } else { Ok(()) };
    };
    if confirmation.jkt.is_some() {
        return Err(BindingError::Unsupported);
    }
    let certificate = certificate.ok_or(BindingError::CertificateMissing)?;
    if !confirmation.certificate_matches(&certificate.thumbprint) {
        return Err(BindingError::CertificateMismatch);
    }
    if let Some(reason) = certificate.objection(now) {
        return Err(BindingError::CertificateObjected(reason.code(), reason));
    }
    Ok(())
}
