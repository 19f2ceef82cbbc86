//! Credentials from strangers.
#![no_main]

#[path = "../bodies/credentials.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
