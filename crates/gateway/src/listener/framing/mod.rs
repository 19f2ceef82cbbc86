//! Reads along with hyper, strictly, to see what hyper hides.
//!
//! hyper drops `Content-Length` beside `Transfer-Encoding`, merges equal lengths, takes a bare line feed for a
//! line end, decodes `gzip, chunked` as if it were `chunked` and cuts fragments off the target. Each of those is
//! a place where the next server down the line may read the same bytes as other requests (PRX-01). The scanner
//! follows heads, bodies and trailers over the bytes hyper is given, keeps no more than one unfinished line, and
//! says which request is not what it seems. SECURITY: its grammar is a part of hyper's: where it finds no fault,
//! hyper sees the same boundaries, and where it finds one, nothing behind it is ever served.

mod chunks;
mod head;
#[cfg(test)]
mod tests;

use portcullis_core::{Reason, Rejection};

use head::Head;

use super::limits::ListenLimits;

/// What is wrong with the framing of a request. The text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingFault {
    /// RFC 9112 section 2.2 lets a server take it for a line end; a server that does not sees one line here.
    #[error("a line ends in a bare line feed")]
    BareLineFeed,
    /// RFC 9112 section 2.2.
    #[error("a carriage return stands inside a line")]
    BareCarriageReturn,
    /// More than one empty line before a request.
    #[error("empty lines stand before the request line")]
    EmptyLines,
    /// RFC 9112 section 3.
    #[error("the request line is malformed")]
    RequestLine,
    /// RFC 9112 section 3.2: another form than its method may have, a fragment, or a byte no target has.
    #[error("the request target is malformed")]
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the protocol version is not one of HTTP/1")]
    Version,
    /// RFC 9112 section 5.2.
    #[error("a field is folded over two lines")]
    FoldedField,
    /// RFC 9110 section 5.1: empty, without a colon, or with a byte that no name has, such as a space.
    #[error("a field name is malformed")]
    FieldName,
    /// A name that some servers read as one of the two that frame a message (`Transfer_Encoding`).
    #[error("a field name looks like Content-Length or Transfer-Encoding and is neither")]
    FieldNameDisguised,
    /// RFC 9110 section 5.5.
    #[error("a field value holds a control character")]
    FieldValue,
    /// RFC 9110 section 8.6 would let equal ones pass.
    #[error("Content-Length is repeated")]
    ContentLengthRepeated,
    /// RFC 9110 section 8.6.
    #[error("Content-Length is not a number")]
    ContentLengthInvalid,
    /// RFC 9112 section 7: anything but exactly one `chunked`.
    #[error("Transfer-Encoding is not `chunked`")]
    TransferCoding,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding stands in an HTTP/1.0 request")]
    TransferCodingInOldVersion,
    /// RFC 9112 section 6.3.
    #[error("Content-Length and Transfer-Encoding stand in one request")]
    TwoFramings,
    /// RFC 9110 section 9.3.1: it means nothing, and a server that does not look for it takes it for the next
    /// request.
    #[error("GET and HEAD have no body")]
    BodyWithoutMeaning,
    /// More bytes than the listener takes.
    #[error("the head is too large")]
    HeadTooLarge,
    /// More fields than the listener takes.
    #[error("the head has too many fields")]
    TooManyFields,
    /// RFC 9112 section 7.1.
    #[error("the size of a chunk is malformed")]
    ChunkSize,
    /// RFC 9112 section 7.1.1.
    #[error("the extension of a chunk is malformed")]
    ChunkExtension,
    /// The data of a chunk is not followed by a line end.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// RFC 9112 section 7.1.2.
    #[error("a trailer field is malformed or may not stand in a trailer")]
    Trailer,
}

impl From<FramingFault> for Rejection {
    fn from(fault: FramingFault) -> Self {
        let reason = match fault {
            FramingFault::HeadTooLarge | FramingFault::TooManyFields => Reason::HeadersTooLarge,
            FramingFault::BareLineFeed
            | FramingFault::BareCarriageReturn
            | FramingFault::EmptyLines
            | FramingFault::RequestLine
            | FramingFault::Target
            | FramingFault::Version
            | FramingFault::FoldedField
            | FramingFault::FieldName
            | FramingFault::FieldNameDisguised
            | FramingFault::FieldValue
            | FramingFault::BodyWithoutMeaning
            | FramingFault::ContentLengthRepeated
            | FramingFault::ContentLengthInvalid
            | FramingFault::TransferCoding
            | FramingFault::TransferCodingInOldVersion
            | FramingFault::TwoFramings
            | FramingFault::ChunkSize
            | FramingFault::ChunkExtension
            | FramingFault::ChunkEnd
            | FramingFault::Trailer => Reason::RequestMalformed,
        };
        Self::new(reason).because(fault.to_string())
    }
}

/// The bounds of a head, and of the trailers behind a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
}

/// Where in the stream the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    RequestLine,
    Field,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    Trailer,
    /// A head is at fault: hyper may have the rest, since whatever it reads there is refused.
    HeadFaulted,
    /// A body is at fault: hyper gets nothing more.
    BodyFaulted,
}

/// The scanner of one connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    position: Position,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    head: Head,
    limits: HeadLimits,
    /// Number of the request whose head or body is being read, counted from 1.
    request: u64,
    fault: Option<FramingFault>,
}

/// What the scanner makes of a stream of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Behind which byte each head ended, to the exactness of the pieces the stream came in.
    pub heads: Vec<usize>,
    /// The number of the first request at fault, counted from 1, and what is wrong with it.
    pub fault: Option<(u64, FramingFault)>,
    /// Bytes hyper may have.
    pub passed: usize,
}

/// Reads a whole stream in pieces of one size. The fuzz target `framing` holds it against what hyper makes of the
/// same bytes.
pub fn read_along(bytes: &[u8], piece: usize) -> Reading {
    let limits = ListenLimits::default();
    let mut scanner = Scanner::new(HeadLimits { bytes: limits.headers_bytes, fields: limits.header_count });
    let mut reading = Reading { heads: Vec::new(), fault: None, passed: 0 };
    let mut fed = 0;
    for piece in bytes.chunks(piece.max(1)) {
        if scanner.is_broken() {
            break;
        }
        reading.passed += scanner.feed(piece);
        fed += piece.len();
        while (reading.heads.len() as u64) < scanner.heads() {
            reading.heads.push(fed);
        }
    }
    reading.fault = scanner.fault();
    reading
}

/// A longer line buffer than this is given back after use.
const KEPT_PARTIAL_BYTES: usize = 1 << 10;

impl Scanner {
    /// A scanner at the beginning of a connection.
    pub(crate) fn new(limits: HeadLimits) -> Self {
        let (position, partial) = (Position::RequestLine, Vec::new());
        Self { position, partial, head: Head::default(), limits, request: 1, fault: None }
    }

    /// The first fault, with the number of its request. Every later request is faulty with it.
    pub(crate) fn fault(&self) -> Option<(u64, FramingFault)> {
        self.fault.map(|fault| (self.request, fault))
    }

    /// Whether a body broke: nothing more may reach hyper.
    pub(crate) const fn is_broken(&self) -> bool {
        matches!(self.position, Position::BodyFaulted)
    }

    /// Whether a head has begun and not ended.
    pub(crate) const fn is_within_head(&self) -> bool {
        match self.position {
            Position::RequestLine => !self.partial.is_empty(),
            Position::Field | Position::HeadFaulted => true,
            _ => false,
        }
    }

    /// Whether every byte so far belongs to a finished request.
    pub(crate) const fn is_between_requests(&self) -> bool {
        matches!(self.position, Position::RequestLine) && self.partial.is_empty()
    }

    /// Heads that have come to their end.
    const fn heads(&self) -> u64 {
        match self.position {
            Position::RequestLine | Position::Field | Position::HeadFaulted => self.request - 1,
            _ => self.request,
        }
    }

    /// Takes the bytes that came in and says how many of them, from the first, hyper may have.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.position {
                Position::HeadFaulted => return bytes.len(),
                Position::BodyFaulted => return bytes.len() - rest.len(),
                Position::Body { left } => {
                    self.skip(rest, left, Position::RequestLine, |left| Position::Body { left })
                }
                Position::ChunkData { left } => {
                    self.skip(rest, left, Position::ChunkEnd, |left| Position::ChunkData { left })
                }
                _ => self.line(rest),
            };
        }
        bytes.len()
    }

    /// Passes over the data of a body. `done` follows it; `more` is the position if it goes on.
    fn skip<'b>(&mut self, rest: &'b [u8], left: u64, done: Position, more: fn(u64) -> Position) -> &'b [u8] {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left.saturating_sub(count as u64);
        if left > 0 {
            self.position = more(left);
        } else if done == Position::RequestLine {
            self.next_request();
        } else {
            self.position = done;
        }
        rest.split_at(count).1
    }

    /// Takes one line, or keeps its beginning for later.
    fn line<'b>(&mut self, rest: &'b [u8]) -> &'b [u8] {
        let Some(end) = memchr::memchr(b'\n', rest) else {
            if self.partial.len() + rest.len() > self.longest_line() {
                self.fail(self.too_long());
                return rest;
            }
            self.partial.extend_from_slice(rest);
            return &[];
        };
        let (line, after) = rest.split_at(end);
        let taken = if self.partial.is_empty() {
            self.whole_line(line)
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(line);
            let taken = self.whole_line(&whole);
            if whole.capacity() <= KEPT_PARTIAL_BYTES {
                whole.clear();
                self.partial = whole;
            }
            taken
        };
        match taken {
            Ok(()) => after.split_first().map_or(&[], |(_, after)| after),
            Err(fault) => {
                self.fail(fault);
                rest
            }
        }
    }

    /// Takes a line without its line feed.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), FramingFault> {
        if self.position == Position::ChunkEnd && !matches!(line, b"\r" | b"") {
            return Err(FramingFault::ChunkEnd);
        }
        let line = line.strip_suffix(b"\r").ok_or(FramingFault::BareLineFeed)?;
        match self.position {
            Position::RequestLine => {
                if self.head.request_line(line, self.limits)? {
                    self.position = Position::Field;
                }
            }
            Position::Field if line.is_empty() => self.end_of_head()?,
            Position::Field => self.head.field(line, self.limits)?,
            Position::ChunkSize => match chunks::size(line)? {
                0 => {
                    self.head.start_trailers();
                    self.position = Position::Trailer;
                }
                left => self.position = Position::ChunkData { left },
            },
            Position::ChunkEnd => self.position = Position::ChunkSize,
            Position::Trailer if line.is_empty() => self.next_request(),
            Position::Trailer => self.head.trailer(line, self.limits)?,
            Position::Body { .. }
            | Position::ChunkData { .. }
            | Position::HeadFaulted
            | Position::BodyFaulted => {}
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), FramingFault> {
        match self.head.body()? {
            head::Body::None => self.next_request(),
            head::Body::Length(left) => self.position = Position::Body { left },
            head::Body::Chunked => self.position = Position::ChunkSize,
        }
        Ok(())
    }

    fn next_request(&mut self) {
        self.request = self.request.saturating_add(1);
        self.head = Head::default();
        self.position = Position::RequestLine;
    }

    fn fail(&mut self, fault: FramingFault) {
        self.fault = Some(fault);
        self.position = match self.position {
            Position::RequestLine | Position::Field | Position::HeadFaulted => Position::HeadFaulted,
            _ => Position::BodyFaulted,
        };
        self.partial = Vec::new();
    }

    /// Most bytes a line may have here while its end has not arrived.
    const fn longest_line(&self) -> usize {
        match self.position {
            Position::ChunkSize => chunks::LONGEST_LINE,
            // Only a carriage return may stand before the line feed.
            Position::ChunkEnd => 1,
            _ => self.limits.bytes,
        }
    }

    const fn too_long(&self) -> FramingFault {
        match self.position {
            Position::ChunkSize => FramingFault::ChunkSize,
            Position::ChunkEnd => FramingFault::ChunkEnd,
            Position::Trailer => FramingFault::Trailer,
            _ => FramingFault::HeadTooLarge,
        }
    }
}
