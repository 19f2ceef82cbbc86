//! `issuers:` as written in `gateway.yaml`.

mod algorithms;
mod introspected;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Entry, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Place, Spanned};
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, ClaimRules, IssuerRule, Skew, TypeRule};

use super::attributes::CertificateClaims;
use super::claims::ClaimTest;
use super::keys::KeysSpec;
use super::profile::{self, PROFILES, Profile};
use super::{BoundTo, CnfForm, Issuer, Issuers, KeyIdRule, Providers};
use crate::discovery::{DiscoverSpec, Discovery};
use crate::identity::is_name;
use crate::introspection::{IntrospectSpec, Introspection};
use crate::revoked::{RevokedSpec, RevokedTokens};

pub(crate) use algorithms::read_algorithms;

/// All entries.
#[derive(Debug, Default)]
pub struct IssuersSpec {
    entries: Vec<IssuerSpec>,
    defined: Vec<(String, Place)>,
}

/// One entry. Every setting but `keys` has a default in the profile or is named as missing.
#[derive(Debug)]
struct IssuerSpec {
    name: Spanned<String>,
    profile: Profile,
    issuer: Option<Spanned<String>>,
    issuer_required: Option<bool>,
    audience: Option<Audience>,
    sole_audience: bool,
    algorithms: Option<Vec<Spanned<Algorithm>>>,
    keys: Option<KeysSpec>,
    discover: Option<DiscoverSpec>,
    introspect: Option<IntrospectSpec>,
    skew: Option<Skew>,
    max_lifetime: Option<Duration>,
    max_age: Option<Duration>,
    types: Option<TypeRule>,
    content_types: Option<TypeRule>,
    required: Vec<Spanned<String>>,
    scope: Option<Spanned<String>>,
    key_id: Option<KeyIdRule>,
    claims: Vec<ClaimTest>,
    certificate_claims: Option<CertificateClaims>,
    cnf: CnfForm,
    bound_to: Option<BoundTo>,
    used_once: Option<bool>,
    revoked: Option<RevokedSpec>,
    id_tokens: bool,
}

/// The longest life of a token that is used once: so long it must be remembered.
const USED_ONCE_LIFETIME_MAX: Duration = Duration::from_hours(24);

#[derive(Debug)]
enum Audience {
    /// `audience: any`: whoever the token is meant for.
    Any(Place),
    Named(Vec<Arc<str>>),
}

impl IssuersSpec {
    /// Reads the `issuers:` mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let entries = node.named(faults)?;
        Some(Self {
            defined: entries.iter().map(|entry| (entry.key.value.clone(), entry.key.place)).collect(),
            entries: entries.iter().filter_map(|entry| IssuerSpec::read(entry, faults)).collect(),
        })
    }

    /// Fetches local keys and finds the sources of the others. An entry with a fault is left out, but stays
    /// defined, so that one mistake is not reported again wherever the entry is used.
    pub fn compile(
        self,
        materials: &dyn Materials,
        providers: Providers<'_>,
        faults: &mut Faults,
    ) -> Issuers {
        let mut issuers = Issuers { defined: self.defined, ..Issuers::default() };
        for spec in &self.entries {
            let name = &spec.name.value;
            let Some(Compiled { issuer, introspection }) = spec.compile(materials, providers, faults) else {
                continue;
            };
            issuers.by_name.extend(issuer.map(|issuer| (name.clone(), issuer)));
            let introspection = introspection.map(|found| (name.clone(), Arc::new(found)));
            issuers.introspected.extend(introspection);
        }
        issuers
    }
}

/// One entry, compiled: an issuer of signed tokens, one whose tokens are introspected, or both.
struct Compiled {
    issuer: Option<Arc<Issuer>>,
    introspection: Option<Introspection>,
}

impl IssuerSpec {
    fn read(entry: &Entry, faults: &mut Faults) -> Option<Self> {
        let name = &entry.key;
        let mut fields = Fields::of(&entry.value, "an issuer", faults)?;
        let profile =
            fields.get("profile").map_or(Some(Profile::Plain), |node| node.one_of(PROFILES, faults));
        let issuer = fields.get("issuer").map(|node| node.text(faults));
        let issuer_required =
            fields.get("iss").map(|node| node.one_of(&[("required", true), ("optional", false)], faults));
        let audience = fields.get("audience").map(|node| read_audience(node, faults));
        let sole_audience = fields.get("sole_audience").map(|node| node.boolean(faults));
        let algorithms = fields.get("algorithms").map(|node| read_algorithms(node, faults));
        let keys = fields.get("keys").map(|node| KeysSpec::read(node, faults));
        let discover = fields.entry("discover");
        let discovered = discover.map(|entry| DiscoverSpec::read(&entry.value, faults));
        let introspect = fields.get("introspect").map(|node| IntrospectSpec::read(node, faults));
        let skew = fields.get("leeway").map(|node| read_skew(node, faults));
        let max_lifetime = fields.get("max_lifetime").map(|node| node.duration(faults));
        let max_age = fields.get("max_age").map(|node| node.duration(faults));
        let types = fields.get("type").map(|node| read_types(node, faults));
        let content_types = fields.get("content_type").map(|node| read_types(node, faults));
        let required = fields.get("required").map(|node| node.texts(faults));
        let scope = fields.get("scope").map(|node| node.text(faults));
        let key_id = fields.get("kid").map(|node| node.one_of(KEY_ID_RULES, faults));
        let claims = fields.get("claims").map(|node| ClaimTest::read_all(node, faults));
        let certificate_claims =
            fields.get("certificate_claims").map(|node| CertificateClaims::read(node, faults));
        let cnf = fields.get("cnf").map(|node| node.one_of(CNF_FORMS, faults));
        let bound_to = fields.get("bound_to").map(|node| node.one_of(BOUND_TO, faults));
        let used_once = fields.get("used_once").map(|node| node.boolean(faults));
        let revoked = fields.get("revoked").map(|node| RevokedSpec::read(node, faults));
        let id_tokens = fields.get("id_tokens").map(|node| node.boolean(faults));
        fields.finish(faults);
        introspected::check_whence(entry, keys.is_some(), discover, introspect.is_some(), faults)?;
        if !is_name(&name.value) {
            faults.error("bad_name", name.place, "an issuer's name is 1 to 255 printable characters");
            return None;
        }
        Some(Self {
            name: name.clone(),
            profile: profile?,
            issuer: sound(issuer)?,
            issuer_required: sound(issuer_required)?,
            audience: sound(audience)?,
            sole_audience: sound(sole_audience)?.unwrap_or(false),
            algorithms: sound(algorithms)?,
            keys: sound(keys)?,
            discover: sound(discovered)?,
            introspect: sound(introspect)?,
            skew: sound(skew)?,
            max_lifetime: sound(max_lifetime)?,
            max_age: sound(max_age)?,
            types: sound(types)?,
            content_types: sound(content_types)?,
            required: sound(required)?.unwrap_or_default(),
            scope: sound(scope)?,
            key_id: sound(key_id)?,
            claims: sound(claims)?.unwrap_or_default(),
            certificate_claims: sound(certificate_claims)?,
            cnf: sound(cnf)?.unwrap_or(CnfForm::Object),
            bound_to: sound(bound_to)?,
            used_once: sound(used_once)?,
            revoked: sound(revoked)?,
            id_tokens: sound(id_tokens)?.unwrap_or(false),
        })
    }

    fn compile(
        &self,
        materials: &dyn Materials,
        providers: Providers<'_>,
        faults: &mut Faults,
    ) -> Option<Compiled> {
        let discovery = match &self.discover {
            None => None,
            Some(spec) => Some(spec.compile(self.issuer.as_ref(), materials, providers.keys, faults)?),
        };
        let discovery = discovery.as_ref();
        let revoked = RevokedTokens::of_entry(&self.name.value, self.revoked.as_ref(), materials, faults)?;
        let issuer = match self.signing_keys() {
            None => None,
            Some(keys) => {
                let issuer = self.issuer(&keys, discovery, materials, providers, faults)?;
                Some(Arc::new(Issuer { revoked: revoked.clone(), ..issuer }))
            }
        };
        let introspection = match &self.introspect {
            None => None,
            Some(spec) => {
                let issuer = issuer.as_ref();
                let mut entry = self.introspection(spec, issuer, discovery, materials, providers, faults)?;
                entry.terms.revoked = revoked;
                Some(entry)
            }
        };
        Some(Compiled { issuer, introspection })
    }

    /// Its keys, if it signs tokens that are verified here. Where a provider is discovered only to be asked, it says
    /// nothing about signatures.
    fn signing_keys(&self) -> Option<Cow<'_, KeysSpec>> {
        let signs = self.introspect.is_none() || self.algorithms.is_some() || self.profile != Profile::Plain;
        match (&self.keys, &self.discover) {
            (Some(keys), _) => Some(Cow::Borrowed(keys)),
            (None, Some(spec)) if signs => {
                Some(Cow::Owned(KeysSpec::discovered(spec.clone(), self.name.place)))
            }
            _ => None,
        }
    }

    fn issuer(
        &self,
        keys: &KeysSpec,
        discovery: Option<&Arc<Discovery>>,
        materials: &dyn Materials,
        providers: Providers<'_>,
        faults: &mut Faults,
    ) -> Option<Issuer> {
        let rules = self.rules(keys, faults);
        let algorithms = self.algorithms(faults);
        let key_id = self.key_id.unwrap_or(self.profile.defaults().key_id);
        let name: Arc<str> = self.name.value.as_str().into();
        let algorithms = algorithms?;
        let keys = keys.compile(&name, &algorithms, discovery, materials, providers, faults);
        let (rules, (keys, described)) = (rules?, keys?);
        let scope = self.scope.as_ref().map(|scope| scope.value.as_str().into());
        // Whatever can change what a token is taken for is part of the description.
        let (claims, cnf, is_asked) = (self.claims.clone(), self.cnf, self.introspect.is_some());
        let description = format!(
            "{name:?} {rules:?} {algorithms:?} {key_id:?} {scope:?} {claims:?} {cnf:?} {is_asked} {described:?}"
        );
        let id = providers.keys.entry_id(sha256(description.as_bytes()));
        // What follows is judged on every request, so it is not part of what a token is remembered by.
        let certificate_claims = self.certificate_claims();
        let bound_to = self.bound_to.unwrap_or(self.profile.defaults().bound_to);
        let used_once = self.is_used_once().then(|| providers.replays.space("jti"));
        Some(Issuer {
            name,
            id,
            rules,
            algorithms,
            key_id,
            scope,
            claims,
            certificate_claims,
            cnf,
            bound_to,
            used_once,
            is_asked,
            revoked: None,
            keys,
        })
    }

    fn certificate_claims(&self) -> CertificateClaims {
        self.certificate_claims.clone().unwrap_or_else(|| self.profile.certificate_claims())
    }

    fn is_used_once(&self) -> bool {
        self.used_once.unwrap_or(self.profile.defaults().used_once)
    }

    /// What is asked of `iss`. Where the certificate says it, writing it as well would be a second truth.
    fn issuer_rule(&self, faults: &mut Faults) -> Option<IssuerRule> {
        let defaults = self.profile.defaults();
        if self.certificate_claims().names_issuer() {
            if let Some(issuer) = &self.issuer {
                faults.error(
                    "two_issuers",
                    issuer.place,
                    "`certificate_claims` already says what `iss` must be",
                );
                return None;
            }
            return Some(IssuerRule::OfCertificate);
        }
        let Some(issuer) = self.issuer.as_ref().map(|issuer| issuer.value.as_str()).or(defaults.issuer)
        else {
            faults.push(
                Diagnostic::error("missing_key", self.name.place, "an issuer needs `issuer`")
                    .note("it is the exact `iss` of its tokens"),
            );
            return None;
        };
        let required = self.issuer_required.unwrap_or(defaults.issuer_required);
        Some(if required { IssuerRule::Required(issuer.into()) } else { IssuerRule::Optional(issuer.into()) })
    }

    /// SECURITY: a token that is used once is remembered until it ends, so it has to end soon.
    fn check_used_once(&self, rules: &mut ClaimRules, faults: &mut Faults) -> Option<()> {
        if !self.is_used_once() {
            return Some(());
        }
        if rules.max_lifetime.is_none_or(|life| life > USED_ONCE_LIFETIME_MAX) {
            faults.push(
                Diagnostic::error(
                    "missing_key",
                    self.name.place,
                    "tokens that are used once need a `max_lifetime` of 24h at most",
                )
                .note("each is remembered until it ends"),
            );
            return None;
        }
        let needed = ["jti", "iat"].map(Arc::<str>::from);
        let missing = needed.into_iter().filter(|name| !rules.required.contains(name)).collect::<Vec<_>>();
        rules.required.extend(missing);
        Some(())
    }

    fn rules(&self, keys: &KeysSpec, faults: &mut Faults) -> Option<ClaimRules> {
        let defaults = self.profile.defaults();
        let issuer = self.issuer_rule(faults);
        let audiences = self.audiences(defaults.any_audience, keys, faults);
        let mut rules = profile::rules(issuer?, audiences?, &defaults);
        rules.sole_audience = self.sole_audience;
        rules.skew = self.skew.unwrap_or(rules.skew);
        rules.id_tokens_refused = !self.id_tokens;
        rules.max_lifetime = self.max_lifetime.or(rules.max_lifetime);
        rules.max_age = self.max_age;
        rules.types = self.types.clone().unwrap_or(rules.types);
        rules.content_types = self.content_types.clone().unwrap_or(rules.content_types);
        rules.required.extend(self.required.iter().map(|name| Arc::from(name.value.as_str())));
        self.check_used_once(&mut rules, faults)?;
        if keys.are_of_clients() && rules.max_lifetime.is_none() {
            faults.push(
                Diagnostic::error(
                    "missing_key",
                    self.name.place,
                    "tokens that clients sign themselves need a `max_lifetime`",
                )
                .note("nobody but the client would bound how long a stolen one counts"),
            );
            return None;
        }
        Some(rules)
    }

    /// SECURITY: without `audience`, a token this issuer signed for any other service would open this one
    /// (JWT-27). Where keys are fetched the issuer is somebody else's, so there is no opting out.
    fn audiences(&self, any: bool, keys: &KeysSpec, faults: &mut Faults) -> Option<Option<Vec<Arc<str>>>> {
        let place = match &self.audience {
            Some(Audience::Named(named)) => return Some(Some(named.clone())),
            Some(Audience::Any(place)) => *place,
            None if any => self.name.place,
            None => {
                faults.push(
                    Diagnostic::error("missing_key", self.name.place, "an issuer needs `audience`")
                        .note("without it, tokens meant for other services would be taken"),
                );
                return None;
            }
        };
        if keys.are_fetched() {
            faults.push(
                Diagnostic::error(
                    "audience_unchecked",
                    place,
                    "the audience may go unchecked only where keys are given in files",
                )
                .note("whoever publishes keys at a URL signs tokens for other services, too: name the `audience`"),
            );
            return None;
        }
        Some(None)
    }
}

const BOUND_TO: &[(&str, BoundTo)] = &[("certificate", BoundTo::Certificate), ("holder", BoundTo::Holder)];

const CNF_FORMS: &[(&str, CnfForm)] =
    &[("object", CnfForm::Object), ("object_or_text", CnfForm::ObjectOrText)];

const KEY_ID_RULES: &[(&str, KeyIdRule)] = &[
    ("optional", KeyIdRule::Optional),
    ("when_several", KeyIdRule::WhenSeveral),
    ("required", KeyIdRule::Required),
];

/// A setting that is missing is fine, one that could not be read is not.
pub(crate) fn sound<T>(setting: Option<Option<T>>) -> Option<Option<T>> {
    match setting {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn read_audience(node: &Node, faults: &mut Faults) -> Option<Audience> {
    let texts = node.texts(faults)?;
    match texts.as_slice() {
        [only] if only.value == "any" => Some(Audience::Any(only.place)),
        _ => Some(Audience::Named(texts.into_iter().map(|text| text.value.into()).collect())),
    }
}

/// JWT-23: three skews, each at most a minute.
fn read_skew(node: &Node, faults: &mut Faults) -> Option<Skew> {
    let mut fields = Fields::of(node, "`leeway`", faults)?;
    let (exp, nbf, iat) = (fields.get("exp"), fields.get("nbf"), fields.get("iat"));
    fields.finish(faults);
    let mut read = |node: Option<&Node>, default: Duration| {
        let Some(node) = node else { return Some(default) };
        let leeway = node.duration(faults)?;
        if leeway > Skew::MAXIMUM {
            faults.error("out_of_range", node.place, "a leeway is at most `1m`");
            return None;
        }
        Some(leeway)
    };
    let default = Skew::default();
    let (exp, nbf, iat) = (read(exp, default.exp), read(nbf, default.nbf), read(iat, default.iat));
    Some(Skew { exp: exp?, nbf: nbf?, iat: iat? })
}

/// Media types, among which `absent` means a token that does not say.
fn read_types(node: &Node, faults: &mut Faults) -> Option<TypeRule> {
    let texts = node.texts(faults)?;
    let named = texts.iter().map(|text| text.value.as_str()).filter(|text| *text != "absent");
    Some(if texts.iter().any(|text| text.value == "absent") {
        TypeRule::absent_or(named)
    } else {
        TypeRule::one_of(named)
    })
}
