//! What is known about a request when its rules are judged.

use std::borrow::Cow;
use std::net::IpAddr;

use http::request::Parts;
use portcullis_core::{Identity, Moment, PeerCertificate, Principal};

use crate::Granted;

/// What is known about a request when its rules are judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request's head. Its path is in normal form.
    pub head: &'a Parts,
    /// Reads the host the request was routed by off its head: lower case, without port. Few rules ask.
    pub host: fn(&Parts) -> Option<Cow<'_, str>>,
    /// The path relative to the API: what the `/*` of its `match` stood for, starting with `/`.
    pub path_in_api: &'a str,
    /// The caller's address, as [`portcullis_core::Connection::address`] gives it.
    pub address: IpAddr,
    /// Who is calling.
    pub principal: &'a Principal,
    /// The caller's certificate.
    pub certificate: Option<&'a PeerCertificate>,
    /// What the caller's plans give, where the API takes some.
    pub granted: Option<Granted<'a>>,
    /// When the request was opened.
    pub now: Moment,
}

impl<'a> Facts<'a> {
    /// Whether the caller's plans give a rule of the API, by its position.
    pub(crate) fn is_given(&self, rule: usize) -> bool {
        self.granted.is_none_or(|granted| granted.gives(rule, &self.head.method, self.path_in_api))
    }

    /// The identity whose scopes and claims count.
    pub(crate) fn grant(&self) -> &'a Identity {
        self.principal.grant()
    }

    /// The caller's certificate, while it counts. SECURITY: connections outlive certificates and revocation
    /// lists, and not every chain looks at the certificate, so a rule looks itself (TLS-05).
    pub(crate) fn current_certificate(&self) -> Option<&'a PeerCertificate> {
        self.certificate.filter(|certificate| certificate.is_current(self.now))
    }
}
