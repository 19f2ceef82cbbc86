//! A well-behaved client: hyper over rustls, HTTP/1.1 or HTTP/2, with or without a client certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_core::Reason;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::certificates::{Authority, Leaf};
use super::{PATIENCE, runtime};

fn roots(der: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der.to_vec())).expect("a root");
    roots
}

fn chain(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificates = leaf.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    (certificates, PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).expect("a key"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS settings for the rig's own servers; `client_roots` makes a client certificate compulsory.
pub(crate) fn server_tls(leaf: &Leaf, client_roots: Option<&[u8]>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match client_roots {
        None => builder.with_no_client_auth(),
        Some(der) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(der)), provider())
                .build()
                .expect("a verifier"),
        ),
    };
    let (certificates, key) = chain(leaf);
    Arc::new(builder.with_single_cert(certificates, key).expect("a certificate with its key"))
}

/// Where and how to knock.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// The root that server certificates must lead to; `None` means plain TCP.
    root: Option<Vec<u8>>,
    certificate: Option<Arc<Leaf>>,
    /// The name in the handshake.
    server_name: String,
    /// The name in the request.
    host: String,
    http2: bool,
    /// What it sends before anything else, TLS included.
    announcement: Vec<u8>,
    version: Option<&'static SupportedProtocolVersion>,
    /// The address it calls from.
    from: IpAddr,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer(pub(crate) String);

impl Client {
    /// One that speaks without TLS.
    pub(crate) fn plain(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            root: None,
            certificate: None,
            server_name: host.to_owned(),
            host: host.to_owned(),
            http2: false,
            announcement: Vec::new(),
            version: None,
            from: Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// One that speaks TLS and trusts this authority.
    pub(crate) fn tls(address: SocketAddr, host: &str, root: &Authority) -> Self {
        Self { root: Some(root.der().to_vec()), ..Self::plain(address, host) }
    }

    /// One that speaks TLS and trusts the authority in a PEM file.
    pub(crate) fn tls_with_root(address: SocketAddr, host: &str, pem: &[u8]) -> Self {
        let root = CertificateDer::from_pem_slice(pem).expect("a certificate");
        Self { root: Some(root.to_vec()), ..Self::plain(address, host) }
    }

    /// Presents this certificate.
    pub(crate) fn certificate(mut self, leaf: &Arc<Leaf>) -> Self {
        self.certificate = Some(Arc::clone(leaf));
        self
    }

    /// Speaks HTTP/2: by ALPN inside TLS, with prior knowledge outside.
    pub(crate) fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Calls from this address; all of 127.0.0.0/8 is this machine's.
    pub(crate) fn from(mut self, address: [u8; 4]) -> Self {
        self.from = address.into();
        self
    }

    /// Sends these bytes before anything else, as a proxy does that relays the rest.
    pub(crate) fn announcing(mut self, header: impl AsRef<[u8]>) -> Self {
        self.announcement = header.as_ref().to_vec();
        self
    }

    /// What it sends before anything else.
    pub(crate) fn announcement(&self) -> &[u8] {
        &self.announcement
    }

    /// Speaks only this version of TLS.
    pub(crate) fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// Names another server in the handshake than in the request.
    pub(crate) fn server_name(mut self, name: &str) -> Self {
        self.server_name = name.to_owned();
        self
    }

    /// Names another host in the request than in the handshake.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// The TLS settings, if it speaks TLS.
    pub(crate) fn tls_config(&self) -> Option<Arc<ClientConfig>> {
        let root = self.root.as_deref()?;
        let versions = self.version.map_or(rustls::ALL_VERSIONS.to_vec(), |version| vec![version]);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .expect("versions")
            .with_root_certificates(roots(root));
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let (certificates, key) = chain(leaf);
                builder.with_client_auth_cert(certificates, key).expect("a client certificate")
            }
        };
        config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Some(Arc::new(config))
    }

    /// The name to verify in the handshake.
    pub(crate) fn tls_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.server_name.clone()).expect("a server name")
    }

    /// A request to be filled in.
    pub(crate) fn request(&self, method: Method, target: &str) -> Call {
        Call {
            client: self.clone(),
            method,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A GET.
    pub(crate) fn get(&self, target: &str) -> Call {
        self.request(Method::GET, target)
    }

    /// A POST.
    pub(crate) fn post(&self, target: &str, body: impl Into<Bytes>) -> Call {
        let mut call = self.request(Method::POST, target);
        call.body = body.into();
        call
    }

    /// Opens a connection that stays.
    pub(crate) fn connect(&self) -> Result<Session, NoAnswer> {
        runtime().block_on(async {
            let open = tokio::time::timeout(PATIENCE, self.open()).await;
            open.map_err(|_| NoAnswer("connecting hangs".into()))?
        })
    }

    async fn open(&self) -> Result<Session, NoAnswer> {
        let socket = TcpSocket::new_v4().map_err(said)?;
        if !self.from.is_unspecified() {
            socket.bind((self.from, 0).into()).map_err(said)?;
        }
        let mut stream = socket.connect(self.address).await.map_err(said)?;
        stream.set_nodelay(true).map_err(said)?;
        stream.write_all(&self.announcement).await.map_err(said)?;
        match self.tls_config() {
            None => self.handshake(stream).await,
            Some(config) => {
                let stream =
                    TlsConnector::from(config).connect(self.tls_name(), stream).await.map_err(said)?;
                self.handshake(stream).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<Session, NoAnswer>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        let sender = if self.http2 {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(said)?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(said)?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Ok(Session { sender })
    }
}

fn said(error: impl std::error::Error) -> NoAnswer {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    NoAnswer(text)
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// A connection that stays.
pub(crate) struct Session {
    sender: Sender,
}

impl Session {
    /// Sends one request on this connection, and reads the whole answer.
    pub(crate) fn send(&mut self, call: Call) -> Result<Answer, NoAnswer> {
        runtime().block_on(async {
            let exchange = tokio::time::timeout(PATIENCE, self.exchange(call)).await;
            exchange.map_err(|_| NoAnswer("the answer hangs".into()))?
        })
    }

    async fn exchange(&mut self, call: Call) -> Result<Answer, NoAnswer> {
        let scheme = if call.client.root.is_some() { "https" } else { "http" };
        let mut builder = http::Request::builder().method(call.method);
        let response: http::Response<Incoming> = match &mut self.sender {
            Sender::Http1(sender) => {
                builder = builder.uri(call.target).header("host", &call.client.host);
                let mut request = builder.body(Full::new(call.body)).expect("a request");
                request.headers_mut().extend(call.headers);
                sender.ready().await.map_err(said)?;
                sender.send_request(request).await.map_err(said)?
            }
            Sender::Http2(sender) => {
                builder = builder.uri(format!("{scheme}://{}{}", call.client.host, call.target));
                let mut request = builder.body(Full::new(call.body)).expect("a request");
                request.headers_mut().extend(call.headers);
                sender.ready().await.map_err(said)?;
                sender.send_request(request).await.map_err(said)?
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(said)?.to_bytes().to_vec();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct Call {
    client: Client,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// Adds a field; twice means two fields.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a field name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a field value"));
        self
    }

    /// Adds a body, also where the method has no use for one.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a bearer token.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sends it on a connection of its own.
    pub(crate) fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        self.attempt().unwrap_or_else(|failure| panic!("{what} had no answer: {}", failure.0))
    }

    /// Sends it where no answer may be the right answer.
    pub(crate) fn attempt(self) -> Result<Answer, NoAnswer> {
        self.client.connect()?.send(self)
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a field that may be there once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        assert!(values.next().is_none(), "`{name}` is repeated in {self:?}");
        Some(first.to_str().expect("a readable field"))
    }

    /// All challenges, one a field (ANS-02).
    pub(crate) fn challenges(&self) -> Vec<&str> {
        let values = self.headers.get_all("www-authenticate").iter();
        values.map(|value| value.to_str().expect("a readable challenge")).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The stable code of the problem it carries.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("no code in {}", self.text())).to_owned()
    }

    /// Checks that the upstream has answered, and nobody else.
    #[track_caller]
    pub(crate) fn assert_passed(&self) -> &Self {
        assert_eq!((self.status, self.text().as_str()), (200, "hello\n"), "{:?}", self.headers);
        self
    }

    /// Checks everything that is promised for any refusal of this reason.
    #[track_caller]
    pub(crate) fn assert_refused(&self, reason: Reason) -> &Self {
        assert_eq!(
            (self.status, self.code().as_str()),
            (reason.status().as_u16(), reason.code()),
            "{} {:?}",
            self.text(),
            self.headers
        );
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["title"], reason.title(), "{problem}");
        assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
        assert!(self.header("server").is_none(), "{:?}", self.headers);
        // ANS-05: nobody may keep a refusal.
        assert_eq!(self.header("cache-control"), Some("no-store"), "{:?}", self.headers);
        if self.status == 401 {
            assert!(!self.challenges().is_empty(), "a 401 without a challenge: {:?}", self.headers);
        }
        if self.status >= 500 {
            assert!(!self.challenges().iter().any(|c| c.contains("error=")), "{:?}", self.challenges());
        }
        if self.status == 429 {
            let wait = self.header("retry-after").expect("Retry-After");
            assert!(wait.parse::<u64>().is_ok_and(|seconds| seconds >= 1), "retry-after: {wait}");
        }
        self
    }
}
