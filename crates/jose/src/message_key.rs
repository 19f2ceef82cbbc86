//! Keys and algorithms of signed messages (RFC 9421 section 3.3, draft-cavage-http-signatures).

use std::fmt;

use aws_lc_rs::hmac;
use portcullis_core::Secret;

use crate::digest::random;
use crate::{Algorithm, KeyError, SigningKey, VerifyingKey};

/// An RSA key whose private half was thrown away.
const RSA_STAND_IN: &[u8] = include_bytes!("stand_in.pem");

/// An algorithm that messages are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageAlgorithm {
    /// HMAC with SHA-1, for those who cannot be moved yet.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaV15Sha256,
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512, a salt of 64 bytes.
    RsaPssSha512,
    /// ECDSA on P-256 with SHA-256, the signature as r || s.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384, the signature as r || s.
    EcdsaP384Sha384,
    /// EdDSA on edwards25519.
    Ed25519,
}

impl MessageAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
        Self::RsaV15Sha256,
        Self::RsaPssSha512,
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::Ed25519,
    ];

    /// The name; where RFC 9421 registers one, that.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
            Self::RsaV15Sha256 => "rsa-v1_5-sha256",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Whether whoever can verify can also sign.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512)
    }

    /// The same mathematics under its JOSE name.
    const fn jose(self) -> Option<Algorithm> {
        match self {
            Self::HmacSha1 => None,
            Self::HmacSha256 => Some(Algorithm::Hs256),
            Self::HmacSha384 => Some(Algorithm::Hs384),
            Self::HmacSha512 => Some(Algorithm::Hs512),
            Self::RsaV15Sha256 => Some(Algorithm::Rs256),
            Self::RsaPssSha512 => Some(Algorithm::Ps512),
            Self::EcdsaP256Sha256 => Some(Algorithm::Es256),
            Self::EcdsaP384Sha384 => Some(Algorithm::Es384),
            Self::Ed25519 => Some(Algorithm::EdDsa),
        }
    }
}

impl fmt::Display for MessageAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that verifies signed messages.
///
/// SECURITY: as with tokens, the key fixes its algorithms: a public key never verifies an HMAC, a secret never
/// anything else (SIG-05).
#[derive(Clone)]
pub struct MessageKey {
    key: VerifyingKey,
    /// Only of a secret.
    sha1: Option<hmac::Key>,
}

/// No stand-in could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct NoStandIn;

impl VerifyingKey {
    /// A public key that no signature fits, for the same work where nobody has the key that was named.
    ///
    /// # Errors
    /// There is no randomness to make it from, or the algorithm has no public keys.
    pub fn stand_in(algorithm: Algorithm) -> Result<Self, NoStandIn> {
        let generated;
        let pem = match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => RSA_STAND_IN,
            _ => {
                let key = SigningKey::generate(algorithm).map_err(|_| NoStandIn)?;
                generated = key.public_pem().ok_or(NoStandIn)?;
                generated.as_bytes()
            }
        };
        let keys = Self::from_pem(pem).map_err(|_| NoStandIn)?;
        keys.into_iter().find(|key| key.allows(algorithm)).ok_or(NoStandIn)
    }
}

impl MessageKey {
    /// A shared secret. It serves the algorithms whose hash is no longer than it.
    ///
    /// # Errors
    /// It is shorter than 32 bytes: what is short can be guessed from one signature, without asking us.
    pub fn from_secret(secret: &Secret) -> Result<Self, KeyError> {
        let sha1 = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
        Ok(Self { key: VerifyingKey::from_secret(secret)?, sha1: Some(sha1) })
    }

    /// The public keys of a PEM text, as [`VerifyingKey::from_pem`].
    ///
    /// # Errors
    /// There is none, or any of them is not one we take.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        Ok(VerifyingKey::from_pem(text)?.into_iter().map(|key| Self { key, sha1: None }).collect())
    }

    /// A key that no signature fits, for the same work where nobody has the key that was named (HMC-01).
    ///
    /// # Errors
    /// There is no randomness to make it from.
    pub fn stand_in(algorithm: MessageAlgorithm) -> Result<Self, NoStandIn> {
        match algorithm.jose() {
            Some(public) if !algorithm.is_symmetric() => {
                VerifyingKey::stand_in(public).map(|key| Self { key, sha1: None })
            }
            _ => {
                let secret = Secret::new(random::<64>().map_err(|_| NoStandIn)?.to_vec());
                Self::from_secret(&secret).map_err(|_| NoStandIn)
            }
        }
    }

    /// Whether the key may be used with the algorithm.
    pub fn allows(&self, algorithm: MessageAlgorithm) -> bool {
        match algorithm.jose() {
            Some(algorithm) => self.key.allows(algorithm),
            None => self.sha1.is_some(),
        }
    }

    /// Every algorithm the key may be used with.
    pub fn algorithms(&self) -> impl Iterator<Item = MessageAlgorithm> {
        MessageAlgorithm::ALL.into_iter().filter(|algorithm| self.allows(*algorithm))
    }

    /// Whether it is a shared secret.
    pub const fn is_symmetric(&self) -> bool {
        self.sha1.is_some()
    }

    /// Whether the signature is the key's over the message. The time does not depend on where they differ.
    #[must_use]
    pub fn verifies(&self, algorithm: MessageAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        match (algorithm.jose(), &self.sha1) {
            (Some(algorithm), _) => self.key.verify(algorithm, message, signature).is_ok(),
            (None, Some(key)) => hmac::verify(key, message, signature).is_ok(),
            (None, None) => false,
        }
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.algorithms().map(MessageAlgorithm::as_str).collect();
        f.debug_struct("MessageKey").field("algorithms", &algorithms).finish()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::Secret;

    use super::{MessageAlgorithm, MessageKey};
    use crate::KeyError;

    fn secret(length: usize) -> Secret {
        Secret::new(vec![0x0b; length])
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    /// RFC 4231 test case 6 and RFC 2202 test case 6: secrets that are long enough for us.
    #[test]
    fn hmac_agrees_with_the_published_vectors() {
        use MessageAlgorithm::{HmacSha1, HmacSha256, HmacSha384, HmacSha512};
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        for (length, algorithm, expected) in [
            (80, HmacSha1, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
            (131, HmacSha256, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            (
                131,
                HmacSha384,
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
            ),
            (
                131,
                HmacSha512,
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ),
        ] {
            let key = MessageKey::from_secret(&Secret::new(vec![0xaa; length])).expect("a key");
            let mut signature = hex(expected);
            assert!(key.verifies(algorithm, message, &signature), "{algorithm}");
            assert!(!key.verifies(algorithm, b"Test", &signature), "{algorithm}");
            signature.truncate(16);
            assert!(!key.verifies(algorithm, message, &signature), "{algorithm}: truncated");
            assert!(!key.verifies(algorithm, message, b""), "{algorithm}: empty");
        }
    }

    #[test]
    fn a_secret_serves_hashes_no_longer_than_it() {
        let names = |length| -> Vec<&str> {
            let key = MessageKey::from_secret(&secret(length)).expect("a key");
            key.algorithms().map(MessageAlgorithm::as_str).collect()
        };
        assert_eq!(names(32), ["hmac-sha1", "hmac-sha256"]);
        assert_eq!(names(48), ["hmac-sha1", "hmac-sha256", "hmac-sha384"]);
        assert_eq!(names(64), ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"]);
        assert_eq!(MessageKey::from_secret(&secret(31)).err(), Some(KeyError::SecretTooShort { bytes: 31 }));
    }

    #[test]
    fn a_stand_in_is_of_its_algorithm_and_fits_nothing() {
        for algorithm in MessageAlgorithm::ALL {
            let key = MessageKey::stand_in(algorithm).expect("a key");
            assert!(key.allows(algorithm), "{algorithm}");
            assert_eq!(key.is_symmetric(), algorithm.is_symmetric(), "{algorithm}");
            assert!(!key.verifies(algorithm, b"message", &[0; 64]), "{algorithm}");
            for other in MessageAlgorithm::ALL.into_iter().filter(|other| !key.allows(*other)) {
                assert!(!key.verifies(other, b"message", &[0; 64]), "{algorithm} as {other}");
            }
        }
    }

    #[test]
    fn nothing_is_shown_of_a_secret() {
        let key = MessageKey::from_secret(&Secret::new(b"canary-4711-canary-4711-canary-4711".to_vec()));
        assert!(!format!("{:?}", key.expect("a key")).contains("canary"));
    }
}
