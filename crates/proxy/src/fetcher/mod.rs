//! Asking other servers short questions: key sets, what a token is worth, whether a certificate is revoked. The
//! exchanges belong to the background runtime, whoever waits for them.
//!
//! SECURITY: the servers asked here decide about callers. So: https only, unless the trust allows plain http to this
//! machine; no redirects, no cookies, no proxy from the environment, no credentials but those of the request and
//! the trust's own certificate; connections only to the addresses resolved for them, and kept per trust (JKS-01).

mod kept;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portcullis_core::{Fetch, FetchError, FetchFuture, FetchRequest, FetchResponse, FetchTrust, Sending};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::connect::{self, ConnectError, Handshake, Host, Protocol};
use crate::pool::explain;
use crate::site::Site;
use crate::tls::{self, TlsError};
use crate::transport::Transport;
use kept::{Destination, Open, Server, Servers, UNUSED};

/// Largest head of an answer.
const HEAD_BYTES: usize = 64 * 1024;

/// Fields that are the fetcher's own.
const OWN_FIELDS: &[HeaderName] =
    &[HOST, USER_AGENT, CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Asks other servers under one trust. Cloning shares the connections.
#[derive(Clone)]
pub struct HttpFetcher {
    client: Arc<Client>,
    background: Option<Handle>,
}

struct Client {
    config: Arc<ClientConfig>,
    loopback_http: bool,
    plain_http: bool,
    servers: Servers,
    sweeping: AtomicBool,
}

/// A site that may be asked.
#[derive(Debug)]
struct Target {
    site: Site,
    plain_http: bool,
}

/// Why an exchange has no answer.
struct Failed {
    error: FetchError,
    reached: Reached,
}

/// How far an exchange came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// The connection had ended before anything was sent.
    Nothing,
    /// The connection ended before it said anything: it may have been closed while it was unused.
    Sent,
    /// Something came back.
    Answer,
}

impl HttpFetcher {
    /// A fetcher whose exchanges run on that runtime; without one it refuses to ask anybody, for checking policies.
    ///
    /// # Errors
    /// The anchors or the certificate cannot be used.
    pub fn new(trust: &FetchTrust, background: Option<Handle>) -> Result<Self, TlsError> {
        let anchors = match &trust.anchors {
            Some(pem) => tls::anchors(pem)?,
            None => tls::system_anchors()?,
        };
        let identity = match &trust.identity {
            Some(identity) => Some(tls::client_identity(&identity.chain, identity.key.expose())?),
            None => None,
        };
        let config = tls::client_config(Arc::new(anchors), identity, &[Protocol::Http1])?;
        let client = Client {
            config: Arc::new(config),
            loopback_http: trust.loopback_http,
            plain_http: trust.plain_http,
            servers: Servers::default(),
            sweeping: AtomicBool::new(false),
        };
        Ok(Self { client: Arc::new(client), background })
    }
}

impl Fetch for HttpFetcher {
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            let Some(background) = &self.background else {
                return Err(FetchError::Refused("nobody is asked while policies are checked".into()));
            };
            let client = Arc::clone(&self.client);
            // A task of its own: connections belong to the runtime they were made on, and an exchange whose asker
            // has gone still ends in order, so that its connection can be used again.
            let exchange = background.spawn(async move { client.ask(&request).await });
            exchange.await.unwrap_or_else(|_| Err(FetchError::Connection("the exchange broke off".into())))
        })
    }
}

impl Client {
    async fn ask(self: &Arc<Self>, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let target =
            Target::read(&request.url, self.loopback_http, self.plain_http).map_err(FetchError::Refused)?;
        let message = target.message(request)?;
        let server = self.servers.get(&target.destination());
        // A server is given half of the time at least, so that whoever was kept waiting here is no word against it.
        let (begun, limit) = (Instant::now(), request.total_timeout);
        let place = timeout(limit / 2, server.places.acquire()).await;
        let _place = place
            .map_err(|_elapsed| FetchError::Unsent(limit / 2))?
            .map_err(|_closed| unreachable_server())?;
        let asked =
            timeout(limit.saturating_sub(begun.elapsed()), self.send(&target, message, request, &server));
        asked.await.unwrap_or(Err(FetchError::TimedOut(limit)))
    }

    /// Asks on a connection that was kept, or else on a new one.
    async fn send(
        self: &Arc<Self>,
        target: &Target,
        message: Request<Full<Bytes>>,
        request: &FetchRequest,
        server: &Server,
    ) -> Result<FetchResponse, FetchError> {
        let kept = if request.sending == Sending::OnceAnew { None } else { server.take(Instant::now()) };
        if let Some(open) = kept {
            match (self.exchange(open, message.clone(), request.max_bytes, server).await, request.sending) {
                (Ok(answer), _) => return Ok(answer),
                (Err(Failed { reached: Reached::Nothing, .. }), _) => {}
                // It bears being asked twice, and was, if at all, heard by a server that hung up.
                (Err(Failed { reached: Reached::Sent, .. }), Sending::Again) => {}
                (Err(Failed { reached: Reached::Sent, .. }), _) => return Err(FetchError::Unanswered),
                (Err(failed), _) => return Err(failed.error),
            }
        }
        let open = self.open(target, request).await?;
        self.exchange(open, message, request.max_bytes, server).await.map_err(|failed| failed.error)
    }

    /// A new connection. It is driven by a task that ends with it.
    async fn open(&self, target: &Target, request: &FetchRequest) -> Result<Open, FetchError> {
        let transport = connect::within(request.connect_timeout, |end| target.connect(&self.config, end))
            .await
            .map_err(|error| match error {
                ConnectError::TimedOut(limit) => FetchError::TimedOut(limit),
                other => FetchError::Connection(other.to_string()),
            })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|error| broken(&error))?;
        // Its failures are told to whoever uses the sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Open { sender, born: Instant::now() })
    }

    async fn exchange(
        self: &Arc<Self>,
        mut open: Open,
        message: Request<Full<Bytes>>,
        max_bytes: usize,
        server: &Server,
    ) -> Result<FetchResponse, Failed> {
        open.sender
            .ready()
            .await
            .map_err(|error| Failed { error: broken(&error), reached: Reached::Nothing })?;
        let answer = open.sender.send_request(message).await.map_err(|error| {
            let reached = if error.is_parse() { Reached::Answer } else { Reached::Sent };
            Failed { error: broken(&error), reached }
        })?;
        let answer =
            read(answer, max_bytes).await.map_err(|error| Failed { error, reached: Reached::Answer })?;
        server.keep(open, Instant::now());
        self.sweep();
        Ok(answer)
    }

    /// Sees to it that connections nobody uses are closed.
    fn sweep(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let client = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UNUSED).await;
                let Some(client) = client.upgrade() else { return };
                client.servers.sweep(Instant::now());
            }
        });
    }
}

impl Target {
    fn read(url: &str, loopback_http: bool, plain_http: bool) -> Result<Self, String> {
        let site = Site::parse(url).map_err(|why| format!("the url {why}"))?;
        let allowed = site.secure || plain_http || (loopback_http && is_this_machine(&site.host));
        if allowed { Ok(Self { site, plain_http }) } else { Err("plain http is not allowed".into()) }
    }

    fn destination(&self) -> Destination {
        Destination { secure: self.site.secure, host: self.site.host.clone(), port: self.site.port }
    }

    fn message(&self, request: &FetchRequest) -> Result<Request<Full<Bytes>>, FetchError> {
        if matches!(request.method, Method::CONNECT | Method::TRACE) {
            return Err(FetchError::Refused(format!("{} asks no question", request.method)));
        }
        if let Some(own) = OWN_FIELDS.iter().find(|name| request.headers.contains_key(*name)) {
            return Err(FetchError::Refused(format!("`{own}` is the fetcher's own field")));
        }
        let host = HeaderValue::from_str(self.site.authority.as_str())
            .map_err(|_refused| FetchError::Refused("its host cannot be sent".into()))?;
        let mut message = Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = Uri::from(self.site.path.clone());
        *message.headers_mut() = request.headers.clone();
        message.headers_mut().insert(HOST, host);
        message.headers_mut().insert(USER_AGENT, HeaderValue::from_static("portcullis"));
        Ok(message)
    }

    async fn connect(&self, config: &Arc<ClientConfig>, end: Instant) -> Result<Transport, ConnectError> {
        let mut addresses = connect::resolve(&self.site.host, self.site.port).await?;
        if !self.site.secure {
            // SECURITY: `localhost` is what the resolver says it is; only what truly is this machine counts.
            if !self.plain_http {
                addresses.retain(|address| address.ip().is_loopback());
            }
            return connect::dial(&addresses, end).await.map(Transport::Plain);
        }
        let stream = connect::dial(&addresses, end).await?;
        let handshake = Handshake { config: Arc::clone(config), server_name: self.site.name.clone() };
        connect::shake_hands(stream, &handshake).await.map(|(transport, _chosen)| transport)
    }
}

pub(crate) fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Address(address) => address.is_loopback(),
        Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
    }
}

async fn read(answer: Response<Incoming>, max_bytes: usize) -> Result<FetchResponse, FetchError> {
    let (head, mut incoming) = answer.into_parts();
    let announced = incoming.size_hint().lower();
    if announced > max_bytes as u64 {
        return Err(FetchError::TooLarge(max_bytes));
    }
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if body.len() + data.len() > max_bytes {
            return Err(FetchError::TooLarge(max_bytes));
        }
        body.extend_from_slice(&data);
    }
    Ok(FetchResponse { status: head.status, headers: head.headers, body: body.freeze() })
}

fn broken(error: &hyper::Error) -> FetchError {
    FetchError::Connection(explain(error))
}

fn unreachable_server() -> FetchError {
    FetchError::Connection("it is no longer asked".into())
}

impl std::fmt::Debug for HttpFetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpFetcher")
    }
}
