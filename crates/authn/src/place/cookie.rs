//! Credentials in cookies (RFC 6265 section 4.2). HTTP/2 may split them over several fields (RFC 9113 section 8.2.3).

use http::header::{COOKIE, HeaderValue};
use http::{HeaderMap, header::Entry};
use portcullis_core::Faults;
use portcullis_core::document::Node;

use super::PlaceError;
use super::header::is_token_byte;

/// The value of the one cookie of that name, without the quotes it may have; an empty one says nothing.
///
/// # Errors
/// The cookie occurs more than once. SECURITY: also in another case, because some servers take that for the same.
pub(super) fn find<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h [u8]>, PlaceError> {
    let mut found = None;
    for field in headers.get_all(COOKIE) {
        for pair in pairs(field) {
            let (own, value) = split(pair);
            if !own.eq_ignore_ascii_case(name.as_bytes()) {
                continue;
            }
            if found.replace(value).is_some() {
                return Err(PlaceError::Repeated);
            }
        }
    }
    Ok(found.map(unquoted).filter(|value| !value.is_empty()))
}

/// Takes every cookie of that name out. Fields without it are left byte for byte, and so are the other cookies.
pub(super) fn strip(headers: &mut HeaderMap, name: &str) {
    let named = |pair: &[u8]| split(pair).0.eq_ignore_ascii_case(name.as_bytes());
    if !headers.get_all(COOKIE).iter().any(|field| pairs(field).any(named)) {
        return;
    }
    let fields: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|field| {
            if !pairs(field).any(named) {
                return Some(field.clone());
            }
            let kept: Vec<&[u8]> = pairs(field).filter(|pair| !named(pair)).collect();
            let kept = kept.join(&b';');
            // A part of a valid value is one.
            HeaderValue::from_bytes(kept.trim_ascii()).ok().filter(|value| !value.is_empty())
        })
        .collect();
    if let Entry::Occupied(entry) = headers.entry(COOKIE) {
        entry.remove_entry_mult();
    }
    for field in fields {
        headers.append(COOKIE, field);
    }
}

fn pairs(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|byte| *byte == b';')
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=').and_then(|at| pair.split_at_checked(at)) {
        Some((name, value)) => (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()),
        None => (pair.trim_ascii(), b""),
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        plain => plain,
    }
}

/// The name of a cookie a credential may travel in: a token (RFC 6265 section 4.1.1).
pub(crate) fn cookie_name(node: &Node, faults: &mut Faults) -> Option<Box<str>> {
    let text = node.text(faults)?;
    if text.value.bytes().all(is_token_byte) {
        return Some(text.value.into());
    }
    faults.error("bad_cookie", text.place, format!("`{}` is not the name of a cookie", text.value));
    None
}
