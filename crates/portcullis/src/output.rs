//! Standard output and standard error.

use std::io::{ErrorKind, Write as _, stdout};
use std::process::ExitCode;

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

/// Prints what a call has answered, for a machine or for people.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn answer(format: Format, answer: &serde_json::Value, text: &str) -> anyhow::Result<ExitCode> {
    match format {
        Format::Json => print(&format!("{answer}\n"))?,
        Format::Human => print(text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    rows.iter().fold(String::new(), |mut table, row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        table.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        table.push('\n');
        table
    })
}
