//! A chain: alternatives (`any_of`), each a list of authenticators that must all succeed (`all_of`).
//!
//! Which alternative decides follows from what the request brings, before anything is verified:
//!
//! - A credential in a header, in the query or in a cookie is *explicit*: the caller chose to send it with this request. The alternative that
//!   decides is the first that asks for exactly the explicit credentials there are. So none is ever left unread
//!   beside another, and a bad one cannot be stepped over: the alternative that asks for it refuses.
//! - Explicit credentials that no alternative asks for together are ambiguous.
//! - The caller's certificate is *ambient*: it is there for every request of the caller's connection, whatever the
//!   request is about. It never makes a request ambiguous, and where an explicit credential is presented, an
//!   alternative that asks for the certificate alone stands back. An alternative that asks for both is complete only
//!   with both.
//! - Tokens of several issuers in one header are told apart by the issuer they name, opaque ones by what they begin
//!   with, certificates by the anchor they lead to. These are only ways to choose; the alternative that is chosen
//!   verifies, or asks the one provider whose token it can be.

mod addressee;
mod compile;
mod content;
mod providers;
mod select;
#[cfg(test)]
mod tests;
mod together;
mod trace;
mod uses;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use portcullis_core::{
    AuthMethod, Challenge, Clock, Connection, Identity, Moment, PeerCertificate, Principal, Reason,
    Rejection, Scheme,
};

pub use compile::{ChainSpec, Compiling};
pub use content::{Content, ContentFuture};
pub(crate) use select::Addressed;
pub use trace::{Step, Trace};
pub(crate) use uses::Use;
pub use uses::Uses;

use crate::WorkerTokens;
use crate::dpop;
use crate::external::UpstreamFields;
use crate::guard::{Attempt, Guard, Watch};
use crate::identity::{IdentityRule, Named};
use crate::jwt::query_carries_token;
use crate::place::Place;
use crate::scheme::Authenticator;
use select::Selector;

/// What a request brings to show who sends it.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The request's head.
    pub head: &'a Parts,
    /// The connection it arrived on.
    pub connection: &'a Connection,
    /// The caller's certificate: of the connection's own handshake, or as a trusted proxy tells it with this request.
    pub certificate: Option<&'a Arc<PeerCertificate>>,
    /// What the worker remembers.
    pub worker: &'a WorkerTokens,
    /// The request's content; `None` where no authenticator of the chain signs over it.
    pub content: Option<&'a dyn Content>,
    /// When the request was opened: what its credentials are judged by.
    pub now: Moment,
    /// The clock, for what must not be judged by an older reading: whether something ends while it is waited for.
    pub clock: &'a Clock,
    /// Whether nothing may come of it: the chain says so itself where it is in shadow, and uses nothing up.
    pub on_trial: bool,
    /// Where it is noted what the request uses up. The chain's own.
    pub uses: Option<&'a Uses>,
    /// Where each step is noted, if somebody has the request explained.
    pub trace: Option<&'a Trace>,
}

impl Evidence<'_> {
    /// Whether the request has content, as far as its head tells.
    pub(crate) fn has_content(&self) -> bool {
        self.content.is_some_and(|content| !content.is_absent())
    }

    /// Notes something that the request uses up, to be claimed when all of its credentials are good. To be called by an
    /// authenticator last of all.
    pub(crate) fn use_up(&self, used: Use) -> Result<(), Rejection> {
        // SECURITY: what nobody would claim could be used again.
        let uses = self.uses.ok_or_else(|| Rejection::new(Reason::InternalError))?;
        uses.note(used);
        Ok(())
    }

    /// The request's content. Ask only where everything else about the credential is good, and only in an
    /// authenticator that says [`Authenticator::reads_content`].
    pub(crate) async fn content(&self) -> Result<Bytes, Rejection> {
        self.content_up_to(u64::MAX).await
    }

    /// The same where a longer one is of no use: it is refused without being read.
    pub(crate) async fn content_up_to(&self, at_most: u64) -> Result<Bytes, Rejection> {
        match self.content {
            Some(content) => content.read(at_most).await,
            None => {
                Err(Rejection::new(Reason::InternalError)
                    .because("a chain that reads no content asks for it"))
            }
        }
    }
}

/// What one authenticator says.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing was addressed to it.
    Absent,
    /// It knows who it is; and what they are called, if it was asked.
    Verified(Arc<Identity>, Option<Named>),
    /// An external service says who it is, and may give fields for the upstream.
    Answered(Arc<Identity>, Option<UpstreamFields>),
    /// The credential is bad, or could not be checked. This ends the chain: a bad credential never falls through
    /// to a weaker one.
    Rejected(Rejection),
}

/// Who may call an API, compiled.
#[derive(Debug)]
pub struct Chain {
    alternatives: Vec<Alternative>,
    selector: Selector,
    rule: IdentityRule,
    challenges: Vec<Challenge>,
    credential_headers: Vec<HeaderName>,
    upstream_fields: Vec<HeaderName>,
    /// Where credentials are only a part of something: of the query, of the cookies.
    inner_places: Vec<Place>,
    takes_tokens: bool,
    /// Where proofs travel, if any are taken.
    proof_header: Option<HeaderName>,
    reads_content: bool,
    accept_signatures: Vec<HeaderValue>,
    anonymous_because: Option<Arc<str>>,
    guard: Guard,
    /// Who calls where the chain is in shadow.
    anybody: Option<Arc<Identity>>,
}

/// Authenticators that must all succeed.
#[derive(Debug)]
struct Alternative {
    /// The cheap ones first.
    members: Vec<Authenticator>,
    /// Which of them names the caller.
    naming: usize,
    /// Whether what the caller is called follows from the naming member alone.
    named_alone: bool,
}

impl Chain {
    /// Finds out who is calling. `content` is needed where the chain [`reads_content`](Self::reads_content).
    ///
    /// # Errors
    /// Nobody is shown to call (401), the credentials contradict each other or are broken (400), the caller is no
    /// longer a client or cannot be named (403), too many attempts of its address have failed (429), or it could not
    /// be checked (503).
    pub async fn authenticate(&self, evidence: &Evidence<'_>) -> Result<Principal, Rejection> {
        let uses = Uses::default();
        let on_trial = evidence.on_trial || self.anybody.is_some();
        let evidence = &Evidence { on_trial, uses: Some(&uses), ..*evidence };
        if self.takes_tokens && query_carries_token(&evidence.head.uri) {
            return Err(Rejection::new(Reason::CredentialsMalformed)
                .of(Scheme::Bearer)
                .because("`access_token` in the query")
                .advising("An access token may not travel in the query."));
        }
        let alternative = match self.alternatives.as_slice() {
            [only] => only,
            _ => self.selector.select(&self.alternatives, evidence)?,
        };
        if let Some(trace) = evidence.trace {
            trace.chosen(alternative);
        }
        let watch = self.guard.watch(evidence.connection, evidence.now);
        alternative.authenticate((evidence, &uses), &self.rule, watch).await
    }

    /// The caller where the chain is in shadow (`mode: shadow`): whatever [`authenticate`](Self::authenticate) says is
    /// written down, and then nobody has shown who they are. `None` where the chain is enforced.
    ///
    /// SECURITY: a trial never makes an identity, not even of a good credential: rules that hold by it would be relied
    /// on while nothing refuses a bad one. What claims an identity is removed as under an enforced chain.
    pub fn in_shadow(&self) -> Option<Principal> {
        let identity = self.anybody.clone()?;
        let (name, key) = (identity.subject.clone(), identity.key.clone());
        Some(Principal { identity, others: Vec::new(), name, key, group: None, upstream_fields: None })
    }

    /// Whether any of its callers may have a token.
    pub fn has_tokens(&self) -> bool {
        let members = self.alternatives.iter().flat_map(|alternative| &alternative.members);
        self.anybody.is_none() && members.into_iter().any(|member| member.method().is_token())
    }

    /// Whether any of its authenticators signs over content. Where none does, a request's body is not looked at.
    pub const fn reads_content(&self) -> bool {
        self.reads_content
    }

    /// What would do where a signature is asked for (RFC 9421 section 5.1).
    pub fn accept_signatures(&self) -> &[HeaderValue] {
        &self.accept_signatures
    }

    /// The challenges of all alternatives, each once.
    pub fn challenges(&self) -> &[Challenge] {
        &self.challenges
    }

    /// The fields an external service may give for the upstream: a caller's own copies are removed, in every spelling.
    pub fn upstream_fields(&self) -> &[HeaderName] {
        &self.upstream_fields
    }

    /// The headers credentials travel in, to be removed before the request is forwarded (KEY-03).
    pub fn credential_headers(&self) -> &[HeaderName] {
        &self.credential_headers
    }

    /// Takes credentials out of the query and the cookies before the request is forwarded, and leaves everything
    /// else of both as it was sent (KEY-03).
    pub fn strip(&self, head: &mut Parts) {
        for place in &self.inner_places {
            place.strip(head);
        }
    }

    /// The header of proofs, to be removed before the request is forwarded, whatever becomes of the credential: a
    /// proof is for this gateway, and used up.
    pub const fn proof_header(&self) -> Option<&HeaderName> {
        self.proof_header.as_ref()
    }

    /// Lets a token that was presented with a proof go on as a plain one, to an upstream that cannot check the proof
    /// (DPP-11).
    pub fn present_as_bearer(&self, headers: &mut HeaderMap) {
        if self.proof_header.is_some() {
            dpop::present_as_bearer(headers);
        }
    }

    /// Why the API is public, if one of its alternatives is `anonymous` (CHN-08).
    pub const fn anonymous_because(&self) -> Option<&Arc<str>> {
        self.anonymous_because.as_ref()
    }
}

impl Alternative {
    async fn authenticate(
        &self,
        (evidence, uses): (&Evidence<'_>, &Uses),
        rule: &IdentityRule,
        watch: Watch<'_>,
    ) -> Result<Principal, Rejection> {
        let (mut naming, mut watched) = (None, Vec::new());
        let (mut others, mut upstream_fields) = (Vec::new(), None);
        for (at, member) in self.members.iter().enumerate() {
            let names = at == self.naming;
            let attempt = watch.admit(member, evidence).await.inspect_err(|rejection| {
                evidence.trace.iter().for_each(|trace| trace.held(member, rejection));
            })?;
            let rule = Some(rule).filter(|_| names && self.named_alone);
            let outcome = member.authenticate(evidence, rule).await;
            if let Some(trace) = evidence.trace {
                trace.said(member, &outcome);
            }
            watch.settle(attempt, &outcome, member, evidence).await?;
            watched.extend(Some(attempt).filter(Attempt::tells));
            match outcome {
                Outcome::Answered(identity, fields) => {
                    upstream_fields = fields;
                    if names {
                        naming = Some((identity, None));
                    } else {
                        others.push(identity);
                    }
                }
                Outcome::Verified(identity, named) if names => naming = Some((identity, named)),
                Outcome::Verified(identity, _) => others.push(identity),
                Outcome::Absent => return Err(self.missing(member, evidence)),
                Outcome::Rejected(rejection) => return Err(rejection),
            }
        }
        // Every member has verified, so one of them was the naming one.
        let (identity, named) = naming.ok_or_else(|| Rejection::new(Reason::InternalError))?;
        agree(&identity, &others)?;
        let Named { name, key, group } = match named {
            Some(named) => named,
            None => rule.name(&identity, &others)?,
        };
        uses.claim(&identity.key, evidence.clock).await?;
        watched.into_iter().for_each(|attempt| watch.forgive(attempt));
        Ok(Principal { identity, others, name, key, group, upstream_fields })
    }

    /// The refusal where a member finds nothing. Where the caller shows that they know the API, by presenting what
    /// another member asks for, they are told that it is the certificate that is missing.
    fn missing(&self, member: &Authenticator, evidence: &Evidence<'_>) -> Rejection {
        let presented =
            |other: &Authenticator| other.places().is_some_and(|places| places.are_filled(evidence.head));
        let alone = self.members.len() == 1;
        if member.method() == AuthMethod::Certificate && (alone || self.members.iter().any(presented)) {
            return Rejection::new(Reason::CertificateMissing).of(Scheme::Certificate);
        }
        Rejection::new(Reason::CredentialsMissing)
    }
}

/// SECURITY: credentials that must come together must belong together. Two good ones of two clients are one of them
/// borrowed or stolen, whichever of them names the caller (CHN-02).
fn agree(naming: &Identity, others: &[Arc<Identity>]) -> Result<(), Rejection> {
    let mut clients = std::iter::once(naming)
        .chain(others.iter().map(|other| &**other))
        .filter_map(|identity| identity.client.as_ref());
    let Some(first) = clients.next() else { return Ok(()) };
    match clients.find(|client| client.name != first.name) {
        None => Ok(()),
        Some(other) => {
            let why = format!("one credential is client `{}`'s, another `{}`'s", first.name, other.name);
            Err(Rejection::new(Reason::ClientsDiffer).because(why))
        }
    }
}
