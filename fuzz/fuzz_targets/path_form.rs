//! Paths from strangers.
#![no_main]

#[path = "../bodies/path_form.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
