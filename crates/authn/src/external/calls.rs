//! How many calls of one worker are under way, and what came of all of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::cache::Asker;

/// The calls under way, by the authenticator that makes them: a service that hangs holds up its own requests and takes
/// no other's place.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    under_way: RefCell<HashMap<Asker, usize>>,
    counts: Cell<ExternalCounts>,
}

/// What came of the requests about which a service decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExternalCounts {
    /// It allowed them.
    pub allowed: u64,
    /// It denied them.
    pub denied: u64,
    /// It gave no answer that can be used.
    pub unavailable: u64,
    /// It was not asked, because too many calls were under way.
    pub busy: u64,
    /// It was not asked, because its answer was known.
    pub remembered: u64,
}

/// One call. It has ended when this is dropped, however it ended.
#[derive(Debug)]
pub(super) struct UnderWay<'w> {
    calls: &'w Calls,
    asker: Asker,
}

impl Calls {
    pub(crate) const fn counts(&self) -> ExternalCounts {
        self.counts.get()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut ExternalCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Begins a call, unless so many are under way.
    pub(super) fn begin(&self, asker: Asker, most: usize) -> Option<UnderWay<'_>> {
        let mut all = self.under_way.borrow_mut();
        let under_way = all.entry(asker).or_default();
        if *under_way >= most {
            self.count(|counts| counts.busy += 1);
            return None;
        }
        *under_way += 1;
        Some(UnderWay { calls: self, asker })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut all = self.calls.under_way.borrow_mut();
        // An authenticator that is gone, because its policy was replaced, leaves nothing behind.
        if let Some(under_way) = all.get_mut(&self.asker) {
            *under_way -= 1;
            if *under_way == 0 {
                all.remove(&self.asker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Asker, Calls};

    #[test]
    fn calls_are_counted_for_each_authenticator() {
        let calls = Calls::default();
        let (one, other) = (Asker::next(), Asker::next());
        let first = calls.begin(one, 2).expect("room");
        let second = calls.begin(one, 2).expect("room");
        assert!(calls.begin(one, 2).is_none());
        let others = calls.begin(other, 1).expect("room of its own");
        drop(first);
        let third = calls.begin(one, 2).expect("room again");
        assert!(calls.begin(one, 2).is_none());
        drop((second, third, others));
        assert!(calls.under_way.borrow().is_empty());
        assert_eq!(calls.counts().busy, 2);
    }
}
