//! `api_key:` as written in a chain, and `api_keys:` as written in `gateway.yaml`.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Secret, SecretSpec};

use super::{ApiKey, ApiKeys};
use crate::place::{Place, header_name, is_token_byte};

/// The shortest pepper, in bytes: the output length of the hash it keys (RFC 2104 section 3).
const MIN_PEPPER: usize = 32;

/// `api_keys: { pepper }`: the secret under which keys are stored.
#[derive(Clone, Debug)]
pub struct PepperSpec {
    pepper: SecretSpec,
    place: portcullis_core::Place,
}

impl PepperSpec {
    /// Reads the mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`api_keys`", faults)?;
        let pepper = fields.require("pepper", faults);
        fields.finish(faults);
        let pepper = pepper?;
        Some(Self { pepper: pepper.secret(faults)?, place: pepper.place })
    }

    /// Fetches the secret. A short one is refused: with a guessable pepper the stored hashes can be searched.
    pub fn compile(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Secret> {
        let secret = self.pepper.resolve(materials, faults)?;
        if secret.len() < MIN_PEPPER {
            faults.push(
                Diagnostic::error(
                    "weak_secret",
                    self.place,
                    format!("the pepper is {} bytes long, {MIN_PEPPER} are needed", secret.len()),
                )
                .note("make one with `openssl rand -base64 32`"),
            );
            return None;
        }
        Some(secret)
    }
}

/// Where an alternative takes the key from.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeySpec {
    place: Place,
    at: portcullis_core::Place,
}

impl ApiKeySpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`api_key`", faults)?;
        let header = fields.require("header", faults);
        let scheme = fields.get("scheme");
        fields.finish(faults);
        let header = header.and_then(|node| header_name(node, faults));
        let word = scheme.map(|node| scheme_word(node, faults));
        let (header, word) = (header?, word.unwrap_or(Some(None))?);
        if let (Some(scheme), true) = (scheme, header != AUTHORIZATION) {
            faults.push(
                Diagnostic::error("misplaced_scheme", scheme.place, "only `authorization` has a scheme")
                    .note("elsewhere the key is the whole value of the header: leave `scheme` out"),
            );
            return None;
        }
        Some(Self { place: Place::new(header, word.as_deref()), at: node.place })
    }

    pub(crate) fn compile(&self, table: Option<&Arc<ApiKeys>>, faults: &mut Faults) -> Option<ApiKey> {
        if table.is_none() {
            faults.push(
                Diagnostic::error("missing_pepper", self.at, "`api_key` needs a pepper to look keys up with")
                    .note("add `api_keys: { pepper: { file: secrets/pepper } }` to gateway.yaml"),
            );
        }
        Some(ApiKey { place: self.place.clone(), table: table?.clone() })
    }
}

fn scheme_word(node: &Node, faults: &mut Faults) -> Option<Option<String>> {
    let text = node.text(faults)?;
    if text.value.bytes().all(is_token_byte) {
        return Some(Some(text.value));
    }
    faults.error("bad_scheme", text.place, format!("`{}` is not an authentication scheme", text.value));
    None
}
