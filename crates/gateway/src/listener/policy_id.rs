//! Numbers for TLS policies.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use portcullis_core::TlsPolicyId;

use super::client_verifier::ClientVerifier;
use super::digest::{self, Digest};

/// Numbers that stay the same for as long as the process lives: two policies that ask the same of clients have
/// one number, and a policy whose authorities or revocation lists change gets another, so that connections made
/// before are told to connect again (TLS-03, TLS-05).
#[derive(Debug, Default)]
pub struct TlsPolicyIds(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    known: HashMap<Digest, u32>,
    last: u32,
}

impl TlsPolicyIds {
    /// The number of every policy that asks for no certificate.
    pub(crate) const fn without_certificates(&self) -> TlsPolicyId {
        TlsPolicyId(0)
    }

    /// The number of a policy that asks for certificates.
    pub(crate) fn of(&self, verifier: &ClientVerifier) -> TlsPolicyId {
        let digest = digest::of(verifier.description().iter().map(Vec::as_slice));
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = digest.and_then(|digest| numbers.known.get(&digest).copied()) {
            return TlsPolicyId(number);
        }
        numbers.last = numbers.last.saturating_add(1);
        let number = numbers.last;
        if let Some(digest) = digest {
            numbers.known.insert(digest, number);
        }
        TlsPolicyId(number)
    }
}
