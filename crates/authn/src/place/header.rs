//! Credentials in headers.

use http::HeaderMap;
use http::header::HeaderName;
use portcullis_core::document::Node;
use portcullis_core::{Diagnostic, Faults};

use super::PlaceError;

/// The whole value of a header that occurs once. An empty one says nothing.
pub(super) fn whole<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, PlaceError> {
    Ok(single(headers, name)?.filter(|value| !value.is_empty()))
}

/// What follows the scheme, whose case does not matter (ANS-03).
pub(super) fn after_scheme<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    scheme: &str,
) -> Result<Option<&'h [u8]>, PlaceError> {
    match single(headers, name)? {
        Some(value) => split_scheme(value, scheme.as_bytes()),
        None => Ok(None),
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, PlaceError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(PlaceError::Repeated);
    }
    Ok(Some(value.as_bytes()))
}

fn split_scheme<'v>(value: &'v [u8], scheme: &[u8]) -> Result<Option<&'v [u8]>, PlaceError> {
    let another = || if lists(value, scheme) { Err(PlaceError::Broken) } else { Ok(None) };
    let Some((head, rest)) = value.split_at_checked(scheme.len()) else { return another() };
    if !head.eq_ignore_ascii_case(scheme) {
        return another();
    }
    match rest.first() {
        Some(b' ') => match rest.iter().position(|byte| *byte != b' ').and_then(|from| rest.get(from..)) {
            Some(credential) => Ok(Some(credential)),
            None => Err(PlaceError::Broken),
        },
        Some(byte) if is_token_byte(*byte) => another(),
        _ => Err(PlaceError::Broken),
    }
}

/// Whether a value that begins with another scheme goes on, after a comma, with this one: a list of
/// credentials, of which the upstream might read the second (BRR-04).
fn lists(value: &[u8], scheme: &[u8]) -> bool {
    value.split(|byte| *byte == b',').skip(1).any(|part| {
        part.trim_ascii_start()
            .split_at_checked(scheme.len())
            .is_some_and(|(head, rest)| head.eq_ignore_ascii_case(scheme) && rest.first() == Some(&b' '))
    })
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// The name of a header a credential may travel in.
pub(crate) fn header_name(node: &Node, faults: &mut Faults) -> Option<HeaderName> {
    let text = node.text(faults)?;
    let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
        faults.error("bad_header", text.place, format!("`{}` is not a header name", text.value));
        return None;
    };
    // Fields that frame or route the message, or that our own hygiene removes, carry no credential.
    const NEVER: &[HeaderName] = &[
        http::header::HOST,
        http::header::CONNECTION,
        http::header::CONTENT_LENGTH,
        http::header::TRANSFER_ENCODING,
        http::header::TE,
        http::header::TRAILER,
        http::header::UPGRADE,
        http::header::COOKIE,
    ];
    if NEVER.contains(&name) {
        let mut fault =
            Diagnostic::error("bad_header", text.place, format!("`{name}` cannot carry a credential"));
        if name == http::header::COOKIE {
            fault = fault.note("a credential in a cookie has a key of its own: `cookie: name`");
        }
        faults.push(fault);
        return None;
    }
    Some(name)
}

/// The word of an authentication scheme (RFC 9110 section 11.1).
pub(crate) fn scheme_word(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.text(faults)?;
    if text.value.bytes().all(is_token_byte) {
        return Some(text.value);
    }
    faults.error("bad_scheme", text.place, format!("`{}` is not an authentication scheme", text.value));
    None
}
