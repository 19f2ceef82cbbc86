//! What a service is told about a request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
use portcullis_core::{PeerCertificate, Reason, Rejection};

use super::External;
use crate::chain::Evidence;
use crate::place::{Found, Place};

/// What is told of one request, however it is sent.
pub(super) struct Question<'e> {
    pub(super) method: &'e str,
    /// Path and query as received.
    pub(super) target: &'e str,
    pub(super) host: String,
    pub(super) scheme: &'static str,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    pub(super) server_name: Option<&'e str>,
    /// The credential's own field, and those the policy names.
    pub(super) headers: HeaderMap,
    pub(super) certificate: Option<&'e PeerCertificate>,
    /// Only where the policy asks for it.
    pub(super) content: Option<Bytes>,
    pub(super) unix_ms: i64,
}

impl<'e> Question<'e> {
    /// Gathers it. The content is read last.
    ///
    /// # Errors
    /// The content cannot be had, or is longer than the policy lets the service see: judging a part of it would
    /// let the rest through unseen.
    pub(super) async fn of(
        external: &External,
        evidence: &Evidence<'e>,
        found: Option<&Found<'_, '_>>,
    ) -> Result<Self, Rejection> {
        let head = evidence.head;
        let connection = evidence.connection;
        let mut question = Self {
            method: head.method.as_str(),
            target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
            host: host(evidence),
            scheme: if connection.tls.is_some() { "https" } else { "http" },
            address: connection.address().to_string(),
            port: connection.peer.port(),
            protocol: if head.version == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            server_name: connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
            headers: told(external, evidence, found),
            certificate: evidence
                .certificate
                .filter(|certificate| external.told.certificate && certificate.is_current(evidence.now))
                .map(|certificate| &**certificate),
            content: None,
            unix_ms: evidence.now.unix_ms,
        };
        if let Some(most) = external.told.content {
            let content = content(evidence, most).await?;
            if let Some(kind) = head.headers.get(CONTENT_TYPE) {
                question.headers.insert(CONTENT_TYPE, kind.clone());
            }
            question.content = Some(content);
        }
        Ok(question)
    }
}

/// The content, of which no more is read than the service may see.
async fn content(evidence: &Evidence<'_>, most: u64) -> Result<Bytes, Rejection> {
    if !evidence.on_trial {
        return evidence.content_up_to(most).await;
    }
    // A trial must not be felt: the request goes on whole, however long its content is.
    let content = evidence.content().await?;
    if content.len() as u64 > most {
        return Err(Rejection::new(Reason::ExternalUnavailable)
            .because("the content is longer than the external service may see"));
    }
    Ok(content)
}

/// The host of the request, without looking at what proxies say.
pub(super) fn host(evidence: &Evidence<'_>) -> String {
    let named = evidence.head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = evidence.head.uri.authority().map(http::uri::Authority::as_str);
    authority.or(named).unwrap_or_default().to_ascii_lowercase()
}

/// The fields that are told. SECURITY: a field is told with all its values, so that the service sees what an upstream
/// would see.
fn told(external: &External, evidence: &Evidence<'_>, found: Option<&Found<'_, '_>>) -> HeaderMap {
    let all = &evidence.head.headers;
    let mut headers = HeaderMap::new();
    let mut tell = |name: &HeaderName| {
        if !headers.contains_key(name) {
            headers.extend(all.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
    };
    external.told.headers.iter().for_each(&mut tell);
    match found.map(|found| found.place) {
        Some(Place::Header(name) | Place::Scheme(name, _) | Place::Marker(name)) => tell(name),
        Some(Place::Cookie(name)) if !headers.contains_key(COOKIE) => {
            let credential = found.map(|found| found.credential.as_ref()).unwrap_or_default();
            let cookie = [name.as_bytes(), b"=", credential].concat();
            if let Ok(value) = HeaderValue::from_bytes(&cookie) {
                headers.insert(COOKIE, value);
            }
        }
        // What is in the query is told with the target.
        Some(Place::Query(_) | Place::Cookie(_)) | None => {}
    }
    headers
}

/// A certificate as a structured field (RFC 9440 section 2.1).
pub(super) fn certificate_field(certificate: &PeerCertificate) -> String {
    format!(":{}:", STANDARD.encode(&certificate.der))
}
