//! Signed requests of the older form from strangers.
#![no_main]

#[path = "../bodies/hmac.rs"]
mod body;
#[path = "../bodies/request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|request: &[u8]| body::run(request));
