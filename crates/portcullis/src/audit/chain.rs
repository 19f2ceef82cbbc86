//! A file of changes in which each line holds the digest of the line before: whoever alters, removes or adds a line in the
//! midst of it breaks the chain.
//!
//! A line is one JSON object. `previous` is the SHA-256 of the bytes of the line before it, without its end, in hexadecimal;
//! of the first line it is 64 zeros. What was cut off at the end of the file leaves no trace in it: the count and the digest
//! of the last line, kept elsewhere, show that.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use portcullis_jose::digest::sha256;
use serde::{Deserialize, Serialize};

use super::strangers::Strangers;

/// `previous` of the first line.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    seq: u64,
    ts: String,
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'a str>,
    outcome: &'a str,
    previous: &'a str,
}

/// What is read of a line to check it.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    previous: String,
}

/// What came of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is about to be tried.
    Asked,
    /// It was made.
    Made,
    /// It is in force, and could not be kept.
    InForceNotKept,
    /// It was refused, or failed.
    Refused,
    /// Nothing was to be done.
    Unchanged,
    /// It was being made when something broke, and may be in force or not.
    Unknown,
    /// A line was cut off when the gateway ended before, and taken away.
    Torn,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Made => "made",
            Self::InForceNotKept => "in_force_not_kept",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
            Self::Unknown => "unknown",
            Self::Torn => "torn",
        }
    }
}

/// The end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// How many lines there are.
    pub(crate) lines: u64,
    /// The digest of the last one.
    pub(crate) digest: String,
}

/// Why a file is no whole chain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is written by another process", path.display())]
    Taken { path: PathBuf },
    #[error("{}:{line}: {why}", path.display())]
    Line { path: PathBuf, line: u64, why: &'static str },
}

/// The file that changes are written to.
#[derive(Debug)]
pub(crate) struct Audit {
    end: Mutex<End>,
    strangers: Mutex<Strangers>,
}

#[derive(Debug)]
struct End {
    file: File,
    head: Head,
    /// Where the last whole line ends.
    length: u64,
    /// Whether the file may be longer than that.
    torn: bool,
}

/// What a file holds: its chain, where that ends, and how many bytes of a line that is not whole follow.
struct Read {
    head: Head,
    length: u64,
    rest: u64,
}

fn read(path: &Path, file: &File) -> Result<Read, Broken> {
    let unreadable = |source| Broken::Unreadable { path: path.to_owned(), source };
    let mut head = Head { lines: 0, digest: BEGINNING.to_owned() };
    let (mut length, mut bytes) = (0, Vec::new());
    let mut reader = BufReader::new(file);
    loop {
        bytes.clear();
        let count = reader.read_until(b'\n', &mut bytes).map_err(unreadable)?;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let Some(text) = bytes.strip_suffix(b"\n") else { return Ok(Read { head, length, rest: count }) };
        let line = head.lines + 1;
        let broken = |why| Broken::Line { path: path.to_owned(), line, why };
        let link: Link =
            serde_json::from_slice(text).map_err(|_| broken("this is no line of an audit log"))?;
        if link.previous != head.digest {
            return Err(broken("the line before this one is not the one that was written"));
        }
        if link.seq != line {
            return Err(broken("this is not the line of that number"));
        }
        head = Head { lines: line, digest: hexadecimal(&sha256(text)) };
        length += count;
    }
}

/// Reads a chain to its end.
///
/// # Errors
/// It cannot be read, or is broken; a line that was cut off is broken, too.
pub(crate) fn verify(path: &Path) -> Result<Head, Broken> {
    let file = File::open(path).map_err(|source| Broken::Unreadable { path: path.to_owned(), source })?;
    let Read { head, rest, .. } = read(path, &file)?;
    if rest > 0 {
        return Err(Broken::Line {
            path: path.to_owned(),
            line: head.lines + 1,
            why: "this line is cut off",
        });
    }
    Ok(head)
}

impl Audit {
    /// Opens a file, or makes it, readable by its owner alone. A line that was cut off by a crash is taken away, which is
    /// written down.
    ///
    /// # Errors
    /// It cannot be opened, another process writes it, or its chain is broken: nothing is added to a chain that somebody has
    /// changed.
    pub(crate) fn open(path: &Path) -> Result<Self, Broken> {
        let unreadable = |source| Broken::Unreadable { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            // Whether this worked is seen when the file is opened, which says it better.
            let _ = std::fs::create_dir_all(folder);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(unreadable)?;
        // Two who write one chain break it for each other. The lock ends with the process, however that ends.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Broken::Taken { path: path.to_owned() },
            TryLockError::Error(source) => unreadable(source),
        })?;
        // The name of a file that was just made must outlive a crash as its lines do.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(unreadable)?;
        }
        let Read { head, length, rest } = read(path, &file)?;
        let end = Mutex::new(End { file, head, length, torn: rest > 0 });
        let audit = Self { end, strangers: Mutex::default() };
        if rest > 0 {
            tracing::warn!(path = %path.display(), bytes = rest, "the last line of the audit log was cut off, and is taken away");
            let what = format!("{rest} bytes");
            audit.record(("audit log opened", None), Some(&what), Outcome::Torn).map_err(unreadable)?;
        }
        Ok(audit)
    }

    /// Writes down that somebody who has shown no token was refused, unless too many lines say so already.
    ///
    /// # Errors
    /// See [`Self::record`].
    pub(crate) fn record_stranger(&self, of: (&str, Option<&str>), why: &str) -> io::Result<()> {
        let left_out = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        let what = match left_out {
            None => return Ok(()),
            Some(0) => why.to_owned(),
            Some(count) => format!("{why}; {count} more of this kind were not written down"),
        };
        self.record(of, Some(&what), Outcome::Refused)
    }

    /// Writes one line, and waits until it is on the disk. SECURITY: no argument holds a secret.
    ///
    /// # Errors
    /// It is not on the disk; then it is not in the file either, or will be taken away before the next one.
    pub(crate) fn record(
        &self,
        (action, of): (&str, Option<&str>),
        what: Option<&str>,
        outcome: Outcome,
    ) -> io::Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let end = &mut *end;
        let seq = end.head.lines + 1;
        let ts = format!("{:.3}", Timestamp::now());
        let outcome = outcome.as_str();
        let line = Line { seq, ts, action, of, what, outcome, previous: &end.head.digest };
        let text = serde_json::to_string(&line).map_err(io::Error::other)?;
        if end.torn {
            end.file.set_len(end.length)?;
        }
        end.torn = true;
        end.file.seek(SeekFrom::Start(end.length))?;
        end.file.write_all(format!("{text}\n").as_bytes())?;
        end.file.sync_data()?;
        end.torn = false;
        end.length += u64::try_from(text.len() + 1).unwrap_or(u64::MAX);
        end.head = Head { lines: seq, digest: hexadecimal(&sha256(text.as_bytes())) };
        Ok(())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Audit, Broken, Outcome, verify};

    fn three(path: &std::path::Path) {
        let audit = Audit::open(path).expect("a log");
        for number in 0..3 {
            let of = format!("client-{number}");
            audit.record(("API key made", Some(&of)), None, Outcome::Made).expect("a line");
        }
    }

    fn broken_at(path: &std::path::Path) -> Option<u64> {
        match verify(path) {
            Ok(_) => None,
            Err(Broken::Line { line, .. }) => Some(line),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_chain_goes_on_and_every_change_of_it_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("logs/audit.jsonl");
        three(&path);
        three(&path);
        assert_eq!(verify(&path).expect("a chain").lines, 6);
        let whole = std::fs::read_to_string(&path).expect("text");
        let lines: Vec<&str> = whole.lines().collect();
        for (what, changed, line) in [
            ("a word", whole.replacen("client-1", "client-9", 1), Some(3)),
            ("a line gone", whole.replacen(&format!("{}\n", lines[2]), "", 1), Some(3)),
            ("the first line gone", whole.replacen(&format!("{}\n", lines[0]), "", 1), Some(1)),
            ("a line twice", whole.replacen(lines[1], &format!("{}\n{}", lines[1], lines[1]), 1), Some(3)),
            ("two lines exchanged", [lines[1], lines[0], lines[2], ""].join("\n"), Some(1)),
            ("something else", format!("{whole}hello\n"), Some(7)),
            ("cut off", whole[..whole.len() - 9].to_owned(), Some(6)),
            ("a blank", whole.replacen(":1,", ": 1,", 1), Some(2)),
            ("nothing", whole.clone(), None),
        ] {
            std::fs::write(&path, changed).expect("written");
            assert_eq!(broken_at(&path), line, "{what}");
            let opens = Audit::open(&path).is_ok();
            assert_eq!(opens, line.is_none() || what == "cut off", "{what}");
        }
    }

    #[test]
    fn one_process_at_a_time_writes_a_chain() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let first = Audit::open(&path).expect("a log");
        assert!(matches!(Audit::open(&path), Err(Broken::Taken { .. })));
        assert_eq!(verify(&path).expect("whoever reads it waits for nobody").lines, 0);
        drop(first);
        Audit::open(&path).expect("nobody writes it any more");
    }

    #[test]
    fn what_a_crash_has_cut_off_is_taken_away_and_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        three(&path);
        let whole = std::fs::read(&path).expect("bytes");
        std::fs::write(&path, [&whole[..], b"{\"seq\":4,\"ts\""].concat()).expect("written");
        three(&path);
        assert_eq!(verify(&path).expect("a chain").lines, 3 + 1 + 3);
        assert!(
            std::fs::read_to_string(&path).expect("text").contains(r#""what":"13 bytes","outcome":"torn""#)
        );
    }
}
