//! `clients:` as written in `clients/*.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::json::Object;
use portcullis_core::{Client, Diagnostic, Faults, Materials, Place, PlanSet, Secret, Spanned};

use super::credential::CredentialSpec;
use super::{Clients, Indexes};
use crate::certificate::KnownAuthorities;
use crate::identity::is_name;
use crate::json;
use crate::keys::KeySources;

/// Finds plans by their names; a name that no plan has is a fault.
pub type FindPlans<'a> = dyn Fn(&[Spanned<String>], &mut Faults) -> Option<PlanSet> + 'a;

/// What clients are compiled against.
#[derive(Clone, Copy)]
pub struct Registering<'a> {
    /// The secret of `api_keys:`; without it a client may have no API key.
    pub pepper: Option<&'a Secret>,
    /// What credentials point at: keys, secrets.
    pub materials: &'a dyn Materials,
    /// Finds plans by their names.
    pub plans: &'a FindPlans<'a>,
    /// The names of all APIs, and where they are defined.
    pub apis: &'a [(String, Place)],
    /// Where keys that clients publish are fetched.
    pub key_sources: &'a KeySources,
    /// Which certificates the listeners may show.
    pub authorities: KnownAuthorities<'a>,
}

/// The clients of all files.
#[derive(Debug, Default)]
pub struct ClientsSpec {
    clients: Vec<ClientSpec>,
    places: BTreeMap<String, Place>,
    stored: BTreeSet<String>,
}

#[derive(Debug)]
struct ClientSpec {
    name: Spanned<String>,
    plans: Vec<Spanned<String>>,
    attributes: Object,
    expires_at: Option<i64>,
    credentials: Vec<Spanned<CredentialSpec>>,
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

    /// Reads a client that was registered while a gateway ran. One of the files has the name, if there is one: whoever
    /// writes files sees what is there.
    pub fn read_stored(&mut self, name: &str, node: &Node, faults: &mut Faults) {
        if let Some(first) = self.places.get(name) {
            let message = format!(
                "client `{name}` is declared in the policy files and registered in the store; the files count"
            );
            faults.push(Diagnostic::warning("registered_too", *first, message));
            return;
        }
        if !is_name(name) {
            faults.error("bad_name", node.place, "a client's name is 1 to 255 printable characters");
            return;
        }
        self.places.insert(name.to_owned(), node.place);
        self.stored.insert(name.to_owned());
        let name = Spanned { value: name.to_owned(), place: node.place };
        self.clients.extend(ClientSpec::read(&name, node, faults));
    }

    /// The names of those that were registered while a gateway ran, and that no file declares.
    pub const fn stored(&self) -> &BTreeSet<String> {
        &self.stored
    }

    /// Freezes them.
    pub fn compile(self, registering: &Registering<'_>, faults: &mut Faults) -> Clients {
        let mut indexes = Indexes::building(registering);
        let mut by_name = BTreeMap::new();
        for spec in self.clients {
            let name: Arc<str> = spec.name.value.into();
            let client = Arc::new(Client {
                name: name.clone(),
                attributes: Arc::new(spec.attributes),
                // A plan that is not known stops the load.
                plans: (registering.plans)(&spec.plans, faults).unwrap_or_default(),
                expires_at: spec.expires_at,
            });
            for credential in spec.credentials {
                indexes.add(credential, &client, registering, faults);
            }
            by_name.insert(name, client);
        }
        Clients { by_name: Arc::new(by_name), indexes: indexes.freeze() }
    }
}

impl ClientSpec {
    fn read(name: &Spanned<String>, node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a client", faults)?;
        let (plans, attributes) = (fields.get("plans"), fields.get("attributes"));
        let (expires, credentials) = (fields.get("expires"), fields.get("credentials"));
        let disabled = fields.get("disabled");
        fields.finish(faults);
        let plans = plans.map(|node| node.texts(faults));
        let attributes = attributes.map(|node| read_attributes(node, faults));
        let expires_at = expires.map(|node| read_moment(node, faults));
        let credentials = credentials.map(|node| read_credentials(node, faults));
        let disabled = disabled.map_or(Some(false), |node| node.boolean(faults));
        Some(Self {
            name: name.clone(),
            plans: plans.unwrap_or_else(|| Some(Vec::new()))?,
            attributes: attributes.unwrap_or_else(|| Some(Object::default()))?,
            // One that is disabled has ended before anything began.
            expires_at: match (disabled?, expires_at) {
                (true, _) => Some(0),
                (false, None) => None,
                (false, Some(read)) => Some(read?),
            },
            credentials: credentials.unwrap_or_else(|| Some(Vec::new()))?,
        })
    }
}

fn read_attributes(node: &Node, faults: &mut Faults) -> Option<Object> {
    let entries = node.named(faults)?;
    Some(entries.iter().map(|entry| (entry.key.value.as_str().into(), json::value(&entry.value))).collect())
}

/// A day, which stands for its first second in UTC, or a moment with its offset.
pub(crate) fn read_moment(node: &Node, faults: &mut Faults) -> Option<i64> {
    let text = node.text(faults)?;
    let found = moment(&text.value);
    if found.is_none() {
        faults.push(
            Diagnostic::error("bad_date", text.place, format!("`{}` is not a day or a moment", text.value))
                .note("write `2027-06-30` (its first second, in UTC) or `2027-06-30T12:00:00Z`"),
        );
    }
    found
}

/// The second since 1970 that such a text stands for.
pub fn moment(text: &str) -> Option<i64> {
    if text.contains(['T', 't', ' ']) {
        return text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|start| start.timestamp().as_second())
}

fn read_credentials(node: &Node, faults: &mut Faults) -> Option<Vec<Spanned<CredentialSpec>>> {
    let items = node.list(faults)?;
    let read: Vec<_> = items.iter().filter_map(|item| CredentialSpec::read(item, faults)).collect();
    (read.len() == items.len()).then_some(read)
}
