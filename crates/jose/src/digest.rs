//! Digests, comparison in constant time, and randomness.

use std::fmt;

use aws_lc_rs::{digest, hmac, rand};
use portcullis_core::Secret;
use subtle::ConstantTimeEq as _;

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // The lengths agree by definition of SHA-256.
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// SHA-512 (FIPS 180-4).
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    // The lengths agree by definition of SHA-512.
    out.copy_from_slice(digest::digest(&digest::SHA512, bytes).as_ref());
    out
}

/// SHA-1, for names that an old standard makes with it. SECURITY: it guards nothing: whoever finds a second text of one
/// digest has only found a second name.
pub fn legacy_sha1(bytes: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    out.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    out
}

/// HMAC-SHA-256 (RFC 2104) under one key, prepared once. Cloning copies the prepared state.
#[derive(Clone)]
pub struct KeyedHash(hmac::Key);

impl KeyedHash {
    /// Prepares the key.
    pub fn new(key: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// The digest of the bytes under the key.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, bytes).as_ref());
        out
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHash(redacted)")
    }
}

/// Whether the bytes are the same. The time depends on the lengths alone.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// The machine gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct NoRandomness;

/// Bytes from the system's cryptographic source.
///
/// # Errors
/// The source failed; nothing may be made from what it gave.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use portcullis_core::Secret;

    use super::{KeyedHash, constant_time_eq, random, sha256, sha512};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sha256_agrees_with_fips_180() {
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn sha512_agrees_with_fips_180() {
        let expected = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                        2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(hex(&sha512(b"abc")), expected);
    }

    /// RFC 4231 test case 2.
    #[test]
    fn keyed_hash_agrees_with_rfc_4231() {
        let hash = KeyedHash::new(&Secret::new(b"Jefe".to_vec()));
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&hash.digest(b"what do ya want for nothing?")), expected);
        assert!(!format!("{hash:?}").contains("Jefe"));
    }

    #[test]
    fn comparison_sees_content_and_length() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
        assert!(constant_time_eq(b"", b""));
    }

    #[test]
    fn randomness_does_not_repeat() {
        assert_ne!(random::<32>(), random::<32>());
    }
}
