//! Sets of methods, one bit each.

use http::Method;

/// Methods a rule can name: those of RFC 9110 and RFC 5789, of WebDAV, and `QUERY`. The set is closed, so that a
/// misspelt method is an error and not a rule that never fits. `TRACE` and `CONNECT` never reach a rule.
const KNOWN: [&str; 18] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "MKCALENDAR",
];

/// Some of the known methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MethodSet(u32);

impl MethodSet {
    /// The set of one method; empty for a method that no rule can name. Looked up once per request.
    pub(crate) fn of(method: &Method) -> Self {
        let position = KNOWN.iter().position(|known| *known == method.as_str());
        Self(position.map_or(0, |position| 1 << position))
    }

    pub(super) fn insert(&mut self, method: &Method) {
        self.0 |= Self::of(method).0;
    }

    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Whether rules and limits can name the method.
pub fn is_known(method: &Method) -> bool {
    MethodSet::of(method) != MethodSet::default()
}

/// The method of that exact name: methods are case-sensitive (RFC 9110 section 9.1).
pub(super) fn known(name: &str) -> Option<Method> {
    KNOWN.contains(&name).then(|| Method::from_bytes(name.as_bytes()).ok()).flatten()
}

/// The names, for messages.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.into_iter()
}
