//! The portcullis program: one file per verb.

mod admin;
mod completions;
mod demo;
mod output;
mod report;

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
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Completions(arguments) => completions::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        output::complain(&error);
        ExitCode::FAILURE
    })
}
