//! Calls of the admin API of a gateway that runs on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portcullis_gateway::{AdminAccess, Environment};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::output::{self, Format};
use crate::report::{self, Look};

/// The longest answer that is read: a list of the keys of one client.
const MOST_BYTES: usize = 8 << 20;

/// How long an answer may take: longer than the store, which a change waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which gateway is asked, and how to print what it says.
#[derive(clap::Args)]
pub(crate) struct OfGateway {
    /// The policy directory the gateway serves, whose gateway.yaml names the token of `admin`
    #[arg(long, value_name = "DIR", default_value = "policies")]
    pub(crate) policies: PathBuf,
    /// The admin address of the gateway on this machine, where it is another one than in gateway.yaml
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    pub(crate) admin: Option<SocketAddr>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// SECURITY: the token goes there in clear text.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:9901")?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("this must be an address of this machine, such as 127.0.0.1:9901: the token is sent to it"
            .to_owned())
    }
}

/// A gateway on this machine.
pub(crate) struct AdminClient {
    access: AdminAccess,
}

impl AdminClient {
    /// The gateway that is meant.
    ///
    /// # Errors
    /// The policies do not say how it is reached.
    pub(crate) fn of(gateway: &OfGateway) -> anyhow::Result<Self> {
        let policies = &gateway.policies;
        let found = portcullis_gateway::admin_access(policies, &Environment::of_process());
        let mut access = found.map_err(|none| {
            output::say(&report::human(&none.faults, &none.sources, Look::of(&std::io::stderr())));
            anyhow!("`{}` does not say how its gateway is reached", policies.display())
        })?;
        access.address = gateway.admin.or(access.address);
        Ok(Self { access })
    }

    /// Makes a call and hands back what it answers, which is `null` where there is nothing to say.
    ///
    /// # Errors
    /// There is no gateway, or it says no.
    pub(crate) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let answer = tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await;
            answer
                .context("the gateway did not answer in time; what was asked for may be done all the same")?
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let AdminAccess { address, socket, .. } = &self.access;
        match (address, socket) {
            (Some(address), _) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.with_context(|| format!("no gateway answers at {address}"))?;
                self.exchange_over(stream, &address.to_string(), (method, path, body)).await
            }
            (None, Some(socket)) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.with_context(|| format!("no gateway answers at {}", socket.display()))?;
                self.exchange_over(stream, "localhost", (method, path, body)).await
            }
            // `admin` names one of them, and has `tls` for the other.
            (None, None) => Err(anyhow!(
                "the admin API speaks TLS there, and the verbs do not: add `socket: /run/portcullis/admin.sock` to `admin`"
            )),
        }
    }

    async fn exchange_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
        (method, path, body): (Method, &str, Option<&Value>),
    ) -> anyhow::Result<Value> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut token = HeaderValue::try_from([b"Bearer ", self.access.token.expose()].concat())
            .context("the token of `admin` cannot be sent")?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default()))?;
        let answering = async {
            let response = sender.send_request(request).await.context("the gateway does not answer")?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST_BYTES).collect().await;
            let body = body.map_err(|error| anyhow!("the gateway's answer broke off: {error}"))?.to_bytes();
            anyhow::Ok((head.status, body))
        };
        let (status, body) = tokio::select! {
            answer = answering => answer?,
            Err(error) = connection => return Err(error).context("the gateway does not answer"),
        };
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(said);
        }
        let told = |member: &str| said.get(member).and_then(Value::as_str);
        match (told("code"), told("detail")) {
            (Some(code), Some(detail)) => {
                Err(anyhow!("the gateway says {} {code}: {detail}", status.as_u16()))
            }
            _ => Err(anyhow!("what answers at {host} is no gateway: it says {status}")),
        }
    }
}
