//! Key sets: good, bad, and bad in one entry.

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};
use serde_json::{Value, json};

use super::{JwkSet, JwkSetError, JwkSource};
use crate::{Algorithm, KeyError, SigningKey};

/// RFC 8705 appendix A: a key with its certificate.
const X: &str = "1yfLHCpXqFjxCeHHHMVDTcLscpb07KUxudBmOMn8C7Q";
const Y: &str = "8_coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8";
const X5C: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";
const X5T: &str = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
const K: &str = "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg";

fn public(algorithm: Algorithm, kid: &str) -> Value {
    SigningKey::generate(algorithm).expect("a key").public_jwk(kid).expect("a public half")
}

fn read(keys: &[Value], source: JwkSource) -> JwkSet {
    JwkSet::parse(json!({"keys": keys, "more": {"keys": 1}}).to_string().as_bytes(), source).expect("a set")
}

/// The one entry's error.
fn refused(entry: &str, source: JwkSource) -> KeyError {
    let set = JwkSet::parse(format!(r#"{{"keys":[{entry}]}}"#).as_bytes(), source).expect(entry);
    assert!(set.is_empty(), "taken: {entry}");
    set.skipped()[0].why.clone()
}

/// An EC entry with members replaced or added.
fn ec(changes: Value) -> String {
    let mut entry = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a"});
    for (name, value) in changes.as_object().expect("changes") {
        entry[name] = value.clone();
    }
    entry.to_string()
}

#[test]
fn every_kind_of_key_is_read_and_found_by_its_name() {
    let algorithms = [
        Algorithm::Rs256,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::EdDsa,
    ];
    let keys: Vec<Value> = algorithms.iter().map(|name| public(*name, name.as_str())).collect();
    let set = read(&keys, JwkSource::Remote);
    assert_eq!((set.len(), set.skipped().len()), (algorithms.len(), 0));
    for algorithm in algorithms {
        assert_eq!(set.candidates(Some(algorithm.as_str()), algorithm).count(), 1, "{algorithm}");
        assert_eq!(set.candidates(None, algorithm).count(), 1, "{algorithm}");
        assert_eq!(set.candidates(Some("other"), algorithm).count(), 0, "{algorithm}");
        assert_eq!(set.candidates(Some(&algorithm.as_str().to_lowercase()), algorithm).count(), 0);
    }
    // JWT-12: a key with `alg` serves that one alone.
    assert_eq!(set.candidates(Some("RS256"), Algorithm::Rs384).count(), 0);
    assert_eq!(set.candidates(Some("RS256"), Algorithm::Ps256).count(), 0);
    assert_eq!(set.candidates(Some("RS256"), Algorithm::Hs256).count(), 0);
}

#[test]
fn what_is_not_a_key_set_is_an_error() {
    let many = format!(r#"{{"keys":[{}{{}}]}}"#, "{},".repeat(100));
    let rows: Vec<(Vec<u8>, JwkSetError)> = vec![
        (b"".to_vec(), JwkSetError::Malformed),
        (b"<html>".to_vec(), JwkSetError::Malformed),
        (b"[]".to_vec(), JwkSetError::Malformed),
        (b"{}".to_vec(), JwkSetError::Malformed),
        (br#"{"keys":{}}"#.to_vec(), JwkSetError::Malformed),
        (br#"{"keys":null}"#.to_vec(), JwkSetError::Malformed),
        (br#"{"Keys":[]}"#.to_vec(), JwkSetError::Malformed),
        (br#"{"keys":[],"keys":[]}"#.to_vec(), JwkSetError::Malformed),
        (br#"{"keys":[],"\u006beys":[]}"#.to_vec(), JwkSetError::Malformed),
        (br#"{"keys":[]} x"#.to_vec(), JwkSetError::Malformed),
        (br#"{"keys":[}"#.to_vec(), JwkSetError::Malformed),
        (b"\xef\xbb\xbf{\"keys\":[]}".to_vec(), JwkSetError::Malformed),
        (b"{\"keys\":[\"\xff\"]}".to_vec(), JwkSetError::Malformed),
        (many.into_bytes(), JwkSetError::TooManyKeys),
        (vec![b' '; 512 * 1024 + 1], JwkSetError::TooLarge),
    ];
    for (bytes, expected) in rows {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!(JwkSet::parse(&bytes, JwkSource::Remote).map(drop), Err(expected), "{shown}");
    }
    let deep = format!(r#"{{"x":{}1{},"keys":[]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(JwkSet::parse(deep.as_bytes(), JwkSource::Remote).is_ok_and(|set| set.is_empty()));
}

/// JWK-01.
#[test]
fn one_bad_entry_does_not_take_the_set_with_it() {
    let good = public(Algorithm::Es256, "good");
    let text = format!(
        r#"{{"keys":[{{"kty":"EC","kty":"EC"}},7,null,"x",[],{{}},{{"kty":"PQ"}},{good},{}]}}"#,
        "[".repeat(100) + &"]".repeat(100)
    );
    let set = JwkSet::parse(text.as_bytes(), JwkSource::Remote).expect("a set");
    assert_eq!(set.key_ids().map(|key_id| &**key_id).collect::<Vec<_>>(), ["good"]);
    assert_eq!(
        set.skipped().iter().map(|skipped| skipped.index).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6, 8]
    );
}

/// JWK-01, JWT-12, JWT-13: each row gives the exact reason.
#[test]
fn entries_that_are_not_taken_say_why() {
    use KeyError::{
        AlgorithmMismatch, AlgorithmUnknown, CertificateMismatch, CurveUnsupported, MaterialMalformed,
        Member, NotForVerifying, PrivateMember, RsaExponent, RsaModulusSize, TypeUnsupported,
    };
    let rsa = |n: String, e: &str| json!({"kty": "RSA", "n": n, "e": e}).to_string();
    let small = crate::base64url::encode(&[0xff; 128]);
    let large = crate::base64url::encode(&[0xff; 256]);
    let rows = [
        (ec(json!({"kty": null})), Member("kty")),
        (ec(json!({"kty": "ec"})), TypeUnsupported),
        (ec(json!({"kty": "AKP"})), TypeUnsupported),
        (ec(json!({"crv": "secp256k1"})), CurveUnsupported),
        (ec(json!({"crv": "p-256"})), CurveUnsupported),
        (ec(json!({"crv": 7})), Member("crv")),
        (ec(json!({"crv": "P-384"})), MaterialMalformed),
        (ec(json!({"x": null})), Member("x")),
        (ec(json!({"x": format!("{X}=")})), Member("x")),
        (ec(json!({"x": "AA"})), MaterialMalformed),
        (ec(json!({"x": Y})), MaterialMalformed),
        (
            ec(json!({"x": crate::base64url::encode(&[0; 32]), "y": crate::base64url::encode(&[0; 32])})),
            MaterialMalformed,
        ),
        (ec(json!({"alg": "ES384"})), AlgorithmMismatch),
        (ec(json!({"alg": "RS256"})), AlgorithmMismatch),
        (ec(json!({"alg": "HS256"})), AlgorithmMismatch),
        (ec(json!({"alg": "ECDH-ES"})), AlgorithmUnknown),
        (ec(json!({"alg": "none"})), AlgorithmUnknown),
        (ec(json!({"alg": 7})), Member("alg")),
        (ec(json!({"use": "enc"})), NotForVerifying),
        (ec(json!({"use": "SIG"})), NotForVerifying),
        (ec(json!({"use": ["sig"]})), Member("use")),
        (ec(json!({"key_ops": []})), NotForVerifying),
        (ec(json!({"key_ops": ["sign", "encrypt"]})), NotForVerifying),
        (ec(json!({"key_ops": "verify"})), Member("key_ops")),
        (ec(json!({"key_ops": ["verify", 7]})), Member("key_ops")),
        (ec(json!({"key_ops": ["verify", "verify"]})), Member("key_ops")),
        (ec(json!({"kid": 7})), Member("kid")),
        (ec(json!({"kid": null})), Member("kid")),
        (ec(json!({"kid": "k".repeat(257)})), Member("kid")),
        (ec(json!({"d": X})), PrivateMember),
        (ec(json!({"d": null})), PrivateMember),
        (ec(json!({"x5c": X5C})), Member("x5c")),
        (ec(json!({"x5c": []})), Member("x5c")),
        (ec(json!({"x5c": ["%"]})), Member("x5c")),
        (ec(json!({"x5c": ["AAAA"]})), CertificateMismatch),
        (ec(json!({"x5t#S256": "AAAA"})), Member("x5t#S256")),
        (ec(json!({"x5c": [X5C], "x5t#S256": K})), CertificateMismatch),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}).to_string(), MaterialMalformed),
        (json!({"kty": "OKP", "crv": "X25519", "x": K}).to_string(), CurveUnsupported),
        (json!({"kty": "OKP", "crv": "Ed448", "x": K}).to_string(), CurveUnsupported),
        (rsa(small, "AQAB"), RsaModulusSize { bits: 1024 }),
        (rsa(large.clone(), "AQ"), RsaExponent),
        (rsa(large.clone(), "Aw"), RsaExponent),
        (rsa(large.clone(), "AAEAAQ"), MaterialMalformed),
        (rsa(large, ""), MaterialMalformed),
        (json!({"kty": "RSA", "e": "AQAB"}).to_string(), Member("n")),
    ];
    for (entry, expected) in rows {
        assert_eq!(refused(&entry, JwkSource::Remote), expected, "{entry}");
        assert_eq!(refused(&entry, JwkSource::Local), expected, "{entry}");
    }
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert_eq!(refused(&ec(json!({ name: "AAAA" })), JwkSource::Remote), PrivateMember, "{name}");
    }
}

#[test]
fn entries_that_say_what_they_are_for_are_taken() {
    for changes in [
        json!({}),
        json!({"use": "sig"}),
        json!({"key_ops": ["verify"]}),
        json!({"key_ops": ["verify", "sign"]}),
        json!({"alg": "ES256"}),
        json!({"kid": "k".repeat(256)}),
        json!({"kid": ""}),
        json!({"x5c": [X5C, "not read"], "x5t#S256": X5T}),
        json!({"unknown": {"deep": [1, 2]}, "x5u": "https://example.com"}),
    ] {
        let text = format!(r#"{{"keys":[{}]}}"#, ec(changes));
        let set = JwkSet::parse(text.as_bytes(), JwkSource::Remote).expect("a set");
        assert_eq!((set.len(), set.skipped()), (1, &[][..]), "{text}");
    }
}

/// JWK-06: the key's certificate is its own, and its thumbprint is known afterwards.
#[test]
fn the_certificate_of_a_key_must_be_its_own() {
    let text = format!(r#"{{"keys":[{}]}}"#, ec(json!({"x5c": [X5C]})));
    let set = JwkSet::parse(text.as_bytes(), JwkSource::Remote).expect("a set");
    let thumbprint = set.keys()[0].certificate_thumbprint().expect("known");
    assert_eq!(crate::base64url::encode(thumbprint), X5T);
    let mut other = public(Algorithm::Es256, "a");
    other["x5c"] = json!([X5C]);
    assert_eq!(refused(&other.to_string(), JwkSource::Remote), KeyError::CertificateMismatch);
}

/// JWK-02, JWT-11.
#[test]
fn secrets_stand_alone_and_come_from_us() {
    let secret = json!({"kty": "oct", "k": K, "kid": "s", "alg": "HS256"});
    let pair = [secret.clone(), public(Algorithm::Es256, "a")];
    assert_eq!(refused(&secret.to_string(), JwkSource::Remote), KeyError::SymmetricRefused);
    assert_eq!(
        read(std::slice::from_ref(&secret), JwkSource::Local).candidates(Some("s"), Algorithm::Hs256).count(),
        1
    );
    for source in [JwkSource::Remote, JwkSource::Local] {
        let set = read(&pair, source);
        assert_eq!((set.len(), set.candidates(None, Algorithm::Hs256).count()), (1, 0));
        assert_eq!(set.skipped()[0].why, KeyError::SymmetricRefused);
    }
    // Also where the public key itself is not taken: it is published all the same.
    let broken = json!({"kty": "EC", "crv": "P-256", "x": X, "y": X, "kid": "b"});
    assert!(read(&[secret, broken], JwkSource::Local).is_empty());
}

#[test]
fn secrets_are_long_enough_and_keep_to_their_algorithm() {
    use KeyError::{AlgorithmMismatch, Member, SecretTooShort};
    let oct = |members: Value| {
        let mut entry = json!({"kty": "oct", "k": K});
        for (name, value) in members.as_object().expect("members") {
            entry[name] = value.clone();
        }
        entry
    };
    let rows = [
        (oct(json!({"k": "AAAA"})), SecretTooShort { bytes: 3 }),
        (oct(json!({"alg": "HS384"})), SecretTooShort { bytes: 32 }),
        (oct(json!({"alg": "RS256"})), AlgorithmMismatch),
        (oct(json!({"k": null})), Member("k")),
        (oct(json!({"use": "enc"})), KeyError::NotForVerifying),
    ];
    for (entry, expected) in rows {
        assert_eq!(refused(&entry.to_string(), JwkSource::Local), expected, "{entry}");
    }
    let free = read(&[oct(json!({"k": crate::base64url::encode(&[7; 64])}))], JwkSource::Local);
    assert_eq!(free.keys()[0].algorithms().count(), 3);
    let bound =
        read(&[oct(json!({"k": crate::base64url::encode(&[7; 64]), "alg": "HS512"}))], JwkSource::Local);
    assert_eq!(bound.keys()[0].algorithms().collect::<Vec<_>>(), [Algorithm::Hs512]);
}

/// JWK-04.
#[test]
fn keys_of_one_name_must_differ_in_what_they_serve() {
    let (rs, ps) = (public(Algorithm::Rs256, "k"), public(Algorithm::Ps256, "k"));
    let differing = read(&[rs.clone(), ps.clone(), public(Algorithm::Es256, "k")], JwkSource::Remote);
    assert_eq!(differing.len(), 3);
    for algorithm in [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256] {
        assert_eq!(differing.candidates(Some("k"), algorithm).count(), 1);
    }
    let twice =
        read(&[rs.clone(), public(Algorithm::Rs256, "k"), public(Algorithm::Es256, "e")], JwkSource::Remote);
    assert_eq!(twice.key_ids().map(|key_id| &**key_id).collect::<Vec<_>>(), ["e"]);
    assert_eq!(twice.skipped().len(), 2, "neither counts: which one is meant is anybody's guess");
    assert_eq!(twice.skipped()[0].why, KeyError::Ambiguous(Algorithm::Rs256));
    // A key without `alg` serves all of RSA, so it collides with both.
    let mut free = public(Algorithm::Rs256, "k");
    free.as_object_mut().expect("an object").remove("alg");
    assert!(read(&[rs, ps, free], JwkSource::Remote).is_empty());
    // Names are compared as they are (JWK-03).
    assert_eq!(
        read(&[public(Algorithm::Es256, "k"), public(Algorithm::Es256, "K")], JwkSource::Remote).len(),
        2
    );
}

/// JWK-05.
#[test]
fn without_kid_at_most_eight_keys_are_tried() {
    let keys: Vec<Value> = (0..9).map(|number| public(Algorithm::Es256, &number.to_string())).collect();
    let eight = read(&keys[..8], JwkSource::Remote);
    assert_eq!((eight.candidates(None, Algorithm::Es256).count(), eight.len()), (8, 8));
    assert!(!eight.candidates(None, Algorithm::Es256).too_many());
    let nine = read(&keys, JwkSource::Remote);
    assert_eq!(nine.candidates(None, Algorithm::Es256).count(), 0);
    assert!(nine.candidates(None, Algorithm::Es256).too_many());
    assert_eq!(nine.candidates(Some("8"), Algorithm::Es256).count(), 1);
    assert!(!nine.candidates(Some("none of them"), Algorithm::Es256).too_many());
}

/// A PEM file has no place for names, so a `kid` cannot choose among its keys; a set with any name must be matched.
#[test]
fn keys_given_one_by_one_without_names_are_tried_whatever_the_kid() {
    let key = || SigningKey::generate(Algorithm::Es256).expect("a key").verifying_key().expect("a key");
    let nameless = JwkSet::from_keys(vec![key(), key()]);
    assert_eq!(nameless.candidates(Some("k"), Algorithm::Es256).count(), 2);
    assert_eq!(nameless.candidates(None, Algorithm::Es256).count(), 2);
    let named = JwkSet::from_keys(vec![key(), key().named("k")]);
    assert_eq!(named.candidates(Some("k"), Algorithm::Es256).count(), 1);
    assert_eq!(named.candidates(Some("other"), Algorithm::Es256).count(), 0);
    let mut entry = public(Algorithm::Es256, "");
    entry.as_object_mut().expect("an object").remove("kid");
    let remote = read(&[entry], JwkSource::Remote);
    assert_eq!(remote.candidates(Some("k"), Algorithm::Es256).count(), 0, "no falling back");
    assert_eq!(JwkSet::from_keys(vec![key(); 9]).candidates(Some("k"), Algorithm::Es256).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_at_all_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(JwkSet::parse(&bytes, JwkSource::Local).map_or(true, |set| set.len() <= 100));
    }
}
