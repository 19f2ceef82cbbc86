//! Parts of a policy file that stand for JSON.

use std::sync::Arc;

use portcullis_core::document::{Content, Node};
use portcullis_core::json::Value;

/// The JSON value a part of a policy file looks like.
pub(crate) fn value(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Bool(value) => Value::Bool(*value),
        Content::Integer(value) => Value::Integer(*value),
        Content::Number(value) => Value::Number(*value),
        Content::Text(text) => Value::Text(text.as_str().into()),
        Content::List(items) => Value::List(items.iter().map(value).collect()),
        Content::Map(entries) => Value::Object(Arc::new(
            entries.iter().map(|entry| (entry.key.value.as_str().into(), value(&entry.value))).collect(),
        )),
    }
}

/// The same as JSON text.
pub(crate) fn text(node: &Node) -> String {
    fn plain(node: &Node) -> serde_json::Value {
        match &node.content {
            Content::Null => serde_json::Value::Null,
            Content::Bool(value) => (*value).into(),
            Content::Integer(value) => (*value).into(),
            Content::Number(value) => (*value).into(),
            Content::Text(text) => text.as_str().into(),
            Content::List(items) => items.iter().map(plain).collect(),
            Content::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|entry| (entry.key.value.clone(), plain(&entry.value))).collect(),
            ),
        }
    }
    plain(node).to_string()
}
