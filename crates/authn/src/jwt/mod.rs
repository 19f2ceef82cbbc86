//! `jwt`: a signed token in a header.

#[cfg(test)]
mod certificate_tests;
mod registered;
#[cfg(test)]
mod registered_tests;
mod spec;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use http::Uri;
use portcullis_core::json::{Limits, Value};
use portcullis_core::{Challenge, Identity, Reason, Rejection};
use portcullis_jose::{CompactJws, JwsLimits};

pub(crate) use registered::{ClientKey, ClientKeys, JwtKeyCredential, PublishedKeys};
pub(crate) use spec::JwtSpec;

use crate::binding::{Binding, Presented, present};
use crate::chain::{Evidence, Outcome};
use crate::guard::Claim;
use crate::identity::{IdentityRule, Named};
use crate::issuers::Issuer;
use crate::place::{Places, query};
use crate::tokens::KnownToken;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct Jwt {
    issuer: Arc<Issuer>,
    places: Places,
    binding: Binding,
}

impl Jwt {
    /// Where the token is looked for.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// Whose tokens it takes.
    pub(crate) const fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// The issuer and the subject a token names, or the client where it names one. They are a stranger's word.
    pub(crate) fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        let Ok(Some(found)) = self.places.find(evidence.head) else { return Claim::Absent };
        let token = &*found.credential;
        let certificate = evidence.certificate.map(AsRef::as_ref);
        let (issuer, now) = (&self.issuer, evidence.now);
        let generation = issuer.generation(certificate, now);
        let known = generation.and_then(|generation| evidence.worker.peek(issuer.id, generation, token, now));
        // SECURITY: one that has to be verified again is a guess like any other.
        if known.is_some_and(|known| issuer.still_holds(&known, now)) {
            return Claim::Known;
        }
        let claims = CompactJws::parse(token, JwsLimits::default())
            .ok()
            .and_then(|jws| jws.unverified_claims(Limits::default()).ok());
        // What cannot be read at all is one name: nobody has to tell garbage from garbage.
        for name in ["iss", "client_id", "sub"] {
            let value = claims.as_ref().and_then(|claims| claims.get(name)).and_then(Value::as_text);
            value.map(|text| &**text).hash(into);
        }
        Claim::Named
    }

    /// What it challenges a caller with who shows no token.
    pub(crate) fn challenges(&self, realm: &Arc<str>) -> Vec<Challenge> {
        self.binding.challenges(realm)
    }

    /// Whether a request uses up its token, or a proof that comes with it.
    pub(crate) fn uses_up(&self) -> bool {
        self.issuer.is_used_once() || self.takes_proofs()
    }

    /// Whether requests may carry proofs beside the token.
    pub(crate) const fn takes_proofs(&self) -> bool {
        self.binding.takes_proofs()
    }

    /// Verifies the token, and names the caller by the rule, if one is given.
    pub(crate) async fn authenticate(&self, evidence: &Evidence<'_>, rule: Option<&IdentityRule>) -> Outcome {
        let verify =
            async |token: &[u8], presented: Presented| self.verify(token, presented, evidence, rule).await;
        present(&self.places, evidence.head, verify).await
    }

    async fn verify(
        &self,
        token: &[u8],
        presented: Presented,
        evidence: &Evidence<'_>,
        rule: Option<&IdentityRule>,
    ) -> Result<(Arc<Identity>, Option<Named>), Rejection> {
        let known = self.know(token, evidence).await?;
        // Everything from here on is judged on every request, also for a token that is known (JKS-09, CNF-06).
        let certificate = evidence.certificate.map(AsRef::as_ref);
        self.issuer.check_request(&known, certificate, evidence.now)?;
        let named = rule.map(|rule| known.named(rule)).transpose()?;
        self.binding.check(token, presented, known.confirmation.as_ref(), evidence)?;
        if let Some(used) = self.issuer.used(&known, presented.scheme()).filter(|_| !evidence.on_trial) {
            evidence.use_up(used)?;
        }
        Ok((known.identity.clone(), named))
    }

    /// What is known of the token, from the worker's memory or by verifying it.
    async fn know(&self, token: &[u8], evidence: &Evidence<'_>) -> Result<Rc<KnownToken>, Rejection> {
        let (issuer, now) = (&self.issuer, evidence.now);
        let certificate = evidence.certificate.map(AsRef::as_ref);
        // SECURITY: a memory that outlives the keys would keep a removed key alive, so the keys are looked at first
        // (JKS-07, JKS-08).
        if let Some(generation) = issuer.generation(certificate, now)
            && let Some(known) = evidence.worker.find(issuer.id, generation, token, now)
            && issuer.still_holds(&known, now)
        {
            return Ok(known);
        }
        // What is remembered is byte for byte a token that was judged before, so its bytes need no second look.
        if !is_b64token(token) {
            return Err(Rejection::new(Reason::CredentialsMalformed)
                .because("the scheme is not followed by exactly one token"));
        }
        // Boxed, so that the rare verifying does not widen the future of every request.
        let (known, generation) = Box::pin(issuer.verify(token, certificate, now)).await?;
        let known = Rc::new(known);
        if known.times.check(&issuer.rules, now).is_ok() {
            evidence.worker.remember(issuer.id, generation, token, &known);
        }
        Ok(known)
    }
}

/// `b64token` of RFC 6750 section 2.1 (BRR-01).
pub(crate) fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = token.len().saturating_sub(padding);
    body > 0
        && token.iter().take(body).all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
        })
}

/// Whether the query carries `access_token`, in any spelling a form decoder would take for it. Tokens in URLs end
/// up in logs and histories, and a second token beside the header's might be the one the upstream reads (BRR-02).
pub(crate) fn query_carries_token(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query::carries(query, "access_token"))
}
