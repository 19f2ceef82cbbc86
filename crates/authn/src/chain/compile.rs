//! `authenticate:` as written in an API.

use std::sync::Arc;

use portcullis_core::document::{Content, Entry, Fields, Node};
use portcullis_core::{AuthMethod, Callers, Diagnostic, Faults, Fetchers, Materials, Place, Scheme, Spanned};
use portcullis_store::Replays;

use super::select::{MAX_KINDS, Selector};
use super::{Alternative, Chain};
use crate::clients::Clients;
use crate::guard::Guard;
use crate::identity::{IdentityRule, IdentitySpec};
use crate::issuers::Issuers;
use crate::place::{self, Places};
use crate::scheme::{Authenticator, AuthenticatorSpec, NAMING, WORDS, unknown};

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
}

/// Who may call an API.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    alternatives: Vec<AlternativeSpec>,
    place: Place,
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
        Some(Self { alternatives, place: node.place })
    }

    /// Compiles it together with the API's `identity`.
    pub fn compile(
        &self,
        identity: Option<&IdentitySpec>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Chain> {
        let rule = IdentityRule::compile(identity);
        let compiled: Vec<Option<Alternative>> = self
            .alternatives
            .iter()
            .map(|spec| {
                spec.check_naming(identity, faults);
                spec.compile(&rule, compiling, faults)
            })
            .collect();
        let alternatives: Vec<Alternative> = compiled.into_iter().collect::<Option<_>>()?;
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
        let accept_signatures = members().filter_map(Authenticator::accept_signature).cloned().collect();
        let anonymous_because = members().find_map(|member| match member {
            Authenticator::Anonymous(anonymous) => Some(anonymous.because().clone()),
            Authenticator::Jwt(_)
            | Authenticator::Certificate(_)
            | Authenticator::ApiKey(_)
            | Authenticator::External(_)
            | Authenticator::Hmac(_)
            | Authenticator::Signature(_) => None,
        });
        let upstream_fields = unique(members().flat_map(|member| match member {
            Authenticator::External(external) => external.upstream_headers().to_vec(),
            _ => Vec::new(),
        }));
        let takes_tokens = members().any(|member| member.scheme() == Some(Scheme::Bearer));
        let realm: Arc<str> = compiling.api.into();
        let challenges = unique(members().flat_map(|member| member.challenges(&realm)));
        let places = unique(members().filter_map(Authenticator::places).flat_map(Places::iter).cloned());
        let credential_headers = unique(places.iter().filter_map(place::Place::header).cloned());
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
            reads_content,
            accept_signatures,
            anonymous_because,
            guard: compiling.guard.clone(),
        })
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
            | Authenticator::ApiKey(_)
            | Authenticator::External(_)
            | Authenticator::Hmac(_)
            | Authenticator::Signature(_)
            | Authenticator::Anonymous(_) => false,
        });
        let mut unpinned = self.members.iter().zip(members).filter(|(_, member)| match member {
            Authenticator::Jwt(jwt) => jwt.issuer().needs_pinned_certificate() && !pinned,
            Authenticator::Certificate(_)
            | Authenticator::ApiKey(_)
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
