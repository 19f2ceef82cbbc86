//! `portcullis run`: serves a policy directory.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_gateway::Environment;
use tracing_subscriber::EnvFilter;

use crate::service::Service;
use crate::{output, report};

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy directory
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
}

/// Serves until a signal ends it. Standard output has a line for each listener that is ready, then the access
/// log; the log of the program is on standard error.
///
/// # Errors
/// The policies have faults, or something the gateway needs cannot be had.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    log_as_json_lines();
    let loaded = portcullis_gateway::load(&arguments.policies, &Environment::of_process());
    let plan = report::plan(loaded)?;
    let service = Service::start(&plan, Box::new(std::io::stdout()))?;
    output::print(&ready(&service))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %service.config_hash(),
        apis = plan.apis,
        rules = plan.rules,
        "serving"
    );
    service.serve_to_the_end()
}

/// A line per listener, for people and for whoever started the program on port 0.
fn ready(service: &Service) -> String {
    let mut lines = String::new();
    for (name, address) in service.addresses() {
        // Writing to a `String` cannot fail.
        let _ = writeln!(lines, "ready listener={name} address={address}");
    }
    if let Some(address) = service.admin() {
        let _ = writeln!(lines, "ready admin address={address}");
    }
    if let Some(path) = service.socket() {
        let _ = writeln!(lines, "ready admin socket={}", path.display());
    }
    lines
}

/// `RUST_LOG` sets how much is logged; `info` where it does not say.
fn log_as_json_lines() {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
