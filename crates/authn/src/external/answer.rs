//! What a service answers, and whom that names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, WWW_AUTHENTICATE};
use portcullis_core::json::{Object, Value};
use portcullis_core::{AuthMethod, Identity, Moment, Passed, Reason, Rejection};

use super::cache::Answered;
use crate::identity::is_name;
use crate::issuers::granted;

/// The longest answer that is taken, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// What a service decided.
#[derive(Debug)]
pub(super) enum Verdict {
    Allowed(Allowed),
    Denied(Denied),
}

/// The request may go on.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    pub(super) headers: HeaderMap,
    /// The members of a JSON body, or of the dynamic metadata.
    pub(super) members: Object,
    /// How long the answer says that it counts.
    pub(super) counts_for: Option<Duration>,
}

/// It may not.
#[derive(Debug)]
pub(super) struct Denied {
    /// Whether it is the credential (401) and not what is asked for (403).
    pub(super) unauthenticated: bool,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Denied {
    /// The refusal; in the service's own words where the policy says so.
    pub(super) fn rejection(self, pass: bool) -> Rejection {
        let reason =
            if self.unauthenticated { Reason::ExternalUnauthenticated } else { Reason::ExternalDenied };
        let rejection = Rejection::new(reason).because("the external service denies");
        if !pass {
            return rejection;
        }
        rejection.answering(Passed {
            challenges: self.headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect(),
            content_type: self.headers.get(CONTENT_TYPE).cloned(),
            body: self.body,
        })
    }
}

/// Where in an answer something is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `header.x-user`
    Header(HeaderName),
    /// `body.path.to`, in gRPC the dynamic metadata.
    Body(Box<str>),
}

impl Source {
    /// Reads `header.NAME` or `body.PATH`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once('.') {
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header),
            Some(("body", path)) if !path.is_empty() => Some(Self::Body(path.into())),
            _ => None,
        }
    }

    /// What it says there, if that can name a caller.
    pub(super) fn name(&self, answer: &Allowed) -> Option<Arc<str>> {
        match self.read(answer) {
            Some(Value::Text(name)) if is_name(&name) => Some(name),
            _ => None,
        }
    }

    fn read(&self, answer: &Allowed) -> Option<Value> {
        match self {
            Self::Header(name) => {
                let mut values = answer.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    // SECURITY: of two values nobody can say which one is meant.
                    (Some(only), None) => only.to_str().ok().map(|text| Value::Text(text.into())),
                    _ => None,
                }
            }
            Self::Body(path) => answer.members.at(path).cloned(),
        }
    }
}

/// How an answer is read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) subject: Source,
    pub(super) scopes: Option<Source>,
    /// Names and sources of what rules may ask for beside the members of a body.
    pub(super) attributes: Vec<(Arc<str>, Source)>,
    /// The fields that go on to the upstream.
    pub(super) upstream_headers: Vec<HeaderName>,
}

impl Reading {
    /// The caller an answer names, and what goes on to the upstream.
    ///
    /// # Errors
    /// It names nobody, or not unmistakably.
    pub(super) fn read(&self, service: &str, answer: Allowed, now: Moment) -> Result<Answered, Rejection> {
        let subject = self.subject.name(&answer).ok_or_else(|| {
            Rejection::new(Reason::IdentityUnresolved)
                .because("the external service allows, and names nobody")
        })?;
        let scope = self.scopes.as_ref().and_then(|source| source.read(&answer));
        let scope: Object = scope.map(|value| (Arc::from("scope"), value)).into_iter().collect();
        let mut upstream = HeaderMap::new();
        for name in &self.upstream_headers {
            for value in answer.headers.get_all(name) {
                upstream.append(name.clone(), value.clone());
            }
        }
        let named =
            self.attributes.iter().filter_map(|(name, source)| Some((name.clone(), source.read(&answer)?)));
        let named: Vec<_> = named.collect();
        let members = answer.members.members().map(|(name, value)| (Arc::from(name), value.clone()));
        let claims: Object = members.chain(named).collect();
        let until = answer.counts_for.map(|time| now.monotonic.saturating_add(time));
        let identity = Identity {
            method: AuthMethod::External,
            key: format!("external:{service}:{subject}").into(),
            subject,
            issuer: None,
            client: None,
            key_id: None,
            claims: Arc::new(claims),
            scopes: granted(&scope, None),
            certificate: None,
            expires_at: None,
        };
        let upstream = (!upstream.is_empty()).then(|| Arc::new(upstream));
        Ok(Answered { identity: Arc::new(identity), upstream, until })
    }
}
