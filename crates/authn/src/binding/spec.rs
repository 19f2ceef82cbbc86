//! `bound_to:` and `dpop:` as written beside a token's issuer.

use http::header::{AUTHORIZATION, HeaderName};
use portcullis_core::document::Fields;
use portcullis_core::{Diagnostic, Faults, Place as FilePlace};

use super::{Binding, Demands};
use crate::chain::Compiling;
use crate::dpop::DpopSpec;
use crate::place::{Place, Places};

/// What an API asks of tokens beside what they say themselves.
#[derive(Clone, Debug)]
pub(crate) struct BindingSpec {
    to_certificate: Option<FilePlace>,
    dpop: Option<DpopSpec>,
}

impl BindingSpec {
    /// Reads the two keys among those of an authenticator.
    pub(crate) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Self> {
        let bound_to = fields.get("bound_to");
        let to_certificate = bound_to.map(|node| node.one_of(&[("certificate", Some(node.place))], faults));
        let dpop = fields.get("dpop").map(|node| DpopSpec::read(node, faults));
        Some(Self {
            to_certificate: to_certificate.unwrap_or(Some(None))?,
            dpop: dpop.map_or(Some(None), |read| read.map(Some))?,
        })
    }

    /// Joins it with what the issuer asks of all its tokens; `issuer` is where that is named.
    pub(crate) fn compile(
        &self,
        of_issuer: Demands,
        issuer: FilePlace,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Binding {
        let dpop = self.dpop.as_ref().map(|spec| Box::new(spec.compile(compiling)));
        let demands = Demands {
            certificate: self.to_certificate.is_some() || of_issuer.certificate,
            key: dpop.as_ref().is_some_and(|dpop| dpop.required) || of_issuer.key,
            ..of_issuer
        };
        // Where either would do, proofs do without any certificate.
        let certificate_alone =
            demands.certificate || demands.certificate_needed || (demands.holder && dpop.is_none());
        if certificate_alone && !compiling.certificates_asked {
            faults.push(
                Diagnostic::error(
                    "certificate_never_asked",
                    self.to_certificate.unwrap_or(issuer),
                    "no listener asks for client certificates, so no token could ever be used",
                )
                .note("add `client_certificates:` with `ask` to a listener's `tls`"),
            );
        }
        Binding { demands, dpop }
    }
}

impl Binding {
    /// Where the token stands: in `Authorization` behind its scheme (RFC 6750, RFC 9449), in any other header alone.
    /// `issuer` is where the token's issuer is named.
    pub(crate) fn places(
        &self,
        header: Option<&HeaderName>,
        issuer: FilePlace,
        faults: &mut Faults,
    ) -> Places {
        let header = header.filter(|name| **name != AUTHORIZATION);
        let further = self.further_place();
        if let (Some(header), Some(_)) = (header, &further) {
            faults.push(
                Diagnostic::error(
                    "header_shared",
                    issuer,
                    format!("a token in `{header}` cannot come with a proof"),
                )
                .note("proofs go with `Authorization: DPoP` (RFC 9449 section 7.1): leave `header` out"),
            );
        }
        let own = header.map_or_else(Place::bearer, |header| Place::Header(header.clone()));
        Places::new(std::iter::once(own).chain(further))
    }
}
