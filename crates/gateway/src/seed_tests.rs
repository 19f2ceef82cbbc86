//! Replays the seeds of the fuzz targets through the very code that the fuzzer runs.

#[path = "../../../fuzz/bodies/path_form.rs"]
mod path_form;
#[path = "../../../fuzz/bodies/policy_files.rs"]
mod policy_files;

#[path = "../../../fuzz/replay.rs"]
mod replay;

pub(crate) use replay::replay;

#[test]
fn path_seeds_hold_what_the_target_promises() {
    replay("path_form", path_form::run);
}

#[test]
fn policy_file_seeds_hold_what_the_target_promises() {
    replay("policy_files", policy_files::run);
}
