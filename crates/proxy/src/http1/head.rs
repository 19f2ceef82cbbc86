//! The head of an answer: what it says, and where its body ends.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Fault;
use super::lines::Bounds;

/// Most fields of a head or of a trailer section.
pub(super) const FIELDS: usize = 100;
/// Of a head. Answers of the other protocol may be as large.
pub(super) const HEAD: Bounds = Bounds { bytes: 64 * 1024, lines: FIELDS + 1 };
/// Fields that are added on the way, for which the map need not grow.
const ADDED_FIELDS: usize = 3;
/// Digits of a length: more than any body has, and they cannot overflow.
const LENGTH_DIGITS: usize = 18;

/// How the end of an answer's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// It has so many bytes, and at least one.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// A head, taken apart.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// Whether the connection may carry another exchange after this one.
    pub(crate) keeps: bool,
}

/// Takes apart a head that ends with its empty line. `lines` is how many it has before that.
///
/// Values are slices of the bytes that arrived; none is copied. SECURITY: whoever found the end of the head has seen
/// that every line ends in CR LF; a carriage return elsewhere is in no name, no value and no status line.
pub(super) fn parse(head: &Bytes, lines: usize, asked_head: bool) -> Result<Head, Fault> {
    let mut rest = Section { bytes: head, begin: 0 };
    let (old, status) = status_line(rest.line().ok_or(Fault::Head)?)?;
    let mut headers = HeaderMap::with_capacity(lines + ADDED_FIELDS);
    let mut notes = Notes { old, ..Notes::default() };
    rest.fields(&mut headers, |name, value| notes.take(name, value))?;
    let framing = notes.framing(status, asked_head)?;
    let keeps = !notes.close && (!notes.old || notes.keep_alive) && framing != Framing::UntilClose;
    Ok(Head { status, headers, framing, keeps })
}

/// Takes apart a trailer section that ends with its empty line.
pub(super) fn parse_trailers(section: &Bytes, lines: usize) -> Result<HeaderMap, Fault> {
    let mut trailers = HeaderMap::with_capacity(lines);
    Section { bytes: section, begin: 0 }.fields(&mut trailers, |_name, _value| Ok(()))?;
    Ok(trailers)
}

/// Whether it is HTTP/1.0, and the status (RFC 9112 section 4). Some servers leave out the space before a reason they
/// do not give.
fn status_line(line: &[u8]) -> Result<(bool, StatusCode), Fault> {
    let (old, rest) = match line.split_at_checked(9).ok_or(Fault::Head)? {
        (b"HTTP/1.1 ", rest) => (false, rest),
        (b"HTTP/1.0 ", rest) => (true, rest),
        _ => return Err(Fault::Head),
    };
    let (digits, reason) = rest.split_at_checked(3).ok_or(Fault::Head)?;
    let status = StatusCode::from_bytes(digits).map_err(|_refused| Fault::Head)?;
    let printable = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    match reason {
        [] => Ok((old, status)),
        [b' ', reason @ ..] if reason.iter().all(printable) => Ok((old, status)),
        _ => Err(Fault::Head),
    }
}

/// Lines up to an empty one.
struct Section<'a> {
    bytes: &'a Bytes,
    /// Where the next line begins.
    begin: usize,
}

impl<'a> Section<'a> {
    /// The next line without its end.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.begin..)?;
        let line = rest.get(..memchr::memchr(b'\n', rest)?)?;
        self.begin += line.len() + 1;
        line.strip_suffix(b"\r")
    }

    /// Field lines, to the empty one that ends them (RFC 9112 section 5). `note` sees each.
    fn fields(
        &mut self,
        headers: &mut HeaderMap,
        mut note: impl FnMut(&HeaderName, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        loop {
            let line = self.line().ok_or(Fault::Head)?;
            if line.is_empty() {
                return if self.begin == self.bytes.len() { Ok(()) } else { Err(Fault::Head) };
            }
            let colon = memchr::memchr(b':', line).ok_or(Fault::Head)?;
            let (name, value) = line.split_at_checked(colon).ok_or(Fault::Head)?;
            // A space in front, as in a folded field, or behind it is not part of any name.
            let name = HeaderName::from_bytes(name).map_err(|_refused| Fault::Head)?;
            let value = trim(value.get(1..).unwrap_or_default());
            let value = HeaderValue::from_maybe_shared(self.bytes.slice_ref(value));
            let value = value.map_err(|_refused| Fault::Head)?;
            note(&name, value.as_bytes())?;
            headers.try_append(name, value).map_err(|_full| Fault::TooManyFields)?;
        }
    }
}

/// Without the white space around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What the fields say about the message and its connection.
#[derive(Debug, Default)]
struct Notes {
    /// The upstream speaks HTTP/1.0.
    old: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Notes {
    /// SECURITY: an answer whose length can be read in two ways is refused, not repaired (RFC 9112 section 6.3):
    /// whichever way we took, the fields would go on to a reader who may take the other.
    fn take(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Fault> {
        if *name == CONTENT_LENGTH {
            if self.length.is_some() || self.chunked {
                return Err(Fault::TwoLengths);
            }
            self.length = Some(length(value)?);
        } else if *name == TRANSFER_ENCODING {
            if self.length.is_some() || self.chunked {
                return Err(Fault::TwoLengths);
            }
            if self.old || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Coding);
            }
            self.chunked = true;
        } else if *name == CONNECTION {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    /// RFC 9112 section 6.3.
    fn framing(&self, status: StatusCode, asked_head: bool) -> Result<Framing, Fault> {
        // SECURITY: these have no body, whatever they say. One that says otherwise may have been sent by somebody who
        // means it, and what follows would be taken for the next answer.
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            return match self.length {
                _ if self.chunked => Err(Fault::BodyWhereNoneMayBe),
                Some(length) if length > 0 || status.is_informational() => Err(Fault::BodyWhereNoneMayBe),
                _ => Ok(Framing::None),
            };
        }
        Ok(match self.length {
            _ if asked_head || status == StatusCode::NOT_MODIFIED => Framing::None,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked,
            None => Framing::UntilClose,
        })
    }
}

fn length(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || digits.len() > LENGTH_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length);
    }
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
