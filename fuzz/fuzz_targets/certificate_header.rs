//! Headers in which proxies tell client certificates.
#![no_main]

#[path = "../bodies/certificate_header.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|text: &[u8]| body::run(text));
