//! PEM (RFC 7468), as far as key files need it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use zeroize::Zeroizing;

use super::KeyError;

/// One block: its label and its DER.
pub(crate) struct Block {
    pub(crate) label: String,
    /// A block may hold a private key, so it is wiped.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// All blocks of a text. What stands outside blocks is commentary and is skipped, as RFC 7468 allows.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<Block>, KeyError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyError::NoKey)?;
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = label(line, BEGIN) else { continue };
        let number = blocks.len() + 1;
        let mut body = Zeroizing::new(String::new());
        loop {
            let line = lines.next().ok_or(KeyError::PemMalformed(number))?;
            match self::label(line, END) {
                Some(end) if end == label => break,
                Some(_) => return Err(KeyError::PemMalformed(number)),
                None => body.push_str(line),
            }
        }
        let der = STANDARD.decode(body.as_bytes()).map_err(|_| KeyError::PemMalformed(number))?;
        blocks.push(Block { label: label.to_owned(), der: Zeroizing::new(der) });
    }
    Ok(blocks)
}

fn label<'l>(line: &'l str, start: &str) -> Option<&'l str> {
    line.strip_prefix(start)?.strip_suffix(DASHES)
}
