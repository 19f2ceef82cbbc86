//! Keys and how they are stored.

use std::fmt;
use std::str::FromStr;

use portcullis_core::Secret;
use portcullis_jose::base64url;
use portcullis_jose::digest::{KeyedHash, NoRandomness, constant_time_eq, random, sha256};

/// What marks a key as one of ours, for people and for scanners of leaked secrets, which find `pc_` and 49 more
/// characters of base64url.
const PREFIX: &str = "pc_";

/// Bytes of the checksum: six characters of base64url.
const CHECKSUM: usize = 4;

/// The length of a key with a checksum: the prefix, 43 characters of secret, 6 of checksum.
const LENGTH: usize = PREFIX.len() + 43 + 6;

/// The longest name of a key, in bytes.
const MAX_NAME: usize = 64;

/// What marks a stored hash, and says how it was made: HMAC-SHA-256 of the key under the pepper.
const HASH_PREFIX: &str = "pk1:";

/// A new key: 256 bits from the system's source and a checksum, as text for a header. It is shown once and never
/// stored.
///
/// # Errors
/// The system's source of randomness failed.
pub fn generate_key() -> Result<String, NoRandomness> {
    let secret = base64url::encode(&random::<32>()?);
    let key = format!("{PREFIX}{secret}");
    let sum = checksum(key.as_bytes());
    Ok(key + &sum)
}

/// A name for a key that says nothing about it: 16 hexadecimal digits.
///
/// # Errors
/// The system's source of randomness failed.
pub fn random_id() -> Result<String, NoRandomness> {
    Ok(random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The checksum of everything before it: what a scanner or a person with a typing error can see without asking us.
fn checksum(before: &[u8]) -> String {
    let [a, b, c, d, ..] = sha256(before);
    let bytes: [u8; CHECKSUM] = [a, b, c, d];
    base64url::encode(&bytes)
}

/// Whether this is a key of the form we make, whose checksum is wrong: nobody has it. A key that others made, or that
/// was made before keys had checksums, is none of that form.
pub fn is_mistyped(key: &[u8]) -> bool {
    if key.len() != LENGTH || !key.starts_with(PREFIX.as_bytes()) {
        return false;
    }
    let (before, sum) = key.split_at(LENGTH - 6);
    checksum(before).as_bytes() != sum
}

/// Why a text cannot be the name of a key. SECURITY: the text is not repeated, for it could be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyName {
    /// There is room in it for a key of the form we make.
    #[error("this name is a key, and names are shown in logs and headers")]
    IsKey,
    /// It cannot be shown as it is.
    #[error("the name of a key is 1 to {MAX_NAME} printable characters of ASCII, no space at an end")]
    Unprintable,
}

/// Whether a key may be called that in logs and headers.
///
/// # Errors
/// Why it may not.
pub fn check_key_name(name: &str) -> Result<(), BadKeyName> {
    if name.find(PREFIX).is_some_and(|at| name.len() - at >= LENGTH) {
        return Err(BadKeyName::IsKey);
    }
    let printable = name.bytes().all(|byte| matches!(byte, b' '..=b'~')) && name.trim() == name;
    if name.is_empty() || name.len() > MAX_NAME || !printable {
        return Err(BadKeyName::Unprintable);
    }
    Ok(())
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
