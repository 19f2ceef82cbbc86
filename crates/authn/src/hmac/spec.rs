//! `hmac:` as written in a chain.

use std::sync::Arc;

use http::HeaderName;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Challenge, Diagnostic, Faults, Scheme, Spanned};

use super::base::{Component, DATE, Target};
use super::{ALGORITHMS, Hmac, Requirement};
use crate::chain::Compiling;
use crate::place::{Place, Places};
use crate::signing::content_digest::{CONTENT_DIGEST, DIGEST};
use crate::signing::coverage::{Bound, Remedies, Weakness, each};
use crate::signing::{Kind, SignatureKeys, SigningSettings};

/// The words an authorization may begin with.
const SCHEMES: [&str; 2] = ["signature", "hmac"];
/// Where the older form travels outside of `Authorization`.
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// What can be written about signatures of this kind.
const KIND: Kind = Kind {
    word: "hmac",
    scheme: Scheme::Signature,
    algorithms: ALGORITHMS,
    all_by_default: false,
    weaknesses: &[
        ("sha1", Weakness::Sha1),
        ("unbound_target", Weakness::UnboundTarget),
        ("path_only", Weakness::PathOnly),
        ("unbound_content", Weakness::UnboundContent),
    ],
};
const REMEDIES: Remedies = Remedies {
    target: "add `(request-target)`",
    query: "write `request_target: with_query`",
    host: "add `host`",
    content: "add `digest`, which is asked for only where there is content",
};

/// Which signatures an alternative takes.
#[derive(Clone, Debug)]
pub(crate) struct HmacSpec {
    covers: Vec<Requirement>,
    settings: SigningSettings,
    places: Places,
    target: Target,
    unlisted: Component,
}

impl HmacSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`hmac`", faults)?;
        let settings = SigningSettings::read(KIND, &mut fields, faults);
        let covers = fields.get("covers");
        let places = fields.get("header").map_or_else(
            || Some(authorization()),
            |node| node.one_of(&[("authorization", false), ("signature", true)], faults).map(places),
        );
        let targets = [("with_query", Target::WithQuery), ("path_only", Target::PathOnly)];
        let request_target = fields.get("request_target");
        let target = request_target.map_or(Some(Target::WithQuery), |node| node.one_of(&targets, faults));
        let unlisted = fields
            .get("unlisted")
            .map_or(Some(false), |node| node.one_of(&[("date", false), ("(created)", true)], faults));
        fields.finish(faults);
        let (settings, target) = (settings?, target?);
        let read = match covers {
            None => {
                vec![Requirement::Exactly(Component::Target), Requirement::Moment, Requirement::Digest]
            }
            Some(node) => read_covers(node, faults)?,
        };
        // What is wrong is either the list or what its `(request-target)` stands for.
        let place = covers.or(request_target).map_or(node.place, |node| node.place);
        bound_by(&read, target).check(settings.weak(), &REMEDIES, place, faults)?;
        Some(Self {
            covers: read,
            settings,
            places: places?,
            target,
            unlisted: if unlisted? { Component::Created } else { Component::Header(DATE) },
        })
    }

    pub(crate) fn compile(
        &self,
        keys: &Arc<SignatureKeys>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Hmac> {
        let verifier = self.settings.compile(keys, compiling, faults)?;
        let covers: Vec<_> = self.covers.iter().map(ToString::to_string).collect();
        let challenge = Challenge::new(KIND.scheme, compiling.api.into()).with("headers", covers.join(" "));
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

fn read_covers(node: &Node, faults: &mut Faults) -> Option<Vec<Requirement>> {
    let read = each(node, faults, read_requirement)?;
    let made = [Requirement::Moment, Requirement::Exactly(Component::Created)];
    if !made.iter().any(|moment| read.contains(moment)) {
        faults.push(
            Diagnostic::error("covers_too_little", node.place, "nothing here says when a request was signed")
                .note("add `date` (which `x-aux-date` and `(created)` satisfy too) or `(created)`"),
        );
        return None;
    }
    Some(read)
}

/// The host is not asked for: `(request-target)` with a date is what clients of this form sign (B8), and many of them
/// cannot sign more. A policy adds `host` where several hosts serve the same paths.
fn bound_by(covers: &[Requirement], target: Target) -> Bound {
    let has_target = covers.contains(&Requirement::Exactly(Component::Target));
    Bound {
        method: has_target,
        host: true,
        path: has_target,
        query: has_target && target == Target::WithQuery,
        content: covers.contains(&Requirement::Digest),
    }
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
