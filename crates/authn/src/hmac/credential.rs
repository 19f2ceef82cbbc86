//! `hmac: { key_id, secret }` as written among the credentials of a client.

use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{AuthMethod, Client, Faults, Materials, Spanned};
use portcullis_jose::MessageAlgorithm;

use super::ALGORITHMS;
use crate::signing::{KeyMaterial, SignatureKeys, read_key_id, register};

/// One key.
#[derive(Debug)]
pub(crate) struct HmacCredential {
    key_id: Spanned<String>,
    material: KeyMaterial,
    algorithm: Option<Spanned<MessageAlgorithm>>,
}

impl HmacCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`hmac`", faults)?;
        let key_id = fields.require("key_id", faults).map(|node| read_key_id(node, faults));
        let material = KeyMaterial::read(&mut fields, faults);
        let algorithm = fields.get("algorithm");
        let algorithm = algorithm
            .map(|node| node.one_of(ALGORITHMS, faults).map(|algorithm| Spanned::new(algorithm, node.place)));
        fields.finish(faults);
        let algorithm = match algorithm {
            None => None,
            Some(read) => Some(read?),
        };
        Some(Self { key_id: key_id??, material: material?, algorithm })
    }

    /// Adds the key to those of all clients.
    pub(crate) fn register(
        self,
        keys: &mut SignatureKeys,
        client: &Arc<Client>,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) {
        let key = (self.key_id, &self.material, self.algorithm);
        register(keys, AuthMethod::Hmac, key, client, (materials, faults));
    }
}
