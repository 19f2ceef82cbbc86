use http::header::{CONTENT_TYPE, HeaderValue};
use portcullis_core::{
    Clock, Connection, Faults, FetchError, FetchResponse, ManualClock, Moment, OutboundCertificates,
    QUESTIONS_AT_ONCE,
};
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, SigningKey, base64url};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::testing::{
    Answer, House, KeyServer, Memory, NOW, bearer, connection, evidence, head, jwks, moment, node, ok,
    only_fault, peer_named, replays, sign,
};
use crate::{Chain, Clients, Introspections, IssuersSpec, Providers, WorkerTokens};

static ISSUER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static HOLDER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));

/// A provider in memory, and a chain that asks it.
struct Answering {
    server: Arc<KeyServer>,
    clock: ManualClock,
    house: House,
    chain: Chain,
}

impl Answering {
    fn new(introspect: &Value, chain: &Value) -> Self {
        Self::of(&json!({"audience": "https://api.example"}), introspect, chain)
    }

    /// With more settings of the entry.
    fn of(entry: &Value, introspect: &Value, chain: &Value) -> Self {
        let mut written = json!({
            "url": "https://idp.example/introspect", "client_id": "gw", "client_secret": {"file": "secret"},
        });
        for (name, value) in introspect.as_object().expect("an object") {
            match value {
                Value::Null => drop(written.as_object_mut().expect("an object").remove(name)),
                value => written[name] = value.clone(),
            }
        }
        let mut entry = entry.clone();
        entry["introspect"] = written;
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
        let memory = Memory::default().with("secret", "s3cret").with("keys.json", jwks(&[("k1", &ISSUER)]));
        let mut faults = Faults::default();
        let signed = json!({
            "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256",
            "keys": {"jwks": {"file": "keys.json"}},
        });
        let issuers = IssuersSpec::read(&node(&json!({"idp": entry, "signed": signed})), &mut faults);
        let issuers = issuers.expect("issuers").compile(&memory, providers, &mut faults);
        assert!(!faults.any_error(), "{:?}", faults.into_sorted());
        let house = House::new(issuers);
        let compiled = house.chain(chain);
        Self { server, clock, house, chain: compiled }
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
        "aud": "https://api.example",
    });
    for (name, value) in changes.as_object().expect("an object") {
        said[name] = value.clone();
    }
    said.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
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

/// CNF-03, CNF-05, CNF-06: the certificate of this very request, also where the token is remembered.
#[tokio::test]
async fn a_bound_token_is_for_its_certificate() {
    let (ours, theirs) = (peer_named("holder", "tpp"), peer_named("other", "tpp"));
    let thumbprint = base64url::encode(&ours.thumbprint);
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
            let turned_away = 300 - QUESTIONS_AT_ONCE;
            let expected =
                [("introspection_unavailable", turned_away), ("jwt:idp:user-1", QUESTIONS_AT_ONCE)];
            assert_eq!(said, expected.map(|(code, count)| (code.to_owned(), count)).into());
            assert_eq!(answering.asked(), QUESTIONS_AT_ONCE);
            assert_eq!(ask(299).await.expect("an answer"), "jwt:idp:user-1");
        })
        .await;
}

fn status(status: u16) -> Answer {
    let status = http::StatusCode::from_u16(status).expect("a status");
    Answer::Response(FetchResponse { status, ..ok("") })
}

/// INT-05: a token whose question failed is let rest for a moment, and no other one is.
#[tokio::test]
async fn a_token_whose_question_failed_is_not_asked_about_at_once() {
    let answering = Answering::new(&json!({}), &json!({"token": {"issuer": "idp"}}));
    let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
    answering.server.answer([status(500)]);
    for _ in 0..10 {
        let said = answering.ask(&worker, &own, &bearer("t"), answering.now()).await;
        assert_eq!((&*said, answering.asked()), ("introspection_unavailable", 1));
    }
    answering.says(&active(&json!({})));
    assert_eq!(answering.ask(&worker, &own, &bearer("u"), answering.now()).await, "jwt:idp:user-1");
    answering.clock.advance(Duration::from_millis(999));
    assert_eq!(
        answering.ask(&worker, &own, &bearer("t"), answering.now()).await,
        "introspection_unavailable"
    );
    answering.clock.advance(Duration::from_millis(1));
    assert_eq!(answering.ask(&worker, &own, &bearer("t"), answering.now()).await, "jwt:idp:user-1");
    assert_eq!(answering.asked(), 3);
}

/// INT-05: what a caller can bring about shuts nobody off; what is the provider's own fault does, after five in a row.
#[tokio::test]
async fn only_what_was_asked_and_not_answered_shuts_the_provider_off() {
    let limit = Duration::from_millis(500);
    for (answer, asked) in [
        (status(500), 20),
        (Answer::Fails(FetchError::Unsent(limit)), 20),
        (status(503), 5),
        (Answer::Fails(FetchError::TimedOut(limit)), 5),
    ] {
        let answering = Answering::new(&json!({}), &json!({"token": {"issuer": "idp"}}));
        let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
        answering.server.answer([answer]);
        for number in 0..20 {
            let field = bearer(&format!("t{number}"));
            let said = answering.ask(&worker, &own, &field, answering.now()).await;
            assert_eq!(said, "introspection_unavailable");
        }
        assert_eq!(answering.asked(), asked);
    }
    // What was never asked is asked about as soon as somebody comes.
    let answering = Answering::new(&json!({}), &json!({"token": {"issuer": "idp"}}));
    let unsent = Answer::Fails(FetchError::Unsent(limit));
    answering.server.answer([unsent, Answer::Response(saying(&active(&json!({}))))]);
    let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
    for expected in ["introspection_unavailable", "jwt:idp:user-1"] {
        assert_eq!(answering.ask(&worker, &own, &bearer("t"), answering.now()).await, expected);
    }
}

/// JWT-28: a client and a user who are called the same are told apart by key, by name and by subject.
#[tokio::test]
async fn clients_are_never_called_as_users_are() {
    let answering = Answering::new(&json!({}), &json!({"token": {"issuer": "idp"}}));
    let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
    for (token, said, expected) in [
        ("user", json!({"sub": "alice", "client_id": "app"}), ["jwt:idp:alice", "idp:alice", "alice"]),
        (
            "client",
            json!({"sub": null, "client_id": "alice"}),
            ["oauth_client:idp:alice", "idp:client:alice", "client:alice"],
        ),
    ] {
        answering.says(&active(&said));
        let head = head("/accounts", &[("authorization", &*bearer(token))]);
        let evidence = evidence(&head, &own, &worker, answering.now());
        let principal = answering.chain.authenticate(&evidence).await.expect("a caller");
        assert_eq!([&*principal.key, &*principal.name, &*principal.identity.subject], expected);
    }
    answering.says(&active(&json!({"sub": "client:alice"})));
    assert_eq!(
        answering.ask(&worker, &own, &bearer("disguised"), answering.now()).await,
        "token_claim_invalid"
    );
    // A signed token of the same provider is no way around it; where nobody is asked there are no such names.
    let entry = json!({
        "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256",
        "keys": {"jwks": {"file": "keys.json"}},
    });
    for (issuer, expected) in [("idp", "token_claim_invalid"), ("signed", "jwt:signed:client:alice")] {
        let answering = Answering::of(&entry, &json!({}), &json!({"jwt": {"issuer": issuer}}));
        let token = bearer(&sign(&ISSUER, &json!({"kid": "k1"}), &json!({"sub": "client:alice"})));
        assert_eq!(answering.ask(&worker, &own, &token, answering.now()).await, expected);
    }
}

/// JWT-30, JWT-32: what says of itself that it is no access token is shown to nobody, and what is said to be an ID token is
/// none either.
#[tokio::test]
async fn other_kinds_of_tokens_are_not_asked_about() {
    let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
    let chain = json!({"token": {"issuer": "idp"}});
    let audience = "https://api.example";
    let strict = Answering::of(&json!({ "audience": audience }), &json!({}), &chain);
    let lenient = Answering::of(&json!({"audience": audience, "id_tokens": true}), &json!({}), &chain);
    for (header, claims, expected) in [
        (json!({"typ": "dpop+jwt"}), json!({}), ["token_type_refused"; 2]),
        (json!({"typ": "application/logout+jwt"}), json!({}), ["token_type_refused"; 2]),
        (json!({"typ": "JWT"}), json!({"nonce": "n"}), ["token_type_refused", "jwt:idp:user-1"]),
        (json!({"typ": "JWT"}), json!({"at_hash": "h"}), ["token_type_refused", "jwt:idp:user-1"]),
        (json!({"typ": "JWT"}), json!({}), ["jwt:idp:user-1"; 2]),
    ] {
        let token = bearer(&sign(&ISSUER, &header, &claims));
        for (answering, expected) in [&strict, &lenient].into_iter().zip(expected) {
            answering.says(&active(&json!({})));
            let asked = answering.asked();
            assert_eq!(answering.ask(&worker, &own, &token, answering.now()).await, expected, "{header}");
            assert_eq!(answering.asked() - asked, usize::from(expected != "token_type_refused"));
        }
    }
    for claim in ["nonce", "at_hash", "c_hash"] {
        for (answering, expected) in [(&strict, "token_type_refused"), (&lenient, "jwt:idp:user-1")] {
            answering.says(&active(&json!({ claim: "x" })));
            assert_eq!(answering.ask(&worker, &own, &bearer(claim), answering.now()).await, expected);
        }
    }
}

/// INT-04: what may not be remembered takes no place in the worker's memory.
#[tokio::test]
async fn an_answer_that_is_too_old_at_once_is_not_remembered() {
    let answering = Answering::new(&json!({"cache": "0s"}), &json!({"token": {"issuer": "idp"}}));
    answering.says(&active(&json!({})));
    let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
    assert_eq!(answering.ask(&worker, &own, &bearer("t"), answering.now()).await, "jwt:idp:user-1");
    assert_eq!(worker.counts().held, 0);
}

/// The moment of a question is the one at which it is asked, not the one at which somebody began to look for whom to ask.
#[tokio::test(start_paused = true)]
async fn a_question_is_dated_when_the_provider_is_found() {
    let entry = json!({"issuer": "https://idp.example", "audience": "https://api.example", "discover": true});
    let answering = Answering::of(
        &entry,
        &json!({"url": null, "cache": "2s", "timeout": "10s"}),
        &json!({"token": {"issuer": "idp"}}),
    );
    let metadata = ok(json!({
        "issuer": "https://idp.example", "introspection_endpoint": "https://idp.example/i",
    })
    .to_string());
    answering.server.answer([
        Answer::Slow(Duration::from_secs(3), metadata),
        Answer::Response(saying(&active(&json!({})))),
    ]);
    let clock = answering.clock.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.advance(Duration::from_secs(3));
    });
    let own = connection(None);
    for _ in 0..2 {
        let (worker, now) = (WorkerTokens::new(1 << 20), answering.now());
        assert_eq!(answering.ask(&worker, &own, &bearer("t"), now).await, "jwt:idp:user-1");
    }
    assert_eq!(answering.asked(), 2, "the document, and one question that is remembered for its two seconds");
}

/// A token bound to the holder's key, and a proof for it.
fn token_and_proof(number: usize) -> (String, String, String) {
    let mut key = HOLDER.public_jwk("x").expect("a public key");
    key.as_object_mut().expect("an object").remove("kid");
    let proof = |token: &str| {
        let claims = json!({
            "jti": format!("proof-{number}"), "htm": "GET", "htu": "http://api.example/accounts", "iat": NOW,
            "ath": base64url::encode(&sha256(token.as_bytes())),
        });
        HOLDER.sign(json!({"typ": "dpop+jwt", "jwk": key}), &claims).expect("a signature")
    };
    let parsed =
        portcullis_jose::KeyProof::parse(proof("").as_bytes()).expect("a proof").thumbprint().to_vec();
    let thumbprint = base64url::encode(&parsed);
    let token = sign(&ISSUER, &json!({"kid": "k1"}), &json!({"cnf": {"jkt": thumbprint}}));
    let proof = proof(&token);
    (token, proof, thumbprint)
}

/// DPP-06: one proof for a token that is verified and asked about is used once by the request, and by no second one.
#[tokio::test]
async fn a_proof_counts_once_for_all_who_judge_its_token() {
    let chain = json!({
        "all_of": [{"jwt": {"issuer": "signed", "dpop": "required"}}, {"token": {"issuer": "idp", "dpop": "required"}}],
        "identity_from": "jwt",
    });
    let answering = Answering::new(&json!({}), &chain);
    let (token, proof, thumbprint) = token_and_proof(1);
    answering.says(&active(&json!({"token_type": "DPoP", "cnf": {"jkt": thumbprint}})));
    let (worker, own) = (WorkerTokens::new(1 << 20), connection(None));
    let fields = [("host", "api.example"), ("authorization", &*format!("DPoP {token}")), ("dpop", &*proof)];
    let head = head("/accounts", &fields);
    let mut said = Vec::new();
    for _ in 0..2 {
        let asked = answering.chain.authenticate(&evidence(&head, &own, &worker, moment(NOW))).await;
        said.push(asked.map_or_else(|rejection| rejection.reason().code().to_owned(), |_| "in".to_owned()));
    }
    assert_eq!(said, ["in", "dpop_proof_replayed"]);
}

/// Where only one of two takes proofs, no request with one would be complete.
#[tokio::test]
async fn proofs_are_taken_by_both_or_by_none() {
    let answering = Answering::new(&json!({}), &json!({"token": {"issuer": "idp"}}));
    let chain = |jwt: Value, token: Value| {
        let all_of = [json!({ "jwt": jwt }), json!({ "token": token })];
        answering.house.compile(&json!({"all_of": all_of, "identity_from": "jwt"}), None)
    };
    let (signed, asked) = (json!({"issuer": "signed"}), json!({"issuer": "idp"}));
    let proven = |member: &Value, dpop: &str| {
        let mut member = member.clone();
        member["dpop"] = dpop.into();
        member
    };
    for (jwt, token) in [
        (proven(&signed, "required"), asked.clone()),
        (proven(&signed, "optional"), asked.clone()),
        (signed.clone(), proven(&asked, "optional")),
    ] {
        let faults = chain(jwt, token).expect_err("a fault");
        only_fault(faults, "proofs_differ", "only one of them takes proofs");
    }
    assert!(chain(signed.clone(), asked.clone()).is_ok());
    assert!(chain(proven(&signed, "required"), proven(&asked, "optional")).is_ok());
    let mut apart = signed;
    apart["header"] = "x-token".into();
    assert!(chain(apart, proven(&asked, "required")).is_ok(), "two tokens");
}
