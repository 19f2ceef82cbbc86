//! Gateways that count together: exactly as many pass as the limit says, whatever happens to the gateways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use portcullis_core::Reason;

use crate::rig::client::Client;
use crate::rig::eventually;
use crate::rig::gateway::{Gateway, portcullis};
use crate::rig::redis::Redis;
use crate::rig::world::{BEARER, HOST, Plan};

/// An API of this name with these limits.
fn api(name: &str, limits: &str) -> String {
    format!(
        "api: {name}
match: {{ host: api.bank.example, path: /{name}/* }}
upstream: accounts
authenticate: {{ jwt: {{ issuer: bank-idp }} }}
allow:
  - {{ name: anything, paths: [\"/*\"] }}
limits:
{limits}"
    )
}

/// Policies whose counters are at that server.
fn plan(redis: &Redis, apis: &[String], timeout: &str) -> Plan {
    plan_with(redis, apis, timeout, "")
}

/// The same with more settings of the issuer.
fn plan_with(redis: &Redis, apis: &[String], timeout: &str, issuer: &str) -> Plan {
    let apis: Vec<&str> = apis.iter().map(String::as_str).collect();
    let plan = Plan::new(&apis).with(|plan| plan.issuer = issuer.to_owned());
    plan.directory.write("secrets/redis", redis.url());
    let store = format!("store: {{ redis: {{ url: {{ file: secrets/redis }}, timeout: {timeout} }} }}");
    let yaml = plan.gateway_yaml().replace("store: { path: data/portcullis.redb }", &store);
    plan.directory.write("gateway.yaml", yaml);
    plan
}

fn client(gateway: &Gateway) -> Client {
    Client::plain(gateway.address("plain"), HOST)
}

/// How many units the quota of the accuracy tests has: `PORTCULLIS_ACCURACY=10000 cargo test -p portcullis --test blackbox --
/// accuracy --nocapture` prints what came of as many.
fn units() -> usize {
    std::env::var("PORTCULLIS_ACCURACY").ok().and_then(|units| units.parse().ok()).unwrap_or(600)
}

/// What happens while callers ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// One of the gateways is killed and started again.
    GatewayKilled,
    /// The server is killed and started again.
    RedisKilled,
    /// The clock of one gateway is half a minute ahead of the other's.
    ClocksApart,
}

/// What came of it: how many passed, and how many calls got no answer, or that the store has none.
#[derive(Debug)]
struct Hammered {
    passed: usize,
    lost: usize,
}

/// A gateway that takes it for half a minute later than it is. Only the wall clock is moved.
fn start_ahead(directory: &std::path::Path) -> Gateway {
    let libraries = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let library = libraries.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library =
        library.into_iter().find(|library| library.exists()).expect("faketime, which tests/run installs");
    let environment =
        [("LD_PRELOAD", &*library.to_string_lossy()), ("FAKETIME", "+30s"), ("DONT_FAKE_MONOTONIC", "1")];
    Gateway::start_with(directory, &environment)
}

/// What a gateway takes it for, in milliseconds since 1970, by its last line in the log.
fn wall_clock(gateway: &Gateway) -> i64 {
    let lines = gateway.access_lines();
    let time = lines.last().and_then(|line| line["ts"].as_str()?.parse::<jiff::Timestamp>().ok());
    time.expect("a time").as_millisecond()
}

/// Two gateways and eight callers on one quota, to its last unit.
fn hammered(settings: &str, meanwhile: Meanwhile) -> Hammered {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = Redis::start_durable(folder.path());
    let quota = units();
    let api = api("shared", &format!("  - {{ per: identity, quota: {quota} per day{settings} }}\n"));
    let plan = plan(&redis, &[api], "2s");
    let token = Arc::new(plan.idp.token().sign());
    let (passed, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let hammer = |gateway: &Gateway, count: usize| {
        let callers = (0..4).map(|_| {
            let (client, token) = (client(gateway), Arc::clone(&token));
            let (passed, lost) = (Arc::clone(&passed), Arc::clone(&lost));
            std::thread::spawn(move || {
                let Ok(mut session) = client.connect() else { return };
                for _ in 0..count {
                    match session.send(client.get("/shared/x").bearer(&token)) {
                        Ok(answer) if answer.status == 200 => passed.fetch_add(1, Ordering::Relaxed),
                        // The server was killed: the unit may have been counted, or not.
                        Ok(answer) if answer.status == 503 && meanwhile == Meanwhile::RedisKilled => {
                            answer.assert_refused(Reason::StoreUnavailable);
                            std::thread::sleep(Duration::from_millis(20));
                            lost.fetch_add(1, Ordering::Relaxed)
                        }
                        Ok(answer) => {
                            answer.assert_refused(Reason::QuotaExhausted);
                            return;
                        }
                        // Its gateway was killed: it may have been counted, or not.
                        Err(_) => {
                            lost.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    };
                }
            })
        });
        callers.collect::<Vec<_>>()
    };
    let first = Gateway::start(plan.directory.path());
    let mut second = match meanwhile {
        Meanwhile::ClocksApart => start_ahead(plan.directory.path()),
        _ => Gateway::start(plan.directory.path()),
    };
    let mut callers = hammer(&first, quota / 6);
    callers.extend(hammer(&second, quota / 6));
    std::thread::sleep(Duration::from_millis(100));
    match meanwhile {
        Meanwhile::Nothing | Meanwhile::ClocksApart => {}
        Meanwhile::RedisKilled => redis.restart_durable(folder.path()),
        Meanwhile::GatewayKilled => {
            second.kill();
            second = Gateway::start(plan.directory.path());
        }
    }
    callers.into_iter().for_each(|caller| caller.join().expect("a caller"));
    // What is left, to the last unit, through both of them.
    let rest: Vec<_> = hammer(&first, quota).into_iter().chain(hammer(&second, quota)).collect();
    rest.into_iter().for_each(|caller| caller.join().expect("a caller"));
    let hammered = Hammered { passed: passed.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) };
    println!("quota {quota}{settings}, {meanwhile:?}: {hammered:?}");
    if meanwhile == Meanwhile::ClocksApart {
        let by = [&first, &second].map(wall_clock);
        assert!((25_000..60_000).contains(&(by[1] - by[0])), "one of them is ahead: {by:?}");
    }
    for gateway in [first, second] {
        let answer = client(&gateway).get("/shared/x").bearer(&token).send();
        answer.assert_refused(Reason::QuotaExhausted);
        let wait = answer.header("retry-after").expect("a time").parse::<u64>().expect("seconds");
        assert!((80_000..=86_400).contains(&wait), "{wait}");
        let (status, log) = gateway.stop();
        assert!(status.success(), "{log}");
    }
    hammered
}

#[test]
fn accuracy_of_two_gateways_is_that_of_one() {
    let Hammered { passed, lost } = hammered("", Meanwhile::Nothing);
    assert_eq!((passed, lost), (units(), 0));
}

/// The clock is the server's, also where a day of the calendar is at stake.
#[test]
fn accuracy_does_not_depend_on_the_clocks_of_gateways() {
    let Hammered { passed, lost } = hammered("", Meanwhile::ClocksApart);
    assert_eq!((passed, lost), (units(), 0));
}

/// A unit whose answer nobody saw is counted; nothing is counted twice.
#[test]
fn accuracy_survives_a_kill() {
    for meanwhile in [Meanwhile::GatewayKilled, Meanwhile::RedisKilled] {
        let Hammered { passed, lost } = hammered("", meanwhile);
        assert!(
            passed <= units() && passed + lost >= units(),
            "{meanwhile:?}: {passed} passed, {lost} were lost"
        );
    }
}

/// What a gateway has leased and not used is refused to others while it holds it, and lost if it is killed; never is too
/// much admitted.
#[test]
fn accuracy_of_leases_is_never_above_the_limit() {
    for (meanwhile, gateways) in [(Meanwhile::Nothing, 1), (Meanwhile::GatewayKilled, 2)] {
        let Hammered { passed, lost } = hammered(", lease: 20", meanwhile);
        let blocks = 2 * 20 * gateways;
        assert!(
            passed <= units() && passed + lost + blocks >= units(),
            "{meanwhile:?}: {passed} passed, {lost} were lost"
        );
    }
}

/// A percentage is told by one of the gateways, once, and only when a request that reached it was admitted.
#[test]
fn an_alert_of_a_shared_quota_is_told_once() {
    let redis = Redis::start();
    let limits = "  - { per: identity, quota: 10 per day, alerts: [50] }\n  - { per: address, quota: 4 per day, paths: [/narrow] }\n";
    let plan = plan(&redis, &[api("shared", limits)], "2s");
    let token = plan.idp.token().sign();
    let gateways = [Gateway::start(plan.directory.path()), Gateway::start(plan.directory.path())];
    let ask = |at: usize, path: &str| client(&gateways[at % 2]).get(path).bearer(&token).send();
    let told = || -> f64 {
        gateways.iter().map(|gateway| gateway.metric_sum("portcullis_quota_alerts_total", &[])).sum()
    };
    for at in 0..4 {
        ask(at, "/shared/narrow").assert_passed();
    }
    for at in 0..4 {
        ask(at, "/shared/narrow").assert_refused(Reason::QuotaExhausted);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(told() < 0.5, "nobody has used half of it");
    for at in 0..6 {
        ask(at, "/shared/wide").assert_passed();
    }
    eventually("it is told", || (told() > 0.5).then_some(()));
    std::thread::sleep(Duration::from_millis(100));
    assert!((told() - 1.0).abs() < 0.1, "{}", told());
}

/// Most requests of a leased quota ask nobody; a gateway that ends in good order returns what it has not used.
#[test]
fn a_leased_quota_is_handed_out_in_blocks() {
    let redis = Redis::start();
    let api = api("shared", "  - { per: identity, quota: 100 per day, lease: 40 }\n");
    let plan = plan(&redis, &[api], "2s");
    let token = plan.idp.token().sign();
    let ask = |gateway: &Gateway| client(gateway).get("/shared/x").bearer(&token).send();
    let first = Gateway::start(plan.directory.path());
    for _ in 0..30 {
        ask(&first).assert_passed();
    }
    let asked = first.metric_sum("portcullis_shared_store_questions_total", &["result=\"answered\""]);
    assert!((1.0..=2.0).contains(&asked), "one block, and the next one ahead: {asked}");
    let (status, log) = first.stop();
    assert!(status.success(), "{log}");
    let second = Gateway::start(plan.directory.path());
    for _ in 0..70 {
        ask(&second).assert_passed();
    }
    ask(&second).assert_refused(Reason::QuotaExhausted);
}

/// All limits of a request are one question; what one of them refuses costs nothing, and answers say where the caller
/// stands.
#[test]
fn limits_of_a_request_are_asked_together() {
    let redis = Redis::start();
    let limits = "  - { per: identity, rate: 100 per hour, algorithm: sliding_window }
  - { per: identity, quota: 7 per day, window: calendar }
  - { per: address, rate: 3 per hour, burst: 3, paths: [/narrow] }
  - { per: identity, quota: 5 per day, name: trial, mode: shadow }
  - { per: identity, quota: 20 per day, name: made, count: { responses: [404] } }
";
    let plan = plan(&redis, &[api("shared", limits)], "2s");
    let token = plan.idp.token().sign();
    let gateways = [Gateway::start(plan.directory.path()), Gateway::start(plan.directory.path())];
    let ask = |at: usize, path: &str| client(&gateways[at % 2]).get(path).bearer(&token).send();
    for at in 0..3 {
        let answer = ask(at, "/shared/narrow");
        answer.assert_passed();
        let told = answer.header("ratelimit").expect("a standing").to_owned();
        for wanted in [
            format!("\"identity-rate-hour\";r={}", 99 - at),
            format!("\"identity-quota-calendar-day\";r={}", 6 - at),
            format!("\"address-rate-hour\";r={}", 2 - at),
        ] {
            assert!(told.contains(&wanted), "{wanted} in {told}");
        }
        // Answers like this do not count; a unit comes back behind the answer.
        let left = (told.contains("\"made\";r=20"), told.contains("\"made\";r=1"));
        assert!(left.0 || (at > 0 && left.1), "{told}");
    }
    for at in 0..4 {
        ask(at, "/shared/narrow").assert_refused(Reason::RateLimited);
    }
    for at in 0..4 {
        ask(at, "/shared/wide").assert_passed();
    }
    ask(0, "/shared/wide").assert_refused(Reason::QuotaExhausted);
    let asked = |gateway: &Gateway| {
        gateway.metric_sum("portcullis_shared_store_questions_total", &["result=\"answered\""])
    };
    let all = asked(&gateways[0]) + asked(&gateways[1]);
    // Twelve requests, and the units of seven answers given back.
    assert!((12.0..=12.0 + 7.0).contains(&all), "{all}");
    let shadow = gateways[0].metric_sum("portcullis_shadow_denials_total", &[])
        + gateways[1].metric_sum("portcullis_shadow_denials_total", &[]);
    assert!(shadow >= 2.0, "{shadow}");
}

/// A store that is gone or does not answer: each limit does what it says, nobody waits for long, and nothing is a 401.
#[test]
fn limits_say_what_becomes_of_them_without_the_store() {
    let mut redis = Redis::start();
    let apis = [
        api("denied", "  - { per: identity, quota: 100 per day }\n"),
        api("allowed", "  - { per: identity, quota: 2 per day, when_store_fails: allow }\n"),
        api("local", "  - { per: identity, rate: 2 per hour, burst: 2 }\n"),
        api("strict", "  - { per: identity, rate: 100 per hour, when_store_fails: deny }\n"),
    ];
    let plan = plan(&redis, &apis, "300ms");
    let token = plan.idp.token().sign();
    let gateway = Gateway::start(plan.directory.path());
    let ask = |path: &str| client(&gateway).get(path).bearer(&token).send();
    for path in ["/denied/x", "/allowed/x", "/local/x", "/strict/x"] {
        ask(path).assert_passed();
    }
    let without = |what: &str| {
        for _ in 0..3 {
            ask("/denied/x").assert_refused(Reason::StoreUnavailable);
            ask("/strict/x").assert_refused(Reason::StoreUnavailable);
        }
        for _ in 0..3 {
            ask("/allowed/x").assert_passed();
        }
        let is_shut = || gateway.metric_sum("portcullis_shared_store_shut", &[]) >= 1.0;
        assert!(is_shut(), "{what}");
        let asked = Instant::now();
        for _ in 0..20 {
            ask("/denied/x").assert_refused(Reason::StoreUnavailable);
        }
        assert!(asked.elapsed() < Duration::from_secs(4), "{what}: {:?}", asked.elapsed());
        let ready = gateway.admin("/readyz");
        assert!(
            ready.status == 200 && ready.text().contains("it does not answer"),
            "{what}: {}",
            ready.text()
        );
    };
    redis.freeze(true);
    without("frozen");
    ask("/local/x").assert_passed();
    ask("/local/x").assert_passed();
    ask("/local/x").assert_refused(Reason::RateLimited);
    redis.freeze(false);
    eventually("it answers again", || (ask("/denied/x").status == 200).then_some(()));
    redis.kill();
    without("gone");
    redis.come_again();
    eventually("it is there again", || (ask("/strict/x").status == 200).then_some(()));
    assert!(gateway.log().contains("the shared store does not answer"), "{}", gateway.log());
}

/// What is left is told from the shared counters, and nothing is counted by it.
#[test]
fn what_is_left_is_told_by_either_gateway() {
    let redis = Redis::start();
    let limits = "  - { per: identity, quota: 9 per day }\n  - { per: identity, rate: 9 per hour, algorithm: fixed_window }\n";
    let plan = plan(&redis, &[api("shared", limits) + "usage: /usage\n"], "2s");
    let token = plan.idp.token().sign();
    let gateways = [Gateway::start(plan.directory.path()), Gateway::start(plan.directory.path())];
    let ask = |at: usize, path: &str| client(&gateways[at % 2]).get(path).bearer(&token).send();
    for at in 0..4 {
        for again in 0..3 {
            let told = ask(at + again, "/shared/usage").json()["limits"].clone();
            let left = 9 - at;
            assert_eq!(
                (&told[0]["remaining"], &told[1]["remaining"]),
                (&left.into(), &left.into()),
                "{told}"
            );
            assert_eq!(told[1]["reset_seconds"].is_null(), at == 0, "{told}");
        }
        ask(at, "/shared/x").assert_passed();
    }
}

/// What may be used once counts once at all gateways together, and where that cannot be known it is 503, and still good.
#[test]
fn a_token_is_used_once_at_all_gateways() {
    let mut redis = Redis::start();
    let plan = plan_with(&redis, &[BEARER.to_owned()], "2s", "    used_once: true\n    max_lifetime: 10m\n");
    let gateways = [Gateway::start(plan.directory.path()), Gateway::start(plan.directory.path())];
    let ask = |at: usize, token: &str| client(&gateways[at]).get("/bearer/x").bearer(token).send();
    let token = |id: &str| plan.idp.token().claim("jti", id).sign();
    for (first, second, id) in [(0, 1, "a"), (1, 0, "b")] {
        let token = token(id);
        ask(first, &token).assert_passed();
        ask(second, &token).assert_refused(Reason::TokenReplayed);
        ask(first, &token).assert_refused(Reason::TokenReplayed);
    }
    redis.kill();
    let token = token("c");
    ask(0, &token).assert_refused(Reason::StoreUnavailable);
    redis.come_again();
    eventually("it is good still", || (ask(0, &token).status == 200).then_some(()));
    let refusal = eventually("the other gateway asks again", || {
        let answer = ask(1, &token);
        (answer.code() != Reason::StoreUnavailable.code()).then_some(answer)
    });
    refusal.assert_refused(Reason::TokenReplayed);
}

/// A server with a user of its own for gateways, over TLS: asked with both, and not without either.
#[test]
fn the_store_is_asked_over_tls_as_a_user() {
    const PASSWORD: &str = "EXAMPLE-only-gateways-know-this";
    let api = api("shared", "  - { per: identity, quota: 2 per day }\n");
    let plan = Plan::new(&[&api]);
    let folder = plan.directory.path().join("tls");
    let redis =
        Redis::start_tls(&folder.join("server.pem"), &folder.join("server.key"), ("gateway", PASSWORD));
    let url = |password: &str| redis.url().replace("://", &format!("://gateway:{password}@"));
    let written = "store: { path: data/portcullis.redb }";
    let store =
        |trust: &str| format!("store: {{ redis: {{ url: {{ file: secrets/redis }}, timeout: 2s{trust} }} }}");
    let token = plan.idp.token().sign();
    for (password, trust, passes) in [
        (PASSWORD, ", trust: { file: tls/servers-ca.pem }", true),
        ("EXAMPLE-another-one", ", trust: { file: tls/servers-ca.pem }", false),
        (PASSWORD, ", trust: { file: tls/open-banking-ca.pem }", false),
        (PASSWORD, "", false),
    ] {
        plan.directory.write("secrets/redis", url(password));
        plan.directory.write("gateway.yaml", plan.gateway_yaml().replace(written, &store(trust)));
        let gateway = Gateway::start(plan.directory.path());
        let answer = client(&gateway).get("/shared/x").bearer(&token).send();
        if passes {
            answer.assert_passed();
        } else {
            answer.assert_refused(Reason::StoreUnavailable);
        }
        let metrics = gateway.admin("/metrics").text();
        for told in [gateway.log(), metrics, gateway.admin("/readyz").text()] {
            assert!(!told.contains(PASSWORD) && !told.contains("EXAMPLE-another-one"), "{told}");
        }
    }
}

#[test]
fn check_says_what_is_wrong_with_a_store() {
    let redis = Redis::start();
    let plan = plan(&redis, &[api("shared", "  - { per: identity, quota: 7 per day }\n")], "50ms");
    let yaml = std::fs::read_to_string(plan.directory.join("gateway.yaml")).expect("a file");
    let check = |yaml: &str| {
        plan.directory.write("gateway.yaml", yaml);
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stderr) + &text(&output.stdout)
    };
    assert!(check(&yaml).contains(" 0 errors, 0 warnings"), "{}", check(&yaml));
    for (written, instead, said) in [
        ("timeout: 50ms", "timeout: 1h", "waits between 1ms and 5s"),
        ("timeout: 50ms", "timeot: 50ms", "did you mean `timeout`?"),
        ("url: { file: secrets/redis }, ", "", "`redis` needs `url`"),
        ("url: { file: secrets/redis }", "url: redis://canary", "a secret is written in the file"),
        ("secrets/redis", "secrets/nothing", "secrets/nothing"),
        ("secrets/redis", "gateway.yaml", "the address of the shared store is none"),
        ("timeout: 50ms", "replicas: 99", "99 is out of range: 0 to 16"),
        ("timeout: 50ms", "nodes: [\"10.0.0.1:6379\"]", "`nodes` are those of a `sentinel` or a `cluster`"),
        (
            "timeout: 50ms",
            "cluster: true, nodes: [\"10.0.0.1\"]",
            "`10.0.0.1` is no node of the shared store",
        ),
        ("timeout: 50ms", "cluster: true, replicas: 1", "`replicas` cannot be waited for in a cluster"),
        ("timeout: 50ms", "cluster: true, sentinel: { service: bank }", "Sentinels watch over one server"),
        ("timeout: 50ms", "sentinel: {}", "`sentinel` needs `service`"),
        ("timeout: 50ms", "sentinel: { service: bank, password: canary }", "a secret is written in the file"),
        ("redis: { url: { file: secrets/redis }, timeout: 50ms }", "", "needs `path`, `redis` or both"),
    ] {
        assert!(yaml.contains(written), "{written} in {yaml}");
        let shown = check(&yaml.replacen(written, instead, 1));
        assert!(shown.contains(said), "{said} in\n{shown}");
    }
}

/// What an operator tells one gateway is in force at the others a moment later, and at one that starts afterwards: keys, and
/// that tokens are revoked.
#[test]
fn what_one_gateway_is_told_counts_at_all_of_them() {
    const TOKEN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";
    const KEYED: &str = "api: keyed
match: { host: api.bank.example, path: /keyed/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow:
  - { name: anything, paths: [\"/*\"] }
";
    let mut redis = Redis::start();
    let plan = Plan::new(&[KEYED, BEARER]).with(|plan| {
        plan.issuer = "    revoked: { push: true }\n".to_owned();
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("secrets/redis", redis.url());
    plan.directory.write("secrets/admin-token", TOKEN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n");
    let store = "store: { redis: { url: { file: secrets/redis }, timeout: 2s } }";
    let yaml = plan.gateway_yaml().replace("store: { path: data/portcullis.redb }", store);
    plan.directory.write("gateway.yaml", yaml);
    let gateways = [Gateway::start(plan.directory.path()), Gateway::start(plan.directory.path())];
    let tell = |at: usize, method: Method, path: &str, body: &str| {
        let call = gateways[at].admin_client().request(method, path).bearer(TOKEN);
        let call = if body.is_empty() {
            call
        } else {
            call.header("content-type", "application/json").body(body.to_owned())
        };
        call.send()
    };
    let ask = |gateway: &Gateway, key: &str| client(gateway).get("/keyed/x").header("x-api-key", key).send();
    let made = tell(0, Method::POST, "/v1/clients/acme/keys", "{}");
    assert_eq!(made.status, 201, "{}", made.text());
    let (id, key) = (made.json()["id"].clone(), made.json()["key"].clone());
    let (id, key) = (id.as_str().expect("an id"), key.as_str().expect("a key"));
    ask(&gateways[0], key).assert_passed();
    eventually("the other gateway knows the key", || (ask(&gateways[1], key).status == 200).then_some(()));
    // Each changes what the other has made.
    let path = format!("/v1/clients/acme/keys/{id}");
    assert_eq!(tell(1, Method::PATCH, &path, r#"{"disabled": true}"#).status, 200);
    ask(&gateways[1], key).assert_refused(Reason::ApiKeyInvalid);
    eventually("it is disabled there, too", || (ask(&gateways[0], key).status == 401).then_some(()));
    assert_eq!(tell(0, Method::PATCH, &path, r#"{"disabled": false}"#).status, 200);
    eventually("it counts again", || (ask(&gateways[1], key).status == 200).then_some(()));
    // Tokens likewise.
    let token = plan.idp.token().claim("jti", "stolen").sign();
    let show = |gateway: &Gateway| client(gateway).get("/bearer/x").bearer(&token).send();
    for gateway in &gateways {
        show(gateway).assert_passed();
    }
    let told = tell(1, Method::POST, "/v1/issuers/bank-idp/revoked-tokens", r#"{"jti": "stolen"}"#);
    assert_eq!(told.status, 201, "{}", told.text());
    show(&gateways[1]).assert_refused(Reason::TokenRevoked);
    eventually("it is revoked there, too", || (show(&gateways[0]).status == 401).then_some(()));
    // One that comes later knows it from the start.
    let third = Gateway::start(plan.directory.path());
    ask(&third, key).assert_passed();
    show(&third).assert_refused(Reason::TokenRevoked);
    // Without the server each goes on with what it knows, and what takes something away is in force at once.
    redis.kill();
    eventually("it is known that something may be missed", || {
        (third.metric_sum("portcullis_shared_records_heard", &[]) < 0.5).then_some(())
    });
    let failed = tell(0, Method::POST, "/v1/clients/acme/keys", "{}");
    assert_eq!((failed.status, failed.code()), (503, "store_unavailable".to_owned()), "{}", failed.text());
    let revoked = tell(0, Method::DELETE, &path, "");
    assert_eq!((revoked.status, revoked.code()), (503, "in_force_not_kept".to_owned()), "{}", revoked.text());
    ask(&gateways[0], key).assert_refused(Reason::ApiKeyInvalid);
    for gateway in [&gateways[1], &third] {
        ask(gateway, key).assert_passed();
        show(gateway).assert_refused(Reason::TokenRevoked);
    }
    // A new one in its place knows nothing, and is told what all of them know.
    redis.come_again();
    for gateway in [&gateways[1], &third] {
        eventually("it is revoked everywhere", || (ask(gateway, key).status == 401).then_some(()));
        show(gateway).assert_refused(Reason::TokenRevoked);
    }
    let fourth = Gateway::start(plan.directory.path());
    ask(&fourth, key).assert_refused(Reason::ApiKeyInvalid);
    show(&fourth).assert_refused(Reason::TokenRevoked);
}
