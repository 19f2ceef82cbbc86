//! `signature`: HTTP message signatures (RFC 9421), with the key of a client.

mod base;
mod component;
mod credential;
mod input;
mod message;
mod spec;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::Arc;

use http::HeaderValue;
use portcullis_core::{Challenge, Identity, Reason, Rejection};
use portcullis_jose::MessageAlgorithm;

pub use base::BaseError;
pub use component::ComponentError;
pub(crate) use credential::SignatureCredential;
pub use input::InputError;
pub use message::{Control, Message, Target};
pub(crate) use spec::SignatureSpec;

use crate::chain::{Evidence, Outcome};
use crate::guard::Claim;
use crate::place::Places;
use crate::signing::content_digest::{CONTENT_DIGEST, Covered, DIGEST};
use crate::signing::{Signed, Verifier};
use component::Component;
use input::{Input, Signatures};

/// The algorithms of RFC 9421 section 3.3.
pub(crate) const ALGORITHMS: &[(&str, MessageAlgorithm)] = &[
    ("rsa-pss-sha512", MessageAlgorithm::RsaPssSha512),
    ("rsa-v1_5-sha256", MessageAlgorithm::RsaV15Sha256),
    ("hmac-sha256", MessageAlgorithm::HmacSha256),
    ("ecdsa-p256-sha256", MessageAlgorithm::EcdsaP256Sha256),
    ("ecdsa-p384-sha384", MessageAlgorithm::EcdsaP384Sha384),
    ("ed25519", MessageAlgorithm::Ed25519),
];

/// The authenticator.
#[derive(Debug)]
pub(crate) struct Signature {
    places: Places,
    verifier: Verifier,
    covers: Box<[Requirement]>,
    /// Which signature is ours, where a request has several.
    label: Option<Box<str>>,
    tag: Option<Box<str>>,
    nonce_required: bool,
    /// The scheme callers use, where TLS ends in front of us.
    scheme: Option<&'static str>,
    challenge: Challenge,
    accept_signature: HeaderValue,
}

/// Something a signature must cover, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    component: Component,
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// Where the request has content; a digest of it.
    Content,
    /// Where the request has the field.
    Present,
}

/// The signature base of one label of a message.
///
/// # Errors
/// [`SignedError`]
pub fn signature_base(message: &Message<'_>, label: &str) -> Result<String, SignedError> {
    let signatures = Signatures::of(message.headers)?;
    let input = signatures.input(label)?;
    Ok(base::build(&base::components(input.list)?, input.list, message)?)
}

/// The labels of a message's signatures.
///
/// # Errors
/// [`InputError`]
pub fn signature_labels(message: &Message<'_>) -> Result<Vec<String>, InputError> {
    Ok(Signatures::of(message.headers)?.labels().map(str::to_owned).collect())
}

/// Why a signature cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The fields are malformed.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What is signed cannot be told.
    #[error(transparent)]
    Base(#[from] BaseError),
}

impl Signature {
    /// Where its fields are looked for.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// The key that the signature names. It is a stranger's word; what cannot be read is one name.
    pub(crate) fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        if !self.places.are_filled(evidence.head) {
            return Claim::Absent;
        }
        let signatures = Signatures::of(&evidence.head.headers).ok();
        let label = signatures.as_ref().and_then(|signatures| self.choose(signatures).ok());
        if let Some(key_id) = signatures.as_ref().zip(label).and_then(|(all, label)| all.key_id(label)) {
            into.write(key_id.as_bytes());
        }
        Claim::Named
    }

    /// What a caller who shows nothing is told.
    pub(crate) const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// What would do (RFC 9421 section 5.1).
    pub(crate) const fn accept_signature(&self) -> &HeaderValue {
        &self.accept_signature
    }

    /// Judges the signature of a request. What the head alone decides comes first, and whatever says nothing about
    /// any key before a key is looked up.
    pub(crate) async fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        if !self.places.are_filled(evidence.head) {
            return Outcome::Absent;
        }
        match self.judge(evidence).await {
            Ok(identity) => Outcome::Verified(identity, None),
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    async fn judge(&self, evidence: &Evidence<'_>) -> Result<Arc<Identity>, Rejection> {
        let malformed =
            |error: InputError| self.verifier.refuse(Reason::CredentialsMalformed, &error.to_string());
        let signatures = Signatures::of(&evidence.head.headers).map_err(malformed)?;
        let input = signatures.input(self.choose(&signatures)?).map_err(malformed)?;
        self.judge_one(input, evidence).await
    }

    async fn judge_one(&self, input: Input<'_>, evidence: &Evidence<'_>) -> Result<Arc<Identity>, Rejection> {
        let algorithm = self.algorithm(&input)?;
        let components = base::components(input.list).map_err(|error| self.refuse_base(&error))?;
        self.check_covered(&input, &components, evidence)?;
        let now = evidence.now.unix_seconds();
        let moments = self.verifier.check_time([input.created], input.expires, now)?;
        let whole = |field| components.iter().any(|component| component.is_whole(field));
        let covered = Covered { content_digest: whole(&CONTENT_DIGEST), digest: whole(&DIGEST) };
        let required = self.covers.iter().any(|requirement| requirement.when == When::Content);
        let digests = self.verifier.digests(covered, required, evidence)?;
        let base = self.base(&input, &components, evidence)?;
        let signed =
            Signed { key_id: input.key_id, algorithm, base: base.as_bytes(), signature: input.value };
        let key = self.verifier.verify(&signed, now)?;
        if let Some(digests) = digests {
            self.verifier.check_content(&digests, &moments, evidence).await?;
        }
        // Where a nonce is asked for, it is the nonce that may be used once (SIG-06).
        let once = input.nonce.filter(|_| self.nonce_required).map_or(base.as_bytes(), str::as_bytes);
        self.verifier.use_up(input.key_id, once, &moments, evidence)?;
        Ok(key.identity.clone())
    }

    /// The label that is ours: the only one there is with the label and the tag that are asked for (SIG-01).
    ///
    /// SECURITY: not the one whose key is known. Whoever could send several would learn which that is, by what is wrong
    /// with it or by how long it takes, and so which keys exist (ANS-06).
    fn choose<'s>(&self, signatures: &'s Signatures) -> Result<&'s str, Rejection> {
        let ours = |label: &&str| {
            self.label.as_deref().is_none_or(|own| own == *label)
                && self.tag.as_deref().is_none_or(|own| signatures.tag(label) == Some(own))
        };
        let mut candidates = signatures.labels().filter(ours);
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(self.verifier.refuse(
                Reason::CredentialsAmbiguous,
                "several signatures have the label and the tag that are asked for, if any are",
            )),
            (None, _) => Err(self.verifier.refuse(
                Reason::SignatureIncomplete,
                "no signature has the label or the tag that is asked for",
            )),
        }
    }

    /// The algorithm the request names (SIG-05).
    fn algorithm(&self, input: &Input<'_>) -> Result<Option<MessageAlgorithm>, Rejection> {
        let Some(name) = input.algorithm else { return Ok(None) };
        let known = ALGORITHMS.iter().find(|(own, _)| *own == name).map(|(_, algorithm)| *algorithm);
        match known.filter(|algorithm| self.verifier.takes(*algorithm)) {
            Some(algorithm) => Ok(Some(algorithm)),
            None => Err(self.verifier.refuse(
                Reason::SignatureAlgorithmRefused,
                "the algorithm it names is not one this API takes",
            )),
        }
    }

    fn check_covered(
        &self,
        input: &Input<'_>,
        components: &[Component],
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        let incomplete = |why: &str| Err(self.verifier.refuse(Reason::SignatureIncomplete, why));
        if self.nonce_required && input.nonce.is_none_or(str::is_empty) {
            return incomplete("it has no nonce");
        }
        // A label alone may choose; a tag that is asked for must be there whichever way it was chosen.
        if self.tag.is_some() && input.tag != self.tag.as_deref() {
            return incomplete("it has another tag");
        }
        let missing = self.covers.iter().find(|requirement| {
            let due = match requirement.when {
                When::Always => true,
                // Whether there is content to cover is asked where its digests are read.
                When::Content => false,
                When::Present => evidence.head.headers.contains_key(http::header::AUTHORIZATION),
            };
            due && !components.iter().any(|component| component.satisfies(&requirement.component))
        });
        match missing {
            None => Ok(()),
            Some(missing) => incomplete(&format!("it does not cover {}", missing.component.identifier)),
        }
    }

    /// SECURITY: from the request as it was received, under the scheme its caller used. What hygiene took out before
    /// is not there to be covered, and a signature over it fits nothing (SIG-08).
    fn base(
        &self,
        input: &Input<'_>,
        components: &[Component],
        evidence: &Evidence<'_>,
    ) -> Result<String, Rejection> {
        let own = if evidence.connection.tls.is_some() { "https" } else { "http" };
        let target = Target::of(evidence.head, self.scheme.unwrap_or(own));
        let message =
            Message { control: Control::Request(&target), headers: &evidence.head.headers, trailers: None };
        base::build(components, input.list, &message).map_err(|error| self.refuse_base(&error))
    }

    fn refuse_base(&self, error: &BaseError) -> Rejection {
        let reason = match error {
            BaseError::Component(_) | BaseError::Repeated(_) => Reason::CredentialsMalformed,
            // What it covers and is not there may have been taken away on the way.
            BaseError::Missing(_) | BaseError::Value(_) => Reason::SignatureInvalid,
        };
        self.verifier.refuse(reason, &error.to_string())
    }
}
