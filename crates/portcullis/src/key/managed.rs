//! Keys of the running gateway, over its admin API.

use std::fmt::Write as _;
use std::process::ExitCode;

use http::Method;
use serde_json::{Map, Value, json};

use super::{Create, OfClient, OneKey, Rotate};
use crate::admin_client::{AdminClient, OfGateway};
use crate::output;

/// The columns of a list: the member of an answer, and its heading.
const COLUMNS: [(&str, &str); 6] = [
    ("id", "ID"),
    ("name", "NAME"),
    ("created", "CREATED"),
    ("expires", "EXPIRES"),
    ("last_used", "LAST USED"),
    ("state", "STATE"),
];

pub(super) fn create(create: &Create) -> anyhow::Result<ExitCode> {
    let terms: Map<String, Value> =
        create.terms.entries().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let path = keys_of(&create.client);
    let made = call(&create.gateway, Method::POST, &path, Some(&Value::Object(terms)))?;
    output::answer(create.gateway.format, &made, &new_key(&made))
}

pub(super) fn list(of: &OfClient) -> anyhow::Result<ExitCode> {
    let answer = call(&of.gateway, Method::GET, &keys_of(&of.client), None)?;
    let keys = answer.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    output::answer(of.gateway.format, &answer, &table(keys))
}

pub(super) fn show(key: &OneKey) -> anyhow::Result<ExitCode> {
    let answer = call(&key.of.gateway, Method::GET, &path_of(key)?, None)?;
    output::answer(key.of.gateway.format, &answer, &members(&answer))
}

pub(super) fn rotate(rotate: &Rotate) -> anyhow::Result<ExitCode> {
    let (key, mut body) = (&rotate.key, json!({ "overlap": rotate.overlap }));
    if let (Some(expires), Some(body)) = (&rotate.expires, body.as_object_mut()) {
        body.insert("expires".to_owned(), expires.as_str().into());
    }
    let path = format!("{}/rotate", path_of(key)?);
    let made = call(&key.of.gateway, Method::POST, &path, Some(&body))?;
    let text = format!("{}The old one counts for {} longer at most.\n", new_key(&made), rotate.overlap);
    output::answer(key.of.gateway.format, &made, &text)
}

pub(super) fn revoke(key: &OneKey) -> anyhow::Result<ExitCode> {
    call(&key.of.gateway, Method::DELETE, &path_of(key)?, None)?;
    let done = json!({ "id": key.id, "revoked": true });
    output::answer(key.of.gateway.format, &done, &format!("{} counts no more\n", key.id))
}

fn call(gateway: &OfGateway, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    AdminClient::of(gateway)?.call(method, path, body)
}

/// A client's name here is letters, digits, `-`, `_` and `.`.
fn keys_of(client: &str) -> String {
    format!("/v1/clients/{client}/keys")
}

/// SECURITY: a key that is put where its id belongs goes no further, and is not repeated.
fn path_of(key: &OneKey) -> anyhow::Result<String> {
    if key.id.len() != 16 || !key.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        anyhow::bail!("the id of a key is 16 hexadecimal digits; `portcullis key list` shows it");
    }
    Ok(format!("{}/{}", keys_of(&key.of.client), key.id))
}

fn new_key(made: &Value) -> String {
    let (key, id) = (text(made, "key"), text(made, "id"));
    let from = match made.get("not_before").and_then(Value::as_str) {
        Some(from) => format!("counts from {from} on"),
        None => "counts from now on".to_owned(),
    };
    format!(
        "{key}\n\nThis is the key, its id is {id}. It {from}, is shown once, and is kept only as a hash.\n"
    )
}

fn text(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn state(key: &Value) -> String {
    let state = text(key, "state").replace('_', " ");
    if state == "in force" && key.get("replaced_by").is_some() { "replaced".to_owned() } else { state }
}

fn table(keys: &[Value]) -> String {
    let cell = |key: &Value, member: &str| match member {
        "state" => state(key),
        member => text(key, member),
    };
    let mut rows = vec![COLUMNS.map(|(_, heading)| heading.to_owned())];
    rows.extend(keys.iter().map(|key| COLUMNS.map(|(member, _)| cell(key, member))));
    output::table(&rows)
}

fn members(key: &Value) -> String {
    let members = key.as_object().into_iter().flatten();
    members.fold(String::new(), |mut lines, (name, _)| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(lines, "{name:<12} {}", text(key, name));
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::{members, table};
    use serde_json::json;

    #[test]
    fn a_list_is_a_table_and_a_key_is_lines() {
        let key = json!({
            "id": "0011223344556677", "name": "mobile-2027", "created": "2026-11-26T12:00:00Z", "disabled": false,
            "state": "in_force", "apis": ["orders"],
        });
        let mut old = key.clone();
        old["replaced_by"] = "8899aabbccddeeff".into();
        old["name"] = "m".into();
        assert_eq!(
            table(&[key.clone(), old]),
            "\
ID                NAME         CREATED               EXPIRES  LAST USED  STATE
0011223344556677  mobile-2027  2026-11-26T12:00:00Z  -        -          in force
0011223344556677  m            2026-11-26T12:00:00Z  -        -          replaced
"
        );
        assert!(members(&key).contains("apis         [\"orders\"]\n"), "{}", members(&key));
    }
}
