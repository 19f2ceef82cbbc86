//! Keys of registered clients, who sign their tokens themselves (B9.5).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Client, Diagnostic, Faults, Materials, Place, Spanned};
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, VerifyingKey};

/// The longest name of a key, in bytes (JWK-03).
const KEY_ID_MAX: usize = 256;
/// How many keys are tried for a token that does not name its key (JWK-05).
const TRIES_MAX: usize = 8;

/// `jwt_key: { kid, pem }` as written among the credentials of a client.
#[derive(Debug)]
pub(crate) struct JwtKeyCredential {
    key_id: Spanned<String>,
    pem: Spanned<String>,
}

/// A key, and whose it is.
#[derive(Debug)]
pub(crate) struct ClientKey {
    pub(crate) key: VerifyingKey,
    pub(crate) client: Arc<Client>,
    declared: Place,
}

/// The keys of all clients. SECURITY: names of keys are unique among all clients, so no client can bring a key under
/// another one's name; a token leads to one client before any key is tried.
#[derive(Debug, Default)]
pub(crate) struct ClientKeys {
    keys: Vec<ClientKey>,
    by_key_id: HashMap<Arc<str>, usize, ahash::RandomState>,
    by_client: HashMap<Arc<str>, Vec<usize>, ahash::RandomState>,
    /// What the keys are made from, and the whole record of whose they are. SECURITY: a worker remembers a token together
    /// with the client it leads to, so a client that is changed, or ends sooner, must be another set.
    described: Vec<String>,
}

impl JwtKeyCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`jwt_key`", faults)?;
        let (key_id, pem) = (fields.require("kid", faults), fields.require("pem", faults));
        fields.finish(faults);
        let key_id = key_id.and_then(|node| node.text(faults));
        let pem = pem.and_then(|node| node.text(faults));
        let key_id = key_id?;
        if key_id.value.is_empty() || key_id.value.len() > KEY_ID_MAX {
            faults.error("bad_name", key_id.place, format!("a `kid` is 1 to {KEY_ID_MAX} bytes long"));
            return None;
        }
        Some(Self { key_id, pem: pem? })
    }

    /// Adds the key to those of all clients.
    pub(crate) fn register(
        self,
        keys: &mut ClientKeys,
        client: &Arc<Client>,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) {
        let Self { key_id, pem } = self;
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
        if let Some(taken) = keys.by_key_id.get(&name).and_then(|at| keys.keys.get(*at)) {
            faults.push(
                Diagnostic::error("key_twice", key_id.place, format!("`{name}` names more than one key"))
                    .related(taken.declared, format!("client `{}` already has it", taken.client.name)),
            );
            return;
        }
        let at = keys.keys.len();
        keys.described.push(format!("{name:?} {client:?} {:?}", sha256(&bytes)));
        keys.by_key_id.insert(name.clone(), at);
        keys.by_client.entry(client.name.clone()).or_default().push(at);
        keys.keys.push(ClientKey { key: key.named(name), client: client.clone(), declared: key_id.place });
    }
}

impl ClientKeys {
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

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A text that differs whenever the keys do.
    pub(crate) fn described(&self) -> String {
        format!("{:?}", sha256(self.described.join("\n").as_bytes()))
    }
}
