//! One request's way through the gateway: where it comes from, what it is judged by, who carries it, and what is
//! remembered about it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, StatusCode};
use portcullis_core::{LogLevel, PeerCertificate, Reason};
use portcullis_policy::Reserved;

use crate::access_log::{Record, shortened};
use crate::events::Refused;
use crate::forward::hex;
use crate::ledger::{AuthRecord, Ledger};
use crate::listener::Inbound;
use crate::listener::forwarded::CallersCertificate;
use crate::request_body::RequestBody;
use crate::snapshot::LocalSnapshot;
use crate::telemetry::shard::method_label;
use crate::worker::Worker;

/// Goes with the request through every stage and with its answer to the last byte. However that ends - answered,
/// refused, broken off, abandoned by the client - dropping it closes the record: once, with its metrics and its log
/// line. That is why this is a `Drop`: no path can forget it.
pub(crate) struct Passage {
    /// Method, target and headers, until it is forwarded.
    pub(crate) head: Parts,
    /// The body, not read by any stage before `forward` but by `authenticate`, where a credential signs over it.
    pub(crate) body: RequestBody,
    /// The connection it arrived on.
    pub(crate) inbound: Rc<Inbound>,
    /// Whose certificate is the caller's; settled by `route`, before any stage asks.
    pub(crate) certificate_from: CallersCertificate,
    /// The configuration it is judged by, from the first stage to the last.
    pub(crate) snapshot: Rc<LocalSnapshot>,
    /// The thread that carries it, with its pools and caches.
    pub(crate) worker: Rc<Worker>,
    /// Units of limits that count answers, until there is one.
    pub(crate) reserved: Reserved,
    /// What is remembered about it.
    pub(crate) ledger: Ledger,
}

impl Passage {
    /// Gives back the units of limits that do not count the answer. Without one they stay taken.
    pub(crate) fn settle(&mut self, status: StatusCode) {
        if self.reserved.is_empty() {
            return;
        }
        let reserved = std::mem::take(&mut self.reserved);
        if let Some(limits) = self.ledger.api.as_ref().and_then(|api| api.limits.as_ref()) {
            limits.settle(reserved, status, self.worker.clock().now());
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ledger.status = StatusCode::INTERNAL_SERVER_ERROR;
            self.ledger.reason = Some(Reason::InternalError);
        }
        let total = self.worker.since(self.ledger.opened);
        self.snapshot.shard.end(&self.ledger, total);
        let is_refused = self.ledger.reason.is_some() || matches!(self.ledger.shadow, Some(Err(_)));
        if is_refused || self.worker.access_log.is_some() {
            let record = self.record(total);
            if is_refused {
                self.worker.denials.note(record.clone());
            }
            if let Some(reason) = self.ledger.reason {
                self.worker.events.refused(reason, || refused(reason, &record));
            }
            if let Some(log) = &self.worker.access_log {
                log.write(record);
            }
        }
    }
}

impl Passage {
    /// Takes the request out, to be sent on.
    pub(crate) fn take_request(&mut self) -> Request<RequestBody> {
        let (nothing, ()) = Request::new(()).into_parts();
        Request::from_parts(std::mem::replace(&mut self.head, nothing), self.take_body())
    }

    /// Takes the body out; none is left.
    pub(crate) fn take_body(&mut self) -> RequestBody {
        std::mem::replace(&mut self.body, RequestBody::Whole(None))
    }

    /// The caller's certificate: the one accessor for whoever decides by it.
    pub(crate) fn certificate(&self) -> Option<&Arc<PeerCertificate>> {
        match &self.certificate_from {
            CallersCertificate::Handshake => self.inbound.connection().handshake_certificate.as_ref(),
            CallersCertificate::Settled(settled) => settled.as_ref(),
        }
    }

    /// The caller's certificate, if it counts at this moment. SECURITY: a connection outlives its certificate and the
    /// revocation list that spoke for it, so whoever tells others of it asks here (TLS-05).
    pub(crate) fn current_certificate(&self) -> Option<&Arc<PeerCertificate>> {
        self.certificate().filter(|certificate| certificate.is_current(self.ledger.opened))
    }

    /// What the log says of it.
    pub(crate) fn record(&self, total: Duration) -> Record {
        let ledger = &self.ledger;
        let api = ledger.api.as_ref();
        let rule = ledger.rule.and_then(|permit| Some((api?, permit)));
        let template = rule.and_then(|(api, permit)| api.rules.path_template(permit));
        Record {
            ts: timestamp(ledger.opened.unix_ms),
            level: ledger.reason.map_or(LogLevel::Info, Reason::level).as_str(),
            request_id: ledger.id.to_string(),
            listener: self.inbound.connection().listener.clone(),
            api: api.map(|api| api.name.clone()),
            rule: rule.and_then(|(api, permit)| api.rules.rule_name(permit).cloned()),
            method: method_label(&ledger.method),
            path: template
                .map(|template| template.to_string())
                .or_else(|| ledger.path.clone())
                .or_else(|| Some(api?.path.to_string()))
                .map(shortened),
            status: ledger.status.as_u16(),
            decision: ledger.decision(),
            reason: ledger.reason.map(|reason| reason.code()),
            detail: ledger.inner.clone().map(shortened),
            limit: ledger.limit.clone(),
            identity: ledger.principal.clone(),
            key_id: ledger.key_id.clone(),
            auth: match ledger.auth {
                AuthRecord::Verified { method, .. } => Some(method.as_str()),
                AuthRecord::NotReached | AuthRecord::Refused { .. } => None,
            },
            shadow: ledger.shadow.map(|trial| match trial {
                Ok(()) => "would_allow",
                Err(reason) => reason.code(),
            }),
            cert: ledger.certificate.map(|thumbprint| hex(thumbprint.get(..8).unwrap_or_default())),
            client: self.inbound.connection().address().to_string(),
            gateway_ms: milliseconds(ledger.forwarded_at.unwrap_or(total)),
            upstream_ms: ledger
                .forwarded_at
                .and_then(|sent| Some(milliseconds(ledger.answered_at?.saturating_sub(sent)))),
            total_ms: milliseconds(total),
            out: ledger.bytes_out,
            config: self.snapshot.shared.hash.clone(),
        }
    }
}

/// What events tell of a refusal: nothing the log does not tell.
fn refused(reason: Reason, record: &Record) -> Option<Refused> {
    Some(Refused {
        api: record.api.clone()?,
        reason,
        limit: record.limit.clone(),
        identity: record.identity.clone(),
        client: record.client.clone(),
        request_id: record.request_id.clone(),
    })
}

fn timestamp(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| String::new(), |instant| format!("{instant:.3}"))
}

/// Microseconds are as fine as it makes sense to read.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}
