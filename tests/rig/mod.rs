//! The rig: everything around the real binary that a black-box test needs.
//!
//! Tests are plain functions. The servers they talk to live on one runtime of the test process; the gateway is
//! the program itself, started on ports the system chooses and stopped when the test ends.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod fronts;
pub(crate) mod gateway;
pub(crate) mod idp;
pub(crate) mod interop;
pub(crate) mod oidc;
pub(crate) mod provider;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod token;
pub(crate) mod upstream;
pub(crate) mod world;

/// The longest a single answer may take before a test calls it a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The runtime of the rig's own servers and clients.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    });
    &RUNTIME
}

/// Standard base64, as signatures and digests are written in header fields.
pub(crate) fn standard_base64(bytes: &[u8]) -> String {
    let text = portcullis_jose::base64url::encode(bytes).replace('-', "+").replace('_', "/");
    let padding = "=".repeat(text.len().wrapping_neg() % 4);
    text + &padding
}

/// Waits for something another process does in its own time, looking again and again, at most [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
