//! Asking another server a short question, without knowing how it is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use crate::Secret;

/// A question whose answer is small. Redirects are never followed (JKS-01).
#[derive(Clone)]
pub struct FetchRequest {
    /// The method.
    pub method: Method,
    /// Absolute URL.
    pub url: String,
    /// Fields beside `Host`, `User-Agent` and those that frame the message, which are the fetcher's own.
    pub headers: HeaderMap,
    /// The content, complete; empty for none.
    pub body: Bytes,
    /// Longest body taken, in bytes; a longer one is an error.
    pub max_bytes: usize,
    /// Limit for name resolution, connection and TLS handshake.
    pub connect_timeout: Duration,
    /// Limit for the whole exchange, the connection included.
    pub total_timeout: Duration,
    /// How often it may go out.
    pub sending: Sending,
}

/// How often a question may go out. A connection that was kept open may turn out to have been closed while the
/// question was under way, and nobody knows whether it was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sending {
    /// In that case once more, on a new connection.
    #[default]
    Again,
    /// Once: then nothing came back but [`FetchError::Unanswered`], and whoever asks decides.
    Once,
    /// Once, and on a new connection.
    OnceAnew,
}

impl FetchRequest {
    /// A question without fields and content: answers up to 64 KiB, 2 s to connect, 5 s for all of it.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            max_bytes: 64 * 1024,
            connect_timeout: Duration::from_secs(2),
            total_timeout: Duration::from_secs(5),
            sending: Sending::Again,
        }
    }
}

/// SECURITY: fields and content may hold our own credentials, and the query somebody else's, so none is shown.
impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        write!(f, "{} {url} ({} fields, {} bytes)", self.method, self.headers.len(), self.body.len())
    }
}

/// What came back.
#[derive(Clone)]
pub struct FetchResponse {
    /// HTTP status, whatever it is.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body, complete.
    pub body: Bytes,
}

impl FetchResponse {
    /// An answer of 200 with that body and no fields.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() }
    }

    /// A field that is there once and is text.
    pub fn field(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => only.to_str().ok(),
            _ => None,
        }
    }

    /// The `ETag`, verbatim.
    pub fn etag(&self) -> Option<&str> {
        self.field(&ETAG)
    }

    /// `Cache-Control` fields, joined.
    pub fn cache_control(&self) -> Option<String> {
        let values = self.headers.get_all(CACHE_CONTROL).iter();
        let fields: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        if fields.is_empty() { None } else { Some(fields.join(", ")) }
    }

    /// `Age` in seconds.
    pub fn age(&self) -> Option<u64> {
        self.field(&AGE)?.parse().ok()
    }
}

/// SECURITY: an answer may describe a caller, so its content is not shown.
impl fmt::Debug for FetchResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} fields, {} bytes)", self.status, self.headers.len(), self.body.len())
    }
}

/// Questions to one server that may be under way at once. Whoever bounds their own and allows no more never finds one
/// waiting here.
pub const QUESTIONS_AT_ONCE: usize = 128;

/// Why nothing usable came back. The text names the failure, never the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The request is not one this fetcher may send.
    #[error("the request is refused: {0}")]
    Refused(String),
    /// No connection, or it broke.
    #[error("connection failed: {0}")]
    Connection(String),
    /// A connection that was kept ended before it said anything, and the question may have been heard.
    #[error("the connection ended before it said anything")]
    Unanswered,
    /// Too slow.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// Too many other questions were under way to the same server, so this one was never sent: it says nothing of the
    /// server.
    #[error("not sent: too many other questions were under way for {0:?}")]
    Unsent(Duration),
    /// The body is longer than allowed.
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
}

/// The future of one fetch. Boxed: a network waits here anyway.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send + 'a>>;

/// Something that can fetch. Implemented by the room that owns HTTP clients; tests answer from memory.
pub trait Fetch: Send + Sync {
    /// Performs the request. The work is done on the background runtime, so this may be awaited anywhere, and
    /// dropping the future takes nothing with it that others share.
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_>;
}

/// Whom a fetch trusts, and who it says it is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FetchTrust {
    /// PEM of the certificate authorities that may vouch for the server; `None` means those of the system.
    pub anchors: Option<Vec<u8>>,
    /// The certificate shown to servers that ask for one.
    pub identity: Option<FetchIdentity>,
    /// Whether plain http to a loopback address is allowed (JKS-01).
    pub loopback_http: bool,
    /// Whether plain http to anywhere is allowed: only for answers that prove by themselves who wrote them.
    pub plain_http: bool,
}

/// A client certificate of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchIdentity {
    /// PEM of the certificate, and those between it and its authority.
    pub chain: Vec<u8>,
    /// PEM of its private key.
    pub key: Secret,
}

/// Makes the client that fetches under a given trust, or says what is wrong with the trust.
pub type MakeFetcher = dyn Fn(&FetchTrust) -> Result<Arc<dyn Fetch>, String> + Send + Sync;

/// Hands out fetchers. Whoever asks under the same trust gets the same one, also after a reload, so that
/// connections are shared; under another trust nothing is. Cloning shares them.
#[derive(Clone)]
pub struct Fetchers(Arc<Inner>);

struct Inner {
    make: Box<MakeFetcher>,
    living: Mutex<Vec<(FetchTrust, Weak<dyn Fetch>)>>,
}

impl Fetchers {
    /// Fetchers made by that function.
    pub fn new(make: impl Fn(&FetchTrust) -> Result<Arc<dyn Fetch>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { make: Box::new(make), living: Mutex::default() }))
    }

    /// The fetcher for a trust.
    ///
    /// # Errors
    /// What is wrong with the anchors or the certificate.
    pub fn get(&self, trust: &FetchTrust) -> Result<Arc<dyn Fetch>, String> {
        let mut living = self.0.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.retain(|(_, fetcher)| fetcher.strong_count() > 0);
        let known = living.iter().find(|(known, _)| known == trust);
        if let Some(fetcher) = known.and_then(|(_, fetcher)| fetcher.upgrade()) {
            return Ok(fetcher);
        }
        let fetcher = (self.0.make)(trust)?;
        living.push((trust.clone(), Arc::downgrade(&fetcher)));
        Ok(fetcher)
    }
}

impl fmt::Debug for Fetchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetchers")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Fetch, FetchError, FetchFuture, FetchIdentity, FetchRequest, FetchResponse, FetchTrust, Fetchers,
    };
    use crate::Secret;
    use bytes::Bytes;
    use http::header::{AUTHORIZATION, ETAG};
    use http::{HeaderValue, Method};
    use std::sync::Arc;

    struct Deaf;

    impl Fetch for Deaf {
        fn fetch(&self, _request: FetchRequest) -> FetchFuture<'_> {
            Box::pin(async { Err(FetchError::Connection("deaf".into())) })
        }
    }

    #[test]
    fn same_trust_is_same_fetcher_and_another_trust_never_is() {
        let fetchers = Fetchers::new(|_| Ok(Arc::new(Deaf)));
        let identity = |key: &str| FetchIdentity { chain: b"chain".to_vec(), key: Secret::new(key.into()) };
        let trusts = [
            FetchTrust::default(),
            FetchTrust { loopback_http: true, ..FetchTrust::default() },
            FetchTrust { anchors: Some(b"a".to_vec()), ..FetchTrust::default() },
            FetchTrust { identity: Some(identity("a")), ..FetchTrust::default() },
            FetchTrust { identity: Some(identity("b")), ..FetchTrust::default() },
        ];
        let all: Vec<_> = trusts.iter().map(|trust| fetchers.get(trust).expect("a fetcher")).collect();
        for (at, trust) in trusts.iter().enumerate() {
            let again = fetchers.get(&trust.clone()).expect("a fetcher");
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(Arc::ptr_eq(&again, other), at == other_at, "{at} {other_at}");
            }
        }
    }

    #[test]
    fn requests_and_answers_show_neither_fields_nor_content() {
        let mut request = FetchRequest::new(Method::POST, "https://idp.example/introspect?canary");
        request.headers.insert(AUTHORIZATION, HeaderValue::from_static("canary"));
        request.body = Bytes::from_static(b"canary");
        assert_eq!(format!("{request:?}"), "POST https://idp.example/introspect (1 fields, 6 bytes)");
        let mut response = FetchResponse::ok("canary");
        response.headers.append(ETAG, HeaderValue::from_static("canary"));
        assert_eq!(format!("{response:?}"), "200 OK (1 fields, 6 bytes)");
        assert_eq!(response.etag(), Some("canary"));
        response.headers.append(ETAG, HeaderValue::from_static("canary"));
        assert_eq!(response.etag(), None, "two are none");
    }
}
