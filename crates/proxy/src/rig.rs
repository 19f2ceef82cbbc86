//! What the tests of this crate run against: certificates made on the spot, upstreams compiled from memory, and
//! servers of both kinds, well-behaved and rude, all on this thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{Diagnostic, Faults, FileId, Materials, Place, Spanned};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::{BodyLimits, ForwardError, PoolSettings, Pools, Upstream, UpstreamBody, UpstreamSpec};

/// The bodies the tests send.
pub(crate) type TestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// Runs a test as a worker would: one thread, local tasks. A test that hangs fails.
pub(crate) fn on_a_worker<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs")
    })
}

/// A policy node from JSON; all places are the first of file 0.
pub(crate) fn node(value: &Value) -> Node {
    let content = match value {
        Value::Null => Content::Null,
        Value::Bool(value) => Content::Bool(*value),
        Value::Number(number) => Content::Integer(number.as_i64().unwrap()),
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

/// Files that exist only here.
#[derive(Default)]
pub(crate) struct Files(pub(crate) HashMap<&'static str, String>);

impl Materials for Files {
    fn file(&self, _named_in: FileId, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| format!("`{path}` is not there"))
    }

    fn directory(&self, _named_in: FileId, _: &str) -> Result<Option<portcullis_core::NamedFiles>, String> {
        Ok(None)
    }

    fn environment(&self, name: &str) -> Result<Vec<u8>, String> {
        Err(format!("`{name}` is not set"))
    }

    fn credential(&self, name: &str) -> Result<Vec<u8>, String> {
        Err(format!("there is no credential `{name}`"))
    }
}

/// Compiles an upstream, or returns everything that is wrong with it.
pub(crate) fn compile(spec: &Value, files: &Files) -> Result<Arc<Upstream>, Vec<Diagnostic>> {
    let mut faults = Faults::default();
    let upstream = UpstreamSpec::read(&node(spec), &mut faults)
        .and_then(|spec| spec.compile("accounts", files, &mut faults));
    match upstream {
        Some(upstream) if !faults.any_error() => Ok(Arc::new(upstream)),
        _ => Err(faults.into_sorted()),
    }
}

/// An upstream that must compile.
pub(crate) fn upstream(spec: Value) -> Arc<Upstream> {
    compile(&spec, &Files::default()).unwrap()
}

/// Limits nobody meets by accident.
pub(crate) const WIDE: BodyLimits =
    BodyLimits { max_bytes: 1 << 30, idle: Duration::from_secs(60), total: Duration::from_secs(60) };

pub(crate) fn pools() -> Pools<TestBody> {
    Pools::new(PoolSettings::default())
}

pub(crate) fn no_body() -> TestBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn body(text: &'static str) -> TestBody {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn get(target: &str) -> Request<TestBody> {
    Request::get(target).header("host", "api.bank.example").body(no_body()).unwrap()
}

pub(crate) fn post(target: &str, text: &'static str) -> Request<TestBody> {
    Request::post(target).header("host", "api.bank.example").body(body(text)).unwrap()
}

/// Sends and reads the answer to its end.
pub(crate) async fn exchange(
    pools: &Pools<TestBody>,
    upstream: &Arc<Upstream>,
    request: Request<TestBody>,
) -> Result<(u16, String), ForwardError> {
    let answer = pools.send(upstream, request, WIDE).await?;
    let status = answer.status().as_u16();
    Ok((status, text(answer).await))
}

pub(crate) async fn text(answer: Response<UpstreamBody<TestBody>>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server that speaks bytes, not HTTP.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    /// Connections accepted so far.
    pub(crate) connections: Rc<Cell<usize>>,
    /// Heads (and whatever else was read with [`Peer::message`]) of all connections, in order.
    pub(crate) seen: Rc<RefCell<Vec<String>>>,
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// Which connection, counted from 0.
    pub(crate) number: usize,
    seen: Rc<RefCell<Vec<String>>>,
}

impl Peer {
    /// Reads until the bytes end with `end`; `None` when the connection ended first.
    pub(crate) async fn message_until(&mut self, end: &str) -> Option<String> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            bytes.push(self.stream.read_u8().await.ok()?);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.seen.borrow_mut().push(text.clone());
        Some(text)
    }

    /// Reads a head.
    pub(crate) async fn message(&mut self) -> Option<String> {
        self.message_until("\r\n\r\n").await
    }

    pub(crate) async fn say(&mut self, text: &str) {
        // The other end may have gone already; then there is nobody to tell.
        drop(self.stream.write_all(text.as_bytes()).await);
    }

    /// Waits until the other end closes.
    pub(crate) async fn closed(&mut self) {
        while self.stream.read_u8().await.is_ok() {}
    }
}

impl Raw {
    pub(crate) async fn start<F>(script: impl Fn(Peer) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (count, all) = (Rc::clone(&connections), Rc::clone(&seen));
        spawn_local(async move {
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                let number = count.get();
                count.set(number + 1);
                spawn_local(script(Peer { stream, number, seen: Rc::clone(&all) }));
            }
        });
        Self { address, connections, seen }
    }

    /// Answers every request with the same bytes, for as long as the other end likes.
    pub(crate) async fn saying(answer: &'static str) -> Self {
        Self::start(move |mut peer| async move {
            while peer.message().await.is_some() {
                peer.say(answer).await;
            }
        })
        .await
    }

    /// Answers one request of each connection with these bytes, and closes.
    pub(crate) async fn saying_once(answer: &'static str) -> Self {
        Self::start(move |mut peer| async move {
            peer.message().await;
            peer.say(answer).await;
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A certificate authority of this minute.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        AsRef::<rcgen::Certificate>::as_ref(&self.0).pem()
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What a [`Server`] noticed.
#[derive(Default)]
pub(crate) struct Noticed {
    pub(crate) connections: Cell<usize>,
    /// One line per request: `HTTP/2.0 GET /path host=… cookie=…`.
    pub(crate) requests: RefCell<Vec<String>>,
    /// Client certificates of all connections.
    pub(crate) certificates: RefCell<Vec<Option<Vec<u8>>>>,
}

/// A well-behaved server. It answers `/slow` never, everything else with what it got.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) noticed: Rc<Noticed>,
}

/// How a [`Server`] shakes hands.
pub(crate) struct Shake {
    pub(crate) issued: Issued,
    /// Whose client certificates it asks for.
    pub(crate) clients: Option<String>,
    pub(crate) alpn: &'static [&'static str],
}

impl Server {
    pub(crate) async fn start(shake: Option<Shake>, http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let noticed = Rc::new(Noticed::default());
        let acceptor = shake.map(|shake| tokio_rustls::TlsAcceptor::from(Arc::new(shake.config())));
        let witness = Rc::clone(&noticed);
        spawn_local(async move {
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                let (acceptor, noticed) = (acceptor.clone(), Rc::clone(&witness));
                spawn_local(async move {
                    noticed.connections.set(noticed.connections.get() + 1);
                    let Some(acceptor) = acceptor else { return serve(stream, http2, noticed).await };
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let http2 = session.alpn_protocol() == Some(b"h2");
                    let certificate =
                        session.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec());
                    noticed.certificates.borrow_mut().push(certificate);
                    serve(stream, http2, noticed).await;
                });
            }
        });
        Self { address, noticed }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.address.port())
    }
}

impl Shake {
    pub(crate) fn config(self) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let anchors = Arc::new(crate::tls::anchors(pem.as_bytes()).unwrap());
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(anchors, provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(self.issued.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.issued.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

async fn serve<S>(stream: S, http2: bool, noticed: Rc<Noticed>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let noticed = Rc::clone(&noticed);
        async move { answer(request, &noticed).await }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is what the tests look at from the other side.
    if http2 {
        drop(hyper::server::conn::http2::Builder::new(Local).serve_connection(io, service).await);
    } else {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
    }
}

async fn answer(request: Request<Incoming>, noticed: &Noticed) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = match request.headers().get("host") {
        Some(host) => host.to_str().unwrap().to_owned(),
        None => request.uri().authority().map(ToString::to_string).unwrap_or_default(),
    };
    let path = request.uri().path_and_query().unwrap().to_string();
    let te = request.headers().get("te").map(|te| format!(" te={}", te.to_str().unwrap()));
    let line =
        format!("{:?} {} {path} host={host}{}", request.version(), request.method(), te.unwrap_or_default());
    noticed.requests.borrow_mut().push(line);
    if path == "/slow" {
        std::future::pending::<()>().await;
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(spawn_local(future));
    }
}
