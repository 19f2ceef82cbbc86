//! Every effective setting of `gateway.yaml` with where it comes from, for `portcullis config`.

use std::path::Path;

use portcullis_core::document::{Content, Node};
use portcullis_core::{Faults, FileId};

use super::settings::Shutdown;
use super::sources::{Environment, FileKind, SourceMap};
use super::{overrides, yaml};
use crate::listener::ListenLimits;

/// Members of a key that make it private (RFC 7518 section 6). It is a fault to write them, and this is no place to
/// repeat it.
const PRIVATE_MEMBERS: [&str; 8] = ["k", "d", "p", "q", "dp", "dq", "qi", "oth"];

/// One effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted path (`listen.public.address`).
    pub key: String,
    /// The value as it would be written. A secret is shown as its reference, never as itself.
    pub value: String,
    /// `gateway.yaml:4:5`, `environment PORTCULLIS_…`, or `default`.
    pub source: String,
}

/// Lists what is in force. A directory that cannot be read lists nothing; `check` says why.
pub fn effective_settings(directory: &Path, environment: &Environment) -> Vec<Setting> {
    let mut faults = Faults::default();
    let mut sources = SourceMap::read(directory, environment, &mut faults);
    let Some(file) = sources.of_kind(FileKind::Gateway).next() else { return Vec::new() };
    let Ok(mut root) = yaml::parse(file, sources.text(file)) else { return Vec::new() };
    overrides::apply(&mut root, environment, &mut sources, &mut faults);
    let mut settings = Vec::new();
    walk("", &root, file, &sources, &mut settings);
    for (key, value) in defaults(&root) {
        if !settings.iter().any(|setting| setting.key == key) {
            settings.push(Setting { key, value, source: "default".to_owned() });
        }
    }
    settings
}

fn walk(path: &str, node: &Node, file: FileId, sources: &SourceMap, settings: &mut Vec<Setting>) {
    if let Content::Map(entries) = &node.content {
        for entry in entries {
            let key =
                if path.is_empty() { entry.key.value.clone() } else { format!("{path}.{}", entry.key.value) };
            walk(&key, &entry.value, file, sources, settings);
        }
        return;
    }
    let place = node.place;
    let source = if place.file == file {
        format!("{}:{}:{}", sources.name(file), place.line, place.column)
    } else {
        let variable = sources.text(place.file).lines().nth(place.line.saturating_sub(1) as usize);
        format!("environment {}", variable.and_then(|line| line.split('=').next()).unwrap_or_default())
    };
    let private = path.rsplit('.').next().is_some_and(|last| PRIVATE_MEMBERS.contains(&last));
    let value = if private { "(hidden)".to_owned() } else { shown(node) };
    settings.push(Setting { key: path.to_owned(), value, source });
}

fn shown(node: &Node) -> String {
    match &node.content {
        Content::Null => "null".to_owned(),
        Content::Bool(value) => value.to_string(),
        Content::Integer(value) => value.to_string(),
        Content::Number(value) => value.to_string(),
        Content::Text(text) => text.clone(),
        Content::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Content::Map(entries) => {
            let members = entries.iter().map(|entry| {
                let hidden = PRIVATE_MEMBERS.contains(&entry.key.value.as_str());
                let value = if hidden { "(hidden)".to_owned() } else { shown(&entry.value) };
                format!("{}: {value}", entry.key.value)
            });
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What applies where nothing is written.
fn defaults(root: &Node) -> Vec<(String, String)> {
    let shutdown = Shutdown::default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut defaults = vec![
        ("access_log".to_owned(), "true".to_owned()),
        ("workers".to_owned(), processors.to_string()),
        ("shutdown.lame_duck".to_owned(), seconds(shutdown.lame_duck)),
        ("shutdown.grace".to_owned(), seconds(shutdown.grace)),
    ];
    let Content::Map(entries) = &root.content else { return defaults };
    let listen = entries.iter().find(|entry| entry.key.value == "listen").map(|entry| &entry.value.content);
    let Some(Content::Map(listeners)) = listen else { return defaults };
    for listener in listeners {
        for (key, value) in ListenLimits::default().listing() {
            defaults.push((format!("listen.{}.limits.{key}", listener.key.value), value));
        }
    }
    defaults
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs())
}
