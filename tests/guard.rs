//! Whoever fails to show who they are has to wait, and nobody else (PIPE-05, trap 27).

use std::time::{Duration, Instant};

use portcullis_core::{Reason, Secret};
use portcullis_jose::base64url;
use portcullis_jose::digest::KeyedHash;

use crate::rig::client::{Answer, Client};
use crate::rig::idp::Serving;
use crate::rig::world::{BEARER, HOST, Plan, World};

const PEPPER: &str = "pepper-pepper-pepper-pepper-pepper-pepper";

const ORDERS: &str = "\
api: orders
match: { host: api.bank.example, path: /orders/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

const GOOD: &str = "acme-key-1234567890";

fn world(guard: &'static str) -> World {
    world_beside(guard, "")
}

/// The same with more listeners.
fn world_beside(guard: &'static str, listeners: &str) -> World {
    let plan = Plan::new(&[BEARER, ORDERS]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.guard = guard;
        plan.listener = listeners.to_owned();
    });
    let hash = KeyedHash::new(&Secret::new(PEPPER.as_bytes().to_vec())).digest(GOOD.as_bytes());
    let hash = base64url::encode(&hash);
    plan.directory.write("secrets/pepper", PEPPER);
    plan.directory.write(
        "clients/acme.yaml",
        format!("clients:\n  acme:\n    credentials:\n      - api_key: {{ hash: \"pk1:{hash}\" }}\n"),
    );
    plan.start()
}

/// A caller at an address of its own.
fn at(world: &World, last: u8) -> Client {
    world.plain().from([127, 0, 0, last])
}

fn with_key(client: &Client, key: &str) -> Answer {
    client.clone().get("/orders/1").header("x-api-key", key).send()
}

/// A token of this client with a signature of nobody.
fn forged(world: &World, client: &str) -> String {
    let token = world.idp().token().claim("client_id", client).claim("sub", client).sign();
    let (signed, signature) = token.rsplit_once('.').expect("a token");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{signed}.{first}{}", &signature[1..])
}

fn with_token(client: &Client, token: &str) -> Answer {
    client.clone().get("/bearer/1").bearer(token).send()
}

fn good(world: &World, client: &str) -> String {
    world.idp().token().claim("client_id", client).claim("sub", client).sign()
}

/// Shows five times a token nobody signed, which is as often as the guard lets a name be tried at once.
#[track_caller]
fn guess(world: &World, caller: &Client) -> String {
    let token = forged(world, "tpp-a");
    for _ in 0..5 {
        with_token(caller, &token).assert_refused(Reason::TokenSignatureInvalid);
    }
    token
}

#[test]
fn an_address_waits_before_it_may_try_a_name_again() {
    let world = world("guard: { shared_addresses: [] }");
    let caller = at(&world, 1);
    let token = guess(&world, &caller);
    let answer = with_token(&caller, &token);
    answer.assert_refused(Reason::TooManyFailures);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Not the signature decides any more, so not even a good token of that name does.
    with_token(&caller, &good(&world, "tpp-a")).assert_refused(Reason::TooManyFailures);
    world.assert_upstream_untouched();
    assert!(world.gateway.metric_sum("portcullis_guard_failures_total", &[]) >= 5.0);
    assert!(world.gateway.metric_sum("portcullis_guard_refusals_total", &["by=\"name\""]) >= 2.0);
    assert!(world.gateway.metric_sum("portcullis_auth_total", &["too_many_failures"]) >= 2.0);
}

/// It is on where nothing is written, and loopback is shared there: whoever else is behind a shared address cannot
/// shut out a name.
#[test]
fn behind_a_shared_address_a_good_credential_passes_whatever_others_do() {
    let world = world("");
    let caller = at(&world, 1);
    let token = guess(&world, &caller);
    let answer = with_token(&caller, &token);
    answer.assert_refused(Reason::TooManyFailures);
    assert!(answer.header("retry-after").is_some());
    world.assert_upstream_untouched();
    for _ in 0..2 {
        with_token(&caller, &token).assert_refused(Reason::TooManyFailures);
    }
    with_token(&caller, &good(&world, "tpp-a")).assert_passed();
    assert!(world.gateway.metric_sum("portcullis_guard_failures_total", &[]) >= 8.0);
    assert!(world.gateway.metric_sum("portcullis_guard_refusals_total", &["by=\"name\""]) >= 3.0);
}

/// A proxy that one listener trusts makes its addresses shared there, and nowhere else.
#[test]
fn what_one_listener_knows_of_a_proxy_counts_for_no_other() {
    let told = "    client_certificate_header:
      from: [127.0.0.0/8]
      proxy: { secret: { header: x-lb-secret, value: { file: secrets/pepper } } }
      format: rfc9440
      trust: { open-banking: { file: tls/open-banking-ca.pem } }
";
    let listeners = format!(
        "  balanced:\n    address: 127.0.0.1:0\n{told}  relayed:\n    address: 127.0.0.1:0\n    proxy_protocol: {{ from: [127.0.0.1] }}\n{told}"
    );
    let world =
        world_beside("guard: { caller: { failures: 1 }, first_wait: 30s, shared_addresses: [] }", &listeners);
    let token = forged(&world, "tpp-a");
    let at_door = |name: &str| Client::plain(world.gateway.address(name), HOST);
    let announced = || at_door("relayed").announcing("PROXY TCP4 127.0.0.77 192.0.2.1 4711 443\r\n");
    // Whoever calls by the proxy may be anybody.
    let balanced = at_door("balanced").from([127, 0, 0, 5]);
    with_token(&balanced, &token).assert_refused(Reason::TokenSignatureInvalid);
    with_token(&balanced, &good(&world, "tpp-a")).assert_passed();
    // The same network is callers' own addresses where they connect themselves, or are announced.
    for one in [at(&world, 6), announced()] {
        with_token(&one, &token).assert_refused(Reason::TokenSignatureInvalid);
        with_token(&one, &good(&world, "tpp-a")).assert_refused(Reason::TooManyFailures);
    }
}

#[test]
fn it_can_be_turned_off() {
    let world = world("guard: off");
    for _ in 0..20 {
        with_key(&at(&world, 1), "wrong").assert_refused(Reason::ApiKeyInvalid);
    }
}

/// Trap 27: the victim is known by name, and attacked from everywhere.
#[test]
fn nobody_waits_for_what_others_did_under_their_name() {
    let world =
        world("guard: { caller: { failures: 3 }, name: { failures: 6, forget: 10m }, shared_addresses: [] }");
    let token = forged(&world, "victim");
    for attacker in 10..20 {
        let attacker = at(&world, attacker);
        // From the seventh failure under the name on, the first one is enough to have to wait.
        for _ in 0..3 {
            let answer = with_token(&attacker, &token);
            assert!(answer.status == 401 || answer.status == 429, "{}", answer.text());
        }
        with_token(&attacker, &token).assert_refused(Reason::TooManyFailures);
    }
    let failures = world.gateway.metric_sum("portcullis_guard_failures_total", &[]);
    assert!(
        (13.0..=15.0).contains(&failures),
        "two attackers with three guesses, eight with one: {failures}"
    );
    world.assert_upstream_untouched();
    with_token(&at(&world, 2), &good(&world, "victim")).assert_passed();
    // And the victim's own first mistake makes it wait only for a moment.
    let victim = at(&world, 3);
    with_token(&victim, &token).assert_refused(Reason::TokenSignatureInvalid);
    let answer = with_token(&victim, &good(&world, "victim"));
    answer.assert_refused(Reason::TooManyFailures);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// Trap 27: what a header says about the address neither helps nor hurts.
#[test]
fn the_address_is_the_connection_s() {
    let world = world("guard: { address: { failures: 5 }, shared_addresses: [] }");
    for number in 0..6 {
        let call = at(&world, 1).get("/orders/1").header("x-api-key", &format!("guess-{number}"));
        let spoofed = format!("203.0.113.{number}");
        let call = call.header("x-forwarded-for", &spoofed).header("forwarded", &format!("for={spoofed}"));
        let call = call.header("x-real-ip", "127.0.0.2");
        let reason = if number < 5 { Reason::ApiKeyInvalid } else { Reason::TooManyFailures };
        call.send().assert_refused(reason);
    }
    with_key(&at(&world, 2), GOOD).assert_passed();
}

#[test]
fn guessing_many_keys_makes_an_address_wait_and_repeating_one_does_not() {
    let world = world("guard: { address: { failures: 5 }, shared_addresses: [] }");
    let client = at(&world, 1);
    for _ in 0..5 {
        with_key(&client, "a-stale-key").assert_refused(Reason::ApiKeyInvalid);
    }
    with_key(&client, "a-stale-key").assert_refused(Reason::TooManyFailures);
    with_key(&client, GOOD).assert_passed();
    let guesser = at(&world, 2);
    for number in 0..5 {
        with_key(&guesser, &format!("guess-{number}")).assert_refused(Reason::ApiKeyInvalid);
    }
    with_key(&guesser, "guess-6").assert_refused(Reason::TooManyFailures);
    with_key(&guesser, GOOD).assert_refused(Reason::TooManyFailures);
    // Tokens come from the same address.
    with_token(&guesser, &good(&world, "tpp-a")).assert_refused(Reason::TooManyFailures);
    with_token(&client, &good(&world, "tpp-a")).assert_passed();
    // Who presents nothing is still told what is needed.
    guesser.get("/orders/1").send().assert_refused(Reason::CredentialsMissing);
    assert!(world.gateway.metric_sum("portcullis_guard_refusals_total", &["by=\"address\""]) >= 3.0);
}

#[test]
fn after_the_wait_one_attempt_is_let_through_and_a_success_forgives() {
    let world = world(
        "guard: { caller: { failures: 2, longest_wait: 500ms }, first_wait: 500ms, shared_addresses: [] }",
    );
    let client = at(&world, 1);
    let token = forged(&world, "tpp-a");
    for _ in 0..2 {
        with_token(&client, &token).assert_refused(Reason::TokenSignatureInvalid);
    }
    with_token(&client, &token).assert_refused(Reason::TooManyFailures);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(600));
    with_token(&client, &token).assert_refused(Reason::TokenSignatureInvalid);
    if begun.elapsed() < Duration::from_millis(1_000) {
        with_token(&client, &token).assert_refused(Reason::TooManyFailures);
    }
    std::thread::sleep(Duration::from_millis(600));
    with_token(&client, &good(&world, "tpp-a")).assert_passed();
    for _ in 0..2 {
        with_token(&client, &token).assert_refused(Reason::TokenSignatureInvalid);
    }
}

#[test]
fn a_token_that_is_known_to_be_good_is_served_whatever_others_do_there() {
    let world = world("guard: { address: { failures: 3 }, shared_addresses: [] }\nworkers: 1");
    let client = at(&world, 1);
    let token = good(&world, "tpp-a");
    with_token(&client, &token).assert_passed();
    for number in 0..3 {
        with_key(&client, &format!("guess-{number}")).assert_refused(Reason::ApiKeyInvalid);
    }
    with_key(&client, "guess-4").assert_refused(Reason::TooManyFailures);
    with_token(&client, &token).assert_passed();
}

/// A token that has expired says nothing against its client, whose next one must count at once.
#[test]
fn what_is_out_of_date_or_could_not_be_checked_is_no_failure() {
    let world = world("guard: { caller: { failures: 2 }, address: { failures: 2 }, shared_addresses: [] }");
    let client = at(&world, 1);
    let expired = world.idp().token().claim("iat", 1_000_000).claim("exp", 1_000_300).sign();
    for _ in 0..6 {
        with_token(&client, &expired).assert_refused(Reason::TokenExpired);
        client.clone().get("/orders/1").send().assert_refused(Reason::CredentialsMissing);
    }
    with_token(&client, &world.idp().token().sign()).assert_passed();
    assert_eq!(world.gateway.metric_sum("portcullis_guard_failures_total", &[]), 0.0);
}

#[test]
fn keys_that_cannot_be_fetched_are_held_against_nobody() {
    let plan = Plan::new(&[BEARER]).with(|plan| {
        plan.guard = "guard: { caller: { failures: 1 }, address: { failures: 1 }, shared_addresses: [] }";
    });
    plan.idp.serve(Serving::Down);
    let world = plan.start();
    for _ in 0..5 {
        with_token(&at(&world, 1), &good(&world, "tpp-a")).assert_refused(Reason::KeysUnavailable);
    }
    assert_eq!(world.gateway.metric_sum("portcullis_guard_failures_total", &[]), 0.0);
}

/// No key, no name and no address ends up where somebody reads it.
#[test]
fn what_was_guessed_is_in_no_log_and_no_metric() {
    let world = world("guard: { caller: { failures: 1 }, shared_addresses: [] }");
    for _ in 0..3 {
        with_key(&at(&world, 77), "guessed-secret-key");
    }
    let metrics = world.gateway.admin("/metrics").text();
    assert!(!metrics.contains("127.0.0.77") && !metrics.contains("guessed"), "{metrics}");
    let output = world.gateway.output() + &world.gateway.log();
    assert!(!output.contains("guessed"), "{output}");
}
