//! The first bytes of connections that a proxy relays.
#![no_main]

#[path = "../bodies/proxy_header.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
