//! What becomes of the body of a request that was refused without it.

use http::Version;
use http_body_util::BodyExt as _;

use crate::listener::{LINGER_BYTES, LINGER_TIMEOUT};
use crate::request_body::RequestBody;

/// Reads a little of it behind the answer, so that the answer is read.
///
/// Dropping an unread HTTP/2 body resets its stream (RFC 9113 section 8.1). That is correct, and yet clients that
/// are still to send their few bytes then report a broken stream and never show the refusal. A body that is longer
/// than this, or slower, is reset.
pub(crate) fn let_go(version: Version, body: RequestBody) {
    use http_body::Body as _;
    // On HTTP/1.1 the connection itself lingers.
    if version != Version::HTTP_2 || body.is_end_stream() {
        return;
    }
    tokio::task::spawn_local(async move {
        // Whether it came to its end or not, nobody waits for it.
        drop(tokio::time::timeout(LINGER_TIMEOUT, read(body)).await);
    });
}

async fn read(mut body: RequestBody) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(1, |data| data.len().max(1)));
        if left == 0 {
            return;
        }
    }
}
