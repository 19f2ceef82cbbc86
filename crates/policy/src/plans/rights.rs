//! What plans give of one API.

use http::Method;
use portcullis_core::PlanId;

use crate::limits::reach::Reach;

/// What each plan gives of one API.
#[derive(Debug, Default)]
pub struct PlanRights {
    /// In the order of the plans.
    rights: Vec<(PlanId, Right)>,
}

#[derive(Debug)]
struct Right {
    /// The positions of the rules; `None` for all of them.
    rules: Option<Box<[usize]>>,
    reach: Reach,
}

impl PlanRights {
    /// To be called in the order of the plans.
    pub(super) fn add(&mut self, plan: PlanId, rules: Option<Box<[usize]>>, reach: Reach) {
        self.rights.push((plan, Right { rules, reach }));
    }
}

/// What the plans of a caller give of one API: what any of them gives.
#[derive(Clone, Copy, Debug)]
pub struct Granted<'a> {
    /// What each plan gives.
    pub rights: &'a PlanRights,
    /// The caller's.
    pub plans: &'a [PlanId],
}

impl Granted<'_> {
    /// Whether they give a rule, by its position, for such a request.
    pub(crate) fn gives(&self, rule: usize, method: &Method, path_in_api: &str) -> bool {
        self.plans.iter().any(|plan| {
            let rights = &self.rights.rights;
            let found =
                rights.binary_search_by_key(plan, |(plan, _)| *plan).ok().and_then(|at| rights.get(at));
            found.is_some_and(|(_, right)| {
                right.rules.as_ref().is_none_or(|rules| rules.contains(&rule))
                    && right.reach.takes(method, path_in_api)
            })
        })
    }
}
