//! `apis/*.yaml`: who may call one API, what they may do, how often, where it goes.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use portcullis_authn::{ChainSpec, IdentitySpec};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};
use portcullis_policy::{LimitsSpec, PathTemplate, PlanSourceSpec, RulesSpec};

use crate::forward::ForwardSpec;
use crate::route_table::HostPattern;

/// Longest body an API takes where its policy does not say.
pub(crate) const DEFAULT_MAX_BODY: u64 = 8 << 20;

/// Longest wait for more of a caller's body.
pub(crate) const DEFAULT_BODY_PAUSE: Duration = Duration::from_secs(15);

/// Longest time for all of a caller's body.
pub(crate) const DEFAULT_BODY_TOTAL: Duration = Duration::from_secs(300);

/// The file as written.
pub(crate) struct ApiSpec {
    pub(crate) name: Spanned<String>,
    pub(crate) matches: MatchSpec,
    pub(crate) upstream: Spanned<String>,
    pub(crate) authenticate: ChainSpec,
    pub(crate) identity: Option<IdentitySpec>,
    pub(crate) plans: Option<PlanSourceSpec>,
    pub(crate) allow: RulesSpec,
    pub(crate) limits: Option<LimitsSpec>,
    pub(crate) usage: Option<String>,
    pub(crate) forward: ForwardSpec,
    pub(crate) body: BodySpec,
    pub(crate) methods: Option<Vec<Method>>,
}

/// `match:`
pub(crate) struct MatchSpec {
    pub(crate) host: HostPattern,
    pub(crate) path: PathTemplate,
    pub(crate) place: Place,
}

/// `body:`
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodySpec {
    pub(crate) max: u64,
    pub(crate) pause: Duration,
    pub(crate) total: Duration,
}

impl Default for BodySpec {
    fn default() -> Self {
        Self { max: DEFAULT_MAX_BODY, pause: DEFAULT_BODY_PAUSE, total: DEFAULT_BODY_TOTAL }
    }
}

impl ApiSpec {
    /// Reads the file. Every part is read before anything is given up, so that all its faults are named.
    pub(crate) fn read(root: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(root, "an API", faults)?;
        let name = fields.require("api", faults).and_then(|node| api_name(node, faults));
        let matches = fields.require("match", faults).and_then(|node| MatchSpec::read(node, faults));
        let upstream = fields.require("upstream", faults).and_then(|node| node.text(faults));
        let authenticate = fields.get("authenticate");
        if authenticate.is_none() {
            faults.push(
                Diagnostic::error("missing_key", fields.place(), "an API needs `authenticate`").note(
                    "there is no default: an API that anybody may call writes `authenticate: { anonymous: { because: \"…\" } }`",
                ),
            );
        }
        let authenticate = authenticate.and_then(|node| ChainSpec::read(node, faults));
        let identity = fields.get("identity").map(|node| IdentitySpec::read(node, faults));
        let plans = fields.get("plans").map(|node| PlanSourceSpec::read(node, faults));
        let allow = fields.require("allow", faults).and_then(|node| RulesSpec::read(node, faults));
        let limits = fields.get("limits").map(|node| LimitsSpec::read(node, faults));
        let usage = fields.get("usage").map(|node| read_usage(node, faults));
        let forward = fields.get("forward").map(|node| ForwardSpec::read(node, faults));
        let body = fields.get("body").map(|node| BodySpec::read(node, faults));
        let methods = fields.get("methods").map(|node| read_methods(node, faults));
        fields.finish(faults);
        Some(Self {
            name: name?,
            matches: matches?,
            upstream: upstream?,
            authenticate: authenticate?,
            identity: optional(identity)?,
            plans: optional(plans)?,
            allow: allow?,
            limits: optional(limits)?,
            usage: optional(usage)?,
            forward: optional(forward)?.unwrap_or_default(),
            body: optional(body)?.unwrap_or_default(),
            methods: optional(methods)?,
        })
    }
}

/// SECURITY: a part that is written and cannot be read never counts as a part that is not written.
#[expect(clippy::option_option, reason = "absent, unreadable and read are three things")]
fn optional<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(None) => None,
        Some(read) => Some(read),
    }
}

/// One path below that of the API, in the spelling requests have to have.
fn read_usage(node: &Node, faults: &mut Faults) -> Option<String> {
    let path = node.text(faults)?;
    PathTemplate::parse(&path, faults)?;
    if path.value.contains(['{', '*']) {
        faults.error("bad_path", path.place, "`usage` is one path, such as `/usage`");
        return None;
    }
    Some(path.value)
}

fn api_name(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    let name = node.text(faults)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.value.len() > 64 || !name.value.bytes().all(plain) {
        // It becomes a realm, a metric label and part of a store key.
        let message = "an API's name has at most 64 letters, digits, dashes, dots or underscores";
        faults.error("bad_name", name.place, message);
        return None;
    }
    Some(name)
}

impl MatchSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`match`", faults)?;
        let host = fields.require("host", faults).and_then(|node| host_pattern(node, faults));
        let path = fields.require("path", faults).and_then(|node| node.text(faults));
        fields.finish(faults);
        let path = path.and_then(|text| PathTemplate::parse(&text, faults));
        Some(Self { host: host?, path: path?, place: node.place })
    }
}

fn host_pattern(node: &Node, faults: &mut Faults) -> Option<HostPattern> {
    let text = node.text(faults)?;
    if text.value == "*" {
        return Some(HostPattern::Any);
    }
    let (subdomain, name) = match text.value.strip_prefix("*.") {
        Some(parent) => (true, parent),
        None => (false, text.value.as_str()),
    };
    let valid = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'[' | b']' | b':')
    };
    let bracketed = name.starts_with('[') && name.ends_with(']');
    if name.is_empty()
        || !name.bytes().all(valid)
        || name.starts_with('.')
        || name.ends_with('.')
        || (name.contains(':') && !bracketed)
    {
        faults.push(
            Diagnostic::error("bad_host", text.place, format!("`{}` is not a host", text.value))
                .note("write a lower-case name without port, `*.example.com` for one label more, or `*`"),
        );
        return None;
    }
    let name: Arc<str> = name.into();
    Some(if subdomain { HostPattern::Subdomain(name) } else { HostPattern::Exact(name) })
}

impl BodySpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`body`", faults)?;
        let (max, pause, total) = (fields.get("max"), fields.get("pause"), fields.get("total"));
        fields.finish(faults);
        let default = Self::default();
        Some(Self {
            max: max.map_or(Some(default.max), |node| node.size(faults))?,
            pause: pause.map_or(Some(default.pause), |node| node.duration(faults))?,
            total: total.map_or(Some(default.total), |node| node.duration(faults))?,
        })
    }
}

fn read_methods(node: &Node, faults: &mut Faults) -> Option<Vec<Method>> {
    let words = node.texts(faults)?;
    let count = words.len();
    let methods: Vec<Method> = words.iter().filter_map(|word| method(word, faults)).collect();
    (methods.len() == count).then_some(methods)
}

fn method(word: &Spanned<String>, faults: &mut Faults) -> Option<Method> {
    let upper = word.value.to_ascii_uppercase();
    if word.value != upper {
        let fault = Diagnostic::error("bad_method", word.place, format!("`{}` is not a method", word.value));
        faults.push(fault.label(format!("did you mean `{upper}`?")));
        return None;
    }
    match upper.parse::<Method>() {
        Ok(Method::TRACE | Method::CONNECT) => {
            faults.error("bad_method", word.place, format!("`{upper}` is never served"));
            None
        }
        Ok(method) => Some(method),
        Err(_) => {
            faults.error("bad_method", word.place, format!("`{upper}` is not a method"));
            None
        }
    }
}
