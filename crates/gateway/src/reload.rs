//! Another configuration in the place of the one in force, while requests are served.
//!
//! Everything is read, parsed and compiled beside the one in force, on a thread that carries no request; only what has no
//! fault takes its place. Then the workers take it up one after another. A request keeps the configuration it began with,
//! a connection the listener's settings under which it came; what it was told about its certificate is asked again on each
//! request. Counters, key sets, pools, who has failed, what may be used once, and what operators have told live on: they
//! are found by what defines them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use portcullis_authn::KeySourceStatus;
use portcullis_core::{Diagnostic, Faults};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::{self, Compiled, Environment, Particulars, SourceMap};
use crate::listener::{Expiry, ListenerSettings};
use crate::managed::ClientRows;
use crate::revocation;
use crate::run::Gateway;
use crate::snapshot::Snapshot;

/// How often is looked whether what was replaced is still used.
const LOOKING: Duration = Duration::from_secs(2);

const RELOADS: &str = "portcullis_config_reloads_total";

/// What is in force.
pub(crate) struct InForce {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) particulars: Particulars,
    /// Folders in which a change may be one of the configuration, and the files beside the policies that are read.
    folders: Vec<PathBuf>,
    files: BTreeSet<PathBuf>,
}

/// What has come of reading the policies again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The hash of the configuration in force now.
    pub hash: Arc<str>,
    /// Whether it is another one than before.
    pub is_other: bool,
    /// Number of APIs.
    pub apis: usize,
    /// How long it took from the first file to the last worker.
    pub took: Duration,
}

/// Why the configuration is still the one before.
#[derive(Debug)]
pub struct NotReloaded {
    /// The files.
    pub sources: SourceMap,
    /// What is wrong with them, sorted by place.
    pub faults: Vec<Diagnostic>,
}

impl InForce {
    pub(crate) fn new(snapshot: Arc<Snapshot>, particulars: Particulars, sources: &SourceMap) -> Self {
        Self { snapshot, particulars, folders: sources.folders(), files: sources.materials() }
    }
}

/// What can take the place of what is in force.
pub(crate) struct Prepared {
    compiled: Compiled,
    sources: SourceMap,
}

impl Gateway {
    /// Reads the policies again and puts them in force, if nothing is wrong with them; else the ones before stay, all of
    /// them. To be called by a thread that may wait: it reads files and compiles.
    ///
    /// # Errors
    /// Something is wrong with them, or needs a restart.
    pub fn reload(&self) -> Result<Reloaded, Box<NotReloaded>> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let result = self.try_reload(begun);
        let (word, is_good) = match &result {
            Ok(Reloaded { is_other: true, .. }) => ("applied", 1.0),
            Ok(_) => ("unchanged", 1.0),
            Err(_) => ("refused", 0.0),
        };
        self.telemetry.count(RELOADS, vec![metrics::Label::from_static_parts("result", word)], 1);
        self.telemetry.gauge("portcullis_config_last_reload_successful", vec![], is_good);
        result
    }

    fn try_reload(&self, begun: Instant) -> Result<Reloaded, Box<NotReloaded>> {
        match self.prepare(&self.managed.clients.rows())? {
            Some(prepared) => self.publish(prepared, begun),
            None => Ok(self.reloaded(&self.in_force.load().snapshot, false, begun)),
        }
    }

    /// Reads and compiles everything, with these registered clients. `None` if it is what is in force.
    pub(crate) fn prepare(&self, clients: &ClientRows) -> Result<Option<Prepared>, Box<NotReloaded>> {
        let (directory, environment) = &self.place;
        // First as `check` does it, with nothing that lives: compiling changes rules of living counters.
        let loaded = config::load_with(directory, environment, clients);
        if loaded.plan.is_none() {
            return Err(Box::new(NotReloaded { sources: loaded.sources, faults: loaded.faults }));
        }
        let mut faults = Faults::default();
        let (mut sources, mut spec) = config::read(directory, environment, &mut faults);
        let old = self.in_force.load_full();
        if let Some(spec) = &mut spec {
            old.particulars.fixed.check(&spec.fixed, &mut faults);
            spec.add_stored(clients, &mut sources, &mut faults);
        }
        let spec = spec.filter(|_| !faults.any_error());
        if spec.is_some() && *loaded.hash == *old.snapshot.hash {
            return Ok(None);
        }
        let compiled = spec.and_then(|spec| config::compile(spec, &sources, &self.resources, &mut faults));
        match compiled.filter(|_| !faults.any_error()) {
            None => Err(Box::new(NotReloaded { sources, faults: faults.into_sorted() })),
            Some(compiled) => Ok(Some(Prepared { compiled, sources })),
        }
    }

    /// Puts it in force.
    pub(crate) fn publish(&self, prepared: Prepared, begun: Instant) -> Result<Reloaded, Box<NotReloaded>> {
        let Prepared { compiled, sources } = prepared;
        let Compiled { snapshot, api_keys, webhooks, particulars, durable: _ } = compiled;
        let (snapshot, now) = (Arc::new(snapshot), self.resources.clock.now());
        let adopt = || {
            if !self.handle().block_on(self.crew.adopt(&snapshot)) {
                tracing::warn!("a worker is busy and takes up the new configuration later");
            }
        };
        let before = Arc::clone(&self.in_force.load().snapshot);
        let adopted = match gives_back(&snapshot, &before, now.unix_seconds()) {
            Some(why) => Err(why),
            None => {
                let adopted = self.managed.adopt(&snapshot.revoked, api_keys, now, adopt);
                adopted.map_err(|why| why.to_string())
            }
        };
        if let Err(why) = adopted {
            let faults = vec![Diagnostic::nowhere("would_lose", why)];
            return Err(Box::new(NotReloaded { sources, faults }));
        }
        self.events.tell_to(webhooks);
        let old = self.in_force.swap(Arc::new(InForce::new(Arc::clone(&snapshot), particulars, &sources)));
        self.resources.keys.warm();
        let watching = self.watch(&snapshot, sources);
        let mut current = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, watching);
        drop(current);
        self.handle().spawn(retire(old, before));
        self.tell_config();
        Ok(self.reloaded(&snapshot, true, begun))
    }

    fn reloaded(&self, snapshot: &Snapshot, is_other: bool, begun: Instant) -> Reloaded {
        let (hash, apis) = (Arc::clone(&snapshot.hash), snapshot.apis.len());
        Reloaded { hash, is_other, apis, took: begun.elapsed() }
    }

    /// Looks after what ends or changes of a configuration by itself.
    pub(crate) fn watch(&self, snapshot: &Snapshot, sources: SourceMap) -> JoinHandle<()> {
        let watched = revocation::Watched {
            listeners: snapshot.doors.0.iter().chain(&snapshot.admin_door).cloned().collect(),
            revoked: snapshot.revoked.clone(),
            events: self.events.clone(),
        };
        let (telemetry, clock) = (self.telemetry.clone(), self.resources.clock.clone());
        self.handle().spawn(revocation::watch(sources, watched, telemetry, clock))
    }

    /// Told when another gateway that shares the store was told of clients: then everything is to be compiled again.
    pub fn told_elsewhere(&self) -> Arc<Notify> {
        self.managed.clients.changed()
    }

    /// Where the policies are read: the directory, and the environment that overrides settings.
    pub const fn place(&self) -> (&PathBuf, &Environment) {
        (&self.place.0, &self.place.1)
    }

    /// The names of all plans in force, and whether each is disabled.
    pub fn plans(&self) -> Vec<(Arc<str>, bool)> {
        self.in_force.load().particulars.plans.clone()
    }

    /// How the key sets of issuers and clients are doing.
    pub fn key_sources(&self) -> Vec<KeySourceStatus> {
        self.resources.keys.status()
    }

    /// Fetches the keys of an issuer entry now: how they are doing then.
    pub async fn refresh_keys(&self, issuer: &str) -> Vec<KeySourceStatus> {
        self.resources.keys.refresh(issuer).await
    }

    /// Each listener's certificates and revocation lists in force, each with the second it ends.
    pub fn expiries(&self) -> Vec<(Arc<str>, Expiry)> {
        let snapshot = Arc::clone(&self.in_force.load().snapshot);
        let of = |listener: &Arc<ListenerSettings>| {
            listener
                .expiries()
                .into_iter()
                .map(|expiry| (Arc::clone(&listener.name), expiry))
                .collect::<Vec<_>>()
        };
        snapshot.doors.0.iter().chain(&snapshot.admin_door).flat_map(of).collect()
    }

    /// Number of APIs in force.
    pub fn api_count(&self) -> usize {
        self.in_force.load().snapshot.apis.len()
    }

    /// The folders in which a change may be one of the configuration, as of now.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.in_force.load().folders.clone()
    }

    /// Whether a change of a file in one of them may be one of the configuration: beside what is read there may be other
    /// files, such as the audit log.
    pub fn is_configuration(&self, file: &Path) -> bool {
        let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        // Two dots: a ConfigMap's versions, and the link to the one in force.
        let is_policy = name.ends_with(".yaml") || name.ends_with(".yml") || name.starts_with("..");
        is_policy || self.in_force.load().files.contains(file) || file.is_dir()
    }
}

/// What of those in force would count again, that was revoked, under the newer one. SECURITY: as where lists are read again
/// by themselves, an older list or a file that is lost takes nothing back.
fn gives_back(newer: &Snapshot, before: &Snapshot, now: i64) -> Option<String> {
    let tokens = newer.revoked.iter().find_map(|list| {
        let before = before.revoked.iter().find(|before| before.issuer() == list.issuer())?;
        list.gives_back(before)
    });
    let pairs = newer.doors.0.iter().filter_map(|newer| Some((newer, before.doors.listener(&newer.name)?)));
    let pairs = pairs.chain(newer.admin_door.as_ref().zip(before.admin_door.as_ref()));
    let certificates = pairs.into_iter().find_map(|(listener, before)| {
        let pairs = listener
            .revocations()
            .iter()
            .flat_map(|lists| before.revocations().iter().map(move |before| (lists, before)));
        pairs.into_iter().find_map(|(lists, before)| lists.takes_back(before, now))
    });
    tokens.or(certificates)
}

/// Lets go of a configuration that was replaced, when no request and no connection uses it any more, and not on a worker:
/// there may be ten thousand APIs to free. Its revocation lists are read again until then.
async fn retire(old: Arc<InForce>, watching: JoinHandle<()>) {
    loop {
        tokio::time::sleep(LOOKING).await;
        let is_used = old.snapshot.doors.0.iter().any(|listener| listener.is_used());
        if !is_used && Arc::strong_count(&old.snapshot) == 1 && Arc::strong_count(&old) == 1 {
            break;
        }
    }
    watching.abort();
    drop(tokio::task::spawn_blocking(move || drop(old)).await);
}
