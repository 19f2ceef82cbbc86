//! API keys that other gateways have made, changed and revoked.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use portcullis_store::{Follower, Heard};

use super::API_KEYS;
use super::api_key_record::Record;
use super::api_keys::{BETWEEN, Held, ManagedApiKeys, pairs, row};

impl Follower for ManagedApiKeys {
    fn subject(&self) -> &str {
        API_KEYS
    }

    fn held(&self) -> BTreeMap<String, Vec<u8>> {
        let held = self.held();
        let rows = pairs(&held).map(|(client, id, record)| row(client, id, Some(record)));
        rows.filter_map(|(key, text)| Some((key, text?))).collect()
    }

    fn hear(&self, heard: Heard) {
        let mut held = self.held();
        let mut changes = heard.changes();
        // What is in force here and not at the server yet is the later word.
        changes.retain(|key, _| !held.kept.owes(key));
        for (key, text) in &changes {
            let (client, id) = key.split_once(BETWEEN).unwrap_or((key, ""));
            let Some(text) = text else {
                self.forget(&mut held, client, id);
                continue;
            };
            match serde_json::from_slice::<Record>(text) {
                Ok(record) => self.take_over(&mut held, client, id, record),
                Err(error) => {
                    // SECURITY: what it is now is not known here, so it counts no more.
                    self.forget(&mut held, client, id);
                    tracing::error!(%client, key = %id, %error, "a key that another gateway has changed cannot be read");
                }
            }
        }
        tracing::info!(count = changes.len(), "another gateway has changed API keys");
        held.kept.copy(changes);
    }
}

impl ManagedApiKeys {
    /// Puts a key in force that another gateway has made or changed.
    fn take_over(&self, held: &mut Held, client: &str, id: &str, record: Record) {
        if held.find(client, id).is_ok_and(|known| known.hash() == record.hash()) {
            return self.put(held, client, id, record);
        }
        self.forget(held, client, id);
        let issued =
            record.key().map(|key| self.ring().keys.issue(client, key).map_err(|why| why.to_string()));
        if let Err(why) = issued.and_then(|issued| issued) {
            tracing::warn!(%client, key = %id, %why, "a key that another gateway has made does not count here");
        }
        held.clients.entry(client.to_owned()).or_default().insert(id.to_owned(), record);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}
