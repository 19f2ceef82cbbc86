//! An upstream that remembers exactly what reached it, and can be told to misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::client::server_tls;
use super::runtime;

/// How the upstream answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// 200 with a small body; the request's body is read first.
    Polite,
    /// These bytes, whatever they are, and then the connection stays open.
    Says(Vec<u8>),
    /// These bytes, and then the connection is closed.
    SaysAndLeaves(Vec<u8>),
    /// Reads the request and never answers.
    Silent,
    /// Answers politely, this much later.
    Slow(Duration),
    /// Answers with the first bytes, and with the second ones when [`Upstream::release`] is called.
    InTwoParts(Vec<u8>, Vec<u8>),
    /// Answers 200 as soon as the head is there, and never reads the body.
    IgnoresBody,
    /// A 200 whose body is as long as told.
    Long(usize),
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// HTTP/1: the bytes of the head, up to and with the empty line. HTTP/2: the same, as it would have been.
    pub(crate) head: String,
    /// The body, without its framing.
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The request line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// All values of one field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The value of a field that must be there once.
    pub(crate) fn value(&self, name: &str) -> &str {
        let values = self.values(name);
        assert_eq!(values.len(), 1, "`{name}` in {}", self.head);
        values[0]
    }
}

struct Shared {
    manner: Mutex<Manner>,
    received: Mutex<Vec<Received>>,
    heads: AtomicUsize,
    connections: AtomicUsize,
    release: Notify,
    certificates: Mutex<Vec<Option<Vec<u8>>>>,
}

/// A running upstream.
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

/// What the upstream speaks.
pub(crate) enum Speaks {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    Http2,
    /// HTTP/1.1 inside TLS.
    Tls(Arc<rustls::ServerConfig>),
}

impl Upstream {
    /// A polite one, over plain HTTP/1.1.
    pub(crate) fn start() -> Self {
        Self::speaking(Speaks::Http1)
    }

    /// A polite one that speaks something else.
    pub(crate) fn speaking(speaks: Speaks) -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Polite),
            received: Mutex::new(Vec::new()),
            heads: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            release: Notify::new(),
            certificates: Mutex::new(Vec::new()),
        });
        let scheme = if matches!(speaks, Speaks::Tls(_)) { "https" } else { "http" };
        runtime().spawn(accept(listener, speaks, Arc::clone(&shared)));
        Self { address, scheme, shared }
    }

    /// A server's TLS settings for [`Speaks::Tls`].
    pub(crate) fn tls(leaf: &super::certificates::Leaf, client_roots: Option<&[u8]>) -> Speaks {
        Speaks::Tls(server_tls(leaf, client_roots))
    }

    /// Its URL, without a path.
    pub(crate) fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// From now on it answers like this.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().expect("the manner") = manner;
    }

    /// How many request heads have reached it.
    pub(crate) fn hits(&self) -> usize {
        self.shared.heads.load(Ordering::SeqCst)
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The requests that reached it with their whole body.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("the requests").clone()
    }

    /// The last of them.
    pub(crate) fn last(&self) -> Received {
        self.received().pop().expect("a request reached the upstream")
    }

    /// Client certificates of the TLS connections, in order.
    pub(crate) fn certificates(&self) -> Vec<Option<Vec<u8>>> {
        self.shared.certificates.lock().expect("the certificates").clone()
    }

    /// Lets the second part of [`Manner::InTwoParts`] go.
    pub(crate) fn release(&self) {
        self.shared.release.notify_one();
    }
}

async fn accept(listener: TcpListener, speaks: Speaks, shared: Arc<Shared>) {
    let speaks = Arc::new(speaks);
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _unhelpful = stream.set_nodelay(true);
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (speaks, shared) = (Arc::clone(&speaks), Arc::clone(&shared));
        tokio::spawn(async move {
            match &*speaks {
                Speaks::Http1 => serve_http1(stream, &shared).await,
                Speaks::Http2 => serve_http2(stream, shared).await,
                Speaks::Tls(config) => {
                    let Ok(stream) = TlsAcceptor::from(Arc::clone(config)).accept(stream).await else {
                        return;
                    };
                    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    let peer = peer.map(|certificate| certificate.to_vec());
                    shared.certificates.lock().expect("the certificates").push(peer);
                    serve_http1(stream, &shared).await;
                }
            }
        });
    }
}

const HELLO: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\nx-from: upstream\r\n\r\nhello\n";

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        shared.heads.fetch_add(1, Ordering::SeqCst);
        let manner = shared.manner.lock().expect("the manner").clone();
        let body = match manner {
            Manner::IgnoresBody => Vec::new(),
            _ => match read_body(&mut stream, &mut buffer, &head).await {
                Some(body) => body,
                None => return,
            },
        };
        shared.received.lock().expect("the requests").push(Received { head, body });
        if !answer(&mut stream, shared, manner).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, shared: &Shared, manner: Manner) -> bool {
    match manner {
        Manner::Polite | Manner::IgnoresBody => stream.write_all(HELLO).await.is_ok(),
        Manner::Says(bytes) => stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok(),
        Manner::SaysAndLeaves(bytes) => {
            let _gone = stream.write_all(&bytes).await;
            let _gone = stream.shutdown().await;
            false
        }
        Manner::Silent => std::future::pending().await,
        Manner::Slow(wait) => {
            tokio::time::sleep(wait).await;
            stream.write_all(HELLO).await.is_ok()
        }
        Manner::InTwoParts(first, second) => {
            let _gone = stream.write_all(&first).await;
            let _gone = stream.flush().await;
            shared.release.notified().await;
            stream.write_all(&second).await.is_ok()
        }
        Manner::Long(length) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            if stream.write_all(head.as_bytes()).await.is_err() {
                return false;
            }
            let block = vec![b'y'; 65_536];
            let mut left = length;
            while left > 0 {
                let now = left.min(block.len());
                if stream.write_all(&block[..now]).await.is_err() {
                    return false;
                }
                left -= now;
            }
            true
        }
    }
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<String> {
    let end = read_until(stream, buffer, b"\r\n\r\n").await?;
    let head: Vec<u8> = buffer.drain(..end).collect();
    Some(head.iter().map(|byte| char::from(*byte)).collect())
}

/// Reads until the mark and says where it ends.
async fn read_until<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    mark: &[u8],
) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(mark.len()).position(|window| window == mark) {
            return Some(at + mark.len());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    head: &str,
) -> Option<Vec<u8>> {
    let field = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        fields
            .into_iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    if field("transfer-encoding").is_some() {
        return read_chunks(stream, buffer).await;
    }
    let length: usize = field("content-length").map_or(0, |value| value.parse().expect("one content-length"));
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..length).collect())
}

async fn read_chunks<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = read_until(stream, buffer, b"\r\n").await?;
        let line: Vec<u8> = buffer.drain(..end).collect();
        let digits = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(digits.trim().split(';').next().unwrap_or_default(), 16).ok()?;
        while buffer.len() < size + 2 {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        body.extend(buffer.drain(..size));
        buffer.drain(..2);
        if size == 0 {
            return Some(body);
        }
    }
}

async fn serve_http2(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            shared.heads.fetch_add(1, Ordering::SeqCst);
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            let mut head = format!("{} {} {:?}\r\n", parts.method, parts.uri, parts.version);
            for (name, value) in &parts.headers {
                head.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
            }
            shared.received.lock().expect("the requests").push(Received { head, body });
            let body = Full::new(Bytes::from_static(b"hello\n"));
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _gone = server.serve_connection(TokioIo::new(stream), service).await;
}
