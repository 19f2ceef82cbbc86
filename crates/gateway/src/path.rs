//! The one form of a path.
//!
//! A path is accepted only if every reader would take it to mean the same thing; then what rules judge, what
//! is logged and what the upstream receives are the same bytes. Anything that some server would rewrite (dot
//! segments, doubled slashes, encoded slashes, needless escapes ...) is refused, never repaired (PRX-03).

/// Why a path is not in normal form. The text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathFault {
    #[error("does not start with a slash")]
    NoSlash,
    #[error("holds an empty segment")]
    EmptySegment,
    #[error("holds a dot segment")]
    DotSegment,
    #[error("holds a backslash")]
    Backslash,
    #[error("holds a semicolon, which some servers take for parameters and cut off")]
    Parameter,
    #[error("holds a byte that must be escaped")]
    RawByte,
    #[error("holds a broken escape")]
    BrokenEscape,
    #[error("holds an escaped slash, backslash, dot, semicolon, percent sign or control character")]
    ForbiddenEscape,
    #[error("escapes a character that needs no escape")]
    NeedlessEscape,
    #[error("holds an escape that is not UTF-8")]
    NotUtf8,
    #[error("holds an escape in lower case")]
    LowerCaseEscape,
}

/// What each byte of a path means to the check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Slash,
    Dot,
    Percent,
    Backslash,
    Semicolon,
    Refused,
}

/// RFC 3986 `pchar` without `;`, which is a sub-delimiter that Java servers cut off (PRX-03).
const CLASSES: [Class; 256] = {
    let mut table = [Class::Refused; 256];
    let mut byte: usize = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let value = byte as u8;
        #[expect(clippy::indexing_slicing, reason = "a constant table, filled at compile time")]
        {
            table[byte] = match value {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => Class::Plain,
                b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'='
                | b':' | b'@' => Class::Plain,
                b'/' => Class::Slash,
                b'.' => Class::Dot,
                b'%' => Class::Percent,
                b'\\' => Class::Backslash,
                b';' => Class::Semicolon,
                _ => Class::Refused,
            };
        }
        byte += 1;
    }
    table
};

/// Whether a request with this path (without query) is served at all.
pub fn is_normal_path(path: &str) -> bool {
    check_normal_form(path).is_ok()
}

/// Checks a path (without query) byte by byte.
///
/// # Errors
/// The first thing in it that is not in normal form.
pub(crate) fn check_normal_form(path: &str) -> Result<(), PathFault> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathFault::NoSlash);
    }
    let mut rest = bytes;
    let mut segment = Segment::default();
    let mut escaped = false;
    let mut first = true;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Refused) {
            Class::Plain => segment.other = true,
            Class::Dot => segment.dots = segment.dots.saturating_add(1),
            Class::Slash => {
                if !first {
                    segment.end(false)?;
                }
                first = false;
                segment = Segment::default();
            }
            Class::Percent => {
                rest = escape(tail)?;
                segment.other = true;
                escaped = true;
            }
            Class::Backslash => return Err(PathFault::Backslash),
            Class::Semicolon => return Err(PathFault::Parameter),
            Class::Refused => return Err(PathFault::RawByte),
        }
    }
    segment.end(true)?;
    if escaped { check_utf8(bytes) } else { Ok(()) }
}

#[derive(Default)]
struct Segment {
    dots: u8,
    other: bool,
}

impl Segment {
    /// `last`: a path may end in a slash, so its last segment may be empty.
    fn end(&self, last: bool) -> Result<(), PathFault> {
        match (self.other, self.dots) {
            (false, 0) if !last => Err(PathFault::EmptySegment),
            (false, 1 | 2) => Err(PathFault::DotSegment),
            _ => Ok(()),
        }
    }
}

/// Judges one escape, given what follows its percent sign, and gives what follows the escape.
fn escape(tail: &[u8]) -> Result<&[u8], PathFault> {
    let [high, low, rest @ ..] = tail else { return Err(PathFault::BrokenEscape) };
    if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
        return Err(PathFault::BrokenEscape);
    }
    if high.is_ascii_lowercase() || low.is_ascii_lowercase() {
        return Err(PathFault::LowerCaseEscape);
    }
    match decoded(*high, *low) {
        0..=0x1f | 0x7f | b'/' | b'\\' | b'.' | b';' | b'%' => Err(PathFault::ForbiddenEscape),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'*' => Err(PathFault::NeedlessEscape),
        _ => Ok(rest),
    }
}

const fn decoded(high: u8, low: u8) -> u8 {
    const fn digit(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte.to_ascii_uppercase().wrapping_sub(b'A').wrapping_add(10),
        }
    }
    (digit(high) << 4) | digit(low)
}

/// Overlong and broken UTF-8 has hidden slashes and dots before.
fn check_utf8(bytes: &[u8]) -> Result<(), PathFault> {
    let mut decoded_path = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                decoded_path.push(decoded(*high, *low));
                rest = after;
            }
            _ => decoded_path.push(byte),
        }
    }
    std::str::from_utf8(&decoded_path).map(|_| ()).map_err(|_| PathFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::{PathFault, check_normal_form};

    #[test]
    fn only_paths_that_everybody_reads_alike_are_in_normal_form() {
        for good in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a/..b",
            "/a/b..",
            "/a/.b",
            "/...",
            "/a%20b",
            "/%C3%A9t%C3%A9",
            "/a:b@c,d=e",
        ] {
            assert_eq!(check_normal_form(good), Ok(()), "{good}");
        }
        for (bad, fault) in [
            ("", PathFault::NoSlash),
            ("a", PathFault::NoSlash),
            ("*", PathFault::NoSlash),
            ("//", PathFault::EmptySegment),
            ("//a", PathFault::EmptySegment),
            ("/a//b", PathFault::EmptySegment),
            ("/.", PathFault::DotSegment),
            ("/..", PathFault::DotSegment),
            ("/a/../b", PathFault::DotSegment),
            ("/a/./b", PathFault::DotSegment),
            ("/a/..", PathFault::DotSegment),
            ("/a\\b", PathFault::Backslash),
            ("/a;b=c", PathFault::Parameter),
            ("/a b", PathFault::RawByte),
            ("/a\u{e9}", PathFault::RawByte),
            ("/a#b", PathFault::RawByte),
            ("/a|b", PathFault::RawByte),
            ("/a%", PathFault::BrokenEscape),
            ("/a%2", PathFault::BrokenEscape),
            ("/a%zz", PathFault::BrokenEscape),
            ("/a%2e%2e/b", PathFault::LowerCaseEscape),
            ("/a%2E%2E/b", PathFault::ForbiddenEscape),
            ("/a%2Fb", PathFault::ForbiddenEscape),
            ("/a%5Cb", PathFault::ForbiddenEscape),
            ("/a%3Bb", PathFault::ForbiddenEscape),
            ("/a%00", PathFault::ForbiddenEscape),
            ("/a%0D%0A", PathFault::ForbiddenEscape),
            ("/a%252F", PathFault::ForbiddenEscape),
            ("/%41", PathFault::NeedlessEscape),
            ("/a%2Ab", PathFault::NeedlessEscape),
            ("/%C0%AF", PathFault::NotUtf8),
            ("/%FF", PathFault::NotUtf8),
        ] {
            assert_eq!(check_normal_form(bad), Err(fault), "{bad}");
        }
    }
}
