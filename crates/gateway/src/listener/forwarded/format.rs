//! The ways in which proxies hand on a client certificate (FWD-03).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis_authn::thumbprint;

use super::decode::{self, DecodeError};
use super::xfcc;

/// One way of writing a certificate into a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `:base64(DER):` (RFC 9440).
    Rfc9440,
    /// Envoy's list of elements.
    Xfcc,
    /// Percent-encoded PEM, one certificate or a chain: nginx, AWS, Azure's application gateway.
    PemUrlEncoded,
    /// PEM whose line ends became blanks, tabs or nothing: Apache httpd.
    Pem,
    /// Base64 of DER: HAProxy, Cloudflare, Azure's app service.
    Base64Der,
    /// Percent-encoded base64 of DER, separated by commas: Traefik.
    Traefik,
    /// PEM or base64 of DER, percent-encoded or not: whatever WSO2's products and those in front of them write.
    Wso2,
}

/// A word of `format`, and what it settles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    pub(crate) format: Format,
    /// The header of that product; `None` where every installation has its own.
    pub(crate) header: Option<&'static str>,
    pub(crate) chain: Option<&'static str>,
    /// Whether the product sends the header only for a certificate it has verified.
    pub(crate) vouches: bool,
}

impl Word {
    const fn new(format: Format, header: Option<&'static str>) -> Self {
        Self { format, header, chain: None, vouches: false }
    }

    const fn vouching(self) -> Self {
        Self { vouches: true, ..self }
    }
}

/// The words of `format`.
pub(crate) const WORDS: &[(&str, Word)] = &[
    (
        "rfc9440",
        Word {
            chain: Some("client-cert-chain"),
            ..Word::new(Format::Rfc9440, Some("client-cert")).vouching()
        },
    ),
    ("xfcc", Word::new(Format::Xfcc, Some("x-forwarded-client-cert")).vouching()),
    ("pem_url_encoded", Word::new(Format::PemUrlEncoded, None)),
    ("pem", Word::new(Format::Pem, None)),
    ("base64_der", Word::new(Format::Base64Der, None)),
    ("alb", Word::new(Format::PemUrlEncoded, Some("x-amzn-mtls-clientcert"))),
    ("alb_verified", Word::new(Format::PemUrlEncoded, Some("x-amzn-mtls-clientcert-leaf")).vouching()),
    ("traefik", Word::new(Format::Traefik, Some("x-forwarded-tls-client-cert"))),
    ("cloudflare", Word::new(Format::Base64Der, Some("cf-client-cert-der-base64"))),
    ("azure_app_service", Word::new(Format::Base64Der, Some("x-arr-clientcert"))),
    ("wso2", Word::new(Format::Wso2, Some("x-wso2-mutual-auth-cert"))),
];

/// One word for each way of writing, for whoever tries them all.
pub const CERTIFICATE_FORMATS: [&str; 7] =
    ["rfc9440", "xfcc", "pem_url_encoded", "pem", "base64_der", "traefik", "wso2"];

/// Reads a header's text as this word of `format` says: the certificates as DER, none where it tells of none or of a
/// fingerprint alone, `None` where it cannot be read. For tools and tests that have a text and no request.
pub fn read_certificate_header(word: &str, text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (_, word) = WORDS.iter().find(|(known, _)| *known == word)?;
    match told(word.format, text).ok()? {
        Told::Chain(certificates) => Some(certificates),
        Told::Nothing | Told::Fingerprint(_) => Some(Vec::new()),
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The caller showed no certificate.
    Nothing,
    /// Certificates as DER, the caller's first.
    Chain(Vec<Vec<u8>>),
    /// The SHA-256 of the caller's certificate, and no more.
    Fingerprint([u8; 32]),
}

/// Why what the proxy sent cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("`{0}` occurs more than once")]
    Repeated(HeaderName),
    #[error("`{0}` without `{1}`")]
    ChainAlone(HeaderName, HeaderName),
    #[error("`{0}`: {1}")]
    Undecodable(HeaderName, DecodeError),
}

/// Where a listener's proxy puts the certificate, and how it is written there.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) format: Format,
    pub(crate) header: HeaderName,
    pub(crate) chain: Option<HeaderName>,
}

impl Placement {
    /// The bytes that say everything: the header's, then those of the chain. `None` where the caller showed nothing.
    ///
    /// SECURITY: two headers of one name are an error even if they agree, because the one we read may not be the
    /// proxy's (FWD-03).
    pub(crate) fn find<'h>(&self, headers: &'h HeaderMap) -> Result<Option<Found<'h>>, ReadError> {
        let leaf = only(&self.header, headers)?.filter(|value| !is_nothing(value));
        let chain = match &self.chain {
            None => Cow::Borrowed(&[][..]),
            // A list may be cut into several fields (RFC 9110 section 5.3); nothing else may.
            Some(name) if self.format == Format::Rfc9440 => joined(name, headers),
            Some(name) => Cow::Borrowed(only(name, headers)?.unwrap_or_default()),
        };
        let chain = if is_nothing(&chain) { Cow::Borrowed(&[][..]) } else { chain };
        match (leaf, &self.chain) {
            (Some(leaf), _) => Ok(Some(Found { leaf, chain })),
            // RFC 9440 section 2.3: a chain belongs to a certificate.
            (None, Some(name)) if !chain.is_empty() => {
                Err(ReadError::ChainAlone(name.clone(), self.header.clone()))
            }
            (None, _) => Ok(None),
        }
    }

    /// Reads what was found.
    pub(crate) fn read(&self, found: &Found<'_>) -> Result<Told, ReadError> {
        let told = told(self.format, found.leaf)
            .map_err(|error| ReadError::Undecodable(self.header.clone(), error))?;
        let (Some(name), false) = (&self.chain, found.chain.is_empty()) else { return Ok(told) };
        let others =
            chain(self.format, &found.chain).map_err(|error| ReadError::Undecodable(name.clone(), error))?;
        Ok(match told {
            Told::Chain(mut certificates) => {
                certificates.extend(others);
                Told::Chain(certificates)
            }
            other => other,
        })
    }
}

/// The header's bytes as they came.
#[derive(Debug)]
pub(crate) struct Found<'h> {
    pub(crate) leaf: &'h [u8],
    pub(crate) chain: Cow<'h, [u8]>,
}

/// Absent, in the words of those who cannot leave a header out (trap 2, FWD-04).
fn is_nothing(value: &[u8]) -> bool {
    matches!(value.trim_ascii(), b"" | b"::" | b"(null)" | b"-")
}

fn only<'h>(name: &HeaderName, headers: &'h HeaderMap) -> Result<Option<&'h [u8]>, ReadError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(ReadError::Repeated(name.clone())),
        (first, _) => Ok(first.map(HeaderValue::as_bytes)),
    }
}

fn joined<'h>(name: &HeaderName, headers: &'h HeaderMap) -> Cow<'h, [u8]> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (None, _) => Cow::Borrowed(&[]),
        (Some(only), None) => Cow::Borrowed(only),
        (Some(first), Some(second)) => {
            let mut all = first.to_vec();
            for value in std::iter::once(second).chain(values) {
                all.push(b',');
                all.extend_from_slice(value);
            }
            Cow::Owned(all)
        }
    }
}

/// Reads the header of the certificate.
fn told(format: Format, text: &[u8]) -> Result<Told, DecodeError> {
    let certificates = match format {
        Format::Rfc9440 => match decode::byte_sequence(text)? {
            None => return Ok(Told::Nothing),
            Some(leaf) => vec![leaf],
        },
        Format::Xfcc => return element(&xfcc::last(text)?),
        Format::PemUrlEncoded => decode::pem(&decode::percent(text)?)?,
        Format::Pem => decode::pem(text)?,
        Format::Base64Der => vec![decode::base64(text)?],
        Format::Traefik => separated(&decode::percent(text)?)?,
        Format::Wso2 => {
            let plain = decode::percent(text)?;
            if decode::is_pem(&plain) { decode::pem(&plain)? } else { vec![decode::base64(&plain)?] }
        }
    };
    Ok(Told::Chain(certificates))
}

/// Reads the header of the rest of the chain.
fn chain(format: Format, text: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    match format {
        Format::Rfc9440 => decode::byte_sequences(text),
        Format::PemUrlEncoded | Format::Wso2 => decode::pem(&decode::percent(text)?),
        Format::Pem => decode::pem(text),
        Format::Base64Der => decode::der_sequence(&decode::base64(text)?),
        Format::Traefik => separated(&decode::percent(text)?),
        // Its chain is in the element itself.
        Format::Xfcc => Err(DecodeError::Xfcc),
    }
}

fn separated(text: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let parts: Vec<_> = text.split(|byte| *byte == b',').take(decode::MOST + 1).collect();
    if parts.len() > decode::MOST {
        return Err(DecodeError::TooMany);
    }
    parts.into_iter().map(decode::base64).collect()
}

/// What an element of XFCC says. SECURITY: where it says a thing twice, both must agree.
fn element(element: &xfcc::Element<'_>) -> Result<Told, DecodeError> {
    let read = |text: &Option<Cow<'_, [u8]>>| match text {
        Some(text) if !is_nothing(text) => decode::pem(&decode::percent(text)?).map(Some),
        _ => Ok(None),
    };
    let (cert, chain) = (read(&element.cert)?, read(&element.chain)?);
    let hash = match &element.hash {
        Some(text) if !is_nothing(text) => Some(decode::fingerprint(text).ok_or(DecodeError::Xfcc)?),
        _ => None,
    };
    let certificates = match (cert, chain) {
        (Some(cert), Some(chain)) if cert.len() == 1 && cert.first() == chain.first() => chain,
        (Some(_), Some(_)) => return Err(DecodeError::Xfcc),
        (Some(one), None) | (None, Some(one)) => one,
        // An element without any of them is not about a certificate, and no proxy writes it.
        (None, None) => return hash.map(Told::Fingerprint).ok_or(DecodeError::Xfcc),
    };
    match (hash, certificates.first()) {
        (Some(hash), Some(leaf)) if thumbprint(leaf) != hash => Err(DecodeError::HashDiffers),
        _ => Ok(Told::Chain(certificates)),
    }
}
