//! Header hygiene: what a caller may not say to an upstream, and what an upstream may not say to a caller.
//!
//! The order is part of the promise (FWD-07): [`prepare_request`] takes out first, before anything reads the
//! headers; what the gateway adds comes after ([`remove_aliases`], then its own fields, [`ForwardedFields::add`]),
//! so nothing a caller sends can take it away again.

mod names;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::header::{CONNECTION, HOST, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use portcullis_core::{Connection, Reason, Rejection};

use names::{
    folded, is_connection_option, is_end_to_end, may_trail, stops_at_the_door, stops_on_the_way_back,
};

/// Where the caller's address is handed on.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Where the host the caller asked for is handed on.
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Where the caller's scheme is handed on.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Takes out of a request everything that concerns only the caller's hop, and everything only a proxy may say:
/// hop-by-hop fields, those `Connection` names, method and target overrides, forwarded addresses and certificates.
///
/// `TE` stays, as exactly `trailers`, if the caller takes trailers: an HTTP/2 upstream may be told so. The framing
/// of the body is not touched but for `Transfer-Encoding`; sending derives it from the body anyway.
///
/// A request that needs none of this is read once and costs no allocation.
///
/// # Errors
/// [`Reason::RequestMalformed`] if two names are two spellings of one to careless servers;
/// [`Reason::ConnectionHeaderInvalid`] if `Connection` is malformed or names a field meant for the upstream, one
/// that speaks of identity, or one of `protected`: the names of credentials and of fields the gateway sets.
pub fn prepare_request(headers: &mut HeaderMap, protected: &[HeaderName]) -> Result<(), Rejection> {
    // `Connection` and `TE` are among them.
    let unwanted = names_where(headers, stops_at_the_door);
    if unwanted.is_empty() {
        return check_spellings(headers);
    }
    remove_nominated(headers, protected)?;
    let takes_trailers = takes_trailers(headers);
    remove(headers, &unwanted);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    check_spellings(headers)
}

/// Takes out every field an upstream could mistake for one of `names`, before the gateway sets those itself.
pub fn remove_aliases(headers: &mut HeaderMap, names: &[HeaderName]) {
    // Folding changes no length, so most fields of most requests are done with here.
    let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name.as_str()));
    if lengths != 0 {
        remove_where(headers, |name| length_bit(name) & lengths != 0 && is_among(name, names));
    }
}

/// One bit for each length, the last one for all that are longer.
fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

/// Takes out every field an upstream could mistake for one of `names`, but not those themselves: a credential that is
/// passed on must be the one that was checked.
pub fn remove_other_spellings(headers: &mut HeaderMap, names: &[HeaderName]) {
    remove_where(headers, |name| is_among(name, names) && !names.iter().any(|kept| kept.as_str() == name));
}

/// Takes out of an answer what concerns only the upstream's hop, and certificate fields, which belong in no answer
/// (PRX-09). Everything else passes unchanged.
pub fn prepare_response(headers: &mut HeaderMap) {
    // `Connection` is among them.
    let unwanted = names_where(headers, stops_on_the_way_back);
    if unwanted.is_empty() {
        return;
    }
    for name in nominated(headers).into_iter().flatten() {
        // A server that names a field meant for the caller is mistaken, and the field does no harm.
        if !is_end_to_end(&folded(name.as_str())) {
            headers.remove(name);
        }
    }
    remove(headers, &unwanted);
}

/// Leaves in a trailer section only what a recipient may take from there (RFC 9110 section 6.5.1): nothing that
/// frames, routes, authenticates or changes how the head was understood.
pub fn prepare_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| {
        let name = folded(name);
        !may_trail(&name)
            && (is_end_to_end(&name) || stops_at_the_door(&name) || stops_on_the_way_back(&name))
    });
}

/// What an upstream is told about the caller's connection. Made once per connection.
#[derive(Clone, Debug)]
pub struct ForwardedFields {
    address: HeaderValue,
    scheme: HeaderValue,
}

impl ForwardedFields {
    /// Reads them off the connection, never off a request.
    pub fn of(connection: &Connection) -> Self {
        let address = HeaderValue::from_str(&connection.address().to_string())
            .unwrap_or_else(|_unprintable| HeaderValue::from_static("unknown"));
        let scheme = if connection.tls.is_some() { "https" } else { "http" };
        Self { address, scheme: HeaderValue::from_static(scheme) }
    }

    /// Sets `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`. The host is the request's `Host`, else
    /// the authority of its target.
    pub fn add(&self, headers: &mut HeaderMap, target: &Uri) {
        let host = match headers.get(HOST) {
            Some(host) => Some(host.clone()),
            None => target.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()),
        };
        headers.insert(X_FORWARDED_FOR, self.address.clone());
        headers.insert(X_FORWARDED_PROTO, self.scheme.clone());
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let unwanted = names_where(headers, unwanted);
    remove(headers, &unwanted);
}

fn names_where(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> Vec<HeaderName> {
    headers.keys().filter(|name| wanted(name.as_str())).cloned().collect()
}

/// SECURITY: two fields whose names some upstreams take for one are one field with two values to them, and conditions and
/// credentials here are judged by one of the two.
fn check_spellings(headers: &HeaderMap) -> Result<(), Rejection> {
    let odd = headers.keys().filter(|name| matches!(folded(name.as_str()), Cow::Owned(_)));
    for name in odd {
        let plain = folded(name.as_str());
        if headers.keys().any(|other| other != name && folded(other.as_str()) == plain) {
            return Err(
                Rejection::new(Reason::RequestMalformed).because(format!("`{plain}` is spelled in two ways"))
            );
        }
    }
    Ok(())
}

fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

fn remove_nominated(headers: &mut HeaderMap, protected: &[HeaderName]) -> Result<(), Rejection> {
    for name in nominated(headers) {
        let Some(name) = name else {
            return Err(Rejection::new(Reason::ConnectionHeaderInvalid).because("it is not a list of names"));
        };
        let plain = folded(name.as_str());
        if is_connection_option(&plain) {
            continue;
        }
        if is_end_to_end(&plain) || stops_at_the_door(&plain) || is_among(&plain, protected) {
            let why = format!("it names `{name}`");
            return Err(Rejection::new(Reason::ConnectionHeaderInvalid).because(why));
        }
        headers.remove(name);
    }
    Ok(())
}

/// The names in all `Connection` fields; `None` for what is not a name.
fn nominated(headers: &HeaderMap) -> Vec<Option<HeaderName>> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .filter(|name| !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive"))
        .map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

fn is_among(name: &str, names: &[HeaderName]) -> bool {
    let name = folded(name);
    names.iter().any(|ours| ours.as_str() == name || folded(ours.as_str()) == name)
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}
