//! What every kind of signed request needs: keys of clients, a time window, single use, digests of the content.

pub(crate) mod content_digest;
mod keys;
mod settings;
mod window;

use std::sync::Arc;

use http::HeaderMap;
use portcullis_core::{Reason, Rejection, Scheme};
use portcullis_jose::digest::sha256;
use portcullis_jose::{MessageAlgorithm, MessageKey};
use portcullis_store::ReplaySpace;

use crate::chain::Evidence;
pub use content_digest::DigestError;
use content_digest::{Covered, Digests};
use window::{Moments, OutOfTime, Window};

pub(crate) use keys::{KeyMaterial, SignatureKey, SignatureKeys, read_key_id, register};
pub(crate) use settings::SigningSettings;

/// Verifies signatures of registered clients, whatever they are written in.
#[derive(Debug)]
pub(crate) struct Verifier {
    scheme: Scheme,
    keys: Arc<SignatureKeys>,
    /// In the order of the policy; the first is used where a request names no algorithm and its key fits several.
    algorithms: Box<[Accepted]>,
    window: Window,
    /// `None` where the policy lets a signature be used again.
    used: Option<ReplaySpace>,
}

/// An algorithm the policy takes, with a key for the work where nobody has the key that is named.
#[derive(Debug)]
struct Accepted {
    algorithm: MessageAlgorithm,
    stand_in: MessageKey,
}

/// A signature, and what it is said to be over.
pub(crate) struct Signed<'r> {
    /// Whose key it is said to be.
    pub(crate) key_id: &'r str,
    /// The algorithm, where the request names one.
    pub(crate) algorithm: Option<MessageAlgorithm>,
    /// The exact bytes that are signed.
    pub(crate) base: &'r [u8],
    /// The signature.
    pub(crate) signature: &'r [u8],
}

/// Whether content has the digests that its fields give, `Content-Digest` and `Digest` alike; `None` if they give none
/// that counts.
///
/// # Errors
/// A field is malformed.
pub fn digests_match(headers: &HeaderMap, content: &[u8]) -> Result<Option<bool>, DigestError> {
    let both = Covered { content_digest: true, digest: true };
    Ok(Digests::of(both, headers)?.map(|digests| digests.match_content(content)))
}

impl Verifier {
    /// Whether the policy takes an algorithm. Asked before a key is looked up, so that the answer says nothing about
    /// any key.
    pub(crate) fn takes(&self, algorithm: MessageAlgorithm) -> bool {
        self.algorithms.iter().any(|accepted| accepted.algorithm == algorithm)
    }

    /// Whether a key of that id is registered, for choosing between signatures and nothing else.
    pub(crate) fn knows(&self, key_id: &str) -> bool {
        self.keys.get(key_id).is_some()
    }

    /// Judges when the request was signed: each moment it says it was made at, and its end if it names one.
    ///
    /// # Errors
    /// It lies too far in the past or in the future, or is over.
    pub(crate) fn check_time(
        &self,
        made: impl IntoIterator<Item = i64>,
        expires: Option<i64>,
        now: i64,
    ) -> Result<Moments, Rejection> {
        self.window.judge(made, expires, now).map_err(|error| {
            let reason = match error {
                OutOfTime::Stale(_) | OutOfTime::Expired => Reason::SignatureExpired,
                OutOfTime::Future(_) => Reason::SignatureNotYetValid,
            };
            self.refuse(reason, &error.to_string())
        })
    }

    /// Whose signature it is.
    ///
    /// SECURITY: an unknown key, a key that does not fit the algorithm, and a wrong signature cost one verification
    /// each and are one refusal, so nobody learns which keys exist (HMC-01, ANS-06).
    ///
    /// # Errors
    /// Nobody's, or that of a client that has expired.
    pub(crate) fn verify(&self, signed: &Signed<'_>, now: i64) -> Result<&SignatureKey, Rejection> {
        let key = self.keys.get(signed.key_id);
        let fitting = self.algorithms.iter().find(|accepted| {
            signed.algorithm.is_none_or(|named| named == accepted.algorithm)
                && key.is_some_and(|key| key.allows(accepted.algorithm))
        });
        let (Some(key), Some(accepted)) = (key, fitting) else {
            let named = self.algorithms.iter().find(|accepted| signed.algorithm == Some(accepted.algorithm));
            if let Some(stand_in) = named.or_else(|| self.algorithms.first()) {
                // Whatever it says, nobody's signature is good.
                let _ = stand_in.stand_in.verifies(stand_in.algorithm, signed.base, signed.signature);
            }
            let why =
                if key.is_some() { "the key does not fit the algorithm" } else { "no client has this key" };
            return Err(self.refuse(Reason::SignatureInvalid, why));
        };
        if !key.verifies(accepted.algorithm, signed.base, signed.signature) {
            return Err(self.refuse(Reason::SignatureInvalid, "the signature does not fit the request"));
        }
        // The signature was right, so its owner may learn that it is their registration that ended.
        if key.expires_at.is_some_and(|end| now >= end) {
            return Err(self.refuse(Reason::ClientInactive, "the client has expired"));
        }
        Ok(key)
    }

    /// Compares the content with its signed digests. To be asked after the signature is found good: only then is a
    /// body worth keeping in memory.
    ///
    /// # Errors
    /// The content is another one, or cannot be had.
    pub(crate) async fn check_content(
        &self,
        digests: &Digests,
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        let content = evidence.content().await?;
        if digests.match_content(&content) {
            return Ok(());
        }
        Err(self.refuse(Reason::DigestMismatch, "the content has another digest than the signed one"))
    }

    /// The digests that the signature covers; `None` where it covers none that we know.
    ///
    /// # Errors
    /// A field is malformed, or there is content that the policy wants covered and that is not.
    pub(crate) fn digests(
        &self,
        covered: Covered,
        required: bool,
        evidence: &Evidence<'_>,
    ) -> Result<Option<Digests>, Rejection> {
        let found = Digests::of(covered, &evidence.head.headers)
            .map_err(|why| self.refuse(Reason::CredentialsMalformed, &why.to_string()))?;
        if found.is_none() && required && evidence.has_content() {
            let why = if covered.any() { "no digest with a known algorithm" } else { "no digest is signed" };
            return Err(self.refuse(Reason::DigestMissing, why));
        }
        Ok(found)
    }

    /// Uses the signature up. Last of all, when everything else about it is good.
    ///
    /// SECURITY: what is used up is what was signed, or its nonce, and not the signature: one who has seen an ECDSA
    /// signature can make a second one over the same bytes.
    ///
    /// # Errors
    /// It has been used, or that cannot be known.
    pub(crate) fn use_up(
        &self,
        key_id: &str,
        once: &[u8],
        moments: &Moments,
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        let Some(used) = &self.used else { return Ok(()) };
        // A digest of fixed length comes first, so no two pairs run together.
        let mut tag = sha256(once).to_vec();
        tag.extend_from_slice(key_id.as_bytes());
        used.claim(&tag, moments.issued, moments.until, evidence.now)
            .or_refuse(Reason::SignatureReplayed)
            .map_err(|rejection| rejection.of(self.scheme))
    }

    /// A refusal under the scheme.
    pub(crate) fn refuse(&self, reason: Reason, why: &str) -> Rejection {
        Rejection::new(reason).of(self.scheme).because(why)
    }
}
