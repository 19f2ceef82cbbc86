//! The lines of a head, and of the trailers behind a body.

use std::ops::Range;

use super::{BodyReader, FramingFault, HeadLimits};

/// What the head read so far says about the body.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: usize,
    fields: usize,
    old_version: bool,
    /// The method is GET or HEAD.
    without_body: bool,
    content_length: Option<u64>,
    chunked: bool,
}

/// Where the parts of a request line lie in it.
#[derive(Debug)]
pub(super) struct RequestLine {
    /// Bytes of the method, which comes first.
    pub(super) method: usize,
    pub(super) target: Range<usize>,
    pub(super) old_version: bool,
}

/// Where the parts of a field line lie in it.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    /// Without the white space around it (RFC 9112 section 5.1).
    pub(super) value: Range<usize>,
}

impl Head {
    /// Takes a request line; `None` for the one empty line that may stand before it (RFC 9112 section 2.2).
    pub(super) fn request_line(
        &mut self,
        line: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<RequestLine>, FramingFault> {
        if line.is_empty() {
            if self.bytes > 0 {
                return Err(FramingFault::EmptyLines);
            }
            self.count_bytes(line, limits)?;
            return Ok(None);
        }
        self.count_bytes(line, limits)?;
        if line.contains(&b'\r') {
            return Err(FramingFault::BareCarriageReturn);
        }
        let (method, rest) = split_once(line, memchr::memchr(b' ', line)).ok_or(FramingFault::RequestLine)?;
        let (target, version) =
            split_once(rest, memchr::memrchr(b' ', rest)).ok_or(FramingFault::RequestLine)?;
        if !is_token(method) {
            return Err(FramingFault::RequestLine);
        }
        self.without_body = matches!(method, b"GET" | b"HEAD");
        self.old_version = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(FramingFault::Version),
        };
        if !is_target(method, target) {
            return Err(FramingFault::Target);
        }
        let (method, begin) = (method.len(), method.len() + 1);
        let target = begin..begin + target.len();
        Ok(Some(RequestLine { method, target, old_version: self.old_version }))
    }

    /// Takes a field line.
    pub(super) fn field(&mut self, line: &[u8], limits: HeadLimits) -> Result<Field, FramingFault> {
        self.count_bytes(line, limits)?;
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(FramingFault::TooManyFields);
        }
        let (name, value) = split_field(line)?;
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_coding(value)?,
            13..=24 if is_disguised(name) => return Err(FramingFault::FieldNameDisguised),
            _ => {}
        }
        let trimmed = trim(value);
        let begin = name.len() + 1 + leading_blanks(value).min(value.len());
        let begin = if trimmed.is_empty() { line.len() } else { begin };
        Ok(Field { name: 0..name.len(), value: begin..begin + trimmed.len() })
    }

    /// Bytes of the lines so far, each with its line end.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        let value = trim(value);
        if self.content_length.is_some() {
            return Err(FramingFault::ContentLengthRepeated);
        }
        if self.chunked {
            return Err(FramingFault::TwoFramings);
        }
        // Eighteen digits are more than any body has and cannot overflow.
        if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
            return Err(FramingFault::ContentLengthInvalid);
        }
        self.content_length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        Ok(())
    }

    fn transfer_coding(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        if self.old_version {
            return Err(FramingFault::TransferCodingInOldVersion);
        }
        if self.content_length.is_some() {
            return Err(FramingFault::TwoFramings);
        }
        if self.chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
            return Err(FramingFault::TransferCoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// What follows the head.
    pub(super) fn body(&self, limits: HeadLimits) -> Result<BodyReader, FramingFault> {
        let body = match (self.chunked, self.content_length) {
            (true, _) => BodyReader::chunked(limits),
            (false, None | Some(0)) => BodyReader::Ended,
            (false, Some(length)) => BodyReader::Length(length),
        };
        if self.without_body && !body.is_ended() { Err(FramingFault::BodyWithoutMeaning) } else { Ok(body) }
    }

    /// Takes a trailer line. SECURITY: a field that frames or routes the message has no business behind it (RFC
    /// 9110 section 6.5.1), whoever may merge trailers later.
    pub(super) fn trailer(&mut self, line: &[u8], limits: HeadLimits) -> Result<(), FramingFault> {
        self.count_bytes(line, limits).map_err(|_| FramingFault::Trailer)?;
        self.fields += 1;
        let (name, _) = split_field(line).map_err(|_| FramingFault::Trailer)?;
        let refused: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
        if self.fields > limits.fields || refused.iter().any(|refused| name.eq_ignore_ascii_case(refused)) {
            return Err(FramingFault::Trailer);
        }
        Ok(())
    }

    fn count_bytes(&mut self, line: &[u8], limits: HeadLimits) -> Result<(), FramingFault> {
        self.bytes += line.len() + 2;
        if self.bytes > limits.bytes { Err(FramingFault::HeadTooLarge) } else { Ok(()) }
    }
}

/// The two sides of the byte at `at`.
fn split_once(bytes: &[u8], at: Option<usize>) -> Option<(&[u8], &[u8])> {
    let (before, after) = bytes.split_at_checked(at?)?;
    Some((before, after.split_first()?.1))
}

/// Name and value of a field line, the value with the white space around it.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), FramingFault> {
    if let [b' ' | b'\t', ..] = line {
        return Err(FramingFault::FoldedField);
    }
    // Names are short: looking at each byte once is cheaper than finding the colon first.
    let end = line.iter().position(|byte| !is_token_byte(*byte)).filter(|end| *end > 0);
    let (name, rest) =
        line.split_at_checked(end.ok_or(FramingFault::FieldName)?).ok_or(FramingFault::FieldName)?;
    let [b':', value @ ..] = rest else { return Err(FramingFault::FieldName) };
    if has_control(value) {
        let bare = value.contains(&b'\r');
        return Err(if bare { FramingFault::BareCarriageReturn } else { FramingFault::FieldValue });
    }
    Ok((name, value))
}

/// Whether nothing but separators makes it another name than one of the two that frame a message. SECURITY: CGI and
/// its heirs read `-` and `_` alike, and some servers drop what they do not know.
fn is_disguised(name: &[u8]) -> bool {
    let framing: [&[u8]; 2] = [b"contentlength", b"transferencoding"];
    let first = name.iter().find(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    matches!(first, Some(b'c' | b't'))
        && framing.iter().any(|framing| {
            let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
            letters.eq(framing.iter().copied())
        })
}

/// Whether more bytes could make a request line of these, or an empty line before one.
pub(super) fn may_become_request_line(bytes: &[u8]) -> bool {
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(bytes, b"" | b"\r") || is_token(method)
}

fn leading_blanks(value: &[u8]) -> usize {
    value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9112 section 3.2: the form belongs to the method.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let unprintable =
        target.iter().fold(false, |found, &byte| found | !matches!(byte, b'!'..=b'~') | (byte == b'#'));
    !unprintable
        && match target {
            [] => false,
            _ if method == b"CONNECT" => !target.contains(&b'/'),
            [b'/', ..] => true,
            b"*" => method == b"OPTIONS",
            _ => has_scheme(target, b"http://") || has_scheme(target, b"https://"),
        }
}

fn has_scheme(target: &[u8], scheme: &[u8]) -> bool {
    target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// Control characters other than the tab. Written as one fold without an early end so that it is done sixteen
/// bytes at a time.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &byte| found | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

/// RFC 9110 section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(true, |good, &byte| good & is_token_byte(byte))
}

fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &[u8] = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    while let [byte, after @ ..] = rest {
        if let Some((_, [entry, ..])) = table.split_at_mut_checked(*byte as usize) {
            *entry = true;
        }
        rest = after;
    }
    table
};
