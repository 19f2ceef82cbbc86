//! Project Wycheproof's vectors for the primitives under JOSE, run through the keys as tokens meet them.
//!
//! Every vector must come out as its file says, but for the exceptions that a test gives a reason for: these may
//! only ever be valid vectors that we refuse on purpose. No invalid vector is ever excused.

use wycheproof::{HashFunction, TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use super::{PublicKey, VerifyingKey};
use crate::Algorithm;
use portcullis_core::Secret;

/// What came out of one file.
#[derive(Default)]
struct Tally {
    right: usize,
    skipped: usize,
}

impl Tally {
    /// Notes one vector.
    fn note(
        &mut self,
        name: &str,
        number: usize,
        expected: TestResult,
        accepted: bool,
        reason: Option<&str>,
    ) {
        match (expected, accepted) {
            (TestResult::Invalid, false) | (TestResult::Valid, true) | (TestResult::Acceptable, _) => {
                self.right += 1;
            }
            (TestResult::Invalid, true) => panic!("{name} {number}: an invalid signature was accepted"),
            (TestResult::Valid, false) => {
                assert!(
                    reason.is_some(),
                    "{name} {number}: a valid signature was refused for no known reason"
                );
                self.skipped += 1;
            }
        }
    }
}

/// Why a key of the vectors is refused although its signatures are valid.
fn refused_key(why: &super::KeyError) -> Option<&'static str> {
    use super::KeyError::{RsaExponent, RsaModulusSize};
    match why {
        RsaExponent => Some("JWT-13: an exponent below 65537 is not taken"),
        RsaModulusSize { .. } => Some("JWT-13: a modulus outside 2048 to 8192 bits is not taken"),
        _ => None,
    }
}

fn rsa(pkcs1: &[u8], algorithm: Algorithm) -> Result<VerifyingKey, super::KeyError> {
    VerifyingKey::from_public(&PublicKey::from_pkcs1(pkcs1)?, Some(algorithm))
}

#[test]
fn ecdsa_in_the_form_of_jose() {
    use ecdsa::TestName::{EcdsaSecp256r1Sha256P1363, EcdsaSecp384r1Sha384P1363, EcdsaSecp521r1Sha512P1363};
    for (name, algorithm) in [
        (EcdsaSecp256r1Sha256P1363, Algorithm::Es256),
        (EcdsaSecp384r1Sha384P1363, Algorithm::Es384),
        (EcdsaSecp521r1Sha512P1363, Algorithm::Es512),
    ] {
        let mut tally = Tally::default();
        for group in ecdsa::TestSet::load(name).expect("vectors").test_groups {
            let public = PublicKey::from_spki(&group.der).expect("a key");
            let key = VerifyingKey::from_public(&public, None).expect("a key");
            for test in group.tests {
                let accepted = key.verify(algorithm, &test.msg, &test.sig).is_ok();
                tally.note(algorithm.as_str(), test.tc_id, test.result, accepted, None);
            }
        }
        assert!(tally.right > 200 && tally.skipped == 0, "{algorithm}: {}", tally.right);
    }
}

/// The form of X.509 is not the form of JOSE: no DER signature is ever taken (JWT-14).
#[test]
fn ecdsa_in_the_form_of_x509_is_never_taken() {
    use ecdsa::TestName::{EcdsaSecp256r1Sha256, EcdsaSecp384r1Sha384, EcdsaSecp521r1Sha512};
    for (name, algorithm) in [
        (EcdsaSecp256r1Sha256, Algorithm::Es256),
        (EcdsaSecp384r1Sha384, Algorithm::Es384),
        (EcdsaSecp521r1Sha512, Algorithm::Es512),
    ] {
        for group in ecdsa::TestSet::load(name).expect("vectors").test_groups {
            let public = PublicKey::from_spki(&group.der).expect("a key");
            let key = VerifyingKey::from_public(&public, None).expect("a key");
            for test in group.tests {
                assert!(key.verify(algorithm, &test.msg, &test.sig).is_err(), "{algorithm} {}", test.tc_id);
            }
        }
    }
}

#[test]
fn ed25519() {
    let mut tally = Tally::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("vectors").test_groups {
        let public = PublicKey::from_spki(&group.der).expect("a key");
        let key = VerifyingKey::from_public(&public, None).expect("a key");
        for test in group.tests {
            let accepted = key.verify(Algorithm::EdDsa, &test.msg, &test.sig).is_ok();
            tally.note("Ed25519", test.tc_id, test.result, accepted, None);
        }
    }
    assert!(tally.right > 100 && tally.skipped == 0, "{}", tally.right);
}

#[test]
fn rsa_pkcs1() {
    use rsa_pkcs1_verify::TestName::{
        Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa3072Sha384, Rsa3072Sha512,
        Rsa4096Sha256, Rsa4096Sha384, Rsa4096Sha512, Rsa8192Sha256, Rsa8192Sha384, Rsa8192Sha512,
    };
    let mut tally = Tally::default();
    for name in [
        Rsa2048Sha256,
        Rsa2048Sha384,
        Rsa2048Sha512,
        Rsa3072Sha256,
        Rsa3072Sha384,
        Rsa3072Sha512,
        Rsa4096Sha256,
        Rsa4096Sha384,
        Rsa4096Sha512,
        Rsa8192Sha256,
        Rsa8192Sha384,
        Rsa8192Sha512,
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).expect("vectors").test_groups {
            let algorithm = match group.hash {
                HashFunction::Sha2_256 => Algorithm::Rs256,
                HashFunction::Sha2_384 => Algorithm::Rs384,
                HashFunction::Sha2_512 => Algorithm::Rs512,
                other => panic!("{other:?}"),
            };
            let key = rsa(&group.asn_key, algorithm);
            for test in group.tests {
                let accepted =
                    key.as_ref().is_ok_and(|key| key.verify(algorithm, &test.msg, &test.sig).is_ok());
                let reason = key.as_ref().err().and_then(refused_key);
                tally.note(algorithm.as_str(), test.tc_id, test.result, accepted, reason);
            }
        }
    }
    assert!(tally.right > 2000, "{}", tally.right);
    assert!(tally.skipped * 20 < tally.right, "{} of {}", tally.skipped, tally.right);
}

#[test]
fn rsa_pss() {
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen0, RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32, RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen32, RsaPss4096Sha512Mgf1SaltLen64, RsaPssmisc,
    };
    let mut tally = Tally::default();
    for name in [
        RsaPss2048Sha256Mgf1SaltLen0,
        RsaPss2048Sha256Mgf1SaltLen32,
        RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32,
        RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen32,
        RsaPss4096Sha512Mgf1SaltLen64,
        RsaPssmisc,
    ] {
        for group in rsa_pss_verify::TestSet::load(name).expect("vectors").test_groups {
            let (algorithm, salt) = match group.hash {
                HashFunction::Sha2_256 => (Algorithm::Ps256, 32),
                HashFunction::Sha2_384 => (Algorithm::Ps384, 48),
                HashFunction::Sha2_512 => (Algorithm::Ps512, 64),
                _ => continue,
            };
            let key = rsa(&group.asn_key, algorithm);
            // RFC 7518 section 3.5 fixes the salt and the mask for each algorithm of JOSE.
            let of_jose = group.salt_size == salt && group.mgf_hash == Some(group.hash);
            for test in group.tests {
                let accepted =
                    key.as_ref().is_ok_and(|key| key.verify(algorithm, &test.msg, &test.sig).is_ok());
                if of_jose {
                    let reason = key.as_ref().err().and_then(refused_key);
                    tally.note(algorithm.as_str(), test.tc_id, test.result, accepted, reason);
                } else {
                    // Under parameters that JOSE does not use, what is valid must be refused here. What is invalid
                    // there may be right under ours: such files hold signatures with the salt that we demand.
                    assert!(test.result != TestResult::Valid || !accepted, "{algorithm} {}", test.tc_id);
                    tally.skipped += 1;
                }
            }
        }
    }
    assert!(tally.right > 500, "{} and {}", tally.right, tally.skipped);
}

#[test]
fn hmac() {
    use mac::TestName::{HmacSha256, HmacSha384, HmacSha512};
    for (name, algorithm, length) in [
        (HmacSha256, Algorithm::Hs256, 32),
        (HmacSha384, Algorithm::Hs384, 48),
        (HmacSha512, Algorithm::Hs512, 64),
    ] {
        let mut tally = Tally::default();
        for group in mac::TestSet::load(name).expect("vectors").test_groups {
            for test in group.tests {
                let key = VerifyingKey::from_secret(&Secret::new(test.key.to_vec()));
                let accepted = key.is_ok_and(|key| key.verify(algorithm, &test.msg, &test.tag).is_ok());
                let reason = match (test.key.len() < length, test.tag.len() < length) {
                    (true, _) => Some("JWT-15: a secret shorter than its hash is not taken"),
                    (_, true) => Some("RFC 7518 section 3.2: JOSE uses the whole tag"),
                    _ => None,
                };
                tally.note(algorithm.as_str(), test.tc_id, test.result, accepted, reason);
            }
        }
        assert!(tally.right > 50, "{algorithm}: {} and {}", tally.right, tally.skipped);
    }
}
