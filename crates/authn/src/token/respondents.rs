//! Who is asked about which tokens.

use std::sync::Arc;

use portcullis_core::{Reason, Rejection};

use super::Shape;
use crate::introspection::Introspection;

/// Providers, of whom each token is shown to one at most.
///
/// A signed token is for the provider it names, any other for the one whose tokens begin like it, or for the only one
/// there is. SECURITY: whoever is shown a token can use it elsewhere, so no provider is tried in turn (INT-06).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Respondents {
    providers: Vec<Arc<Introspection>>,
    /// Whether nobody else's tokens are found at the same place.
    alone: bool,
}

impl Respondents {
    pub(super) fn new(providers: Vec<Arc<Introspection>>) -> Self {
        let alone = providers.len() == 1;
        Self { providers, alone }
    }

    pub(super) const fn shares_its_place(&mut self) {
        self.alone = false;
    }

    /// All of them.
    pub(crate) fn providers(&self) -> &[Arc<Introspection>] {
        &self.providers
    }

    /// Whether a token of that shape may be shown to one of them.
    pub(crate) fn takes(&self, token: &[u8], shape: &Shape) -> bool {
        self.find_by(token, shape).is_some()
    }

    /// Which one a token may be shown to.
    ///
    /// # Errors
    /// It is nobody's here.
    pub(super) fn find(&self, token: &[u8]) -> Result<usize, Rejection> {
        if let [only] = &*self.providers
            && self.alone
            && only.takes_all()
        {
            return Ok(0);
        }
        let shape = Shape::of(token);
        self.find_by(token, &shape).ok_or_else(|| match shape {
            Shape::Of(_) | Shape::Unreadable => Rejection::new(Reason::TokenIssuerRefused)
                .because("the token names no provider that is asked here"),
            Shape::Opaque | Shape::Unnamed => Rejection::new(Reason::TokenInactive)
                .because("the token does not begin as the tokens of any provider that is asked here"),
        })
    }

    fn find_by(&self, token: &[u8], shape: &Shape) -> Option<usize> {
        let fits = |entry: &Arc<Introspection>| {
            let named = match shape {
                Shape::Of(iss) => entry.is_named(iss),
                // It names somebody, and who that is cannot be said.
                Shape::Unreadable => entry.is_named("").map(|_| false),
                Shape::Opaque | Shape::Unnamed => None,
            };
            named.unwrap_or_else(|| match entry.prefix() {
                Some(prefix) => token.starts_with(prefix.as_bytes()),
                None => self.alone,
            })
        };
        self.providers.iter().position(fits)
    }
}
