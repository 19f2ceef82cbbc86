//! Durations, counted by buckets.

use std::time::Duration;

use super::BUCKETS;

/// Counts per bucket and the sum of all. What does not fit any bound is in the last bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let index = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
            self.seconds += seconds;
        }
    }

    /// Adds everything another one has recorded.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.seconds += other.seconds;
    }

    /// How many durations were recorded.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum in seconds.
    pub(super) const fn sum(&self) -> f64 {
        self.seconds
    }

    /// For each bound, how many were no longer than it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        BUCKETS.into_iter().zip(self.counts).scan(0, |all, (bound, count)| {
            *all += count;
            Some((bound, *all))
        })
    }
}
