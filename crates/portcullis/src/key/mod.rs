//! `portcullis key`: API keys of clients, made and looked after.

mod declare;
mod managed;

use std::process::ExitCode;

use clap::Subcommand;

use crate::admin_client::OfGateway;
use declare::{Terms, client_name};

/// Arguments of `key`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an API key in the running gateway and print it once; with --declare, print the line for a policy file
    Create(Create),
    /// List the keys of a client that were made in the running gateway
    List(OfClient),
    /// Show one of them
    Show(OneKey),
    /// Make its successor, and let both count for a while
    Rotate(Rotate),
    /// Take it out of use, for good
    Revoke(OneKey),
}

#[derive(clap::Args)]
struct Create {
    /// The client the key is for
    #[arg(long, value_name = "NAME", value_parser = client_name)]
    client: String,
    /// Keep nothing: print the key and the line that declares it in a file of clients/
    #[arg(long)]
    declare: bool,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    gateway: OfGateway,
}

#[derive(clap::Args)]
struct OfClient {
    /// Whose keys
    #[arg(long, value_name = "NAME", value_parser = client_name)]
    client: String,
    #[command(flatten)]
    gateway: OfGateway,
}

#[derive(clap::Args)]
struct OneKey {
    /// The id of the key, as `key list` shows it
    id: String,
    #[command(flatten)]
    of: OfClient,
}

#[derive(clap::Args)]
struct Rotate {
    /// How long both count, such as 24h; 0s ends the old one at once
    #[arg(long, value_name = "TIME", default_value = "24h")]
    overlap: String,
    /// When the new one ends, where that is not when the old one would have
    #[arg(long, value_name = "WHEN", value_parser = declare::moment)]
    expires: Option<String>,
    #[command(flatten)]
    key: OneKey,
}

/// Does what was asked for.
///
/// # Errors
/// The policies do not say how the gateway is reached, there is none, or it says no.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.verb {
        Verb::Create(create) if create.declare => declare::declare(create),
        Verb::Create(create) => managed::create(create),
        Verb::List(of) => managed::list(of),
        Verb::Show(key) => managed::show(key),
        Verb::Rotate(rotate) => managed::rotate(rotate),
        Verb::Revoke(key) => managed::revoke(key),
    }
}
