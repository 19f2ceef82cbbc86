//! Calling gRPC services: one message for one message, over HTTP/2, on the background runtime.
//!
//! SECURITY: as for what is fetched: https only, unless the trust allows plain http to this machine; names are resolved
//! and certificates verified as everywhere else in this room; nothing is called but the one service at the URL.

#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use portcullis_core::{FetchTrust, Unary, UnaryCall, UnaryError, UnaryFuture};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

use crate::connect::{self, ConnectError, Handshake, Protocol};
use crate::fetcher::is_this_machine;
use crate::site::Site;
use crate::tls;
use crate::transport::Transport;

/// Limit for a connection; calls have limits of their own.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a connection is asked whether it still lives, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Calls the service at one URL. Cloning shares its connection.
#[derive(Clone)]
pub struct GrpcCaller {
    /// `None` where nobody may be called, for checking policies.
    living: Option<(Channel, Handle)>,
}

impl GrpcCaller {
    /// A client that connects when it is used first, on that runtime.
    ///
    /// # Errors
    /// The URL or the trust cannot be used.
    pub fn new(url: &str, trust: &FetchTrust, background: Option<&Handle>) -> Result<Self, String> {
        let site = Site::parse(url).map_err(|why| format!("the url {why}"))?;
        let allowed = site.secure || (trust.loopback_http && is_this_machine(&site.host));
        if !allowed {
            return Err("plain http is not allowed".into());
        }
        let anchors = match &trust.anchors {
            Some(pem) => tls::anchors(pem),
            None => tls::system_anchors(),
        };
        let identity = trust
            .identity
            .as_ref()
            .map(|identity| tls::client_identity(&identity.chain, identity.key.expose()))
            .transpose();
        let config = anchors
            .and_then(|anchors| tls::client_config(Arc::new(anchors), identity?, &[Protocol::Http2]))
            .map_err(|error| error.to_string())?;
        let Some(background) = background else { return Ok(Self { living: None }) };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let (site, config) = (Arc::new(site), Arc::new(config));
        let connector = service_fn(move |_: Uri| open(Arc::clone(&site), Arc::clone(&config)));
        // The connection and its tasks belong to the runtime that is entered here.
        let _entered = background.enter();
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(Self { living: Some((channel, background.clone())) })
    }
}

/// A connection over which HTTP/2 is spoken.
async fn open(site: Arc<Site>, config: Arc<ClientConfig>) -> Result<TokioIo<Transport>, ConnectError> {
    let transport = connect::within(CONNECT, |end| async move {
        let mut addresses = connect::resolve(&site.host, site.port).await?;
        if !site.secure {
            // SECURITY: `localhost` is what the resolver says it is; only what truly is this machine counts.
            addresses.retain(|address| address.ip().is_loopback());
            return connect::dial(&addresses, end).await.map(Transport::Plain);
        }
        let stream = connect::dial(&addresses, end).await?;
        let handshake = Handshake { config, server_name: site.name.clone() };
        match connect::shake_hands(stream, &handshake).await? {
            (transport, Some(Protocol::Http2)) => Ok(transport),
            _ => Err(ConnectError::Protocol),
        }
    });
    transport.await.map(TokioIo::new)
}

impl Unary for GrpcCaller {
    fn call(&self, call: UnaryCall) -> UnaryFuture<'_> {
        Box::pin(async move {
            let Some((channel, background)) = &self.living else {
                return Err(UnaryError::Connection("nobody is called while policies are checked".into()));
            };
            let (channel, limit) = (channel.clone(), call.timeout);
            // A task of its own: connections belong to the runtime they were made on.
            let calling = background.spawn(async move {
                timeout(limit, make(channel, call)).await.unwrap_or(Err(UnaryError::TimedOut(limit)))
            });
            calling.await.unwrap_or_else(|_| Err(UnaryError::Connection("the call broke off".into())))
        })
    }
}

async fn make(channel: Channel, call: UnaryCall) -> Result<Bytes, UnaryError> {
    let mut client = Grpc::new(channel).max_decoding_message_size(call.max_bytes);
    client.ready().await.map_err(|error| UnaryError::Connection(explained(&error)))?;
    let path = PathAndQuery::from_static(call.path);
    match client.unary(Request::new(call.message), path, Raw).await {
        Ok(answer) => Ok(answer.into_inner()),
        // A status with a cause was made here, because there was no answer; one without was sent.
        Err(status) if status.source().is_some() => Err(UnaryError::Connection(explained(&status))),
        Err(status) => Err(UnaryError::Status(status.code().into())),
    }
}

/// An error with its causes; those of the library name only layers.
fn explained(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// Messages as they are: what is in them is the caller's business.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
