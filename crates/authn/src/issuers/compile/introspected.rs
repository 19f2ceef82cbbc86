//! What an entry says of tokens its provider is asked about.

use std::sync::Arc;

use portcullis_core::document::Entry;
use portcullis_core::{Diagnostic, Faults, Materials};
use portcullis_jose::{ClaimRules, IssuerRule, TypeRule};

use super::{Audience, IssuerSpec};
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
            rules: self.introspection_rules(),
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
    /// known, and `aud` where it is written: by its own standard it says `active` only of tokens that are for us.
    fn introspection_rules(&self) -> ClaimRules {
        let issuer = match (&self.issuer, self.issuer_required) {
            (None, _) if self.certificate_claims().names_issuer() => IssuerRule::OfCertificate,
            (None, _) => IssuerRule::Unchecked,
            (Some(issuer), Some(true)) => IssuerRule::Required(issuer.value.as_str().into()),
            (Some(issuer), _) => IssuerRule::Optional(issuer.value.as_str().into()),
        };
        let audiences = match &self.audience {
            Some(Audience::Named(named)) => Some(named.clone()),
            Some(Audience::Any(_)) | None => None,
        };
        ClaimRules {
            issuer,
            audiences,
            sole_audience: self.sole_audience,
            skew: self.skew.unwrap_or_default(),
            max_lifetime: self.max_lifetime,
            max_age: self.max_age,
            required: self.required.iter().map(|name| Arc::from(name.value.as_str())).collect(),
            exp_required: false,
            types: TypeRule::absent(),
            content_types: TypeRule::absent(),
            id_tokens_refused: false,
        }
    }
}
