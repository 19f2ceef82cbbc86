//! `certificate_claims:` of an issuer: claims that must say what the caller's certificate says (CHN-02).

use std::sync::Arc;

use portcullis_core::document::Node;
use portcullis_core::json::{Object, Value};
use portcullis_core::{Diagnostic, Faults, Moment, PeerCertificate, Reason, Rejection};

use crate::certificate::name::{ATTRIBUTES, attribute_oid};

/// Claims, and the subject attributes they must equal.
#[derive(Clone, Debug, Default)]
pub(super) struct CertificateClaims(Vec<(Arc<str>, Arc<str>)>);

/// Why the token is not of whoever holds the certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Differs {
    #[error("the token speaks of a certificate, and there is none")]
    Missing,
    #[error("the certificate is outside its validity, or its revocation list is out of date")]
    OutOfDate,
    #[error("the claim `{0}` is not the one value of the certificate's attribute")]
    Other(Arc<str>),
}

impl From<Differs> for Rejection {
    fn from(error: Differs) -> Self {
        let reason = match error {
            Differs::Missing => Reason::CertificateMissing,
            Differs::OutOfDate => Reason::CertificateExpired,
            Differs::Other(_) => Reason::CertificateMismatch,
        };
        Self::new(reason).because(error.to_string())
    }
}

impl CertificateClaims {
    /// Those whose words are known to be attributes.
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        let known =
            pairs.iter().filter_map(|(claim, word)| Some(((*claim).into(), attribute_oid(word)?.into())));
        Self(known.collect())
    }

    /// Reads `{ iss: o, sub: ou }`.
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let entries = node.named(faults)?;
        let read: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let word = entry.value.text(faults)?;
                let Some(oid) = attribute_oid(&word.value) else {
                    faults.push(unknown_attribute(&word.value, word.place));
                    return None;
                };
                Some((Arc::from(entry.key.value.as_str()), Arc::from(oid)))
            })
            .collect();
        (read.len() == entries.len()).then_some(Self(read))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what `iss` must be is said here.
    pub(super) fn names_issuer(&self) -> bool {
        self.0.iter().any(|(claim, _)| &**claim == "iss")
    }

    /// Judges a token against the certificate of its own request. SECURITY: on every request, never remembered with
    /// the token. A certificate that repeats an attribute says nothing by it (OZ-06, OZ-07).
    pub(super) fn check(
        &self,
        claims: &Object,
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<(), Rejection> {
        if self.is_empty() {
            return Ok(());
        }
        let certificate = certificate.ok_or(Differs::Missing)?;
        if !certificate.is_current(now) {
            return Err(Differs::OutOfDate.into());
        }
        for (claim, oid) in &self.0 {
            let said = claims.at(claim).and_then(Value::as_text);
            let held = sole_value(certificate, oid);
            if said.is_none() || said != held {
                return Err(Differs::Other(claim.clone()).into());
            }
        }
        Ok(())
    }
}

/// The one value of an attribute; `None` if it is missing, repeated, or no clean text (which is shown as `#` and hex
/// digits).
pub(crate) fn sole_value<'c>(certificate: &'c PeerCertificate, oid: &'c str) -> Option<&'c Arc<str>> {
    let mut values = certificate.subject_values(oid);
    let value = values.next().filter(|value| !value.starts_with('#'))?;
    values.next().is_none().then_some(value)
}

/// A word that names no attribute of a subject.
pub(crate) fn unknown_attribute(word: &str, place: portcullis_core::Place) -> Diagnostic {
    let known = ATTRIBUTES.iter().map(|(word, _)| *word);
    let fault =
        Diagnostic::error("unknown_word", place, format!("`{word}` is not an attribute of a subject")).note(
            format!(
                "attributes here: {}, or a dotted object identifier",
                known.clone().collect::<Vec<_>>().join(", ")
            ),
        );
    match portcullis_core::diagnostic::nearest(word, known) {
        Some(near) => fault.label(format!("did you mean `{near}`?")),
        None => fault,
    }
}
