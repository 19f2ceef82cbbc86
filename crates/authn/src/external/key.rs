//! What two requests must have in common for one answer to count for both.

use super::Told;
use super::question::host;
use crate::chain::Evidence;
use crate::place::{Found, Place};

/// A part of every question that the policy may say answers do not depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Method,
    /// The path without the query.
    Path,
    Query,
    /// The caller's address.
    Address,
}

/// What the service is told, part after part, each with its length before it, so that no two different questions
/// have one key. SECURITY: an answer counts for the question it was given to. Whatever the service could decide or name
/// the caller by is in the key, but for what the policy says it does not look at; the credential, told headers, the
/// certificate and the host are never left out.
pub(super) fn of(
    ignored: &[Part],
    told: &Told,
    evidence: &Evidence<'_>,
    found: Option<&Found<'_, '_>>,
) -> Box<[u8]> {
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
    let counts = |part: Part| !ignored.contains(&part);
    add(Some(if evidence.connection.tls.is_some() { b"https" } else { b"http" }));
    add(Some(host(evidence).as_bytes()));
    let server_name = evidence.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    add(server_name.map(str::as_bytes));
    add(Some(if head.version == http::Version::HTTP_2 { b"2" } else { b"1" }));
    add(counts(Part::Method).then(|| head.method.as_str().as_bytes()));
    add(counts(Part::Path).then(|| head.uri.path().as_bytes()));
    add(head.uri.query().filter(|_| counts(Part::Query)).map(str::as_bytes));
    let address = counts(Part::Address).then(|| evidence.connection.address().to_string());
    add(address.as_deref().map(str::as_bytes));
    for name in &told.headers {
        for value in head.headers.get_all(name) {
            add(Some(value.as_bytes()));
        }
        add(None);
    }
    if told.certificate {
        let current = evidence.certificate.filter(|certificate| certificate.is_current(evidence.now));
        add(current.map(|certificate| certificate.thumbprint.as_slice()));
    }
    key.into()
}

fn place_name(place: &Place) -> String {
    place.described()
}
