//! Clients that are registered, changed and removed while requests are served.
//!
//! Whatever is asked for is compiled with everything else first, exactly as the policy files are. What gives somebody
//! something is kept before it is in force, what takes something away is in force before it is kept.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Instant;

use portcullis_core::Diagnostic;
use portcullis_store::{RecordChanges, StoreError};
use serde_json::{Map, Value, json};

use crate::managed::ClientRows;
use crate::reload::{NotReloaded, Prepared};
use crate::run::Gateway;

/// The longest record, in bytes.
const LONGEST: usize = 16 << 10;
/// Most clients that can be registered, so that a script that has run wild does not fill the disk.
const MOST: usize = 200_000;

/// Why a client was not registered, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody has that name.
    #[error("no client has this name")]
    Unknown,
    /// It is in the policy files.
    #[error("client `{0}` is declared in the policy files, and is changed there")]
    Declared(String),
    /// It is there already.
    #[error("client `{0}` is registered already")]
    Exists(String),
    /// What is said of it makes no sense.
    #[error("{0}")]
    Unfit(String),
    /// What is said of it does not fit the policies.
    #[error("the client does not fit the policies; nothing has changed")]
    DoesNotFit(Box<NotReloaded>),
    /// There are too many.
    #[error("there are {MOST} registered clients already")]
    Full,
    /// A restart would forget it.
    #[error("nothing is kept: add `store: {{ path: data/portcullis.redb }}` to gateway.yaml")]
    NotKept,
    /// Another gateway was faster; nothing has changed here.
    #[error("another gateway has changed the client a moment ago; look at it again")]
    ChangedElsewhere,
    /// The store could not keep it, so it is not in force.
    #[error("nothing has changed: {0}")]
    Store(StoreError),
    /// The store could not keep what is in force.
    #[error(
        "this is in force on this gateway, and a restart would forget it: {0}; it is written when the store can be"
    )]
    InForceNotKept(StoreError),
}

impl From<StoreError> for ClientError {
    fn from(why: StoreError) -> Self {
        match why {
            StoreError::Conflict => Self::ChangedElsewhere,
            why => Self::Store(why),
        }
    }
}

/// A client as it is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientView {
    /// Its name.
    pub name: String,
    /// Whether it is in the policy files, and not registered over the admin API.
    pub is_declared: bool,
    /// What was registered; of credentials, only their kinds. `None` of a declared one, whose file says it.
    pub record: Option<Value>,
}

impl Gateway {
    /// Every client, by name.
    pub fn clients(&self) -> Vec<ClientView> {
        let rows = self.managed.clients.rows();
        let in_force = self.in_force.load();
        let names: BTreeSet<&str> = rows
            .keys()
            .map(String::as_str)
            .chain(in_force.particulars.clients.keys().map(|name| &**name))
            .collect();
        let view = |name: &str| {
            let declared = self.is_declared(name);
            let record = rows.get(name).filter(|_| !declared).map(|text| shown(text));
            ClientView { name: name.to_owned(), is_declared: declared, record }
        };
        names.into_iter().map(view).collect()
    }

    /// One client.
    ///
    /// # Errors
    /// Nobody has that name.
    pub fn client(&self, name: &str) -> Result<ClientView, ClientError> {
        let is_declared = self.is_declared(name);
        match self.managed.clients.rows().get(name).filter(|_| !is_declared) {
            Some(text) => Ok(ClientView { name: name.to_owned(), is_declared, record: Some(shown(text)) }),
            None if is_declared => Ok(ClientView { name: name.to_owned(), is_declared, record: None }),
            None => Err(ClientError::Unknown),
        }
    }

    /// Registers clients, all or none: the name of each, and what would stand under it in a file of clients. When this
    /// returns, they are in force on every worker, and kept. Waits for the disk, and for the policies to be compiled.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing has changed then.
    pub fn register(&self, clients: Vec<(String, Map<String, Value>)>) -> Result<(), ClientError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_durable {
            return Err(ClientError::NotKept);
        }
        let mut rows = self.managed.clients.rows();
        if rows.len().saturating_add(clients.len()) > MOST {
            return Err(ClientError::Full);
        }
        let mut changes = RecordChanges::new();
        for (name, record) in clients {
            if self.is_declared(&name) {
                return Err(ClientError::Declared(name));
            }
            let text = written(&name, record)?;
            if rows.insert(name.clone(), text.clone()).is_some() {
                return Err(ClientError::Exists(name));
            }
            changes.insert(name, Some(text));
        }
        self.give(&rows, changes)
    }

    /// Changes a client: a member that is `null` goes, one with a value is put in the place of what it was (RFC 7396, for
    /// the record's own members).
    ///
    /// # Errors
    /// See [`ClientError`]; nothing has changed then.
    pub fn change_client(&self, name: &str, change: Map<String, Value>) -> Result<bool, ClientError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = self.registered(name)?;
        let before = rows.get(name).cloned().unwrap_or_default();
        let mut record = read(&before);
        for (member, value) in change {
            match value {
                Value::Null => drop(record.remove(&member)),
                value => drop(record.insert(member, value)),
            }
        }
        let text = written(name, record)?;
        if text == before {
            return Ok(false);
        }
        rows.insert(name.to_owned(), text.clone());
        self.give(&rows, RecordChanges::from([(name.to_owned(), Some(text))])).map(|()| true)
    }

    /// Removes a client and its API keys. What it has opened is shut for the next request.
    ///
    /// # Errors
    /// With [`ClientError::InForceNotKept`] it is removed, and not known to be off the disk; with every other error nothing
    /// has changed.
    pub fn remove_client(&self, name: &str) -> Result<(), ClientError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shadowed = self.is_declared(name) && self.managed.clients.rows().contains_key(name);
        if is_shadowed {
            // The one of the files counts, and its keys with it.
            let gone = RecordChanges::from([(name.to_owned(), None)]);
            return self.managed.clients.take(gone).map_err(ClientError::InForceNotKept);
        }
        let mut rows = self.registered(name)?;
        rows.remove(name);
        let prepared = self.prepare(&rows).map_err(ClientError::DoesNotFit)?;
        self.put_in_force(prepared).map_err(ClientError::DoesNotFit)?;
        let kept = self.managed.clients.take(RecordChanges::from([(name.to_owned(), None)]));
        let keys = self.managed.api_keys.as_ref().map_or(Ok(()), |keys| keys.remove_all_of(name));
        kept.and(keys).map_err(ClientError::InForceNotKept)
    }

    fn give(&self, rows: &ClientRows, changes: RecordChanges) -> Result<(), ClientError> {
        let prepared = self.prepare(rows).map_err(ClientError::DoesNotFit)?;
        let before = self.managed.clients.rows();
        let undone = changes.keys().map(|name| (name.clone(), before.get(name).cloned())).collect();
        self.managed.clients.give(changes)?;
        self.put_in_force(prepared).map_err(|why| {
            // What is not in force is not kept; where that fails now, it is owed.
            drop(self.managed.clients.take(undone));
            ClientError::DoesNotFit(why)
        })
    }

    fn put_in_force(&self, prepared: Option<Prepared>) -> Result<(), Box<NotReloaded>> {
        match prepared {
            Some(prepared) => self.publish(prepared, Instant::now()).map(drop),
            None => Ok(()),
        }
    }

    /// The registered clients, this one among them.
    fn registered(&self, name: &str) -> Result<ClientRows, ClientError> {
        if self.is_declared(name) {
            return Err(ClientError::Declared(name.to_owned()));
        }
        let rows = self.managed.clients.rows();
        if rows.contains_key(name) { Ok(rows) } else { Err(ClientError::Unknown) }
    }

    /// Whether the policy files declare a client of that name.
    fn is_declared(&self, name: &str) -> bool {
        let in_force = self.in_force.load();
        in_force.particulars.clients.contains_key(name) && !in_force.particulars.stored.contains(name)
    }
}

/// The record as it is kept: JSON, which is YAML, too.
fn written(name: &str, record: Map<String, Value>) -> Result<Vec<u8>, ClientError> {
    let text = Value::Object(record).to_string().into_bytes();
    if text.len() > LONGEST {
        return Err(ClientError::Unfit(format!("what is said of `{name}` is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

fn read(text: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(record)) => record,
        // Nothing else is ever written.
        _ => Map::new(),
    }
}

/// A record without what its credentials are. SECURITY: of some, what is stored can be guessed at.
fn shown(text: &[u8]) -> Value {
    let mut record = read(text);
    if let Some(Value::Array(credentials)) = record.get_mut("credentials") {
        for credential in credentials {
            let kinds = credential.as_object().map(|members| members.keys().cloned().collect::<Vec<_>>());
            *credential = json!({ "kind": kinds.unwrap_or_default().join(", ") });
        }
    }
    Value::Object(record)
}

/// What does not fit, for people: the first of it.
impl std::fmt::Display for NotReloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.faults.iter().find(|fault| fault.severity == portcullis_core::Severity::Error);
        let message = first.map_or("nothing", |fault: &Diagnostic| &fault.message);
        f.write_str(message)
    }
}
