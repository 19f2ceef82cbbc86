//! Answers of a service that decides, over HTTP and gRPC.
#![no_main]

#[path = "../bodies/external_answer.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|answer: &[u8]| body::run(answer));
