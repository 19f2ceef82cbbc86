//! The text and the binary header of the PROXY protocol (versions 1 and 2, HAProxy's `proxy-protocol.txt`), read to
//! the letter.
//!
//! SECURITY: what is announced here is the caller's address everywhere: in limits, in rules, in the log. Nothing is
//! repaired or guessed; what another reader could read otherwise ends the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What stands first in version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its line end included.
const LINE: usize = 107;
/// Bytes of version 2 before the addresses.
const HEAD: usize = 16;
/// The most bytes of addresses and further values in version 2. Proxies may add certificates and names there; what
/// is longer than this is nothing they send.
const MOST: usize = 4_096;
/// The further value that holds a checksum over the whole header.
const CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The connection is relayed for a client at this address.
    Client(SocketAddr),
    /// The proxy speaks for itself, to see whether we live, or does not know for whom: the socket's own address
    /// stays.
    Itself,
}

/// Why the bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// It begins like neither version.
    #[error("there is no PROXY header")]
    Missing,
    /// Version 1, with another form than the standard's.
    #[error("the PROXY line is malformed")]
    Line,
    /// Version 2, with another form than the standard's.
    #[error("the binary PROXY header is malformed")]
    Binary,
    /// A transport that carries no HTTP.
    #[error("the PROXY header announces another transport than TCP over IP")]
    Transport,
    /// The checksum does not fit.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

/// Reads a header from the first bytes of a connection: what it says and how many bytes it takes, or `None` if more
/// are needed.
///
/// # Errors
/// However it goes on, it will not be a header.
pub fn proxy_header(bytes: &[u8]) -> Result<Option<(Announced, usize)>, ProxyHeaderError> {
    let start = |whole: &[u8]| bytes.iter().zip(whole).all(|(got, wanted)| got == wanted);
    if start(&SIGNATURE) {
        return if bytes.len() < HEAD { early(bytes) } else { binary(bytes) };
    }
    if start(b"PROXY ") { line(bytes) } else { Err(ProxyHeaderError::Missing) }
}

/// What can be said of version 2 before its fixed part is there: the connection may end early.
fn early(bytes: &[u8]) -> Result<Option<(Announced, usize)>, ProxyHeaderError> {
    match bytes.get(12) {
        Some(0x20 | 0x21) | None => Ok(None),
        Some(_) => Err(ProxyHeaderError::Binary),
    }
}

fn line(bytes: &[u8]) -> Result<Option<(Announced, usize)>, ProxyHeaderError> {
    let within = bytes.get(..LINE).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE { Ok(None) } else { Err(ProxyHeaderError::Line) };
    };
    let text = within.get(..end).and_then(|text| text.strip_suffix(b"\r")).ok_or(ProxyHeaderError::Line)?;
    let text = text.strip_prefix(b"PROXY ").ok_or(ProxyHeaderError::Line)?;
    if text.contains(&b'\r') {
        return Err(ProxyHeaderError::Line);
    }
    // What follows UNKNOWN is to be ignored, whatever it is.
    if text == b"UNKNOWN" || text.starts_with(b"UNKNOWN ") {
        return Ok(Some((Announced::Itself, end + 1)));
    }
    let text = std::str::from_utf8(text).map_err(|_not_text| ProxyHeaderError::Line)?;
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(ProxyHeaderError::Line);
    let (family, source, destination, from, to) = (word()?, word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(ProxyHeaderError::Line);
    }
    let (source, _destination) = match family {
        "TCP4" => (address::<Ipv4Addr>(source)?, address::<Ipv4Addr>(destination)?),
        "TCP6" => (address::<Ipv6Addr>(source)?, address::<Ipv6Addr>(destination)?),
        _ => return Err(ProxyHeaderError::Transport),
    };
    let (from, _to) = (port(from)?, port(to)?);
    Ok(Some((Announced::Client(SocketAddr::new(source, from)), end + 1)))
}

/// An address as the standard library reads it, which takes no leading zeros, no zone, and no short forms of IPv4.
fn address<A: std::str::FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, ProxyHeaderError> {
    word.parse::<A>().map(Into::into).map_err(|_not_one| ProxyHeaderError::Line)
}

fn port(word: &str) -> Result<u16, ProxyHeaderError> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(ProxyHeaderError::Line)
}

fn binary(bytes: &[u8]) -> Result<Option<(Announced, usize)>, ProxyHeaderError> {
    let (version, family) = match bytes {
        [_, _, _, _, _, _, _, _, _, _, _, _, version, family, ..] => (*version, *family),
        _ => return Ok(None),
    };
    let &[.., high, low] = bytes.first_chunk::<HEAD>().ok_or(ProxyHeaderError::Binary)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(ProxyHeaderError::Binary);
    }
    let relayed = match version {
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyHeaderError::Binary),
    };
    let (speaks, addresses) = match (relayed, family) {
        // Whatever a proxy says about a connection of its own is to be ignored, its family included.
        (false, _) => (false, 0),
        // No family: the sender does not know, or cannot say.
        (true, 0x00) => (false, 0),
        (true, 0x11) => (true, 12),
        (true, 0x21) => (true, 36),
        (true, _) => return Err(ProxyHeaderError::Transport),
    };
    if length < addresses {
        return Err(ProxyHeaderError::Binary);
    }
    let Some(whole) = bytes.get(..HEAD + length) else { return Ok(None) };
    if !speaks {
        return Ok(Some((Announced::Itself, HEAD + length)));
    }
    values(whole, HEAD + addresses)?;
    let client = source(whole, family).ok_or(ProxyHeaderError::Binary)?;
    Ok(Some((Announced::Client(client), HEAD + length)))
}

/// The address and port of the client.
fn source(whole: &[u8], family: u8) -> Option<SocketAddr> {
    let body = whole.get(HEAD..)?;
    let (address, port): (IpAddr, _) = match family {
        0x11 => (body.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes))?.into(), body.get(8..10)?),
        _ => (body.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes))?.into(), body.get(32..34)?),
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(port.try_into().ok()?)))
}

/// Walks through the further values: each must end where the header does or before, and a checksum must fit. None of
/// them says anything here; what certificates say is told by TLS or by a header, in full.
fn values(whole: &[u8], mut at: usize) -> Result<(), ProxyHeaderError> {
    let mut checked = false;
    while at < whole.len() {
        let head: &[u8; 3] = whole.get(at..).and_then(<[u8]>::first_chunk).ok_or(ProxyHeaderError::Binary)?;
        let &[kind, high, low] = head;
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        let bytes = whole.get(value..end).ok_or(ProxyHeaderError::Binary)?;
        match kind {
            CRC32C if checked => return Err(ProxyHeaderError::Binary),
            CRC32C => {
                let given = <[u8; 4]>::try_from(bytes).map_err(|_length| ProxyHeaderError::Binary)?;
                if u32::from_be_bytes(given) != crc32c(whole, value..end) {
                    return Err(ProxyHeaderError::Checksum);
                }
                checked = true;
            }
            _ => {}
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C (RFC 9260 appendix A) over the header, the checksum's own bytes read as zeros. Once for a connection, so a
/// table would be larger than what it saves.
pub(super) fn crc32c(whole: &[u8], blank: std::ops::Range<usize>) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in whole.iter().enumerate() {
        crc ^= u32::from(if blank.contains(&at) { 0 } else { *byte });
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
