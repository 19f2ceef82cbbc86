//! Standard output and standard error.

use std::io::{ErrorKind, Write as _, stdout};

use anyhow::Context as _;
use clap::ValueEnum;

/// For whom something is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// For machines: one JSON document.
    Json,
}

/// Writes the text and flushes. A reader that has gone away (`portcullis check | head`) is not an error.
///
/// # Errors
/// Standard output cannot be written for another cause.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Says on standard error why the program ends, in one line: what failed, and each cause behind a colon.
pub(crate) fn complain(error: &anyhow::Error) {
    say(&format!("error: {error:#}\n"));
}

/// Writes to standard error. Where that is gone there is nobody left to tell; the exit code still says it.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
