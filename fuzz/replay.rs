//! Replays the seeds of a fuzz target through its body, for the test suites of the rooms.

use std::fs;
use std::path::Path;

/// Runs a body on every seed of its target.
///
/// # Panics
/// There are next to no seeds, so that somebody has moved them, or the body panics.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the seeds are kept") {
        let path = entry.expect("a seed").path();
        run(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        replayed += 1;
    }
    assert!(replayed > 5, "{target} has {replayed} seeds");
}
