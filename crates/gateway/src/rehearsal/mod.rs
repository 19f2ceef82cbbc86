//! Asks the stack that serves what it would say, without a network: the policies are compiled as `run` compiles them,
//! a request takes every stage, and a terminal answers where `forward` would send.
//!
//! What is outside is somebody else's to play: keys and certificates are [`StandIns`], servers that are asked are
//! [`Outside`], the clock stands still until it is moved.

mod written;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use portcullis_authn::Step;
use portcullis_core::{
    Callers, Clock, Connection, Diagnostic, Faults, Fetchers, ManualClock, PeerCertificate, TlsFacts,
};
use portcullis_policy::Told;
use portcullis_proxy::{PoolSettings, Pools};
use rustls_pki_types::{CertificateDer, UnixTime};
use tower::Service as _;

pub use written::{StandIns, Written};

use crate::body::ReplyBody;
use crate::config::{self, Resources};
use crate::events::Events;
use crate::exchange::{Admitted, Ended, Exchange, Reply};
use crate::listener::{Inbound, IncomingBody, ListenerSettings};
use crate::passage::Passage;
use crate::request_body::RequestBody;
use crate::snapshot::Snapshot;
use crate::stack::stack_over;
use crate::stages::forward::prepare;
use crate::worker::Worker;

/// How long before its moment a rehearsal begins: what was signed in the first second of a gateway may have been used
/// in an earlier run, and is refused where it counts once.
const WARM_UP: Duration = Duration::from_secs(60);

/// Who is asked for keys and answers.
pub enum Outside {
    /// Somebody who plays the network.
    Played {
        /// Over HTTP.
        fetchers: Fetchers,
        /// Over gRPC.
        callers: Callers,
    },
    /// The servers the policies name.
    Real,
}

/// A request, and the connection it comes by.
pub struct Question<'q> {
    /// The listener, by name; the first one of `gateway.yaml` where none is named.
    pub listener: Option<&'q str>,
    /// The address of whoever calls.
    pub from: IpAddr,
    /// The host a handshake asks for.
    pub server_name: Option<&'q str>,
    /// The certificate a handshake shows, DER.
    pub certificate: Option<&'q [u8]>,
    /// The request.
    pub request: Request<Bytes>,
}

/// What became of a request.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The status; 0 where the handshake already failed.
    pub status: u16,
    /// The code of a refusal.
    pub reason: Option<&'static str>,
    /// What the log would say of it, beside the code.
    pub why: Option<String>,
    /// The API.
    pub api: Option<String>,
    /// The rule that allowed it.
    pub rule: Option<String>,
    /// The caller's name.
    pub identity: Option<String>,
    /// The caller's group; known of requests that are admitted.
    pub group: Option<String>,
    /// Which of the caller's credentials it was.
    pub key_id: Option<String>,
    /// The limit that refused.
    pub limit: Option<String>,
    /// What a chain in shadow would have said.
    pub shadow: Option<&'static str>,
    /// The fields the upstream would get; empty unless it is admitted.
    pub sent: HeaderMap,
    /// The fields of the answer.
    pub answered: HeaderMap,
    /// What a refusal says to the caller.
    pub body: Bytes,
    /// The caller's certificate, as the listener or a proxy in front of it has told it.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// What the chain did.
    pub steps: Vec<Step>,
    /// The caller's plans, where the API takes some.
    pub plans: Vec<Arc<str>>,
    /// What each rule said, down to the first that fits.
    pub rules: Vec<Told>,
}

/// The reason of a request that there never was, because its handshake failed. It is none of those callers are told.
pub const HANDSHAKE: &str = "handshake_failed";

/// A gateway that nobody can reach but who holds it.
pub struct Rehearsal {
    runtime: tokio::runtime::Runtime,
    local: tokio::task::LocalSet,
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    clock: ManualClock,
}

impl Rehearsal {
    /// Compiles the policies with stand-ins, at a second since 1970.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        written: &Written,
        stand_ins: &StandIns,
        outside: Outside,
        at: i64,
    ) -> Result<Self, Vec<Diagnostic>> {
        let nowhere = |text: String| vec![Diagnostic::nowhere("no_resources", text)];
        let clock = ManualClock::at_unix_seconds(at);
        let warm_up = i64::try_from(WARM_UP.as_secs()).unwrap_or_default();
        clock.set_unix_seconds(at.saturating_sub(warm_up));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| nowhere(error.to_string()))?;
        let resources = match outside {
            Outside::Played { fetchers, callers } => Resources::rehearsed(
                (fetchers, callers),
                Clock::Manual(clock.clone()),
                runtime.handle().clone(),
            ),
            Outside::Real => {
                Resources::rehearsed_for_real(Clock::Manual(clock.clone()), runtime.handle().clone())
            }
        };
        let resources = resources.map_err(|error| nowhere(error.to_string()))?;
        let mut faults = Faults::default();
        let mut sources = written.sources.clone();
        sources.stand_in(stand_ins.files.clone());
        let spec = stand_ins.trees.spec(&mut faults);
        let compiled = spec.and_then(|spec| config::compile(spec, &sources, &resources, &mut faults));
        let Some(compiled) = compiled.filter(|_| !faults.any_error()) else {
            return Err(Written::errors(faults));
        };
        clock.advance(WARM_UP);
        let snapshot = Arc::new(compiled.snapshot);
        let pools = Pools::new(PoolSettings::default());
        let worker =
            Worker::new(Arc::clone(&snapshot), pools, None, Events::default(), Clock::Manual(clock.clone()));
        let local = tokio::task::LocalSet::new();
        Ok(Self { runtime, local, worker: Rc::new(worker), snapshot, clock })
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// The rules of each API, by name.
    pub fn rules(&self) -> Vec<(String, String)> {
        let of_api = |api: &Arc<crate::snapshot::Api>| {
            api.rules.names().map(|rule| (api.name.to_string(), rule.to_string())).collect::<Vec<_>>()
        };
        self.snapshot.apis.iter().flat_map(of_api).collect()
    }

    /// Takes a request through the stack.
    pub fn ask(&self, question: Question<'_>) -> Outcome {
        let Some(listener) = self.listener(question.listener) else {
            return refused_at_the_door("there is no such listener".to_owned());
        };
        match self.connection(listener, &question) {
            Ok(connection) => {
                let inbound = Inbound::new(connection, false);
                self.local.block_on(&self.runtime, self.answer(question.request, &inbound))
            }
            Err(why) => refused_at_the_door(why),
        }
    }

    fn listener(&self, name: Option<&str>) -> Option<&ListenerSettings> {
        match name {
            Some(name) => self.snapshot.doors.listener(name).map(Arc::as_ref),
            None => self.snapshot.doors.0.first().map(Arc::as_ref),
        }
    }

    /// The connection a listener would make of the two ends and the certificate.
    fn connection(&self, listener: &ListenerSettings, question: &Question<'_>) -> Result<Connection, String> {
        let announced = listener.proxy_protocol.is_some();
        let proxy = announced.then(|| SocketAddr::from(([127, 0, 0, 1], 40_000)));
        let (tls, handshake_certificate) = match &listener.tls {
            None if question.certificate.is_some() => {
                return Err("this listener speaks no TLS, so no certificate can be shown".to_owned());
            }
            None => (None, None),
            Some(settings) => {
                let policy = settings.policy_for(question.server_name);
                let certificate = match (&policy.verifier, question.certificate) {
                    (Some(verifier), Some(leaf)) => {
                        Some(self.judge(|leaf, now| verifier.accept(leaf, &[], now), leaf)?)
                    }
                    (Some(verifier), None) if verifier.requires() => {
                        return Err(
                            "the client shows no certificate, and this listener requires one".to_owned()
                        );
                    }
                    _ => None,
                };
                let server_name = question.server_name.map(|name| name.to_ascii_lowercase().into());
                (Some(TlsFacts { policy: policy.id, version: "TLSv1.3", server_name }), certificate)
            }
        };
        Ok(Connection {
            peer: (question.from, 40_000).into(),
            proxy,
            shared: !announced && listener.knows_a_proxy_at(question.from.to_canonical()),
            listener: Arc::clone(&listener.name),
            tls,
            handshake_certificate,
        })
    }

    fn judge(
        &self,
        accept: impl Fn(&CertificateDer<'_>, UnixTime) -> Result<Arc<PeerCertificate>, rustls::Error>,
        leaf: &[u8],
    ) -> Result<Arc<PeerCertificate>, String> {
        let seconds = Clock::Manual(self.clock.clone()).now().unix_seconds();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        accept(&CertificateDer::from(leaf), now).map_err(|error| error.to_string())
    }

    async fn answer(&self, request: Request<Bytes>, inbound: &Rc<Inbound>) -> Outcome {
        let (head, content) = request.into_parts();
        let request = Request::from_parts(head, IncomingBody::Empty);
        let mut exchange = self.worker.open(request, inbound);
        exchange.passage.body = RequestBody::whole(content);
        exchange.passage.ledger.notes = Some(Box::default());
        let Ok(response) = stack_over(tower::service_fn(stand_in)).call(exchange).await;
        let mut outcome = response.body().passage().map(outcome).unwrap_or_default();
        outcome.status = response.status().as_u16();
        outcome.answered = response.headers().clone();
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if outcome.decision == "allow" {
            let group = String::from_utf8(body.to_vec()).ok();
            outcome.group = group.filter(|group| !group.is_empty());
        } else {
            outcome.body = body;
        }
        outcome
    }
}

/// Answers in the place of an upstream, with the caller's group. What the upstream would have got stays in the passage.
async fn stand_in(mut exchange: Exchange<Admitted>) -> Result<Reply, Ended> {
    if let Err(rejection) = prepare(&mut exchange) {
        return Err(exchange.refuse(rejection));
    }
    let Exchange { mut passage, proof } = exchange;
    passage.ledger.status = StatusCode::OK;
    let group = proof.principal.group.as_ref().map(|group| Bytes::copy_from_slice(group.as_bytes()));
    let mut response = Response::new(ReplyBody::Own(group));
    if let (Some(limits), Some(admission)) = (&proof.api.limits, &proof.admission) {
        limits.write_fields(admission, StatusCode::OK, response.headers_mut());
    }
    Ok(Reply { response, passage })
}

/// What the log would say.
fn outcome(passage: &Passage) -> Outcome {
    let record = passage.record(Duration::ZERO);
    let sent = if record.decision == "allow" { passage.head.headers.clone() } else { HeaderMap::new() };
    let text = |text: Option<Arc<str>>| text.map(|text| text.to_string());
    let notes = passage.ledger.notes.as_ref();
    Outcome {
        decision: record.decision,
        status: 0,
        reason: record.reason,
        why: record.detail,
        api: text(record.api),
        rule: text(record.rule),
        identity: text(record.identity),
        group: None,
        key_id: text(record.key_id),
        limit: text(record.limit),
        shadow: record.shadow,
        sent,
        answered: HeaderMap::new(),
        body: Bytes::new(),
        certificate: passage.certificate().cloned(),
        steps: notes.map(|notes| notes.trace.steps()).unwrap_or_default(),
        plans: notes.map(|notes| notes.plans.clone()).unwrap_or_default(),
        rules: notes.map(|notes| notes.rules.clone()).unwrap_or_default(),
    }
}

fn refused_at_the_door(why: String) -> Outcome {
    Outcome { decision: "deny", reason: Some(HANDSHAKE), why: Some(why), ..Outcome::default() }
}
