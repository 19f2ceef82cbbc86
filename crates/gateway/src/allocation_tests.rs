//! The budget of the good path: what our own code may take from the allocator for one request.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use portcullis_core::{Clock, Connection, Faults};
use portcullis_jose::{Algorithm, SigningKey};
use portcullis_proxy::{PoolSettings, Pools};
use tower::Service as _;

use crate::body::ReplyBody;
use crate::config::{self, Environment, Resources};
use crate::exchange::{Admitted, Ended, Exchange, Reply};
use crate::listener::{Inbound, IncomingBody};
use crate::stack::stack_over;
use crate::worker::Worker;

const GATEWAY: &str = "
version: 1
listen: { public: { address: 127.0.0.1:0 } }
issuers:
  idp: { issuer: https://idp.example, audience: https://api.example, algorithms: [ES256], keys: { jwks: { file: idp.json } } }
upstreams: { echo: { urls: ['http://127.0.0.1:1'] } }
";

const API: &str = "
api: accounts
match: { host: api.example, path: /v3/* }
upstream: echo
authenticate: { jwt: { issuer: idp } }
identity: { name: claims.client_id }
allow:
  - { name: write, methods: [POST], paths: [/accounts], scope: payments }
  - { name: read, methods: [GET], paths: [/accounts, '/accounts/{id}'], scope: accounts }
limits:
  - { per: identity, rate: 1000000 per second, burst: 1000000 }
  - { per: identity, quota: 1000000 per day }
";

/// A worker with these policies, and a token that they admit.
fn worker() -> (Rc<Worker>, String) {
    let folder = tempfile::tempdir().expect("a directory");
    let key = SigningKey::generate(Algorithm::Es256).expect("a key");
    let set = serde_json::json!({ "keys": [key.public_jwk("idp-1").expect("a public key")] });
    std::fs::write(folder.path().join("idp.json"), set.to_string()).expect("written");
    let now = Clock::System.now().unix_seconds();
    let claims = serde_json::json!({
        "iss": "https://idp.example", "aud": "https://api.example", "sub": "alice", "client_id": "tpp-a",
        "scope": "accounts payments", "iat": now, "exp": now + 600,
    });
    let token = key.sign(serde_json::json!({ "kid": "idp-1" }), &claims).expect("a token");
    let mut faults = Faults::default();
    let texts = [("gateway.yaml", GATEWAY), ("apis/accounts.yaml", API)];
    let (sources, spec) = config::read_texts(folder.path(), &texts, &Environment::default(), &mut faults);
    let resources = Resources::detached().expect("resources");
    let compiled = config::compile(spec.expect("a spec"), &sources, &resources, &mut faults);
    assert!(!faults.any_error(), "{:?}", faults.into_sorted());
    let snapshot = Arc::new(compiled.expect("a snapshot").snapshot);
    (
        Rc::new(Worker::new(
            snapshot,
            Pools::new(PoolSettings::default()),
            None,
            Default::default(),
            Clock::System,
        )),
        token,
    )
}

fn request(token: &str) -> Request<IncomingBody> {
    Request::get("/v3/accounts/17")
        .header("host", "api.example")
        .header("authorization", format!("Bearer {token}"))
        .body(IncomingBody::Empty)
        .expect("a request")
}

/// Answers instead of forwarding.
async fn answer(exchange: Exchange<Admitted>) -> Result<Reply, Ended> {
    let Exchange { mut passage, .. } = exchange;
    // The name of the key is among what a request takes nothing for.
    assert_eq!(passage.ledger.key_id.as_deref(), Some("idp-1"));
    passage.ledger.status = http::StatusCode::OK;
    Ok(Reply { response: Response::new(ReplyBody::Own(None)), passage })
}

fn inbound() -> Rc<Inbound> {
    let connection = Connection {
        peer: ([127, 0, 0, 1], 40_000).into(),
        proxy: None,
        shared: false,
        listener: "public".into(),
        tls: None,
        handshake_certificate: None,
    };
    Inbound::new(connection, false)
}

#[test]
fn an_admitted_request_takes_one_box_of_ours() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (worker, token) = worker();
        let inbound = inbound();
        inbound.forwarded();
        let mut stack = stack_over(tower::service_fn(answer));
        for round in 0..8 {
            let request = request(&token);
            let exchange = worker.open(request, &inbound);
            let mut running = pin!(stack.call(exchange));
            // The first request verifies the token, finds its cells and makes its quota durable.
            if round < 2 {
                let Ok(response) = running.await;
                assert_eq!(response.status(), 200);
                continue;
            }
            let mut polled = Poll::Pending;
            let counted = allocation_counter::measure(|| {
                polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            });
            let Poll::Ready(Ok(response)) = polled else { panic!("an admitted request waits for nothing") };
            assert_eq!(response.status(), 200);
            assert_eq!(counted.count_total, 0, "the stages of round {round}: {counted:?}");
        }
    });
}

#[test]
fn opening_a_request_takes_the_ledger_and_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (worker, token) = worker();
        let inbound = inbound();
        let open = || {
            let request = request(&token);
            let mut opened = None;
            let counted = allocation_counter::measure(|| opened = Some(worker.open(request, &inbound)));
            (opened, counted.count_total)
        };
        let _first = open();
        assert_eq!(open().1, 1);
    });
}
