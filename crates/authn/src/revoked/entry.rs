//! Entries, and the list they are found in.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::json::{JsonError, Limits, Object, Value, parse};
use portcullis_core::{Identity, Moment};
use portcullis_jose::digest::sha256;

use super::spec::SourceFile;
use crate::clients::moment;

/// The longest name in an entry, in bytes: no token that is taken has a longer `jti`, `sub` or client.
pub(super) const MAX_NAME: usize = 255;

/// Which tokens one entry is about: those of which everything holds that it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The token's own name.
    jti: Option<Arc<str>>,
    /// Its subject.
    sub: Option<Arc<str>>,
    /// The client it was issued to, or the registered client that signed it.
    client: Option<Arc<str>>,
    /// Second since 1970 before which it was issued.
    issued_before: Option<i64>,
    /// Second since 1970 from which the entry no longer counts.
    until: Option<i64>,
}

/// Why an entry cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// It is no JSON.
    #[error("{0}")]
    NotJson(JsonError),
    /// It is something else than a mapping.
    #[error("an entry is a mapping")]
    NotAnObject,
    /// It says something no entry says.
    #[error("an entry has no `{0}`; it has `jti`, `sub`, `client`, `issued_before` and `until`")]
    UnknownMember(String),
    /// This member is no name.
    #[error("`{0}` is text of 1 to 255 bytes")]
    NotAName(&'static str),
    /// This member is no moment.
    #[error("`{0}` is a day, a moment such as `2027-06-30T12:00:00Z`, or seconds since 1970")]
    NotAMoment(&'static str),
    /// It narrows nothing down.
    #[error("an entry needs one of `jti`, `sub`, `client` and `issued_before`, or it would name every token")]
    NamesEverything,
    /// One of several cannot be read.
    #[error("entry {at}: {why}")]
    OneOfSeveral {
        /// Which one, counted from 1.
        at: usize,
        /// What is wrong with it.
        why: Box<Self>,
    },
}

impl Entry {
    /// Reads an entry from its JSON text.
    ///
    /// # Errors
    /// See [`BadEntry`].
    pub fn parse(text: &[u8]) -> Result<Self, BadEntry> {
        let limits = Limits { depth: 1, list: 0, members: 8 };
        Self::read(&parse(text, limits).map_err(BadEntry::NotJson)?)
    }

    /// Reads an entry, or a list of at most `most` entries, from JSON text.
    ///
    /// # Errors
    /// See [`BadEntry`].
    pub fn parse_some(text: &[u8], most: usize) -> Result<Vec<Self>, BadEntry> {
        let limits = Limits { depth: 2, list: most, members: 8 };
        match parse(text, limits).map_err(BadEntry::NotJson)? {
            Value::List(items) => Self::read_all(&items),
            one => Ok(vec![Self::read(&one)?]),
        }
    }

    pub(super) fn read_all(items: &[Value]) -> Result<Vec<Self>, BadEntry> {
        let read = |(at, item)| {
            Self::read(item).map_err(|why| BadEntry::OneOfSeveral { at: at + 1, why: Box::new(why) })
        };
        items.iter().enumerate().map(read).collect()
    }

    /// The entry as JSON, always in the same words: what is not said is left out, and moments are seconds since 1970.
    pub fn to_json(&self) -> serde_json::Value {
        let Self { jti, sub, client, issued_before, until } = self;
        let names = [("jti", jti), ("sub", sub), ("client", client)];
        let moments = [("issued_before", issued_before), ("until", until)];
        let names = names.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?.into())));
        let moments = moments.into_iter().filter_map(|(name, value)| Some((name, (*value)?.into())));
        names
            .chain(moments)
            .map(|(name, value): (&str, serde_json::Value)| (name.to_owned(), value))
            .collect()
    }

    /// A name for the entry, the same for all that say the same.
    pub fn id(&self) -> String {
        let digest = sha256(self.to_json().to_string().as_bytes());
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it no longer counts.
    pub fn is_over(&self, now: Moment) -> bool {
        self.until.is_some_and(|end| now.unix_seconds() >= end)
    }

    pub(super) fn read(value: &Value) -> Result<Self, BadEntry> {
        let object = value.as_object().ok_or(BadEntry::NotAnObject)?;
        let known = ["jti", "sub", "client", "issued_before", "until"];
        if let Some((unknown, _)) = object.members().find(|(name, _)| !known.contains(name)) {
            // Whoever writes lists by machine may put anything there, and this reaches the log.
            let unknown = unknown.chars().filter(|character| !character.is_control()).take(32).collect();
            return Err(BadEntry::UnknownMember(unknown));
        }
        let entry = Self {
            jti: name(object, "jti")?,
            sub: name(object, "sub")?,
            client: name(object, "client")?,
            issued_before: second(object, "issued_before")?,
            until: second(object, "until")?,
        };
        let Self { jti, sub, client, issued_before, until: _ } = &entry;
        if jti.is_none() && sub.is_none() && client.is_none() && issued_before.is_none() {
            return Err(BadEntry::NamesEverything);
        }
        Ok(entry)
    }

    fn is_about(&self, token: &Facts<'_>, now: i64) -> bool {
        self.until.is_none_or(|end| now < end)
            && self.jti.as_ref().is_none_or(|jti| token.jti == Some(&**jti))
            && self.sub.as_ref().is_none_or(|sub| token.sub == Some(&**sub))
            && self.client.as_ref().is_none_or(|client| token.clients.contains(&Some(&**client)))
            // SECURITY: of a token that does not say when it was issued nobody knows that it was later.
            && self.issued_before.is_none_or(|end| token.issued.is_none_or(|issued| issued < end))
    }
}

fn name(object: &Object, member: &'static str) -> Result<Option<Arc<str>>, BadEntry> {
    match object.get(member) {
        None => Ok(None),
        Some(Value::Text(text)) if !text.is_empty() && text.len() <= MAX_NAME => Ok(Some(text.clone())),
        Some(_) => Err(BadEntry::NotAName(member)),
    }
}

fn second(object: &Object, member: &'static str) -> Result<Option<i64>, BadEntry> {
    match object.get(member) {
        None => Ok(None),
        Some(Value::Integer(second)) => Ok(Some(*second)),
        Some(Value::Text(text)) => moment(text).map(Some).ok_or(BadEntry::NotAMoment(member)),
        Some(_) => Err(BadEntry::NotAMoment(member)),
    }
}

/// What entries speak of, in a token.
struct Facts<'a> {
    jti: Option<&'a str>,
    sub: Option<&'a str>,
    /// The client by each name it may go by.
    clients: [Option<&'a str>; 3],
    issued: Option<i64>,
}

impl<'a> Facts<'a> {
    fn of(token: &'a Identity, client_claim: Option<&str>) -> Self {
        let text = |name: &str| token.claims.get(name).and_then(Value::as_text).map(|text| &**text);
        let registered = token.client.as_ref().map(|client| &*client.name);
        Self {
            jti: text("jti"),
            sub: text("sub"),
            clients: match client_claim {
                Some(claim) => [text(claim), None, registered],
                None => [text("client_id"), text("azp"), registered],
            },
            issued: token.claims.get("iat").and_then(whole_seconds),
        }
    }
}

/// A `NumericDate` may have a fraction (RFC 7519 section 2); the second it lies in counts.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates, and the claim was judged before"
)]
fn whole_seconds(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(second) => Some(*second),
        Value::Number(second) => Some(second.floor() as i64),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => None,
    }
}

type ByName = HashMap<Arc<str>, Vec<Entry>, ahash::RandomState>;

/// Entries by the rarest thing they name.
#[derive(Debug, Default)]
pub(super) struct List {
    by_jti: ByName,
    by_sub: ByName,
    by_client: ByName,
    others: Vec<Entry>,
    count: usize,
    files: Vec<ListedFile>,
}

/// A file that a list was read from.
#[derive(Debug)]
pub(super) struct ListedFile {
    pub(super) name: Arc<str>,
    pub(super) digest: [u8; 32],
    /// Whether nothing is listed in it.
    pub(super) is_empty: bool,
}

/// Of entries that say nothing but when a token was issued, those that no other one makes needless. They are looked at
/// for every token.
fn widest(mut entries: Vec<Entry>) -> Vec<Entry> {
    let end = |entry: &Entry| entry.until.unwrap_or(i64::MAX);
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.issued_before, end(entry))));
    let mut latest = i64::MIN;
    entries.retain(|entry| {
        let adds = end(entry) > latest;
        latest = latest.max(end(entry));
        adds
    });
    entries
}

impl List {
    /// `files` are those the entries were read from.
    pub(super) fn new(entries: Vec<Entry>, files: Vec<ListedFile>) -> Self {
        let mut list = Self { count: entries.len(), files, ..Self::default() };
        for entry in entries {
            let Entry { jti, sub, client, .. } = &entry;
            let place = match (jti, sub, client) {
                (Some(jti), _, _) => list.by_jti.entry(jti.clone()).or_default(),
                (None, Some(sub), _) => list.by_sub.entry(sub.clone()).or_default(),
                (None, None, Some(client)) => list.by_client.entry(client.clone()).or_default(),
                (None, None, None) => &mut list.others,
            };
            place.push(entry);
        }
        list.others = widest(list.others);
        list
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Whether it was read from exactly these.
    pub(super) fn is_of(&self, sources: &[SourceFile]) -> bool {
        let same =
            |(own, other): (&ListedFile, &SourceFile)| *own.name == *other.name && own.digest == other.digest;
        self.files.len() == sources.len() && self.files.iter().zip(sources).all(same)
    }

    /// A file on which something is listed and that is no longer there, under its name or under another one.
    pub(super) fn gone_from(&self, sources: &[SourceFile]) -> Option<&ListedFile> {
        let is_there = |own: &ListedFile| {
            sources.iter().any(|other| *own.name == *other.name || own.digest == other.digest)
        };
        self.files.iter().find(|own| !own.is_empty && !is_there(own))
    }

    /// The same, seen from the list that would take its place.
    pub(super) fn gone_from_list(&self, newer: &Self) -> Option<&ListedFile> {
        let is_there = |own: &ListedFile| {
            newer.files.iter().any(|other| own.name == other.name || own.digest == other.digest)
        };
        self.files.iter().find(|own| !own.is_empty && !is_there(own))
    }

    /// Whether any entry is about this token, at that second. `client_claim` names its client where that is not said by
    /// the usual claims.
    pub(super) fn names(&self, token: &Identity, client_claim: Option<&str>, now: i64) -> bool {
        let facts = Facts::of(token, client_claim);
        let under = |index: &'_ ByName, name: Option<&str>| {
            name.and_then(|name| index.get(name))
                .is_some_and(|entries| entries.iter().any(|entry| entry.is_about(&facts, now)))
        };
        under(&self.by_jti, facts.jti)
            || under(&self.by_sub, facts.sub)
            || facts.clients.iter().any(|client| under(&self.by_client, *client))
            || self.others.iter().any(|entry| entry.is_about(&facts, now))
    }
}
