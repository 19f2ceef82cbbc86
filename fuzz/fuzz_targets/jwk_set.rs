//! Key sets from other machines.
#![no_main]

#[path = "../bodies/jwk_set.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|set: &[u8]| body::run(set));
