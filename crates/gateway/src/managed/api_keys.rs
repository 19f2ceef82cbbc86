//! API keys that are made, rotated and revoked while the gateway runs.
//!
//! A change is in force on every worker, and on disk, when it is answered. Requests see none of this: they look keys up
//! in the table of [`IssuedKeys`], without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_authn::{IssuedKeys, generate_key, random_id};
use portcullis_core::Moment;
use portcullis_store::{RecordChanges, Records, StoreError};

use super::RestoreError;
use super::api_key_error::{ApiKeyError, MOST};
use super::api_key_record::{ApiKeyChange, ApiKeyView, KeyState, NewApiKey, Record};
use super::kept::Kept;

/// Longest time for which a key and its successor both count.
const LONGEST_OVERLAP: Duration = Duration::from_hours(90 * 24);
/// How often it is written down which keys are in use.
const USES_EVERY_SECONDS: i64 = 60;
/// How many of them are written at once.
const USES_AT_ONCE: usize = 500;
/// Stands between client and id in the key of a record; no name of a client holds one.
pub(super) const BETWEEN: char = '\n';

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
pub(super) type OfClient = BTreeMap<String, Record>;

/// All keys that were made while gateways ran.
pub struct ManagedApiKeys {
    ring: ArcSwap<KeyRing>,
    durable: bool,
    /// Held while one is changed. Never locked by a request.
    held: Mutex<Held>,
    /// How many there are, for whoever must not wait for a change.
    pub(super) count: AtomicUsize,
}

pub(super) struct Held {
    pub(super) kept: Kept,
    pub(super) clients: BTreeMap<String, OfClient>,
    uses_written: i64,
}

impl ManagedApiKeys {
    /// Puts in force what was made before. Keys of a client that is no longer declared stay in the store and count no
    /// more, until it is declared again.
    pub(super) fn restore(records: Records, durable: bool, ring: KeyRing) -> Result<Self, RestoreError> {
        let kept = Kept::new(records);
        let mut clients: BTreeMap<String, OfClient> = BTreeMap::new();
        for (key, text) in kept.all().map_err(RestoreError::Store)? {
            let (client, id) = key.split_once(BETWEEN).unwrap_or((&key, ""));
            let unreadable = |why: String| RestoreError::ApiKey { client: client.to_owned(), why };
            let record: Record =
                serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
            match ring.keys.issue(client, record.key().map_err(unreadable)?) {
                Ok(()) => {}
                Err(why) => tracing::warn!(%client, key = %id, %why, "a key of the store does not count"),
            }
            clients.entry(client.to_owned()).or_default().insert(id.to_owned(), record);
        }
        let count = AtomicUsize::new(clients.values().map(OfClient::len).sum());
        Ok(Self {
            ring: ArcSwap::from_pointee(ring),
            durable,
            held: Mutex::new(Held { kept, clients, uses_written: 0 }),
            count,
        })
    }

    /// Lets keys be looked up, and made, where another configuration has them looked up. `publish` puts that in force;
    /// no key changes meanwhile.
    pub(super) fn adopt(&self, ring: KeyRing, publish: impl FnOnce()) {
        let mut held = self.held();
        for (client, keys) in &mut held.clients {
            for (id, record) in keys {
                record.last_used = self.last_used(record);
                let issued =
                    record.key().map(|key| ring.keys.issue(client, key).map_err(|why| why.to_string()));
                if let Err(why) = issued.and_then(|issued| issued) {
                    tracing::warn!(%client, key = %id, %why, "a key of the store does not count");
                }
            }
        }
        publish();
        self.ring.store(Arc::new(ring));
    }

    pub(super) fn ring(&self) -> arc_swap::Guard<Arc<KeyRing>> {
        self.ring.load()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The keys of a client that were made here.
    ///
    /// # Errors
    /// There is no such client.
    pub fn of(&self, client: &str, now: Moment) -> Result<Vec<ApiKeyView>, ApiKeyError> {
        self.known(client)?;
        let held = self.held();
        let keys = held.clients.get(client).into_iter().flatten();
        Ok(keys.map(|(id, record)| self.view(client, id, record, now)).collect())
    }

    /// One key of a client.
    ///
    /// # Errors
    /// There is no such client, or no such key.
    pub fn one(&self, client: &str, id: &str, now: Moment) -> Result<ApiKeyView, ApiKeyError> {
        self.known(client)?;
        let held = self.held();
        Ok(self.view(client, id, held.find(client, id)?, now))
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
        let mut held = self.held();
        self.known(client)?;
        let value = match &asked.value {
            Some(value) => value.check().map_err(ApiKeyError::Unfit)?.to_owned(),
            None => generate_key()?,
        };
        let (id, hash) = (random_id()?, self.ring().keys.hash(&value));
        let record = Record::new(&id, asked, hash, now.unix_seconds()).map_err(ApiKeyError::Unfit)?;
        if let Some(unknown) = record.apis().find(|api| !self.ring().apis.iter().any(|known| known == api)) {
            return Err(ApiKeyError::UnknownApi(unknown.to_owned()));
        }
        if record.name.contains(value.as_str()) {
            return Err(ApiKeyError::Unfit("`name` is shown in logs, so it cannot be the key".to_owned()));
        }
        self.add(&mut held, client, &id, &record, None)?;
        Ok((self.view(client, &id, &record, now), value))
    }

    /// Makes a successor on the same terms, and lets the key itself count for the overlap and no longer. The successor
    /// ends when `expires` says, or when the key would have.
    ///
    /// # Errors
    /// See [`ApiKeyError`]; nothing has changed then.
    pub fn rotate(
        &self,
        client: &str,
        id: &str,
        overlap: Duration,
        expires: &Option<String>,
        now: Moment,
    ) -> Result<(ApiKeyView, String), ApiKeyError> {
        self.known(client)?;
        if overlap > LONGEST_OVERLAP {
            let days = LONGEST_OVERLAP.as_secs() / 86_400;
            return Err(ApiKeyError::Unfit(format!("two keys count beside one another for {days}d at most")));
        }
        let mut held = self.held();
        let mut old = held.find(client, id)?.clone();
        if let Some(successor) = old.replaced_by {
            return Err(ApiKeyError::Replaced(successor));
        }
        let (value, new_id, second) = (generate_key()?, random_id()?, now.unix_seconds());
        if matches!(old.state(second), KeyState::Disabled | KeyState::Expired) {
            return Err(ApiKeyError::NotInForce);
        }
        let new = old.successor(&new_id, self.ring().keys.hash(&value), expires, second);
        let new = new.map_err(ApiKeyError::Unfit)?;
        let end = second.saturating_add(i64::try_from(overlap.as_secs()).unwrap_or(i64::MAX));
        old.expires = Some(old.expires.map_or(end, |before| before.min(end)));
        old.replaced_by = Some(new_id.clone());
        old.last_used = self.last_used(&old);
        self.add(&mut held, client, &new_id, &new, Some((id, old)))?;
        Ok((self.view(client, &new_id, &new, now), value))
    }

    /// Changes a key, and says whether it is another one than before.
    ///
    /// # Errors
    /// With [`ApiKeyError::InForceNotKept`] it is changed, and not known to be on disk; with every other error nothing
    /// has changed.
    pub fn change(
        &self,
        client: &str,
        id: &str,
        change: &ApiKeyChange,
        now: Moment,
    ) -> Result<(ApiKeyView, bool), ApiKeyError> {
        self.known(client)?;
        let mut held = self.held();
        let old = held.find(client, id)?.clone();
        let mut new = old.changed(change).map_err(ApiKeyError::Unfit)?;
        let (is_other, narrows) = (new != old, new.is_within(&old));
        if let Some(successor) = old.replaced_by.as_ref().filter(|_| !narrows) {
            return Err(ApiKeyError::Replaced(successor.clone()));
        }
        new.last_used = self.last_used(&old);
        let view = self.view(client, id, &new, now);
        let changes = RecordChanges::from([row(client, id, Some(&new))]);
        if narrows {
            // SECURITY: a key that somebody wants less of must not count on because a disk is full.
            self.put(&mut held, client, id, new);
            held.kept.insist(changes).map_err(ApiKeyError::InForceNotKept)?;
        } else {
            held.kept.attempt(changes, [row(client, id, Some(&old))].into())?;
            self.put(&mut held, client, id, new);
        }
        Ok((view, is_other))
    }

    /// Takes a key out of use, for good, and out of the store.
    ///
    /// # Errors
    /// With [`ApiKeyError::InForceNotKept`] it counts no more, and is not known to be off the disk; with every other
    /// error nothing has changed.
    pub fn revoke(&self, client: &str, id: &str) -> Result<(), ApiKeyError> {
        self.known(client)?;
        let mut held = self.held();
        let (key, gone) = row(client, id, None);
        // One that was revoked before and is still on disk is not unknown.
        if !held.kept.owes(&key) {
            held.find(client, id)?;
        }
        self.forget(&mut held, client, id);
        held.kept.insist([(key, gone)].into()).map_err(ApiKeyError::InForceNotKept)
    }

    /// Takes every key of a client out of use, for good, and out of the store.
    ///
    /// # Errors
    /// They count no more, and are not known to be off the disk.
    pub(crate) fn remove_all_of(&self, client: &str) -> Result<(), StoreError> {
        let mut held = self.held();
        let ids: Vec<String> =
            held.clients.get(client).into_iter().flatten().map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.forget(&mut held, client, id));
        let changes: RecordChanges = ids.iter().map(|id| row(client, id, None)).collect();
        if changes.is_empty() { Ok(()) } else { held.kept.insist(changes) }
    }

    /// Removes keys that have been over for long enough, writes down which are in use, and what is owed to the disk. To
    /// be called every few seconds, never by a worker.
    pub(crate) fn tidy(&self, now: Moment) {
        let now = now.unix_seconds();
        let mut held = self.held();
        let keep = i64::try_from(self.ring().keep_expired.as_secs()).unwrap_or(i64::MAX);
        let is_over = |record: &Record| record.expires.is_some_and(|end| end.saturating_add(keep) <= now);
        let over = pairs(&held).filter(|(_, _, record)| is_over(record));
        let over: Vec<_> = over.map(|(client, id, _)| (client.to_owned(), id.to_owned())).collect();
        let changes: RecordChanges = over.iter().map(|(client, id)| row(client, id, None)).collect();
        over.iter().for_each(|(client, id)| self.forget(&mut held, client, id));
        if now.saturating_sub(held.uses_written) >= USES_EVERY_SECONDS {
            held.uses_written = now;
            self.write_uses(&mut held);
        }
        write(&mut held, changes);
    }

    /// Writes down which keys were used last when, and what is owed to the disk.
    pub(crate) fn finish(&self) {
        let mut held = self.held();
        self.write_uses(&mut held);
        write(&mut held, RecordChanges::new());
    }

    /// Writes down the keys that were used since that was last done. SECURITY: only where no other gateway has changed them
    /// meanwhile: what is not known here yet may be that one is revoked.
    fn write_uses(&self, held: &mut Held) {
        let used = pairs(held).filter_map(|(client, id, record)| {
            let mut after = record.clone();
            after.last_used = self.last_used(record);
            let is_later = after.last_used > record.last_used;
            is_later.then(|| (client.to_owned(), id.to_owned(), record.clone(), after))
        });
        let used: Vec<Used> = used.collect();
        for some in used.chunks(USES_AT_ONCE) {
            let written = match note_uses(held, some) {
                // One of them was changed: the others are written without it.
                Err(StoreError::Conflict) => some.chunks(1).try_for_each(|one| match note_uses(held, one) {
                    Err(StoreError::Conflict) => Ok(()),
                    written => written,
                }),
                written => written,
            };
            if let Err(error) = written {
                tracing::warn!(%error, "which API keys are in use is not on disk");
                return;
            }
        }
    }

    /// Adds a key and, in the same step, changes the one it takes the place of.
    fn add(
        &self,
        held: &mut Held,
        client: &str,
        id: &str,
        record: &Record,
        replaced: Option<(&str, Record)>,
    ) -> Result<(), ApiKeyError> {
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
        let key = record.key().map_err(ApiKeyError::Damaged)?;
        // What cannot be issued must not be kept, and nothing else issues keys while these are held.
        self.ring().keys.check(client, &key)?;
        let mut changes = RecordChanges::from([row(client, id, Some(record))]);
        let mut before = RecordChanges::from([row(client, id, None)]);
        if let Some((old_id, old)) = &replaced {
            changes.extend([row(client, old_id, Some(old))]);
            before.extend([row(client, old_id, Some(held.find(client, old_id)?))]);
        }
        held.kept.attempt(changes, before)?;
        self.ring().keys.issue(client, key)?;
        held.clients.entry(client.to_owned()).or_default().insert(id.to_owned(), record.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some((old_id, old)) = replaced {
            self.put(held, client, old_id, old);
        }
        Ok(())
    }

    /// Puts another record in the place of a key's.
    pub(super) fn put(&self, held: &mut Held, client: &str, id: &str, record: Record) {
        if let Ok(key) = record.key() {
            self.ring().keys.change(client, key);
        }
        held.clients.entry(client.to_owned()).or_default().insert(id.to_owned(), record);
    }

    pub(super) fn forget(&self, held: &mut Held, client: &str, id: &str) {
        let Some(keys) = held.clients.get_mut(client) else { return };
        if let Some(record) = keys.remove(id) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            record.hash().iter().for_each(|hash| self.ring().keys.withdraw(hash));
        }
        if keys.is_empty() {
            held.clients.remove(client);
        }
    }

    fn view(&self, client: &str, id: &str, record: &Record, now: Moment) -> ApiKeyView {
        let now = now.unix_seconds();
        let state = if !record.hash().is_ok_and(|hash| self.ring().keys.is_issued(&hash)) {
            KeyState::DeclaredElsewhere
        } else if self.ring().keys.end_of(client).is_some_and(|end| now >= end) {
            KeyState::ClientExpired
        } else {
            record.state(now)
        };
        record.view(id, self.last_used(record), state)
    }

    fn last_used(&self, record: &Record) -> Option<i64> {
        record.hash().ok().and_then(|hash| self.ring().keys.last_used(&hash)).max(record.last_used)
    }

    fn known(&self, client: &str) -> Result<(), ApiKeyError> {
        if self.ring().keys.knows(client) { Ok(()) } else { Err(ApiKeyError::UnknownClient) }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    pub(super) fn find(&self, client: &str, id: &str) -> Result<&Record, ApiKeyError> {
        self.clients.get(client).and_then(|keys| keys.get(id)).ok_or(ApiKeyError::UnknownKey)
    }
}

/// A key that was used: its client, its id, and how it was and is to be written down.
type Used = (String, String, Record, Record);

fn note_uses(held: &mut Held, used: &[Used]) -> Result<(), StoreError> {
    let after = used.iter().map(|(client, id, _, after)| row(client, id, Some(after)));
    let before = used.iter().map(|(client, id, before, _)| row(client, id, Some(before)));
    held.kept.attempt(after.collect(), before.collect())?;
    for (client, id, _, after) in used {
        if let Some(record) = held.clients.get_mut(client).and_then(|keys| keys.get_mut(id)) {
            record.last_used = after.last_used;
        }
    }
    Ok(())
}

/// Writes what nobody waits for; what fails is tried again.
fn write(held: &mut Held, changes: RecordChanges) {
    let written = if changes.is_empty() { held.kept.settle() } else { held.kept.insist(changes) };
    if let Err(error) = written {
        tracing::warn!(%error, "what was changed of API keys is not yet on disk");
    }
}

pub(super) fn pairs(held: &Held) -> impl Iterator<Item = (&str, &str, &Record)> {
    held.clients.iter().flat_map(|(client, keys)| {
        keys.iter().map(move |(id, record)| (client.as_str(), id.as_str(), record))
    })
}

/// A record as the store has it; without one, it goes.
pub(super) fn row(client: &str, id: &str, record: Option<&Record>) -> (String, Option<Vec<u8>>) {
    // A record has no member that cannot be written as JSON.
    let text = record.map(|record| serde_json::to_vec(record).unwrap_or_default());
    (format!("{client}{BETWEEN}{id}"), text)
}
