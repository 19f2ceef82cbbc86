//! `authenticate:` as written in an API.

use std::borrow::Cow;
use std::sync::Arc;

use portcullis_core::document::{Content, Entry, Fields, Node};
use portcullis_core::{AuthMethod, Callers, Diagnostic, Faults, Fetchers, Materials, Place, Scheme, Spanned};
use portcullis_store::Replays;

use super::providers::tell_apart;
use super::select::{MAX_KINDS, Selector};
use super::together::check_together;
use super::{Alternative, Chain};
use crate::anonymous::anybody;
use crate::basic::PasswordChecks;
use crate::clients::Clients;
use crate::dpop::{DPOP, Nonces};
use crate::guard::Guard;
use crate::identity::{IdentityRule, IdentitySpec};
use crate::issuers::Issuers;
use crate::place::{self, Places};
use crate::scheme::{Authenticator, AuthenticatorSpec, NAMING, WORDS, unknown};

/// Why an API is open to anybody whose chain is not enforced.
const IN_SHADOW: &str = "its chain is in shadow, which tries credentials and asks for none";

/// What a chain is compiled against.
#[derive(Clone, Copy)]
pub struct Compiling<'a> {
    /// The API's name: the realm of its challenges.
    pub api: &'a str,
    /// The compiled `issuers:`.
    pub issuers: &'a Issuers,
    /// The compiled `clients:`.
    pub clients: &'a Clients,
    /// The named trust anchors of all listeners, and where they are defined.
    pub trust_anchors: &'a [(String, Place)],
    /// Whether any listener may come to know a caller's certificate.
    pub certificates_asked: bool,
    /// What may be used once and has been used. Whoever wants single use takes a space of it when it is compiled,
    /// and claims from it last, when all else about a credential is good.
    pub replays: &'a Replays,
    /// Clients that ask other servers, on the background runtime.
    pub fetchers: &'a Fetchers,
    /// Clients of gRPC services, on the background runtime.
    pub callers: &'a Callers,
    /// Files and secrets.
    pub materials: &'a dyn Materials,
    /// What slows down whoever fails.
    pub guard: &'a Guard,
    /// Where passwords are checked.
    pub passwords: &'a PasswordChecks,
    /// Nonces for proofs of possession.
    pub nonces: &'a Nonces,
}

/// Who may call an API.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    alternatives: Vec<AlternativeSpec>,
    place: Place,
    /// Where `mode: shadow` is written.
    shadow: Option<Place>,
}

#[derive(Clone, Debug)]
struct AlternativeSpec {
    members: Vec<AuthenticatorSpec>,
    identity_from: Option<Spanned<AuthMethod>>,
    place: Place,
}

impl ChainSpec {
    /// Reads the value of `authenticate`: one authenticator, one `all_of`, or `any_of` with a list of these.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if matches!(&node.content, Content::Text(word) if word == "anonymous") {
            faults.push(
                Diagnostic::error("missing_key", node.place, "a public API says why it is public")
                    .note("write `anonymous: { because: … }`"),
            );
            return None;
        }
        let (shadow, node) = take_mode(node, faults)?;
        let node = &*node;
        let alternatives = match entry_of(node, "any_of") {
            None => vec![AlternativeSpec::read(node, faults)?],
            Some(_) => {
                let mut fields = Fields::of(node, "`authenticate`", faults)?;
                let list = fields.require("any_of", faults);
                fields.finish(faults);
                let items = list?.list(faults)?;
                let read: Vec<_> =
                    items.iter().filter_map(|item| AlternativeSpec::read(item, faults)).collect();
                if read.len() < items.len() {
                    return None;
                }
                read
            }
        };
        Some(Self { alternatives, place: node.place, shadow })
    }

    /// Compiles it together with the API's `identity`.
    pub fn compile(
        &self,
        identity: Option<&IdentitySpec>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Chain> {
        let Some(place) = self.shadow else { return self.build(identity, compiling, faults) };
        faults.push(shadow_warning(compiling.api, place));
        // SECURITY: a trial must change nothing for anybody. What may be used once is not used up by it, its refusals
        // make nobody wait elsewhere, and what is guessed there is known nowhere else.
        let Compiling { replays, guard, passwords, .. } = *compiling;
        let (replays, guard, passwords) = (replays.on_trial(), guard.on_trial(), passwords.on_trial());
        let on_trial = Compiling { replays: &replays, guard: &guard, passwords: &passwords, ..*compiling };
        self.build(identity, &on_trial, faults)
    }

    fn build(
        &self,
        identity: Option<&IdentitySpec>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Chain> {
        let rule = IdentityRule::compile(identity);
        let alternatives = self.compile_alternatives(identity, &rule, compiling, faults)?;
        let members = || alternatives.iter().flat_map(|alternative| &alternative.members);
        if !self.check_places(members(), faults) {
            return None;
        }
        let Some(selector) = Selector::new(&alternatives) else {
            faults.error(
                "too_many",
                self.place,
                format!("these are more than {MAX_KINDS} different kinds of credentials"),
            );
            return None;
        };
        if !self.check_reach(&alternatives, &selector, faults) {
            return None;
        }
        let reads_content = members().any(Authenticator::reads_content);
        let asked_for_signatures = members().filter(|_| self.shadow.is_none());
        let accept_signatures =
            asked_for_signatures.filter_map(Authenticator::accept_signature).cloned().collect();
        let upstream_fields = unique(members().flat_map(upstream_headers));
        if alternatives.len() > 1 && members().any(Authenticator::is_in_content) {
            faults.push(content_among_others(self.place));
            return None;
        }
        let open = || self.shadow.map(|_| IN_SHADOW.into());
        let anonymous_because = members().find_map(Authenticator::anonymous_because).cloned().or_else(open);
        let takes_tokens = members().any(|member| member.scheme() == Some(Scheme::Bearer));
        let realm: Arc<str> = compiling.api.into();
        // Who need not come with a credential is not asked for one.
        let asking = members().filter(|_| self.shadow.is_none());
        let challenges = unique(asking.flat_map(|member| member.challenges(&realm)));
        let places = unique(members().filter_map(Authenticator::places).flat_map(Places::iter).cloned());
        let credential_headers = unique(places.iter().filter_map(place::Place::header).cloned());
        let takes_proofs = members().any(Authenticator::takes_proofs);
        let inner = places.into_iter().filter(|place| place.header().is_none()).collect();
        Some(Chain {
            alternatives,
            selector,
            rule,
            challenges,
            credential_headers,
            inner_places: inner,
            upstream_fields,
            takes_tokens,
            proof_header: takes_proofs.then_some(DPOP),
            reads_content,
            accept_signatures,
            anonymous_because,
            guard: compiling.guard.clone(),
            anybody: self.shadow.map(|_| anybody()),
        })
    }

    fn compile_alternatives(
        &self,
        identity: Option<&IdentitySpec>,
        rule: &IdentityRule,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Vec<Alternative>> {
        let compiled: Vec<Option<Alternative>> = self
            .alternatives
            .iter()
            .map(|spec| {
                spec.check_naming(identity, faults);
                spec.compile(rule, compiling, faults)
            })
            .collect();
        let mut alternatives: Vec<Alternative> = compiled.into_iter().collect::<Option<_>>()?;
        tell_apart(&mut alternatives, self.place, faults).then_some(alternatives)
    }

    /// Places where one credential could be taken for another one.
    fn check_places<'a>(
        &self,
        members: impl Iterator<Item = &'a Authenticator> + Clone,
        faults: &mut Faults,
    ) -> bool {
        let mut good = true;
        let places = members.enumerate().filter_map(|(at, member)| Some((at, member, member.places()?)));
        let places =
            places.flat_map(|(at, member, places)| places.iter().map(move |place| (at, member, place)));
        for (at, member, place) in places.clone() {
            let clash = places.clone().find(|(earlier, other_member, other)| {
                let same = *other == place && member.shares_places_with(other_member);
                *earlier < at && place.overlaps(other) && !same
            });
            if clash.is_some() {
                good = false;
                faults.push(
                    Diagnostic::error(
                        "place_shared",
                        self.place,
                        format!("two kinds of credentials in {} cannot be told apart", place.described()),
                    )
                    .note("give each its own header, or its own `scheme` in `authorization`"),
                );
            }
        }
        good
    }

    /// An alternative nothing can reach is a rule somebody believes in and that never holds.
    fn check_reach(&self, alternatives: &[Alternative], selector: &Selector, faults: &mut Faults) -> bool {
        let mut good = true;
        for (at, (spec, later)) in self.alternatives.iter().zip(alternatives).enumerate() {
            let before = alternatives.iter().zip(&self.alternatives).enumerate().take(at);
            let mut shadowing = before.filter(|(earlier_at, (earlier, _))| {
                selector.takes_all_of(*earlier_at, at) && earlier.shadows(later)
            });
            if let Some((_, (_, earlier))) = shadowing.next() {
                good = false;
                faults.push(
                    Diagnostic::error("unreachable", spec.place, "this alternative can never decide")
                        .related(earlier.place, "this one takes the same credentials and comes first")
                        .note(
                            "alternatives are told apart by the credentials they ask for, tokens by their \
                             issuer, certificates by `trust`",
                        ),
                );
            }
        }
        good
    }
}

/// The headers a member adds for the upstream.
fn upstream_headers(member: &Authenticator) -> Vec<http::HeaderName> {
    match member {
        Authenticator::External(external) => external.upstream_headers().to_vec(),
        _ => Vec::new(),
    }
}

impl AlternativeSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if entry_of(node, "all_of").is_none() {
            let entry = node.single("a way to authenticate", faults)?;
            return match entry.key.value.as_str() {
                "any_of" => {
                    nested(entry, faults);
                    None
                }
                "identity_from" => {
                    faults.push(unknown("identity_from", entry.key.place, &["all_of", "any_of"]));
                    None
                }
                _ => Some(Self {
                    members: vec![AuthenticatorSpec::read(entry, faults)?],
                    identity_from: None,
                    place: entry.key.place,
                }),
            };
        }
        let mut fields = Fields::of(node, "`all_of`", faults)?;
        let list = fields.entry("all_of");
        let from = fields.get("identity_from");
        fields.finish(faults);
        let identity_from =
            from.map(|node| node.one_of(NAMING, faults).map(|method| Spanned::new(method, node.place)));
        let list = list?;
        let items = list.value.list(faults)?;
        let members: Vec<_> = items.iter().filter_map(|item| read_member(item, faults)).collect();
        let identity_from = match identity_from {
            None => None,
            Some(read) => Some(read?),
        };
        (members.len() == items.len()).then_some(Self { members, identity_from, place: list.key.place })
    }

    fn compile(
        &self,
        rule: &IdentityRule,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Alternative> {
        let naming = self.naming(faults);
        let compiled: Vec<_> = self.members.iter().map(|member| member.compile(compiling, faults)).collect();
        let mut members = compiled.into_iter().collect::<Option<Vec<Authenticator>>>()?;
        let naming = naming?;
        self.check_pins(&members, faults)?;
        check_together(&members, self.place, faults)?;
        members.sort_by_key(Authenticator::cost);
        let at = members.iter().position(|member| member.method() == naming)?;
        let named_alone = members.len() == 1 || rule.reads_only(naming);
        Some(Alternative { members, naming: at, named_alone })
    }

    /// SECURITY: where keys are found by the caller's certificate, whoever has a certificate of the authority could
    /// have us fetch, and be believed, what they publish themselves. So only certificates that are pinned come there,
    /// and in an `all_of` the certificate is judged first (OZ-05, OZ-07, JKS-12).
    fn check_pins(&self, members: &[Authenticator], faults: &mut Faults) -> Option<()> {
        let pinned = members.iter().any(|member| match member {
            Authenticator::Certificate(certificate) => certificate.is_pinned(),
            Authenticator::Jwt(_)
            | Authenticator::Token(_)
            | Authenticator::ApiKey(_)
            | Authenticator::Basic(_)
            | Authenticator::External(_)
            | Authenticator::Hmac(_)
            | Authenticator::Signature(_)
            | Authenticator::Anonymous(_) => false,
        });
        let mut unpinned = self.members.iter().zip(members).filter(|(_, member)| match member {
            Authenticator::Jwt(jwt) => jwt.issuer().needs_pinned_certificate() && !pinned,
            Authenticator::Token(_)
            | Authenticator::Certificate(_)
            | Authenticator::ApiKey(_)
            | Authenticator::Basic(_)
            | Authenticator::External(_)
            | Authenticator::Hmac(_)
            | Authenticator::Signature(_)
            | Authenticator::Anonymous(_) => false,
        });
        let Some((spec, _)) = unpinned.next() else { return Some(()) };
        faults.push(
            Diagnostic::error(
                "certificate_not_pinned",
                spec.place(),
                "this issuer's keys are found by the caller's certificate, and any certificate would do",
            )
            .note("put it into an `all_of` with `certificate: { trust, subject: { ou } }`"),
        );
        None
    }

    /// Who names the caller. Where more than one could, the policy says (CHN-03).
    fn naming(&self, faults: &mut Faults) -> Option<AuthMethod> {
        let methods: Vec<_> = self.members.iter().map(AuthenticatorSpec::method).collect();
        for (at, member) in self.members.iter().enumerate() {
            let method = member.method();
            if methods.len() > 1 && method == AuthMethod::Anonymous {
                faults.error(
                    "anonymous_in_all_of",
                    member.place(),
                    "`anonymous` beside others asks for nothing",
                );
                return None;
            }
            if methods.iter().take(at).any(|earlier| *earlier == method) {
                faults.error(
                    "twice",
                    member.place(),
                    format!("`{}` occurs twice in one `all_of`", method.as_str()),
                );
                return None;
            }
        }
        match (&self.identity_from, methods.as_slice()) {
            (None, [only]) => Some(*only),
            (None, _) => {
                let words: Vec<_> = methods.iter().map(|method| format!("`{}`", method.as_str())).collect();
                faults.push(
                    Diagnostic::error(
                        "identity_from_missing",
                        self.place,
                        "more than one of these could name the caller",
                    )
                    .note(format!("add `identity_from:` with one of {}", words.join(", "))),
                );
                None
            }
            (Some(from), methods) if methods.contains(&from.value) => Some(from.value),
            (Some(from), _) => {
                faults.error(
                    "undefined",
                    from.place,
                    format!("`{}` is not one of this `all_of`", from.value.as_str()),
                );
                None
            }
        }
    }

    /// A name that no caller of this alternative can have would refuse them all.
    fn check_naming(&self, identity: Option<&IdentitySpec>, faults: &mut Faults) {
        let methods: Vec<_> = self.members.iter().map(AuthenticatorSpec::method).collect();
        if methods.contains(&AuthMethod::Anonymous) {
            return;
        }
        if let Some(place) = identity.and_then(|identity| identity.unfillable(&methods)) {
            let words: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
            faults.push(
                Diagnostic::error(
                    "name_unavailable",
                    place,
                    format!("callers that come by `{}` have no such name", words.join("` and `")),
                )
                .related(self.place, "this way to authenticate")
                .note("list another source after it: `claims` come from `jwt`, `client` from `api_key`, `certificate` from `certificate`"),
            );
        }
    }
}

/// Takes `mode` out of the mapping it stands in beside the chain. `enforce` is what a chain without it does.
fn take_mode<'n>(node: &'n Node, faults: &mut Faults) -> Option<(Option<Place>, Cow<'n, Node>)> {
    let (Some(mode), Content::Map(entries)) = (entry_of(node, "mode"), &node.content) else {
        return Some((None, Cow::Borrowed(node)));
    };
    let shadow = mode.value.one_of(&[("enforce", false), ("shadow", true)], faults)?;
    let others = entries.iter().filter(|entry| entry.key.value != "mode").cloned().collect();
    let node = Node { place: node.place, content: Content::Map(others) };
    Some((shadow.then_some(mode.value.place), Cow::Owned(node)))
}

fn shadow_warning(api: &str, place: Place) -> Diagnostic {
    Diagnostic::warning(
        "chain_in_shadow",
        place,
        format!("anybody may call `{api}`: its chain is tried and recorded, not enforced"),
    )
    .note("nobody has a name, scopes or claims meanwhile, so rules that ask for them refuse; take `mode` out to enforce the chain")
}

/// The selector looks at heads alone, so it cannot see which of several alternatives such a request is for.
fn content_among_others(place: Place) -> Diagnostic {
    Diagnostic::error("content_among_others", place, "a credential in the body cannot be one of several ways")
        .note("whether it is there is known only when the body has been read: give it an API of its own, or `all_of`")
}

fn read_member(node: &Node, faults: &mut Faults) -> Option<AuthenticatorSpec> {
    let entry = node.single("a way to authenticate", faults)?;
    if matches!(entry.key.value.as_str(), "any_of" | "all_of") {
        nested(entry, faults);
        return None;
    }
    AuthenticatorSpec::read(entry, faults)
}

fn nested(entry: &Entry, faults: &mut Faults) {
    faults.push(
        Diagnostic::error(
            "nested_too_deeply",
            entry.key.place,
            format!("`{}` cannot stand here", entry.key.value),
        )
        .note(format!(
            "a chain has two levels: `any_of` with alternatives, each `all_of` or one of {}",
            WORDS.join(", ")
        )),
    );
}

/// Each once, in the order of the first.
fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut seen, item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
        seen
    })
}

fn entry_of<'n>(node: &'n Node, key: &str) -> Option<&'n Entry> {
    match &node.content {
        Content::Map(entries) => entries.iter().find(|entry| entry.key.value == key),
        _ => None,
    }
}
