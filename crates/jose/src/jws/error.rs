//! Why a token is not acceptable before anybody looks at its claims.

use std::fmt;

use portcullis_core::json::JsonError;
use portcullis_core::{Reason, Rejection};

/// A part of a compact JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The protected header.
    Header,
    /// The claims.
    Payload,
    /// The signature.
    Signature,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

/// Why bytes are not a token that could be verified. The texts may be logged: they never repeat the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than the limit (JWT-01).
    #[error("the token is too large")]
    TooLarge,
    /// The header alone is longer than its limit (JWT-01).
    #[error("the token's header is too large")]
    HeaderTooLarge,
    /// A byte outside the alphabet of compact serialization (JWT-02).
    #[error("the token has a character that a compact token cannot have")]
    NotCompact,
    /// Neither three segments nor five (JWT-02).
    #[error("the token does not have three segments")]
    SegmentCount,
    /// Five segments: a JWE (JWT-02).
    #[error("the token is encrypted")]
    Encrypted,
    /// An unsecured JWS.
    #[error("the token has no signature")]
    SignatureMissing,
    /// No key that we take makes signatures that long.
    #[error("the token's signature is too large")]
    SignatureTooLarge,
    /// A segment is not strict base64url (JWT-03).
    #[error("the token's {0} is not strict base64url")]
    Base64(Segment),
    /// A segment is not one strict JSON object (JWT-04).
    #[error("the token's {0} is not acceptable: {1}")]
    Json(Segment, JsonError),
    /// A header member is missing or of the wrong kind.
    #[error("the token's header member `{0}` is missing or malformed")]
    HeaderMember(&'static str),
    /// `alg` names nothing that we verify; `none` is among these (JWT-10).
    #[error("the token's algorithm is not one that is verified here")]
    AlgorithmUnknown,
    /// `crit` breaks its own rules (JWT-05).
    #[error("the token's `crit` is malformed")]
    CriticalMalformed,
    /// `crit` names an extension; we understand none (JWT-05).
    #[error("the token demands an extension that is not understood")]
    CriticalUnknown,
    /// `b64` is there and is not `true` (JWT-05, RFC 7797).
    #[error("the token's payload is not encoded")]
    PayloadUnencoded,
    /// `zip` is there: nothing is ever decompressed (JWT-08).
    #[error("the token says it is compressed")]
    Compressed,
}

impl From<JwsError> for Rejection {
    fn from(error: JwsError) -> Self {
        let reason = match error {
            JwsError::AlgorithmUnknown => Reason::TokenAlgorithmRefused,
            JwsError::TooLarge
            | JwsError::HeaderTooLarge
            | JwsError::NotCompact
            | JwsError::SegmentCount
            | JwsError::Encrypted
            | JwsError::SignatureMissing
            | JwsError::SignatureTooLarge
            | JwsError::Base64(_)
            | JwsError::Json(..)
            | JwsError::HeaderMember(_)
            | JwsError::CriticalMalformed
            | JwsError::CriticalUnknown
            | JwsError::PayloadUnencoded
            | JwsError::Compressed => Reason::TokenMalformed,
        };
        Self::new(reason).because(error.to_string())
    }
}

/// Why a key did not verify a token. To the caller these are one refusal (ANS-06).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureInvalid {
    /// The key is not for the token's algorithm (JWT-12).
    #[error("the key is not for the token's algorithm")]
    AlgorithmNotOfKey,
    /// `x5t#S256` names another certificate than the key's (JWT-19).
    #[error("the token names another certificate than the key's")]
    OtherCertificate,
    /// The signature is not this key's over these bytes.
    #[error("the signature is wrong")]
    Wrong,
}

impl From<SignatureInvalid> for Rejection {
    fn from(error: SignatureInvalid) -> Self {
        let reason = match error {
            SignatureInvalid::AlgorithmNotOfKey
            | SignatureInvalid::OtherCertificate
            | SignatureInvalid::Wrong => Reason::TokenSignatureInvalid,
        };
        Self::new(reason).because(error.to_string())
    }
}
