//! What is signed: one line for each name of the list (draft 12 section 2.3).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;

use portcullis_core::Reason;

use super::parameters::Parameters;

/// When the request was made.
pub(crate) const DATE: HeaderName = header::DATE;
/// Stands in for `Date`, for clients that cannot set that one.
pub(crate) const X_AUX_DATE: HeaderName = HeaderName::from_static("x-aux-date");

const TARGET: &str = "(request-target)";
const CREATED: &str = "(created)";
const EXPIRES: &str = "(expires)";

/// One thing that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// Method and target.
    Target,
    /// The parameter `created`.
    Created,
    /// The parameter `expires`.
    Expires,
    /// A header.
    Header(HeaderName),
}

/// What of the target is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Path and query as sent.
    WithQuery,
    /// The path alone, as some gateways' clients sign. The query is then anybody's.
    PathOnly,
}

/// Why there is nothing to sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("it covers `{0}`, which the request does not have")]
    Missing(String),
    #[error("`{0}` occurs more than once")]
    Repeated(HeaderName),
    #[error("`{0}` is not a date")]
    Date(HeaderName),
}

impl BaseError {
    /// The reason it is refused with. What the signature covers and is not there may have been taken away on the way.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Missing(_) => Reason::SignatureInvalid,
            Self::Repeated(_) | Self::Date(_) => Reason::CredentialsMalformed,
        }
    }
}

impl Component {
    /// Reads a name, in any case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case(TARGET) => Some(Self::Target),
            _ if name.eq_ignore_ascii_case(CREATED) => Some(Self::Created),
            _ if name.eq_ignore_ascii_case(EXPIRES) => Some(Self::Expires),
            _ => HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target => TARGET,
            Self::Created => CREATED,
            Self::Expires => EXPIRES,
            Self::Header(name) => name.as_str(),
        })
    }
}

/// The bytes that are signed: `name: value` for each name, parted by line feeds, none at the end.
///
/// SECURITY: no name and no value can hold a line feed, so two different lists never give the same bytes.
pub(crate) fn build(
    covered: &[Component],
    parameters: &Parameters,
    target: Target,
    head: &Parts,
) -> Result<Vec<u8>, BaseError> {
    let mut base = Vec::with_capacity(256);
    for (at, component) in covered.iter().enumerate() {
        if at > 0 {
            base.push(b'\n');
        }
        let missing = || BaseError::Missing(component.to_string());
        match component {
            Component::Target => {
                base.extend_from_slice(b"(request-target): ");
                base.extend(head.method.as_str().bytes().map(|byte| byte.to_ascii_lowercase()));
                base.push(b' ');
                base.extend_from_slice(target_of(head, target).as_bytes());
            }
            Component::Created => {
                let created = parameters.created.ok_or_else(missing)?;
                base.extend_from_slice(format!("(created): {created}").as_bytes());
            }
            Component::Expires => {
                let expires = parameters.expires_text.as_deref().ok_or_else(missing)?;
                base.extend_from_slice(format!("(expires): {expires}").as_bytes());
            }
            Component::Header(name) => add_header(&mut base, &written_as(name, &head.headers), head)?,
        }
    }
    Ok(base)
}

/// `x-aux-date`, where it is present, stands in for `date`, and under its own name (B8).
fn written_as(name: &HeaderName, headers: &HeaderMap) -> HeaderName {
    if *name == DATE && headers.contains_key(&X_AUX_DATE) { X_AUX_DATE } else { name.clone() }
}

fn add_header(base: &mut Vec<u8>, name: &HeaderName, head: &Parts) -> Result<(), BaseError> {
    base.extend_from_slice(name.as_str().as_bytes());
    base.extend_from_slice(b": ");
    let mut values = head.headers.get_all(name).iter().map(HeaderValue::as_bytes).peekable();
    if values.peek().is_none() {
        // HTTP/2 says the host beside the path.
        let host = head.uri.authority().filter(|_| *name == header::HOST);
        let host = host.ok_or_else(|| BaseError::Missing(name.to_string()))?;
        base.extend_from_slice(host.as_str().as_bytes());
        return Ok(());
    }
    for (at, value) in values.enumerate() {
        if at > 0 {
            base.extend_from_slice(b", ");
        }
        base.extend_from_slice(value.trim_ascii());
    }
    Ok(())
}

/// The target as it was sent: `Uri` keeps path and query byte for byte.
fn target_of(head: &Parts, target: Target) -> &str {
    match target {
        Target::WithQuery => head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        Target::PathOnly => head.uri.path(),
    }
}

/// Every moment the signature says it was made at.
///
/// SECURITY: only those it covers. Anybody could write another one beside it, and have it forgotten too early that the
/// signature was used.
pub(crate) fn moments(
    covered: &[Component],
    created: Option<i64>,
    headers: &HeaderMap,
) -> Result<Vec<i64>, BaseError> {
    let mut moments = Vec::new();
    for component in covered {
        match component {
            Component::Created => {
                moments.push(created.ok_or_else(|| BaseError::Missing(component.to_string()))?);
            }
            Component::Header(name) if *name == DATE || *name == X_AUX_DATE => {
                moments.push(date(&written_as(name, headers), headers)?);
            }
            Component::Target | Component::Expires | Component::Header(_) => {}
        }
    }
    Ok(moments)
}

/// A date in the one form that may be sent (RFC 9110 section 5.6.7).
fn date(name: &HeaderName, headers: &HeaderMap) -> Result<i64, BaseError> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(if headers.contains_key(name) {
            BaseError::Repeated(name.clone())
        } else {
            BaseError::Missing(name.to_string())
        });
    };
    let text = value.to_str().map_err(|_| BaseError::Date(name.clone()))?;
    let time = httpdate::parse_http_date(text).map_err(|_| BaseError::Date(name.clone()))?;
    // The library also takes the obsolete forms, one of which names no century.
    if httpdate::fmt_http_date(time) != text {
        return Err(BaseError::Date(name.clone()));
    }
    Ok(unix_seconds(time))
}

fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}
