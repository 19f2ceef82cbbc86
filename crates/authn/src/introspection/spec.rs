//! `introspect:` of an issuer, as written in `gateway.yaml`.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, FetchIdentity, FetchTrust, Materials, Place, SecretSpec, Spanned};
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, ClaimRules, IssuerRule, SigningKey};

use super::client::{ClientAuth, OurClient};
use super::source::{Provider, Settings, Signed, State};
use super::{Endpoint, Introspection};
use crate::discovery::Discovery;
use crate::issuers::{Issuer, Providers, Terms, check_url, file, sound, within};
use crate::jwt::is_b64token;

/// The default for `timeout`.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The default for `cache`, and its longest (INT-04).
const CACHE: Duration = Duration::from_secs(30);
const CACHE_MAX: Duration = Duration::from_mins(5);
/// The default for `negative_cache`, which is also its longest (INT-04).
const NEGATIVE: Duration = Duration::from_secs(5);

/// The ways to say who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Basic,
    Post,
    PrivateKeyJwt,
    Tls,
}

const WAYS: &[(&str, Way)] = &[
    ("client_secret_basic", Way::Basic),
    ("client_secret_post", Way::Post),
    ("private_key_jwt", Way::PrivateKeyJwt),
    ("tls_client_auth", Way::Tls),
];

/// `introspect:` as written.
#[derive(Debug)]
pub(crate) struct IntrospectSpec {
    place: Place,
    url: Option<Spanned<String>>,
    loopback_http: bool,
    trust: Option<Spanned<String>>,
    client_id: Spanned<String>,
    way: Spanned<Way>,
    secret: Option<SecretSpec>,
    key: Option<SecretSpec>,
    key_id: Option<Spanned<String>>,
    algorithm: Option<Spanned<Algorithm>>,
    assertion_audience: Option<Spanned<String>>,
    certificate: Option<Spanned<String>>,
    signed: bool,
    prefix: Option<Spanned<String>>,
    token_type_required: bool,
    settings: Settings,
}

/// What an entry says beside `introspect`, compiled.
pub(crate) struct Compiled<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) rules: ClaimRules,
    pub(crate) terms: Terms,
    pub(crate) scope: Option<Arc<str>>,
    /// The same entry as an issuer of signed tokens, if it is one.
    pub(crate) issuer: Option<&'a Arc<Issuer>>,
    pub(crate) discovery: Option<&'a Arc<Discovery>>,
}

impl IntrospectSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`introspect`", faults)?;
        let url = fields.get("url").map(|node| node.text(faults));
        let loopback = fields.get("http_on_loopback").map(|node| node.boolean(faults));
        let trust = fields.get("trust").map(|node| node.file(faults));
        let client_id = fields.require("client_id", faults).and_then(|node| node.text(faults));
        let way =
            fields.get("auth").map(|node| node.one_of(WAYS, faults).map(|way| Spanned::new(way, node.place)));
        let secret = fields.get("client_secret").map(|node| node.secret(faults));
        let key = fields.get("key").map(|node| node.secret(faults));
        let key_id = fields.get("kid").map(|node| node.text(faults));
        let algorithm = fields.get("algorithm").map(|node| read_algorithm(node, faults));
        let audience = fields.get("assertion_audience").map(|node| node.text(faults));
        let certificate = fields.get("client_certificate").map(|node| node.text(faults));
        let answers =
            fields.get("answers").map(|node| node.one_of(&[("plain", false), ("signed", true)], faults));
        let prefix = fields.get("prefix").map(|node| read_prefix(node, faults));
        let token_type = fields
            .get("token_type")
            .map(|node| node.one_of(&[("required", true), ("optional", false)], faults));
        let timeout = fields.get("timeout").map(|node| {
            within(node, Duration::from_millis(50), Duration::from_secs(10), "50ms to 10s", faults)
        });
        let cache =
            fields.get("cache").map(|node| within(node, Duration::ZERO, CACHE_MAX, "0s to 5m", faults));
        let negative = fields
            .get("negative_cache")
            .map(|node| within(node, Duration::ZERO, NEGATIVE, "0s to 5s", faults));
        fields.finish(faults);
        Some(Self {
            place: node.place,
            url: sound(url)?,
            loopback_http: sound(loopback)?.unwrap_or(false),
            trust: sound(trust)?,
            client_id: client_id?,
            way: sound(way)?.unwrap_or(Spanned::new(Way::Basic, node.place)),
            secret: sound(secret)?,
            key: sound(key)?,
            key_id: sound(key_id)?,
            algorithm: sound(algorithm)?,
            assertion_audience: sound(audience)?,
            certificate: sound(certificate)?,
            signed: sound(answers)?.unwrap_or(false),
            prefix: sound(prefix)?,
            token_type_required: sound(token_type)?.unwrap_or(true),
            settings: Settings {
                timeout: sound(timeout)?.unwrap_or(TIMEOUT),
                cache: sound(cache)?.unwrap_or(CACHE),
                negative_cache: sound(negative)?.unwrap_or(NEGATIVE),
            },
        })
    }

    /// Where it is written.
    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn compile(
        &self,
        entry: Compiled<'_>,
        materials: &dyn Materials,
        providers: Providers<'_>,
        faults: &mut Faults,
    ) -> Option<Introspection> {
        let endpoint = self.endpoint(entry.discovery, faults);
        let identity = self.identity(providers, faults);
        let anchors = match &self.trust {
            None => Some(None),
            Some(path) => file(path, materials, faults).map(Some),
        };
        let auth = self.auth(&entry.rules.issuer, materials, faults);
        let signed = self.signed(&entry, faults);
        let (endpoint, identity, (auth, described)) = (endpoint?, identity?, auth?);
        let (anchors, signed) = (anchors?, signed?);
        let trust = match entry.discovery.filter(|_| self.url.is_none()) {
            // What vouches for the metadata vouches for the endpoint it names, unless another trust is written.
            Some(discovery) if anchors.is_none() => FetchTrust { identity, ..discovery.trust().clone() },
            _ => FetchTrust { anchors, identity, loopback_http: self.loopback_http, plain_http: false },
        };
        let fetch = providers.keys.fetchers().get(&trust);
        let place = self.trust.as_ref().map_or(self.place, |path| path.place);
        let fetch = fetch.map_err(|why| faults.error("bad_trust", place, why)).ok()?;
        let Compiled { name, rules, terms, scope, .. } = entry;
        let id = {
            // Whatever can change what a token is taken for, or how the provider is asked, is part of it.
            let shown = trust.identity.as_ref().map(|own| (sha256(&own.chain), sha256(own.key.expose())));
            let text = format!(
                "introspection {name:?} {rules:?} {terms:?} {scope:?} {} {} {:?} {:?} {shown:?} {:?} {described:?} {:?} {:?} {:?} {:?}",
                endpoint.described(),
                trust.loopback_http,
                trust.anchors,
                self.client_id.value,
                self.way.value,
                self.settings,
                self.token_type_required,
                self.prefix.as_ref().map(|prefix| &prefix.value),
                signed.as_ref().map(|signed| signed.issuer.id),
            );
            providers.keys.entry_id(sha256(text.as_bytes()))
        };
        let provider = providers.introspections.provider(id, |clock, background| Provider {
            name: name.clone(),
            endpoint,
            client: OurClient { id: self.client_id.value.as_str().into(), auth },
            signed,
            rules: rules.clone(),
            settings: self.settings,
            fetch,
            clock,
            background,
            state: State::default().into(),
        });
        Some(Introspection {
            name: name.clone(),
            id,
            rules,
            terms,
            scope,
            prefix: self.prefix.as_ref().map(|prefix| prefix.value.as_str().into()),
            token_type_required: self.token_type_required,
            provider,
        })
    }

    fn endpoint(&self, discovery: Option<&Arc<Discovery>>, faults: &mut Faults) -> Option<Endpoint> {
        match (&self.url, discovery) {
            (Some(url), _) => {
                check_url(url, self.loopback_http, "tokens are introspected", faults)?;
                Some(Endpoint::Fixed(url.value.as_str().into()))
            }
            (None, Some(discovery)) => Some(Endpoint::Discovered {
                discovery: discovery.clone(),
                with_certificate: self.certificate.is_some(),
            }),
            (None, None) => {
                faults
                    .push(Diagnostic::error("missing_key", self.place, "`introspect` needs `url`").note(
                        "or write `discover: true` beside it, and the provider says where it is asked",
                    ));
                None
            }
        }
    }

    fn identity(&self, providers: Providers<'_>, faults: &mut Faults) -> Option<Option<FetchIdentity>> {
        match &self.certificate {
            Some(name) => providers.certificates.find(name, faults).cloned().map(Some),
            None if self.way.value == Way::Tls => {
                faults.push(
                    Diagnostic::error(
                        "missing_key",
                        self.way.place,
                        "`tls_client_auth` needs `client_certificate`",
                    )
                    .note("it is the name of an entry of `certificates:`"),
                );
                None
            }
            None => Some(None),
        }
    }

    /// How we say who we are, and a text that differs whenever that does. What goes with another way is a mistake.
    fn auth(
        &self,
        issuer: &IssuerRule,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<(ClientAuth, String)> {
        let way = self.way.value;
        let by_secret = matches!(way, Way::Basic | Way::Post);
        let by_key = way == Way::PrivateKeyJwt;
        let mut good = true;
        for (written, fits, key) in [
            (self.secret.is_some(), by_secret, "client_secret"),
            (self.key.is_some(), by_key, "key"),
            (self.algorithm.is_some(), by_key, "algorithm"),
            (self.key_id.is_some(), by_key, "kid"),
            (self.assertion_audience.is_some(), by_key, "assertion_audience"),
        ] {
            let needed = fits && matches!(key, "client_secret" | "key" | "algorithm");
            let word = WAYS.iter().find(|(_, known)| *known == way).map_or("", |(word, _)| *word);
            if written && !fits {
                good = false;
                let message = format!("`{key}` has no meaning with `auth: {word}`");
                faults.error("not_together", self.way.place, message);
            } else if needed && !written {
                good = false;
                faults.error("missing_key", self.way.place, format!("`auth: {word}` needs `{key}`"));
            }
        }
        if !good {
            return None;
        }
        match way {
            Way::Tls => Some((ClientAuth::Tls, String::new())),
            Way::Basic | Way::Post => {
                let secret = self.secret.as_ref()?.resolve(materials, faults)?;
                let described = format!("{:?}", sha256(secret.expose()));
                if way == Way::Post && std::str::from_utf8(secret.expose()).is_err() {
                    faults.error("bad_secret", self.way.place, "a secret that is posted must be text");
                    return None;
                }
                let auth =
                    if way == Way::Basic { ClientAuth::Basic(secret) } else { ClientAuth::Post(secret) };
                Some((auth, described))
            }
            Way::PrivateKeyJwt => self.by_key(issuer, materials, faults),
        }
    }

    fn by_key(
        &self,
        issuer: &IssuerRule,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<(ClientAuth, String)> {
        let algorithm = self.algorithm.as_ref()?;
        let pem = self.key.as_ref()?.resolve(materials, faults)?;
        let key = SigningKey::from_pem(algorithm.value, pem.expose())
            .map_err(|why| faults.error("bad_key", algorithm.place, why.to_string()))
            .ok()?;
        let audience = match (&self.assertion_audience, issuer, &self.url) {
            (Some(audience), _, _) => audience.value.as_str(),
            (None, IssuerRule::Required(issuer) | IssuerRule::Optional(issuer), _) => issuer,
            (None, IssuerRule::OfCertificate | IssuerRule::Unchecked, Some(url)) => url.value.as_str(),
            (None, IssuerRule::OfCertificate | IssuerRule::Unchecked, None) => return None,
        };
        let key_id: Option<Arc<str>> = self.key_id.as_ref().map(|key_id| key_id.value.as_str().into());
        let described = format!("{:?} {algorithm:?} {key_id:?} {audience:?}", sha256(pem.expose()));
        let audience = audience.into();
        Some((ClientAuth::PrivateKeyJwt { key: Box::new(key), key_id, audience }, described))
    }

    /// INT-07: whose keys verify the answers.
    fn signed(&self, entry: &Compiled<'_>, faults: &mut Faults) -> Option<Option<Signed>> {
        if !self.signed {
            return Some(None);
        }
        let (Some(issuer), IssuerRule::Required(provider) | IssuerRule::Optional(provider)) =
            (entry.issuer, &entry.rules.issuer)
        else {
            faults.push(
                Diagnostic::error("missing_key", self.place, "signed answers need somebody who signs them")
                    .note("name the provider's `issuer`, its `keys` or `discover`, and its `algorithms`"),
            );
            return None;
        };
        // SECURITY: clients that sign for themselves must not say what other tokens are worth.
        if issuer.is_of_clients() || issuer.needs_pinned_certificate() {
            faults.push(
                Diagnostic::error("not_together", self.place, "these keys are not the provider's own")
                    .note("signed answers are verified with the provider's keys: `jwks_url`, `pem`, `jwks` or `discover`"),
            );
            return None;
        }
        let recipient = self.client_id.value.as_str().into();
        Some(Some(Signed { issuer: issuer.clone(), provider: provider.clone(), recipient }))
    }
}

/// What tokens begin with: characters that tokens have, and at least one.
fn read_prefix(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    let text = node.text(faults)?;
    if !is_b64token(text.value.as_bytes()) || text.value.contains('=') {
        faults.error("bad_prefix", text.place, format!("no token begins with `{}`", text.value));
        return None;
    }
    Some(text)
}

fn read_algorithm(node: &Node, faults: &mut Faults) -> Option<Spanned<Algorithm>> {
    let words: Vec<(&str, Algorithm)> = Algorithm::ALL
        .iter()
        .filter(|algorithm| !algorithm.is_symmetric())
        .map(|algorithm| (algorithm.as_str(), *algorithm))
        .collect();
    node.one_of(&words, faults).map(|algorithm| Spanned::new(algorithm, node.place))
}
