//! Metrics: what exists, and how it leaves the workers.
//!
//! A worker counts in plain cells of its own ([`shard::Shard`]) and hands them over now and then; nothing that
//! two workers write is touched on the path of a request. Every label is a closed set: names from the policy
//! files, methods, statuses, reasons. None carries a path, an identity, an address or a key id.

mod durations;
mod histogram;
mod process;
pub(crate) mod shard;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use durations::Durations;
pub(crate) use histogram::Histogram;

use crate::listener::Event;

/// Upper bounds of the buckets of every duration, in seconds. A gateway's own share is tens of microseconds,
/// an upstream's answer may take seconds.
pub(crate) const BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

/// Where all metrics end up.
#[derive(Clone)]
pub(crate) struct Telemetry(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    durations: Durations,
    /// The hash of the configuration in force. Not a gauge of the registry, which would keep a series for each there was.
    config: Mutex<Arc<str>>,
}

const CONFIG_INFO: &str = "portcullis_config_info";
const METADATA: Metadata<'static> = Metadata::new("portcullis", Level::INFO, None);

impl Telemetry {
    /// A fresh registry. Nothing is installed globally, so two gateways in one process do not mix.
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let telemetry = Self(Arc::new(Inner {
            recorder,
            handle,
            durations: Durations::default(),
            config: Mutex::new("".into()),
        }));
        telemetry.describe_all();
        telemetry
    }

    /// Adds to a counter.
    pub(crate) fn count(&self, name: &'static str, labels: Vec<Label>, by: u64) {
        self.0.recorder.register_counter(&Key::from_parts(name, labels), &METADATA).increment(by);
    }

    /// Sets a counter that somebody else keeps to its present value.
    pub(crate) fn count_absolute(&self, name: &'static str, labels: Vec<Label>, value: u64) {
        self.0.recorder.register_counter(&Key::from_parts(name, labels), &METADATA).absolute(value);
    }

    /// Sets a gauge.
    pub(crate) fn gauge(&self, name: &'static str, labels: Vec<Label>, value: f64) {
        self.0.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA).set(value);
    }

    /// Moves a gauge up or down.
    pub(crate) fn gauge_by(&self, name: &'static str, labels: Vec<Label>, by: f64) {
        let gauge = self.0.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA);
        if by < 0.0 { gauge.decrement(-by) } else { gauge.increment(by) }
    }

    /// Adds durations to those of a histogram.
    pub(crate) fn durations(&self, name: &'static str, labels: Vec<Label>, more: &Histogram) {
        self.0.durations.add(name, labels, more);
    }

    /// Counts what happens at the door of a listener. Once for each connection, so the registry is asked directly.
    pub(crate) fn door(&self, listener: &Arc<str>, event: Event) {
        let (version, certificate, result) = match event {
            Event::Handshake { version, certificate } => (version, certificate.as_str(), "completed"),
            Event::HandshakeFailed(failure) => ("", "", failure.as_str()),
            Event::OverCapacity | Event::Malformed | Event::Panicked | Event::Unannounced(_) => {
                let labels =
                    vec![Label::new("listener", Arc::clone(listener)), Label::new("event", refusal(event))];
                return self.count("portcullis_connections_refused_total", labels, 1);
            }
            // The listener itself knows how many are open.
            Event::Opened | Event::Closed => return,
        };
        let labels = vec![
            Label::new("listener", Arc::clone(listener)),
            Label::new("version", version),
            Label::new("client_certificate", certificate),
            Label::new("result", result),
        ];
        self.count("portcullis_tls_handshakes_total", labels, 1);
    }

    /// Says which configuration is in force, by its hash: hexadecimal digits.
    pub(crate) fn tell_config(&self, hash: &Arc<str>) {
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(hash);
    }

    /// The exposition text.
    pub(crate) fn render(&self) -> String {
        process::record(self);
        let mut text = self.0.handle.render();
        self.0.durations.render(&mut text);
        let hash = Arc::clone(&self.0.config.lock().unwrap_or_else(PoisonError::into_inner));
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "# HELP {CONFIG_INFO} 1, labelled with the hash of the configuration in force.\n\
             # TYPE {CONFIG_INFO} gauge\n{CONFIG_INFO}{{hash=\"{hash}\"}} 1\n\n"
        );
        text
    }

    fn describe_all(&self) {
        for (kind, name, help) in METRICS {
            let (name, help) = (KeyName::from_const_str(name), (*help).into());
            match kind {
                Kind::Counter => self.0.recorder.describe_counter(name, Some(Unit::Count), help),
                Kind::Gauge => self.0.recorder.describe_gauge(name, None, help),
                Kind::Histogram => {}
            }
        }
    }
}

const fn refusal(event: Event) -> &'static str {
    match event {
        Event::OverCapacity => "over_capacity",
        Event::Malformed => "malformed",
        Event::Panicked => "panicked",
        Event::Unannounced(failure) => failure.as_str(),
        Event::Opened | Event::Closed | Event::Handshake { .. } | Event::HandshakeFailed(_) => "",
    }
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// Every metric the gateway exposes, with its help text. The table in `README.md` and the dashboard are checked
/// against it.
pub const METRICS: &[(Kind, &str, &str)] = &[
    (Kind::Counter, "portcullis_requests_total", "Requests by api, rule, method, status and decision."),
    (
        Kind::Histogram,
        "portcullis_request_duration_seconds",
        "From the head of the request to the end of the answer, by api and decision.",
    ),
    (
        Kind::Histogram,
        "portcullis_gateway_duration_seconds",
        "The gateway's own share: until the request went out, or was refused; by api and decision.",
    ),
    (
        Kind::Histogram,
        "portcullis_upstream_duration_seconds",
        "From sending the request until the head of the upstream's answer, by upstream and status class.",
    ),
    (
        Kind::Counter,
        "portcullis_upstream_errors_total",
        "Exchanges with an upstream that failed, by upstream and kind.",
    ),
    (Kind::Gauge, "portcullis_requests_in_flight", "Requests that have begun and not ended."),
    (Kind::Gauge, "portcullis_connections", "Open client connections by listener."),
    (Kind::Counter, "portcullis_auth_total", "Authentications by api, method, result and reason."),
    (Kind::Histogram, "portcullis_auth_duration_seconds", "Time spent to authenticate, by method."),
    (
        Kind::Counter,
        "portcullis_guard_failures_total",
        "Failed attempts to authenticate that were written down against their address.",
    ),
    (
        Kind::Counter,
        "portcullis_guard_refusals_total",
        "Attempts refused because of earlier failures of their address, under their name or under many.",
    ),
    (Kind::Gauge, "portcullis_guard_records", "Failures remembered, by what they are counted by."),
    (Kind::Counter, "portcullis_decisions_total", "Decisions by api, rule, decision and reason."),
    (
        Kind::Counter,
        "portcullis_limit_checks_total",
        "Requests that reached the limits, by api, limit and result.",
    ),
    (
        Kind::Counter,
        "portcullis_quota_alerts_total",
        "Times a caller has reached a percentage of a quota, by api, limit and percent.",
    ),
    (
        Kind::Counter,
        "portcullis_cache_events_total",
        "Lookups in the caches of verified tokens and passwords, by cache and event.",
    ),
    (
        Kind::Counter,
        "portcullis_tls_handshakes_total",
        "Handshakes by listener, version, client certificate and result.",
    ),
    (
        Kind::Counter,
        "portcullis_connections_refused_total",
        "Connections that were not served to a good end, by listener and event.",
    ),
    (
        Kind::Counter,
        "portcullis_forwarded_certificates_total",
        "Requests of listeners behind a proxy that tells client certificates, by result.",
    ),
    (Kind::Counter, "portcullis_jwks_refresh_total", "Fetches of key sets by issuer and result."),
    (Kind::Gauge, "portcullis_jwks_age_seconds", "Age of the key set in use, by issuer."),
    (Kind::Gauge, "portcullis_jwks_keys", "Usable keys in the key set in use, by issuer."),
    (
        Kind::Counter,
        "portcullis_client_jwks_refresh_total",
        "Fetches of key sets that registered clients publish, by client and result.",
    ),
    (
        Kind::Gauge,
        "portcullis_client_jwks_age_seconds",
        "Age of the key set in use that a registered client publishes, by client.",
    ),
    (
        Kind::Gauge,
        "portcullis_client_jwks_keys",
        "Usable keys in the key set in use that a registered client publishes, by client.",
    ),
    (
        Kind::Counter,
        "portcullis_introspection_total",
        "Questions to providers about tokens, by issuer and result.",
    ),
    (
        Kind::Counter,
        "portcullis_introspection_cache_events_total",
        "Looks into the memory of answers all workers share, by issuer and event: hit, miss, joined, evicted.",
    ),
    (
        Kind::Counter,
        "portcullis_introspection_turned_away_total",
        "Requests refused without a question, because the provider fails, has just failed over that token, or too many questions are under way.",
    ),
    (Kind::Gauge, "portcullis_introspection_cached", "Answers of a provider that are remembered, by issuer."),
    (Kind::Gauge, "portcullis_introspection_cached_bytes", "Bytes these answers take, about."),
    (
        Kind::Gauge,
        "portcullis_introspection_under_way",
        "Questions to a provider that are under way, by issuer.",
    ),
    (
        Kind::Gauge,
        "portcullis_introspection_shut",
        "1 while a provider fails so often that it is left in peace.",
    ),
    (
        Kind::Gauge,
        "portcullis_certificate_expiry_timestamp_seconds",
        "Second since 1970 at which a certificate expires, by name.",
    ),
    (
        Kind::Gauge,
        "portcullis_crl_next_update_timestamp_seconds",
        "Second since 1970 at which a revocation list is due to be replaced, by name.",
    ),
    (
        Kind::Counter,
        "portcullis_crl_reloads_total",
        "Times the files of revocation lists had changed, by listener and result.",
    ),
    (Kind::Gauge, "portcullis_revoked_tokens", "Entries of the list of revoked tokens in force, by issuer."),
    (
        Kind::Gauge,
        "portcullis_revoked_tokens_last_read_timestamp_seconds",
        "Second since 1970 at which the files of revoked tokens were last read as a whole, by issuer.",
    ),
    (
        Kind::Counter,
        "portcullis_revoked_tokens_reloads_total",
        "Times the files of revoked tokens had changed, by issuer and result.",
    ),
    (
        Kind::Counter,
        "portcullis_webhook_deliveries_total",
        "Events for webhooks, by webhook and result: delivered, retried, failed (lost after the last try), dropped.",
    ),
    (
        Kind::Counter,
        "portcullis_events_dropped_total",
        "Events that were not told to any webhook because too many waited.",
    ),
    (Kind::Gauge, CONFIG_INFO, "1, labelled with the hash of the configuration in force."),
    (
        Kind::Counter,
        "portcullis_config_reloads_total",
        "How often the policies were read again, by what came of it: applied, unchanged, refused.",
    ),
    (
        Kind::Gauge,
        "portcullis_config_last_reload_timestamp_seconds",
        "When the configuration in force was put in force.",
    ),
    (
        Kind::Gauge,
        "portcullis_config_last_reload_successful",
        "Whether the last load of the policy files was good.",
    ),
    (Kind::Gauge, "portcullis_build_info", "1, labelled with the version."),
    (
        Kind::Gauge,
        "portcullis_jwks_certificate_sources",
        "Key sets kept for single callers, found by their certificates.",
    ),
    (Kind::Counter, "portcullis_store_commits_total", "Durable commits of the store."),
    (Kind::Gauge, "portcullis_store_commit_seconds", "How long the store's last durable commit took."),
    (Kind::Counter, "portcullis_store_errors_total", "Commits of the store that failed."),
    (
        Kind::Counter,
        "portcullis_shared_store_questions_total",
        "Questions to the store that gateways share, by result: answered, failed, not_asked (the ones before had failed).",
    ),
    (
        Kind::Counter,
        "portcullis_shared_store_microseconds_total",
        "Time the answered questions to the shared store took together, in microseconds.",
    ),
    (
        Kind::Gauge,
        "portcullis_shared_records_heard",
        "0 while what other gateways are told (keys, revocations) may not be known here.",
    ),
    (
        Kind::Gauge,
        "portcullis_shared_store_shut",
        "1 while the shared store fails so often that it is left in peace.",
    ),
    (
        Kind::Gauge,
        "portcullis_managed_api_keys",
        "API keys that were made in the running gateway and are kept.",
    ),
    (Kind::Gauge, "portcullis_replay_entries", "Used single-use credentials that are remembered."),
    (
        Kind::Counter,
        "portcullis_replay_full_total",
        "Credentials refused because the replay memory, or their owner's share of it, was full, by bound.",
    ),
    (
        Kind::Counter,
        "portcullis_access_log_dropped_total",
        "Access log lines dropped because their reader was too slow.",
    ),
    (
        Kind::Counter,
        "portcullis_password_checks_total",
        "Passwords checked, and not checked for want of room, by result.",
    ),
    (
        Kind::Counter,
        "portcullis_external_answers_total",
        "Requests about which a service of the operator's own decides, by result.",
    ),
    (
        Kind::Gauge,
        "portcullis_weak_passwords",
        "Stored passwords that are cheaper to guess than a new one would be.",
    ),
    (
        Kind::Counter,
        "portcullis_shadow_denials_total",
        "Requests that a chain or a limit in shadow would have refused, by api and reason.",
    ),
    (Kind::Counter, "portcullis_panics_total", "Requests that ended because of a fault in the gateway."),
    (Kind::Gauge, "process_cpu_seconds_total", "CPU time of this process, user and system."),
    (Kind::Gauge, "process_resident_memory_bytes", "Resident memory of this process."),
    (Kind::Gauge, "process_open_fds", "Open file descriptors of this process."),
    (Kind::Gauge, "process_start_time_seconds", "Second since 1970 at which this process started."),
];

#[cfg(test)]
mod tests {
    use super::Telemetry;
    use metrics::Label;

    #[test]
    fn counters_keep_the_names_of_the_table() {
        let telemetry = Telemetry::new();
        telemetry.count("portcullis_requests_total", vec![Label::new("api", "a")], 2);
        assert!(
            telemetry.render().contains("portcullis_requests_total{api=\"a\"} 2"),
            "{}",
            telemetry.render()
        );
    }
}
