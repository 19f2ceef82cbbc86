//! Limits as written in a file.

use jiff::tz::TimeZone;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};

use super::MAX_LIMITS;
use super::calendar::Unit;
use super::count::Count;
use super::key::Per;
use super::measure::{Measure, MeasureNodes, group_measures};
use super::naming::{derived_name, good_name};
use super::of_plan::{PlanLimitSpec, PlanSlots};
use super::own::OwnCount;
use super::reach::Reach;
use super::shared::SharedLimits;
use super::throttle::ThrottleSpec;

/// What becomes of a request that a limit cannot count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenStoreFails {
    /// It is refused.
    Deny,
    /// It passes uncounted.
    Allow,
    /// This gateway counts it alone.
    Local,
}

impl WhenStoreFails {
    const WORDS: &[(&'static str, Self)] =
        &[("deny", Self::Deny), ("allow", Self::Allow), ("local", Self::Local)];

    /// Where nothing is written: a rate guards the moment, which each gateway can do for itself; a quota is a promise.
    const fn of(measure: Measure) -> Self {
        match measure {
            Measure::Rate { .. } => Self::Local,
            Measure::Quota { .. } => Self::Deny,
        }
    }
}

/// Whether a limit is in the way.
const MODES: &[(&str, bool)] = &[("enforce", false), ("shadow", true)];

/// The `limits` list of an API.
#[derive(Debug)]
pub struct LimitsSpec {
    limits: Vec<LimitSpec>,
    /// Whether every limit of the file is among them.
    complete: bool,
}

/// One limit of the list, its name already settled.
#[derive(Clone, Debug)]
pub(super) struct LimitSpec {
    pub(super) name: String,
    pub(super) per: Vec<Per>,
    pub(super) measure: Measure,
    /// Where callers have a count of their own.
    pub(super) own: Option<OwnCount>,
    pub(super) count: Count,
    /// The name of the counters it shares with limits of other APIs.
    pub(super) shared_as: Option<Spanned<String>>,
    /// Groups that have a measure of their own.
    pub(super) groups: Vec<GroupSpec>,
    pub(super) reach: Reach,
    pub(super) when_store_fails: WhenStoreFails,
    /// How many units of a quota that is shared are taken at once.
    pub(super) lease: u32,
    /// How long requests wait instead of being refused.
    pub(super) throttle: Option<ThrottleSpec>,
    pub(super) shadow: bool,
    /// The windows of a quota that goes by the calendar, and whose.
    pub(super) calendar: Option<(Unit, TimeZone)>,
    /// Of the name, or of the limit if its name is derived.
    pub(super) place: Place,
    /// Of `per`, or of the limit if that is left out.
    per_place: Place,
    /// Of `groups`, or of the limit if that is left out.
    groups_place: Place,
}

/// How a group of callers is counted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GroupSpec {
    pub(super) group: Spanned<String>,
    pub(super) measure: Measure,
}

/// What is known of an API's callers when its limits are compiled.
#[derive(Clone, Copy, Debug)]
pub struct Callers {
    /// Whether some are let through without a credential.
    pub anonymous: bool,
    /// Whether some may have a token.
    pub tokens: bool,
    /// Whether some may be in a group.
    pub groups: bool,
}

/// Checked limits that have not met their counters yet.
#[derive(Debug, Default)]
pub struct CheckedLimits {
    /// Rates first, then quotas, each in the order written (LIM-03), those of plans behind the API's own.
    pub(super) slots: Vec<SlotSpec>,
}

/// A limit of the API, or what plans say about the same thing.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "they live while policies are loaded")]
pub(super) enum SlotSpec {
    Own(LimitSpec),
    OfPlans(Vec<PlanLimitSpec>),
}

impl SlotSpec {
    fn is_quota(&self) -> bool {
        match self {
            Self::Own(limit) => limit.is_quota(),
            Self::OfPlans(terms) => terms.iter().any(|term| term.is_quota),
        }
    }
}

impl CheckedLimits {
    /// Whether any of them is a quota, which a restart should not forget.
    pub fn has_quota(&self) -> bool {
        self.slots.iter().any(SlotSpec::is_quota)
    }

    /// Puts those of plans among them.
    pub fn with(mut self, plans: PlanSlots, place: Place, faults: &mut Faults) -> Option<Self> {
        self.slots.extend(plans.0.into_iter().map(SlotSpec::OfPlans));
        self.slots.sort_by_key(SlotSpec::is_quota);
        if self.slots.len() > MAX_LIMITS {
            let count = self.slots.len();
            let message =
                format!("an API has at most {MAX_LIMITS} limits, with those of plans these are {count}");
            faults.push(Diagnostic::error("too_many", place, message).note(
                "limits of several plans count as one if their `per`, `methods` and `paths` are the same",
            ));
            return None;
        }
        Some(self)
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

    /// Checks the limits against each other, against those of other APIs and against who may call. Counters are not
    /// touched: see [`CheckedLimits::open`].
    pub fn compile(
        mut self,
        callers: Callers,
        shared: &mut SharedLimits,
        faults: &mut Faults,
    ) -> Option<CheckedLimits> {
        let mut good = self.complete;
        for (at, limit) in self.limits.iter().enumerate() {
            let earlier = self.limits.get(..at).unwrap_or_default();
            let same = |other: &&LimitSpec| other.name == limit.name || other.is_one_counter_with(limit);
            if let Some(same) = earlier.iter().find(same) {
                let message = format!("there are two limits `{}`", limit.shared_name());
                faults.push(
                    Diagnostic::error("duplicate", limit.place, message)
                        .related(same.place, "the other one is here")
                        .note("give one of them another `name`"),
                );
                good = false;
            } else {
                good &= shared.join(limit, faults);
            }
            good &= limit.fits(callers, faults);
        }
        self.limits.sort_by_key(LimitSpec::is_quota);
        good.then(|| CheckedLimits { slots: self.limits.into_iter().map(SlotSpec::Own).collect() })
    }
}

impl LimitSpec {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a limit", faults)?;
        let per = fields.get("per");
        let measure = MeasureNodes {
            rate: fields.get("rate"),
            burst: fields.get("burst"),
            algorithm: fields.get("algorithm"),
            quota: fields.get("quota"),
            carry_over: fields.get("carry_over"),
            alerts: fields.get("alerts"),
        };
        let (name, groups_node, mode) = (fields.get("name"), fields.get("groups"), fields.get("mode"));
        let (methods, paths) = (fields.get("methods"), fields.get("paths"));
        let (window, zone) = (fields.get("window"), fields.get("time_zone"));
        let (count, shared_as) = (fields.get("count"), fields.get("shared_as"));
        let (fails, lease) = (fields.get("when_store_fails"), fields.get("lease"));
        let throttle = fields.get("throttle");
        fields.finish(faults);
        let subjects = match per {
            None => Some(vec![Per::Identity]),
            Some(node) => subjects(node, faults),
        };
        let measure = measure.read(node, faults);
        let named = optional_name(name, faults);
        let shared_as = optional_name(shared_as, faults);
        let count = count.map_or(Some(Count::Admitted), |node| Count::read(node, faults));
        let groups = match (groups_node, &measure) {
            (Some(node), Some((_, Some(_)))) => {
                let message = "callers have counts of their own here, whatever their group";
                faults.error("no_use", node.place, message);
                None
            }
            (Some(node), Some((measure, None))) => group_measures(node, *measure, faults),
            _ => Some(Vec::new()),
        };
        let reach = Reach::read(methods, paths, faults);
        let shadow = mode.map_or(Some(false), |node| node.one_of(MODES, faults));
        let fails = fails.map(|node| node.one_of(WhenStoreFails::WORDS, faults));
        let (subjects, (measure, own), named) = (subjects?, measure?, named?);
        let (groups, reach, shadow, count, shared_as) = (groups?, reach?, shadow?, count?, shared_as?);
        let calendar = calendar(window, zone, measure, faults)?;
        let lease = lease.map_or(Some(1), |node| read_lease(node, measure, &count, faults))?;
        let throttle = throttle.map(|node| ThrottleSpec::read(node, measure, faults));
        let throttle = throttle.map_or(Some(None), |read| read.map(Some))?;
        let when_store_fails = fails.unwrap_or_else(|| Some(WhenStoreFails::of(measure)))?;
        let place = named.as_ref().or(shared_as.as_ref()).map_or(node.place, |name| name.place);
        let derived = || derived_name(&subjects, measure, calendar.is_some());
        let name = named.or_else(|| shared_as.clone()).map_or_else(derived, |name| name.value);
        let per_place = per.map_or(node.place, |per| per.place);
        let groups_place = groups_node.map_or(node.place, |groups| groups.place);
        Some(Self {
            name,
            per: subjects,
            measure,
            own,
            count,
            shared_as,
            groups,
            reach,
            when_store_fails,
            lease,
            throttle,
            shadow,
            calendar,
            place,
            per_place,
            groups_place,
        })
    }

    pub(super) fn is_quota(&self) -> bool {
        matches!(self.measure, Measure::Quota { .. })
    }

    /// Whether both say the same of how is counted.
    pub(super) fn counts_like(&self, other: &Self) -> bool {
        let groups = |of: &Self| {
            of.groups.iter().map(|group| (group.group.value.clone(), group.measure)).collect::<Vec<_>>()
        };
        self.per == other.per
            && self.measure == other.measure
            && self.own == other.own
            && self.count == other.count
            && self.shadow == other.shadow
            && (self.when_store_fails, self.lease) == (other.when_store_fails, other.lease)
            && self.calendar == other.calendar
            && groups(self) == groups(other)
    }

    fn is_one_counter_with(&self, other: &Self) -> bool {
        let name = |of: &Self| of.shared_as.as_ref().map(|name| name.value.clone());
        name(self).is_some() && name(self) == name(other)
    }

    fn shared_name(&self) -> &str {
        self.shared_as.as_ref().map_or(&self.name, |name| &name.value)
    }

    /// Whether the callers of the API have what it counts by.
    pub(super) fn fits(&self, callers: Callers, faults: &mut Faults) -> bool {
        let nameless = |per: &Per| matches!(per, Per::Address | Per::Api);
        if self.count == Count::Failures && !self.per.iter().all(nameless) {
            faults.push(
                Diagnostic::error("nameless_failures", self.per_place, "who is refused has no identity to count by")
                    .note("write `per: address`, or count what the upstream refuses: `count: { responses: [401, 403] }`"),
            );
            return false;
        }
        if self.count == Count::Failures && (self.own.is_some() || !self.groups.is_empty()) {
            let message = "who is refused is in no group and has no count of its own";
            faults.error("nameless_failures", self.place, message);
            return false;
        }
        if callers.anonymous && !self.per.iter().any(nameless) {
            faults.push(
                Diagnostic::error(
                    "anonymous_limit",
                    self.per_place,
                    "callers without a credential have no identity to count by",
                )
                .note(
                    "all of them would share one count: write `per: address`, or `per: api` if that is meant",
                ),
            );
            return false;
        }
        let by_claim = self.per.iter().any(|per| matches!(per, Per::Claim(_)));
        if by_claim && !callers.tokens {
            faults.push(
                Diagnostic::warning("no_claims", self.per_place, "nobody who calls this API has a token")
                    .note("without the claim to count by, every request is refused (`identity_unresolved`)"),
            );
        }
        if self.own.as_ref().is_some_and(OwnCount::is_of_a_token) && !callers.tokens {
            let message = "nobody who calls this API has a token: everybody has the count of `else`";
            faults.push(Diagnostic::warning("no_claims", self.place, message));
        }
        if !self.groups.is_empty() && !callers.groups {
            faults.push(
                Diagnostic::warning(
                    "no_groups",
                    self.groups_place,
                    "nobody who calls this API is in a group",
                )
                .note("`identity: { group: … }` of the API says where a caller's group is read"),
            );
        }
        true
    }
}

/// The largest block.
const LARGEST_LEASE: i64 = 1_000_000;

fn read_lease(node: &Node, measure: Measure, count: &Count, faults: &mut Faults) -> Option<u32> {
    let why = match (measure, count) {
        (Measure::Rate { .. }, _) => "`lease` is about a quota: units of a rate cannot be kept for later",
        (Measure::Quota { .. }, Count::Failures | Count::Responses(_)) => {
            "`lease` is about requests that are admitted: answers are counted one by one"
        }
        (Measure::Quota { .. }, Count::Admitted) => {
            return node.integer(1..=LARGEST_LEASE, faults).and_then(|units| u32::try_from(units).ok());
        }
    };
    faults.error("no_use", node.place, why);
    None
}

/// A name, if one is written. The outer `None` is a fault, which was told.
#[expect(clippy::option_option, reason = "absent, unreadable and read are three things")]
fn optional_name(node: Option<&Node>, faults: &mut Faults) -> Option<Option<Spanned<String>>> {
    let Some(node) = node else { return Some(None) };
    node.text(faults).filter(|name| good_name(name, faults)).map(Some)
}

pub(super) fn subjects(node: &Node, faults: &mut Faults) -> Option<Vec<Per>> {
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
        Measure::Quota { rate, .. } if rate.per.as_secs() % 86_400 == 0 => {
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
