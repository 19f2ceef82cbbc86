//! `portcullis demo`: the real gateway, an upstream and an identity provider on this machine, and commands to try.

mod authority;
mod commands;
mod files;
mod folder;
mod identity_provider;
mod upstream;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portcullis_gateway::Environment;
use tokio::runtime::{Builder, Runtime};

use self::commands::{commands, table};
use self::folder::{Folder, argument};
use crate::output;
use crate::report::{self, counted};
use crate::service::Service;

/// Where things listen if nobody else does.
const GATEWAY_PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9901;
const IDENTITY_PORT: u16 = 9902;
const UPSTREAM_PORT: u16 = 9903;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to put certificates, tokens, keys and policies; emptied at each start
    #[arg(long, value_name = "DIR", default_value = "demo")]
    directory: PathBuf,
}

/// Where everything listens.
struct Addresses {
    gateway: SocketAddr,
    admin: SocketAddr,
    identity: SocketAddr,
    upstream: SocketAddr,
}

/// Runs the demo until a signal ends it.
///
/// # Errors
/// The directory is not the demo's, or something could not be made or started.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let folder = Folder::fresh(arguments.directory)?;
    let identity = listener(IDENTITY_PORT)?;
    let upstream = listener(UPSTREAM_PORT)?;
    let addresses = Addresses {
        gateway: free(GATEWAY_PORT)?,
        admin: free(ADMIN_PORT)?,
        identity: identity.local_addr()?,
        upstream: upstream.local_addr()?,
    };
    let provider = Arc::new(files::write(&folder, &addresses)?);

    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the demo's own services")?;
    serve(&runtime, identity, identity_provider::router(provider))?;
    serve(&runtime, upstream, upstream::router())?;

    // The environment is left out: an override meant for another gateway must not bend the demo.
    let plan = report::plan(portcullis_gateway::load(&folder.path("policies"), &Environment::default()))?;
    let access_log = folder.create("access.log")?;
    let service = Service::start(&plan, Box::new(access_log))?;
    let facts = format!(
        "{}, {}, config {}",
        counted(plan.apis, "API"),
        counted(plan.rules, "rule"),
        service.config_hash()
    );
    let commands = commands(folder.directory(), addresses.gateway, addresses.identity);
    output::print(&welcome(&folder, &addresses, &facts, begun.elapsed(), &table(&commands)))?;
    service.serve_to_the_end()
}

/// A listener on the usual port, or on any if that is taken.
fn listener(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("cannot listen on 127.0.0.1")
}

/// The address of the usual port, or of any that is free. It stays free until the gateway takes it unless
/// somebody else is quicker, and then the gateway says so.
fn free(port: u16) -> anyhow::Result<SocketAddr> {
    Ok(listener(port)?.local_addr()?)
}

fn serve(runtime: &Runtime, listener: TcpListener, router: axum::Router) -> anyhow::Result<()> {
    let _in_runtime = runtime.enter();
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn welcome(folder: &Folder, addresses: &Addresses, facts: &str, took: Duration, table: &str) -> String {
    let Addresses { gateway, admin, identity, upstream } = addresses;
    let rows = [
        ("gateway", format!("https://{gateway}"), facts.to_owned()),
        ("admin", format!("http://{admin}"), "/livez  /readyz  /metrics".to_owned()),
        ("identity", format!("http://{identity}"), "a small identity provider: /jwks  /token".to_owned()),
        ("upstream", format!("http://{upstream}"), "answers with what it received".to_owned()),
        ("log", argument(folder.directory(), "access.log"), "one JSON line per request".to_owned()),
        (
            "files",
            argument(folder.directory(), ""),
            "certificates, tokens, keys and policies, made just now".to_owned(),
        ),
    ];
    let width = rows.iter().map(|(_, place, _)| place.len()).max().unwrap_or_default();
    let mut text =
        format!("portcullis {} demo, ready in {:.1} s\n\n", env!("CARGO_PKG_VERSION"), took.as_secs_f64());
    for (name, place, what) in rows {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {name:<9} {place:<width$}  {what}");
    }
    text.push_str("\nPaste any line; it ends in the status before it.\n");
    text.push_str(table);
    text.push_str("\nCtrl-C ends the demo.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::{Addresses, files};
    use crate::demo::folder::Folder;
    use crate::report::{Look, human};
    use portcullis_gateway::{Environment, load};
    use std::net::SocketAddr;

    #[test]
    fn the_policies_of_the_demo_have_no_fault() {
        let parent = tempfile::tempdir().expect("a directory");
        let folder = Folder::fresh(parent.path().join("demo")).expect("made");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses {
            gateway: address(8443),
            admin: address(9901),
            identity: address(9902),
            upstream: address(9903),
        };
        files::write(&folder, &addresses).expect("written");
        let loaded = load(&folder.path("policies"), &Environment::default());
        assert_eq!(human(&loaded.faults, &loaded.sources, Look::Plain), "");
        assert!(loaded.plan.is_some());
    }
}
