//! Policy files with every mistake there is.
#![no_main]

#[path = "../bodies/policy_files.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
