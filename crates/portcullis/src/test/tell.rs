//! Says how the tests went: to people, and to machines.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use portcullis_core::{Diagnostic, Place};
use portcullis_gateway::SourceMap;
use portcullis_gateway::rehearsal::Outcome;
use serde_json::{Value, json};

use super::facts::Facts;
use super::play::Played;
use crate::report::{self, Look};

/// All that was run.
pub(crate) struct Run<'r> {
    pub(crate) sources: &'r SourceMap,
    pub(crate) played: Vec<Played>,
    pub(crate) coverage: Coverage,
}

/// Which rules were exercised: a request was allowed by them, as a case expected.
pub(crate) struct Coverage {
    rules: usize,
    never: Vec<(String, String, Place)>,
}

impl Coverage {
    /// Over all rules of all APIs.
    pub(crate) fn of(facts: &Facts, played: &[Played]) -> Self {
        let exercised: BTreeSet<_> = played.iter().filter_map(|one| one.exercised.clone()).collect();
        let rules = facts.apis.iter().flat_map(|api| {
            api.rules.iter().map(|(rule, place)| (api.name.value.clone(), rule.clone(), *place))
        });
        let rules: Vec<_> = rules.collect();
        let known =
            |(api, rule, _): &(String, String, Place)| exercised.contains(&(api.clone(), rule.clone()));
        Self { rules: rules.len(), never: rules.into_iter().filter(|rule| !known(rule)).collect() }
    }

    /// In per cent, rounded down; all of nothing is all.
    pub(crate) fn percent(&self) -> usize {
        ((self.rules - self.never.len()) * 100).checked_div(self.rules).unwrap_or(100)
    }
}

impl Run<'_> {
    /// How many cases failed.
    pub(crate) fn failed(&self) -> usize {
        self.played.iter().filter(|one| !one.differences.is_empty()).count()
    }

    /// For people: what failed, with its place, and what was never exercised.
    pub(crate) fn human(&self, look: Look) -> String {
        let failures: Vec<_> = self.played.iter().filter_map(diagnostic).collect();
        let mut text = report::human(&failures, self.sources, look);
        if !text.is_empty() {
            text.push('\n');
        }
        let failed = self.failed();
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{} passed, {failed} failed", self.played.len() - failed);
        let Coverage { rules, never } = &self.coverage;
        let exercised = rules - never.len();
        let _ = writeln!(text, "{exercised} of {rules} rules exercised, {}%", self.coverage.percent());
        for (api, rule, place) in never {
            let at = format!("{}:{}:{}", self.sources.name(place.file), place.line, place.column);
            let _ = writeln!(text, "  {api}: {rule}: never exercised ({at})");
        }
        text
    }

    /// For machines. Its members are a public contract.
    pub(crate) fn machine(&self) -> Value {
        let place = |place: &Place| json!({ "file": self.sources.name(place.file), "line": place.line, "column": place.column });
        let cases = self.played.iter().map(|one| {
            let failures = one.differences.iter().map(|difference| {
                json!({
                    "what": difference.what, "expected": difference.expected, "got": difference.got,
                    "place": place(&difference.place),
                })
            });
            json!({
                "name": one.name, "policy": one.policy, "place": place(&one.place),
                "passed": one.differences.is_empty(), "decision": one.outcome.decision,
                "status": one.outcome.status, "reason": one.outcome.reason, "why": one.outcome.why,
                "rule": one.outcome.rule, "identity": one.outcome.identity,
                "failures": failures.collect::<Vec<_>>(),
            })
        });
        let never = self
            .coverage
            .never
            .iter()
            .map(|(api, rule, at)| json!({ "api": api, "rule": rule, "place": place(at) }));
        json!({
            "passed": self.played.len() - self.failed(),
            "failed": self.failed(),
            "cases": cases.collect::<Vec<_>>(),
            "coverage": {
                "rules": self.coverage.rules,
                "percent": self.coverage.percent(),
                "never_exercised": never.collect::<Vec<_>>(),
            },
        })
    }

    /// As JUnit's XML, which build servers read. A file of tests is a suite.
    pub(crate) fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(text, "<testsuites tests=\"{}\" failures=\"{}\">", self.played.len(), self.failed());
        let files: BTreeSet<_> = self.played.iter().map(|one| one.place.file).collect();
        for file in files {
            let name = escaped(self.sources.name(file));
            let cases: Vec<_> = self.played.iter().filter(|one| one.place.file == file).collect();
            let failed = cases.iter().filter(|one| !one.differences.is_empty()).count();
            let _ = writeln!(
                text,
                "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\">",
                cases.len()
            );
            for one in cases {
                text.push_str(&self.junit_case(one));
            }
            text.push_str("  </testsuite>\n");
        }
        text.push_str("</testsuites>\n");
        text
    }

    fn junit_case(&self, one: &Played) -> String {
        let file = escaped(self.sources.name(one.place.file));
        let head = format!(
            "    <testcase name=\"{}\" classname=\"{}\" file=\"{file}\" line=\"{}\"",
            escaped(&one.name),
            escaped(&one.policy),
            one.place.line
        );
        let Some(diagnostic) = diagnostic(one) else { return format!("{head}/>\n") };
        let message = escaped(&diagnostic.message);
        let whole = escaped(&report::human(&[diagnostic], self.sources, Look::Plain));
        format!("{head}>\n      <failure message=\"{message}\">{whole}</failure>\n    </testcase>\n")
    }
}

/// A case that failed, as faults of files are told.
fn diagnostic(one: &Played) -> Option<Diagnostic> {
    let (first, others) = one.differences.split_first()?;
    let message =
        format!("`{}` failed: expected {} `{}`, got `{}`", one.name, first.what, first.expected, first.got);
    let mut told =
        Diagnostic::error("test_failed", first.place, message).label(format!("got `{}`", first.got));
    for other in others {
        let words = format!("expected {} `{}`, got `{}`", other.what, other.expected, other.got);
        told = told.related(other.place, words);
    }
    Some(told.note(format!("the gateway would log: {}", logged(&one.outcome))))
}

/// What the log would say: the decision, and by what or why.
fn logged(outcome: &Outcome) -> String {
    let mut words = vec![outcome.decision.to_owned()];
    words.extend((outcome.status != 0).then(|| outcome.status.to_string()));
    words.extend(outcome.reason.map(str::to_owned));
    words.extend(outcome.limit.as_ref().map(|limit| format!("(limit `{limit}`)")));
    words.extend(outcome.rule.as_ref().map(|rule| format!("by rule `{rule}`")));
    words.extend(outcome.identity.as_ref().map(|identity| format!("for `{identity}`")));
    let words = words.join(" ");
    outcome.why.as_ref().map_or(words.clone(), |why| format!("{words}: {why}"))
}

/// Text in XML. What XML cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out
}
