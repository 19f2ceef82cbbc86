//! What the cryptography of each kind of credential costs by itself: microseconds of processor time for one check, as
//! one JSON object. The load benchmark sets these beside what a request costs.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac};

/// How long each is repeated.
const TIME: Duration = Duration::from_millis(500);

/// As long as the signed part of the benchmark's tokens.
const SIGNED: [u8; 480] = [b'x'; 480];

/// Microseconds for one run.
fn microseconds(mut once: impl FnMut() -> Result<(), Unspecified>) -> Result<f64, Unspecified> {
    once()?;
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < TIME {
        for _ in 0..16 {
            once()?;
        }
        count += 16;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

fn verifying(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    signature: &[u8],
) -> Result<f64, Unspecified> {
    let key = ParsedPublicKey::new(algorithm, key).map_err(|_refused| Unspecified)?;
    microseconds(|| key.verify_sig(black_box(&SIGNED), black_box(signature)))
}

fn rsa(
    padding: &'static dyn aws_lc_rs::signature::RsaEncoding,
    algorithm: &'static dyn VerificationAlgorithm,
) -> Result<f64, Unspecified> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), &SIGNED, &mut signature)?;
    verifying(algorithm, pair.public_key().as_ref(), &signature)
}

fn main() -> Result<(), Unspecified> {
    let random = SystemRandom::new();
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let es256 = ecdsa.sign(&random, &SIGNED)?;
    let ed25519 = Ed25519KeyPair::generate()?;
    let eddsa = ed25519.sign(&SIGNED);
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let tag = hmac::sign(&secret, &SIGNED);
    let floors = [
        ("RS256", rsa(&RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256)?),
        ("PS256", rsa(&RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256)?),
        ("ES256", verifying(&ECDSA_P256_SHA256_FIXED, ecdsa.public_key().as_ref(), es256.as_ref())?),
        ("EdDSA", verifying(&ED25519, ed25519.public_key().as_ref(), eddsa.as_ref())?),
        ("HS256", microseconds(|| hmac::verify(&secret, black_box(&SIGNED), tag.as_ref()))?),
        (
            "SHA-256",
            microseconds(|| {
                black_box(digest::digest(&digest::SHA256, black_box(&SIGNED)));
                Ok(())
            })?,
        ),
    ];
    let members: Vec<_> = floors.iter().map(|(name, micros)| format!("\"{name}\": {micros:.2}")).collect();
    println!("{{ {} }}", members.join(", "));
    Ok(())
}
