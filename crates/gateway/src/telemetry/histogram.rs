//! Durations of one worker, between two hand-overs.

use std::time::Duration;

use metrics::Label;

use super::{BUCKETS, Telemetry};

/// Counts and sums per bucket. Handing over the mean of each bucket as often as it was hit keeps both the
/// counts and the sum exact, without keeping every sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Bucket; BUCKETS.len() + 1],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    count: u32,
    sum: f64,
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let index = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.count = bucket.count.saturating_add(1);
            bucket.sum += seconds;
        }
    }

    /// Gives everything recorded so far to the registry and starts again from nothing.
    pub(crate) fn hand_over(&mut self, telemetry: &Telemetry, name: &'static str, labels: &[Label]) {
        for bucket in std::mem::take(&mut self.buckets) {
            if bucket.count > 0 {
                let mean = bucket.sum / f64::from(bucket.count);
                telemetry.seconds(name, labels.to_vec(), mean, usize::try_from(bucket.count).unwrap_or(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;
    use crate::telemetry::Telemetry;
    use std::time::Duration;

    #[test]
    fn buckets_and_sum_survive_the_hand_over_exactly() {
        let telemetry = Telemetry::new().expect("a registry");
        let mut histogram = Histogram::default();
        for micros in [60, 70, 80, 3_000, 20_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let name = "portcullis_auth_duration_seconds";
        histogram.hand_over(&telemetry, name, &[]);
        histogram.hand_over(&telemetry, name, &[]);
        telemetry.upkeep();
        let text = telemetry.render();
        for line in [
            "_bucket{le=\"0.0001\"} 3",
            "_bucket{le=\"0.005\"} 4",
            "_bucket{le=\"+Inf\"} 5",
            "_count 5",
            "_sum 20.00321",
        ] {
            assert!(text.contains(&format!("{name}{line}")), "{line} in\n{text}");
        }
    }
}
