//! What one worker remembers of tokens and certificates it has seen.
//!
//! SECURITY: facts are remembered, verdicts are not. A token that is known has a good signature and good static
//! claims under one issuer entry and one generation of that entry's keys. Its times, its bindings and everything
//! the policy says are judged on every request (JKS-09, CNF-06).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_core::{Identity, Moment, PeerCertificate, Rejection};
use portcullis_jose::{Confirmation, TokenTimes};

use crate::certificate;
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
    names: RefCell<Vec<(RuleId, Named)>>,
}

impl KnownToken {
    pub(crate) const fn new(
        identity: Arc<Identity>,
        times: TokenTimes,
        ends_ms: Option<i64>,
        confirmation: Option<Confirmation>,
    ) -> Self {
        Self { identity, times, confirmation, ends_ms, names: RefCell::new(Vec::new()) }
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
    certificates: RefCell<Vec<Option<Arc<Identity>>>>,
    hasher: ahash::RandomState,
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
            hasher: ahash::RandomState::new(),
        }
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
        if slot.generation != generation || slot.known.ends_ms.is_some_and(|end| now.unix_ms >= end) {
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
        if known.ends_ms.is_none() {
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

    /// The identity of the holder of a certificate, made once for each connection. It is found by the thumbprint
    /// and counts only for the very same object, so what a connection's own verification found stays with it.
    pub(crate) fn certificate_identity(&self, certificate: &Arc<PeerCertificate>) -> Arc<Identity> {
        let hash = self.hasher.hash_one(certificate.thumbprint);
        let place = usize::try_from(hash).unwrap_or(0) % CERTIFICATES;
        let mut identities = self.certificates.borrow_mut();
        let remembered = identities.get(place).and_then(Option::as_ref);
        if let Some(identity) = remembered.filter(|identity| {
            identity.certificate.as_ref().is_some_and(|known| Arc::ptr_eq(known, certificate))
        }) {
            return identity.clone();
        }
        let identity = Arc::new(certificate::identity(certificate));
        if let Some(free) = identities.get_mut(place) {
            *free = Some(identity.clone());
        }
        identity
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use portcullis_core::json::{Limits, parse_object};
    use portcullis_core::{AuthMethod, Identity};
    use portcullis_jose::{Algorithm, ClaimRules, CompactJws, JwsLimits, SigningKey};
    use serde_json::json;

    use super::{KnownToken, WorkerTokens, weight};
    use crate::identity::IdentityRule;
    use crate::keys::EntryId;
    use crate::testing::{NOW, moment, offline, peer, peer_named};

    fn entry(description: u8) -> EntryId {
        offline().entry_id([description; 32])
    }

    fn known(ends_ms: Option<i64>) -> Rc<KnownToken> {
        let key = SigningKey::generate(Algorithm::Hs256).expect("a key");
        let token = key.sign(json!({}), &json!({})).expect("a signature");
        let jws = CompactJws::parse(&token, JwsLimits::default()).expect("a token");
        let claims = format!(r#"{{"iss":"i","aud":"a","sub":"s","exp":{}}}"#, NOW + 300);
        let claims = parse_object(claims.as_bytes(), Limits::default()).expect("claims");
        let rules = ClaimRules::new("i", vec!["a".into()]);
        let times = rules.check_static(jws.header(), &claims).expect("good claims");
        let identity = Arc::new(Identity {
            method: AuthMethod::Jwt,
            key: "jwt:i:s".into(),
            subject: "s".into(),
            issuer: Some("i".into()),
            client: None,
            claims: Arc::new(claims),
            scopes: Arc::default(),
            certificate: None,
            expires_at: None,
        });
        Rc::new(KnownToken::new(identity, times, ends_ms, None))
    }

    /// Security-reliability 2.2: all bytes, the entry, the generation, and `exp`.
    #[test]
    fn only_exactly_the_same_question_is_answered() {
        let worker = WorkerTokens::new(1 << 20);
        let (one, other) = (entry(1), entry(2));
        let end = (NOW + 300) * 1000;
        let token = b"aaaa.bbbb.cccc";
        worker.remember(one, 7, token, &known(Some(end)));
        let finds = |id, generation, token: &[u8], second| {
            worker.find(id, generation, token, moment(second)).is_some()
        };
        assert!(finds(one, 7, token, NOW));
        assert!(!finds(other, 7, token, NOW));
        assert!(!finds(one, 7, b"aaaa.bbbb.cccd", NOW));
        assert!(!finds(one, 7, b"aaaa.bbbb.ccc", NOW));
        assert!(!finds(one, 7, b"aaaa.bbbb.ccccc", NOW));
        assert!(worker.holds(one, token) && !worker.holds(other, token));
        assert!(finds(one, 7, token, NOW + 299));
        assert!(!finds(one, 7, token, NOW + 300));
        assert!(!finds(one, 7, token, NOW), "gone at its end");
        worker.remember(one, 7, token, &known(Some(end)));
        assert!(!finds(one, 8, token, NOW));
        assert_eq!(worker.counts().held, 0, "gone with its keys");
        worker.remember(one, 7, token, &known(None));
        assert_eq!(worker.counts().held, 0, "what never ends is not remembered");
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let token = |number: usize| format!("{number:0>700}").into_bytes();
        let room = 100;
        let worker = WorkerTokens::new(room * weight(&token(0)));
        let (id, known) = (entry(1), known(Some(i64::MAX)));
        for number in 0..room {
            worker.remember(id, 1, &token(number), &known);
        }
        assert_eq!((worker.counts().held, worker.counts().evictions), (room, 0));
        for number in room..room * 50 {
            for used in 0..10 {
                assert!(worker.find(id, 1, &token(used), moment(NOW)).is_some(), "{number}: {used}");
            }
            worker.remember(id, 1, &token(number), &known);
            let counts = worker.counts();
            assert!(counts.bytes <= room * weight(&token(0)));
            assert_eq!(counts.bytes, counts.held * weight(&token(0)));
        }
        assert_eq!(worker.counts().held, room);
        let tokens = worker.tokens.borrow();
        assert_eq!(tokens.ring.len(), tokens.slots.len());
        assert!(tokens.slots.iter().all(|(hash, slot)| tokens.ring[slot.at.get()] == *hash));
    }

    #[test]
    fn a_memory_without_room_remembers_nothing() {
        let worker = WorkerTokens::new(0);
        worker.remember(entry(1), 1, b"a.b.c", &known(Some(i64::MAX)));
        assert_eq!(worker.counts().held, 0);
    }

    #[test]
    fn a_caller_is_named_once_for_each_rule() {
        let known = known(Some(i64::MAX));
        let rule = IdentityRule::compile(None);
        let first = known.named(&rule).expect("a name");
        let again = known.named(&rule).expect("a name");
        assert!(Arc::ptr_eq(&first.name, &again.name) && Arc::ptr_eq(&first.key, &again.key));
    }

    /// Two connections may hold one certificate and differ in what their verifiers found.
    #[test]
    fn a_certificate_is_known_for_its_own_connection_only() {
        let worker = WorkerTokens::new(0);
        let certificate = peer_named("a", "tpp");
        let first = worker.certificate_identity(&certificate);
        assert!(Arc::ptr_eq(&first, &worker.certificate_identity(&certificate)));
        let elsewhere = peer(&certificate.der, "staff");
        let other = worker.certificate_identity(&elsewhere);
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(&*other.certificate.as_ref().expect("a certificate").trusted_by, ["staff".into()]);
        assert_eq!(first.key, other.key);
    }
}
