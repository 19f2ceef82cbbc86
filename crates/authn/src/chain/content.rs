//! The content of a request, for authenticators that judge it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use portcullis_core::Rejection;

/// The content, or why it cannot be had.
pub type ContentFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, Rejection>> + 'a>>;

/// The content of a request, read from its connection when it is asked for first, and remembered.
///
/// SECURITY: it is asked for last, after everything the head alone decides. Who holds no good credential cannot make
/// the gateway keep a body in memory, and is not told to send it (`100 Continue`).
///
/// `dyn`, because whoever asks waits for the network anyway.
pub trait Content {
    /// Whether the head says that there is none. Of some requests only reading tells; for those it is `false`.
    fn is_absent(&self) -> bool;

    /// All of it, as it was received after its transfer coding, if it has at most so many bytes. No more than those are
    /// read.
    ///
    /// # Errors
    /// It is longer than that or than the API takes, does not arrive in time, or is broken.
    fn read(&self, at_most: u64) -> ContentFuture<'_>;
}
