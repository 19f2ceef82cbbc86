//! Questions about limits, and their answers.

use std::time::Duration;

use super::lease::Lease;
use crate::error::StoreError;
use crate::rate::{Algorithm, RateRule};
use crate::{LimitId, MAX_KEY_BYTES, QuotaRule};

/// In front of every key.
pub(super) const PREFIX: &str = "portcullis:1:";
/// The unit of paces, in nanoseconds.
const TICK_NS: u128 = 100;

/// How one limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedRule {
    /// As a rate.
    Rate(RateRule),
    /// As a quota.
    Quota(QuotaRule),
}

/// A question about one limit.
#[derive(Clone, Debug)]
pub struct SharedAsk {
    pub(super) key: String,
    pub(super) last: Option<String>,
    pub(super) rule: SharedRule,
    /// Whether it refuses nothing.
    pub(super) soft: bool,
    /// How many units of a quota are taken at once, to be handed out without asking again; with the clock of the request.
    pub(super) block: Option<(u32, Duration)>,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedOutcome {
    /// The unit is the caller's, if no other limit has refused.
    Taken {
        /// How many more are left.
        remaining: u64,
        /// How long until nothing of what was taken counts any more; of a quota, until its window ends.
        reset: Duration,
        /// What the unit is known by.
        unit: SharedUnit,
    },
    /// There is none, and nothing was counted.
    Refused {
        /// How long until one is there.
        retry_after: Duration,
    },
    /// It was not asked, for another has refused before.
    NotAsked,
}

/// What a unit is known by when it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedUnit(pub(super) i64);

impl SharedAsk {
    /// A question for one unit of a limit, by the key of its caller.
    ///
    /// # Errors
    /// The key is longer than [`MAX_KEY_BYTES`].
    pub fn new(id: &LimitId, rule: SharedRule, key: &str) -> Result<Self, StoreError> {
        let key = full_key(id, rule, key)?;
        Ok(Self { key, last: None, rule, soft: false, block: None })
    }

    /// The same where each window has a key of its own: that of the window before, whose units may be carried over.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn after(mut self, id: &LimitId, last: &str) -> Result<Self, StoreError> {
        self.last = Some(full_key(id, self.rule, last)?);
        Ok(self)
    }

    /// The same for a block of units of a quota, asked at that reading of the monotonic clock.
    #[must_use]
    pub fn in_blocks_of(mut self, units: u32, now: Duration) -> Self {
        self.block = (units > 1).then_some((units, now));
        self
    }

    /// The same, and it refuses nothing.
    #[must_use]
    pub fn softly(mut self, soft: bool) -> Self {
        self.soft = soft;
        self
    }
}

impl SharedAsk {
    /// The block an answer gives.
    pub(super) fn grant(&self, answer: &[i64]) -> Option<(u32, Lease)> {
        let (_, now) = self.block?;
        let units = u32::try_from(*answer.first()?).ok()?;
        match outcome(answer) {
            // SECURITY: by the clock of the request, which is older than the answer: not a moment longer than the window.
            SharedOutcome::Taken { remaining, reset, unit } => {
                Some((units, Lease::new(remaining, unit, now.saturating_add(reset), now)))
            }
            _ => None,
        }
    }
}

/// SECURITY: the names of APIs and limits hold no `:`, and the caller's key comes last, so no choice of one imitates
/// another. Each algorithm has counters of its own.
fn full_key(id: &LimitId, rule: SharedRule, key: &str) -> Result<String, StoreError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(StoreError::KeyTooLong);
    }
    let letter = match rule {
        SharedRule::Rate(RateRule { algorithm: Algorithm::Gcra, .. }) => 'g',
        SharedRule::Rate(RateRule { algorithm: Algorithm::SlidingWindow, .. }) => 's',
        SharedRule::Rate(RateRule { algorithm: Algorithm::FixedWindow, .. }) => 'f',
        SharedRule::Quota(_) => 'q',
    };
    Ok(format!("{PREFIX}{letter}:{}:{}:{key}", id.api(), id.limit()))
}

impl SharedRule {
    /// What the scripts call it, and its four numbers.
    pub(super) fn arguments(self) -> (&'static str, [u64; 4]) {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        match self {
            Self::Rate(RateRule { count, per, burst, algorithm: Algorithm::Gcra }) => {
                let interval = per.as_nanos().div_ceil(u128::from(count.max(1)) * TICK_NS).max(1);
                let interval = u64::try_from(interval).unwrap_or(u64::MAX);
                // A count of nothing tolerates nothing.
                let burst = if count == 0 { 0 } else { burst };
                ("pace", [interval, interval.saturating_mul(burst), 0, 0])
            }
            Self::Rate(RateRule { count, per, algorithm, .. }) => {
                ("window", [count, milliseconds(per), u64::from(algorithm == Algorithm::SlidingWindow), 0])
            }
            Self::Quota(rule) => {
                let seconds = |seconds: u32| u64::from(seconds) * 1000;
                let (per, remembered) = (seconds(rule.period()), seconds(rule.remembered()));
                ("quota", [rule.count.into(), per, rule.carried.into(), remembered])
            }
        }
    }
}

/// Whether units were taken: no limit that is in the way has refused.
pub(super) fn is_taken(asks: &[SharedAsk], outcomes: &[SharedOutcome]) -> bool {
    let refused = |(ask, outcome): (&SharedAsk, &SharedOutcome)| {
        !ask.soft && matches!(outcome, SharedOutcome::Refused { .. })
    };
    outcomes.len() == asks.len() && !asks.iter().zip(outcomes).any(refused)
}

pub(super) fn outcome(numbers: &[i64]) -> SharedOutcome {
    let time = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    match *numbers {
        [taken, remaining, micros, mark] if taken > 0 => SharedOutcome::Taken {
            remaining: u64::try_from(remaining).unwrap_or_default(),
            reset: time(micros),
            unit: SharedUnit(mark),
        },
        [0, _, micros, _] => SharedOutcome::Refused { retry_after: time(micros) },
        _ => SharedOutcome::NotAsked,
    }
}
