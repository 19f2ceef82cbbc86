//! The kinds of credentials a client may have. A new one is a reader and an index in its authenticator's folder, one
//! variant here, and one field in each of the two sets of indexes; the compiler lists the rest.

use std::sync::Arc;

use portcullis_core::document::Node;
use portcullis_core::{Client, Diagnostic, Faults, Spanned, diagnostic::nearest};

use super::{Indexes, Registering};
use crate::api_key::{ApiKeyCredential, ApiKeys};

/// A credential as written.
#[derive(Debug)]
pub(super) enum CredentialSpec {
    ApiKey(ApiKeyCredential),
}

/// The words that name kinds of credentials.
const WORDS: &[&str] = &["api_key"];

impl CredentialSpec {
    /// Reads `api_key: { … }`.
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Spanned<Self>> {
        let entry = node.single("a credential", faults)?;
        let spec = match entry.key.value.as_str() {
            "api_key" => ApiKeyCredential::read(&entry.value, faults).map(Self::ApiKey),
            other => {
                let fault = Diagnostic::error(
                    "unknown_key",
                    entry.key.place,
                    format!("`{other}` is not a kind of credential"),
                );
                let fault = fault.note(format!("words here: {}", WORDS.join(", ")));
                faults.push(match nearest(other, WORDS.iter().copied()) {
                    Some(near) => fault.label(format!("did you mean `{near}`?")),
                    None => fault,
                });
                None
            }
        };
        Some(Spanned::new(spec?, entry.key.place))
    }
}

/// The indexes while they are filled.
pub(super) struct IndexesBeingBuilt {
    api_keys: Option<ApiKeys>,
}

impl Indexes {
    pub(super) fn building(registering: &Registering<'_>) -> IndexesBeingBuilt {
        IndexesBeingBuilt { api_keys: registering.pepper.map(ApiKeys::new) }
    }
}

impl IndexesBeingBuilt {
    /// Adds one credential of a client, or says why it cannot be.
    pub(super) fn add(&mut self, spec: Spanned<CredentialSpec>, client: &Arc<Client>, faults: &mut Faults) {
        match spec.value {
            CredentialSpec::ApiKey(key) => key.register(self.api_keys.as_mut(), client, faults),
        }
    }

    pub(super) fn freeze(self) -> Indexes {
        Indexes { api_keys: self.api_keys.map(Arc::new) }
    }
}
