//! `portcullis test`: runs the tests of a policy directory through the stack that serves.

mod cast;
mod dress;
mod expect;
mod facts;
mod mint;
mod outside;
mod play;
mod stage;
mod suite;
mod tell;
pub(crate) mod tree;
mod with;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use portcullis_core::{Clock, Diagnostic, Faults, Severity};
use portcullis_gateway::Environment;
use portcullis_gateway::rehearsal::Written;
use serde_json::json;

use self::facts::Facts;
use self::play::Theatre;
use self::suite::Suite;
use self::tell::{Coverage, Run};
use crate::output::{self, Format};
use crate::report::{self, Look, Tally};

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy directory; its tests are in tests/*.test.yaml
    #[arg(value_name = "DIR", default_value = "policies")]
    directory: PathBuf,
    /// Run only the cases whose names have this in them
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Fail unless so many per cent of all rules have let a request through
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: Option<u8>,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the tests and prints how they went; no socket is opened and no server asked.
///
/// # Errors
/// The report cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut faults = Faults::default();
    let written = Written::read(&arguments.directory, &Environment::of_process(), &mut faults);
    let facts = Facts::of(&written);
    let suites: Vec<_> = written.tests().filter_map(|root| Suite::read(root, &facts, &mut faults)).collect();
    if suites.is_empty() && !faults.any_error() {
        let message = format!("there are no tests in {}/tests", arguments.directory.display());
        faults.push(
            Diagnostic::nowhere("no_tests", message).note("files of tests are called tests/*.test.yaml"),
        );
    }
    if faults.any_error() {
        return faulty(&written, faults.into_sorted(), arguments.format);
    }
    let now = Clock::System.now().unix_seconds();
    let theatre = Theatre { written: &written, facts: &facts, cast: Arc::default(), now };
    let mut played = Vec::new();
    for suite in &suites {
        match theatre.play(suite, arguments.only.as_deref()) {
            Ok(cases) => played.extend(cases),
            Err(faults) => return faulty(&written, faults, arguments.format),
        }
    }
    let coverage = Coverage::of(&facts, &played);
    let run = Run { sources: written.sources(), played, coverage };
    if let Some(path) = &arguments.junit {
        std::fs::write(path, run.junit()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    output::print(&match arguments.format {
        Format::Human => run.human(Look::of(&std::io::stdout())),
        Format::Json => format!("{:#}\n", run.machine()),
    })?;
    Ok(verdict(&run, arguments))
}

/// Whether all is well. A filter that fits no case has run nothing, which proves nothing.
fn verdict(run: &Run<'_>, arguments: &Arguments) -> ExitCode {
    let short = arguments.min_coverage.filter(|least| run.coverage.percent() < usize::from(*least));
    if let Some(least) = short {
        output::say(&format!(
            "error: {}% of the rules are exercised, {least}% are asked for\n",
            run.coverage.percent()
        ));
    }
    if run.played.is_empty() {
        output::say("error: no case has been run\n");
    }
    let well = run.failed() == 0 && short.is_none() && !run.played.is_empty();
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows what is wrong with the files. Nothing was run.
fn faulty(written: &Written, mut faults: Vec<Diagnostic>, format: Format) -> anyhow::Result<ExitCode> {
    faults.retain(|fault| fault.severity == Severity::Error);
    let sources = written.sources();
    output::print(&match format {
        Format::Human => {
            let text = report::human(&faults, sources, Look::of(&std::io::stdout()));
            format!("{text}\n{}, nothing was run\n", report::counted(Tally::of(&faults).errors, "error"))
        }
        Format::Json => format!("{:#}\n", json!({ "findings": report::findings(&faults, sources) })),
    })?;
    Ok(ExitCode::FAILURE)
}
