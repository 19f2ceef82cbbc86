//! Plans: named bundles of rights and limits, and which of them a caller has.
//!
//! What callers may do and how often follows from their plans by three pure functions, asked again for every request:
//! [`PlanSource::plans_of`] finds the plans, [`Granted::gives`] says whether any of them gives a rule of the API, and of
//! what they say about the same thing the one that gives most holds (`limits/slot.rs`). Nothing of it is kept, so an
//! edited plan, a changed client and a new token count at once.

mod rights;
mod source;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::diagnostic::nearest;
use portcullis_core::{Diagnostic, Place, PlanId, PlanSet, Spanned};

pub use rights::{Granted, PlanRights};
pub use source::{PlanSource, PlanSourceSpec};
pub use spec::PlansSpec;

use crate::limits::PlanLimitSpec;
use spec::GrantSpec;

/// All plans of one load.
#[derive(Debug, Default)]
pub struct Plans {
    /// By [`PlanId`].
    plans: Vec<Plan>,
    by_name: HashMap<Arc<str>, PlanSet>,
}

#[derive(Debug)]
struct Plan {
    name: Arc<str>,
    place: Place,
    disabled: bool,
    /// What it gives; `None` where it gives nothing by itself and only limits what other plans give.
    allow: Option<Vec<GrantSpec>>,
    /// Limits that count for all it gives together.
    limits: Vec<PlanLimitSpec>,
}

impl Plans {
    /// The plan of that name, as the set of it alone.
    pub fn get(&self, name: &str) -> Option<&PlanSet> {
        self.by_name.get(name)
    }

    /// The names of all plans, and where each is defined.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, Place)> {
        self.plans.iter().map(|plan| (&plan.name, plan.place))
    }

    /// The names of all plans, and whether each is disabled.
    pub fn states(&self) -> Vec<(Arc<str>, bool)> {
        self.plans.iter().map(|plan| (Arc::clone(&plan.name), plan.disabled)).collect()
    }

    fn all(&self) -> impl Iterator<Item = (PlanId, &Plan)> {
        // There are no more plans than numbers: see `PlansSpec::read`.
        (0..=u16::MAX).map(PlanId).zip(&self.plans)
    }
}

/// A name that nothing has, with the one that may have been meant.
fn unknown<'n>(
    code: &'static str,
    name: &Spanned<String>,
    message: String,
    known: impl Iterator<Item = &'n str>,
) -> Diagnostic {
    let fault = Diagnostic::error(code, name.place, message);
    match nearest(&name.value, known) {
        Some(nearest) => fault.label(format!("did you mean `{nearest}`?")),
        None => fault,
    }
}
