//! A refusal on its way to the caller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use crate::{BearerError, Reason};

/// The scheme of a challenge (RFC 9110 section 11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 7617.
    Basic,
    /// RFC 9449: a token and a proof.
    Dpop,
    /// A key of a registered client.
    ApiKey,
    /// draft-cavage-http-signatures.
    Signature,
    /// RFC 9421, which names no scheme: its own challenge is `Accept-Signature`.
    MessageSignature,
    /// A client certificate, asked for in the TLS handshake.
    Certificate,
    /// Whatever a service of the operator's own takes. No scheme is registered for that.
    External,
}

impl Scheme {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
            Self::Dpop => "DPoP",
            Self::ApiKey => "ApiKey",
            Self::Signature => "Signature",
            Self::MessageSignature => "MessageSignature",
            Self::Certificate => "Certificate",
            Self::External => "External",
        }
    }
}

/// One `WWW-Authenticate` field: made when the policies are compiled, an `error` added when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme.
    pub scheme: Scheme,
    /// The `realm`: the API's name, if its policy does not say otherwise.
    pub realm: Arc<str>,
    /// Parameters the scheme has of its own, in the order they are sent.
    parameters: Vec<(&'static str, Box<str>)>,
}

impl Challenge {
    /// A challenge with no other parameter than the realm.
    pub const fn new(scheme: Scheme, realm: Arc<str>) -> Self {
        Self { scheme, realm, parameters: Vec::new() }
    }

    /// Adds a parameter, which is sent as a quoted string.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Box<str>>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }

    /// The field value. `refused` is the scheme whose credential was refused: only its challenge carries the
    /// error, and only Bearer knows such attributes. SECURITY: nothing of the credential is ever repeated here.
    pub fn render(&self, rejection: &Rejection) -> String {
        let mut value = format!("{} realm=\"{}\"", self.scheme.as_str(), quotable(&self.realm));
        for (name, parameter) in &self.parameters {
            value.push_str(&format!(", {name}=\"{}\"", quotable(parameter)));
        }
        if !self.speaks_of(rejection) {
            return value;
        }
        if let Some(error) = rejection.reason().bearer_error() {
            value.push_str(&format!(
                ", error=\"{}\", error_description=\"{}\"",
                error.as_str(),
                quotable(rejection.reason().title())
            ));
        }
        if let Some(scope) = rejection.detail().and_then(|detail| detail.scope.as_deref()) {
            value.push_str(&format!(", scope=\"{}\"", quotable(scope)));
        }
        value
    }
}

impl Challenge {
    /// Whether the error of a refusal is this challenge's to tell: only the two schemes of access tokens know such
    /// attributes, and only the one whose credential was refused carries them. What a token does not grant it grants
    /// under neither.
    fn speaks_of(&self, rejection: &Rejection) -> bool {
        let ungranted = rejection.reason().bearer_error() == Some(BearerError::InsufficientScope);
        match self.scheme {
            Scheme::Bearer => rejection.scheme() == Some(Scheme::Bearer),
            Scheme::Dpop => rejection.scheme() == Some(Scheme::Dpop) || ungranted,
            _ => false,
        }
    }
}

/// Keeps the characters that RFC 6750 section 3 allows in these attributes.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~') && *c != '"' && *c != '\\').collect()
}

/// What is known beyond the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// For the log only: what exactly was wrong. It never holds a secret or a whole credential.
    pub inner: Option<String>,
    /// For the caller: what to do about it.
    pub outer: Option<String>,
    /// The scope that would do, space separated.
    pub scope: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Names of the limits that refused (RFC 9457 member `violated-policies`).
    pub violated: Vec<Arc<str>>,
    /// What the limits promise this caller, for `RateLimit-Policy`, where that is not what they promise everybody.
    pub limit_policy: Option<HeaderValue>,
    /// Methods that would do, for the `Allow` field of a 405.
    pub allow: Option<String>,
    /// An answer in somebody else's words, in place of the problem document.
    pub passed: Option<Passed>,
    /// A nonce to try again with, for the `DPoP-Nonce` field (RFC 9449 section 9).
    pub nonce: Option<String>,
}

/// The words of a service that denies, where a policy passes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its challenges, in place of ours where there are any.
    pub challenges: Vec<HeaderValue>,
    /// What the body is.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
}

/// A refusal: a reason, and a boxed detail where there is one. Two words wide, so the good path pays nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejection {
    reason: Reason,
    scheme: Option<Scheme>,
    detail: Option<Box<Detail>>,
}

impl Rejection {
    /// A refusal that needs no further words.
    pub const fn new(reason: Reason) -> Self {
        Self { reason, scheme: None, detail: None }
    }

    /// The reason.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The scheme of the credential that was refused.
    pub const fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// What is known beyond the reason.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }

    /// Says whose credential was refused.
    #[must_use]
    pub const fn of(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// Adds words for the log.
    #[must_use]
    pub fn because(mut self, inner: impl Into<String>) -> Self {
        self.detail_mut().inner = Some(inner.into());
        self
    }

    /// Adds words for the caller.
    #[must_use]
    pub fn advising(mut self, outer: impl Into<String>) -> Self {
        self.detail_mut().outer = Some(outer.into());
        self
    }

    /// Names the scope that would do.
    #[must_use]
    pub fn needing_scope(mut self, scope: impl Into<String>) -> Self {
        self.detail_mut().scope = Some(scope.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.detail_mut().retry_after = Some(wait);
        self
    }

    /// What the limits promise this caller.
    #[must_use]
    pub fn limit_policy(mut self, policy: HeaderValue) -> Self {
        self.detail_mut().limit_policy = Some(policy);
        self
    }

    /// Names the limit that refused.
    #[must_use]
    pub fn violating(mut self, limit: Arc<str>) -> Self {
        self.detail_mut().violated.push(limit);
        self
    }

    /// Names the methods that would do.
    #[must_use]
    pub fn allowing(mut self, methods: impl Into<String>) -> Self {
        self.detail_mut().allow = Some(methods.into());
        self
    }

    /// Answers in somebody else's words.
    #[must_use]
    pub fn answering(mut self, passed: Passed) -> Self {
        self.detail_mut().passed = Some(passed);
        self
    }

    /// Offers a nonce for the next proof.
    #[must_use]
    pub fn offering_nonce(mut self, nonce: impl Into<String>) -> Self {
        self.detail_mut().nonce = Some(nonce.into());
        self
    }

    fn detail_mut(&mut self) -> &mut Detail {
        self.detail.get_or_insert_default()
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason.code())?;
        match self.detail().and_then(|detail| detail.inner.as_deref()) {
            Some(inner) => write!(f, " ({inner})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Challenge, Rejection, Scheme};
    use crate::Reason;

    #[test]
    fn a_rejection_is_two_words() {
        assert_eq!(size_of::<Rejection>(), 2 * size_of::<usize>());
        assert_eq!(size_of::<Option<Rejection>>(), 2 * size_of::<usize>());
    }

    #[test]
    fn only_the_refused_scheme_carries_the_error() {
        let bearer = Challenge::new(Scheme::Bearer, "bank".into());
        let key = Challenge::new(Scheme::ApiKey, "bank".into());
        let expired = Rejection::new(Reason::TokenExpired).of(Scheme::Bearer);
        assert_eq!(
            bearer.render(&expired),
            "Bearer realm=\"bank\", error=\"invalid_token\", error_description=\"The access token has expired.\""
        );
        assert_eq!(key.render(&expired), "ApiKey realm=\"bank\"");
        assert_eq!(bearer.render(&Rejection::new(Reason::CredentialsMissing)), "Bearer realm=\"bank\"");
    }

    #[test]
    fn a_scheme_has_parameters_of_its_own() {
        let challenge = Challenge::new(Scheme::ApiKey, "bank".into()).with("in", "he\"ader").with("b", "c");
        let missing = Rejection::new(Reason::CredentialsMissing);
        assert_eq!(challenge.render(&missing), "ApiKey realm=\"bank\", in=\"header\", b=\"c\"");
    }

    #[test]
    fn needed_scope_is_named() {
        let bearer = Challenge::new(Scheme::Bearer, "bank".into());
        let rejection =
            Rejection::new(Reason::ScopeInsufficient).of(Scheme::Bearer).needing_scope("accounts");
        assert!(bearer.render(&rejection).ends_with(", scope=\"accounts\""));
    }
}
