//! The other direction (FWD-12): the caller's certificate in the words that an upstream reads, where the gateway is the
//! one who ended TLS. Whatever a caller sent under these names is gone by then, and without a certificate nothing is
//! written.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::{PeerCertificate, SubjectAlternativeName};

/// A way of writing a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateText {
    /// `:base64(DER):` (RFC 9440).
    Rfc9440,
    /// Base64 of DER.
    Base64Der,
    /// PEM, percent-encoded: `+` becomes `%2B`, so that a form decoder does no harm (WS-03).
    PemUrlEncoded,
    /// PEM in one line without separators (WS-02).
    PemOneLine,
    /// One element as Envoy writes it.
    Xfcc,
}

impl CertificateText {
    /// The words behind `certificate.`.
    pub(crate) const WORDS: [(&'static str, Self); 5] = [
        ("certificate.rfc9440", Self::Rfc9440),
        ("certificate.base64_der", Self::Base64Der),
        ("certificate.pem_url_encoded", Self::PemUrlEncoded),
        ("certificate.pem_one_line", Self::PemOneLine),
        ("certificate.xfcc", Self::Xfcc),
    ];

    /// The certificate so written; `None` where only its fingerprint is known and this form needs more.
    pub(crate) fn write(self, certificate: &PeerCertificate) -> Option<String> {
        let der = Some(&*certificate.der).filter(|der| !der.is_empty());
        if self == Self::Xfcc {
            return Some(element(certificate, der));
        }
        let base64 = STANDARD.encode(der?);
        Some(match self {
            Self::Base64Der => base64,
            Self::PemUrlEncoded => url_encoded(&base64),
            Self::PemOneLine => format!("-----BEGIN CERTIFICATE-----{base64}-----END CERTIFICATE-----"),
            Self::Rfc9440 | Self::Xfcc => format!(":{base64}:"),
        })
    }
}

fn url_encoded(base64: &str) -> String {
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, character) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            plain => text.push(plain),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

fn element(certificate: &PeerCertificate, der: Option<&[u8]>) -> String {
    let mut text = String::from("Hash=");
    for byte in certificate.thumbprint {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    let Some(der) = der else { return text };
    let _ = write!(text, ";Cert=\"{}\";Subject=\"", url_encoded(&STANDARD.encode(der)));
    push_quoted(&mut text, &certificate.subject_text);
    text.push('"');
    for name in &certificate.alternative_names {
        let (key, value) = match name {
            SubjectAlternativeName::Uri(uri) => (";URI=\"", uri),
            SubjectAlternativeName::Dns(name) => (";DNS=\"", name),
            SubjectAlternativeName::Email(_) | SubjectAlternativeName::Ip(_) => continue,
        };
        text.push_str(key);
        push_quoted(&mut text, value);
        text.push('"');
    }
    text
}

/// SECURITY: a quote is escaped, and whatever is not printable ASCII is written as RFC 4514 writes it, so that no name
/// of a certificate can end the value it stands in. A backslash before the closing quote would escape it.
fn push_quoted(text: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'"' => text.push_str("\\\""),
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                let _ = write!(text, "\\{other:02X}");
            }
        }
    }
    if text.ends_with('\\') {
        text.push(' ');
    }
}
