//! One entry of a key set (RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::Secret;
use portcullis_core::json::{self, Limits, Object, Value};

use super::JwkSource;
use crate::jws::KEY_ID_MAX;
use crate::key::{Curve, PublicKey};
use crate::{Algorithm, KeyError, VerifyingKey, base64url, digest};

/// Members that only a private key has (RFC 7518 section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// `sig` and `verify`, the only purposes we have.
const USE: &str = "sig";
const OPERATION: &str = "verify";

/// An entry that was not taken.
pub(super) struct Refused {
    pub(super) key_id: Option<Arc<str>>,
    pub(super) why: KeyError,
}

/// Reads one entry.
pub(super) fn read(text: &str, source: JwkSource) -> Result<VerifyingKey, Refused> {
    let members = json::parse_object(text.as_bytes(), Limits::default())
        .map_err(|error| Refused { key_id: None, why: error.into() })?;
    let key_id = key_id(&members).map_err(|why| Refused { key_id: None, why })?;
    match key(&members, source) {
        Ok(key) => Ok(match key_id {
            Some(key_id) => key.named(key_id),
            None => key,
        }),
        Err(why) => Err(Refused { key_id, why }),
    }
}

/// A public key that stands alone, for one algorithm, and its thumbprint.
pub(crate) fn public_key(
    members: &Object,
    algorithm: Algorithm,
) -> Result<(VerifyingKey, [u8; 32]), KeyError> {
    let kind = text(members, "kty")?.ok_or(KeyError::Member("kty"))?;
    if kind == "oct" {
        return Err(KeyError::SymmetricRefused);
    }
    if PRIVATE.iter().any(|name| members.get(name).is_some()) {
        return Err(KeyError::PrivateMember);
    }
    let public = public(members, kind)?;
    meant_for_verifying(members)?;
    if self::algorithm(members)?.is_some_and(|only| only != algorithm) {
        return Err(KeyError::AlgorithmMismatch);
    }
    Ok((VerifyingKey::from_public(&public, Some(algorithm))?, public.thumbprint()))
}

fn key(members: &Object, source: JwkSource) -> Result<VerifyingKey, KeyError> {
    let kind = text(members, "kty")?.ok_or(KeyError::Member("kty"))?;
    if kind == "oct" {
        return match source {
            JwkSource::Remote => Err(KeyError::SymmetricRefused),
            JwkSource::Local => secret(members),
        };
    }
    if PRIVATE.iter().any(|name| members.get(name).is_some()) {
        return Err(KeyError::PrivateMember);
    }
    let public = public(members, kind)?;
    meant_for_verifying(members)?;
    let key = VerifyingKey::from_public(&public, algorithm(members)?)?;
    Ok(key.with_certificate_thumbprint(certificate(members, &public)?))
}

fn public(members: &Object, kind: &str) -> Result<PublicKey, KeyError> {
    match kind {
        "RSA" => PublicKey::rsa(bytes(members, "n")?, bytes(members, "e")?),
        "EC" => {
            let name = text(members, "crv")?.ok_or(KeyError::Member("crv"))?;
            let curve = Curve::parse(name).ok_or(KeyError::CurveUnsupported)?;
            PublicKey::ec(curve, &bytes(members, "x")?, &bytes(members, "y")?)
        }
        "OKP" => match text(members, "crv")?.ok_or(KeyError::Member("crv"))? {
            "Ed25519" => {
                let point = bytes(members, "x")?.try_into().map_err(|_| KeyError::MaterialMalformed)?;
                Ok(PublicKey::Ed25519(point))
            }
            _ => Err(KeyError::CurveUnsupported),
        },
        _ => Err(KeyError::TypeUnsupported),
    }
}

fn secret(members: &Object) -> Result<VerifyingKey, KeyError> {
    meant_for_verifying(members)?;
    let secret = Secret::new(bytes(members, "k")?);
    let key = VerifyingKey::from_secret(&secret)?;
    match algorithm(members)? {
        None => Ok(key),
        Some(only) if only.is_symmetric() && !key.allows(only) => {
            Err(KeyError::SecretTooShort { bytes: secret.len() })
        }
        Some(only) => key.only_for(only),
    }
}

/// JWT-12: `use` absent or `sig`, `key_ops` absent or with `verify`.
fn meant_for_verifying(members: &Object) -> Result<(), KeyError> {
    if text(members, "use")?.is_some_and(|purpose| purpose != USE) {
        return Err(KeyError::NotForVerifying);
    }
    match members.get("key_ops") {
        None => Ok(()),
        Some(Value::List(operations)) => {
            let words: Option<Vec<&Arc<str>>> = operations.iter().map(Value::as_text).collect();
            let words = words.ok_or(KeyError::Member("key_ops"))?;
            // RFC 7517 section 4.3: no operation occurs twice.
            let twice = words.iter().enumerate().any(|(at, word)| words.iter().take(at).any(|w| w == word));
            match words.iter().any(|word| &***word == OPERATION) {
                _ if twice => Err(KeyError::Member("key_ops")),
                true => Ok(()),
                false => Err(KeyError::NotForVerifying),
            }
        }
        Some(_) => Err(KeyError::Member("key_ops")),
    }
}

fn algorithm(members: &Object) -> Result<Option<Algorithm>, KeyError> {
    text(members, "alg")?.map(|name| Algorithm::parse(name).ok_or(KeyError::AlgorithmUnknown)).transpose()
}

/// The thumbprint of the certificate that came with the key, once it is shown to be the key's own (JWK-06). The
/// chain is not validated: a key counts because its set does, not because of its certificate.
fn certificate(members: &Object, key: &PublicKey) -> Result<Option<[u8; 32]>, KeyError> {
    let named = text(members, "x5t#S256")?
        .map(|text| base64url::decode_exactly(text.as_bytes()).map_err(|_| KeyError::Member("x5t#S256")))
        .transpose()?;
    let Some(chain) = members.get("x5c") else {
        return Ok(named);
    };
    let leaf = match chain {
        Value::List(chain) => chain.first().and_then(Value::as_text).ok_or(KeyError::Member("x5c"))?,
        _ => return Err(KeyError::Member("x5c")),
    };
    // Unlike everything else in JOSE, this is base64 of the standard alphabet with padding (RFC 7517 section 4.7).
    let der = STANDARD.decode(leaf.as_bytes()).map_err(|_| KeyError::Member("x5c"))?;
    let thumbprint = digest::sha256(&der);
    if PublicKey::from_certificate(&der).ok().as_ref() != Some(key) {
        return Err(KeyError::CertificateMismatch);
    }
    match named {
        Some(named) if named != thumbprint => Err(KeyError::CertificateMismatch),
        _ => Ok(Some(thumbprint)),
    }
}

/// JWK-03.
fn key_id(members: &Object) -> Result<Option<Arc<str>>, KeyError> {
    match members.get("kid") {
        None => Ok(None),
        Some(Value::Text(text)) if text.len() <= KEY_ID_MAX => Ok(Some(Arc::clone(text))),
        Some(_) => Err(KeyError::Member("kid")),
    }
}

fn text<'m>(members: &'m Object, name: &'static str) -> Result<Option<&'m str>, KeyError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(KeyError::Member(name)),
    }
}

fn bytes(members: &Object, name: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = text(members, name)?.ok_or(KeyError::Member(name))?;
    base64url::decode(text.as_bytes()).map_err(|_| KeyError::Member(name))
}
