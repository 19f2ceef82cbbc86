//! Time, as a value that tests can set.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks. Claims and certificates are judged by the wall clock, rates and timeouts by the
/// monotonic one (OPS-02), and a request uses one reading for all its checks; only what it uses up is judged by
/// the clock as it stands then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970-01-01T00:00:00Z, by the wall clock.
    pub unix_ms: i64,
    /// Time since this process first asked, by the monotonic clock.
    pub monotonic: Duration,
}

impl Moment {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

/// Where time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// A clock that stands still until told otherwise.
    Manual(ManualClock),
}

/// The setting end of [`Clock::Manual`]; clones share one time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Moment>>);

impl ManualClock {
    /// A clock that stands at the given second of the wall clock, its monotonic side at one hour.
    pub fn at_unix_seconds(seconds: i64) -> Self {
        Self::at(Moment { unix_ms: seconds.saturating_mul(1000), monotonic: Duration::from_secs(3600) })
    }

    /// A clock that stands at the given moment.
    pub fn at(moment: Moment) -> Self {
        Self(Arc::new(Mutex::new(moment)))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut moment = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moment.unix_ms = moment.unix_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        moment.monotonic = moment.monotonic.saturating_add(by);
    }

    /// Sets the wall clock alone, as an administrator or a time server may.
    pub fn set_unix_seconds(&self, seconds: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unix_ms = seconds.saturating_mul(1000);
    }
}

impl Clock {
    /// Reads the monotonic clock alone, on the same scale as [`Moment::monotonic`].
    pub fn monotonic(&self) -> Duration {
        match self {
            Self::System => since_start(),
            Self::Manual(_) => self.now().monotonic,
        }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Moment {
        match self {
            Self::System => Moment { unix_ms: unix_ms(), monotonic: since_start() },
            Self::Manual(clock) => *clock.0.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

fn unix_ms() -> i64 {
    // A clock before 1970 is a broken clock: zero makes every certificate "not yet valid", which refuses.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::{Clock, ManualClock};
    use std::time::Duration;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let manual = ManualClock::at_unix_seconds(1_000);
        let clock = Clock::Manual(manual.clone());
        assert_eq!(clock.now(), clock.now());
        let before = clock.now();
        manual.advance(Duration::from_millis(1_500));
        assert_eq!(clock.now().unix_ms - before.unix_ms, 1_500);
        assert_eq!(clock.now().monotonic - before.monotonic, Duration::from_millis(1_500));
        assert_eq!(clock.now().unix_seconds(), 1_001);
    }
}
