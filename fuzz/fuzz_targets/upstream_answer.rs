//! Answers of upstreams.
#![no_main]

#[path = "../bodies/upstream_answer.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
