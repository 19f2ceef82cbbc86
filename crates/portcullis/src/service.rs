//! The running gateway with its admin listener, and the signals that end it.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use portcullis_core::Clock;
use portcullis_gateway::{Check, EventKind, Gateway, Options, Plan, Reloaded, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::admin::{self, Observed, Text};
use crate::audit::Audit;
use crate::output;
use crate::reload;
use crate::report::{self, Look};

/// How long the end waits for an answer of the admin listener that is still being made, which may wait for the store.
const ADMIN_PATIENCE: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub(crate) struct Service {
    gateway: Arc<Gateway>,
    admin: Option<SocketAddr>,
    /// Gone when it ends.
    socket: Option<SocketFile>,
    signals: Signals,
    /// Told by whoever ends it over the admin API.
    ending: Arc<Notify>,
}

impl Service {
    /// Binds everything and starts to serve. The admin listener is bound first: a port that is taken must not
    /// be found out after the first request was served.
    ///
    /// # Errors
    /// A port, the store, or a thread cannot be had.
    pub(crate) fn start(plan: &Plan, access_log: Box<dyn Write + Send>) -> anyhow::Result<Self> {
        let admin = plan.settings.admin.map(bind).transpose()?;
        let socket = plan.admin_socket.as_deref().map(SocketFile::bind).transpose()?;
        let audit =
            plan.audit.as_deref().map(Audit::open).transpose().context("the audit log")?.map(Arc::new);
        let gateway =
            Gateway::start(plan, Options { clock: Clock::System, access_log }).map_err(explained)?;
        let gateway = Arc::new(gateway);
        let in_runtime = gateway.handle().enter();
        let signals = Signals::new().context("cannot listen for signals")?;
        let ending = Arc::new(Notify::new());
        let state = admin::Admin { gateway: Arc::downgrade(&gateway), audit, ending: Arc::clone(&ending) };
        let admin = admin.map(|listener| serve(listener, &gateway, state.clone())).transpose()?;
        let socket = socket.map(|socket| socket.serve(&gateway, state)).transpose()?;
        drop(in_runtime);
        gateway.handle().spawn(reload::follow(Arc::downgrade(&gateway), gateway.told_elsewhere()));
        reload::watch(Arc::downgrade(&gateway), plan.settings.reload).context("cannot watch files")?;
        Ok(Self { gateway, admin, socket, signals, ending })
    }

    /// Each listener's name and address.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.gateway.addresses()
    }

    /// Where the admin listener is.
    pub(crate) const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where its socket in the file system is.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(|socket| &*socket.path)
    }

    /// The hash of the configuration in force.
    pub(crate) fn config_hash(&self) -> Arc<str> {
        self.gateway.config_hash()
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once.
    ///
    /// # Errors
    /// The store could not write its last counters.
    pub(crate) fn serve_to_the_end(mut self) -> anyhow::Result<ExitCode> {
        let handle = self.gateway.handle().clone();
        let drained = handle.block_on(async {
            loop {
                let told = tokio::select! {
                    told = self.signals.any() => told,
                    () = self.ending.notified() => Told::End,
                };
                match told {
                    Told::End => break,
                    Told::Reload => self.reload().await,
                }
            }
            tracing::info!("draining");
            tokio::select! {
                answered = self.gateway.drain() => Some(answered),
                () = self.signals.end() => None,
            }
        });
        // A second signal ends the process wherever it is from here on: the store has promised nothing that is not on
        // the disk already.
        let mut signals = self.signals;
        handle.spawn(async move {
            signals.end().await;
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

impl Service {
    /// Reads the policies again; what came of it is in the log.
    async fn reload(&self) {
        let gateway = Arc::clone(&self.gateway);
        let reloading = tokio::task::spawn_blocking(move || {
            if let Ok(Reloaded { hash, is_other: true, .. }) = reload::reload(&gateway, "SIGHUP") {
                gateway.tell_change(EventKind::ConfigChanged, "policies reloaded", "policies", &hash);
            }
        });
        drop(reloading.await);
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

/// The socket of the file system at which the admin API listens. SECURITY: its owner alone may connect.
struct SocketFile {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl SocketFile {
    /// Listens there. One that a gateway has left behind is taken away; one at which somebody answers is not.
    fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                anyhow::bail!("admin: {shown} is there, and is no socket");
            }
            if UnixStream::connect(path).is_ok() {
                anyhow::bail!("admin: {shown} is in use by another process");
            }
            std::fs::remove_file(path).with_context(|| format!("admin: {shown} cannot be taken away"))?;
        }
        if let Some(folder) = path.parent() {
            // Whether this worked is seen when it is bound, which says it better.
            let _ = std::fs::create_dir_all(folder);
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("admin: cannot listen at {shown}"))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("admin: {shown} cannot be shut to others"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener) })
    }

    fn serve(mut self, gateway: &Arc<Gateway>, state: admin::Admin) -> anyhow::Result<Self> {
        if let Some(listener) = self.listener.take() {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let router = admin::router(Arc::new(Watched(Arc::downgrade(gateway))), state);
            gateway.handle().spawn(async move { axum::serve(listener, router).await });
        }
        Ok(self)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What is left behind is taken away by the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the admin API on the background runtime.
fn serve(listener: TcpListener, gateway: &Arc<Gateway>, state: admin::Admin) -> anyhow::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let observed = Arc::new(Watched(Arc::downgrade(gateway)));
    if gateway.admin_door().is_some() {
        let router = admin::router_over_tls(observed, state);
        gateway.handle().spawn(admin::door::serve(listener, Arc::downgrade(gateway), router));
    } else {
        let router = admin::router(observed, state);
        gateway.handle().spawn(async move { axum::serve(listener, router).await });
    }
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

/// What a signal wants.
enum Told {
    End,
    Reload,
}

/// SIGTERM and SIGINT, and SIGHUP.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Waits until one says that it is to end.
    async fn end(&mut self) {
        while matches!(self.any().await, Told::Reload) {}
    }
}
