//! `jwt:` as written in a chain.

use http::header::HeaderName;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Spanned};

use super::Jwt;
use crate::binding::BindingSpec;
use crate::chain::Compiling;
use crate::place::header_name;

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
        if issuers.introspected(&name.value).is_some() && issuers.get(&name.value).is_none() {
            faults.push(
                Diagnostic::error(
                    "not_signed",
                    name.place,
                    format!("the tokens of `{}` are not verified by a signature", name.value),
                )
                .note(
                    "write `token:` here to ask its provider, or add `keys` and `algorithms` to the issuer",
                ),
            );
        }
        let issuer = issuers.get(&name.value)?;
        let binding = self.binding.compile(issuer.demands(), name.place, compiling, faults);
        let places = binding.places(self.header.as_ref(), name.place, faults);
        Some(Jwt { issuer: issuer.clone(), places, binding })
    }
}
