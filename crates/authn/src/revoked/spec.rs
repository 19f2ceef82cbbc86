//! `revoked:` of an issuer.

use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::json::{Limits, Value, parse};
use portcullis_core::{Diagnostic, Faults, Materials, Place, Spanned};

use super::entry::{Entry, List};
use crate::json;

/// How often files are looked at, where it is not written.
const RELOAD: Duration = Duration::from_secs(30);
/// The bounds of `reload`.
const RELOAD_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// Bounds of one file. A list that grows beyond them holds what has long expired.
const LIMITS: Limits = Limits { depth: 3, list: 1_000_000, members: 8 };

/// Where the revoked tokens of an issuer are listed.
#[derive(Clone, Debug)]
pub(crate) struct RevokedSpec {
    entries: Vec<Entry>,
    /// The written entries as text, to tell one list from another.
    written: Vec<u8>,
    files: Vec<Spanned<String>>,
    reload: Duration,
}

impl RevokedSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`revoked`", faults)?;
        let (entries, files, reload) = (fields.get("entries"), fields.get("files"), fields.get("reload"));
        fields.finish(faults);
        if entries.or(files).is_none() {
            faults.error("missing_key", node.place, "`revoked` needs `files`, `entries` or both");
            return None;
        }
        if let (Some(reload), None) = (reload, files) {
            faults.error("no_use", reload.place, "`reload` is about `files`, and there are none");
            return None;
        }
        let written = entries.map(|node| json::text(node).into_bytes()).unwrap_or_default();
        let entries = entries.map_or(Some(Vec::new()), |node| read_entries(node, faults));
        let files = files.map_or(Some(Vec::new()), |node| node.texts(faults));
        let reload = reload.map_or(Some(RELOAD), |node| read_reload(node, faults));
        Some(Self { entries: entries?, written, files: files?, reload: reload? })
    }

    /// How often the files are looked at; `None` if there are none.
    pub(super) fn interval(&self) -> Option<Duration> {
        (!self.files.is_empty()).then_some(self.reload)
    }

    /// Everything that is listed now.
    pub(super) fn load(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<List> {
        let (mut entries, mut sources) = (self.entries.clone(), self.written.clone());
        for path in &self.files {
            for (name, bytes) in contents(path, materials, faults)? {
                entries.extend(read_file(&name, &bytes, path.place, faults)?);
                // The length keeps what one file ends with apart from what the next begins with.
                sources.extend_from_slice(&bytes.len().to_be_bytes());
                sources.extend_from_slice(&bytes);
            }
        }
        Some(List::new(entries, &sources))
    }
}

fn read_reload(node: &Node, faults: &mut Faults) -> Option<Duration> {
    let reload = node.duration(faults)?;
    if reload < RELOAD_BOUNDS.0 || reload > RELOAD_BOUNDS.1 {
        faults.error("out_of_range", node.place, "this must be 1s to 1h");
        return None;
    }
    Some(reload)
}

fn read_entries(node: &Node, faults: &mut Faults) -> Option<Vec<Entry>> {
    let items = node.list(faults)?;
    let read: Vec<_> = items
        .iter()
        .filter_map(|item| match Entry::read(&json::value(item)) {
            Ok(entry) => Some(entry),
            Err(why) => {
                faults.error("bad_entry", item.place, why.to_string());
                None
            }
        })
        .collect();
    (read.len() == items.len()).then_some(read)
}

/// A file, or every file of a directory.
fn contents(
    path: &Spanned<String>,
    materials: &dyn Materials,
    faults: &mut Faults,
) -> Option<Vec<(String, Vec<u8>)>> {
    let why = match materials.file(path.place.file, &path.value) {
        Ok(bytes) => return Some(vec![(path.value.clone(), bytes)]),
        Err(why) => why,
    };
    match materials.directory(path.place.file, &path.value) {
        // SECURITY: a volume that was not mounted must not look like a list on which nobody stands.
        Ok(files) if files.is_empty() => {
            let message = format!("`{}` holds no list", path.value);
            let note = "a file with `[]` is a list on which nothing stands";
            faults.push(Diagnostic::error("no_revoked_tokens", path.place, message).note(note));
            None
        }
        Ok(files) => Some(files),
        Err(_) => {
            faults.error("unreadable", path.place, why);
            None
        }
    }
}

fn read_file(name: &str, bytes: &[u8], place: Place, faults: &mut Faults) -> Option<Vec<Entry>> {
    let items = match parse(bytes, LIMITS) {
        Ok(Value::List(items)) => items,
        Ok(other) => {
            let message =
                format!("`{name}` is {}, and a list of revoked tokens is a JSON array", other.kind());
            faults.error("bad_list", place, message);
            return None;
        }
        Err(error) => {
            faults.error("bad_list", place, format!("`{name}` cannot be read: {error}"));
            return None;
        }
    };
    let mut entries = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        match Entry::read(item) {
            Ok(entry) => entries.push(entry),
            Err(why) => {
                faults.error("bad_entry", place, format!("`{name}`, entry {}: {why}", at + 1));
                return None;
            }
        }
    }
    Some(entries)
}
