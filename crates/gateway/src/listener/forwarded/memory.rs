//! What one worker remembers of certificates that proxies told it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use portcullis_authn::sha256;
use portcullis_core::{Moment, PeerCertificate, Reason, Rejection};

use super::format::Found;

/// About as many bytes of certificates one half of the memory holds.
const HALF_BYTES: usize = 4 << 20;

/// Refusals one half of their memory holds; each takes a few hundred bytes.
const HALF_REFUSED: usize = 512;

/// How long a refusal is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// A bounded memory: what header bytes say, found by their digest, so that their length costs nothing. Only what was taken
/// gets in, so strangers cannot push anybody out. What is remembered is the certificate and the time in which its path
/// holds; whether that time is now is asked on every request.
///
/// SECURITY: refusals have a memory of their own and are forgotten after [`REFUSED_FOR`]: whoever sends one bad
/// certificate again and again, behind a proxy that takes anything, has its signatures checked once.
///
/// Two halves each: the older is dropped whole when the newer is full, and what is asked for moves to the newer.
#[derive(Debug, Default)]
pub(crate) struct ForwardedMemory {
    taken: Halves<Arc<PeerCertificate>>,
    refused: Halves<Refused>,
    counts: Cell<ForwardedCounts>,
}

/// What tells the bytes that were told, and under what, from all others.
pub(crate) type Mark = [u8; 32];

#[derive(Clone, Debug)]
struct Refused {
    rejection: Rejection,
    /// Until when it counts, by the monotonic clock.
    until: Duration,
}

#[derive(Debug)]
struct Halves<T> {
    newer: RefCell<Half<T>>,
    older: RefCell<Half<T>>,
}

/// Values, with what each weighs.
#[derive(Debug)]
struct Half<T> {
    entries: HashMap<Mark, (T, usize), RandomState>,
    weight: usize,
}

impl<T> Default for Half<T> {
    fn default() -> Self {
        Self { entries: HashMap::default(), weight: 0 }
    }
}

impl<T> Default for Halves<T> {
    fn default() -> Self {
        Self { newer: RefCell::default(), older: RefCell::default() }
    }
}

impl<T: Clone> Halves<T> {
    fn find(&self, mark: &Mark, most: usize) -> Option<T> {
        if let Some((value, _)) = self.newer.borrow().entries.get(mark) {
            return Some(value.clone());
        }
        let (value, weight) = self.older.borrow_mut().entries.remove(mark)?;
        self.keep(*mark, value.clone(), weight, most);
        Some(value)
    }

    fn keep(&self, mark: Mark, value: T, weight: usize, most: usize) {
        let mut newer = self.newer.borrow_mut();
        if newer.weight.saturating_add(weight) > most {
            self.older.replace(std::mem::take(&mut *newer));
        }
        let replaced = newer.entries.insert(mark, (value, weight));
        newer.weight = (newer.weight + weight).saturating_sub(replaced.map_or(0, |(_, weight)| weight));
    }
}

/// What came of the requests that arrived on listeners behind proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForwardedCounts {
    /// A certificate was told and taken.
    pub(crate) taken: u64,
    /// The proxy told of none.
    pub(crate) absent: u64,
    /// A certificate was told and refused.
    pub(crate) refused: u64,
    /// What the proxy sent cannot be read.
    pub(crate) unreadable: u64,
    /// The sender is not the proxy, so that nobody looked.
    pub(crate) not_the_proxy: u64,
}

impl ForwardedMemory {
    /// What these bytes are remembered by, told at a listener whose generation `told_at` is.
    ///
    /// SECURITY: callers choose certificates, so nothing less than a digest that nobody can find a second text for.
    pub(crate) fn mark((settings, lists): (u64, u64), found: &Found<'_>) -> Mark {
        let leaf = found.leaf.len() as u64;
        let head = [settings.to_be_bytes(), lists.to_be_bytes(), leaf.to_be_bytes()].concat();
        sha256(&[head.as_slice(), found.leaf, &*found.chain].concat())
    }

    /// The certificate that was taken.
    pub(crate) fn find(&self, mark: &Mark) -> Option<Arc<PeerCertificate>> {
        self.taken.find(mark, HALF_BYTES)
    }

    /// Why it was refused a moment ago.
    pub(crate) fn refusal(&self, mark: &Mark, now: Moment) -> Option<Rejection> {
        let refused = self.refused.find(mark, HALF_REFUSED)?;
        (now.monotonic < refused.until).then_some(refused.rejection)
    }

    /// Remembers what was taken.
    pub(crate) fn remember(&self, mark: Mark, certificate: &Arc<PeerCertificate>) {
        // Its bytes, its names, and what holds them together.
        let weight = 1024 + 3 * certificate.der.len();
        self.taken.keep(mark, Arc::clone(certificate), weight, HALF_BYTES);
    }

    /// Remembers a refusal for a short time; not one that only says that something could not be checked.
    pub(crate) fn remember_refusal(&self, mark: Mark, rejection: &Rejection, now: Moment) {
        if rejection.reason() == Reason::RevocationUnknown {
            return;
        }
        let until = now.monotonic.saturating_add(REFUSED_FOR);
        self.refused.keep(mark, Refused { rejection: rejection.clone(), until }, 1, HALF_REFUSED);
    }

    /// Counts one request.
    pub(crate) fn count(&self, change: impl FnOnce(&mut ForwardedCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(crate) const fn counts(&self) -> ForwardedCounts {
        self.counts.get()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use portcullis_core::{Moment, Reason, Rejection};

    use super::{ForwardedMemory, Found, HALF_REFUSED, Halves, REFUSED_FOR};

    fn at(seconds: u64) -> Moment {
        Moment { unix_ms: 1_800_000_000_000, monotonic: Duration::from_secs(seconds) }
    }

    fn found<'h>(leaf: &'h [u8], chain: &'h [u8]) -> Found<'h> {
        Found { leaf, chain: Cow::Borrowed(chain) }
    }

    /// FWD-10: nothing that differs is found by the same mark.
    #[test]
    fn marks_differ_where_anything_differs() {
        let marks = [
            ForwardedMemory::mark((1, 1), &found(b"ab", b"c")),
            ForwardedMemory::mark((1, 1), &found(b"a", b"bc")),
            ForwardedMemory::mark((1, 1), &found(b"abc", b"")),
            ForwardedMemory::mark((2, 1), &found(b"ab", b"c")),
            ForwardedMemory::mark((1, 2), &found(b"ab", b"c")),
        ];
        for (at, mark) in marks.iter().enumerate() {
            assert_eq!(marks.iter().position(|other| other == mark), Some(at));
        }
        assert_eq!(marks[0], ForwardedMemory::mark((1, 1), &found(b"ab", b"c")));
    }

    #[test]
    fn a_refusal_is_remembered_for_a_short_time() {
        let memory = ForwardedMemory::default();
        let mark = ForwardedMemory::mark((0, 0), &found(b"leaf", b""));
        let refused = Rejection::new(Reason::CertificateRefused);
        memory.remember_refusal(mark, &refused, at(100));
        assert_eq!(memory.refusal(&mark, at(100)), Some(refused.clone()));
        assert_eq!(memory.refusal(&mark, at(100 + REFUSED_FOR.as_secs())), None);
        assert_eq!(memory.refusal(&[0; 32], at(100)), None);
        assert!(memory.find(&mark).is_none());
        let unknown = ForwardedMemory::mark((0, 0), &found(b"other", b""));
        memory.remember_refusal(unknown, &Rejection::new(Reason::RevocationUnknown), at(100));
        assert_eq!(memory.refusal(&unknown, at(100)), None, "the next one may be answered");
        // A flood of them pushes out refusals, within bounds, and nothing else.
        for number in 0..10_000_u32 {
            let text = number.to_be_bytes();
            memory.remember_refusal(ForwardedMemory::mark((0, 0), &found(&text, b"")), &refused, at(100));
        }
        let held = memory.refused.newer.borrow().entries.len() + memory.refused.older.borrow().entries.len();
        assert!(held <= 2 * HALF_REFUSED, "{held}");
    }

    #[test]
    fn halves_are_bounded_by_weight_and_keep_what_is_asked_for() {
        let halves = Halves::default();
        let mark = |number: u8| [number; 32];
        for number in 0..100 {
            halves.keep(mark(number), number, 10, 100);
            assert_eq!(halves.find(&mark(0), 100), Some(0), "{number}");
            assert!(halves.newer.borrow().weight <= 100 && halves.older.borrow().entries.len() <= 10);
        }
        assert_eq!(halves.find(&mark(50), 100), None);
        halves.keep(mark(99), 1, 10, 100);
        let newer = halves.newer.borrow();
        assert_eq!(newer.weight, newer.entries.len() * 10);
    }
}
