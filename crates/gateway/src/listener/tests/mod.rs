//! A listener on loopback with a service that remembers what reached it.

mod desync;
mod handshake;
mod hygiene;
mod limits;
mod spec;
mod tls;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{
    Clock, Connection, Diagnostic, Faults, FileId, Materials, Place, Rejection, Severity, Spanned,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::{
    Drain, Event, Inbound, IncomingBody, ListenSpec, Listener, ListenerSettings, Serve, TlsPolicyIds, run,
};

/// Builds the tree of a policy file from JSON.
pub(super) fn node(value: &serde_json::Value) -> Node {
    use serde_json::Value;
    let content = match value {
        Value::Null => Content::Null,
        Value::Bool(value) => Content::Bool(*value),
        Value::Number(number) => Content::Integer(number.as_i64().expect("a whole number")),
        Value::String(text) => Content::Text(text.clone()),
        Value::Array(items) => Content::List(items.iter().map(node).collect()),
        Value::Object(members) => Content::Map(
            members
                .iter()
                .map(|(key, value)| Entry {
                    key: Spanned::new(key.clone(), Place::default()),
                    value: node(value),
                })
                .collect(),
        ),
    };
    Node { place: Place::default(), content }
}

/// Files in memory. A name that ends in a slash is a directory.
#[derive(Default)]
pub(super) struct Files(pub(super) HashMap<String, Vec<u8>>);

impl Files {
    pub(super) fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.insert(name.to_owned(), content.as_ref().to_vec());
        self
    }
}

impl Materials for Files {
    fn file(&self, _: FileId, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| format!("`{path}` does not exist"))
    }

    fn directory(&self, _: FileId, path: &str) -> Result<Option<portcullis_core::NamedFiles>, String> {
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with(path))
            .map(|(n, c)| (n.clone(), c.clone()))
            .collect();
        found.sort();
        Ok(path.ends_with('/').then_some(found))
    }

    fn environment(&self, name: &str) -> Result<Vec<u8>, String> {
        Err(format!("{name} is not set"))
    }

    fn credential(&self, name: &str) -> Result<Vec<u8>, String> {
        Err(format!("there is no credential {name}"))
    }
}

/// Nobody can be asked.
fn offline() -> super::Online {
    let fetchers = portcullis_core::Fetchers::new(|trust| {
        let fetcher = portcullis_proxy::HttpFetcher::new(trust, None).map_err(|error| error.to_string())?;
        Ok(Arc::new(fetcher))
    });
    super::Online { fetchers, background: None }
}

/// Reads and compiles one listener named `door`, or says what is wrong.
pub(super) fn compiled(
    listener: &serde_json::Value,
    files: &Files,
    clock: &Clock,
    ids: &TlsPolicyIds,
) -> Result<Arc<ListenerSettings>, Vec<Diagnostic>> {
    let mut faults = Faults::default();
    let specs = ListenSpec::read_all(&node(&serde_json::json!({ "door": listener })), &mut faults);
    let settings = ListenerSettings::compile_all(&specs, files, ids, clock, &offline(), &mut faults);
    let any_error = faults.any_error();
    let mut diagnostics = faults.into_sorted();
    diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    match settings.and_then(|mut settings| settings.pop()) {
        Some(settings) if !any_error => Ok(Arc::new(settings)),
        _ => Err(diagnostics),
    }
}

/// What reached the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) target: String,
    /// `None` if the body broke off.
    pub(super) body: Option<Vec<u8>>,
}

/// How the service deals with a request, said by its path.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) seen: RefCell<Vec<Seen>>,
    pub(super) connections: RefCell<Vec<Connection>>,
    pub(super) events: RefCell<Vec<Event>>,
    /// Requests begun and not ended, whatever became of them.
    pub(super) begun: RefCell<u64>,
}

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn refusal(fault: super::FramingFault) -> Answer {
    let rejection = Rejection::from(fault);
    let mut response = answer(rejection.reason().status(), rejection.reason().code());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

impl Recorder {
    /// `/unread` answers without reading the body, `/panic` panics, `/never` never answers, `/large` answers with
    /// 16 MiB in pieces; anything else reads the body and says `served`.
    async fn answer(self: Rc<Self>, request: Request<IncomingBody>, inbound: Rc<Inbound>) -> Answer {
        *self.begun.borrow_mut() += 1;
        if let Some(fault) = inbound.framing_fault() {
            return refusal(fault);
        }
        let (head, body) = request.into_parts();
        let target = head.uri.to_string();
        let path = head.uri.path();
        self.connections.borrow_mut().push(inbound.connection().clone());
        if path == "/unread" {
            self.seen.borrow_mut().push(Seen { target, body: None });
            return answer(StatusCode::UNAUTHORIZED, "who are you");
        }
        let body = body.collect().await.map(|body| body.to_bytes().to_vec()).ok();
        let broken = body.is_none();
        self.seen.borrow_mut().push(Seen { target, body });
        match (path, inbound.framing_fault()) {
            (_, Some(fault)) => refusal(fault),
            _ if broken => answer(StatusCode::REQUEST_TIMEOUT, "broken"),
            ("/panic", None) => panic!("this is asked for"),
            ("/never", None) => std::future::pending().await,
            ("/large", None) => {
                let piece = Bytes::from(vec![b'l'; 64 << 10]);
                let pieces = std::iter::repeat_n(piece, 256).map(|piece| Ok(Frame::data(piece)));
                let pieces = futures_util::stream::iter(pieces);
                Response::new(BodyExt::boxed_unsync(StreamBody::new(pieces)))
            }
            _ => answer(StatusCode::OK, "served"),
        }
    }

    pub(super) fn targets(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|seen| seen.target.clone()).collect()
    }

    pub(super) fn has(&self, event: Event) -> bool {
        self.events.borrow().contains(&event)
    }

    /// Waits for an event: the client's side of a connection can end before ours.
    pub(super) async fn observed(&self, event: Event) {
        until(|| self.has(event)).await;
    }
}

pub(super) struct Service(pub(super) Rc<Recorder>, pub(super) Arc<ListenerSettings>);

impl Serve for Service {
    type Body = UnsyncBoxBody<Bytes, Infallible>;
    type Future = Pin<Box<dyn Future<Output = Answer>>>;

    fn serve(&self, request: Request<IncomingBody>, inbound: &Rc<Inbound>) -> Self::Future {
        Box::pin(Rc::clone(&self.0).answer(request, Rc::clone(inbound)))
    }

    fn settings(&self, _: &str) -> Option<Arc<ListenerSettings>> {
        Some(Arc::clone(&self.1))
    }

    fn observe(&self, _: &Arc<str>, event: Event) {
        self.0.events.borrow_mut().push(event);
    }
}

/// A running listener.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) recorder: Rc<Recorder>,
    pub(super) drain: Drain,
    pub(super) listener: Arc<Listener>,
    pub(super) settings: Arc<ListenerSettings>,
}

impl Rig {
    /// Runs a listener inside the current `LocalSet`.
    pub(super) fn start(settings: &Arc<ListenerSettings>, clock: &Clock) -> Self {
        let (listener, bound) = Listener::bind(settings, 1).expect("a free port");
        let (recorder, drain) = (Rc::new(Recorder::default()), Drain::default());
        for socket in bound {
            let service = Rc::new(Service(Rc::clone(&recorder), Arc::clone(settings)));
            tokio::task::spawn_local(run(socket, service, drain.clone(), clock.clone()));
        }
        Self { address: listener.address(), recorder, drain, listener, settings: Arc::clone(settings) }
    }

    /// A plain listener with these limits.
    pub(super) fn plain(limits: serde_json::Value) -> Self {
        let listener = serde_json::json!({ "address": "127.0.0.1:0", "limits": limits });
        let settings = compiled(&listener, &Files::default(), &Clock::System, &TlsPolicyIds::default());
        Self::start(&settings.expect("good settings"), &Clock::System)
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends bytes on a connection of their own, ends our side, and reads what comes back until the end.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("sent");
        // The other side may have closed already.
        let _ = stream.shutdown().await;
        read_to_end(&mut stream).await
    }
}

/// Everything until the connection ends, in whatever way.
pub(super) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Lets the worker go on until something holds.
pub(super) async fn until(holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reached).await.expect("it never happened");
}

/// Status codes of the answers in a byte stream.
pub(super) fn statuses(answers: &str) -> Vec<u16> {
    answers
        .match_indices("HTTP/1.")
        .filter_map(|(at, _)| answers.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

/// Runs a test the way a worker runs.
pub(super) fn on_worker<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async move { test().await });
}
