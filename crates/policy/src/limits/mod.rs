//! How often a caller may do it: rates and quotas.
//!
//! Limits are asked last, after a request was authenticated and allowed: what is refused before costs nothing,
//! and neither does what one of the limits itself refuses, because whatever other limits had given is given
//! back (LIM-03).

mod alerts;
mod calendar;
mod count;
mod fields;
mod key;
#[cfg(test)]
mod kind_tests;
mod limit;
mod measure;
mod naming;
mod of_plan;
mod own;
pub(crate) mod reach;
mod remote;
mod shared;
mod slot;
mod spec;
#[cfg(test)]
mod tests;
mod throttle;
mod usage;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use portcullis_core::{Moment, PlanId, PlanSet, Principal, Reason, Rejection};

pub use alerts::{AlertHook, QuotaAlert};
use limit::{Held, Limit};
pub use of_plan::PlanSlots;
pub(crate) use of_plan::{OfPlan, PlanLimitSpec};
use remote::{Leased, Reached, Said};
pub use shared::SharedLimits;
use slot::Slot;
pub use spec::{Callers, CheckedLimits, LimitsSpec};
pub use usage::{LimitView, Usage};

/// Most limits one API can have.
pub(crate) const MAX_LIMITS: usize = 8;

/// What is known about a request when its limits are asked.
#[derive(Clone, Copy, Debug)]
pub struct LimitFacts<'a> {
    /// Who is calling; `None` before anybody has been asked.
    pub principal: Option<&'a Principal>,
    /// The method.
    pub method: &'a Method,
    /// The path relative to the API, starting with `/`.
    pub path_in_api: &'a str,
    /// The caller's address, as [`portcullis_core::Connection::address`] gives it; `None` where an operator asks and does not
    /// say it.
    pub address: Option<IpAddr>,
    /// The caller's plans, where the API takes some.
    pub plans: Option<&'a PlanSet>,
    /// When the request was opened.
    pub now: Moment,
}

impl LimitFacts<'_> {
    fn plans(&self) -> &[PlanId] {
        self.plans.map_or(&[], |plans| plans)
    }
}

/// The limits of one API with their counters.
#[derive(Debug)]
pub struct Limits {
    /// Rates first, then quotas.
    slots: Box<[Slot]>,
    /// The value of `RateLimit-Policy`, where it is the same for every caller. Names are checked, so there always is
    /// one; a field is no reason to panic.
    policy: Option<HeaderValue>,
    /// Whether the rule of a limit depends on who calls.
    is_personal: bool,
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
    slots: &'a [Slot],
    /// Which of them gave a unit, a bit each.
    which: u8,
    /// Units of blocks.
    leased: Vec<Leased<'a>>,
    /// What is to be told if the request is admitted.
    reached: Vec<(&'a Limit, Box<Reached>)>,
    facts: &'a LimitFacts<'a>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let taken = self.slots.iter().enumerate().filter(|(at, _)| self.which & (1 << at) != 0);
        let limits = taken.filter_map(|(_, slot)| slot.limit(self.facts.plans()));
        limits.for_each(|limit| limit.undo(self.facts));
        self.leased.iter().for_each(Leased::put_back);
    }
}

/// One unit of every limit that is about a request, taken by it: where the caller stands now. Only [`Limits::admit`]
/// makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    standings: [Standing; MAX_LIMITS],
    /// Which of them there are, a bit each: not those of limits that are not about the request, or in shadow.
    told: u8,
    /// What a limit in shadow would have said.
    shadow: Option<Reason>,
    /// What is this caller's own.
    personal: Option<Box<Personal>>,
}

/// What follows from who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Personal {
    /// The value of `RateLimit-Policy`.
    policy: Option<HeaderValue>,
    plans: Option<PlanSet>,
}

impl Admission {
    /// Notes what a limit says of the request. A limit in shadow is not in the way.
    ///
    /// # Errors
    /// It refuses.
    fn note<'a>(
        &mut self,
        at: usize,
        limit: &'a Limit,
        said: Result<Said, Rejection>,
        (taken, held): (&mut Taken<'a>, &mut Vec<Held>),
    ) -> Result<(), Rejection> {
        match said {
            Ok(Said::Uncounted) => {}
            Ok(Said::Taken { standing, reset, held: shared, reached }) => {
                taken.reached.extend(reached.map(|reached| (limit, reached)));
                if shared.is_none() {
                    taken.which |= 1 << at;
                }
                if let Some(slot) = self.standings.get_mut(at) {
                    *slot = standing;
                }
                if limit.counts_answers() {
                    held.extend(limit.hold(at, (reset, shared), taken.facts));
                }
                self.told |= u8::from(!limit.shadow) << at;
            }
            Err(rejection) if limit.shadow => {
                self.shadow = self.shadow.or(Some(rejection.reason()));
            }
            Err(rejection) => return Err(rejection),
        }
        Ok(())
    }

    fn plans(&self) -> &[PlanId] {
        self.personal.as_ref().and_then(|personal| personal.plans.as_deref()).unwrap_or_default()
    }

    /// What a limit in shadow would have refused the request for.
    pub const fn shadow(&self) -> Option<Reason> {
        self.shadow
    }
}

/// Units of limits that count answers. They are taken before the request goes on, so that never more are under way
/// than the limit has left, and stay taken if no answer is ever known: a caller who does not wait for the answer may
/// have caused all that it would have told.
#[derive(Debug, Default)]
pub struct Reserved(Vec<Held>);

impl Reserved {
    /// Whether there are any.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Limits {
    /// Takes one unit of every limit that is about the request, or none of any. A limit in shadow refuses nothing: its
    /// unit is taken where there is one, and what it would have said is in the admission. Units of limits that count
    /// answers go to `reserved`.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] or [`Reason::QuotaExhausted`] with the time to wait and the limit's name;
    /// [`Reason::StoreUnavailable`] if a quota cannot be decided; [`Reason::IdentityUnresolved`] if the request has not
    /// what a limit counts by.
    pub async fn admit(
        &self,
        facts: &LimitFacts<'_>,
        reserved: &mut Reserved,
    ) -> Result<Admission, Rejection> {
        let taken = match self.take(facts, false, reserved).await {
            // Boxed, so that what few requests wait for does not widen the future of every one.
            Err(refusal) if self.throttles(&refusal) => {
                Box::pin(self.wait_and_take(refusal, facts, reserved)).await
            }
            taken => taken,
        };
        taken.map_err(|rejection| self.with_policy(rejection, facts))
    }

    /// The same for the limits that count failures, before the caller is asked who it is: whoever has used one up does
    /// not learn whether another guess was right.
    ///
    /// # Errors
    /// As for [`Self::admit`].
    pub async fn admit_unknown(
        &self,
        facts: &LimitFacts<'_>,
        reserved: &mut Reserved,
    ) -> Result<Option<Reason>, Rejection> {
        self.take(facts, true, reserved).await.map(|admission| admission.shadow)
    }

    /// Whether a limit counts failures.
    pub fn count_failures(&self) -> bool {
        self.slots.iter().flat_map(Slot::all).any(Limit::is_early)
    }

    async fn take(
        &self,
        facts: &LimitFacts<'_>,
        early: bool,
        reserved: &mut Reserved,
    ) -> Result<Admission, Rejection> {
        let standings = [Standing::default(); MAX_LIMITS];
        let mut admission = Admission { standings, told: 0, shadow: None, personal: None };
        let mut taken =
            Taken { slots: &self.slots, which: 0, leased: Vec::new(), reached: Vec::new(), facts };
        let (mut held, mut asked) = (Vec::new(), Vec::new());
        for (at, slot) in self.slots.iter().enumerate() {
            let limit = slot.limit(facts.plans()).filter(|limit| limit.is_asked(facts, early));
            let Some(limit) = limit else { continue };
            match &limit.shared {
                None => {
                    let said = limit.take_alone(facts).await;
                    admission.note(at, limit, said, (&mut taken, &mut held))?;
                }
                Some(shared) => match limit.ask(shared, facts) {
                    Ok(ask) => match shared.take_leased(&ask) {
                        None => asked.push((at, limit, ask)),
                        Some((outcome, leased)) => {
                            taken.leased.push(leased);
                            let said = limit.hear(ask, outcome, facts);
                            admission.note(at, limit, said, (&mut taken, &mut held))?;
                        }
                    },
                    Err(rejection) => admission.note(at, limit, Err(rejection), (&mut taken, &mut held))?,
                },
            }
        }
        remote::take(asked, facts, &mut admission, (&mut taken, &mut held)).await?;
        taken.which = 0;
        taken.leased.clear();
        for (limit, reached) in std::mem::take(&mut taken.reached) {
            limit.tell(*reached, facts);
        }
        reserved.0.append(&mut held);
        if self.is_personal && !early {
            let (policy, plans) = (self.own_policy(facts), facts.plans.cloned());
            admission.personal = Some(Box::new(Personal { policy, plans }));
        }
        Ok(admission)
    }

    /// Gives back the units of limits that do not count an answer with this status. To be called once for each
    /// request, when its answer is known.
    pub fn settle(&self, reserved: Reserved, status: StatusCode, now: Moment) {
        for held in reserved.0 {
            if let Some(limit) = self.slots.get(held.at).and_then(|slot| slot.limit_of(&held)) {
                limit.settle(&held, status, now);
            }
        }
    }

    /// Writes `RateLimit-Policy` and `RateLimit` for an admitted request that is answered with this status, in place of
    /// any the upstream wrote (LIM-07).
    pub fn write_fields(&self, admission: &Admission, status: StatusCode, headers: &mut HeaderMap) {
        let standings = self.slots.iter().zip(admission.standings).enumerate();
        let told = standings.filter(|(at, _)| admission.told & (1 << at) != 0);
        let told = told.filter_map(|(_, (slot, standing))| {
            let limit = slot.limit(admission.plans())?;
            Some((&*limit.name, limit.told(standing, status)))
        });
        let standing = (admission.told != 0).then(|| fields::standing(told)).flatten();
        let own = admission.personal.as_ref().map(|personal| &personal.policy);
        self.write(own.and_then(Option::as_ref), standing, headers);
    }

    /// Writes the same fields for a request that one of these limits refused: nothing is left of that one.
    pub fn write_refusal_fields(&self, rejection: &Rejection, headers: &mut HeaderMap) {
        let Some(detail) = rejection.detail() else { return };
        let wait = fields::whole_seconds(detail.retry_after.unwrap_or_default());
        let standing = Standing { remaining: 0, reset_seconds: u32::try_from(wait).unwrap_or(u32::MAX) };
        let violated = detail.violated.iter().filter(|violated| self.names().any(|name| name == *violated));
        let mut violated = violated.map(|name| (&**name, standing)).peekable();
        if violated.peek().is_some() {
            self.write(detail.limit_policy.as_ref(), fields::standing(violated), headers);
        }
    }

    /// The names of all limits, rates first.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slots.iter().flat_map(Slot::all).map(|limit| &limit.name)
    }

    /// What the limits promise this caller.
    fn own_policy(&self, facts: &LimitFacts<'_>) -> Option<HeaderValue> {
        let limits = self.slots.iter().filter_map(|slot| slot.limit(facts.plans()));
        let enforced = limits.filter(|limit| !limit.shadow);
        let items: Vec<String> = enforced.map(|limit| limit.policy_item(facts.principal)).collect();
        (!items.is_empty()).then(|| HeaderValue::try_from(items.join(", ")).ok()).flatten()
    }

    /// A refusal is answered where nothing is known of its caller any more.
    fn with_policy(&self, rejection: Rejection, facts: &LimitFacts<'_>) -> Rejection {
        match self.own_policy(facts).filter(|_| self.is_personal) {
            Some(policy) => rejection.limit_policy(policy),
            None => rejection,
        }
    }

    fn write(&self, own: Option<&HeaderValue>, standing: Option<HeaderValue>, headers: &mut HeaderMap) {
        let policy = own.or(self.policy.as_ref()).cloned();
        for (name, value) in [(fields::RATE_LIMIT_POLICY, policy), (fields::RATE_LIMIT, standing)] {
            match value {
                Some(value) => headers.insert(name, value),
                None => headers.remove(name),
            };
        }
    }
}

impl Standing {
    /// The time is rounded up, so that whoever waits for it does not come too early.
    fn new(remaining: u64, reset: std::time::Duration) -> Self {
        Self {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_seconds: u32::try_from(fields::whole_seconds(reset)).unwrap_or(u32::MAX),
        }
    }
}
