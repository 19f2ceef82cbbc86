//! Proofs of possession sent with access tokens (RFC 9449 section 7).
//!
//! A proof shows that whoever presents a token holds the key the token names, now, for this very request. Nothing of it
//! is ever remembered but that it was used: every request is judged from the beginning.

mod nonce;
mod spec;
#[cfg(test)]
mod tests;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};
use portcullis_core::{Moment, Reason, Rejection, Scheme};
use portcullis_jose::digest::{constant_time_eq, sha256};
use portcullis_jose::{Algorithm, Confirmation, KeyProof, Origin, ProofClaims, ProofError, Target};
use portcullis_store::ReplaySpace;

pub use nonce::Nonces;
pub use portcullis_jose::digest::NoRandomness;
pub(crate) use spec::DpopSpec;

use crate::chain::{Evidence, Use};

/// The header a proof travels in.
pub(crate) const DPOP: HeaderName = HeaderName::from_static("dpop");

/// How proofs are judged.
#[derive(Debug)]
pub(crate) struct Dpop {
    /// Whether a token must be bound to a key.
    pub(crate) required: bool,
    algorithms: Vec<Algorithm>,
    max_age_ms: i64,
    leeway_ms: i64,
    nonce_required: bool,
    origin: Option<Origin>,
    used: ReplaySpace,
    nonces: Nonces,
}

/// Why a proof does not prove it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Unproven {
    #[error("there is no proof")]
    Missing,
    #[error("there is more than one proof")]
    Several,
    #[error(transparent)]
    Malformed(#[from] ProofError),
    #[error("the proof's algorithm is not one that is taken here")]
    Algorithm,
    #[error("the proof is made with another key than the token's")]
    OtherKey,
    #[error("the proof is for another method")]
    OtherMethod,
    #[error("the proof is for another place")]
    OtherTarget,
    #[error("the proof is for another token, or for none")]
    OtherToken,
    #[error("the proof is too old, or its end has passed")]
    Stale,
    #[error("the proof lies in the future")]
    Future,
    #[error("the proof needs a nonce of this gateway")]
    NonceMissing,
    #[error("the proof's nonce is not one of this gateway, or too old")]
    NonceUnknown,
}

impl Unproven {
    const fn reason(&self) -> Reason {
        match self {
            Self::Missing
            | Self::Several
            | Self::Malformed(_)
            | Self::Algorithm
            | Self::OtherMethod
            | Self::OtherTarget
            | Self::OtherToken
            | Self::Stale
            | Self::Future => Reason::DpopProofInvalid,
            Self::OtherKey => Reason::DpopKeyMismatch,
            Self::NonceMissing | Self::NonceUnknown => Reason::DpopNonceRequired,
        }
    }
}

impl Dpop {
    /// The algorithms it takes, as a challenge names them (DPP-08).
    pub(crate) fn algorithms(&self) -> String {
        let names: Vec<_> = self.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        names.join(" ")
    }

    /// Whether the request proves that whoever sends this token holds the key it is bound to. SECURITY: to be asked
    /// when everything else about the token is good, because a proof is used up by it (DPP-06).
    pub(crate) fn check(
        &self,
        token: &[u8],
        bound: &Confirmation,
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        let refuse = |error: Unproven| {
            let rejection = Rejection::new(error.reason()).of(Scheme::Dpop).because(error.to_string());
            match error {
                Unproven::NonceMissing | Unproven::NonceUnknown => {
                    rejection.offering_nonce(self.nonces.current(evidence.now))
                }
                _ => rejection,
            }
        };
        let claims = self.read(token, bound, evidence).map_err(refuse)?;
        let fresh = self.check_nonce(&claims, evidence).map_err(refuse)?;
        let key = [bound.jkt.unwrap_or_default().as_slice(), claims.id.as_bytes()].concat();
        evidence.use_up(self.used(key, &claims, fresh, evidence.now))
    }

    /// Everything that follows from the proof and the request alone (RFC 9449 section 4.3, DPP-01 to DPP-05).
    fn read(
        &self,
        token: &[u8],
        bound: &Confirmation,
        evidence: &Evidence<'_>,
    ) -> Result<ProofClaims, Unproven> {
        let proof = KeyProof::parse(sole(&evidence.head.headers)?)?;
        if !self.algorithms.contains(&proof.algorithm()) {
            return Err(Unproven::Algorithm);
        }
        // Before the signature is checked: strangers' keys cost no more than a hash.
        if !bound.key_matches(proof.thumbprint()) {
            return Err(Unproven::OtherKey);
        }
        let claims = proof.verify()?;
        if *claims.method != *evidence.head.method.as_str() {
            return Err(Unproven::OtherMethod);
        }
        let target = self.target(evidence);
        if target.is_none() || target != Target::parse(&claims.uri) {
            return Err(Unproven::OtherTarget);
        }
        let hash = claims.token_hash.ok_or(Unproven::OtherToken)?;
        if !constant_time_eq(&hash, &sha256(token)) {
            return Err(Unproven::OtherToken);
        }
        self.check_times(&claims, evidence.now.unix_ms)?;
        Ok(claims)
    }

    /// Where the request was sent to. SECURITY: the path is the one that is routed and judged; scheme and authority are
    /// the configured ones, or else those of the connection and of the one host the request was routed by. Never
    /// those of a header that a stranger may write (DPP-04).
    fn target(&self, evidence: &Evidence<'_>) -> Option<Target> {
        let head = evidence.head;
        let origin = match &self.origin {
            Some(origin) => origin.clone(),
            None => {
                let authority = match head.uri.authority() {
                    Some(authority) => authority.as_str(),
                    None => head.headers.get(http::header::HOST)?.to_str().ok()?,
                };
                Origin::of_request(evidence.connection.tls.is_some(), authority)?
            }
        };
        Target::at(origin, head.uri.path())
    }

    fn check_times(&self, claims: &ProofClaims, now_ms: i64) -> Result<(), Unproven> {
        let latest = now_ms.saturating_add(self.leeway_ms);
        if claims.issued_ms > latest || claims.not_before_ms.is_some_and(|start| start > latest) {
            return Err(Unproven::Future);
        }
        let too_old = now_ms.saturating_sub(claims.issued_ms) >= self.max_age_ms;
        if too_old || claims.expires_ms.is_some_and(|end| now_ms >= end) {
            return Err(Unproven::Stale);
        }
        Ok(())
    }

    /// Whether the proof shows by a nonce that it was made after our start. One that has a nonce has a good one.
    fn check_nonce(&self, claims: &ProofClaims, evidence: &Evidence<'_>) -> Result<bool, Unproven> {
        match &claims.nonce {
            Some(nonce) if self.nonces.accepts(nonce, evidence.now) => Ok(true),
            Some(_) => Err(Unproven::NonceUnknown),
            None if self.nonce_required => Err(Unproven::NonceMissing),
            None => Ok(false),
        }
    }

    /// SECURITY: without a nonce, `iat` alone says whether an earlier run may have let the proof through, and
    /// that run may have taken it as long before `iat` as clocks may differ.
    fn used(&self, key: Vec<u8>, claims: &ProofClaims, fresh: bool, now: Moment) -> Use {
        let accepted_from_ms =
            if fresh { now.unix_ms } else { claims.issued_ms.saturating_sub(self.leeway_ms) };
        let end_ms = claims.issued_ms.saturating_add(self.max_age_ms);
        let until_ms = claims.expires_ms.map_or(end_ms, |end| end.min(end_ms));
        Use {
            space: self.used.clone(),
            key,
            issued: accepted_from_ms.div_euclid(1000),
            until: until_ms.saturating_add(999).div_euclid(1000),
            scheme: Scheme::Dpop,
            seen: Reason::DpopProofReplayed,
            over: Unproven::Stale.reason(),
            // Whether an earlier run took it is not known; with a nonce of ours the next one is known to be new.
            nonces: Some(self.nonces.clone()),
        }
    }
}

/// Writes `DPoP <token>` as `Bearer <token>`.
pub(crate) fn present_as_bearer(headers: &mut HeaderMap) {
    let Some(value) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return };
    let Some((scheme, token)) = value.split_at_checked("DPoP ".len()) else { return };
    if scheme.eq_ignore_ascii_case(b"DPoP ")
        && let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii_start()].concat())
    {
        headers.insert(AUTHORIZATION, value);
    }
}

/// The one proof of a request (DPP-01).
fn sole(headers: &HeaderMap) -> Result<&[u8], Unproven> {
    let mut fields = headers.get_all(DPOP).iter();
    let proof = fields.next().ok_or(Unproven::Missing)?;
    if fields.next().is_some() {
        return Err(Unproven::Several);
    }
    Ok(proof.as_bytes())
}
