//! Registered callers.

use std::sync::Arc;

use crate::json::Object;

/// A registered caller, whatever kinds of credential it has. The credentials themselves stay with the
/// authenticators that look them up; they only lead here.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name in the policy files.
    pub name: Arc<str>,
    /// What the policy files say about it, for rules and headers.
    pub attributes: Arc<Object>,
    /// The plans it has, in the order written.
    pub plans: PlanSet,
    /// Second since 1970 from which it is no longer a client.
    pub expires_at: Option<i64>,
}

/// A plan: a named bundle of rights and limits. The number is its position among all plans of one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanId(pub u16);

/// The plans of one caller, each once, those that were found first in front.
pub type PlanSet = Arc<[PlanId]>;
