//! An answer read from bytes alone, as the fuzzer and the tests do.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::decoder::{Decoder, Piece};
use super::head::Head;
use super::{Fault, Incoming};

/// What was read of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRead {
    /// Status and fields, if the head is there.
    pub head: Option<(StatusCode, HeaderMap)>,
    /// As much of the body as came.
    pub body: Vec<u8>,
    /// The trailer section, if there is one.
    pub trailers: Option<HeaderMap>,
    /// Whether the answer is complete.
    pub complete: bool,
    /// Whether the connection could carry another exchange.
    pub keeps: bool,
    /// Bytes that belong to no answer.
    pub left_over: usize,
    /// Why nothing more was read.
    pub fault: Option<Fault>,
}

/// Reads the bytes of a connection that ends behind them as the answer to a request, in pieces of this size. The code is
/// that which reads from upstreams.
pub fn read_answer(bytes: &[u8], piece: usize, asked_head: bool) -> AnswerRead {
    let mut read = AnswerRead {
        head: None,
        body: Vec::new(),
        trailers: None,
        complete: false,
        keeps: false,
        left_over: 0,
        fault: None,
    };
    let mut incoming = Incoming::new();
    for piece in bytes.chunks(piece.max(1)) {
        incoming.arrived.extend_from_slice(piece);
        if read.complete {
            continue;
        }
        if let Err(fault) = read.go_on(&mut incoming, asked_head) {
            read.fault = Some(fault);
            read.keeps = false;
            return read;
        }
    }
    if read.head.is_some() && !read.complete && incoming.decoder.ends_with_connection() {
        read.complete = true;
    }
    read.left_over = if read.complete { incoming.arrived.len() } else { 0 };
    read.keeps &= read.complete && read.left_over == 0;
    read
}

impl AnswerRead {
    fn go_on(&mut self, incoming: &mut Incoming, asked_head: bool) -> Result<(), Fault> {
        if self.head.is_none() {
            let Some(head) = incoming.head(asked_head)? else { return Ok(()) };
            let Head { status, headers, framing, keeps } = head;
            incoming.decoder = Decoder::new(framing);
            self.keeps = keeps;
            self.head = Some((status, headers));
        }
        while !self.complete {
            match incoming.decoder.next(&mut incoming.arrived)? {
                Piece::Data(data) => self.data(&data, incoming),
                Piece::Trailers(trailers) => {
                    self.trailers = Some(trailers);
                    self.complete = true;
                }
                Piece::End => self.complete = true,
                Piece::Nothing => break,
            }
        }
        Ok(())
    }

    fn data(&mut self, data: &Bytes, incoming: &mut Incoming) {
        self.body.extend_from_slice(data);
        let Incoming { decoder, arrived, .. } = incoming;
        self.complete = decoder.is_over(&mut *arrived as &mut BytesMut);
    }
}
