//! A URL with places for names out of the caller's certificate (OZ-02, OZ-07).

use std::sync::Arc;

use portcullis_core::{Diagnostic, Faults, PeerCertificate, Spanned};

use crate::certificate::name::attribute_oid;
use crate::issuers::{sole_value, unknown_attribute};

/// The longest value that is put into a URL.
const VALUE_MAX: usize = 64;

/// The URL of a key set, made for each certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Object identifier of a subject attribute.
    Attribute(Arc<str>),
}

/// Why a certificate gives no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoUrl {
    #[error("there is no certificate to find the key set by")]
    CertificateMissing,
    #[error("the certificate's attribute {0} is missing, repeated, or cannot be part of a URL")]
    Attribute(Arc<str>),
    #[error("the key set's server cannot be asked: {0}")]
    Trust(String),
}

impl UrlTemplate {
    /// Whether a URL has places to fill.
    pub(crate) fn is_one(url: &str) -> bool {
        url.contains(['{', '}'])
    }

    /// Reads `https://host/{certificate.ou}/keys`. A name fills one whole segment of the path, so no certificate
    /// can choose the host, and none can leave its folder.
    pub(crate) fn read(url: &Spanned<String>, faults: &mut Faults) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = url.value.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').or_else(|| misplaced(url, faults))?;
            let word = name.strip_prefix("certificate.").or_else(|| misplaced(url, faults))?;
            let Some(oid) = attribute_oid(word) else {
                faults.push(unknown_attribute(word, url.place));
                return None;
            };
            let within_path = !parts.is_empty() || before.matches('/').count() >= 3;
            if !before.ends_with('/') || !(tail.is_empty() || tail.starts_with('/')) || !within_path {
                return misplaced(url, faults);
            }
            parts.extend([Part::Text(before.to_owned()), Part::Attribute(oid.into())]);
            rest = tail;
        }
        if rest.contains('}') || url.value.contains(['?', '#']) {
            return misplaced(url, faults);
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Self(parts))
    }

    /// The URL with a letter in each place, for checking the rest of it.
    pub(crate) fn example(&self) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Attribute(_) => "x",
            })
            .collect()
    }

    /// The URL for one certificate. SECURITY: values are letters, digits and hyphens, so none needs encoding and
    /// none means something else in a URL (OZ-07).
    pub(crate) fn fill(&self, certificate: &PeerCertificate) -> Result<String, NoUrl> {
        let mut url = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => url.push_str(text),
                Part::Attribute(oid) => {
                    let value = sole_value(certificate, oid).filter(|value| is_plain(value));
                    url.push_str(value.ok_or_else(|| NoUrl::Attribute(oid.clone()))?);
                }
            }
        }
        Ok(url)
    }
}

/// `^[A-Za-z0-9-]{1,64}$`
fn is_plain(value: &str) -> bool {
    (1..=VALUE_MAX).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn misplaced<T>(url: &Spanned<String>, faults: &mut Faults) -> Option<T> {
    faults.push(
        Diagnostic::error(
            "bad_url",
            url.place,
            "a name from the certificate fills one whole segment of the path",
        )
        .note("such as `https://keys.example/{certificate.ou}/{certificate.cn}/application.jwks`"),
    );
    None
}
