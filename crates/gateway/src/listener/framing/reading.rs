//! A whole stream of requests read at once, to be held against what other parsers make of it.

use bytes::BytesMut;

use super::{BodyReader, FramingFault, HeadLimits, HeadReader, Piece};
use crate::listener::limits::ListenLimits;

/// What a stream of requests is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Behind which byte each head ended.
    pub heads: Vec<usize>,
    /// The number of the first request at fault, counted from 1, and what is wrong with it.
    pub fault: Option<(u64, FramingFault)>,
    /// The bytes of the bodies, one for each head; the last may be unfinished.
    pub bodies: Vec<Vec<u8>>,
    /// Whether the last byte ended a request.
    pub whole: bool,
}

/// Reads a whole stream that arrives in pieces of one size, with the limits a listener has by itself. The fuzz target
/// `framing` holds it against what another parser makes of the same bytes.
pub fn read_along(bytes: &[u8], piece: usize) -> Reading {
    read(HeadLimits::from(&ListenLimits::default()), bytes.chunks(piece.max(1)))
}

pub(super) fn read<'b>(limits: HeadLimits, pieces: impl IntoIterator<Item = &'b [u8]>) -> Reading {
    let mut stream = Stream {
        limits,
        buffer: BytesMut::new(),
        head: HeadReader::new(limits),
        body: BodyReader::Ended,
        gone: 0,
        reading: Reading { whole: true, ..Reading::default() },
    };
    for piece in pieces {
        stream.buffer.extend_from_slice(piece);
        if let Err(fault) = stream.advance() {
            let head_at_fault = stream.body.is_ended();
            let request = stream.reading.heads.len() as u64 + u64::from(head_at_fault);
            stream.reading.fault = Some((request, fault));
            stream.reading.whole = false;
            break;
        }
    }
    stream.reading
}

struct Stream {
    limits: HeadLimits,
    buffer: BytesMut,
    head: HeadReader,
    body: BodyReader,
    /// Bytes taken out of the buffer before it.
    gone: usize,
    reading: Reading,
}

impl Stream {
    fn advance(&mut self) -> Result<(), FramingFault> {
        loop {
            let before = self.buffer.len();
            match self.body.read(&mut self.buffer)? {
                Piece::Data(data) => {
                    if let Some(body) = self.reading.bodies.last_mut() {
                        body.extend_from_slice(&data);
                    }
                    self.gone += before - self.buffer.len();
                    self.reading.whole = self.body.is_ended();
                }
                Piece::More => {
                    self.gone += before - self.buffer.len();
                    return Ok(());
                }
                Piece::End => {
                    self.gone += before - self.buffer.len();
                    self.reading.whole = self.buffer.is_empty();
                    let Some(body) = self.head.read(&self.buffer)? else { return Ok(()) };
                    let length = self.head.map().length;
                    let _ = self.buffer.split_to(length);
                    self.gone += length;
                    self.head = HeadReader::new(self.limits);
                    self.reading.heads.push(self.gone);
                    self.reading.bodies.push(Vec::new());
                    self.reading.whole = body.is_ended();
                    self.body = body;
                }
            }
        }
    }
}
