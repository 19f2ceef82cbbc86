//! Distinguished names: their attributes as values, and as text for people.

use std::sync::Arc;

use portcullis_core::NameAttribute;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The attributes people write in policies, by the words of RFC 4519 and X.520.
pub(crate) const ATTRIBUTES: &[(&str, &str)] = &[
    ("cn", "2.5.4.3"),
    ("o", "2.5.4.10"),
    ("ou", "2.5.4.11"),
    ("c", "2.5.4.6"),
    ("l", "2.5.4.7"),
    ("st", "2.5.4.8"),
    ("street", "2.5.4.9"),
    ("serial_number", "2.5.4.5"),
    ("title", "2.5.4.12"),
    ("business_category", "2.5.4.15"),
    ("organization_identifier", "2.5.4.97"),
    ("jurisdiction_country", "1.3.6.1.4.1.311.60.2.1.3"),
    ("uid", "0.9.2342.19200300.100.1.1"),
    ("dc", "0.9.2342.19200300.100.1.25"),
    ("email", "1.2.840.113549.1.9.1"),
];

/// Object identifier of the common name.
pub(crate) const COMMON_NAME: &str = "2.5.4.3";

/// The object identifier behind a word, or the word itself if it is a dotted identifier.
pub(crate) fn attribute_oid(word: &str) -> Option<&str> {
    if let Some((_, oid)) = ATTRIBUTES.iter().find(|(name, _)| *name == word) {
        return Some(oid);
    }
    let arcs = word.split('.');
    let dotted = word.contains('.')
        && arcs.into_iter().all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit()));
    dotted.then_some(word)
}

/// The attributes in the order of the certificate.
pub(crate) fn attributes(name: &X509Name<'_>) -> Vec<NameAttribute> {
    let numbered = name.iter().zip(0_u16..);
    let attributes = numbered.flat_map(|(part, relative)| part.iter().map(move |one| (one, relative)));
    attributes
        .map(|(attribute, relative)| NameAttribute {
            oid: attribute.attr_type().to_id_string().into(),
            value: value(attribute),
            relative,
        })
        .collect()
}

/// The attribute's text. SECURITY: bytes that are not clean text of their string type, and types we do not
/// decode, are shown as `#` and hex digits (RFC 4514 section 2.4): they count as a value, so that a repeated
/// attribute stays repeated, but never equal one that is plain text.
fn value(attribute: &AttributeTypeAndValue<'_>) -> Arc<str> {
    let any = attribute.attr_value();
    match decode(any.tag().0, any.data) {
        Some(text) if !text.starts_with('#') && !text.chars().any(char::is_control) => text.into(),
        _ => {
            let mut hex = String::from("#");
            push_hex(&mut hex, any.data);
            hex.into()
        }
    }
}

/// The string types of X.520, by their universal tag numbers.
pub(super) fn decode(tag: u32, data: &[u8]) -> Option<String> {
    const UTF8: u32 = 12;
    const NUMERIC: u32 = 18;
    const PRINTABLE: u32 = 19;
    const IA5: u32 = 22;
    const UNIVERSAL: u32 = 28;
    const BMP: u32 = 30;
    match tag {
        UTF8 => std::str::from_utf8(data).ok().map(str::to_owned),
        NUMERIC | PRINTABLE | IA5 => {
            data.is_ascii().then(|| data.iter().map(|byte| char::from(*byte)).collect())
        }
        BMP => {
            let units = whole_chunks::<2>(data)?.map(u16::from_be_bytes);
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        UNIVERSAL => whole_chunks::<4>(data)?.map(|unit| char::from_u32(u32::from_be_bytes(unit))).collect(),
        _ => None,
    }
}

fn whole_chunks<const N: usize>(data: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    let (chunks, rest) = data.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().copied())
}

/// Appends lower-case hex digits.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
    }
}

/// RFC 4514 text, the most specific name first. For people only: nothing is ever decided by it (OZ-06).
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let mut names: Vec<String> = name
        .iter()
        .map(|relative| relative.iter().map(attribute_text).collect::<Vec<_>>().join("+"))
        .collect();
    names.reverse();
    names.join(",")
}

fn attribute_text(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let word = ATTRIBUTES.iter().find(|(_, known)| *known == oid);
    let mut text = word.map_or_else(|| oid.clone(), |(word, _)| word.replace('_', "-").to_ascii_uppercase());
    text.push('=');
    let value = value(attribute);
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let edge = (at == 0 && matches!(character, ' ' | '#')) || (at == last && character == ' ');
        if edge || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}
