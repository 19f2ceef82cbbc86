//! What each rule says of one request, for whoever has it explained.

use std::sync::Arc;

use portcullis_core::Place;

use super::{Fit, MethodSet, Miss, Rules};
use crate::Facts;

/// What one rule says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The rule.
    pub rule: Arc<str>,
    /// Where it is written.
    pub place: Place,
    /// What it says.
    pub verdict: Verdict,
}

/// Whether a rule takes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it; no later rule is asked.
    Fits,
    /// It is about something else.
    Misses(Miss),
    /// It would take it, and no plan of the caller gives it; no later rule is asked.
    NotInPlan,
    /// It is about it, and asks for these scopes.
    NeedsScope(String),
    /// Its `when` is not true.
    Untrue,
    /// Its `when` cannot be said to be true: why.
    Undecided(String),
}

impl Rules {
    /// What each rule says, down to the one that decides.
    pub fn tell(&self, facts: &Facts<'_>) -> Vec<Told> {
        let method = MethodSet::of(&facts.head.method);
        let mut told = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let holds = || rule.when.as_ref().map_or(Ok(true), |when| when.holds(facts));
            let verdict = match rule.fit(method, facts) {
                Fit::Not(miss) => Verdict::Misses(miss),
                Fit::AllButScope => Verdict::NeedsScope(rule.needed_scope()),
                Fit::Whole { .. } => match holds() {
                    Ok(true) if facts.is_given(at) => Verdict::Fits,
                    Ok(true) => Verdict::NotInPlan,
                    Ok(false) => Verdict::Untrue,
                    Err(why) => Verdict::Undecided(why.to_string()),
                },
            };
            let decides = matches!(verdict, Verdict::Fits | Verdict::NotInPlan);
            told.push(Told { rule: Arc::clone(&rule.name), place: rule.place, verdict });
            if decides {
                break;
            }
        }
        told
    }
}
