//! `claims:` of an issuer: what else its tokens must say (JWT-34).

use std::sync::Arc;

use portcullis_core::document::{Content, Entry, Fields, Node};
use portcullis_core::json::{Object, Value};
use portcullis_core::{Diagnostic, Faults, Reason, Rejection};
use regex::Regex;

use crate::json;

/// The longest expression, in bytes.
const EXPRESSION_MAX: usize = 1024;

/// One claim, and what it must be. A claim that is not there fits nothing.
#[derive(Clone, Debug)]
pub(super) struct ClaimTest {
    path: Arc<str>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// It is there and not null.
    Exists,
    /// It is exactly one of these.
    OneOf(Vec<Value>),
    /// It is a list that holds this.
    Contains(Value),
    /// It is text that fits from its first to its last character. The engine takes linear time.
    Matches(Regex),
}

impl ClaimTest {
    /// Reads `claims: { PATH: … }`.
    pub(super) fn read_all(node: &Node, faults: &mut Faults) -> Option<Vec<Self>> {
        let entries = node.named(faults)?;
        let read: Vec<_> = entries.iter().filter_map(|entry| Self::read(entry, faults)).collect();
        (read.len() == entries.len()).then_some(read)
    }

    fn read(entry: &Entry, faults: &mut Faults) -> Option<Self> {
        let node = &entry.value;
        let test = match &node.content {
            Content::Map(_) => read_test(node, faults)?,
            Content::List(items) => Test::OneOf(items.iter().map(json::value).collect()),
            _ => Test::OneOf(vec![json::value(node)]),
        };
        Some(Self { path: entry.key.value.as_str().into(), test })
    }

    /// Whether the claims pass.
    pub(super) fn check(&self, claims: &Object) -> Result<(), Rejection> {
        if claims.at(&self.path).is_some_and(|found| self.test.passes(found)) {
            return Ok(());
        }
        Err(Rejection::new(Reason::TokenClaimInvalid)
            .because(format!("the claim `{}` is not what it must be", self.path)))
    }
}

impl Test {
    fn passes(&self, found: &Value) -> bool {
        match self {
            Self::Exists => *found != Value::Null,
            Self::OneOf(values) => values.contains(found),
            Self::Contains(value) => matches!(found, Value::List(items) if items.contains(value)),
            Self::Matches(expression) => found.as_text().is_some_and(|text| expression.is_match(text)),
        }
    }
}

fn read_test(node: &Node, faults: &mut Faults) -> Option<Test> {
    let mut fields = Fields::of(node, "a claim", faults)?;
    let (equals, one_of, contains) = (fields.get("equals"), fields.get("one_of"), fields.get("contains"));
    let (matches, exists) = (fields.get("matches"), fields.get("exists"));
    fields.finish(faults);
    match (equals, one_of, contains, matches, exists) {
        (Some(value), None, None, None, None) => Some(Test::OneOf(vec![json::value(value)])),
        (None, Some(list), None, None, None) => {
            Some(Test::OneOf(list.list(faults)?.iter().map(json::value).collect()))
        }
        (None, None, Some(value), None, None) => Some(Test::Contains(json::value(value))),
        (None, None, None, Some(expression), None) => read_expression(expression, faults),
        (None, None, None, None, Some(node)) => {
            if node.boolean(faults)? {
                return Some(Test::Exists);
            }
            faults.error("out_of_range", node.place, "only `exists: true` can be asked for");
            None
        }
        _ => {
            faults.push(
                Diagnostic::error("one_key", node.place, "a claim is tested in exactly one way")
                    .note("`equals`, `one_of`, `contains`, `matches` or `exists`"),
            );
            None
        }
    }
}

/// SECURITY: an expression is always matched against the whole text; one that fits somewhere inside would let a
/// stranger's name through that merely contains a friend's.
fn read_expression(node: &Node, faults: &mut Faults) -> Option<Test> {
    let text = node.text(faults)?;
    let whole = if text.value.len() > EXPRESSION_MAX {
        Err(format!("it is longer than {EXPRESSION_MAX} bytes"))
    } else {
        // Compiled alone first, so that no parenthesis in it can end the group around it.
        Regex::new(&text.value)
            .and_then(|_| Regex::new(&format!("^(?:{})$", text.value)))
            .map_err(|error| error.to_string())
    };
    match whole {
        Ok(expression) => Some(Test::Matches(expression)),
        Err(why) => {
            let why = why.lines().last().unwrap_or_default().trim().to_owned();
            faults.error("bad_expression", text.place, format!("this is no regular expression: {why}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::Faults;
    use portcullis_core::json::{Limits, parse_object};
    use serde_json::json;

    use super::ClaimTest;
    use crate::testing::{node, only_fault};

    fn passes(test: &serde_json::Value, claims: &serde_json::Value) -> bool {
        let mut faults = Faults::default();
        let tests = ClaimTest::read_all(&node(test), &mut faults).expect("tests");
        let claims = parse_object(claims.to_string().as_bytes(), Limits::default()).expect("claims");
        tests.iter().all(|test| test.check(&claims).is_ok())
    }

    /// JWT-34: a missing path is no match, and no kind stands for another.
    #[test]
    fn a_claim_is_exactly_what_it_must_be() {
        for (test, claims, expected) in [
            (json!({"acr": "gold"}), json!({"acr": "gold"}), true),
            (json!({"acr": "gold"}), json!({"acr": "Gold"}), false),
            (json!({"acr": "gold"}), json!({"acr": ["gold"]}), false),
            (json!({"acr": "gold"}), json!({}), false),
            (json!({"level": 2}), json!({"level": 2}), true),
            (json!({"level": 2}), json!({"level": "2"}), false),
            (json!({"level": 2}), json!({"level": true}), false),
            (json!({"live": true}), json!({"live": true}), true),
            (json!({"live": true}), json!({"live": "true"}), false),
            (json!({"acr": ["gold", "silver"]}), json!({"acr": "silver"}), true),
            (json!({"acr": {"one_of": ["gold", "silver"]}}), json!({"acr": "bronze"}), false),
            (json!({"acr": {"equals": "gold"}}), json!({"acr": "gold"}), true),
            (json!({"realm.kind": "bank"}), json!({"realm": {"kind": "bank"}}), true),
            (json!({"realm.kind": "bank"}), json!({"realm.kind": "bank"}), true),
            (json!({"realm.kind": "bank"}), json!({"realm": "bank"}), false),
            (json!({"amr": {"contains": "mfa"}}), json!({"amr": ["pwd", "mfa"]}), true),
            (json!({"amr": {"contains": "mfa"}}), json!({"amr": "mfa"}), false),
            (json!({"amr": {"contains": "mfa"}}), json!({"amr": ["mfa2"]}), false),
            (json!({"org": {"matches": "bank-[0-9]+"}}), json!({"org": "bank-12"}), true),
            (json!({"org": {"matches": "bank-[0-9]+"}}), json!({"org": "xbank-12"}), false),
            (json!({"org": {"matches": "bank-[0-9]+"}}), json!({"org": "bank-12\n"}), false),
            (json!({"org": {"matches": "a|bank"}}), json!({"org": "bankrupt"}), false),
            (json!({"org": {"matches": "[0-9]+"}}), json!({"org": 12}), false),
            (json!({"org": {"exists": true}}), json!({"org": 0}), true),
            (json!({"org": {"exists": true}}), json!({"org": null}), false),
            (json!({"a": "x", "b": "y"}), json!({"a": "x", "b": "z"}), false),
        ] {
            assert_eq!(passes(&test, &claims), expected, "{test} {claims}");
        }
    }

    #[test]
    fn faults_are_told_where_they_are() {
        for (test, code, saying) in [
            (json!({"a": {"equals": 1, "is": 1}}), "unknown_key", "unknown key `is`"),
            (json!({"a": {"equals": 1, "matches": "x"}}), "one_key", "exactly one way"),
            (json!({"a": {"matches": "("}}), "bad_expression", "no regular expression"),
            (json!({"a": {"matches": "a)|(?:b"}}), "bad_expression", "no regular expression"),
            (json!({"a": {"matches": "(?:a{1000}){1000}"}}), "bad_expression", "no regular expression"),
            (json!({"a": {"matches": "x".repeat(1025)}}), "bad_expression", "longer than 1024"),
            (json!({"a": {"exists": false}}), "out_of_range", "only `exists: true`"),
            (json!({"a": {"one_of": []}}), "empty", "must not be empty"),
        ] {
            let mut faults = Faults::default();
            let _ = ClaimTest::read_all(&node(&test), &mut faults);
            only_fault(faults, code, saying);
        }
    }
}
