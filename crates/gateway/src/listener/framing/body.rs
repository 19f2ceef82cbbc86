//! Where a body ends.

use bytes::{Bytes, BytesMut};
use portcullis_core::chunk;

use super::head::Head;
use super::{FramingFault, HeadLimits};

/// Takes the bytes of one body out of what arrives.
#[derive(Debug)]
pub(crate) enum BodyReader {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come (RFC 9112 section 7.1).
    Chunked(Chunked),
    /// Nothing is to come.
    Ended,
}

/// A chunked body.
#[derive(Debug)]
pub(crate) struct Chunked {
    position: Position,
    trailer: Head,
    limits: HeadLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Size,
    Data {
        left: u64,
    },
    /// The line end behind the data of a chunk.
    DataEnd,
    Trailer,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// Nothing, until more arrives.
    More,
    /// The end of the body: the next byte belongs to another request.
    End,
}

impl BodyReader {
    pub(super) fn chunked(limits: HeadLimits) -> Self {
        Self::Chunked(Chunked { position: Position::Size, trailer: Head::default(), limits })
    }

    /// Whether the whole body was taken.
    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Bytes to come; `None` if nobody knows.
    pub(crate) const fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
            Self::Ended => Some(0),
        }
    }

    /// Takes the next piece out of `buffer`. Trailers are judged and dropped: they come after every check was made.
    ///
    /// # Errors
    /// The body is at fault; nothing behind it is ever to be read.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut) -> Result<Piece, FramingFault> {
        match self {
            Self::Ended => Ok(Piece::End),
            Self::Length(left) => {
                let Some(data) = take(left, buffer) else { return Ok(Piece::More) };
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Piece::Data(data))
            }
            Self::Chunked(chunked) => {
                let piece = chunked.read(buffer)?;
                if matches!(piece, Piece::End) {
                    *self = Self::Ended;
                }
                Ok(piece)
            }
        }
    }
}

impl Chunked {
    fn read(&mut self, buffer: &mut BytesMut) -> Result<Piece, FramingFault> {
        loop {
            if let Position::Data { left } = &mut self.position {
                let Some(data) = take(left, buffer) else { return Ok(Piece::More) };
                if *left == 0 {
                    self.position = Position::DataEnd;
                }
                return Ok(Piece::Data(data));
            }
            let Some(end) = memchr::memchr(b'\n', buffer) else {
                self.check_unfinished(buffer)?;
                return Ok(Piece::More);
            };
            let line = buffer.get(..end).unwrap_or_default();
            let ended = self.line(line)?;
            let _ = buffer.split_to(end + 1);
            if ended {
                return Ok(Piece::End);
            }
        }
    }

    /// Takes a line without its line feed; whether it was the last one.
    fn line(&mut self, line: &[u8]) -> Result<bool, FramingFault> {
        if self.position == Position::DataEnd && !matches!(line, b"\r" | b"") {
            return Err(FramingFault::ChunkEnd);
        }
        let line = line.strip_suffix(b"\r").ok_or(FramingFault::BareLineFeed)?;
        match self.position {
            Position::Size => {
                self.position = match chunk::size(line)? {
                    0 => Position::Trailer,
                    left => Position::Data { left },
                };
            }
            Position::Data { .. } => {}
            Position::DataEnd => self.position = Position::Size,
            Position::Trailer if line.is_empty() => return Ok(true),
            Position::Trailer => self.trailer.trailer(line, self.limits)?,
        }
        Ok(false)
    }

    /// Bounds a line whose end has not arrived.
    fn check_unfinished(&self, rest: &[u8]) -> Result<(), FramingFault> {
        match self.position {
            // The carriage return may be there already.
            Position::Size if rest.len() > chunk::LONGEST_LINE + 1 => Err(FramingFault::ChunkSize),
            // Only a carriage return may stand before the line feed.
            Position::DataEnd if !matches!(rest, b"\r" | b"") => Err(FramingFault::ChunkEnd),
            Position::Trailer if rest.len() > self.limits.bytes => Err(FramingFault::Trailer),
            _ => Ok(()),
        }
    }
}

fn take(left: &mut u64, buffer: &mut BytesMut) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left = left.saturating_sub(count as u64);
    Some(buffer.split_to(count).freeze())
}
