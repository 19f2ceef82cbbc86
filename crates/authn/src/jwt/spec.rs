//! `jwt:` as written in a chain.

use http::header::{AUTHORIZATION, HeaderName};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Spanned};

use super::Jwt;
use crate::binding::BindingSpec;
use crate::chain::Compiling;
use crate::place::{Place, Places, header_name};

/// Whose tokens an alternative takes, and from where.
#[derive(Clone, Debug)]
pub(crate) struct JwtSpec {
    issuer: Spanned<String>,
    header: Option<HeaderName>,
    binding: BindingSpec,
}

impl JwtSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`jwt`", faults)?;
        let issuer = fields.require("issuer", faults);
        let header = fields.get("header").map(|node| header_name(node, faults));
        let binding = BindingSpec::read(&mut fields, faults);
        fields.finish(faults);
        let issuer = issuer.and_then(|node| node.text(faults));
        Some(Self {
            issuer: issuer?,
            header: match header {
                None => None,
                Some(read) => Some(read?),
            },
            binding: binding?,
        })
    }

    /// Looks the issuer up. In `Authorization` the token follows the Bearer scheme (RFC 6750); any other header
    /// holds the token alone.
    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<Jwt> {
        let (name, issuers) = (&self.issuer, compiling.issuers);
        if !issuers.defined().iter().any(|(defined, _)| *defined == name.value) {
            faults.undefined("issuer", name, issuers.defined());
        }
        let issuer = issuers.get(&name.value)?;
        let binding = self.binding.compile(issuer.demands(), name.place, compiling, faults);
        let place = match &self.header {
            None => Place::bearer(),
            Some(header) if *header == AUTHORIZATION => Place::bearer(),
            Some(header) => Place::Header(header.clone()),
        };
        let further = binding.further_place();
        if let (Some(header), Some(_)) =
            (self.header.as_ref().filter(|name| **name != AUTHORIZATION), &further)
        {
            faults.push(
                Diagnostic::error(
                    "header_shared",
                    name.place,
                    format!("a token in `{header}` cannot come with a proof"),
                )
                .note("proofs go with `Authorization: DPoP` (RFC 9449 section 7.1): leave `header` out"),
            );
        }
        let places = Places::new(std::iter::once(place).chain(further));
        Some(Jwt { issuer: issuer.clone(), places, binding })
    }
}
