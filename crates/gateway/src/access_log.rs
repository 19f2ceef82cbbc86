//! One JSON object per request, written off the workers.
//!
//! A worker fills a record and hands it to one writer thread over a bounded queue; a slow reader of the log
//! costs lines, which are counted, never requests. No token, key or query string can be in a record: its
//! fields are these, and none of them holds one.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

/// Records that may wait for the writer: a burst of a second or so.
const QUEUE: usize = 16_384;

/// Bytes that are written at once.
const BATCH_BYTES: usize = 64 << 10;

/// The longest path and the longest words of one, in bytes: callers choose how long their paths are.
const MOST_TEXT: usize = 512;

/// How long the end waits for the reader of the log.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One line.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Record {
    pub(crate) ts: String,
    /// How loudly the refusal speaks; `info` for what was allowed.
    pub(crate) level: &'static str,
    pub(crate) request_id: String,
    pub(crate) listener: Arc<str>,
    pub(crate) api: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) method: &'static str,
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
    /// Which of the caller's credentials it was, by its public name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_id: Option<Arc<str>>,
    pub(crate) auth: Option<&'static str>,
    /// `would_allow`, or the reason for which a chain or a limit in shadow would have refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shadow: Option<&'static str>,
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

/// A text that a caller may have made long, as it is written down.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MOST_TEXT {
        text.truncate(text.floor_char_boundary(MOST_TEXT));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

/// The workers' end.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: SyncSender<Record>,
    dropped: Arc<AtomicU64>,
}

/// The writer's end; dropping every [`AccessLog`] and finishing it writes what is still queued.
pub(crate) struct AccessLogWriter(JoinHandle<()>);

impl AccessLog {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<(Self, AccessLogWriter)> {
        let (queue, records) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(sink, &records, &lost))?;
        Ok((Self { queue, dropped }, AccessLogWriter(writer)))
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
    /// Waits until everything queued is written, but not for ever: a reader that has stopped reading must not keep
    /// the gateway from ending. Whether all was written.
    pub(crate) fn finish(self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < LAST_WORDS && !self.0.is_finished() {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.0.is_finished()
    }
}

fn write(mut sink: impl Write, records: &Receiver<Record>, lost: &AtomicU64) {
    let mut lines = Vec::with_capacity(BATCH_BYTES);
    while let Ok(record) = records.recv() {
        let (mut next, mut count) = (Some(record), 0);
        while let Some(record) = next {
            // A record is numbers and texts: it cannot fail to be JSON.
            let _ = serde_json::to_writer(&mut lines, &record);
            lines.push(b'\n');
            count += 1;
            next = if lines.len() < BATCH_BYTES { records.try_recv().ok() } else { None };
        }
        // Whole lines or none: what a full disk swallows is counted, and the next line starts on a line of its own.
        if sink.write_all(&lines).and_then(|()| sink.flush()).is_err() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
        lines.clear();
    }
}

#[cfg(test)]
impl Record {
    /// A record in which nothing is remarkable.
    pub(crate) fn of_tests() -> Self {
        Self {
            ts: String::new(),
            level: "info",
            request_id: "r".to_owned(),
            listener: "public".into(),
            api: None,
            rule: None,
            method: "GET",
            path: Some("/\r\n\"x".to_owned()),
            status: 200,
            decision: "allow",
            reason: None,
            detail: None,
            limit: None,
            identity: None,
            key_id: None,
            auth: None,
            shadow: None,
            cert: None,
            client: String::new(),
            gateway_ms: 0.1,
            upstream_ms: None,
            total_ms: 0.1,
            out: 0,
            config: "c".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessLog, MOST_TEXT, Record, shortened};
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Disk {
        written: Arc<Mutex<Vec<u8>>>,
        full: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().expect("a lock").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The table of the README has every field there is.
    #[test]
    fn what_a_caller_made_long_is_cut_at_a_character() {
        let cut = shortened("ä".repeat(MOST_TEXT));
        assert!(cut.len() <= MOST_TEXT + 3 && cut.ends_with("ä…"), "{}", cut.len());
        assert_eq!(shortened("short".to_owned()), "short");
    }

    #[test]
    fn every_field_has_its_words() {
        let full = Record {
            reason: Some("r"),
            detail: Some(String::new()),
            limit: Some("l".into()),
            key_id: Some("k".into()),
            shadow: Some("s"),
            cert: Some(String::new()),
            upstream_ms: Some(0.1),
            ..Record::of_tests()
        };
        let json = serde_json::to_value(&full).expect("JSON");
        let fields = json.as_object().expect("an object");
        assert_eq!(fields["key_id"], "k");
        let bare = serde_json::to_value(Record::of_tests()).expect("JSON");
        assert!(bare.get("key_id").is_none() && bare.get("identity").is_some(), "{bare}");
        let readme = include_str!("../../../README.md");
        let table = readme.split("| Field | What |").nth(1).and_then(|rest| rest.split("\n\n").next());
        let table = table.expect("README.md has the table");
        let named = table.lines().filter_map(|line| line.split('|').nth(1)).collect::<String>();
        let missing: Vec<_> = fields.keys().filter(|field| !named.contains(&format!("`{field}`"))).collect();
        assert!(missing.is_empty(), "README.md does not say what {missing:?} is");
    }

    #[test]
    fn every_record_is_one_line_of_json_whatever_it_holds() {
        let disk = Disk::default();
        let (log, writer) = AccessLog::start(disk.clone()).expect("a thread");
        for _ in 0..1_000 {
            log.write(Record::of_tests());
        }
        drop(log);
        assert!(writer.finish());
        let written = disk.written.lock().expect("a lock").clone();
        let lines: Vec<_> = written.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 1_000);
        for line in lines {
            let json: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            assert_eq!(json["path"], "/\r\n\"x");
        }
    }

    #[test]
    fn lines_that_a_full_disk_swallows_are_counted() {
        let (log, writer) = AccessLog::start(Disk { full: true, ..Disk::default() }).expect("a thread");
        let other = log.clone();
        for _ in 0..10 {
            log.write(Record::of_tests());
        }
        while other.dropped() < 10 {
            std::thread::yield_now();
        }
        drop((log, other));
        assert!(writer.finish());
    }
}
