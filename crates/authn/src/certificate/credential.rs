//! `certificate: { … }` as written among the credentials of a client: certificates that name their holder, or that
//! another credential of the client is bound to.

use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Client, Diagnostic, Faults, Place};

use super::bound::{never_asked, never_vouched};
use super::owners::{Exact, Owner};
use super::spec::{Verify, read_fingerprints};
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
    Sha256(Vec<[u8; 32]>, Verify),
    /// Its key, through all renewals.
    Key(Vec<[u8; 32]>, Verify),
    /// What an authority says in it, and that it is this one or of this key, where that is written beside it.
    Authority(Box<PinnedSpec>),
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
    /// Reads `{ sha256, verify }`, `{ spki, verify }`, or `{ trust, … }`.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let by = match (has(node, "sha256"), has(node, "spki"), has(node, "trust")) {
            (_, _, true) => By::Authority(Box::new(read_authority(node, faults)?)),
            (true, _, false) => {
                let (digests, verify) = only(node, "sha256", faults)?;
                By::Sha256(digests, verify)
            }
            (false, true, false) => {
                let (digests, verify) = only(node, "spki", faults)?;
                By::Key(digests, verify)
            }
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
        if !self.can_be_shown(authorities, faults) {
            return;
        }
        let Self { place, by } = self;
        let owner = Owner { client: client.clone(), declared: place };
        match by {
            By::Sha256(digests, verify) => {
                owners.add_certificates(digests, &Exact { owner, verify }, faults);
            }
            By::Key(digests, verify) => owners.add_keys(digests, &Exact { owner, verify }, faults),
            By::Authority(spec) => {
                if let Some(pinned) = spec.compile(authorities.names, faults) {
                    owners.add_vouched(pinned, owner, faults);
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
        if !self.can_be_shown(authorities, faults) {
            return None;
        }
        let pinned = match &self.by {
            By::Sha256(digests, verify) => {
                PinnedCertificates::of_certificates(digests.clone(), *verify == Verify::Possession)
            }
            By::Key(digests, verify) => {
                PinnedCertificates::of_keys(digests.clone(), *verify == Verify::Possession)
            }
            By::Authority(spec) => spec.compile(authorities.names, faults)?,
        };
        Some(CertificateBinding::new(pinned))
    }

    /// Whether any listener could come to know one of them.
    fn can_be_shown(&self, authorities: KnownAuthorities<'_>, faults: &mut Faults) -> bool {
        if !authorities.asked {
            faults.push(never_asked(self.place));
            return false;
        }
        if matches!(self.by, By::Sha256(_, Verify::Path) | By::Key(_, Verify::Path))
            && authorities.names.is_empty()
        {
            faults.push(never_vouched(self.place));
            return false;
        }
        true
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

const WAYS: &str =
    "write `sha256`, `spki`, or `trust` with one of these, `subject`, `san`, or `issuer` and `serials`";

fn has(node: &Node, key: &str) -> bool {
    matches!(&node.content, Content::Map(entries) if entries.iter().any(|entry| entry.key.value == key))
}

/// The digests under a key without `trust`: with exact keys it does not matter who vouches for them, and where that is
/// written, not even whether anybody does.
fn only(node: &Node, key: &'static str, faults: &mut Faults) -> Option<(Vec<[u8; 32]>, Verify)> {
    let mut fields = Fields::of(node, "`certificate`", faults)?;
    let (digests, verify) = (fields.require(key, faults), fields.get("verify"));
    fields.finish(faults);
    let verify = Verify::read(verify, faults);
    Some((read_fingerprints(digests?, faults)?, verify?))
}

fn read_authority(node: &Node, faults: &mut Faults) -> Option<PinnedSpec> {
    let mut fields = Fields::of(node, "`certificate`", faults)?;
    let certificate = fields.get("sha256");
    let spec = PinnedSpec::take_with(&mut fields, certificate, faults);
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
