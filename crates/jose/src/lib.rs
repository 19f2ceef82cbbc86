//! Signed tokens and keys as pure functions of bytes.
//!
//! The one room that touches cryptography for tokens. Verification goes through aws-lc-rs with keys that were
//! parsed once, when their set was read; jsonwebtoken signs. Nothing here does I/O, reads a clock, or follows
//! anything a token says about where its key may be found.

mod algorithm;
pub mod base64url;
mod claims;
mod confirmation;
pub mod digest;
mod introspection;
mod jwk;
mod jws;
mod key;
mod message_key;
mod password;
mod proof;
mod scope;
mod sign;

pub use algorithm::Algorithm;
pub use claims::{
    ClaimError, ClaimRules, IssuerRule, Skew, TokenTimes, TypeRule, is_like_id_token, is_never_access_token,
};
pub use confirmation::{Confirmation, ConfirmationError};
pub use introspection::{Introspected, IntrospectionError};
pub use jwk::{Candidates, JwkSet, JwkSetError, JwkSource, SkippedKey};
pub use jws::{CompactJws, JwsError, JwsHeader, JwsLimits, Segment, SignatureInvalid, VerifiedJws};
pub use key::{KeyError, VerifyingKey};
pub use message_key::{MessageAlgorithm, MessageKey, NoStandIn};
pub use password::{BCRYPT_BYTES, PasswordHash, PasswordHashError};
pub use proof::{KeyProof, Origin, ProofClaims, ProofError, Target};
pub use scope::scopes;
pub use sign::{SigningError, SigningKey};
