//! Asking another server for a small document, without knowing how it is done.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A GET for a small document. Redirects are never followed (JKS-01).
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Absolute URL.
    pub url: String,
    /// `If-None-Match`, when a copy is already held.
    pub etag: Option<String>,
    /// Longest body taken, in bytes; a longer one is an error.
    pub max_bytes: usize,
    /// Limit for name resolution, connection and TLS handshake.
    pub connect_timeout: Duration,
    /// Limit for the whole exchange.
    pub total_timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct FetchResponse {
    /// HTTP status, whatever it is.
    pub status: u16,
    /// The `ETag`, verbatim.
    pub etag: Option<String>,
    /// `Cache-Control` fields, joined.
    pub cache_control: Option<String>,
    /// `Age` in seconds.
    pub age: Option<u64>,
    /// The body, complete.
    pub body: bytes::Bytes,
}

/// Why nothing usable came back. The text names the failure, never the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL is not one this fetcher may ask.
    #[error("the URL is refused: {0}")]
    Refused(String),
    /// No connection, or it broke.
    #[error("connection failed: {0}")]
    Connection(String),
    /// Too slow.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// The body is longer than allowed.
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
}

/// The future of one fetch. Boxed: a network waits here anyway.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send + 'a>>;

/// Something that can fetch. Implemented by the room that owns HTTP clients; tests answer from memory.
pub trait Fetch: Send + Sync {
    /// Performs the request.
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_>;
}
