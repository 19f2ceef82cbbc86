//! base64url as JOSE uses it (RFC 7515 section 2): without padding, and one spelling for each value.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The text is not strict base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not base64url without padding")]
pub struct NotBase64Url;

/// Writes bytes as base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url (JWT-03).
///
/// SECURITY: two spellings of one value would be two tokens for a cache and one for a verifier, so padding,
/// white space, the standard alphabet, a length of 1 modulo 4 and trailing bits that are not zero are refused.
///
/// # Errors
/// Any of those.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, NotBase64Url> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| NotBase64Url)
}

/// Reads base64url that stands for exactly `N` bytes.
///
/// # Errors
/// As [`decode`], and any other length.
pub fn decode_exactly<const N: usize>(text: &[u8]) -> Result<[u8; N], NotBase64Url> {
    // The longest text for N bytes; a longer one is refused before it is decoded.
    if text.len() != (N * 4).div_ceil(3) {
        return Err(NotBase64Url);
    }
    let mut bytes = [0; N];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(length) if length == N => Ok(bytes),
        _ => Err(NotBase64Url),
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_exactly, encode};

    /// JWT-03.
    #[test]
    fn only_one_spelling_of_a_value_is_read() {
        assert_eq!(decode(b"AQAB"), Ok(vec![1, 0, 1]));
        assert_eq!(decode(b"-_8"), Ok(vec![0xfb, 0xff]));
        assert_eq!(decode(b""), Ok(vec![]));
        for bad in ["AQ==", "AQ=", "A", "AQABA", "AR", "AQB", "+/8", "AQ\n", " AQ", "A Q", "AQ\r\n", "é"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in 0..70_u8 {
            let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37)).collect();
            assert_eq!(decode(encode(&bytes).as_bytes()), Ok(bytes));
        }
    }

    #[test]
    fn exact_length_is_exact() {
        assert_eq!(decode_exactly::<3>(b"AQAB"), Ok([1, 0, 1]));
        assert_eq!(decode_exactly::<2>(b"AQA"), Ok([1, 0]));
        assert!(decode_exactly::<2>(b"AQAB").is_err());
        assert!(decode_exactly::<4>(b"AQAB").is_err());
        assert!(decode_exactly::<2>(b"AQB").is_err());
        assert!(decode_exactly::<32>(encode(&[7; 31]).as_bytes()).is_err());
        assert_eq!(decode_exactly::<32>(encode(&[7; 32]).as_bytes()), Ok([7; 32]));
    }
}
