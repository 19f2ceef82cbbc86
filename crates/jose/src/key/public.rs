//! Public keys as numbers, whatever they were written in, and what the numbers must satisfy.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, VerificationAlgorithm,
};

use super::KeyError;
use super::der::{self, BIT_STRING, CONTEXT_0, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, Reader};
use crate::digest::sha256;
use crate::{Algorithm, base64url};

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const SECP256R1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const SECP521R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// A curve of RFC 7518 section 6.2.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of one coordinate.
    pub(crate) const fn field_length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// A public key. Two keys are the same exactly if these numbers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// An uncompressed point: 4, x, y.
    Ec { curve: Curve, point: Vec<u8> },
    /// An encoded point on edwards25519.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// An RSA key from its numbers (JWT-13).
    pub(crate) fn rsa(modulus: Vec<u8>, exponent: Vec<u8>) -> Result<Self, KeyError> {
        let leading = *modulus.first().ok_or(KeyError::MaterialMalformed)?;
        if leading == 0 || exponent.first().is_none_or(|byte| *byte == 0) {
            return Err(KeyError::MaterialMalformed);
        }
        let bits = modulus.len().saturating_mul(8).saturating_sub(leading.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::RsaModulusSize { bits });
        }
        if modulus.last().is_some_and(|byte| byte % 2 == 0) {
            return Err(KeyError::RsaModulusEven);
        }
        // An odd number of at most four bytes is below 2^32.
        let value = exponent.iter().take(5).fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        if exponent.len() > 4 || value < 65_537 || value % 2 == 0 {
            return Err(KeyError::RsaExponent);
        }
        Ok(Self::Rsa { modulus, exponent })
    }

    /// An elliptic-curve key from its coordinates, each of exactly the field's length (RFC 7518 section 6.2.1.2).
    pub(crate) fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        if x.len() != curve.field_length() || y.len() != curve.field_length() {
            return Err(KeyError::MaterialMalformed);
        }
        Ok(Self::Ec { curve, point: [&[4], x, y].concat() })
    }

    /// `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
    pub(crate) fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let mut outer = Reader::new(spki);
        let mut fields = outer.sequence()?;
        outer.finish()?;
        let mut algorithm = fields.sequence()?;
        let key = der::octets(fields.take(BIT_STRING)?)?;
        fields.finish()?;
        match algorithm.take(OBJECT_IDENTIFIER)? {
            RSA_ENCRYPTION => {
                algorithm.skip_if(NULL)?;
                algorithm.finish()?;
                Self::from_pkcs1(key)
            }
            EC_PUBLIC_KEY => {
                let curve = match algorithm.take(OBJECT_IDENTIFIER)? {
                    SECP256R1 => Curve::P256,
                    SECP384R1 => Curve::P384,
                    SECP521R1 => Curve::P521,
                    _ => return Err(KeyError::CurveUnsupported),
                };
                algorithm.finish()?;
                match key.split_first() {
                    Some((4, xy)) if xy.len() == 2 * curve.field_length() => {
                        Ok(Self::Ec { curve, point: key.to_vec() })
                    }
                    _ => Err(KeyError::MaterialMalformed),
                }
            }
            ID_ED25519 => {
                algorithm.finish()?;
                key.try_into().map(Self::Ed25519).map_err(|_| KeyError::MaterialMalformed)
            }
            _ => Err(KeyError::TypeUnsupported),
        }
    }

    /// `RSAPublicKey` (RFC 8017 appendix A.1.1).
    pub(crate) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let mut outer = Reader::new(der);
        let mut fields = outer.sequence()?;
        outer.finish()?;
        let modulus = der::positive(fields.take(INTEGER)?)?;
        let exponent = der::positive(fields.take(INTEGER)?)?;
        fields.finish()?;
        Self::rsa(modulus.to_vec(), exponent.to_vec())
    }

    /// The subject's key of a certificate (RFC 5280 section 4.1). Nothing else of it is looked at: whoever gives us
    /// a key in a certificate vouches for it by giving it.
    pub(crate) fn from_certificate(der: &[u8]) -> Result<Self, KeyError> {
        let mut outer = Reader::new(der);
        let mut certificate = outer.sequence()?;
        outer.finish()?;
        let mut fields = certificate.sequence()?;
        fields.skip_if(CONTEXT_0)?;
        fields.take(INTEGER)?;
        for _signature_issuer_validity_subject in 0..4 {
            fields.sequence()?;
        }
        Self::from_spki(fields.whole()?)
    }

    /// SHA-256 over the canonical form (RFC 7638 section 3): the required members alone, in their order, without
    /// white space. Made from the numbers, so it does not depend on how the key was written.
    pub(crate) fn thumbprint(&self) -> [u8; 32] {
        let encode = base64url::encode;
        let canonical = match self {
            Self::Rsa { modulus, exponent } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(exponent), encode(modulus))
            }
            Self::Ec { curve, point } => {
                // The point is uncompressed: a byte that says so, and two coordinates of one length.
                let coordinates = point.get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at_checked(curve.field_length()).unwrap_or_default();
                format!(
                    r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#,
                    curve.as_str(),
                    encode(x),
                    encode(y)
                )
            }
            Self::Ed25519(point) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(point)),
        };
        sha256(canonical.as_bytes())
    }

    /// The algorithms the key fits.
    pub(crate) const fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa { .. } => &[
                Algorithm::Rs256,
                Algorithm::Rs384,
                Algorithm::Rs512,
                Algorithm::Ps256,
                Algorithm::Ps384,
                Algorithm::Ps512,
            ],
            Self::Ec { curve: Curve::P256, .. } => &[Algorithm::Es256],
            Self::Ec { curve: Curve::P384, .. } => &[Algorithm::Es384],
            Self::Ec { curve: Curve::P521, .. } => &[Algorithm::Es512],
            Self::Ed25519(_) => &[Algorithm::EdDsa],
        }
    }

    /// Parses the key for the algorithm, once and for good.
    pub(crate) fn parsed_for(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, KeyError> {
        let parsed = match self {
            Self::Rsa { modulus, exponent } => {
                let parameters = rsa_parameters(algorithm).ok_or(KeyError::AlgorithmMismatch)?;
                RsaPublicKeyComponents { n: modulus, e: exponent }.to_parsed_public_key(parameters)
            }
            // aws-lc checks that the point is on the curve and not at infinity.
            Self::Ec { curve, point } => ParsedPublicKey::new(curve.verification(), point),
            Self::Ed25519(point) => ParsedPublicKey::new(&ED25519, point),
        };
        parsed.map_err(|_| KeyError::MaterialMalformed)
    }
}

/// The contents of a PKCS#8 key (RFC 5208 section 5): for RSA, the `RSAPrivateKey`.
pub(crate) fn pkcs8_contents(pkcs8: &[u8]) -> Result<&[u8], KeyError> {
    let mut fields = Reader::new(pkcs8).sequence()?;
    fields.take(INTEGER)?;
    fields.sequence()?;
    fields.take(OCTET_STRING)
}

const fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::Es512
        | Algorithm::EdDsa
        | Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512 => None,
    }
}
