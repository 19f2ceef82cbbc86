use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use portcullis_core::{AuthMethod, Faults, Identity, Moment, Reason, Rejection};
use portcullis_store::Store;

use super::fields::whole_seconds;
use super::{
    Admission, AlertHook, Callers, CheckedLimits, LimitFacts, Limits, LimitsSpec, Reserved, SharedLimits,
};
use crate::fixtures::{Caller, NOON, identity, node, said};

fn compile(source: &str, anonymous: bool) -> (Option<CheckedLimits>, Vec<String>) {
    let mut faults = Faults::default();
    let callers = Callers { anonymous, tokens: true, groups: true };
    let plan = LimitsSpec::read(&node(source), &mut faults)
        .and_then(|spec| spec.compile(callers, &mut SharedLimits::default(), &mut faults));
    (plan, faults.into_sorted().iter().map(said).collect())
}

fn plan(source: &str) -> CheckedLimits {
    let (plan, faults) = compile(source, false);
    assert_eq!(faults, [""; 0], "{source}");
    plan.expect("limits without faults compile")
}

fn limits(source: &str) -> Limits {
    plan(source).open("bank", &Store::in_memory().expect("a store"), &AlertHook::default())
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn later(by: Duration) -> Moment {
    let by_ms = i64::try_from(by.as_millis()).expect("short");
    Moment { unix_ms: NOON.unix_ms + by_ms, monotonic: NOON.monotonic + by }
}

fn facts(caller: &Caller, address: IpAddr, now: Moment) -> LimitFacts<'_> {
    LimitFacts {
        principal: Some(&caller.principal),
        method: &caller.head.method,
        path_in_api: &caller.path_in_api,
        address: Some(address),
        plans: None,
        now,
    }
}

fn ask(limits: &Limits, caller: &Caller, now: Moment) -> Result<Admission, Rejection> {
    wait_for(limits.admit(&facts(caller, caller.address, now), &mut Reserved::default()))
}

/// What a caller reads: the two fields, or the reason, the limit and the wait in milliseconds.
fn answer(limits: &Limits, caller: &Caller, now: Moment) -> String {
    match ask(limits, caller, now) {
        Ok(admission) => {
            let mut headers = HeaderMap::new();
            limits.write_fields(&admission, StatusCode::OK, &mut headers);
            text(&headers, "ratelimit")
        }
        Err(rejection) => {
            let detail = rejection.detail().expect("a detail");
            let wait = detail.retry_after.map_or(0, |wait| wait.as_millis());
            format!("{} {} {wait}", rejection.reason().code(), detail.violated.join(","))
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or(String::new(), |value| value.to_str().expect("text").to_owned())
}

#[test]
fn a_rate_lets_a_burst_through_and_then_its_pace() {
    let limits = limits(r#"[{"rate": "2 per second", "burst": 3}]"#);
    let caller = Caller::with_token();
    assert_eq!(answer(&limits, &caller, NOON), r#""identity-rate-second";r=2;t=1"#);
    assert_eq!(answer(&limits, &caller, NOON), r#""identity-rate-second";r=1;t=1"#);
    assert_eq!(answer(&limits, &caller, NOON), r#""identity-rate-second";r=0;t=2"#);
    assert_eq!(answer(&limits, &caller, NOON), "rate_limited identity-rate-second 500");
    assert_eq!(
        answer(&limits, &caller, later(Duration::from_millis(499))),
        "rate_limited identity-rate-second 1"
    );
    let half = later(Duration::from_millis(500));
    assert_eq!(answer(&limits, &caller, half), r#""identity-rate-second";r=0;t=2"#);
}

#[test]
fn a_quota_is_used_up_and_opens_again_after_its_period() {
    let limits = limits(r#"[{"quota": "2 per day"}]"#);
    let caller = Caller::with_token();
    assert_eq!(answer(&limits, &caller, NOON), r#""identity-quota-day";r=1;t=86400"#);
    let hour = later(Duration::from_secs(3_600));
    assert_eq!(answer(&limits, &caller, hour), r#""identity-quota-day";r=0;t=82800"#);
    assert_eq!(answer(&limits, &caller, hour), "quota_exhausted identity-quota-day 82800000");
    let next = later(Duration::from_secs(86_400));
    assert_eq!(answer(&limits, &caller, next), r#""identity-quota-day";r=1;t=86400"#);
}

/// LIM-03: rates before quotas, wherever they stand in the file; a refused request costs nothing.
#[test]
fn a_refused_request_costs_nothing() {
    let limits = limits(
        r#"[
            {"quota": "3 per day"},
            {"rate": "1 per minute", "burst": 2, "name": "slow"},
            {"per": "api", "rate": "100 per minute", "name": "all"}
        ]"#,
    );
    let names: Vec<_> = limits.names().map(ToString::to_string).collect();
    assert_eq!(names, ["slow", "all", "identity-quota-day"]);
    let caller = Caller::with_token();
    assert_eq!(
        answer(&limits, &caller, NOON),
        r#""slow";r=1;t=60, "all";r=99;t=1, "identity-quota-day";r=2;t=86400"#
    );
    assert_eq!(
        answer(&limits, &caller, NOON),
        r#""slow";r=0;t=120, "all";r=98;t=2, "identity-quota-day";r=1;t=86400"#
    );
    for _ in 0..50 {
        assert_eq!(answer(&limits, &caller, NOON), "rate_limited slow 60000");
    }
    let minute = later(Duration::from_secs(60));
    assert_eq!(
        answer(&limits, &caller, minute),
        r#""slow";r=0;t=120, "all";r=99;t=1, "identity-quota-day";r=0;t=86340"#
    );
    // The quota is gone: what the rates had given must be there again for the next hour.
    let hour = later(Duration::from_secs(3_600));
    for _ in 0..50 {
        assert_eq!(answer(&limits, &caller, hour), "quota_exhausted identity-quota-day 82800000");
    }
    let day = later(Duration::from_secs(86_400));
    assert_eq!(
        answer(&limits, &caller, day),
        r#""slow";r=1;t=60, "all";r=99;t=1, "identity-quota-day";r=2;t=86400"#
    );
}

/// LIM-03: who leaves while a quota waits for the disk has taken nothing from the limits before it.
#[test]
fn a_caller_who_leaves_while_a_limit_waits_costs_nothing() {
    let limits = limits(
        r#"[
            {"per": "api", "rate": "1 per day", "burst": 2, "name": "all"},
            {"quota": "5 per day"}
        ]"#,
    );
    let asker = |at: usize| Caller::of(identity(AuthMethod::Jwt, &format!("jwt:bank-idp:{at}"), "tpp"));
    // The first request of a caller opens a window, which has to be made durable first. The disk may be faster than
    // we look, so that one of the callers is let through.
    let left = (0..2).filter(|at| {
        let caller = asker(*at);
        let facts = facts(&caller, caller.address, NOON);
        let mut reserved = Reserved::default();
        let mut admitting = std::pin::pin!(limits.admit(&facts, &mut reserved));
        wait_for(poll_fn(|task| Poll::Ready(admitting.as_mut().poll(task).is_pending())))
    });
    assert!(left.count() > 0, "no limit waits");
    assert!(ask(&limits, &asker(2), NOON).is_ok());
}

#[test]
fn who_shares_a_count_is_what_per_says() {
    let token = Caller::with_token;
    let other = || Caller::of(identity(AuthMethod::Jwt, "jwt:bank-idp:tpp-b", "tpp-b"));
    let member =
        |key: &str, client: &str| Caller::of(identity(AuthMethod::ApiKey, key, "x")).client(client, "{}");
    for (per, one, another, shared) in [
        (r#""identity""#, token(), token().from("192.0.2.8"), true),
        (r#""identity""#, token(), other(), false),
        // The issuer entry is part of the key: the same subject of another issuer is somebody else (JWT-28).
        (r#""identity""#, token(), Caller::of(identity(AuthMethod::Jwt, "jwt:other:tpp-a", "tpp-a")), false),
        (r#""api""#, token(), other().from("2001:db8::1"), true),
        (r#""address""#, token(), other(), true),
        (r#""address""#, token(), token().from("192.0.2.8"), false),
        (r#""address""#, token(), token().from("::ffff:192.0.2.7"), true),
        // LIM-01: one IPv6 network is one caller.
        (r#""address""#, token().from("2001:db8::1"), token().from("2001:db8::ffff:2"), true),
        (r#""address""#, token().from("2001:db8::1"), token().from("2001:db8:0:1::1"), false),
        // 192.0.2.7 and the network c000:0207:: share their first bytes.
        (r#""address""#, token(), token().from("c000:207::"), false),
        (r#""client""#, member("a", "acme"), member("b", "acme"), true),
        (r#""client""#, member("a", "acme"), member("a", "other"), false),
        (r#""client""#, token(), other(), false),
        (r#""client""#, token(), token(), true),
        // Whoever is no client cannot pose as one by its key.
        (r#""client""#, member("x", "acme"), Caller::of(identity(AuthMethod::Jwt, "acme", "acme")), false),
        (r#"["identity", "address"]"#, token(), token().from("192.0.2.8"), false),
        (r#"["identity", "address"]"#, token(), other(), false),
        (r#"["identity", "address"]"#, token(), token(), true),
        // Lengths keep the parts of a key apart.
        (r#"["identity", "client"]"#, member("ab", "c"), member("a", "bc"), false),
        (r#"["identity", "client"]"#, member("a1:b", "c"), member("a", "b1:c"), false),
    ] {
        let limits = limits(&format!(r#"[{{"per": {per}, "rate": "1 per minute"}}]"#));
        assert!(ask(&limits, &one, NOON).is_ok(), "{per}");
        let second = ask(&limits, &another, NOON);
        assert_eq!(second.is_err(), shared, "{per}");
    }
}

#[test]
fn counters_live_on_when_limits_are_edited_or_moved() {
    let store = Store::in_memory().expect("a store");
    let caller = Caller::with_token();
    let before = plan(r#"[{"rate": "100 per minute"}, {"quota": "2 per day"}]"#).open(
        "bank",
        &store,
        &AlertHook::default(),
    );
    assert!(ask(&before, &caller, NOON).is_ok());
    let after = plan(r#"[{"quota": "3 per day"}, {"rate": "100 per minute"}]"#).open(
        "bank",
        &store,
        &AlertHook::default(),
    );
    assert_eq!(
        answer(&after, &caller, NOON),
        r#""identity-rate-minute";r=98;t=2, "identity-quota-day";r=1;t=86400"#
    );
    let other_api = plan(r#"[{"quota": "3 per day"}]"#).open("cards", &store, &AlertHook::default());
    assert_eq!(answer(&other_api, &caller, NOON), r#""identity-quota-day";r=2;t=86400"#);
}

#[test]
fn policies_describe_what_is_promised() {
    for (source, expected) in [
        (r#"[{"rate": "20 per second"}]"#, r#""identity-rate-second";q=20;w=1"#),
        // A burst of 40 is earned in two seconds: the same pace, and no remainder is ever above `q`.
        (r#"[{"rate": "20 per second", "burst": 40}]"#, r#""identity-rate-second";q=40;w=2"#),
        (r#"[{"rate": "20 per second", "burst": 1}]"#, r#""identity-rate-second";q=20;w=1"#),
        (r#"[{"rate": "5 per 250ms"}]"#, r#""identity-rate-250ms";q=5;w=1"#),
        (r#"[{"rate": "3 per 10s", "burst": 5}]"#, r#""identity-rate-10s";q=5;w=17"#),
        (
            r#"[{"per": ["identity", "address"], "quota": "7 per 90s"}, {"per": "api", "rate": "9 per hour", "name": "All. of-them"}]"#,
            r#""All. of-them";q=9;w=3600, "identity+address-quota-90s";q=7;w=90"#,
        ),
        (r#"[{"quota": "1000000 per month"}]"#, r#""identity-quota-month";q=1000000;w=2592000"#),
    ] {
        let limits = limits(source);
        let admission = ask(&limits, &Caller::with_token(), NOON).expect("admitted");
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", "what the upstream says".parse().expect("a value"));
        headers.append("ratelimit-policy", "one".parse().expect("a value"));
        headers.append("ratelimit-policy", "two".parse().expect("a value"));
        limits.write_fields(&admission, StatusCode::OK, &mut headers);
        assert_eq!(text(&headers, "ratelimit-policy"), expected);
        assert_eq!(headers.len(), 2, "LIM-07: never mixed with the upstream's");
    }
}

#[test]
fn a_refusal_says_when_to_come_again() {
    let limits = limits(r#"[{"rate": "2 per minute", "burst": 1, "name": "slow"}, {"quota": "5 per day"}]"#);
    let caller = Caller::with_token();
    assert!(ask(&limits, &caller, NOON).is_ok());
    let rejection = ask(&limits, &caller, later(Duration::from_millis(100))).expect_err("too soon");
    let mut headers = HeaderMap::new();
    limits.write_refusal_fields(&rejection, &mut headers);
    assert_eq!(text(&headers, "ratelimit"), r#""slow";r=0;t=30"#);
    assert_eq!(text(&headers, "ratelimit-policy"), r#""slow";q=2;w=60, "identity-quota-day";q=5;w=86400"#);

    let mut headers = HeaderMap::new();
    limits.write_refusal_fields(&Rejection::new(Reason::AccessDenied).because("no rule fits"), &mut headers);
    assert!(headers.is_empty(), "a refusal by something else says nothing about limits");
}

#[test]
fn seconds_are_rounded_up() {
    for (milliseconds, seconds) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)] {
        assert_eq!(whole_seconds(Duration::from_millis(milliseconds)), seconds);
    }
}

/// The longest names and numbers still make a field.
#[test]
fn eight_limits_of_the_longest_names_fit() {
    let one = |at: usize| format!(r#"{{"rate": "1000000000 per 30d", "name": "{}{at}"}}"#, "n".repeat(63));
    let source = format!("[{}]", (0..8).map(one).collect::<Vec<_>>().join(","));
    let limits = limits(&source);
    let admission = ask(&limits, &Caller::with_token(), NOON).expect("admitted");
    let mut headers = HeaderMap::new();
    limits.write_fields(&admission, StatusCode::OK, &mut headers);
    let field = text(&headers, "ratelimit");
    assert_eq!(field.matches(";r=999999999;t=1").count(), 8, "{field}");
    assert_eq!(field.split(", ").count(), 8);
    assert!(size_of::<Admission>() <= 80);
}

/// LIM-04: what cannot be decided is refused, and not as used up.
#[test]
fn a_closed_store_refuses_and_gives_rates_back() {
    let store = Store::in_memory().expect("a store");
    let limits = plan(r#"[{"rate": "1 per minute"}, {"quota": "5 per day"}]"#).open(
        "bank",
        &store,
        &AlertHook::default(),
    );
    store.close().expect("closes");
    for _ in 0..3 {
        let rejection = ask(&limits, &Caller::with_token(), NOON).expect_err("closed");
        assert_eq!(rejection.reason(), Reason::StoreUnavailable);
    }
}

#[test]
fn faults_of_limits_are_all_named() {
    let keys = "keys here: per, rate, burst, algorithm, quota, carry_over, alerts, name, groups, mode, methods, paths, \
                window, time_zone, count, shared_as, when_store_fails, lease, throttle";
    for (source, expected) in [
        ("[]", vec!["this list must not be empty".to_owned()]),
        (r#"{"rate": "1 per day"}"#, vec!["expected a list, found a mapping".to_owned()]),
        ("[{}]", vec!["a limit has either `rate` or `quota`".to_owned()]),
        (
            r#"[{"rate": "1 per day", "quota": "1 per day"}]"#,
            vec!["a limit has either `rate` or `quota` | write two limits".to_owned()],
        ),
        (
            r#"[{"quota": "1 per day", "burst": 3}]"#,
            vec!["`burst` goes with `rate`, not with `quota`".to_owned()],
        ),
        (r#"[{"rate": "1 per day", "burst": 0}]"#, vec!["0 is out of range: 1 to 1000000000".to_owned()]),
        (
            r#"[{"rate": "0 per day"}]"#,
            vec!["a count of zero refuses every request | what nobody may do is left out of `allow`".to_owned()],
        ),
        (r#"[{"rate": "1000000001 per day"}]"#, vec!["the count is larger than 1000000000".to_owned()]),
        (
            r#"[{"quota": "5 per 250ms"}]"#,
            vec!["a quota lasts at least a second | for shorter times write `rate`".to_owned()],
        ),
        (
            r#"[{"rate": "20/s"}]"#,
            vec!["`20/s` does not say how many per what time | write a count per time such as `20 per second` or `100000 per day`".to_owned()],
        ),
        (
            r#"[{"per": "identty", "rate": "1 per day"}]"#,
            vec!["`identty` is not one of the words here | did you mean `identity`? | words here: `identity`, `client`, `api`, `address`".to_owned()],
        ),
        (
            r#"[{"per": ["api", "api"], "rate": "1 per day"}]"#,
            vec!["`api` stands twice in this list".to_owned()],
        ),
        (r#"[{"per": [], "rate": "1 per day"}]"#, vec!["this list must not be empty".to_owned()]),
        (
            r#"[{"rate": "1 per day", "name": "a\"b"}]"#,
            vec!["`a\"b` cannot be the name of a limit | letters, digits, spaces and - _ . +, at most 64".to_owned()],
        ),
        (
            r#"[{"rate": "1 per day"}, {"rate": "2 per day"}]"#,
            vec!["there are two limits `identity-rate-day` | the other one is here | give one of them another `name`".to_owned()],
        ),
        // What is misspelt is unknown, never ignored.
        (
            r#"[{"rate": "1 per day", "colour": "gcra"}]"#,
            vec![format!("unknown key `colour` in a limit | {keys}")],
        ),
        (
            r#"[{"rate": "1 per day", "window": "calendar"}]"#,
            vec!["a calendar has days, weeks and months | write `quota: 1000 per day`, `per week` or `per month`".to_owned()],
        ),
        (
            r#"[{"quota": "1 per 2d", "window": "calendar"}]"#,
            vec!["a calendar has days, weeks and months | write `quota: 1000 per day`, `per week` or `per month`".to_owned()],
        ),
        (
            r#"[{"quota": "1 per day", "window": "calendar", "time_zone": "Europe/Berlim"}]"#,
            vec!["`Europe/Berlim` is not a time zone | write one of the IANA database, such as `Europe/Berlin`".to_owned()],
        ),
        (
            r#"[{"quota": "1 per day", "time_zone": "UTC"}]"#,
            vec!["`time_zone` is about `window: calendar`".to_owned()],
        ),
    ] {
        let (plan, faults) = compile(source, false);
        assert_eq!(faults, expected, "{source}");
        // An unknown key keeps the files from being loaded, not the limits from being judged.
        assert!(plan.is_none() || faults.iter().all(|said| said.starts_with("unknown key")), "{source}");
    }
    let nine: Vec<String> = (0..9).map(|at| format!(r#"{{"rate": "1 per day", "name": "{at}"}}"#)).collect();
    let (plan, faults) = compile(&format!("[{}]", nine.join(",")), false);
    assert_eq!(faults, ["an API has at most 8 limits, these are 9"]);
    assert!(plan.is_none());
}

/// LIM-01: callers without a credential are counted by address, or openly all together.
#[test]
fn callers_without_a_credential_do_not_share_an_identity() {
    let refused = "callers without a credential have no identity to count by | all of them would share one count: write `per: address`, or `per: api` if that is meant";
    for (per, expected) in [
        ("", vec![refused]),
        (r#""per": "identity","#, vec![refused]),
        (r#""per": ["client", "identity"],"#, vec![refused]),
        (r#""per": "address","#, vec![]),
        (r#""per": "api","#, vec![]),
        (r#""per": ["identity", "address"],"#, vec![]),
    ] {
        let source = format!(r#"[{{{per} "rate": "1 per day"}}]"#);
        assert_eq!(compile(&source, true).1, expected, "{source}");
        assert_eq!(compile(&source, false).1, [""; 0], "{source}");
    }
}

#[test]
fn an_address_is_sixty_four_bits_at_most() {
    let key = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        let caller = Caller::with_token();
        let facts = facts(&caller, address, NOON);
        super::key::Key::of(&[super::key::Per::Address], &facts).expect("a key").as_str().to_owned()
    };
    assert_eq!(key("192.0.2.7"), "4c0000207");
    assert_eq!(key("2001:db8:0:1:2:3:4:5"), "620010db800000001");
}

/// A limit of an endpoint neither counts nor hinders other requests, and says nothing with them.
#[test]
fn a_limit_is_about_the_methods_and_paths_it_names() {
    let limits = limits(
        r#"[{"rate": "100 per second"},
            {"name": "pay", "rate": "1 per minute", "methods": ["POST"], "paths": ["/payments/*", "/refunds"]}]"#,
    );
    let asking = |method: &str, path: &str| Caller::with_token().asking(method, path);
    for (method, path) in
        [("GET", "/payments/1"), ("POST", "/payments"), ("POST", "/accounts"), ("PUT", "/refunds")]
    {
        assert!(!answer(&limits, &asking(method, path), NOON).contains("pay"), "{method} {path}");
    }
    assert!(answer(&limits, &asking("POST", "/payments/1"), NOON).ends_with(r#", "pay";r=0;t=60"#));
    assert_eq!(answer(&limits, &asking("POST", "/refunds"), NOON), "rate_limited pay 60000");
    // What is refused took nothing of the others.
    let left = answer(&limits, &asking("GET", "/refunds"), NOON);
    assert_eq!(left, r#""identity-rate-second";r=94;t=1"#);
}

/// A limit in shadow is asked, tells what it would have said, and is neither in the way nor in the fields.
#[test]
fn a_limit_in_shadow_refuses_nothing() {
    let limits = limits(
        r#"[{"rate": "1 per minute", "mode": "shadow"}, {"name": "day", "quota": "3 per day", "mode": "enforce"}]"#,
    );
    let caller = Caller::with_token();
    let told = |now| ask(&limits, &caller, now).map(|admission| admission.shadow());
    assert_eq!(told(NOON), Ok(None));
    assert_eq!(told(NOON), Ok(Some(Reason::RateLimited)));
    assert_eq!(answer(&limits, &caller, NOON), r#""day";r=0;t=86400"#);
    let refused = told(NOON).expect_err("the other limit is in the way");
    assert_eq!(refused.reason(), Reason::QuotaExhausted);
    let admission =
        ask(&limits, &Caller::of(identity(AuthMethod::Jwt, "jwt:idp:b", "b")), NOON).expect("room");
    let mut headers = HeaderMap::new();
    limits.write_fields(&admission, StatusCode::OK, &mut headers);
    assert_eq!(text(&headers, "ratelimit-policy"), r#""day";q=3;w=86400"#);
}

/// LIM-08: by a claim, apart for each issuer, and never without it.
#[test]
fn a_limit_may_count_by_a_claim() {
    let limits = limits(r#"[{"rate": "1 per minute", "per": "claims.org.id"}]"#);
    let with = |issuer: &str, claims: &str| {
        let claims =
            portcullis_core::json::parse_object(claims.as_bytes(), Default::default()).expect("claims");
        let identity = identity(AuthMethod::Jwt, "jwt:idp:x", "x");
        let identity = Identity { issuer: Some(issuer.into()), claims: Arc::new(claims), ..identity };
        Caller::of(identity)
    };
    let name = r#""claims.org.id-rate-minute";r=0;t=60"#;
    assert_eq!(answer(&limits, &with("a", r#"{"org": {"id": "1"}}"#), NOON), name);
    assert_eq!(answer(&limits, &with("b", r#"{"org": {"id": "1"}}"#), NOON), name);
    assert_eq!(answer(&limits, &with("a", r#"{"org": {"id": 1}}"#), NOON), name, "a number is no text");
    let again = answer(&limits, &with("a", r#"{"org": {"id": "1"}, "sub": "other"}"#), NOON);
    assert_eq!(again, "rate_limited claims.org.id-rate-minute 60000");
    for without in [
        r#"{}"#,
        r#"{"org": "1"}"#,
        r#"{"org": {"id": ["1"]}}"#,
        r#"{"org": {"id": null}}"#,
        r#"{"org": {"id": true}}"#,
    ] {
        let refused = ask(&limits, &with("a", without), NOON).expect_err("it cannot be counted");
        assert_eq!(refused.reason(), Reason::IdentityUnresolved, "{without}");
    }
}

/// A group has a count of its own over the counters of all: whoever changes groups takes along what was used.
#[test]
fn a_group_may_have_more_or_less() {
    let limits = limits(
        r#"[{"rate": "1 per minute", "groups": {"trusted": "3 per minute"}},
            {"quota": "4 per day", "groups": {"trusted": "5 per day", "none": "1 per day"}}]"#,
    );
    let passes = |name: &str, group: Option<&str>, now| {
        let mut caller = Caller::of(identity(AuthMethod::Jwt, name, name));
        caller.principal.group = group.map(Into::into);
        ask(&limits, &caller, now).is_ok()
    };
    assert!(passes("a", None, NOON) && !passes("a", None, NOON) && !passes("a", Some("other"), NOON));
    let trusted = Some("trusted");
    assert!(!passes("a", trusted, NOON), "a minute was taken before it was trusted");
    assert!((0..3).all(|_| passes("b", trusted, NOON)) && !passes("b", trusted, NOON));
    assert!(!passes("b", None, NOON), "it is out of favour, and has used its minute");
    let (later, latest) = (later(Duration::from_mins(10)), later(Duration::from_mins(20)));
    assert!(passes("b", None, later), "the fourth of the day");
    assert!(!passes("b", None, latest));
    assert!(passes("b", trusted, latest), "the fifth, which only the trusted have");
    assert!(!passes("b", trusted, latest));
    let (_, faults) = compile(r#"[{"quota": "4 per day", "groups": {"a": "5 per hour"}}]"#, false);
    assert!(faults[0].contains("has the time of the limit"), "{faults:?}");
}

/// B17: what is left of a month ends with the month, and the next one begins with all of it, at midnight where the
/// callers live.
#[test]
fn a_quota_may_go_by_the_calendar() {
    let limits = limits(r#"[{"quota": "2 per month", "window": "calendar", "time_zone": "Europe/Berlin"}]"#);
    let caller = Caller::with_token();
    let at = |text: &str| {
        let second = text.parse::<jiff::Timestamp>().expect("a moment").as_second();
        let since = u64::try_from(second - NOON.unix_seconds()).expect("later");
        Moment { unix_ms: second * 1000, monotonic: NOON.monotonic + Duration::from_secs(since) }
    };
    let name = "identity-quota-calendar-month";
    let last_minute = at("2027-01-31T22:59:00Z");
    assert_eq!(answer(&limits, &caller, last_minute), format!("\"{name}\";r=1;t=60"));
    assert_eq!(answer(&limits, &caller, last_minute), format!("\"{name}\";r=0;t=60"));
    assert_eq!(answer(&limits, &caller, last_minute), format!("quota_exhausted {name} 60000"));
    let february = at("2027-01-31T23:00:00Z");
    assert_eq!(answer(&limits, &caller, february), format!("\"{name}\";r=1;t=2419200"));
    // A refusal of another limit gives back to the window it was taken from.
    let both = plan(r#"[{"rate": "1 per minute"}, {"quota": "2 per day", "window": "calendar"}]"#);
    let both = both.open("other", &Store::in_memory().expect("a store"), &AlertHook::default());
    assert!(ask(&both, &caller, february).is_ok());
    assert!(ask(&both, &caller, february).is_err());
    assert!(answer(&both, &caller, at("2027-01-31T23:02:00Z")).contains("calendar-day\";r=0"));
}
