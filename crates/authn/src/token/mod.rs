//! `token`: a token whose provider is asked what it is worth.

mod respondents;
mod shape;
mod spec;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_core::{Challenge, Identity, Reason, Rejection};

pub(crate) use respondents::Respondents;
pub(crate) use shape::Shape;
use shape::refuse_other_kinds;
pub(crate) use spec::TokenSpec;

use crate::binding::{Binding, Presented, present};
use crate::chain::{Evidence, Outcome};
use crate::guard::Claim;
use crate::identity::{IdentityRule, Named};
use crate::introspection::Introspection;
use crate::jwt::is_b64token;
use crate::place::Places;
use crate::tokens::KnownToken;

/// The longest token anybody is asked about, in bytes.
pub(crate) const MAX_TOKEN: usize = 4096;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct Token {
    places: Places,
    asked: Arc<Respondents>,
    /// How those of each provider are bound, in the order of the providers.
    bindings: Box<[Binding]>,
}

impl Token {
    /// Where the token is looked for.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// Who is asked about which tokens.
    pub(crate) const fn asked(&self) -> &Arc<Respondents> {
        &self.asked
    }

    /// Other providers' tokens are found at the same place.
    pub(crate) fn shares_its_place(&mut self) {
        Arc::make_mut(&mut self.asked).shares_its_place();
    }

    /// What it challenges a caller with who shows no token.
    pub(crate) fn challenges(&self, realm: &Arc<str>) -> Vec<Challenge> {
        self.bindings.first().map_or_else(Vec::new, |binding| binding.challenges(realm))
    }

    /// Whether requests may carry proofs beside the token.
    pub(crate) fn takes_proofs(&self) -> bool {
        self.bindings.iter().any(Binding::takes_proofs)
    }

    /// A token only its provider understands has no name beside itself: repeating one is one failure, trying others is
    /// many.
    pub(crate) fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        match self.places.find(evidence.head) {
            Ok(Some(found)) => {
                let token = &*found.credential;
                if self.asked.providers().iter().any(|entry| evidence.worker.holds(entry.id, token)) {
                    return Claim::Known;
                }
                into.write(token);
                Claim::Named
            }
            Ok(None) | Err(_) => Claim::Absent,
        }
    }

    /// Asks about the token, and names the caller by the rule, if one is given.
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
        if !is_b64token(token) {
            return Err(Rejection::new(Reason::CredentialsMalformed)
                .because("the scheme is not followed by exactly one token"));
        }
        if token.len() > MAX_TOKEN {
            return Err(Rejection::new(Reason::TokenMalformed)
                .because(format!("no provider is asked about more than {MAX_TOKEN} bytes")));
        }
        // SECURITY: nobody is shown a token that cannot be theirs.
        let (entry, binding) = self.addressee(token)?;
        let known = know(entry, token, evidence).await?;
        // Everything from here on is judged on every request, also for a token that is known (INT-04, CNF-05, CNF-06).
        let certificate = evidence.certificate.map(AsRef::as_ref);
        known.times.check(&entry.rules, evidence.now)?;
        entry.terms.check_request(&known.identity, certificate, evidence.now)?;
        let named = rule.map(|rule| known.named(rule)).transpose()?;
        binding.check(token, presented, known.confirmation.as_ref(), evidence)?;
        Ok((known.identity.clone(), named))
    }

    /// Who is asked about a token, and how it must be bound.
    fn addressee(&self, token: &[u8]) -> Result<(&Introspection, &Binding), Rejection> {
        let at = self.asked.find(token)?;
        let found = self.asked.providers().get(at).zip(self.bindings.get(at));
        found.map(|(entry, binding)| (&**entry, binding)).ok_or_else(|| Reason::TokenInactive.into())
    }
}

/// What is known of the token, from the worker's memory or from its provider.
async fn know(
    provider: &Introspection,
    token: &[u8],
    evidence: &Evidence<'_>,
) -> Result<Rc<KnownToken>, Rejection> {
    if let Some(known) = provider.remembered(token, evidence.worker, evidence.now) {
        return Ok(known);
    }
    refuse_other_kinds(token, provider.rules.id_tokens_refused)?;
    // Boxed, so that the rare asking does not widen the future of every request.
    let known = Box::pin(provider.know(token, evidence.worker, evidence.now)).await?;
    known.ok_or_else(|| {
        Rejection::new(Reason::TokenInactive).because("the provider says that the token is not active")
    })
}
