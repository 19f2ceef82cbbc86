//! `jwt:` as written in a chain.

use http::header::{AUTHORIZATION, HeaderName};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place as FilePlace, Spanned};

use super::Jwt;
use crate::chain::Compiling;
use crate::place::{Place, header_name};

/// Whose tokens an alternative takes, and from where.
#[derive(Clone, Debug)]
pub(crate) struct JwtSpec {
    issuer: Spanned<String>,
    header: Option<HeaderName>,
    bound_to_certificate: Option<FilePlace>,
}

impl JwtSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`jwt`", faults)?;
        let issuer = fields.require("issuer", faults);
        let (bound_to, header) = (fields.get("bound_to"), fields.get("header"));
        fields.finish(faults);
        let issuer = issuer.and_then(|node| node.text(faults));
        let bound_to = bound_to.map(|node| node.one_of(&[("certificate", Some(node.place))], faults));
        let header = header.map(|node| header_name(node, faults));
        Some(Self {
            issuer: issuer?,
            header: match header {
                None => None,
                Some(read) => Some(read?),
            },
            bound_to_certificate: bound_to.unwrap_or(Some(None))?,
        })
    }

    /// Looks the issuer up. In `Authorization` the token follows the Bearer scheme (RFC 6750); any other header
    /// holds the token alone.
    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<Jwt> {
        let (name, issuers) = (&self.issuer, compiling.issuers);
        if !issuers.defined().iter().any(|(defined, _)| *defined == name.value) {
            faults.undefined("issuer", name, issuers.defined());
        }
        let issuer = issuers.get(&name.value).cloned();
        let by_issuer = issuer.as_ref().filter(|issuer| issuer.needs_certificate()).map(|_| name.place);
        let needs_certificate = self.bound_to_certificate.or(by_issuer);
        if let Some(place) = needs_certificate.filter(|_| compiling.trust_anchors.is_empty()) {
            faults.push(
                Diagnostic::error(
                    "certificate_never_asked",
                    place,
                    "no listener asks for client certificates, so no token could ever be used",
                )
                .note("add `client_certificates:` with `ask` and `trust` to a listener's `tls`"),
            );
        }
        let place = match &self.header {
            None => Place::bearer(),
            Some(header) if *header == AUTHORIZATION => Place::bearer(),
            Some(header) => Place::Header(header.clone()),
        };
        let bound_to_certificate = self.bound_to_certificate.is_some();
        Some(Jwt { issuer: issuer?, places: place.into(), bound_to_certificate })
    }
}
