//! YAML into a tree that remembers where everything stands. The only file that knows the YAML library.

use std::fmt;

use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{Diagnostic, FileId, Place, Spanned};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Reads one file.
///
/// # Errors
/// The first place where the text is not YAML, or uses what policy files may not use (a key twice, merge keys,
/// more than one document). Only syntax stops here; every other fault is found together.
pub(super) fn parse(file: FileId, text: &str) -> Result<Node, Box<Diagnostic>> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        legacy_octal_numbers: false,
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        reject_unsupported_tags: true,
        budget: serde_saphyr::budget! {
            // A policy says what it means where it says it, and an alias can stand for a billion nodes.
            max_anchors: 0,
            max_aliases: 0,
            max_documents: 1,
            max_depth: 64,
            // A hundred thousand clients fit into one file.
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_total_scalar_bytes: 256 << 20,
        },
    };
    let tree: serde_saphyr::Spanned<Tree> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Box::new(syntax_fault(file, &error)))?;
    Ok(node(file, tree))
}

fn syntax_fault(file: FileId, error: &serde_saphyr::Error) -> Diagnostic {
    // The library adds the source excerpt to its own text; ours is drawn by the caller.
    let plain = error.without_snippet();
    let text = plain.to_string();
    let message = match plain {
        serde_saphyr::Error::Budget { breach, .. } => over_budget(breach).to_owned(),
        _ => match text.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.split(',').next()) {
            Some(key) => format!("the key `{key}` is written twice"),
            None => text.split(" at line ").next().unwrap_or(&text).trim_end_matches('.').to_owned(),
        },
    };
    let place = plain
        .location()
        .map_or(Place { file, line: 1, column: 1, offset: 0, length: 0 }, |location| place(file, location));
    Diagnostic::error("not_yaml", place, lower_first(&message))
}

/// The library's own words name its types.
fn over_budget(breach: &serde_saphyr::budget::BudgetBreach) -> &'static str {
    use serde_saphyr::budget::BudgetBreach;
    match breach {
        BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => {
            "anchors and aliases are not used in policy files"
        }
        BudgetBreach::Depth { .. } => "nested too deeply",
        BudgetBreach::Documents { .. } => "a policy file is one document",
        _ => "the file is too large",
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn place(file: FileId, location: serde_saphyr::Location) -> Place {
    let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
    let span = location.span();
    Place {
        file,
        line: narrow(location.line()).max(1),
        column: narrow(location.column()).max(1),
        offset: span.byte_offset().map_or(0, narrow),
        length: span.byte_len().map_or(0, narrow),
    }
}

fn node(file: FileId, tree: serde_saphyr::Spanned<Tree>) -> Node {
    let place = place(file, tree.referenced);
    let content = match tree.value {
        Tree::Null => Content::Null,
        Tree::Bool(value) => Content::Bool(value),
        Tree::Integer(value) => Content::Integer(value),
        Tree::Number(value) => Content::Number(value),
        Tree::Text(text) => Content::Text(text),
        Tree::List(items) => Content::List(items.into_iter().map(|item| node(file, item)).collect()),
        Tree::Map(entries) => Content::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key: Spanned::new(key.value, self::place(file, key.referenced)),
                    value: node(file, value),
                })
                .collect(),
        ),
    };
    Node { place, content }
}

enum Tree {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<serde_saphyr::Spanned<Tree>>),
    Map(Vec<(serde_saphyr::Spanned<String>, serde_saphyr::Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Tree, E> {
        i64::try_from(value).map(Tree::Integer).map_err(|_| E::custom("this number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use portcullis_core::FileId;
    use portcullis_core::document::Content;

    #[test]
    fn every_key_and_value_knows_its_place() {
        let text = "a:\n  - one\n  - {b: 20 per second, c: \"x\"}\n";
        let root = parse(FileId(7), text).expect("valid");
        let Content::Map(entries) = &root.content else { panic!("a map") };
        assert_eq!((entries[0].key.place.line, entries[0].key.place.column), (1, 1));
        let Content::List(items) = &entries[0].value.content else { panic!("a list") };
        assert_eq!((items[0].place.line, items[0].place.column, items[0].place.length), (2, 5, 3));
        let Content::Map(inner) = &items[1].content else { panic!("a map") };
        let rate = &inner[0].value.place;
        assert_eq!((rate.file, rate.line, rate.column), (FileId(7), 3, 9));
        assert_eq!(&text[rate.offset as usize..(rate.offset + rate.length) as usize], "20 per second");
    }

    #[test]
    fn syntax_faults_have_a_place_and_plain_words() {
        let twice = parse(FileId(0), "a: 1\nb: 2\na: 3\n").expect_err("a key twice");
        assert_eq!(twice.message, "the key `a` is written twice");
        for (text, line) in [
            ("a: [1, 2", 1),
            ("a: 1\nb: 2\na: 3\n", 3),
            ("a: 1\n b: 2\n", 2),
            ("<<: {a: 1}\n", 1),
            ("a: &x 1\nb: *x\n", 1),
            ("a: 1\n---\nb: 2\n", 1),
        ] {
            let fault = parse(FileId(0), text).expect_err(text);
            assert_eq!(fault.code, "not_yaml");
            assert!(fault.place.expect("a place").line >= line, "{text}: {fault:?}");
            assert!(!fault.message.contains('\n'), "{}", fault.message);
        }
    }

    #[test]
    fn words_that_other_readers_take_for_booleans_stay_words() {
        let root = parse(FileId(0), "ask: no\nocsp: off\n").expect("valid");
        let Content::Map(entries) = &root.content else { panic!("a map") };
        assert_eq!(entries[0].value.content, Content::Text("no".into()));
        assert_eq!(entries[1].value.content, Content::Text("off".into()));
    }
}
