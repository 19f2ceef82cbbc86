//! Rates and quotas: counted by who is calling, never forgiven by a crash, and told in every answer.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Reason;

use crate::rig::gateway::Gateway;
use crate::rig::world::{PUBLIC, Plan, World};

/// An API with these limits.
fn limited(limits: &str) -> String {
    format!(
        "api: limited
match: {{ host: api.bank.example, path: /limited/* }}
upstream: accounts
authenticate: {{ jwt: {{ issuer: bank-idp }} }}
identity: {{ name: claims.client_id }}
allow:
  - {{ name: read, methods: [GET], paths: [\"/*\"], scope: accounts }}
limits:
{limits}"
    )
}

/// Sends requests until one is refused; how many passed, and the refusal.
fn until_refused(world: &World, token: &str, most: usize) -> (usize, crate::rig::client::Answer) {
    for passed in 0..=most {
        let answer = world.plain().get("/limited/x").bearer(token).send();
        if answer.status != 200 {
            return (passed, answer);
        }
    }
    panic!("{most} requests passed");
}

#[test]
fn a_rate_ends_in_429_with_the_time_to_wait() {
    let world = World::with(&[&limited("  - { per: identity, rate: 3 per hour }\n")]);
    let token = world.idp().token().sign();
    let first = world.plain().get("/limited/x").bearer(&token).send();
    first.assert_passed();
    // LIM-05: structured fields, names as strings.
    let policy = first.header("ratelimit-policy").expect("RateLimit-Policy");
    assert!(policy.starts_with('"') && policy.contains(";q=3;w=3600"), "{policy}");
    let standing = first.header("ratelimit").expect("RateLimit");
    assert!(standing.contains(";r=2;t="), "{standing}");
    let (passed, refusal) = until_refused(&world, &token, 10);
    assert_eq!(passed, 2);
    refusal.assert_refused(Reason::RateLimited);
    let wait: u64 = refusal.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((600..=1_200).contains(&wait), "one of three per hour comes back in 20 minutes, not in {wait} s");
    // LIM-06.
    let problem = refusal.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"].as_array().map(Vec::len), Some(1), "{problem}");
    assert_eq!(world.upstream().hits(), 3);
}

#[test]
fn a_burst_is_on_top_and_comes_back_slowly() {
    let world = World::with(&[&limited("  - { per: identity, rate: 20 per second, burst: 5 }\n")]);
    let token = world.idp().token().sign();
    let mut session = world.plain().connect().expect("a connection");
    let mut refused = 0;
    for _ in 0..200 {
        let answer = session.send(world.plain().get("/limited/x").bearer(&token)).expect("an answer");
        refused += usize::from(answer.status == 429);
    }
    assert!(refused > 0, "200 requests at once passed a burst of 5");
    crate::rig::eventually("a unit comes back", || {
        let answer = session.send(world.plain().get("/limited/x").bearer(&token)).expect("an answer");
        (answer.status == 200).then_some(())
    });
}

/// LIM-01, LIM-08: by verified identity, and nobody uses up another's share.
#[test]
fn callers_do_not_share_their_limits() {
    let world = World::with(&[&limited("  - { per: identity, rate: 2 per hour }\n")]);
    for client in ["one", "two"] {
        let token = world.idp().token().claim("client_id", client).sign();
        let (passed, refusal) = until_refused(&world, &token, 5);
        assert_eq!(passed, 2, "{client}");
        refusal.assert_refused(Reason::RateLimited);
    }
    // Another token of the same caller is the same caller.
    let again = world.idp().token().claim("client_id", "one").claim("jti", "new").sign();
    world.plain().get("/limited/x").bearer(&again).send().assert_refused(Reason::RateLimited);
    // What a caller says of itself changes nothing.
    let forged = world.plain().get("/limited/x").bearer(&again).header("x-forwarded-for", "9.9.9.9");
    forged.header("x-client-id", "three").send().assert_refused(Reason::RateLimited);
}

/// Shared by all workers, and exact under a race.
#[test]
fn parallel_requests_do_not_get_past_a_limit() {
    let api = limited("  - { per: identity, rate: 40 per hour }\n");
    let world = Arc::new(Plan::new(&[&api]).with(|plan| plan.settings = "workers: 2\n".to_owned()).start());
    let token = world.idp().token().sign();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (world, token) = (Arc::clone(&world), token.clone());
            std::thread::spawn(move || {
                let answers = (0..10).map(|_| world.plain().get("/limited/x").bearer(&token).send().status);
                answers.filter(|status| *status == 200).count()
            })
        })
        .collect();
    let passed: usize = callers.into_iter().map(|caller| caller.join().expect("a caller")).sum();
    assert_eq!(passed, 40);
    assert_eq!(world.upstream().hits(), 40);
}

/// LIM-03: what is refused costs nothing, whoever refused it.
#[test]
fn a_refused_request_costs_nothing() {
    let limits = "  - { per: identity, rate: 2 per second, name: quick }\n  - { per: identity, quota: 6 per day, name: daily }\n";
    let world = World::with(&[&limited(limits)]);
    let good = world.idp().token();
    for _ in 0..10 {
        let poor = good.clone().claim("scope", "other").sign();
        world.plain().get("/limited/x").bearer(&poor).send().assert_refused(Reason::ScopeInsufficient);
        let old = good.clone().claim("exp", 1).sign();
        world.plain().get("/limited/x").bearer(&old).send().assert_refused(Reason::TokenExpired);
    }
    let (token, mut passed, mut refused) = (good.sign(), 0, 0);
    let last = loop {
        let answer = world.plain().get("/limited/x").bearer(&token).send();
        match answer.status {
            200 => passed += 1,
            _ if answer.code() == Reason::RateLimited.code() => {
                assert_eq!(answer.json()["violated-policies"], serde_json::json!(["quick"]));
                refused += 1;
            }
            _ => break answer,
        }
    };
    last.assert_refused(Reason::QuotaExhausted);
    assert_eq!(last.json()["violated-policies"], serde_json::json!(["daily"]));
    assert!(refused > 0, "the rate never refused, so nothing was shown");
    assert_eq!(passed, 6, "{refused} requests refused by the rate took their share of the quota");
}

#[test]
fn a_quota_ends_in_429() {
    let world = World::with(&[&limited("  - { per: identity, quota: 3 per day }\n")]);
    let (passed, refusal) = until_refused(&world, &world.idp().token().sign(), 10);
    assert_eq!(passed, 3);
    refusal.assert_refused(Reason::QuotaExhausted);
    let wait: u64 = refusal.header("retry-after").expect("Retry-After").parse().expect("seconds");
    // Seconds are rounded up, so that waiting that long is always enough.
    assert!((86_300..=86_401).contains(&wait), "{wait}");
    assert!(refusal.header("ratelimit-policy").expect("RateLimit-Policy").contains(";q=3;w=86400"));
}

/// OPS-01: a restart forgets nothing.
#[test]
fn a_quota_survives_a_restart() {
    let world = World::with(&[&limited("  - { per: identity, quota: 5 per day }\n")]);
    let token = world.idp().token().sign();
    for _ in 0..3 {
        world.plain().get("/limited/x").bearer(&token).send().assert_passed();
    }
    let world = world.restart();
    let (passed, refusal) = until_refused(&world, &token, 10);
    assert_eq!(passed, 2);
    refusal.assert_refused(Reason::QuotaExhausted);
}

/// OPS-01: a crash may lose units, and never gives any away.
#[test]
fn a_quota_is_never_exceeded_because_of_a_crash() {
    let mut world = World::with(&[&limited("  - { per: identity, quota: 50 per day }\n")]);
    let token = world.idp().token().sign();
    let mut passed = 0;
    for _ in 0..3 {
        for _ in 0..7 {
            let answer = world.plain().get("/limited/x").bearer(&token).send();
            passed += usize::from(answer.status == 200);
        }
        world = world.kill_and_restart();
    }
    loop {
        let answer = world.plain().get("/limited/x").bearer(&token).send();
        if answer.status != 200 {
            answer.assert_refused(Reason::QuotaExhausted);
            break;
        }
        passed += 1;
    }
    assert!(passed <= 50, "{passed} requests passed a quota of 50");
    assert!(passed >= 7, "the first block was lost before it was used: {passed}");
    println!("{passed} of 50 passed with three crashes between");
}

#[test]
fn a_limit_may_count_by_address_or_for_the_whole_api() {
    let api = format!("{PUBLIC}limits:\n  - {{ per: address, rate: 2 per hour }}\n");
    let world = World::with(&[&api]);
    for _ in 0..2 {
        world.plain().get("/public/x").send().assert_passed();
    }
    let call = world
        .plain()
        .get("/public/x")
        .header("x-forwarded-for", "9.9.9.9")
        .header("forwarded", "for=9.9.9.9");
    call.send().assert_refused(Reason::RateLimited);

    let world = World::with(&[&limited("  - { per: api, rate: 2 per hour }\n")]);
    for client in ["one", "two"] {
        world
            .plain()
            .get("/limited/x")
            .bearer(&world.idp().token().claim("client_id", client).sign())
            .send()
            .assert_passed();
    }
    let third = world.idp().token().claim("client_id", "three").sign();
    world.plain().get("/limited/x").bearer(&third).send().assert_refused(Reason::RateLimited);
}

/// A store that cannot write decides nothing, and what cannot be decided is not let through.
#[test]
fn a_store_that_fails_is_503_and_never_open() {
    let api = limited("  - { per: identity, quota: 1000 per day }\n");
    let world = Plan::new(&[&api, PUBLIC]).start_with_full_disk();
    let refusal = crate::rig::eventually("the store fails", || {
        // A caller who was never seen needs a reservation, and that must be written.
        let stamp = format!("client-{:?}", std::time::Instant::now());
        let token = world.idp().token().claim("client_id", stamp.as_str()).sign();
        let answer = world.plain().get("/limited/x").bearer(&token).send();
        (answer.status != 200).then_some(answer)
    });
    refusal.assert_refused(Reason::StoreUnavailable);
    let hits = world.upstream().hits();
    for client in 0..5 {
        let token = world.idp().token().claim("client_id", format!("later-{client}")).sign();
        world.plain().get("/limited/x").bearer(&token).send().assert_refused(Reason::StoreUnavailable);
    }
    assert_eq!(world.upstream().hits(), hits);
    world.plain().get("/public/x").send().assert_passed();
}

/// The clock of the limits is not the wall clock's to turn.
#[test]
fn a_limit_is_kept_over_connections_and_time() {
    let world = World::with(&[&limited("  - { per: identity, rate: 1 per hour }\n")]);
    let token = world.idp().token().sign();
    world.plain().get("/limited/x").bearer(&token).send().assert_passed();
    std::thread::sleep(Duration::from_millis(1_100));
    for client in [world.plain(), world.client(), world.client().http2(), world.stranger()] {
        client.get("/limited/x").bearer(&token).send().assert_refused(Reason::RateLimited);
    }
}

/// A gateway whose store is in use is not started twice.
#[test]
fn a_store_belongs_to_one_process() {
    let world = World::with(&[&limited("  - { per: identity, quota: 5 per day }\n")]);
    let mut second = Gateway::spawn(world.plan.directory.path(), &[]);
    let status = second.wait();
    assert_eq!(status.code(), Some(1));
    let said = second.log() + &second.output();
    assert!(said.contains("portcullis.redb"), "{said}");
    world.plain().get("/limited/x").bearer(&world.idp().token().sign()).send().assert_passed();
}

/// A limit of an endpoint, one in shadow, one by a claim, and a group with a count of its own, in the real binary.
#[test]
fn limits_are_about_endpoints_claims_and_groups() {
    let api = limited(
        "  - { name: org, per: claims.org, rate: 4 per hour }
  - { name: writes, rate: 1 per hour, methods: [GET], paths: [\"/pay/*\"], groups: { trusted: 2 per hour } }
  - { name: tried, rate: 1 per hour, mode: shadow }
",
    )
    .replace("{ name: claims.client_id }", "{ name: claims.client_id, group: claims.tier }");
    let world = World::with(&[&api]);
    let token = |client: &str, org: &str, tier: &str| {
        world.idp().token().claim("client_id", client).claim("org", org).claim("tier", tier).sign()
    };
    let ask = |path: &str, token: &str| world.plain().get(&format!("/limited{path}")).bearer(token).send();
    let (plain, trusted) = (token("a", "one", "none"), token("b", "one", "trusted"));
    let first = ask("/pay/1", &plain);
    first.assert_passed();
    let told = first.header("ratelimit").expect("RateLimit");
    assert!(
        told.contains("\"org\";r=3") && told.contains("\"writes\";r=0") && !told.contains("tried"),
        "{told}"
    );
    let refused = ask("/pay/2", &plain);
    refused.assert_refused(Reason::RateLimited);
    assert_eq!(refused.json()["violated-policies"][0], "writes");
    // Elsewhere the limit of that endpoint says nothing, and the one in shadow refuses nothing.
    let elsewhere = ask("/x", &plain);
    elsewhere.assert_passed();
    assert!(!elsewhere.header("ratelimit").expect("RateLimit").contains("writes"));
    ask("/pay/1", &trusted).assert_passed();
    ask("/pay/1", &trusted).assert_passed();
    // The organisation has used all it has, whoever asks for it; another one has its own.
    let refused = ask("/x", &trusted);
    refused.assert_refused(Reason::RateLimited);
    assert_eq!(refused.json()["violated-policies"][0], "org");
    ask("/x", &token("c", "two", "none")).assert_passed();
    // Who cannot be counted is not let through.
    let without = world.idp().token().claim("client_id", "d").sign();
    ask("/x", &without).assert_refused(Reason::IdentityUnresolved);
    let shadow = world.gateway.metric_sum("portcullis_shadow_denials_total", &["reason=\"rate_limited\""]);
    assert!(shadow >= 2.0, "{shadow}");
    assert!(world.gateway.output().contains("\"shadow\":\"rate_limited\""));
}

/// A quota of the calendar survives a crash as any other does, and says when its window ends.
#[test]
fn a_quota_of_the_calendar_survives_a_crash() {
    let zone = "Pacific/Kiritimati";
    let limits =
        format!("  - {{ name: month, quota: 300 per month, window: calendar, time_zone: {zone} }}\n");
    let world = World::with(&[&limited(&limits)]);
    let token = world.idp().token().sign();
    let first = world.plain().get("/limited/x").bearer(&token).send();
    first.assert_passed();
    let told = first.header("ratelimit").expect("RateLimit");
    let (_, left) = told.split_once(";t=").expect("the time");
    let left: u64 = left.parse().expect("seconds");
    assert!(told.contains("\"month\";r=299") && left <= 31 * 86_400, "{told}");
    let world = world.kill_and_restart();
    let (passed, refusal) = until_refused(&world, &token, 299);
    // At most one block of a hundredth is lost to the crash, and nothing is given twice.
    assert!((296..=299).contains(&passed), "{passed}");
    refusal.assert_refused(Reason::QuotaExhausted);
    let wait: u64 = refusal.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!(wait <= left, "{wait} of {left}");
}

/// Failures are counted by address before anybody is asked who they are, and answers after they are known.
#[test]
fn what_came_of_a_request_is_counted() {
    let api = limited("  - { per: address, rate: 3 per hour, count: failures }\n");
    let world = World::with(&[&api]);
    let token = world.idp().token().sign();
    let get = |token: &str| world.plain().get("/limited/x").bearer(token).send();
    for _ in 0..10 {
        get(&token).assert_passed();
    }
    for _ in 0..3 {
        assert_eq!(get("a.b.c").status, 401);
    }
    let refused = get("a.b.c");
    refused.assert_refused(Reason::RateLimited);
    // Whether another guess was right is not to be learned either.
    get(&token).assert_refused(Reason::RateLimited);
    assert_eq!(world.upstream().hits(), 10);

    let api = limited("  - { rate: 2 per hour, count: { responses: [5xx] } }\n");
    let world = World::with(&[&api]);
    let token = world.idp().token().sign();
    for _ in 0..10 {
        world.plain().get("/limited/x").bearer(&token).send().assert_passed();
    }
}

/// B17: callers are told where they stand, as often as they ask, and nothing is counted by it.
#[test]
fn callers_are_told_what_is_left_to_them() {
    let api = "\
api: metered
match: { host: api.bank.example, path: /metered/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
usage: /me/usage
allow:
  - { name: read, methods: [GET], paths: [\"/things/*\"] }
limits:
  - { per: identity, rate: 5 per hour, burst: 7, paths: [\"/things/*\"] }
  - { per: identity, quota: 3 per day }
  - { per: identity, quota: 2 per day, mode: shadow, name: trial }
";
    let world = World::with(&[api]);
    let [alice, bob] = ["alice", "bob"].map(|name| world.idp().token().claim("sub", name).sign());
    let get = |path: &str, token: &str| world.plain().get(path).bearer(token).send();
    let limits = |token: &str| {
        let answer = get("/metered/me/usage", token);
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, Some("no-store")),
            "{}",
            answer.text()
        );
        answer.json()["limits"].as_array().expect("a list").clone()
    };
    for _ in 0..20 {
        let told = limits(&alice);
        assert_eq!(
            serde_json::to_value(&told).expect("JSON"),
            serde_json::json!([
                { "name": "identity-rate-hour", "kind": "rate", "limit": 7, "window_seconds": 5_040.0, "remaining": 7, "reset_seconds": null },
                { "name": "identity-quota-day", "kind": "quota", "limit": 3, "window_seconds": 86_400.0, "remaining": 3, "reset_seconds": null },
            ])
        );
    }
    for _ in 0..3 {
        get("/metered/things/1", &alice).assert_passed();
    }
    let told = limits(&alice);
    assert_eq!((&told[0]["remaining"], &told[1]["remaining"]), (&4.into(), &0.into()), "{told:?}");
    assert!(
        told[1]["reset_seconds"].as_f64().is_some_and(|reset| (86_000.0..=86_400.0).contains(&reset)),
        "{told:?}"
    );
    get("/metered/things/1", &alice).assert_refused(Reason::QuotaExhausted);
    assert_eq!(limits(&bob)[1]["remaining"], 3, "another caller");
    // It is told to whoever may call, and to nobody else; other methods are what they were.
    world.plain().get("/metered/me/usage").send().assert_refused(Reason::CredentialsMissing);
    let posted = world.plain().request(http::Method::POST, "/metered/me/usage").bearer(&alice).send();
    posted.assert_refused(Reason::AccessDenied);
    assert_eq!(world.upstream().hits(), 3);
}

/// A rate that lets requests wait lets them pass one after another, and refuses whoever would wait for too long.
#[test]
fn requests_wait_for_a_rate_that_lets_them() {
    let api = |name: &str, rate: &str| {
        format!(
            "api: {name}
match: {{ host: api.bank.example, path: /{name}/* }}
upstream: accounts
authenticate: {{ jwt: {{ issuer: bank-idp }} }}
allow: [ {{ name: anything, paths: [\"/*\"] }} ]
limits: [ {{ rate: {rate}, burst: 1, throttle: {{ wait: 2s }} }} ]
"
        )
    };
    let world = World::with(&[&api("paced", "10 per second"), &api("slow", "1 per hour")]);
    let token = world.idp().token().sign();
    let ask = |path: &str| world.plain().get(path).bearer(&token).send();
    for _ in 0..8 {
        ask("/paced/x").assert_passed();
    }
    ask("/slow/x").assert_passed();
    ask("/slow/x").assert_refused(Reason::RateLimited);
}
