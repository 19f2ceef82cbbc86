//! What may be used once and has been used: nonces, token ids, signatures.
//!
//! A credential that may be used once is *claimed*: the first claim is [`Claim::Fresh`], every later one
//! [`Claim::Seen`], until the credential is too old to be accepted anyhow. Looking and remembering are one step, so of
//! two requests with one credential exactly one gets through, on whatever worker they arrive.
//!
//! # What is remembered
//!
//! SipHash-2-4 with 128 bits, under a key that is made at every start: nobody can look for two credentials that meet,
//! of which 112 are kept: among a billion of them the odds that any two meet are one in 10^16. If they did, a good one
//! would be refused.
//! Names of spaces are hashed to a length of their own, so a key of one space never equals a key of another.
//!
//! # Bounds
//!
//! At most [`REPLAYS`] entries. One takes 24 bytes in a table that grows with them and is between half and seven
//! eighths full: **29 to 57 bytes each, 120 to 240 MB when full**, next to nothing while nobody claims. What is full
//! refuses ([`Claim::Full`]): forgetting a live entry would let its credential be used again. So that one caller whose
//! credentials are good cannot fill the memory for all others, an entry says whose it is, and once the memory is half
//! full, nobody gets another one who holds an eighth of it ([`Claim::Crowded`]). So one owner holds half of it at most,
//! and five who work together can still fill it: authenticators keep the time short for which a credential is accepted.
//!
//! 256 parts, each behind a lock that is held for one look into a table; where a part is full, for one pass over its
//! entries, at most once a second.
//!
//! # Clocks
//!
//! An entry is over when **both** clocks say so: the wall clock, by which credentials are judged, has reached its end,
//! and as much time has passed on the monotonic clock. Setting the wall clock, forward and back, frees nothing early.
//!
//! A claim reads the clocks itself, under the lock of its part: by the time its request was opened, a credential whose
//! entry has been forgotten meanwhile would still look young enough to be fresh.
//!
//! # Several at once
//!
//! What one request uses up is claimed together ([`claim_all`]): all of it, or nothing.
//!
//! # Restarts
//!
//! Nothing is written to disk. Instead a credential **that says it was issued before the memory began is not fresh**
//! ([`Claim::Before`]): an earlier run, or a crashed one, may have let it through. The beginning is the first whole
//! second after the start, and a gateway whose policies demand single use listens from that second on
//! ([`Replays::not_before`]), so no honest caller is hurt beyond what it signed before. What is left open: a credential
//! dated *ahead* of our clock can be used once before a restart and once after it, if both fall within the time by
//! which it is ahead. Authenticators bound that by their leeway, and DPoP closes it with nonces.
//!
//! # Consistency
//!
//! One process. Two gateways know nothing of each other's claims, unless they share a store ([`Replays::share`]).

mod shares;
mod space;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use portcullis_core::{Clock, Moment};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::shared::SharedCounters;
use shares::{Mark, Shares};
pub use space::{Claim, ReplaySpace, SingleUse, claim_all};
use terms::Terms;

/// How many used credentials are remembered at most.
pub const REPLAYS: usize = 4 << 20;
/// Parts with a lock each.
const PARTS: usize = 256;

/// The memory for what may be used once. Clones are one memory; it outlives reloads.
#[derive(Clone, Debug)]
pub struct Replays(Arc<Memory>, &'static str);

/// One reading of the memory's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayFigures {
    /// Entries held.
    pub held: usize,
    /// Claims refused because there was no room, since the start.
    pub full: u64,
    /// Claims refused because their owner had its share, since the start.
    pub crowded: u64,
}

impl Replays {
    /// An empty memory that begins with the next whole second.
    pub fn new(now: Moment) -> Self {
        Self::with_capacity(REPLAYS, now)
    }

    pub(crate) fn with_capacity(capacity: usize, now: Moment) -> Self {
        // The standard library keys it from the system's randomness.
        let seed = RandomState::new();
        Self(
            Arc::new(Memory {
                hasher: SipHasher24::new_with_keys(seed.hash_one(0_u8), seed.hash_one(1_u8)),
                parts: (0..PARTS).map(|_| Mutex::default()).collect(),
                part_capacity: capacity.div_ceil(PARTS),
                began: now.unix_ms.div_euclid(1000).saturating_add(1),
                shares: Shares::of_capacity(capacity),
                terms: Mutex::default(),
                demanded: AtomicBool::new(false),
                full: AtomicU64::new(0),
                crowded: AtomicU64::new(0),
                shared: OnceLock::new(),
            }),
            "",
        )
    }

    /// From now on what is used up is noted there, too, and counts once at all gateways that do so.
    pub fn share(&self, counters: &SharedCounters) {
        // A second time is none: a gateway has one store.
        let _ = self.0.shared.set(counters.clone());
    }

    /// The keys of one kind, apart from those of every other name. The same name is the same space, also after a
    /// reload; so a name says all that tells its keys apart (`dpop`, `jti`), and nothing that an edit of
    /// the policies would change.
    pub fn space(&self, name: &str) -> ReplaySpace {
        self.0.demanded.store(true, Ordering::Relaxed);
        ReplaySpace::new(Arc::clone(&self.0), &self.full_name(name), None)
    }

    /// The same for a kind of credentials whose age is limited by rules alone: here one that takes them for so many seconds
    /// after they were made. None is fresh a second time under any of the rules, also of those that are yet to come.
    pub fn space_of_age(&self, name: &str, max_age: i64) -> ReplaySpace {
        self.0.demanded.store(true, Ordering::Relaxed);
        let name = self.full_name(name);
        let mut all = lock(&self.0.terms);
        let terms = all.entry(name.clone()).or_insert_with(|| Arc::new(Terms::new(max_age)));
        terms.allow(max_age);
        ReplaySpace::new(Arc::clone(&self.0), &name, Some(Arc::clone(terms)))
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.1)
    }

    /// The same memory, whose spaces are apart from all others: what is claimed there is used up for nobody else.
    #[must_use]
    pub fn on_trial(&self) -> Self {
        Self(Arc::clone(&self.0), "trial ")
    }

    /// The second before which no request can be told from a repeated one; `None` if nobody asked for a space.
    pub fn not_before(&self) -> Option<i64> {
        self.0.demanded.load(Ordering::Relaxed).then_some(self.0.began)
    }

    /// Forgets what is over. To be called every few seconds by the background: it looks at every entry, holding one
    /// part's lock at a time.
    pub fn sweep(&self, now: Moment) {
        for part in &self.0.parts {
            lock(part).forget_what_is_over(&self.0.shares, now);
        }
    }

    /// The memory's numbers at this moment.
    pub fn figures(&self) -> ReplayFigures {
        let held = self.0.parts.iter().map(|part| lock(part).entries.len()).sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReplayFigures { held, full: count(&self.0.full), crowded: count(&self.0.crowded) }
    }
}

pub(crate) struct Memory {
    hasher: SipHasher24,
    parts: Box<[Mutex<Part>]>,
    part_capacity: usize,
    began: i64,
    shares: Shares,
    /// By the full name of a space.
    terms: Mutex<HashMap<String, Arc<Terms>>>,
    demanded: AtomicBool,
    full: AtomicU64,
    crowded: AtomicU64,
    /// Where other gateways note what they let through.
    shared: OnceLock<SharedCounters>,
}

/// A credential, as it is remembered. Bytes, so that an entry has no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag([u8; 14]);

/// Whose an entry is, and when it is over: whole seconds, rounded up, of the wall clock and of the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    unix: [u8; 4],
    monotonic: [u8; 4],
    owner: Mark,
}

/// An entry that a claim has made.
struct Claimed {
    tag: Tag,
    entry: Entry,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<Tag, Entry, BuildHasherDefault<TagHasher>>,
    /// Second of the monotonic clock in which a pass over the entries found no room.
    passed_at: Option<u32>,
}

impl Memory {
    fn tag(&self, parts: [&[u8]; 2]) -> Tag {
        let mut hasher = self.hasher;
        parts.iter().for_each(|part| hasher.write(part));
        let hash = hasher.finish128();
        let mut bytes = hash.h1.to_le_bytes().into_iter().chain(hash.h2.to_le_bytes());
        Tag(std::array::from_fn(|_| bytes.next().unwrap_or_default()))
    }

    /// The part that holds a tag. There are [`PARTS`], so there is always one.
    fn part(&self, tag: Tag) -> Option<&Mutex<Part>> {
        self.parts.get(usize::from(tag.part()) % PARTS)
    }

    fn claim(
        &self,
        tag: Tag,
        owner: Mark,
        (issued, until): (i64, i64),
        terms: Option<&Terms>,
        clock: &Clock,
    ) -> Result<Claimed, Claim> {
        if issued < self.began {
            return Err(Claim::Before);
        }
        let Some(part) = self.part(tag) else { return Err(Claim::Full) };
        let mut part = lock(part);
        // SECURITY: read under the lock, so no sweep that has forgotten the entry of an earlier use is ahead of it.
        let now = clock.now();
        let now_s = now.unix_seconds();
        let kept = terms.map_or(Some(until), |terms| terms.kept_until(issued, now_s));
        let Some(kept) = kept.filter(|_| until > now_s) else { return Err(Claim::Over) };
        let entry = Entry::until(kept.max(until), owner, now);
        let claim = part.claim(tag, entry, &self.shares, self.part_capacity, now);
        match claim {
            Claim::Fresh => return Ok(Claimed { tag, entry }),
            Claim::Full => self.full.fetch_add(1, Ordering::Relaxed),
            Claim::Crowded => self.crowded.fetch_add(1, Ordering::Relaxed),
            Claim::Seen | Claim::Over | Claim::Before | Claim::Unknown => 0,
        };
        Err(claim)
    }

    /// Takes a claim back, of which nothing has come.
    fn release(&self, claimed: &Claimed) {
        let Some(part) = self.part(claimed.tag) else { return };
        let entries = &mut lock(part).entries;
        // SECURITY: only this claim's own entry. Where it is over by now, the place may be another one's, who ends later.
        if entries.get(&claimed.tag) == Some(&claimed.entry) {
            entries.remove(&claimed.tag);
            self.shares.give_back(claimed.entry.owner);
        }
    }
}

impl Part {
    fn claim(&mut self, tag: Tag, entry: Entry, shares: &Shares, capacity: usize, now: Moment) -> Claim {
        if let Some(known) = self.entries.get(&tag) {
            if !known.is_over(now) {
                return Claim::Seen;
            }
            shares.give_back(known.owner);
            self.entries.remove(&tag);
        }
        if self.entries.len() >= capacity && !self.make_room(shares, capacity, now) {
            return Claim::Full;
        }
        // Tags spread evenly, so this part is as full as all of them.
        let crowded = self.entries.len() >= capacity.div_ceil(2);
        if !shares.take(entry.owner, crowded) {
            return Claim::Crowded;
        }
        self.entries.insert(tag, entry);
        Claim::Fresh
    }

    fn make_room(&mut self, shares: &Shares, capacity: usize, now: Moment) -> bool {
        let second = Some(monotonic_seconds(now.monotonic));
        if self.passed_at == second {
            return false;
        }
        self.forget_what_is_over(shares, now);
        let room = self.entries.len() < capacity;
        self.passed_at = if room { None } else { second };
        room
    }

    fn forget_what_is_over(&mut self, shares: &Shares, now: Moment) {
        self.entries.retain(|_, entry| {
            let over = entry.is_over(now);
            if over {
                shares.give_back(entry.owner);
            }
            !over
        });
        // A flood that is over gives its memory back.
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len().saturating_mul(2));
        }
    }
}

impl Entry {
    fn until(end: i64, owner: Mark, now: Moment) -> Self {
        let left = end.saturating_sub(now.unix_seconds());
        let monotonic = seconds(left.saturating_add(1)).saturating_add(monotonic_seconds(now.monotonic));
        Self { unix: seconds(end).to_le_bytes(), monotonic: monotonic.to_le_bytes(), owner }
    }

    fn is_over(self, now: Moment) -> bool {
        now.unix_seconds() >= i64::from(u32::from_le_bytes(self.unix))
            && monotonic_seconds(now.monotonic) >= u32::from_le_bytes(self.monotonic)
    }
}

impl Tag {
    /// The byte that chooses the part.
    const fn part(self) -> u8 {
        let Self([.., part]) = self;
        part
    }
}

/// A tag is a keyed hash already: what does not choose the part spreads within it.
impl Hash for Tag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

fn seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

fn monotonic_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// What the locks guard is whole at every moment, so a panic elsewhere poisons nothing.
fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands on what a tag gives it.
#[derive(Default)]
struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replays(since {})", self.began)
    }
}
