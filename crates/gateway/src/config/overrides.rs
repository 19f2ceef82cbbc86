//! Settings of `gateway.yaml` taken from the environment: `PORTCULLIS_LISTEN__PUBLIC__ADDRESS=0.0.0.0:443`.
//!
//! Policies are never overridden: what was reviewed is what runs.

use figment::value::Value as Figment;
use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{Diagnostic, Faults, Place, Severity, Spanned};

use super::sources::{Environment, SourceMap};

const PREFIX: &str = "PORTCULLIS_";

/// The settings that can be overridden, by their first word. A path with two words is meant for us, and is a fault if
/// it leads nowhere; any other single word belongs to somebody else: Kubernetes sets `PORTCULLIS_PORT` for a service of that name, and a secret may have such a name.
const SETTINGS: [&str; 9] =
    ["listen", "issuers", "upstreams", "store", "admin", "workers", "access_log", "shutdown", "version"];

/// Lays the overrides over the tree of `gateway.yaml`. Each gets a line of its own in a pseudo-file, so that a
/// fault in one is shown like any other. SECURITY: what a `{ env: }` of the file reads is a secret and never shown.
pub(super) fn apply(
    root: &mut Node,
    environment: &Environment,
    sources: &mut SourceMap,
    faults: &mut Faults,
) {
    let mut secrets = Vec::new();
    secret_names(root, &mut secrets);
    let mut lines = String::new();
    let mut found = Vec::new();
    for (name, value) in environment.iter() {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        if secrets.iter().any(|secret| secret == name) {
            continue;
        }
        let first = path.split("__").next().unwrap_or(path).to_ascii_lowercase();
        if !SETTINGS.contains(&first.as_str()) && !path.contains("__") {
            let message = format!("the environment variable `{name}` is no setting of gateway.yaml");
            faults.push(Diagnostic {
                severity: Severity::Warning,
                ..Diagnostic::nowhere("stray_variable", message)
            });
            continue;
        }
        let start = lines.len();
        lines.push_str(&format!("{name}={value}\n"));
        found.push((name.to_owned(), path.to_owned(), start, value.to_owned()));
    }
    if found.is_empty() {
        return;
    }
    let file = sources.add_environment(lines);
    for (line, (name, path, start, value)) in (1u32..).zip(found) {
        let at = |from: usize, length: usize| {
            let line_start =
                Place { file, line, column: 1, offset: u32::try_from(start).unwrap_or(0), length: 0 };
            line_start.part(from, length)
        };
        let key_place = at(0, name.len());
        let value_place = at(name.len() + 1, value.len());
        if let Some(parsed) = parse(&value) {
            let segments: Vec<&str> = path.split("__").collect();
            insert(root, &segments, key_place, node(&parsed, value_place));
        }
    }
}

/// The variables that the file itself names as secrets.
fn secret_names(node: &Node, names: &mut Vec<String>) {
    match &node.content {
        Content::Map(entries) => {
            for entry in entries {
                match &entry.value.content {
                    Content::Text(name) if entry.key.value == "env" => names.push(name.clone()),
                    _ => secret_names(&entry.value, names),
                }
            }
        }
        Content::List(items) => items.iter().for_each(|item| secret_names(item, names)),
        _ => {}
    }
}

/// Figment decides what kind of value the text is (number, boolean, list, text), as its `Env` provider would.
fn parse(value: &str) -> Option<Figment> {
    value.parse().ok()
}

fn node(value: &Figment, place: Place) -> Node {
    let content = match value {
        Figment::String(_, text) => Content::Text(text.clone()),
        Figment::Bool(_, value) => Content::Bool(*value),
        Figment::Num(_, number) => number
            .to_i128()
            .and_then(|whole| i64::try_from(whole).ok())
            .map_or_else(|| number.to_f64().map_or(Content::Null, Content::Number), Content::Integer),
        Figment::Array(_, items) => Content::List(items.iter().map(|item| node(item, place)).collect()),
        Figment::Dict(_, members) => Content::Map(
            members
                .iter()
                .map(|(key, value)| Entry {
                    key: Spanned::new(key.clone(), place),
                    value: node(value, place),
                })
                .collect(),
        ),
        Figment::Char(_, text) => Content::Text(text.to_string()),
        Figment::Empty(..) => Content::Null,
    };
    Node { place, content }
}

fn insert(target: &mut Node, path: &[&str], key_place: Place, value: Node) {
    let Some((segment, rest)) = path.split_first() else {
        *target = value;
        return;
    };
    if !matches!(target.content, Content::Map(_)) {
        target.content = Content::Map(Vec::new());
    }
    let Content::Map(entries) = &mut target.content else { return };
    let found = entries.iter_mut().find(|entry| same_name(&entry.key.value, segment));
    match found {
        Some(entry) => insert(&mut entry.value, rest, key_place, value),
        None => {
            let mut fresh = Node { place: key_place, content: Content::Map(Vec::new()) };
            insert(&mut fresh, rest, key_place, value);
            entries.push(Entry { key: Spanned::new(segment.to_lowercase(), key_place), value: fresh });
        }
    }
}

/// Environment names cannot hold dashes and are upper case, names in files may be neither.
fn same_name(key: &str, segment: &str) -> bool {
    key.len() == segment.len()
        && key.bytes().zip(segment.bytes()).all(|(a, b)| {
            let fold = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
            fold(a) == fold(b)
        })
}

#[cfg(test)]
mod tests {
    use super::{apply, same_name};
    use crate::config::sources::{Environment, SourceMap};
    use crate::config::yaml::parse;
    use portcullis_core::document::Content;
    use portcullis_core::{Faults, FileId};

    #[test]
    fn an_override_replaces_a_value_and_points_at_the_variable() {
        let environment: Environment = [
            ("PORTCULLIS_LISTEN__BEHIND_LB__ADDRESS".to_owned(), "127.0.0.1:1".to_owned()),
            ("HOME".into(), "/".into()),
        ]
        .into_iter()
        .collect();
        let mut sources =
            SourceMap::read(std::path::Path::new("."), &Environment::default(), &mut Faults::default());
        let mut root = parse(FileId(0), "listen:\n  behind-lb:\n    address: 0.0.0.0:1\n").expect("valid");
        apply(&mut root, &environment, &mut sources, &mut Faults::default());
        let mut at = &root;
        for key in ["listen", "behind-lb", "address"] {
            let Content::Map(entries) = &at.content else { panic!("a map") };
            at = &entries.iter().find(|entry| entry.key.value == key).expect(key).value;
        }
        assert_eq!(at.content, Content::Text("127.0.0.1:1".into()));
        assert_eq!(sources.name(at.place.file), "environment");
        let text = sources.text(at.place.file);
        assert_eq!(&text[at.place.offset as usize..][..at.place.length as usize], "127.0.0.1:1");
    }

    #[test]
    fn a_secret_and_somebody_elses_variable_are_no_overrides_and_are_not_shown() {
        let environment: Environment = [
            ("PORTCULLIS_PEPPER".to_owned(), "canary-4711".to_owned()),
            ("PORTCULLIS_PORT".to_owned(), "tcp://10.0.0.1:80".to_owned()),
        ]
        .into_iter()
        .collect();
        let mut sources =
            SourceMap::read(std::path::Path::new("."), &Environment::default(), &mut Faults::default());
        let text = "api_keys: { pepper: { env: PORTCULLIS_PEPPER } }\n";
        let mut root = parse(FileId(0), text).expect("valid");
        let before = root.clone();
        let mut faults = Faults::default();
        apply(&mut root, &environment, &mut sources, &mut faults);
        assert_eq!(root, before);
        let said: Vec<_> = faults.into_sorted().into_iter().map(|fault| fault.to_string()).collect();
        assert_eq!(
            said,
            [
                "warning[stray_variable]: the environment variable `PORTCULLIS_PORT` is no setting of gateway.yaml"
            ]
        );
    }

    #[test]
    fn dashes_and_case_do_not_matter_in_environment_names() {
        assert!(same_name("behind-lb", "BEHIND_LB"));
        assert!(!same_name("behind-lb", "BEHIND"));
    }
}
