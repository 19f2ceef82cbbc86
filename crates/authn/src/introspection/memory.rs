//! Answers that were given not long ago.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use portcullis_jose::digest::sha256;

/// What a token is known by: its SHA-256 (INT-04). SECURITY: whoever sees what is remembered cannot use it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &[u8]) -> Self {
        Self(sha256(token))
    }
}

/// A bounded memory of answers by token. The hash is keyed, since tokens are chosen by strangers. The oldest answer goes
/// first: it would soon be too old anyway.
pub(super) struct Memory<T> {
    slots: HashMap<TokenDigest, Slot<T>, ahash::RandomState>,
    /// In the order they were given; one that was given again has a newer number in its slot.
    order: VecDeque<(u64, TokenDigest)>,
    next: u64,
    bytes: usize,
    max_bytes: usize,
    evictions: u64,
}

/// What an answer takes beside itself, about.
const ENTRY_BYTES: usize = 256;

struct Slot<T> {
    answer: T,
    number: u64,
    until: Duration,
    bytes: usize,
}

impl<T> Memory<T> {
    pub(super) fn new(max_bytes: usize) -> Self {
        let slots = HashMap::default();
        Self { slots, order: VecDeque::new(), next: 0, bytes: 0, max_bytes, evictions: 0 }
    }

    /// What was said of exactly this token, if that still counts.
    pub(super) fn find(&self, token: TokenDigest, now: Duration) -> Option<&T> {
        self.slots.get(&token).filter(|slot| now < slot.until).map(|slot| &slot.answer)
    }

    /// Remembers an answer that takes about so many bytes.
    pub(super) fn remember(
        &mut self,
        token: TokenDigest,
        answer: T,
        bytes: usize,
        until: Duration,
        now: Duration,
    ) {
        // The rest is what holds it all together.
        let bytes = bytes + ENTRY_BYTES;
        if until <= now || bytes > self.max_bytes {
            return;
        }
        let number = self.next;
        self.next += 1;
        let slot = Slot { answer, number, until, bytes };
        if let Some(replaced) = self.slots.insert(token, slot) {
            self.bytes -= replaced.bytes;
        }
        self.bytes += bytes;
        self.order.push_back((number, token));
        while let Some((number, oldest)) = self.order.front() {
            let slot = self.slots.get(oldest).filter(|slot| slot.number == *number);
            let over = self.bytes > self.max_bytes;
            let (gone, crowded_out) = match slot {
                None => (true, false),
                Some(slot) => (slot.until <= now || over, slot.until > now),
            };
            if !gone {
                break;
            }
            if slot.is_some()
                && let Some(removed) = self.slots.remove(oldest)
            {
                self.bytes -= removed.bytes;
                self.evictions += u64::from(crowded_out);
            }
            self.order.pop_front();
        }
    }

    /// Answers held now, those too old among them.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes they take, about.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers that went before their time to make room.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRY_BYTES, Memory, TokenDigest};
    use std::time::Duration;

    const NOW: Duration = Duration::from_secs(100);

    fn token(text: &str) -> TokenDigest {
        TokenDigest::of(text.as_bytes())
    }

    fn after(seconds: u64) -> Duration {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn answers_count_for_exactly_their_token_until_their_time() {
        let mut memory = Memory::new(10_000);
        memory.remember(token("token"), 1, 10, after(30), NOW);
        assert_eq!(memory.find(token("token"), NOW), Some(&1));
        assert_eq!(memory.find(token("token"), after(29)), Some(&1));
        assert_eq!(memory.find(token("token"), after(30)), None);
        assert_eq!(memory.find(token("toke"), NOW), None);
        assert_eq!(memory.find(token("Token"), NOW), None);
        memory.remember(token("token"), 2, 10, after(60), after(31));
        assert_eq!(memory.find(token("token"), after(59)), Some(&2));
        assert_eq!((memory.len(), memory.bytes()), (1, 10 + ENTRY_BYTES));
        memory.remember(token("spent"), 3, 10, NOW, NOW);
        assert_eq!(memory.len(), 1, "nothing is remembered for no time");
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_goes_first() {
        let mut memory = Memory::new(10 * (ENTRY_BYTES + 10));
        for number in 0..1_000_u32 {
            memory.remember(token(&number.to_string()), number, 10, after(30), NOW);
        }
        assert_eq!(memory.len(), 10);
        assert!(memory.bytes() <= 10 * (ENTRY_BYTES + 10));
        assert_eq!(memory.evictions(), 990);
        assert!(memory.order.len() <= 10);
        assert_eq!(memory.find(token("999"), NOW), Some(&999));
        assert_eq!(memory.find(token("989"), NOW), None);
        // What is over is dropped as soon as something else comes, and is not counted as crowded out.
        memory.remember(token("late"), 0, 10, after(60), after(31));
        assert_eq!((memory.len(), memory.evictions()), (1, 990));
    }

    #[test]
    fn one_token_asked_for_again_and_again_takes_its_room_once() {
        let mut memory = Memory::new(1_000);
        for number in 0..1_000 {
            memory.remember(token("same"), number, 10, after(30), NOW);
        }
        assert_eq!((memory.len(), memory.bytes(), memory.evictions()), (1, 10 + ENTRY_BYTES, 0));
        assert!(memory.order.len() <= 1_000);
        memory.remember(token("other"), 7, 10, after(90), after(31));
        assert_eq!((memory.len(), memory.order.len()), (1, 1));
    }

    #[test]
    fn an_answer_too_large_for_the_memory_is_not_kept() {
        let mut memory = Memory::new(1_000);
        memory.remember(token("small"), 1, 10, after(30), NOW);
        memory.remember(token("large"), 2, 5_000, after(30), NOW);
        assert_eq!(memory.find(token("large"), NOW), None);
        assert_eq!(memory.find(token("small"), NOW), Some(&1), "and pushes nothing out");
    }
}
