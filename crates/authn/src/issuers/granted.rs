//! What a credential's claims grant.

use std::collections::HashSet;
use std::sync::Arc;

use portcullis_core::json::Object;
use portcullis_jose::scopes;

/// Scopes in the order granted, repetitions left out.
pub(crate) fn granted(claims: &Object, path: Option<&str>) -> Arc<[Arc<str>]> {
    let scopes = scopes(claims, path);
    let mut seen = HashSet::with_capacity_and_hasher(scopes.len(), ahash::RandomState::new());
    if scopes.iter().all(|scope| seen.insert(&**scope)) {
        return scopes;
    }
    seen.clear();
    scopes.iter().filter(|scope| seen.insert(&***scope)).cloned().collect()
}
