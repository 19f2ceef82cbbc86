//! `revoked:` of an issuer.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::json::{Limits, Value, parse};
use portcullis_core::{Diagnostic, Faults, Materials, Place, Spanned};
use portcullis_jose::digest::sha256;

use super::entry::{Entry, List, ListedFile, MAX_NAME};
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
    files: Vec<Spanned<String>>,
    reload: Duration,
    /// Where it says that entries may be added while the gateway runs.
    push: Option<Place>,
    /// The claim that names the client, instead of `client_id` and `azp`.
    client_claim: Option<Arc<str>>,
}

/// A file, before anything in it is understood.
pub(super) struct SourceFile {
    pub(super) name: String,
    pub(super) digest: [u8; 32],
    bytes: Vec<u8>,
    place: Place,
}

impl RevokedSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`revoked`", faults)?;
        let (entries, files, reload) = (fields.get("entries"), fields.get("files"), fields.get("reload"));
        let push = fields.get("push").map(|node| node.boolean(faults).map(|on| on.then_some(node.place)));
        let client_claim = fields.get("client_claim").map(|node| read_claim(node, faults));
        fields.finish(faults);
        let push = push.map_or(Some(None), |read| read)?;
        if entries.or(files).is_none() && push.is_none() {
            faults.error("missing_key", node.place, "`revoked` needs `files`, `entries` or `push: true`");
            return None;
        }
        if let (Some(reload), None) = (reload, files) {
            faults.error("no_use", reload.place, "`reload` is about `files`, and there are none");
            return None;
        }
        let entries = entries.map_or(Some(Vec::new()), |node| read_entries(node, faults));
        let files = files.map_or(Some(Vec::new()), |node| node.texts(faults));
        let reload = reload.map_or(Some(RELOAD), |node| read_reload(node, faults));
        let client_claim = client_claim.map_or(Some(None), |read| read.map(Some));
        Some(Self { entries: entries?, files: files?, reload: reload?, push, client_claim: client_claim? })
    }

    /// How often the files are looked at; `None` if there are none.
    pub(super) fn interval(&self) -> Option<Duration> {
        (!self.files.is_empty()).then_some(self.reload)
    }

    /// Where it says that entries may be added while the gateway runs; `None` where they may not.
    pub(super) const fn push(&self) -> Option<Place> {
        self.push
    }

    /// The claim that names the client, if it is not one of the usual ones.
    pub(super) fn client_claim(&self) -> Option<&str> {
        self.client_claim.as_deref()
    }

    /// Whether another one reads the same files.
    pub(super) fn reads_what(&self, other: &Self) -> bool {
        self.files.iter().map(|path| &path.value).eq(other.files.iter().map(|path| &path.value))
    }

    /// The files as they are now.
    pub(super) fn sources(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Vec<SourceFile>> {
        let mut sources = Vec::new();
        for path in &self.files {
            let read = contents(path, materials, faults);
            materials.is_read_again(path.place.file, &path.value);
            sources.extend(read?);
        }
        Some(sources)
    }

    /// Everything that is listed in them and in the policy.
    pub(super) fn list(&self, sources: &[SourceFile], faults: &mut Faults) -> Option<List> {
        let (mut entries, mut files) = (self.entries.clone(), Vec::with_capacity(sources.len()));
        for source in sources {
            let read = read_file(source, faults)?;
            let SourceFile { name, digest, .. } = source;
            files.push(ListedFile { name: name.as_str().into(), digest: *digest, is_empty: read.is_empty() });
            entries.extend(read);
        }
        Some(List::new(entries, files))
    }
}

/// The name of a claim of the token itself.
fn read_claim(node: &Node, faults: &mut Faults) -> Option<Arc<str>> {
    let claim = node.text(faults)?;
    if claim.value.len() > MAX_NAME {
        faults.error(
            "bad_name",
            claim.place,
            format!("the name of a claim is at most {MAX_NAME} bytes long"),
        );
        return None;
    }
    Some(claim.value.into())
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
) -> Option<Vec<SourceFile>> {
    let Spanned { value: shown, place } = path;
    let source = |name: String, bytes: Vec<u8>| {
        let digest = sha256(&bytes);
        SourceFile { name, digest, bytes, place: *place }
    };
    let found = materials.directory(place.file, shown).and_then(|files| match files {
        Some(files) => {
            let folder = shown.trim_end_matches('/');
            let named = files.into_iter().map(|(name, bytes)| source(format!("{folder}/{name}"), bytes));
            Ok(named.collect())
        }
        None => materials.file(place.file, shown).map(|bytes| vec![source(shown.clone(), bytes)]),
    });
    match found {
        // SECURITY: a volume that was not mounted must not look like a list on which nobody stands.
        Ok(files) if files.is_empty() => {
            let message = format!("`{shown}` holds no list");
            let note = "a file with `[]` is a list on which nothing stands";
            faults.push(Diagnostic::error("no_revoked_tokens", *place, message).note(note));
            None
        }
        Ok(files) => Some(files),
        Err(why) => {
            faults.error("unreadable", *place, why);
            None
        }
    }
}

fn read_file(source: &SourceFile, faults: &mut Faults) -> Option<Vec<Entry>> {
    let SourceFile { name, bytes, place, .. } = source;
    let place = *place;
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
    Entry::read_all(&items).map_err(|why| faults.error("bad_entry", place, format!("`{name}`, {why}"))).ok()
}
