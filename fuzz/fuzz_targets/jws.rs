//! Tokens from strangers.
#![no_main]

#[path = "../bodies/jws.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|token: &[u8]| body::run(token));
