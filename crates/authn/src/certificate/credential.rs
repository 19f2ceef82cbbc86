//! `certificate: { … }` as written among the credentials of a client: certificates that name their holder, or that
//! another credential of the client is bound to.

use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Client, Diagnostic, Faults, Place};

use super::bound::never_asked;
use super::spec::read_fingerprints;
use super::{CertificateBinding, CertificateOwners, PinnedCertificates, PinnedSpec};

/// Certificates of one client, as written.
#[derive(Clone, Debug)]
pub(crate) struct NamedCertificates {
    place: Place,
    by: By,
}

/// How they are recognised.
#[derive(Clone, Debug)]
enum By {
    /// The certificate itself; another one after each renewal.
    Sha256(Vec<[u8; 32]>),
    /// Its key, through all renewals.
    Key(Vec<[u8; 32]>),
    /// What an authority says in it.
    Authority(PinnedSpec),
}

/// The certificates the listeners may show, for those that are named in credentials.
#[derive(Clone, Copy, Debug)]
pub struct KnownAuthorities<'a> {
    /// The named trust anchors of all listeners, and where they are defined.
    pub names: &'a [(String, Place)],
    /// Whether any listener asks for certificates at all.
    pub asked: bool,
}

impl NamedCertificates {
    /// Reads `{ sha256 }`, `{ spki }`, or `{ trust, … }`.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let by = match (has(node, "sha256"), has(node, "spki"), has(node, "trust")) {
            (true, _, _) => By::Sha256(only(node, "sha256", faults)?),
            (false, true, false) => By::Key(only(node, "spki", faults)?),
            (false, _, true) => By::Authority(read_authority(node, faults)?),
            (false, false, false) => {
                let message = "this does not say which certificate is meant";
                faults.push(Diagnostic::error("missing_key", node.place, message).note(WAYS));
                return None;
            }
        };
        Some(Self { place: node.place, by })
    }

    /// Adds them to those of all clients.
    fn register(
        self,
        owners: &mut CertificateOwners,
        authorities: KnownAuthorities<'_>,
        client: &Arc<Client>,
        faults: &mut Faults,
    ) {
        if !authorities.asked {
            faults.push(never_asked(self.place));
            return;
        }
        match self.by {
            By::Sha256(digests) => owners.add_certificates(digests, client, self.place, faults),
            By::Key(digests) => owners.add_keys(digests, client, self.place, faults),
            By::Authority(spec) => {
                if let Some(pinned) = spec.compile(authorities.names, faults) {
                    owners.add_vouched(pinned, client, self.place, faults);
                }
            }
        }
    }

    /// What a credential beside them is bound to.
    pub(crate) fn binding(
        &self,
        authorities: KnownAuthorities<'_>,
        faults: &mut Faults,
    ) -> Option<CertificateBinding> {
        if !authorities.asked {
            faults.push(never_asked(self.place));
            return None;
        }
        let pinned = match &self.by {
            By::Sha256(digests) => PinnedCertificates::of_certificates(digests.clone()),
            By::Key(digests) => PinnedCertificates::of_keys(digests.clone()),
            By::Authority(spec) => spec.compile(authorities.names, faults)?,
        };
        Some(CertificateBinding::new(pinned))
    }
}

/// One entry of a client's `credentials`.
#[derive(Debug)]
pub(crate) struct CertificateCredential(NamedCertificates);

impl CertificateCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        NamedCertificates::read(node, faults).map(Self)
    }

    /// Adds the certificates to those of all clients.
    pub(crate) fn register(
        self,
        owners: &mut CertificateOwners,
        authorities: KnownAuthorities<'_>,
        client: &Arc<Client>,
        faults: &mut Faults,
    ) {
        self.0.register(owners, authorities, client, faults);
    }
}

const WAYS: &str = "write `sha256`, `spki`, or `trust` with `subject`, `san`, or `issuer` and `serials`";

fn has(node: &Node, key: &str) -> bool {
    matches!(&node.content, Content::Map(entries) if entries.iter().any(|entry| entry.key.value == key))
}

/// The digests under a key that stands alone: with exact keys it does not matter who vouches for them.
fn only(node: &Node, key: &'static str, faults: &mut Faults) -> Option<Vec<[u8; 32]>> {
    let mut fields = Fields::of(node, "`certificate`", faults)?;
    let digests = fields.require(key, faults);
    fields.finish(faults);
    read_fingerprints(digests?, faults)
}

fn read_authority(node: &Node, faults: &mut Faults) -> Option<PinnedSpec> {
    let mut fields = Fields::of(node, "`certificate`", faults)?;
    let spec = PinnedSpec::take(&mut fields, faults);
    fields.finish(faults);
    let spec = spec?;
    // SECURITY: an authority alone would make everybody it certifies this client.
    if !spec.is_pinned() {
        let message = "this does not tell the client from others of the same authority";
        faults.push(Diagnostic::error("certificate_not_pinned", node.place, message).note(WAYS));
        return None;
    }
    Some(spec)
}
