//! Sends requests over plain TCP or mutual TLS, as fast as answers come or at a fixed rate.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Arguments;

struct Plan {
    address: SocketAddr,
    uri: Uri,
    host: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// One of them goes with each request, in turn.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether each request gets a connection of its own.
    close: bool,
    start: Instant,
    end: Instant,
    connections: u32,
    /// Time between two requests of one connection, if the rate is fixed.
    period: Option<Duration>,
}

#[derive(Default)]
struct Results {
    statuses: BTreeMap<u16, u64>,
    errors: u64,
    last_error: String,
    /// Microseconds, one for each answer.
    latencies: Vec<u32>,
    next_header: usize,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let plan = Rc::new(plan(arguments)?);
    let results = Rc::new(RefCell::new(Results::default()));
    let tasks: Vec<_> = (0..plan.connections)
        .map(|number| {
            let (plan, results) = (Rc::clone(&plan), Rc::clone(&results));
            tokio::task::spawn_local(async move { one_caller(&plan, &results, number).await })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    let seconds = plan.start.elapsed().as_secs_f64();
    Ok(report(&mut results.borrow_mut(), seconds))
}

fn plan(arguments: &Arguments) -> anyhow::Result<Plan> {
    let uri: Uri = arguments.at(1)?.parse()?;
    let host = uri.host().context("the URL names no host")?.to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().context("the URL names no port")?;
    let name = ServerName::try_from(host.clone())?;
    let tls = secure.then(|| tls(arguments)).transpose()?;
    let connections = u32::try_from(arguments.number("connections")?.unwrap_or(32))?;
    let rate = arguments.number("rate")?;
    let mut headers = Vec::new();
    for line in arguments.option("header").into_iter() {
        headers.push(header(line)?);
    }
    if let Some(path) = arguments.option("headers") {
        for line in std::fs::read_to_string(path)?.lines() {
            headers.push(header(line)?);
        }
    }
    let start = Instant::now();
    Ok(Plan {
        address: ("127.0.0.1", port).to_socket_addrs()?.next().context("no address")?,
        host: HeaderValue::from_str(&format!("{host}:{port}"))?,
        uri: uri.path_and_query().map_or("/", |target| target.as_str()).parse()?,
        tls: tls.map(|config| (TlsConnector::from(config), name)),
        headers,
        close: arguments.option("close").is_some(),
        start,
        end: start + Duration::from_secs(arguments.number("seconds")?.unwrap_or(4)),
        connections,
        period: rate
            .map(|rate| Duration::from_secs(u64::from(connections)) / u32::try_from(rate).unwrap_or(1)),
    })
}

fn header(line: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line}"))?;
    Ok((name.parse()?, value.trim().parse()?))
}

fn tls(arguments: &Arguments) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let root = arguments.option("ca").context("https needs --ca")?;
    roots.add(CertificateDer::from_pem_file(root).map_err(|error| anyhow!("{root}: {error}"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match (arguments.option("cert"), arguments.option("key")) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    // Every handshake is to be a full one.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

type Sender = SendRequest<Empty<Bytes>>;

async fn one_caller(plan: &Plan, results: &RefCell<Results>, number: u32) {
    let mut sender = None;
    // Callers with a fixed rate are spread over the period.
    let mut due =
        plan.start + plan.period.map_or(Duration::ZERO, |period| period * number / plan.connections);
    loop {
        if plan.period.is_some() {
            tokio::time::sleep_until(due.into()).await;
        }
        let now = Instant::now();
        if now >= plan.end {
            return;
        }
        // At a fixed rate, time counts from when the request was due: a stall delays those behind it too.
        let since = if plan.period.is_some() { due } else { now };
        match exchange(plan, results, &mut sender).await {
            Ok(status) => {
                let mut results = results.borrow_mut();
                *results.statuses.entry(status).or_default() += 1;
                results.latencies.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Err(error) => {
                sender = None;
                let mut results = results.borrow_mut();
                results.errors += 1;
                results.last_error = format!("{error:#}");
            }
        }
        if plan.close {
            sender = None;
        }
        due += plan.period.unwrap_or_default();
    }
}

async fn exchange(plan: &Plan, results: &RefCell<Results>, kept: &mut Option<Sender>) -> anyhow::Result<u16> {
    let mut sender = match kept.take() {
        Some(sender) => sender,
        None => connect(plan).await?,
    };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = plan.uri.clone();
    let headers = request.headers_mut();
    headers.insert("host", plan.host.clone());
    headers.insert("user-agent", HeaderValue::from_static("load/1.0"));
    headers.insert("accept", HeaderValue::from_static("application/json"));
    if plan.close {
        headers.insert("connection", HeaderValue::from_static("close"));
    }
    if !plan.headers.is_empty() {
        let mut results = results.borrow_mut();
        let turn = results.next_header % plan.headers.len();
        results.next_header += 1;
        if let Some((name, value)) = plan.headers.get(turn) {
            headers.insert(name, value.clone());
        }
    }
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    *kept = Some(sender);
    Ok(status)
}

async fn connect(plan: &Plan) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(plan.address).await?;
    stream.set_nodelay(true)?;
    match &plan.tls {
        None => handshake(stream).await,
        Some((connector, name)) => handshake(connector.connect(name.clone(), stream).await?).await,
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> anyhow::Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        // The request that was under way reports the error.
        let _closed = connection.await;
    });
    Ok(sender)
}

fn report(results: &mut Results, seconds: f64) -> String {
    results.latencies.sort_unstable();
    let latencies = &results.latencies;
    let count = latencies.len();
    let at = |thousandths: usize| {
        let index = (count * thousandths / 1_000).min(count.saturating_sub(1));
        latencies.get(index).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    };
    let statuses: BTreeMap<String, u64> =
        results.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect();
    serde_json::json!({
        "requests": count,
        "seconds": seconds,
        "statuses": statuses,
        "errors": results.errors,
        "last_error": results.last_error,
        "latency_ms": { "p50": at(500), "p90": at(900), "p99": at(990), "p999": at(999), "max": at(1_000) },
    })
    .to_string()
}
