//! Whether the gateway can do its work, and what its background parts say for themselves.

use std::sync::Arc;

use metrics::Label;
use portcullis_authn::{IntrospectionResult, KeySourceStatus, RefreshResult};

use crate::config::Resources;
use crate::telemetry::Telemetry;

/// One thing that must be well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is looked at (`issuer bank-idp`).
    pub name: String,
    /// Whether it is well.
    pub ready: bool,
    /// What there is to say about it.
    pub detail: Option<String>,
}

/// All checks.
pub(crate) fn checks(resources: &Resources, draining: bool, whole: bool) -> Vec<Check> {
    let process = Check {
        name: "process".to_owned(),
        ready: !draining,
        detail: draining.then(|| "shutting down".to_owned()),
    };
    let workers = Check {
        name: "workers".to_owned(),
        ready: whole,
        detail: (!whole).then(|| "a worker or one of its listeners has ended".to_owned()),
    };
    let mut checks = vec![process, workers];
    for source in resources.keys.status() {
        let problem = source.last_error.as_ref().map(|error| format!("last fetch failed: {error}"));
        for issuer in &source.issuers {
            checks.push(Check {
                name: format!("issuer {issuer}"),
                ready: source.usable,
                detail: problem.clone(),
            });
        }
        // One client's server is that client's matter.
        for client in &source.clients {
            let name = format!("keys of client {client} at {}", source.url);
            let detail = match (&problem, source.usable) {
                (Some(problem), false) => Some(format!("none can be used; {problem}")),
                (None, false) => Some("none can be used".to_owned()),
                (problem, true) => problem.clone(),
            };
            checks.push(Check { name, ready: true, detail });
        }
    }
    for provider in resources.introspections.status() {
        // SECURITY: never "not ready": whoever is asked is one of several services behind the gateway, and taking the
        // whole gateway away with it would make its outage everybody's.
        let failing = provider.last_error.as_ref().map(|error| match provider.shut {
            true => format!("left in peace for a moment; the last question failed: {error}"),
            false => format!("the last question failed: {error}"),
        });
        let name = format!("introspection {}", provider.issuer);
        checks.push(Check { name, ready: true, detail: failing });
    }
    let failing = resources.store.figures().failing;
    checks.push(Check {
        name: "store".to_owned(),
        ready: !failing,
        detail: failing.then(|| "the last commit failed".to_owned()),
    });
    if let Some(shared) = resources.store.shared() {
        let detail = shared
            .figures()
            .is_open
            .then(|| "it does not answer; limits go by `when_store_fails`".to_owned());
        // SECURITY: never "not ready", for all gateways that share it would be taken away at once.
        checks.push(Check { name: "shared store".to_owned(), ready: true, detail });
    }
    checks
}

/// Writes the metrics of key sources, store, replay memory and guard.
pub(crate) fn record(resources: &Resources, telemetry: &Telemetry) {
    for source in resources.keys.status() {
        for issuer in &source.issuers {
            record_keys(&source, &KEYS_OF_ISSUERS, issuer, telemetry);
        }
        for client in &source.clients {
            record_keys(&source, &KEYS_OF_CLIENTS, client, telemetry);
        }
    }
    resources.quota_alerts.record(telemetry);
    if let Some(shared) = resources.store.shared() {
        let figures = shared.figures();
        let counts =
            [("answered", figures.answered), ("failed", figures.failed), ("not_asked", figures.not_asked)];
        for (result, count) in counts {
            let labels = vec![Label::from_static_parts("result", result)];
            telemetry.count_absolute("portcullis_shared_store_questions_total", labels, count);
        }
        telemetry.count_absolute("portcullis_shared_store_microseconds_total", vec![], figures.micros);
        telemetry.gauge("portcullis_shared_store_shut", vec![], f64::from(u8::from(figures.is_open)));
    }
    let passwords = resources.passwords.counts();
    for (result, count) in [("right", passwords.right), ("wrong", passwords.wrong), ("busy", passwords.busy)]
    {
        let labels = vec![Label::from_static_parts("result", result)];
        telemetry.count_absolute("portcullis_password_checks_total", labels, count);
    }
    let guard = resources.failures.counts(resources.clock.monotonic());
    telemetry.count_absolute("portcullis_guard_failures_total", vec![], guard.failures);
    for (by, refusals, held) in
        [("name", guard.refused_by_name, guard.names), ("address", guard.refused_by_address, guard.addresses)]
    {
        let labels = || vec![Label::new("by", by)];
        telemetry.count_absolute("portcullis_guard_refusals_total", labels(), refusals);
        telemetry.gauge("portcullis_guard_records", labels(), held as f64);
    }
    let kept = resources.keys.per_certificate();
    telemetry.gauge("portcullis_jwks_certificate_sources", vec![], kept as f64);
    for provider in resources.introspections.status() {
        let label = || Label::new("issuer", provider.issuer.clone());
        for result in IntrospectionResult::ALL {
            let labels = vec![label(), Label::new("result", result.as_str())];
            telemetry.count_absolute("portcullis_introspection_total", labels, provider.count(result));
        }
        for (event, count) in provider.cache_events() {
            let labels = vec![label(), Label::new("event", event)];
            telemetry.count_absolute("portcullis_introspection_cache_events_total", labels, count);
        }
        let turned_away = provider.turned_away;
        telemetry.count_absolute("portcullis_introspection_turned_away_total", vec![label()], turned_away);
        telemetry.gauge("portcullis_introspection_cached", vec![label()], provider.held as f64);
        telemetry.gauge("portcullis_introspection_cached_bytes", vec![label()], provider.bytes as f64);
        telemetry.gauge("portcullis_introspection_under_way", vec![label()], provider.under_way as f64);
        telemetry.gauge("portcullis_introspection_shut", vec![label()], f64::from(u8::from(provider.shut)));
    }
    let store = resources.store.figures();
    telemetry.count_absolute("portcullis_store_commits_total", vec![], store.commits);
    telemetry.count_absolute("portcullis_store_errors_total", vec![], store.errors);
    telemetry.gauge("portcullis_store_commit_seconds", vec![], store.last_commit.as_secs_f64());
    let replays = resources.replays.figures();
    telemetry.gauge("portcullis_replay_entries", vec![], replays.held as f64);
    for (bound, count) in [("memory", replays.full), ("share", replays.crowded)] {
        let labels = vec![Label::new("bound", bound)];
        telemetry.count_absolute("portcullis_replay_full_total", labels, count);
    }
}

/// The metrics of key sets, and how whose they are is labelled.
struct KeyMetrics {
    label: &'static str,
    age: &'static str,
    keys: &'static str,
    refreshes: &'static str,
}

const KEYS_OF_ISSUERS: KeyMetrics = KeyMetrics {
    label: "issuer",
    age: "portcullis_jwks_age_seconds",
    keys: "portcullis_jwks_keys",
    refreshes: "portcullis_jwks_refresh_total",
};

/// By names of their own, because whoever is alarmed for an issuer need not be for a client.
const KEYS_OF_CLIENTS: KeyMetrics = KeyMetrics {
    label: "client",
    age: "portcullis_client_jwks_age_seconds",
    keys: "portcullis_client_jwks_keys",
    refreshes: "portcullis_client_jwks_refresh_total",
};

fn record_keys(source: &KeySourceStatus, metrics: &KeyMetrics, whose: &Arc<str>, telemetry: &Telemetry) {
    let label = || Label::new(metrics.label, whose.clone());
    if let Some(age) = source.age {
        telemetry.gauge(metrics.age, vec![label()], age.as_secs_f64());
    }
    telemetry.gauge(metrics.keys, vec![label()], source.keys as f64);
    for result in RefreshResult::ALL {
        let count = source.refreshes.iter().filter(|refresh| refresh.result == result);
        let labels = vec![label(), Label::new("result", result.as_str())];
        let sum = count.map(|refresh| refresh.count).sum();
        telemetry.count_absolute(metrics.refreshes, labels, sum);
    }
}
