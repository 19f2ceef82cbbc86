//! The house rule book as tests (`crates/README.md`, `CONTRIBUTING.md`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod manifests;
mod reasons;
mod rooms;
mod source;

/// The root of the repository.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("crates/portcullis lies two folders deep").to_owned()
}

/// All files below a folder with one of these endings, as paths from the root, in order, with their text.
fn files(folder: &str, endings: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(entry);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let path = entry.strip_prefix(root()).expect("below the root");
                let text = std::fs::read_to_string(&entry).expect("a text file");
                found.insert(path.to_string_lossy().into_owned(), text);
            }
        }
    }
    found
}

/// Fails with all complaints at once.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}
