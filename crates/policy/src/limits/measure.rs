//! How much of what: rates, quotas, and what belongs to them.

use std::time::Duration;

use portcullis_core::document::Node;
use portcullis_core::quantity::Rate;
use portcullis_core::{Diagnostic, Faults};
use portcullis_store::{Algorithm, MAX_ALERTS, MOST_IN_A_WINDOW};

use super::own::OwnCount;
use super::spec::GroupSpec;

/// Largest count and burst, so that every number of the header fields fits.
const LARGEST: u64 = 1_000_000_000;

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("gcra", Algorithm::Gcra),
    ("sliding_window", Algorithm::SlidingWindow),
    ("fixed_window", Algorithm::FixedWindow),
];

/// What is counted how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Rate { rate: Rate, burst: u64, algorithm: Algorithm },
    Quota { rate: Rate, carried: u32, alerts: [u8; MAX_ALERTS] },
}

/// The keys of a limit that say how much.
pub(super) struct MeasureNodes<'n> {
    pub(super) rate: Option<&'n Node>,
    pub(super) burst: Option<&'n Node>,
    pub(super) algorithm: Option<&'n Node>,
    pub(super) quota: Option<&'n Node>,
    pub(super) carry_over: Option<&'n Node>,
    pub(super) alerts: Option<&'n Node>,
}

impl MeasureNodes<'_> {
    /// Reads them; where callers have counts of their own, the measure has the largest there can be.
    pub(super) fn read(&self, limit: &Node, faults: &mut Faults) -> Option<(Measure, Option<OwnCount>)> {
        match (self.rate, self.quota) {
            (Some(rate), None) => self.rate(rate, faults),
            (None, Some(quota)) => self.quota(quota, faults),
            _ => {
                let message = "a limit has either `rate` or `quota`";
                let fault = Diagnostic::error("one_key", limit.place, message);
                faults.push(if self.rate.is_some() { fault.note("write two limits") } else { fault });
                None
            }
        }
    }

    fn rate(&self, node: &Node, faults: &mut Faults) -> Option<(Measure, Option<OwnCount>)> {
        let good =
            refuse([("carry_over", self.carry_over), ("alerts", self.alerts)], ("quota", "rate"), faults);
        let count = counts(node, faults);
        let algorithm = self.algorithm.map_or(Some(Algorithm::Gcra), |node| node.one_of(ALGORITHMS, faults));
        let largest = i64::try_from(LARGEST).unwrap_or(i64::MAX);
        let burst = match self.burst {
            None => Some(None),
            Some(burst) => burst.integer(1..=largest, faults).map(|burst| u64::try_from(burst).ok()),
        };
        let ((rate, own), algorithm, burst) = (count?, algorithm?, burst?);
        if let (Some(node), true) = (self.burst, own.is_some()) {
            faults.error("no_use", node.place, "the burst of a caller with a count of its own is that count");
            return None;
        }
        if algorithm != Algorithm::Gcra && !self.fits_windows(node, rate, faults) {
            return None;
        }
        good.then_some((Measure::Rate { rate, burst: burst.unwrap_or(rate.count), algorithm }, own))
    }

    /// Whether a rate can be counted in windows.
    fn fits_windows(&self, node: &Node, rate: Rate, faults: &mut Faults) -> bool {
        if let Some(burst) = self.burst {
            faults.push(
                Diagnostic::error(
                    "no_use",
                    burst.place,
                    "a window has no burst: all of its count may come at once",
                )
                .note("a burst beside a steady rate is what `algorithm: gcra` counts"),
            );
            return false;
        }
        if rate.per < Duration::from_secs(1) || !rate.per.subsec_nanos().is_multiple_of(1_000_000) {
            faults.error("out_of_range", node.place, "a window lasts at least a second");
            return false;
        }
        if rate.count > MOST_IN_A_WINDOW {
            let message = format!("the count of a window is larger than {MOST_IN_A_WINDOW}");
            faults.push(
                Diagnostic::error("out_of_range", node.place, message)
                    .note("write a shorter time, or leave `algorithm` out"),
            );
            return false;
        }
        true
    }

    fn quota(&self, node: &Node, faults: &mut Faults) -> Option<(Measure, Option<OwnCount>)> {
        let good = refuse([("burst", self.burst), ("algorithm", self.algorithm)], ("rate", "quota"), faults);
        let count = counts(node, faults);
        let largest = i64::try_from(LARGEST).unwrap_or(i64::MAX);
        let carried = self.carry_over.map_or(Some(0), |node| node.integer(1..=largest, faults));
        let alerts = self.alerts.map_or(Some([0; MAX_ALERTS]), |node| alerts(node, faults));
        let ((rate, own), carried, alerts) = (count?, carried?, alerts?);
        if rate.per < Duration::from_secs(1) {
            faults.push(
                Diagnostic::error("out_of_range", node.place, "a quota lasts at least a second")
                    .note("for shorter times write `rate`"),
            );
            return None;
        }
        let carried = u32::try_from(carried).unwrap_or(u32::MAX);
        good.then_some((Measure::Quota { rate, carried, alerts }, own))
    }
}

/// Refuses keys that belong to the other kind of limit.
fn refuse(keys: [(&str, Option<&Node>); 2], kinds: (&str, &str), faults: &mut Faults) -> bool {
    let (right, wrong) = kinds;
    let mut good = true;
    for (key, node) in keys {
        let Some(node) = node else { continue };
        let message = format!("`{key}` goes with `{right}`, not with `{wrong}`");
        faults.error("no_use", node.place, message);
        good = false;
    }
    good
}

/// Percentages, in rising order.
fn alerts(node: &Node, faults: &mut Faults) -> Option<[u8; MAX_ALERTS]> {
    let nodes = node.list(faults)?;
    if nodes.is_empty() || nodes.len() > MAX_ALERTS {
        let message = format!("a quota has 1 to {MAX_ALERTS} alerts, these are {}", nodes.len());
        faults.error("too_many", node.place, message);
        return None;
    }
    let mut alerts = [0; MAX_ALERTS];
    let mut last = 0;
    for (slot, node) in alerts.iter_mut().zip(nodes) {
        let percent = u8::try_from(node.integer(1..=100, faults)?).ok()?;
        if percent <= last {
            faults.error("order", node.place, "alerts are percentages in rising order");
            return None;
        }
        (*slot, last) = (percent, percent);
    }
    Some(alerts)
}

fn counts(node: &Node, faults: &mut Faults) -> Option<(Rate, Option<OwnCount>)> {
    let (rate, own) = if OwnCount::is_written(node) {
        let (own, rate) = OwnCount::read(node, faults)?;
        (rate, Some(own))
    } else {
        (node.rate(faults)?, None)
    };
    within(node, rate, faults).map(|rate| (rate, own))
}

/// How groups are counted: as the limit itself, with a count of their own. A quota keeps its time, because the windows
/// of a caller go on when the caller changes groups; so does a rate that is counted in windows.
pub(super) fn group_measures(node: &Node, limit: Measure, faults: &mut Faults) -> Option<Vec<GroupSpec>> {
    let entries = node.named(faults)?;
    let read: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let rate = within(&entry.value, entry.value.rate(faults)?, faults)?;
            let (per, measure) = match limit {
                Measure::Rate { algorithm: Algorithm::Gcra, .. } => {
                    (rate.per, Measure::Rate { rate, burst: rate.count, algorithm: Algorithm::Gcra })
                }
                Measure::Rate { rate: own, algorithm, .. } => {
                    (own.per, Measure::Rate { rate, burst: rate.count, algorithm })
                }
                Measure::Quota { rate: own, carried, alerts } => {
                    (own.per, Measure::Quota { rate, carried, alerts })
                }
            };
            if per != rate.per {
                let kind = if matches!(limit, Measure::Quota { .. }) { "quota" } else { "window" };
                let message = format!("the {kind} of a group has the time of the limit");
                faults.error("other_period", entry.value.place, message);
                return None;
            }
            if matches!(measure, Measure::Rate { algorithm, .. } if algorithm != Algorithm::Gcra)
                && rate.count > MOST_IN_A_WINDOW
            {
                let message = format!("the count of a window is larger than {MOST_IN_A_WINDOW}");
                faults.error("out_of_range", entry.value.place, message);
                return None;
            }
            Some(GroupSpec { group: entry.key.clone(), measure })
        })
        .collect();
    (read.len() == entries.len()).then_some(read)
}

fn within(node: &Node, rate: Rate, faults: &mut Faults) -> Option<Rate> {
    if (1..=LARGEST).contains(&rate.count) {
        return Some(rate);
    }
    faults.push(if rate.count == 0 {
        Diagnostic::error("out_of_range", node.place, "a count of zero refuses every request")
            .note("what nobody may do is left out of `allow`")
    } else {
        Diagnostic::error("out_of_range", node.place, format!("the count is larger than {LARGEST}"))
    });
    None
}
