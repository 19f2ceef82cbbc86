//! What a running gateway cannot change: it is bound, opened and started once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use portcullis_core::document::{Content, Node};
use portcullis_core::{Diagnostic, Faults, Place};

/// Each such thing by its path in gateway.yaml, as it is written and where.
#[derive(Debug, Default)]
pub(crate) struct Fixed(BTreeMap<String, (String, Place)>);

impl Fixed {
    /// What of gateway.yaml cannot change.
    pub(super) fn of(root: &Node) -> Self {
        let mut fixed = Self::default();
        for key in ["store", "workers", "access_log", "reload"] {
            fixed.note(key.to_owned(), child(root, key));
        }
        for key in ["address", "socket", "audit"] {
            fixed.note(format!("admin.{key}"), child(root, "admin").and_then(|admin| child(admin, key)));
        }
        // Whether it speaks TLS; with which certificates may change.
        if let Some(tls) = child(root, "admin").and_then(|admin| child(admin, "tls")) {
            fixed.0.insert("admin.tls".to_owned(), (String::new(), tls.place));
        }
        if let Some(Content::Map(listeners)) = child(root, "listen").map(|listen| &listen.content) {
            for listener in listeners {
                let name = format!("listen.{}", listener.key.value);
                fixed.note(format!("{name}.address"), child(&listener.value, "address"));
                fixed.0.insert(name, (String::new(), listener.key.place));
            }
        }
        // Where API keys can be made is decided once; the pepper may change.
        if let Some(keys) = child(root, "api_keys") {
            fixed.0.insert("api_keys".to_owned(), (String::new(), keys.place));
        }
        fixed
    }

    fn note(&mut self, path: String, node: Option<&Node>) {
        if let Some(node) = node {
            let mut text = String::new();
            write(&node.content, &mut text);
            self.0.insert(path, (text, node.place));
        }
    }

    /// Says what is another in a newer file.
    pub(crate) fn check(&self, newer: &Self, faults: &mut Faults) {
        let old = |path: &String| self.0.get(path).map(|(text, _)| text);
        let changed = newer.0.iter().filter(|(path, (text, _))| old(path) != Some(text));
        let changed = changed.map(|(path, (_, place))| (path, Some(*place)));
        let gone = self.0.keys().filter(|path| !newer.0.contains_key(*path)).map(|path| (path, None));
        for (path, place) in changed.chain(gone) {
            let message = format!("`{path}` cannot change while the gateway runs");
            let fault = match place {
                Some(place) => Diagnostic::error("needs_restart", place, message),
                None => Diagnostic::nowhere("needs_restart", message),
            };
            faults.push(
                fault.note("what is in force stays in force; start the gateway again with the new files"),
            );
        }
    }
}

fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Content::Map(entries) = &node.content else { return None };
    entries.iter().find(|entry| entry.key.value == key).map(|entry| &entry.value)
}

/// The content without places, so that a line that has moved is no change.
fn write(content: &Content, text: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = match content {
        Content::Null => write!(text, "null"),
        Content::Bool(value) => write!(text, "{value}"),
        Content::Integer(value) => write!(text, "{value}"),
        Content::Number(value) => write!(text, "{value}"),
        Content::Text(value) => write!(text, "{value:?}"),
        Content::List(nodes) => {
            text.push('[');
            for node in nodes {
                write(&node.content, text);
                text.push(',');
            }
            text.push(']');
            Ok(())
        }
        Content::Map(entries) => {
            let entries: BTreeMap<_, _> =
                entries.iter().map(|entry| (&entry.key.value, &entry.value.content)).collect();
            text.push('{');
            for (key, content) in entries {
                let _ = write!(text, "{key:?}:");
                write(content, text);
                text.push(',');
            }
            text.push('}');
            Ok(())
        }
    };
}
