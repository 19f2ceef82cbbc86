//! Credentials in the query.
//!
//! SECURITY: everybody reads queries a little differently. A parameter is ours in every spelling a reader behind us
//! could take for its name: percent-encoded or not, in any case. Some readers also part parameters at `;`; a
//! credential that only they would see is refused, because it is not for us to guess who is right.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;
use portcullis_core::document::Node;
use portcullis_core::{Diagnostic, Faults};

use super::PlaceError;

/// The decoded value of the one parameter of that name; an empty one says nothing.
///
/// # Errors
/// The parameter occurs more than once, or its bounds or its encoding are not clear.
pub(super) fn find<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, [u8]>>, PlaceError> {
    let mut found = None;
    for pair in pairs(query) {
        let (own, value) = split(pair);
        if pair.split(';').skip(1).any(|part| is_called(split(part).0, name)) {
            return Err(PlaceError::Unclear);
        }
        if !is_called(own, name) {
            continue;
        }
        if value.contains(';') {
            return Err(PlaceError::Unclear);
        }
        if found.replace(value).is_some() {
            return Err(PlaceError::Repeated);
        }
    }
    match found {
        Some(value) if !value.is_empty() => decode(value).map(Some).ok_or(PlaceError::Unclear),
        _ => Ok(None),
    }
}

/// Takes every parameter of that name out. What is left is left byte for byte.
pub(super) fn strip(uri: &mut Uri, name: &str) {
    let Some(query) = uri.query().filter(|query| carries(query, name)) else { return };
    let kept: Vec<&str> = pairs(query).filter(|pair| !is_called(split(pair).0, name)).collect();
    let target = match kept.as_slice() {
        [] => uri.path().to_owned(),
        kept => format!("{}?{}", uri.path(), kept.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    // A part of a valid target is one.
    let Ok(target) = PathAndQuery::try_from(target) else { return };
    parts.path_and_query = Some(target);
    if let Ok(stripped) = Uri::from_parts(parts) {
        *uri = stripped;
    }
}

/// Whether any reader of the query could see a parameter of that name.
pub(crate) fn carries(query: &str, name: &str) -> bool {
    query.split(['&', ';']).any(|pair| is_called(split(pair).0, name))
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Compares a percent-encoded name, without regard to case, with a plain one.
fn is_called(encoded: &str, plain: &str) -> bool {
    let (mut encoded, mut plain) = (encoded.as_bytes(), plain.as_bytes());
    while let Some((wanted, rest)) = plain.split_first() {
        let Some((byte, after)) = next_byte(encoded) else { return false };
        if !byte.eq_ignore_ascii_case(wanted) {
            return false;
        }
        (encoded, plain) = (after, rest);
    }
    encoded.is_empty()
}

/// Percent-decoding alone. A `+` stays one: keys have no spaces, and some have a plus.
fn decode(value: &str) -> Option<Cow<'_, [u8]>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value.as_bytes()));
    }
    let (mut rest, mut decoded) = (value.as_bytes(), Vec::with_capacity(value.len()));
    while !rest.is_empty() {
        let (byte, after) = next_byte(rest)?;
        decoded.push(byte);
        rest = after;
    }
    Some(Cow::Owned(decoded))
}

/// The first byte, decoded, and what follows it. `None` at the end, and for a `%` without two digits.
fn next_byte(encoded: &[u8]) -> Option<(u8, &[u8])> {
    match encoded {
        [b'%', high, low, after @ ..] => Some((hex(*high)? << 4 | hex(*low)?, after)),
        [b'%', ..] | [] => None,
        [byte, after @ ..] => Some((*byte, after)),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The name of a parameter a credential may travel in, as it is before anything is encoded.
pub(crate) fn parameter_name(node: &Node, faults: &mut Faults) -> Option<Box<str>> {
    let text = node.text(faults)?;
    if text.value.eq_ignore_ascii_case("access_token") {
        faults.push(
            Diagnostic::error("bad_parameter", text.place, "`access_token` in a query is always refused")
                .note("tokens in URLs end up in logs and histories (RFC 9700 section 4.3.2): choose another name"),
        );
        return None;
    }
    if text.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) {
        return Some(text.value.into());
    }
    faults.push(
        Diagnostic::error("bad_parameter", text.place, format!("`{}` cannot name a parameter", text.value))
            .note("letters, digits, `-`, `_`, `.` and `~` mean the same in every spelling of a query"),
    );
    None
}
