//! One place among the limits of an API: a limit of its own, or what the plans of callers say about the same thing.

use portcullis_core::PlanId;

use super::limit::{Held, Limit};
use super::measure::Measure;

/// What is counted there.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an API has eight at most, and most are its own")]
pub(super) enum Slot {
    /// For every caller.
    Own(Limit),
    /// For those who have one of these plans.
    OfPlans(PlanLimits),
}

/// The limits that plans set to the same requests. Of those of a caller's plans, one counts.
#[derive(Debug)]
pub(super) struct PlanLimits {
    /// In the order of the plans.
    pub(super) terms: Box<[PlanLimit]>,
    /// Whether they are about some methods or paths only.
    pub(super) is_narrow: bool,
}

/// The limit of one plan.
#[derive(Debug)]
pub(super) struct PlanLimit {
    pub(super) plan: PlanId,
    /// `None` where the plan says `unlimited`.
    pub(super) limit: Option<Limit>,
}

impl Slot {
    /// The limit that holds for a caller with these plans.
    pub(super) fn limit(&self, plans: &[PlanId]) -> Option<&Limit> {
        match self {
            Self::Own(limit) => Some(limit),
            Self::OfPlans(limits) => limits.merged(plans)?.limit.as_ref(),
        }
    }

    /// The limit a unit was taken of.
    pub(super) fn limit_of(&self, held: &Held) -> Option<&Limit> {
        match (self, held.plan) {
            (Self::Own(limit), _) => Some(limit),
            (Self::OfPlans(limits), Some(plan)) => limits.of(plan)?.limit.as_ref(),
            (Self::OfPlans(_), None) => None,
        }
    }

    /// Every limit that may hold.
    pub(super) fn all(&self) -> impl Iterator<Item = &Limit> {
        let (own, plans) = match self {
            Self::Own(limit) => (Some(limit), None),
            Self::OfPlans(limits) => (None, Some(&limits.terms)),
        };
        own.into_iter().chain(plans.into_iter().flatten().filter_map(|term| term.limit.as_ref()))
    }
}

impl PlanLimits {
    fn of(&self, plan: PlanId) -> Option<&PlanLimit> {
        let at = self.terms.binary_search_by_key(&plan, |term| term.plan).ok()?;
        self.terms.get(at)
    }

    /// Of the limits of these plans the one that gives most; of two that give the same, that of the plan named first.
    fn merged(&self, plans: &[PlanId]) -> Option<&PlanLimit> {
        let measure = |term: &PlanLimit| term.limit.as_ref().map(Limit::measure);
        plans.iter().filter_map(|plan| self.of(*plan)).reduce(|holder, challenger| {
            let wins = gives_more(measure(challenger), measure(holder), self.is_narrow);
            if wins { challenger } else { holder }
        })
    }
}

/// Whether one limit gives more than another of its kind; `None` is no limit at all.
///
/// Of rates that with the shorter time between two requests gives more, and at the same pace the one with the higher
/// count if it is about some methods or paths only. Of quotas the larger one does, and of equal ones that of the longer
/// time, for its units are kept longer.
pub(super) fn gives_more(challenger: Option<Measure>, holder: Option<Measure>, is_narrow: bool) -> bool {
    match (challenger, holder) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(Measure::Rate { rate: new, .. }), Some(Measure::Rate { rate: old, .. })) => {
            let (new_pace, old_pace) = (
                new.per.as_nanos().saturating_mul(old.count.into()),
                old.per.as_nanos().saturating_mul(new.count.into()),
            );
            new_pace < old_pace || (new_pace == old_pace && is_narrow && new.count > old.count)
        }
        (Some(Measure::Quota { rate: new, .. }), Some(Measure::Quota { rate: old, .. })) => {
            (new.count, new.per) > (old.count, old.per)
        }
        // Limits of different kinds do not meet in one place.
        (Some(Measure::Rate { .. } | Measure::Quota { .. }), Some(_)) => false,
    }
}
