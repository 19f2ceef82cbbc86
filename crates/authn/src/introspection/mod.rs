//! Tokens whose worth only their provider knows (RFC 7662).
//!
//! One [`Provider`] per issuer entry that says `introspect`. Its questions are asked in the background, one for each
//! token however many requests wait for it. What is remembered is what the provider said, for a short time; the
//! times, the binding, the audience and the scopes in it are judged anew by every request and every policy
//! (INT-01 to INT-07).

mod breaker;
mod client;
mod memory;
mod question;
mod source;
mod spec;
mod status;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};

use portcullis_core::json::{Object, Value};
use portcullis_core::{AuthMethod, Clock, Identity, Moment, Reason, Rejection};
use portcullis_jose::{ClaimRules, IssuerRule, is_like_id_token};
use tokio::runtime::Handle;

use crate::WorkerTokens;
use crate::discovery::{Discovery, DiscoveryError};
use crate::identity::{client_key, is_name, token_key};
use crate::issuers::{Terms, granted};
use crate::keys::{EntryId, lock};
use crate::tokens::KnownToken;
use source::{Answer, Provider};

pub(crate) use spec::{Compiled, IntrospectSpec};
pub use status::{IntrospectionResult, IntrospectionStatus};

/// The generation of answers: they are no keys, so there is only one.
const GENERATION: u64 = 0;

/// What the subject of a token begins with that a client has for itself.
pub(crate) const OF_CLIENT: &str = "client:";

/// Where a provider is asked.
pub(super) enum Endpoint {
    /// At this URL.
    Fixed(Arc<str>),
    /// Where its own metadata says.
    Discovered {
        discovery: Arc<Discovery>,
        /// Whether we show a certificate, for which the metadata may name another endpoint (RFC 8705 section 5).
        with_certificate: bool,
    },
}

impl Endpoint {
    async fn url(&self) -> Result<Arc<str>, DiscoveryError> {
        match self {
            Self::Fixed(url) => Ok(url.clone()),
            Self::Discovered { discovery, with_certificate } => {
                discovery.metadata().await?.introspection_endpoint(*with_certificate)
            }
        }
    }

    /// A text that differs whenever the question may go somewhere else.
    fn described(&self) -> String {
        match self {
            Self::Fixed(url) => format!("at {url:?}"),
            Self::Discovered { discovery, with_certificate } => {
                format!("discovered {:?} {with_certificate}", discovery.settings())
            }
        }
    }

    fn shown(&self) -> Arc<str> {
        match self {
            Self::Fixed(url) => url.clone(),
            Self::Discovered { discovery, .. } => discovery.issuer().clone(),
        }
    }
}

/// An issuer entry whose tokens are introspected.
#[derive(Debug)]
pub(crate) struct Introspection {
    pub(crate) name: Arc<str>,
    pub(crate) id: EntryId,
    pub(crate) rules: ClaimRules,
    pub(crate) terms: Terms,
    scope: Option<Arc<str>>,
    prefix: Option<Box<str>>,
    token_type_required: bool,
    provider: Arc<Provider>,
}

impl Introspection {
    /// Who the entry says its issuer is.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match &self.rules.issuer {
            IssuerRule::Required(issuer) | IssuerRule::Optional(issuer) => Some(issuer),
            IssuerRule::OfCertificate | IssuerRule::Unchecked => None,
        }
    }

    /// Whether a token that says this of its issuer may be one of this entry's; `None` if the entry does not say who
    /// its issuer is. For choosing among the entries of a chain, on the word of a token nobody has verified.
    pub(crate) fn is_named(&self, iss: &str) -> Option<bool> {
        self.issuer().map(|expected| expected == iss)
    }

    /// What its tokens begin with, but for signed ones that name it.
    pub(crate) fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Whether any token at all may be its own, by what the entry says.
    pub(crate) fn takes_all(&self) -> bool {
        self.prefix.is_none() && self.issuer().is_none()
    }

    /// What the worker remembers of the token.
    pub(crate) fn remembered(
        &self,
        token: &[u8],
        worker: &WorkerTokens,
        now: Moment,
    ) -> Option<Rc<KnownToken>> {
        worker.find(self.id, GENERATION, token, now)
    }

    /// What the provider says of a token the worker does not remember; `None` if it is not active.
    ///
    /// # Errors
    /// The provider could not be asked (503), or what it says is not what this entry's tokens must say (401).
    pub(crate) async fn know(
        &self,
        token: &[u8],
        worker: &WorkerTokens,
        now: Moment,
    ) -> Result<Option<Rc<KnownToken>>, Rejection> {
        let active = match self.provider.ask(token, now).await? {
            Answer::Inactive => return Ok(None),
            Answer::Active(active) => active,
        };
        let known = Rc::new(self.read(&active.claims)?.until(active.until));
        // What would be too old at once takes nobody's place.
        if active.until <= now.monotonic {
            return Ok(Some(known));
        }
        if known.times.check(&self.rules, now).is_ok() {
            worker.remember(self.id, GENERATION, token, &known);
        }
        Ok(Some(known))
    }

    /// What an active token is, as far as neither the time nor the caller matters.
    fn read(&self, claims: &Object) -> Result<KnownToken, Rejection> {
        let proof_key = self.check_kind(claims)?;
        let times = self.rules.check_claims(claims)?;
        let confirmation = self.terms.check_static(claims)?;
        // SECURITY: a token that must be presented with a proof and does not say with which would be held to nothing.
        if proof_key && confirmation.is_none_or(|confirmation| confirmation.jkt.is_none()) {
            return Err(Rejection::new(Reason::TokenNotBound)
                .because("`token_type` is DPoP, and `cnf` names no proof key"));
        }
        let ends_ms = times.unusable_from_ms(&self.rules);
        let identity = Arc::new(self.identity(claims, ends_ms)?);
        Ok(KnownToken::new(identity, times, ends_ms, confirmation))
    }

    /// Whether it must be presented with a proof. SECURITY: a provider knows refresh tokens as well, and says that
    /// they are active. `token_type` is how an access token is presented; a refresh token has none.
    fn check_kind(&self, claims: &Object) -> Result<bool, Rejection> {
        let refused = |why: &str| Err(Rejection::new(Reason::TokenTypeRefused).because(why));
        if self.rules.id_tokens_refused && is_like_id_token(claims) {
            return refused("the answer has claims of an ID token");
        }
        match claims.get("token_use") {
            None => {}
            Some(Value::Text(used)) if matches!(&**used, "access" | "access_token") => {}
            Some(_) => return refused("`token_use` says that it is no access token"),
        }
        match claims.get("token_type") {
            Some(Value::Text(kind)) if kind.eq_ignore_ascii_case("Bearer") => Ok(false),
            Some(Value::Text(kind)) if kind.eq_ignore_ascii_case("DPoP") => Ok(true),
            Some(_) => refused("`token_type` is neither Bearer nor DPoP"),
            None if self.token_type_required => {
                refused("`token_type` is missing, so this may be no access token")
            }
            None => Ok(false),
        }
    }

    /// Who it is. A token without `sub` was given to a client for itself (RFC 6749 section 4.4). SECURITY: a client
    /// and a user who are called the same are two callers, by their keys and by what the upstream is told; so no user
    /// may be called as clients are (JWT-28).
    fn identity(&self, claims: &Object, ends_ms: Option<i64>) -> Result<Identity, Rejection> {
        let name =
            |claim: &str| match claims.get(claim) {
                None => Ok(None),
                Some(Value::Text(name)) if is_name(name) => Ok(Some(name.clone())),
                Some(_) => Err(Rejection::new(Reason::TokenClaimInvalid)
                    .because(format!("`{claim}` cannot name a caller"))),
            };
        let (subject, key) = match (name("sub")?, name("client_id")?) {
            (Some(subject), _) if subject.starts_with(OF_CLIENT) => {
                return Err(Rejection::new(Reason::TokenClaimInvalid)
                    .because("`sub` begins as the names of clients do"));
            }
            (Some(subject), _) => (subject.clone(), token_key(&self.name, &subject)),
            (None, Some(client)) => (format!("{OF_CLIENT}{client}").into(), client_key(&self.name, &client)),
            (None, None) => {
                return Err(Rejection::new(Reason::TokenClaimInvalid)
                    .because("neither `sub` nor `client_id` is there to name the caller"));
            }
        };
        Ok(Identity {
            method: AuthMethod::Token,
            key,
            subject,
            issuer: Some(self.name.clone()),
            client: None,
            key_id: None,
            scopes: granted(claims, self.scope.as_deref()),
            claims: Arc::new(claims.clone()),
            certificate: None,
            // The end itself is the first moment at which the token does not count.
            expires_at: ends_ms.map(|end| end.saturating_sub(1).div_euclid(1000)),
        })
    }
}

/// An entry is one by its settings.
impl PartialEq for Introspection {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Introspection {}

/// All providers of the process. They outlive a reload: what is defined by the same settings is found again with
/// its memory and its failures. Cloning shares them.
#[derive(Clone)]
pub struct Introspections(Arc<Living>);

struct Living {
    clock: Clock,
    background: Option<Handle>,
    providers: Mutex<Vec<(EntryId, Weak<Provider>)>>,
}

impl Introspections {
    /// Providers that are asked on the given runtime; on none where nobody may be asked, for checking policies.
    pub fn new(clock: Clock, background: Option<Handle>) -> Self {
        Self(Arc::new(Living { clock, background, providers: Mutex::default() }))
    }

    /// How every provider in use is doing.
    pub fn status(&self) -> Vec<IntrospectionStatus> {
        let providers = lock(&self.0.providers);
        providers
            .iter()
            .filter_map(|(_, provider)| provider.upgrade())
            .map(|provider| provider.status())
            .collect()
    }

    /// The provider of an entry, living or new.
    fn provider(&self, id: EntryId, make: impl FnOnce(Clock, Option<Handle>) -> Provider) -> Arc<Provider> {
        let mut providers = lock(&self.0.providers);
        providers.retain(|(_, provider)| provider.strong_count() > 0);
        let known = providers.iter().find(|(known, _)| *known == id).and_then(|(_, known)| known.upgrade());
        known.unwrap_or_else(|| {
            let provider = Arc::new(make(self.0.clock.clone(), self.0.background.clone()));
            providers.push((id, Arc::downgrade(&provider)));
            provider
        })
    }
}

impl std::fmt::Debug for Introspections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Introspections")
    }
}
