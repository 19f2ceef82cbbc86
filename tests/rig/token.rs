//! Tokens, good until changed.

use portcullis_jose::base64url;
use serde_json::{Value, json};
use std::sync::Arc;

use super::certificates::{Leaf, unix_now};
use super::idp::{AUDIENCE, ISSUER, Key};

/// A token before it is signed.
#[derive(Clone)]
pub(crate) struct Token {
    key: Arc<Key>,
    header: Value,
    claims: Value,
}

impl Token {
    /// A good access token of the rig's bank: five minutes, scopes `accounts payments`, for `tpp-a`.
    pub(crate) fn new(key: &Arc<Key>) -> Self {
        let now = unix_now();
        Self {
            key: Arc::clone(key),
            header: json!({ "typ": "at+jwt", "kid": key.kid }),
            claims: json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": "tpp-a", "client_id": "tpp-a",
                "iat": now, "nbf": now - 1, "exp": now + 300, "jti": format!("{:p}", &now),
                "scope": "accounts payments", "tier": "gold",
                "acr": "urn:openbanking:psd2:sca",
            }),
        }
    }

    /// Sets a claim.
    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    /// Drops a claim.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().expect("claims").remove(name);
        self
    }

    /// Sets a header parameter; `Value::Null` drops it.
    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if value.is_null() {
            self.header.as_object_mut().expect("a header").remove(name);
        } else {
            self.header[name] = value;
        }
        self
    }

    /// Binds it to a certificate (RFC 8705 section 3.1).
    pub(crate) fn bound_to(self, leaf: &Leaf) -> Self {
        self.claim("cnf", json!({ "x5t#S256": leaf.thumbprint() }))
    }

    /// Signs it with its key.
    pub(crate) fn sign(&self) -> String {
        self.key.key.sign(self.header.clone(), &self.claims).expect("a signature")
    }

    /// Writes it with a header of the test's own making and a signature that is none.
    pub(crate) fn forged_once(&self, header: &str) -> String {
        format!("{}.{}.{}", part(header), part(&self.claims.to_string()), "A".repeat(86))
    }

    /// Writes it with a header and claims of the test's own making, and the signature of another token:
    /// what somebody does who has seen a token but has no key.
    pub(crate) fn forged(&self, header: &str, claims: &str) -> String {
        let signed = self.sign();
        let signature = signed.rsplit('.').next().expect("a signature");
        format!("{}.{}.{signature}", part(header), part(claims))
    }
}

/// Encodes one part of a token.
pub(crate) fn part(text: &str) -> String {
    base64url::encode(text.as_bytes())
}
