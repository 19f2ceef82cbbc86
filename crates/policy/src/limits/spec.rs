//! Limits as written in a file.

use std::time::Duration;

use jiff::tz::TimeZone;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::quantity::Rate;
use portcullis_core::{Diagnostic, Faults, Place, Spanned};

use super::MAX_LIMITS;
use super::calendar::Unit;
use super::key::Per;
use super::reach::Reach;

/// Whether a limit is in the way.
const MODES: &[(&str, bool)] = &[("enforce", false), ("shadow", true)];

/// Largest count and burst, so that every number of the header fields fits.
const LARGEST: u64 = 1_000_000_000;

/// Longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// The `limits` list of an API.
#[derive(Debug)]
pub struct LimitsSpec {
    limits: Vec<LimitSpec>,
    /// Whether every limit of the file is among them.
    complete: bool,
}

/// One limit of the list, its name already settled.
#[derive(Debug)]
pub(super) struct LimitSpec {
    pub(super) name: String,
    pub(super) per: Vec<Per>,
    pub(super) measure: Measure,
    /// Groups that have a measure of their own.
    pub(super) groups: Vec<GroupSpec>,
    pub(super) reach: Reach,
    pub(super) shadow: bool,
    /// The windows of a quota that goes by the calendar, and whose.
    pub(super) calendar: Option<(Unit, TimeZone)>,
    /// Of the name, or of the limit if its name is derived.
    place: Place,
    /// Of `per`, or of the limit if that is left out.
    per_place: Place,
}

/// How a group of callers is counted.
#[derive(Debug)]
pub(super) struct GroupSpec {
    pub(super) group: Spanned<String>,
    pub(super) measure: Measure,
}

/// What is counted how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Rate { rate: Rate, burst: u64 },
    Quota { rate: Rate },
}

/// Checked limits that have not met their counters yet.
#[derive(Debug)]
pub struct LimitsPlan {
    /// Rates first, then quotas, each in the order written (LIM-03).
    pub(super) limits: Vec<LimitSpec>,
}

impl LimitsPlan {
    /// Whether any of them is a quota, which a restart should not forget.
    pub fn has_quota(&self) -> bool {
        self.limits.iter().any(|limit| matches!(limit.measure, Measure::Quota { .. }))
    }
}

impl LimitsSpec {
    /// Reads the list.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let nodes = node.list(faults)?;
        let mut complete = true;
        if nodes.len() > MAX_LIMITS {
            let message = format!("an API has at most {MAX_LIMITS} limits, these are {}", nodes.len());
            faults.error("too_many", node.place, message);
            complete = false;
        }
        let limits: Vec<_> = nodes.iter().filter_map(|node| LimitSpec::read(node, faults)).collect();
        complete &= limits.len() == nodes.len();
        Some(Self { limits, complete })
    }

    /// Checks the limits against each other and against who may call. `anonymous` says whether the API lets
    /// callers through without a credential. Counters are not touched: see [`LimitsPlan::open`].
    pub fn compile(mut self, anonymous: bool, faults: &mut Faults) -> Option<LimitsPlan> {
        let mut good = self.complete;
        for (at, limit) in self.limits.iter().enumerate() {
            let earlier = self.limits.get(..at).unwrap_or_default();
            if let Some(same) = earlier.iter().find(|earlier| earlier.name == limit.name) {
                faults.push(
                    Diagnostic::error(
                        "duplicate",
                        limit.place,
                        format!("there are two limits `{}`", limit.name),
                    )
                    .related(same.place, "the other one is here")
                    .note("give one of them another `name`"),
                );
                good = false;
            }
            if anonymous && !limit.per.iter().any(|per| matches!(per, Per::Address | Per::Api)) {
                faults.push(
                    Diagnostic::error(
                        "anonymous_limit",
                        limit.per_place,
                        "callers without a credential have no identity to count by",
                    )
                    .note("all of them would share one count: write `per: address`, or `per: api` if that is meant"),
                );
                good = false;
            }
        }
        self.limits.sort_by_key(|limit| matches!(limit.measure, Measure::Quota { .. }));
        good.then_some(LimitsPlan { limits: self.limits })
    }
}

impl LimitSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a limit", faults)?;
        let per = fields.get("per");
        let (rate, burst, quota) = (fields.get("rate"), fields.get("burst"), fields.get("quota"));
        let (name, groups, mode) = (fields.get("name"), fields.get("groups"), fields.get("mode"));
        let (methods, paths) = (fields.get("methods"), fields.get("paths"));
        let (window, zone) = (fields.get("window"), fields.get("time_zone"));
        fields.finish(faults);
        let subjects = match per {
            None => Some(vec![Per::Identity]),
            Some(node) => subjects(node, faults),
        };
        let measure = measure(node, rate, burst, quota, faults);
        let named = match name {
            None => Some(None),
            Some(node) => node.text(faults).filter(|name| good_name(name, faults)).map(Some),
        };
        let groups = match (groups, measure) {
            (Some(node), Some(measure)) => group_measures(node, measure, faults),
            _ => Some(Vec::new()),
        };
        let reach = Reach::read(methods, paths, faults);
        let shadow = mode.map_or(Some(false), |node| node.one_of(MODES, faults));
        let (subjects, measure, named) = (subjects?, measure?, named?);
        let (groups, reach, shadow) = (groups?, reach?, shadow?);
        let calendar = calendar(window, zone, measure, faults)?;
        let place = named.as_ref().map_or(node.place, |name| name.place);
        let derived = || derived_name(&subjects, measure, calendar.is_some());
        let name = named.map_or_else(derived, |name| name.value);
        let per_place = per.map_or(node.place, |per| per.place);
        Some(Self { name, per: subjects, measure, groups, reach, shadow, calendar, place, per_place })
    }
}

fn subjects(node: &Node, faults: &mut Faults) -> Option<Vec<Per>> {
    let nodes = match &node.content {
        Content::List(_) => node.list(faults)?,
        _ => std::slice::from_ref(node),
    };
    let mut subjects = Vec::new();
    for node in nodes {
        let subject = subject(node, faults)?;
        if subjects.contains(&subject) {
            let message = format!("`{}` stands twice in this list", subject.word());
            faults.error("duplicate", node.place, message);
            return None;
        }
        subjects.push(subject);
    }
    Some(subjects)
}

/// One of the words, or a claim.
fn subject(node: &Node, faults: &mut Faults) -> Option<Per> {
    if let Content::Text(text) = &node.content
        && let Some(path) = text.strip_prefix("claims.").filter(|path| !path.is_empty())
    {
        return Some(Per::Claim(path.into()));
    }
    let words: Vec<(&str, usize)> =
        Per::WORDS.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
    Per::WORDS.get(node.one_of(&words, faults)?).map(|(_, per)| per.clone())
}

/// The windows of the calendar, if a quota goes by it. The outer `None` is a fault, which was told.
fn calendar(
    window: Option<&Node>,
    zone: Option<&Node>,
    measure: Measure,
    faults: &mut Faults,
) -> Option<Option<(Unit, TimeZone)>> {
    let by_calendar = match window {
        None => false,
        Some(node) => node.one_of(&[("rolling", false), ("calendar", true)], faults)?,
    };
    let (true, Some(window)) = (by_calendar, window) else {
        if let Some(zone) = zone {
            faults.error("no_use", zone.place, "`time_zone` is about `window: calendar`");
            return None;
        }
        return Some(None);
    };
    let unit = match measure {
        Measure::Quota { rate } if rate.per.as_secs() % 86_400 == 0 => {
            Unit::of_days(rate.per.as_secs() / 86_400)
        }
        Measure::Quota { .. } | Measure::Rate { .. } => None,
    };
    let Some(unit) = unit else {
        faults.push(
            Diagnostic::error("no_calendar", window.place, "a calendar has days, weeks and months")
                .note("write `quota: 1000 per day`, `per week` or `per month`"),
        );
        return None;
    };
    Some(Some((unit, zone.map_or(Some(TimeZone::UTC), |node| time_zone(node, faults))?)))
}

fn time_zone(node: &Node, faults: &mut Faults) -> Option<TimeZone> {
    let name = node.text(faults)?;
    match TimeZone::get(&name.value) {
        Ok(zone) => Some(zone),
        Err(_unknown) => {
            let message = format!("`{}` is not a time zone", name.value);
            faults.push(
                Diagnostic::error("unknown_time_zone", name.place, message)
                    .note("write one of the IANA database, such as `Europe/Berlin`"),
            );
            None
        }
    }
}

/// How groups are counted: as the limit itself, with a count of their own. A quota keeps its time, because the windows
/// of a caller go on when the caller changes groups.
fn group_measures(node: &Node, limit: Measure, faults: &mut Faults) -> Option<Vec<GroupSpec>> {
    let entries = node.named(faults)?;
    let read: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let rate = count_per_time(&entry.value, faults)?;
            let measure = match limit {
                Measure::Rate { .. } => Measure::Rate { rate, burst: rate.count },
                Measure::Quota { rate: own } if own.per == rate.per => Measure::Quota { rate },
                Measure::Quota { .. } => {
                    let message = "the quota of a group has the time of the limit";
                    faults.error("other_period", entry.value.place, message);
                    return None;
                }
            };
            Some(GroupSpec { group: entry.key.clone(), measure })
        })
        .collect();
    (read.len() == entries.len()).then_some(read)
}

fn measure(
    limit: &Node,
    rate: Option<&Node>,
    burst: Option<&Node>,
    quota: Option<&Node>,
    faults: &mut Faults,
) -> Option<Measure> {
    match (rate, burst, quota) {
        (Some(rate), burst, None) => {
            let rate = count_per_time(rate, faults);
            let largest = i64::try_from(LARGEST).unwrap_or(i64::MAX);
            let burst = match burst {
                None => Some(None),
                Some(burst) => burst.integer(1..=largest, faults).map(|burst| u64::try_from(burst).ok()),
            };
            let (rate, burst) = (rate?, burst?);
            Some(Measure::Rate { rate, burst: burst.unwrap_or(rate.count) })
        }
        (None, None, Some(quota)) => {
            let rate = count_per_time(quota, faults)?;
            if rate.per < Duration::from_secs(1) {
                faults.push(
                    Diagnostic::error("out_of_range", quota.place, "a quota lasts at least a second")
                        .note("for shorter times write `rate`"),
                );
                return None;
            }
            Some(Measure::Quota { rate })
        }
        (None, Some(burst), Some(_)) => {
            faults.error("burst_without_rate", burst.place, "`burst` goes with `rate`, not with `quota`");
            None
        }
        _ => {
            let message = "a limit has either `rate` or `quota`";
            let fault = Diagnostic::error("one_key", limit.place, message);
            faults.push(if rate.is_some() { fault.note("write two limits") } else { fault });
            None
        }
    }
}

fn count_per_time(node: &Node, faults: &mut Faults) -> Option<Rate> {
    let rate = node.rate(faults)?;
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

/// Names stand in header fields as quoted strings (RFC 9651 section 3.3.3) and in the store.
fn good_name(name: &Spanned<String>, faults: &mut Faults) -> bool {
    let text = &name.value;
    let good = text.len() <= LONGEST_NAME
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+ ".contains(&byte));
    if !good {
        faults.push(
            Diagnostic::error("bad_name", name.place, format!("`{text}` cannot be the name of a limit"))
                .note(format!("letters, digits, spaces and - _ . +, at most {LONGEST_NAME}")),
        );
    }
    good
}

/// What a limit is called that has no name: by what it counts, never by how much or by where it stands, so that
/// counters live on when a number is changed or limits are put in another order.
fn derived_name(per: &[Per], measure: Measure, by_calendar: bool) -> String {
    let subjects: Vec<_> = per.iter().map(Per::word).collect();
    let (kind, rate) = match measure {
        Measure::Rate { rate, .. } => ("rate", rate),
        Measure::Quota { rate } => ("quota", rate),
    };
    let calendar = if by_calendar { "calendar-" } else { "" };
    format!("{}-{kind}-{calendar}{}", subjects.join("+"), period(rate.per))
}

fn period(per: Duration) -> String {
    const DAY: u64 = 86_400;
    let named = [
        (1, "second"),
        (60, "minute"),
        (3_600, "hour"),
        (DAY, "day"),
        (7 * DAY, "week"),
        (30 * DAY, "month"),
    ];
    match named.iter().find(|(seconds, _)| per == Duration::from_secs(*seconds)) {
        Some((_, word)) => (*word).to_owned(),
        None if per.subsec_millis() == 0 => format!("{}s", per.as_secs()),
        None => format!("{}ms", per.as_millis()),
    }
}
