//! Which crate may use which.

use super::{files, none};

/// Floors of the house. An arrow between crates points to a lower floor, and only where it is listed.
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("jose", &["core"]),
    ("store", &["core"]),
    ("proxy", &["core"]),
    ("authn", &["core", "jose", "store"]),
    ("policy", &["core", "store"]),
    ("gateway", &["core", "store", "proxy", "authn", "policy"]),
    ("portcullis", &["core", "jose", "store", "proxy", "authn", "policy", "gateway"]),
];

/// Crates that may appear in the dependencies of these rooms only.
const CONFINED: &[(&str, &[&str])] = &[
    ("jsonwebtoken", &["jose"]),
    ("aws-lc-rs", &["jose"]),
    ("argon2", &["jose"]),
    ("bcrypt", &["jose"]),
    ("prost", &["authn"]),
    ("sfv", &["authn"]),
    ("redb", &["store"]),
    ("tonic", &["proxy"]),
    ("cel", &["policy"]),
    ("x509-parser", &["authn", "gateway"]),
    ("serde-saphyr", &["gateway"]),
    ("hyper", &["gateway", "proxy", "portcullis"]),
    ("axum", &["portcullis"]),
    ("utoipa", &["gateway", "portcullis"]),
    ("utoipa-axum", &["portcullis"]),
    ("anyhow", &["portcullis"]),
];

/// Names under `[dependencies]` of a manifest: what the room is built from.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line.starts_with("[dependencies.");
        } else if inside
            && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())
        {
            names.push(name);
        }
    }
    names
}

fn manifests() -> Vec<(String, String)> {
    let manifests = files("crates", &["Cargo.toml"]).into_iter();
    manifests
        .map(|(path, text)| (path.split('/').nth(1).expect("crates/<room>/Cargo.toml").to_owned(), text))
        .collect()
}

#[test]
fn arrows_between_crates_point_down() {
    let mut complaints = Vec::new();
    for (room, manifest) in manifests() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            complaints.push(format!("crates/{room} stands on no floor: say here what it may use"));
            continue;
        };
        for name in dependencies(&manifest) {
            if let Some(used) = name.strip_prefix("portcullis-").filter(|used| !allowed.contains(used)) {
                complaints.push(format!("{room} may not use {used}"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn confined_dependencies_stay_in_their_rooms() {
    let mut complaints = Vec::new();
    for (room, manifest) in manifests() {
        for name in dependencies(&manifest) {
            let rooms = CONFINED.iter().find(|(confined, _)| *confined == name).map(|(_, rooms)| rooms);
            if rooms.is_some_and(|rooms| !rooms.contains(&room.as_str())) {
                complaints.push(format!("{room} uses {name}, which belongs to {rooms:?}"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn hyper_appears_only_in_the_listener_and_in_the_proxy() {
    let mut complaints = Vec::new();
    for (path, text) in files("crates/gateway/src", &[".rs"]) {
        if !path.contains("/listener/") && !path.ends_with("tests.rs") && text.contains("hyper::") {
            complaints.push(path);
        }
    }
    none(&complaints);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let lazy = manifests().into_iter().filter(|(_, text)| !text.contains("[lints]\nworkspace = true"));
    none(&lazy.map(|(room, _)| format!("crates/{room} has lints of its own")).collect::<Vec<_>>());
}
