use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use portcullis_core::{
    Clock, Fetch, FetchError, FetchFuture, FetchRequest, FetchResponse, Fetchers, ManualClock, Moment,
};
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::json;
use tokio::task::yield_now;

use super::{KeySources, RefreshReason, RefreshResult};
use crate::testing::{
    Answer, House, KeyServer, Memory, NOW, bearer, connection, evidence, head, issuers, jwks, ok, sign,
};
use crate::{Chain, WorkerTokens};

static FIRST: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static SECOND: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));

/// An API that takes tokens of an issuer whose keys are fetched, on a clock that stands still.
struct Bench {
    server: Arc<KeyServer>,
    clock: ManualClock,
    sources: KeySources,
    chain: Chain,
    worker: WorkerTokens,
}

impl Bench {
    fn new() -> Self {
        let server = Arc::new(KeyServer::default());
        server.serve(jwks(&[("k1", &FIRST)]));
        let clock = ManualClock::at_unix_seconds(NOW);
        let sources = server.sources(&clock);
        let chain = Self::compile(&sources);
        Self { server, clock, sources, chain, worker: WorkerTokens::new(1 << 20) }
    }

    fn compile(sources: &KeySources) -> Chain {
        let written = json!({"idp": {
            "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256",
            "keys": {"jwks_url": "https://idp.example/jwks", "refresh": "5m", "serve_stale": "10m"},
        }});
        House::new(issuers(&written, &Memory::default(), sources)).chain(&json!({"jwt": {"issuer": "idp"}}))
    }

    fn now(&self) -> Moment {
        Clock::Manual(self.clock.clone()).now()
    }

    /// Lets the background do what is due.
    async fn settle(&self) {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    /// Moves the clock, and the sleeping background with it.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::advance(time).await;
        self.settle().await;
    }

    async fn ask(&self, token: &str) -> &'static str {
        let value = bearer(token);
        let head = head("/", &[("authorization", &value)]);
        let asked =
            self.chain.authenticate(&evidence(&head, &connection(None), &self.worker, self.now())).await;
        asked.err().map_or("accepted", |rejection| rejection.reason().code())
    }
}

fn by(key: &SigningKey, kid: &str) -> String {
    sign(key, &json!({"kid": kid}), &json!({"exp": NOW + 86_400}))
}

const MINUTE: Duration = Duration::from_secs(60);

/// JKS-10: nothing is asked until policies are in force or a request needs it.
#[tokio::test(start_paused = true)]
async fn keys_are_fetched_at_the_first_need() {
    let bench = Bench::new();
    bench.settle().await;
    assert_eq!(bench.server.count(), 0);
    assert!(!bench.sources.status()[0].usable);
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    assert_eq!(bench.server.count(), 1);
    let status = bench.sources.status().remove(0);
    assert!(status.usable && status.keys == 1 && status.last_error.is_none());
    assert_eq!((&*status.url, &*status.issuers), ("https://idp.example/jwks", &["idp".into()][..]));
    assert_eq!(status.age, Some(Duration::ZERO));
    let count = status.refreshes[0];
    assert_eq!((count.reason, count.result, count.count), (RefreshReason::Start, RefreshResult::Replaced, 1));
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_when_policies_come_into_force() {
    let bench = Bench::new();
    bench.sources.warm();
    bench.sources.warm();
    bench.settle().await;
    assert_eq!(bench.server.count(), 1);
    assert!(bench.sources.status()[0].usable);
    let request = bench.server.asked.lock().expect("no panic")[0].clone();
    assert_eq!(request.max_bytes, 512 * 1024);
    assert!(!request.headers.contains_key("if-none-match"));
    assert_eq!(request.headers["accept"], "application/jwk-set+json, application/json");
    assert_eq!((request.connect_timeout.as_secs(), request.total_timeout.as_secs()), (2, 5));
}

/// JKS-05: rotation is noticed by the first token of the new key.
#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_asked_for_and_found() {
    let bench = Bench::new();
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    bench.server.serve(jwks(&[("k1", &FIRST), ("k2", &SECOND)]));
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "accepted");
    assert_eq!(bench.server.count(), 2);
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "accepted");
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    assert_eq!(bench.server.count(), 2);
}

/// JKS-05, security-reliability 2.1: at most 3 fetches for 1,000 requests, and the answer is 401.
#[tokio::test(start_paused = true)]
async fn a_storm_of_unknown_keys_causes_three_fetches() {
    let bench = Bench::new();
    for number in 0..1_000 {
        assert_eq!(bench.ask(&by(&SECOND, &format!("k{}", number + 2))).await, "token_signature_invalid");
    }
    assert_eq!(bench.server.count(), 3);
    assert!(bench.sources.status()[0].cool_downs >= 997);
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
}

/// The same storm at once, with no keys yet: all of them wait for the same fetches.
#[tokio::test(start_paused = true)]
async fn a_herd_waits_for_one_fetch() {
    let bench = Rc::new(Bench::new());
    bench.server.answer([Answer::Slow(Duration::from_secs(1), ok(jwks(&[("k1", &FIRST)])))]);
    let unknown =
        (0..200).map(|number| (by(&SECOND, &format!("k{}", number + 2)), "token_signature_invalid"));
    let known = (0..200).map(|_| (by(&FIRST, "k1"), "accepted"));
    let herd = tokio::task::LocalSet::new();
    let begun = tokio::time::Instant::now();
    for (token, expected) in unknown.chain(known) {
        let bench = bench.clone();
        herd.spawn_local(async move { assert_eq!(bench.ask(&token).await, expected) });
    }
    herd.await;
    assert_eq!(bench.server.count(), 2);
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}

/// JKS-06: what was missing is forgotten with every good fetch, and soon.
#[tokio::test(start_paused = true)]
async fn a_key_that_appears_later_is_found() {
    let bench = Bench::new();
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "token_signature_invalid");
    let count = bench.server.count();
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "token_signature_invalid");
    assert_eq!(bench.server.count(), count, "remembered as missing");
    bench.server.serve(jwks(&[("k2", &SECOND)]));
    bench.pass(Duration::from_secs(30)).await;
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "accepted");
}

/// A token that does not claim to be from here is no reason to ask.
#[tokio::test(start_paused = true)]
async fn a_foreign_token_causes_no_fetch() {
    let bench = Bench::new();
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    let foreign = sign(&SECOND, &json!({"kid": "theirs"}), &json!({"iss": "https://other.example"}));
    assert_eq!(bench.ask(&foreign).await, "token_signature_invalid");
    assert_eq!(bench.server.count(), 1);
}

/// JKS-08, JKS-09, trap 12: a key that is gone verifies nothing, also not what was remembered.
#[tokio::test(start_paused = true)]
async fn a_removed_key_stops_verifying_at_once() {
    let bench = Bench::new();
    bench.server.serve(jwks(&[("k1", &FIRST), ("k2", &SECOND)]));
    let token = by(&FIRST, "k1");
    assert_eq!(bench.ask(&token).await, "accepted");
    assert_eq!(bench.ask(&token).await, "accepted");
    assert_eq!(bench.worker.counts().hits, 1);
    bench.server.serve(jwks(&[("k2", &SECOND)]));
    bench.pass(5 * MINUTE).await;
    assert_eq!(bench.ask(&token).await, "token_signature_invalid");
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "accepted");
}

/// JKS-09: the same keys again are the same generation, so nothing is verified twice.
#[tokio::test(start_paused = true)]
async fn an_unchanged_set_forgets_nothing() {
    let bench = Bench::new();
    let token = by(&FIRST, "k1");
    assert_eq!(bench.ask(&token).await, "accepted");
    bench.pass(5 * MINUTE).await;
    assert_eq!(bench.server.count(), 2);
    assert_eq!(bench.ask(&token).await, "accepted");
    assert_eq!(bench.worker.counts().hits, 1);
    let status = bench.sources.status().remove(0);
    assert!(status.refreshes.iter().any(|count| count.result == RefreshResult::Unchanged));
    assert!(status.age < Some(MINUTE));
}

/// JKS-04.
#[tokio::test(start_paused = true)]
async fn sets_are_refreshed_in_the_background_and_by_their_tag() {
    let bench = Bench::new();
    let tagged = |etag: Option<&str>| {
        let mut response = ok(jwks(&[("k1", &FIRST)]));
        response.headers.extend(etag.map(|etag| (http::header::ETAG, etag.parse().expect("a tag"))));
        response.headers.insert("cache-control", http::HeaderValue::from_static("max-age=120"));
        response
    };
    let mut same = tagged(Some("\"v1\""));
    same.status = http::StatusCode::NOT_MODIFIED;
    same.body = bytes::Bytes::new();
    bench.server.answer([Answer::Response(tagged(Some("\"v1\""))), Answer::Response(same)]);
    bench.sources.warm();
    bench.settle().await;
    bench.pass(Duration::from_secs(85)).await;
    assert_eq!(bench.server.count(), 1, "not before 80 % less a tenth");
    bench.pass(Duration::from_secs(30)).await;
    assert_eq!(bench.server.count(), 2);
    assert_eq!(bench.server.asked.lock().expect("no panic")[1].headers["if-none-match"], "\"v1\"");
    let status = bench.sources.status().remove(0);
    assert!(status.usable && status.last_error.is_none() && status.age < Some(MINUTE));
}

/// JKS-07, trap 12: what is no key set changes nothing.
#[tokio::test(start_paused = true)]
async fn garbage_keeps_the_last_good_set() {
    let private = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}]});
    for (body, status) in [
        ("<html>", 200),
        ("{}", 200),
        ("{\"keys\":[]}", 200),
        ("{\"keys\":7}", 200),
        (&*private.to_string(), 200),
        (&*jwks(&[("k2", &SECOND)]), 500),
        (&*jwks(&[("k2", &SECOND)]), 302),
        (&*jwks(&[("k2", &SECOND)]), 203),
        ("", 304),
    ] {
        let bench = Bench::new();
        assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
        let mut response = ok(body);
        response.status = http::StatusCode::from_u16(status).expect("a status");
        bench.server.answer([Answer::Response(response)]);
        bench.pass(5 * MINUTE).await;
        assert!(bench.server.count() > 1);
        assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted", "{body}");
        let source = bench.sources.status().remove(0);
        assert!(source.last_error.is_some() && source.usable, "{body}");
    }
}

/// JKS-07, JKS-10, trap 12: what cannot be checked is 503, never 401, and nothing waits for a server that is down.
#[tokio::test(start_paused = true)]
async fn without_keys_nothing_is_said_about_a_token() {
    let bench = Bench::new();
    bench.server.fail();
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "keys_unavailable");
    let count = bench.server.count();
    let before = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "keys_unavailable");
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(bench.server.count(), count);
    assert_eq!(bench.sources.status()[0].last_error.as_deref(), Some("connection failed: refused"));
    bench.server.serve(jwks(&[("k1", &FIRST)]));
    bench.pass(Duration::from_secs(2)).await;
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    assert_eq!(bench.sources.status()[0].last_error, None);
}

/// A broken token is broken whether or not there are keys.
#[tokio::test(start_paused = true)]
async fn what_needs_no_key_is_refused_without_one() {
    let bench = Bench::new();
    bench.server.fail();
    assert_eq!(bench.ask("a.b").await, "token_malformed");
    assert_eq!(bench.server.count(), 0);
}

/// JKS-05: the wait is bounded, and it is the caller's own.
#[tokio::test(start_paused = true)]
async fn a_slow_server_costs_two_seconds_at_most() {
    let bench = Bench::new();
    bench.server.answer([Answer::Slow(Duration::from_secs(4), ok(jwks(&[("k1", &FIRST)])))]);
    let before = tokio::time::Instant::now();
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "keys_unavailable");
    assert_eq!(before.elapsed(), Duration::from_secs(2));
    bench.pass(Duration::from_secs(2)).await;
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    assert_eq!(bench.server.count(), 1);
}

/// Security-reliability 2.2, `jwt-singleflight-leader-cancel`.
#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_leaves_the_fetch_running() {
    let bench = Bench::new();
    bench.server.answer([Answer::Slow(Duration::from_secs(1), ok(jwks(&[("k1", &FIRST)])))]);
    let token = by(&FIRST, "k1");
    let gone = tokio::time::timeout(Duration::from_millis(100), bench.ask(&token)).await;
    assert!(gone.is_err());
    assert_eq!(bench.ask(&token).await, "accepted");
    assert_eq!(bench.server.count(), 1);
}

/// A server that never ends its answer is cut off, and asked again.
#[tokio::test(start_paused = true)]
async fn an_endless_answer_is_cut_off() {
    let bench = Bench::new();
    let endless = Answer::Slow(Duration::from_secs(3_600), ok(""));
    bench.server.answer([endless, Answer::Response(ok(jwks(&[("k1", &FIRST)])))]);
    bench.sources.warm();
    bench.settle().await;
    bench.pass(Duration::from_secs(7)).await;
    assert!(bench.sources.status()[0].last_error.as_deref().is_some_and(|why| why.starts_with("no answer")));
    bench.pass(Duration::from_secs(2)).await;
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
}

/// A panic ends a fetch, not the care for the source.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_a_failed_fetch() {
    let bench = Bench::new();
    bench.server.answer([Answer::Panics, Answer::Response(ok(jwks(&[("k1", &FIRST)])))]);
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "keys_unavailable");
    bench.pass(Duration::from_secs(2)).await;
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
}

/// JKS-07: stale keys serve as long as the policy says, then nothing is said, also not from memory.
#[tokio::test(start_paused = true)]
async fn stale_keys_serve_up_to_their_bound() {
    let bench = Bench::new();
    let token = by(&FIRST, "k1");
    assert_eq!(bench.ask(&token).await, "accepted");
    bench.server.answer([Answer::Fails(FetchError::TimedOut(Duration::from_secs(5)))]);
    bench.pass(15 * MINUTE).await;
    assert_eq!(bench.ask(&token).await, "accepted", "5 minutes of life and 10 stale");
    // While the server is down, nobody can say that a key does not exist.
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "keys_unavailable");
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.ask(&token).await, "keys_unavailable");
    assert!(!bench.sources.status()[0].usable);
    bench.server.serve(jwks(&[("k1", &FIRST)]));
    bench.pass(2 * MINUTE).await;
    assert_eq!(bench.ask(&token).await, "accepted");
}

/// What survives a reload: the same URL and trust keep their keys, and what nobody uses any more ends.
#[tokio::test(start_paused = true)]
async fn keys_survive_a_reload() {
    let mut bench = Bench::new();
    let token = by(&FIRST, "k1");
    assert_eq!(bench.ask(&token).await, "accepted");
    bench.chain = Bench::compile(&bench.sources);
    assert_eq!(bench.ask(&token).await, "accepted");
    assert_eq!(bench.server.count(), 1);
    assert_eq!(bench.worker.counts().hits, 1, "the memory of the worker survives as well");
    assert_eq!(bench.sources.status().len(), 1);
    assert_eq!(bench.sources.status()[0].issuers.len(), 1);
    bench.chain = House::new(crate::Issuers::default()).chain(&json!({"anonymous": {"because": "x"}}));
    assert!(bench.sources.status().is_empty());
    bench.pass(60 * MINUTE).await;
    assert_eq!(bench.server.count(), 1, "nobody needs it any more");
}

/// Two entries of one URL share its keys and its fetches; each has its own patience for stale keys.
#[tokio::test(start_paused = true)]
async fn entries_of_one_url_share_a_source() {
    let server = Arc::new(KeyServer::default());
    server.serve(jwks(&[("k1", &FIRST)]));
    let clock = ManualClock::at_unix_seconds(NOW);
    let sources = server.sources(&clock);
    let entry = |audience: &str, trust: bool| {
        let mut keys = json!({"jwks_url": "https://idp.example/jwks"});
        if trust {
            keys["trust"] = json!({"file": "ca.pem"});
        }
        json!({"issuer": "https://idp.example", "audience": audience, "algorithms": "ES256", "keys": keys})
    };
    let memory = Memory::default().with("ca.pem", "anything");
    let written = json!({"a": entry("a", false), "b": entry("b", false), "c": entry("c", true)});
    let issuers = issuers(&written, &memory, &sources);
    assert_eq!(sources.status().len(), 2, "another trust is another source");
    sources.warm();
    for _ in 0..20 {
        yield_now().await;
    }
    assert_eq!(server.count(), 2);
    let mut names: Vec<_> = sources.status().iter().map(|source| source.issuers.len()).collect();
    names.sort_unstable();
    assert_eq!(names, [1, 2]);
    assert_ne!(issuers.get("a").map(|issuer| issuer.id), issuers.get("b").map(|issuer| issuer.id));
}

/// A provider in memory that answers by URL.
#[derive(Default)]
struct Places {
    answers: Mutex<HashMap<&'static str, FetchResponse>>,
    asked: Mutex<Vec<FetchRequest>>,
}

impl Places {
    fn put(&self, url: &'static str, response: FetchResponse) {
        self.answers.lock().expect("no panic").insert(url, response);
    }

    fn asked_at(&self, url: &str) -> Vec<FetchRequest> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().filter(|request| request.url == url).cloned().collect()
    }
}

impl Fetch for Places {
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_> {
        let answer = self.answers.lock().expect("no panic").get(&*request.url).cloned();
        self.asked.lock().expect("no panic").push(request);
        Box::pin(async move { answer.ok_or_else(|| FetchError::Connection("refused".to_owned())) })
    }
}

/// JKS-08: what one place says of its set says nothing of the set of another place. Keys a provider has moved away from
/// are not confirmed by the place it has moved to.
#[tokio::test(start_paused = true)]
async fn another_place_confirms_nothing() {
    const METADATA: &str = "https://idp.example/.well-known/oauth-authorization-server";
    let places = Arc::new(Places::default());
    let tagged = |key: &SigningKey, kid: &str| {
        let mut response = ok(jwks(&[(kid, key)]));
        response.headers.insert("etag", http::HeaderValue::from_static("\"v1\""));
        response
    };
    let leading_to = |url: &str| ok(json!({"issuer": "https://idp.example", "jwks_uri": url}).to_string());
    places.put(METADATA, leading_to("https://idp.example/old"));
    places.put("https://idp.example/old", tagged(&FIRST, "k1"));
    let unchanged = FetchResponse { status: http::StatusCode::NOT_MODIFIED, ..ok("") };
    places.put("https://idp.example/new", unchanged);
    let clock = ManualClock::at_unix_seconds(NOW);
    let fetching = places.clone();
    let sources = KeySources::new(
        Fetchers::new(move |_| Ok(fetching.clone())),
        Clock::Manual(clock.clone()),
        tokio::runtime::Handle::current(),
    );
    let written = json!({"idp": {
        "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256", "discover": true,
    }});
    let chain =
        House::new(issuers(&written, &Memory::default(), &sources)).chain(&json!({"jwt": {"issuer": "idp"}}));
    let bench = Bench { server: Arc::default(), clock, sources, chain, worker: WorkerTokens::new(1 << 20) };
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "accepted");
    places.put(METADATA, leading_to("https://idp.example/new"));
    for _ in 0..20 {
        bench.pass(MINUTE).await;
    }
    let asked = places.asked_at("https://idp.example/new");
    assert!(!asked.is_empty() && asked.iter().all(|request| !request.headers.contains_key("if-none-match")));
    assert!(
        places
            .asked_at("https://idp.example/old")
            .iter()
            .any(|asked| asked.headers.contains_key("if-none-match"))
    );
    let status = bench.sources.status().remove(0);
    assert_eq!(status.last_error.as_deref(), Some("the server answered 304"));
    assert!(status.age > Some(2 * MINUTE), "{:?}", status.age);
    // The first answer of its own is taken, and its tag counts there from then on.
    places.put("https://idp.example/new", tagged(&SECOND, "k2"));
    bench.pass(2 * MINUTE).await;
    assert_eq!(bench.ask(&by(&SECOND, "k2")).await, "accepted");
    assert_eq!(bench.ask(&by(&FIRST, "k1")).await, "token_signature_invalid");
    bench.pass(5 * MINUTE).await;
    let last = places.asked_at("https://idp.example/new").pop().expect("a request");
    assert_eq!(last.headers["if-none-match"], "\"v1\"");
}
