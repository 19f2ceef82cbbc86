//! Key sets found by the caller's certificate (OZ-02, JKS-12).
//!
//! SECURITY: only certificates whose path was verified and which the API has pinned come here: the policy is refused
//! where a token of such an issuer stands without a pinned certificate in its `all_of`, and in an `all_of`
//! certificates are judged before tokens. So strangers cannot make us fetch, and what is kept is bounded all the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_core::{FetchTrust, Moment, PeerCertificate};

use super::source::lock;
use super::template::{NoUrl, UrlTemplate};
use super::{KeySettings, KeySource, KeySources};

/// Certificates of one issuer whose key sets are kept (JKS-12).
const MAX_CERTIFICATES: usize = 1000;
/// A key set nobody has asked for this long is let go when room is made.
const IDLE: Duration = Duration::from_hours(1);

type Known = HashMap<[u8; 32], Arc<Held>, ahash::RandomState>;

/// The key sets of one issuer.
pub(crate) struct CertificateKeys {
    template: UrlTemplate,
    trust: FetchTrust,
    settings: KeySettings,
    sources: KeySources,
    /// By thumbprint. Read without a lock; copied when a certificate is new, which is rare.
    known: ArcSwap<Known>,
    growing: Mutex<()>,
}

/// The key set of one certificate.
pub(crate) struct Held {
    pub(crate) source: KeySource,
    /// Second of the monotonic clock in which it was last asked for.
    used: AtomicU64,
}

impl CertificateKeys {
    pub(crate) fn new(
        template: UrlTemplate,
        trust: FetchTrust,
        settings: KeySettings,
        sources: KeySources,
    ) -> Self {
        Self { template, trust, settings, sources, known: ArcSwap::default(), growing: Mutex::default() }
    }

    /// The key set for a certificate, known or new.
    ///
    /// # Errors
    /// There is no certificate, or no URL can be made from it.
    pub(crate) fn find(
        &self,
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<Arc<Held>, NoUrl> {
        let certificate = certificate.ok_or(NoUrl::CertificateMissing)?;
        if let Some(held) = self.held(&certificate.thumbprint, now) {
            return Ok(held);
        }
        let url = self.template.fill(certificate)?;
        let _one_at_a_time = lock(&self.growing);
        if let Some(held) = self.held(&certificate.thumbprint, now) {
            return Ok(held);
        }
        let source = self.sources.source(&url, self.trust.clone(), self.settings.clone());
        let source = source.map_err(NoUrl::Trust)?;
        let held = Arc::new(Held { source, used: AtomicU64::new(now.monotonic.as_secs()) });
        let mut known = Known::clone(&self.known.load());
        make_room(&mut known, now);
        known.insert(certificate.thumbprint, held.clone());
        self.known.store(Arc::new(known));
        Ok(held)
    }

    /// The generation of the keys for a certificate, if there are any that count now.
    pub(crate) fn generation(&self, certificate: Option<&PeerCertificate>, now: Moment) -> Option<u64> {
        self.held(&certificate?.thumbprint, now)?.source.generation(now)
    }

    fn held(&self, thumbprint: &[u8; 32], now: Moment) -> Option<Arc<Held>> {
        let known = self.known.load();
        let held = known.get(thumbprint)?;
        let second = now.monotonic.as_secs();
        // Written once a second at most, so that workers do not pass the line between them.
        if held.used.load(Ordering::Relaxed) != second {
            held.used.store(second, Ordering::Relaxed);
        }
        Some(held.clone())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.load().len()
    }
}

/// Lets go of what is idle, and where that is not enough, of what was used least recently.
fn make_room(known: &mut Known, now: Moment) {
    let idle_before = now.monotonic.saturating_sub(IDLE).as_secs();
    known.retain(|_, held| held.used.load(Ordering::Relaxed) >= idle_before);
    while known.len() >= MAX_CERTIFICATES {
        let oldest = known.iter().min_by_key(|(_, held)| held.used.load(Ordering::Relaxed));
        let Some(thumbprint) = oldest.map(|(thumbprint, _)| *thumbprint) else { return };
        known.remove(&thumbprint);
    }
}

impl std::fmt::Debug for CertificateKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateKeys({:?})", self.template)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use portcullis_core::{Clock, Faults, FetchTrust, ManualClock, PeerCertificate, Spanned};

    use super::{CertificateKeys, IDLE, MAX_CERTIFICATES};
    use crate::keys::{KeySettings, KeysOf, UrlTemplate};
    use crate::testing::{NOW, at, certificate_der, offline, peer};

    fn keys() -> CertificateKeys {
        let url = Spanned::new("https://keys.example/{certificate.cn}".to_owned(), at(1));
        let template = UrlTemplate::read(&url, &mut Faults::default()).expect("a template");
        let settings = KeySettings {
            issuer: "hub".into(),
            refresh: Duration::from_mins(5),
            serve_stale: Duration::from_mins(5),
            of: KeysOf::Certificate,
        };
        CertificateKeys::new(template, FetchTrust::default(), settings, offline())
    }

    /// JKS-12: what is kept is bounded, and what is used stays.
    #[test]
    fn the_least_recently_used_set_makes_room() {
        let (keys, manual) = (keys(), ManualClock::at_unix_seconds(NOW));
        let clock = Clock::Manual(manual.clone());
        let first = peer(&certificate_der(&[(rcgen::DnType::CommonName, "software-1")], &[]), "tpp");
        let other = |number: u32| {
            let mut thumbprint = [7; 32];
            thumbprint[..4].copy_from_slice(&number.to_be_bytes());
            PeerCertificate { thumbprint, ..PeerCertificate::clone(&first) }
        };
        let held = keys.find(Some(&first), clock.now()).expect("a source");
        let again = keys.find(Some(&first), clock.now()).expect("the same source");
        assert!(Arc::ptr_eq(&held, &again));
        for number in 0..2_000 {
            manual.advance(Duration::from_secs(1));
            keys.find(Some(&other(number)), clock.now()).expect("a source");
            if number % 500 == 0 {
                let used = keys.find(Some(&first), clock.now()).expect("the same source");
                assert!(Arc::ptr_eq(&held, &used));
            }
            assert!(keys.len() <= MAX_CERTIFICATES);
        }
        assert_eq!(keys.len(), MAX_CERTIFICATES);
        let used = keys.find(Some(&first), clock.now()).expect("the same source");
        assert!(Arc::ptr_eq(&held, &used));
        manual.advance(IDLE + Duration::from_secs(1));
        keys.find(Some(&other(9_999)), clock.now()).expect("a source");
        assert_eq!(keys.len(), 1);
    }
}
