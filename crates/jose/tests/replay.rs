//! Replays the fuzz seeds through the bodies of the fuzz targets, with every run of the test suite.

#[cfg(test)]
#[path = "../../../fuzz/bodies/dpop_proof.rs"]
mod dpop_proof;
#[cfg(test)]
#[path = "../../../fuzz/bodies/introspection.rs"]
mod introspection;
#[cfg(test)]
#[path = "../../../fuzz/bodies/jwk_set.rs"]
mod jwk_set;
#[cfg(test)]
#[path = "../../../fuzz/bodies/jws.rs"]
mod jws;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod seeds {
    use crate::replay::replay;

    #[test]
    fn seeds_of_tokens_hold() {
        replay("jws", crate::jws::run);
    }

    #[test]
    fn seeds_of_proofs_hold() {
        replay("dpop_proof", crate::dpop_proof::run);
    }

    #[test]
    fn seeds_of_introspection_answers_hold() {
        replay("introspection", crate::introspection::run);
    }

    #[test]
    fn seeds_of_key_sets_hold() {
        replay("jwk_set", crate::jwk_set::run);
    }
}
