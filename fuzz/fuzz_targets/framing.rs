//! Streams of HTTP/1.1 requests from strangers.
#![no_main]

#[path = "../bodies/framing.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
