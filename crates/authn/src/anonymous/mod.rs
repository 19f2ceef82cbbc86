//! `anonymous`: nobody is asked who they are. There is no chain without authenticators; a public API says that it
//! is one, and why.

mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use portcullis_core::Identity;

pub(crate) use spec::{AnonymousSpec, anybody};

use crate::chain::Outcome;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct Anonymous {
    identity: Arc<Identity>,
    because: Arc<str>,
}

impl Anonymous {
    /// Takes everybody. All callers share one identity: limits `per: identity` count them together.
    pub(crate) fn authenticate(&self) -> Outcome {
        Outcome::Verified(self.identity.clone(), None)
    }

    /// Why the API is public, in its author's words.
    pub(crate) const fn because(&self) -> &Arc<str> {
        &self.because
    }
}
