//! Where in a request's head a credential is looked for.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use portcullis_core::document::Node;
use portcullis_core::{Faults, Reason, Rejection, Scheme};

/// One header, and for `Authorization` the scheme in front of the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    header: HeaderName,
    scheme: Option<Box<str>>,
}

/// Why what stands at a place cannot be taken for one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The header occurs more than once.
    #[error("the header occurs more than once")]
    Repeated,
    /// The scheme is right, what follows it is not a credential.
    #[error("the scheme is not followed by exactly one credential")]
    Broken,
}

impl PlaceError {
    /// The refusal. SECURITY: two fields are never weighed against each other, because the upstream may read
    /// the other one (BRR-04, KEY-01).
    pub(crate) fn rejection(self, scheme: Scheme) -> Rejection {
        let reason = match self {
            Self::Repeated => Reason::CredentialsAmbiguous,
            Self::Broken => Reason::CredentialsMalformed,
        };
        Rejection::new(reason).of(scheme).because(self.to_string())
    }
}

impl Place {
    /// `Authorization: Bearer <credential>`.
    pub(crate) fn bearer() -> Self {
        Self { header: AUTHORIZATION, scheme: Some("bearer".into()) }
    }

    /// The whole value of a header, or what follows a scheme in it.
    pub(crate) fn new(header: HeaderName, scheme: Option<&str>) -> Self {
        Self { header, scheme: scheme.map(|scheme| scheme.to_ascii_lowercase().into()) }
    }

    /// The header it reads.
    pub(crate) const fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Whether it takes the whole value of the header.
    pub(crate) const fn is_bare(&self) -> bool {
        self.scheme.is_none()
    }

    /// The credential's bytes; `None` if the header is missing or speaks of another scheme.
    ///
    /// # Errors
    /// The header is repeated, or nothing sensible follows the scheme.
    pub(crate) fn find<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h [u8]>, PlaceError> {
        let mut values = headers.get_all(&self.header).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(PlaceError::Repeated);
        }
        let value = value.as_bytes();
        match &self.scheme {
            Some(scheme) => after_scheme(value, scheme.as_bytes()),
            None if value.is_empty() => Ok(None),
            None => Ok(Some(value)),
        }
    }
}

/// What follows the scheme, whose case does not matter (ANS-03).
fn after_scheme<'v>(value: &'v [u8], scheme: &[u8]) -> Result<Option<&'v [u8]>, PlaceError> {
    let another = || if lists(value, scheme) { Err(PlaceError::Broken) } else { Ok(None) };
    let Some((head, rest)) = value.split_at_checked(scheme.len()) else { return another() };
    if !head.eq_ignore_ascii_case(scheme) {
        return another();
    }
    match rest.first() {
        Some(b' ') => match rest.iter().position(|byte| *byte != b' ').and_then(|from| rest.get(from..)) {
            Some(credential) => Ok(Some(credential)),
            None => Err(PlaceError::Broken),
        },
        Some(byte) if is_token_byte(*byte) => another(),
        _ => Err(PlaceError::Broken),
    }
}

/// Whether a value that begins with another scheme goes on, after a comma, with this one: a list of
/// credentials, of which the upstream might read the second (BRR-04).
fn lists(value: &[u8], scheme: &[u8]) -> bool {
    value.split(|byte| *byte == b',').skip(1).any(|part| {
        part.trim_ascii_start()
            .split_at_checked(scheme.len())
            .is_some_and(|(head, rest)| head.eq_ignore_ascii_case(scheme) && rest.first() == Some(&b' '))
    })
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// The name of a header a credential may travel in.
pub(crate) fn header_name(node: &Node, faults: &mut Faults) -> Option<HeaderName> {
    let text = node.text(faults)?;
    let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
        faults.error("bad_header", text.place, format!("`{}` is not a header name", text.value));
        return None;
    };
    // Fields that frame or route the message, or that our own hygiene removes, carry no credential.
    const NEVER: &[HeaderName] = &[
        http::header::HOST,
        http::header::CONNECTION,
        http::header::CONTENT_LENGTH,
        http::header::TRANSFER_ENCODING,
        http::header::TE,
        http::header::TRAILER,
        http::header::UPGRADE,
        http::header::COOKIE,
    ];
    if NEVER.contains(&name) {
        faults.error("bad_header", text.place, format!("`{name}` cannot carry a credential"));
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::{Place, PlaceError};
    use http::header::{AUTHORIZATION, HeaderName};
    use http::{HeaderMap, HeaderValue};

    fn headers(name: &'static str, values: &[&'static [u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        headers
    }

    /// BRR-01, BRR-04, ANS-03.
    #[test]
    fn a_bearer_credential_is_one_field_one_scheme_one_value() {
        let place = Place::bearer();
        for (value, expected) in [
            (&b"Bearer abc"[..], Ok(Some(&b"abc"[..]))),
            (b"bEARER   abc", Ok(Some(b"abc"))),
            (b"Basic abc", Ok(None)),
            (b"BearerX abc", Ok(None)),
            (b"", Ok(None)),
            (b"Bear", Ok(None)),
            (b"Bearer", Err(PlaceError::Broken)),
            (b"Bearer   ", Err(PlaceError::Broken)),
            (b"Bearer\tabc", Err(PlaceError::Broken)),
            (b"Bearer,Bearer abc", Err(PlaceError::Broken)),
            (b"Basic abc, Bearer def", Err(PlaceError::Broken)),
            (b"Basic abc,\tBEARER def", Err(PlaceError::Broken)),
            (b"Digest username=\"bearer\", realm=\"x\"", Ok(None)),
        ] {
            let mut map = HeaderMap::new();
            map.insert(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a header value"));
            assert_eq!(place.find(&map), expected, "{}", value.escape_ascii());
        }
    }

    /// BRR-04, KEY-01: also when both fields say the same, and when one of them is of another scheme.
    #[test]
    fn a_repeated_field_is_refused() {
        let bearer = Place::bearer();
        assert_eq!(
            bearer.find(&headers("authorization", &[b"Bearer a", b"Bearer a"])),
            Err(PlaceError::Repeated)
        );
        assert_eq!(
            bearer.find(&headers("authorization", &[b"Basic a", b"Bearer a"])),
            Err(PlaceError::Repeated)
        );
        let key = Place::new(HeaderName::from_static("x-api-key"), None);
        assert_eq!(key.find(&headers("x-api-key", &[b"a", b"b"])), Err(PlaceError::Repeated));
        assert_eq!(key.find(&headers("x-api-key", &[b"a"])), Ok(Some(&b"a"[..])));
    }
}
