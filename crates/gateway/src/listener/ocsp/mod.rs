//! Asking a responder whether a certificate was revoked (RVK-02 to RVK-04).
//!
//! Handshakes ask nobody: a certificate whose path is good gets in, and the first request that shows it waits, bounded,
//! for what the responder says. The question itself is asked once for all who wait, on the background runtime, and what
//! was said is remembered for as long as it counts.

mod memory;
mod message;
mod spec;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, header};
use portcullis_core::{Clock, Fetch, FetchRequest, Moment, PeerCertificate, Standing};
use rustls::crypto::WebPkiSupportedAlgorithms;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub(crate) use memory::OnlineMemory;
pub(crate) use spec::OcspSpec;

use super::spec::WhenUnknown;
use super::x509;
use message::{Question, Status};

/// Certificates that are remembered by one listener's settings.
const REMEMBERED: usize = 4_096;
/// How long after a failure nobody is asked again, in seconds.
const PAUSE_SECONDS: i64 = 5;
/// The longest answer, in bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// `ocsp` of one verifier.
pub(crate) struct Ocsp {
    spec: OcspSpec,
    fetch: Arc<dyn Fetch>,
    /// `None` where policies are only compiled.
    background: Option<Handle>,
    clock: Clock,
    algorithms: WebPkiSupportedAlgorithms,
    known: Mutex<HashMap<[u8; 32], watch::Receiver<Option<Finding>>, ahash::RandomState>>,
}

/// What is known of one certificate, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) standing: Standing,
    /// Last second since 1970.
    pub(crate) until: i64,
}

impl std::fmt::Debug for Ocsp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ocsp({:?})", self.spec)
    }
}

impl Ocsp {
    pub(crate) fn new(
        spec: OcspSpec,
        fetch: Arc<dyn Fetch>,
        background: Option<Handle>,
        clock: Clock,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { spec, fetch, background, clock, algorithms, known: Mutex::default() }
    }

    /// How a certificate stands. Waits for an answer that is under way, no longer than the settings say; leaving
    /// early takes nothing from others who wait.
    pub(crate) async fn ask(self: &Arc<Self>, certificate: &PeerCertificate, now: Moment) -> Finding {
        let seconds = now.unix_seconds();
        let mut answer = self.asked(certificate, seconds);
        let waiting = answer.wait_for(Option::is_some);
        match tokio::time::timeout(self.spec.timeout, waiting).await {
            Ok(Ok(finding)) => (*finding).unwrap_or_else(|| self.without_answer(seconds)),
            Ok(Err(_)) | Err(_) => self.without_answer(seconds),
        }
    }

    /// The answer there is, or the one that is under way from now on.
    fn asked(self: &Arc<Self>, certificate: &PeerCertificate, now: i64) -> watch::Receiver<Option<Finding>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(&certificate.thumbprint)
            && answer.borrow().is_none_or(|finding| finding.until >= now)
            && (answer.borrow().is_some() || answer.has_changed().is_ok())
        {
            return answer.clone();
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, answer| answer.borrow().is_none_or(|finding| finding.until >= now));
            if known.len() >= REMEMBERED {
                known.clear();
            }
        }
        let (tell, answer) = watch::channel(None);
        known.insert(certificate.thumbprint, answer.clone());
        drop(known);
        if x509::certificate(&certificate.der).is_some_and(|facts| facts.is_never_revoked) {
            tell.send_replace(Some(Finding { standing: Standing::Good, until: certificate.valid_until }));
            return answer;
        }
        let question =
            certificate.issuer_der.as_deref().and_then(|issuer| Question::new(&certificate.der, issuer));
        if let (Some(question), Some(background)) = (question, &self.background) {
            let this = Arc::clone(self);
            background.spawn(async move {
                let finding = this.inquire(&question).await;
                tell.send_replace(Some(finding));
            });
        } else {
            tell.send_replace(Some(self.without_answer(now)));
        }
        answer
    }

    /// Asks the responder.
    async fn inquire(&self, question: &Question) -> Finding {
        match self.exchange(question).await {
            Ok(finding) => finding,
            Err(why) => {
                tracing::warn!(%why, "a certificate's revocation could not be asked for");
                self.without_answer(self.clock.now().unix_seconds())
            }
        }
    }

    async fn exchange(&self, question: &Question) -> Result<Finding, String> {
        let url = self.spec.responder(question.responder.as_deref())?;
        let body = question.to_der().ok_or("the certificate cannot be asked about")?;
        let mut request = FetchRequest::new(Method::POST, url);
        request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/ocsp-request"));
        request.headers.insert(header::ACCEPT, HeaderValue::from_static("application/ocsp-response"));
        request.body = body.into();
        request.max_bytes = ANSWER_BYTES;
        request.total_timeout = self.spec.timeout.max(Duration::from_secs(1)).saturating_mul(2);
        let response = self.fetch.fetch(request).await.map_err(|error| error.to_string())?;
        if response.status != http::StatusCode::OK {
            return Err(format!("the responder answers {}", response.status.as_u16()));
        }
        let now = self.clock.now().unix_seconds();
        let longest = i64::try_from(self.spec.cache.as_secs()).unwrap_or(i64::MAX);
        let answer = question
            .read(&response.body, now, longest, &self.algorithms)
            .map_err(|error| error.to_string())?;
        let standing = match answer.status {
            Status::Good => Standing::Good,
            Status::Revoked => Standing::Revoked,
            Status::Unknown => Standing::Disowned,
        };
        Ok(Finding { standing, until: answer.until })
    }

    /// What to say where nobody says anything.
    fn without_answer(&self, now: i64) -> Finding {
        let standing = match self.spec.when_unknown {
            WhenUnknown::Deny => Standing::Unknown,
            WhenUnknown::Allow => Standing::Good,
        };
        Finding { standing, until: now.saturating_add(PAUSE_SECONDS) }
    }
}
