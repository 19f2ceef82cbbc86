//! Client certificates that a trusted proxy tells in a header, where TLS ends in front of the gateway (FWD-01 to
//! FWD-11).
//!
//! Three questions, in this order, for every request of such a listener: is the sender the proxy; what does it say;
//! is the certificate it tells of good. A sender that is not the proxy is not listened to, whatever it sends; the
//! fields themselves leave the request on every listener, before any stage reads them.

mod compile;
mod decode;
mod encode;
mod format;
mod memory;
mod spec;
#[cfg(test)]
mod tests;
mod xfcc;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use portcullis_authn::{ProxyProof, Validity, fingerprint_alone, peer_certificate};
use portcullis_core::{CertificateSource, Connection, Moment, PeerCertificate, Reason, Rejection, Scheme};
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};

pub(crate) use decode::first_of_sequence;
pub(crate) use encode::CertificateText;
pub use format::{CERTIFICATE_FORMATS, read_certificate_header};
pub(crate) use memory::{ForwardedCounts, ForwardedMemory};
pub(crate) use spec::ForwardedSpec;

use super::client_verifier::ClientVerifier;
use super::ocsp::Ocsp;
use super::spec::Purpose;
use super::x509::{self, Purposes};
use format::{Found, Placement, ReadError, Told};

/// `client_certificate_header` of a listener, compiled.
#[derive(Debug)]
pub(crate) struct ForwardedCertificates {
    from: Vec<IpNet>,
    proof: ProxyProof,
    placement: Placement,
    /// Fields that must have exactly this value beside a certificate: the proxy's own verdict.
    verdicts: Vec<(HeaderName, Vec<u8>)>,
    judge: Judge,
    /// Tells what was remembered under these settings from what was under others.
    generation: u64,
}

/// Who verifies the certificate's path.
#[derive(Debug)]
enum Judge {
    /// We do, against named authorities.
    Ours { verifier: Arc<ClientVerifier>, intermediates: Vec<CertificateDer<'static>> },
    /// The proxy did, and answers for it under this name (FWD-05). What the certificate itself says is judged here.
    Proxy { trusted_as: Arc<str>, purpose: Purpose, hash_suffices: bool },
}

/// Whose certificate is the caller's.
#[derive(Clone, Debug, Default)]
pub(crate) enum CallersCertificate {
    /// The connection's peer is the caller: what its handshake showed, if anything.
    #[default]
    Handshake,
    /// This one, if any: what a proxy told with this request, or the handshake's with what became known since.
    Settled(Option<Arc<PeerCertificate>>),
}

/// A number no other settings of this process have.
fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl ForwardedCertificates {
    /// Every field the proxy speaks in; no caller may send any of them to any listener.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        let Placement { header, chain, .. } = &self.placement;
        let verdicts = self.verdicts.iter().map(|(name, _)| name);
        std::iter::once(header).chain(chain).chain(verdicts).chain(self.proof.header())
    }

    /// Settles whose certificate counts for a request.
    ///
    /// `own` is the certificate of the connection's handshake, as it stands now.
    ///
    /// SECURITY: whoever is not the proxy has only their own handshake, whatever headers they send (WS-04), and a
    /// certificate the proxy itself shows is never a caller's, not even where the proxy tells of none (FWD-06).
    ///
    /// # Errors
    /// The proxy tells of a certificate that cannot be read (400), is not good (401), or cannot be checked (503).
    pub(crate) fn settle(
        &self,
        headers: &HeaderMap,
        connection: &Connection,
        own: Option<&PeerCertificate>,
        memory: &ForwardedMemory,
        now: Moment,
    ) -> Result<CallersCertificate, Rejection> {
        // Who sends this comes first: whatever certificate the proxy itself has shown is the proxy's.
        if !self.is_near(connection.hop()) || !self.proof.shown(headers, own, now) {
            memory.count(|counts| counts.not_the_proxy += 1);
            if self.is_near(connection.hop()) && self.proof.is_spoiled(headers, now) {
                return Err(Rejection::new(Reason::CertificateHeaderInvalid)
                    .because("the secret of the proxy is wrong, or is not the only one"));
            }
            let of_the_proxy = own.is_some_and(|own| self.proof.is_of_the_proxy(own));
            return Ok(if of_the_proxy {
                CallersCertificate::Settled(None)
            } else {
                CallersCertificate::Handshake
            });
        }
        let found = self.placement.find(headers).map_err(|error| unreadable(memory, error))?;
        let Some(found) = found else {
            memory.count(|counts| counts.absent += 1);
            return Ok(CallersCertificate::Settled(None));
        };
        self.told(headers, &found, memory, now).map(CallersCertificate::Settled)
    }

    /// Under what a certificate was found good: these settings, and the revocation lists in force. Read before the
    /// lists themselves, so that a finding never outlives them.
    fn generation(&self) -> (u64, u64) {
        let lists = match &self.judge {
            Judge::Ours { verifier, .. } => verifier.generation(),
            Judge::Proxy { .. } => 0,
        };
        (self.generation, lists)
    }

    /// Who is asked online about the certificates that are told.
    pub(crate) fn online(&self) -> Option<&Arc<Ocsp>> {
        match &self.judge {
            Judge::Ours { verifier, .. } => verifier.online(),
            Judge::Proxy { .. } => None,
        }
    }

    /// Whether a certificate of a handshake is the proxy's own.
    pub(crate) fn is_of_the_proxy(&self, handshake: &PeerCertificate) -> bool {
        self.proof.is_of_the_proxy(handshake)
    }

    /// Whether the proxy's connections come from there.
    pub(crate) fn is_near(&self, hop: IpAddr) -> bool {
        self.from.iter().any(|range| range.contains(&hop))
    }

    fn told(
        &self,
        headers: &HeaderMap,
        found: &Found<'_>,
        memory: &ForwardedMemory,
        now: Moment,
    ) -> Result<Option<Arc<PeerCertificate>>, Rejection> {
        // The verdict belongs to this request, not to the certificate, so it is never remembered.
        if let Some((name, _)) = self.verdicts.iter().find(|verdict| !is_given(verdict, headers)) {
            memory.count(|counts| counts.refused += 1);
            let why = format!("the proxy does not say in `{name}` that it has verified the certificate");
            return Err(Rejection::new(Reason::CertificateRefused).of(Scheme::Certificate).because(why));
        }
        let mark = ForwardedMemory::mark(self.generation(), found);
        if let Some(known) = memory.find(&mark).filter(|known| known.is_current(now)) {
            memory.count(|counts| counts.taken += 1);
            return Ok(Some(known));
        }
        let certificate = match self.placement.read(found).map_err(|error| unreadable(memory, error))? {
            Told::Nothing => {
                memory.count(|counts| counts.absent += 1);
                return Ok(None);
            }
            told => match memory.refusal(&mark, now) {
                Some(refusal) => Err(refusal),
                None => self.judge.judge(told, now).inspect_err(|rejection| {
                    memory.remember_refusal(mark, rejection, now);
                }),
            },
        };
        let certificate = certificate.inspect_err(|rejection| {
            memory.count(|counts| match rejection.reason() {
                Reason::CertificateHeaderInvalid => counts.unreadable += 1,
                _ => counts.refused += 1,
            });
        })?;
        memory.count(|counts| counts.taken += 1);
        let certificate = Arc::new(certificate);
        memory.remember(mark, &certificate);
        Ok(Some(certificate))
    }
}

fn is_given((name, value): &(HeaderName, Vec<u8>), headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(name).iter();
    match (given.next(), given.next()) {
        (Some(one), None) => one.as_bytes() == value.as_slice(),
        _ => false,
    }
}

fn unreadable(memory: &ForwardedMemory, error: ReadError) -> Rejection {
    memory.count(|counts| counts.unreadable += 1);
    Rejection::new(Reason::CertificateHeaderInvalid).because(error.to_string())
}

fn refused(reason: Reason, why: impl Into<String>) -> Rejection {
    Rejection::new(reason).of(Scheme::Certificate).because(why)
}

impl Judge {
    fn judge(&self, told: Told, now: Moment) -> Result<PeerCertificate, Rejection> {
        match (self, told) {
            (Self::Ours { verifier, intermediates }, Told::Chain(chain)) => {
                let mut chain = chain.into_iter().map(CertificateDer::from);
                let leaf =
                    chain.next().ok_or_else(|| refused(Reason::CertificateRefused, "an empty chain"))?;
                // Whoever cannot be read as a certificate is a broken header, not a bad caller.
                let readable = x509::certificate(&leaf).is_some();
                if !readable {
                    return Err(Rejection::new(Reason::CertificateHeaderInvalid)
                        .because("what it holds is not one certificate"));
                }
                let others: Vec<_> = chain.chain(intermediates.iter().cloned()).collect();
                let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
                let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
                verifier.judge(&leaf, &others, at).map_err(|error| of_verifier(&error))
            }
            (Self::Proxy { trusted_as, purpose, .. }, Told::Chain(chain)) => {
                let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
                vouched(leaf, trusted_as, *purpose, now)
            }
            (Self::Proxy { trusted_as, hash_suffices: true, .. }, Told::Fingerprint(thumbprint)) => {
                Ok(fingerprint_alone(thumbprint, vec![Arc::clone(trusted_as)]))
            }
            (Self::Ours { .. } | Self::Proxy { .. }, Told::Fingerprint(_)) => Err(refused(
                Reason::CertificateRefused,
                "the proxy tells a fingerprint alone, and the listener wants the certificate",
            )),
            (_, Told::Nothing) => Err(refused(Reason::CertificateMissing, "no certificate")),
        }
    }
}

/// What a certificate says of itself, where the proxy answers for its path.
fn vouched(
    leaf: &[u8],
    trusted_as: &Arc<str>,
    purpose: Purpose,
    now: Moment,
) -> Result<PeerCertificate, Rejection> {
    let always = Validity { from: i64::MIN, until: i64::MAX };
    let read = peer_certificate(leaf, always, vec![Arc::clone(trusted_as)], CertificateSource::Proxy);
    let (Ok(certificate), Some(facts)) = (read, x509::certificate(leaf)) else {
        return Err(
            Rejection::new(Reason::CertificateHeaderInvalid).because("what it holds is not one certificate")
        );
    };
    if !certificate.is_current(now) {
        return Err(refused(Reason::CertificateExpired, "outside its validity"));
    }
    let may_authenticate = match facts.purposes {
        Purposes::ClientAuthentication => true,
        Purposes::NotStated => purpose == Purpose::CheckedIfPresent,
        Purposes::Others => false,
    };
    if !may_authenticate || facts.is_authority || !facts.may_sign || !facts.is_strong {
        return Err(refused(
            Reason::CertificateRefused,
            "its purpose, its key or its kind is not a client's",
        ));
    }
    Ok(certificate)
}

/// A refusal of the verifier in the words of a request.
fn of_verifier(error: &Error) -> Rejection {
    let reason = match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::NotValidYet) => {
            Reason::CertificateExpired
        }
        Error::InvalidCertificate(CertificateError::Revoked) => Reason::CertificateRevoked,
        Error::InvalidCertificate(
            CertificateError::UnknownRevocationStatus | CertificateError::ExpiredRevocationList,
        ) => Reason::RevocationUnknown,
        _ => Reason::CertificateRefused,
    };
    refused(reason, error.to_string())
}
