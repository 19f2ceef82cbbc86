//! Whose certificate it is, among registered clients.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::{Client, Diagnostic, Faults, PeerCertificate, Place};

use super::PinnedCertificates;
use super::spec::Verify;

/// To whom a certificate belongs.
#[derive(Clone, Debug)]
pub(crate) enum Ownership {
    /// To no registered client.
    Nobodys,
    /// To this one.
    Of(Arc<Client>),
    /// To more than one, and thus to none.
    Contested,
}

/// Whom a certificate leads to, and where that is declared.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) client: Arc<Client>,
    pub(super) declared: Place,
}

/// Whom an exact certificate or key leads to, and what must be known of it.
#[derive(Clone, Debug)]
pub(super) struct Exact {
    pub(super) owner: Owner,
    pub(super) verify: Verify,
}

impl Exact {
    /// SECURITY: a certificate whose path nobody has looked at leads to nobody who has not said that its key is enough
    /// (CRT-07).
    fn counts(&self, certificate: &PeerCertificate) -> bool {
        match self.verify {
            Verify::Path => certificate.is_vouched_for(),
            Verify::Possession => true,
        }
    }
}

type ByDigest = HashMap<[u8; 32], Exact, ahash::RandomState>;

/// The certificates of all declared clients, frozen.
#[derive(Debug, Default)]
pub(crate) struct CertificateOwners {
    /// By the certificate itself.
    certificates: ByDigest,
    /// By its key.
    keys: ByDigest,
    /// By what an authority says in it. Looked through one by one, once for each connection of a worker.
    vouched: Vec<(PinnedCertificates, Owner)>,
}

impl CertificateOwners {
    /// Adds certificates known by themselves.
    pub(super) fn add_certificates(&mut self, digests: Vec<[u8; 32]>, exact: &Exact, faults: &mut Faults) {
        add(&mut self.certificates, digests, exact, faults);
    }

    /// Adds certificates known by their keys.
    pub(super) fn add_keys(&mut self, digests: Vec<[u8; 32]>, exact: &Exact, faults: &mut Faults) {
        add(&mut self.keys, digests, exact, faults);
    }

    /// Adds certificates known by what an authority says in them.
    pub(super) fn add_vouched(&mut self, pinned: PinnedCertificates, owner: Owner, faults: &mut Faults) {
        match self.vouched.iter().find(|(known, _)| *known == pinned) {
            Some((_, taken)) => faults.push(declared_twice(&owner, taken)),
            None => self.vouched.push((pinned, owner)),
        }
    }

    /// Whose it is. SECURITY: a certificate that fits what two clients have declared names neither of them; which one
    /// it would be is an accident of the order of files.
    pub(crate) fn find(&self, certificate: &PeerCertificate) -> Ownership {
        let itself = self.certificates.get(&certificate.thumbprint);
        let by_key = certificate.key_thumbprint.and_then(|key| self.keys.get(&key));
        let exact = itself.into_iter().chain(by_key).filter(|exact| exact.counts(certificate));
        let vouched = self.vouched.iter().filter(|(pinned, _)| pinned.fits(certificate));
        let mut owners = exact.map(|exact| &exact.owner).chain(vouched.map(|(_, owner)| owner));
        let Some(first) = owners.next() else { return Ownership::Nobodys };
        if owners.any(|other| other.client.name != first.client.name) {
            return Ownership::Contested;
        }
        Ownership::Of(first.client.clone())
    }
}

fn add(index: &mut ByDigest, digests: Vec<[u8; 32]>, exact: &Exact, faults: &mut Faults) {
    for digest in digests {
        if let Some(taken) = index.insert(digest, exact.clone()) {
            faults.push(declared_twice(&exact.owner, &taken.owner));
        }
    }
}

fn declared_twice(owner: &Owner, taken: &Owner) -> Diagnostic {
    let message = "this certificate is declared more than once";
    Diagnostic::error("certificate_twice", owner.declared, message)
        .related(taken.declared, format!("client `{}` already has it", taken.client.name))
}
