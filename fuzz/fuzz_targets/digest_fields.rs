//! Digests of content from strangers.
#![no_main]

#[path = "../bodies/digest_fields.rs"]
mod body;
#[path = "../bodies/request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|request: &[u8]| body::run(request));
