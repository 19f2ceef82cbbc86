//! The line before a chunk (RFC 9112 section 7.1), as both sides of the gateway read it: two readings of one line would
//! be two messages.

/// Digits of a size: more than any body has, and they cannot overflow.
const LONGEST_SIZE: usize = 15;
/// Bytes of the extensions of one chunk, behind the first semicolon. Nobody we know of sends any.
const LONGEST_EXTENSION: usize = 256;
/// The longest line that is one, in bytes, without the carriage return and the line feed at its end.
pub const LONGEST_LINE: usize = LONGEST_SIZE + 1 + LONGEST_EXTENSION;

/// Why a line is not one before a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// The size is none.
    Size,
    /// What follows the size is too long, or holds what no extension may.
    Extension,
}

/// The size of the chunk that follows, of the line without its end.
///
/// SECURITY: white space around the size, which some readers take and some do not, is refused; so is a line feed or
/// carriage return in an extension, where one reader's extension is another's chunk.
///
/// # Errors
/// [`ChunkFault`]
pub fn size(line: &[u8]) -> Result<u64, ChunkFault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at_checked(digits).ok_or(ChunkFault::Size)?;
    if size.is_empty() || size.len() > LONGEST_SIZE {
        return Err(ChunkFault::Size);
    }
    match extension {
        [] => {}
        [b';', rest @ ..]
            if rest.len() <= LONGEST_EXTENSION && rest.iter().all(|b| matches!(b, b'\t' | b' '..=b'~')) => {}
        [b';', ..] => return Err(ChunkFault::Extension),
        _ => return Err(ChunkFault::Size),
    }
    Ok(size.iter().fold(0, |sum, digit| sum * 16 + u64::from(hex(*digit))))
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkFault, LONGEST_LINE, size};

    #[test]
    fn a_line_is_a_size_and_nothing_that_two_readers_could_take_differently() {
        let longest = format!("{:0>15};{}", "a", "x".repeat(256));
        assert_eq!(longest.len(), LONGEST_LINE);
        let longer = format!("a;{}", "x".repeat(257));
        for (line, expected) in [
            ("0", Ok(0)),
            ("1aF", Ok(0x1af)),
            ("fffffffffffffff", Ok(0x0fff_ffff_ffff_ffff)),
            ("5;a=\"b c\"\t", Ok(5)),
            (&longest, Ok(10)),
            ("", Err(ChunkFault::Size)),
            (";a", Err(ChunkFault::Size)),
            (" 5", Err(ChunkFault::Size)),
            ("5 ", Err(ChunkFault::Size)),
            ("5 ;a", Err(ChunkFault::Size)),
            ("+5", Err(ChunkFault::Size)),
            ("0x5", Err(ChunkFault::Size)),
            ("0000000000000005", Err(ChunkFault::Size)),
            ("5\r", Err(ChunkFault::Size)),
            ("5;a\rb", Err(ChunkFault::Extension)),
            ("5;a\nb", Err(ChunkFault::Extension)),
            ("5;\u{e9}", Err(ChunkFault::Extension)),
            (&longer, Err(ChunkFault::Extension)),
        ] {
            assert_eq!(size(line.as_bytes()), expected, "{line:?}");
        }
    }
}
