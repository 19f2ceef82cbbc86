//! `portcullis audit`: looks whether the log of what was changed over the admin API is whole.

mod chain;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

pub(crate) use chain::{Audit, Broken, Outcome};
use chain::{Head, verify};

use crate::output::{self, Format};

/// Arguments of `audit`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Follow the chain of an audit log to its end
    Verify {
        /// The file, as `admin: { audit: … }` of gateway.yaml names it
        file: PathBuf,
        /// How to print what is found
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Follows the chain, and says how long it is and which digest its last line has, or where it is broken (exit code 1).
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Verb::Verify { file, format } = &arguments.verb;
    let found = verify(file);
    let text = match format {
        Format::Json => shown(&found).to_string() + "\n",
        Format::Human => match &found {
            Ok(Head { lines, digest }) => format!("{lines} lines, whole; the last one is {digest}\n"),
            Err(broken) => format!("{broken}\n"),
        },
    };
    output::print(&text)?;
    Ok(if found.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(found: &Result<Head, Broken>) -> serde_json::Value {
    match found {
        Ok(Head { lines, digest }) => json!({ "whole": true, "lines": lines, "digest": digest }),
        Err(broken) => {
            let line = match broken {
                Broken::Line { line, .. } => Some(line),
                Broken::Unreadable { .. } => None,
            };
            json!({ "whole": false, "line": line, "why": broken.to_string() })
        }
    }
}
