//! What every kind of signed request needs: keys of clients, a time window, single use, digests of the content.

pub(crate) mod content_digest;
pub(crate) mod coverage;
mod keys;
mod settings;
#[cfg(test)]
mod tests;
mod window;

use std::sync::{Arc, LazyLock};

use http::HeaderMap;
use portcullis_core::{Reason, Rejection, Scheme};
use portcullis_jose::digest::sha256;
use portcullis_jose::{MessageAlgorithm, MessageKey};
use portcullis_store::ReplaySpace;

use crate::chain::{Evidence, Use};
pub use content_digest::DigestError;
use content_digest::{Covered, Digests};
use window::{Moments, OutOfTime, Window};

pub(crate) use keys::{KeyMaterial, SignatureKey, SignatureKeys, read_key_id, register};
pub(crate) use settings::{Kind, SigningSettings};

/// Chooses what unknown key ids look like: the same for each id as long as the process lives, and known to nobody.
static DISGUISE: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);

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
    /// Whether a registered key is used with it where a request names no algorithm.
    in_use: bool,
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
        let fitting = key.and_then(|key| fitting(&self.algorithms, key, signed.algorithm));
        let (Some(key), Some(accepted)) = (key, fitting) else {
            if let Some(stand_in) = self.stand_in(signed) {
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

    /// What a signature is verified with where there is no key for it.
    ///
    /// SECURITY: with the algorithm that the request names. Where it names none, a known key would choose, and the time
    /// it takes tells which algorithm that is: so an unknown id has an algorithm of its own too, one that known keys
    /// have, and always the same.
    fn stand_in(&self, signed: &Signed<'_>) -> Option<&Accepted> {
        if let Some(named) = signed.algorithm {
            return self.algorithms.iter().find(|accepted| accepted.algorithm == named);
        }
        let any = !self.algorithms.iter().any(|accepted| accepted.in_use);
        let candidates = || self.algorithms.iter().filter(|accepted| any || accepted.in_use);
        let count = u64::try_from(candidates().count()).ok()?;
        let chosen = DISGUISE.hash_one(signed.key_id).checked_rem(count)?;
        candidates().nth(usize::try_from(chosen).ok()?)
    }

    /// Compares the content with its signed digests. To be asked after the signature is found good: only then is a
    /// body worth keeping in memory.
    ///
    /// # Errors
    /// The content is another one, or cannot be had, or it took so long that the signature is over.
    pub(crate) async fn check_content(
        &self,
        digests: &Digests,
        moments: &Moments,
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        let content = evidence.content().await?;
        // SECURITY: a signature is good for as long as the policy says, however slowly its content is sent.
        if evidence.clock.now().unix_seconds() >= moments.until {
            return Err(self.refuse(Reason::SignatureExpired, "it has ended while the content arrived"));
        }
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
    /// Nobody would claim it.
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
        evidence.use_up(Use {
            space: used.clone(),
            key: tag,
            issued: moments.issued,
            until: moments.until,
            scheme: self.scheme,
            seen: Reason::SignatureReplayed,
            over: Reason::SignatureExpired,
            nonces: None,
        })
    }

    /// A refusal under the scheme.
    pub(crate) fn refuse(&self, reason: Reason, why: &str) -> Rejection {
        Rejection::new(reason).of(self.scheme).because(why)
    }
}

/// What a key is used with: the algorithm a request names, else the first of the policy's that fits it.
fn fitting<'a>(
    algorithms: &'a [Accepted],
    key: &SignatureKey,
    named: Option<MessageAlgorithm>,
) -> Option<&'a Accepted> {
    algorithms.iter().find(|accepted| {
        named.is_none_or(|named| named == accepted.algorithm) && key.allows(accepted.algorithm)
    })
}
