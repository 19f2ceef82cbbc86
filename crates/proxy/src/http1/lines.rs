//! Where a head ends, found line by line as its bytes arrive.

use super::Fault;

/// Bounds of a head or of a trailer section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// With line ends.
    pub(super) bytes: usize,
    /// A status line counts as one.
    pub(super) lines: usize,
}

/// How far a head was searched for its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    searched: usize,
    /// Where the line begins whose end has not arrived.
    line: usize,
    count: usize,
}

impl Lines {
    /// Nothing was searched.
    pub(super) const fn new() -> Self {
        Self { searched: 0, line: 0, count: 0 }
    }

    /// The length of the head, with the empty line that ends it, once that is there. Bytes searched once are not
    /// searched again, so a head that trickles costs what it costs in one piece.
    ///
    /// SECURITY: every line ends in CR LF. Where one reader takes a bare line feed for an end and another does not,
    /// they see different fields (RFC 9112 section 2.2).
    pub(super) fn end(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Option<usize>, Fault> {
        let fresh = bytes.get(self.searched..).unwrap_or_default();
        for found in memchr::memchr_iter(b'\n', fresh) {
            let feed = self.searched + found;
            let text_end = feed.checked_sub(1).filter(|at| *at >= self.line);
            let Some(text_end) = text_end.filter(|at| bytes.get(*at) == Some(&b'\r')) else {
                return Err(Fault::BareLineFeed);
            };
            if feed >= bounds.bytes {
                return Err(Fault::TooLarge);
            }
            if text_end == self.line {
                return Ok(Some(feed + 1));
            }
            self.count += 1;
            if self.count > bounds.lines {
                return Err(Fault::TooManyFields);
            }
            self.line = feed + 1;
        }
        self.searched = bytes.len();
        if bytes.len() > bounds.bytes { Err(Fault::TooLarge) } else { Ok(None) }
    }

    /// How many lines there were before the empty one.
    pub(super) const fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Lines};
    use crate::http1::Fault;

    const BOUNDS: Bounds = Bounds { bytes: 16, lines: 2 };

    #[test]
    fn end_is_found_once_and_in_whatever_pieces_it_comes() {
        for (bytes, expected) in [
            (&b"a\r\nb\r\n\r\nrest"[..], Ok(Some(8))),
            (b"\r\n", Ok(Some(2))),
            (b"a\r\n", Ok(None)),
            (b"a\r\n\r", Ok(None)),
            (b"a\n\r\n", Err(Fault::BareLineFeed)),
            (b"\n", Err(Fault::BareLineFeed)),
            // The carriage return of the line before is not this line's.
            (b"a\r\n\n", Err(Fault::BareLineFeed)),
            (b"a\r\nb\r\nc\r\n\r\n", Err(Fault::TooManyFields)),
            (b"aaaaaaaaaaaaaaaaa", Err(Fault::TooLarge)),
            (b"aaaaaaaaaaaaa\r\n\r\n", Err(Fault::TooLarge)),
            (b"aaaaaaaaaaaa\r\n\r\n", Ok(Some(16))),
        ] {
            assert_eq!(Lines::new().end(bytes, BOUNDS), expected, "{bytes:?} at once");
            let mut lines = Lines::new();
            let mut trickled = (1..=bytes.len()).map(|length| lines.end(&bytes[..length], BOUNDS));
            let decided = trickled.find(|said| *said != Ok(None)).unwrap_or(Ok(None));
            assert_eq!(decided, expected, "{bytes:?} byte by byte");
        }
    }
}
