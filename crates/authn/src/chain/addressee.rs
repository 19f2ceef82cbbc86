//! Whose a token is, by its own word and its shape: an untrusted look-up key into the entries of one chain (JWT-07,
//! INT-06). The entry it leads to verifies it, or asks its provider.

use super::Addressed;
use crate::WorkerTokens;
use crate::token::Shape;

/// Which of several kinds at one place a token is for.
///
/// A signed token is for the issuer it names: one that verifies it, before one that is asked about it. Any other is for
/// the provider whose tokens begin like it. SECURITY: a signed token that names somebody else is shown to no provider
/// that says who its issuer is.
pub(super) fn addressee<'k>(
    token: &[u8],
    kinds: impl Iterator<Item = &'k Addressed> + Clone,
    worker: &WorkerTokens,
) -> Option<usize> {
    let held = kinds.clone().position(|kind| match kind {
        Addressed::Place | Addressed::Provider(_) => false,
        Addressed::Issuer(issuer) => worker.holds(issuer.id, token),
    });
    if held.is_some() {
        return held;
    }
    let shape = Shape::of(token);
    let signed = kinds.clone().position(|kind| match kind {
        Addressed::Issuer(issuer) => shape.is_signed() && issuer.is_named(shape.issuer()),
        Addressed::Place | Addressed::Provider(_) => false,
    });
    signed.or_else(|| {
        kinds.clone().position(|kind| match kind {
            Addressed::Provider(asked) => asked.takes(token, &shape),
            Addressed::Place | Addressed::Issuer(_) => false,
        })
    })
}
