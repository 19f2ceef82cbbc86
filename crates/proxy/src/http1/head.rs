//! The head of an answer: what it says, and where its body ends.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{ParserConfig, Response, Status};

use super::Fault;
use super::lines::Bounds;

/// Most fields of a head or of a trailer section.
pub(super) const FIELDS: usize = 100;
/// Of a head. Answers of the other protocol may be as large.
pub(super) const HEAD: Bounds = Bounds { bytes: 64 * 1024, lines: FIELDS + 1 };
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
/// Values are slices of the bytes that arrived; none is copied.
pub(super) fn parse(head: &Bytes, lines: usize, asked_head: bool) -> Result<Head, Fault> {
    let mut space = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = Response::new(&mut []);
    let parsed =
        ParserConfig::default().parse_response_with_uninit_headers(&mut response, head, &mut space)?;
    // The parser takes a bare line feed for an end of line; whoever found the end of the head did not.
    if parsed != Status::Complete(head.len()) {
        return Err(Fault::Head);
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Fault::Head)?;
    let mut headers = HeaderMap::with_capacity(lines);
    let mut notes = Notes { old: response.version == Some(0), ..Notes::default() };
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_refused| Fault::Head)?;
        notes.take(&name, field.value)?;
        headers.try_append(name, value(head, field.value)?).map_err(|_full| Fault::TooManyFields)?;
    }
    let framing = notes.framing(status, asked_head)?;
    let keeps = !notes.close && (!notes.old || notes.keep_alive) && framing != Framing::UntilClose;
    Ok(Head { status, headers, framing, keeps })
}

/// Takes apart a trailer section that ends with its empty line.
pub(super) fn parse_trailers(section: &Bytes, lines: usize) -> Result<HeaderMap, Fault> {
    let mut space = [httparse::EMPTY_HEADER; FIELDS];
    let Status::Complete((length, fields)) = httparse::parse_headers(section, &mut space)? else {
        return Err(Fault::Head);
    };
    if length != section.len() {
        return Err(Fault::Head);
    }
    let mut trailers = HeaderMap::with_capacity(lines);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_refused| Fault::Head)?;
        trailers.try_append(name, value(section, field.value)?).map_err(|_full| Fault::TooManyFields)?;
    }
    Ok(trailers)
}

fn value(of: &Bytes, slice: &[u8]) -> Result<HeaderValue, Fault> {
    HeaderValue::from_maybe_shared(of.slice_ref(slice)).map_err(|_refused| Fault::Head)
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
