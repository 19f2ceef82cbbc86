//! What is known about a request when its rules are judged.

use std::net::IpAddr;

use http::request::Parts;
use portcullis_core::{AuthMethod, Identity, Moment, PeerCertificate, Principal};

/// What is known about a request when its rules are judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request's head. Its path is in normal form.
    pub head: &'a Parts,
    /// The host the request was routed by: lower case, without port.
    pub host: &'a str,
    /// The path relative to the API: what the `/*` of its `match` stood for, starting with `/`.
    pub path_in_api: &'a str,
    /// The caller's address, as [`portcullis_core::Connection::address`] gives it.
    pub address: IpAddr,
    /// Who is calling.
    pub principal: &'a Principal,
    /// The certificate of the connection.
    pub certificate: Option<&'a PeerCertificate>,
    /// When the request was opened.
    pub now: Moment,
}

impl<'a> Facts<'a> {
    /// The identity whose scopes and claims count: the one that names the caller, unless that one is no token
    /// and another one of the same request is. SECURITY: never a union, because two tokens of one request may
    /// speak about two subjects, and what one subject may do must not be lent to the other.
    pub(crate) fn grant(&self) -> &'a Identity {
        let naming = &self.principal.identity;
        if naming.method == AuthMethod::Jwt {
            return naming;
        }
        self.principal.others.iter().find(|identity| identity.method == AuthMethod::Jwt).unwrap_or(naming)
    }
}
