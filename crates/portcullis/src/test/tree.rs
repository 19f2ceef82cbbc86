//! Finding and changing what stands in the tree of a policy file.

use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{Place, Spanned};

/// The value of a key of a mapping.
pub(crate) fn at<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    entries(node).iter().find(|entry| entry.key.value == key).map(|entry| &entry.value)
}

/// The same, to be changed.
pub(crate) fn at_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    let Content::Map(entries) = &mut node.content else { return None };
    entries.iter_mut().find(|entry| entry.key.value == key).map(|entry| &mut entry.value)
}

/// The value at a path of keys.
pub(crate) fn along<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, key| at(node, key))
}

/// The entries of a mapping; none of anything else.
pub(crate) fn entries(node: &Node) -> &[Entry] {
    match &node.content {
        Content::Map(entries) => entries,
        _ => &[],
    }
}

/// The entries of a mapping, to be changed.
pub(crate) fn entries_mut(node: &mut Node) -> &mut [Entry] {
    match &mut node.content {
        Content::Map(entries) => entries,
        _ => &mut [],
    }
}

/// The members of a list; of anything else, it alone.
pub(crate) fn members(node: &Node) -> &[Node] {
    match &node.content {
        Content::List(members) => members,
        _ => std::slice::from_ref(node),
    }
}

/// The text, if it is one.
pub(crate) fn text(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Text(text) => Some(text),
        _ => None,
    }
}

/// The text at a key.
pub(crate) fn text_at<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    at(node, key).and_then(text)
}

/// The first value of that key, wherever it stands below.
pub(crate) fn anywhere<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.content {
        Content::Map(entries) => {
            at(node, key).or_else(|| entries.iter().find_map(|entry| anywhere(&entry.value, key)))
        }
        Content::List(members) => members.iter().find_map(|member| anywhere(member, key)),
        _ => None,
    }
}

/// Shows every mapping below, outermost first.
pub(crate) fn each_map(node: &mut Node, change: &mut impl FnMut(&mut Node)) {
    if matches!(node.content, Content::Map(_)) {
        change(node);
    }
    match &mut node.content {
        Content::Map(entries) => entries.iter_mut().for_each(|entry| each_map(&mut entry.value, change)),
        Content::List(members) => members.iter_mut().for_each(|member| each_map(member, change)),
        _ => {}
    }
}

/// Takes a key out of a mapping.
pub(crate) fn remove(node: &mut Node, key: &str) {
    if let Content::Map(entries) = &mut node.content {
        entries.retain(|entry| entry.key.value != key);
    }
}

/// Writes text in the place of a value.
pub(crate) fn write(node: &mut Node, text: impl Into<String>) {
    node.content = Content::Text(text.into());
}

/// Writes `{ file: PATH }` in the place of a value.
pub(crate) fn write_file(node: &mut Node, path: &str) {
    node.content = Content::Map(vec![entry("file", path, node.place)]);
}

/// Writes a list with this one text in the place of a value.
pub(crate) fn write_list(node: &mut Node, only: &str) {
    node.content = Content::List(vec![Node { place: node.place, content: Content::Text(only.to_owned()) }]);
}

fn entry(key: &str, value: &str, place: Place) -> Entry {
    let value = Node { place, content: Content::Text(value.to_owned()) };
    Entry { key: Spanned::new(key.to_owned(), place), value }
}
