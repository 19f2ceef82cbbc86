//! A gateway from its start to its end: resources, sockets, workers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::Label;
use portcullis_authn::RevokedEntry;
use portcullis_core::{Clock, Diagnostic, Faults, Secret};
use portcullis_store::{OpenError, Replays, Store};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

use crate::access_log::{AccessLog, AccessLogWriter};
use crate::config::{self, AdminSpec, Compiled, Environment, Plan, Resources, SourceMap};
use crate::denials::{Denial, DenialFilter};
use crate::events::{EventKind, Events};
use crate::listener::admin_door::AdminDoor;
use crate::listener::{BindError, Bound, Listener, ListenerSettings};
use crate::managed::{Managed, ManagedApiKeys, ManagedClients, RestoreError, RevokeError};
use crate::readiness::{self, Check};
use crate::reload::InForce;
use crate::telemetry::Telemetry;
use crate::thread::{Crew, Equipment};

/// Threads of the background runtime: fetching keys, the admin API. Nothing there is on a request's path.
const BACKGROUND_THREADS: usize = 2;

/// How long an ending gateway may take to return leased units.
const RETURNING: Duration = Duration::from_secs(2);

/// How often counters are tidied up.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What a start needs beyond the plan.
pub struct Options {
    /// Time.
    pub clock: Clock,
    /// Where access lines go, if the settings want them.
    pub access_log: Box<dyn Write + Send>,
}

/// Why a gateway does not start. Each is one clear line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy files changed after they were checked, and are no longer good.
    #[error("the policy files are no longer good")]
    Policies {
        /// The files.
        sources: Box<SourceMap>,
        /// What is wrong with them.
        faults: Vec<Diagnostic>,
    },
    /// The store cannot be opened.
    #[error("store {}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system gives no thread or no event loop.
    #[error("cannot start a worker: {0}")]
    Thread(#[from] io::Error),
    /// What operators told before cannot be put in force again.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The system gives no randomness.
    #[error(transparent)]
    Randomness(#[from] portcullis_authn::NoRandomness),
}

/// A running gateway.
pub struct Gateway {
    background: Runtime,
    pub(crate) crew: Crew,
    listeners: Vec<Arc<Listener>>,
    pub(crate) resources: Resources,
    pub(crate) telemetry: Telemetry,
    access_log: Option<(AccessLog, AccessLogWriter)>,
    pub(crate) events: Events,
    draining: AtomicBool,
    pub(crate) managed: Managed,
    /// Where the policies are read.
    pub(crate) place: (PathBuf, Environment),
    pub(crate) in_force: ArcSwap<InForce>,
    /// Whether what operators tell outlives a restart.
    pub(crate) is_durable: bool,
    /// Held while the policies are read again.
    pub(crate) reloading: Mutex<()>,
    /// Looks after what ends or changes of the configuration in force.
    pub(crate) watching: Mutex<JoinHandle<()>>,
}

impl Gateway {
    /// Opens the store, compiles the policies against it, binds every listener and starts the workers. When it
    /// returns, requests are being served.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(plan: &Plan, options: Options) -> Result<Self, StartError> {
        let background = background()?;
        let Begun { sources, resources, registered, compiled } = begin(plan, &options.clock, &background)?;
        let Compiled { snapshot, api_keys, durable, webhooks, particulars } = compiled;
        let now = options.clock.now();
        let managed =
            Managed::restore(&resources.store, durable, registered, &snapshot.revoked, api_keys, now)?;
        if let Some(following) = managed.follow() {
            background.spawn(following);
        }
        let telemetry = Telemetry::new();
        await_first_second(&resources, &options.clock);
        let workers = workers(plan);
        let (listeners, sockets) = bind(&snapshot.doors.0, workers)?;
        let access_log =
            if plan.settings.access_log { Some(AccessLog::start(options.access_log)?) } else { None };
        let snapshot = Arc::new(snapshot);
        let (events, deliveries) = Events::begin(&telemetry, &options.clock);
        background.spawn(deliveries);
        events.tell_to(webhooks);
        resources.quota_alerts.tell_also(events.clone());
        let equipment = Equipment {
            snapshot: Arc::clone(&snapshot),
            access_log: access_log.as_ref().map(|(log, _)| log.clone()),
            events: events.clone(),
            telemetry: telemetry.clone(),
            clock: options.clock,
        };
        let crew = Crew::start(sockets, &equipment)?;
        resources.keys.warm();
        let kept = (resources.store.clone(), resources.replays.clone(), managed.clone());
        background.spawn(housekeeping(kept, equipment.clock));
        let in_force = InForce::new(Arc::clone(&snapshot), particulars, &sources);
        let nobody = background.spawn(async {});
        let gateway = Self {
            background,
            crew,
            listeners,
            resources,
            telemetry,
            access_log,
            events,
            draining: AtomicBool::new(false),
            managed,
            place: (plan.directory.clone(), plan.environment.clone()),
            in_force: ArcSwap::from_pointee(in_force),
            is_durable: durable,
            reloading: Mutex::default(),
            watching: Mutex::new(nobody),
        };
        *gateway.watching.lock().unwrap_or_else(PoisonError::into_inner) = gateway.watch(&snapshot, sources);
        gateway.tell_what_is_fixed();
        gateway.telemetry.gauge("portcullis_config_last_reload_successful", vec![], 1.0);
        gateway.tell_config();
        Ok(gateway)
    }

    /// Each listener's name and address, with the ports the system chose.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.listeners.iter().map(|listener| (&**listener.name(), listener.address()))
    }

    /// What whoever changes something over the admin API has to know; `None` where nobody may.
    pub fn admin_token(&self) -> Option<Secret> {
        self.in_force.load().particulars.admin_token.clone()
    }

    /// How the admin listener speaks TLS; `None` where it does not.
    pub fn admin_door(&self) -> Option<AdminDoor> {
        let settings = self.in_force.load().snapshot.admin_door.clone()?;
        Some(AdminDoor::new(settings, self.resources.clock.clone()))
    }

    /// The latest refusals, the latest first: what callers were told, and what only the operator may know of it.
    pub async fn denials(&self, filter: &DenialFilter) -> Vec<Denial> {
        self.crew.denials(filter).await
    }

    /// API keys that are made while the gateway runs; `None` if no pepper is set.
    pub const fn api_keys(&self) -> Option<&Arc<ManagedApiKeys>> {
        self.managed.api_keys.as_ref()
    }

    /// Time.
    pub const fn clock(&self) -> &Clock {
        &self.resources.clock
    }

    /// The tokens of an issuer that were revoked while gateways ran, by the ids of the entries.
    ///
    /// # Errors
    /// The issuer takes no revocations.
    pub fn revoked(&self, issuer: &str) -> Result<BTreeMap<String, RevokedEntry>, RevokeError> {
        self.managed.revocations.of(issuer)
    }

    /// Revokes tokens of an issuer, all that the entries name or none, and says which entries are new. When this returns,
    /// it is on disk, and the next request with such a token is refused. Waits for the disk.
    ///
    /// # Errors
    /// See [`RevokeError`]. With [`RevokeError::InForceNotKept`] they are revoked all the same; otherwise nothing has
    /// changed.
    pub fn revoke(&self, issuer: &str, entries: Vec<RevokedEntry>) -> Result<Vec<bool>, RevokeError> {
        self.managed.revocations.add(issuer, entries, self.resources.clock.now())
    }

    /// Takes a revocation back. Waits for the disk.
    ///
    /// # Errors
    /// See [`RevokeError`]. Then nothing has changed.
    pub fn take_back(&self, issuer: &str, id: &str) -> Result<(), RevokeError> {
        self.managed.revocations.remove(issuer, id)
    }

    /// Takes every revocation of an issuer back, and says how many there were. Waits for the disk.
    ///
    /// # Errors
    /// See [`RevokeError`]. Then nothing has changed.
    pub fn take_all_back(&self, issuer: &str) -> Result<usize, RevokeError> {
        self.managed.revocations.remove_all(issuer)
    }

    /// Tells those who want to hear of it what an operator has changed. SECURITY: none of the words is a secret.
    pub fn tell_change(&self, kind: EventKind, action: &str, of: &str, what: &str) {
        self.events.tell(kind, serde_json::json!({ "action": action, "of": of, "what": what }));
    }

    /// The background runtime, for the admin API.
    pub fn handle(&self) -> &Handle {
        self.background.handle()
    }

    /// The hash of the configuration in force.
    pub fn config_hash(&self) -> Arc<str> {
        Arc::clone(&self.in_force.load().snapshot.hash)
    }

    /// Everything that must be well before the gateway can do its work, well or not.
    pub fn readiness(&self) -> Vec<Check> {
        readiness::checks(&self.resources, self.draining.load(Ordering::Relaxed), self.crew.is_whole())
    }

    /// All metrics, in Prometheus' text format. Workers hand over what they have counted first.
    pub async fn metrics(&self) -> String {
        self.crew.hand_over().await;
        readiness::record(&self.resources, &self.telemetry);
        let keys = self.managed.api_keys.as_ref().map_or(0, |keys| keys.count());
        self.telemetry.gauge("portcullis_managed_api_keys", vec![], keys as f64);
        if let Some(is_heard) = self.managed.is_heard() {
            self.telemetry.gauge("portcullis_shared_records_heard", vec![], f64::from(u8::from(is_heard)));
        }
        for list in &self.in_force.load().snapshot.revoked {
            let labels = vec![Label::new("issuer", Arc::clone(list.issuer()))];
            self.telemetry.gauge("portcullis_revoked_tokens", labels, list.len() as f64);
        }
        for listener in &self.listeners {
            let labels = vec![Label::new("listener", Arc::clone(listener.name()))];
            self.telemetry.gauge("portcullis_connections", labels, listener.open() as f64);
        }
        self.telemetry.count_absolute("portcullis_events_dropped_total", vec![], self.events.dropped());
        if let Some((log, _)) = &self.access_log {
            self.telemetry.count_absolute("portcullis_access_log_dropped_total", vec![], log.dropped());
        }
        self.telemetry.render()
    }

    /// Ends in good order: says "not ready" at once, goes on taking connections for the lame-duck time, then takes
    /// none and waits for the requests in flight, no longer than the grace time. Returns whether all of them were
    /// answered.
    pub async fn drain(&self) -> bool {
        self.draining.store(true, Ordering::Relaxed);
        let shutdown = self.in_force.load().particulars.shutdown;
        tokio::time::sleep(shutdown.lame_duck).await;
        self.crew.drain(shutdown.grace).await
    }

    /// Ends what is left: workers, store, log. Call it outside of any runtime.
    ///
    /// # Errors
    /// The store could not write its last counters; what it promised to keep is kept.
    pub fn finish(self) -> Result<(), portcullis_store::StoreError> {
        self.crew.join();
        self.managed.finish(self.resources.clock.now());
        // The store first: what comes after may have to wait for others.
        let closed = self.resources.store.close();
        if let Some(shared) = self.resources.store.shared() {
            // Others wait for what this one has taken and not used; it waits for nobody for long.
            let returning = async { tokio::time::timeout(RETURNING, shared.return_leases(None)).await };
            if self.background.block_on(returning).is_err() {
                tracing::warn!("the shared store is too slow; leased units of quotas stay used");
            }
        }
        if let Some((log, writer)) = self.access_log {
            drop(log);
            if !writer.finish() {
                tracing::warn!("the reader of the access log has stopped reading; the last lines are lost");
            }
        }
        self.background.shutdown_background();
        closed
    }

    /// What is to be known of the configuration in force.
    pub(crate) fn tell_config(&self) {
        let snapshot = Arc::clone(&self.in_force.load().snapshot);
        for api in &snapshot.apis {
            if let Some(because) = api.chain.anonymous_because() {
                tracing::warn!(api = %api.name, %because, "open to anybody");
            }
        }
        let (telemetry, now) = (&self.telemetry, self.resources.clock.now().unix_seconds());
        telemetry.tell_config(&snapshot.hash);
        telemetry.gauge("portcullis_config_last_reload_timestamp_seconds", vec![], now as f64);
        telemetry.gauge("portcullis_weak_passwords", vec![], snapshot.weak_passwords as f64);
    }

    fn tell_what_is_fixed(&self) {
        let version = Label::from_static_parts("version", env!("CARGO_PKG_VERSION"));
        self.telemetry.gauge("portcullis_build_info", vec![version], 1.0);
    }
}

/// What there is before anything is bound.
struct Begun {
    sources: SourceMap,
    resources: Resources,
    registered: ManagedClients,
    compiled: Compiled,
}

/// Opens the store, and compiles the policies and the clients that are registered in it.
fn begin(plan: &Plan, clock: &Clock, background: &Runtime) -> Result<Begun, StartError> {
    let mut faults = Faults::default();
    let (mut sources, spec) = config::read(&plan.directory, &plan.environment, &mut faults);
    let (resources, registered, compiled) = match spec {
        None => return Err(no_longer_good(sources, faults)),
        Some(mut spec) => {
            let store = spec.gateway.store.open(&sources, background.handle())?;
            let runtime = background.handle().clone();
            let resources = Resources::living(store, clock.clone(), runtime)?;
            let by_anybody = spec.gateway.admin.as_ref().is_some_and(AdminSpec::lets_change);
            let registered = Managed::registered(&resources.store, by_anybody)?;
            spec.add_stored(&registered.rows(), &mut sources, &mut faults);
            let compiled = config::compile(spec, &sources, &resources, &mut faults);
            (resources, registered, compiled)
        }
    };
    let Some(compiled) = compiled.filter(|_| !faults.any_error()) else {
        return Err(no_longer_good(sources, faults));
    };
    Ok(Begun { sources, resources, registered, compiled })
}

/// The sockets of each worker.
type SocketsOfWorkers = Vec<Vec<Bound>>;

/// Opens every listener: the listeners, and for each worker its socket of each.
fn bind(
    settings: &[Arc<ListenerSettings>],
    workers: usize,
) -> Result<(Vec<Arc<Listener>>, SocketsOfWorkers), BindError> {
    let mut listeners = Vec::new();
    let mut sockets: SocketsOfWorkers = (0..workers).map(|_| Vec::new()).collect();
    for settings in settings {
        let (listener, bound) = Listener::bind(settings, workers)?;
        listeners.push(listener);
        sockets.iter_mut().zip(bound).for_each(|(worker, socket)| worker.push(socket));
    }
    Ok((listeners, sockets))
}

/// Waits, less than a second, until requests can be told from those of an earlier run. What was signed before then is
/// refused where it may be used once, so nobody is listened to before then.
fn await_first_second(resources: &Resources, clock: &Clock) {
    let Some(first) = resources.replays.not_before() else { return };
    let left_ms = first.saturating_mul(1000).saturating_sub(clock.now().unix_ms).clamp(0, 1000);
    std::thread::sleep(Duration::from_millis(u64::try_from(left_ms).unwrap_or_default()));
}

/// Drops what is over: counters, used credentials, and what operators told.
async fn housekeeping(kept: (Store, Replays, Managed), clock: Clock) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    loop {
        tick.tick().await;
        let ((store, replays, managed), now) = (kept.clone(), clock.now());
        // It looks at every counter, which may take a while.
        let sweep = move || {
            store.sweep(now);
            replays.sweep(now);
            managed.tidy(now);
        };
        drop(tokio::task::spawn_blocking(sweep).await);
        if let Some(shared) = kept.0.shared() {
            shared.return_leases(Some(now.monotonic)).await;
        }
    }
}

fn background() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("background")
        .enable_all()
        .build()
}

fn no_longer_good(sources: SourceMap, faults: Faults) -> StartError {
    StartError::Policies { sources: Box::new(sources), faults: faults.into_sorted() }
}

fn workers(plan: &Plan) -> usize {
    plan.settings
        .workers
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, std::num::NonZeroUsize::get)
}
