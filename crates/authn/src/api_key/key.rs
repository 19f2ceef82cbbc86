//! Keys and how they are stored.

use std::fmt;
use std::str::FromStr;

use portcullis_core::Secret;
use portcullis_jose::base64url;
use portcullis_jose::digest::{KeyedHash, NoRandomness, constant_time_eq, random};

/// What marks a key as one of ours, for people and for scanners of leaked secrets.
const PREFIX: &str = "pc_";

/// What marks a stored hash, and says how it was made: HMAC-SHA-256 of the key under the pepper.
const HASH_PREFIX: &str = "pk1:";

/// A new key: 256 bits from the system's source, as text for a header. It is shown once and never stored.
///
/// # Errors
/// The system's source of randomness failed.
pub fn generate_key() -> Result<String, NoRandomness> {
    random::<32>().map(|bytes| format!("{PREFIX}{}", base64url::encode(&bytes)))
}

/// What is stored of a key (KEY-02).
pub fn hash_key(pepper: &Secret, key: &str) -> KeyHash {
    KeyHash(KeyedHash::new(pepper).digest(key.as_bytes()))
}

/// The stored form of a key. Compared in constant time.
#[derive(Clone, Copy, Debug, Eq)]
pub struct KeyHash(pub(crate) [u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", base64url::encode(&self.0))
    }
}

/// The text is not a stored hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stored key: `pk1:` and 43 characters of base64url")]
pub struct NotAKeyHash;

impl FromStr for KeyHash {
    type Err = NotAKeyHash;

    fn from_str(text: &str) -> Result<Self, NotAKeyHash> {
        let digest = text.strip_prefix(HASH_PREFIX).ok_or(NotAKeyHash)?;
        base64url::decode_exactly(digest.as_bytes()).map(Self).map_err(|_| NotAKeyHash)
    }
}
