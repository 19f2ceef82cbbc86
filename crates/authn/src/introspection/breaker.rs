//! When a provider that fails is left in peace (INT-05).

use std::time::Duration;

/// Failures in a row after which nobody is sent there.
const TRIPS_AT: u32 = 5;

/// The first pause; each one after it, while nothing gets better, is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause. Short, because the provider may be back any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Counts failures and decides who may ask.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Nobody asks before this time.
    shut_until: Option<Duration>,
    /// Whether somebody is finding out if the provider is back.
    probing: bool,
}

impl Breaker {
    /// Lets somebody ask, or says how long nobody may.
    pub(super) fn enter(&mut self, now: Duration) -> Result<(), Duration> {
        let Some(until) = self.shut_until else { return Ok(()) };
        if now < until {
            return Err(until - now);
        }
        if self.probing {
            return Err(PAUSE);
        }
        self.probing = true;
        Ok(())
    }

    /// The provider has answered.
    pub(super) const fn succeed(&mut self) {
        self.failures = 0;
        self.shut_until = None;
        self.probing = false;
    }

    /// The provider has not answered, or not as a provider.
    pub(super) fn fail(&mut self, now: Duration) {
        // Those who were under way already when it was shut say nothing new.
        if self.shut_until.is_some() && !self.probing {
            return;
        }
        self.probing = false;
        self.failures = self.failures.saturating_add(1);
        if let Some(times) = self.failures.checked_sub(TRIPS_AT) {
            let pause = PAUSE.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
            self.shut_until = Some(now.saturating_add(pause));
        }
    }

    /// Whoever was let in has not asked after all, so another may find out.
    pub(super) const fn abandon(&mut self) {
        self.probing = false;
    }

    /// Whether nobody, or only one to find out, is sent there.
    pub(super) const fn is_shut(&self) -> bool {
        self.shut_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::Breaker;
    use std::time::Duration;

    const NOW: Duration = Duration::from_secs(100);

    fn ms(milliseconds: u64) -> Duration {
        NOW + Duration::from_millis(milliseconds)
    }

    fn tripped() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            assert_eq!(breaker.enter(NOW), Ok(()));
            breaker.fail(NOW);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_shut_it_for_a_second() {
        let mut breaker = tripped();
        assert!(breaker.is_shut());
        assert_eq!(breaker.enter(NOW), Err(Duration::from_secs(1)));
        assert_eq!(breaker.enter(ms(999)), Err(Duration::from_millis(1)));
    }

    #[test]
    fn one_success_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for _ in 0..4 {
                breaker.fail(NOW);
            }
            breaker.succeed();
        }
        assert!(!breaker.is_shut());
    }

    #[test]
    fn one_at_a_time_finds_out_and_pauses_grow_up_to_eight_seconds() {
        let mut breaker = tripped();
        let mut now = NOW;
        for pause in [1, 2, 4, 8, 8, 8] {
            assert!(breaker.enter(now).is_err());
            now += Duration::from_secs(pause);
            assert_eq!(breaker.enter(now), Ok(()));
            assert!(breaker.enter(now).is_err(), "one is finding out");
            breaker.fail(now);
        }
        now += Duration::from_secs(8);
        assert_eq!(breaker.enter(now), Ok(()));
        breaker.succeed();
        assert_eq!(breaker.enter(now), Ok(()));
        assert!(!breaker.is_shut());
    }

    #[test]
    fn who_does_not_ask_after_all_leaves_it_to_another() {
        let mut breaker = tripped();
        assert_eq!(breaker.enter(ms(1_000)), Ok(()));
        breaker.abandon();
        assert!(breaker.is_shut(), "nothing is known yet");
        assert_eq!(breaker.enter(ms(1_000)), Ok(()));
        breaker.succeed();
        assert!(!breaker.is_shut());
        for _ in 0..100 {
            breaker.abandon();
        }
        assert!(!breaker.is_shut());
    }

    #[test]
    fn those_who_were_under_way_do_not_make_the_pause_longer() {
        let mut breaker = tripped();
        for _ in 0..100 {
            breaker.fail(ms(500));
        }
        assert_eq!(breaker.enter(ms(1_000)), Ok(()));
    }
}
