//! Fetching small documents from other servers, such as key sets. Runs on the background runtime.
//!
//! SECURITY: the servers asked here decide which keys verify tokens. So: https only, unless whoever made the
//! fetcher allowed plain http to this machine; no redirects, no cookies, no credentials, no proxy from the
//! environment; one connection per fetch, to the addresses resolved for it (JKS-01).

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AGE, CACHE_CONTROL, ETAG, HOST, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portcullis_core::{Fetch, FetchError, FetchFuture, FetchRequest, FetchResponse};
use rustls::ClientConfig;
use rustls_pki_types::{DnsName, ServerName};

use crate::connect::{self, ConnectError, Handshake, Host, Protocol};
use crate::pool::explain;
use crate::tls::{self, TlsError};
use crate::transport::Transport;

/// Largest head of an answer.
const HEAD_BYTES: usize = 64 * 1024;

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust<'a> {
    /// The certificates in this PEM text, and no others.
    Anchors(&'a [u8]),
    /// The machine's own store.
    System,
}

/// Whether a document may be asked for without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Never.
    Refused,
    /// From this machine itself: a loopback address, or `localhost` where it resolves to one. For tests and demos.
    Loopback,
}

/// Asks other servers for small documents.
#[derive(Clone, Debug)]
pub struct HttpFetcher {
    config: Arc<ClientConfig>,
    plain: PlainHttp,
}

/// A URL that may be asked.
#[derive(Debug)]
struct Target {
    host: Host,
    port: u16,
    server_name: Option<ServerName<'static>>,
    authority: HeaderValue,
    path: Uri,
}

impl HttpFetcher {
    /// A fetcher with its own trust.
    ///
    /// # Errors
    /// The anchors cannot be used.
    pub fn new(trust: Trust<'_>, plain: PlainHttp) -> Result<Self, TlsError> {
        let anchors = match trust {
            Trust::Anchors(pem) => tls::anchors(pem)?,
            Trust::System => tls::system_anchors()?,
        };
        let config = tls::client_config(Arc::new(anchors), None, &[Protocol::Http1])?;
        Ok(Self { config: Arc::new(config), plain })
    }

    async fn ask(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let target = Target::read(&request.url, self.plain).map_err(|why| FetchError::Refused(why.into()))?;
        let message = target.request(request.etag.as_deref())?;
        let transport = connect::within(request.connect_timeout, |end| target.connect(&self.config, end))
            .await
            .map_err(|error| match error {
                ConnectError::TimedOut(limit) => FetchError::TimedOut(limit),
                other => FetchError::Connection(other.to_string()),
            })?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|error| broken(&error))?;
        let mut exchange = pin!(async move {
            let answer = sender.send_request(message).await.map_err(|error| broken(&error))?;
            read(answer, request.max_bytes).await
        });
        // The connection is driven here rather than in a task of its own, so that it ends with the fetch.
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            _closed = connection => exchange.await,
        }
    }
}

impl Fetch for HttpFetcher {
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            let limit: Duration = request.total_timeout;
            tokio::time::timeout(limit, self.ask(&request)).await.unwrap_or(Err(FetchError::TimedOut(limit)))
        })
    }
}

impl Target {
    fn read(url: &str, plain: PlainHttp) -> Result<Self, &'static str> {
        // `http::Uri` drops a fragment without a word, so it is looked for in the text.
        if url.contains('#') {
            return Err("it has a fragment");
        }
        let uri: Uri = url.parse().map_err(|_refused| "it is not a URL")?;
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user name in it");
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let (host, name) = match bare.parse() {
            Ok(address) => (Host::Address(address), ServerName::IpAddress(address.into())),
            Err(_not_an_address) => {
                let name = DnsName::try_from(bare.to_owned()).map_err(|_refused| "it names no valid host")?;
                (Host::Name(bare.into()), ServerName::DnsName(name))
            }
        };
        let server_name = match uri.scheme_str() {
            Some("https") => Some(name),
            Some("http") if plain == PlainHttp::Loopback && is_this_machine(&host) => None,
            Some("http") => return Err("plain http is not allowed"),
            _ => return Err("its scheme cannot be used"),
        };
        let default_port = if server_name.is_some() { 443 } else { 80 };
        let authority =
            HeaderValue::from_str(authority.as_str()).map_err(|_refused| "it names no valid host")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|_refused| "its path cannot be used")?;
        Ok(Self { host, port: uri.port_u16().unwrap_or(default_port), server_name, authority, path })
    }

    fn request(&self, etag: Option<&str>) -> Result<Request<Empty<Bytes>>, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("portcullis"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
        if let Some(etag) = etag {
            let etag = HeaderValue::from_str(etag)
                .map_err(|_refused| FetchError::Refused("the entity tag cannot be sent".into()))?;
            headers.insert(IF_NONE_MATCH, etag);
        }
        Ok(request)
    }

    async fn connect(
        &self,
        config: &Arc<ClientConfig>,
        end: tokio::time::Instant,
    ) -> Result<Transport, ConnectError> {
        let mut addresses = connect::resolve(&self.host, self.port).await?;
        let Some(server_name) = &self.server_name else {
            // SECURITY: `localhost` is what the resolver says it is; only what truly is this machine counts.
            addresses.retain(|address| address.ip().is_loopback());
            return connect::dial(&addresses, end).await.map(Transport::Plain);
        };
        let stream = connect::dial(&addresses, end).await?;
        let handshake = Handshake { config: Arc::clone(config), server_name: server_name.clone() };
        connect::shake_hands(stream, &handshake).await.map(|(transport, _chosen)| transport)
    }
}

fn is_this_machine(host: &Host) -> bool {
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
    Ok(FetchResponse {
        status: head.status.as_u16(),
        etag: text(&head.headers, &ETAG),
        cache_control: joined(&head.headers, &CACHE_CONTROL),
        age: text(&head.headers, &AGE).and_then(|age| age.parse().ok()),
        body: body.freeze(),
    })
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let fields: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    if fields.is_empty() { None } else { Some(fields.join(", ")) }
}

fn broken(error: &hyper::Error) -> FetchError {
    FetchError::Connection(explain(error))
}
