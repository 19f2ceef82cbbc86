//! Signing: for identity providers of our own and for tests.

#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::EncodingKey;
use portcullis_core::Secret;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::key::{PublicKey, pem, pkcs8_contents};
use crate::{Algorithm, KeyError, VerifyingKey, base64url, digest};

/// Why a key cannot sign. The texts never repeat key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The text is not one PEM block with a private key (PKCS#8).
    #[error("this is not one PEM block with a PKCS#8 private key")]
    NotAPrivateKey,
    /// The key does not fit the algorithm, or is malformed.
    #[error("the private key does not fit the algorithm {0}")]
    KeyRejected(Algorithm),
    /// The extra header is neither an object nor null.
    #[error("the extra header is not a JSON object")]
    HeaderNotAnObject,
    /// The cryptographic library failed.
    #[error("the signature could not be made")]
    Failed,
}

/// A private key, or a secret, that signs with one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    signer: Signer,
    half: Half,
}

enum Signer {
    Jsonwebtoken(jsonwebtoken::Algorithm, EncodingKey),
    /// jsonwebtoken knows no ES512.
    Es512(Box<EcdsaKeyPair>),
}

/// What verifies what was signed.
enum Half {
    Public { key: PublicKey, spki: Vec<u8> },
    Secret(Secret),
}

impl SigningKey {
    /// Makes a new key: RSA with 2048 bits, or a secret of 64 bytes.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn generate(algorithm: Algorithm) -> Result<Self, SigningError> {
        let random = SystemRandom::new();
        let pkcs8 = match (family(algorithm), ecdsa(algorithm)) {
            (Family::Rsa, _) => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| SigningError::Failed)?;
                pair.as_der().map_err(|_| SigningError::Failed)?.as_ref().to_vec()
            }
            (Family::Ec, Some(curve)) => EcdsaKeyPair::generate_pkcs8(curve, &random)
                .map_err(|_| SigningError::Failed)?
                .as_ref()
                .to_vec(),
            (Family::Ed, _) => {
                Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| SigningError::Failed)?.as_ref().to_vec()
            }
            (Family::Hmac | Family::Ec, _) => {
                let secret = digest::random::<64>().map_err(|_| SigningError::Failed)?;
                return Self::from_secret(algorithm, &Secret::new(secret.to_vec()));
            }
        };
        Self::from_pkcs8(algorithm, &Zeroizing::new(pkcs8))
    }

    /// Reads a private key: one `PRIVATE KEY` block (PKCS#8, RFC 5208).
    ///
    /// # Errors
    /// The text is something else, or the key is not for the algorithm.
    pub fn from_pem(algorithm: Algorithm, text: &[u8]) -> Result<Self, SigningError> {
        match pem::blocks(text).as_deref() {
            Ok([block]) if block.label == "PRIVATE KEY" => Self::from_pkcs8(algorithm, &block.der),
            _ => Err(SigningError::NotAPrivateKey),
        }
    }

    /// Takes an HMAC secret.
    ///
    /// # Errors
    /// The algorithm is not an HMAC, or the secret is shorter than its hash.
    pub fn from_secret(algorithm: Algorithm, secret: &Secret) -> Result<Self, SigningError> {
        let fits = VerifyingKey::from_secret(secret).is_ok_and(|key| key.allows(algorithm));
        match signing_algorithm(algorithm) {
            Some(name) if fits => Ok(Self {
                algorithm,
                signer: Signer::Jsonwebtoken(name, EncodingKey::from_secret(secret.expose())),
                half: Half::Secret(secret.clone()),
            }),
            _ => Err(SigningError::KeyRejected(algorithm)),
        }
    }

    /// The algorithm it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs claims as a compact JWS. The header holds `alg` and what `extra_header` adds (an object or null); it
    /// cannot change `alg`.
    ///
    /// # Errors
    /// `extra_header` is something else, or the cryptographic library failed.
    pub fn sign(&self, extra_header: Value, claims: &Value) -> Result<String, SigningError> {
        let mut header = match extra_header {
            Value::Object(header) => header,
            Value::Null => Map::new(),
            _ => return Err(SigningError::HeaderNotAnObject),
        };
        header.insert("alg".to_owned(), self.algorithm.as_str().into());
        let header = base64url::encode(Value::Object(header).to_string().as_bytes());
        let mut token = format!("{header}.{}", base64url::encode(claims.to_string().as_bytes()));
        let signature = base64url::encode(&self.sign_bytes(token.as_bytes())?);
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }

    /// Signs bytes: what stands behind a JWS (RFC 7518 section 3), and in signed requests (RFC 9421 section 3.3).
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        match &self.signer {
            Signer::Jsonwebtoken(name, key) => {
                let text =
                    jsonwebtoken::crypto::sign(message, key, *name).map_err(|_| SigningError::Failed)?;
                base64url::decode(text.as_bytes()).map_err(|_| SigningError::Failed)
            }
            Signer::Es512(pair) => {
                let made = pair.sign(&SystemRandom::new(), message).map_err(|_| SigningError::Failed)?;
                Ok(made.as_ref().to_vec())
            }
        }
    }

    /// The key that verifies what this one signs, for its algorithm alone.
    ///
    /// # Errors
    /// The key is one that nothing here would verify with (RSA below 2048 bits, say).
    pub fn verifying_key(&self) -> Result<VerifyingKey, KeyError> {
        match &self.half {
            Half::Public { key, .. } => VerifyingKey::from_public(key, Some(self.algorithm)),
            Half::Secret(secret) => VerifyingKey::from_secret(secret)?.only_for(self.algorithm),
        }
    }

    /// The public half as a JWK with `alg`, `use` and the `kid` (RFC 7517). A secret has none.
    pub fn public_jwk(&self, kid: &str) -> Option<Value> {
        let Half::Public { key, .. } = &self.half else {
            return None;
        };
        let alg = self.algorithm.as_str();
        Some(match key {
            PublicKey::Rsa { modulus, exponent } => json!({
                "kty": "RSA", "alg": alg, "use": "sig", "kid": kid,
                "n": base64url::encode(modulus), "e": base64url::encode(exponent),
            }),
            PublicKey::Ec { curve, point } => {
                let (x, y) = point.get(1..)?.split_at_checked(curve.field_length())?;
                json!({
                    "kty": "EC", "alg": alg, "use": "sig", "kid": kid,
                    "crv": curve.as_str(), "x": base64url::encode(x), "y": base64url::encode(y),
                })
            }
            PublicKey::Ed25519(point) => json!({
                "kty": "OKP", "alg": alg, "use": "sig", "kid": kid,
                "crv": "Ed25519", "x": base64url::encode(point),
            }),
        })
    }

    /// The public half as a PEM text (SPKI). A secret has none.
    pub fn public_pem(&self) -> Option<String> {
        match &self.half {
            Half::Public { spki, .. } => Some(pem_text("PUBLIC KEY", spki)),
            Half::Secret(_) => None,
        }
    }

    fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, SigningError> {
        let rejected = SigningError::KeyRejected(algorithm);
        let spki = spki(algorithm, pkcs8).ok_or_else(|| rejected.clone())?;
        let key = PublicKey::from_spki(&spki).map_err(|_| rejected.clone())?;
        if !key.algorithms().contains(&algorithm) {
            return Err(rejected);
        }
        let signer = match (signing_algorithm(algorithm), family(algorithm)) {
            (Some(name), Family::Rsa) => {
                let contents = pkcs8_contents(pkcs8).map_err(|_| rejected.clone())?;
                Signer::Jsonwebtoken(name, EncodingKey::from_rsa_der(contents))
            }
            (Some(name), Family::Ec) => Signer::Jsonwebtoken(name, EncodingKey::from_ec_der(pkcs8)),
            (Some(name), Family::Ed) => Signer::Jsonwebtoken(name, EncodingKey::from_ed_der(pkcs8)),
            (None, Family::Ec) => Signer::Es512(Box::new(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, pkcs8)
                    .map_err(|_| rejected.clone())?,
            )),
            _ => return Err(rejected),
        };
        Ok(Self { algorithm, signer, half: Half::Public { key, spki } })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm)
    }
}

#[derive(Clone, Copy)]
enum Family {
    Rsa,
    Ec,
    Ed,
    Hmac,
}

const fn family(algorithm: Algorithm) -> Family {
    match algorithm {
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => Family::Rsa,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => Family::Ec,
        Algorithm::EdDsa => Family::Ed,
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => Family::Hmac,
    }
}

fn ecdsa(algorithm: Algorithm) -> Option<&'static EcdsaSigningAlgorithm> {
    match algorithm {
        Algorithm::Es256 => Some(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::Es384 => Some(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::Es512 => Some(&ECDSA_P521_SHA512_FIXED_SIGNING),
        _ => None,
    }
}

fn signing_algorithm(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    // The two libraries use the same names, but for the algorithm that jsonwebtoken has not.
    algorithm.as_str().parse().ok()
}

/// The public half of a PKCS#8 key as SPKI, if it is a key for the algorithm.
fn spki(algorithm: Algorithm, pkcs8: &[u8]) -> Option<Vec<u8>> {
    Some(match family(algorithm) {
        Family::Rsa => RsaKeyPair::from_pkcs8(pkcs8).ok()?.public_key().as_der().ok()?.as_ref().to_vec(),
        Family::Ec => {
            let pair = EcdsaKeyPair::from_pkcs8(ecdsa(algorithm)?, pkcs8).ok()?;
            pair.public_key().as_der().ok()?.as_ref().to_vec()
        }
        Family::Ed => Ed25519KeyPair::from_pkcs8(pkcs8).ok()?.public_key().as_der().ok()?.as_ref().to_vec(),
        Family::Hmac => return None,
    })
}

fn pem_text(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, letter) in encoded.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}
