//! What may be used once and has been used: nonces, token ids, signatures.
//!
//! A credential that may be used once is *claimed*: the first claim is [`Claim::Fresh`], every later one
//! [`Claim::Seen`], until the credential is too old to be accepted anyhow. Looking and remembering are one step, so of
//! two requests with one credential exactly one gets through, on whatever worker they arrive.
//!
//! # What is remembered
//!
//! SipHash-2-4 with 128 bits, under a key that is made at every start: nobody can look for two credentials that meet,
//! and among a billion of them the odds that any two do are one in 10^20. If they did, a good one would be refused.
//! Names of spaces are hashed to a length of their own, so a key of one space never equals a key of another.
//!
//! # Bounds
//!
//! At most [`REPLAYS`] entries. One takes 24 bytes in a table that grows with them and is between half and seven
//! eighths full: **29 to 57 bytes each, 120 to 240 MB when full**, next to nothing while nobody claims. What is full
//! refuses ([`Claim::Full`]): forgetting a live entry would let its credential be used again. So that one caller whose
//! credentials are good cannot fill the memory for all others, each owner has a share of it ([`ReplaySpace::claim_for`]):
//! a quarter at most. Four who work together can still fill it, and authenticators keep the time short for which a
//! credential is accepted.
//!
//! 256 parts, each behind a lock that is held for one look into a table; where a part is full, for one pass over its
//! entries, at most once a second.
//!
//! # Clocks
//!
//! An entry is over when **both** clocks say so: the wall clock, by which credentials are judged, has reached its end,
//! and as much time has passed on the monotonic clock. Setting the wall clock, forward and back, frees nothing early.
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
//! One process. Two gateways know nothing of each other's claims.

mod shares;
mod space;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::Moment;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use shares::{Share, Shares};
pub use space::{Claim, ReplaySpace};

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
                demanded: AtomicBool::new(false),
                full: AtomicU64::new(0),
            }),
            "",
        )
    }

    /// The keys of one kind, apart from those of every other name. The same name is the same space, also after a
    /// reload; so a name says all that tells its keys apart (`dpop`, `jti <issuer>`), and nothing that an edit of
    /// the policies would change.
    pub fn space(&self, name: &str) -> ReplaySpace {
        self.0.demanded.store(true, Ordering::Relaxed);
        ReplaySpace::new(Arc::clone(&self.0), &format!("{}{name}", self.1))
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
            lock(part).forget_what_is_over(now);
        }
    }

    /// The memory's numbers at this moment.
    pub fn figures(&self) -> ReplayFigures {
        let held = self.0.parts.iter().map(|part| lock(part).entries.len()).sum();
        ReplayFigures { held, full: self.0.full.load(Ordering::Relaxed) }
    }
}

pub(crate) struct Memory {
    hasher: SipHasher24,
    parts: Box<[Mutex<Part>]>,
    part_capacity: usize,
    began: i64,
    shares: Shares,
    demanded: AtomicBool,
    full: AtomicU64,
}

/// A credential, as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tag(u64, u64);

/// When an entry is over: whole seconds, rounded up, of the wall clock and of the monotonic one.
#[derive(Clone, Copy, Debug)]
struct End {
    unix: u32,
    monotonic: u32,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<Tag, End, BuildHasherDefault<TagHasher>>,
    /// Second of the monotonic clock in which a pass over the entries found no room.
    passed_at: Option<u32>,
}

impl Memory {
    fn tag(&self, parts: [&[u8]; 2]) -> Tag {
        let mut hasher = self.hasher;
        parts.iter().for_each(|part| hasher.write(part));
        let hash = hasher.finish128();
        Tag(hash.h1, hash.h2)
    }

    fn claim(&self, tag: Tag, share: Option<Share<'_>>, issued: i64, until: i64, now: Moment) -> Claim {
        let now_s = now.unix_seconds();
        if issued < self.began {
            return Claim::Before;
        }
        let left = until.saturating_sub(now_s);
        if left <= 0 {
            return Claim::Seen;
        }
        let end = End {
            unix: seconds(until),
            monotonic: seconds(left.saturating_add(1)).saturating_add(monotonic_seconds(now.monotonic)),
        };
        let at = usize::try_from(tag.1).unwrap_or_default() % PARTS;
        // There are PARTS parts, so there is always one.
        let Some(part) = self.parts.get(at) else { return Claim::Full };
        let claim = lock(part).claim(tag, end, share.map(|share| (share, left)), self.part_capacity, now);
        if claim == Claim::Full {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        claim
    }
}

impl Part {
    fn claim(
        &mut self,
        tag: Tag,
        end: End,
        share: Option<(Share<'_>, i64)>,
        capacity: usize,
        now: Moment,
    ) -> Claim {
        if let Some(known) = self.entries.get_mut(&tag) {
            if !known.is_over(now) {
                return Claim::Seen;
            }
            if !share.is_none_or(|(share, left)| share.take(left, now)) {
                return Claim::Full;
            }
            *known = end;
            return Claim::Fresh;
        }
        if self.entries.len() >= capacity && !self.make_room(capacity, now) {
            return Claim::Full;
        }
        if !share.is_none_or(|(share, left)| share.take(left, now)) {
            return Claim::Full;
        }
        self.entries.insert(tag, end);
        Claim::Fresh
    }

    fn make_room(&mut self, capacity: usize, now: Moment) -> bool {
        let second = Some(monotonic_seconds(now.monotonic));
        if self.passed_at == second {
            return false;
        }
        self.forget_what_is_over(now);
        let room = self.entries.len() < capacity;
        self.passed_at = if room { None } else { second };
        room
    }

    fn forget_what_is_over(&mut self, now: Moment) {
        self.entries.retain(|_, end| !end.is_over(now));
        // A flood that is over gives its memory back.
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len().saturating_mul(2));
        }
    }
}

impl End {
    fn is_over(self, now: Moment) -> bool {
        now.unix_seconds() >= i64::from(self.unix) && monotonic_seconds(now.monotonic) >= self.monotonic
    }
}

fn seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

fn monotonic_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// What the locks guard is whole at every moment, so a panic elsewhere poisons nothing.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tag is a keyed hash already.
#[derive(Default)]
struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, half: u64) {
        // The second half, which is written last, also chooses the part; the first one spreads within it.
        self.0 = self.0.rotate_left(32) ^ half;
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replays(since {})", self.began)
    }
}
