//! `clients:` as written in `clients/*.yaml`.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::json::Object;
use portcullis_core::{Client, Diagnostic, Faults, Place, Secret, Spanned};

use super::{Clients, key_owner};
use crate::api_key::{ApiKeys, KeyHash};
use crate::identity::is_name;
use crate::json;

/// The clients of all files.
#[derive(Debug, Default)]
pub struct ClientsSpec {
    clients: Vec<ClientSpec>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct ClientSpec {
    name: Spanned<String>,
    attributes: Object,
    expires_at: Option<i64>,
    api_keys: Vec<Spanned<KeyHash>>,
}

impl ClientsSpec {
    /// Reads the `clients:` mapping of one file, next to those already read.
    pub fn read(&mut self, node: &Node, faults: &mut Faults) {
        for entry in node.named(faults).unwrap_or_default() {
            let name = &entry.key;
            if !is_name(&name.value) {
                faults.error("bad_name", name.place, "a client's name is 1 to 255 printable characters");
                continue;
            }
            if let Some(first) = self.places.insert(name.value.clone(), name.place) {
                faults.push(
                    Diagnostic::error(
                        "defined_twice",
                        name.place,
                        format!("client `{}` is defined twice", name.value),
                    )
                    .related(first, "it is already defined here"),
                );
                continue;
            }
            self.clients.extend(ClientSpec::read(name, &entry.value, faults));
        }
    }

    /// Freezes them. `pepper` is the secret of `api_keys:`; without it a client may have no API key.
    pub fn compile(self, pepper: Option<&Secret>, faults: &mut Faults) -> Clients {
        let mut keys = pepper.map(ApiKeys::new);
        let mut by_name = BTreeMap::new();
        let mut owners: BTreeMap<Arc<str>, Place> = BTreeMap::new();
        for spec in self.clients {
            let name: Arc<str> = spec.name.value.into();
            let client = Arc::new(Client {
                name: name.clone(),
                attributes: Arc::new(spec.attributes),
                expires_at: spec.expires_at,
            });
            let owner = (!spec.api_keys.is_empty()).then(|| key_owner(&client));
            for (key, owner) in spec.api_keys.iter().zip(owner.iter().cycle()) {
                let Some(keys) = &mut keys else {
                    faults.push(
                        Diagnostic::error(
                            "missing_pepper",
                            key.place,
                            "an API key is declared, but no pepper to look it up with",
                        )
                        .note("add `api_keys: { pepper: { file: secrets/pepper } }` to gateway.yaml"),
                    );
                    continue;
                };
                if let Some(taken) = keys.add(key.value, owner.clone()) {
                    let mut fault =
                        Diagnostic::error("key_twice", key.place, "this API key is declared more than once");
                    if let Some(place) = owners.get(&taken.identity.subject) {
                        fault = fault
                            .related(*place, format!("client `{}` already has it", taken.identity.subject));
                    }
                    faults.push(fault);
                }
            }
            owners.insert(name.clone(), spec.name.place);
            by_name.insert(name, client);
        }
        Clients { by_name, keys: keys.map(Arc::new) }
    }
}

impl ClientSpec {
    fn read(name: &Spanned<String>, node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a client", faults)?;
        let (attributes, expires, credentials) =
            (fields.get("attributes"), fields.get("expires"), fields.get("credentials"));
        fields.finish(faults);
        let attributes = attributes.map(|node| read_attributes(node, faults));
        let expires_at = expires.map(|node| read_expiry(node, faults));
        let api_keys = credentials.map(|node| read_credentials(node, faults));
        Some(Self {
            name: name.clone(),
            attributes: attributes.unwrap_or_else(|| Some(Object::default()))?,
            expires_at: match expires_at {
                None => None,
                Some(read) => Some(read?),
            },
            api_keys: api_keys.unwrap_or_else(|| Some(Vec::new()))?,
        })
    }
}

fn read_attributes(node: &Node, faults: &mut Faults) -> Option<Object> {
    let entries = node.named(faults)?;
    Some(entries.iter().map(|entry| (entry.key.value.as_str().into(), json::value(&entry.value))).collect())
}

/// A day, from whose first second in UTC the client no longer counts, or a moment with its offset.
fn read_expiry(node: &Node, faults: &mut Faults) -> Option<i64> {
    let text = node.text(faults)?;
    let day = |text: &str| -> Option<i64> {
        let date: jiff::civil::Date = text.parse().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|start| start.timestamp().as_second())
    };
    let found = if text.value.contains(['T', 't', ' ']) {
        text.value.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
    } else {
        day(&text.value)
    };
    if found.is_none() {
        faults.push(
            Diagnostic::error("bad_date", text.place, format!("`{}` is not a day or a moment", text.value))
                .note("write `2027-06-30` (from that day on it no longer counts, in UTC) or `2027-06-30T12:00:00Z`"),
        );
    }
    found
}

fn read_credentials(node: &Node, faults: &mut Faults) -> Option<Vec<Spanned<KeyHash>>> {
    let items = node.list(faults)?;
    let read: Vec<_> = items.iter().filter_map(|item| read_credential(item, faults)).collect();
    (read.len() == items.len()).then_some(read)
}

fn read_credential(node: &Node, faults: &mut Faults) -> Option<Spanned<KeyHash>> {
    let mut kinds = Fields::of(node, "a credential", faults)?;
    let api_key = kinds.require("api_key", faults);
    kinds.finish(faults);
    let mut fields = Fields::of(api_key?, "`api_key`", faults)?;
    let hash = fields.require("hash", faults);
    fields.finish(faults);
    let text = hash?.text(faults)?;
    match text.value.parse() {
        Ok(hash) => Some(Spanned::new(hash, text.place)),
        Err(error) => {
            faults.push(
                Diagnostic::error("bad_key_hash", text.place, format!("this is {error}"))
                    .note("make one with `portcullis key create`"),
            );
            None
        }
    }
}
