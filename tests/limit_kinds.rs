//! What limits count, how, over which APIs, and how much for whom.

use std::time::Duration;

use portcullis_core::Reason;

use crate::rig::client::Answer;
use crate::rig::eventually;
use crate::rig::upstream::Manner;
use crate::rig::world::{Plan, World};

/// An API of this name with these limits.
fn api(name: &str, limits: &str) -> String {
    format!(
        "api: {name}
match: {{ host: api.bank.example, path: /{name}/* }}
upstream: accounts
authenticate: {{ jwt: {{ issuer: bank-idp }} }}
identity: {{ name: claims.client_id, group: claims.tier }}
allow:
  - {{ name: anything, paths: [\"/*\"] }}
limits:
{limits}"
    )
}

fn get(world: &World, path: &str, token: &str) -> Answer {
    world.plain().get(path).bearer(token).send()
}

/// How many of so many requests pass.
fn passed(world: &World, path: &str, token: &str, count: usize) -> usize {
    (0..count).filter(|_| get(world, path, token).status == 200).count()
}

/// Windows open again by themselves, whole or bit by bit, and say when.
#[test]
fn a_rate_is_counted_in_windows_of_the_clock() {
    let fixed = api("fixed", "  - { rate: 5 per 3s, algorithm: fixed_window }\n");
    let sliding = api("sliding", "  - { rate: 100 per hour, algorithm: sliding_window }\n");
    let world = World::with(&[&fixed, &sliding]);
    let token = world.idp().token().sign();
    let most = passed(&world, "/fixed/x", &token, 12);
    assert!((5..=10).contains(&most), "{most}: at most two windows");
    let refused = eventually("a window is used up", || {
        let answer = get(&world, "/fixed/x", &token);
        (answer.status == 429).then_some(answer)
    });
    refused.assert_refused(Reason::RateLimited);
    let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=3).contains(&wait), "{wait}");
    std::thread::sleep(Duration::from_secs(wait));
    get(&world, "/fixed/x", &token).assert_passed();
    assert!(refused.header("ratelimit-policy").is_some_and(|policy| policy.contains(";q=5;w=3")));
    assert_eq!(passed(&world, "/sliding/x", &token, 101), 100);
}

/// Answers are counted when they are known: a unit is held while a request is under way, and comes back if its answer does
/// not count.
#[test]
fn answers_are_counted_by_their_status() {
    let world = World::with(&[&api("errors", "  - { rate: 2 per hour, count: { responses: [5xx] } }\n")]);
    let token = world.idp().token().sign();
    assert_eq!(passed(&world, "/errors/x", &token, 10), 10);
    let says =
        |status: &str| Manner::Says(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes());
    world.upstream().behave(says("404 Not Found"));
    (0..5).for_each(|_| assert_eq!(get(&world, "/errors/x", &token).status, 404));
    world.upstream().behave(says("500 Internal Server Error"));
    let first = get(&world, "/errors/x", &token);
    assert_eq!(first.status, 500);
    assert!(first.header("ratelimit").is_some_and(|standing| standing.contains(";r=1;")));
    assert_eq!(get(&world, "/errors/x", &token).status, 500);
    world.upstream().behave(Manner::Polite);
    get(&world, "/errors/x", &token).assert_refused(Reason::RateLimited);
}

/// However many are under way at once, no more are let through than could be counted.
#[test]
fn answers_that_are_still_to_come_hold_their_units() {
    let world = World::with(&[&api("slow", "  - { rate: 3 per hour, count: { responses: [2xx] } }\n")]);
    world.upstream().behave(Manner::Slow(Duration::from_millis(700)));
    let token = world.idp().token().sign();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| get(&world, "/slow/x", &token).status)).collect();
        asking.into_iter().map(|asking| asking.join().expect("an answer")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 5, "{statuses:?}");
}

/// One counter for two APIs; a rule that differs is refused with both places.
#[test]
fn apis_share_a_counter_by_name() {
    let shared = "  - { rate: 6 per hour, shared_as: both }\n";
    let world =
        World::with(&[&api("one", shared), &api("two", shared), &api("own", "  - { rate: 6 per hour }\n")]);
    let token = world.idp().token().sign();
    assert_eq!(passed(&world, "/one/x", &token, 4), 4);
    assert_eq!(passed(&world, "/two/x", &token, 4), 2);
    get(&world, "/one/x", &token).assert_refused(Reason::RateLimited);
    assert_eq!(passed(&world, "/own/x", &token, 6), 6);
    let plan = Plan::new(&[&api("one", shared), &api("two", "  - { rate: 7 per hour, shared_as: both }\n")]);
    plan.write();
    let path = plan.directory.path().to_string_lossy().into_owned();
    let output = crate::rig::gateway::portcullis(&["check", &path], &[]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("must have one rule"), "{said}");
    assert!(said.contains("api-0.yaml") && said.contains("api-1.yaml"), "{said}");
}

/// A count of the caller's own, within the bounds of the policy, and told to the caller.
#[test]
fn a_token_may_say_how_much_its_caller_gets() {
    let world = World::with(&[&api("own", "  - { rate: \"claims.rph per hour, at most 5, else 2\" }\n")]);
    for (sub, rph, expected) in [
        ("three", Some(serde_json::json!(3)), 3),
        ("greedy", Some(serde_json::json!(1_000_000)), 5),
        ("endless", Some(serde_json::json!(-1)), 2),
        ("text", Some(serde_json::json!("4")), 2),
        ("half", Some(serde_json::json!(4.5)), 2),
        ("list", Some(serde_json::json!([9])), 2),
        ("none", None, 2),
        ("zero", Some(serde_json::json!(0)), 0),
    ] {
        let token = world.idp().token().claim("client_id", sub).claim("sub", sub);
        let token = rph.into_iter().fold(token, |token, rph| token.claim("rph", rph)).sign();
        assert_eq!(passed(&world, "/own/x", &token, 7), expected, "{sub}");
        let refused = get(&world, "/own/x", &token);
        refused.assert_refused(Reason::RateLimited);
        let policy = refused.header("ratelimit-policy").expect("RateLimit-Policy").to_owned();
        assert!(policy.contains(&format!(";q={expected};")), "{sub}: {policy}");
    }
}

/// What is left is carried over once, and whoever looks after a quota hears that it is nearly used up.
#[test]
fn a_quota_carries_over_and_tells_when_it_is_nearly_used_up() {
    let world = World::with(&[&api("carry", "  - { quota: 10 per 4s, carry_over: 5, alerts: [50, 90] }\n")]);
    let token = world.idp().token().claim("client_id", "carrier").sign();
    let alerts = || world.gateway.metric_sum("portcullis_quota_alerts_total", &["api=\"carry\""]);
    assert_eq!(passed(&world, "/carry/x", &token, 2), 2);
    assert!(alerts().abs() < f64::EPSILON);
    std::thread::sleep(Duration::from_secs(5));
    let most = passed(&world, "/carry/x", &token, 20);
    assert_eq!(most, 15, "ten, and five of the eight that were left");
    assert!((alerts() - 2.0).abs() < f64::EPSILON, "{}", alerts());
    let log = world.gateway.log();
    assert!(log.contains("carrier") && log.contains("90"), "{log}");
}
