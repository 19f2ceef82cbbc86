//! Proofs of possession (RFC 9449 section 4.2): a signed token that brings its own public key.
//!
//! It is the one kind of token that may (JWT-18), because its key proves nothing by itself: it counts only where an
//! access token names it by its thumbprint.

mod target;

use std::sync::Arc;

use portcullis_core::json::{Limits, Object, Value};

use crate::claims::numeric_date;
use crate::{
    Algorithm, ClaimError, CompactJws, JwsError, JwsLimits, KeyError, SignatureInvalid, VerifyingKey,
};
use crate::{base64url, jwk};

pub use target::{Origin, Target};

/// The `typ` of a proof, compared exactly.
const TYPE: &str = "dpop+jwt";
/// The longest proof, in bytes. One with an RSA key of 8192 bits has about 4,500.
const PROOF_MAX: usize = 8 * 1024;
/// The longest `jti` and `nonce`.
const NAME_MAX: usize = 255;
/// The longest `htu`. A longer target could not have been requested.
const URI_MAX: usize = 8 * 1024;

/// A well-formed proof whose signature nobody has checked yet.
#[derive(Clone, Debug)]
pub struct KeyProof<'t> {
    jws: CompactJws<'t>,
    key: VerifyingKey,
    thumbprint: [u8; 32],
}

/// What a proof says, once its signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofClaims {
    /// `jti`, 1 to 255 bytes.
    pub id: Arc<str>,
    /// `htm`.
    pub method: Arc<str>,
    /// `htu`.
    pub uri: Arc<str>,
    /// `iat`, in milliseconds since 1970.
    pub issued_ms: i64,
    /// `nbf`, in milliseconds since 1970.
    pub not_before_ms: Option<i64>,
    /// `exp`, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// `ath`: SHA-256 of the access token.
    pub token_hash: Option<[u8; 32]>,
    /// `nonce`.
    pub nonce: Option<Arc<str>>,
}

/// Why bytes are not a proof. The texts may be logged: they never repeat the proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not one strict compact JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// `typ` is not `dpop+jwt`.
    #[error("the proof's `typ` is not `dpop+jwt`")]
    Type,
    /// The algorithm is symmetric: whoever could check could also make such proofs.
    #[error("the proof's algorithm has no public key")]
    Symmetric,
    /// There is no `jwk`, or it is not an object.
    #[error("the proof brings no key")]
    KeyMissing,
    /// The key cannot be used.
    #[error("the proof's key is not acceptable: {0}")]
    Key(#[from] KeyError),
    /// The signature is not the key's own.
    #[error(transparent)]
    Signature(#[from] SignatureInvalid),
    /// A claim is missing or malformed.
    #[error("the proof's claim `{0}` is missing or malformed")]
    Claim(&'static str),
}

impl<'t> KeyProof<'t> {
    /// Reads a proof up to the point where its signature is checked (DPP-02).
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn parse(proof: &'t [u8]) -> Result<Self, ProofError> {
        let limits = JwsLimits { token: PROOF_MAX, header: PROOF_MAX, ..JwsLimits::default() };
        let jws = CompactJws::parse(proof, limits)?;
        if jws.header().kind.as_deref() != Some(TYPE) {
            return Err(ProofError::Type);
        }
        let algorithm = jws.header().algorithm;
        if algorithm.is_symmetric() {
            return Err(ProofError::Symmetric);
        }
        let header = jws.header_members(limits.json)?;
        let Some(Value::Object(members)) = header.get("jwk") else { return Err(ProofError::KeyMissing) };
        let (key, thumbprint) = jwk::public_key(members, algorithm)?;
        Ok(Self { jws, key, thumbprint })
    }

    /// The algorithm it is signed with, never a symmetric one.
    pub const fn algorithm(&self) -> Algorithm {
        self.jws.header().algorithm
    }

    /// SHA-256 thumbprint of its key (RFC 7638), in its one canonical form.
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Checks the signature with the proof's own key, and reads what it says (DPP-03). Unknown claims are ignored
    /// (DPP-10).
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(&self) -> Result<ProofClaims, ProofError> {
        let claims = self.jws.verify(&self.key)?.claims(Limits::default())?;
        ProofClaims::read(&claims)
    }
}

impl ProofClaims {
    fn read(claims: &Object) -> Result<Self, ProofError> {
        let date = |name, round: fn(f64) -> f64| {
            numeric_date(claims, name, round).map_err(|_: ClaimError| ProofError::Claim(name))
        };
        let token_hash = match claims.get("ath") {
            None => None,
            Some(Value::Text(text)) => {
                Some(base64url::decode_exactly(text.as_bytes()).map_err(|_| ProofError::Claim("ath"))?)
            }
            Some(_) => return Err(ProofError::Claim("ath")),
        };
        Ok(Self {
            id: text(claims, "jti", NAME_MAX)?.ok_or(ProofError::Claim("jti"))?,
            method: text(claims, "htm", NAME_MAX)?.ok_or(ProofError::Claim("htm"))?,
            uri: text(claims, "htu", URI_MAX)?.ok_or(ProofError::Claim("htu"))?,
            issued_ms: date("iat", f64::ceil)?.ok_or(ProofError::Claim("iat"))?,
            not_before_ms: date("nbf", f64::ceil)?,
            expires_ms: date("exp", f64::floor)?,
            token_hash,
            nonce: text(claims, "nonce", NAME_MAX)?,
        })
    }
}

fn text(claims: &Object, name: &'static str, most: usize) -> Result<Option<Arc<str>>, ProofError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Text(text)) if (1..=most).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(ProofError::Claim(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{KeyProof, ProofError};
    use crate::digest::sha256;
    use crate::{Algorithm, JwsError, KeyError, SignatureInvalid, SigningKey, base64url};

    /// RFC 9449 section 7.1, figure 12.
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    /// The access token of the same figure, and the thumbprint it is bound to (figure 8).
    const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    const THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

    #[test]
    fn the_proof_of_rfc_9449_is_read_and_verified() {
        let proof = KeyProof::parse(PROOF.as_bytes()).expect("a proof");
        assert_eq!(proof.algorithm(), Algorithm::Es256);
        assert_eq!(base64url::encode(proof.thumbprint()), THUMBPRINT);
        let claims = proof.verify().expect("a signature");
        assert_eq!(&*claims.id, "e1j3V_bKic8-LAEB");
        assert_eq!(
            (&*claims.method, &*claims.uri),
            ("GET", "https://resource.example.org/protectedresource")
        );
        assert_eq!(claims.issued_ms, 1_562_262_618_000);
        assert_eq!(claims.token_hash, Some(sha256(TOKEN.as_bytes())));
        assert_eq!(claims.nonce, None);
    }

    /// RFC 7638 section 3.1, and each kind of key against its canonical form.
    #[test]
    fn thumbprints_are_those_of_rfc_7638() {
        for algorithm in
            [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa]
        {
            let key = SigningKey::generate(algorithm).expect("a key");
            let jwk = key.public_jwk("any").expect("a public key");
            let member = |name: &str| jwk[name].as_str().expect("a member").to_owned();
            let canonical = match member("kty").as_str() {
                "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, member("e"), member("n")),
                "EC" => format!(
                    r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#,
                    member("crv"),
                    member("x"),
                    member("y")
                ),
                _ => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, member("x")),
            };
            let signed = signed(&key, &json!({}), &json!({}));
            let proof = KeyProof::parse(signed.as_bytes()).expect("a proof");
            assert_eq!(*proof.thumbprint(), sha256(canonical.as_bytes()), "{algorithm}");
            assert!(proof.verify().is_ok(), "{algorithm}");
        }
    }

    fn changed(mut object: Value, changes: &Value) -> Value {
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => drop(object.as_object_mut().expect("an object").remove(name)),
                value => object[name] = value.clone(),
            }
        }
        object
    }

    fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
        let mut jwk = key.public_jwk("any").expect("a public key");
        jwk.as_object_mut().expect("an object").remove("use");
        let header = changed(json!({"typ": "dpop+jwt", "jwk": jwk}), header);
        let claims = changed(
            json!({"jti": "a", "htm": "GET", "htu": "https://api.example/x", "iat": 1_700_000_000}),
            claims,
        );
        key.sign(header, &claims).expect("a signature")
    }

    /// DPP-02, JWT-18.
    #[test]
    fn a_header_that_is_no_proofs_is_refused() {
        let key = SigningKey::generate(Algorithm::Es256).expect("a key");
        let other = SigningKey::generate(Algorithm::Es256).expect("a key");
        let jwk = key.public_jwk("any").expect("a public key");
        let with = |changes: &Value| changed(jwk.clone(), changes);
        let rows = [
            (json!({"typ": null}), ProofError::Type),
            (json!({"typ": "JWT"}), ProofError::Type),
            (json!({"typ": "DPoP+jwt"}), ProofError::Type),
            (json!({"typ": "application/dpop+jwt"}), ProofError::Type),
            (json!({"typ": 7}), ProofError::Jws(JwsError::HeaderMember("typ"))),
            (json!({"jwk": null}), ProofError::KeyMissing),
            (json!({"jwk": "x"}), ProofError::KeyMissing),
            (json!({"jwk": [jwk]}), ProofError::KeyMissing),
            (json!({"jwk": {}}), ProofError::Key(KeyError::Member("kty"))),
            (json!({"jwk": {"kty": "oct", "k": "AAAA"}}), ProofError::Key(KeyError::SymmetricRefused)),
            (json!({"jwk": with(&json!({"d": "AAAA"}))}), ProofError::Key(KeyError::PrivateMember)),
            (json!({"jwk": with(&json!({"k": "AAAA"}))}), ProofError::Key(KeyError::PrivateMember)),
            (json!({"jwk": with(&json!({"alg": "ES384"}))}), ProofError::Key(KeyError::AlgorithmMismatch)),
            (json!({"jwk": with(&json!({"use": "enc"}))}), ProofError::Key(KeyError::NotForVerifying)),
            (json!({"jwk": with(&json!({"x": "AAAA"}))}), ProofError::Key(KeyError::MaterialMalformed)),
            (json!({"jwk": with(&json!({"crv": "P-384"}))}), ProofError::Key(KeyError::MaterialMalformed)),
        ];
        for (header, expected) in rows {
            let found = KeyProof::parse(signed(&key, &header, &json!({})).as_bytes()).map(drop);
            assert_eq!(found, Err(expected), "{header}");
        }
        let borrowed = json!({"jwk": other.public_jwk("any").expect("a public key")});
        let borrowed = signed(&key, &borrowed, &json!({}));
        let proof = KeyProof::parse(borrowed.as_bytes()).expect("a proof");
        assert_eq!(proof.verify(), Err(ProofError::Signature(SignatureInvalid::Wrong)));
        let large = signed(&key, &json!({"x": "y".repeat(9000)}), &json!({}));
        assert_eq!(KeyProof::parse(large.as_bytes()).map(drop), Err(ProofError::Jws(JwsError::TooLarge)));
        let secret = portcullis_core::Secret::new(vec![7; 32]);
        let hmac = SigningKey::from_secret(Algorithm::Hs256, &secret).expect("a key");
        let symmetric = hmac.sign(json!({"typ": "dpop+jwt", "jwk": jwk}), &json!({})).expect("a signature");
        assert_eq!(KeyProof::parse(symmetric.as_bytes()).map(drop), Err(ProofError::Symmetric));
    }

    /// DPP-03.
    #[test]
    fn claims_of_the_wrong_kind_are_refused() {
        let key = SigningKey::generate(Algorithm::Es256).expect("a key");
        for name in ["jti", "htm", "htu", "iat", "ath", "nonce", "exp", "nbf"] {
            let optional = matches!(name, "ath" | "nonce" | "exp" | "nbf");
            for value in [json!(null), json!(true), json!([]), json!({}), json!("")] {
                let token = signed(&key, &json!({}), &json!({ name: value }));
                let found = KeyProof::parse(token.as_bytes()).expect("a proof").verify().map(drop);
                let expected =
                    if optional && value.is_null() { Ok(()) } else { Err(ProofError::Claim(name)) };
                assert_eq!(found, expected, "{name} {value}");
            }
        }
        let long = "a".repeat(256);
        for (name, value) in
            [("jti", json!(long)), ("nonce", json!(long)), ("iat", json!("1")), ("ath", json!(long))]
        {
            let token = signed(&key, &json!({}), &json!({ name: value }));
            let found = KeyProof::parse(token.as_bytes()).expect("a proof").verify().map(drop);
            assert_eq!(found, Err(ProofError::Claim(name)), "{value}");
        }
    }
}
