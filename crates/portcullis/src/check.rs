//! `portcullis check`: every fault of every policy file, in one run.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use portcullis_gateway::{Environment, FileSummary, Loaded};
use serde::Serialize;

use crate::output::{self, Format};
use crate::report::{self, Finding, Look, Tally, counted};

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy directory
    #[arg(value_name = "DIR", default_value = "policies")]
    directory: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Checks and prints; no socket is opened and no server asked.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let loaded = portcullis_gateway::load(&arguments.directory, &Environment::of_process());
    let tally = Tally::of(&loaded.faults);
    output::print(&match arguments.format {
        Format::Human => human(&loaded, tally, begun.elapsed(), Look::of(&std::io::stdout())),
        Format::Json => serde_json::to_string_pretty(&Checked::of(&loaded, tally))? + "\n",
    })?;
    Ok(if tally.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn human(loaded: &Loaded, tally: Tally, took: Duration, look: Look) -> String {
    let mut text = files(&loaded.summary);
    if !loaded.faults.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&report::human(&loaded.faults, &loaded.sources, look));
        text.push('\n');
    }
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "{}, {}, config {}, {} ms",
        counted(loaded.summary.len(), "file"),
        tally.words(),
        loaded.hash,
        took.as_millis()
    );
    text
}

/// A line per file: its name, how it is, and what it says, in columns.
fn files(summary: &[FileSummary]) -> String {
    let names = summary.iter().map(|file| file.name.len()).max().unwrap_or_default();
    let states: Vec<String> = summary.iter().map(|file| state(file.errors, file.warnings)).collect();
    let width = states.iter().map(String::len).max().unwrap_or_default();
    summary.iter().zip(&states).fold(String::new(), |mut text, (file, state)| {
        let line = format!("{:<names$}   {state:<width$}   {}", file.name, file.text);
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

/// `ok`, `1 warning`, `2 errors`, `2 errors, 1 warning`.
fn state(errors: usize, warnings: usize) -> String {
    match (errors, warnings) {
        (0, 0) => "ok".to_owned(),
        (0, warnings) => counted(warnings, "warning"),
        (errors, 0) => counted(errors, "error"),
        (errors, warnings) => Tally { errors, warnings }.words(),
    }
}

/// The answer for machines. Its members are a public contract.
#[derive(Serialize)]
struct Checked<'a> {
    errors: usize,
    warnings: usize,
    config: &'a str,
    files: Vec<CheckedFile<'a>>,
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct CheckedFile<'a> {
    file: &'a str,
    errors: usize,
    warnings: usize,
    summary: &'a str,
}

impl<'a> Checked<'a> {
    fn of(loaded: &'a Loaded, tally: Tally) -> Self {
        let files = loaded.summary.iter().map(|file| CheckedFile {
            file: &file.name,
            errors: file.errors,
            warnings: file.warnings,
            summary: &file.text,
        });
        Self {
            errors: tally.errors,
            warnings: tally.warnings,
            config: &loaded.hash,
            files: files.collect(),
            findings: report::findings(&loaded.faults, &loaded.sources),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::files;
    use portcullis_gateway::FileSummary;

    #[test]
    fn each_file_has_a_line_in_columns() {
        let file = |name: &str, text: &str, errors, warnings| FileSummary {
            name: name.into(),
            text: text.into(),
            errors,
            warnings,
        };
        let text = files(&[
            file("gateway.yaml", "", 0, 0),
            file("apis/open-banking.yaml", "2 rules, 2 limits", 0, 0),
            file("apis/partners.yaml", "1 rule", 0, 1),
            file("clients/a.yaml", "", 2, 1),
        ]);
        assert_eq!(
            text,
            "\
gateway.yaml             ok
apis/open-banking.yaml   ok                    2 rules, 2 limits
apis/partners.yaml       1 warning             1 rule
clients/a.yaml           2 errors, 1 warning
"
        );
    }
}
