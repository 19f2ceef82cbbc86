//! Compact JWS (RFC 7515 section 7.1), read strictly.
//!
//! [`CompactJws::parse`] does everything that needs no key; [`CompactJws::verify`] turns it into a
//! [`VerifiedJws`], and only that gives out claims (JWT-07).

mod error;
mod header;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use portcullis_core::json::{self, Limits, Object};

use crate::digest::constant_time_eq;
use crate::{VerifyingKey, base64url};

pub use error::{JwsError, Segment, SignatureInvalid};
pub use header::JwsHeader;
pub(crate) use header::KEY_ID_MAX;

/// Bounds on a token (JWT-01).
#[derive(Clone, Copy, Debug)]
pub struct JwsLimits {
    /// Bytes of the whole token.
    pub token: usize,
    /// Bytes of the encoded protected header.
    pub header: usize,
    /// Shape of the header's JSON.
    pub json: Limits,
}

impl JwsLimits {
    /// What no configuration can pass.
    pub const MAXIMUM: Self =
        Self { token: 64 * 1024, header: 16 * 1024, json: Limits { depth: 32, list: 4096, members: 4096 } };

    /// The smaller of these bounds and [`Self::MAXIMUM`].
    #[must_use]
    pub fn capped(self) -> Self {
        Self {
            token: self.token.min(Self::MAXIMUM.token),
            header: self.header.min(Self::MAXIMUM.header),
            json: Limits {
                depth: self.json.depth.min(Self::MAXIMUM.json.depth),
                list: self.json.list.min(Self::MAXIMUM.json.list),
                members: self.json.members.min(Self::MAXIMUM.json.members),
            },
        }
    }
}

impl Default for JwsLimits {
    fn default() -> Self {
        Self { token: 16 * 1024, header: 4 * 1024, json: Limits::default() }
    }
}

/// The signature of the largest key we take (RSA, 8192 bits), encoded.
const SIGNATURE_MAX: usize = 1366;

/// A well-formed token whose signature nobody has checked yet.
#[derive(Clone, Debug)]
pub struct CompactJws<'t> {
    header: JwsHeader,
    /// Header and payload with the dot between them, as they were received: what the signature covers.
    signed: &'t [u8],
    payload: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> CompactJws<'t> {
    /// Reads a token up to the point where a key is needed (JWT-01 to JWT-05, JWT-08).
    ///
    /// # Errors
    /// See [`JwsError`]. Nothing in an error repeats the token.
    pub fn parse<T: AsRef<[u8]> + ?Sized>(token: &'t T, limits: JwsLimits) -> Result<Self, JwsError> {
        let (token, limits) = (token.as_ref(), limits.capped());
        if token.len() > limits.token {
            return Err(JwsError::TooLarge);
        }
        let Segments { header, payload, signature, signed } = segments(token)?;
        if header.len() > limits.header {
            return Err(JwsError::HeaderTooLarge);
        }
        if signature.is_empty() {
            return Err(JwsError::SignatureMissing);
        }
        if signature.len() > SIGNATURE_MAX {
            return Err(JwsError::SignatureTooLarge);
        }
        let header = decode(header, Segment::Header)?;
        let header = JwsHeader::read(&header, limits.json)?;
        let signature = decode(signature, Segment::Signature)?;
        Ok(Self { header, signed, payload, signature })
    }

    /// The protected header.
    pub const fn header(&self) -> &JwsHeader {
        &self.header
    }

    /// All members of the protected header, for the one kind of token whose key stands in it.
    pub(crate) fn header_members(&self, limits: Limits) -> Result<Object, JwsError> {
        let encoded = self.signed.split(|byte| *byte == b'.').next().unwrap_or_default();
        let bytes = decode(encoded, Segment::Header)?;
        json::parse_object(&bytes, limits).map_err(|error| JwsError::Json(Segment::Header, error))
    }

    /// Checks the signature with a key that was chosen from the issuer's own set.
    ///
    /// # Errors
    /// The key is not for the header's algorithm, the header names another certificate than the key's (JWT-19), or
    /// the signature is wrong.
    pub fn verify(&self, key: &VerifyingKey) -> Result<VerifiedJws<'t>, SignatureInvalid> {
        if let (Some(named), Some(own)) = (&self.header.certificate_thumbprint, key.certificate_thumbprint())
            && !constant_time_eq(named, own)
        {
            return Err(SignatureInvalid::OtherCertificate);
        }
        key.verify(self.header.algorithm, self.signed, &self.signature)?;
        Ok(VerifiedJws { payload: self.payload, key_id: key.key_id().cloned() })
    }

    /// The claims of a token that anybody may have written. The one honest use is to find which configured issuer
    /// a token claims to be from, as an untrusted key into a configured list (JWT-07).
    ///
    /// # Errors
    /// As [`VerifiedJws::claims`].
    pub fn unverified_claims(&self, limits: Limits) -> Result<Object, JwsError> {
        read_claims(self.payload, limits)
    }
}

/// A token whose signature is right. It says nothing about the claims: see [`crate::ClaimRules`].
#[derive(Clone, Debug)]
pub struct VerifiedJws<'t> {
    payload: &'t [u8],
    key_id: Option<Arc<str>>,
}

impl VerifiedJws<'_> {
    /// The claims set.
    ///
    /// # Errors
    /// The payload is not strict base64url, or not one strict JSON object.
    pub fn claims(&self, limits: Limits) -> Result<Object, JwsError> {
        read_claims(self.payload, limits)
    }

    /// The `kid` of the key that verified it. SECURITY: the key's own, not what the header says: a key without a name
    /// is none of the name a token gives it.
    pub const fn key_id(&self) -> Option<&Arc<str>> {
        self.key_id.as_ref()
    }
}

struct Segments<'t> {
    header: &'t [u8],
    payload: &'t [u8],
    signature: &'t [u8],
    signed: &'t [u8],
}

/// Splits a token at its two dots, refusing every byte that compact serialization cannot hold (JWT-02).
fn segments(token: &[u8]) -> Result<Segments<'_>, JwsError> {
    // Bytes or-ed together without an early exit: the compiler makes vector code of it, which a search would not be.
    if token.iter().fold(0, |foreign, &byte| foreign | u8::from(!is_compact(byte))) != 0 {
        return Err(JwsError::NotCompact);
    }
    let mut dots = memchr::memchr_iter(b'.', token);
    let (Some(first), Some(second)) = (dots.next(), dots.next()) else {
        return Err(JwsError::SegmentCount);
    };
    match dots.count() {
        0 => {}
        2 => return Err(JwsError::Encrypted),
        _ => return Err(JwsError::SegmentCount),
    }
    let between = |from: usize, to: usize| token.get(from..to).ok_or(JwsError::SegmentCount);
    Ok(Segments {
        header: between(0, first)?,
        payload: between(first + 1, second)?,
        signature: between(second + 1, token.len())?,
        signed: between(0, second)?,
    })
}

const fn is_compact(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit = byte.wrapping_sub(b'0') < 10;
    letter | digit | (byte == b'-') | (byte == b'_') | (byte == b'.')
}

fn decode(text: &[u8], segment: Segment) -> Result<Vec<u8>, JwsError> {
    base64url::decode(text).map_err(|_| JwsError::Base64(segment))
}

fn read_claims(payload: &[u8], limits: Limits) -> Result<Object, JwsError> {
    let payload = decode(payload, Segment::Payload)?;
    json::parse_object(&payload, limits).map_err(|error| JwsError::Json(Segment::Payload, error))
}
