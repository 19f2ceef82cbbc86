//! Metadata of providers.
#![no_main]

#[path = "../bodies/discovery.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|document: &[u8]| body::run(document));
