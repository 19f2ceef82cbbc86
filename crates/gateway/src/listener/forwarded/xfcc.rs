//! `X-Forwarded-Client-Cert`, as Envoy writes it.
//!
//! Elements are separated by commas, their pairs by semicolons; a value is quoted if it holds `,`, `;`, `=` or a quote,
//! and inside quotes only `\"` is an escape. Each proxy on the way appends its element.
//!
//! SECURITY: the last element is the nearest proxy's; what stands before it may be the caller's own invention (trap
//! 4). A caller who could leave a quote open would make our reading of the last element another than what the proxy
//! wrote, so every element must follow the grammar to the letter: a quote opens a value or is escaped within one, and
//! a closed value is followed by a separator. Whatever odd number of quotes a caller puts in front, the proxy's own
//! part is balanced, and the whole ends within a quote or breaks the grammar on the way.

use std::borrow::Cow;

use super::decode::DecodeError;

/// What the last element says; keys that speak of no certificate are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element<'t> {
    pub(crate) hash: Option<Cow<'t, [u8]>>,
    pub(crate) cert: Option<Cow<'t, [u8]>>,
    pub(crate) chain: Option<Cow<'t, [u8]>>,
}

/// The last element of the header.
pub(crate) fn last(text: &[u8]) -> Result<Element<'_>, DecodeError> {
    let mut rest = text;
    let mut element = Element::default();
    loop {
        let (key, after) = key(rest)?;
        let (value, after) = value(after)?;
        element.set(key, value)?;
        match after {
            [] => return Ok(element),
            [b';', after @ ..] => rest = after,
            [b',', after @ ..] => {
                element = Element::default();
                rest = after.trim_ascii_start();
            }
            _ => return Err(DecodeError::Xfcc),
        }
    }
}

/// The letters before `=`.
fn key(text: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let length = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    match text.split_at_checked(length) {
        Some((key, [b'=', rest @ ..])) if !key.is_empty() => Ok((key, rest)),
        _ => Err(DecodeError::Xfcc),
    }
}

fn value(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), DecodeError> {
    match text {
        [b'"', rest @ ..] => quoted(rest),
        _ => {
            let length = text.iter().take_while(|byte| !matches!(byte, b',' | b';')).count();
            let (value, rest) = text.split_at_checked(length).ok_or(DecodeError::Xfcc)?;
            // Envoy leaves `=` bare in some of its values; a quote it never does.
            if value.contains(&b'"') { Err(DecodeError::Xfcc) } else { Ok((Cow::Borrowed(value), rest)) }
        }
    }
}

fn quoted(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), DecodeError> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [b'\\', b'"', after @ ..] => {
                value.push(b'"');
                rest = after;
            }
            [b'"', after @ ..] => return Ok((Cow::Owned(value), after)),
            [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [] => return Err(DecodeError::Xfcc),
        }
    }
}

impl<'t> Element<'t> {
    fn set(&mut self, key: &[u8], value: Cow<'t, [u8]>) -> Result<(), DecodeError> {
        let slot = match key.to_ascii_lowercase().as_slice() {
            b"hash" => &mut self.hash,
            b"cert" => &mut self.cert,
            b"chain" => &mut self.chain,
            _ => return Ok(()),
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(DecodeError::Xfcc),
        }
    }
}
