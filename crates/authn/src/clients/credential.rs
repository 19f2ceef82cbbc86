//! The kinds of credentials a client may have. A new one is a reader and an index in its authenticator's folder, one
//! variant here, and one field in each of the two sets of indexes; the compiler lists the rest.

use std::sync::Arc;

use portcullis_core::document::Node;
use portcullis_core::{Client, Diagnostic, Faults, Materials, Spanned, diagnostic::nearest};

use super::{Indexes, Registering};
use crate::api_key::{ApiKeyCredential, ApiKeys};
use crate::basic::{BasicCredential, Users};
use crate::certificate::{CertificateCredential, CertificateOwners};
use crate::hmac::HmacCredential;
use crate::jwt::{ClientKeys, JwtKeyCredential};
use crate::signature::SignatureCredential;
use crate::signing::SignatureKeys;

/// A credential as written.
#[derive(Debug)]
pub(super) enum CredentialSpec {
    ApiKey(ApiKeyCredential),
    Basic(BasicCredential),
    Certificate(CertificateCredential),
    JwtKey(JwtKeyCredential),
    Hmac(HmacCredential),
    Signature(SignatureCredential),
}

/// The words that name kinds of credentials.
const WORDS: &[&str] = &["api_key", "basic", "certificate", "jwt_key", "hmac", "signature"];

impl CredentialSpec {
    /// Reads `api_key: { … }`.
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Spanned<Self>> {
        let entry = node.single("a credential", faults)?;
        let spec = match entry.key.value.as_str() {
            "api_key" => ApiKeyCredential::read(&entry.value, faults).map(Self::ApiKey),
            "basic" => BasicCredential::read(&entry.value, faults).map(Self::Basic),
            "certificate" => CertificateCredential::read(&entry.value, faults).map(Self::Certificate),
            "jwt_key" => JwtKeyCredential::read(&entry.value, faults).map(Self::JwtKey),
            "hmac" => HmacCredential::read(&entry.value, faults).map(Self::Hmac),
            "signature" => SignatureCredential::read(&entry.value, faults).map(Self::Signature),
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
pub(super) struct IndexesBeingBuilt<'a> {
    materials: &'a dyn Materials,
    api_keys: Option<ApiKeys>,
    users: Users,
    certificates: CertificateOwners,
    hmac_keys: SignatureKeys,
    signature_keys: SignatureKeys,
    jwt_keys: ClientKeys,
}

impl Indexes {
    pub(super) fn building<'a>(registering: &Registering<'a>) -> IndexesBeingBuilt<'a> {
        IndexesBeingBuilt {
            materials: registering.materials,
            api_keys: registering.pepper.map(ApiKeys::new),
            users: Users::default(),
            certificates: CertificateOwners::default(),
            hmac_keys: SignatureKeys::default(),
            signature_keys: SignatureKeys::default(),
            jwt_keys: ClientKeys::default(),
        }
    }
}

impl IndexesBeingBuilt<'_> {
    /// Adds one credential of a client, or says why it cannot be.
    pub(super) fn add(
        &mut self,
        spec: Spanned<CredentialSpec>,
        client: &Arc<Client>,
        registering: &Registering<'_>,
        faults: &mut Faults,
    ) {
        match spec.value {
            CredentialSpec::ApiKey(key) => {
                key.register(self.api_keys.as_mut(), client, registering, faults);
            }
            CredentialSpec::Certificate(certificate) => {
                certificate.register(&mut self.certificates, registering.authorities, client, faults);
            }
            CredentialSpec::Basic(user) => user.register(&mut self.users, client, faults),
            CredentialSpec::JwtKey(key) => key.register(&mut self.jwt_keys, client, registering, faults),
            CredentialSpec::Hmac(key) => {
                key.register(&mut self.hmac_keys, client, self.materials, faults);
            }
            CredentialSpec::Signature(key) => {
                key.register(&mut self.signature_keys, client, self.materials, faults);
            }
        }
    }

    pub(super) fn freeze(self) -> Indexes {
        Indexes {
            api_keys: self.api_keys.map(Arc::new),
            users: Arc::new(self.users),
            certificates: Arc::new(self.certificates),
            jwt_keys: Arc::new(self.jwt_keys),
            hmac_keys: Arc::new(self.hmac_keys),
            signature_keys: Arc::new(self.signature_keys),
        }
    }
}
