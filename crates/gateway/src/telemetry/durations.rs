//! The durations all workers have handed over, and how they are exposed.
//!
//! They are kept here and not in the exporter, which keeps every single one, with a reading of the clock, until it is
//! scraped: three of them a request took a twentieth of the whole request's time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};

use super::{Histogram, Kind, METRICS};

/// Histograms by metric and labels.
#[derive(Default)]
pub(super) struct Durations(Mutex<BTreeMap<&'static str, BTreeMap<Vec<Label>, Histogram>>>);

impl Durations {
    pub(super) fn add(&self, name: &'static str, labels: Vec<Label>, more: &Histogram) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name).or_default().entry(labels).or_default().absorb(more);
    }

    /// Appends them as Prometheus' text format wants histograms: cumulative buckets, sum and count.
    pub(super) fn render(&self, text: &mut String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, name, help) in METRICS {
            let Some(series) = all.get(name).filter(|_| *kind == Kind::Histogram) else { continue };
            write_help_line(text, name, None, None, help);
            write_type_line(text, name, None, None, "histogram");
            for (labels, histogram) in series {
                write_series(text, name, labels, histogram);
            }
            text.push('\n');
        }
    }
}

fn write_series(text: &mut String, name: &'static str, labels: &[Label], histogram: &Histogram) {
    let key = Key::from_parts(name, labels.to_vec());
    let labels = LabelSet::from_key_and_global(&key, &Default::default());
    for (bound, count) in histogram.cumulative() {
        write_metric_line(text, name, Some("bucket"), &labels, Some(("le", bound)), count, None);
    }
    let count = histogram.count();
    write_metric_line(text, name, Some("bucket"), &labels, Some(("le", "+Inf")), count, None);
    write_metric_line::<&str, f64>(text, name, Some("sum"), &labels, None, histogram.sum(), None);
    write_metric_line::<&str, u64>(text, name, Some("count"), &labels, None, count, None);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics::Label;

    use super::{Durations, Histogram};
    use crate::telemetry::{BUCKETS, Kind, METRICS};

    const NAME: &str = "portcullis_auth_duration_seconds";

    fn of(micros: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        micros.iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
        histogram
    }

    #[test]
    fn what_two_workers_hand_over_is_one_histogram() {
        let durations = Durations::default();
        let labels = |api: &'static str| vec![Label::new("api", api)];
        durations.add(NAME, labels("a"), &of(&[60, 70, 100]));
        durations.add(NAME, labels("a"), &of(&[3_000, 20_000_000]));
        durations.add(NAME, labels("b\"\n"), &of(&[60]));
        let mut text = String::new();
        durations.render(&mut text);
        for line in [
            "# TYPE portcullis_auth_duration_seconds histogram",
            "_bucket{api=\"a\",le=\"0.00005\"} 0",
            "_bucket{api=\"a\",le=\"0.0001\"} 3",
            "_bucket{api=\"a\",le=\"0.0025\"} 3",
            "_bucket{api=\"a\",le=\"0.005\"} 4",
            "_bucket{api=\"a\",le=\"10\"} 4",
            "_bucket{api=\"a\",le=\"+Inf\"} 5",
            "_count{api=\"a\"} 5",
            "_sum{api=\"a\"} 20.00323",
            "_count{api=\"b\\\"\\n\"} 1",
        ] {
            let line = if line.starts_with('#') { line.to_owned() } else { format!("{NAME}{line}\n") };
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert_eq!(text.matches("# HELP").count(), 1, "{text}");
    }

    #[test]
    fn every_histogram_of_the_table_is_exposed() {
        let durations = Durations::default();
        let names: Vec<_> =
            METRICS.iter().filter(|(kind, ..)| *kind == Kind::Histogram).map(|(_, name, _)| *name).collect();
        names.iter().for_each(|name| durations.add(name, vec![], &of(&[200])));
        let mut text = String::new();
        durations.render(&mut text);
        for name in names {
            assert!(text.contains(&format!("{name}_bucket{{le=\"0.00025\"}} 1\n")), "{name} in\n{text}");
        }
        assert!(BUCKETS.is_sorted());
    }
}
