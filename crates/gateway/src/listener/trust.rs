//! Named trust anchors and revocation lists, loaded.

use std::sync::Arc;

use portcullis_core::{Faults, Materials, Place, Spanned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{BorrowedCertRevocationList, CertRevocationList, VerifiedPath};

use super::settings::{Expiry, ExpiryKind};
use super::spec::RevocationSpec;
use super::x509::{self, Window};

/// The certificate authorities behind one name of `trust`.
#[derive(Debug)]
pub(crate) struct TrustSet {
    pub(crate) name: Arc<str>,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    windows: Vec<Window>,
    /// The certificates as they were read, to tell one set from another.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

impl TrustSet {
    /// Reads a PEM file of authorities.
    ///
    /// SECURITY: a file that is empty or holds anything that is not an authority is an error, never an empty set
    /// or a smaller one (CVE-2026-27586).
    pub(crate) fn load(
        name: &Spanned<String>,
        path: &Spanned<String>,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<Self> {
        let certificates = certificates(path, materials, faults)?;
        let mut set =
            Self { name: name.value.as_str().into(), anchors: Vec::new(), windows: Vec::new(), certificates };
        for (number, der) in set.certificates.iter().enumerate() {
            let facts = x509::certificate(der)
                .filter(|facts| facts.is_authority && facts.may_certify && facts.is_strong);
            let (Some(facts), Ok(anchor)) = (facts, webpki::anchor_from_trusted_cert(der)) else {
                let message = format!(
                    "certificate {} of `{}` is not one of a certificate authority",
                    number + 1,
                    path.value
                );
                faults.error("bad_certificate", path.place, message);
                return None;
            };
            set.anchors.push(anchor.to_owned());
            set.windows.push(facts.window);
        }
        Some(set)
    }

    /// The validity of the anchor a path ends in. An authority that was renewed under the same key may stand in
    /// the file twice; the later one counts.
    pub(crate) fn anchor_window(&self, path: &VerifiedPath<'_>) -> Option<Window> {
        let end = path.anchor();
        let same = |anchor: &TrustAnchor<'_>| {
            anchor.subject == end.subject && anchor.subject_public_key_info == end.subject_public_key_info
        };
        let windows = self.anchors.iter().zip(&self.windows).filter(|(anchor, _)| same(anchor));
        windows.map(|(_, window)| *window).max_by_key(|window| window.until)
    }
}

impl TrustSet {
    /// The certificate of the anchor a path ends in.
    pub(crate) fn anchor_certificate(&self, path: &VerifiedPath<'_>) -> Option<&CertificateDer<'static>> {
        let end = path.anchor();
        let same = |anchor: &TrustAnchor<'_>| {
            anchor.subject == end.subject && anchor.subject_public_key_info == end.subject_public_key_info
        };
        self.anchors.iter().zip(&self.certificates).find(|(anchor, _)| same(anchor)).map(|(_, der)| der)
    }
}

/// The certificates of a PEM file.
pub(crate) fn certificates(
    path: &Spanned<String>,
    materials: &dyn Materials,
    faults: &mut Faults,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read(path, materials, faults)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        Ok(_) => {
            faults.error("no_certificate", path.place, format!("`{}` holds no PEM certificate", path.value));
            None
        }
        Err(error) => {
            faults.error("bad_pem", path.place, format!("`{}` cannot be read as PEM: {error}", path.value));
            None
        }
    }
}

fn read(path: &Spanned<String>, materials: &dyn Materials, faults: &mut Faults) -> Option<Vec<u8>> {
    materials
        .file(path.place.file, &path.value)
        .map_err(|why| faults.error("unreadable", path.place, why))
        .ok()
}

/// Every revocation list of one `revocation`.
#[derive(Debug, Default)]
pub(crate) struct RevocationLists {
    pub(crate) lists: Vec<CertRevocationList<'static>>,
    /// When each was made, in the order of `lists`.
    this_updates: Vec<i64>,
    /// When each is due to be replaced, in the order of `lists`.
    pub(crate) next_updates: Vec<i64>,
    /// The bytes of each, in the order of `lists`.
    pub(crate) der: Vec<CertificateRevocationListDer<'static>>,
    /// The file of each, in the order of `lists`.
    names: Vec<Arc<str>>,
}

struct Loaded {
    name: Arc<str>,
    der: CertificateRevocationListDer<'static>,
    list: CertRevocationList<'static>,
    facts: x509::RevocationListFacts,
}

impl RevocationLists {
    /// Reads them; `now` is the second since 1970.
    ///
    /// SECURITY: a list that does not hold yet is an error: as the newest it would take the place of the one that
    /// does (RFC 5280 section 6.3.3).
    pub(crate) fn load(
        spec: &RevocationSpec,
        materials: &dyn Materials,
        now: i64,
        faults: &mut Faults,
    ) -> Option<Self> {
        let mut loaded = Vec::new();
        for path in &spec.lists {
            for (name, bytes) in files(path, materials, faults)? {
                let first = loaded.len();
                parse(&name, &bytes, path.place, &mut loaded, faults)?;
                if loaded.iter().skip(first).any(|one| one.facts.this_update > now) {
                    let message = format!("`{name}` is a revocation list of a time to come");
                    faults.error("revocation_list_early", path.place, message);
                    return None;
                }
            }
        }
        // The newest list of an issuer stands first, since the verifier asks the first that fits; an older one
        // about the same scope would only make the answer look out of date.
        loaded.sort_by_key(|one| std::cmp::Reverse(one.facts.this_update));
        let mut this = Self::default();
        for one in loaded {
            if this.about_the_same_as(&one.list).is_none() {
                this.this_updates.push(one.facts.this_update);
                this.next_updates.push(one.facts.next_update);
                this.lists.push(one.list);
                this.der.push(one.der);
                this.names.push(one.name);
            }
        }
        Some(this)
    }

    /// The position of the list that speaks of the same certificates.
    fn about_the_same_as(&self, other: &CertRevocationList<'_>) -> Option<usize> {
        let scope = |list: &CertRevocationList<'_>| {
            (list.issuer().to_vec(), list.issuing_distribution_point().map(<[u8]>::to_vec))
        };
        self.lists.iter().position(|list| scope(list) == scope(other))
    }

    /// What would be taken back if these lists took the place of those in force: one that is not due yet is gone, or an
    /// older one stands for it. SECURITY: either would let certificates pass again that are known to be revoked.
    pub(crate) fn take_back(&self, in_force: &Self, now: i64) -> Option<String> {
        let held = in_force.lists.iter().zip(&in_force.names);
        let held = held.zip(in_force.this_updates.iter().zip(&in_force.next_updates));
        held.filter(|(_, (_, due))| **due > now).find_map(|((list, name), (made, _))| {
            match self.about_the_same_as(list).and_then(|at| self.this_updates.get(at)) {
                None => Some(format!("a list of the authority of `{name}` is there no more")),
                Some(other) if other < made => Some(format!("`{name}` is older than the list in force")),
                Some(_) => None,
            }
        })
    }

    /// When each list is due to be replaced.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = Expiry> {
        let due = self.names.iter().zip(&self.next_updates);
        due.map(|(name, at)| Expiry { name: Arc::clone(name), kind: ExpiryKind::RevocationList, at: *at })
    }

    /// Whether a list speaks of all certificates of an issuer. One with an issuing distribution point may speak of
    /// some of them, or of none yet.
    pub(crate) fn speak_of(&self, issuer: &[u8]) -> bool {
        self.lists.iter().any(|list| list.issuer() == issuer && list.issuing_distribution_point().is_none())
    }

    /// The time until which what these lists say about certificates of an issuer is current. A list is out of date
    /// in the very second in which the next one is due, as it is for webpki.
    pub(crate) fn window_for(&self, issuer: &[u8]) -> Window {
        let about = self.lists.iter().zip(&self.next_updates).filter(|(list, _)| list.issuer() == issuer);
        about.fold(Window::ALWAYS, |window, (_, due)| {
            window.and(Window { from: i64::MIN, until: due.saturating_sub(1) })
        })
    }
}

/// The files a path of `crls` stands for: itself, or what is in the directory.
fn files(
    path: &Spanned<String>,
    materials: &dyn Materials,
    faults: &mut Faults,
) -> Option<portcullis_core::NamedFiles> {
    let found = materials.directory(path.place.file, &path.value).and_then(|files| match files {
        Some(files) => Ok(files),
        None => materials.file(path.place.file, &path.value).map(|bytes| vec![(path.value.clone(), bytes)]),
    });
    materials.is_read_again(path.place.file, &path.value);
    match found {
        Ok(files) if files.is_empty() => {
            faults.error(
                "no_revocation_list",
                path.place,
                format!("`{}` holds no revocation list", path.value),
            );
            None
        }
        Ok(files) => Some(files),
        Err(why) => {
            faults.error("unreadable", path.place, why);
            None
        }
    }
}

fn parse(
    name: &str,
    bytes: &[u8],
    place: Place,
    loaded: &mut Vec<Loaded>,
    faults: &mut Faults,
) -> Option<()> {
    let pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    let lists = match pem {
        Ok(lists) if !lists.is_empty() => lists,
        _ => vec![CertificateRevocationListDer::from(bytes.to_vec())],
    };
    for der in lists {
        let list = BorrowedCertRevocationList::from_der(&der).and_then(|list| list.to_owned());
        let (Ok(list), Some(facts)) = (list, x509::revocation_list(&der)) else {
            faults.error(
                "bad_revocation_list",
                place,
                format!("`{name}` is not a certificate revocation list"),
            );
            return None;
        };
        loaded.push(Loaded { name: name.into(), der, list: list.into(), facts });
    }
    Some(())
}
