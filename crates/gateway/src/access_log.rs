//! One JSON object per request, written off the workers.
//!
//! A worker fills a record and hands it to one writer thread over a bounded queue; a slow reader of the log
//! costs lines, which are counted, never requests. No token, key or query string can be in a record: its
//! fields are these, and none of them holds one.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

/// Records that may wait for the writer: a burst of a second or so.
const QUEUE: usize = 16_384;

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) ts: String,
    pub(crate) request_id: String,
    pub(crate) listener: Arc<str>,
    pub(crate) api: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) method: String,
    /// The rule's template, or without a rule the path itself.
    pub(crate) path: Option<String>,
    pub(crate) status: u16,
    pub(crate) decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Arc<str>>,
    pub(crate) identity: Option<Arc<str>>,
    pub(crate) auth: Option<&'static str>,
    /// First sixteen hexadecimal digits of the certificate's SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<String>,
    pub(crate) client: String,
    pub(crate) gateway_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_ms: Option<f64>,
    pub(crate) total_ms: f64,
    pub(crate) out: u64,
    pub(crate) config: Arc<str>,
}

/// The workers' end.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: SyncSender<Record>,
    dropped: Arc<AtomicU64>,
}

/// The writer's end; dropping every [`AccessLog`] and joining it writes what is still queued.
pub(crate) struct AccessLogWriter(JoinHandle<()>);

impl AccessLog {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<(Self, AccessLogWriter)> {
        let (queue, records) = sync_channel(QUEUE);
        let writer =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(sink, &records))?;
        Ok((Self { queue, dropped: Arc::default() }, AccessLogWriter(writer)))
    }

    /// Hands over one record, or counts it as dropped.
    pub(crate) fn write(&self, record: Record) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(record) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many records were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl AccessLogWriter {
    /// Waits until everything queued is written.
    pub(crate) fn finish(self) {
        // The only way to fail is a panic of the writer, which its own hook has already reported.
        drop(self.0.join());
    }
}

fn write(sink: impl Write, records: &Receiver<Record>) {
    let mut sink = io::BufWriter::with_capacity(64 * 1024, sink);
    loop {
        match records.recv_timeout(Duration::from_millis(200)) {
            Ok(record) => {
                let mut next = Some(record);
                while let Some(record) = next {
                    // A line that cannot be written is lost; there is nobody left to tell but the log itself.
                    drop(serde_json::to_writer(&mut sink, &record));
                    drop(sink.write_all(b"\n"));
                    next = records.try_recv().ok();
                }
                drop(sink.flush());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
