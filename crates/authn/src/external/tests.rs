use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use portcullis_core::{
    Callers, Clock, Faults, Fetch, FetchResponse, Fetchers, ManualClock, Reason, Unary, UnaryCall,
    UnaryError, UnaryFuture,
};
use prost::Message as _;
use serde_json::{Value, json};

use super::answer::Verdict;
use super::messages::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue as WireValue, HeaderValueOption, HttpStatus,
    Kind, OkHttpResponse, Status, Struct, StructValue,
};
use super::{grpc, http};
use crate::testing::{
    Answer, House, KeyServer, NOW, Whole, connection, evidence, head, issuers, offline, only_fault, told,
};
use crate::{Evidence, WorkerTokens};

fn house() -> House {
    House::new(issuers(&json!({}), &Default::default(), &offline()))
}

/// A house whose services over HTTP are this one.
fn house_of(server: &Arc<KeyServer>) -> House {
    let mut house = house();
    let server = server.clone();
    house.fetchers = Fetchers::new(move |_| Ok(server.clone() as Arc<dyn Fetch>));
    house
}

fn external(changes: &Value) -> Value {
    let mut written = json!({
        "http": { "url": "https://authz.example/check" },
        "header": "x-session",
        "subject": "header.x-user",
    });
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(written.as_object_mut().expect("an object").remove(name)),
            value => written[name] = value.clone(),
        }
    }
    json!({ "external": written })
}

fn allows(user: &str, cache_control: Option<&'static str>) -> FetchResponse {
    let mut response = FetchResponse::ok("");
    response.headers.insert("x-user", HeaderValue::from_str(user).expect("a value"));
    if let Some(text) = cache_control {
        response.headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
    }
    response
}

#[test]
fn what_a_service_is_asked_with_is_read_and_judged() {
    let fault = |changes: Value, code: &str, saying: &str| {
        let server = Arc::new(KeyServer::default());
        let faults = house_of(&server).compile(&external(&changes), None).expect_err(saying);
        only_fault(faults, code, saying);
    };
    let http = |changes: Value| {
        let mut http = json!({ "url": "https://authz.example/check" });
        changes.as_object().expect("an object").iter().for_each(|(name, value)| http[name] = value.clone());
        json!({ "http": http })
    };
    fault(json!({ "http": null }), "one_key", "`external` has either `http` or `grpc`");
    fault(json!({ "grpc": { "url": "https://a.example" } }), "one_key", "either `http` or `grpc`");
    fault(json!({ "headers": ["x-session"] }), "unknown_key", "unknown key `headers`");
    fault(http(json!({ "url": "http://authz.example/" })), "bad_url", "over https only");
    fault(http(json!({ "url": "https://u:p@authz.example/" })), "bad_url", "is not the URL of a service");
    fault(http(json!({ "url": "https://authz.example/#x" })), "bad_url", "is not the URL of a service");
    fault(http(json!({ "url": "authz" })), "bad_url", "is not the URL of a service");
    fault(http(json!({ "trust": { "file": "ca.pem" } })), "unreadable", "is not there");
    fault(
        http(json!({ "client_certificate": { "certificate": { "file": "c.pem" }, "key": "k" } })),
        "literal_secret",
        "a secret is written",
    );
    fault(json!({ "subject": null }), "missing_key", "`external` needs `subject`");
    fault(json!({ "subject": "x-user" }), "bad_source", "is no part of an answer");
    fault(json!({ "attributes": { "tier": "claims.tier" } }), "bad_source", "is no part of an answer");
    fault(json!({ "timeout": "31s" }), "out_of_range", "at most 30 seconds");
    fault(json!({ "deny": "allow" }), "unknown_word", "`allow` is not one of the words here");
    fault(json!({ "scheme": "Bearer" }), "misplaced_scheme", "only `authorization` has a scheme");
    fault(
        json!({ "header": null, "cookie": "s", "scheme": "Bearer" }),
        "misplaced_scheme",
        "stands beside `header`",
    );
    for name in [
        "host",
        "x-original-uri",
        "x-original-address",
        "content-length",
        "transfer-encoding",
        "forwarded",
        "x-forwarded-for",
    ] {
        fault(
            json!({ "tell": { "headers": [name] } }),
            "bad_header",
            "is a field of the message or of the gateway",
        );
        fault(
            json!({ "upstream_headers": [name] }),
            "bad_header",
            "is a field of the message or of the gateway",
        );
    }
    let cache = |cache: Value, more: Value| {
        let mut changes = json!({ "cache": cache });
        more.as_object().expect("an object").iter().for_each(|(name, value)| changes[name] = value.clone());
        changes
    };
    fault(cache(json!({ "ignores": ["path"] }), json!({})), "missing_key", "needs `at_most`");
    fault(
        cache(json!({ "ignores": ["host"], "at_most": "1m" }), json!({})),
        "unknown_word",
        "is nothing that answers may ignore",
    );
    fault(cache(json!({ "at_most": "2h" }), json!({})), "out_of_range", "at most 3600 seconds");
}

/// SECURITY: an answer is never found by another caller than the one it is about.
#[test]
fn a_cache_that_mixes_callers_is_refused() {
    let server = Arc::new(KeyServer::default());
    let compile = |changes: Value| house_of(&server).compile(&external(&changes), None);
    let cache = json!({ "ignores": ["address"], "at_most": "1m" });
    for (changes, saying) in [
        (json!({ "tell": { "content": "1KiB" } }), "depends on the content"),
        (json!({ "header": null }), "nothing in the key says who is calling"),
    ] {
        let mut changes = changes;
        changes["cache"] = cache.clone();
        only_fault(compile(changes).expect_err(saying), "cache_mixes_callers", saying);
    }
    for good in [
        json!({ "cache": cache }),
        json!({ "header": null, "tell": { "headers": ["x-user"] }, "cache": cache }),
        json!({ "header": null, "tell": { "certificate": true }, "cache": cache }),
        json!({ "header": null, "cache": { "at_most": "1m" } }),
    ] {
        compile(good.clone()).unwrap_or_else(|faults| panic!("{good}: {:#?}", told(faults)));
    }
}

#[tokio::test]
async fn an_answer_counts_for_its_time_and_for_the_same_question() {
    let server = Arc::new(KeyServer::default());
    let house = house_of(&server);
    let chain = house.chain(&external(&json!({
        "tell": { "headers": ["x-device"] },
        "cache": { "at_most": "60s", "unstated": "5s" },
    })));
    let clock = ManualClock::at_unix_seconds(NOW);
    let worker = WorkerTokens::new(1 << 16);
    let connection = connection(None);
    let ask = async |path: &str, session: &str, devices: &[&str]| {
        let mut headers = vec![("x-session", session)];
        headers.extend(devices.iter().map(|device| ("x-device", *device)));
        let head = head(path, &headers);
        let now = Clock::Manual(clock.clone()).now();
        let answer = chain.authenticate(&evidence(&head, &connection, &worker, now)).await;
        answer.map(|principal| principal.key.to_string()).map_err(|rejection| rejection.reason())
    };
    server.answer([Answer::Response(allows("alice", Some("max-age=30")))]);
    assert_eq!(ask("/a", "s", &["p"]).await.as_deref(), Ok("external:authz.example:443:alice"));
    clock.advance(Duration::from_secs(29));
    assert!(ask("/a", "s", &["p"]).await.is_ok());
    assert_eq!(server.count(), 1);
    clock.advance(Duration::from_secs(1));
    assert!(ask("/a", "s", &["p"]).await.is_ok());
    assert_eq!(server.count(), 2, "its time is over");
    // What differs in any part is another question, also where the parts run together to the same bytes.
    server.answer([Answer::Response(allows("bob", Some("max-age=3000")))]);
    let questions: [(&str, &str, &[&str]); 8] = [
        ("/b", "s", &["p"]),
        ("/a", "sp", &[]),
        ("/a", "s", &[]),
        ("/a", "s", &[""]),
        ("/a", "s", &["p", "p"]),
        ("/a", "s", &["pp"]),
        ("/a", "S", &["p"]),
        ("/as", "s", &["p"]),
    ];
    for (number, (path, session, devices)) in questions.iter().enumerate() {
        assert!(ask(path, session, devices).await.is_ok_and(|key| key.ends_with(":bob")), "{path} {session}");
        assert_eq!(server.count(), 3 + number);
    }
    // No longer than the policy lets it.
    clock.advance(Duration::from_secs(60));
    assert!(ask("/b", "s", &["p"]).await.is_ok());
    assert_eq!(server.count(), 11);
    // One that says nothing of its time, one that wants not to be kept, and one that denies.
    for (answer, asked) in [
        (allows("carol", None), 1),
        (allows("carol", Some("no-store, max-age=60")), 3),
        (allows("carol", Some("max-age=soon")), 3),
        (FetchResponse { status: StatusCode::FORBIDDEN, ..allows("carol", Some("max-age=60")) }, 3),
    ] {
        clock.advance(Duration::from_secs(3600));
        server.answer([Answer::Response(answer)]);
        let before = server.count();
        for _ in 0..3 {
            drop(ask("/c", "s", &[]).await);
        }
        assert_eq!(server.count() - before, asked);
    }
}

#[tokio::test]
async fn what_is_asked_is_the_policy_s_and_only_the_policy_s() {
    let server = Arc::new(KeyServer::default());
    let house = house_of(&server);
    let chain = house.chain(&external(&json!({ "tell": { "headers": ["x-device"] }, "timeout": "3s" })));
    server.answer([Answer::Response(allows("alice", None))]);
    let head = head(
        "/a?b=c",
        &[
            ("x-session", "s"),
            ("x-device", "1"),
            ("x-device", "2"),
            ("x-other", "x"),
            ("host", "Api.Example"),
        ],
    );
    let (connection, worker) = (connection(None), WorkerTokens::new(1 << 16));
    let principal =
        chain.authenticate(&evidence(&head, &connection, &worker, crate::testing::moment(NOW))).await;
    assert_eq!(&*principal.expect("a caller").name, "alice");
    let asked = server.asked.lock().expect("no panic").pop().expect("a question");
    assert_eq!((asked.method.clone(), asked.url.as_str()), (Method::GET, "https://authz.example/check"));
    assert_eq!(asked.total_timeout, Duration::from_secs(3));
    let fields: Vec<_> =
        asked.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    let mut expected = [
        ("x-device", "1"),
        ("x-device", "2"),
        ("x-session", "s"),
        ("x-original-method", "GET"),
        ("x-original-uri", "/a?b=c"),
        ("x-original-host", "api.example"),
        ("x-original-scheme", "http"),
        ("x-original-address", "192.0.2.7"),
    ];
    let mut fields = fields;
    fields.sort_unstable();
    expected.sort_unstable();
    assert_eq!(fields, expected);
}

#[test]
fn only_a_clear_answer_over_http_decides() {
    let verdict = |status: u16| {
        let status = StatusCode::from_u16(status).expect("a status");
        let response = FetchResponse { status, headers: HeaderMap::new(), body: Bytes::new() };
        match http::verdict(response) {
            Ok(Verdict::Allowed(_)) => "allowed",
            Ok(Verdict::Denied(denied)) if denied.unauthenticated => "unauthenticated",
            Ok(Verdict::Denied(_)) => "denied",
            Err(rejection) => rejection.reason().code(),
        }
    };
    for status in 100..600 {
        let expected = match status {
            200..=299 => "allowed",
            401 => "unauthenticated",
            403 => "denied",
            _ => "external_unavailable",
        };
        assert_eq!(verdict(status), expected, "{status}");
    }
}

fn field(key: &str, value: &str) -> HeaderValueOption {
    let header = WireValue { key: key.to_owned(), value: value.to_owned(), raw_value: Bytes::new() };
    HeaderValueOption { header: Some(header) }
}

fn denied(code: i32, http_status: Option<i32>) -> CheckResponse {
    CheckResponse {
        status: Some(Status { code }),
        denied_response: http_status.map(|code| DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            ..DeniedHttpResponse::default()
        }),
        ..CheckResponse::default()
    }
}

#[test]
fn only_a_clear_answer_over_grpc_decides() {
    let ok = Some(Status { code: 0 });
    let ok_with = |key: &str| CheckResponse {
        status: ok,
        ok_response: Some(OkHttpResponse { headers: vec![field(key, "x")] }),
        ..CheckResponse::default()
    };
    let deep = (0..20).fold(Struct::default(), |inner, _| {
        let kind = Some(Kind::Struct(inner));
        Struct { fields: [("a".to_owned(), StructValue { kind })].into() }
    });
    let rows = [
        ("allowed", CheckResponse { status: ok, ..CheckResponse::default() }),
        ("allowed", ok_with("x-user")),
        ("external_unavailable", ok_with("x user")),
        ("external_unavailable", CheckResponse::default()),
        ("external_unavailable", CheckResponse { status: ok, ..denied(7, Some(403)) }),
        (
            "external_unavailable",
            CheckResponse { status: ok, dynamic_metadata: Some(deep), ..CheckResponse::default() },
        ),
        ("unauthenticated", denied(7, Some(401))),
        ("unauthenticated", denied(16, None)),
        ("unauthenticated", denied(16, Some(0))),
        ("denied", denied(16, Some(403))),
        ("denied", denied(7, None)),
        ("external_unavailable", denied(7, Some(200))),
        ("external_unavailable", denied(7, Some(302))),
        ("external_unavailable", denied(7, Some(503))),
        ("external_unavailable", denied(7, Some(-1))),
        ("external_unavailable", denied(13, None)),
        ("external_unavailable", denied(14, None)),
        ("external_unavailable", denied(-1, None)),
    ];
    for (expected, response) in rows {
        let told = match grpc::verdict(response.encode_to_vec().into()) {
            Ok(Verdict::Allowed(_)) => "allowed",
            Ok(Verdict::Denied(denied)) if denied.unauthenticated => "unauthenticated",
            Ok(Verdict::Denied(_)) => "denied",
            Err(rejection) => rejection.reason().code(),
        };
        assert_eq!(told, expected, "{response:?}");
    }
    for garbage in [&b"\xff"[..], b"\x0a\x05", b"\x0a\x7f", b"hello"] {
        assert!(grpc::verdict(Bytes::from_static(garbage)).is_err());
    }
}

/// Remembers what it was asked, and answers as scripted.
struct Scripted {
    asked: Mutex<Vec<UnaryCall>>,
    answer: Mutex<Result<Bytes, UnaryError>>,
}

impl Unary for Scripted {
    fn call(&self, call: UnaryCall) -> UnaryFuture<'_> {
        self.asked.lock().expect("no panic").push(call);
        let answer = self.answer.lock().expect("no panic").clone();
        Box::pin(async move { answer })
    }
}

#[tokio::test]
async fn a_grpc_service_is_told_in_envoy_s_words() {
    let metadata = |name: &str, kind: Kind| (name.to_owned(), StructValue { kind: Some(kind) });
    let response = CheckResponse {
        status: Some(Status { code: 0 }),
        ok_response: Some(OkHttpResponse { headers: vec![field("X-User", "alice")] }),
        dynamic_metadata: Some(Struct {
            fields: [metadata("scope", Kind::Text("a b a".into())), metadata("n", Kind::Number(7.0))].into(),
        }),
        ..CheckResponse::default()
    };
    let service = Arc::new(Scripted {
        asked: Mutex::default(),
        answer: Mutex::new(Ok(response.encode_to_vec().into())),
    });
    let mut house = house();
    let caller = service.clone();
    house.callers = Callers::new(move |_, _| Ok(caller.clone() as Arc<dyn Unary>));
    let chain = house.chain(&external(&json!({
        "http": null,
        "grpc": { "url": "https://authz.example" },
        "scopes": "body.scope",
        "attributes": { "who": "header.x-user" },
        "tell": { "context": { "api": "orders" } },
    })));
    let head = head("/a?b=c", &[("x-session", "s"), ("x-other", "x"), ("host", "api.example")]);
    let (connection, worker) = (connection(None), WorkerTokens::new(1 << 16));
    let now = crate::testing::moment(NOW);
    let principal = chain.authenticate(&evidence(&head, &connection, &worker, now)).await.expect("a caller");
    let identity = &principal.identity;
    assert_eq!(identity.scopes.iter().map(|scope| &**scope).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(identity.claims.get("n"), Some(&portcullis_core::json::Value::Integer(7)));
    assert_eq!(identity.claims.get("who"), Some(&portcullis_core::json::Value::Text("alice".into())));
    let call = service.asked.lock().expect("no panic").pop().expect("a call");
    assert_eq!(call.path, "/envoy.service.auth.v3.Authorization/Check");
    let attributes = CheckRequest::decode(call.message).expect("a message").attributes.expect("attributes");
    let request = attributes.request.expect("a request").http.expect("over HTTP");
    assert_eq!((request.method.as_str(), request.path.as_str(), request.size), ("GET", "/a?b=c", -1));
    assert_eq!(request.headers.get("x-session").map(String::as_str), Some("s"));
    assert!(!request.headers.contains_key("x-other"));
    assert_eq!(attributes.context_extensions.get("api").map(String::as_str), Some("orders"));
    for error in
        [UnaryError::Connection("x".into()), UnaryError::TimedOut(Duration::ZERO), UnaryError::Status(16)]
    {
        *service.answer.lock().expect("no panic") = Err(error);
        let refused =
            chain.authenticate(&evidence(&head, &connection, &worker, now)).await.expect_err("a refusal");
        assert_eq!(refused.reason(), Reason::ExternalUnavailable);
    }
    let mut faults = Faults::default();
    assert!(super::ExternalSpec::read(&crate::testing::node(&json!({})), &mut faults).is_none());
}

/// A service that never answers.
struct Hanging;

impl Fetch for Hanging {
    fn fetch(&self, _request: portcullis_core::FetchRequest) -> portcullis_core::FetchFuture<'_> {
        Box::pin(std::future::pending())
    }
}

/// A service that hangs holds up no more requests than the policy says; the others are told at once.
#[tokio::test]
async fn calls_beyond_the_bound_are_not_made() {
    let mut house = house();
    house.fetchers = Fetchers::new(|_| Ok(Arc::new(Hanging) as Arc<dyn Fetch>));
    let chain = house.chain(&external(&json!({ "at_once": 2 })));
    let (connection, worker) = (connection(None), WorkerTokens::new(1 << 16));
    let head = head("/a", &[("x-session", "s")]);
    let evidence = evidence(&head, &connection, &worker, crate::testing::moment(NOW));
    let mut first = Box::pin(chain.authenticate(&evidence));
    let mut second = Box::pin(chain.authenticate(&evidence));
    assert!(futures_now(&mut first).is_none() && futures_now(&mut second).is_none());
    let refused = chain.authenticate(&evidence).await.expect_err("no room");
    assert_eq!(refused.reason(), Reason::ExternalUnavailable);
    assert!(refused.detail().is_some_and(|detail| detail.retry_after.is_some()));
    // A caller who goes away makes room.
    drop(first);
    let mut third = Box::pin(chain.authenticate(&evidence));
    assert!(futures_now(&mut third).is_none());
    assert_eq!(worker.external_counts().busy, 1);
}

/// What it comes to without waiting.
fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// SECURITY: over gRPC the service is told the server's name and the version; both are part of the question.
#[tokio::test]
async fn a_question_differs_by_the_server_s_name_and_the_version() {
    let key = |server_name: Option<&str>, version: ::http::Version| {
        let mut connection = connection(None);
        connection.tls = server_name.map(|name| portcullis_core::TlsFacts {
            policy: portcullis_core::TlsPolicyId(0),
            version: "TLSv1.3",
            server_name: Some(name.into()),
        });
        let mut head = head("/a", &[("x-session", "s")]);
        head.version = version;
        let worker = WorkerTokens::new(0);
        let evidence = evidence(&head, &connection, &worker, crate::testing::moment(NOW));
        super::key::of(&[], &super::Told::default(), &evidence, None)
    };
    let (old, new) = (::http::Version::HTTP_11, ::http::Version::HTTP_2);
    let keys = [
        key(Some("a.example"), old),
        key(Some("b.example"), old),
        key(Some("a.example"), new),
        key(None, old),
    ];
    for (at, one) in keys.iter().enumerate() {
        assert_eq!(keys.iter().position(|other| other == one), Some(at));
    }
    assert_eq!(keys[0], key(Some("a.example"), old));
}

/// What is longer than the service may see is refused where the chain is enforced; a trial ends no request for it.
#[tokio::test]
async fn a_long_content_is_not_told() {
    let server = Arc::new(KeyServer::default());
    let chain = house_of(&server).chain(&external(&json!({ "tell": { "content": "4B" } })));
    server.answer([Answer::Response(allows("alice", None))]);
    let (connection, worker) = (connection(None), WorkerTokens::new(1 << 16));
    let head = head("/a", &[("x-session", "s")]);
    let plain = evidence(&head, &connection, &worker, crate::testing::moment(NOW));
    let (short, long) = (Whole(Bytes::from_static(b"1234")), Whole(Bytes::from_static(b"12345")));
    for (content, on_trial, expected) in [
        (&short, false, None),
        (&short, true, None),
        (&long, false, Some(Reason::BodyTooLarge)),
        (&long, true, Some(Reason::ExternalUnavailable)),
    ] {
        let asked = Evidence { content: Some(content), on_trial, ..plain };
        let refused = chain.authenticate(&asked).await.err().map(|rejection| rejection.reason());
        assert_eq!(refused, expected, "{on_trial}");
    }
    assert_eq!(server.count(), 2);
}

#[test]
fn what_stands_in_for_a_service_is_read_as_the_service_is() {
    let metadata = [("sub".to_owned(), "alice".to_owned())];
    let allows = super::grpc_answer(super::grpc_reply(Ok(&metadata), &[]), "body.sub");
    assert!(matches!(allows, super::ExternalAnswer::Allows(Some(name)) if &*name == "alice"));
    let denies = super::grpc_answer(super::grpc_reply(Err(403), &[]), "body.sub");
    assert!(matches!(denies, super::ExternalAnswer::Denies));
}
