//! Keys that sign, and texts that do not hold one.

use portcullis_core::Secret;
use serde_json::{Value, json};

use super::{SigningError, SigningKey};
use crate::{
    Algorithm, CompactJws, JwkSet, JwkSource, JwsLimits, MessageAlgorithm, MessageKey, VerifyingKey,
};

/// Written by OpenSSL: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
const P256: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3H0mmNPUBqJRg+xX
ONyTAef8CPdwNYGc8gNBM+Ka5pShRANCAARkjMEjwHRkxh5kFTYz4i8Jx1A/khCQ
FL7P0mje3kR+hih2SFE3ZV/kXI78VBL76YgMudNmMc50XvMMBXQ/+bUo
-----END PRIVATE KEY-----
";

/// Written by OpenSSL: `openssl genpkey -algorithm ed25519`.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEII/ZguioGClmiR2aqGo6kHb4UKsYz6Vjne923po5/d0G
-----END PRIVATE KEY-----
";

/// Written by OpenSSL: `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`.
const RSA: &str = include_str!("testdata/rsa.pem");

#[test]
fn keys_that_openssl_wrote_sign_what_their_public_half_verifies() {
    for (algorithm, pem) in [
        (Algorithm::Es256, P256),
        (Algorithm::EdDsa, ED25519),
        (Algorithm::Rs256, RSA),
        (Algorithm::Rs384, RSA),
        (Algorithm::Ps512, RSA),
    ] {
        let signer = SigningKey::from_pem(algorithm, pem.as_bytes()).expect("a key");
        let text = signer.sign(json!({"kid": "k"}), &json!({"sub": "a"})).expect("signed");
        let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
        let jwks = json!({"keys": [signer.public_jwk("k")]}).to_string();
        let set = JwkSet::parse(jwks.as_bytes(), JwkSource::Remote).expect("a set");
        let from_pem =
            VerifyingKey::from_pem(signer.public_pem().expect("public").as_bytes()).expect("a key");
        assert_eq!(set.candidates(Some("k"), algorithm).filter(|key| token.verify(key).is_ok()).count(), 1);
        assert!(token.verify(&from_pem[0]).is_ok());
        assert!(token.verify(&signer.verifying_key().expect("a key")).is_ok());
    }
}

#[test]
fn a_key_signs_only_with_what_it_fits() {
    for (algorithm, pem) in [
        (Algorithm::Es384, P256),
        (Algorithm::Es512, P256),
        (Algorithm::Rs256, P256),
        (Algorithm::EdDsa, P256),
        (Algorithm::Hs256, P256),
        (Algorithm::Es256, ED25519),
        (Algorithm::Es256, RSA),
        (Algorithm::Hs256, RSA),
    ] {
        let refused = SigningKey::from_pem(algorithm, pem.as_bytes()).map(drop);
        assert_eq!(refused, Err(SigningError::KeyRejected(algorithm)));
    }
    let public = SigningKey::generate(Algorithm::Es256).expect("a key").public_pem().expect("public");
    for text in ["", "no key", &public, &format!("{P256}{ED25519}"), &P256.replace("PRIVATE", "EC PRIVATE")] {
        let refused = SigningKey::from_pem(Algorithm::Es256, text.as_bytes()).map(drop);
        assert_eq!(refused, Err(SigningError::NotAPrivateKey));
    }
    let short = SigningKey::from_secret(Algorithm::Hs512, &Secret::new(vec![7; 63])).map(drop);
    assert_eq!(short, Err(SigningError::KeyRejected(Algorithm::Hs512)));
    let asymmetric = SigningKey::from_secret(Algorithm::Es256, &Secret::new(vec![7; 64])).map(drop);
    assert_eq!(asymmetric, Err(SigningError::KeyRejected(Algorithm::Es256)));
}

#[test]
fn the_extra_header_cannot_change_the_algorithm() {
    let signer = SigningKey::generate(Algorithm::Es256).expect("a key");
    let text = signer.sign(json!({"alg": "none", "typ": "JWT"}), &json!({})).expect("signed");
    let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
    assert_eq!((token.header().algorithm, token.header().kind.as_deref()), (Algorithm::Es256, Some("JWT")));
    assert!(signer.sign(Value::Null, &json!({})).is_ok());
    assert_eq!(signer.sign(json!([]), &json!({})), Err(SigningError::HeaderNotAnObject));
}

#[test]
fn a_secret_has_no_public_half() {
    let signer = SigningKey::generate(Algorithm::Hs384).expect("a key");
    assert_eq!((signer.public_jwk("k"), signer.public_pem()), (None, None));
    assert_eq!(signer.verifying_key().expect("a key").algorithms().collect::<Vec<_>>(), [Algorithm::Hs384]);
}

/// Key sets are published to all workers.
#[test]
fn keys_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<JwkSet>();
    crosses::<VerifyingKey>();
    crosses::<SigningKey>();
}

#[test]
fn bytes_are_signed_as_a_token_is() {
    for (algorithm, name) in
        [(Algorithm::EdDsa, MessageAlgorithm::Ed25519), (Algorithm::Es256, MessageAlgorithm::EcdsaP256Sha256)]
    {
        let signer = SigningKey::generate(algorithm).expect("a key");
        let keys =
            MessageKey::from_pem(signer.public_pem().expect("a public half").as_bytes()).expect("keys");
        let signature = signer.sign_bytes(b"a message").expect("a signature");
        let key = keys.first().expect("a key");
        assert!(key.verifies(name, b"a message", &signature));
        assert!(!key.verifies(name, b"another one", &signature));
    }
}
