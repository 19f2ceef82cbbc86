//! What one worker remembers of tokens and certificates it has seen.
//!
//! SECURITY: facts are remembered, verdicts are not. A token that is known has a good signature and good static
//! claims under one issuer entry and one generation of that entry's keys. Its times, its bindings and everything
//! the policy says are judged on every request (JKS-09, CNF-06).

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Identity, Moment, PeerCertificate, Rejection};
use portcullis_jose::{Confirmation, TokenTimes};

use crate::basic::PasswordMemory;
use crate::certificate::{self, CertificateOwners, Ownership};
use crate::external::{Answers, Calls, ExternalCounts};
use crate::identity::{IdentityRule, Named, RuleId};
use crate::keys::EntryId;

/// How many APIs may have named one caller before the oldest name is made again.
const MAX_NAMES: usize = 8;

/// What is known of a token whose signature and static claims are good.
#[derive(Debug)]
pub(crate) struct KnownToken {
    pub(crate) identity: Arc<Identity>,
    pub(crate) times: TokenTimes,
    pub(crate) confirmation: Option<Confirmation>,
    ends_ms: Option<i64>,
    /// By the monotonic clock: from then on it has to be found out anew.
    until: Option<Duration>,
    /// The generation of the set it was verified with, where that is not the issuer's but a client's own.
    pub(crate) published: Option<u64>,
    names: RefCell<Vec<(RuleId, Named)>>,
}

impl KnownToken {
    pub(crate) const fn new(
        identity: Arc<Identity>,
        times: TokenTimes,
        ends_ms: Option<i64>,
        confirmation: Option<Confirmation>,
    ) -> Self {
        Self {
            identity,
            times,
            confirmation,
            ends_ms,
            until: None,
            published: None,
            names: RefCell::new(Vec::new()),
        }
    }

    /// The same, verified with this generation of what a client publishes.
    pub(crate) const fn by_published(mut self, generation: Option<u64>) -> Self {
        self.published = generation;
        self
    }

    /// The same, to be remembered no longer than this, by the monotonic clock.
    pub(crate) const fn until(mut self, until: Duration) -> Self {
        self.until = Some(until);
        self
    }

    /// Whether it still counts as known.
    fn counts(&self, now: Moment) -> bool {
        self.ends_ms.is_none_or(|end| now.unix_ms < end) && self.until.is_none_or(|end| now.monotonic < end)
    }

    /// What an API calls the caller; made once, then remembered. Only for rules that read nothing but the token.
    pub(crate) fn named(&self, rule: &IdentityRule) -> Result<Named, Rejection> {
        if let Some((_, named)) = self.names.borrow().iter().find(|(id, _)| *id == rule.id()) {
            return Ok(named.clone());
        }
        let named = rule.name(&self.identity, &[])?;
        let mut names = self.names.borrow_mut();
        if names.len() >= MAX_NAMES {
            names.remove(0);
        }
        names.push((rule.id(), named.clone()));
        Ok(named)
    }
}

/// The memory of one worker. Neither shared nor locked.
#[derive(Debug)]
pub struct WorkerTokens {
    tokens: RefCell<Tokens>,
    certificates: RefCell<Vec<Option<HeldCertificate>>>,
    passwords: PasswordMemory,
    hasher: ahash::RandomState,
    answers: Answers,
    calls: Calls,
}

/// What is known of a certificate: who holds it, and whose it is among registered clients.
#[derive(Clone, Debug)]
pub(crate) struct KnownCertificate {
    pub(crate) identity: Arc<Identity>,
    pub(crate) ownership: Ownership,
}

#[derive(Clone, Debug)]
struct HeldCertificate {
    certificate: Arc<PeerCertificate>,
    owners: Arc<CertificateOwners>,
    known: KnownCertificate,
}

/// Certificates whose identity is remembered. Two that meet at one place push each other out.
const CERTIFICATES: usize = 1024;

#[derive(Debug)]
struct Tokens {
    slots: HashMap<u64, Slot, ahash::RandomState>,
    /// The keys of `slots` in a ring, for the hand that looks for what can go.
    ring: Vec<u64>,
    hand: usize,
    bytes: usize,
    max_bytes: usize,
    counts: CacheCounts,
}

#[derive(Debug)]
struct Slot {
    token: Box<[u8]>,
    entry: EntryId,
    generation: u64,
    known: Rc<KnownToken>,
    bytes: usize,
    used: Cell<bool>,
    /// Its place in the ring.
    at: Cell<usize>,
}

/// How the memory for tokens is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Tokens that were known.
    pub hits: u64,
    /// Tokens that were not.
    pub misses: u64,
    /// Tokens forgotten to make room.
    pub evictions: u64,
    /// Tokens held now.
    pub held: usize,
    /// Bytes they take, about.
    pub bytes: usize,
}

impl WorkerTokens {
    /// An empty memory that takes about `max_bytes` for tokens.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            tokens: RefCell::new(Tokens {
                slots: HashMap::default(),
                ring: Vec::new(),
                hand: 0,
                bytes: 0,
                max_bytes,
                counts: CacheCounts::default(),
            }),
            certificates: RefCell::new(vec![None; CERTIFICATES]),
            passwords: PasswordMemory::default(),
            hasher: ahash::RandomState::new(),
            answers: Answers::default(),
            calls: Calls::default(),
        }
    }

    /// What external services have answered.
    pub(crate) const fn answers(&self) -> &Answers {
        &self.answers
    }

    /// The calls to external services that are under way.
    pub(crate) const fn calls(&self) -> &Calls {
        &self.calls
    }

    /// What came of the requests about which external services decide.
    pub const fn external_counts(&self) -> ExternalCounts {
        self.calls.counts()
    }

    /// What it remembers of passwords.
    pub(crate) const fn passwords(&self) -> &PasswordMemory {
        &self.passwords
    }

    /// How many passwords it knew and how many it did not.
    pub fn password_counts(&self) -> (u64, u64) {
        self.passwords.counts()
    }

    /// How it is doing.
    pub fn counts(&self) -> CacheCounts {
        let tokens = self.tokens.borrow();
        CacheCounts { held: tokens.slots.len(), bytes: tokens.bytes, ..tokens.counts }
    }

    /// Whether exactly this token is known under this entry, under any generation of its keys.
    pub(crate) fn holds(&self, entry: EntryId, token: &[u8]) -> bool {
        let tokens = self.tokens.borrow();
        tokens.slots.get(&self.hash(entry, token)).is_some_and(|slot| slot.is(entry, token))
    }

    /// The same as [`Self::find`], and it counts as no use.
    pub(crate) fn peek(
        &self,
        entry: EntryId,
        generation: u64,
        token: &[u8],
        now: Moment,
    ) -> Option<Rc<KnownToken>> {
        let tokens = self.tokens.borrow();
        let slot = tokens.slots.get(&self.hash(entry, token)).filter(|slot| slot.is(entry, token))?;
        (slot.generation == generation && slot.known.counts(now)).then(|| slot.known.clone())
    }

    /// What is known of exactly this token, under this entry and this generation of its keys.
    pub(crate) fn find(
        &self,
        entry: EntryId,
        generation: u64,
        token: &[u8],
        now: Moment,
    ) -> Option<Rc<KnownToken>> {
        let hash = self.hash(entry, token);
        let mut tokens = self.tokens.borrow_mut();
        let found = tokens.slots.get(&hash).filter(|slot| slot.is(entry, token));
        let Some(slot) = found else {
            tokens.counts.misses += 1;
            return None;
        };
        if slot.generation != generation || !slot.known.counts(now) {
            tokens.remove(hash);
            tokens.counts.misses += 1;
            return None;
        }
        slot.used.set(true);
        let known = slot.known.clone();
        tokens.counts.hits += 1;
        Some(known)
    }

    /// Remembers a token, if it ends. Only for tokens whose times are good now: what is refused is never
    /// remembered, so garbage cannot push good tokens out.
    pub(crate) fn remember(&self, entry: EntryId, generation: u64, token: &[u8], known: &Rc<KnownToken>) {
        if known.ends_ms.is_none() && known.until.is_none() {
            return;
        }
        let slot = Slot {
            token: token.into(),
            entry,
            generation,
            known: known.clone(),
            bytes: weight(token),
            used: Cell::new(false),
            at: Cell::new(0),
        };
        self.tokens.borrow_mut().insert(self.hash(entry, token), slot);
    }

    /// What is known of a certificate among these clients, found out once for each connection. It is found by the
    /// thumbprint and counts only for the very same object, so what a connection's own verification found stays with it.
    pub(crate) fn certificate(
        &self,
        certificate: &Arc<PeerCertificate>,
        owners: &Arc<CertificateOwners>,
    ) -> KnownCertificate {
        let hash = self.hasher.hash_one(certificate.thumbprint);
        let place = usize::try_from(hash).unwrap_or(0) % CERTIFICATES;
        let mut held = self.certificates.borrow_mut();
        let remembered = held.get(place).and_then(Option::as_ref);
        if let Some(held) = remembered
            .filter(|held| Arc::ptr_eq(&held.certificate, certificate) && Arc::ptr_eq(&held.owners, owners))
        {
            return held.known.clone();
        }
        let ownership = owners.find(certificate);
        let client = match &ownership {
            Ownership::Of(client) => Some(client),
            Ownership::Nobodys | Ownership::Contested => None,
        };
        let identity = Arc::new(certificate::identity(certificate, client));
        let known = KnownCertificate { identity, ownership };
        if let Some(free) = held.get_mut(place) {
            let (certificate, owners) = (certificate.clone(), owners.clone());
            *free = Some(HeldCertificate { certificate, owners, known: known.clone() });
        }
        known
    }

    /// Tokens are chosen by strangers, so the hash is keyed; a collision costs a verification, no more.
    fn hash(&self, entry: EntryId, token: &[u8]) -> u64 {
        self.hasher.hash_one((entry, token))
    }
}

impl Slot {
    fn is(&self, entry: EntryId, token: &[u8]) -> bool {
        self.entry == entry && *self.token == *token
    }
}

impl Tokens {
    fn insert(&mut self, hash: u64, slot: Slot) {
        self.remove(hash);
        if slot.bytes > self.max_bytes {
            return;
        }
        self.bytes += slot.bytes;
        slot.at.set(self.ring.len());
        self.ring.push(hash);
        self.slots.insert(hash, slot);
        while self.bytes > self.max_bytes && self.step() {}
    }

    fn remove(&mut self, hash: u64) {
        let Some(slot) = self.slots.remove(&hash) else { return };
        self.bytes -= slot.bytes;
        let at = slot.at.get();
        self.ring.swap_remove(at);
        // The last one has taken its place.
        if let Some(moved) = self.ring.get(at).and_then(|hash| self.slots.get(hash)) {
            moved.at.set(at);
        }
    }

    /// Moves the hand on by one: a token that was used since the hand came by stays, any other is forgotten.
    /// Whether there was one.
    fn step(&mut self) -> bool {
        if self.hand >= self.ring.len() {
            self.hand = 0;
        }
        let Some(hash) = self.ring.get(self.hand).copied() else { return false };
        if self.slots.get(&hash).is_some_and(|slot| slot.used.replace(false)) {
            self.hand += 1;
        } else {
            self.remove(hash);
            self.counts.evictions += 1;
        }
        true
    }
}

/// About what a token takes: its bytes, its claims, and what holds them together.
const fn weight(token: &[u8]) -> usize {
    1024 + 3 * token.len()
}
