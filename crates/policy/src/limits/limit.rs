//! One limit: its counters, and the rule that holds for a caller.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use portcullis_core::{Moment, PlanId, Principal, Reason, Rejection};
use portcullis_store::{
    LimitId, QuotaKey, QuotaOutcome, QuotaRule, QuotaTable, RateOutcome, RateRule, RateTable, RateUnit,
    Store, StoreError,
};

use super::alerts::{AlertHook, QuotaAlert};
use super::calendar::{Calendar, Unit, Window};
use super::count::Count;
use super::fields;
use super::key::{Key, Per, Uncountable};
use super::measure::Measure;
use super::of_plan::{OfPlan, PlanLimitSpec};
use super::own::OwnCount;
use super::reach::Reach;
use super::remote::{Said, Shared, SharedHeld};
use super::slot::{PlanLimit, PlanLimits, Slot};
use super::spec::{CheckedLimits, GroupSpec, LimitSpec, SlotSpec, WhenStoreFails};
use super::throttle::Throttle;
use super::{LimitFacts, Limits, Standing};

#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: Arc<str>,
    /// The plan it is of.
    pub(super) plan: Option<PlanId>,
    api: Arc<str>,
    pub(super) per: Box<[Per]>,
    reach: Reach,
    count: Count,
    /// Asked and told of, and never in the way.
    pub(super) shadow: bool,
    /// The windows of a quota that goes by the calendar.
    calendar: Option<Calendar>,
    rule: Rule,
    /// Where callers have a count of their own.
    pub(super) own: Option<OwnCount>,
    /// The same counters through the rules of groups that have one of their own.
    groups: Box<[(Arc<str>, Rule)]>,
    alerts: AlertHook,
    pub(super) when_store_fails: WhenStoreFails,
    /// Where requests wait instead of being refused.
    pub(super) throttle: Option<Throttle>,
    /// Where it is counted together with other gateways.
    pub(super) shared: Option<Shared>,
}

/// Counters, seen through a rule.
#[derive(Debug)]
pub(super) struct Rule {
    measure: Measure,
    pub(super) counter: Counter,
}

#[derive(Debug)]
pub(super) enum Counter {
    Rate(Arc<RateTable>),
    Quota(Arc<QuotaTable>),
}

/// A unit that is held until it is known whether it counts.
#[derive(Debug)]
pub(super) struct Held {
    /// The limit's position.
    pub(super) at: usize,
    /// The plan the limit is of.
    pub(super) plan: Option<PlanId>,
    key: String,
    count: u64,
    taken: Moment,
    reset: Duration,
    /// Of a unit that other gateways count, too.
    pub(super) shared: Option<SharedHeld>,
}

impl CheckedLimits {
    /// Finds the counters of the limits. They are the living ones, where there are any: an edited limit goes on
    /// with what it had counted. Only for policies that are without fault and about to be served, because a
    /// changed rule applies to its counters from here on.
    pub fn open(self, api: &str, store: &Store, alerts: &AlertHook) -> Limits {
        let is_own = |slot: &SlotSpec| match slot {
            SlotSpec::Own(limit) => limit.own.is_some() || !limit.groups.is_empty(),
            SlotSpec::OfPlans(_) => true,
        };
        let is_personal = self.slots.iter().any(is_own);
        let api: Arc<str> = api.into();
        let slots = self.slots.into_iter().map(|slot| match slot {
            SlotSpec::Own(limit) => Slot::Own(Limit::open(limit, None, &api, store, alerts)),
            SlotSpec::OfPlans(terms) => {
                let is_narrow = terms.iter().any(|term| !term.reach.is_whole());
                let open = |term: PlanLimitSpec| PlanLimit {
                    plan: term.plan.id,
                    limit: term.limit.map(|limit| Limit::open(limit, Some(&term.plan), &api, store, alerts)),
                };
                let mut terms: Box<[_]> = terms.into_iter().map(open).collect();
                terms.sort_by_key(|term| term.plan);
                Slot::OfPlans(PlanLimits { terms, is_narrow })
            }
        });
        let slots: Box<[Slot]> = slots.collect();
        let enforced = slots.iter().flat_map(Slot::all).filter(|limit| !limit.shadow);
        let items: Vec<String> = enforced.map(|limit| limit.policy_item(None)).collect();
        let policy = (!items.is_empty()).then(|| HeaderValue::try_from(items.join(", ")).ok()).flatten();
        Limits { slots, policy: policy.filter(|_| !is_personal), is_personal }
    }
}

impl Rule {
    pub(super) const fn measure(&self) -> Measure {
        self.measure
    }

    /// Counters of a calendar are remembered for longer than any window of theirs, and told apart by its first day.
    fn open(store: &Store, id: &LimitId, measure: Measure, calendar: Option<Unit>) -> Self {
        let counter = match measure {
            Measure::Rate { rate, burst, algorithm } => Counter::Rate(
                store.rates(id, RateRule { count: rate.count, per: rate.per, burst, algorithm }),
            ),
            Measure::Quota { rate, carried, alerts } => {
                let count = u32::try_from(rate.count).unwrap_or(u32::MAX).saturating_add(carried);
                let per = calendar.map_or(rate.per, |unit| Duration::from_secs(unit.longest_seconds()));
                Counter::Quota(store.quotas(id, QuotaRule { count, per, carried, alerts }))
            }
        };
        Self { measure, counter }
    }
}

impl Limit {
    fn open(
        spec: LimitSpec,
        plan: Option<&OfPlan>,
        api: &Arc<str>,
        store: &Store,
        alerts: &AlertHook,
    ) -> Self {
        let id = match (plan, &spec.shared_as) {
            (Some(plan), _) => plan.counters(api, &spec.name),
            (None, Some(name)) => LimitId::shared(&name.value),
            (None, None) => LimitId::new(api, &spec.name),
        };
        let name = plan.map_or_else(|| spec.name.as_str().into(), |plan| plan.shown(&spec.name).into());
        let unit = spec.calendar.as_ref().map(|(unit, _)| *unit);
        let groups = spec.groups.into_iter().map(|GroupSpec { group, measure }| {
            (Arc::from(group.value), Rule::open(store, &id, measure, unit))
        });
        Self {
            groups: groups.collect(),
            rule: Rule::open(store, &id, spec.measure, unit),
            name,
            plan: plan.map(|plan| plan.id),
            api: Arc::clone(api),
            per: spec.per.into(),
            reach: spec.reach,
            count: spec.count,
            shadow: spec.shadow,
            calendar: spec.calendar.map(|(unit, zone)| Calendar::new(unit, zone)),
            own: spec.own,
            alerts: alerts.clone(),
            when_store_fails: spec.when_store_fails,
            throttle: spec.throttle.map(Throttle::new),
            shared: store.shared().map(|counters| Shared::new(counters, id, spec.lease)),
        }
    }

    /// How much of what.
    pub(super) const fn measure(&self) -> Measure {
        self.rule.measure
    }

    /// Whether it is asked about a request, before or after it is known who calls.
    pub(super) fn is_asked(&self, facts: &LimitFacts<'_>, early: bool) -> bool {
        self.is_early() == early && self.reach.takes(facts.method, facts.path_in_api)
    }

    /// Whether it is asked before it is known who calls.
    pub(super) fn is_early(&self) -> bool {
        self.count == Count::Failures
    }

    /// Whether a unit is given back where the answer is not counted.
    pub(super) fn counts_answers(&self) -> bool {
        self.count != Count::Admitted
    }

    /// Takes a unit of counters that are this gateway's alone.
    pub(super) async fn take_alone(&self, facts: &LimitFacts<'_>) -> Result<Said, Rejection> {
        match self.take(facts).await {
            Ok((standing, reset)) => Ok(Said::Taken { standing, reset, held: None, reached: None }),
            Err(rejection)
                if rejection.reason() == Reason::StoreUnavailable
                    && self.when_store_fails == WhenStoreFails::Allow =>
            {
                Ok(Said::Uncounted)
            }
            Err(rejection) => Err(rejection),
        }
    }

    /// Takes a unit: where the caller stands now, and how long until nothing of it counts any more.
    pub(super) async fn take(&self, facts: &LimitFacts<'_>) -> Result<(Standing, Duration), Rejection> {
        let window = self.window(facts)?;
        let window = window.as_deref();
        let key = self.key(window, facts).map_err(|why| self.uncountable(&why))?;
        let rule = self.rule(facts.principal);
        match (&rule.counter, &self.own) {
            (Counter::Rate(table), own) => {
                let outcome = match (own, facts.principal) {
                    (Some(own), Some(caller)) => table.take_of(own.of(caller), key.as_str(), facts.now),
                    _ => table.take(key.as_str(), facts.now),
                };
                match outcome {
                    RateOutcome::Taken { remaining, reset } => Ok((Standing::new(remaining, reset), reset)),
                    RateOutcome::Refused { retry_after } => {
                        Err(self.refusal(Reason::RateLimited, retry_after))
                    }
                }
            }
            (Counter::Quota(table), _) => {
                let last = self.last_key(table, window, facts);
                let quota = QuotaKey { key: key.as_str(), last: last.as_deref() };
                let count = self.quota_count(table, facts.principal);
                match table.take_of(count, quota, facts.now).await {
                    Ok(QuotaOutcome::Taken { remaining, reset, reached }) => {
                        if let Some(percent) = reached {
                            self.alert(facts, percent, remaining)();
                        }
                        Ok((Standing::new(remaining, left(window, facts.now, reset)), reset))
                    }
                    Ok(QuotaOutcome::Refused { retry_after }) => {
                        Err(self.refusal(Reason::QuotaExhausted, left(window, facts.now, retry_after)))
                    }
                    Err(error) => Err(self.undecided(&error)),
                }
            }
        }
    }

    /// Gives the unit back that a request has taken, in the moment it took it.
    pub(super) fn undo(&self, facts: &LimitFacts<'_>) {
        // A unit was taken under the key, so there is one.
        let Some(held) = self.hold(0, (Duration::MAX, None), facts) else { return };
        self.give_back(&held, facts.now);
    }

    /// The unit that a request has taken, for later.
    pub(super) fn hold(
        &self,
        at: usize,
        (reset, shared): (Duration, Option<SharedHeld>),
        facts: &LimitFacts<'_>,
    ) -> Option<Held> {
        let window = self.window(facts).ok()?;
        let key = self.key(window.as_deref(), facts).ok()?.as_str().to_owned();
        let count = match (&self.rule(facts.principal).counter, &self.own, facts.principal) {
            (_, Some(own), Some(caller)) => own.of(caller),
            (Counter::Rate(table), ..) => table.rule().count,
            (Counter::Quota(table), ..) => table.rule().count.into(),
        };
        Some(Held { at, plan: self.plan, key, count, taken: facts.now, reset, shared })
    }

    /// Gives a unit back if the answer is not counted.
    pub(super) fn settle(&self, held: &Held, status: StatusCode, now: Moment) {
        if !self.count.takes(status) {
            self.give_back(held, now);
        }
    }

    fn give_back(&self, held: &Held, now: Moment) {
        if let (Some(shared), Some(unit)) = (&self.shared, &held.shared) {
            return shared.give_back(unit);
        }
        let Held { key, count, taken, reset, .. } = held;
        match &self.rule.counter {
            Counter::Rate(table) => {
                table.give_back(key, RateUnit { count: *count, taken: *taken, reset: *reset }, now);
            }
            Counter::Quota(table) => table.give_back(key, *taken),
        }
    }

    /// Where the caller stands, if the request is answered like that.
    pub(super) fn told(&self, standing: Standing, status: StatusCode) -> Standing {
        let given_back = u32::from(!self.count.takes(status));
        Standing { remaining: standing.remaining.saturating_add(given_back), ..standing }
    }

    /// What it promises a caller.
    pub(super) fn policy_item(&self, principal: Option<&Principal>) -> String {
        let own = principal.and_then(|caller| Some(self.own.as_ref()?.of(caller)));
        fields::policy_item(&self.name, self.rule(principal).measure, own)
    }

    /// The window of the calendar, where the limit goes by one.
    pub(super) fn window(&self, facts: &LimitFacts<'_>) -> Result<Option<Arc<Window>>, Rejection> {
        let Some(calendar) = &self.calendar else { return Ok(None) };
        let window = calendar.window(facts.now).ok_or_else(|| {
            let why = format!("limit `{}`: the clock is outside of the calendar", self.name);
            Rejection::new(Reason::StoreUnavailable).because(why)
        });
        window.map(Some)
    }

    /// Whose counter the request is counted on; in a calendar, each window has counters of its own.
    pub(super) fn key<'a>(
        &self,
        window: Option<&Window>,
        facts: &LimitFacts<'a>,
    ) -> Result<Key<'a>, Uncountable> {
        let key = Key::of(&self.per, facts)?;
        Ok(match window {
            None => key,
            // SECURITY: the day comes first and has one length, so no caller's name can imitate another day's.
            Some(window) => Key::Built(format!("{} {}", window.first_day, key.as_str())),
        })
    }

    /// The key of the window before, where units of it may be carried over into one that has another key.
    pub(super) fn last_key(
        &self,
        table: &QuotaTable,
        window: Option<&Window>,
        facts: &LimitFacts<'_>,
    ) -> Option<String> {
        let window = window.filter(|_| table.rule().carried > 0)?;
        let key = Key::of(&self.per, facts).ok()?;
        Some(format!("{} {}", window.last_first_day, key.as_str()))
    }

    /// The rule that holds for the caller.
    pub(super) fn rule(&self, principal: Option<&Principal>) -> &Rule {
        let group = principal.and_then(|caller| caller.group.as_deref());
        let own = self.groups.iter().find(|(name, _)| group == Some(&**name));
        own.map_or(&self.rule, |(_, rule)| rule)
    }

    /// The caller's units of a quota, with those that may be carried over.
    pub(super) fn quota_count(&self, table: &QuotaTable, principal: Option<&Principal>) -> u32 {
        match (&self.own, principal) {
            (Some(own), Some(caller)) => {
                let own = u32::try_from(own.of(caller)).unwrap_or(u32::MAX);
                own.saturating_add(table.rule().carried)
            }
            _ => table.rule().count,
        }
    }

    /// What tells that a percentage is reached.
    pub(super) fn alert(
        &self,
        facts: &LimitFacts<'_>,
        percent: u8,
        remaining: u64,
    ) -> impl FnOnce() + Send + use<> {
        let (hook, api, limit) = (self.alerts.clone(), Arc::clone(&self.api), Arc::clone(&self.name));
        let identity = facts.principal.map(|caller| caller.name.clone());
        move || {
            let identity = identity.as_deref().unwrap_or_default();
            hook.tell(&QuotaAlert { api: &api, limit: &limit, identity, percent, remaining });
        }
    }

    /// SECURITY: whoever cannot be counted is not let through uncounted.
    pub(super) fn uncountable(&self, why: &Uncountable) -> Rejection {
        Rejection::new(Reason::IdentityUnresolved).because(format!("limit `{}`: {why}", self.name))
    }

    pub(super) fn refusal(&self, reason: Reason, retry_after: Duration) -> Rejection {
        Rejection::new(reason).retry_after(retry_after).violating(Arc::clone(&self.name))
    }

    /// SECURITY: whatever keeps a quota from being decided refuses the request, and never as "used up", which
    /// would be untrue (LIM-04).
    pub(super) fn undecided(&self, error: &StoreError) -> Rejection {
        match error {
            StoreError::Disk(_)
            | StoreError::TimedOut
            | StoreError::Overloaded
            | StoreError::NoAnswer
            | StoreError::Conflict
            | StoreError::Closed
            | StoreError::KeyTooLong => {
                Rejection::new(Reason::StoreUnavailable).because(format!("limit `{}`: {error}", self.name))
            }
        }
    }
}

/// How long a window still lasts: the calendar knows better than the store.
pub(super) fn left(window: Option<&Window>, now: Moment, by_store: Duration) -> Duration {
    let seconds = |window: &Window| window.ends.saturating_sub(now.unix_seconds());
    window.map_or(by_store, |window| Duration::from_secs(u64::try_from(seconds(window)).unwrap_or_default()))
}
