//! The keys of an issuer: fetched once, kept fresh, replaced and never merged; and when they cannot be had, 503.

use std::time::{Duration, Instant};

use portcullis_core::Reason;
use portcullis_jose::Algorithm;
use serde_json::json;

use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::idp::{Idp, Serving};
use crate::rig::token::Token;
use crate::rig::world::{BEARER, Plan, World};

/// Starts a gateway whose identity provider serves its keys in this way from the beginning.
fn with_keys(serving: Serving) -> World {
    Plan::new(&[BEARER]).with(|plan| plan.idp.serve(serving)).start()
}

#[track_caller]
fn unavailable(world: &World) {
    let answer = world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send();
    answer.assert_refused(Reason::KeysUnavailable);
    world.assert_upstream_untouched();
}

/// JKS-07, trap 12: it is not the caller's fault, so it is never a 401.
#[test]
fn keys_that_cannot_be_had_are_503_and_never_401() {
    for serving in [
        Serving::Down,
        Serving::Status(500),
        Serving::Status(404),
        Serving::Status(204),
        Serving::Redirect("http://127.0.0.1:1/jwks".to_owned()),
        Serving::Body(b"<html>garbage</html>".to_vec()),
        Serving::Body(b"{\"keys\":{}}".to_vec()),
        Serving::Body(b"{}".to_vec()),
        Serving::Body(Vec::new()),
        Serving::Body(b"{\"keys\":[]}".to_vec()),
        Serving::Body(vec![b' '; 1 << 20]),
        Serving::Slow(Duration::from_secs(60)),
    ] {
        let what = format!("{serving:?}");
        println!("{}", &what[..what.len().min(80)]);
        unavailable(&with_keys(serving));
    }
}

#[test]
fn a_server_that_is_not_there_is_503() {
    let plan = Plan::new(&[BEARER]);
    // A port that was free a moment ago; nobody listens there.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let url = format!("{{ jwks_url: \"http://{free}/jwks\", http_on_loopback: true }}");
    unavailable(&plan.with(|plan| plan.keys = url).start());
}

#[test]
fn a_request_does_not_wait_long_for_slow_keys() {
    let world = with_keys(Serving::Slow(Duration::from_secs(60)));
    let start = Instant::now();
    unavailable(&world);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn readiness_says_that_keys_are_missing_and_when_they_have_come() {
    let world = with_keys(Serving::Status(500));
    let answer = eventually("the gateway says that it is not ready", || {
        let answer = world.gateway.admin("/readyz");
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.text().contains("bank-idp"), "{}", answer.text());
    assert_eq!(world.gateway.admin("/livez").status, 200);
    world.idp().serve(Serving::Good);
    eventually("the keys are fetched again", || (world.gateway.admin("/readyz").status == 200).then_some(()));
    let call = world.plain().get("/bearer/x").bearer(&world.idp().token().sign());
    eventually("the token is taken", || (call.clone().send().status == 200).then_some(()));
}

/// The other APIs do not suffer.
#[test]
fn an_issuer_that_is_down_takes_nobody_else_down() {
    let other = Idp::start();
    let api = BEARER
        .replace("api: bearer", "api: other")
        .replace("/bearer/*", "/other/*")
        .replace("bank-idp", "other-idp");
    let entry = format!(
        "  other-idp:\n    issuer: https://other.example\n    audience: https://api.bank.example\n    algorithms: [ES256]\n    keys: {{ jwks_url: \"{}\", http_on_loopback: true }}\n",
        other.jwks_url()
    );
    let plan = Plan::new(&[BEARER, &api]).with(|plan| plan.issuers = entry);
    plan.idp.serve(Serving::Down);
    let world = plan.start();
    unavailable(&world);
    let token = other.token().claim("iss", "https://other.example").sign();
    world.plain().get("/other/x").bearer(&token).send().assert_passed();
    // JWT-26: the same key id under another issuer is another key.
    let crossed = other.token().sign();
    let answer = world.plain().get("/other/x").bearer(&crossed).send();
    answer.assert_refused(Reason::TokenIssuerRefused);
}

/// JKS-05: a new key is found without waiting for the next refresh.
#[test]
fn a_key_that_appears_is_found() {
    let world = World::with(&[BEARER]);
    world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    let key = world.idp().add(Algorithm::Es256, "key-2");
    world.plain().get("/bearer/x").bearer(&Token::new(&key).sign()).send().assert_passed();
    assert_eq!(world.idp().hits(), 2);
}

/// JKS-08, JKS-09, trap 12: sets replace each other; a token that is remembered goes with its key.
#[test]
fn a_key_that_disappears_takes_its_tokens_with_it() {
    let world = World::with(&[BEARER]);
    let old = world.idp().token().sign();
    world.plain().get("/bearer/x").bearer(&old).send().assert_passed();
    let key = world.idp().add(Algorithm::Es256, "key-2");
    world.idp().remove("key-1");
    // The unknown key id makes the gateway look again.
    world.plain().get("/bearer/x").bearer(&Token::new(&key).sign()).send().assert_passed();
    world.plain().get("/bearer/x").bearer(&old).send().assert_refused(Reason::TokenSignatureInvalid);
}

/// JKS-05, JKS-06, trap 12: ten thousand made-up key ids are no reason to ask ten thousand times.
#[test]
fn unknown_key_ids_cause_no_storm() {
    let mut world = World::with(&[BEARER]);
    world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    let mut session = world.plain().connect().expect("a connection");
    let signed = world.idp().token();
    let started = Instant::now();
    for number in 0..10_000 {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"made-up-{number}\"}}");
        let token = signed.forged_once(&header);
        let answer = session.send(world.plain().get("/bearer/x").bearer(&token)).expect("an answer");
        assert_eq!(answer.code(), Reason::TokenSignatureInvalid.code(), "{number}: {}", answer.text());
    }
    // Once for a cool-down of 30 seconds, and what is due anyway; a busy machine takes longer than one.
    let due = 4 + 2 * usize::try_from(started.elapsed().as_secs() / 30).expect("few");
    assert!(world.idp().hits() <= due, "the key set was fetched {} times, {due} are due", world.idp().hits());
    world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    assert!(world.gateway.is_alive());
}

/// JKS-07: the last good set goes on while the server is down.
#[test]
fn keys_go_on_while_their_server_is_down() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token().sign();
    world.plain().get("/bearer/x").bearer(&token).send().assert_passed();
    for serving in
        [Serving::Down, Serving::Body(b"garbage".to_vec()), Serving::Body(b"{\"keys\":[]}".to_vec())]
    {
        world.idp().serve(serving);
        world.plain().get("/bearer/x").bearer(&token).send().assert_passed();
        world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    }
}

/// A token whose key is not known while the server cannot be asked: nobody can say, so nobody says 401.
#[test]
fn an_unknown_key_id_is_503_while_the_server_is_down() {
    let world = World::with(&[BEARER]);
    world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    world.idp().serve(Serving::Down);
    let key = Idp::unpublished(Algorithm::Es256, "key-9");
    let answer = world.plain().get("/bearer/x").bearer(&Token::new(&key).sign()).send();
    answer.assert_refused(Reason::KeysUnavailable);
}

/// JWK-01, JWK-02: one bad entry is dropped, and the others count.
#[test]
fn entries_that_are_no_public_keys_are_dropped() {
    let plan = Plan::new(&[BEARER]);
    let mut set = plan.idp.set();
    let members = set["keys"].as_array_mut().expect("keys");
    members.insert(
        0,
        json!({ "kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ", "kid": "secret" }),
    );
    members.insert(0, json!({ "kty": "XYZ", "kid": "strange" }));
    members.insert(0, json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "bad-point" }));
    members.insert(0, json!(7));
    plan.idp.publish(set);
    let world = plan.start();
    world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    let header = "{\"alg\":\"HS256\",\"kid\":\"secret\"}";
    let forged = world.idp().token().forged(header, "{\"iss\":\"https://idp.bank.example\"}");
    world.plain().get("/bearer/x").bearer(&forged).send().assert_refused(Reason::TokenAlgorithmRefused);
}

/// JWK-05: without a key id only keys that fit are tried; with one, no other is.
#[test]
fn a_token_without_a_key_id_finds_its_key() {
    let plan = Plan::new(&[BEARER]);
    let second = plan.idp.add(Algorithm::Es256, "key-2");
    let world = plan.start();
    let token = Token::new(&second).header("kid", serde_json::Value::Null).sign();
    world.plain().get("/bearer/x").bearer(&token).send().assert_passed();
    let mislabelled = Token::new(&second).header("kid", "key-1").sign();
    world.plain().get("/bearer/x").bearer(&mislabelled).send().assert_refused(Reason::TokenSignatureInvalid);
}

/// JKS-01: over TLS the server has to be who it says.
#[test]
fn keys_over_https_need_a_certificate_that_is_trusted() {
    let trusted = Plan::new(&[BEARER]).with(|plan| {
        plan.idp = Idp::start_tls(&plan.servers.server(&["localhost"]));
        plan.keys =
            format!("{{ jwks_url: \"{}\", trust: {{ file: tls/servers-ca.pem }} }}", plan.idp.jwks_url());
    });
    let world = trusted.start();
    world.plain().get("/bearer/x").bearer(&world.idp().token().sign()).send().assert_passed();
    for wrong in ["tls/open-banking-ca.pem", "tls/servers-ca.pem"] {
        let world = Plan::new(&[BEARER]).with(|plan| {
            let names: &[&str] = if wrong.contains("servers") { &["other.example"] } else { &["localhost"] };
            plan.idp = Idp::start_tls(&plan.servers.server(names));
            plan.keys = format!("{{ jwks_url: \"{}\", trust: {{ file: {wrong} }} }}", plan.idp.jwks_url());
        });
        unavailable(&world.start());
    }
}

/// Keys in files: PEM and HMAC secrets.
#[test]
fn keys_may_be_given_in_files() {
    for algorithm in
        [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa]
    {
        let key = Idp::unpublished(algorithm, "file");
        let list: &'static str = Box::leak(format!("[{algorithm}]").into_boxed_str());
        let world = Plan::new(&[BEARER]).with(|plan| {
            plan.directory.write("keys/idp.pub", key.key.public_pem().expect("a public key"));
            plan.keys = "{ pem: [keys/idp.pub] }".to_owned();
            plan.algorithms = list;
        });
        let world = world.start();
        world.plain().get("/bearer/x").bearer(&Token::new(&key).sign()).send().assert_passed();
        let stranger = Idp::unpublished(algorithm, "file");
        let answer = world.plain().get("/bearer/x").bearer(&Token::new(&stranger).sign()).send();
        answer.assert_refused(Reason::TokenSignatureInvalid);
        assert_eq!(world.idp().hits(), 0);
    }
}

#[test]
fn a_secret_may_sign_where_an_issuer_says_so() {
    let secret = "0123456789abcdef0123456789abcdef";
    let plan = Plan::new(&[BEARER]).with(|plan| {
        plan.directory.write("secrets/hmac", format!("{secret}\n"));
        plan.keys = "{ secret: { file: secrets/hmac } }".to_owned();
        plan.algorithms = "[HS256]";
    });
    let world = plan.start();
    let secret = portcullis_core::Secret::new(secret.as_bytes().to_vec());
    let key = portcullis_jose::SigningKey::from_secret(Algorithm::Hs256, &secret).expect("a secret");
    let key = std::sync::Arc::new(crate::rig::idp::Key { kid: "x".to_owned(), key });
    world.plain().get("/bearer/x").bearer(&Token::new(&key).sign()).send().assert_passed();
}

/// JKS-01: plain http only where the policy says so, and only to this machine.
#[test]
fn keys_over_plain_http_do_not_pass_check() {
    for keys in [
        "{ jwks_url: \"http://127.0.0.1:1/jwks\" }",
        "{ jwks_url: \"http://idp.bank.example/jwks\", http_on_loopback: true }",
        "{ jwks_url: \"ftp://127.0.0.1/jwks\", http_on_loopback: true }",
    ] {
        let plan = Plan::new(&[BEARER]).with(|plan| plan.keys = keys.to_owned());
        plan.write();
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        assert_eq!(output.status.code(), Some(1), "{keys}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
