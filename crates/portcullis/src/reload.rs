//! Reading the policies again: on SIGHUP, when files change, and when somebody asks for it over the admin API.

use std::path::PathBuf;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use portcullis_gateway::{EventKind as Kind, Gateway, NotReloaded, ReloadWhen, Reloaded};

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
            tracing::info!(why, config = %hash, "the policies are the same as before")
        }
        Err(refused) => {
            let faults = report::human(&refused.faults, &refused.sources, Look::Plain);
            let config = gateway.config_hash();
            tracing::error!(why, %config, %faults, "the policies are not good; those before stay in force");
        }
    }
    result
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
        Self { gateway, watcher, told, folders: Vec::new(), poll: when.poll }
    }

    fn look_after(mut self) {
        let mut read = Instant::now();
        self.watch_all();
        loop {
            let why = match self.told.recv_timeout(LOOKING) {
                Ok(event) if self.concerns(&event) => {
                    self.wait_until_quiet();
                    CHANGED
                }
                Err(RecvTimeoutError::Timeout) if self.poll.is_some_and(|poll| read.elapsed() >= poll) => {
                    TIME
                }
                // Without a watcher nobody tells anything.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(LOOKING);
                    if !self.poll.is_some_and(|poll| read.elapsed() >= poll) {
                        if self.gateway.strong_count() == 0 {
                            return;
                        }
                        continue;
                    }
                    TIME
                }
                _ if self.gateway.strong_count() == 0 => return,
                _ => continue,
            };
            let Some(gateway) = self.gateway.upgrade() else { return };
            // What came of it is in the log.
            if let Ok(Reloaded { hash, is_other: true, .. }) = reload(&gateway, why) {
                gateway.tell_change(Kind::ConfigChanged, "policies reloaded", "policies", &hash);
            }
            drop(gateway);
            read = Instant::now();
            self.watch_all();
        }
    }

    /// Watches the folders there are by now: one may have come, or another one may be in its place.
    fn watch_all(&mut self) {
        let Some((watcher, gateway)) = self.watcher.as_mut().zip(self.gateway.upgrade()) else { return };
        for folder in self.folders.drain(..) {
            // One that is gone is watched no more.
            let _ = watcher.unwatch(&folder);
        }
        for folder in gateway.folders() {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => self.folders.push(folder),
                Err(error) => {
                    tracing::error!(folder = %folder.display(), %error, "changes in a folder are not noticed");
                }
            }
        }
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
        is_change && (event.need_rescan() || event.paths.iter().any(is_ours))
    }

    fn wait_until_quiet(&self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.told.recv_timeout(QUIET).is_ok() {}
    }
}
