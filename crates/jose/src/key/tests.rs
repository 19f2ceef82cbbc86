//! Keys in every form they are written in, and the ones that are not taken.

use portcullis_core::Secret;
use serde_json::json;

use super::{KeyError, PublicKey, VerifyingKey};
use crate::{Algorithm, CompactJws, JwsLimits, SigningKey, base64url, digest};

/// RFC 8705 appendix A.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
";

/// CNF-09: the thumbprint that RFC 8705 appendix A gives for its certificate.
#[test]
fn thumbprint_of_the_published_certificate_is_the_published_one() {
    let keys = VerifyingKey::from_pem(CERTIFICATE.as_bytes()).expect("a certificate");
    let thumbprint = keys[0].certificate_thumbprint().expect("it came in a certificate");
    assert_eq!(base64url::encode(thumbprint), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    assert_eq!(keys[0].algorithms().collect::<Vec<_>>(), [Algorithm::Es256]);
}

/// JWK-07: SPKI of every kind, in one file, with words between the blocks.
#[test]
fn a_pem_text_may_hold_several_keys() {
    let signers: Vec<SigningKey> =
        [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa]
            .into_iter()
            .map(|algorithm| SigningKey::generate(algorithm).expect("a key"))
            .collect();
    let mut text = String::from("Keys of the issuer, 2026\r\n");
    for signer in &signers {
        text.push_str(&signer.public_pem().expect("a public half").replace('\n', "\r\n"));
        text.push_str("and the next one:\n");
    }
    text.push_str(CERTIFICATE);
    let keys = VerifyingKey::from_pem(text.as_bytes()).expect("all good");
    assert_eq!(keys.len(), signers.len() + 1);
    for (signer, key) in signers.iter().zip(&keys) {
        let text = signer.sign(json!({}), &json!({"sub": "a"})).expect("signed");
        let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
        assert!(token.verify(key).is_ok(), "{}", signer.algorithm());
        assert_eq!(key.key_id(), None);
    }
    assert_eq!(keys[0].algorithms().count(), 6, "an RSA key without `alg` serves all of RSA");
}

/// JWK-07: PKCS#1.
#[test]
fn pkcs1_and_spki_are_the_same_key() {
    let signer = SigningKey::generate(Algorithm::Rs256).expect("a key");
    let spki = signer.public_pem().expect("public");
    let keys = VerifyingKey::from_pem(spki.as_bytes()).expect("a key");
    let jwk = signer.public_jwk("k").expect("public");
    let number =
        |name: &str| base64url::decode(jwk[name].as_str().expect("a text").as_bytes()).expect("ours");
    let body = [der(0x02, &positive(&number("n"))), der(0x02, &positive(&number("e")))].concat();
    let pkcs1 = pem("RSA PUBLIC KEY", &der(0x30, &body));
    let from_pkcs1 = VerifyingKey::from_pem(pkcs1.as_bytes()).expect("a key");
    let text = signer.sign(json!({}), &json!({})).expect("signed");
    let token = CompactJws::parse(&text, JwsLimits::default()).expect("well-formed");
    assert!(token.verify(&keys[0]).is_ok() && token.verify(&from_pkcs1[0]).is_ok());
}

/// JWK-07: one RSA key as OpenSSL writes it in each of the three forms; the certificate is X.509 version 3 with
/// extensions and awkward names.
#[test]
fn openssl_writes_one_key_in_three_forms() {
    let read = |text: &str| {
        let block = super::pem::blocks(text.as_bytes()).expect("a block").remove(0);
        assert!(VerifyingKey::from_pem(text.as_bytes()).is_ok());
        block.der
    };
    let spki = PublicKey::from_spki(&read(include_str!("testdata/spki.pem"))).expect("a key");
    let pkcs1 = PublicKey::from_pkcs1(&read(include_str!("testdata/pkcs1.pem"))).expect("a key");
    let in_certificate = PublicKey::from_certificate(&read(include_str!("testdata/certificate.pem")));
    assert_eq!((Ok(&spki), &spki), (in_certificate.as_ref(), &pkcs1));
}

#[test]
fn pem_texts_that_hold_no_usable_key_say_why() {
    let spki = SigningKey::generate(Algorithm::Es256).expect("a key").public_pem().expect("public");
    let rows = [
        (String::new(), KeyError::NoKey),
        ("no block at all".to_owned(), KeyError::NoKey),
        (spki.replace("-----END PUBLIC KEY-----", ""), KeyError::PemMalformed(1)),
        (spki.replace("END PUBLIC KEY", "END CERTIFICATE"), KeyError::PemMalformed(1)),
        (format!("{spki}{}", spki.replace("M", "%")), KeyError::PemMalformed(2)),
        (spki.replace("PUBLIC KEY", "PRIVATE KEY"), KeyError::PrivateKey),
        (spki.replace("PUBLIC KEY", "RSA PRIVATE KEY"), KeyError::PrivateKey),
        (spki.replace("PUBLIC KEY", "EC PRIVATE KEY"), KeyError::PrivateKey),
        (spki.replace("PUBLIC KEY", "ENCRYPTED PRIVATE KEY"), KeyError::PrivateKey),
        (spki.replace("PUBLIC KEY", "X509 CRL"), KeyError::PemLabel("X509 CRL".to_owned())),
        (spki.replace("PUBLIC KEY", "CERTIFICATE"), KeyError::DerMalformed),
        (spki.replace("PUBLIC KEY", "RSA PUBLIC KEY"), KeyError::DerMalformed),
        (format!("{CERTIFICATE}{}", spki.replace("PUBLIC KEY", "RSA PUBLIC KEY")), KeyError::DerMalformed),
        (pem("PUBLIC KEY", &[]), KeyError::DerMalformed),
    ];
    for (text, expected) in rows {
        assert_eq!(VerifyingKey::from_pem(text.as_bytes()).map(drop), Err(expected), "{text}");
    }
    assert_eq!(VerifyingKey::from_pem(&[0xff, 0xfe]).map(drop), Err(KeyError::NoKey));
}

/// Every way to cut or lengthen a good structure is refused, and none panics.
#[test]
fn der_is_read_to_the_byte() {
    let signer = SigningKey::generate(Algorithm::Rs256).expect("a key");
    let text = signer.public_pem().expect("public");
    let block = &super::pem::blocks(text.as_bytes()).expect("ours")[0];
    assert!(PublicKey::from_spki(&block.der).is_ok());
    for length in 0..block.der.len() {
        assert!(PublicKey::from_spki(&block.der[..length]).is_err(), "{length}");
    }
    assert!(PublicKey::from_spki(&[&block.der[..], &[0]].concat()).is_err());
    let certificate = &super::pem::blocks(CERTIFICATE.as_bytes()).expect("ours")[0];
    for length in 0..certificate.der.len() {
        assert!(PublicKey::from_certificate(&certificate.der[..length]).is_err(), "{length}");
    }
    // A length in more bytes than it needs (BER) is not DER.
    let body = &block.der[4..];
    let longer = [&[0x30, 0x83, 0x00, block.der[2], block.der[3]], body].concat();
    assert_eq!(PublicKey::from_spki(&longer), Err(KeyError::DerMalformed));
}

/// JWT-13.
#[test]
fn rsa_numbers_are_held_to_their_bounds() {
    let modulus = |bits: usize| {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] = if bits.is_multiple_of(8) { 0x80 } else { 1 << (bits % 8 - 1) };
        bytes
    };
    let good = || vec![1, 0, 1];
    for bits in [512, 1024, 2047, 8193, 16_384] {
        assert_eq!(PublicKey::rsa(modulus(bits), good()), Err(KeyError::RsaModulusSize { bits }));
    }
    for bits in [2048, 3072, 4096, 8192] {
        assert!(PublicKey::rsa(modulus(bits), good()).is_ok(), "{bits}");
    }
    let mut even = modulus(2048);
    even[255] = 0xfe;
    assert_eq!(PublicKey::rsa(even, good()), Err(KeyError::RsaModulusEven));
    let leading_zero = [&[0], &modulus(2048)[..]].concat();
    assert_eq!(PublicKey::rsa(leading_zero, good()), Err(KeyError::MaterialMalformed));
    assert_eq!(PublicKey::rsa(Vec::new(), good()), Err(KeyError::MaterialMalformed));
    for exponent in [&[][..], &[0], &[0, 1, 0, 1]] {
        assert_eq!(PublicKey::rsa(modulus(2048), exponent.to_vec()), Err(KeyError::MaterialMalformed));
    }
    for exponent in [&[1][..], &[2], &[3], &[17], &[0xff, 0xff], &[1, 0, 0], &[1, 0, 2], &[1, 0, 0, 0, 1]] {
        assert_eq!(
            PublicKey::rsa(modulus(2048), exponent.to_vec()),
            Err(KeyError::RsaExponent),
            "{exponent:?}"
        );
    }
    for exponent in [&[1, 0, 1][..], &[0xff, 0xff, 0xff, 0xff]] {
        assert!(PublicKey::rsa(modulus(2048), exponent.to_vec()).is_ok(), "{exponent:?}");
    }
}

/// JWT-15.
#[test]
fn a_secret_serves_hashes_no_longer_than_itself() {
    let serves = |bytes: usize| {
        VerifyingKey::from_secret(&Secret::new(vec![7; bytes]))
            .map(|key| key.algorithms().collect::<Vec<_>>())
    };
    assert_eq!(serves(0), Err(KeyError::SecretTooShort { bytes: 0 }));
    assert_eq!(serves(31), Err(KeyError::SecretTooShort { bytes: 31 }));
    assert_eq!(serves(32), Ok(vec![Algorithm::Hs256]));
    assert_eq!(serves(47), Ok(vec![Algorithm::Hs256]));
    assert_eq!(serves(48), Ok(vec![Algorithm::Hs256, Algorithm::Hs384]));
    assert_eq!(serves(64), Ok(vec![Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512]));
}

#[test]
fn debug_shows_no_key_material() {
    let key = VerifyingKey::from_secret(&Secret::new(b"canary-4711-canary-4711-canary-4711".to_vec()))
        .expect("long enough")
        .named("k1");
    let shown = format!("{key:?}");
    assert!(shown.contains("k1") && shown.contains("HS256") && !shown.contains("canary"), "{shown}");
    let signer = SigningKey::generate(Algorithm::Hs256).expect("a key");
    assert_eq!(format!("{signer:?}"), "SigningKey(HS256)");
}

/// A thumbprint is over the DER, not over the text (trap 7).
#[test]
fn thumbprint_is_over_the_der() {
    let key = &VerifyingKey::from_pem(CERTIFICATE.as_bytes()).expect("a certificate")[0];
    assert_ne!(key.certificate_thumbprint(), Some(&digest::sha256(CERTIFICATE.as_bytes())));
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn positive(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if magnitude[0] >= 0x80 { &[0] } else { &[] };
    [sign, magnitude].concat()
}

fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(u8::try_from(length).expect("short"));
    } else if length < 0x100 {
        out.extend([0x81, u8::try_from(length).expect("short")]);
    } else {
        out.push(0x82);
        out.extend(u16::try_from(length).expect("short").to_be_bytes());
    }
    out.extend(contents);
    out
}
