//! What one listener bears: every bound of the door with its default, in one place.

use std::ops::RangeInclusive;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Faults, Place};

/// The bounds of one listener. A key of `limits` that is left out has the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenLimits {
    /// Open connections, counted over all workers. One more is closed at once.
    pub connections: usize,
    /// Bytes of a request's head: request line and fields together.
    pub headers_bytes: usize,
    /// Fields of a request's head.
    pub header_count: usize,
    /// Requests in flight on one HTTP/2 connection.
    pub streams: u32,
    /// From the accepted socket to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a head (for the first request: from the end of the handshake) to its last.
    pub header_timeout: Duration,
    /// How long a connection may stay open with nothing to do.
    pub idle_timeout: Duration,
    /// How long a client may refuse to take the bytes of an answer.
    pub write_timeout: Duration,
    /// After this the connection is closed between two requests (TLS-05).
    pub connection_age: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            headers_bytes: 32 << 10,
            header_count: 100,
            streams: 100,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            connection_age: Duration::from_secs(3_600),
        }
    }
}

/// Smaller heads than this are nobody's, and larger ones are an attack.
const HEADERS_BYTES: RangeInclusive<u64> = (8 << 10)..=(256 << 10);

/// How much of a head is asked of the socket at once. Most requests fit.
pub(crate) const HEAD_READ_BYTES: usize = 4 << 10;

/// How much of a body is asked of the socket at once, and thus held of it.
pub(crate) const BODY_READ_BYTES: usize = 64 << 10;

/// A larger buffer is given back when it is empty.
pub(crate) const KEPT_BUFFER_BYTES: usize = 16 << 10;

/// Pieces of an answer up to this are copied, so that one write takes them together with what is around them.
pub(crate) const COPIED_PIECE_BYTES: usize = 8 << 10;

/// How much of what follows a request is read while the request is served.
pub(crate) const PIPELINED_BYTES: usize = 8 << 10;

/// Bytes of an unread request body that are thrown away after an early answer, so that the client can read the
/// answer before its socket is reset.
pub(crate) const LINGER_BYTES: usize = 64 << 10;

/// How long that may take.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that has ended its side may wait for an answer. It may as well be gone.
pub(crate) const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 flow control windows, for one stream and for the connection.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// See [`STREAM_WINDOW_BYTES`].
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Answer bytes held for one HTTP/2 stream.
pub(crate) const STREAM_SEND_BYTES: usize = 128 << 10;
/// Streams a client may reset before we have taken them up, before it is told to go (CVE-2023-44487).
pub(crate) const PENDING_RESET_STREAMS: usize = 20;
/// Streams we may have had to reset ourselves for protocol errors (CVE-2025-8671).
pub(crate) const LOCAL_RESET_STREAMS: usize = 256;
/// Requests a client may abandon on one HTTP/2 connection before more than half of them abandoned closes it.
pub(crate) const ABANDONED_REQUESTS: u64 = 100;
/// How often a quiet HTTP/2 connection is asked whether it lives, and how long it may think.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// See [`PING_INTERVAL`].
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Certificates that may be shown beside the client's own. The longest path has fewer; a few others do no harm.
pub(crate) const SHOWN_CERTIFICATES: usize = 8;

/// Intermediate certificates between a client's certificate and its trust anchor (CRT-01).
pub(crate) const INTERMEDIATES: usize = 4;
/// Client chains remembered by one TLS policy.
pub(crate) const REMEMBERED_CHAINS: usize = 4_096;
/// TLS sessions remembered by one TLS policy that asks for no client certificate.
pub(crate) const REMEMBERED_SESSIONS: usize = 4_096;

/// How often the files of revocation lists are looked at.
pub(crate) const RELOAD_LISTS: Duration = Duration::from_secs(30);

/// Connections the kernel may hold for one worker before they are accepted.
pub(crate) const BACKLOG: i32 = 4_096;
/// Pause of the accept loop after an error that may last, such as having run out of descriptors or memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl ListenLimits {
    /// Every key of `limits` with its value, as both are written in a file.
    pub fn listing(&self) -> [(&'static str, String); 9] {
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        [
            ("connections", self.connections.to_string()),
            ("headers", format!("{}KiB", self.headers_bytes >> 10)),
            ("header_count", self.header_count.to_string()),
            ("streams", self.streams.to_string()),
            ("handshake_timeout", seconds(self.handshake_timeout)),
            ("header_timeout", seconds(self.header_timeout)),
            ("idle_timeout", seconds(self.idle_timeout)),
            ("write_timeout", seconds(self.write_timeout)),
            ("connection_age", seconds(self.connection_age)),
        ]
    }

    /// Reads `limits` of a listener.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "the limits of a listener", faults)?;
        let mut limits = Self::default();
        if let Some(count) = fields.get("connections").and_then(|node| node.integer(1..=1_000_000, faults)) {
            limits.connections = usize::try_from(count).unwrap_or(limits.connections);
        }
        if let Some(node) = fields.get("headers") {
            limits.headers_bytes = headers_bytes(node, faults).unwrap_or(limits.headers_bytes);
        }
        if let Some(count) = fields.get("header_count").and_then(|node| node.integer(1..=1_000, faults)) {
            limits.header_count = usize::try_from(count).unwrap_or(limits.header_count);
        }
        if let Some(count) = fields.get("streams").and_then(|node| node.integer(1..=10_000, faults)) {
            limits.streams = u32::try_from(count).unwrap_or(limits.streams);
        }
        for (key, slot) in [
            ("handshake_timeout", &mut limits.handshake_timeout),
            ("header_timeout", &mut limits.header_timeout),
            ("idle_timeout", &mut limits.idle_timeout),
            ("write_timeout", &mut limits.write_timeout),
            ("connection_age", &mut limits.connection_age),
        ] {
            if let Some(node) = fields.get(key) {
                *slot = positive(node.duration(faults), node.place, faults).unwrap_or(*slot);
            }
        }
        fields.finish(faults);
        Some(limits)
    }
}

fn headers_bytes(node: &Node, faults: &mut Faults) -> Option<usize> {
    let bytes = node.size(faults)?;
    if !HEADERS_BYTES.contains(&bytes) {
        faults.error("out_of_range", node.place, "the size of headers is from `8KiB` to `256KiB`");
        return None;
    }
    usize::try_from(bytes).ok()
}

/// SECURITY: there is no word for "no timeout"; a zero would be read as one by some and as "at once" by others.
pub(crate) fn positive(duration: Option<Duration>, place: Place, faults: &mut Faults) -> Option<Duration> {
    let duration = duration?;
    if duration.is_zero() {
        faults.error("out_of_range", place, "a timeout of zero is not possible");
        return None;
    }
    Some(duration)
}
