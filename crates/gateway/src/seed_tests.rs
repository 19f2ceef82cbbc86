//! Replays the seeds of the fuzz targets through the very code that the fuzzer runs.

#[path = "../../../fuzz/bodies/path_form.rs"]
mod path_form;
#[path = "../../../fuzz/bodies/policy_files.rs"]
mod policy_files;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(&folder).expect("seeds").filter_map(Result::ok).collect();
    assert!(seeds.len() > 5, "{target} has its seeds");
    for seed in seeds {
        run(&std::fs::read(seed.path()).expect("a seed"));
    }
}

#[test]
fn path_seeds_hold_what_the_target_promises() {
    replay("path_form", path_form::run);
}

#[test]
fn policy_file_seeds_hold_what_the_target_promises() {
    replay("policy_files", policy_files::run);
}
