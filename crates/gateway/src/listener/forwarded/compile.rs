//! From what is written to what judges requests.

use std::sync::Arc;

use portcullis_core::{CertificateSource, Place};

use super::spec::{ForwardedSpec, JudgeSpec};
use super::{ForwardedCertificates, Judge, next_generation};
use crate::listener::client_verifier::ClientVerifier;
use crate::listener::settings::Compiler;
use crate::listener::spec::Ask;
use crate::listener::trust;

impl Compiler<'_> {
    /// Compiles `client_certificate_header`. `anchors` are the names the same listener asks its own peers for.
    pub(in crate::listener) fn forwarded(
        &mut self,
        spec: &ForwardedSpec,
        anchors: &[(String, Place)],
    ) -> Option<ForwardedCertificates> {
        let proof = spec.proof.compile(anchors, self.materials, self.faults);
        let judge = match &spec.judge {
            JudgeSpec::Ours { trust, intermediates, revocation } => {
                let sets: Vec<_> = trust.iter().map(|(name, path)| self.trust(name, path)).collect();
                let revocation = match revocation {
                    Some(spec) => self.revocation(spec).map(Some),
                    None => Some(None),
                };
                let intermediates = match intermediates {
                    Some(path) => trust::certificates(path, self.materials, self.faults),
                    None => Some(Vec::new()),
                };
                let sets = sets.into_iter().collect::<Option<Vec<_>>>()?;
                let algorithms = self.provider.signature_verification_algorithms;
                let verifier =
                    ClientVerifier::new(Ask::Optional, sets, revocation?, spec.purpose, algorithms)
                        .judging(CertificateSource::Proxy);
                Judge::Ours { verifier: Arc::new(verifier), intermediates: intermediates? }
            }
            JudgeSpec::Proxy { trusted_as, hash_suffices } => Judge::Proxy {
                trusted_as: trusted_as.value.as_str().into(),
                purpose: spec.purpose,
                hash_suffices: *hash_suffices,
            },
        };
        Some(ForwardedCertificates {
            from: spec.from.clone(),
            proof: proof?,
            placement: spec.placement.clone(),
            verdicts: spec.verdicts.clone(),
            judge,
            generation: next_generation(),
        })
    }
}
