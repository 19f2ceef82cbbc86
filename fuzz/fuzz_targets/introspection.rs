//! Answers of providers about tokens.
#![no_main]

#[path = "../bodies/introspection.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|answer: &[u8]| body::run(answer));
