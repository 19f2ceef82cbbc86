//! The line before a chunk.

use super::FramingFault;

/// Digits of a size: more than any body has, and they cannot overflow.
const LONGEST_SIZE: usize = 15;
/// Bytes of the extensions of one chunk. Nobody we know of sends any.
const LONGEST_EXTENSION: usize = 256;
/// Bytes of the line while its end has not arrived.
pub(super) const LONGEST_LINE: usize = LONGEST_SIZE + LONGEST_EXTENSION + 1;

/// The size of the chunk that follows (RFC 9112 section 7.1). SECURITY: white space around the size, which some
/// servers take and some do not, is refused; so is a line feed or carriage return in an extension, where one
/// server's extension is another's chunk.
pub(super) fn size(line: &[u8]) -> Result<u64, FramingFault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if size.is_empty() || size.len() > LONGEST_SIZE {
        return Err(FramingFault::ChunkSize);
    }
    match extension {
        [] => {}
        [b';', rest @ ..]
            if rest.len() <= LONGEST_EXTENSION && rest.iter().all(|b| matches!(b, b'\t' | b' '..=b'~')) => {}
        [b';', ..] => return Err(FramingFault::ChunkExtension),
        _ => return Err(FramingFault::ChunkSize),
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
