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

use crate::connect::{self, ConnectError, Handshake, Host, Protocol};
use crate::pool::explain;
use crate::site::Site;
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

/// A site that may be asked.
#[derive(Debug)]
struct Target(Site);

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
        let target = Target::read(&request.url, self.plain).map_err(FetchError::Refused)?;
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
    fn read(url: &str, plain: PlainHttp) -> Result<Self, String> {
        let site = Site::parse(url).map_err(|why| format!("it {why}"))?;
        let allowed = site.secure || (plain == PlainHttp::Loopback && is_this_machine(&site.host));
        if allowed { Ok(Self(site)) } else { Err("plain http is not allowed".into()) }
    }

    fn request(&self, etag: Option<&str>) -> Result<Request<Empty<Bytes>>, FetchError> {
        let host = HeaderValue::from_str(self.0.authority.as_str())
            .map_err(|_refused| FetchError::Refused("its host cannot be sent".into()))?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(self.0.path.clone());
        let headers = request.headers_mut();
        headers.insert(HOST, host);
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
        let mut addresses = connect::resolve(&self.0.host, self.0.port).await?;
        if !self.0.secure {
            // SECURITY: `localhost` is what the resolver says it is; only what truly is this machine counts.
            addresses.retain(|address| address.ip().is_loopback());
            return connect::dial(&addresses, end).await.map(Transport::Plain);
        }
        let stream = connect::dial(&addresses, end).await?;
        let handshake = Handshake { config: Arc::clone(config), server_name: self.0.name.clone() };
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
