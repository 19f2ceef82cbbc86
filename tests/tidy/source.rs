//! Sizes, names and words of the source.

use std::collections::BTreeMap;

use super::{files, none};

/// The longest a file may be. Tests and tables may be longer.
const FILE_LINES: usize = 500;
/// The longest a function may be. A table of cases in a test may be longer.
const FUNCTION_LINES: usize = 70;

/// Marks of unfinished work. Written in halves, so that this file does not complain about itself.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("not yet ", "implemented"),
    concat!("for ", "now"),
    concat!("simpli", "fied"),
];

/// Names that say nothing about what is inside.
const EMPTY_MODULE_NAMES: &[&str] = &["util", "utils", "common", "helpers", "helper", "misc"];

/// Type names that end in a word for anything.
const EMPTY_TYPE_ENDINGS: &[&str] = &["Manager", "Handler", "Helper", "Context"];

fn source() -> BTreeMap<String, String> {
    let mut all = files("crates", &[".rs"]);
    all.extend(files("tests", &[".rs"]));
    all
}

/// Whether this file may be as long as its subject needs.
fn is_table_or_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

#[test]
fn files_have_one_subject() {
    let long = source().into_iter().filter(|(path, _)| !is_table_or_test(path));
    let long = long.map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > FILE_LINES);
    none(&long.map(|(path, lines)| format!("{path}: {lines} lines")).collect::<Vec<_>>());
}

#[test]
fn functions_fit_on_a_screen() {
    let mut complaints = Vec::new();
    for (path, text) in source().into_iter().filter(|(path, _)| !is_table_or_test(path)) {
        for (name, start, lines) in functions(&text) {
            if lines > FUNCTION_LINES {
                complaints.push(format!("{path}:{start}: `{name}` has {lines} lines"));
            }
        }
    }
    none(&complaints);
}

/// Functions with their first line and length. rustfmt closes a function at the indentation it was opened at,
/// so indentation is enough to find its end.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line.trim_start()) else { continue };
        let end = lines.iter().skip(number).position(|later| {
            indent(later) == indent(line) && (later.ends_with('}') || later.ends_with(';'))
        });
        if let Some(length) = end {
            found.push((name.to_owned(), number + 1, length + 1));
        }
    }
    found
}

/// The name, if this line begins a function.
fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    while let Some(after) = ["pub ", "pub(crate) ", "pub(super) ", "async ", "const "]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))
    {
        rest = after;
    }
    rest.strip_prefix("fn ")?.split(['(', '<']).next()
}

#[test]
fn the_length_of_a_function_is_measured() {
    let text = "impl X {\n    pub(crate) async fn long(\n        &self,\n    ) -> u8 {\n        1\n    }\n}\nfn short() {}\n";
    assert_eq!(functions(text), [("long".to_owned(), 2, 5), ("short".to_owned(), 8, 1)]);
}

#[test]
fn nothing_is_imported_by_a_star() {
    let mut complaints = Vec::new();
    for (path, text) in source() {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let imports = line.starts_with("use ")
                || line.starts_with("pub use ")
                || line.starts_with("pub(crate) use ");
            if imports && (line.ends_with("::*;") || line.contains("::{*") || line.contains(" *,")) {
                complaints.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn names_say_what_is_inside() {
    let mut complaints = Vec::new();
    for (path, text) in source() {
        let stem = path.trim_end_matches("/mod.rs").trim_end_matches(".rs").rsplit('/').next();
        if stem.is_some_and(|stem| EMPTY_MODULE_NAMES.contains(&stem)) {
            complaints.push(format!("{path}: what is it about?"));
        }
        for (number, line) in text.lines().enumerate() {
            let name = function_name(line.trim_start()).unwrap_or_default();
            if line.trim_start().starts_with("pub") && name.starts_with("get_") {
                complaints.push(format!("{path}:{}: `{name}` needs no `get_`", number + 1));
            }
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let mut previous = "";
            words.by_ref().for_each(|word| {
                let declares_type = matches!(previous, "struct" | "enum" | "trait" | "type");
                if declares_type && EMPTY_TYPE_ENDINGS.iter().any(|ending| word.ends_with(ending)) {
                    complaints.push(format!("{path}:{}: `{word}` could be anything", number + 1));
                }
                if previous == "mod" && EMPTY_MODULE_NAMES.contains(&word) {
                    complaints.push(format!("{path}:{}: module `{word}` could be anything", number + 1));
                }
                previous = word;
            });
        }
    }
    none(&complaints);
}

#[test]
fn nothing_is_left_for_later() {
    let mut all = source();
    for folder in ["policies", "deploy", "docs"] {
        all.extend(files(folder, &[".yaml", ".yml", ".md", ".json", "Dockerfile"]));
    }
    let top = super::root();
    for name in
        ["README.md", "CONTRIBUTING.md", "crates/README.md", "docker-compose.yml", "deny.toml", "Cargo.toml"]
    {
        if let Ok(text) = std::fs::read_to_string(top.join(name)) {
            all.insert(name.to_owned(), text);
        }
    }
    let mut complaints = Vec::new();
    for (path, text) in all {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
                complaints.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    none(&complaints);
}

/// A route that is added by any other means is not in the document of the admin API.
#[test]
fn every_route_of_the_admin_api_is_documented() {
    let admin = files("crates/portcullis/src/admin", &[".rs"]);
    assert!(admin.values().any(|text| text.contains("routes!(")), "where are they?");
    let other = [".route(", ".route_service(", ".nest(", ".nest_service(", ".fallback("];
    let silent = admin.iter().filter(|(_, text)| other.iter().any(|call| text.contains(call)));
    none(&silent.map(|(path, _)| format!("{path}: routes are added with `routes!`")).collect::<Vec<_>>());
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let allow = concat!("#[all", "ow(");
    let allow_all = concat!("#![all", "ow(");
    let mut complaints = Vec::new();
    for (path, text) in source() {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with(allow) || line.starts_with(allow_all) {
                complaints.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[ign", "ore");
    let lazy = source().into_iter().filter(|(_, text)| text.contains(ignored));
    none(&lazy.map(|(path, _)| path).collect::<Vec<_>>());
}
