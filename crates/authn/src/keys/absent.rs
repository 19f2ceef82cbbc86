//! Key ids that a source did not have when it was asked for them (JKS-06).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How many are remembered. Beyond that the oldest is forgotten; forgetting costs a look at the cool-down.
const MAX_KIDS: usize = 1024;

/// How long one is remembered. Short, because the key may be published any time.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30);

/// A bounded memory of key ids, by keyed hash: what a stranger writes into a token is never stored.
#[derive(Debug, Default)]
pub(crate) struct AbsentKids {
    until: HashMap<u64, Duration, ahash::RandomState>,
    order: VecDeque<u64>,
}

impl AbsentKids {
    /// Whether the key id was missing a moment ago.
    pub(crate) fn contains(&self, kid: &str, now: Duration) -> bool {
        self.until.get(&self.hash(kid)).is_some_and(|until| now < *until)
    }

    /// Remembers that it was missing.
    pub(crate) fn remember(&mut self, kid: &str, now: Duration) {
        let hash = self.hash(kid);
        if self.until.insert(hash, now.saturating_add(REMEMBERED)).is_some() {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > MAX_KIDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// Forgets all: a fetch has succeeded, so the set itself is the answer.
    pub(crate) fn clear(&mut self) {
        self.until.clear();
        self.order.clear();
    }

    fn hash(&self, kid: &str) -> u64 {
        self.until.hasher().hash_one(kid)
    }
}

#[cfg(test)]
mod tests {
    use super::{AbsentKids, MAX_KIDS, REMEMBERED};
    use std::time::Duration;

    #[test]
    fn the_memory_is_short_and_bounded() {
        let mut absent = AbsentKids::default();
        let now = Duration::from_secs(100);
        absent.remember("first", now);
        assert!(absent.contains("first", now));
        assert!(!absent.contains("other", now));
        assert!(!absent.contains("first", now + REMEMBERED));
        for kid in 0..MAX_KIDS * 3 {
            absent.remember(&kid.to_string(), now);
            absent.remember(&kid.to_string(), now);
        }
        assert_eq!(absent.until.len(), MAX_KIDS);
        assert_eq!(absent.order.len(), MAX_KIDS);
        assert!(!absent.contains("first", now));
        absent.clear();
        assert!(absent.until.is_empty() && absent.order.is_empty());
    }
}
