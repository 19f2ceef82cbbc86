//! Tokens that are revoked while the gateway runs (REV-02): told over the admin API, kept in the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_authn::{BadEntry, RevokedEntry, RevokedTokens};
use portcullis_core::Moment;
use portcullis_store::{Follower, Heard, RecordChanges, Records, StoreError};

use super::kept::Kept;
use super::{REVOKED_TOKENS, RestoreError};

/// Most entries one issuer may have been told, so that a script that has run wild does not fill the disk.
const MOST: usize = 100_000;
/// How long an entry that is over is kept. SECURITY: by the clock that nobody can set, or a wall clock that jumps ahead
/// for a moment would give revoked tokens back for good.
const KEPT_WHEN_OVER: Duration = Duration::from_hours(1);
/// Stands between issuer and entry in the key of a record; no name of an entry of `issuers` holds one.
const BETWEEN: char = '\n';

/// Why a revocation was not taken, or not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// There is no such issuer, or none that takes revocations.
    #[error("no issuer of this name has `revoked: {{ push: true }}`")]
    UnknownIssuer,
    /// The entry cannot be read.
    #[error("{0}")]
    BadEntry(#[from] BadEntry),
    /// The entry ended before it was told.
    #[error("`until` is over, so no token would be revoked")]
    Over,
    /// There is no such entry.
    #[error("no entry of this issuer has this id")]
    UnknownEntry,
    /// There are too many.
    #[error(
        "the issuer may have {MOST} entries; take some back, let them end with `until`, or list tokens in files"
    )]
    Full,
    /// The store could not keep that it is taken back; it is in force as before.
    #[error("it is not taken back: {0}")]
    Store(#[from] StoreError),
    /// The store could not keep what is in force.
    #[error(
        "the tokens are revoked on this gateway, and a restart would forget it: {0}; it is written when the store can be"
    )]
    InForceNotKept(StoreError),
}

/// What was told of each issuer that takes revocations.
pub(crate) struct PushedRevocations {
    /// Held while one is changed, so that no two changes lose one of them. Never locked by a request.
    told: Mutex<Told>,
}

struct Told {
    kept: Kept,
    issuers: HashMap<Arc<str>, OfIssuer>,
}

/// One issuer's, by the ids of the entries.
struct OfIssuer {
    list: Arc<RevokedTokens>,
    entries: BTreeMap<String, RevokedEntry>,
    over: Over,
}

/// Since when each entry that is over was seen to be, by the monotonic clock.
#[derive(Default)]
struct Over(BTreeMap<String, Duration>);

impl PushedRevocations {
    /// Puts in force what was told before. SECURITY: an entry that cannot be read back, or that is of an issuer that no
    /// longer takes any, is an error of the start: without it a revoked token would open doors again.
    pub(super) fn restore(
        records: Records,
        lists: &[Arc<RevokedTokens>],
        now: Moment,
    ) -> Result<Self, RestoreError> {
        let kept = Kept::new(records);
        let takes = lists.iter().filter(|list| list.push_place().is_some());
        let mut issuers: HashMap<Arc<str>, OfIssuer> =
            takes.map(|list| (Arc::clone(list.issuer()), OfIssuer::new(list))).collect();
        let mut orphans: BTreeMap<String, usize> = BTreeMap::new();
        for (key, text) in kept.all().map_err(RestoreError::Store)? {
            let (issuer, id) = key.split_once(BETWEEN).unwrap_or((&key, ""));
            let entry = RevokedEntry::parse(&text).map_err(|why| RestoreError::Revocation {
                issuer: issuer.to_owned(),
                why: why.to_string(),
            })?;
            match issuers.get_mut(issuer) {
                Some(told) => drop(told.entries.insert(id.to_owned(), entry)),
                None if entry.is_over(now) => {}
                None => *orphans.entry(issuer.to_owned()).or_default() += 1,
            }
        }
        if let Some((issuer, count)) = orphans.pop_first() {
            return Err(RestoreError::Orphaned { issuer, count });
        }
        issuers.values().for_each(OfIssuer::put_in_force);
        Ok(Self { told: Mutex::new(Told { kept, issuers }) })
    }

    /// Puts what was told in force in the lists of another configuration. `publish` puts that in force; nothing is told
    /// meanwhile.
    ///
    /// # Errors
    /// Tokens that are revoked would count again: that configuration takes no revocations of their issuer. Then nothing has
    /// changed.
    pub(super) fn adopt(
        &self,
        lists: &[Arc<RevokedTokens>],
        now: Moment,
        publish: impl FnOnce(),
    ) -> Result<(), RestoreError> {
        let mut told = self.told();
        let takes = lists.iter().filter(|list| list.push_place().is_some());
        let mut issuers: HashMap<Arc<str>, OfIssuer> =
            takes.map(|list| (Arc::clone(list.issuer()), OfIssuer::new(list))).collect();
        for (issuer, of) in &told.issuers {
            match issuers.get_mut(issuer) {
                Some(new) => new.entries = of.entries.clone(),
                None => {
                    let count = of.entries.values().filter(|entry| !entry.is_over(now)).count();
                    if count > 0 {
                        return Err(RestoreError::Orphaned { issuer: issuer.to_string(), count });
                    }
                }
            }
        }
        issuers.values().for_each(OfIssuer::put_in_force);
        publish();
        told.issuers = issuers;
        Ok(())
    }

    /// Whether other gateways are told the same.
    pub(super) fn is_shared(&self) -> bool {
        self.told().kept.is_shared()
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> usize {
        self.told().issuers.values().map(|told| told.entries.len()).sum()
    }

    /// The entries of an issuer, by their ids.
    pub(crate) fn of(&self, issuer: &str) -> Result<BTreeMap<String, RevokedEntry>, RevokeError> {
        let told = self.told();
        told.issuers.get(issuer).map(|told| told.entries.clone()).ok_or(RevokeError::UnknownIssuer)
    }

    /// Takes entries, all or none, and says which are new. When this returns they are in force on every worker, and on
    /// disk.
    ///
    /// # Errors
    /// With [`RevokeError::InForceNotKept`] they are in force, and not known to be on disk; with every other error
    /// nothing has changed.
    pub(crate) fn add(
        &self,
        issuer: &str,
        entries: Vec<RevokedEntry>,
        now: Moment,
    ) -> Result<Vec<bool>, RevokeError> {
        let mut told = self.told();
        let Told { kept, issuers } = &mut *told;
        let of = issuers.get_mut(issuer).ok_or(RevokeError::UnknownIssuer)?;
        if entries.iter().any(|entry| entry.is_over(now)) {
            return Err(RevokeError::Over);
        }
        let named: BTreeMap<String, RevokedEntry> =
            entries.iter().map(|entry| (entry.id(), entry.clone())).collect();
        let mut fresh = named;
        fresh.retain(|id, _| !of.entries.contains_key(id) || kept.owes(&key(issuer, id)));
        let added = fresh.keys().filter(|id| !of.entries.contains_key(*id)).count();
        if of.entries.len().saturating_add(added) > MOST {
            return Err(RevokeError::Full);
        }
        let is_new = entries.iter().map(|entry| fresh.contains_key(&entry.id())).collect();
        if fresh.is_empty() {
            return Ok(is_new);
        }
        let changes = fresh.iter().map(|(id, entry)| (key(issuer, id), Some(text(entry)))).collect();
        of.entries.extend(fresh);
        of.put_in_force();
        kept.insist(changes).map_err(RevokeError::InForceNotKept)?;
        Ok(is_new)
    }

    /// Takes an entry back.
    ///
    /// # Errors
    /// See [`RevokeError`]; nothing has changed then.
    pub(crate) fn remove(&self, issuer: &str, id: &str) -> Result<(), RevokeError> {
        self.take_back(issuer, |of| {
            if of.entries.contains_key(id) { Ok(vec![id.to_owned()]) } else { Err(RevokeError::UnknownEntry) }
        })
        .map(drop)
    }

    /// Takes every entry of an issuer back, and says how many there were.
    ///
    /// # Errors
    /// See [`RevokeError`]; nothing has changed then.
    pub(crate) fn remove_all(&self, issuer: &str) -> Result<usize, RevokeError> {
        self.take_back(issuer, |of| Ok(of.entries.keys().cloned().collect()))
    }

    fn take_back(
        &self,
        issuer: &str,
        which: impl FnOnce(&OfIssuer) -> Result<Vec<String>, RevokeError>,
    ) -> Result<usize, RevokeError> {
        let mut told = self.told();
        let Told { kept, issuers } = &mut *told;
        let of = issuers.get_mut(issuer).ok_or(RevokeError::UnknownIssuer)?;
        let ids = which(of)?;
        let before = ids.iter().map(|id| (key(issuer, id), of.entries.get(id).map(text))).collect();
        kept.attempt(gone(issuer, &ids), before)?;
        of.forget(&ids);
        Ok(ids.len())
    }

    /// Removes what has been over for long enough, and writes what is owed to the disk. To be called every few seconds,
    /// never by a worker.
    pub(crate) fn tidy(&self, now: Moment) {
        let mut told = self.told();
        let Told { kept, issuers } = &mut *told;
        let mut changes = RecordChanges::new();
        for (issuer, of) in issuers {
            let ids = of.long_over(now);
            if !ids.is_empty() {
                changes.extend(gone(issuer, &ids));
                of.forget(&ids);
            }
        }
        let written = if changes.is_empty() { kept.settle() } else { kept.insist(changes) };
        if let Err(error) = written {
            tracing::warn!(%error, "what was told of revoked tokens is in force, and not yet on disk");
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for PushedRevocations {
    fn subject(&self) -> &str {
        REVOKED_TOKENS
    }

    fn held(&self) -> BTreeMap<String, Vec<u8>> {
        let told = self.told();
        let of = |(issuer, of): (&Arc<str>, &OfIssuer)| {
            let rows = of.entries.iter().map(|(id, entry)| (key(issuer, id), text(entry)));
            rows.collect::<Vec<_>>()
        };
        told.issuers.iter().flat_map(of).collect()
    }

    /// SECURITY: what cannot be read is of a gateway of another version; it is said loudly, and everything else is in force.
    fn hear(&self, heard: Heard) {
        let mut told = self.told();
        let Told { kept, issuers } = &mut *told;
        let mut changes = heard.changes();
        // What is in force here and not at the server yet is the later word.
        changes.retain(|key, _| !kept.owes(key));
        for (key, text) in &changes {
            let (issuer, id) = key.split_once(BETWEEN).unwrap_or((key, ""));
            let Some(of) = issuers.get_mut(issuer) else { continue };
            match text.as_deref().map(RevokedEntry::parse) {
                None => drop(of.entries.remove(id)),
                Some(Ok(entry)) => drop(of.entries.insert(id.to_owned(), entry)),
                Some(Err(error)) => {
                    tracing::error!(%issuer, id, %error, "a revocation that another gateway was told cannot be read");
                }
            }
        }
        issuers.values().for_each(OfIssuer::put_in_force);
        tracing::info!(count = changes.len(), "another gateway was told of revoked tokens");
        kept.copy(changes);
    }
}

impl OfIssuer {
    fn new(list: &Arc<RevokedTokens>) -> Self {
        Self { list: Arc::clone(list), entries: BTreeMap::new(), over: Over::default() }
    }

    fn put_in_force(&self) {
        self.list.set_pushed(self.entries.values().cloned().collect());
    }

    fn forget(&mut self, ids: &[String]) {
        for id in ids {
            self.entries.remove(id);
        }
        self.put_in_force();
    }

    /// The entries that have been over for long enough.
    fn long_over(&mut self, now: Moment) -> Vec<String> {
        let over = self.entries.iter().filter(|(_, entry)| entry.is_over(now)).map(|(id, _)| id.clone());
        self.over.long(over, now.monotonic)
    }
}

impl Over {
    /// Those of them that were over each time they were looked at, for long enough.
    fn long(&mut self, over: impl Iterator<Item = String>, now: Duration) -> Vec<String> {
        let since = |id: &str| self.0.get(id).copied().unwrap_or(now);
        let held: BTreeMap<_, _> = over.map(|id| (id.clone(), since(&id))).collect();
        self.0 = held;
        let long = |since: Duration| now.saturating_sub(since) >= KEPT_WHEN_OVER;
        self.0.iter().filter(|(_, since)| long(**since)).map(|(id, _)| id.clone()).collect()
    }
}

fn key(issuer: &str, id: &str) -> String {
    format!("{issuer}{BETWEEN}{id}")
}

fn gone(issuer: &str, ids: &[String]) -> RecordChanges {
    ids.iter().map(|id| (key(issuer, id), None)).collect()
}

fn text(entry: &RevokedEntry) -> Vec<u8> {
    entry.to_json().to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{KEPT_WHEN_OVER, Over};

    /// A wall clock that jumps ahead and is set right again has removed nothing.
    #[test]
    fn an_entry_goes_when_it_was_over_for_an_hour_without_a_break() {
        let mut over = Over::default();
        let start = Duration::from_secs(100);
        let mut long =
            |ids: &[&str], later: Duration| over.long(ids.iter().map(|id| (*id).to_owned()), start + later);
        let second = Duration::from_secs(1);
        assert!(long(&["a", "b"], Duration::ZERO).is_empty());
        assert!(long(&["a"], second).is_empty());
        assert!(long(&["a", "b"], KEPT_WHEN_OVER - second).is_empty());
        assert_eq!(long(&["a", "b"], KEPT_WHEN_OVER), ["a"]);
        assert_eq!(long(&["b"], KEPT_WHEN_OVER * 2 - second), ["b"]);
        assert!(long(&[], KEPT_WHEN_OVER * 9).is_empty());
    }
}
