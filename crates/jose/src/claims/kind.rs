//! What kind of token it is: `typ` and `cty` (RFC 7515 sections 4.1.9 and 4.1.10, RFC 8725 section 3.11).

use std::fmt;
use std::sync::Arc;

use super::ClaimError;

/// Kinds that are never an access token, whatever a policy says (JWT-30).
pub(super) const NEVER: [&str; 8] = [
    "dpop+jwt",
    "token-introspection+jwt",
    "logout+jwt",
    "secevent+jwt",
    "oauth-authz-req+jwt",
    "client-authentication+jwt",
    "entity-statement+jwt",
    "jwk-set+jwt",
];

/// Which media types are taken. They are compared without case, and `application/` in front makes no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRule {
    absent: bool,
    named: Vec<Arc<str>>,
}

impl TypeRule {
    /// Only tokens that do not say.
    pub const fn absent() -> Self {
        Self { absent: true, named: Vec::new() }
    }

    /// Tokens that do not say, or say one of these.
    pub fn absent_or<T: Into<Arc<str>>>(named: impl IntoIterator<Item = T>) -> Self {
        Self { absent: true, named: named.into_iter().map(Into::into).collect() }
    }

    /// Only tokens that say one of these.
    pub fn one_of<T: Into<Arc<str>>>(named: impl IntoIterator<Item = T>) -> Self {
        Self { absent: false, named: named.into_iter().map(Into::into).collect() }
    }

    /// The access tokens of RFC 9068: `at+jwt`.
    pub fn access_token() -> Self {
        Self::one_of(["at+jwt"])
    }

    pub(super) fn check_type(&self, found: Option<&str>) -> Result<(), ClaimError> {
        if self.admits(found) && !found.is_some_and(is_never_access_token) {
            Ok(())
        } else {
            Err(ClaimError::OtherType)
        }
    }

    pub(super) fn check_content_type(&self, found: Option<&str>) -> Result<(), ClaimError> {
        if self.admits(found) { Ok(()) } else { Err(ClaimError::OtherContentType) }
    }

    fn admits(&self, found: Option<&str>) -> bool {
        found.map_or(self.absent, |found| self.named.iter().any(|named| same(named, found)))
    }
}

impl fmt::Display for TypeRule {
    /// The words a policy file would have: `absent` and the types.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let absent = self.absent.then_some("absent").into_iter();
        let words: Vec<_> = absent.chain(self.named.iter().map(|named| &**named)).collect();
        f.write_str(&words.join(", "))
    }
}

/// Whether a `typ` names a kind that is never an access token, whatever a policy says (JWT-30).
pub fn is_never_access_token(kind: &str) -> bool {
    NEVER.iter().any(|never| same(never, kind))
}

/// Whether both name the same kind.
pub(crate) fn same(left: &str, right: &str) -> bool {
    bare(left).eq_ignore_ascii_case(bare(right))
}

/// RFC 7515 section 4.1.9: a value without a slash stands for itself after `application/`.
fn bare(kind: &str) -> &str {
    const PREFIX: &str = "application/";
    match (kind.get(..PREFIX.len()), kind.get(PREFIX.len()..)) {
        (Some(prefix), Some(rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => kind,
    }
}
