use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_core::Scheme;
use portcullis_jose::MessageAlgorithm::{self, EcdsaP256Sha256, Ed25519, HmacSha256, RsaV15Sha256};
use portcullis_jose::MessageKey;

use super::window::Window;
use super::{Accepted, SignatureKeys, Signed, Verifier};

fn verifier(algorithms: &[(MessageAlgorithm, bool)]) -> Verifier {
    let accepted = algorithms.iter().map(|(algorithm, in_use)| Accepted {
        algorithm: *algorithm,
        stand_in: MessageKey::stand_in(*algorithm).expect("a key"),
        in_use: *in_use,
    });
    Verifier {
        scheme: Scheme::Signature,
        keys: Arc::new(SignatureKeys::default()),
        algorithms: accepted.collect(),
        window: Window { max_age: 300, leeway: 30 },
        used: None,
    }
}

fn stand_in(verifier: &Verifier, key_id: &str, algorithm: Option<MessageAlgorithm>) -> MessageAlgorithm {
    let signed = Signed { key_id, algorithm, base: b"base", signature: b"signature" };
    verifier.stand_in(&signed).expect("a stand-in").algorithm
}

/// HMC-01: the time a refusal takes tells which algorithm was at work, so unknown ids must have the algorithms that
/// known ones have, each always the same.
#[test]
fn unknown_key_ids_have_the_algorithms_of_known_ones() {
    let ids: Vec<_> = (0..64).map(|number| format!("nobody-{number}")).collect();
    let of_all =
        |verifier: &Verifier| -> Vec<_> { ids.iter().map(|id| stand_in(verifier, id, None)).collect() };
    for (algorithms, expected) in [
        (&[(RsaV15Sha256, true), (HmacSha256, false), (Ed25519, true)][..], &[RsaV15Sha256, Ed25519][..]),
        (&[(RsaV15Sha256, false), (HmacSha256, true)], &[HmacSha256]),
        // No key is registered, so whichever algorithm could be somebody's.
        (&[(EcdsaP256Sha256, false), (HmacSha256, false)], &[EcdsaP256Sha256, HmacSha256]),
    ] {
        let chosen = of_all(&verifier(algorithms));
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>(), expected.iter().collect());
        assert_eq!(chosen, of_all(&verifier(algorithms)), "another snapshot chooses the same");
    }
}

#[test]
fn an_algorithm_that_is_named_is_the_one_at_work() {
    let verifier = verifier(&[(RsaV15Sha256, true), (HmacSha256, false), (Ed25519, true)]);
    for number in 0..16 {
        let id = format!("nobody-{number}");
        assert_eq!(stand_in(&verifier, &id, Some(HmacSha256)), HmacSha256);
        assert_eq!(stand_in(&verifier, &id, Some(Ed25519)), Ed25519);
    }
}
