//! `portcullis audit`: looks whether the log of what was changed over the admin API is whole.

mod chain;
mod strangers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use portcullis_gateway::{Environment, effective_settings};
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
        /// The file; where it is not named, the one that `admin` of gateway.yaml names
        file: Option<PathBuf>,
        /// The policy directory whose gateway.yaml is looked into
        #[arg(long, value_name = "DIR", default_value = "policies", conflicts_with = "file")]
        policies: PathBuf,
        /// How to print what is found
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Exit code for a file that cannot be read: nobody has found out whether it is whole.
const UNREADABLE: u8 = 2;

/// Follows the chain, and says how long it is and which digest its last line has, or where it is broken (exit code 1), or why
/// it cannot be read (exit code 2).
///
/// # Errors
/// No file is named, neither here nor in gateway.yaml, or standard output cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Verb::Verify { file, policies, format } = &arguments.verb;
    let found = verify(&file.clone().map_or_else(|| named_in(policies), Ok)?);
    let text = match format {
        Format::Json => shown(&found).to_string() + "\n",
        Format::Human => match &found {
            Ok(Head { lines, digest }) => format!("{lines} lines, whole; the last one is {digest}\n"),
            Err(broken) => format!("{broken}\n"),
        },
    };
    output::print(&text)?;
    Ok(match found {
        Ok(_) => ExitCode::SUCCESS,
        Err(Broken::Line { .. }) => ExitCode::FAILURE,
        Err(Broken::Unreadable { .. } | Broken::Taken { .. }) => ExitCode::from(UNREADABLE),
    })
}

/// The file that the policies name.
fn named_in(policies: &Path) -> anyhow::Result<PathBuf> {
    let settings = effective_settings(policies, &Environment::of_process());
    let audit = settings.into_iter().find(|setting| setting.key == "admin.audit");
    let audit = audit.ok_or_else(|| anyhow!("`{}` names no audit log: name the file", policies.display()))?;
    Ok(policies.join(audit.value))
}

fn shown(found: &Result<Head, Broken>) -> serde_json::Value {
    match found {
        Ok(Head { lines, digest }) => json!({ "whole": true, "lines": lines, "digest": digest }),
        Err(broken) => {
            let line = match broken {
                Broken::Line { line, .. } => Some(line),
                Broken::Unreadable { .. } | Broken::Taken { .. } => None,
            };
            json!({ "whole": false, "line": line, "why": broken.to_string() })
        }
    }
}
