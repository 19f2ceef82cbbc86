//! Just enough DER (X.690) to find the public key in an SPKI, a PKCS#1 key or a certificate.
//!
//! Definite lengths in their shortest form only. A structure we do not know is refused, never skipped over by
//! guessing; what the numbers themselves must satisfy is checked in `public.rs`.

use super::KeyError;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version of a certificate.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// Reads one element after another from a run of bytes.
#[derive(Clone, Copy)]
pub(super) struct Reader<'d> {
    rest: &'d [u8],
}

impl<'d> Reader<'d> {
    pub(super) const fn new(bytes: &'d [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next element, which must have the tag: its contents.
    pub(super) fn take(&mut self, tag: u8) -> Result<&'d [u8], KeyError> {
        match self.any()? {
            (found, contents) if found == tag => Ok(contents),
            _ => Err(KeyError::DerMalformed),
        }
    }

    /// The contents of the next element, which must be a sequence.
    pub(super) fn sequence(&mut self) -> Result<Self, KeyError> {
        self.take(SEQUENCE).map(Self::new)
    }

    /// Passes over the next element if it has the tag.
    pub(super) fn skip_if(&mut self, tag: u8) -> Result<(), KeyError> {
        if self.rest.first() == Some(&tag) { self.any().map(drop) } else { Ok(()) }
    }

    /// The next element as it stands, tag and length included.
    pub(super) fn whole(&mut self) -> Result<&'d [u8], KeyError> {
        let before = self.rest;
        self.any()?;
        before.get(..before.len() - self.rest.len()).ok_or(KeyError::DerMalformed)
    }

    /// Insists that nothing is left.
    pub(super) const fn finish(self) -> Result<(), KeyError> {
        if self.rest.is_empty() { Ok(()) } else { Err(KeyError::DerMalformed) }
    }

    fn any(&mut self) -> Result<(u8, &'d [u8]), KeyError> {
        let (&tag, rest) = self.rest.split_first().ok_or(KeyError::DerMalformed)?;
        let (length, rest) = length(rest).ok_or(KeyError::DerMalformed)?;
        let (contents, rest) = rest.split_at_checked(length).ok_or(KeyError::DerMalformed)?;
        self.rest = rest;
        Ok((tag, contents))
    }
}

/// A length in its shortest form, up to three bytes: 16 MiB is far beyond any key or certificate.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=3).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    let value = digits.iter().fold(0_usize, |value, digit| value << 8 | usize::from(*digit));
    let shortest = if value < 0x80 { 0 } else { value.checked_ilog2()? / 8 + 1 };
    (shortest == u32::try_from(count).ok()?).then_some((value, rest))
}

/// The magnitude of a positive INTEGER in its shortest form, without the sign octet.
pub(super) fn positive(contents: &[u8]) -> Result<&[u8], KeyError> {
    match contents {
        [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => Ok(rest),
        [first, ..] if (1..0x80).contains(first) => Ok(contents),
        _ => Err(KeyError::DerMalformed),
    }
}

/// The bytes of a BIT STRING that is a whole number of bytes.
pub(super) fn octets(contents: &[u8]) -> Result<&[u8], KeyError> {
    match contents {
        [0, rest @ ..] => Ok(rest),
        _ => Err(KeyError::DerMalformed),
    }
}
