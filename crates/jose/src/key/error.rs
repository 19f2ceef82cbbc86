//! Why a key is not taken.

use portcullis_core::json::JsonError;

use crate::Algorithm;

/// Why bytes are not a key that may verify tokens. The texts never repeat key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A PEM text without any block.
    #[error("there is no PEM block")]
    NoKey,
    /// A PEM block that is not closed, or whose body is not base64.
    #[error("PEM block {0} is malformed")]
    PemMalformed(usize),
    /// A PEM block of a kind that holds no public key.
    #[error("a PEM block `{0}` holds no public key")]
    PemLabel(String),
    /// A private key where a public one belongs.
    #[error("this is a private key, and only its public half may be given here")]
    PrivateKey,
    /// The DER structure is not what its kind demands.
    #[error("the key's DER structure is malformed")]
    DerMalformed,
    /// A key of a kind that no algorithm of ours uses.
    #[error("the key's type is not supported")]
    TypeUnsupported,
    /// An elliptic curve that no algorithm of ours uses.
    #[error("the key's curve is not supported")]
    CurveUnsupported,
    /// RSA outside 2048 to 8192 bits (JWT-13).
    #[error("the RSA modulus has {bits} bits, and must have 2048 to 8192")]
    RsaModulusSize {
        /// The size found.
        bits: usize,
    },
    /// An RSA modulus that is even (JWT-13).
    #[error("the RSA modulus is even")]
    RsaModulusEven,
    /// An RSA exponent that is even, below 65537 or above 2^32 (JWT-13).
    #[error("the RSA exponent is not an odd number from 65537 to 2^32")]
    RsaExponent,
    /// A number or point of the wrong length, with a leading zero, or a point that is not on its curve.
    #[error("the key's numbers are malformed")]
    MaterialMalformed,
    /// An HMAC secret shorter than the hash (JWT-15).
    #[error("the secret has {bytes} bytes, fewer than its algorithm's hash")]
    SecretTooShort {
        /// The size found.
        bytes: usize,
    },
    /// The key cannot be used with the algorithm it names (JWT-12).
    #[error("the key does not fit the algorithm it names")]
    AlgorithmMismatch,
    /// A JWK member that is missing or of the wrong kind.
    #[error("the member `{0}` is missing or malformed")]
    Member(&'static str),
    /// A JWK entry that is not one strict JSON object (JWK-01).
    #[error("the entry is not acceptable: {0}")]
    Json(#[from] JsonError),
    /// `alg` names nothing that we verify.
    #[error("the algorithm it names is not one that is verified here")]
    AlgorithmUnknown,
    /// `use` or `key_ops` says that the key is not for verifying (JWT-12).
    #[error("the key is not meant for verifying signatures")]
    NotForVerifying,
    /// A secret in a set that came from elsewhere, or beside public keys (JWK-02).
    #[error("a symmetric key has no place in this set")]
    SymmetricRefused,
    /// A private member in a key set (JWK-02).
    #[error("the entry holds the private half of a key")]
    PrivateMember,
    /// `x5c` or `x5t#S256` contradicts the key (JWK-06).
    #[error("the certificate that came with the key is not the key's")]
    CertificateMismatch,
    /// Two entries that a token could not tell apart (JWK-04).
    #[error("another entry has the same `kid` for {0}")]
    Ambiguous(Algorithm),
}
