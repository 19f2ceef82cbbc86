//! From the text of a header to the bytes of certificates (FWD-10, FWD-11).
//!
//! Proxies write one and the same certificate in a dozen ways. What is forgiven here is how it is wrapped: percent
//! signs, line ends in any disguise, padding. What is inside must be exact: standard base64, whole DER.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memmem;

/// The most certificates one header may hold: the caller's, its intermediates, and the root.
pub(crate) const MOST: usize = 8;

/// Standard base64, padded or not; bits behind the last byte must be zero, so that no two texts mean one value.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(false),
);

/// Why a header's text holds no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a percent sign is not followed by two hex digits")]
    Percent,
    #[error("it is not PEM: a BEGIN line, base64, an END line, and nothing beside them")]
    Pem,
    #[error("it is not standard base64")]
    Base64,
    #[error("it is not a whole DER value")]
    Der,
    #[error("it holds more than {MOST} certificates")]
    TooMany,
    #[error("it is not a byte sequence of structured fields")]
    ByteSequence,
    #[error("it does not follow the grammar of X-Forwarded-Client-Cert")]
    Xfcc,
    #[error("it says a fingerprint that is not the certificate's")]
    HashDiffers,
}

/// Undoes percent-encoding and nothing else. SECURITY: a form decoder would turn `+` into a blank and break one
/// certificate in ten (WS-03, trap 5).
pub(crate) fn percent(text: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    if !text.contains(&b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [] => return Ok(Cow::Owned(decoded)),
            [b'%', high, low, after @ ..] => {
                let (high, low) = (hex(*high), hex(*low));
                decoded.push(high.zip(low).map(|(high, low)| high << 4 | low).ok_or(DecodeError::Percent)?);
                rest = after;
            }
            [b'%', ..] => return Err(DecodeError::Percent),
            [byte, after @ ..] => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
}

/// The value of a hex digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Takes out blanks, tabs and line ends, real ones and those written as `\n` and `\r`.
fn unfolded(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [] => return kept,
            [b'\\', b'n' | b'r', after @ ..] | [b' ' | b'\t' | b'\r' | b'\n', after @ ..] => rest = after,
            [byte, after @ ..] => {
                kept.push(*byte);
                rest = after;
            }
        }
    }
}

/// Base64 in which line ends may stand.
pub(crate) fn base64(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    base64_exact(&unfolded(text))
}

fn base64_exact(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let decoded = BASE64.decode(text).map_err(|_not_base64| DecodeError::Base64)?;
    if decoded.is_empty() { Err(DecodeError::Base64) } else { Ok(decoded) }
}

/// The certificates of a PEM text in the order written, which may have lost its line ends, or have them in any form.
/// A form encoder has turned the blank of its markers into `+`; those cannot be base64.
pub(crate) fn pem(text: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut found = Vec::new();
    let mut rest = text;
    let (begin, other) = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN+CERTIFICATE-----");
    while let Some((before, after)) = split(rest, begin, other) {
        // Words beside the certificates would be read by one reader and skipped by another.
        if !unfolded(before).is_empty() {
            return Err(DecodeError::Pem);
        }
        let ended = split(after, b"-----END CERTIFICATE-----", b"-----END+CERTIFICATE-----");
        let (body, after) = ended.ok_or(DecodeError::Pem)?;
        if found.len() == MOST {
            return Err(DecodeError::TooMany);
        }
        found.push(base64(body)?);
        rest = after;
    }
    if found.is_empty() || !unfolded(rest).is_empty() { Err(DecodeError::Pem) } else { Ok(found) }
}

/// Whether a text is meant as PEM.
pub(crate) fn is_pem(text: &[u8]) -> bool {
    memmem::find(text, b"-----BEGIN").is_some()
}

/// Splits at the earlier of two markers.
fn split<'t>(text: &'t [u8], marker: &[u8], other: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let at = [memmem::find(text, marker), memmem::find(text, other)].into_iter().flatten().min()?;
    Some((text.get(..at)?, text.get(at + marker.len()..)?))
}

/// One byte sequence of structured fields (RFC 9651 section 3.3.5): `:base64:`. Padding may be missing, as the
/// standard's parser allows; nothing else may be different. `None` for the empty one.
pub(crate) fn byte_sequence(text: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let inner = match text.trim_ascii() {
        [b':', inner @ .., b':'] => inner,
        _ => return Err(DecodeError::ByteSequence),
    };
    if inner.is_empty() {
        return Ok(None);
    }
    base64_exact(inner).map(Some).map_err(|_not_base64| DecodeError::ByteSequence)
}

/// A list of byte sequences. Base64 holds no comma, so that the list can be split at them.
pub(crate) fn byte_sequences(text: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut found = Vec::new();
    for item in text.split(|byte| *byte == b',') {
        if found.len() == MOST {
            return Err(DecodeError::TooMany);
        }
        found.push(byte_sequence(item)?.ok_or(DecodeError::ByteSequence)?);
    }
    Ok(found)
}

/// Splits DER values that stand one behind the other.
pub(crate) fn der_sequence(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        if found.len() == MOST {
            return Err(DecodeError::TooMany);
        }
        let (one, rest) =
            bytes.split_at_checked(der_length(bytes).ok_or(DecodeError::Der)?).ok_or(DecodeError::Der)?;
        found.push(one.to_vec());
        bytes = rest;
    }
    Ok(found)
}

/// The first SEQUENCE within a SEQUENCE that is all there is, with its head.
pub(crate) fn first_of_sequence(bytes: &[u8]) -> Option<&[u8]> {
    let length = der_length(bytes)?;
    let head = match bytes.get(1)? {
        0..=0x7f => 2,
        long => 2 + usize::from(long & 0x7f),
    };
    let inner = bytes.get(head..length).filter(|_| length == bytes.len())?;
    inner.get(..der_length(inner)?)
}

/// How many bytes the SEQUENCE that begins here takes, its head included.
fn der_length(bytes: &[u8]) -> Option<usize> {
    let (length, head) = match bytes {
        [0x30, length @ 0..=0x7f, ..] => (usize::from(*length), 2),
        [0x30, 0x81, length @ 0x80..=0xff, ..] => (usize::from(*length), 3),
        [0x30, 0x82, high @ 1..=0xff, low, ..] => (usize::from(*high) << 8 | usize::from(*low), 4),
        [0x30, 0x83, high @ 1..=0xff, mid, low, ..] => {
            (usize::from(*high) << 16 | usize::from(*mid) << 8 | usize::from(*low), 5)
        }
        _ => return None,
    };
    length.checked_add(head)
}

/// 64 hex digits: a SHA-256 fingerprint.
pub(crate) fn fingerprint(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes: Vec<u8> =
        pairs.iter().map(|[high, low]| Some(hex(*high)? << 4 | hex(*low)?)).collect::<Option<_>>()?;
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}
