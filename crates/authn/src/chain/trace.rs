//! What a chain did with one request, for whoever has it explained.

use std::cell::RefCell;

use portcullis_core::{AuthMethod, Reason, Rejection};

use super::{Alternative, Outcome};
use crate::scheme::Authenticator;

/// The steps of a chain, in the order in which they were taken. Requests that nobody has explained have none.
#[derive(Debug, Default)]
pub struct Trace(RefCell<Vec<Step>>);

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What the request brings decided for the alternative that asks for these.
    Chosen(Vec<AuthMethod>),
    /// The guard let no attempt through.
    Held(AuthMethod, Reason),
    /// Nothing was addressed to this authenticator.
    Absent(AuthMethod),
    /// This one verified a credential: whose.
    Verified(AuthMethod, String),
    /// This one refused: for what, and the words for the operator.
    Rejected(AuthMethod, Reason, Option<String>),
}

impl Trace {
    /// The steps so far.
    pub fn steps(&self) -> Vec<Step> {
        self.0.borrow().clone()
    }

    pub(super) fn chosen(&self, alternative: &Alternative) {
        self.add(Step::Chosen(alternative.members.iter().map(Authenticator::method).collect()));
    }

    pub(super) fn held(&self, member: &Authenticator, rejection: &Rejection) {
        self.add(Step::Held(member.method(), rejection.reason()));
    }

    pub(super) fn said(&self, member: &Authenticator, outcome: &Outcome) {
        let method = member.method();
        self.add(match outcome {
            Outcome::Absent => Step::Absent(method),
            Outcome::Verified(identity, _) | Outcome::Answered(identity, _) => {
                Step::Verified(method, identity.subject.to_string())
            }
            Outcome::Rejected(rejection) => {
                let inner = rejection.detail().and_then(|detail| detail.inner.clone());
                Step::Rejected(method, rejection.reason(), inner)
            }
        });
    }

    fn add(&self, step: Step) {
        self.0.borrow_mut().push(step);
    }
}
