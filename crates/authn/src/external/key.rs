//! What two requests must have in common for one answer to count for both.

use ::http::header::{COOKIE, HeaderName};

use super::question::host;
use crate::chain::Evidence;
use crate::place::{Found, Place};

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All values of a header.
    Header(HeaderName),
    Method,
    /// The path without the query.
    Path,
    Query,
    Host,
    /// The caller's address.
    Address,
    /// The caller's certificate.
    Certificate,
}

/// The parts one after the other, each with its length before it, so that no two different requests have one key.
/// SECURITY: the credential is always the first of them.
pub(super) fn of(parts: &[Part], evidence: &Evidence<'_>, found: Option<&Found<'_, '_>>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(256);
    let mut add = |bytes: Option<&[u8]>| {
        // A part that is not there differs from one that is empty.
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(bytes.unwrap_or_default());
    };
    match found {
        Some(found) => {
            add(Some(place_name(found.place).as_bytes()));
            add(Some(&found.credential));
        }
        None => add(None),
    }
    let head = evidence.head;
    for part in parts {
        match part {
            Part::Header(name) => {
                for value in head.headers.get_all(name) {
                    add(Some(value.as_bytes()));
                }
                add(None);
            }
            Part::Method => add(Some(head.method.as_str().as_bytes())),
            Part::Path => add(Some(head.uri.path().as_bytes())),
            Part::Query => add(head.uri.query().map(str::as_bytes)),
            Part::Host => add(Some(host(evidence).as_bytes())),
            Part::Address => add(Some(evidence.connection.address().to_string().as_bytes())),
            Part::Certificate => {
                let current = evidence.certificate.filter(|certificate| certificate.is_current(evidence.now));
                add(current.map(|certificate| certificate.thumbprint.as_slice()));
            }
        }
    }
    key.into()
}

fn place_name(place: &Place) -> String {
    place.described()
}

/// Whether a field says who is calling, so that an answer must not count for a request that has another one.
pub(super) fn identifies(name: &HeaderName) -> bool {
    *name == ::http::header::AUTHORIZATION || *name == COOKIE
}
