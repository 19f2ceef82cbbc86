//! Hostile tokens: each row gives the exact error.

use portcullis_core::json::Limits;
use portcullis_core::{Reason, Rejection, Secret};
use serde_json::json;

use super::{CompactJws, JwsError, JwsLimits, Segment, SignatureInvalid};
use crate::{Algorithm, JwkSet, JwkSource, SigningKey, VerifyingKey, base64url};

const PAYLOAD: &str = r#"{"sub":"a"}"#;
const SIGNATURE: &str = "AAAA";

fn with_header(header: impl AsRef<[u8]>) -> String {
    format!("{}.{}.{SIGNATURE}", base64url::encode(header.as_ref()), base64url::encode(PAYLOAD.as_bytes()))
}

fn error(token: impl AsRef<[u8]>) -> JwsError {
    let token = token.as_ref();
    match CompactJws::parse(token, JwsLimits::default()) {
        Ok(_) => panic!("taken: {}", String::from_utf8_lossy(&token[..token.len().min(200)])),
        Err(error) => error,
    }
}

/// The error of a header whose JSON is refused, with the reason's first words.
fn check_json(header: impl AsRef<[u8]>, expected: &str) {
    match error(with_header(header)) {
        JwsError::Json(Segment::Header, why) => assert!(why.to_string().starts_with(expected), "{why}"),
        other => panic!("{other:?}, expected {expected}"),
    }
}

/// JWT-01.
#[test]
fn sizes_are_bounded_before_any_work() {
    assert_eq!(error("a".repeat(16 * 1024 + 1)), JwsError::TooLarge);
    assert_eq!(error(vec![b'.'; 1024 * 1024]), JwsError::TooLarge);
    assert_eq!(error(format!("{}.e30.AAAA", "A".repeat(4097))), JwsError::HeaderTooLarge);
    assert_eq!(error(format!("e30.e30.{}", "A".repeat(1367))), JwsError::SignatureTooLarge);
    let padded = |length: usize| with_header(format!(r#"{{"alg":"RS256","x":"{}"}}"#, "a".repeat(length)));
    assert!(CompactJws::parse(&padded(3000), JwsLimits::default()).is_ok());
    assert_eq!(error(padded(3100)), JwsError::HeaderTooLarge);
}

/// JWT-01: a configured limit cannot pass the hard one.
#[test]
fn limits_have_a_hard_maximum() {
    let endless = JwsLimits {
        token: usize::MAX,
        header: usize::MAX,
        json: Limits { depth: usize::MAX, list: usize::MAX, members: usize::MAX },
    };
    let token = "a".repeat(JwsLimits::MAXIMUM.token + 1);
    assert_eq!(CompactJws::parse(&token, endless).map(drop), Err(JwsError::TooLarge));
    let deep = with_header(format!(r#"{{"alg":"RS256","x":{}{}}}"#, "[".repeat(40), "]".repeat(40)));
    assert!(matches!(CompactJws::parse(&deep, endless), Err(JwsError::Json(Segment::Header, _))));
}

/// JWT-02.
#[test]
fn only_three_segments_of_the_compact_alphabet_are_a_token() {
    let good = with_header(r#"{"alg":"RS256"}"#);
    assert!(CompactJws::parse(&good, JwsLimits::default()).is_ok());
    for text in ["", ".", "e30", "e30.e30", "a.b.c.d", "a.b.c.d.e.f", "...", &".".repeat(10_000)] {
        assert_eq!(error(text), JwsError::SegmentCount, "{}", &text[..text.len().min(12)]);
    }
    for text in ["a.b.c.d.e", "....", "e30....AAAA"] {
        assert_eq!(error(text), JwsError::Encrypted, "{text}");
    }
    for foreign in [" ", "\n", "\r\n", "\t", "=", "+", "/", "\0", "é", "~", "{", "\"", ",", "%2e"] {
        assert_eq!(error(format!("{good}{foreign}")), JwsError::NotCompact, "{foreign:?}");
        assert_eq!(error(format!("{foreign}{good}")), JwsError::NotCompact, "{foreign:?}");
        assert_eq!(error(good.replacen('.', &format!(".{foreign}"), 1)), JwsError::NotCompact, "{foreign:?}");
    }
    for byte in 0..=u8::MAX {
        let of_compact = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let token = [good.as_bytes(), &[byte]].concat();
        let refused = CompactJws::parse(&token, JwsLimits::default()).err() == Some(JwsError::NotCompact);
        assert_ne!(refused, of_compact, "{byte:#x}");
    }
    // JSON serialization (RFC 7515 section 7.2), also smuggled around a compact token.
    let json = format!(r#"{{"payload":"e30","signatures":[{{"protected":"{good}"}}]}}"#);
    assert_eq!(error(json), JwsError::NotCompact);
    assert_eq!(error([0xff, b'.', b'.']), JwsError::NotCompact);
}

#[test]
fn a_token_without_signature_is_refused() {
    let header = base64url::encode(br#"{"alg":"none"}"#);
    assert_eq!(error(format!("{header}.e30.")), JwsError::SignatureMissing);
    assert_eq!(error(".."), JwsError::SignatureMissing);
}

/// JWT-03.
#[test]
fn base64url_has_one_spelling() {
    let header = base64url::encode(br#"{"alg":"RS256"}"#);
    // One character over, and trailing bits that are not zero.
    for bad in ["A", "AAAAA", "AB", "AAB", "-_-_-"] {
        assert_eq!(error(format!("{bad}.e30.AAAA")), JwsError::Base64(Segment::Header), "{bad}");
        assert_eq!(error(format!("{header}.e30.{bad}")), JwsError::Base64(Segment::Signature), "{bad}");
        let text = format!("{header}.{bad}.AAAA");
        let token = CompactJws::parse(&text, JwsLimits::default()).expect("the payload is read last");
        assert_eq!(
            token.unverified_claims(Limits::default()),
            Err(JwsError::Base64(Segment::Payload)),
            "{bad}"
        );
    }
}

/// JWT-04.
#[test]
fn a_header_is_one_strict_json_object() {
    check_json("", "not JSON");
    check_json("null", "expected an object");
    check_json("[]", "expected an object");
    check_json(r#""alg""#, "expected an object");
    check_json(r#"{"alg":"RS256"} "x""#, "data after the JSON value");
    check_json(r#"{"alg":"RS256"}{"alg":"HS256"}"#, "data after the JSON value");
    check_json("\u{feff}{\"alg\":\"RS256\"}", "not JSON");
    check_json(b"{\"alg\":\"RS256\",\"x\":\"\xff\"}", "not UTF-8");
    check_json(r#"{"alg":"RS256","x":"\ud800"}"#, "not JSON");
    check_json(r#"{"alg":"RS256","alg":"HS256"}"#, "a member name occurs twice");
    check_json(r#"{"alg":"RS256","\u0061lg":"HS256"}"#, "a member name occurs twice");
    check_json(r#"{"alg":"RS256","x":{"a":1,"a":2}}"#, "a member name occurs twice");
    check_json(format!(r#"{{"alg":"RS256","x":{}{}}}"#, "[".repeat(17), "]".repeat(17)), "nested too deeply");
    check_json(format!(r#"{{"alg":"RS256","x":[{}1]}}"#, "1,".repeat(300)), "an array is too long");
    check_json(r#"{"alg":"RS256",}"#, "not JSON");
    check_json("{'alg':'RS256'}", "not JSON");
    check_json(r#"{"alg":"RS256"/**/}"#, "not JSON");
    check_json(r#"{"alg":"RS256","x":NaN}"#, "not JSON");
}

/// JWT-10: the name is compared exactly, and `none` is no name.
#[test]
fn algorithms_we_do_not_verify_are_refused() {
    for name in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "rs256",
        "RS256 ",
        " RS256",
        "HS257",
        "ES256K",
        "RS1",
        "Ed448",
        "EDDSA",
        "RSA-OAEP",
        "A128KW",
        "RS256\u{0}",
        "ECDH-ES",
        "\u{212b}S256",
    ] {
        let header = json!({"alg": name}).to_string();
        assert_eq!(error(with_header(header)), JwsError::AlgorithmUnknown, "{name}");
    }
    for header in [
        "{}",
        r#"{"Alg":"RS256"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":7}"#,
        r#"{"alg":["RS256"]}"#,
        r#"{"alg":{"name":"RS256"}}"#,
        r#"{"alg":true}"#,
    ] {
        assert_eq!(error(with_header(header)), JwsError::HeaderMember("alg"), "{header}");
    }
}

/// JWT-05, JWT-08.
#[test]
fn extensions_are_never_ignored() {
    use JwsError::{Compressed, CriticalMalformed, CriticalUnknown, PayloadUnencoded};
    let rows = [
        (r#""crit":["exp"],"exp":1"#, CriticalUnknown),
        (r#""crit":["alg"]"#, CriticalUnknown),
        (r#""crit":["b64"],"b64":true"#, CriticalUnknown),
        (r#""crit":["b64"],"b64":false"#, PayloadUnencoded),
        (r#""crit":[]"#, CriticalMalformed),
        (r#""crit":["missing"]"#, CriticalMalformed),
        (r#""crit":["x","x"],"x":1"#, CriticalMalformed),
        (r#""crit":[1]"#, CriticalMalformed),
        (r#""crit":[null]"#, CriticalMalformed),
        (r#""crit":"x","x":1"#, CriticalMalformed),
        (r#""crit":null"#, CriticalMalformed),
        (r#""crit":{}"#, CriticalMalformed),
        (r#""b64":false"#, PayloadUnencoded),
        (r#""b64":"false""#, PayloadUnencoded),
        (r#""b64":null"#, PayloadUnencoded),
        (r#""zip":"DEF""#, Compressed),
        (r#""zip":null"#, Compressed),
    ];
    for (members, expected) in rows {
        assert_eq!(error(with_header(format!(r#"{{"alg":"RS256",{members}}}"#))), expected, "{members}");
    }
}

/// JWK-03 and wrong kinds: malformed is never taken for absent.
#[test]
fn header_members_of_the_wrong_kind_are_refused() {
    for name in ["kid", "typ", "cty", "x5t#S256"] {
        for value in ["7", "null", "[]", "{}", "true", r#"["a"]"#] {
            let header = format!(r#"{{"alg":"RS256","{name}":{value}}}"#);
            assert_eq!(error(with_header(&header)), JwsError::HeaderMember(name), "{header}");
        }
    }
    let named = |length: usize| with_header(format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(length)));
    assert!(CompactJws::parse(&named(256), JwsLimits::default()).is_ok());
    assert_eq!(error(named(257)), JwsError::HeaderMember("kid"));
    let thumbprint = with_header(r#"{"alg":"RS256","x5t#S256":"AAAA"}"#);
    assert_eq!(error(thumbprint), JwsError::HeaderMember("x5t#S256"));
}

/// JWT-06, JWT-17: what does not concern us is ignored, and a token's own hints about keys are too.
#[test]
fn unknown_members_and_key_hints_change_nothing() {
    let header = json!({
        "type": "JWT", "alg": "RS256", "kid": "../../etc/passwd' OR 1=1 --\r\n",
        "jku": "https://attacker.example/jwks", "x5u": "https://attacker.example/x", "x5t": "AAAA",
        "jwk": {"kty": "oct", "k": "AAAA"}, "x5c": ["AAAA"], "b64": true,
    });
    let text = with_header(header.to_string());
    let token = CompactJws::parse(&text, JwsLimits::default()).expect("ignored");
    assert_eq!(token.header().key_id.as_deref(), Some("../../etc/passwd' OR 1=1 --\r\n"));
    assert_eq!((&token.header().kind, &token.header().certificate_thumbprint), (&None, &None));
}

/// JWT-17: a token signed with a key it brings along does not verify.
#[test]
fn a_key_inside_the_token_is_not_a_key() {
    let (own, attacker) = (
        SigningKey::generate(Algorithm::Es256).expect("a key"),
        SigningKey::generate(Algorithm::Es256).expect("a key"),
    );
    let jwk = attacker.public_jwk("k").expect("a public half");
    let text = attacker.sign(json!({"kid": "k", "jwk": jwk}), &json!({"sub": "root"})).expect("signed");
    let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
    let verdict = token.verify(&own.verifying_key().expect("a key")).map(drop);
    assert_eq!(verdict, Err(SignatureInvalid::Wrong));
}

/// JWT-11, trap 11: nothing makes a public key a secret.
#[test]
fn a_public_key_never_verifies_an_hmac() {
    let signer = SigningKey::generate(Algorithm::Rs256).expect("a key");
    let (pem, jwk) = (signer.public_pem().expect("public"), signer.public_jwk("k").expect("public"));
    let trimmed = pem.trim_end().to_owned();
    let der_like = jwk["n"].as_str().expect("a text").to_owned();
    let set = JwkSet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), JwkSource::Remote).expect("a set");
    let keys: Vec<VerifyingKey> = VerifyingKey::from_pem(pem.as_bytes())
        .expect("a key")
        .into_iter()
        .chain(set.keys().iter().cloned())
        .collect();
    assert_eq!(keys.len(), 2);
    for secret in [pem, trimmed, jwk.to_string(), der_like] {
        let forger =
            SigningKey::from_secret(Algorithm::Hs256, &Secret::new(secret.into_bytes())).expect("long");
        let text = forger.sign(json!({"kid": "k"}), &json!({"sub": "root"})).expect("signed");
        let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
        assert_eq!(set.candidates(Some("k"), token.header().algorithm).count(), 0);
        for key in &keys {
            assert_eq!(token.verify(key).map(drop), Err(SignatureInvalid::AlgorithmNotOfKey));
        }
    }
}

/// JWT-14: ECDSA signatures in any other form (CVE-2022-21449 and DER).
#[test]
fn ecdsa_signatures_of_another_form_are_refused() {
    for (algorithm, length) in [(Algorithm::Es256, 32), (Algorithm::Es384, 48), (Algorithm::Es512, 66)] {
        let signer = SigningKey::generate(algorithm).expect("a key");
        let key = signer.verifying_key().expect("a key");
        let good = signer.sign(json!({}), &json!({"sub": "a"})).expect("signed");
        let (signed, signature) = good.rsplit_once('.').expect("dots");
        let raw = base64url::decode(signature.as_bytes()).expect("ours");
        assert_eq!(raw.len(), 2 * length);
        let der = der_signature(&raw[..length], &raw[length..]);
        let swapped = [&raw[length..], &raw[..length]].concat();
        let zero_s = [&raw[..length], &vec![0; length][..]].concat();
        for forged in
            [vec![0; 2 * length], vec![0xff; 2 * length], der, swapped, zero_s, raw[..length].to_vec()]
        {
            let text = format!("{signed}.{}", base64url::encode(&forged));
            let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
            assert_eq!(token.verify(&key).map(drop), Err(SignatureInvalid::Wrong), "{algorithm}");
        }
    }
}

fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
        [&[0x02, u8::try_from(number.len() + sign.len()).expect("short")], sign, &number[..]].concat()
    };
    let body = [integer(r), integer(s)].concat();
    let length = u8::try_from(body.len()).expect("short");
    let head: &[u8] = if length < 0x80 { &[0x30, length] } else { &[0x30, 0x81, length] };
    [head, &body].concat()
}

/// JWT-13: a key without `alg` serves both paddings, and a signature only its own.
#[test]
fn pss_and_pkcs1_are_different_algorithms_of_one_key() {
    let pss = SigningKey::generate(Algorithm::Ps256).expect("a key");
    let key = &VerifyingKey::from_pem(pss.public_pem().expect("public").as_bytes()).expect("a key")[0];
    let text = pss.sign(json!({}), &json!({"sub": "a"})).expect("signed");
    let (_, rest) = text.split_once('.').expect("dots");
    assert!(CompactJws::parse(&text, JwsLimits::default()).is_ok_and(|token| token.verify(key).is_ok()));
    for other in ["RS256", "PS384", "PS512", "RS512"] {
        let relabelled =
            format!("{}.{rest}", base64url::encode(json!({"alg": other}).to_string().as_bytes()));
        let token = CompactJws::parse(&relabelled, JwsLimits::default()).expect("well-formed");
        assert_eq!(token.verify(key).map(drop), Err(SignatureInvalid::Wrong), "{other}");
    }
}

/// JWT-04, and a JSON bomb behind a good signature.
#[test]
fn claims_are_one_strict_json_object() {
    let signer = SigningKey::generate(Algorithm::Hs256).expect("a key");
    let key = signer.verifying_key().expect("a key");
    let good = signer.sign(json!({}), &json!([1])).expect("signed");
    let token = CompactJws::parse(&good, JwsLimits::default()).expect("well-formed");
    let verified = token.verify(&key).expect("our own");
    assert!(matches!(verified.claims(Limits::default()), Err(JwsError::Json(Segment::Payload, _))));
    for (payload, expected) in [
        (r#"{"sub":"a","sub":"b"}"#.to_owned(), "a member name occurs twice"),
        (r#"{"cnf":{"jkt":"a","\u006akt":"b"}}"#.to_owned(), "a member name occurs twice"),
        (format!("{{\"a\":{}", "{\"a\":".repeat(1000)), "nested too deeply"),
        (format!("{{\"a\":[{}1]}}", "1,".repeat(400)), "an array is too long"),
        (r#"{"exp":1e400}"#.to_owned(), "not JSON"),
        (r#"{"exp":1}garbage"#.to_owned(), "data after the JSON value"),
        (String::new(), "not JSON"),
    ] {
        let text = format!(
            "{}.{}.AAAA",
            base64url::encode(br#"{"alg":"HS256"}"#),
            base64url::encode(payload.as_bytes())
        );
        let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
        match token.unverified_claims(Limits::default()) {
            Err(JwsError::Json(Segment::Payload, why)) => {
                assert!(why.to_string().starts_with(expected), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// ANS-06: a caller cannot tell the kinds of failure apart.
#[test]
fn every_failed_signature_is_one_reason() {
    for error in
        [SignatureInvalid::AlgorithmNotOfKey, SignatureInvalid::OtherCertificate, SignatureInvalid::Wrong]
    {
        assert_eq!(Rejection::from(error).reason(), Reason::TokenSignatureInvalid);
    }
    assert_eq!(Rejection::from(JwsError::AlgorithmUnknown).reason(), Reason::TokenAlgorithmRefused);
    assert_eq!(Rejection::from(JwsError::Encrypted).reason(), Reason::TokenMalformed);
}

/// No error text repeats the token, because it goes into a log.
#[test]
fn errors_never_repeat_the_token() {
    for header in [
        r#"{"alg":"canary-4711"}"#,
        r#"{"alg":"RS256","kid":["canary-4711"]}"#,
        r#"{"alg":"RS256","crit":["canary-4711"]}"#,
        r#"{"canary-4711":1,"canary-4711":2}"#,
        r#"{"alg":canary-4711}"#,
    ] {
        let rejection = Rejection::from(error(with_header(header)));
        assert!(!format!("{rejection:?}").contains("canary"), "{rejection:?}");
    }
}
