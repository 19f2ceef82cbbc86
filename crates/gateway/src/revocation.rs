//! Looks after what ends or changes while the gateway runs: revocation lists, revoked tokens, and the lives of
//! certificates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use metrics::Label;
use portcullis_authn::{RevokedReload, RevokedTokens};
use portcullis_core::Clock;
use serde_json::json;

use crate::config::SourceMap;
use crate::events::{EventKind, Events};
use crate::listener::revocation::{Reload, Revocation};
use crate::listener::{Expiry, ExpiryKind, ListenerSettings};
use crate::telemetry::Telemetry;

/// How often is told what will end soon.
const EVENTS: Duration = Duration::from_secs(6 * 3_600);

/// How long before a certificate ends it is an event.
const SOON_SECONDS: i64 = 30 * 86_400;

/// What is looked after.
pub(crate) struct Watched {
    pub(crate) listeners: Vec<Arc<ListenerSettings>>,
    pub(crate) revoked: Vec<Arc<RevokedTokens>>,
    /// Where is told of certificates that end.
    pub(crate) events: Events,
}

/// Reads the files of revocation lists and of revoked tokens again for as long as the gateway runs, each as often as it
/// is said for them, and tells what is about to end. Nothing here is on a request's path: workers see a number change,
/// or another list.
pub(crate) async fn watch(sources: SourceMap, watched: Watched, telemetry: Telemetry, clock: Clock) {
    let Watched { listeners, revoked, events } = watched;
    tell_expiries(&listeners, &telemetry);
    let (lists, tokens) = {
        // Each reads for itself, so that a slow disk under one holds up no other.
        let own = || Arc::new(Mutex::new(sources.clone()));
        let lists = listeners.iter().flat_map(|listener| {
            let watch = |lists: &Arc<Revocation>| Watch {
                lists: Arc::clone(lists),
                listener: Arc::clone(listener),
                sources: own(),
                telemetry: telemetry.clone(),
                clock: clock.clone(),
            };
            listener.revocations().iter().map(watch).collect::<Vec<_>>()
        });
        let tokens = revoked.into_iter().map(|list| {
            let (sources, telemetry, clock) = (own(), telemetry.clone(), clock.clone());
            TokenWatch { list, sources, telemetry, clock }
        });
        (lists.collect::<Vec<_>>(), tokens.collect::<Vec<_>>())
    };
    let lists = join_all(lists.into_iter().map(Watch::run));
    let tokens = join_all(tokens.into_iter().map(TokenWatch::run));
    let mut telling = tokio::time::interval(EVENTS);
    let ends = async {
        loop {
            telling.tick().await;
            tell_ends(&listeners, &events, &clock);
        }
    };
    tokio::join!(lists, tokens, ends);
}

/// One list of revoked tokens.
#[derive(Clone)]
struct TokenWatch {
    list: Arc<RevokedTokens>,
    /// Only this watch reads through it; the lock is for the thread the reading is done on.
    sources: Arc<Mutex<SourceMap>>,
    telemetry: Telemetry,
    clock: Clock,
}

impl TokenWatch {
    async fn run(self) {
        let Some(interval) = self.list.interval() else { return };
        self.tell_reading();
        let mut looking = tokio::time::interval(interval);
        // What is read at the start need not be read again at once.
        looking.tick().await;
        loop {
            looking.tick().await;
            let watch = self.clone();
            drop(tokio::task::spawn_blocking(move || watch.look()).await);
        }
    }

    fn look(&self) {
        let read = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            self.list.reload(&*sources)
        };
        if !matches!(read, RevokedReload::Failed { .. }) {
            self.tell_reading();
        }
        let issuer = self.list.issuer();
        let result = match read {
            RevokedReload::Unchanged => return,
            RevokedReload::Replaced => {
                tracing::info!(%issuer, entries = self.list.len(), "another list of revoked tokens is in force");
                "replaced"
            }
            RevokedReload::Failed { why, again } => {
                if !again {
                    tracing::error!(%issuer, %why, "the list of revoked tokens cannot be used; the one before stays");
                }
                "failed"
            }
        };
        let labels = vec![Label::new("issuer", Arc::clone(issuer)), Label::new("result", result)];
        self.telemetry.count("portcullis_revoked_tokens_reloads_total", labels, 1);
    }

    /// The files are what is in force, now.
    fn tell_reading(&self) {
        let labels = vec![Label::new("issuer", Arc::clone(self.list.issuer()))];
        let now = self.clock.now().unix_seconds();
        self.telemetry.gauge("portcullis_revoked_tokens_last_read_timestamp_seconds", labels, now as f64);
    }
}

/// One set of lists and who looks after it.
#[derive(Clone)]
struct Watch {
    lists: Arc<Revocation>,
    listener: Arc<ListenerSettings>,
    sources: Arc<Mutex<SourceMap>>,
    telemetry: Telemetry,
    clock: Clock,
}

impl Watch {
    async fn run(self) {
        let mut looking = tokio::time::interval(self.lists.interval());
        // What is read at the start need not be read again at once.
        looking.tick().await;
        loop {
            looking.tick().await;
            let watch = self.clone();
            // Lists may be large, and disks slow.
            drop(tokio::task::spawn_blocking(move || watch.look()).await);
        }
    }

    fn look(&self) {
        let now = self.clock.now().unix_seconds();
        let read = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            self.lists.reload(&*sources, now)
        };
        let name = &self.listener.name;
        let result = match read {
            Reload::Unchanged => return,
            Reload::Replaced => {
                tracing::info!(listener = %name, "other revocation lists are in force");
                tell_expiries(std::slice::from_ref(&self.listener), &self.telemetry);
                "replaced"
            }
            Reload::Failed { why, again } => {
                if !again {
                    tracing::error!(
                        listener = %name, %why,
                        "revocation lists cannot be used; those before stay in force until the next are due"
                    );
                }
                "failed"
            }
        };
        let labels = vec![Label::new("listener", Arc::clone(name)), Label::new("result", result)];
        self.telemetry.count("portcullis_crl_reloads_total", labels, 1);
    }
}

/// When each certificate and list ends, as metrics.
fn tell_expiries(listeners: &[Arc<ListenerSettings>], telemetry: &Telemetry) {
    for Expiry { name, kind, at } in listeners.iter().flat_map(|listener| listener.expiries()) {
        let metric = match kind {
            ExpiryKind::Certificate => "portcullis_certificate_expiry_timestamp_seconds",
            ExpiryKind::RevocationList => "portcullis_crl_next_update_timestamp_seconds",
        };
        telemetry.gauge(metric, vec![Label::new("name", name)], at as f64);
    }
}

/// Certificates that end soon or have ended, as events. Lists come and go daily; metrics tell of them.
fn tell_ends(listeners: &[Arc<ListenerSettings>], events: &Events, clock: &Clock) {
    let now = clock.now().unix_seconds();
    for listener in listeners {
        for Expiry { name, kind, at } in listener.expiries() {
            let days = at.saturating_sub(now).div_euclid(86_400);
            if kind == ExpiryKind::Certificate && at.saturating_sub(now) < SOON_SECONDS {
                let data =
                    json!({ "listener": listener.name, "certificate": name, "ends_at": at, "days": days });
                events.tell(EventKind::CertificateEnding, data);
            }
            match (kind, at.saturating_sub(now)) {
                (ExpiryKind::RevocationList, _) | (ExpiryKind::Certificate, SOON_SECONDS..) => {}
                (ExpiryKind::Certificate, 0..) => {
                    tracing::warn!(listener = %listener.name, certificate = %name, days, "a certificate ends soon");
                }
                (ExpiryKind::Certificate, _) => {
                    tracing::error!(listener = %listener.name, certificate = %name, "a certificate has ended");
                }
            }
        }
    }
}
