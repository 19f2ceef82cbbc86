//! `portcullis explain`: what the policies say of a request, and why the running gateway refused one.

mod denied;
mod paper;
mod request;
mod told;

use std::net::IpAddr;
use std::process::ExitCode;

use crate::admin_client::OfGateway;

/// Arguments of `explain`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    gateway: OfGateway,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// A request that is taken through the policies here and now, and sent to no upstream; servers the policies name are
    /// asked for keys and about tokens, as the gateway would
    #[arg(value_names = ["METHOD", "URL"], num_args = 2)]
    request: Option<Vec<String>>,
    /// The last request that the running gateway refused
    #[arg(long)]
    last_denied: bool,
    /// The refused request of this id, which the body of a refusal and the access log have
    #[arg(long, value_name = "ID", value_parser = denied::request_id)]
    request_id: Option<String>,
}

/// What the request brings.
#[derive(clap::Args)]
struct With {
    /// A field, such as 'x-api-key: …', or @FILE with a field on each line; repeat for several
    #[arg(short = 'H', long, value_name = "FIELD", conflicts_with_all = ["last_denied", "request_id"])]
    header: Vec<String>,
    /// A token for `Authorization: Bearer`, or @FILE; what is written here is seen by everybody on the machine
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["last_denied", "request_id"])]
    token: Option<String>,
    /// The client's certificate, a PEM file; its key is not needed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["last_denied", "request_id"])]
    cert: Option<String>,
    /// The body, or @FILE
    #[arg(short = 'd', long, value_name = "DATA", conflicts_with_all = ["last_denied", "request_id"])]
    data: Option<String>,
    /// The address the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    /// The listener it comes to, where that is not the first that speaks what the URL says
    #[arg(long, value_name = "NAME", conflicts_with_all = ["last_denied", "request_id"])]
    listener: Option<String>,
}

/// Explains what was asked for.
///
/// # Errors
/// The policies have faults, something that was named cannot be read; or the policies do not say how the gateway is
/// reached, there is none, or it does not remember the request.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments.which.request.as_deref() {
        Some([method, url]) => request::explain(method, url, &arguments.with, &arguments.gateway),
        _ => denied::explain(arguments.which.request_id.as_deref(), &arguments.gateway),
    }
}
