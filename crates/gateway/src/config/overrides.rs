//! Settings of `gateway.yaml` taken from the environment: `PORTCULLIS_LISTEN__PUBLIC__ADDRESS=0.0.0.0:443`.
//!
//! Policies are never overridden: what was reviewed is what runs.

use figment::value::Value as Figment;
use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{Place, Spanned};

use super::sources::{Environment, SourceMap};

const PREFIX: &str = "PORTCULLIS_";

/// Lays the overrides over the tree of `gateway.yaml`. Each gets a line of its own in a pseudo-file, so that a
/// fault in one is shown like any other.
pub(super) fn apply(root: &mut Node, environment: &Environment, sources: &mut SourceMap) {
    let mut lines = String::new();
    let mut found = Vec::new();
    for (name, value) in environment.iter() {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
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
        apply(&mut root, &environment, &mut sources);
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
    fn dashes_and_case_do_not_matter_in_environment_names() {
        assert!(same_name("behind-lb", "BEHIND_LB"));
        assert!(!same_name("behind-lb", "BEHIND"));
    }
}
