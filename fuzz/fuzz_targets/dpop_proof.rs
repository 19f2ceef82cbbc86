//! Proofs of possession from strangers.
#![no_main]

#[path = "../bodies/dpop_proof.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|proof: &[u8]| body::run(proof));
