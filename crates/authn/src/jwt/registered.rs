//! Keys of registered clients, who sign their tokens themselves (B9.5).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Client, Diagnostic, Faults, Materials, Place, Spanned};
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, VerifyingKey};

use crate::clients::Registering;
use crate::identity::is_printable;
use crate::issuers::UrlSpec;
use crate::keys::KeySource;

/// The longest name of a key, in bytes (JWK-03).
const KEY_ID_MAX: usize = 256;
/// How many keys are tried for a token that does not name its key (JWK-05).
const TRIES_MAX: usize = 8;

/// `jwt_key: { kid, pem }` or `jwt_key: { jwks_url }` as written among the credentials of a client.
#[derive(Debug)]
pub(crate) enum JwtKeyCredential {
    /// One key, which the operator holds.
    Pem { key_id: Spanned<String>, pem: Spanned<String> },
    /// A set that the client publishes.
    Published { url: UrlSpec, place: Place },
}

/// A key, and whose it is.
#[derive(Debug)]
pub(crate) struct ClientKey {
    pub(crate) key: VerifyingKey,
    pub(crate) client: Arc<Client>,
    declared: Place,
}

/// The keys a client publishes.
#[derive(Debug)]
pub(crate) struct PublishedKeys {
    pub(crate) source: KeySource,
    pub(crate) client: Arc<Client>,
    declared: Place,
}

/// The keys of all clients. SECURITY: names of keys are unique among all clients, so no client can bring a key under
/// another one's name; a token leads to one client before any key is tried. What a client publishes is its own matter,
/// so its names count for its own tokens alone.
#[derive(Debug, Default)]
pub(crate) struct ClientKeys {
    keys: Vec<ClientKey>,
    by_key_id: HashMap<Arc<str>, usize, ahash::RandomState>,
    by_client: HashMap<Arc<str>, Vec<usize>, ahash::RandomState>,
    published: HashMap<Arc<str>, PublishedKeys, ahash::RandomState>,
    /// What the keys are made from, and the whole record of whose they are. SECURITY: a worker remembers a token together
    /// with the client it leads to, so a client that is changed, or ends sooner, must be another set.
    described: Vec<String>,
}

impl JwtKeyCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`jwt_key`", faults)?;
        if let Some(url) = fields.get("jwks_url") {
            let url = UrlSpec::read(url, &mut fields, faults);
            fields.finish(faults);
            return Some(Self::Published { url: url?, place: node.place });
        }
        let (key_id, pem) = (fields.require("kid", faults), fields.require("pem", faults));
        fields.finish(faults);
        let key_id = key_id.and_then(|node| node.text(faults));
        let pem = pem.and_then(|node| node.text(faults));
        let key_id = key_id?;
        if !is_printable(&key_id.value) || key_id.value.len() > KEY_ID_MAX {
            let message = format!("a `kid` is 1 to {KEY_ID_MAX} bytes long, without control characters");
            faults.error("bad_name", key_id.place, message);
            return None;
        }
        Some(Self::Pem { key_id, pem: pem? })
    }

    /// Adds the keys to those of all clients.
    pub(crate) fn register(
        self,
        keys: &mut ClientKeys,
        client: &Arc<Client>,
        registering: &Registering<'_>,
        faults: &mut Faults,
    ) {
        match self {
            Self::Pem { key_id, pem } => keys.add(key_id, &pem, client, registering.materials, faults),
            Self::Published { url, place } => keys.publish(&url, place, client, registering, faults),
        }
    }
}

impl ClientKeys {
    fn publish(
        &mut self,
        url: &UrlSpec,
        place: Place,
        client: &Arc<Client>,
        registering: &Registering<'_>,
        faults: &mut Faults,
    ) {
        let sources = registering.key_sources;
        let Some((source, description)) =
            url.source_of_client(&client.name, registering.materials, sources, faults)
        else {
            return;
        };
        if let Some(taken) = self.published.get(&client.name) {
            let message = format!("client `{}` publishes its keys at two places", client.name);
            faults.push(
                Diagnostic::error("key_twice", place, message)
                    .related(taken.declared, "the other one is here")
                    .note("one set holds several keys; those of a rotation stand beside one another in it"),
            );
            return;
        }
        self.described.push(format!("{client:?} {description}"));
        let published = PublishedKeys { source, client: client.clone(), declared: place };
        self.published.insert(client.name.clone(), published);
    }

    fn add(
        &mut self,
        key_id: Spanned<String>,
        pem: &Spanned<String>,
        client: &Arc<Client>,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) {
        let bytes = match materials.file(pem.place.file, &pem.value) {
            Ok(bytes) => bytes,
            Err(why) => {
                faults.error("unreadable", pem.place, why);
                return;
            }
        };
        let key = match VerifyingKey::from_pem(&bytes) {
            Ok(found) => match <[VerifyingKey; 1]>::try_from(found) {
                Ok([key]) => key,
                Err(found) => {
                    let message = format!("one key is expected, and here are {}", found.len());
                    faults.error("bad_key", pem.place, message);
                    return;
                }
            },
            Err(error) => {
                faults.error("bad_key", pem.place, format!("`{}`: {error}", pem.value));
                return;
            }
        };
        let name: Arc<str> = key_id.value.as_str().into();
        if let Some(taken) = self.by_key_id.get(&name).and_then(|at| self.keys.get(*at)) {
            faults.push(
                Diagnostic::error("key_twice", key_id.place, format!("`{name}` names more than one key"))
                    .related(taken.declared, format!("client `{}` already has it", taken.client.name)),
            );
            return;
        }
        let at = self.keys.len();
        self.described.push(format!("{name:?} {client:?} {:?}", sha256(&bytes)));
        self.by_key_id.insert(name.clone(), at);
        self.by_client.entry(client.name.clone()).or_default().push(at);
        self.keys.push(ClientKey { key: key.named(name), client: client.clone(), declared: key_id.place });
    }

    /// The keys that may have signed a token: the one of exactly that name; where the token names none, those of the
    /// client it names as its subject, but none at all if they are more than eight.
    pub(crate) fn candidates(
        &self,
        key_id: Option<&str>,
        subject: Option<&str>,
        algorithm: Algorithm,
    ) -> Vec<&ClientKey> {
        let at: &[usize] = match (key_id, subject) {
            (Some(key_id), _) => self.by_key_id.get(key_id).map(std::slice::from_ref).unwrap_or_default(),
            (None, Some(subject)) => self.by_client.get(subject).map(Vec::as_slice).unwrap_or_default(),
            (None, None) => &[],
        };
        let fitting = at.iter().filter_map(|at| self.keys.get(*at)).filter(|own| own.key.allows(algorithm));
        let fitting: Vec<_> = fitting.collect();
        if fitting.len() > TRIES_MAX { Vec::new() } else { fitting }
    }

    /// A key nobody has, for the work of a verification where a token leads to no key. SECURITY: else the time a refusal
    /// takes would tell which clients and which keys are registered (ANS-06).
    pub(crate) fn stand_in(algorithm: Algorithm) -> Option<&'static VerifyingKey> {
        static MADE: LazyLock<Vec<(Algorithm, VerifyingKey)>> = LazyLock::new(|| {
            let made = |algorithm| VerifyingKey::stand_in(algorithm).ok().map(|key| (algorithm, key));
            let public = Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric());
            public.filter_map(made).collect()
        });
        MADE.iter().find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }

    /// The keys of one client that may have signed a token: the one of exactly that name, or all that fit.
    pub(crate) fn candidates_of(
        &self,
        client: &str,
        key_id: Option<&str>,
        algorithm: Algorithm,
    ) -> Vec<&ClientKey> {
        let at = self.by_client.get(client).map(Vec::as_slice).unwrap_or_default();
        let named = |own: &&ClientKey| {
            key_id.is_none_or(|key_id| own.key.key_id().is_some_and(|name| **name == *key_id))
        };
        let fitting = at.iter().filter_map(|at| self.keys.get(*at)).filter(|own| own.key.allows(algorithm));
        let fitting: Vec<_> = fitting.filter(named).collect();
        if fitting.len() > TRIES_MAX { Vec::new() } else { fitting }
    }

    /// What the client of that name publishes.
    pub(crate) fn published(&self, client: Option<&str>) -> Option<&PublishedKeys> {
        self.published.get(client?)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.published.is_empty()
    }

    /// A text that differs whenever the keys do.
    pub(crate) fn described(&self) -> String {
        format!("{:?}", sha256(self.described.join("\n").as_bytes()))
    }
}
