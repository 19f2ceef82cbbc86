//! Revocation lists while the gateway runs: read again when their files change, without a restart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_core::{Faults, Materials};

use super::ocsp::Ocsp;
use super::settings::Expiry;
use super::spec::{Depth, RevocationSpec, WhenUnknown};
use super::trust::RevocationLists;

/// `revocation` of one verifier, with the lists in force.
#[derive(Debug)]
pub(crate) struct Revocation {
    spec: RevocationSpec,
    online: Option<Arc<Ocsp>>,
    lists: ArcSwap<RevocationLists>,
    /// Counts the lists that were put in force.
    generation: AtomicU64,
    /// What was wrong with the files the last time they were read, so that it is said once.
    complaint: Mutex<Option<String>>,
}

/// What came of reading the files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// They are what they were.
    Unchanged,
    /// Other lists are in force.
    Replaced,
    /// They cannot be used. The lists in force stay, until the next one of each is due.
    Failed {
        /// What is wrong.
        why: String,
        /// Whether the same was wrong the last time.
        again: bool,
    },
}

impl Revocation {
    /// Reads the lists for the first time; `now` is the second since 1970.
    pub(crate) fn load(
        spec: &RevocationSpec,
        materials: &dyn Materials,
        now: i64,
        online: Option<Arc<Ocsp>>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let lists = RevocationLists::load(spec, materials, now, faults)?;
        Some(Self {
            spec: spec.clone(),
            online,
            lists: ArcSwap::from_pointee(lists),
            generation: AtomicU64::new(0),
            complaint: Mutex::default(),
        })
    }

    /// Reads the files again. SECURITY: what cannot be used as a whole changes nothing (OPS-03): a list that is cut
    /// off, one of a time to come, or one that is older than what is known must not take the place of the one that holds,
    /// and none at all must not either. The old one counts until the next one is due and not a second longer, so that a
    /// publisher who has stopped is noticed.
    pub(crate) fn reload(&self, materials: &dyn Materials, now: i64) -> Reload {
        let mut faults = Faults::default();
        let read = RevocationLists::load(&self.spec, materials, now, &mut faults);
        let in_force = self.lists.load();
        let usable = match read.filter(|_| !faults.any_error()) {
            Some(lists) => lists.take_back(&in_force, now).map_or(Ok(lists), Err),
            None => {
                let faults = faults.into_sorted();
                Err(faults.first().map_or_else(|| "unreadable".to_owned(), |fault| fault.message.clone()))
            }
        };
        let lists = match usable {
            Ok(lists) => lists,
            Err(why) => {
                let before = self.complain(Some(why.clone()));
                return Reload::Failed { again: before.as_ref() == Some(&why), why };
            }
        };
        self.complain(None);
        if lists.der == in_force.der {
            return Reload::Unchanged;
        }
        self.lists.store(Arc::new(lists));
        // Only now: whoever sees the new number finds the new lists.
        self.generation.fetch_add(1, Ordering::Release);
        Reload::Replaced
    }

    /// What would be taken back if these lists took the place of those, read from the same files.
    pub(crate) fn takes_back(&self, before: &Self, now: i64) -> Option<String> {
        let paths = |revocation: &Self| -> Vec<String> {
            revocation.spec.lists.iter().map(|path| path.value.clone()).collect()
        };
        if paths(self) != paths(before) {
            return None;
        }
        self.lists.load().take_back(&before.lists.load(), now)
    }

    /// The files the lists are read from, as they are written.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.spec.lists.iter().map(|path| path.value.as_str())
    }

    /// The lists in force.
    pub(crate) fn lists(&self) -> Arc<RevocationLists> {
        self.lists.load_full()
    }

    /// The number of the lists in force. What was found under another number must be asked again.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether there are lists at all.
    pub(crate) const fn has_lists(&self) -> bool {
        !self.spec.lists.is_empty()
    }

    /// Who is asked online.
    pub(crate) const fn online(&self) -> Option<&Arc<Ocsp>> {
        self.online.as_ref()
    }

    /// What to say of a certificate no list speaks about.
    pub(crate) const fn when_unknown(&self) -> WhenUnknown {
        self.spec.when_unknown
    }

    /// Whose lists are asked.
    pub(crate) const fn depth(&self) -> Depth {
        self.spec.depth
    }

    /// How often the files are looked at.
    pub(crate) const fn interval(&self) -> Duration {
        self.spec.reload
    }

    /// When each list is due to be replaced.
    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        self.lists.load().expiries().collect()
    }

    fn complain(&self, why: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.complaint.lock().unwrap_or_else(PoisonError::into_inner), why)
    }
}
