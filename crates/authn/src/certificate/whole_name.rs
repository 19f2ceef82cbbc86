//! Whole distinguished names, written as RFC 4514 text and compared as RFC 5280 section 7.1 says (CRT-06).
//!
//! SECURITY: a certificate's name is never printed to be compared: it is the text of the policy that is taken apart, and
//! what is compared are the attributes of both, in the order and grouping of the certificate.

use portcullis_core::NameAttribute;

use super::name::{ATTRIBUTES, decode, push_hex};

/// Words of RFC 4514 section 3 that policies write differently, and words OpenSSL prints.
const FURTHER_WORDS: &[(&str, &str)] = &[
    ("s", "2.5.4.8"),
    ("serialnumber", "2.5.4.5"),
    ("businesscategory", "2.5.4.15"),
    ("organizationidentifier", "2.5.4.97"),
    ("jurisdictionc", "1.3.6.1.4.1.311.60.2.1.3"),
    ("userid", "0.9.2342.19200300.100.1.1"),
    ("emailaddress", "1.2.840.113549.1.9.1"),
    ("e", "1.2.840.113549.1.9.1"),
];

/// A name, its parts in the order of the certificate: the most general first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WholeName(Vec<Vec<Part>>);

/// One attribute, its value as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    oid: String,
    value: String,
}

/// Why a text is no distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadName {
    #[error("`{0}` is not an attribute")]
    Attribute(String),
    #[error("an attribute is written `WORD=VALUE`")]
    NoEquals,
    #[error("an attribute has no value")]
    NoValue,
    #[error("`{0}` must be written behind a backslash")]
    Unescaped(char),
    #[error("what follows a backslash is neither a special character nor two hex digits")]
    Escape,
    #[error("a value behind `#` is the hex digits of its DER")]
    Hexadecimal,
    #[error("a value is not UTF-8")]
    NotText,
}

impl WholeName {
    /// Reads a name as RFC 4514 writes it: the most specific part first.
    pub(super) fn parse(text: &str) -> Result<Self, BadName> {
        let mut reader = Reader { rest: text };
        let (mut parts, mut together) = (Vec::new(), Vec::new());
        loop {
            together.push(reader.attribute()?);
            match reader.next() {
                Some('+') => {}
                Some(',') => parts.push(sorted(std::mem::take(&mut together))),
                // The value before it ends nowhere else.
                Some(other) => return Err(BadName::Unescaped(other)),
                None => break,
            }
        }
        parts.push(sorted(together));
        parts.reverse();
        Ok(Self(parts))
    }

    /// Whether a certificate's name is this one: the same parts in the same order, each with the same attributes, of
    /// which no more is compared than what a name means: neither case, nor the number of spaces, nor the type of string.
    pub(super) fn is(&self, name: &[NameAttribute]) -> bool {
        let groups = name.chunk_by(|a, b| a.relative == b.relative);
        let theirs = groups.map(|group| {
            let part = |attribute: &NameAttribute| Part {
                oid: attribute.oid.to_string(),
                value: prepared(&attribute.value),
            };
            sorted(group.iter().map(part).collect())
        });
        self.0.iter().cloned().eq(theirs)
    }
}

/// A part that holds several attributes holds them in no order.
fn sorted(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort();
    parts
}

/// Without regard to case, white space at the ends left out and within read as one space (RFC 4518 sections 2.2, 2.6).
fn prepared(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn attribute(&mut self) -> Result<Part, BadName> {
        let (word, rest) = self.rest.split_once('=').ok_or(BadName::NoEquals)?;
        let oid = oid_of(word.trim_matches(' '))?;
        self.rest = rest.trim_start_matches(' ');
        let value = if self.rest.starts_with('#') { self.hexadecimal()? } else { self.text()? };
        if value.is_empty() {
            return Err(BadName::NoValue);
        }
        Ok(Part { oid, value })
    }

    /// Up to the next separator that is not escaped.
    fn text(&mut self) -> Result<String, BadName> {
        let mut bytes = Vec::new();
        while let Some(character) = self.rest.chars().next() {
            match character {
                ',' | '+' => break,
                '"' | ';' | '<' | '>' | '=' | '\0' => return Err(BadName::Unescaped(character)),
                '\\' => {
                    self.next();
                    bytes.push(self.escaped()?);
                }
                other => {
                    self.next();
                    bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        let text = String::from_utf8(bytes).map_err(|_not_text| BadName::NotText)?;
        // A certificate's text that begins like this is kept as its bytes, so that it equals no bytes that are none.
        Ok(if text.starts_with('#') { hex(text.trim_end_matches(' ').as_bytes()) } else { prepared(&text) })
    }

    fn escaped(&mut self) -> Result<u8, BadName> {
        let first = self.next().ok_or(BadName::Escape)?;
        if matches!(first, ' ' | '"' | '#' | '+' | ',' | ';' | '<' | '=' | '>' | '\\') {
            return u8::try_from(first).map_err(|_wide| BadName::Escape);
        }
        let digit = |character: char| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let high = digit(first).ok_or(BadName::Escape)?;
        let low = self.next().and_then(digit).ok_or(BadName::Escape)?;
        Ok(high << 4 | low)
    }

    /// The DER of a value (RFC 4514 section 2.4): text, if its type is one of text.
    fn hexadecimal(&mut self) -> Result<String, BadName> {
        let end = self.rest.find([',', '+']).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let digits = digits.trim_start_matches('#').trim_matches(' ');
        let der = super::spec::hex_bytes(digits).ok_or(BadName::Hexadecimal)?;
        // One byte of type, one of length: no name has a longer value written like this.
        let (tag, data) = match der.as_slice() {
            [tag, length, data @ ..] if *length < 0x80 && usize::from(*length) == data.len() => (*tag, data),
            _ => return Err(BadName::Hexadecimal),
        };
        match decode(u32::from(tag), data) {
            Some(text) if !text.starts_with('#') && !text.chars().any(char::is_control) => {
                Ok(prepared(&text))
            }
            // As the certificate's own value is kept.
            _ => Ok(hex(data)),
        }
    }
}

fn hex(data: &[u8]) -> String {
    let mut hex = String::from("#");
    push_hex(&mut hex, data);
    hex
}

fn oid_of(word: &str) -> Result<String, BadName> {
    let lower = word.to_ascii_lowercase();
    let known = ATTRIBUTES.iter().chain(FURTHER_WORDS).find(|(known, _)| *known == lower);
    if let Some((_, oid)) = known {
        return Ok((*oid).to_owned());
    }
    let lower = lower.strip_prefix("oid.").unwrap_or(&lower);
    super::name::attribute_oid(lower).map(str::to_owned).ok_or_else(|| BadName::Attribute(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use portcullis_core::NameAttribute;

    use super::{BadName, WholeName};

    fn name(parts: &[&[(&str, &str)]]) -> Vec<NameAttribute> {
        let numbered = parts.iter().zip(0_u16..);
        numbered
            .flat_map(|(part, relative)| {
                part.iter().map(move |(oid, value)| NameAttribute {
                    oid: (*oid).into(),
                    value: (*value).into(),
                    relative,
                })
            })
            .collect()
    }

    const C: &str = "2.5.4.6";
    const O: &str = "2.5.4.10";
    const OU: &str = "2.5.4.11";
    const CN: &str = "2.5.4.3";

    /// CRT-06, trap 21.
    #[test]
    fn a_name_is_compared_part_by_part() {
        let bank = name(&[&[(C, "AE")], &[(O, "Acme, \"Bank\" + Söhne")], &[(OU, "6f1c"), (CN, "tpp  a")]]);
        for (text, expected) in [
            (r#"CN=tpp a+OU=6f1c,O=Acme\, \"Bank\" \+ Söhne,C=AE"#, true),
            (r#"OU=6F1C+CN=TPP A,O=acme\, \22bank\22 \2b s\c3\b6hne,C=ae"#, true),
            (r#"cn = tpp a + ou = 6f1c , o = Acme\, \"Bank\" \+ Söhne , c = AE"#, true),
            (r#"2.5.4.3=tpp a+OID.2.5.4.11=6f1c,O=Acme\, \"Bank\" \+ Söhne,C=AE"#, true),
            (r#"CN=tpp a+OU=#0c0436663163,O=Acme\, \"Bank\" \+ Söhne,C=#13024145"#, true),
            // Another order, another grouping, less, more.
            (r#"C=AE,O=Acme\, \"Bank\" \+ Söhne,CN=tpp a+OU=6f1c"#, false),
            (r#"CN=tpp a,OU=6f1c,O=Acme\, \"Bank\" \+ Söhne,C=AE"#, false),
            (r#"CN=tpp a+OU=6f1c,O=Acme\, \"Bank\" \+ Söhne"#, false),
            (r#"CN=tpp a+OU=6f1c,O=Acme\, \"Bank\" \+ Söhne,C=AE,DC=x"#, false),
            (r#"CN=tppa+OU=6f1c,O=Acme\, \"Bank\" \+ Söhne,C=AE"#, false),
            ("CN=tpp a+OU=6f1c,O=Acme,C=AE", false),
        ] {
            assert_eq!(WholeName::parse(text).expect(text).is(&bank), expected, "{text}");
        }
        // What one attribute says is not two attributes that say it.
        let one = name(&[&[(O, "x,CN=y")]]);
        assert!(!WholeName::parse("CN=y,O=x").expect("a name").is(&one));
        assert!(WholeName::parse(r"O=x\,CN\=y").expect("a name").is(&one));
        // Of a certificate whose names are not vouched for there are none.
        assert!(!WholeName::parse("CN=y").expect("a name").is(&[]));
    }

    #[test]
    fn bytes_that_are_no_text_equal_the_same_bytes_alone() {
        let odd = name(&[&[(CN, "#6c69")]]);
        assert!(WholeName::parse("CN=#04026c69").expect("a name").is(&odd));
        assert!(!WholeName::parse(r"CN=\#6c69").expect("a name").is(&name(&[&[(CN, "li")]])));
        assert!(!WholeName::parse("CN=li").expect("a name").is(&odd));
        assert!(!WholeName::parse(r"CN=\#6c69").expect("a name").is(&odd));
    }

    /// RFC 4514 section 4, examples.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (text, parts) in [
            ("UID=jsmith,DC=example,DC=net", 3),
            ("OU=Sales+CN=J.  Smith,DC=example,DC=net", 3),
            (r#"CN=James \"Jim\" Smith\, III,DC=example,DC=net"#, 3),
            (r"CN=Before\0dAfter,DC=example,DC=net", 3),
            ("1.3.6.1.4.1.1466.0=#04024869", 1),
            (r"CN=Lu\C4\8Di\C4\87", 1),
        ] {
            assert_eq!(WholeName::parse(text).expect(text).0.len(), parts, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, expected) in [
            ("", BadName::NoEquals),
            ("CN", BadName::NoEquals),
            ("CN=a,", BadName::NoEquals),
            ("CN=", BadName::NoValue),
            ("CN= ,O=a", BadName::NoValue),
            ("XY=a", BadName::Attribute("XY".to_owned())),
            ("CN=a;O=b", BadName::Unescaped(';')),
            ("CN=a=b", BadName::Unescaped('=')),
            ("CN=\"a\"", BadName::Unescaped('"')),
            (r"CN=a\", BadName::Escape),
            (r"CN=a\zz", BadName::Escape),
            (r"CN=a\c3", BadName::NotText),
            ("CN=#0c", BadName::Hexadecimal),
            ("CN=#0c0361", BadName::Hexadecimal),
            ("CN=#xyz", BadName::Hexadecimal),
            ("/C=AE/CN=a", BadName::Attribute("/C".to_owned())),
        ] {
            assert_eq!(WholeName::parse(text), Err(expected), "{text}");
        }
    }
}
