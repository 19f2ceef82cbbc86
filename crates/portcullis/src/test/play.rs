//! Runs the cases of a file: each in a gateway of its own, so that none sees what another has used up.

use std::sync::Arc;

use portcullis_core::{Diagnostic, Place};
use portcullis_gateway::rehearsal::{Outcome, Question, Rehearsal, StandIns, Written};

use super::cast::Cast;
use super::dress::{Wardrobe, speaks_tls};
use super::expect::Difference;
use super::facts::Facts;
use super::mint::Mint;
use super::outside::Play;
use super::stage::{self, Certificates, Faulty};
use super::suite::{Case, Suite, fault};
use super::with::Proof;

/// What a run is made of.
pub(crate) struct Theatre<'t> {
    pub(crate) written: &'t Written,
    pub(crate) facts: &'t Facts,
    pub(crate) cast: Arc<Cast>,
    /// Second since 1970, for files that do not say when they are set.
    pub(crate) now: i64,
}

/// A case that was run.
pub(crate) struct Played {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) policy: String,
    /// What became of its last request.
    pub(crate) outcome: Outcome,
    /// What differs; empty for a case that passed.
    pub(crate) differences: Vec<Difference>,
    /// The APIs and rules by which its requests were allowed, as was expected.
    pub(crate) exercised: Option<(String, String)>,
}

/// Why a file cannot be run: the policies with what stands in for their keys, or something a case asks for.
pub(crate) type Unplayable = Vec<Diagnostic>;

impl Theatre<'_> {
    /// Runs those cases of a file whose name has `only` in it.
    ///
    /// # Errors
    /// [`Unplayable`]
    pub(crate) fn play(&self, suite: &Suite, only: Option<&str>) -> Result<Vec<Played>, Unplayable> {
        let now = suite.now.unwrap_or(self.now);
        let scene = stage::set(self.written, self.facts, &self.cast, (&suite.certificates, now));
        let (stand_ins, certificates) = scene.map_err(|fault| vec![*fault])?;
        let scene = Scene { theatre: self, suite, stand_ins, certificates, now };
        let chosen = suite.cases.iter().filter(|case| only.is_none_or(|only| case.name.value.contains(only)));
        chosen.map(|case| scene.case(case)).collect()
    }
}

struct Scene<'s> {
    theatre: &'s Theatre<'s>,
    suite: &'s Suite,
    stand_ins: StandIns,
    certificates: Certificates,
    now: i64,
}

impl Scene<'_> {
    fn case(&self, case: &Case) -> Result<Played, Unplayable> {
        let Theatre { written, facts, cast, .. } = self.theatre;
        let one = |fault: Faulty| vec![*fault];
        let play = Play::new(cast, facts, case.answers.clone(), self.now);
        let rehearsal = Rehearsal::new(written, &self.stand_ins, play.outside(), self.now)?;
        rehearsal.advance(case.wait);
        let waited = i64::try_from(case.wait.as_secs()).unwrap_or(i64::MAX);
        let mint = Mint::new(cast, facts, (&self.suite.tokens, &self.certificates), self.now);
        let api = facts.api(&case.policy);
        let api = api.ok_or_else(|| one(fault(case.name.place, "there is no such API")))?;
        let listener = case.listener.as_deref();
        let wardrobe = Wardrobe {
            facts,
            play: &play,
            certificates: &self.certificates,
            mint: &mint,
            api,
            secure: written.gateway().is_some_and(|root| speaks_tls(root, listener)),
            now: self.now.saturating_add(waited),
        };
        let mut outcome = Outcome::default();
        let mut differences = Vec::new();
        for number in 1..=case.repeat {
            outcome = ask(&rehearsal, &wardrobe, case).map_err(one)?;
            if number < case.repeat && outcome.decision != "allow" {
                differences.push(too_early(case, number, &outcome));
                break;
            }
        }
        if differences.is_empty() {
            differences = case.expect.differences(&outcome);
        }
        differences.extend(elsewhere(case, &outcome));
        let exercised = (case.expect.allows() && differences.is_empty())
            .then(|| (case.policy.clone(), outcome.rule.clone().unwrap_or_default()));
        Ok(Played {
            place: case.name.place,
            name: case.name.value.clone(),
            policy: case.policy.clone(),
            outcome,
            differences,
            exercised,
        })
    }
}

/// Asks once; and once more with the nonce for a proof, where the gateway gives one, as a client does.
fn ask(rehearsal: &Rehearsal, wardrobe: &Wardrobe<'_>, case: &Case) -> Result<Outcome, Faulty> {
    let listener = case.listener.as_deref();
    let once = |nonce: Option<&str>| -> Result<Outcome, Faulty> {
        let dressed = wardrobe.dress(case, nonce)?;
        Ok(rehearsal.ask(Question {
            listener,
            from: dressed.from,
            server_name: dressed.host.as_deref(),
            certificate: dressed.certificate.as_deref(),
            request: dressed.request,
        }))
    };
    let outcome = once(None)?;
    let nonce = outcome.answered.get("dpop-nonce").and_then(|nonce| nonce.to_str().ok()).map(str::to_owned);
    let proves = case.with.token.is_some() && case.with.proof != Proof::Nobody;
    match nonce.filter(|_| proves && outcome.reason == Some("dpop_nonce_required")) {
        Some(nonce) => once(Some(&nonce)),
        None => Ok(outcome),
    }
}

fn too_early(case: &Case, number: i64, outcome: &Outcome) -> Difference {
    Difference {
        place: case.expect.place,
        what: format!("request {number} of {}", case.repeat),
        expected: "allow".to_owned(),
        got: format!("{} {}", outcome.decision, outcome.reason.unwrap_or_default()),
    }
}

/// SECURITY: a case about one API that another one has answered says nothing about the first.
fn elsewhere(case: &Case, outcome: &Outcome) -> Option<Difference> {
    let api = outcome.api.as_ref().filter(|api| **api != case.policy)?;
    Some(Difference {
        place: case.name.place,
        what: "policy".to_owned(),
        expected: case.policy.clone(),
        got: api.clone(),
    })
}
