//! `anonymous: { because }` as written in a chain.

use std::sync::Arc;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{AuthMethod, Faults, Identity, Spanned};

use super::Anonymous;

/// A public API, with the reason.
#[derive(Clone, Debug)]
pub(crate) struct AnonymousSpec {
    because: Spanned<String>,
}

impl AnonymousSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`anonymous`", faults)?;
        let because = fields.require("because", faults);
        fields.finish(faults);
        Some(Self { because: because?.text(faults)? })
    }

    pub(crate) fn compile(&self) -> Anonymous {
        Anonymous { because: self.because.value.as_str().into(), identity: anybody() }
    }
}

/// The identity of whoever is not asked.
pub(crate) fn anybody() -> Arc<Identity> {
    let name: Arc<str> = AuthMethod::Anonymous.as_str().into();
    Arc::new(Identity {
        method: AuthMethod::Anonymous,
        key: name.clone(),
        subject: name,
        issuer: None,
        client: None,
        key_id: None,
        claims: Arc::default(),
        scopes: Arc::default(),
        certificate: None,
        expires_at: None,
    })
}
