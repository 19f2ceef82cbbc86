//! What an entry says of tokens its provider is asked about.

use std::sync::Arc;

use portcullis_core::document::Entry;
use portcullis_core::{Diagnostic, Faults, Materials, Place};
use portcullis_jose::{ClaimRules, IssuerRule, TypeRule};

use super::{Audience, IssuerSpec, Profile, profile};
use crate::discovery::Discovery;
use crate::introspection::{Compiled, IntrospectSpec, Introspection};
use crate::issuers::{Issuer, Providers, Terms};

/// An entry says in at least one way how its tokens are judged, and where its keys are in one way only.
pub(super) fn check_whence(
    entry: &Entry,
    has_keys: bool,
    discover: Option<&Entry>,
    is_introspected: bool,
    faults: &mut Faults,
) -> Option<()> {
    match (has_keys, discover, is_introspected) {
        (false, None, false) => {
            faults.push(
                Diagnostic::error("missing_key", entry.value.place, "an issuer needs `keys`")
                    .note("or `discover: true`, or `introspect` where it is asked about each token"),
            );
            None
        }
        (true, Some(discover), _) => {
            let message = "an issuer has `keys` or `discover`, not both";
            faults.error("one_key", discover.key.place, message);
            None
        }
        _ => Some(()),
    }
}

impl IssuerSpec {
    pub(super) fn introspection(
        &self,
        spec: &IntrospectSpec,
        issuer: Option<&Arc<Issuer>>,
        discovery: Option<&Arc<Discovery>>,
        materials: &dyn Materials,
        providers: Providers<'_>,
        faults: &mut Faults,
    ) -> Option<Introspection> {
        if self.is_used_once() {
            faults.push(
                Diagnostic::error(
                    "not_together",
                    self.name.place,
                    "tokens that are used once are not introspected",
                )
                .note("an answer that is remembered lets a token in again: leave out `used_once` or `introspect`"),
            );
            return None;
        }
        let entry = Compiled {
            name: &self.name.value.as_str().into(),
            rules: self.introspection_rules(spec.place(), faults)?,
            terms: self.terms(),
            scope: self.scope.as_ref().map(|scope| scope.value.as_str().into()),
            issuer,
            discovery,
        };
        spec.compile(entry, materials, providers, faults)
    }

    fn terms(&self) -> Terms {
        Terms {
            claims: self.claims.clone(),
            certificate_claims: self.certificate_claims(),
            cnf: self.cnf,
            bound_to: self.bound_to.unwrap_or(self.profile.defaults().bound_to),
            revoked: None,
        }
    }

    /// What a provider's answers must say. The provider is asked by its own name, so `iss` matters only where it is
    /// known. A profile that is named holds for answers as it does for tokens, as far as answers can say what it asks.
    fn introspection_rules(&self, introspect: Place, faults: &mut Faults) -> Option<ClaimRules> {
        let defaults = self.profile.defaults();
        let issuer = self.issuer.as_ref().map(|issuer| issuer.value.as_str()).or(defaults.issuer);
        let issuer = match (issuer, self.issuer_required) {
            (None, _) if self.certificate_claims().names_issuer() => IssuerRule::OfCertificate,
            (None, _) => IssuerRule::Unchecked,
            (Some(issuer), Some(true)) => IssuerRule::Required(issuer.into()),
            (Some(issuer), _) => IssuerRule::Optional(issuer.into()),
        };
        let audiences = self.asked_audiences(introspect, faults)?;
        let mut rules = profile::rules(issuer, audiences, &defaults);
        if self.profile == Profile::Plain {
            // By its standard an answer need say nothing but `active`.
            rules.required.clear();
            rules.exp_required = false;
        }
        rules.sole_audience = self.sole_audience;
        rules.skew = self.skew.unwrap_or(rules.skew);
        rules.max_lifetime = self.max_lifetime.or(rules.max_lifetime);
        rules.max_age = self.max_age;
        rules.required.extend(self.required.iter().map(|name| Arc::from(name.value.as_str())));
        (rules.types, rules.content_types) = (TypeRule::absent(), TypeRule::absent());
        rules.id_tokens_refused = !self.id_tokens;
        Some(rules)
    }

    /// SECURITY: a provider knows the tokens of all who ask it, and many say `active` of every one. Without `audience` a
    /// token meant for any other service would open this one (JWT-27, INT-03).
    fn asked_audiences(&self, introspect: Place, faults: &mut Faults) -> Option<Option<Vec<Arc<str>>>> {
        let place = match &self.audience {
            Some(Audience::Named(named)) => return Some(Some(named.clone())),
            Some(Audience::Any(place)) => *place,
            None if self.profile.defaults().any_audience => self.name.place,
            None => {
                faults.push(
                    Diagnostic::error("missing_key", introspect, "`introspect` needs `audience` beside it").note(
                        "many providers say `active` of tokens for every service; `audience: any` for one that is \
                         known to say so of ours alone",
                    ),
                );
                return None;
            }
        };
        let message = format!("nobody checks for whom the tokens of `{}` are", self.name.value);
        faults.push(
            Diagnostic::warning("audience_unchecked", place, message).note(
                "a token for any other service of the provider is taken if it says `active` of it to us",
            ),
        );
        Some(None)
    }
}
