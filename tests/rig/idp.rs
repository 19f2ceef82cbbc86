//! An identity provider: a key set over HTTP that can be slow, down, wrong or rotated, and the keys behind it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certificates::Leaf;
use super::client::server_tls;
use super::runtime;
use super::token::Token;

/// How the key set is served.
#[derive(Clone, Debug)]
pub(crate) enum Serving {
    /// As it is.
    Good,
    /// This much later.
    Slow(Duration),
    /// The connection is closed without an answer.
    Down,
    /// This status, with the right body.
    Status(u16),
    /// A redirect to this place.
    Redirect(String),
    /// 200 with this body.
    Body(Vec<u8>),
}

/// A signing key with its name.
pub(crate) struct Key {
    pub(crate) kid: String,
    pub(crate) key: SigningKey,
}

struct Shared {
    serving: Mutex<Serving>,
    set: Mutex<Value>,
    hits: AtomicUsize,
}

/// A running identity provider.
pub(crate) struct Idp {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    keys: Mutex<Vec<Arc<Key>>>,
    shared: Arc<Shared>,
}

/// The issuer every token of the rig names, unless told otherwise.
pub(crate) const ISSUER: &str = "https://idp.bank.example";
/// The audience every token of the rig names, unless told otherwise.
pub(crate) const AUDIENCE: &str = "https://api.bank.example";

impl Idp {
    /// One with one ES256 key, over plain HTTP on loopback.
    pub(crate) fn start() -> Self {
        Self::serving(None)
    }

    /// One over HTTPS.
    pub(crate) fn start_tls(leaf: &Leaf) -> Self {
        Self::serving(Some(leaf))
    }

    fn serving(leaf: Option<&Leaf>) -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            serving: Mutex::new(Serving::Good),
            set: Mutex::new(json!({ "keys": [] })),
            hits: AtomicUsize::new(0),
        });
        let acceptor = leaf.map(|leaf| TlsAcceptor::from(server_tls(leaf, None)));
        let scheme = if leaf.is_some() { "https" } else { "http" };
        runtime().spawn(accept(listener, acceptor, Arc::clone(&shared)));
        let idp = Self { address, scheme, keys: Mutex::new(Vec::new()), shared };
        idp.add(Algorithm::Es256, "key-1");
        idp
    }

    /// Where the key set is.
    pub(crate) fn jwks_url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}/jwks", self.scheme, self.address.port())
    }

    /// How often the key set was asked for.
    pub(crate) fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// From now on the key set is served like this.
    pub(crate) fn serve(&self, serving: Serving) {
        *self.shared.serving.lock().expect("the manner") = serving;
    }

    /// Makes a key that the set does not have.
    pub(crate) fn unpublished(algorithm: Algorithm, kid: &str) -> Arc<Key> {
        let key = SigningKey::generate(algorithm).expect("a signing key");
        Arc::new(Key { kid: kid.to_owned(), key })
    }

    /// Adds a key and publishes it.
    pub(crate) fn add(&self, algorithm: Algorithm, kid: &str) -> Arc<Key> {
        let key = Self::unpublished(algorithm, kid);
        self.keys.lock().expect("the keys").push(Arc::clone(&key));
        self.publish_keys();
        key
    }

    /// Forgets a key and publishes the rest.
    pub(crate) fn remove(&self, kid: &str) {
        self.keys.lock().expect("the keys").retain(|key| key.kid != kid);
        self.publish_keys();
    }

    /// The first key.
    pub(crate) fn key(&self) -> Arc<Key> {
        Arc::clone(self.keys.lock().expect("the keys").first().expect("a key"))
    }

    /// The set as it is published.
    pub(crate) fn set(&self) -> Value {
        self.shared.set.lock().expect("the set").clone()
    }

    /// Publishes another set than that of the keys.
    pub(crate) fn publish(&self, set: Value) {
        *self.shared.set.lock().expect("the set") = set;
    }

    fn publish_keys(&self) {
        let keys = self.keys.lock().expect("the keys");
        let members: Vec<Value> =
            keys.iter().map(|key| key.key.public_jwk(&key.kid).expect("a public key")).collect();
        self.publish(json!({ "keys": members }));
    }

    /// A good token of the first key, to be changed before it is signed.
    pub(crate) fn token(&self) -> Token {
        Token::new(&self.key())
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, shared).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, shared: Arc<Shared>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { answer(&request, &shared).await }
    });
    let _gone =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An error of the service makes hyper hang up without an answer, which is what being down looks like.
async fn answer(
    request: &http::Request<Incoming>,
    shared: &Shared,
) -> Result<http::Response<Full<Bytes>>, std::io::Error> {
    shared.hits.fetch_add(1, Ordering::SeqCst);
    assert_eq!(request.method(), http::Method::GET);
    let good = || Bytes::from(shared.set.lock().expect("the set").to_string());
    let serving = shared.serving.lock().expect("the manner").clone();
    let response = http::Response::builder().header("content-type", "application/jwk-set+json");
    let (response, body) = match serving {
        Serving::Good => (response, good()),
        Serving::Slow(wait) => {
            tokio::time::sleep(wait).await;
            (response, good())
        }
        Serving::Down => return Err(std::io::Error::other("down")),
        Serving::Status(status) => (response.status(status), good()),
        Serving::Redirect(location) => (response.status(302).header("location", location), Bytes::new()),
        Serving::Body(body) => (response, Bytes::from(body)),
    };
    Ok(response.body(Full::new(body)).expect("an answer"))
}
