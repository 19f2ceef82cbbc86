//! How often a caller may do it: rates and quotas.
//!
//! Limits are asked last, after a request was authenticated and allowed: what is refused before costs nothing,
//! and neither does what one of the limits itself refuses, because whatever other limits had given is given
//! back (LIM-03).

mod calendar;
mod fields;
mod key;
mod reach;
mod spec;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use portcullis_core::{Moment, Principal, Reason, Rejection};
use portcullis_store::{
    LimitId, QuotaOutcome, QuotaRule, QuotaTable, RateOutcome, RateRule, RateTable, Store, StoreError,
};

use calendar::{Calendar, Unit, Window};
use key::{Key, Per, Uncountable};
use reach::Reach;
use spec::{GroupSpec, Measure};
pub use spec::{LimitsPlan, LimitsSpec};

/// Most limits one API can have.
pub(crate) const MAX_LIMITS: usize = 8;

/// What is known about a request when its limits are asked.
#[derive(Clone, Copy, Debug)]
pub struct LimitFacts<'a> {
    /// Who is calling.
    pub principal: &'a Principal,
    /// The method.
    pub method: &'a Method,
    /// The path relative to the API, starting with `/`.
    pub path_in_api: &'a str,
    /// The caller's address, as [`portcullis_core::Connection::address`] gives it.
    pub address: IpAddr,
    /// When the request was opened.
    pub now: Moment,
}

/// The limits of one API with their counters.
#[derive(Debug)]
pub struct Limits {
    /// Rates first, then quotas.
    limits: Box<[Limit]>,
    /// The value of `RateLimit-Policy`. Names are checked, so there always is one; a field is no reason to panic.
    policy: Option<HeaderValue>,
}

#[derive(Debug)]
struct Limit {
    name: Arc<str>,
    per: Box<[Per]>,
    reach: Reach,
    /// Asked and told of, and never in the way.
    shadow: bool,
    /// The windows of a quota that goes by the calendar.
    calendar: Option<Calendar>,
    counter: Counter,
    /// The same counters through the rules of groups that have one of their own.
    groups: Box<[(Arc<str>, Counter)]>,
}

#[derive(Debug)]
enum Counter {
    Rate(Arc<RateTable>),
    Quota(Arc<QuotaTable>),
}

/// Where a caller stands with one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    remaining: u32,
    reset_seconds: u32,
}

/// What a request has taken until its last limit has decided. Dropped before that, because a limit refused or
/// because the caller left while one waited for the store, it is given back (LIM-03).
struct Taken<'a> {
    limits: &'a [Limit],
    /// Which of them gave a unit, a bit each.
    which: u8,
    facts: &'a LimitFacts<'a>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let taken = self.limits.iter().enumerate().filter(|(at, _)| self.which & (1 << at) != 0);
        taken.for_each(|(_, limit)| limit.give_back(self.facts));
    }
}

/// One unit of every limit that is about a request, taken by it: where the caller stands now. Only [`Limits::admit`]
/// makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    standings: [Standing; MAX_LIMITS],
    /// Which of them there are, a bit each: not those of limits that are not about the request, or in shadow.
    told: u8,
    /// What a limit in shadow would have said.
    shadow: Option<Reason>,
}

impl Admission {
    /// What a limit in shadow would have refused the request for.
    pub const fn shadow(&self) -> Option<Reason> {
        self.shadow
    }
}

impl LimitsPlan {
    /// Finds the counters of the limits. They are the living ones, where there are any: an edited limit goes on
    /// with what it had counted. Only for policies that are without fault and about to be served, because a
    /// changed rule applies to its counters from here on.
    pub fn open(self, api: &str, store: &Store) -> Limits {
        let enforced = self.limits.iter().filter(|limit| !limit.shadow);
        let items: Vec<String> =
            enforced.map(|limit| fields::policy_item(&limit.name, limit.measure)).collect();
        let limits = self.limits.into_iter().map(|limit| {
            let id = LimitId::new(api, &limit.name);
            let unit = limit.calendar.as_ref().map(|(unit, _)| *unit);
            let groups = limit.groups.into_iter().map(|GroupSpec { group, measure }| {
                (Arc::from(group.value), Counter::open(store, &id, measure, unit))
            });
            Limit {
                groups: groups.collect(),
                counter: Counter::open(store, &id, limit.measure, unit),
                name: limit.name.into(),
                per: limit.per.into(),
                reach: limit.reach,
                shadow: limit.shadow,
                calendar: limit.calendar.map(|(unit, zone)| Calendar::new(unit, zone)),
            }
        });
        let policy = (!items.is_empty()).then(|| HeaderValue::try_from(items.join(", ")).ok()).flatten();
        Limits { limits: limits.collect(), policy }
    }
}

impl Counter {
    /// Counters of a calendar are remembered for longer than any window of theirs, and told apart by its first day.
    fn open(store: &Store, id: &LimitId, measure: Measure, calendar: Option<Unit>) -> Self {
        match measure {
            Measure::Rate { rate, burst } => {
                Self::Rate(store.rates(id, RateRule { count: rate.count, per: rate.per, burst }))
            }
            Measure::Quota { rate } => {
                let count = u32::try_from(rate.count).unwrap_or(u32::MAX);
                let per = calendar.map_or(rate.per, |unit| Duration::from_secs(unit.longest_seconds()));
                Self::Quota(store.quotas(id, QuotaRule { count, per }))
            }
        }
    }
}

impl Limits {
    /// Takes one unit of every limit that is about the request, or none of any. A limit in shadow refuses nothing: its
    /// unit is taken where there is one, and what it would have said is in the admission.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] or [`Reason::QuotaExhausted`] with the time to wait and the limit's name;
    /// [`Reason::StoreUnavailable`] if a quota cannot be decided; [`Reason::IdentityUnresolved`] if the request has not
    /// what a limit counts by.
    pub async fn admit(&self, facts: &LimitFacts<'_>) -> Result<Admission, Rejection> {
        let mut admission = Admission { standings: [Standing::default(); MAX_LIMITS], told: 0, shadow: None };
        let mut taken = Taken { limits: &self.limits, which: 0, facts };
        let about = self.limits.iter().zip(&mut admission.standings).enumerate();
        for (at, (limit, standing)) in about.filter(|(_, (limit, _))| limit.reach.takes(facts)) {
            match limit.take(facts).await {
                Ok(found) => {
                    taken.which |= 1 << at;
                    *standing = found;
                    admission.told |= u8::from(!limit.shadow) << at;
                }
                Err(rejection) if limit.shadow => {
                    admission.shadow = admission.shadow.or(Some(rejection.reason()));
                }
                Err(rejection) => return Err(rejection),
            }
        }
        taken.which = 0;
        Ok(admission)
    }

    /// Writes `RateLimit-Policy` and `RateLimit` for an admitted request, in place of any the upstream wrote
    /// (LIM-07).
    pub fn write_fields(&self, admission: &Admission, headers: &mut HeaderMap) {
        let standings = self.limits.iter().zip(admission.standings).enumerate();
        let told = standings.filter(|(at, _)| admission.told & (1 << at) != 0);
        let told = told.map(|(_, (limit, standing))| (&*limit.name, standing));
        self.write((admission.told != 0).then(|| fields::standing(told)).flatten(), headers);
    }

    /// Writes the same fields for a request that one of these limits refused: nothing is left of that one.
    pub fn write_refusal_fields(&self, rejection: &Rejection, headers: &mut HeaderMap) {
        let Some(detail) = rejection.detail() else { return };
        let wait = fields::whole_seconds(detail.retry_after.unwrap_or_default());
        let standing = Standing { remaining: 0, reset_seconds: u32::try_from(wait).unwrap_or(u32::MAX) };
        let violated =
            detail.violated.iter().filter(|name| self.limits.iter().any(|limit| limit.name == **name));
        let mut violated = violated.map(|name| (&**name, standing)).peekable();
        if violated.peek().is_some() {
            self.write(fields::standing(violated), headers);
        }
    }

    /// The names of all limits, rates first.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.limits.iter().map(|limit| &limit.name)
    }

    fn write(&self, standing: Option<HeaderValue>, headers: &mut HeaderMap) {
        let written = [(fields::RATE_LIMIT_POLICY, self.policy.clone()), (fields::RATE_LIMIT, standing)];
        for (name, value) in written {
            match value {
                Some(value) => headers.insert(name, value),
                None => headers.remove(name),
            };
        }
    }
}

impl Limit {
    async fn take(&self, facts: &LimitFacts<'_>) -> Result<Standing, Rejection> {
        let window = self.window(facts)?;
        let key = self.key(window.as_deref(), facts).map_err(|why| self.uncountable(&why))?;
        // The calendar knows better than the store when its window is over.
        let left = |by_store: Duration| {
            let seconds = |window: &Window| window.ends.saturating_sub(facts.now.unix_seconds());
            let left = window.as_deref().map(|window| u64::try_from(seconds(window)).unwrap_or_default());
            left.map_or(by_store, Duration::from_secs)
        };
        match self.counter(facts) {
            Counter::Rate(table) => match table.take(key.as_str(), facts.now.monotonic) {
                RateOutcome::Taken { remaining, reset } => Ok(Standing::new(remaining, reset)),
                RateOutcome::Refused { retry_after } => Err(self.refusal(Reason::RateLimited, retry_after)),
            },
            Counter::Quota(table) => match table.take(key.as_str(), facts.now).await {
                Ok(QuotaOutcome::Taken { remaining, reset }) => Ok(Standing::new(remaining, left(reset))),
                Ok(QuotaOutcome::Refused { retry_after }) => {
                    Err(self.refusal(Reason::QuotaExhausted, left(retry_after)))
                }
                Err(error) => Err(self.undecided(&error)),
            },
        }
    }

    fn give_back(&self, facts: &LimitFacts<'_>) {
        // A unit was taken under the key, so there is one.
        let Ok(window) = self.window(facts) else { return };
        let Ok(key) = self.key(window.as_deref(), facts) else { return };
        match self.counter(facts) {
            Counter::Rate(table) => table.give_back(key.as_str()),
            Counter::Quota(table) => table.give_back(key.as_str(), facts.now),
        }
    }

    /// The window of the calendar, where the limit goes by one.
    fn window(&self, facts: &LimitFacts<'_>) -> Result<Option<Arc<Window>>, Rejection> {
        let Some(calendar) = &self.calendar else { return Ok(None) };
        let window = calendar.window(facts.now).ok_or_else(|| {
            let why = format!("limit `{}`: the clock is outside of the calendar", self.name);
            Rejection::new(Reason::StoreUnavailable).because(why)
        });
        window.map(Some)
    }

    /// Whose counter the request is counted on; in a calendar, each window has counters of its own.
    fn key<'a>(&self, window: Option<&Window>, facts: &LimitFacts<'a>) -> Result<Key<'a>, Uncountable> {
        let key = Key::of(&self.per, facts)?;
        Ok(match window {
            None => key,
            // SECURITY: the day comes first and has one length, so no caller's name can imitate another day's.
            Some(window) => Key::Built(format!("{} {}", window.first_day, key.as_str())),
        })
    }

    /// The counters, through the rule that holds for the caller.
    fn counter(&self, facts: &LimitFacts<'_>) -> &Counter {
        let group = facts.principal.group.as_deref();
        let own = self.groups.iter().find(|(name, _)| group == Some(&**name));
        own.map_or(&self.counter, |(_, counter)| counter)
    }

    /// SECURITY: whoever cannot be counted is not let through uncounted.
    fn uncountable(&self, why: &Uncountable) -> Rejection {
        Rejection::new(Reason::IdentityUnresolved).because(format!("limit `{}`: {why}", self.name))
    }

    fn refusal(&self, reason: Reason, retry_after: Duration) -> Rejection {
        Rejection::new(reason).retry_after(retry_after).violating(Arc::clone(&self.name))
    }

    /// SECURITY: whatever keeps a quota from being decided refuses the request, and never as "used up", which
    /// would be untrue (LIM-04).
    fn undecided(&self, error: &StoreError) -> Rejection {
        match error {
            StoreError::Disk(_)
            | StoreError::TimedOut
            | StoreError::Overloaded
            | StoreError::Closed
            | StoreError::KeyTooLong => {
                Rejection::new(Reason::StoreUnavailable).because(format!("limit `{}`: {error}", self.name))
            }
        }
    }
}

impl Standing {
    /// The time is rounded up, so that whoever waits for it does not come too early.
    fn new(remaining: u64, reset: Duration) -> Self {
        Self {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_seconds: u32::try_from(fields::whole_seconds(reset)).unwrap_or(u32::MAX),
        }
    }
}
