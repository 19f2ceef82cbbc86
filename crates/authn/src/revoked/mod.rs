//! Lists of tokens that an issuer has signed and that count no more (REV-02).
//!
//! A list is asked on every request, after everything the token says itself, also for tokens a worker remembers: a fact
//! is remembered, a verdict is not. Files are read again while the gateway runs, so a token is refused from the next
//! reading on; what cannot be read as a whole leaves the list before it in force.

mod entry;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_core::{Faults, Identity, Materials, Moment, Place, Reason, Rejection};

use entry::List;
pub use entry::{BadEntry, Entry};
pub(crate) use spec::RevokedSpec;

/// The revoked tokens of one issuer.
#[derive(Debug)]
pub struct RevokedTokens {
    issuer: Arc<str>,
    spec: RevokedSpec,
    list: ArcSwap<List>,
    /// What was added while the gateway runs.
    pushed: ArcSwap<List>,
    /// What was wrong with the files the last time they were read, so that it is said once.
    complaint: Mutex<Option<String>>,
}

/// What came of reading the files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedReload {
    /// They say what they said.
    Unchanged,
    /// They say something else, which is in force.
    Replaced,
    /// They cannot be used. The list before stays in force.
    Failed {
        /// What is wrong.
        why: String,
        /// Whether the same was wrong the last time.
        again: bool,
    },
}

impl RevokedTokens {
    /// The list of an issuer entry, if it has one. The outer `None` is one that cannot be read, which was told.
    pub(crate) fn of_entry(
        issuer: &str,
        spec: Option<&RevokedSpec>,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<Option<Arc<Self>>> {
        let Some(spec) = spec else { return Some(None) };
        Self::load(&issuer.into(), spec, materials, faults).map(|list| Some(Arc::new(list)))
    }

    /// Reads the list for the first time.
    pub(crate) fn load(
        issuer: &Arc<str>,
        spec: &RevokedSpec,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<Self> {
        let list = spec.list(&spec.sources(materials, faults)?, faults)?;
        Some(Self {
            issuer: issuer.clone(),
            spec: spec.clone(),
            list: ArcSwap::from_pointee(list),
            pushed: ArcSwap::default(),
            complaint: Mutex::default(),
        })
    }

    /// Reads the files again. SECURITY: what cannot be used as a whole changes nothing: half a list would give tokens
    /// back that somebody has revoked. Nor may a file of a directory go and take its entries along: nobody can tell one
    /// that was taken away from one that was lost.
    pub fn reload(&self, materials: &dyn Materials) -> RevokedReload {
        let mut faults = Faults::default();
        let Some(sources) = self.spec.sources(materials, &mut faults) else { return self.failed(faults) };
        let held = self.list.load();
        if let Some(gone) = held.gone_from(&sources) {
            return self.refused(format!("`{}` is gone, and something is listed in it", gone.name));
        }
        // Lists may be long and seldom change, so they are told apart before they are read.
        if held.is_of(&sources) {
            self.complain(None);
            return RevokedReload::Unchanged;
        }
        let list = self.spec.list(&sources, &mut faults);
        let Some(list) = list.filter(|_| !faults.any_error()) else { return self.failed(faults) };
        self.complain(None);
        self.list.store(Arc::new(list));
        RevokedReload::Replaced
    }

    /// What would be given back if this list took the place of that one, of the same issuer and the same files.
    /// SECURITY: as for [`Self::reload`]: a file that is lost may not take its entries along.
    pub fn gives_back(&self, before: &Self) -> Option<String> {
        if !self.spec.reads_what(&before.spec) {
            return None;
        }
        let (list, held) = (self.list.load(), before.list.load());
        let gone = held.gone_from_list(&list)?;
        Some(format!("`{}` is gone, and tokens of issuer `{}` are listed in it", gone.name, self.issuer))
    }

    fn failed(&self, faults: Faults) -> RevokedReload {
        let faults = faults.into_sorted();
        self.refused(faults.first().map_or_else(|| "unreadable".to_owned(), |fault| fault.message.clone()))
    }

    fn refused(&self, why: String) -> RevokedReload {
        let before = self.complain(Some(why.clone()));
        RevokedReload::Failed { again: before.as_ref() == Some(&why), why }
    }

    /// Judges a token that is otherwise good.
    ///
    /// # Errors
    /// An entry of the list is about it.
    pub(crate) fn check(&self, token: &Identity, now: Moment) -> Result<(), Rejection> {
        let names =
            |list: &List| !list.is_empty() && list.names(token, self.spec.client_claim(), now.unix_seconds());
        if names(&self.list.load()) || names(&self.pushed.load()) {
            return Err(Rejection::new(Reason::TokenRevoked).because("the list of revoked tokens names it"));
        }
        Ok(())
    }

    /// Where the policy says that entries may be added while the gateway runs; `None` where they may not.
    pub const fn push_place(&self) -> Option<Place> {
        self.spec.push()
    }

    /// Puts these entries beside those of the policy and its files, in the place of any that were put there before.
    /// They count from the next request on.
    pub fn set_pushed(&self, entries: Vec<Entry>) {
        self.pushed.store(Arc::new(List::new(entries, Vec::new())));
    }

    /// The issuer entry whose tokens it is about.
    pub const fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.list.load().len() + self.pushed.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the files are looked at; `None` if there are none.
    pub fn interval(&self) -> Option<Duration> {
        self.spec.interval()
    }

    fn complain(&self, why: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.complaint.lock().unwrap_or_else(PoisonError::into_inner), why)
    }
}
