//! `keys:` of an issuer: where the keys that verify its tokens come from.

mod of_client;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, FetchTrust, Materials, Place, SecretSpec, Spanned};
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, JwkSet, JwkSource, KeyError, VerifyingKey};

use super::{Keys, Providers};
use crate::clients::Clients;
use crate::discovery::{DiscoverSpec, Discovery};
use crate::json;
use crate::keys::{CertificateKeys, KeySettings, KeySources, KeysOf, UrlTemplate};

/// The default for `refresh`.
pub(crate) const REFRESH: Duration = Duration::from_mins(5);
/// The bounds of `refresh` (JKS-03).
pub(crate) const REFRESH_BOUNDS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_hours(1));
/// The default for `serve_stale` (JKS-07).
pub(crate) const SERVE_STALE: Duration = Duration::from_hours(1);
/// The longest total age of a key set that is found by a certificate (OZ-03): its server lets ten minutes pass
/// between publishing a key and using it, and no more between withdrawing one and counting on that.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_mins(10);
/// The longest `serve_stale`.
pub(crate) const SERVE_STALE_MAX: Duration = Duration::from_hours(24);

/// `keys:` as written.
#[derive(Clone, Debug)]
pub(super) struct KeysSpec {
    kind: Kind,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
enum Kind {
    Url(UrlSpec),
    Pem(Vec<Spanned<String>>),
    JwksFile(Spanned<String>),
    JwksInline(Spanned<String>),
    Secret(SecretSpec),
    /// Those of registered clients.
    Clients,
    Discovered(DiscoverSpec),
}

/// `jwks_url` and what stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct UrlSpec {
    url: Spanned<String>,
    template: Option<UrlTemplate>,
    refresh: Duration,
    serve_stale: Duration,
    trust: Option<Spanned<String>>,
    loopback_http: bool,
}

impl KeysSpec {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if matches!(&node.content, Content::Text(word) if word == "clients") {
            return Some(Self { kind: Kind::Clients, place: node.place });
        }
        let mut fields = Fields::of(node, "`keys`", faults)?;
        let url = fields.get("jwks_url");
        let (pem, jwks, secret) = (fields.get("pem"), fields.get("jwks"), fields.get("secret"));
        // The settings of a URL are known, and thus suggested, only beside one.
        let url = url.map(|url| UrlSpec::read(url, &mut fields, faults));
        fields.finish(faults);
        let kind = match (url, pem, jwks, secret) {
            (Some(url), None, None, None) => Kind::Url(url?),
            (None, Some(files), None, None) => Kind::Pem(files.texts(faults)?),
            (None, None, Some(jwks), None) => read_jwks(jwks, faults)?,
            (None, None, None, Some(secret)) => Kind::Secret(secret.secret(faults)?),
            _ => {
                faults.error(
                    "one_key",
                    node.place,
                    "`keys` has exactly one of `jwks_url`, `pem`, `jwks`, `secret`",
                );
                return None;
            }
        };
        Some(Self { kind, place: node.place })
    }

    /// Whether they are those of registered clients.
    pub(super) const fn are_of_clients(&self) -> bool {
        matches!(self.kind, Kind::Clients)
    }

    /// The keys a provider names itself.
    pub(super) const fn discovered(spec: DiscoverSpec, place: Place) -> Self {
        Self { kind: Kind::Discovered(spec), place }
    }

    /// Whether the keys are found at a URL.
    pub(super) const fn are_fetched(&self) -> bool {
        matches!(self.kind, Kind::Url(_) | Kind::Discovered(_))
    }

    /// The keys, and a text that differs whenever they do.
    pub(super) fn compile(
        &self,
        issuer: &str,
        algorithms: &[Algorithm],
        discovery: Option<&Arc<Discovery>>,
        materials: &dyn Materials,
        providers: Providers<'_>,
        faults: &mut Faults,
    ) -> Option<(Keys, String)> {
        if !self.suits(algorithms, faults) {
            return None;
        }
        let sources = providers.keys;
        let (set, bytes) = match &self.kind {
            Kind::Url(url) => return url.compile(issuer, materials, sources, faults),
            Kind::Clients => return self.of_clients(providers.clients, faults),
            Kind::Discovered(spec) => {
                return discovered(spec, issuer, discovery?, sources, self.place, faults);
            }
            Kind::Pem(files) => pem(files, materials, faults)?,
            Kind::JwksFile(path) => {
                let bytes = file(path, materials, faults)?;
                (local_set(&bytes, path.place, faults)?, bytes)
            }
            Kind::JwksInline(text) => {
                let bytes = text.value.as_bytes().to_vec();
                let set = local_set(&bytes, text.place, faults)?;
                if set.keys().iter().any(VerifyingKey::is_symmetric) {
                    // SECURITY: as for every secret: whoever may read policies must not learn it.
                    faults.push(
                        Diagnostic::error("literal_secret", text.place, "a secret is written in the file")
                            .note("write `keys: { secret: { file: secrets/name } }`"),
                    );
                    return None;
                }
                (set, bytes)
            }
            Kind::Secret(secret) => self.secret(secret, materials, faults)?,
        };
        if !self.fits(&set, algorithms, faults) {
            return None;
        }
        let description = format!("{:?}", sha256(&bytes));
        Some((Keys::Fixed(set), description))
    }

    fn of_clients(&self, clients: &Clients, faults: &mut Faults) -> Option<(Keys, String)> {
        let keys = clients.jwt_keys();
        if keys.is_empty() {
            faults.push(
                Diagnostic::error(
                    "missing_key",
                    self.place,
                    "no client has a `jwt_key`, so no token could be verified",
                )
                .note("add `- jwt_key: { kid: …, pem: … }` or `{ jwks_url: … }` to the `credentials` of a client"),
            );
            return None;
        }
        Some((Keys::OfClients(keys.clone()), keys.described()))
    }

    /// SECURITY: whether a key can sign as well as verify is a property of the issuer, never of a token (JWT-11).
    fn suits(&self, algorithms: &[Algorithm], faults: &mut Faults) -> bool {
        let symmetric = algorithms.iter().any(|algorithm| algorithm.is_symmetric());
        match (&self.kind, symmetric) {
            (Kind::Secret(_), false) => {
                faults.push(
                    Diagnostic::error(
                        "keys_do_not_fit",
                        self.place,
                        "a secret verifies only HS256, HS384 and HS512, and this issuer's algorithms are others",
                    )
                    .note("give the issuer's public keys: `jwks_url`, `pem` or `jwks`"),
                );
                false
            }
            (Kind::Url(_) | Kind::Pem(_) | Kind::Discovered(_) | Kind::Clients, true) => {
                faults.push(
                    Diagnostic::error(
                        "keys_do_not_fit",
                        self.place,
                        "HMAC algorithms need a secret, and these keys are public",
                    )
                    .note(
                        "with a public key as the secret, everybody could sign: write `secret: { file: … }`",
                    ),
                );
                false
            }
            _ => true,
        }
    }

    /// Every key serves some algorithm of the issuer, and every algorithm has a key.
    fn fits(&self, set: &JwkSet, algorithms: &[Algorithm], faults: &mut Faults) -> bool {
        let unserved: Vec<_> = algorithms
            .iter()
            .filter(|algorithm| !set.keys().iter().any(|key| key.allows(**algorithm)))
            .map(|algorithm| format!("`{algorithm}`"))
            .collect();
        if unserved.is_empty() {
            return true;
        }
        let mut fault = Diagnostic::error(
            "keys_do_not_fit",
            self.place,
            format!("no key here can verify {}", unserved.join(", ")),
        );
        if set.keys().iter().any(VerifyingKey::is_symmetric) {
            fault = fault
                .note("a secret must be as long as the hash: 32, 48 or 64 bytes for HS256, HS384, HS512");
        }
        faults.push(fault);
        false
    }

    fn secret(
        &self,
        secret: &SecretSpec,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<(JwkSet, Vec<u8>)> {
        let secret = secret.resolve(materials, faults)?;
        if secret.expose().trim_ascii_start().starts_with(b"-----BEGIN") {
            faults.error("weak_secret", self.place, "this is a PEM file, not a secret");
            return None;
        }
        match VerifyingKey::from_secret(&secret) {
            Ok(key) => Some((JwkSet::from_keys(vec![key]), secret.expose().to_vec())),
            Err(error) => {
                faults.push(
                    Diagnostic::error("weak_secret", self.place, error.to_string())
                        .note("make one with `openssl rand -base64 48`"),
                );
                None
            }
        }
    }
}

impl UrlSpec {
    pub(crate) fn read<'n>(node: &'n Node, fields: &mut Fields<'n>, faults: &mut Faults) -> Option<Self> {
        let (refresh, serve_stale) = (fields.get("refresh"), fields.get("serve_stale"));
        let (trust, plain) = (fields.get("trust"), fields.get("http_on_loopback"));
        let url = node.text(faults)?;
        let is_template = UrlTemplate::is_one(&url.value);
        let template = is_template.then(|| UrlTemplate::read(&url, faults));
        let stale_default = if is_template { CERTIFICATE_AGE_MAX - REFRESH } else { SERVE_STALE };
        let ages = refresh.or(serve_stale).map_or(url.place, |node| node.place);
        let refresh = refresh.map_or(Some(REFRESH), |node| {
            within(node, REFRESH_BOUNDS.0, REFRESH_BOUNDS.1, "30s to 1h", faults)
        });
        let serve_stale = serve_stale.map_or(Some(stale_default), |node| {
            within(node, Duration::ZERO, SERVE_STALE_MAX, "0s to 24h", faults)
        });
        let trust = trust.map(|node| node.file(faults));
        let loopback_http = plain.map_or(Some(false), |node| node.boolean(faults));
        let (template, loopback_http) = (template.map_or(Some(None), |read| read.map(Some))?, loopback_http?);
        let whole = template.as_ref().map_or_else(|| url.value.clone(), UrlTemplate::example);
        check_url(&Spanned::new(whole, url.place), loopback_http, "keys are fetched", faults)?;
        let (refresh, serve_stale) = (refresh?, serve_stale?);
        if is_template && refresh.saturating_add(serve_stale) > CERTIFICATE_AGE_MAX {
            faults.push(
                Diagnostic::error(
                    "out_of_range",
                    ages,
                    "`refresh` and `serve_stale` are 10m at most, together",
                )
                .note("a key set that is found by a certificate is not relied on for longer"),
            );
            return None;
        }
        Some(Self {
            url,
            template,
            refresh,
            serve_stale,
            trust: match trust {
                None => None,
                Some(read) => Some(read?),
            },
            loopback_http,
        })
    }

    fn compile(
        &self,
        issuer: &str,
        materials: &dyn Materials,
        sources: &KeySources,
        faults: &mut Faults,
    ) -> Option<(Keys, String)> {
        let pem = match &self.trust {
            None => None,
            Some(path) => Some(file(path, materials, faults)?),
        };
        let description = format!("{} {:?} {}", self.url.value, pem, self.loopback_http);
        let trust = FetchTrust { anchors: pem, loopback_http: self.loopback_http, ..FetchTrust::default() };
        let settings = KeySettings {
            issuer: issuer.into(),
            refresh: self.refresh,
            serve_stale: self.serve_stale,
            of: if self.template.is_some() { KeysOf::Certificate } else { KeysOf::Issuer },
        };
        if let Some(template) = &self.template {
            let keys = CertificateKeys::new(template.clone(), trust, settings, sources.clone());
            return Some((Keys::ByCertificate(keys), description));
        }
        match sources.source(&self.url.value, trust, settings) {
            Ok(source) => Some((Keys::Fetched(source), description)),
            Err(why) => {
                let place = self.trust.as_ref().map_or(self.url.place, |path| path.place);
                faults.error("bad_trust", place, why);
                None
            }
        }
    }
}

/// The keys of a provider that says itself where they are.
fn discovered(
    spec: &DiscoverSpec,
    issuer: &str,
    discovery: &Arc<Discovery>,
    sources: &KeySources,
    place: Place,
    faults: &mut Faults,
) -> Option<(Keys, String)> {
    let description = format!("{:?}", discovery.settings());
    let settings = KeySettings {
        issuer: issuer.into(),
        refresh: spec.refresh,
        serve_stale: spec.serve_stale,
        of: KeysOf::Issuer,
    };
    let source = sources.discovered(discovery, settings);
    let source = source.map_err(|why| faults.error("bad_trust", place, why)).ok()?;
    Some((Keys::Fetched(source), description))
}

/// JKS-01: whether a URL leads to where it says: https, or plain http to this machine if the file says so. `what` is what
/// is done with https only. `None` if it does not, which was told.
pub fn check_url(url: &Spanned<String>, loopback_http: bool, what: &str, faults: &mut Faults) -> Option<()> {
    let text = url.value.as_str();
    let parsed: Option<http::Uri> = text.parse().ok();
    let sound = parsed.as_ref().filter(|uri| {
        let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        authority && !text.contains('#')
    });
    let Some(uri) = sound else {
        faults.error(
            "bad_url",
            url.place,
            format!("`{text}` is not an absolute URL without user and fragment"),
        );
        return None;
    };
    match uri.scheme_str() {
        Some("https") => Some(()),
        Some("http") if is_loopback(uri.host().unwrap_or_default()) => {
            if !loopback_http {
                faults.push(
                    Diagnostic::error("plain_http", url.place, format!("{what} with https only"))
                        .note("on this machine alone, `http_on_loopback: true` allows plain http"),
                );
            }
            loopback_http.then_some(())
        }
        _ => {
            faults.push(
                Diagnostic::error("plain_http", url.place, format!("{what} with https only"))
                    .note("whoever could change the answer on its way could let anybody in"),
            );
            None
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A duration between bounds, of which `words` speaks.
pub(crate) fn within(
    node: &Node,
    least: Duration,
    most: Duration,
    words: &str,
    faults: &mut Faults,
) -> Option<Duration> {
    let duration = node.duration(faults)?;
    if duration < least || duration > most {
        faults.error("out_of_range", node.place, format!("this must be {words}"));
        return None;
    }
    Some(duration)
}

fn read_jwks(node: &Node, faults: &mut Faults) -> Option<Kind> {
    let is_inline = matches!(&node.content, Content::Map(entries) if entries.iter().any(|entry| entry.key.value == "keys"));
    if is_inline {
        return Some(Kind::JwksInline(Spanned::new(json::text(node), node.place)));
    }
    node.file(faults).map(Kind::JwksFile)
}

/// The bytes of a file.
pub(crate) fn file(
    path: &Spanned<String>,
    materials: &dyn Materials,
    faults: &mut Faults,
) -> Option<Vec<u8>> {
    match materials.file(path.place.file, &path.value) {
        Ok(bytes) => Some(bytes),
        Err(why) => {
            faults.error("unreadable", path.place, why);
            None
        }
    }
}

fn pem(
    files: &[Spanned<String>],
    materials: &dyn Materials,
    faults: &mut Faults,
) -> Option<(JwkSet, Vec<u8>)> {
    let (mut keys, mut all, mut good) = (Vec::new(), Vec::new(), true);
    for path in files {
        let Some(bytes) = file(path, materials, faults) else {
            good = false;
            continue;
        };
        match VerifyingKey::from_pem(&bytes) {
            Ok(found) => keys.extend(found),
            Err(error) => {
                good = false;
                faults.push(bad_key(&error, path));
            }
        }
        all.extend_from_slice(&bytes);
    }
    good.then(|| (JwkSet::from_keys(keys), all))
}

fn bad_key(error: &KeyError, path: &Spanned<String>) -> Diagnostic {
    let fault = Diagnostic::error("bad_key", path.place, format!("`{}`: {error}", path.value));
    match error {
        KeyError::PrivateKey => {
            fault.note("the gateway must not hold it: `openssl pkey -pubout` writes the public half")
        }
        _ => fault.note("a key file holds PEM blocks `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`"),
    }
}

/// A set of our own files: an entry that does not count is a mistake somebody made here.
fn local_set(bytes: &[u8], place: Place, faults: &mut Faults) -> Option<JwkSet> {
    let set = match JwkSet::parse(bytes, JwkSource::Local) {
        Ok(set) => set,
        Err(error) => {
            faults.error("bad_key", place, error.to_string());
            return None;
        }
    };
    for skipped in set.skipped() {
        let name = skipped.key_id.as_deref().map(|key_id| format!(" (`{key_id}`)")).unwrap_or_default();
        faults.error("bad_key", place, format!("key {}{name}: {}", skipped.index + 1, skipped.why));
    }
    set.skipped().is_empty().then_some(set)
}
