//! Questions to an OCSP responder and its answers (RFC 6960, RVK-02).

use portcullis_authn::legacy_sha1;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::der::asn1::{Null, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extensions;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse,
    OcspResponseStatus, Request, ResponderId, SingleResponse, TbsRequest, Version,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

/// `id-sha1`
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// `id-pkix-ocsp-basic`
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// `id-pkix-ocsp-nonce`; none is sent, and one that comes unasked says nothing.
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
/// `id-ad-ocsp`, dotted.
const RESPONDER: &str = "1.3.6.1.5.5.7.48.1";
/// `id-kp-OCSPSigning`, the content bytes of its DER.
const OCSP_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];

/// How far the responder's clock may be ahead of ours, in seconds.
const LEEWAY: i64 = 60;
/// The most certificates of a responder that are looked at.
const DELEGATES: usize = 4;

/// One certificate to ask about.
#[derive(Clone, Debug)]
pub(super) struct Question {
    id: CertId,
    issuer: CertificateDer<'static>,
    issuer_name: Vec<u8>,
    issuer_key_hash: [u8; 20],
    /// The responder the certificate itself names.
    pub(super) responder: Option<String>,
}

/// What a responder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Revoked,
    /// The responder does not know the certificate.
    Unknown,
}

/// A signed and current answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// Last second since 1970 at which it counts.
    pub(super) until: i64,
}

/// Why an answer says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it is not an OCSP answer")]
    Malformed,
    #[error("the responder has no answer")]
    NoAnswer,
    #[error("it is not about the certificate that was asked for")]
    AnotherCertificate,
    #[error("nobody signed it who may")]
    Signature,
    #[error("it is out of date, or of a time to come")]
    Time,
    #[error("it holds a critical extension that is not understood")]
    Extension,
}

impl Question {
    /// `None` if either certificate cannot be read.
    pub(super) fn new(leaf: &[u8], issuer: &[u8]) -> Option<Self> {
        let (Ok(([], leaf)), Ok(([], authority))) =
            (X509Certificate::from_der(leaf), X509Certificate::from_der(issuer))
        else {
            return None;
        };
        let issuer_name = authority.subject().as_raw().to_vec();
        let issuer_key_hash = legacy_sha1(&authority.public_key().subject_public_key.data);
        // SHA-1 names the issuer here and guards nothing: it is the one digest every responder knows (RFC 5019).
        let id = CertId {
            hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Null.into()) },
            issuer_name_hash: OctetString::new(legacy_sha1(&issuer_name)).ok()?,
            issuer_key_hash: OctetString::new(issuer_key_hash).ok()?,
            serial_number: SerialNumber::new(leaf.raw_serial()).ok()?,
        };
        let responder = responder(&leaf);
        let issuer = CertificateDer::from(issuer.to_vec());
        Some(Self { id, issuer, issuer_name, issuer_key_hash, responder })
    }

    /// The request as it is sent.
    pub(super) fn to_der(&self) -> Option<Vec<u8>> {
        let request = Request { req_cert: self.id.clone(), single_request_extensions: None };
        let tbs_request = TbsRequest {
            version: Version::V1,
            requestor_name: None,
            request_list: vec![request],
            request_extensions: None,
        };
        OcspRequest { tbs_request, optional_signature: None }.to_der().ok()
    }

    /// Reads an answer. `now` is the second since 1970; `longest` how many seconds an answer counts that does not say
    /// when the next one comes.
    ///
    /// # Errors
    /// It says nothing, whatever it says.
    pub(super) fn read(
        &self,
        answer: &[u8],
        now: i64,
        longest: i64,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Answer, AnswerError> {
        let malformed = |_| AnswerError::Malformed;
        let outer = OcspResponse::from_der(answer).map_err(malformed)?;
        if outer.response_status != OcspResponseStatus::Successful {
            return Err(AnswerError::NoAnswer);
        }
        let bytes = outer.response_bytes.ok_or(AnswerError::Malformed)?;
        if bytes.response_type != BASIC {
            return Err(AnswerError::Malformed);
        }
        let signed = bytes.response.as_bytes();
        let basic = BasicOcspResponse::from_der(signed).map_err(malformed)?;
        // SECURITY: the signature is over the bytes as they came, never over what we would write.
        let content = super::super::forwarded::first_of_sequence(signed).ok_or(AnswerError::Malformed)?;
        self.verify(&basic, content, now, algorithms)?;
        let data = &basic.tbs_response_data;
        understood(data.response_extensions.as_ref())?;
        let mut about = data.responses.iter().filter(|single| self.is_about(single));
        let single = match (about.next(), about.next()) {
            (Some(single), None) => single,
            (None, _) => return Err(AnswerError::AnotherCertificate),
            (Some(_), Some(_)) => return Err(AnswerError::Malformed),
        };
        understood(single.single_extensions.as_ref())?;
        let from = seconds(&single.this_update);
        let until = match &single.next_update {
            // As with lists: in the second in which the next one is due this one is out of date.
            Some(next) => seconds(next).saturating_sub(1),
            None => from.saturating_add(longest),
        };
        if from > now.saturating_add(LEEWAY) || until < now || until < from {
            return Err(AnswerError::Time);
        }
        let status = match single.cert_status {
            CertStatus::Good(_) => Status::Good,
            CertStatus::Revoked(_) => Status::Revoked,
            CertStatus::Unknown(_) => Status::Unknown,
        };
        Ok(Answer { status, until: until.min(now.saturating_add(longest)) })
    }

    fn is_about(&self, single: &SingleResponse) -> bool {
        let (asked, told) = (&self.id, &single.cert_id);
        // Parameters of the digest may be there or not (RFC 5912).
        told.hash_algorithm.oid == asked.hash_algorithm.oid
            && told.issuer_name_hash == asked.issuer_name_hash
            && told.issuer_key_hash == asked.issuer_key_hash
            && told.serial_number == asked.serial_number
    }

    /// Whether the issuer itself signed, or somebody whom the issuer itself has certified for it (RFC 6960 section
    /// 4.2.2.2).
    fn verify(
        &self,
        basic: &BasicOcspResponse,
        content: &[u8],
        now: i64,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), AnswerError> {
        let signature = basic.signature.as_bytes().ok_or(AnswerError::Malformed)?;
        let algorithm = basic.signature_algorithm.to_der().map_err(|_| AnswerError::Malformed)?;
        let by = |signer: &CertificateDer<'_>| {
            let signer = EndEntityCert::try_from(signer).ok()?;
            let fitting =
                algorithms.all.iter().filter(|known| is_named(&algorithm, known.signature_alg_id().as_ref()));
            fitting.map(|known| signer.verify_signature(*known, content, signature)).find(Result::is_ok)?.ok()
        };
        let data = &basic.tbs_response_data;
        if self.is_named_by(&data.responder_id, &self.issuer_name, &self.issuer_key_hash)
            && by(&self.issuer).is_some()
        {
            return Ok(());
        }
        let anchor = webpki::anchor_from_trusted_cert(&self.issuer).map_err(|_| AnswerError::Signature)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        for delegate in basic.certs.iter().flatten().take(DELEGATES) {
            let Ok(der) = delegate.to_der() else { continue };
            let Some((name, key_hash)) = name_and_key(&der) else { continue };
            let der = CertificateDer::from(der);
            if !self.is_named_by(&data.responder_id, &name, &key_hash) {
                continue;
            }
            let Ok(end) = EndEntityCert::try_from(&der) else { continue };
            // SECURITY: the issuer is the only anchor and there is nothing between, so it was the issuer itself that
            // certified the delegate; the purpose must be there, and a certificate without any is none.
            let anchors = [anchor.clone()];
            let certified = end.verify_for_usage(
                algorithms.all,
                &anchors,
                &[],
                now,
                KeyUsage::required(OCSP_SIGNING),
                None,
                None,
            );
            if certified.is_ok() && by(&der).is_some() {
                return Ok(());
            }
        }
        Err(AnswerError::Signature)
    }

    fn is_named_by(&self, id: &ResponderId, name: &[u8], key_hash: &[u8; 20]) -> bool {
        match id {
            ResponderId::ByName(given) => given.to_der().is_ok_and(|given| given == name),
            ResponderId::ByKey(given) => given.as_bytes() == key_hash,
        }
    }
}

/// Whether an algorithm identifier, with its outer head, is this one without.
fn is_named(written: &[u8], known: &[u8]) -> bool {
    written.len() == known.len() + 2 && written.ends_with(known)
}

fn name_and_key(der: &[u8]) -> Option<(Vec<u8>, [u8; 20])> {
    let Ok(([], certificate)) = X509Certificate::from_der(der) else { return None };
    Some((
        certificate.subject().as_raw().to_vec(),
        legacy_sha1(&certificate.public_key().subject_public_key.data),
    ))
}

fn seconds(time: &OcspGeneralizedTime) -> i64 {
    i64::try_from(time.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn understood(extensions: Option<&Extensions>) -> Result<(), AnswerError> {
    let strange = |extensions: &Extensions| extensions.iter().any(|one| one.critical && one.extn_id != NONCE);
    if extensions.is_some_and(strange) { Err(AnswerError::Extension) } else { Ok(()) }
}

/// The first responder that the certificate's authority has written into it.
fn responder(leaf: &X509Certificate<'_>) -> Option<String> {
    leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.accessdescs.iter().find_map(|description| match &description.access_location {
                GeneralName::URI(uri) if description.access_method.to_id_string() == RESPONDER => {
                    Some((*uri).to_owned())
                }
                _ => None,
            })
        }
        _ => None,
    })
}
