//! HTTP/1.1 requests as bytes: where a head ends and what it says, where a body ends.
//!
//! SECURITY: the grammar is that of RFC 9112 without its liberties. Two lengths, a bare line feed, a coding besides
//! `chunked`, a fragment in the target: each is a place where the next server down the line may read the same bytes as
//! other requests (PRX-01), so each is a fault that ends the connection, and nothing is repaired. Everything here is a
//! pure function of the bytes so far; how they were cut into pieces makes no difference.

mod body;
mod fault;
mod head;
mod reading;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::limits::ListenLimits;
use head::Head;

pub(crate) use body::{BodyReader, Piece};
pub use fault::FramingFault;
pub use reading::{Reading, read_along};

/// The bounds of a head, and of the trailers behind a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
}

impl From<&ListenLimits> for HeadLimits {
    fn from(limits: &ListenLimits) -> Self {
        Self { bytes: limits.headers_bytes, fields: limits.header_count }
    }
}

/// Where the parts of a head lie, in bytes from the beginning of what was read.
#[derive(Debug, Default)]
pub(crate) struct HeadMap {
    /// The whole head with the empty line behind it.
    pub(crate) length: usize,
    pub(crate) method: Range<usize>,
    pub(crate) target: Range<usize>,
    /// HTTP/1.0.
    pub(crate) old_version: bool,
    /// Names and values, the values without the white space around them.
    pub(crate) fields: Vec<(Range<usize>, Range<usize>)>,
}

/// Finds the head of the next request in bytes that arrive piece by piece. It keeps where it is, not what it saw.
#[derive(Debug)]
pub(crate) struct HeadReader {
    limits: HeadLimits,
    head: Head,
    map: HeadMap,
    /// Bytes taken as whole lines.
    taken: usize,
    /// Bytes behind them in which no line ends.
    searched: usize,
    within_fields: bool,
}

impl HeadReader {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            head: Head::default(),
            map: HeadMap::default(),
            taken: 0,
            searched: 0,
            within_fields: false,
        }
    }

    /// Takes all bytes from the beginning of the head on; those of earlier calls must be the same. `None` means that
    /// the head goes on.
    ///
    /// # Errors
    /// The head is at fault; whatever follows on its connection is never to be read.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<BodyReader>, FramingFault> {
        loop {
            let rest = bytes.get(self.taken..).unwrap_or_default();
            let fresh = rest.get(self.searched..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', fresh) else {
                self.searched = rest.len();
                self.check_unfinished(rest)?;
                return Ok(None);
            };
            let end = self.searched + end;
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(FramingFault::BareLineFeed)?;
            let begin = self.taken;
            self.taken += end + 1;
            self.searched = 0;
            if !self.within_fields {
                self.request_line(line, begin)?;
            } else if line.is_empty() {
                self.map.length = self.taken;
                return self.head.body(self.limits).map(Some);
            } else {
                let field = self.head.field(line, self.limits)?;
                let range = |part: Range<usize>| begin + part.start..begin + part.end;
                self.map.fields.push((range(field.name), range(field.value)));
            }
        }
    }

    fn request_line(&mut self, line: &[u8], begin: usize) -> Result<(), FramingFault> {
        let Some(parts) = self.head.request_line(line, self.limits)? else { return Ok(()) };
        self.within_fields = true;
        self.map.method = begin..begin + parts.method;
        self.map.target = begin + parts.target.start..begin + parts.target.end;
        self.map.old_version = parts.old_version;
        Ok(())
    }

    /// A line that cannot become a good one is not waited for: what is no HTTP at all, such as the hello of a TLS
    /// client, may never send a line feed.
    fn check_unfinished(&self, rest: &[u8]) -> Result<(), FramingFault> {
        if self.head.bytes() + rest.len() > self.limits.bytes {
            return Err(FramingFault::HeadTooLarge);
        }
        if !self.within_fields && !head::may_become_request_line(rest) {
            return Err(FramingFault::RequestLine);
        }
        Ok(())
    }

    /// Where everything is, once [`Self::read`] has found the end.
    pub(crate) const fn map(&self) -> &HeadMap {
        &self.map
    }

    /// Forgets the head; the next byte belongs to another one.
    pub(crate) fn reset(&mut self) {
        self.head = Head::default();
        self.map.fields.clear();
        (self.taken, self.searched, self.within_fields) = (0, 0, false);
    }
}
