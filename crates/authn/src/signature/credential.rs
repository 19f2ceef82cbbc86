//! `signature: { key_id, public_key }` as written among the credentials of a client.

use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{AuthMethod, Client, Diagnostic, Faults, Materials, Place, Spanned};
use portcullis_jose::MessageAlgorithm;

use super::ALGORITHMS;
use crate::signing::{KeyMaterial, SignatureKeys, read_key_id, register};

/// One key.
#[derive(Debug)]
pub(crate) struct SignatureCredential {
    key_id: Spanned<String>,
    material: KeyMaterial,
    algorithm: Spanned<MessageAlgorithm>,
}

impl SignatureCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`signature`", faults)?;
        let key_id = fields.require("key_id", faults).map(|node| read_key_id(node, faults));
        let material = KeyMaterial::read(&mut fields, faults);
        // SIG-05: the key says what it is for, and an RSA key does not say which of two.
        let algorithm = fields.require("algorithm", faults);
        let algorithm = algorithm.and_then(|node| {
            node.one_of(ALGORITHMS, faults).map(|algorithm| Spanned::new(algorithm, node.place))
        });
        fields.finish(faults);
        let (material, algorithm) = (material?, algorithm?);
        check_kind(&material, &algorithm, faults)?;
        Some(Self { key_id: key_id??, material, algorithm })
    }

    /// Adds the key to those of all clients.
    pub(crate) fn register(
        self,
        keys: &mut SignatureKeys,
        client: &Arc<Client>,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) {
        let key = (self.key_id, &self.material, Some(self.algorithm));
        register(keys, AuthMethod::Signature, key, client, (materials, faults));
    }
}

fn check_kind(
    material: &KeyMaterial,
    algorithm: &Spanned<MessageAlgorithm>,
    faults: &mut Faults,
) -> Option<Place> {
    let secret = matches!(material, KeyMaterial::Secret(..));
    if secret == algorithm.value.is_symmetric() {
        return Some(algorithm.place);
    }
    let wanted = if secret { "a `public_key`" } else { "a `secret`" };
    faults.push(Diagnostic::error(
        "key_algorithm_mismatch",
        algorithm.place,
        format!("`{}` needs {wanted}", algorithm.value),
    ));
    None
}
