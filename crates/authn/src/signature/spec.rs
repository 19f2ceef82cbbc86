//! `signature:` as written in a chain.

use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Challenge, Diagnostic, Faults, Place as FilePlace, Scheme, Spanned};
use sfv::{Item, KeyRef, Parser, StringRef};

use super::component::{Component, Derived, Name};
use super::input::{SIGNATURE, SIGNATURE_INPUT};
use super::{ALGORITHMS, Requirement, Signature, When};
use crate::chain::Compiling;
use crate::place::{Place, Places};
use crate::signing::content_digest::{CONTENT_DIGEST, DIGEST};
use crate::signing::coverage::{Bound, Remedies, Weakness, Weaknesses, each};
use crate::signing::{Kind, SignatureKeys, SigningSettings};

/// What is covered where the policy does not say.
const DEFAULT_COVERS: [&str; 3] = ["@method", "@target-uri", "content-digest"];
/// The label in `Accept-Signature`, where the policy asks for none.
const LABEL: &str = "sig";

/// What can be written about signatures of this kind.
const KIND: Kind = Kind {
    word: "signature",
    scheme: Scheme::MessageSignature,
    algorithms: ALGORITHMS,
    all_by_default: true,
    weaknesses: &[
        ("unbound_target", Weakness::UnboundTarget),
        ("path_only", Weakness::PathOnly),
        ("unbound_host", Weakness::UnboundHost),
        ("unbound_content", Weakness::UnboundContent),
    ],
};
const REMEDIES: Remedies = Remedies {
    target: "add `\"@method\"` and `\"@target-uri\"`",
    query: "add `\"@target-uri\"`, `\"@request-target\"` or `\"@query\"`",
    host: "add `\"@target-uri\"` or `\"@authority\"`",
    content: "add `content-digest`, which is asked for only where there is content",
};

/// Which signatures an alternative takes.
#[derive(Clone, Debug)]
pub(crate) struct SignatureSpec {
    covers: Vec<Requirement>,
    settings: SigningSettings,
    label: Option<Box<str>>,
    tag: Option<Box<str>>,
    nonce_required: bool,
    scheme: Option<&'static str>,
    at: FilePlace,
}

impl SignatureSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`signature`", faults)?;
        let settings = SigningSettings::read(KIND, &mut fields, faults);
        let covers = fields.get("covers");
        let label = fields.get("label").map(|node| read_label(node, faults));
        let tag = fields.get("tag").map(|node| read_tag(node, faults));
        let nonces = [("required", true), ("optional", false)];
        let nonce = fields.get("nonce").map_or(Some(false), |node| node.one_of(&nonces, faults));
        let schemes = [("https", "https"), ("http", "http")];
        let scheme = fields.get("scheme").map(|node| node.one_of(&schemes, faults));
        fields.finish(faults);
        let settings = settings?;
        let covers = match covers {
            None => DEFAULT_COVERS
                .iter()
                .map(|name| read_requirement(&Spanned::new((*name).to_owned(), node.place), faults))
                .collect(),
            Some(node) => read_covers(node, settings.weak(), faults),
        };
        let written = |read: Option<Option<Box<str>>>| match read {
            None => Some(None),
            Some(read) => read.map(Some),
        };
        Some(Self {
            covers: covers?,
            settings,
            label: written(label)?,
            tag: written(tag)?,
            nonce_required: nonce?,
            scheme: match scheme {
                None => None,
                Some(read) => Some(read?),
            },
            at: node.place,
        })
    }

    pub(crate) fn compile(
        &self,
        keys: &Arc<SignatureKeys>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Signature> {
        if self.nonce_required && !self.settings.refuses_replays() {
            faults.error("contradiction", self.at, "`nonce: required` goes with `replay: refuse` only");
            return None;
        }
        let verifier = self.settings.compile(keys, compiling, faults)?;
        Some(Signature {
            places: Places::new([Place::Marker(SIGNATURE_INPUT), Place::Marker(SIGNATURE)]),
            verifier,
            covers: self.covers.clone().into(),
            label: self.label.clone(),
            tag: self.tag.clone(),
            nonce_required: self.nonce_required,
            scheme: self.scheme,
            challenge: Challenge::new(KIND.scheme, compiling.api.into()),
            accept_signature: self.accept_signature(faults)?,
        })
    }

    /// `sig=("@method" …);created;keyid`: what we want, for clients that can read it (RFC 9421 section 5.1).
    fn accept_signature(&self, faults: &mut Faults) -> Option<HeaderValue> {
        let components: Vec<_> =
            self.covers.iter().map(|requirement| requirement.component.identifier.as_str()).collect();
        let mut text =
            format!("{}=({});created", self.label.as_deref().unwrap_or(LABEL), components.join(" "));
        if let Some(tag) = &self.tag
            && let Ok(tag) = StringRef::from_str(tag)
        {
            text.push_str(";tag=");
            text.push_str(&sfv::ItemSerializer::new().bare_item(tag).finish());
        }
        let value = HeaderValue::from_str(&text);
        value.map_err(|error| faults.error("bad_header", self.at, error.to_string())).ok()
    }
}

fn read_label(node: &Node, faults: &mut Faults) -> Option<Box<str>> {
    let text = node.text(faults)?;
    if KeyRef::from_str(&text.value).is_ok() {
        return Some(text.value.into());
    }
    faults.error(
        "bad_name",
        text.place,
        "a label is lower-case letters, digits, and `_-.*`, beginning with a letter",
    );
    None
}

fn read_tag(node: &Node, faults: &mut Faults) -> Option<Box<str>> {
    let text = node.text(faults)?;
    if StringRef::from_str(&text.value).is_ok() {
        return Some(text.value.into());
    }
    faults.error("bad_name", text.place, "a tag is printable ASCII");
    None
}

/// SIG-02.
fn read_covers(node: &Node, weak: &Weaknesses, faults: &mut Faults) -> Option<Vec<Requirement>> {
    let read = each(node, faults, read_requirement)?;
    bound_by(&read).check(weak, &REMEDIES, node.place, faults)?;
    Some(read)
}

fn bound_by(covers: &[Requirement]) -> Bound {
    let has = |wanted: Derived| {
        covers.iter().any(|requirement| requirement.component.name == Name::Derived(wanted))
    };
    let (uri, target) = (has(Derived::TargetUri), has(Derived::RequestTarget));
    Bound {
        method: has(Derived::Method),
        host: uri || has(Derived::Authority),
        path: uri || target || has(Derived::Path),
        query: uri || target || has(Derived::Query),
        content: covers.iter().any(|requirement| {
            requirement.when == When::Content
                && [&CONTENT_DIGEST, &DIGEST].into_iter().any(|field| requirement.component.is_whole(field))
        }),
    }
}

fn read_requirement(name: &Spanned<String>, faults: &mut Faults) -> Option<Requirement> {
    let (plain, parameters) = match name.value.find(';') {
        Some(at) => name.value.split_at(at),
        None => (name.value.as_str(), ""),
    };
    let item: Option<Item> = Parser::new(&format!("\"{plain}\"{parameters}")).parse().ok();
    let component = item.as_ref().and_then(|item| Component::of(item).ok());
    let of_requests = |component: &Component| {
        component.name != Name::Derived(Derived::Status) && !component.how.req && !component.how.tr
    };
    let Some(component) = component.filter(of_requests) else {
        let mut fault =
            Diagnostic::error("bad_component", name.place, format!("`{}` cannot be covered", name.value));
        fault = fault.note(
            "names of headers in lower case, and `@method @target-uri @authority @scheme @request-target @path \
             @query @query-param;name=\"…\"`",
        );
        faults.push(fault);
        return None;
    };
    let when = match &component.name {
        Name::Field(field) if *field == CONTENT_DIGEST || *field == DIGEST => When::Content,
        Name::Field(field) if *field == AUTHORIZATION => When::Present,
        Name::Field(_) | Name::Derived(_) => When::Always,
    };
    Some(Requirement { component, when })
}
