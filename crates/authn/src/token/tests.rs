use http::header::{CONTENT_TYPE, HeaderValue};
use portcullis_core::{Clock, Connection, Faults, FetchResponse, ManualClock, Moment, OutboundCertificates};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::testing::{
    Answer, House, KeyServer, Memory, NOW, bearer, connection, evidence, head, moment, node, ok, peer_named,
    replays,
};
use crate::{Chain, Clients, Introspections, IssuersSpec, Providers, WorkerTokens};

/// A provider in memory, and a chain that asks it.
struct Answering {
    server: Arc<KeyServer>,
    clock: ManualClock,
    chain: Chain,
}

impl Answering {
    fn new(introspect: &Value, chain: &Value) -> Self {
        let mut written = json!({
            "url": "https://idp.example/introspect", "client_id": "gw", "client_secret": {"file": "secret"},
        });
        for (name, value) in introspect.as_object().expect("an object") {
            written[name] = value.clone();
        }
        let (server, clock) = (Arc::new(KeyServer::default()), ManualClock::at_unix_seconds(NOW));
        let keys = server.sources(&clock);
        let background = tokio::runtime::Handle::current();
        let introspections = Introspections::new(Clock::Manual(clock.clone()), Some(background));
        let certificates = OutboundCertificates::default();
        let replays = replays();
        let providers = Providers {
            keys: &keys,
            introspections: &introspections,
            certificates: &certificates,
            replays: &replays,
            clients: &Clients::default(),
        };
        let memory = Memory::default().with("secret", "s3cret");
        let mut faults = Faults::default();
        let issuers = IssuersSpec::read(&node(&json!({"idp": {"introspect": written}})), &mut faults);
        let issuers = issuers.expect("issuers").compile(&memory, providers, &mut faults);
        assert!(!faults.any_error(), "{:?}", faults.into_sorted());
        let chain = House::new(issuers).chain(chain);
        Self { server, clock, chain }
    }

    fn says(&self, said: &Value) {
        self.server.answer([Answer::Response(saying(said))]);
    }

    fn asked(&self) -> usize {
        self.server.count()
    }

    fn now(&self) -> Moment {
        Clock::Manual(self.clock.clone()).now()
    }

    /// The caller's key, or the code of the refusal.
    async fn ask(&self, worker: &WorkerTokens, connection: &Connection, field: &str, now: Moment) -> String {
        let head = head("/accounts", &[("authorization", field)]);
        match self.chain.authenticate(&evidence(&head, connection, worker, now)).await {
            Ok(principal) => principal.key.to_string(),
            Err(rejection) => rejection.reason().code().to_owned(),
        }
    }
}

fn saying(said: &Value) -> FetchResponse {
    let mut response = ok(said.to_string());
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn active(changes: &Value) -> Value {
    let mut said = json!({
        "active": true, "sub": "user-1", "token_type": "Bearer", "scope": "a b a", "exp": NOW + 60,
    });
    for (name, value) in changes.as_object().expect("an object") {
        said[name] = value.clone();
    }
    said
}

/// INT-04: what is remembered is the answer. The same token is judged anew when time has passed.
#[tokio::test]
async fn a_remembered_token_is_judged_anew() {
    let answering = Answering::new(&json!({"cache": "5m"}), &json!({"token": {"issuer": "idp"}}));
    answering.says(&active(&json!({})));
    let worker = WorkerTokens::new(1 << 20);
    let own = connection(None);
    for _ in 0..2 {
        assert_eq!(answering.ask(&worker, &own, &bearer("t"), moment(NOW)).await, "jwt:idp:user-1");
    }
    assert_eq!(answering.asked(), 1);
    assert_eq!(worker.counts().hits, 1);
    assert_eq!(answering.ask(&worker, &own, &bearer("t"), moment(NOW + 60)).await, "token_expired");
}

/// INT-04: `cache` bounds the worker's memory as well, by the monotonic clock.
#[tokio::test]
async fn a_worker_forgets_when_the_answer_is_too_old() {
    let answering = Answering::new(&json!({"cache": "2s"}), &json!({"token": {"issuer": "idp"}}));
    answering.says(&active(&json!({"exp": NOW + 600})));
    let worker = WorkerTokens::new(1 << 20);
    let own = connection(None);
    assert_eq!(answering.ask(&worker, &own, &bearer("t"), moment(NOW)).await, "jwt:idp:user-1");
    answering.says(&json!({"active": false}));
    answering.clock.advance(Duration::from_secs(1));
    assert_eq!(answering.ask(&worker, &own, &bearer("t"), answering.now()).await, "jwt:idp:user-1");
    answering.clock.advance(Duration::from_secs(1));
    assert_eq!(answering.ask(&worker, &own, &bearer("t"), answering.now()).await, "token_inactive");
}

/// CNF-03, CNF-06: the certificate of this very request, also where the token is remembered.
#[tokio::test]
async fn a_bound_token_is_for_its_certificate() {
    let (ours, theirs) = (peer_named("holder", "tpp"), peer_named("other", "tpp"));
    let thumbprint = portcullis_jose::base64url::encode(&ours.thumbprint);
    let answering = Answering::new(&json!({}), &json!({"token": {"issuer": "idp"}}));
    answering.says(&active(&json!({"cnf": {"x5t#S256": thumbprint}})));
    let worker = WorkerTokens::new(1 << 20);
    for (certificate, expected) in [
        (Some(ours.clone()), "jwt:idp:user-1"),
        (Some(theirs), "certificate_mismatch"),
        (None, "certificate_missing"),
        (Some(ours), "jwt:idp:user-1"),
    ] {
        let connection = connection(certificate);
        assert_eq!(answering.ask(&worker, &connection, &bearer("t"), moment(NOW)).await, expected);
    }
    assert_eq!(answering.asked(), 1);
}

/// A token that is not this provider's by its beginning is shown to nobody.
#[tokio::test]
async fn a_foreign_token_is_not_asked_about() {
    let answering = Answering::new(&json!({"prefix": "idp_"}), &json!({"token": {"issuer": "idp"}}));
    answering.says(&active(&json!({})));
    let worker = WorkerTokens::new(1 << 20);
    let own = connection(None);
    assert_eq!(answering.ask(&worker, &own, &bearer("idp_1"), moment(NOW)).await, "jwt:idp:user-1");
    for foreign in ["1", "idp", "IDP_1", "xidp_1"] {
        assert_eq!(answering.ask(&worker, &own, &bearer(foreign), moment(NOW)).await, "token_inactive");
    }
    assert_eq!(answering.asked(), 1);
}

/// INT-05: so many questions under way and no more. Who is turned away is told so at once, and asked about later.
#[tokio::test(start_paused = true)]
async fn questions_under_way_are_bounded() {
    let answering = Answering::new(&json!({"timeout": "10s"}), &json!({"token": {"issuer": "idp"}}));
    let answering = Rc::new(answering);
    answering.server.answer([Answer::Slow(Duration::from_secs(2), saying(&active(&json!({}))))]);
    let ask = |number: usize| {
        let answering = answering.clone();
        tokio::task::spawn_local(async move {
            let worker = WorkerTokens::new(1 << 20);
            let field = bearer(&format!("t{number}"));
            answering.ask(&worker, &connection(None), &field, moment(NOW)).await
        })
    };
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut said = BTreeMap::new();
            for asked in (0..300).map(ask).collect::<Vec<_>>() {
                *said.entry(asked.await.expect("an answer")).or_insert(0) += 1;
            }
            let expected = [("introspection_unavailable", 44), ("jwt:idp:user-1", 256)];
            assert_eq!(said, expected.map(|(code, count)| (code.to_owned(), count)).into());
            assert_eq!(answering.asked(), 256);
            assert_eq!(ask(299).await.expect("an answer"), "jwt:idp:user-1");
        })
        .await;
}
