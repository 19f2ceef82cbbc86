//! The portcullis program: one file per verb.

mod admin;
mod admin_client;
mod audit;
mod check;
mod client;
mod completions;
mod config;
mod demo;
mod explain;
mod hash;
mod key;
mod output;
#[cfg(test)]
mod readme;
mod reload;
mod report;
mod run;
mod service;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// Small allocations of many threads are most of what a gateway asks of its allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// An API gateway that enforces who may call, what they may do, and how often.
#[derive(Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve a policy directory
    Run(run::Arguments),
    /// Show all of it on this machine: gateway, upstream, identity provider, and commands to paste
    Demo(demo::Arguments),
    /// Name every fault of every policy file
    Check(check::Arguments),
    /// Run the tests of a policy directory through the stack that serves
    Test(test::Arguments),
    /// Print each effective setting of gateway.yaml and where it comes from
    Config(config::Arguments),
    /// Say why the running gateway refused a request
    Explain(explain::Arguments),
    /// Register callers in the running gateway, and look after them
    Client(client::Arguments),
    /// Make API keys for clients, and look after them
    Key(key::Arguments),
    /// Look whether the log of what was changed over the admin API is whole
    Audit(audit::Arguments),
    /// Make the stored form of a password, read from standard input or the terminal
    Hash(hash::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Demo(arguments) => demo::run(arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Config(arguments) => config::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Client(arguments) => client::run(&arguments),
        Verb::Key(arguments) => key::run(&arguments),
        Verb::Audit(arguments) => audit::run(&arguments),
        Verb::Hash(arguments) => hash::run(&arguments),
        Verb::Completions(arguments) => completions::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        output::complain(&error);
        ExitCode::FAILURE
    })
}
