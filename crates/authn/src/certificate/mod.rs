//! `certificate`: the caller's certificate names the caller.
//!
//! The listener has verified the path; here the API says which of the verified certificates it takes. Trust in a
//! certificate authority alone admits everybody it ever certified, so an alternative usually pins something else
//! as well (CRT-05), or takes only certificates that are credentials of registered clients.

mod bound;
mod credential;
pub(crate) mod name;
mod owners;
mod parse;
mod pinned;
mod proxy;
mod spec;
#[cfg(test)]
mod tests;
mod whole_name;

use std::sync::Arc;

use portcullis_core::{AuthMethod, Client, Identity, PeerCertificate, Reason, Rejection, Scheme};

pub(crate) use bound::{CertificateBinding, Unbound};
pub use credential::KnownAuthorities;
pub(crate) use credential::{CertificateCredential, NamedCertificates};
pub(crate) use owners::{CertificateOwners, Ownership};
pub use parse::{CertificateError, Validity, fingerprint_alone, peer_certificate, thumbprint, validity};
pub(crate) use pinned::PinnedCertificates;
use pinned::Unacceptable;
pub use proxy::{ProxyProof, ProxyProofSpec};
pub(crate) use spec::{CertificateSpec, PinnedSpec};

use crate::chain::{Evidence, Outcome};
use crate::clients::identity_of;
use crate::identity::is_name;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// `None`: whichever certificate a client has registered.
    pinned: Option<PinnedCertificates>,
    /// Whether it must be one that a client has registered.
    registered: bool,
    /// The certificates of registered clients.
    owners: Arc<CertificateOwners>,
}

impl ClientCertificate {
    /// Whether the caller's certificate comes from an authority this alternative is about. Anchors tell
    /// certificates apart the way issuers tell tokens apart; pins judge.
    pub(crate) fn is_addressed(&self, evidence: &Evidence<'_>) -> bool {
        evidence.certificate.is_some_and(|certificate| match &self.pinned {
            Some(pinned) if pinned.has_authorities() => pinned.trusts(certificate),
            // Without authorities its own key tells whether it is meant, or its owner.
            Some(pinned) => pinned.fits(certificate),
            None => !matches!(
                evidence.worker.certificate(certificate, &self.owners).ownership,
                Ownership::Nobodys
            ),
        })
    }

    /// Whether it takes fewer than all certificates of its authorities. SECURITY: being registered is not enough, for a
    /// client may be registered by its key, and then nobody has to vouch for the names.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.as_ref().is_some_and(PinnedCertificates::is_pinned)
    }

    /// Whether every certificate that is addressed to the other is addressed to this one as well.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (&self.pinned, &other.pinned) {
            (Some(own), Some(their)) => own.covers(their),
            // Both take whatever is registered.
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Judges the caller's certificate.
    pub(crate) fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        let Some(certificate) = evidence.certificate else { return Outcome::Absent };
        let refused = |why: Unacceptable| Outcome::Rejected(why.into());
        if let Some(reason) = certificate.objection(evidence.now) {
            return refused(Unacceptable::Objected(reason));
        }
        if let Some(Err(why)) = self.pinned.as_ref().map(|pinned| pinned.judge_names(certificate)) {
            return refused(why);
        }
        let known = evidence.worker.certificate(certificate, &self.owners);
        match &known.ownership {
            Ownership::Nobodys if self.registered => refused(Unacceptable::Unregistered),
            Ownership::Contested if self.registered => refused(Unacceptable::Contested),
            // The certificate was right, so its holder may learn that it is their registration that ended.
            Ownership::Of(client)
                if client.expires_at.is_some_and(|end| evidence.now.unix_seconds() >= end) =>
            {
                Outcome::Rejected(
                    Rejection::new(Reason::ClientInactive)
                        .of(Scheme::Certificate)
                        .because("the client has expired"),
                )
            }
            Ownership::Nobodys | Ownership::Contested | Ownership::Of(_) => {
                Outcome::Verified(known.identity, None)
            }
        }
    }
}

/// The thumbprint in hex, as tools print it.
pub(crate) fn thumbprint_text(certificate: &PeerCertificate) -> String {
    let mut text = String::with_capacity(64);
    name::push_hex(&mut text, &certificate.thumbprint);
    text
}

/// The first sixteen digits of it: what tells the certificates of a client apart. The access log calls certificates so.
fn short_thumbprint(certificate: &PeerCertificate) -> Arc<str> {
    let mut text = String::with_capacity(16);
    name::push_hex(&mut text, certificate.thumbprint.get(..8).unwrap_or_default());
    text.into()
}

/// What a certificate says about its holder. Where it is a credential of a registered client, that is the client.
///
/// Of any other the key is the thumbprint, because names are only as unique as each authority makes them; a renewed
/// certificate is thus another caller, unless `identity` names the callers by an attribute of the subject. The readable
/// subject is the common name if there is exactly one, else the whole subject.
pub(crate) fn identity(certificate: &Arc<PeerCertificate>, client: Option<&Arc<Client>>) -> Identity {
    if let Some(client) = client {
        let key_id = Some(short_thumbprint(certificate));
        let identity = Arc::unwrap_or_clone(identity_of(client, AuthMethod::Certificate, key_id));
        let until =
            identity.expires_at.map_or(certificate.valid_until, |end| end.min(certificate.valid_until));
        return Identity { certificate: Some(certificate.clone()), expires_at: Some(until), ..identity };
    }
    let mut names = certificate.subject_values(name::COMMON_NAME);
    let subject = match (names.next(), names.next()) {
        (Some(name), None) if is_name(name) => name.clone(),
        _ if is_name(&certificate.subject_text) => certificate.subject_text.clone(),
        _ => thumbprint_text(certificate).into(),
    };
    Identity {
        method: AuthMethod::Certificate,
        key: format!("certificate:{}", thumbprint_text(certificate)).into(),
        subject,
        issuer: None,
        client: None,
        key_id: None,
        claims: Arc::default(),
        scopes: Arc::default(),
        certificate: Some(certificate.clone()),
        expires_at: Some(certificate.valid_until),
    }
}
