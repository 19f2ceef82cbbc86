//! `certificates:`: the certificates we show to servers that ask who we are.

use std::collections::BTreeMap;

use crate::document::{Fields, Node};
use crate::{Faults, FetchIdentity, Materials, Place, SecretSpec, Spanned};

/// All entries as written.
#[derive(Clone, Debug, Default)]
pub struct OutboundSpec {
    entries: Vec<EntrySpec>,
    defined: Vec<(String, Place)>,
}

#[derive(Clone, Debug)]
struct EntrySpec {
    name: Spanned<String>,
    certificate: Spanned<String>,
    key: SecretSpec,
}

/// The certificates by name. An entry with a fault is left out, but stays defined.
#[derive(Clone, Debug, Default)]
pub struct OutboundCertificates {
    by_name: BTreeMap<String, FetchIdentity>,
    defined: Vec<(String, Place)>,
}

impl OutboundSpec {
    /// Reads the `certificates:` mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let entries = node.named(faults)?;
        let mut spec = Self::default();
        for entry in entries {
            spec.defined.push((entry.key.value.clone(), entry.key.place));
            let Some(mut fields) = Fields::of(&entry.value, "a certificate of our own", faults) else {
                continue;
            };
            let (certificate, key) = (fields.require("certificate", faults), fields.require("key", faults));
            fields.finish(faults);
            let certificate = certificate.and_then(|node| node.file(faults));
            let key = key.and_then(|node| node.secret(faults));
            if let (Some(certificate), Some(key)) = (certificate, key) {
                spec.entries.push(EntrySpec { name: entry.key.clone(), certificate, key });
            }
        }
        Some(spec)
    }

    /// Reads the files. `judge` says what is wrong with a certificate and its key.
    pub fn compile(
        &self,
        materials: &dyn Materials,
        judge: impl Fn(&FetchIdentity) -> Result<(), String>,
        faults: &mut Faults,
    ) -> OutboundCertificates {
        let mut by_name = BTreeMap::new();
        for entry in &self.entries {
            let path = &entry.certificate;
            let chain = materials
                .file(path.place.file, &path.value)
                .map_err(|why| faults.error("unreadable", path.place, why))
                .ok();
            let key = entry.key.resolve(materials, faults);
            if let (Some(chain), Some(key)) = (chain, key) {
                let identity = FetchIdentity { chain, key };
                match judge(&identity) {
                    Ok(()) => drop(by_name.insert(entry.name.value.clone(), identity)),
                    Err(why) => faults.error("bad_certificate", path.place, why),
                }
            }
        }
        OutboundCertificates { by_name, defined: self.defined.clone() }
    }
}

impl OutboundCertificates {
    /// The certificate of that name; one that nobody defined is a fault.
    pub fn find(&self, name: &Spanned<String>, faults: &mut Faults) -> Option<&FetchIdentity> {
        if !self.defined.iter().any(|(defined, _)| *defined == name.value) {
            faults.undefined("certificate", name, &self.defined);
        }
        self.by_name.get(&name.value)
    }
}
