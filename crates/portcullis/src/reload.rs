//! Reading the policies again: on SIGHUP, when files change, and when somebody asks for it over the admin API.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use portcullis_gateway::{EventKind as Kind, Gateway, NotReloaded, ReloadWhen, Reloaded};

use tokio::sync::Notify;

use crate::report::{self, Look};

/// How long files must be left alone before they are read: an editor writes in several steps, and so does whoever copies
/// many.
const QUIET: Duration = Duration::from_millis(250);
/// How long is waited for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Why they are read by themselves.
const CHANGED: &str = "files have changed";
const TIME: &str = "it is time";
/// How often somebody who waits looks whether there still is a gateway.
const LOOKING: Duration = Duration::from_secs(1);

/// Reads the policies again, and says in the log what came of it. `why` is who or what asked for it.
///
/// # Errors
/// Something is wrong with them; those before stay in force.
pub(crate) fn reload(gateway: &Gateway, why: &str) -> Result<Reloaded, Box<NotReloaded>> {
    let result = gateway.reload();
    match &result {
        Ok(Reloaded { hash, is_other: true, apis, took }) => {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(why, config = %hash, apis, took_ms, "other policies are in force");
        }
        // What asks by itself would say it every few seconds.
        Ok(Reloaded { hash, .. }) if matches!(why, CHANGED | TIME) => {
            tracing::debug!(why, config = %hash, "the policies are the same as before");
        }
        Ok(Reloaded { hash, .. }) => {
            tracing::info!(why, config = %hash, "the policies are the same as before");
        }
        Err(refused) => {
            let faults = report::human(&refused.faults, &refused.sources, Look::Plain);
            let config = gateway.config_hash();
            tracing::error!(why, %config, %faults, "the policies are not good; those before stay in force");
        }
    }
    result
}

/// Compiles everything again whenever another gateway that shares the store was told of clients, for as long as there is a
/// gateway.
pub(crate) async fn follow(gateway: Weak<Gateway>, told: Arc<Notify>) {
    loop {
        told.notified().await;
        let Some(gateway) = gateway.upgrade() else { return };
        // What came of it is in the log.
        let compiling = tokio::task::spawn_blocking(move || {
            reload(&gateway, "another gateway was told of clients").is_ok()
        });
        drop(compiling.await);
    }
}

/// Reads the policies again whenever a file has changed, on a thread of its own, for as long as there is a gateway.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn watch(gateway: Weak<Gateway>, when: ReloadWhen) -> std::io::Result<()> {
    if !when.watch && when.poll.is_none() {
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("policies".to_owned());
    thread.spawn(move || Files::new(gateway, when).look_after()).map(drop)
}

/// The files of the configuration, and who is told that they change.
struct Files {
    gateway: Weak<Gateway>,
    watcher: Option<RecommendedWatcher>,
    told: Receiver<notify::Result<Event>>,
    /// The folders that are watched.
    folders: Vec<PathBuf>,
    /// Whether the last ones were not good: then any file may be the one that was missing.
    is_refused: bool,
    poll: Option<Duration>,
}

impl Files {
    fn new(gateway: Weak<Gateway>, when: ReloadWhen) -> Self {
        let (sender, told) = channel();
        let watcher = when.watch.then(|| notify::recommended_watcher(sender));
        let watcher = watcher.and_then(|made| {
            made.inspect_err(|error| {
                tracing::error!(%error, "changes of files are not noticed: reload by SIGHUP, or set `reload: {{ poll: 10s }}`");
            })
            .ok()
        });
        Self { gateway, watcher, told, folders: Vec::new(), is_refused: false, poll: when.poll }
    }

    fn look_after(mut self) {
        let mut read = Instant::now();
        self.watch_all();
        loop {
            let told = match &self.watcher {
                Some(_) => self.told.recv_timeout(LOOKING).ok(),
                None => {
                    std::thread::sleep(LOOKING);
                    None
                }
            };
            if self.gateway.strong_count() == 0 {
                return;
            }
            let is_time = self.poll.is_some_and(|poll| read.elapsed() >= poll);
            let why = match told {
                Some(event) if self.concerns(&event) => {
                    self.wait_until_quiet();
                    CHANGED
                }
                _ if is_time => TIME,
                _ => continue,
            };
            // Watched anew before they are read, for what changes in between is told to nobody.
            self.watch_all();
            if !self.read(why) {
                return;
            }
            // The new ones may name files in other folders, which may have changed since they were read.
            if self.watch_more() && !self.read(why) {
                return;
            }
            read = Instant::now();
        }
    }

    /// Reads them. Whether there still is a gateway; what came of it is in the log.
    fn read(&mut self, why: &str) -> bool {
        let Some(gateway) = self.gateway.upgrade() else { return false };
        let read = reload(&gateway, why);
        self.is_refused = read.is_err();
        if let Ok(Reloaded { hash, is_other: true, .. }) = read {
            gateway.tell_change(Kind::ConfigChanged, "policies reloaded", "policies", &hash);
        }
        true
    }

    /// Watches every folder anew: another one may be in its place.
    fn watch_all(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.folders.drain(..) {
            // One that is gone is watched no more.
            let _ = watcher.unwatch(&folder);
        }
        self.watch_more();
    }

    /// Watches the folders that are not watched yet. Whether there were any.
    fn watch_more(&mut self) -> bool {
        let Some((watcher, gateway)) = self.watcher.as_mut().zip(self.gateway.upgrade()) else {
            return false;
        };
        let known = self.folders.len();
        for folder in gateway.folders() {
            if self.folders.contains(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => self.folders.push(folder),
                Err(error) => {
                    tracing::error!(folder = %folder.display(), %error, "changes in a folder are not noticed");
                }
            }
        }
        self.folders.len() > known
    }

    /// Whether something has changed, and not only been read, and whether it may be of the configuration.
    fn concerns(&self, event: &notify::Result<Event>) -> bool {
        let Ok(event) = event else { return true };
        let is_change = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            _ => true,
        };
        let gateway = self.gateway.upgrade();
        let is_ours = |path: &PathBuf| gateway.as_ref().is_some_and(|gateway| gateway.is_configuration(path));
        is_change && (self.is_refused || event.need_rescan() || event.paths.iter().any(is_ours))
    }

    fn wait_until_quiet(&self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.told.recv_timeout(QUIET).is_ok() {}
    }
}
