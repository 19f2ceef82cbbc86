//! An answer, from the types of the stages to bytes.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::SizeHint;

use super::request::Facts;

/// How the end of an answer's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    Empty,
    /// So many bytes are to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection, for clients that know nothing better.
    Close,
}

impl Framing {
    /// SECURITY: derived from the body that will be sent and never from a field, so that the two cannot disagree.
    pub(super) fn of(status: StatusCode, facts: Facts, size: &SizeHint) -> Self {
        if facts.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Self::Empty;
        }
        match size.exact() {
            Some(length) => Self::Length(length),
            None if facts.old_version => Self::Close,
            None => Self::Chunked,
        }
    }
}

/// Writes the head of an answer behind what `out` holds.
pub(super) fn write_head(out: &mut Vec<u8>, head: &Parts, facts: Facts, framing: Framing, closing: bool) {
    out.extend_from_slice(if facts.old_version { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let bodiless = framing == Framing::Empty && head.status != StatusCode::NO_CONTENT;
    let mut dated = false;
    for (name, value) in &head.headers {
        // What frames the message is ours to say; where there is no body, its length describes one (RFC 9110
        // section 8.6).
        if name == TRANSFER_ENCODING || name == CONNECTION || (name == CONTENT_LENGTH && !bodiless) {
            continue;
        }
        dated |= name == DATE;
        write_field(out, name, value.as_bytes());
    }
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Empty | Framing::Close => {}
    }
    if closing {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if !dated {
        write_date(out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `Date` where the upstream gave none (RFC 9110 section 6.6.1); its text is made once a second.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
    }
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second || text.is_empty() {
            text.clear();
            let now = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
            // Writing to a vector cannot fail.
            let _ = write!(text, "date: {now}\r\n");
            *last = second;
        }
        out.extend_from_slice(text);
    });
}

/// The size in front of a chunk.
pub(super) fn write_chunk_size(out: &mut Vec<u8>, length: usize) {
    let _ = write!(out, "{length:x}\r\n");
}

/// The end of a chunked body, with those trailers that were announced and that the client said it takes.
pub(super) fn write_chunked_end(
    out: &mut Vec<u8>,
    announced: Option<&Announced>,
    trailers: Option<&HeaderMap>,
) {
    out.extend_from_slice(b"0\r\n");
    if let (Some(announced), Some(trailers)) = (announced, trailers) {
        for (name, value) in trailers.iter().filter(|(name, _)| announced.0.contains(name)) {
            write_field(out, name, value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The names of an answer's `Trailer` field.
#[derive(Debug)]
pub(super) struct Announced(Vec<HeaderName>);

impl Announced {
    /// `None` if there are none, or nobody wants them.
    pub(super) fn of(headers: &HeaderMap, facts: Facts) -> Option<Self> {
        if !facts.takes_trailers || !headers.contains_key(TRAILER) {
            return None;
        }
        let items = headers.get_all(TRAILER).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
        Some(Self(items.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()))
    }
}
