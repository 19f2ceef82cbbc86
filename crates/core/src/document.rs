//! A policy file as a tree that remembers where everything stands, and the tools to read it.
//!
//! Each room reads its own part of the tree into its own `*Spec` types. Reading never stops at the first
//! fault: a reader returns `None` and goes on, so that one run names every mistake.

use std::time::Duration;

use crate::diagnostic::nearest;
use crate::quantity::{self, Rate};
use crate::{Diagnostic, Faults, Place, SecretSpec, Spanned};

/// A value in a policy file.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// The kinds of values a policy file can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing after the colon, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Number(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written, no key twice.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Spanned<String>,
    /// The value.
    pub value: Node,
}

impl Node {
    /// What it is, in the writer's words.
    pub const fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false",
            Content::Integer(_) | Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    /// Reports that something else belongs here.
    pub fn expected<T>(&self, wanted: &str, faults: &mut Faults) -> Option<T> {
        faults.error("wrong_kind", self.place, format!("expected {wanted}, found {}", self.kind()));
        None
    }

    /// Non-empty text. A bare number or boolean is not text: quoting it says what is meant.
    pub fn text(&self, faults: &mut Faults) -> Option<Spanned<String>> {
        match &self.content {
            Content::Text(text) if text.is_empty() => {
                faults.error("empty", self.place, "this must not be empty");
                None
            }
            Content::Text(text) => Some(Spanned::new(text.clone(), self.place)),
            Content::Bool(_) | Content::Integer(_) | Content::Number(_) => {
                faults.push(
                    Diagnostic::error(
                        "wrong_kind",
                        self.place,
                        format!("expected text, found {}", self.kind()),
                    )
                    .note("put it in quotes if the text is meant"),
                );
                None
            }
            _ => self.expected("text", faults),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, faults: &mut Faults) -> Option<bool> {
        match self.content {
            Content::Bool(value) => Some(value),
            _ => self.expected("`true` or `false`", faults),
        }
    }

    /// A whole number within bounds.
    pub fn integer(&self, bounds: std::ops::RangeInclusive<i64>, faults: &mut Faults) -> Option<i64> {
        match self.content {
            Content::Integer(value) if bounds.contains(&value) => Some(value),
            Content::Integer(value) => {
                let message = format!("{value} is out of range: {} to {}", bounds.start(), bounds.end());
                faults.error("out_of_range", self.place, message);
                None
            }
            _ => self.expected("a whole number", faults),
        }
    }

    /// A duration such as `5s`, `2m`, `1h`, `30d` or `250ms`.
    pub fn duration(&self, faults: &mut Faults) -> Option<Duration> {
        self.quantity("a duration such as `5s`, `2m`, `1h` or `30d`", quantity::duration, faults)
    }

    /// A size such as `64KiB` or `8MiB`, in bytes.
    pub fn size(&self, faults: &mut Faults) -> Option<u64> {
        self.quantity("a size such as `64KiB` or `8MiB`", quantity::size, faults)
    }

    /// A count per time such as `20 per second` or `100000 per day`.
    pub fn rate(&self, faults: &mut Faults) -> Option<Rate> {
        self.quantity("a count per time such as `20 per second` or `100000 per day`", quantity::rate, faults)
    }

    fn quantity<T>(
        &self,
        wanted: &str,
        read: fn(&str) -> Result<T, String>,
        faults: &mut Faults,
    ) -> Option<T> {
        let Content::Text(text) = &self.content else { return self.expected(wanted, faults) };
        read(text)
            .map_err(|why| {
                faults
                    .push(Diagnostic::error("bad_quantity", self.place, why).note(format!("write {wanted}")));
            })
            .ok()
    }

    /// One of a closed set of words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)], faults: &mut Faults) -> Option<T> {
        let text = match &self.content {
            Content::Text(text) => text.as_str(),
            Content::Bool(true) => "true",
            Content::Bool(false) => "false",
            _ => return self.expected(&listed(words.iter().map(|(word, _)| *word)), faults),
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let mut fault =
            Diagnostic::error("unknown_word", self.place, format!("`{text}` is not one of the words here"))
                .note(format!("words here: {}", listed(words.iter().map(|(word, _)| *word))));
        if let Some(near) = nearest(text, words.iter().map(|(word, _)| *word)) {
            fault = fault.label(format!("did you mean `{near}`?"));
        }
        faults.push(fault);
        None
    }

    /// A list with at least one member.
    pub fn list(&self, faults: &mut Faults) -> Option<&[Self]> {
        match &self.content {
            Content::List(items) if items.is_empty() => {
                faults.error("empty", self.place, "this list must not be empty");
                None
            }
            Content::List(items) => Some(items),
            _ => self.expected("a list", faults),
        }
    }

    /// One text, or a list of texts.
    pub fn texts(&self, faults: &mut Faults) -> Option<Vec<Spanned<String>>> {
        match &self.content {
            Content::List(_) => {
                let items = self.list(faults)?;
                let texts: Vec<_> = items.iter().filter_map(|item| item.text(faults)).collect();
                (texts.len() == items.len()).then_some(texts)
            }
            _ => self.text(faults).map(|text| vec![text]),
        }
    }

    /// The entries of a mapping whose keys are names the writer chose.
    pub fn named(&self, faults: &mut Faults) -> Option<&[Entry]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            _ => self.expected("a mapping of names", faults),
        }
    }

    /// A mapping with exactly one key, which says what kind of thing follows: `jwt: { ... }`.
    pub fn single(&self, what: &str, faults: &mut Faults) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => match entries.as_slice() {
                [entry] => Some(entry),
                _ => {
                    faults.error(
                        "one_key",
                        self.place,
                        format!("{what} has exactly one key, this has {}", entries.len()),
                    );
                    None
                }
            },
            _ => self.expected(&format!("a mapping with one key that names {what}"), faults),
        }
    }

    /// `{ file: }`, `{ env: }` or `{ credential: }`. SECURITY: a literal is an error, so that a policy file can
    /// be read by anybody who may read policies.
    pub fn secret(&self, faults: &mut Faults) -> Option<SecretSpec> {
        if matches!(self.content, Content::Text(_) | Content::Integer(_)) {
            faults.push(
                Diagnostic::error("literal_secret", self.place, "a secret is written in the file").note(
                    "move it to a file and write { file: secrets/name }, or write { env: NAME } or { credential: name }",
                ),
            );
            return None;
        }
        let mut fields = Fields::of(self, "a secret reference", faults)?;
        let (file, env, credential) = (fields.get("file"), fields.get("env"), fields.get("credential"));
        fields.finish(faults);
        match (file, env, credential) {
            (Some(path), None, None) => Some(SecretSpec::File(path.text(faults)?)),
            (None, Some(name), None) => Some(SecretSpec::Environment(name.text(faults)?)),
            (None, None, Some(name)) => Some(SecretSpec::Credential(name.text(faults)?)),
            _ => {
                faults.error(
                    "one_key",
                    self.place,
                    "a secret reference has one of `file`, `env`, `credential`",
                );
                None
            }
        }
    }

    /// `{ file: path }`, for material that is not secret.
    pub fn file(&self, faults: &mut Faults) -> Option<Spanned<String>> {
        let mut fields = Fields::of(self, "a file reference", faults)?;
        let path = fields.require("file", faults);
        fields.finish(faults);
        path?.text(faults)
    }
}

/// The keys of one mapping while it is being read. Every key the room knows is asked for by name; whatever is
/// left at [`Fields::finish`] is unknown, and unknown is an error.
#[derive(Debug)]
pub struct Fields<'n> {
    what: &'static str,
    place: Place,
    entries: &'n [Entry],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Starts reading a mapping; `what` names it in messages (`a listener`).
    pub fn of(node: &'n Node, what: &'static str, faults: &mut Faults) -> Option<Self> {
        match &node.content {
            Content::Map(entries) => Some(Self { what, place: node.place, entries, known: Vec::new() }),
            _ => node.expected(&format!("a mapping ({what})"), faults),
        }
    }

    /// The mapping's own place.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The value of a key that may be there.
    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Key and value, where the key's own place matters.
    pub fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.known.push(key);
        self.entries.iter().find(|entry| entry.key.value == key)
    }

    /// The value of a key that must be there.
    pub fn require(&mut self, key: &'static str, faults: &mut Faults) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            faults.error("missing_key", self.place, format!("{} needs `{key}`", self.what));
        }
        found
    }

    /// Ends the reading: every key nobody asked for is reported, with the nearest known one.
    pub fn finish(self, faults: &mut Faults) {
        for entry in self.entries {
            let key = &entry.key;
            if self.known.contains(&key.value.as_str()) {
                continue;
            }
            let mut fault = Diagnostic::error(
                "unknown_key",
                key.place,
                format!("unknown key `{}` in {}", key.value, self.what),
            )
            .note(format!("keys here: {}", self.known.join(", ")));
            if let Some(near) = nearest(&key.value, self.known.iter().copied()) {
                fault = fault.label(format!("did you mean `{near}`?"));
            }
            faults.push(fault);
        }
    }
}

fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
