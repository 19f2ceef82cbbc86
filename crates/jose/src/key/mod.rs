//! Keys that verify, parsed once.

mod der;
mod error;
pub(crate) mod pem;
mod public;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof_tests;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::ParsedPublicKey;
use portcullis_core::Secret;

use crate::{Algorithm, SignatureInvalid};

pub use error::KeyError;
pub(crate) use public::{Curve, PublicKey, pkcs8_contents};

/// A key with the algorithms it may be used with.
///
/// SECURITY: the key fixes its algorithms, and whether it is public or secret is part of its type: a public key
/// can never become an HMAC key (JWT-11), and a header can only name an algorithm that the key already has (JWT-12).
#[derive(Clone)]
pub struct VerifyingKey {
    key_id: Option<Arc<str>>,
    /// One entry for each algorithm, because aws-lc-rs ties a parsed key to its algorithm.
    verifiers: Arc<[(Algorithm, Verifier)]>,
    certificate_thumbprint: Option<[u8; 32]>,
}

enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl VerifyingKey {
    /// Reads the public keys of a PEM text: `PUBLIC KEY` (SPKI), `RSA PUBLIC KEY` (PKCS#1) and `CERTIFICATE` blocks,
    /// in their order (JWK-07). An RSA key is taken for all RSA algorithms; the issuer's list of algorithms decides.
    ///
    /// # Errors
    /// There is no block, or any block is not a key we take. One bad block refuses the whole text: the file is
    /// ours, and a key that silently does not count is found out on the day of the rotation.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        let blocks = pem::blocks(text)?;
        if blocks.is_empty() {
            return Err(KeyError::NoKey);
        }
        blocks.iter().map(Self::from_pem_block).collect()
    }

    /// Makes an HMAC key. It serves the algorithms whose hash is no longer than the secret (JWT-15).
    ///
    /// # Errors
    /// The secret is shorter than 32 bytes.
    pub fn from_secret(secret: &Secret) -> Result<Self, KeyError> {
        let fitting = [
            (Algorithm::Hs256, hmac::HMAC_SHA256),
            (Algorithm::Hs384, hmac::HMAC_SHA384),
            (Algorithm::Hs512, hmac::HMAC_SHA512),
        ];
        let verifiers: Arc<[_]> = fitting
            .into_iter()
            .filter(|(_, hash)| secret.len() >= hash.tag_len())
            .map(|(algorithm, hash)| {
                (algorithm, Verifier::Secret(Box::new(hmac::Key::new(hash, secret.expose()))))
            })
            .collect();
        if verifiers.is_empty() {
            return Err(KeyError::SecretTooShort { bytes: secret.len() });
        }
        Ok(Self { key_id: None, verifiers, certificate_thumbprint: None })
    }

    /// The key's `kid`.
    pub const fn key_id(&self) -> Option<&Arc<str>> {
        self.key_id.as_ref()
    }

    /// Gives the key a `kid`.
    #[must_use]
    pub fn named(mut self, key_id: impl Into<Arc<str>>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Whether the key may be used with the algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(own, _)| *own == algorithm)
    }

    /// Every algorithm the key may be used with.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.verifiers.iter().map(|(algorithm, _)| *algorithm)
    }

    /// SHA-256 of the DER of the certificate the key came with.
    pub const fn certificate_thumbprint(&self) -> Option<&[u8; 32]> {
        self.certificate_thumbprint.as_ref()
    }

    /// Whether it is an HMAC key.
    pub fn is_symmetric(&self) -> bool {
        self.verifiers.iter().any(|(algorithm, _)| algorithm.is_symmetric())
    }

    /// Parses the public key for one algorithm, or for all that it fits.
    pub(crate) fn from_public(key: &PublicKey, only: Option<Algorithm>) -> Result<Self, KeyError> {
        let verifiers: Arc<[_]> = key
            .algorithms()
            .iter()
            .filter(|algorithm| only.is_none_or(|only| only == **algorithm))
            .map(|algorithm| Ok((*algorithm, Verifier::Public(key.parsed_for(*algorithm)?))))
            .collect::<Result<_, KeyError>>()?;
        if verifiers.is_empty() {
            return Err(KeyError::AlgorithmMismatch);
        }
        Ok(Self { key_id: None, verifiers, certificate_thumbprint: None })
    }

    /// Keeps one algorithm of those the key has.
    pub(crate) fn only_for(self, algorithm: Algorithm) -> Result<Self, KeyError> {
        let verifiers: Arc<[_]> =
            self.verifiers.iter().filter(|(own, _)| *own == algorithm).map(Clone::clone).collect();
        if verifiers.is_empty() {
            return Err(KeyError::AlgorithmMismatch);
        }
        Ok(Self { verifiers, ..self })
    }

    pub(crate) const fn with_certificate_thumbprint(mut self, thumbprint: Option<[u8; 32]>) -> Self {
        self.certificate_thumbprint = thumbprint;
        self
    }

    /// Checks a signature over a message; the key's own algorithms decide whether it is even tried.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureInvalid> {
        let (_, verifier) = self
            .verifiers
            .iter()
            .find(|(own, _)| *own == algorithm)
            .ok_or(SignatureInvalid::AlgorithmNotOfKey)?;
        match verifier {
            // SECURITY: for ECDSA aws-lc-rs takes exactly r || s of the field's length with both in range, for PSS
            // exactly a salt of the hash's length, for PKCS#1 v1.5 exactly the one encoding (JWT-13, JWT-14).
            Verifier::Public(key) => key.verify_sig(message, signature),
            Verifier::Secret(key) => hmac::verify(key, message, signature),
        }
        .map_err(|_| SignatureInvalid::Wrong)
    }

    fn from_pem_block(block: &pem::Block) -> Result<Self, KeyError> {
        match block.label.as_str() {
            "PUBLIC KEY" => Self::from_public(&PublicKey::from_spki(&block.der)?, None),
            "RSA PUBLIC KEY" => Self::from_public(&PublicKey::from_pkcs1(&block.der)?, None),
            "CERTIFICATE" => {
                let key = Self::from_public(&PublicKey::from_certificate(&block.der)?, None)?;
                Ok(key.with_certificate_thumbprint(Some(crate::digest::sha256(&block.der))))
            }
            label if label.ends_with("PRIVATE KEY") => Err(KeyError::PrivateKey),
            label => Err(KeyError::PemLabel(label.to_owned())),
        }
    }
}

impl Clone for Verifier {
    fn clone(&self) -> Self {
        match self {
            Self::Public(key) => Self::Public(key.clone()),
            Self::Secret(key) => Self::Secret(key.clone()),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.algorithms().map(Algorithm::as_str).collect();
        f.debug_struct("VerifyingKey").field("key_id", &self.key_id).field("algorithms", &algorithms).finish()
    }
}
