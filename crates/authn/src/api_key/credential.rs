//! `api_key: { hash }` as written among the credentials of a client.

use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{AuthMethod, Client, Diagnostic, Faults, Spanned};

use super::{ApiKeys, KeyHash, KeyOwner};
use crate::clients::identity_of;

/// One stored key.
#[derive(Debug)]
pub(crate) struct ApiKeyCredential {
    hash: Spanned<KeyHash>,
}

impl ApiKeyCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`api_key`", faults)?;
        let hash = fields.require("hash", faults);
        fields.finish(faults);
        let text = hash?.text(faults)?;
        match text.value.parse() {
            Ok(hash) => Some(Self { hash: Spanned::new(hash, text.place) }),
            Err(error) => {
                faults.push(
                    Diagnostic::error("bad_key_hash", text.place, format!("this is {error}"))
                        .note("make one with `portcullis key create`"),
                );
                None
            }
        }
    }

    /// Adds the key to those of all clients.
    pub(crate) fn register(self, keys: Option<&mut ApiKeys>, client: &Arc<Client>, faults: &mut Faults) {
        let place = self.hash.place;
        let Some(keys) = keys else {
            faults.push(
                Diagnostic::error(
                    "missing_pepper",
                    place,
                    "an API key is declared, but no pepper to look it up with",
                )
                .note("add `api_keys: { pepper: { file: secrets/pepper } }` to gateway.yaml"),
            );
            return;
        };
        let owner = KeyOwner {
            identity: identity_of(client, AuthMethod::ApiKey),
            expires_at: client.expires_at,
            declared: place,
        };
        if let Some(taken) = keys.add(self.hash.value, owner) {
            faults.push(
                Diagnostic::error("key_twice", place, "this API key is declared more than once")
                    .related(taken.declared, format!("client `{}` already has it", taken.identity.subject)),
            );
        }
    }
}
