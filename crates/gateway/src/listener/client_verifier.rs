//! Decides which client certificates a handshake takes (CRT-01 to CRT-04).

use std::cell::Cell;
use std::sync::Arc;

use portcullis_authn::{Validity, peer_certificate};
use portcullis_core::{CertificateSource, PeerCertificate};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::chain_cache::ChainCache;
use super::digest;
use super::limits::{INTERMEDIATES, REMEMBERED_CHAINS, SHOWN_CERTIFICATES};
use super::listed::{self, Listed, Unlisted};
use super::ocsp::Ocsp;
use super::possession;
use super::revocation::Revocation;
use super::spec::{Ask, Purpose, Verify, WhenUnknown};
use super::trust::TrustSet;
use super::x509::{self, Window};

/// `id-kp-clientAuth` (1.3.6.1.5.5.7.3.2), the content bytes of its DER.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// What the paths of a certificate have shown.
struct Verified {
    /// The time in which all of them hold.
    window: Window,
    /// The named sets they lead to.
    trusted_by: Vec<Arc<str>>,
    /// The certificate of the authority that issued it.
    issuer: Option<Vec<u8>>,
}

/// The verifier of one TLS policy.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    ask: Ask,
    sets: Vec<TrustSet>,
    revocation: Option<Arc<Revocation>>,
    purpose: Purpose,
    subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    /// What it verifies.
    verify: Verify,
    /// How the certificates it judges reach us.
    source: CertificateSource,
    remembered: ChainCache,
}

impl ClientVerifier {
    pub(crate) fn new(
        ask: Ask,
        sets: Vec<TrustSet>,
        revocation: Option<Arc<Revocation>>,
        purpose: Purpose,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let mut subjects: Vec<_> = sets
            .iter()
            .flat_map(|set| &set.anchors)
            .map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
            .collect();
        subjects.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        subjects.dedup_by(|a, b| a.as_ref() == b.as_ref());
        let remembered = ChainCache::new(REMEMBERED_CHAINS);
        let source = CertificateSource::Handshake;
        let verify = Verify::Path;
        Self { ask, sets, revocation, purpose, subjects, algorithms, verify, source, remembered }
    }

    /// One that takes any certificate whose key the peer holds.
    pub(crate) fn of_possession(self) -> Self {
        Self { verify: Verify::Possession, ..self }
    }

    /// One for certificates that reach us in another way.
    pub(crate) fn judging(self, source: CertificateSource) -> Self {
        Self { source, ..self }
    }

    /// Everything that decides which certificates are taken, as bytes, in a fixed order.
    pub(crate) fn description(&self) -> Vec<Vec<u8>> {
        let mut parts = vec![format!("{:?} {:?} {:?}", self.ask, self.verify, self.purpose).into_bytes()];
        for set in &self.sets {
            parts.push(set.name.as_bytes().to_vec());
            parts.push(set.certificates.len().to_be_bytes().to_vec());
            parts.extend(set.certificates.iter().map(|certificate| certificate.to_vec()));
        }
        if let Some(revocation) = &self.revocation {
            parts.push(format!("{:?} {:?}", revocation.when_unknown(), revocation.depth()).into_bytes());
            parts.push(format!("{:?}", revocation.online()).into_bytes());
            // Not what is in them: who was let in under other lists is judged again by those in force.
            parts.extend(revocation.files().map(|file| file.as_bytes().to_vec()));
        }
        parts
    }

    /// The number of the revocation lists in force. What was accepted under another number may not be any more.
    pub(crate) fn generation(&self) -> u64 {
        self.revocation.as_ref().map_or(0, |revocation| revocation.generation())
    }

    /// Who is asked online about what it accepts.
    pub(crate) fn online(&self) -> Option<&Arc<Ocsp>> {
        self.revocation.as_ref()?.online()
    }

    /// Whether a handshake without a certificate fails.
    pub(crate) fn requires(&self) -> bool {
        self.ask == Ask::Required
    }

    /// Whether what it accepts may be revoked later.
    pub(crate) const fn revokes(&self) -> bool {
        self.revocation.is_some()
    }

    /// The certificate of a chain that this verifier takes now, parsed.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn accept(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Arc<PeerCertificate>, Error> {
        // Strangers may show what they like, so none of it is remembered.
        if self.verify == Verify::Possession {
            return possession::judge(leaf, now).map(Arc::new);
        }
        // Read before the lists themselves: a finding never outlives the lists it was made with.
        let generation = self.generation().to_be_bytes();
        let chain = std::iter::once(leaf).chain(intermediates).map(|certificate| certificate.as_ref());
        let digest = digest::of(chain.chain([&generation[..]]))
            .ok_or_else(|| Error::General("no SHA-256".to_owned()))?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        // SECURITY: what is remembered is that signatures, constraints and revocation are good, which no later
        // second changes while anchors and lists stay. The time in which that counts is checked on every use; it
        // ends at the latest with the lists, so a certificate revoked since is found when they are replaced.
        let remembered = self.remembered.find(&digest);
        if let Some(known) =
            remembered.filter(|known| (known.valid_from..=known.valid_until).contains(&seconds))
        {
            return Ok(known);
        }
        let peer = Arc::new(self.judge(leaf, intermediates, now)?);
        self.remembered.remember(digest, &peer);
        Ok(peer)
    }

    /// The same without a memory.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerCertificate, Error> {
        let Verified { window, trusted_by, issuer } = self.verify(leaf, intermediates, now)?;
        if !window.holds_at(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) {
            return Err(CertificateError::Expired.into());
        }
        let path = Validity { from: window.from, until: window.until };
        let mut peer = peer_certificate(leaf, path, trusted_by, self.source)
            .map_err(|error| Error::from(CertificateError::Other(OtherError(Arc::new(error)))))?;
        peer.issuer_der = issuer.filter(|_| self.online().is_some()).map(Into::into);
        Ok(peer)
    }

    /// Builds the paths: one for each named set that has one. The set counts only for the time in which all of
    /// them hold, so a certificate is never taken for trusted by a name whose path has ended.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Verified, Error> {
        // SECURITY: paths are searched before anything has proved who sends this, and among many certificates that name
        // one another there are more paths than anybody can search.
        if intermediates.len() > SHOWN_CERTIFICATES {
            return Err(tls_error(webpki::Error::MaximumPathBuildCallsExceeded));
        }
        let leaf = EndEntityCert::try_from(leaf).map_err(tls_error)?;
        let (mut window, mut trusted_by, mut refused) = (Window::ALWAYS, Vec::new(), None);
        let mut issuer = None;
        for set in &self.sets {
            match self.verify_for(set, &leaf, intermediates, now) {
                Ok((of_set, issued_by)) => {
                    window = window.and(of_set);
                    issuer = issuer.or(issued_by);
                    trusted_by.push(Arc::clone(&set.name));
                }
                // "unknown issuer" of one set says less than what another has to say.
                Err(error) if refused.is_none() || !matches!(error, webpki::Error::UnknownIssuer) => {
                    refused = Some(error);
                }
                Err(_) => {}
            }
        }
        match refused {
            Some(error) if trusted_by.is_empty() => Err(tls_error(error)),
            _ if trusted_by.is_empty() => Err(CertificateError::UnknownIssuer.into()),
            _ => Ok(Verified { window, trusted_by, issuer }),
        }
    }

    fn verify_for(
        &self,
        set: &TrustSet,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(Window, Option<Vec<u8>>), webpki::Error> {
        let revocation = self.revocation.as_deref();
        let when_unlisted = match revocation.map(|revocation| revocation.when_unknown()) {
            Some(WhenUnknown::Allow) => Unlisted::Pass,
            Some(WhenUnknown::Deny) | None => Unlisted::Refuse,
        };
        match self.path_to(set, leaf, intermediates, now, when_unlisted) {
            Err(webpki::Error::UnknownRevocationStatus) if is_never_revoked(leaf) => {
                self.path_to(set, leaf, intermediates, now, Unlisted::PassLeaf)
            }
            found => found,
        }
    }

    fn path_to(
        &self,
        set: &TrustSet,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        when_unlisted: Unlisted,
    ) -> Result<(Window, Option<Vec<u8>>), webpki::Error> {
        let purpose = match self.purpose {
            Purpose::CheckedIfPresent => KeyUsage::client_auth(),
            Purpose::Required => KeyUsage::required(CLIENT_AUTH),
        };
        let in_force = self.revocation.as_ref().filter(|revocation| revocation.has_lists());
        let in_force = in_force.map(|revocation| (revocation.lists(), revocation.depth()));
        let lists: Vec<_> = in_force.iter().flat_map(|(in_force, _)| &in_force.lists).collect();
        let revocation = match &self.revocation {
            // SECURITY: with nobody to ask either, no list is a refusal and never "not revoked".
            Some(revocation) if revocation.has_lists() || revocation.online().is_none() => {
                Some(listed::options(&lists, revocation.depth(), when_unlisted)?)
            }
            Some(_) | None => None,
        };
        let found = Cell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            let listed =
                in_force.as_ref().map(|(lists, depth)| Listed { lists, depth: *depth, when_unlisted });
            let window = window_of(set, path, listed.as_ref())?;
            found.set(Some((window, issuer_of(set, path))));
            Ok(())
        };
        leaf.verify_for_usage(
            self.algorithms.all,
            &set.anchors,
            intermediates,
            now,
            purpose,
            revocation,
            Some(&judge),
        )?;
        found.into_inner().ok_or(webpki::Error::UnknownIssuer)
    }
}

fn is_never_revoked(leaf: &webpki::Cert<'_>) -> bool {
    x509::certificate(&leaf.der()).is_some_and(|facts| facts.is_never_revoked)
}

/// The certificate of the authority that issued the leaf.
fn issuer_of(set: &TrustSet, path: &VerifiedPath<'_>) -> Option<Vec<u8>> {
    match path.intermediate_certificates().next() {
        Some(issuer) => Some(issuer.der().to_vec()),
        None => set.anchor_certificate(path).map(|der| der.to_vec()),
    }
}

/// What webpki leaves open about a path: key usages, its length by our count, and how long it holds.
fn window_of(
    set: &TrustSet,
    path: &VerifiedPath<'_>,
    listed: Option<&Listed<'_>>,
) -> Result<Window, webpki::Error> {
    if path.intermediate_certificates().count() > INTERMEDIATES {
        return Err(webpki::Error::MaximumPathDepthExceeded);
    }
    let leaf: &webpki::Cert<'_> = path.end_entity();
    let facts = x509::certificate(&leaf.der()).ok_or(webpki::Error::BadDer)?;
    if !facts.may_sign || !facts.is_strong {
        return Err(webpki::Error::UnknownIssuer);
    }
    let anchor = set.anchor_window(path).ok_or(webpki::Error::UnknownIssuer)?;
    let mut window = anchor.and(facts.window);
    if let Some(listed) = listed {
        window = window.and(listed.leaf(leaf));
    }
    for issuer in path.intermediate_certificates() {
        let facts = x509::certificate(&issuer.der()).ok_or(webpki::Error::BadDer)?;
        if !facts.may_certify || !facts.is_strong {
            return Err(webpki::Error::UnknownIssuer);
        }
        window = window.and(facts.window);
        if let Some(listed) = listed {
            window = window.and(listed.authority(issuer)?);
        }
    }
    Ok(window)
}

/// The alert follows from the kind; what exactly was wrong stays with us.
fn tls_error(error: webpki::Error) -> Error {
    let certificate_error = match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    certificate_error.into()
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.ask != Ask::Never
    }

    fn client_auth_mandatory(&self) -> bool {
        self.ask == Ask::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.accept(end_entity, intermediates, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verify {
            Verify::Path => rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms),
            Verify::Possession => possession::verify_tls12(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verify {
            Verify::Path => rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms),
            Verify::Possession => possession::verify_tls13(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
