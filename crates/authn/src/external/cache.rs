//! What one worker remembers of answers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use portcullis_core::{Identity, Moment};

/// Answers of one generation. Two are held, so a worker remembers up to twice as many.
const GENERATION: usize = 4096;

/// The longest key, in bytes; a longer one is not remembered.
const MAX_KEY: usize = 16 * 1024;

/// Names one compiled authenticator: answers do not outlive its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asker(u64);

impl Asker {
    /// One that no other authenticator of this process has.
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whom an answer named.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) identity: Arc<Identity>,
    /// The fields that go on to the upstream, if there are any.
    pub(crate) upstream: Option<Arc<HeaderMap>>,
    /// Until when it counts, by the monotonic clock; `None` where only for its own request.
    pub(crate) until: Option<Duration>,
}

/// Answers by asker and key.
type Generation = HashMap<(Asker, Box<[u8]>), Answered>;

/// Answers of external services, as long as they count. They belong to one worker; neither shared nor locked.
///
/// SECURITY: a key is compared byte for byte, and holds every part of the request that the policy names, among them
/// always the credential: an answer about one caller is never found by another. Only answers that allow are
/// remembered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    young: RefCell<Generation>,
    old: RefCell<Generation>,
}

impl Answers {
    /// What was answered to exactly this, if it still counts.
    pub(super) fn find(&self, asker: Asker, key: &[u8], now: Moment) -> Option<Answered> {
        // One allocation a look; the map of a boxed key cannot be asked by a pair of borrows.
        let whole = (asker, Box::from(key));
        let found = self.young.borrow().get(&whole).cloned();
        let found = match found {
            Some(found) => found,
            None => {
                let found = self.old.borrow_mut().remove(&whole)?;
                self.young.borrow_mut().insert(whole, found.clone());
                found
            }
        };
        found.until.is_some_and(|until| now.monotonic < until).then_some(found)
    }

    /// Remembers an answer that says how long it counts. The generation before the last one is forgotten when a
    /// generation is full.
    pub(super) fn remember(&self, asker: Asker, key: Box<[u8]>, answered: &Answered) {
        if answered.until.is_none() || key.len() > MAX_KEY {
            return;
        }
        let mut young = self.young.borrow_mut();
        if young.len() >= GENERATION {
            *self.old.borrow_mut() = std::mem::take(&mut *young);
        }
        young.insert((asker, key), answered.clone());
    }
}
