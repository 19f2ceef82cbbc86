//! Vectors of the RFCs, round trips, and agreement with another library.

use jsonwebtoken::{DecodingKey, Validation};
use portcullis_core::Secret;
use portcullis_core::json::{Limits, Value, parse_object};
use proptest::prelude::{
    ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::json;

use super::{CompactJws, JwsLimits, SignatureInvalid};
use crate::{Algorithm, JwkSet, JwkSource, SigningKey, VerifyingKey, base64url};

/// A published token: where it is from, the key that verifies it (a JWK), and its segments.
struct Vector {
    source: &'static str,
    jwk: &'static str,
    header: &'static str,
    payload: &'static str,
    signature: &'static str,
}

const FRODO: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
const JOE: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const BILBO_RSA: &str = r#"{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQAB"}"#;

const VECTORS: [Vector; 9] = [
    Vector {
        source: "RFC 7515 A.1",
        jwk: r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
        header: "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
        payload: JOE,
        signature: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    },
    Vector {
        source: "RFC 7515 A.2",
        jwk: r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
        header: "eyJhbGciOiJSUzI1NiJ9",
        payload: JOE,
        signature: "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    },
    Vector {
        source: "RFC 7515 A.3",
        jwk: r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        header: "eyJhbGciOiJFUzI1NiJ9",
        payload: JOE,
        signature: "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    },
    Vector {
        source: "RFC 7515 A.4",
        jwk: r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#,
        header: "eyJhbGciOiJFUzUxMiJ9",
        payload: "UGF5bG9hZA",
        signature: "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    },
    Vector {
        source: "RFC 7520 4.1",
        jwk: BILBO_RSA,
        header: "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        payload: FRODO,
        signature: "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
    },
    Vector {
        source: "RFC 7520 4.2",
        jwk: BILBO_RSA,
        header: "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        payload: FRODO,
        signature: "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
    },
    Vector {
        source: "RFC 7520 4.3",
        jwk: r#"{"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521","x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt","y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}"#,
        header: "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        payload: FRODO,
        signature: "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
    },
    Vector {
        source: "RFC 7520 4.4",
        jwk: r#"{"kty":"oct","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037","use":"sig","alg":"HS256","k":"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}"#,
        header: "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
        payload: FRODO,
        signature: "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
    },
    Vector {
        source: "RFC 8037 A.4",
        jwk: r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        header: "eyJhbGciOiJFZERTQSJ9",
        payload: "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        signature: "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    },
];

fn key(jwk: &str) -> VerifyingKey {
    let set = JwkSet::parse(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes(), JwkSource::Local).expect("a set");
    assert!(set.skipped().is_empty(), "{:?}", set.skipped());
    set.keys()[0].clone()
}

#[test]
fn published_tokens_verify_and_only_as_they_are() {
    for vector in VECTORS {
        let key = key(vector.jwk);
        let text = format!("{}.{}.{}", vector.header, vector.payload, vector.signature);
        let token = CompactJws::parse(&text, JwsLimits::default()).expect(vector.source);
        assert_eq!(token.verify(&key).map(drop), Ok(()), "{}", vector.source);

        let mut signature = base64url::decode(vector.signature.as_bytes()).expect(vector.source);
        signature[0] ^= 1;
        for altered in [
            format!("{}.A{}.{}", vector.header, &vector.payload[1..], vector.signature),
            format!("{}.{}.{}", vector.header, vector.payload, base64url::encode(&signature)),
            format!("{}.{}.{}", vector.header, vector.payload, base64url::encode(&signature[1..])),
            format!(
                "{}.{}.{}",
                vector.header,
                vector.payload,
                base64url::encode(&[&signature[..], &[0]].concat())
            ),
        ] {
            let token = CompactJws::parse(&altered, JwsLimits::default()).expect(vector.source);
            assert_eq!(token.verify(&key).map(drop), Err(SignatureInvalid::Wrong), "{}", vector.source);
        }
    }
}

#[test]
fn claims_of_the_published_token_are_read() {
    let vector = &VECTORS[0];
    let text = format!("{}.{}.{}", vector.header, vector.payload, vector.signature);
    let token = CompactJws::parse(&text, JwsLimits::default()).expect("valid");
    let claims = token.verify(&key(vector.jwk)).expect("valid").claims(Limits::default()).expect("valid");
    assert_eq!(claims.get("iss"), Some(&Value::Text("joe".into())));
    assert_eq!(claims.get("exp"), Some(&Value::Integer(1_300_819_380)));
    assert_eq!(token.header().kind.as_deref(), Some("JWT"));
}

/// JWT-12: each published key verifies its own tokens and none of the others.
#[test]
fn no_key_verifies_a_token_of_another_algorithm() {
    for token in &VECTORS {
        let text = format!("{}.{}.{}", token.header, token.payload, token.signature);
        let parsed = CompactJws::parse(&text, JwsLimits::default()).expect(token.source);
        for other in VECTORS.iter().filter(|other| other.jwk != token.jwk) {
            let key = key(other.jwk);
            let expected = if key.allows(parsed.header().algorithm) {
                SignatureInvalid::Wrong
            } else {
                SignatureInvalid::AlgorithmNotOfKey
            };
            assert_eq!(parsed.verify(&key).map(drop), Err(expected), "{} by {}", token.source, other.source);
        }
    }
}

/// RFC 9864: `Ed25519` is the same algorithm under its own name.
#[test]
fn both_names_of_eddsa_verify() {
    let signer = SigningKey::generate(Algorithm::EdDsa).expect("a key");
    let key = signer.verifying_key().expect("a key");
    let ours = signer.sign(json!({}), &json!({"sub": "a"})).expect("signed");
    let token = CompactJws::parse(&ours, JwsLimits::default()).expect("valid");
    assert_eq!((token.header().algorithm, token.verify(&key).is_ok()), (Algorithm::EdDsa, true));
    let header = base64url::encode(br#"{"alg":"Ed25519"}"#);
    let renamed = format!("{header}.{}", ours.split_once('.').expect("dots").1);
    let token = CompactJws::parse(&renamed, JwsLimits::default()).expect("valid");
    assert_eq!(token.header().algorithm, Algorithm::EdDsa);
    assert_eq!(token.verify(&key).map(drop), Err(SignatureInvalid::Wrong), "the signature covers the header");
}

/// CHN-04: the name of a key is its own, whatever a token calls it.
#[test]
fn what_is_verified_goes_by_the_name_of_the_key() {
    let signer = SigningKey::generate(Algorithm::Es256).expect("a key");
    let nameless = signer.verifying_key().expect("a key");
    let named = nameless.clone().named("key-1");
    for header in [json!({"kid": "key-1"}), json!({"kid": "key-2"}), json!({})] {
        let token = signer.sign(header, &json!({})).expect("signed");
        let token = CompactJws::parse(&token, JwsLimits::default()).expect("valid");
        let by_named = token.verify(&named).expect("its own key");
        assert_eq!(by_named.key_id().map(|name| &**name), Some("key-1"));
        assert!(token.verify(&nameless).expect("its own key").key_id().is_none());
    }
}

/// JWT-19.
#[test]
fn a_token_that_names_another_certificate_is_not_verified() {
    let signer = SigningKey::generate(Algorithm::Es256).expect("a key");
    let plain = signer.verifying_key().expect("a key");
    let with_certificate = plain.clone().with_certificate_thumbprint(Some([7; 32]));
    let token = |thumbprint: [u8; 32]| {
        signer.sign(json!({"x5t#S256": base64url::encode(&thumbprint)}), &json!({})).expect("signed")
    };
    let (right, wrong) = (token([7; 32]), token([8; 32]));
    let right = CompactJws::parse(&right, JwsLimits::default()).expect("valid");
    let wrong = CompactJws::parse(&wrong, JwsLimits::default()).expect("valid");
    assert!(right.verify(&with_certificate).is_ok());
    assert!(right.verify(&plain).is_ok(), "a key without a certificate has none to compare");
    assert_eq!(wrong.verify(&with_certificate).map(drop), Err(SignatureInvalid::OtherCertificate));
    assert!(wrong.verify(&plain).is_ok());
}

fn signing_keys() -> &'static [SigningKey] {
    static KEYS: std::sync::OnceLock<Vec<SigningKey>> = std::sync::OnceLock::new();
    KEYS.get_or_init(|| {
        Algorithm::ALL.into_iter().map(|name| SigningKey::generate(name).expect("a key")).collect()
    })
}

/// JSON as serde_json writes it, of which our reader must see the same.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        proptest::strategy::Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(".{0,8}", inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn what_is_signed_is_verified_and_read_back(which in 0..13_usize, claim in any_json(), key_id in ".{0,40}") {
        let signer = &signing_keys()[which];
        let claims = json!({"sub": "a", "claim": claim});
        let text = signer.sign(json!({"kid": key_id, "typ": "JWT"}), &claims).expect("signed");
        let token = CompactJws::parse(&text, JwsLimits::default()).expect("our own token");
        prop_assert_eq!(token.header().algorithm, signer.algorithm());
        prop_assert_eq!(token.header().key_id.as_deref(), Some(key_id.as_str()));
        let verified = token.verify(&signer.verifying_key().expect("a key")).expect("our own signature");
        let read = verified.claims(Limits::default()).expect("our own claims");
        let expected = parse_object(claims.to_string().as_bytes(), Limits::default()).expect("an object");
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused(which in 0..13_usize, at in any::<prop::sample::Index>(), bit in 0..7_u32) {
        let signer = &signing_keys()[which];
        let text = signer.sign(json!({}), &json!({"sub": "a"})).expect("signed");
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let key = signer.verifying_key().expect("a key");
        let accepted = CompactJws::parse(&bytes, JwsLimits::default()).is_ok_and(|token| token.verify(&key).is_ok());
        prop_assert!(!accepted);
    }

    #[test]
    fn any_bytes_at_all_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(CompactJws::parse(&bytes, JwsLimits::default()).is_err());
    }
}

/// How jsonwebtoken judges a token, asked to look at the signature alone.
fn oracle(token: &str, algorithm: jsonwebtoken::Algorithm, key: &DecodingKey) -> bool {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    jsonwebtoken::decode::<serde_json::Map<String, serde_json::Value>>(token, key, &validation).is_ok()
}

/// Whatever we take, another library takes as well; and what it takes, we refuse only where we mean to.
#[test]
fn verdicts_agree_with_another_library() {
    for signer in signing_keys().iter().filter(|signer| signer.algorithm() != Algorithm::Es512) {
        let name = signer.algorithm().as_str();
        let theirs = name.parse().expect("the same names");
        let (key, oracle_key) = match signer.public_jwk("k") {
            Some(jwk) => {
                let jwk_of_theirs = serde_json::from_value(jwk).expect("a JWK");
                (
                    signer.verifying_key().expect("a key"),
                    DecodingKey::from_jwk(&jwk_of_theirs).expect("a key"),
                )
            }
            None => {
                let secret = [7_u8; 64];
                let key = VerifyingKey::from_secret(&Secret::new(secret.to_vec())).expect("a key");
                (key, DecodingKey::from_secret(&secret))
            }
        };
        let signed = match signer.public_jwk("k") {
            Some(_) => signer.sign(json!({}), &json!({"sub": "a"})),
            None => SigningKey::from_secret(signer.algorithm(), &Secret::new(vec![7; 64]))
                .expect("a key")
                .sign(json!({}), &json!({"sub": "a"})),
        }
        .expect("signed");
        let (signed_part, signature) = signed.rsplit_once('.').expect("dots");
        let raw = base64url::decode(signature.as_bytes()).expect("ours");
        let resigned = |bytes: &[u8]| format!("{signed_part}.{}", base64url::encode(bytes));
        let mut rows = vec![signed.clone(), resigned(&[]), resigned(&[0; 64]), resigned(&raw[1..])];
        rows.push(resigned(&[&raw[..], &[0]].concat()));
        rows.push(resigned(&[&[0], &raw[..]].concat()));
        for at in [0, raw.len() / 2, raw.len() - 1] {
            let mut changed = raw.clone();
            changed[at] ^= 0x40;
            rows.push(resigned(&changed));
        }
        for (row, token) in rows.iter().enumerate() {
            let ours =
                CompactJws::parse(token, JwsLimits::default()).is_ok_and(|token| token.verify(&key).is_ok());
            assert_eq!(ours, oracle(token, theirs, &oracle_key), "{name}, row {row}");
            assert_eq!(ours, row == 0, "{name}, row {row}");
        }
        // It ignores `crit`; we do not (RFC 7515 section 4.1.11).
        let critical = json!({"crit": ["exp-mode"], "exp-mode": 1});
        if signer.public_jwk("k").is_some() {
            let token = signer.sign(critical, &json!({"sub": "a"})).expect("signed");
            assert!(oracle(&token, theirs, &oracle_key));
            assert!(CompactJws::parse(&token, JwsLimits::default()).is_err());
        }
    }
}
