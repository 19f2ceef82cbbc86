//! Who may cause a fetch, and when: single flight and cool-down (JKS-05).

use std::time::Duration;

use super::status::RefreshReason;

/// Fetches that requests may cause at once.
const BURST: u32 = 2;

/// How long it takes until a request may cause another one.
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(30);

/// The state of one source's fetching.
#[derive(Debug)]
pub(crate) struct Flight {
    started: u64,
    finished: u64,
    wanted: Option<RefreshReason>,
    next_at: Duration,
    failures: u32,
    tokens: u32,
    refilled_at: Duration,
}

/// The answer to a request that would like fresher keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Wait until this many fetches have ended.
    WaitFor(u64),
    /// Nothing will be fetched for you now.
    NotNow,
}

impl Flight {
    /// Nothing has been fetched; the first fetch is due at once.
    pub(crate) const fn new(now: Duration) -> Self {
        Self {
            started: 0,
            finished: 0,
            wanted: None,
            next_at: Duration::ZERO,
            failures: 0,
            tokens: BURST,
            refilled_at: now,
        }
    }

    /// A request met an unknown key id: joins the fetch that is under way or wanted, or causes one if the
    /// cool-down allows.
    pub(crate) fn ask(&mut self, now: Duration) -> Asked {
        if let joined @ Asked::WaitFor(_) = self.join() {
            return joined;
        }
        self.refill(now);
        if self.tokens == 0 {
            return Asked::NotNow;
        }
        self.tokens -= 1;
        self.wanted = Some(RefreshReason::UnknownKey);
        Asked::WaitFor(self.started + 1)
    }

    /// An operator wants a fetch, whether or not one is due: joins the one that is under way or wanted.
    pub(crate) fn demand(&mut self) -> u64 {
        if let Asked::WaitFor(wanted) = self.join() {
            return wanted;
        }
        self.wanted = Some(RefreshReason::Asked);
        self.started + 1
    }

    /// A request found no keys at all: joins the fetch that is under way, wanted, or due. Between the attempts
    /// to reach a server that is down there is nothing worth waiting for.
    pub(crate) fn join(&self) -> Asked {
        if self.started > self.finished {
            Asked::WaitFor(self.started)
        } else if self.wanted.is_some() || self.started == 0 {
            Asked::WaitFor(self.started + 1)
        } else {
            Asked::NotNow
        }
    }

    /// How long until a fetch is due.
    pub(crate) fn due_in(&self, now: Duration) -> Duration {
        if self.wanted.is_some() { Duration::ZERO } else { self.next_at.saturating_sub(now) }
    }

    /// Starts a fetch.
    pub(crate) fn start(&mut self) -> RefreshReason {
        self.started += 1;
        let scheduled = if self.started == 1 { RefreshReason::Start } else { RefreshReason::Scheduled };
        self.wanted.take().unwrap_or(scheduled)
    }

    /// Ends it, and says how many have ended. `next` makes the time to the next one of the number of failures in
    /// a row.
    pub(crate) fn finish(&mut self, now: Duration, good: bool, next: impl FnOnce(u32) -> Duration) -> u64 {
        self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        self.next_at = now.saturating_add(next(self.failures));
        self.finished = self.started;
        self.finished
    }

    /// Whether the last fetch failed, so that nothing can be said about what is not in the set.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    fn refill(&mut self, now: Duration) {
        let periods = now.saturating_sub(self.refilled_at).as_secs() / COOL_DOWN.as_secs();
        if periods > 0 {
            let periods = u32::try_from(periods).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(periods).min(BURST);
            self.refilled_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, COOL_DOWN, Flight};
    use std::time::Duration;

    const NOW: Duration = Duration::from_secs(1_000);

    fn fetched(flight: &mut Flight, now: Duration) {
        flight.start();
        flight.finish(now, true, |_| Duration::from_secs(240));
    }

    #[test]
    fn requests_join_the_fetch_that_is_under_way() {
        let mut flight = Flight::new(NOW);
        assert_eq!(flight.join(), Asked::WaitFor(1));
        flight.start();
        assert_eq!(flight.ask(NOW), Asked::WaitFor(1));
        flight.finish(NOW, true, |_| Duration::from_secs(240));
        assert_eq!(flight.join(), Asked::NotNow);
        assert_eq!(flight.ask(NOW), Asked::WaitFor(2));
        assert_eq!(flight.ask(NOW), Asked::WaitFor(2));
    }

    #[test]
    fn two_fetches_may_be_caused_then_one_per_cool_down() {
        let mut flight = Flight::new(NOW);
        fetched(&mut flight, NOW);
        for _ in 0..2 {
            assert!(matches!(flight.ask(NOW), Asked::WaitFor(_)));
            fetched(&mut flight, NOW);
        }
        assert_eq!(flight.ask(NOW), Asked::NotNow);
        assert_eq!(flight.ask(NOW + COOL_DOWN - Duration::from_secs(1)), Asked::NotNow);
        assert!(matches!(flight.ask(NOW + COOL_DOWN), Asked::WaitFor(_)));
        fetched(&mut flight, NOW + COOL_DOWN);
        assert_eq!(flight.ask(NOW + COOL_DOWN), Asked::NotNow);
    }

    /// Operators are not held back by what callers may cause.
    #[test]
    fn an_operator_is_waited_for_by_nobody() {
        let mut flight = Flight::new(NOW);
        fetched(&mut flight, NOW);
        for _ in 0..5 {
            let wanted = flight.demand();
            assert_eq!((flight.demand(), flight.due_in(NOW)), (wanted, Duration::ZERO));
            assert_eq!(flight.start(), super::RefreshReason::Asked);
            flight.finish(NOW, true, |_| Duration::from_secs(240));
        }
    }

    #[test]
    fn nobody_waits_between_the_attempts_to_reach_a_dead_server() {
        let mut flight = Flight::new(NOW);
        flight.start();
        flight.finish(NOW, false, |failures| Duration::from_secs(u64::from(failures)));
        assert_eq!(flight.join(), Asked::NotNow);
        assert_eq!(flight.due_in(NOW), Duration::from_secs(1));
        assert!(flight.has_failed());
    }
}
