//! A provider's document, read strictly.

use std::sync::Arc;

use http::Uri;
use http::uri::Authority;
use portcullis_core::json::{Limits, Object, Value, parse_object};

use super::DiscoveryError;

/// The ports of URLs that name none.
const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// Whose document is expected, and where it may lead.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The issuer, as configured.
    pub issuer: &'a str,
    /// Hosts beside the issuer's own; without a port, their port of https.
    pub hosts: &'a [Authority],
    /// Whether an issuer that is reached with plain http on this machine may lead to such URLs.
    pub loopback_http: bool,
}

/// What a provider says of itself, as far as it matters here (RFC 8414 section 2). A URL that may not be asked is a fault
/// of whoever asks for it, not of those who need another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    jwks_uri: Endpoint,
    introspection: Endpoint,
    /// The same for calls with a client certificate (RFC 8705 section 5).
    introspection_mtls: Endpoint,
}

/// A URL if there is one, or why it may not be asked.
type Endpoint = Result<Option<Arc<str>>, DiscoveryError>;

impl Metadata {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no JSON object, or another issuer's.
    pub fn read(document: &[u8], reach: Reach<'_>) -> Result<Self, DiscoveryError> {
        let document = &parse_object(document, Limits::default())?;
        // SECURITY: code point by code point, or all of it is refused (DSC-01).
        match document.get("issuer") {
            Some(Value::Text(issuer)) if **issuer == *reach.issuer => {}
            _ => return Err(DiscoveryError::OtherIssuer),
        }
        let aliases = match document.get("mtls_endpoint_aliases") {
            Some(Value::Object(aliases)) => endpoint(aliases, "introspection_endpoint", reach),
            _ => Ok(None),
        };
        Ok(Self {
            jwks_uri: endpoint(document, "jwks_uri", reach),
            introspection: endpoint(document, "introspection_endpoint", reach),
            introspection_mtls: aliases,
        })
    }

    /// Where its keys are.
    ///
    /// # Errors
    /// It does not say, or leads where it may not.
    pub fn jwks_uri(&self) -> Result<Arc<str>, DiscoveryError> {
        self.jwks_uri.clone()?.ok_or(DiscoveryError::Missing("jwks_uri"))
    }

    /// Where it is asked about tokens, by somebody who shows a certificate or does not.
    ///
    /// # Errors
    /// It does not say, or leads where it may not.
    pub fn introspection_endpoint(&self, with_certificate: bool) -> Result<Arc<str>, DiscoveryError> {
        if with_certificate && let Some(alias) = self.introspection_mtls.clone()? {
            return Ok(alias);
        }
        self.introspection.clone()?.ok_or(DiscoveryError::Missing("introspection_endpoint"))
    }
}

/// A URL of the document: on the issuer's own host and port or on ones that are configured, with https, or with plain
/// http where the issuer itself is reached so (DSC-02, JKS-02).
fn endpoint(document: &Object, name: &'static str, reach: Reach<'_>) -> Endpoint {
    let refused = |why| Err(DiscoveryError::Refused(name, why));
    let url = match document.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Text(url)) => url,
        Some(_) => return refused("it is not a string"),
    };
    let Ok(uri) = url.parse::<Uri>() else { return refused("it is not a URL") };
    let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@')) else {
        return refused("it names no host, or a user");
    };
    if url.contains('#') {
        return refused("it has a fragment");
    }
    let host = authority.host();
    let own = reach.issuer.parse::<Uri>().ok();
    let plain = own.as_ref().is_some_and(|own| own.scheme_str() == Some("http"));
    let port = match uri.scheme_str() {
        Some("https") => authority.port_u16().or(Some(HTTPS)).filter(|_| has_sound_port(authority)),
        Some("http") if plain && reach.loopback_http && is_loopback(host) => {
            authority.port_u16().or(Some(HTTP)).filter(|_| has_sound_port(authority))
        }
        _ => return refused("it is not https"),
    };
    let is_at = |other: &Authority, default| {
        other.host().eq_ignore_ascii_case(host) && port == Some(other.port_u16().unwrap_or(default))
    };
    let own_port = if plain { HTTP } else { HTTPS };
    let at_own = own.as_ref().and_then(Uri::authority).is_some_and(|own| is_at(own, own_port));
    if !at_own && !reach.hosts.iter().any(|other| is_at(other, HTTPS)) {
        return refused("its host and port are neither the issuer's nor among `hosts`");
    }
    Ok(Some(url.clone()))
}

/// Whether a port that is written is a number: `Authority` takes `+443` for one, and what is none for no port.
pub(super) fn has_sound_port(authority: &Authority) -> bool {
    match authority.port() {
        Some(port) => port.as_str().bytes().all(|byte| byte.is_ascii_digit()),
        None => authority.as_str().len() == authority.host().len(),
    }
}

/// Whether a host is a loopback address.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
