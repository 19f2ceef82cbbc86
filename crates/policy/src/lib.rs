//! What a principal may do, and how often.
//!
//! [`Plans`] say what a caller has been given, [`Rules`] decide whether a request is allowed at all, [`Limits`] whether it may be made now, and `expression`
//! is the language of a rule's `when`. Everything is compiled when policies are loaded; a request
//! only walks what was compiled.

mod expression;
mod facts;
#[cfg(test)]
mod fixtures;
mod limits;
mod place;
mod plans;
mod rules;
mod spelling;

pub use facts::Facts;
pub use limits::{
    Admission, AlertHook, Callers, CheckedLimits, LimitFacts, LimitView, Limits, LimitsSpec, PlanSlots,
    QuotaAlert, Reserved, SharedLimits, Usage,
};
pub use plans::{Granted, PlanRights, PlanSource, PlanSourceSpec, Plans, PlansSpec};
pub use rules::is_known_method;
pub use rules::template::PathTemplate;
pub use rules::{Miss, Permit, Rules, RulesSpec, Told, Verdict};
pub use spelling::plainly_spelled;
