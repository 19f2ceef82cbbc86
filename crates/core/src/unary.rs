//! Calling a gRPC service with one message for one message, without knowing how it is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::FetchTrust;

/// One call.
#[derive(Clone)]
pub struct UnaryCall {
    /// `/package.Service/Method`
    pub path: &'static str,
    /// The message, encoded.
    pub message: Bytes,
    /// Longest answer taken, in bytes; a longer one is an error.
    pub max_bytes: usize,
    /// Limit for the whole call, the connection included.
    pub timeout: Duration,
}

/// SECURITY: a message may hold somebody's credentials, so it is not shown.
impl fmt::Debug for UnaryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.message.len())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnaryError {
    /// No connection, or it broke.
    #[error("connection failed: {0}")]
    Connection(String),
    /// Too slow.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// The service answered with a status that is not OK. What it says about it is not repeated.
    #[error("the service answered with gRPC status {0}")]
    Status(i32),
}

/// The future of one call. Boxed: a network waits here anyway.
pub type UnaryFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, UnaryError>> + Send + 'a>>;

/// A service that can be called. Implemented by the room that owns HTTP clients; tests answer from memory.
pub trait Unary: Send + Sync {
    /// Makes the call. The work is done on the background runtime, so this may be awaited anywhere.
    fn call(&self, call: UnaryCall) -> UnaryFuture<'_>;
}

/// Makes the client of the service at a URL under a given trust, or says what is wrong with them.
pub type MakeCaller = dyn Fn(&str, &FetchTrust) -> Result<Arc<dyn Unary>, String> + Send + Sync;

/// Hands out clients of gRPC services. Cloning shares how they are made.
#[derive(Clone)]
pub struct Callers(Arc<MakeCaller>);

impl Callers {
    /// Clients made by that function.
    pub fn new(
        make: impl Fn(&str, &FetchTrust) -> Result<Arc<dyn Unary>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }

    /// The client of the service at this URL.
    ///
    /// # Errors
    /// What is wrong with the URL or the trust.
    pub fn get(&self, url: &str, trust: &FetchTrust) -> Result<Arc<dyn Unary>, String> {
        (self.0)(url, trust)
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}
