//! A provider that knows tokens: it answers introspection as it is told, and remembers how it was asked. It also
//! serves documents, such as its own metadata.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Leaf, unix_now};
use super::client::server_tls;
use super::idp::Key;
use super::runtime;

/// How questions are answered.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// As it is.
    Good,
    /// This much later.
    Slow(Duration),
    /// The connection is closed without an answer.
    Down,
    /// The same, and as it is from the next question on.
    DownOnce,
    /// This status, with the right body.
    Status(u16),
    /// A redirect to this place.
    Redirect(String),
    /// 200, this content type, this body.
    Body(&'static str, Vec<u8>),
}

/// One question as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) line: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) form: Vec<(String, String)>,
    /// The certificate the connection was made with, by its SHA-256 thumbprint.
    pub(crate) certificate: Option<Vec<u8>>,
}

impl Question {
    /// The one value of a parameter of the form.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.form.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "`{name}` came twice: {:?}", self.form);
        first
    }
}

/// Signs answers: the key, the issuer, the recipient, and changes to the claims and the `typ`.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) key: Arc<Key>,
    pub(crate) typ: &'static str,
    pub(crate) claims: Value,
}

impl Signer {
    /// A good one.
    pub(crate) fn new(key: &Arc<Key>, issuer: &str, recipient: &str) -> Self {
        let claims = json!({ "iss": issuer, "aud": recipient, "iat": unix_now() });
        Self { key: Arc::clone(key), typ: "token-introspection+jwt", claims }
    }

    /// The signed answer that says this.
    pub(crate) fn sign(&self, said: &Value) -> String {
        let mut claims = self.claims.clone();
        if claims.get("token_introspection").is_none() {
            claims["token_introspection"] = said.clone();
        }
        self.key.key.sign(json!({ "typ": self.typ, "kid": self.key.kid }), &claims).expect("a signature")
    }
}

struct Shared {
    manner: Mutex<Manner>,
    /// How questions about some tokens are answered.
    manners: Mutex<HashMap<String, Manner>>,
    known: Mutex<HashMap<String, Value>>,
    documents: Mutex<HashMap<String, (u16, Value)>>,
    asked: Mutex<Vec<Question>>,
    read: Mutex<Vec<String>>,
    connections: Mutex<usize>,
    signer: Mutex<Option<Signer>>,
}

/// A running provider.
pub(crate) struct Provider {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

impl Provider {
    /// One over plain HTTP on loopback.
    pub(crate) fn start() -> Self {
        Self::serving(None)
    }

    /// One over HTTPS; with roots it demands a client certificate.
    pub(crate) fn start_tls(leaf: &Leaf, client_roots: Option<&Authority>) -> Self {
        Self::serving(Some(TlsAcceptor::from(server_tls(leaf, client_roots.map(Authority::der)))))
    }

    fn serving(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Good),
            manners: Mutex::default(),
            known: Mutex::default(),
            documents: Mutex::default(),
            asked: Mutex::default(),
            read: Mutex::default(),
            connections: Mutex::default(),
            signer: Mutex::default(),
        });
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        runtime().spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { address, scheme, shared }
    }

    /// Where it is, without a path.
    pub(crate) fn origin(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// From now on questions are answered like this.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().expect("the manner") = manner;
    }

    /// From now on questions about this token are answered like this.
    pub(crate) fn behave_for(&self, token: &str, manner: Manner) {
        self.shared.manners.lock().expect("the manners").insert(token.to_owned(), manner);
    }

    /// From now on answers are signed like this.
    pub(crate) fn sign(&self, signer: Option<Signer>) {
        *self.shared.signer.lock().expect("the signer") = signer;
    }

    /// From now on it says this of a token. What it never heard of is inactive.
    pub(crate) fn knows(&self, token: &str, said: Value) {
        self.shared.known.lock().expect("the tokens").insert(token.to_owned(), said);
    }

    /// A good answer about an access token of ours, which lives for five minutes.
    pub(crate) fn active() -> Value {
        let now = unix_now();
        json!({
            "active": true, "sub": "user-1", "client_id": "tpp-a", "token_type": "Bearer",
            "iat": now, "exp": now + 300, "scope": "accounts payments",
        })
    }

    /// Serves a document.
    pub(crate) fn publish(&self, path: &str, status: u16, document: Value) {
        self.shared.documents.lock().expect("the documents").insert(path.to_owned(), (status, document));
    }

    /// All questions so far.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.shared.asked.lock().expect("the questions").clone()
    }

    /// The paths of all documents that were read so far.
    pub(crate) fn read(&self) -> Vec<String> {
        self.shared.read.lock().expect("the paths").clone()
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().expect("the count")
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        *shared.connections.lock().expect("the count") += 1;
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, None, shared).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let certificates = stream.get_ref().1.peer_certificates();
                        let certificate =
                            certificates.and_then(|chain| chain.first()).map(|der| der.to_vec());
                        serve(stream, certificate, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, certificate: Option<Vec<u8>>, shared: Arc<Shared>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (shared, certificate) = (Arc::clone(&shared), certificate.clone());
        async move { answer(request, certificate, &shared).await }
    });
    let _gone =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Response = http::Response<Full<Bytes>>;

/// An error of the service makes hyper hang up without an answer, which is what being down looks like.
async fn answer(
    request: http::Request<Incoming>,
    certificate: Option<Vec<u8>>,
    shared: &Shared,
) -> Result<Response, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    if head.method == http::Method::GET {
        shared.read.lock().expect("the paths").push(head.uri.path().to_owned());
        let document = shared.documents.lock().expect("the documents").get(head.uri.path()).cloned();
        let (status, document) = document.unwrap_or((404, Value::Null));
        return Ok(response(status, "application/json", document.to_string().into_bytes()));
    }
    let form: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    let token = form.iter().find(|(name, _)| name == "token").map(|(_, token)| token.clone());
    let own =
        token.as_ref().and_then(|token| shared.manners.lock().expect("the manners").get(token).cloned());
    let known = token.and_then(|token| shared.known.lock().expect("the tokens").get(&token).cloned());
    let line = format!("{} {}", head.method, head.uri);
    shared.asked.lock().expect("the questions").push(Question {
        line,
        headers: head.headers,
        form,
        certificate,
    });
    let said = known.unwrap_or_else(|| json!({ "active": false }));
    let signer = shared.signer.lock().expect("the signer").clone();
    let good = |status| match &signer {
        None => response(status, "application/json", said.to_string().into_bytes()),
        Some(signer) => {
            response(status, "application/token-introspection+jwt", signer.sign(&said).into_bytes())
        }
    };
    let manner = own.unwrap_or_else(|| shared.manner.lock().expect("the manner").clone());
    Ok(match manner {
        Manner::Good => good(200),
        Manner::Slow(wait) => {
            tokio::time::sleep(wait).await;
            good(200)
        }
        Manner::Down => return Err(std::io::Error::other("down")),
        Manner::DownOnce => {
            *shared.manner.lock().expect("the manner") = Manner::Good;
            return Err(std::io::Error::other("down"));
        }
        Manner::Status(status) => good(status),
        Manner::Redirect(location) => {
            let mut answer = response(302, "text/plain", Vec::new());
            answer.headers_mut().insert("location", location.parse().expect("a location"));
            answer
        }
        Manner::Body(kind, body) => response(200, kind, body),
    })
}

fn response(status: u16, kind: &str, body: Vec<u8>) -> Response {
    let builder = http::Response::builder().status(status).header("content-type", kind);
    builder.body(Full::new(body.into())).expect("an answer")
}
