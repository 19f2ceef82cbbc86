//! What became of a request, told from the door to the answer, with the place of everything that spoke.

use std::fmt::Write as _;

use http::header::{AUTHORIZATION, HeaderName};
use portcullis_authn::Step;
use portcullis_core::document::Node;
use portcullis_core::{Place, Reason};
use portcullis_gateway::rehearsal::{Outcome, Written};
use portcullis_jose::base64url;
use portcullis_policy::{Miss, Verdict};
use serde_json::{Value, json};

use super::With;
use super::paper::Paper;
use super::request::Asked;
use crate::test::tree::{at, entries, members, text_at};

/// A request and what became of it.
pub(super) struct Explanation<'e> {
    pub(super) asked: &'e Asked,
    pub(super) with: &'e With,
    /// The listener it came to, by name.
    pub(super) listener: &'e str,
    pub(super) written: &'e Written,
    pub(super) outcome: &'e Outcome,
    /// Second since 1970.
    pub(super) now: i64,
}

/// One line: who speaks, what is said, and where it is written.
struct Line {
    who: &'static str,
    said: String,
    place: Option<Place>,
}

impl Explanation<'_> {
    /// For people.
    pub(super) fn human(&self) -> String {
        let lines = self.lines();
        let widest = lines.iter().filter(|line| line.place.is_some()).map(|line| line.said.chars().count());
        let widest = widest.max().unwrap_or_default().min(70);
        let mut text = String::new();
        let mut before = "";
        for Line { who, said, place } in &lines {
            let shown = if *who == before { "" } else { *who };
            before = who;
            let place = place.map(|place| self.at(place)).unwrap_or_default();
            let line = format!("{shown:<10}{said:<widest$}  {place}");
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let Outcome { decision, .. } = self.outcome;
        let _ = writeln!(text, "=> {} {}", decision.to_uppercase(), verdict(self.outcome));
        if !self.outcome.body.is_empty() {
            let _ = writeln!(text, "the client sees: {}", String::from_utf8_lossy(&self.outcome.body));
        }
        text
    }

    /// For machines.
    pub(super) fn machine(&self) -> Value {
        let lines = self.lines().into_iter().map(|Line { who, said, place }| {
            json!({ "who": who, "said": said, "at": place.map(|place| self.at(place)) })
        });
        let Outcome { decision, status, reason, why, api, rule, identity, limit, .. } = self.outcome;
        json!({
            "decision": decision, "status": status, "reason": reason, "why": why, "api": api, "rule": rule,
            "identity": identity, "limit": limit, "lines": lines.collect::<Vec<_>>(),
            "client_sees": String::from_utf8_lossy(&self.outcome.body),
        })
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = self.arrival();
        lines.extend(self.paper());
        let authenticate = self.api().and_then(|api| at(api, "authenticate"));
        lines.extend(self.outcome.steps.iter().map(|step| self.step(step, authenticate)));
        if let Some(identity) = &self.outcome.identity {
            let key = self.outcome.key_id.as_ref().map(|key| format!(", key {key}")).unwrap_or_default();
            let group =
                self.outcome.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
            lines.push(Line { who: "caller", said: format!("{identity}{key}{group}"), place: None });
        }
        if !self.outcome.plans.is_empty() {
            let place = self.api().and_then(|api| key_place(api, "plans"));
            lines.push(Line { who: "plan", said: self.outcome.plans.join(", "), place });
        }
        lines.extend(self.outcome.rules.iter().map(|told| Line {
            who: "rule",
            said: format!("`{}` {}", told.rule, spoken(&told.verdict)),
            place: Some(told.place),
        }));
        lines.extend(self.limits());
        if let Some(trial) = self.outcome.shadow {
            lines.push(Line { who: "shadow", said: trial.to_owned(), place: None });
        }
        lines.extend(self.sent());
        let is_said = |why: &str| {
            self.outcome
                .steps
                .iter()
                .any(|step| matches!(step, Step::Rejected(_, _, Some(said)) if said == why))
        };
        if let Some(why) = self.outcome.why.as_ref().filter(|why| !is_said(why)) {
            lines.push(Line { who: "why", said: why.clone(), place: None });
        }
        lines
    }

    /// How it came in.
    fn arrival(&self) -> Vec<Line> {
        let Asked { method, target, host, is_secure, .. } = self.asked;
        // SECURITY: without the query, in which keys may travel.
        let said = format!("{method} {} for {host}, from {}", target.path(), self.with.from);
        let mut lines = vec![Line { who: "request", said, place: None }];
        let listeners = self.written.gateway().and_then(|root| at(root, "listen"));
        let listener = listeners.map(entries).unwrap_or_default();
        let listener = listener.iter().find(|entry| entry.key.value == self.listener);
        lines.push(Line {
            who: "listener",
            said: format!("{}, {}", self.listener, if *is_secure { "with TLS" } else { "in clear text" }),
            place: listener.map(|entry| entry.key.place),
        });
        if let Some(certificate) = &self.outcome.certificate {
            let said = format!(
                "{}, x5t#S256 {}",
                certificate.subject_text,
                base64url::encode(&certificate.thumbprint)
            );
            lines.push(Line { who: "cert", said, place: None });
            let said = format!("issued by {}", certificate.issuer_text);
            lines.push(Line { who: "cert", said, place: None });
        }
        let place = self.api().and_then(|api| Some(at(api, "api")?.place));
        let api = self.outcome.api.clone();
        lines.push(Line { who: "api", said: api.unwrap_or_else(|| "none was reached".to_owned()), place });
        lines
    }

    /// What the token says of itself.
    fn paper(&self) -> Vec<Line> {
        let token = self.asked.fields.get(AUTHORIZATION).and_then(|value| Paper::of(value.as_bytes()));
        let Some(paper) = token else { return Vec::new() };
        let line = |said: String| Line { who: "token", said, place: None };
        let mut lines: Vec<Line> = paper.lines(self.now).into_iter().map(line).collect();
        lines.extend(paper.binding().map(|bound| line(format!("bound to {bound}"))));
        lines
    }

    fn step(&self, step: &Step, authenticate: Option<&Node>) -> Line {
        let place = |method: &str| {
            authenticate.and_then(|node| key_place(node, method)).or(authenticate.map(|node| node.place))
        };
        let line = |method: &'static str, said: String| Line { who: method, said, place: place(method) };
        match step {
            Step::Chosen(methods) => {
                let named: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
                let said = format!("decided by {}", named.join(" and "));
                let place = self.api().and_then(|api| key_place(api, "authenticate"));
                Line { who: "chain", said, place }
            }
            Step::Held(method, reason) => line(method.as_str(), format!("not asked: {}", reason.code())),
            Step::Absent(method) => line(method.as_str(), "there is none in the request".to_owned()),
            Step::Verified(method, subject) => line(method.as_str(), format!("good, of {subject}")),
            Step::Rejected(method, reason, why) => {
                let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                line(method.as_str(), format!("{}{why}", reason.code()))
            }
        }
    }

    /// Where the caller stands with the limits, as the answer tells.
    fn limits(&self) -> Vec<Line> {
        let place = self.api().and_then(|api| Some(at(api, "limits")?.place));
        let told = |name: &str| {
            let value = self.outcome.answered.get(HeaderName::from_bytes(name.as_bytes()).ok()?)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let mut lines = Vec::new();
        if let Some(limit) = &self.outcome.limit {
            lines.push(Line { who: "limit", said: format!("`{limit}` refused"), place });
        }
        for standing in told("ratelimit").iter().flat_map(|field| field.split(", ")) {
            let said = format!("{} for a caller who had used nothing", standing_in_words(standing));
            lines.push(Line { who: "limit", said, place });
        }
        lines
    }

    /// What the upstream would get beside what the client has sent.
    fn sent(&self) -> Vec<Line> {
        let added =
            self.outcome.sent.iter().filter(|(name, value)| {
                !self.asked.fields.get_all(*name).iter().any(|asked| asked == *value)
            });
        let place = self.api().and_then(|api| Some(at(api, "forward")?.place));
        let line = |(name, value): (&HeaderName, &http::HeaderValue)| {
            let said = format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            Line { who: "upstream", said, place }
        };
        added.map(line).collect()
    }

    /// The file of the API.
    fn api(&self) -> Option<&Node> {
        let name = self.outcome.api.as_deref()?;
        self.written.apis().find(|root| text_at(root, "api") == Some(name))
    }

    /// `apis/orders.yaml:12`
    fn at(&self, place: Place) -> String {
        format!("{}:{}", self.written.sources().name(place.file), place.line)
    }
}

/// One item of `RateLimit`, such as `"identity-rate-second";r=39;t=1`.
fn standing_in_words(item: &str) -> String {
    let mut parts = item.split(';');
    let name = parts.next().unwrap_or_default().trim_matches('"');
    let value = |letter: &str| {
        let mut parts = item.split(';').skip(1);
        parts.find_map(|part| part.strip_prefix(letter)).unwrap_or("?").to_owned()
    };
    format!("`{name}` has {} left, all again in {} s", value("r="), value("t="))
}

/// Where an authenticator is written, in whatever list it stands.
fn key_place(node: &Node, key: &str) -> Option<Place> {
    let own = entries(node).iter().find(|entry| entry.key.value == key).map(|entry| entry.key.place);
    let lists = || {
        let lists = entries(node).iter().filter(|entry| matches!(&*entry.key.value, "any_of" | "all_of"));
        lists.flat_map(|entry| members(&entry.value)).find_map(|member| key_place(member, key))
    };
    own.or_else(lists)
}

fn verdict(Outcome { status, reason, rule, .. }: &Outcome) -> String {
    let title = |code: &str| Reason::ALL.iter().find(|known| known.code() == code).map(|known| known.title());
    match reason {
        // Nothing goes on without a rule.
        None if rule.is_none() => format!("{status}, the gateway itself would answer"),
        None => format!("{status}, the upstream would be asked"),
        Some(code) if *status == 0 => (*code).to_owned(),
        Some(code) => format!("{status} {code}: {}", title(code).unwrap_or_default()),
    }
}

fn spoken(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fits => "fits".to_owned(),
        Verdict::Misses(Miss::Method) => "is for other methods".to_owned(),
        Verdict::Misses(Miss::Path) => "is for other paths".to_owned(),
        Verdict::Misses(Miss::Group) => "is for other groups".to_owned(),
        Verdict::Misses(Miss::Address) => "is for other addresses".to_owned(),
        Verdict::NotInPlan => "is in no plan of the caller".to_owned(),
        Verdict::NeedsScope(scope) => format!("fits but for its scope, `{scope}`"),
        Verdict::Untrue => "fits, but its `when` is false".to_owned(),
        Verdict::Undecided(why) => format!("fits, but its `when` cannot be decided: {why}"),
    }
}
