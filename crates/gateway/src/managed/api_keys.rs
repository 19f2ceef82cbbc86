//! API keys that are made, rotated and revoked while the gateway runs.
//!
//! A change is in force on every worker, and on disk, when it is answered. Requests see none of this: they look keys up
//! in the table of [`IssuedKeys`], without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_authn::{CannotIssue, IssuedKeys, NoRandomness, generate_key, random_id};
use portcullis_core::Moment;
use portcullis_store::{Records, StoreError};

use super::api_key_record::{ApiKeyChange, ApiKeyView, NewApiKey, Record, check_value};

/// Most keys one client may have, so that a script that has run wild does not fill the disk.
const MOST: usize = 1_000;
/// Longest time for which a key and its successor both count.
const LONGEST_OVERLAP: Duration = Duration::from_hours(90 * 24);
/// How often it is written down which keys are in use.
const USES_EVERY_SECONDS: i64 = 60;
/// Stands between client and id in the key of a record; no name of a client holds one.
const BETWEEN: char = '\n';

/// Why a key was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// No declared client has that name.
    #[error("no client has this name")]
    UnknownClient,
    /// The client has no such key.
    #[error("no key of this client has this id; keys of the policy files are changed there")]
    UnknownKey,
    /// An API the key is to be used at does not exist.
    #[error("there is no API `{0}`")]
    UnknownApi(String),
    /// What was said of the key makes no sense.
    #[error("{0}")]
    Unfit(String),
    /// Somebody has that value.
    #[error("this value is a key already")]
    Taken,
    /// The client has a key of that name.
    #[error("a key of this client has this name already")]
    NameTaken,
    /// The key was rotated before.
    #[error("the key was rotated already, its successor is `{0}`")]
    Replaced(String),
    /// There are too many.
    #[error("the client has {MOST} keys already")]
    Full,
    /// A restart would forget it.
    #[error("nothing is kept: add `store: {{ path: data/portcullis.redb }}` to gateway.yaml")]
    NotKept,
    /// The store could not keep it.
    #[error("the key is not kept: {0}")]
    Store(#[from] StoreError),
    /// The system gives no randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A record the store holds cannot be read.
    #[error("the record of a key of client `{client}` is damaged: {why}")]
    Damaged {
        /// Whose.
        client: String,
        /// What is wrong with it.
        why: String,
    },
}

impl From<CannotIssue> for ApiKeyError {
    fn from(why: CannotIssue) -> Self {
        match why {
            CannotIssue::UnknownClient => Self::UnknownClient,
            CannotIssue::Taken => Self::Taken,
            CannotIssue::NameTaken => Self::NameTaken,
        }
    }
}

/// What keys are made for.
pub(crate) struct KeyRing {
    /// Where they are looked up.
    pub(crate) keys: IssuedKeys,
    /// The names of all APIs.
    pub(crate) apis: Vec<String>,
    /// How long a key is kept after its end.
    pub(crate) keep_expired: Duration,
}

/// The keys of a client, by their ids.
type OfClient = BTreeMap<String, Record>;

/// All keys that were made while gateways ran.
pub struct ManagedApiKeys {
    ring: KeyRing,
    records: Records,
    durable: bool,
    /// Held while one is changed. Never locked by a request.
    held: Mutex<Held>,
    /// How many there are, for whoever must not wait for a change.
    count: AtomicUsize,
}

#[derive(Default)]
struct Held {
    clients: BTreeMap<String, OfClient>,
    uses_written: i64,
}

impl ManagedApiKeys {
    /// Puts in force what was made before. Keys of a client that is no longer declared stay in the store and count no
    /// more, until it is declared again.
    pub(super) fn restore(records: Records, durable: bool, ring: KeyRing) -> Result<Self, ApiKeyError> {
        let mut held = Held::default();
        for (key, text) in records.beginning("")? {
            let (client, id) = key.split_once(BETWEEN).unwrap_or((&key, ""));
            let damaged = |why: String| ApiKeyError::Damaged { client: client.to_owned(), why };
            let record: Record = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
            match ring.keys.issue(client, record.key().map_err(damaged)?) {
                Ok(()) => {}
                Err(why) => tracing::warn!(%client, key = %id, %why, "a key of the store does not count"),
            }
            held.clients.entry(client.to_owned()).or_default().insert(id.to_owned(), record);
        }
        let count = AtomicUsize::new(held.clients.values().map(OfClient::len).sum());
        Ok(Self { ring, records, durable, held: Mutex::new(held), count })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The keys of a client that were made here.
    ///
    /// # Errors
    /// There is no such client.
    pub fn of(&self, client: &str) -> Result<Vec<ApiKeyView>, ApiKeyError> {
        self.known(client)?;
        let held = self.held();
        let keys = held.clients.get(client).into_iter().flatten();
        Ok(keys.map(|(id, record)| self.view(id, record)).collect())
    }

    /// One key of a client.
    ///
    /// # Errors
    /// There is no such client, or no such key.
    pub fn one(&self, client: &str, id: &str) -> Result<ApiKeyView, ApiKeyError> {
        self.known(client)?;
        let held = self.held();
        Ok(self.view(id, find(&held, client, id)?))
    }

    /// Makes a key. What is handed back with it is the key itself, which is shown once and kept nowhere.
    ///
    /// # Errors
    /// See [`ApiKeyError`]; nothing has changed then.
    pub fn create(
        &self,
        client: &str,
        asked: &NewApiKey,
        now: Moment,
    ) -> Result<(ApiKeyView, String), ApiKeyError> {
        self.known(client)?;
        let value = match &asked.value {
            Some(value) => check_value(value).map(|()| value.clone()).map_err(ApiKeyError::Unfit)?,
            None => generate_key()?,
        };
        let (id, hash) = (random_id()?, self.ring.keys.hash(&value));
        let record = Record::new(&id, asked, hash, now.unix_seconds()).map_err(ApiKeyError::Unfit)?;
        if let Some(unknown) = record.apis().find(|api| !self.ring.apis.iter().any(|known| known == api)) {
            return Err(ApiKeyError::UnknownApi(unknown.to_owned()));
        }
        if record.name.contains(value.as_str()) {
            return Err(ApiKeyError::Unfit("`name` is shown in logs, so it cannot be the key".to_owned()));
        }
        let mut held = self.held();
        let view = self.add(&mut held, client, &id, record, None)?;
        Ok((view, value))
    }

    /// Makes a successor on the same terms, and lets the key itself count for the overlap and no longer.
    ///
    /// # Errors
    /// See [`ApiKeyError`]; nothing has changed then.
    pub fn rotate(
        &self,
        client: &str,
        id: &str,
        overlap: Duration,
        now: Moment,
    ) -> Result<(ApiKeyView, String), ApiKeyError> {
        self.known(client)?;
        if overlap > LONGEST_OVERLAP {
            let days = LONGEST_OVERLAP.as_secs() / 86_400;
            return Err(ApiKeyError::Unfit(format!("two keys count beside one another for {days}d at most")));
        }
        let mut held = self.held();
        let mut old = find(&held, client, id)?.clone();
        if let Some(successor) = old.replaced_by {
            return Err(ApiKeyError::Replaced(successor));
        }
        let (value, new_id) = (generate_key()?, random_id()?);
        let now = now.unix_seconds();
        let new = old.successor(&new_id, self.ring.keys.hash(&value), now);
        let end = now.saturating_add(i64::try_from(overlap.as_secs()).unwrap_or(i64::MAX));
        old.expires = Some(old.expires.map_or(end, |before| before.min(end)));
        old.replaced_by = Some(new_id.clone());
        let view = self.add(&mut held, client, &new_id, new, Some((id, old)))?;
        Ok((view, value))
    }

    /// Changes a key.
    ///
    /// # Errors
    /// See [`ApiKeyError`]; nothing has changed then.
    pub fn change(&self, client: &str, id: &str, change: &ApiKeyChange) -> Result<ApiKeyView, ApiKeyError> {
        self.known(client)?;
        let mut held = self.held();
        let mut record = find(&held, client, id)?.clone();
        record.change(change).map_err(ApiKeyError::Unfit)?;
        record.last_used = self.last_used(&record);
        self.records.put(&key(client, id), text(&record))?;
        self.put_in_force(client, &record);
        let view = self.view(id, &record);
        held.clients.entry(client.to_owned()).or_default().insert(id.to_owned(), record);
        Ok(view)
    }

    /// Takes a key out of use, for good, and out of the store.
    ///
    /// # Errors
    /// See [`ApiKeyError`]; nothing has changed then.
    pub fn revoke(&self, client: &str, id: &str) -> Result<(), ApiKeyError> {
        self.known(client)?;
        let mut held = self.held();
        find(&held, client, id)?;
        self.records.remove(&[key(client, id)])?;
        self.forget(&mut held, client, id);
        Ok(())
    }

    /// Removes keys that have been over for long enough, and writes down which are in use. To be called every few
    /// seconds, never by a worker.
    pub(crate) fn tidy(&self, now: Moment) {
        let now = now.unix_seconds();
        let mut held = self.held();
        let keep = i64::try_from(self.ring.keep_expired.as_secs()).unwrap_or(i64::MAX);
        let is_over = |record: &Record| record.expires.is_some_and(|end| end.saturating_add(keep) <= now);
        let over = pairs(&held).filter(|(_, _, record)| is_over(record));
        let over: Vec<_> = over.map(|(client, id, _)| (client.to_owned(), id.to_owned())).collect();
        if !over.is_empty() {
            let keys: Vec<String> = over.iter().map(|(client, id)| key(client, id)).collect();
            match self.records.remove(&keys) {
                Ok(()) => over.iter().for_each(|(client, id)| self.forget(&mut held, client, id)),
                // They count no more whether or not they are still on disk; the next call tries again.
                Err(error) => tracing::warn!(%error, "expired API keys could not be removed"),
            }
        }
        if now.saturating_sub(held.uses_written) >= USES_EVERY_SECONDS {
            held.uses_written = now;
            self.write_uses(&mut held);
        }
    }

    /// Writes down which keys were used last when.
    pub(crate) fn finish(&self) {
        self.write_uses(&mut self.held());
    }

    fn write_uses(&self, held: &mut Held) {
        let mut changes = Vec::new();
        for (client, keys) in &mut held.clients {
            for (id, record) in keys {
                let last = self.last_used(record);
                if last > record.last_used {
                    record.last_used = last;
                    changes.push((key(client, id), Some(text(record))));
                }
            }
        }
        if !changes.is_empty()
            && let Err(error) = self.records.change(changes)
        {
            tracing::warn!(%error, "it could not be written down which API keys are in use");
        }
    }

    /// Adds a key and, in the same step, changes the one it takes the place of.
    fn add(
        &self,
        held: &mut Held,
        client: &str,
        id: &str,
        record: Record,
        replaced: Option<(&str, Record)>,
    ) -> Result<ApiKeyView, ApiKeyError> {
        if !self.durable {
            return Err(ApiKeyError::NotKept);
        }
        let others = held.clients.get(client);
        if others.is_some_and(|keys| keys.len() >= MOST) {
            return Err(ApiKeyError::Full);
        }
        if others.into_iter().flatten().any(|(_, other)| other.name == record.name) {
            return Err(ApiKeyError::NameTaken);
        }
        let damaged = |why| ApiKeyError::Damaged { client: client.to_owned(), why };
        let hash = record.hash().map_err(damaged)?;
        // In force first, because nobody has the key yet and what cannot be issued must not be kept.
        self.ring.keys.issue(client, record.key().map_err(damaged)?)?;
        let mut changes = vec![(key(client, id), Some(text(&record)))];
        changes.extend(replaced.as_ref().map(|(id, old)| (key(client, id), Some(text(old)))));
        if let Err(error) = self.records.change(changes) {
            self.ring.keys.withdraw(&hash);
            return Err(error.into());
        }
        let view = self.view(id, &record);
        let keys = held.clients.entry(client.to_owned()).or_default();
        keys.insert(id.to_owned(), record);
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some((id, old)) = replaced {
            self.put_in_force(client, &old);
            keys.insert(id.to_owned(), old);
        }
        Ok(view)
    }

    fn put_in_force(&self, client: &str, record: &Record) {
        let last_used = self.last_used(record);
        if let Ok(mut key) = record.key() {
            key.last_used = last_used;
            self.ring.keys.change(client, key);
        }
    }

    fn forget(&self, held: &mut Held, client: &str, id: &str) {
        let Some(keys) = held.clients.get_mut(client) else { return };
        if let Some(record) = keys.remove(id) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            record.hash().iter().for_each(|hash| self.ring.keys.withdraw(hash));
        }
        if keys.is_empty() {
            held.clients.remove(client);
        }
    }

    fn view(&self, id: &str, record: &Record) -> ApiKeyView {
        record.view(id, self.last_used(record))
    }

    fn last_used(&self, record: &Record) -> Option<i64> {
        record.hash().ok().and_then(|hash| self.ring.keys.last_used(&hash)).max(record.last_used)
    }

    fn known(&self, client: &str) -> Result<(), ApiKeyError> {
        if self.ring.keys.knows(client) { Ok(()) } else { Err(ApiKeyError::UnknownClient) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pairs(held: &Held) -> impl Iterator<Item = (&str, &str, &Record)> {
    held.clients.iter().flat_map(|(client, keys)| {
        keys.iter().map(move |(id, record)| (client.as_str(), id.as_str(), record))
    })
}

fn find<'h>(held: &'h Held, client: &str, id: &str) -> Result<&'h Record, ApiKeyError> {
    held.clients.get(client).and_then(|keys| keys.get(id)).ok_or(ApiKeyError::UnknownKey)
}

fn key(client: &str, id: &str) -> String {
    format!("{client}{BETWEEN}{id}")
}

/// A record has no member that cannot be written as JSON.
fn text(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}
