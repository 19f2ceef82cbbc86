//! What one worker remembers of responders' answers, so that known certificates cost no lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use portcullis_core::{Moment, PeerCertificate};

use super::{Finding, Ocsp};

/// Certificates that are remembered.
const REMEMBERED: usize = 4_096;

/// Findings by who was asked and about what. Only certificates whose path is good get in.
#[derive(Debug, Default)]
pub(crate) struct OnlineMemory(RefCell<Findings>);

type Findings = HashMap<(usize, [u8; 32]), (Arc<Ocsp>, Finding), RandomState>;

impl OnlineMemory {
    /// What was found, while it counts.
    pub(crate) fn find(
        &self,
        ocsp: &Arc<Ocsp>,
        certificate: &PeerCertificate,
        now: Moment,
    ) -> Option<Finding> {
        let findings = self.0.borrow();
        let (asked, finding) = findings.get(&key(ocsp, certificate))?;
        (Arc::ptr_eq(asked, ocsp) && finding.until >= now.unix_seconds()).then_some(*finding)
    }

    pub(crate) fn remember(&self, ocsp: &Arc<Ocsp>, certificate: &PeerCertificate, finding: Finding) {
        let mut findings = self.0.borrow_mut();
        if findings.len() >= REMEMBERED {
            findings.clear();
        }
        findings.insert(key(ocsp, certificate), (Arc::clone(ocsp), finding));
    }
}

/// The address tells one responder's settings from another's; holding them keeps it from being used again.
fn key(ocsp: &Arc<Ocsp>, certificate: &PeerCertificate) -> (usize, [u8; 32]) {
    (Arc::as_ptr(ocsp).addr(), certificate.thumbprint)
}
