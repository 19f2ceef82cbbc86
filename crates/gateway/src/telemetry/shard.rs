//! One worker's own counters.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use http::Method;
use metrics::Label;
use portcullis_core::{AuthMethod, Reason};
use portcullis_policy::Permit;

use super::{Histogram, Telemetry};
use crate::ledger::{AuthRecord, Ledger};
use crate::snapshot::LocalSnapshot;

/// Plain cells: only this worker's thread ever touches them. Names are looked up when they are handed over.
#[derive(Default)]
pub(crate) struct Shard {
    tallies: RefCell<AHashMap<Key, Tally>>,
    in_flight: Cell<i64>,
    in_flight_told: Cell<i64>,
    panics: Cell<u64>,
}

/// All that labels are made of, so that a request is looked up once for all its metrics.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    api: Option<usize>,
    rule: Option<Permit>,
    limit: Option<Arc<str>>,
    method: &'static str,
    status: u16,
    /// The hundreds of the upstream's status, 0 if it gave none.
    upstream_class: u16,
    decision: &'static str,
    reason: Option<Reason>,
    auth: AuthOutcome,
    shadow_denial: Option<Reason>,
}

/// The requests of one key since the last hand-over.
#[derive(Default)]
struct Tally {
    count: u64,
    request: Histogram,
    gateway: Histogram,
    upstream: Histogram,
    auth: Histogram,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum AuthOutcome {
    NotReached,
    Refused,
    Verified(AuthMethod),
}

impl Shard {
    /// A request has begun.
    pub(crate) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request ends because of a fault of ours.
    pub(crate) fn panicked(&self) {
        self.panics.set(self.panics.get() + 1);
    }

    /// A request has ended.
    pub(crate) fn end(&self, ledger: &Ledger, total: Duration) {
        self.in_flight.set(self.in_flight.get() - 1);
        let (auth, took) = match ledger.auth {
            AuthRecord::NotReached => (AuthOutcome::NotReached, None),
            AuthRecord::Refused { took } => (AuthOutcome::Refused, Some(took)),
            AuthRecord::Verified { method, took } => (AuthOutcome::Verified(method), Some(took)),
        };
        let key = Key {
            api: ledger.api.as_ref().map(|api| api.index),
            rule: ledger.rule,
            limit: ledger.limit.clone(),
            method: method_label(&ledger.method),
            status: ledger.status.as_u16(),
            upstream_class: ledger.upstream_status.map_or(0, |status| status.as_u16() / 100),
            decision: ledger.decision(),
            reason: ledger.reason,
            auth,
            shadow_denial: ledger.shadow.and_then(Result::err),
        };
        let mut tallies = self.tallies.borrow_mut();
        let tally = tallies.entry(key).or_default();
        tally.count += 1;
        tally.request.record(total);
        tally.gateway.record(ledger.forwarded_at.unwrap_or(total));
        if let (Some(sent), Some(answered)) = (ledger.forwarded_at, ledger.answered_at) {
            tally.upstream.record(answered.saturating_sub(sent));
        }
        if let Some(took) = took {
            tally.auth.record(took);
        }
    }

    /// Gives everything counted so far to the registry. `snapshot` is the one it was counted under.
    pub(crate) fn hand_over(&self, telemetry: &Telemetry, snapshot: &LocalSnapshot) {
        for (key, tally) in self.tallies.borrow_mut().drain() {
            hand_over_request(telemetry, snapshot, &key, tally.count);
            tally.hand_over(telemetry, snapshot, &key);
        }
        let moved = self.in_flight.get() - self.in_flight_told.replace(self.in_flight.get());
        telemetry.gauge_by("portcullis_requests_in_flight", vec![], moved as f64);
        telemetry.count("portcullis_panics_total", vec![], self.panics.take());
    }
}

impl Tally {
    fn hand_over(&self, telemetry: &Telemetry, snapshot: &LocalSnapshot, key: &Key) {
        let add = |name, labels: &[Label], histogram: &Histogram| {
            if histogram.count() > 0 {
                telemetry.durations(name, labels.to_vec(), histogram);
            }
        };
        let labels = [Label::new("api", snapshot.api_name(key.api)), Label::new("decision", key.decision)];
        add("portcullis_request_duration_seconds", &labels, &self.request);
        add("portcullis_gateway_duration_seconds", &labels, &self.gateway);
        let labels = [
            Label::new("upstream", snapshot.upstream_of(key.api)),
            Label::new("status_class", status_class(key.upstream_class)),
        ];
        add("portcullis_upstream_duration_seconds", &labels, &self.upstream);
        let method = match key.auth {
            AuthOutcome::Verified(method) => method.as_str(),
            AuthOutcome::NotReached | AuthOutcome::Refused => "refused",
        };
        add("portcullis_auth_duration_seconds", &[Label::new("method", method)], &self.auth);
    }
}

fn hand_over_request(telemetry: &Telemetry, snapshot: &LocalSnapshot, key: &Key, count: u64) {
    let api = || Label::new("api", snapshot.api_name(key.api));
    let rule = || Label::new("rule", snapshot.rule_name(key.api, key.rule));
    let decision = || Label::new("decision", key.decision);
    let reason = || Label::new("reason", key.reason.map_or("", Reason::code));
    let labels = vec![
        api(),
        rule(),
        Label::new("method", key.method),
        Label::new("status", key.status.to_string()),
        decision(),
    ];
    telemetry.count("portcullis_requests_total", labels, count);
    telemetry.count("portcullis_decisions_total", vec![api(), rule(), decision(), reason()], count);
    let auth = |method: &'static str, result: &'static str, reason: &'static str| {
        let labels = vec![
            api(),
            Label::new("method", method),
            Label::new("result", result),
            Label::new("reason", reason),
        ];
        telemetry.count("portcullis_auth_total", labels, count);
    };
    if let Some(reason) = key.shadow_denial {
        let labels = vec![api(), Label::new("reason", reason.code())];
        telemetry.count("portcullis_shadow_denials_total", labels, count);
    }
    match key.auth {
        AuthOutcome::NotReached => {}
        AuthOutcome::Refused => auth("none", "refused", key.reason.map_or("", Reason::code)),
        AuthOutcome::Verified(method) => auth(method.as_str(), "verified", ""),
    }
    let limited =
        matches!(key.reason, Some(Reason::RateLimited | Reason::QuotaExhausted | Reason::StoreUnavailable));
    let passed_rules = key.rule.is_some() && key.decision == "allow" && snapshot.has_limits(key.api);
    if limited || (passed_rules && matches!(key.auth, AuthOutcome::Verified(_))) {
        let result = if limited { key.reason.map_or("", Reason::code) } else { "admitted" };
        let limit = key.limit.clone().unwrap_or_else(|| "all".into());
        let labels = vec![api(), Label::new("limit", limit), Label::new("result", result)];
        telemetry.count("portcullis_limit_checks_total", labels, count);
    }
    if let Some(kind @ (Reason::UpstreamUnreachable | Reason::UpstreamTimeout | Reason::UpstreamMalformed)) =
        key.reason
    {
        let labels = vec![
            Label::new("upstream", snapshot.upstream_of(key.api)),
            Label::new("kind", kind.code().trim_start_matches("upstream_")),
        ];
        telemetry.count("portcullis_upstream_errors_total", labels, count);
    }
}

const fn status_class(class: u16) -> &'static str {
    match class {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

/// A caller can invent methods; a label cannot follow.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}
