//! The running gateway with its admin listener, and the signals that end it.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use portcullis_core::Clock;
use portcullis_gateway::{Check, Gateway, Options, Plan, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, Observed, Text};
use crate::audit::Audit;
use crate::output;
use crate::report::{self, Look};

/// How long the end waits for an answer of the admin listener that is still being made, which may wait for the store.
const ADMIN_PATIENCE: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub(crate) struct Service {
    gateway: Arc<Gateway>,
    admin: Option<SocketAddr>,
    signals: Signals,
}

impl Service {
    /// Binds everything and starts to serve. The admin listener is bound first: a port that is taken must not
    /// be found out after the first request was served.
    ///
    /// # Errors
    /// A port, the store, or a thread cannot be had.
    pub(crate) fn start(plan: &Plan, access_log: Box<dyn Write + Send>) -> anyhow::Result<Self> {
        let admin = plan.settings.admin.map(bind).transpose()?;
        let audit =
            plan.audit.as_deref().map(Audit::open).transpose().context("the audit log")?.map(Arc::new);
        let gateway =
            Gateway::start(plan, Options { clock: Clock::System, access_log }).map_err(explained)?;
        let gateway = Arc::new(gateway);
        let in_runtime = gateway.handle().enter();
        let signals = Signals::new().context("cannot listen for signals")?;
        let admin = admin.map(|listener| serve(listener, &gateway, audit)).transpose()?;
        drop(in_runtime);
        Ok(Self { gateway, admin, signals })
    }

    /// Each listener's name and address.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.gateway.addresses()
    }

    /// Where the admin listener is.
    pub(crate) const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The hash of the configuration in force.
    pub(crate) fn config_hash(&self) -> &str {
        self.gateway.config_hash()
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once.
    ///
    /// # Errors
    /// The store could not write its last counters.
    pub(crate) fn serve_to_the_end(mut self) -> anyhow::Result<ExitCode> {
        let handle = self.gateway.handle().clone();
        let drained = handle.block_on(async {
            self.signals.next().await;
            tracing::info!("draining");
            tokio::select! {
                answered = self.gateway.drain() => Some(answered),
                () = self.signals.next() => None,
            }
        });
        // A second signal ends the process wherever it is from here on: the store has promised nothing that is not on
        // the disk already.
        let mut signals = self.signals;
        handle.spawn(async move {
            signals.next().await;
            std::process::exit(1);
        });
        match drained {
            Some(true) => tracing::info!("drained"),
            Some(false) => tracing::warn!("the grace time is over, and some requests were not answered"),
            None => {
                tracing::warn!("ended at once by a second signal");
                std::process::exit(1);
            }
        }
        let gateway = sole(self.gateway).context("the admin listener did not come to an end")?;
        gateway.finish().context("the store could not write its last counters")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!("admin: {address} is in use by another process"),
        _ => anyhow!("admin: cannot listen on {address}: {error}"),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the admin API on the background runtime.
fn serve(
    listener: TcpListener,
    gateway: &Arc<Gateway>,
    audit: Option<Arc<Audit>>,
) -> anyhow::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let state = admin::Admin { gateway: Arc::downgrade(gateway), audit };
    let router = admin::router(Arc::new(Watched(Arc::downgrade(gateway))), state);
    gateway.handle().spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// One line for why it does not start; faults of policy files are shown as `check` shows them.
fn explained(error: StartError) -> anyhow::Error {
    if let StartError::Policies { sources, faults } = &error {
        output::say(&report::human(faults, &**sources, Look::of(&std::io::stderr())));
    }
    anyhow!("{error}")
}

/// Takes the gateway back from the admin API, whose answers hold on to it while they are made.
fn sole(mut gateway: Arc<Gateway>) -> Option<Gateway> {
    let begun = Instant::now();
    loop {
        match Arc::try_unwrap(gateway) {
            Ok(gateway) => return Some(gateway),
            Err(_) if begun.elapsed() > ADMIN_PATIENCE => return None,
            Err(shared) => gateway = shared,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the admin API sees. Weak, because its connections outlive the wish to end.
struct Watched(Weak<Gateway>);

impl Observed for Watched {
    fn checks(&self) -> Vec<Check> {
        let gone = || Check { name: "process".to_owned(), ready: false, detail: Some("ended".to_owned()) };
        self.0.upgrade().map_or_else(|| vec![gone()], |gateway| gateway.readiness())
    }

    fn metrics(&self) -> Text {
        let gateway = self.0.upgrade();
        Box::pin(async move {
            match gateway {
                Some(gateway) => gateway.metrics().await,
                None => String::new(),
            }
        })
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
