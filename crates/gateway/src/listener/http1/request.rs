//! A head, from bytes to the types the stages see.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use crate::listener::framing::HeadMap;
use crate::listener::{FramingFault, IncomingBody};

/// Fields that are added on the way, for which the map need not grow.
const ADDED_FIELDS: usize = 6;

/// What a connection has to remember about a request while it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) is_head: bool,
    pub(super) old_version: bool,
    /// The client waits to be asked for its body (RFC 9110 section 10.1.1).
    pub(super) expects_continue: bool,
    /// The client asks for the connection to be closed.
    pub(super) closes: bool,
    /// The client wants trailers (RFC 9110 section 10.1.4).
    pub(super) takes_trailers: bool,
}

/// Makes a request of a head that was found in `bytes`. Names and values are slices of them.
///
/// # Errors
/// The target is none after all.
pub(super) fn request(bytes: &Bytes, map: &HeadMap) -> Result<(Request<IncomingBody>, Facts), FramingFault> {
    let mut request = Request::new(IncomingBody::Empty);
    let part = |range: &std::ops::Range<usize>| bytes.get(range.clone()).unwrap_or_default();
    *request.method_mut() =
        Method::from_bytes(part(&map.method)).map_err(|_refused| FramingFault::RequestLine)?;
    *request.uri_mut() =
        Uri::from_maybe_shared(bytes.slice(map.target.clone())).map_err(|_refused| FramingFault::Target)?;
    *request.version_mut() = if map.old_version { Version::HTTP_10 } else { Version::HTTP_11 };
    let is_head = request.method() == Method::HEAD;
    let mut facts = Facts { is_head, old_version: map.old_version, ..Facts::default() };
    let mut headers = HeaderMap::with_capacity(map.fields.len() + ADDED_FIELDS);
    for (name, value) in &map.fields {
        let name = HeaderName::from_bytes(part(name)).map_err(|_refused| FramingFault::FieldName)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value.clone()))
            .map_err(|_refused| FramingFault::FieldValue)?;
        facts.note(&name, &value);
        headers.try_append(name, value).map_err(|_full| FramingFault::TooManyFields)?;
    }
    *request.headers_mut() = headers;
    Ok((request, facts))
}

impl Facts {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) {
        let says = |word: &[u8]| {
            let mut items = value.as_bytes().split(|byte| *byte == b',');
            items.any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
        };
        if *name == header::CONNECTION {
            self.closes |= says(b"close");
        } else if *name == header::EXPECT {
            self.expects_continue |= !self.old_version && says(b"100-continue");
        } else if *name == header::TE {
            self.takes_trailers |= says(b"trailers");
        }
    }
}

/// A request in the place of one whose head is at fault, so that it is refused like any other: with a reason, a
/// problem document and a line in the log.
pub(super) fn unreadable() -> (Request<IncomingBody>, Facts) {
    (Request::new(IncomingBody::Empty), Facts::default())
}
