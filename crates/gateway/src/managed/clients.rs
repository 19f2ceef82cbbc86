//! Clients that are registered while the gateway runs.
//!
//! Each is kept as it would be written under its name in `clients/*.yaml`, and is read and compiled together with those, so
//! it can have everything they can: credentials of every kind, plans, attributes, an end. Requests see none of this.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_store::{Follower, Heard, RecordChanges, Records, StoreError};
use tokio::sync::Notify;

use super::CLIENTS;
use super::kept::Kept;

/// What is kept of each, by their names: JSON.
pub(crate) type ClientRows = BTreeMap<String, Vec<u8>>;

/// The clients that were registered while gateways ran.
pub(crate) struct ManagedClients {
    held: Mutex<Held>,
    /// Told when another gateway has changed some.
    changed: Arc<Notify>,
}

struct Held {
    kept: Kept,
    rows: ClientRows,
}

impl ManagedClients {
    pub(crate) fn restore(records: Records) -> Result<Self, StoreError> {
        let kept = Kept::new(records);
        let rows = kept.all()?.into_iter().collect();
        Ok(Self { held: Mutex::new(Held { kept, rows }), changed: Arc::default() })
    }

    /// All of them.
    pub(crate) fn rows(&self) -> ClientRows {
        self.held().rows.clone()
    }

    /// Told when another gateway has changed some, so that they are compiled again.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Keeps what gives somebody something, before it is in force.
    ///
    /// # Errors
    /// It cannot be kept; then nothing has changed.
    pub(crate) fn give(&self, changes: RecordChanges) -> Result<(), StoreError> {
        let mut held = self.held();
        let before = changes.keys().map(|name| (name.clone(), held.rows.get(name).cloned())).collect();
        held.kept.attempt(changes.clone(), before)?;
        apply(&mut held.rows, changes);
        Ok(())
    }

    /// Keeps what takes something from somebody, and is in force already.
    ///
    /// # Errors
    /// It is not known to be kept. It is written later.
    pub(crate) fn take(&self, changes: RecordChanges) -> Result<(), StoreError> {
        let mut held = self.held();
        apply(&mut held.rows, changes.clone());
        held.kept.insist(changes)
    }

    /// Writes what is owed to the disk.
    pub(super) fn tidy(&self) {
        if let Err(error) = self.held().kept.settle() {
            tracing::warn!(%error, "what was changed of clients is not yet on disk");
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.held().kept.is_shared()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(rows: &mut ClientRows, changes: RecordChanges) {
    for (name, text) in changes {
        match text {
            Some(text) => drop(rows.insert(name, text)),
            None => drop(rows.remove(&name)),
        }
    }
}

impl Follower for ManagedClients {
    fn subject(&self) -> &str {
        CLIENTS
    }

    fn held(&self) -> BTreeMap<String, Vec<u8>> {
        self.rows()
    }

    fn hear(&self, heard: Heard) {
        let mut held = self.held();
        let mut changes = heard.changes();
        // What is in force here and not at the server yet is the later word.
        changes.retain(|name, _| !held.kept.owes(name));
        apply(&mut held.rows, changes.clone());
        tracing::info!(count = changes.len(), "another gateway has registered clients, or changed some");
        held.kept.copy(changes);
        self.changed.notify_one();
    }
}
