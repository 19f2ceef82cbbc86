//! Whether whoever presents a token is the one it is bound to (RFC 8705 section 3, RFC 9449 section 7).
//!
//! The same for every kind of token: what a token is bound to is in its `cnf`, whoever read that.

mod spec;

use http::request::Parts;
use portcullis_core::{Challenge, Identity, Moment, PeerCertificate, Reason, Rejection, Scheme};
use portcullis_jose::Confirmation;
use std::sync::Arc;

pub(crate) use spec::BindingSpec;

use crate::chain::{Evidence, Outcome};
use crate::dpop::Dpop;
use crate::identity::Named;
use crate::place::{Place, Places};

/// What tokens must be bound to, and how that is shown.
#[derive(Debug, Default)]
pub(crate) struct Binding {
    demands: Demands,
    dpop: Option<Box<Dpop>>,
}

/// What a token must be bound to, whatever it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demands {
    /// To the caller's certificate.
    pub(crate) certificate: bool,
    /// To a key the caller proves to hold.
    pub(crate) key: bool,
    /// To either.
    pub(crate) holder: bool,
    /// A certificate is needed for something else, and not bound by `cnf`.
    pub(crate) certificate_needed: bool,
}

/// How a token was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presented {
    /// As if whoever has it may use it.
    Bearer,
    /// With the word that announces a proof.
    Dpop,
}

/// Why a token may not be used by whoever presents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BindingError {
    #[error("the API takes only tokens bound to their holder in another way, and this one is not")]
    NotBound,
    #[error("the token is presented with a proof, and is not bound to a key")]
    NotBoundToKey,
    #[error("the token is bound to a proof key, and the API takes no proofs")]
    Unsupported,
    #[error("the token is bound to a proof key, and presented as if it were not")]
    Downgraded,
    #[error("the token is bound to a certificate, and there is none")]
    CertificateMissing,
    #[error("the token is bound to another certificate")]
    CertificateMismatch,
    #[error("the certificate does not count now: {0}")]
    CertificateObjected(&'static str, Reason),
}

impl From<BindingError> for Rejection {
    fn from(error: BindingError) -> Self {
        let reason = match error {
            BindingError::NotBound | BindingError::NotBoundToKey => Reason::TokenNotBound,
            BindingError::Unsupported => Reason::TokenBindingUnsupported,
            BindingError::Downgraded => Reason::DpopRequired,
            BindingError::CertificateMissing => Reason::CertificateMissing,
            BindingError::CertificateMismatch => Reason::CertificateMismatch,
            BindingError::CertificateObjected(_, reason) => reason,
        };
        Self::new(reason).because(error.to_string())
    }
}

/// Finds the one token of a request and has it verified; a refusal says in whose scheme it came.
pub(crate) async fn present(
    places: &Places,
    head: &Parts,
    verify: impl AsyncFnOnce(&[u8], Presented) -> Result<(Arc<Identity>, Option<Named>), Rejection>,
) -> Outcome {
    let found = match places.find(head) {
        Ok(Some(found)) => found,
        Ok(None) => return Outcome::Absent,
        Err(error) => return Outcome::Rejected(error.rejection(Scheme::Bearer)),
    };
    let presented = Presented::at(found.place);
    match verify(&found.credential, presented).await {
        Ok((identity, named)) => Outcome::Verified(identity, named),
        Err(rejection) => Outcome::Rejected(rejection.of(presented.scheme())),
    }
}

impl Presented {
    /// How a token is presented that was found at that place.
    fn at(place: &Place) -> Self {
        match place {
            Place::Scheme(_, scheme) if **scheme == *DPOP_SCHEME => Self::Dpop,
            _ => Self::Bearer,
        }
    }

    /// The scheme whose challenge says what is wrong with it.
    pub(crate) const fn scheme(self) -> Scheme {
        match self {
            Self::Bearer => Scheme::Bearer,
            Self::Dpop => Scheme::Dpop,
        }
    }
}

/// The word in `Authorization`, in the lower case that places are kept in.
const DPOP_SCHEME: &str = "dpop";

impl Binding {
    /// Where, beside its own place, a token may stand: behind the word `DPoP`, if proofs are taken.
    fn further_place(&self) -> Option<Place> {
        self.dpop.as_ref().map(|_| Place::authorization(DPOP_SCHEME))
    }

    /// What a caller is challenged with who shows no token (DPP-08).
    pub(crate) fn challenges(&self, realm: &Arc<str>) -> Vec<Challenge> {
        let bearer = || Challenge::new(Scheme::Bearer, realm.clone());
        let Some(dpop) = &self.dpop else { return vec![bearer()] };
        let proof = Challenge::new(Scheme::Dpop, realm.clone()).with("algs", dpop.algorithms());
        if dpop.required { vec![proof] } else { vec![bearer(), proof] }
    }

    /// Whether requests may carry proofs.
    pub(crate) const fn takes_proofs(&self) -> bool {
        self.dpop.is_some()
    }

    /// Judges a token that is otherwise good. SECURITY: a token that says it is bound is held to it whether or not
    /// the API asks for bound tokens, on every request, against the certificate and the proof of this very request
    /// (CNF-03, CNF-06, AT-04, DPP-07). Every member of `cnf` that is understood must hold (CNF-02). A proof is used
    /// up here, so nothing that may refuse the token for another reason comes after.
    pub(crate) fn check(
        &self,
        token: &[u8],
        presented: Presented,
        confirmation: Option<&Confirmation>,
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        self.judge(presented, confirmation, evidence.certificate.map(AsRef::as_ref), evidence.now)?;
        match (confirmation, &self.dpop) {
            (Some(confirmation), Some(dpop)) if confirmation.jkt.is_some() => {
                dpop.check(token, confirmation, evidence)
            }
            _ => Ok(()),
        }
    }

    fn judge(
        &self,
        presented: Presented,
        confirmation: Option<&Confirmation>,
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<(), BindingError> {
        let by_key = confirmation.is_some_and(|bound| bound.jkt.is_some());
        let by_certificate = confirmation.is_some_and(|bound| bound.x5t_s256.is_some());
        // What cannot be checked is told before what is missing.
        if by_key && !self.takes_proofs() {
            return Err(BindingError::Unsupported);
        }
        let Demands { certificate: needs_certificate, key: needs_key, holder, .. } = self.demands;
        if (needs_key && !by_key)
            || (needs_certificate && !by_certificate)
            || (holder && !by_key && !by_certificate)
        {
            return Err(BindingError::NotBound);
        }
        match (presented, by_key) {
            (Presented::Bearer, true) => return Err(BindingError::Downgraded),
            (Presented::Dpop, false) => return Err(BindingError::NotBoundToKey),
            (Presented::Bearer, false) | (Presented::Dpop, true) => {}
        }
        let Some(confirmation) = confirmation.filter(|_| by_certificate) else { return Ok(()) };
        let certificate = certificate.ok_or(BindingError::CertificateMissing)?;
        if !confirmation.certificate_matches(&certificate.thumbprint) {
            return Err(BindingError::CertificateMismatch);
        }
        if let Some(reason) = certificate.objection(now) {
            return Err(BindingError::CertificateObjected(reason.code(), reason));
        }
        Ok(())
    }
}
