//! Message signatures from strangers.
#![no_main]

#[path = "../bodies/message_signature.rs"]
mod body;
#[path = "../bodies/request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|request: &[u8]| body::run(request));
