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
    /// Second since 1970 from which it is no longer a client.
    pub expires_at: Option<i64>,
}
