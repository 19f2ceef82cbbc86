//! Why a token's claims are refused.

use std::sync::Arc;

use portcullis_core::{Reason, Rejection};

/// A rule that a token breaks. The texts name claims but never repeat what stood in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// `typ` is not one this issuer's tokens have (JWT-30).
    #[error("`typ` is not the type of this issuer's tokens")]
    OtherType,
    /// `cty` is not one this issuer's tokens have (JWT-31).
    #[error("`cty` is not the content type of this issuer's tokens")]
    OtherContentType,
    /// It carries claims of an ID token (JWT-32).
    #[error("the token looks like an ID token")]
    IdToken,
    /// A claim that must be there is not.
    #[error("the claim `{0}` is missing")]
    Missing(Arc<str>),
    /// A registered claim is of the wrong kind, empty, too long or out of range.
    #[error("the claim `{0}` is malformed")]
    Malformed(&'static str),
    /// `iss` is somebody else (JWT-25).
    #[error("`iss` is not this issuer")]
    OtherIssuer,
    /// `aud` names somebody else (JWT-27).
    #[error("`aud` names somebody else")]
    OtherAudience,
    /// `exp` has passed (JWT-21).
    #[error("`exp` has passed")]
    Expired,
    /// `nbf` has not come (JWT-22).
    #[error("`nbf` has not come yet")]
    NotYetValid,
    /// `iat` lies in the future (JWT-22).
    #[error("`iat` lies in the future")]
    IssuedInFuture,
    /// From `iat` to `exp` is longer than the issuer's tokens may live (JWT-24).
    #[error("the token lives longer than this issuer's tokens may")]
    LifetimeTooLong,
    /// It was issued too long ago (JWT-24).
    #[error("the token is older than this issuer's tokens may be")]
    TooOld,
}

impl From<ClaimError> for Rejection {
    fn from(error: ClaimError) -> Self {
        let reason = match error {
            ClaimError::OtherType | ClaimError::OtherContentType | ClaimError::IdToken => {
                Reason::TokenTypeRefused
            }
            ClaimError::Missing(_) | ClaimError::Malformed(_) => Reason::TokenClaimInvalid,
            ClaimError::OtherIssuer => Reason::TokenIssuerRefused,
            ClaimError::OtherAudience => Reason::TokenAudienceRefused,
            ClaimError::Expired => Reason::TokenExpired,
            ClaimError::NotYetValid | ClaimError::IssuedInFuture => Reason::TokenNotYetValid,
            ClaimError::LifetimeTooLong | ClaimError::TooOld => Reason::TokenLifetimeRefused,
        };
        Self::new(reason).because(error.to_string())
    }
}
