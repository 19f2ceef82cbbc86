//! `hmac:` as written in a chain.

use std::sync::Arc;

use http::HeaderName;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Challenge, Diagnostic, Faults, Place as FilePlace, Scheme, Spanned};
use portcullis_jose::MessageAlgorithm;

use super::base::{Component, DATE, Target};
use super::{ALGORITHMS, Hmac, Requirement};
use crate::chain::Compiling;
use crate::place::{Place, Places};
use crate::signing::content_digest::{CONTENT_DIGEST, DIGEST};
use crate::signing::{SignatureKeys, SigningSettings};

/// The words an authorization may begin with.
const SCHEMES: [&str; 2] = ["signature", "hmac"];
/// Where the older form travels outside of `Authorization`.
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// What is so weak that a policy must ask for it by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weakness {
    Sha1,
    UnboundTarget,
}

const WEAKNESSES: &[(&str, Weakness)] =
    &[("sha1", Weakness::Sha1), ("unbound_target", Weakness::UnboundTarget)];

/// Which signatures an alternative takes.
#[derive(Clone, Debug)]
pub(crate) struct HmacSpec {
    algorithms: Vec<MessageAlgorithm>,
    covers: Vec<Requirement>,
    settings: SigningSettings,
    places: Places,
    target: Target,
    unlisted: Component,
    at: FilePlace,
}

impl HmacSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`hmac`", faults)?;
        let weak = fields.get("accept_weak").map_or(Some(Vec::new()), |node| words(node, WEAKNESSES, faults));
        let algorithms = fields.require("algorithms", faults);
        let covers = fields.get("covers");
        let settings = SigningSettings::read(&mut fields, faults);
        let places = fields.get("header").map_or_else(
            || Some(authorization()),
            |node| node.one_of(&[("authorization", false), ("signature", true)], faults).map(places),
        );
        let targets = [("with_query", Target::WithQuery), ("path_only", Target::PathOnly)];
        let target = fields
            .get("request_target")
            .map_or(Some(Target::WithQuery), |node| node.one_of(&targets, faults));
        let unlisted = fields
            .get("unlisted")
            .map_or(Some(false), |node| node.one_of(&[("date", false), ("(created)", true)], faults));
        fields.finish(faults);
        let weak = weak?;
        let algorithms = algorithms.and_then(|node| read_algorithms(node, &weak, faults));
        let covers = match covers {
            None => {
                Some(vec![Requirement::Exactly(Component::Target), Requirement::Moment, Requirement::Digest])
            }
            Some(node) => read_covers(node, &weak, faults),
        };
        Some(Self {
            algorithms: algorithms?,
            covers: covers?,
            settings: settings?,
            places: places?,
            target: target?,
            unlisted: if unlisted? { Component::Created } else { Component::Header(DATE) },
            at: node.place,
        })
    }

    pub(crate) fn compile(
        &self,
        keys: &Arc<SignatureKeys>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Hmac> {
        let kind = ("hmac", Scheme::Signature);
        let verifier = self.settings.compile(kind, keys, (&self.algorithms, self.at), compiling, faults)?;
        let covers: Vec<_> = self.covers.iter().map(ToString::to_string).collect();
        let challenge =
            Challenge::new(Scheme::Signature, compiling.api.into()).with("headers", covers.join(" "));
        Some(Hmac {
            places: self.places.clone(),
            verifier,
            covers: self.covers.clone().into(),
            target: self.target,
            unlisted: self.unlisted.clone(),
            challenge,
        })
    }
}

fn authorization() -> Places {
    Places::new(SCHEMES.map(Place::authorization))
}

fn places(in_signature: bool) -> Places {
    if in_signature { Places::from(Place::Header(SIGNATURE)) } else { authorization() }
}

/// Words of a list, each known and written once.
fn words<T: Copy + PartialEq>(node: &Node, known: &[(&str, T)], faults: &mut Faults) -> Option<Vec<T>> {
    let items = node.list(faults)?;
    let mut read = Vec::new();
    for item in items {
        let word = item.one_of(known, faults)?;
        if read.contains(&word) {
            faults.error("twice", item.place, "this is written twice");
            return None;
        }
        read.push(word);
    }
    Some(read)
}

fn read_algorithms(node: &Node, weak: &[Weakness], faults: &mut Faults) -> Option<Vec<MessageAlgorithm>> {
    let algorithms = words(node, ALGORITHMS, faults)?;
    if algorithms.contains(&MessageAlgorithm::HmacSha1) && !weak.contains(&Weakness::Sha1) {
        faults.push(
            Diagnostic::error(
                "weak_algorithm",
                node.place,
                "SHA-1 is broken, and nobody should sign with it any more",
            )
            .note("if its callers cannot be moved yet, say so: `accept_weak: [sha1]`"),
        );
        return None;
    }
    Some(algorithms)
}

fn read_covers(node: &Node, weak: &[Weakness], faults: &mut Faults) -> Option<Vec<Requirement>> {
    let names = node.texts(faults)?;
    let read: Vec<_> = names.iter().filter_map(|name| read_requirement(name, faults)).collect();
    if read.len() < names.len() {
        return None;
    }
    let made = [Requirement::Moment, Requirement::Exactly(Component::Created)];
    if !made.iter().any(|moment| read.contains(moment)) {
        faults.push(
            Diagnostic::error("covers_too_little", node.place, "nothing here says when a request was signed")
                .note("add `date` (which `x-aux-date` and `(created)` satisfy too) or `(created)`"),
        );
        return None;
    }
    if !read.contains(&Requirement::Exactly(Component::Target)) && !weak.contains(&Weakness::UnboundTarget) {
        faults.push(
            Diagnostic::error(
                "covers_too_little",
                node.place,
                "a signature would be good for any other request",
            )
            .note("add `(request-target)`, or say that you want that: `accept_weak: [unbound_target]`"),
        );
        return None;
    }
    Some(read)
}

fn read_requirement(name: &Spanned<String>, faults: &mut Faults) -> Option<Requirement> {
    let Some(component) = Component::parse(&name.value) else {
        faults.push(
            Diagnostic::error("bad_header", name.place, format!("`{}` cannot be signed", name.value))
                .note("names of headers, and `(request-target)`, `(created)`, `(expires)`"),
        );
        return None;
    };
    Some(match component {
        Component::Header(name) if name == DATE => Requirement::Moment,
        Component::Header(name) if name == DIGEST || name == CONTENT_DIGEST => Requirement::Digest,
        other => Requirement::Exactly(other),
    })
}
