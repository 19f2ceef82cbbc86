//! A file of tests as it is written: `tests/*.test.yaml`.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};
use portcullis_jose::Algorithm;
use serde_json::{Map, Value};

use super::cast::{ATTRIBUTES, Subject};
use super::expect::Expected;
use super::facts::{Facts, Names};
use super::with::With;

/// How long a token counts where its test does not say.
const LIFETIME: Duration = Duration::from_secs(60);
/// How often a request may be sent.
const REPEATS: i64 = 100_000;

/// One file.
pub(crate) struct Suite {
    pub(crate) now: Option<i64>,
    pub(crate) certificates: Vec<CertificateSpec>,
    pub(crate) tokens: Vec<TokenSpec>,
    pub(crate) cases: Vec<Case>,
}

/// A certificate to be made.
pub(crate) struct CertificateSpec {
    pub(crate) name: Spanned<String>,
    /// The authority; `None` for one that vouches for itself.
    pub(crate) trust: Option<String>,
    pub(crate) subject: Subject,
    /// What policies pin, and this one is to be.
    pub(crate) stands_for: Option<Spanned<String>>,
}

/// A token to be made.
#[derive(Clone)]
pub(crate) struct TokenSpec {
    pub(crate) name: Spanned<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) claims: Map<String, Value>,
    pub(crate) without: Vec<String>,
    pub(crate) header: Map<String, Value>,
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) bound_to: Option<String>,
    pub(crate) holder: Option<String>,
    pub(crate) age: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) forged: bool,
    pub(crate) opaque: bool,
    pub(crate) inactive: bool,
}

/// A request and what is expected of it.
pub(crate) struct Case {
    pub(crate) name: Spanned<String>,
    pub(crate) policy: String,
    pub(crate) listener: Option<String>,
    pub(crate) method: http::Method,
    pub(crate) target: http::Uri,
    pub(crate) host: Option<String>,
    pub(crate) from: IpAddr,
    pub(crate) headers: Vec<(http::HeaderName, Spanned<String>)>,
    pub(crate) body: Option<Spanned<String>>,
    pub(crate) with: With,
    pub(crate) wait: Duration,
    pub(crate) repeat: i64,
    pub(crate) answers: Option<Answer>,
    pub(crate) expect: Expected,
}

/// What an external service answers.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Map<String, Value>,
}

impl Suite {
    /// Reads a file; `None` if it is no mapping at all. What else is wrong is among the faults.
    pub(crate) fn read(root: &Node, facts: &Facts, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(root, "a file of tests", faults)?;
        let policy = fields.get("policy").and_then(|node| api_name(node, facts, faults));
        let now = fields.get("now").and_then(|node| moment(node, faults));
        let listener =
            fields.get("listener").and_then(|node| defined("listener", node, &facts.listeners, faults));
        let certificates = named(fields.get("certificates"), faults);
        let certificates: Vec<_> =
            certificates.filter_map(|(name, node)| certificate(name, node, facts, faults)).collect();
        let names = Named {
            certificates: certificates.iter().map(|one| (one.name.value.clone(), one.name.place)).collect(),
            tokens: Vec::new(),
        };
        let mut tokens: Vec<TokenSpec> = Vec::new();
        for (name, node) in named(fields.get("tokens"), faults) {
            tokens.extend(token(name, node, (facts, &names, &tokens), faults));
        }
        let tokens_of = |token: &TokenSpec| (token.name.value.clone(), token.name.place);
        let names = Named { tokens: tokens.iter().map(tokens_of).collect(), ..names };
        let outer = Outer { policy: policy.as_ref(), listener: listener.as_ref(), facts, names: &names };
        let cases = fields.require("cases", faults).and_then(|node| node.list(faults)).unwrap_or_default();
        let cases: Vec<_> = cases.iter().filter_map(|node| case(node, &outer, faults)).collect();
        fields.finish(faults);
        for (number, case) in cases.iter().enumerate() {
            let earlier = cases.iter().take(number).find(|other| other.name.value == case.name.value);
            if let Some(earlier) = earlier {
                let message = format!("there are two cases called `{}`", case.name.value);
                let fault = Diagnostic::error("duplicate", case.name.place, message);
                faults.push(fault.related(earlier.name.place, "the other one is here"));
            }
        }
        Some(Self { now, certificates, tokens, cases })
    }
}

/// What a file defines for its cases.
pub(crate) struct Named {
    pub(crate) certificates: Names,
    pub(crate) tokens: Names,
}

struct Outer<'o> {
    policy: Option<&'o String>,
    listener: Option<&'o String>,
    facts: &'o Facts,
    names: &'o Named,
}

/// A name that must be among those defined.
pub(crate) fn defined(what: &str, node: &Node, names: &Names, faults: &mut Faults) -> Option<String> {
    let name = node.text(faults)?;
    if names.iter().any(|(known, _)| *known == name.value) {
        return Some(name.value);
    }
    faults.undefined(what, &name, names);
    None
}

fn api_name(node: &Node, facts: &Facts, faults: &mut Faults) -> Option<String> {
    let names: Names = facts.apis.iter().map(|api| (api.name.value.clone(), api.name.place)).collect();
    defined("API", node, &names, faults)
}

fn moment(node: &Node, faults: &mut Faults) -> Option<i64> {
    let text = node.text(faults)?;
    let parsed: Result<Timestamp, _> = text.value.parse();
    if parsed.is_err() {
        faults.error("bad_moment", text.place, "write a moment such as 2026-11-01T12:00:00Z");
    }
    parsed.ok().map(Timestamp::as_second)
}

fn named<'n>(
    node: Option<&'n Node>,
    faults: &mut Faults,
) -> impl Iterator<Item = (&'n Spanned<String>, &'n Node)> + use<'n> {
    let entries = node.and_then(|node| node.named(faults)).unwrap_or_default();
    entries.iter().map(|entry| (&entry.key, &entry.value))
}

fn certificate(
    name: &Spanned<String>,
    node: &Node,
    facts: &Facts,
    faults: &mut Faults,
) -> Option<CertificateSpec> {
    let mut fields = Fields::of(node, "a certificate", faults)?;
    let trust = match fields.get("trust") {
        Some(node) if matches!(&node.content, Content::Text(word) if word == "nobody") => Some(None),
        Some(node) => defined("trust anchor", node, &facts.anchors, faults).map(Some),
        None => match facts.anchors.as_slice() {
            [] => Some(None),
            [(only, _)] => Some(Some(only.clone())),
            _ => {
                let message =
                    "there are several trust anchors: say with `trust` which one signs it, or `nobody`";
                faults.error("missing_key", name.place, message);
                None
            }
        },
    };
    let mut subject = Subject::default();
    for (attribute, value) in named(fields.get("subject"), faults) {
        let Some(known) = ATTRIBUTES.into_iter().find(|known| *known == attribute.value) else {
            let known = ATTRIBUTES.map(|known| (known.to_owned(), attribute.place));
            faults.undefined("attribute", attribute, &known);
            continue;
        };
        subject.attributes.extend(value.text(faults).map(|value| (known, value.value)));
    }
    if subject.attributes.is_empty() {
        subject.attributes.push(("cn", name.value.clone()));
    }
    let dns = fields.get("dns").and_then(|node| node.texts(faults)).unwrap_or_default();
    subject.dns = dns.into_iter().map(|name| name.value).collect();
    let stands_for = fields.get("stands_for").and_then(|node| node.text(faults));
    fields.finish(faults);
    Some(CertificateSpec { name: name.clone(), trust: trust?, subject, stands_for })
}

fn token(
    name: &Spanned<String>,
    node: &Node,
    (facts, names, earlier): (&Facts, &Named, &[TokenSpec]),
    faults: &mut Faults,
) -> Option<TokenSpec> {
    let mut fields = Fields::of(node, "a token", faults)?;
    let from = fields.get("from").and_then(|node| {
        let names: Names = earlier.iter().map(|one| (one.name.value.clone(), one.name.place)).collect();
        let from = defined("token", node, &names, faults)?;
        earlier.iter().find(|one| one.name.value == from).cloned()
    });
    let mut token = from.unwrap_or_else(|| TokenSpec::new(name));
    token.name = name.clone();
    if let Some(node) = fields.get("issuer") {
        let issuers = facts.issuers.iter().map(|one| (one.name.value.clone(), one.name.place)).collect();
        token.issuer = defined("issuer", node, &issuers, faults);
    }
    if let Some(node) = fields.get("client") {
        token.client = defined("client", node, &facts.client_names(), faults);
    }
    if let Some(node) = fields.get("bound_to") {
        token.bound_to = defined("certificate", node, &names.certificates, faults);
    }
    if let Some(node) = fields.get("holder") {
        token.holder = node.text(faults).map(|holder| holder.value);
    }
    for (claim, value) in named(fields.get("claims"), faults) {
        token.claims.insert(claim.value.clone(), json(value));
    }
    for (parameter, value) in named(fields.get("header"), faults) {
        token.header.insert(parameter.value.clone(), json(value));
    }
    if let Some(node) = fields.get("without") {
        let claims = node.texts(faults).unwrap_or_default();
        token.without.extend(claims.into_iter().map(|claim| claim.value));
    }
    if let Some(node) = fields.get("algorithm") {
        let name = node.text(faults)?;
        token.algorithm = Algorithm::parse(&name.value);
        if token.algorithm.is_none() {
            faults.error("unknown_word", name.place, format!("`{}` is no algorithm", name.value));
        }
    }
    let duration = |node: Option<&Node>, faults: &mut Faults| node.and_then(|node| node.duration(faults));
    token.age = duration(fields.get("age"), faults).unwrap_or(token.age);
    token.lifetime = duration(fields.get("lifetime"), faults).unwrap_or(token.lifetime);
    let mut flag = |key: &'static str, was: bool, faults: &mut Faults| {
        fields.get(key).map_or(Some(was), |node| node.boolean(faults)).unwrap_or(was)
    };
    token.forged = flag("forged", token.forged, faults);
    token.opaque = flag("opaque", token.opaque, faults);
    token.inactive = flag("inactive", token.inactive, faults);
    fields.finish(faults);
    if token.issuer.is_none() {
        faults.error("missing_key", name.place, format!("token `{}` needs `issuer`, or `from`", name.value));
    }
    Some(token)
}

impl TokenSpec {
    fn new(name: &Spanned<String>) -> Self {
        Self {
            name: name.clone(),
            issuer: None,
            client: None,
            claims: Map::new(),
            without: Vec::new(),
            header: Map::new(),
            algorithm: None,
            bound_to: None,
            holder: None,
            age: Duration::ZERO,
            lifetime: LIFETIME,
            forged: false,
            opaque: false,
            inactive: false,
        }
    }
}

/// What stands in a file, as JSON.
pub(crate) fn json(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Bool(value) => (*value).into(),
        Content::Integer(value) => (*value).into(),
        Content::Number(value) => (*value).into(),
        Content::Text(text) => text.as_str().into(),
        Content::List(members) => members.iter().map(json).collect(),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|one| (one.key.value.clone(), json(&one.value))).collect())
        }
    }
}

fn case(node: &Node, outer: &Outer<'_>, faults: &mut Faults) -> Option<Case> {
    let mut fields = Fields::of(node, "a case", faults)?;
    let name = fields.require("name", faults).and_then(|node| node.text(faults));
    let policy = match fields.get("policy") {
        Some(node) => api_name(node, outer.facts, faults),
        None => outer.policy.cloned(),
    };
    if policy.is_none() && outer.policy.is_none() {
        let message = "neither the case nor the file says with `policy` which API it is about";
        faults.error("missing_key", node.place, message);
    }
    let api = policy.as_deref().and_then(|name| outer.facts.api(name));
    let line = fields.require("request", faults).and_then(|node| request_line(node, faults));
    let listener = match fields.get("listener") {
        Some(node) => defined("listener", node, &outer.facts.listeners, faults),
        None => outer.listener.cloned(),
    };
    let host = fields.get("host").and_then(|node| node.text(faults)).map(|host| host.value);
    let from = fields.get("from").and_then(|node| address(node, faults));
    let headers: Vec<_> =
        named(fields.get("headers"), faults).filter_map(|(name, node)| header(name, node, faults)).collect();
    let body = fields.get("body").and_then(|node| node.text(faults));
    let with = fields.get("with").map(|node| With::read(node, outer.facts, outer.names, faults));
    let wait = fields.get("wait").and_then(|node| node.duration(faults));
    let repeat = fields.get("repeat").and_then(|node| node.integer(1..=REPEATS, faults));
    let answers = fields.get("answers").and_then(|node| answer(node, faults));
    let expect = fields.require("expect", faults).and_then(|node| Expected::read(node, api, faults));
    fields.finish(faults);
    let (method, target) = line?;
    Some(Case {
        name: name?,
        policy: policy?,
        listener,
        method,
        target,
        host: host.or_else(|| api?.host.clone()),
        from: from.unwrap_or(IpAddr::from([192, 0, 2, 1])),
        headers,
        body,
        with: with.unwrap_or_default(),
        wait: wait.unwrap_or_default(),
        repeat: repeat.unwrap_or(1),
        answers,
        expect: expect?,
    })
}

fn request_line(node: &Node, faults: &mut Faults) -> Option<(http::Method, http::Uri)> {
    let line = node.text(faults)?;
    let parsed = line.value.split_once(' ').and_then(|(method, target)| {
        let target = target.starts_with('/').then_some(target)?;
        Some((method.parse().ok()?, target.parse().ok()?))
    });
    if parsed.is_none() {
        faults.error("bad_request", line.place, "write a method and a path, such as `GET /accounts?page=2`");
    }
    parsed
}

fn address(node: &Node, faults: &mut Faults) -> Option<IpAddr> {
    let text = node.text(faults)?;
    let parsed = text.value.parse().ok();
    if parsed.is_none() {
        faults.error("bad_address", text.place, format!("`{}` is no address", text.value));
    }
    parsed
}

fn header(
    name: &Spanned<String>,
    node: &Node,
    faults: &mut Faults,
) -> Option<(http::HeaderName, Spanned<String>)> {
    let parsed = name.value.parse().ok();
    if parsed.is_none() {
        faults.error("bad_header", name.place, format!("`{}` is no name of a header", name.value));
    }
    Some((parsed?, node.text(faults)?))
}

fn answer(node: &Node, faults: &mut Faults) -> Option<Answer> {
    let mut fields = Fields::of(node, "an answer of an external service", faults)?;
    let status = fields.require("status", faults).and_then(|node| node.integer(200..=599, faults));
    let mut answer = Answer::default();
    for (name, value) in named(fields.get("headers"), faults) {
        answer.headers.extend(value.text(faults).map(|value| (name.value.clone(), value.value)));
    }
    for (name, value) in named(fields.get("body"), faults) {
        answer.body.insert(name.value.clone(), json(value));
    }
    fields.finish(faults);
    answer.status = u16::try_from(status?).ok()?;
    Some(answer)
}

/// A fault at a place, as it is told when a case is prepared.
pub(crate) fn fault(place: Place, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error("cannot_be_tested", place, message))
}
