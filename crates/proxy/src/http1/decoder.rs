//! The body of an answer, taken out of its framing.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use portcullis_core::chunk;

use super::Fault;
use super::head::{self, FIELDS, Framing};
use super::lines::{Bounds, Lines};

/// Of a trailer section.
const TRAILERS: Bounds = Bounds { bytes: 16 * 1024, lines: FIELDS };
/// Bytes of the line before a chunk, without its line feed.
const SIZE_LINE: usize = chunk::LONGEST_LINE + 1;
/// How a chunked body without trailers goes on behind its last byte.
const LAST: &[u8] = b"\r\n0\r\n\r\n";

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Whatever comes before the end of the connection.
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Before the size of a chunk.
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// Before the line end behind a chunk.
    End,
    /// In the trailer section.
    Trailers(Lines),
    /// Behind everything.
    Over,
}

/// What was found in the bytes that have arrived.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes of the body, at least one.
    Data(Bytes),
    /// The trailer section, which ends the body.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More has to arrive first.
    Nothing,
}

impl Decoder {
    /// A body of which nothing was read.
    pub(crate) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunk::Size),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Takes the next piece from the front of what arrived.
    pub(crate) fn next(&mut self, arrived: &mut BytesMut) -> Result<Piece, Fault> {
        match self {
            Self::Length(0) => Ok(Piece::End),
            Self::Length(left) => Ok(data(left, arrived)),
            Self::Chunked(chunk) => chunk.next(arrived),
            Self::UntilClose if arrived.is_empty() => Ok(Piece::Nothing),
            Self::UntilClose => Ok(Piece::Data(arrived.split().freeze())),
        }
    }

    /// Whether the body is complete, as far as that can be seen: looks ahead past the end of the last chunk, so that
    /// the connection is free as soon as the last byte was handed out, and not only when somebody asks for more.
    pub(crate) fn is_over(&mut self, arrived: &mut BytesMut) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunk) => {
                if matches!(chunk, Chunk::End) && *arrived == LAST {
                    arrived.clear();
                    *chunk = Chunk::Over;
                }
                matches!(chunk, Chunk::Over)
            }
            Self::UntilClose => false,
        }
    }

    /// The connection has ended. Whether that is how this body ends.
    pub(crate) const fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Bytes left, where they are known.
    pub(crate) const fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

impl Chunk {
    fn next(&mut self, arrived: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = size_line(arrived)? else { return Ok(Piece::Nothing) };
                    let size = chunk::size(arrived.get(..line).unwrap_or_default());
                    let size = size.map_err(|_fault| Fault::ChunkSize)?;
                    arrived.advance(line + 2);
                    *self = if size == 0 { Self::Trailers(Lines::new()) } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let piece = data(left, arrived);
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(piece);
                }
                Self::End => match (arrived.first(), arrived.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        arrived.advance(2);
                        *self = Self::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Piece::Nothing),
                    _ => return Err(Fault::ChunkEnd),
                },
                Self::Trailers(lines) => {
                    let Some(end) = lines.end(arrived, TRAILERS)? else { return Ok(Piece::Nothing) };
                    let count = lines.count();
                    *self = Self::Over;
                    if count == 0 {
                        arrived.advance(end);
                        return Ok(Piece::End);
                    }
                    let section = arrived.split_to(end).freeze();
                    return head::parse_trailers(&section, count).map(Piece::Trailers);
                }
                Self::Over => return Ok(Piece::End),
            }
        }
    }
}

fn data(left: &mut u64, arrived: &mut BytesMut) -> Piece {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(arrived.len());
    if length == 0 {
        return Piece::Nothing;
    }
    *left = left.saturating_sub(length as u64);
    Piece::Data(arrived.split_to(length).freeze())
}

/// Where the line before a chunk ends, once its end is there.
fn size_line(arrived: &[u8]) -> Result<Option<usize>, Fault> {
    let within = arrived.get(..SIZE_LINE + 1).unwrap_or(arrived);
    match memchr::memchr(b'\n', within) {
        Some(feed) => match feed.checked_sub(1).filter(|at| arrived.get(*at) == Some(&b'\r')) {
            Some(end) => Ok(Some(end)),
            None => Err(Fault::BareLineFeed),
        },
        None if within.len() > SIZE_LINE => Err(Fault::ChunkSize),
        None => Ok(None),
    }
}
