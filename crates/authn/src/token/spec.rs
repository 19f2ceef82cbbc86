//! `token:` as written in a chain.

use std::sync::Arc;

use http::header::HeaderName;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Spanned};

use super::{Respondents, Token};
use crate::binding::{Binding, BindingSpec};
use crate::chain::Compiling;
use crate::introspection::Introspection;
use crate::place::header_name;

/// Who is asked about the tokens an alternative takes, and from where they come.
#[derive(Clone, Debug)]
pub(crate) struct TokenSpec {
    issuers: Vec<Spanned<String>>,
    header: Option<HeaderName>,
    binding: BindingSpec,
}

impl TokenSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`token`", faults)?;
        let issuers = fields.require("issuer", faults);
        let header = fields.get("header").map(|node| header_name(node, faults));
        let binding = BindingSpec::read(&mut fields, faults);
        fields.finish(faults);
        let issuers = issuers.and_then(|node| node.texts(faults));
        Some(Self {
            issuers: issuers?,
            header: header.map_or(Some(None), |read| read.map(Some))?,
            binding: binding?,
        })
    }

    /// Looks the providers up. In `Authorization` the token follows the Bearer scheme (RFC 6750); any other header
    /// holds the token alone.
    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<Token> {
        let providers: Vec<_> = self.issuers.iter().map(|name| provider(name, compiling, faults)).collect();
        for (at, name) in self.issuers.iter().enumerate() {
            if self.issuers.iter().take(at).any(|other| other.value == name.value) {
                faults.error("duplicate", name.place, format!("`{}` is named twice", name.value));
                return None;
            }
        }
        let providers = providers.into_iter().collect::<Option<Vec<_>>>()?;
        let bindings: Box<[Binding]> = providers
            .iter()
            .zip(&self.issuers)
            .map(|(entry, name)| self.binding.compile(entry.terms.demands(), name.place, compiling, faults))
            .collect();
        let place = self.issuers.first()?.place;
        let places = bindings.first()?.places(self.header.as_ref(), place, faults);
        Some(Token { places, asked: Arc::new(Respondents::new(providers)), bindings })
    }
}

fn provider(
    name: &Spanned<String>,
    compiling: &Compiling<'_>,
    faults: &mut Faults,
) -> Option<Arc<Introspection>> {
    let issuers = compiling.issuers;
    if let Some(found) = issuers.introspected(&name.value) {
        return Some(found.clone());
    }
    if !issuers.defined().iter().any(|(defined, _)| *defined == name.value) {
        faults.undefined("issuer", name, issuers.defined());
    } else if issuers.get(&name.value).is_some() {
        faults.push(
            Diagnostic::error(
                "not_introspected",
                name.place,
                format!("nobody is asked about the tokens of `{}`", name.value),
            )
            .note("add `introspect:` to the issuer, or write `jwt:` here to verify its tokens by their signature"),
        );
    }
    None
}
