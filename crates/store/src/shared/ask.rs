//! Questions about limits, and their answers.

use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::lease::Lease;
use super::servers::Call;
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

/// Whose units they are.
#[derive(Clone, Copy, Debug)]
pub struct SharedKey<'k> {
    /// The caller's key.
    pub caller: &'k str,
    /// Where each window has counters of its own: the one, and the one before it, whose unused units may be carried over.
    pub windows: Option<(&'k str, &'k str)>,
}

/// A question about one limit.
#[derive(Clone, Debug)]
pub struct SharedAsk {
    pub(super) key: String,
    pub(super) last: Option<String>,
    /// Where the keys of a caller are together in a cluster.
    pub(super) tag: u16,
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
    pub fn new(id: &LimitId, rule: SharedRule, key: SharedKey<'_>) -> Result<Self, StoreError> {
        let SharedKey { caller, windows } = key;
        let (window, before) = windows.map_or((None, None), |(window, before)| (Some(window), Some(before)));
        let longest = window.map_or(0, |window| window.len().saturating_add(1)).saturating_add(caller.len());
        if longest > MAX_KEY_BYTES {
            return Err(StoreError::KeyTooLong);
        }
        let mut hasher = SipHasher24::new();
        hasher.write(caller.as_bytes());
        let [.., high, low] = hasher.finish().to_be_bytes();
        let tag = u16::from_be_bytes([high, low]);
        let full = |window: Option<&str>| full_key(id, rule, tag, window.unwrap_or_default(), caller);
        let last = before.filter(|_| rule.carries_over()).map(|before| full(Some(before)));
        Ok(Self { key: full(window), last, tag, rule, soft: false, block: None })
    }

    /// The same for a block of units of a quota, asked at that reading of the monotonic clock.
    #[must_use]
    pub fn in_blocks_of(mut self, units: u32, now: Duration) -> Self {
        self.block = (units > 1).then_some((units, now));
        self
    }

    /// Whether it refuses nothing.
    pub const fn is_soft(&self) -> bool {
        self.soft
    }

    /// The same, and it refuses nothing.
    #[must_use]
    pub fn softly(mut self, soft: bool) -> Self {
        self.soft = soft;
        self
    }
}

impl SharedAsk {
    /// The quota whose units may be taken in a block.
    pub(super) const fn quota(&self) -> Option<QuotaRule> {
        match self.rule {
            SharedRule::Quota(rule) => Some(rule),
            SharedRule::Rate(_) => None,
        }
    }

    /// Puts it into a call of the script: for so many units.
    pub(super) fn put(&self, call: &mut Call<'_>, soft: bool, wanted: u32) {
        call.key(self.key.as_bytes()).key(self.last.as_ref().unwrap_or(&self.key).as_bytes());
        let (kind, numbers) = self.rule.arguments();
        call.arg(kind).arg(u8::from(soft));
        for number in numbers {
            call.arg(number);
        }
        call.arg(wanted);
    }

    /// The block an answer gives.
    pub(super) fn grant(&self, answer: &[i64]) -> Option<(u32, Lease)> {
        let (_, now) = self.block?;
        let units = u32::try_from(*answer.first()?).ok()?;
        match outcome(answer) {
            // SECURITY: by the clock of the request, which is older than the answer: not a moment longer than the window.
            SharedOutcome::Taken { remaining, reset, unit } => {
                let lease = Lease::new(self.quota()?, remaining, unit, now.saturating_add(reset), now);
                Some((units, lease))
            }
            _ => None,
        }
    }
}

/// SECURITY: the names of APIs hold no `:`, those of limits come with their length, and the caller's key comes last behind
/// a window of one length, so no choice of one imitates another. Each algorithm has counters of its own; windows of
/// another length are other windows. A cluster goes by what is in braces, which is the same for all keys of a caller.
fn full_key(id: &LimitId, rule: SharedRule, tag: u16, window: &str, caller: &str) -> String {
    let kind = match rule {
        SharedRule::Rate(RateRule { algorithm: Algorithm::Gcra, .. }) => "g".to_owned(),
        SharedRule::Rate(RateRule { algorithm: Algorithm::SlidingWindow, per, .. }) => {
            format!("s{}", milliseconds(per))
        }
        SharedRule::Rate(RateRule { algorithm: Algorithm::FixedWindow, per, .. }) => {
            format!("f{}", milliseconds(per))
        }
        SharedRule::Quota(_) => "q".to_owned(),
    };
    let (api, limit) = (id.api(), id.limit());
    format!("{PREFIX}{kind}:{api}:{}.{limit}:{{{tag:04x}}}:{window}:{caller}", limit.len())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl SharedRule {
    const fn carries_over(self) -> bool {
        matches!(self, Self::Quota(QuotaRule { carried: 1.., .. }))
    }

    /// What the scripts call it, and its four numbers.
    pub(super) fn arguments(self) -> (&'static str, [u64; 4]) {
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
pub(super) fn is_taken<'a>(
    asks: impl IntoIterator<Item = &'a SharedAsk>,
    outcomes: &[SharedOutcome],
) -> bool {
    let mut outcomes = outcomes.iter();
    // As many answers as questions, and every one lets the request pass.
    let passes = |ask: &SharedAsk| match outcomes.next() {
        Some(SharedOutcome::Taken { .. }) => true,
        Some(SharedOutcome::Refused { .. }) => ask.soft,
        Some(SharedOutcome::NotAsked) | None => false,
    };
    asks.into_iter().all(passes)
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
