//! Providers whose tokens are found at one place, and what tells them apart.

use std::sync::Arc;

use portcullis_core::{Diagnostic, Faults, Place};

use super::Alternative;
use crate::introspection::Introspection;
use crate::scheme::Authenticator;
use crate::token::Token;

/// Sees to it that no token could be shown to two providers: where several share a place, each is known by the
/// `issuer` its signed tokens name, by what its other tokens begin with, or by both. SECURITY: with one of them
/// taking whatever is left, it would be shown the tokens of whoever comes to share the place (INT-06).
pub(super) fn tell_apart(alternatives: &mut [Alternative], place: Place, faults: &mut Faults) -> bool {
    let sharing: Vec<Vec<Arc<Introspection>>> =
        tokens(alternatives).map(|token| sharing(token, tokens(alternatives))).collect();
    let mut told = Vec::new();
    for providers in &sharing {
        for why in alike(providers) {
            if !told.contains(&why) {
                told.push(why);
            }
        }
    }
    if told.is_empty() && tokens(alternatives).any(|token| in_two_ways(token, tokens(alternatives))) {
        told.push("one provider is asked here in two ways".into());
    }
    for why in &told {
        faults.push(Diagnostic::error("providers_alike", place, why.clone()).note(
            "where several providers share a place, each says which tokens are its own: `issuer`, for signed ones \
             that name it, `prefix` beside the `url` of `introspect`, for others; or give each its own `header`",
        ));
    }
    let members = alternatives.iter_mut().flat_map(|alternative| &mut alternative.members);
    let tokens = members.filter_map(|member| match member {
        Authenticator::Token(token) => Some(token),
        _ => None,
    });
    for (token, providers) in tokens.zip(&sharing) {
        if providers.len() > 1 {
            token.shares_its_place();
        }
    }
    told.is_empty()
}

fn tokens(alternatives: &[Alternative]) -> impl Iterator<Item = &Token> {
    let members = alternatives.iter().flat_map(|alternative| &alternative.members);
    members.filter_map(|member| match member {
        Authenticator::Token(token) => Some(token),
        _ => None,
    })
}

/// Whether tokens of both may be found at one place.
fn meet(one: &Token, other: &Token) -> bool {
    one.places().iter().any(|place| other.places().iter().any(|its| place.overlaps(its)))
}

/// The providers that are asked about what is found where `token` is, each once.
fn sharing<'a>(token: &Token, all: impl Iterator<Item = &'a Token>) -> Vec<Arc<Introspection>> {
    let mut found: Vec<Arc<Introspection>> = Vec::new();
    for other in all.filter(|other| meet(token, other)) {
        for entry in other.asked().providers() {
            if !found.contains(entry) {
                found.push(entry.clone());
            }
        }
    }
    found
}

/// Whether another list at the same place names some of the same providers, and others beside them.
fn in_two_ways<'a>(token: &Token, mut all: impl Iterator<Item = &'a Token>) -> bool {
    let own = token.asked().providers();
    all.any(|other| {
        let its = other.asked().providers();
        meet(token, other) && its != own && its.iter().any(|entry| own.contains(entry))
    })
}

/// Why some of several providers cannot be told apart.
fn alike(providers: &[Arc<Introspection>]) -> Vec<String> {
    let mut told = Vec::new();
    if providers.len() < 2 {
        return told;
    }
    for (at, entry) in providers.iter().enumerate() {
        if entry.issuer().is_none() && entry.prefix().is_none() {
            told.push(format!(
                "`{}` says neither by `issuer` nor by `prefix` which tokens are its own",
                entry.name
            ));
        }
        for other in providers.iter().take(at) {
            let names = format!("`{}` and `{}`", other.name, entry.name);
            if entry.issuer().is_some() && entry.issuer() == other.issuer() {
                told.push(format!("signed tokens of {names} name the same issuer"));
            }
            if let (Some(own), Some(its)) = (entry.prefix(), other.prefix())
                && (own.starts_with(its) || its.starts_with(own))
            {
                told.push(format!("tokens of {names} may begin alike"));
            }
        }
    }
    told
}
