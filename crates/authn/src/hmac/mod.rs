//! `hmac`: requests signed in the form of draft-cavage-http-signatures, with the secret or the key of a client.

mod base;
mod credential;
mod parameters;
mod spec;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;
use portcullis_core::{Challenge, Identity, Reason, Rejection, Scheme};
use portcullis_jose::MessageAlgorithm;

pub(crate) use credential::HmacCredential;
pub(crate) use spec::HmacSpec;

use crate::chain::{Evidence, Outcome};
use crate::guard::Claim;
use crate::place::Places;
use crate::signing::content_digest::{CONTENT_DIGEST, Covered, DIGEST};
use crate::signing::{Signed, Verifier};
use base::{Component, DATE, Target, X_AUX_DATE};
use parameters::Parameters;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct Hmac {
    places: Places,
    verifier: Verifier,
    /// What every signature must cover.
    covers: Box<[Requirement]>,
    target: Target,
    /// What is signed where the request does not say.
    unlisted: Component,
    challenge: Challenge,
}

/// Something a signature must cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// Exactly this.
    Exactly(Component),
    /// The moment it was made: `date`, the date that stands in for it, or `(created)`.
    Moment,
    /// A digest of the content, if there is content.
    Digest,
}

/// The algorithm's names on the wire (registry of draft 12, and those before it).
pub(crate) const ALGORITHMS: &[(&str, MessageAlgorithm)] = &[
    ("hmac-sha256", MessageAlgorithm::HmacSha256),
    ("hmac-sha384", MessageAlgorithm::HmacSha384),
    ("hmac-sha512", MessageAlgorithm::HmacSha512),
    ("hmac-sha1", MessageAlgorithm::HmacSha1),
    ("rsa-sha256", MessageAlgorithm::RsaV15Sha256),
];

/// What a credential of the older form says is signed of a request, path with query.
///
/// # Errors
/// Why it says nothing, in words.
pub fn signed_bytes(credential: &[u8], head: &Parts) -> Result<Vec<u8>, String> {
    let parameters = Parameters::parse(credential).map_err(|error| error.to_string())?;
    let covered = parameters.covered.clone().unwrap_or_else(|| vec![Component::Header(DATE)]);
    base::moments(&covered, parameters.created, &head.headers).map_err(|error| error.to_string())?;
    base::build(&covered, &parameters, Target::WithQuery, head).map_err(|error| error.to_string())
}

/// The name that says: as the key says (draft 12 section 2.1.3).
const HS2019: &str = "hs2019";

impl Hmac {
    /// Where the signature is looked for.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// The key that a signature names. It is a stranger's word; what cannot be read is one name.
    pub(crate) fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        let Ok(Some(found)) = self.places.find(evidence.head) else { return Claim::Absent };
        if let Ok(parameters) = Parameters::parse(&found.credential) {
            into.write(parameters.key_id.as_bytes());
        }
        Claim::Named
    }

    /// What a caller who shows nothing is told (CAV-02).
    pub(crate) const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Judges the signature of a request. What the head alone decides comes first, and whatever says nothing about
    /// any key before a key is looked up.
    pub(crate) async fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        let credential = match self.places.find(evidence.head) {
            Ok(Some(found)) => found.credential,
            Ok(None) => return Outcome::Absent,
            Err(error) => return Outcome::Rejected(error.rejection(Scheme::Signature)),
        };
        match self.judge(&credential, evidence).await {
            Ok(identity) => Outcome::Verified(identity, None),
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    async fn judge(&self, credential: &[u8], evidence: &Evidence<'_>) -> Result<Arc<Identity>, Rejection> {
        let refuse = |reason, why: &str| self.verifier.refuse(reason, why);
        let parameters = Parameters::parse(credential)
            .map_err(|error| refuse(Reason::CredentialsMalformed, &error.to_string()))?;
        let algorithm = self.algorithm(&parameters)?;
        let covered = match &parameters.covered {
            Some(covered) => covered.as_slice(),
            None => std::slice::from_ref(&self.unlisted),
        };
        self.check_covered(covered)?;
        let made = base::moments(covered, parameters.created, &evidence.head.headers)
            .map_err(|error| refuse(error.reason(), &error.to_string()))?;
        let now = evidence.now.unix_seconds();
        // SECURITY: an end that is not signed can only take the signature away, never have it forgotten earlier.
        self.verifier.check_time([], parameters.expires, now)?;
        let end = parameters.expires.filter(|_| covered.contains(&Component::Expires));
        let moments = self.verifier.check_time(made, end, now)?;
        let named = |name: HeaderName| covered.contains(&Component::Header(name));
        let covered_digests = Covered { content_digest: named(CONTENT_DIGEST), digest: named(DIGEST) };
        let required = self.covers.contains(&Requirement::Digest);
        let digests = self.verifier.digests(covered_digests, required, evidence)?;
        let base = base::build(covered, &parameters, self.target, evidence.head)
            .map_err(|error| refuse(error.reason(), &error.to_string()))?;
        let signed =
            Signed { key_id: &parameters.key_id, algorithm, base: &base, signature: &parameters.signature };
        let key = self.verifier.verify(&signed, now)?;
        if let Some(digests) = digests {
            self.verifier.check_content(&digests, &moments, evidence).await?;
        }
        self.verifier.use_up(&parameters.key_id, &base, &moments, evidence)?;
        Ok(key.identity.clone())
    }

    /// The algorithm the request names. SECURITY: an unknown name is refused, never read as some other algorithm.
    fn algorithm(&self, parameters: &Parameters) -> Result<Option<MessageAlgorithm>, Rejection> {
        let Some(name) = parameters.algorithm.as_deref() else { return Ok(None) };
        if name.eq_ignore_ascii_case(HS2019) {
            return Ok(None);
        }
        let known = ALGORITHMS.iter().find(|(own, _)| name.eq_ignore_ascii_case(own));
        match known.map(|(_, algorithm)| *algorithm).filter(|algorithm| self.verifier.takes(*algorithm)) {
            Some(algorithm) => Ok(Some(algorithm)),
            None => Err(self.verifier.refuse(
                Reason::SignatureAlgorithmRefused,
                "the algorithm it names is not one this API takes",
            )),
        }
    }

    fn check_covered(&self, covered: &[Component]) -> Result<(), Rejection> {
        let header = |name: HeaderName| covered.contains(&Component::Header(name));
        let missing = self.covers.iter().find(|requirement| match requirement {
            Requirement::Exactly(component) => !covered.contains(component),
            Requirement::Moment => {
                !covered.contains(&Component::Created) && !header(DATE) && !header(X_AUX_DATE)
            }
            // Whether there is content to cover is asked where its digests are read.
            Requirement::Digest => false,
        });
        match missing {
            None => Ok(()),
            Some(missing) => Err(self
                .verifier
                .refuse(Reason::SignatureIncomplete, &format!("it does not cover `{missing}`"))),
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(component) => component.fmt(f),
            Self::Moment => f.write_str("date"),
            Self::Digest => f.write_str("digest"),
        }
    }
}
