//! What must come together: an authenticator, its example and its test; policies and `check`.

use std::path::Path;

use super::{files, none, root};
use crate::rig::gateway::portcullis;

/// The authenticators: the words of the one table that reads them.
fn authenticators() -> Vec<String> {
    let scheme = std::fs::read_to_string(root().join("crates/authn/src/scheme.rs")).expect("scheme.rs");
    let table = scheme.split("const WORDS").nth(1).expect("the table of words").split(';').next();
    let quoted = table.unwrap_or_default().split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// Whether a policy file asks for this authenticator.
fn uses(policy: &str, authenticator: &str) -> bool {
    policy.lines().map(|line| line.split('#').next().unwrap_or_default()).any(|line| {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').collect();
        words.contains(&format!("{authenticator}:").as_str())
    })
}

#[test]
fn there_are_the_four_authenticators_at_least() {
    let found = authenticators();
    for name in ["anonymous", "api_key", "certificate", "jwt"] {
        assert!(found.iter().any(|known| known == name), "{name} is not in {found:?}");
    }
}

#[test]
fn every_authenticator_is_complete() {
    let mut complaints = Vec::new();
    for name in authenticators() {
        for file in ["mod.rs", "spec.rs", "tests.rs"] {
            if !root().join("crates/authn/src").join(&name).join(file).is_file() {
                complaints.push(format!("crates/authn/src/{name} has no {file}"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_authenticator_has_an_example_and_a_black_box_test() {
    let examples = files("policies/examples", &[".yaml"]);
    let tests: Vec<String> = files("tests", &[".rs"])
        .into_iter()
        .filter(|(path, _)| !path.contains("/tidy/"))
        .map(|(_, t)| t)
        .collect();
    let mut complaints = Vec::new();
    for name in authenticators() {
        if !examples.values().any(|text| uses(text, &name)) {
            complaints.push(format!("no policy under policies/examples asks for `{name}`"));
        }
        if !tests.iter().any(|text| uses(text, &name)) {
            complaints.push(format!("no black-box test asks for `{name}`"));
        }
    }
    none(&complaints);
}

/// Directories that are a policy directory of their own.
fn policy_directories() -> Vec<std::path::PathBuf> {
    let settings = files("policies", &["gateway.yaml"]);
    settings.keys().map(|path| root().join(Path::new(path).parent().expect("a folder"))).collect()
}

#[test]
fn every_shipped_policy_directory_passes_check() {
    let directories = policy_directories();
    assert!(directories.contains(&root().join("policies")), "policies/gateway.yaml is missing");
    for directory in directories {
        let path = directory.to_string_lossy();
        let output = portcullis(&["check", &path], &[]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {said}");
    }
}

#[test]
fn every_shipped_policy_directory_passes_its_own_tests() {
    for directory in policy_directories().into_iter().filter(|path| path.starts_with(root().join("policies")))
    {
        let path = directory.to_string_lossy();
        let output = portcullis(&["test", &path, "--min-coverage", "100"], &[]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {said}");
    }
}

#[test]
fn the_top_level_is_the_one_we_agreed_on() {
    let mut expected = vec![
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "README.md",
        "clippy.toml",
        "crates",
        "deny.toml",
        "deploy",
        "docker-compose.yml",
        "fuzz",
        "policies",
        "rustfmt.toml",
        "tests",
    ];
    expected.sort_unstable();
    let listed =
        std::process::Command::new("git").args(["ls-files", "--full-name"]).current_dir(root()).output();
    let Ok(listed) = listed else { return };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let strangers: Vec<String> = listed
        .lines()
        .map(|path| path.split('/').next().unwrap_or_default().to_owned())
        .filter(|name| {
            !name.is_empty() && !name.starts_with('.') && expected.binary_search(&name.as_str()).is_err()
        })
        .collect();
    none(&strangers);
}

#[test]
fn every_key_of_a_policy_file_is_documented() {
    let reference = std::fs::read_to_string(root().join("policies/README.md")).expect("a reference");
    let mut missing = Vec::new();
    for (path, text) in files("crates", &[".rs"]) {
        if path.ends_with("tests.rs") || path.contains("/tests/") || path.contains("core/src/document") {
            continue;
        }
        for call in ["fields.get(\"", "fields.require(\"", "fields.entry(\""] {
            let keys = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            missing.extend(
                keys.filter(|key| !documented(&reference, key)).map(|key| format!("{path}: `{key}`")),
            );
        }
    }
    none(&missing);
}

fn documented(reference: &str, key: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    reference.match_indices(key).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| reference.as_bytes().get(before));
        let after = reference.as_bytes().get(at + key.len());
        !before.is_some_and(|byte| word(*byte)) && !after.is_some_and(|byte| word(*byte))
    })
}
