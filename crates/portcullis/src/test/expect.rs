//! What a case expects, and how what it got differs.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Reason, Spanned, nearest};
use portcullis_gateway::rehearsal::{HANDSHAKE, Outcome};

use super::facts::ApiFacts;
use super::suite::defined;

/// `expect:`
pub(crate) struct Expected {
    pub(crate) place: Place,
    decision: Spanned<&'static str>,
    status: Option<Spanned<i64>>,
    /// Words that must be exactly so: what is called so, the word, and where it is expected.
    words: Vec<(&'static str, Spanned<String>)>,
    challenge: Option<Spanned<String>>,
    /// Fields the upstream gets; `None` for one it must not get.
    upstream: Vec<(Spanned<String>, Option<String>)>,
    /// The same of the answer.
    answer: Vec<(Spanned<String>, Option<String>)>,
}

/// One expectation that was not met.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) place: Place,
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) got: String,
}

impl Expected {
    /// Reads the mapping. SECURITY: a decision must be expected, for a case that expects nothing would pass whatever
    /// the policies say.
    pub(crate) fn read(node: &Node, api: Option<&ApiFacts>, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "what is expected", faults)?;
        let decision = fields.require("decision", faults).and_then(|node| {
            let decision = node.one_of(&[("allow", "allow"), ("deny", "deny")], faults)?;
            Some(Spanned::new(decision, node.place))
        });
        let status = fields
            .get("status")
            .and_then(|node| node.integer(0..=599, faults).map(|status| Spanned::new(status, node.place)));
        let mut words = Vec::new();
        if let Some(node) = fields.get("reason") {
            words.extend(reason(node, faults).map(|reason| ("reason", reason)));
        }
        if let Some((node, api)) = fields.get("rule").zip(api) {
            let rule = defined("rule", node, &api.rules, faults);
            words.extend(rule.map(|rule| ("rule", Spanned::new(rule, node.place))));
        }
        for word in ["identity", "group", "key_id", "limit", "shadow"] {
            words.extend(fields.get(word).and_then(|node| node.text(faults)).map(|text| (word, text)));
        }
        let challenge = fields.get("challenge").and_then(|node| node.text(faults));
        let upstream = headers(fields.get("upstream"), faults);
        let answer = headers(fields.get("answer"), faults);
        fields.finish(faults);
        let decision = decision?;
        for (what, word) in &words {
            if let Some(other) = other_decision(what, decision.value) {
                let message = format!("`{what}` is known of requests with `decision: {other}` alone");
                faults.push(
                    Diagnostic::error("never_there", word.place, message)
                        .related(decision.place, "this is expected"),
                );
            }
        }
        Some(Self { place: node.place, decision, status, words, challenge, upstream, answer })
    }

    /// What differs from what was expected, in the order of importance.
    pub(crate) fn differences(&self, got: &Outcome) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut compare = |what: &str, place: Place, expected: &str, got: Option<String>| {
            if got.as_deref() != Some(expected) {
                let got = got.unwrap_or_else(|| "nothing".to_owned());
                all.push(Difference { place, what: what.to_owned(), expected: expected.to_owned(), got });
            }
        };
        compare("decision", self.decision.place, self.decision.value, Some(got.decision.to_owned()));
        if let Some(status) = &self.status {
            compare("status", status.place, &status.value.to_string(), Some(got.status.to_string()));
        }
        for (what, word) in &self.words {
            compare(what, word.place, &word.value, said(got, what));
        }
        for (told, headers, what) in
            [(&self.upstream, &got.sent, "upstream"), (&self.answer, &got.answered, "answer")]
        {
            for (name, value) in told {
                let expected = value.as_deref().unwrap_or(ABSENT);
                let found = values(headers, &name.value);
                let found = if found == expected { found } else { shown(&name.value, found) };
                compare(&format!("{what} {}", name.value), name.place, expected, Some(found));
            }
        }
        if let Some(challenge) = &self.challenge {
            let shown = values(&got.answered, WWW_AUTHENTICATE.as_str());
            if !shown.contains(challenge.value.as_str()) {
                let expected = format!("one with `{}`", challenge.value);
                let what = "challenge".to_owned();
                all.push(Difference { place: challenge.place, what, expected, got: shown });
            }
        }
        all
    }

    /// Whether the case expects to be let through.
    pub(crate) fn allows(&self) -> bool {
        self.decision.value == "allow"
    }
}

/// What a field is called that is not there.
const ABSENT: &str = "absent";

/// The code of a refusal. There are too many to name them all in a message.
fn reason(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    let code = node.text(faults)?;
    let codes = || Reason::ALL.iter().map(|reason| reason.code()).chain([HANDSHAKE]);
    if codes().any(|known| known == code.value) {
        return Some(code);
    }
    let message = format!("there is no reason `{}`", code.value);
    let fault = Diagnostic::error("unknown_word", code.place, message)
        .note("`portcullis test --format json` shows each answer's reason; README.md says what each means");
    faults.push(match nearest(&code.value, codes()) {
        Some(near) => fault.label(format!("did you mean `{near}`?")),
        None => fault,
    });
    None
}

fn headers(node: Option<&Node>, faults: &mut Faults) -> Vec<(Spanned<String>, Option<String>)> {
    let entries = node.and_then(|node| node.named(faults)).unwrap_or_default();
    let read = |value: &Node, faults: &mut Faults| match value.content {
        Content::Null => Some(None),
        _ => value.text(faults).map(|text| Some(text.value)),
    };
    let mut all = Vec::new();
    for entry in entries {
        if let Some(value) = read(&entry.value, faults) {
            let key = Spanned::new(entry.key.value.to_ascii_lowercase(), entry.key.place);
            all.push((key, value));
        }
    }
    all
}

/// All values of a field.
fn values(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    if values.is_empty() { ABSENT.to_owned() } else { values.join(", ") }
}

/// SECURITY: what may be a credential, of the run or of ours towards an upstream, is not printed.
fn shown(name: &str, value: String) -> String {
    const TELLING: [&str; 8] = ["auth", "cookie", "key", "token", "secret", "dpop", "sign", "cert"];
    if value == ABSENT || !TELLING.iter().any(|word| name.contains(word)) {
        return value;
    }
    "something that is not shown".to_owned()
}

fn said(got: &Outcome, what: &str) -> Option<String> {
    match what {
        "reason" => got.reason.map(str::to_owned),
        "rule" => got.rule.clone(),
        "identity" => got.identity.clone(),
        "group" => got.group.clone(),
        "key_id" => got.key_id.clone(),
        "limit" => got.limit.clone(),
        _ => got.shadow.map(str::to_owned),
    }
}

/// The decision a word needs, where that is another one than is expected.
fn other_decision(what: &str, decision: &str) -> Option<&'static str> {
    match what {
        "reason" | "limit" if decision == "allow" => Some("deny"),
        "group" if decision == "deny" => Some("allow"),
        _ => None,
    }
}
