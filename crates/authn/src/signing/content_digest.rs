//! Digests of the content: `Content-Digest` (RFC 9530) and, for those who sign the older form, `Digest` (RFC 3230).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use portcullis_jose::digest::{constant_time_eq, sha256, sha512};
use sfv::{Dictionary, ListEntry, Parser};

/// The field of RFC 9530.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// The field of RFC 3230.
pub(crate) const DIGEST: HeaderName = HeaderName::from_static("digest");

/// The most members of a field that are looked at.
const MAX_MEMBERS: usize = 16;

/// Which of the fields a signature covers. SECURITY: one that is not covered says nothing, whoever wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Covered {
    pub(crate) content_digest: bool,
    pub(crate) digest: bool,
}

impl Covered {
    /// Whether it covers either.
    pub(crate) const fn any(self) -> bool {
        self.content_digest || self.digest
    }
}

/// What the content must hash to. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests(Vec<Expected>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Sha256(Vec<u8>),
    Sha512(Vec<u8>),
}

/// Why a field cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// `Content-Digest`.
    #[error("Content-Digest is malformed")]
    ContentDigest,
    /// `Digest`.
    #[error("Digest is malformed")]
    Digest,
    /// Either.
    #[error("there are too many digests")]
    TooMany,
}

impl Expected {
    fn named(name: &str, digest: Vec<u8>) -> Option<Self> {
        if name.eq_ignore_ascii_case("sha-256") {
            Some(Self::Sha256(digest))
        } else if name.eq_ignore_ascii_case("sha-512") {
            Some(Self::Sha512(digest))
        } else {
            // Deprecated ones (`md5`, `sha`, `unixsum` …) and unknown ones are as if they were not there (DIG-01).
            None
        }
    }
}

impl Digests {
    /// The digests of the covered fields with an algorithm that means something; `None` if there are none.
    pub(crate) fn of(covered: Covered, headers: &HeaderMap) -> Result<Option<Self>, DigestError> {
        let mut expected = Vec::new();
        if covered.content_digest {
            read_content_digest(&joined(headers, &CONTENT_DIGEST), &mut expected)?;
        }
        if covered.digest {
            read_digest(&joined(headers, &DIGEST), &mut expected)?;
        }
        Ok((!expected.is_empty()).then_some(Self(expected)))
    }

    /// Whether the content has all of them (DIG-01).
    pub(crate) fn match_content(&self, content: &[u8]) -> bool {
        self.0.iter().all(|expected| match expected {
            Expected::Sha256(digest) => constant_time_eq(digest, &sha256(content)),
            Expected::Sha512(digest) => constant_time_eq(digest, &sha512(content)),
        })
    }
}

/// One field over several lines is one list (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    lines.join(&b", "[..])
}

/// A dictionary of byte sequences (RFC 9530 section 2).
fn read_content_digest(field: &[u8], expected: &mut Vec<Expected>) -> Result<(), DigestError> {
    let members: Dictionary = Parser::new(field).parse().map_err(|_| DigestError::ContentDigest)?;
    if members.len() > MAX_MEMBERS {
        return Err(DigestError::TooMany);
    }
    for (name, entry) in &members {
        let ListEntry::Item(item) = entry else { return Err(DigestError::ContentDigest) };
        let digest = item.bare_item.as_byte_sequence().ok_or(DigestError::ContentDigest)?;
        expected.extend(Expected::named(name.as_str(), digest.to_vec()));
    }
    Ok(())
}

/// `algorithm=value`, separated by commas; names in any case, values in the algorithm's own form (RFC 3230
/// section 4.3.2).
fn read_digest(field: &[u8], expected: &mut Vec<Expected>) -> Result<(), DigestError> {
    let field = std::str::from_utf8(field).map_err(|_| DigestError::Digest)?;
    let members = || field.split(',').map(str::trim_ascii).filter(|member| !member.is_empty());
    if members().count() > MAX_MEMBERS {
        return Err(DigestError::TooMany);
    }
    for member in members() {
        let (name, value) = member.split_once('=').ok_or(DigestError::Digest)?;
        if Expected::named(name, Vec::new()).is_some() {
            let digest = STANDARD.decode(value).map_err(|_| DigestError::Digest)?;
            expected.extend(Expected::named(name, digest));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Covered, DigestError, Digests};

    const BOTH: Covered = Covered { content_digest: true, digest: true };
    /// RFC 9530 appendix D: the content and its digests.
    const HELLO: &[u8] = b"{\"hello\": \"world\"}\n";
    const SHA_256: &str = "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=";
    const SHA_512: &str =
        "YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn judge(name: &'static str, value: &str) -> Result<Option<bool>, DigestError> {
        Ok(Digests::of(BOTH, &headers(&[(name, value)]))?.map(|digests| digests.match_content(HELLO)))
    }

    /// DIG-01.
    #[test]
    fn every_known_digest_must_match() {
        let other = "AAAAqy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=";
        for (value, expected) in [
            (format!("sha-256=:{SHA_256}:"), Ok(Some(true))),
            (format!("sha-512=:{SHA_512}:"), Ok(Some(true))),
            (format!("sha-256=:{SHA_256}:, sha-512=:{SHA_512}:"), Ok(Some(true))),
            (format!("sha-256=:{SHA_256}:;x=1, unixsum=:AAAA:"), Ok(Some(true))),
            (format!("sha-512=:{SHA_512}:, sha-256=:{other}:"), Ok(Some(false))),
            (format!("sha-256=:{other}:"), Ok(Some(false))),
            ("sha-256=::".to_owned(), Ok(Some(false))),
            (format!("sha-512=:{SHA_256}:"), Ok(Some(false))),
            (String::new(), Ok(None)),
            ("md5=:AAAA:, sha=:AAAA:".to_owned(), Ok(None)),
            (format!("sha-256={SHA_256}"), Err(DigestError::ContentDigest)),
            (format!("sha-256=\"{SHA_256}\""), Err(DigestError::ContentDigest)),
            (format!("SHA-256=:{SHA_256}:"), Err(DigestError::ContentDigest)),
            ("sha-256".to_owned(), Err(DigestError::ContentDigest)),
            (format!("sha-256=(:{SHA_256}:)"), Err(DigestError::ContentDigest)),
            (
                (0..17).map(|n| format!("a{n}=:AAAA:")).collect::<Vec<_>>().join(","),
                Err(DigestError::TooMany),
            ),
        ] {
            assert_eq!(judge("content-digest", &value), expected, "{value}");
        }
        for (value, expected) in [
            (format!("SHA-256={SHA_256}"), Ok(Some(true))),
            (format!("sha-256={SHA_256},sha-512={SHA_512}"), Ok(Some(true))),
            (format!("md5=x, SHA-512={SHA_512}"), Ok(Some(true))),
            (format!("SHA-256={SHA_256},SHA-256={other}"), Ok(Some(false))),
            (format!("SHA-256={other}"), Ok(Some(false))),
            ("md5=x".to_owned(), Ok(None)),
            ("SHA-256".to_owned(), Err(DigestError::Digest)),
            ("SHA-256=:AAAA:".to_owned(), Err(DigestError::Digest)),
            (format!("SHA-256={}", SHA_256.trim_end_matches('=')), Err(DigestError::Digest)),
        ] {
            assert_eq!(judge("digest", &value), expected, "{value}");
        }
    }

    #[test]
    fn a_field_that_is_not_covered_says_nothing() {
        let fields = headers(&[("content-digest", "sha-256=:AAAA:"), ("digest", "!!!")]);
        assert_eq!(Digests::of(Covered::default(), &fields), Ok(None));
        let only = Covered { digest: false, content_digest: true };
        assert!(Digests::of(only, &fields).is_ok_and(|found| found.is_some()));
    }

    #[test]
    fn lines_of_one_field_are_one_list() {
        let lines = [format!("sha-256=:{SHA_256}:"), "sha-512=:AAAA:".to_owned()];
        let fields = headers(&[("content-digest", &lines[0]), ("content-digest", &lines[1])]);
        let digests = Digests::of(BOTH, &fields).expect("a field").expect("digests");
        assert!(!digests.match_content(HELLO));
    }
}
