//! The keys of registered clients, found by their ids.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{
    AuthMethod, Client, Diagnostic, Faults, Identity, Materials, Place, SecretSpec, Spanned,
};
use portcullis_jose::{MessageAlgorithm, MessageKey};

use crate::clients::identity_of;

/// The longest key id, in bytes.
const MAX_KEY_ID: usize = 255;

/// A key, and whom it leads to.
#[derive(Clone, Debug)]
pub(crate) struct SignatureKey {
    /// Made once, shared by all requests.
    pub(crate) identity: Arc<Identity>,
    /// Second since 1970 from which the client no longer counts.
    pub(crate) expires_at: Option<i64>,
    key: MessageKey,
    /// The one algorithm it is for, where its owner or its kind says so.
    only: Option<MessageAlgorithm>,
    declared: Place,
}

impl SignatureKey {
    /// Whether it may be used with the algorithm.
    pub(crate) fn allows(&self, algorithm: MessageAlgorithm) -> bool {
        self.only.is_none_or(|only| only == algorithm) && self.key.allows(algorithm)
    }

    /// Whether the signature is its own.
    pub(crate) fn verifies(&self, algorithm: MessageAlgorithm, base: &[u8], signature: &[u8]) -> bool {
        self.allows(algorithm) && self.key.verifies(algorithm, base, signature)
    }
}

/// All keys of one kind of credential. Key ids are no secrets; the hasher has a key of its own all the same, because
/// strangers choose what is looked up.
#[derive(Debug, Default)]
pub(crate) struct SignatureKeys(HashMap<Box<str>, SignatureKey, ahash::RandomState>);

impl SignatureKeys {
    /// The key of that id.
    pub(crate) fn get(&self, key_id: &str) -> Option<&SignatureKey> {
        self.0.get(key_id)
    }

    /// Every key, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SignatureKey> {
        self.0.values()
    }
}

/// What a key is made from.
#[derive(Debug)]
pub(crate) enum KeyMaterial {
    /// A shared secret.
    Secret(SecretSpec, Place),
    /// A PEM file with one public key or certificate.
    Public(Spanned<String>),
}

impl KeyMaterial {
    /// Reads `secret` or `public_key`, of which there must be one.
    pub(crate) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Self> {
        match (fields.get("secret"), fields.get("public_key")) {
            (Some(secret), None) => Some(Self::Secret(secret.secret(faults)?, secret.place)),
            (None, Some(public)) => public.file(faults).map(Self::Public),
            (None, None) | (Some(_), Some(_)) => {
                faults.push(
                    Diagnostic::error(
                        "missing_key",
                        fields.place(),
                        "this needs either `secret` or `public_key`",
                    )
                    .note(
                        "`secret: { file: … }` for HMAC, `public_key: { file: … }` with a PEM for all others",
                    ),
                );
                None
            }
        }
    }

    fn load(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<(MessageKey, Place)> {
        let (made, place) = match self {
            Self::Secret(secret, place) => {
                (MessageKey::from_secret(&secret.resolve(materials, faults)?).map(|key| vec![key]), *place)
            }
            Self::Public(path) => match materials.file(path.place.file, &path.value) {
                Ok(bytes) => (MessageKey::from_pem(&bytes), path.place),
                Err(why) => {
                    faults.error("unreadable", path.place, why);
                    return None;
                }
            },
        };
        match made.as_deref() {
            Ok([key]) => Some((key.clone(), place)),
            Ok(keys) => {
                faults.error("bad_key", place, format!("one key is expected, and here are {}", keys.len()));
                None
            }
            Err(error) => {
                faults.error("bad_key", place, error.to_string());
                None
            }
        }
    }
}

/// Reads `key_id`.
pub(crate) fn read_key_id(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    let text = node.text(faults)?;
    // What both kinds of signatures can say without an escape.
    let printable = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.value.len() <= MAX_KEY_ID && text.value.bytes().all(printable) {
        return Some(text);
    }
    faults.error(
        "bad_name",
        text.place,
        format!("a key id is 1 to {MAX_KEY_ID} printable characters, without quotes and backslashes"),
    );
    None
}

/// Adds a key of a client to all others, or says why it cannot be.
pub(crate) fn register(
    keys: &mut SignatureKeys,
    method: AuthMethod,
    (key_id, material, algorithm): (Spanned<String>, &KeyMaterial, Option<Spanned<MessageAlgorithm>>),
    client: &Arc<Client>,
    (materials, faults): (&dyn Materials, &mut Faults),
) {
    let Some((key, place)) = material.load(materials, faults) else { return };
    if let Some(algorithm) = &algorithm
        && !key.allows(algorithm.value)
    {
        let fitting: Vec<_> = key.algorithms().map(MessageAlgorithm::as_str).collect();
        faults.push(
            Diagnostic::error(
                "key_algorithm_mismatch",
                algorithm.place,
                format!("the key cannot be used with `{}`", algorithm.value),
            )
            .related(place, format!("this key fits {}", fitting.join(", "))),
        );
        return;
    }
    let declared = key_id.place;
    let owner = SignatureKey {
        identity: identity_of(client, method, Some(key_id.value.as_str().into())),
        expires_at: client.expires_at,
        key,
        only: algorithm.map(|algorithm| algorithm.value),
        declared,
    };
    match keys.0.entry(key_id.value.into()) {
        Entry::Occupied(taken) => faults.push(
            Diagnostic::error(
                "key_twice",
                declared,
                format!("key id `{}` is declared more than once", taken.key()),
            )
            .related(
                taken.get().declared,
                format!("client `{}` already has it", taken.get().identity.subject),
            ),
        ),
        Entry::Vacant(free) => {
            free.insert(owner);
        }
    }
}
