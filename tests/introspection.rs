//! Tokens only their provider understands: asked about once, remembered for a while, held to what the provider said
//! on every request; and where it says nothing, 503.

use std::time::{Duration, Instant};

use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::idp::{AUDIENCE, ISSUER};
use crate::rig::provider::{Manner, Provider, Signer};
use crate::rig::token::part;
use crate::rig::world::{Plan, World};

/// A token as WSO2 gives them out (WS-09).
const TOKEN: &str = "NtBQkXoKElu0H1a1fQ0DWfo6IX4a";

const OPAQUE: &str = "\
api: opaque
match: { host: api.bank.example, path: /opaque/* }
upstream: accounts
authenticate: { token: { issuer: legacy } }
identity: { name: [claims.client_id, claims.username] }
allow:
  - { name: read accounts, paths: [/accounts], scope: accounts }
  - { name: open, paths: [/open] }
  - { name: read more, paths: [/more], scope: more }
";

const BOUND: &str = "\
api: bound
match: { host: api.bank.example, path: /bound/* }
upstream: accounts
authenticate: { token: { issuer: legacy, bound_to: certificate } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// A gateway before a provider over plain HTTP, with more settings of the entry and of `introspect`. Whoever the tokens are
/// for, unless the entry says it.
fn plan(provider: &Provider, introspect: &str, entry: &str) -> Plan {
    Plan::new(&[OPAQUE, BOUND]).with(|plan| {
        plan.directory.write("secrets/idp", "s3cret value+");
        let any = if entry.contains("audience:") { "" } else { "    audience: any\n" };
        plan.issuers = format!(
            "  legacy:
{entry}{any}    introspect:
      url: {}/introspect
      http_on_loopback: true
      timeout: 5s
      client_id: \"gw:1\"
{introspect}",
            provider.origin()
        );
    })
}

const BY_SECRET: &str = "      client_secret: { file: secrets/idp }\n";

fn world(provider: &Provider) -> World {
    plan(provider, BY_SECRET, "").start()
}

#[track_caller]
fn refused(world: &World, token: &str, reason: Reason) {
    let before = world.upstream().hits();
    world.plain().get("/opaque/open").bearer(token).send().assert_refused(reason);
    assert_eq!(world.upstream().hits(), before, "something reached the upstream");
}

/// INT-01, WS-09: asked by POST, the token in the content, us by Basic and nothing else.
#[test]
fn an_active_token_is_let_in_and_asked_about_once() {
    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    let world = world(&provider);
    for _ in 0..3 {
        world.plain().get("/opaque/accounts").bearer(TOKEN).send().assert_passed();
    }
    let questions = provider.questions();
    assert_eq!(questions.len(), 1, "{questions:?}");
    let question = &questions[0];
    assert_eq!(question.line, "POST /introspect");
    assert_eq!(question.value("token"), Some(TOKEN));
    assert_eq!(question.value("token_type_hint"), Some("access_token"));
    assert_eq!(question.form.len(), 2, "{question:?}");
    assert_eq!(question.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(question.headers["accept"], "application/json");
    // RFC 6749 section 2.3.1: `gw%3A1:s3cret+value%2B`.
    assert_eq!(question.headers["authorization"], "Basic Z3clM0ExOnMzY3JldCt2YWx1ZSUyQg==");
    // The credential goes no further, and scopes count as for a signed token.
    assert!(world.upstream().last().values("authorization").is_empty());
    world.plain().get("/opaque/more").bearer(TOKEN).send().assert_refused(Reason::ScopeInsufficient);
    assert!(!world.gateway.log().contains(TOKEN) && !world.gateway.output().contains(TOKEN));
    assert!(!world.gateway.log().contains("s3cret"));
}

/// INT-03: nothing of what is said is ignored; each row is one thing that is wrong with an active answer.
#[test]
fn an_active_answer_is_held_to_what_it_says() {
    let provider = Provider::start();
    let entry = format!("    issuer: {ISSUER}\n    audience: {AUDIENCE}\n    required: [acr]\n");
    let world = plan(&provider, BY_SECRET, &entry).start();
    let good = || {
        let mut said = Provider::active();
        said["iss"] = ISSUER.into();
        said["aud"] = json!(["other", AUDIENCE]);
        said["acr"] = "1".into();
        said
    };
    provider.knows("good", good());
    world.plain().get("/opaque/open").bearer("good").send().assert_passed();
    let now = unix_now();
    let rows: &[(&str, Value, Reason)] = &[
        ("exp", json!(now - 1), Reason::TokenExpired),
        ("exp", json!(now), Reason::TokenExpired),
        ("exp", json!("4102444800"), Reason::TokenClaimInvalid),
        ("exp", json!(true), Reason::TokenClaimInvalid),
        ("exp", json!(-1), Reason::TokenClaimInvalid),
        ("nbf", json!(now + 60), Reason::TokenNotYetValid),
        ("iat", json!(now + 60), Reason::TokenNotYetValid),
        ("iss", json!("https://idp.bank.example/"), Reason::TokenIssuerRefused),
        ("iss", json!(7), Reason::TokenClaimInvalid),
        ("aud", json!("https://other.example"), Reason::TokenAudienceRefused),
        ("aud", json!([]), Reason::TokenAudienceRefused),
        ("aud", json!(""), Reason::TokenAudienceRefused),
        ("aud", Value::Null, Reason::TokenClaimInvalid),
        ("aud", json!({ "is": AUDIENCE }), Reason::TokenClaimInvalid),
        ("acr", Value::Null, Reason::TokenClaimInvalid),
        ("sub", json!(""), Reason::TokenClaimInvalid),
        ("sub", json!("a\nb"), Reason::TokenClaimInvalid),
        ("sub", json!(["user-1"]), Reason::TokenClaimInvalid),
        ("sub", json!("x".repeat(256)), Reason::TokenClaimInvalid),
        ("client_id", json!(7), Reason::TokenClaimInvalid),
        ("token_type", Value::Null, Reason::TokenTypeRefused),
        ("token_type", json!("refresh_token"), Reason::TokenTypeRefused),
        ("token_type", json!("N_A"), Reason::TokenTypeRefused),
        ("token_type", json!(["Bearer"]), Reason::TokenTypeRefused),
        ("token_use", json!("refresh_token"), Reason::TokenTypeRefused),
        ("token_type", json!("DPoP"), Reason::TokenNotBound),
        ("cnf", json!({ "jwk": {} }), Reason::TokenBindingUnsupported),
        ("cnf", json!({}), Reason::TokenBindingUnsupported),
        ("cnf", json!("{}"), Reason::TokenClaimInvalid),
        ("cnf", json!({ "x5t#S256": "short" }), Reason::TokenClaimInvalid),
        ("cnf", json!({ "x5t#S256": world.tpp_a.thumbprint() }), Reason::CertificateMissing),
    ];
    for (number, (name, value, reason)) in rows.iter().enumerate() {
        let token = format!("row-{number}");
        let mut said = good();
        said[*name] = value.clone();
        if value.is_null() {
            said.as_object_mut().expect("an object").remove(*name);
        }
        provider.knows(&token, said);
        println!("{name}: {value}");
        refused(&world, &token, *reason);
        // Once more, from memory.
        refused(&world, &token, *reason);
    }
    assert_eq!(provider.questions().len(), rows.len() + 1, "each token is asked about once");
}

/// INT-02: what says nothing is 503, never a 401 and never let through; nothing is remembered of it.
#[test]
fn answers_that_say_nothing_are_503() {
    let json_kind = "application/json";
    let body = |text: &str| Manner::Body(json_kind, text.as_bytes().to_vec());
    let huge = || {
        let mut body = br#"{"active":true,"sub":"a","token_type":"Bearer","x":""#.to_vec();
        body.resize(80 * 1024, b'a');
        body.extend_from_slice(b"\"}");
        Manner::Body("application/json", body)
    };
    for manner in [
        body(r#"{"active":"true"}"#),
        body(r#"{"active":1}"#),
        body(r#"{"active":null}"#),
        body(r#"{"active":[true]}"#),
        body(r#"{"sub":"a"}"#),
        body(r#"{"active":true,"active":true}"#),
        body(r#"{"active":false,"active":true}"#),
        body(r#"{"active":true,"sub":"a","sub":"b"}"#),
        body(r#"[{"active":true}]"#),
        body(r#"{"active":true"#),
        body("true"),
        body(""),
        Manner::Body("text/html", b"<html>502</html>".to_vec()),
        Manner::Body("text/html", Provider::active().to_string().into_bytes()),
        Manner::Body("", Provider::active().to_string().into_bytes()),
        huge(),
        Manner::Status(201),
        Manner::Status(204),
        Manner::Status(400),
        Manner::Status(401),
        Manner::Status(403),
        Manner::Status(404),
        Manner::Status(500),
        Manner::Status(503),
        Manner::Redirect("/introspect".to_owned()),
        Manner::Down,
    ] {
        let what = format!("{manner:?}");
        println!("{}", &what[..what.len().min(80)]);
        let provider = Provider::start();
        provider.knows(TOKEN, Provider::active());
        let world = world(&provider);
        provider.behave(manner);
        let answer = world.plain().get("/opaque/open").bearer(TOKEN).send();
        answer.assert_refused(Reason::IntrospectionUnavailable);
        assert!(answer.header("retry-after").is_some());
        assert!(answer.challenges().is_empty(), "{:?}", answer.challenges());
        world.assert_upstream_untouched();
        provider.behave(Manner::Good);
        eventually("it is asked again", || {
            (world.plain().get("/opaque/open").bearer(TOKEN).send().status == 200).then_some(())
        });
    }
}

/// Every way a caller can write the credential wrongly: the provider is asked about nothing that is no token.
#[test]
fn malformed_credentials_are_refused_before_anybody_is_asked() {
    let provider = Provider::start();
    let world = world(&provider);
    let long = format!("Bearer {}", "a".repeat(4 * 1024 + 1));
    for (fields, reason) in [
        (&[][..], Reason::CredentialsMissing),
        (&["Basic YTpi"], Reason::CredentialsMissing),
        (&["Bearer"], Reason::CredentialsMalformed),
        (&["Bearer "], Reason::CredentialsMalformed),
        (&["Bearer a b"], Reason::CredentialsMalformed),
        (&["Bearer a,b"], Reason::CredentialsMalformed),
        (&["Bearer \"a\""], Reason::CredentialsMalformed),
        (&["Bearer a=b"], Reason::CredentialsMalformed),
        (&["Bearer %61"], Reason::CredentialsMalformed),
        (&["Basic YTpi, Bearer a"], Reason::CredentialsMalformed),
        (&["Bearer a", "Bearer a"], Reason::CredentialsAmbiguous),
        (&["Basic YTpi", "Bearer a"], Reason::CredentialsAmbiguous),
        (&[&*long], Reason::TokenMalformed),
    ] {
        println!("{:?}", fields.iter().map(|field| &field[..field.len().min(40)]).collect::<Vec<_>>());
        let call = world.plain().get("/opaque/open");
        let call = fields.iter().fold(call, |call, field| call.header("authorization", field));
        call.send().assert_refused(reason);
    }
    let query = world.plain().get(&format!("/opaque/open?access_token={TOKEN}")).bearer(TOKEN);
    query.send().assert_refused(Reason::CredentialsMalformed);
    assert!(provider.questions().is_empty(), "{:?}", provider.questions());
    world.assert_upstream_untouched();
}

/// INT-04: a revoked token is noticed when what was said of it is too old, and an unknown one that becomes known soon.
#[test]
fn answers_are_remembered_for_their_time_and_no_longer() {
    let provider = Provider::start();
    let settings = format!("{BY_SECRET}      cache: 1s\n      negative_cache: 1s\n");
    let world = plan(&provider, &settings, "").start();
    provider.knows(TOKEN, Provider::active());
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    provider.knows(TOKEN, json!({ "active": false }));
    std::thread::sleep(Duration::from_millis(1_100));
    refused(&world, TOKEN, Reason::TokenInactive);
    let asked = provider.questions().len();
    refused(&world, TOKEN, Reason::TokenInactive);
    assert_eq!(provider.questions().len(), asked, "what is unknown is remembered as well, for a moment");
    provider.knows(TOKEN, Provider::active());
    std::thread::sleep(Duration::from_millis(1_100));
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    // The token's own end comes before the memory's.
    let mut said = Provider::active();
    said["exp"] = (unix_now() + 2).into();
    provider.knows("short", said);
    world.plain().get("/opaque/open").bearer("short").send().assert_passed();
    eventually("it expires", || {
        (world.plain().get("/opaque/open").bearer("short").send().status == 401).then_some(())
    });
}

/// INT-04: nothing is remembered where nothing may be.
#[test]
fn without_a_cache_every_request_is_asked_about() {
    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    let settings = format!("{BY_SECRET}      cache: 0s\n      negative_cache: 0s\n");
    let world = plan(&provider, &settings, "").start();
    for asked in 1..4 {
        world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
        refused(&world, "unknown", Reason::TokenInactive);
        assert_eq!(provider.questions().len(), 2 * asked);
    }
    assert_eq!(provider.connections(), 1, "all of them over one connection");
}

/// INT-05: many requests with one token are one question.
#[test]
fn requests_that_come_together_share_one_question() {
    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    provider.behave(Manner::Slow(Duration::from_millis(500)));
    let world = world(&provider);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed().status);
        }
    });
    assert_eq!(provider.questions().len(), 1);
    let joined = ["issuer=\"legacy\"", "event=\"joined\""];
    assert_eq!(world.gateway.metric_sum("portcullis_introspection_cache_events_total", &joined), 19.0);
}

/// R9: a slow provider costs its own requests their time, and nobody else.
#[test]
fn a_slow_provider_delays_nobody_else_and_is_503_in_time() {
    let provider = Provider::start();
    provider.behave(Manner::Slow(Duration::from_secs(60)));
    let public = crate::rig::world::PUBLIC;
    let plan = plan(&provider, BY_SECRET, "").with(|plan| {
        plan.directory.write("apis/public.yaml", public);
        plan.issuers = plan.issuers.replace("timeout: 5s", "timeout: 500ms");
        plan.settings = "workers: 1\n".to_owned();
    });
    let world = plan.start();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let begun = Instant::now();
            world
                .plain()
                .get("/opaque/open")
                .bearer(TOKEN)
                .send()
                .assert_refused(Reason::IntrospectionUnavailable);
            begun.elapsed()
        });
        std::thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        world.plain().get("/public/x").send().assert_passed();
        let quick = begun.elapsed();
        let slow = slow.join().expect("an answer");
        assert!(slow >= Duration::from_millis(450), "{slow:?}");
        assert!(quick < slow, "{quick:?} of {slow:?}");
    });
    assert_eq!(world.upstream().hits(), 1);
}

/// INT-05: a provider that fails is left in peace, is found again, and what is remembered goes on meanwhile.
#[test]
fn an_outage_is_not_hammered_and_ends_by_itself() {
    let provider = Provider::start();
    provider.knows("known", Provider::active());
    provider.knows("other", Provider::active());
    let world = world(&provider);
    world.plain().get("/opaque/open").bearer("known").send().assert_passed();
    provider.behave(Manner::Status(503));
    for number in 0..40 {
        refused(&world, &format!("t-{number}"), Reason::IntrospectionUnavailable);
    }
    let asked = provider.questions().len() - 1;
    assert!((5..=8).contains(&asked), "40 requests were {asked} questions");
    world.plain().get("/opaque/open").bearer("known").send().assert_passed();
    let legacy = ["issuer=\"legacy\""];
    assert_eq!(world.gateway.metric_sum("portcullis_introspection_shut", &legacy), 1.0);
    assert!(world.gateway.metric_sum("portcullis_introspection_turned_away_total", &legacy) >= 30.0);
    // It is seen, and takes the gateway out of no rotation.
    let ready = world.gateway.admin("/readyz");
    let said = ready.text();
    assert!(said.contains("introspection legacy") && said.contains("the provider answered 503"), "{said}");
    provider.behave(Manner::Good);
    eventually("it is asked again", || {
        (world.plain().get("/opaque/open").bearer("other").send().status == 200).then_some(())
    });
    assert_eq!(world.gateway.metric_sum("portcullis_introspection_shut", &legacy), 0.0);
}

/// SECURITY: what strangers can bring about with tokens of their own making shuts nobody off, and pushes nothing out.
#[test]
fn garbage_neither_shuts_the_provider_off_nor_pushes_good_answers_out() {
    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    let world = world(&provider);
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    provider.behave(Manner::Status(400));
    for number in 0..20 {
        refused(&world, &format!("odd-{number}"), Reason::IntrospectionUnavailable);
    }
    provider.behave(Manner::Good);
    for number in 0..200 {
        refused(&world, &format!("garbage-{number}-{}", "x".repeat(4_000)), Reason::TokenInactive);
    }
    let asked = provider.questions().len();
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    assert_eq!(provider.questions().len(), asked, "it was still remembered");
    let held = world.gateway.metric_sum("portcullis_introspection_cached_bytes", &["issuer=\"legacy\""]);
    assert!(held < 2e6, "{held}");
}

/// CNF-03 to CNF-06, WS-10: bound tokens are held to the certificate on every request, also from memory, whatever the
/// API asks for.
#[test]
fn bound_tokens_are_for_their_certificate_alone() {
    let provider = Provider::start();
    let world = world(&provider);
    let mut said = Provider::active();
    said["cnf"] = json!({ "x5t#S256": world.tpp_a.thumbprint() });
    provider.knows("bound", said.clone());
    said["cnf"]["jkt"] = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into();
    provider.knows("both", said);
    provider.knows("plain", Provider::active());
    let other = std::sync::Arc::new(world.plan.third_parties.client("tpp-b"));
    for path in ["/opaque/open", "/bound/x"] {
        for _ in 0..2 {
            world.client().get(path).bearer("bound").send().assert_passed();
            let before = world.upstream().hits();
            let stranger = world.stranger().certificate(&other);
            stranger.get(path).bearer("bound").send().assert_refused(Reason::CertificateMismatch);
            world.stranger().get(path).bearer("bound").send().assert_refused(Reason::CertificateMissing);
            world.plain().get(path).bearer("bound").send().assert_refused(Reason::CertificateMissing);
            world.client().get(path).bearer("both").send().assert_refused(Reason::TokenBindingUnsupported);
            assert_eq!(world.upstream().hits(), before);
        }
    }
    world.client().get("/bound/x").bearer("plain").send().assert_refused(Reason::TokenNotBound);
    world.client().get("/opaque/open").bearer("plain").send().assert_passed();
}

/// A token a client has for itself names the client, and a user who is called the same is somebody else (JWT-28).
#[test]
fn callers_are_named_by_subject_or_client() {
    let provider = Provider::start();
    let limited = OPAQUE.replace(
        "identity: { name: [claims.client_id, claims.username] }\n",
        "limits:\n  - { rate: 1 per hour }\n",
    );
    let plan = plan(&provider, BY_SECRET, "").with(|plan| {
        plan.directory.write("apis/api-0.yaml", limited);
    });
    let world = plan.start();
    let now = unix_now();
    let said = |subject: &str, value: &str| {
        let mut said = json!({ "active": true, "token_type": "Bearer", "exp": now + 300 });
        said[subject] = value.into();
        said
    };
    provider.knows("user", said("sub", "alice"));
    provider.knows("user-again", said("sub", "alice"));
    provider.knows("client", said("client_id", "alice"));
    provider.knows("nobody", said("username", "alice"));
    world.plain().get("/opaque/open").bearer("user").send().assert_passed();
    world.plain().get("/opaque/open").bearer("client").send().assert_passed();
    world.plain().get("/opaque/open").bearer("user-again").send().assert_refused(Reason::RateLimited);
    refused(&world, "nobody", Reason::TokenClaimInvalid);
}

/// INT-07: an answer that is signed, and every way it can be wrong.
#[test]
fn signed_answers_are_verified() {
    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    let plan = Plan::new(&[OPAQUE, BOUND]);
    let jwks = plan.idp.jwks_url();
    let plan = plan.with(|plan| {
        plan.directory.write("secrets/idp", "secret");
        plan.issuers = format!(
            "  legacy:
    issuer: {ISSUER}
    audience: {AUDIENCE}
    algorithms: [ES256]
    keys: {{ jwks_url: \"{jwks}\", http_on_loopback: true }}
    introspect:
      url: {}/introspect
      http_on_loopback: true
      timeout: 5s
      client_id: gw
      client_secret: {{ file: secrets/idp }}
      answers: signed
      negative_cache: 0s
      cache: 0s
",
            provider.origin()
        );
    });
    let world = plan.start();
    let mut said = Provider::active();
    said["aud"] = AUDIENCE.into();
    provider.knows(TOKEN, said.clone());
    // Each about a token of its own: nobody asks at once again about one whose question has failed.
    let mut number = 0;
    let mut unavailable = || {
        number += 1;
        let (token, asked) = (format!("signed-{number}"), provider.questions().len());
        provider.knows(&token, said.clone());
        refused(&world, &token, Reason::IntrospectionUnavailable);
        assert_eq!(provider.questions().len(), asked + 1);
    };
    let good = Signer::new(&world.idp().key(), ISSUER, "gw");
    provider.sign(Some(good.clone()));
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    assert_eq!(provider.questions()[0].headers["accept"], "application/token-introspection+jwt");
    refused(&world, "unknown", Reason::TokenInactive);

    let stranger = crate::rig::idp::Idp::unpublished(portcullis_jose::Algorithm::Es256, "key-1");
    let with = |name: &str, value: Value| {
        let mut signer = good.clone();
        signer.claims[name] = value;
        signer
    };
    let now = unix_now();
    for (what, signer) in [
        ("wrong key", Signer { key: stranger, ..good.clone() }),
        ("another kind", Signer { typ: "JWT", ..good.clone() }),
        ("an access token's kind", Signer { typ: "at+jwt", ..good.clone() }),
        ("another issuer", with("iss", json!("https://other.example"))),
        ("for somebody else", with("aud", json!("gw2"))),
        ("for nobody", with("aud", json!([]))),
        ("old", with("iat", json!(now - 90))),
        ("of a time to come", with("iat", json!(now + 90))),
        ("over", with("exp", json!(now - 1))),
        ("not an object", with("token_introspection", json!("{\"active\":true}"))),
        ("not a boolean", with("token_introspection", json!({ "active": "true" }))),
        ("only beside it", with("token_introspection", json!({}))),
    ] {
        println!("{what}");
        provider.sign(Some(signer));
        unavailable();
    }
    provider.sign(None);
    unavailable();
    // Signed as it should be, and said to be something else.
    let signed = good.sign(&Provider::active()).into_bytes();
    provider.behave(Manner::Body("application/json", signed.clone()));
    unavailable();
    provider.behave(Manner::Body("application/jwt", signed));
    unavailable();
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none","typ":"token-introspection+jwt"}"#), part("{}"));
    provider.behave(Manner::Body("application/token-introspection+jwt", unsigned.into_bytes()));
    unavailable();
    provider.behave(Manner::Good);
    provider.sign(Some(good));
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
}

/// Our own credentials, in each of the ways there are.
#[test]
fn we_say_who_we_are_in_the_way_that_is_configured() {
    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    let post = format!("{BY_SECRET}      auth: client_secret_post\n");
    let world = plan(&provider, &post, "").start();
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    let question = provider.questions().remove(0);
    assert_eq!(
        (question.value("client_id"), question.value("client_secret")),
        (Some("gw:1"), Some("s3cret value+"))
    );
    assert!(!question.headers.contains_key("authorization"));

    let provider = Provider::start();
    provider.knows(TOKEN, Provider::active());
    let by_key = "      auth: private_key_jwt
      key: { file: secrets/gw.key }
      kid: gw-1
      algorithm: ES256
      cache: 0s
";
    let plan = plan(&provider, by_key, &format!("    issuer: {ISSUER}\n"));
    let own = plan.servers.client("gw");
    plan.directory.write("secrets/gw.key", &own.key_pem);
    let world = plan.start();
    for _ in 0..2 {
        world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    }
    let questions = provider.questions();
    assert_eq!(questions.len(), 2);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let mut seen = Vec::new();
    for question in &questions {
        assert!(!question.headers.contains_key("authorization"));
        assert_eq!(question.value("client_id"), Some("gw:1"));
        assert_eq!(question.value("client_secret"), None);
        assert_eq!(question.value("client_assertion_type"), Some(kind));
        let assertion = question.value("client_assertion").expect("an assertion");
        let keys = portcullis_jose::VerifyingKey::from_pem(own.pem.as_bytes()).expect("a key");
        let jws = portcullis_jose::CompactJws::parse(assertion, portcullis_jose::JwsLimits::default());
        let jws = jws.expect("a signed assertion");
        assert_eq!(jws.header().key_id.as_deref(), Some("gw-1"));
        let claims = jws.verify(&keys[0]).expect("our signature");
        let claims = claims.claims(portcullis_core::json::Limits::default()).expect("claims");
        let text =
            |name: &str| claims.get(name).and_then(|value| value.as_text()).map(|text| text.to_string());
        assert_eq!(text("iss").as_deref(), Some("gw:1"));
        assert_eq!(text("sub").as_deref(), Some("gw:1"));
        assert_eq!(text("aud").as_deref(), Some(ISSUER));
        seen.push(text("jti").expect("a jti"));
    }
    assert_ne!(seen[0], seen[1], "an assertion is used once");

    // A connection that was kept and ends with a question on it: asked again, and not with the assertion that was heard.
    provider.behave(Manner::DownOnce);
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    let asked = provider.questions().split_off(2);
    assert_eq!(asked.len(), 2);
    let assertions: Vec<_> = asked.iter().map(|question| question.value("client_assertion")).collect();
    assert!(assertions.iter().all(Option::is_some));
    assert_ne!(assertions[0], assertions[1]);
}

/// RFC 8705 section 2: by our certificate, over TLS that is verified.
#[test]
fn we_show_our_certificate_where_that_is_the_way() {
    let plan = Plan::new(&[OPAQUE, BOUND]);
    let ours = plan.third_parties.client("gateway");
    let leaf = plan.servers.server(&["localhost"]);
    let provider = Provider::start_tls(&leaf, Some(&plan.third_parties));
    provider.knows(TOKEN, Provider::active());
    let entry = |certificate: &str| {
        format!(
            "  legacy:
    audience: any
    introspect:
      url: {}/introspect
      trust: {{ file: tls/servers-ca.pem }}
      timeout: 5s
      client_id: gw
{certificate}",
            provider.origin()
        )
    };
    let by_tls = entry("      auth: tls_client_auth\n      client_certificate: own\n");
    let plan = plan.with(|plan| {
        plan.directory.write("tls/own.pem", &ours.pem).write("tls/own.key", &ours.key_pem);
        plan.directory.write("secrets/idp", "secret");
        plan.issuers = by_tls;
        plan.settings =
            "certificates: { own: { certificate: { file: tls/own.pem }, key: { file: tls/own.key } } }\n"
                .into();
    });
    let world = plan.start();
    world.plain().get("/opaque/open").bearer(TOKEN).send().assert_passed();
    let question = provider.questions().remove(0);
    assert!(question.certificate.is_some());
    assert_eq!(question.value("client_id"), Some("gw"));
    assert!(!question.headers.contains_key("authorization") && question.value("client_secret").is_none());

    // Without it there is no connection, and a provider that is not vouched for is not asked.
    for (issuers, replace) in [
        (entry("      client_secret: { file: secrets/idp }\n"), ("", "")),
        (
            entry("      auth: tls_client_auth\n      client_certificate: own\n"),
            ("tls/servers-ca.pem", "tls/open-banking-ca.pem"),
        ),
    ] {
        let plan = Plan::new(&[OPAQUE, BOUND]).with(|other| {
            other.directory.write("tls/servers-ca.pem", world.plan.servers.pem());
            other.directory.write("tls/own.pem", &ours.pem).write("tls/own.key", &ours.key_pem);
            other.directory.write("secrets/idp", "secret");
            other.issuers =
                if replace.0.is_empty() { issuers } else { issuers.replace(replace.0, replace.1) };
            other.settings = world.plan.settings.clone();
        });
        let other = plan.start();
        refused(&other, TOKEN, Reason::IntrospectionUnavailable);
    }
    assert_eq!(provider.questions().len(), 1);
}

/// Signed and opaque tokens in one place, several providers: each is shown the tokens that can be its own.
#[test]
fn signed_and_opaque_tokens_of_several_providers_share_a_place() {
    let chain = "\
api: opaque
match: { host: api.bank.example, path: /opaque/* }
upstream: accounts
authenticate:
  any_of:
    - jwt: { issuer: bank-idp }
    - token: { issuer: legacy }
    - token: { issuer: named }
    - token: { issuer: begun }
forward: { set: { x-caller: \"{identity.name}\" } }
allow:
  - { name: open, paths: [/open] }
";
    let (legacy, named, begun) = (Provider::start(), Provider::start(), Provider::start());
    let by_prefix = format!("{BY_SECRET}      prefix: NtBQ\n");
    let plan = plan(&legacy, &by_prefix, "    issuer: https://legacy.example\n").with(|plan| {
        plan.directory.write("apis/api-0.yaml", chain);
        plan.issuers.push_str(&further("named", &named, "issuer: https://named.example", ""));
        plan.issuers.push_str(&further("begun", &begun, "", "prefix: wso2_"));
    });
    let world = plan.start();
    let call = |token: &str| world.plain().get("/opaque/open").bearer(token).send();
    let caller = || world.upstream().last().value("x-caller").to_owned();
    // A signed token of the issuer is verified, and nobody is asked.
    call(&world.idp().token().sign()).assert_passed();
    assert_eq!(caller(), "bank-idp:tpp-a");
    // An opaque one goes to the provider whose tokens begin so.
    legacy.knows(TOKEN, Provider::active());
    call(TOKEN).assert_passed();
    assert_eq!(caller(), "legacy:user-1");
    // INT-06: a signed token of the provider's own is asked about all the same.
    let own = world.idp().token().claim("iss", "https://legacy.example").sign();
    legacy.knows(&own, Provider::active());
    call(&own).assert_passed();
    // One that begins with the prefix goes to the other, and never to the first.
    begun.knows("wso2_abc", Provider::active());
    call("wso2_abc").assert_passed();
    assert_eq!(caller(), "begun:user-1");
    // What begins like nobody's is nobody's, and a provider known by its issuer alone is asked about no other.
    named.knows("Nt", Provider::active());
    call("Nt").assert_refused(Reason::TokenMalformed);
    let (asked_legacy, asked_begun) = (legacy.questions().len(), begun.questions().len());
    assert_eq!((asked_legacy, asked_begun, named.questions().len()), (2, 1, 0));
    // A signed token of somebody else is shown to nobody.
    let before = world.upstream().hits();
    call(&world.idp().token().claim("iss", "https://evil.example").sign())
        .assert_refused(Reason::TokenIssuerRefused);
    // A bad token of the issuer is not saved by a provider that would say yes.
    let signed = world.idp().token().claim("sub", "somebody else").sign();
    let (content, signature) = signed.rsplit_once('.').expect("a signed token");
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{content}.{other}{}", &signature[1..]);
    legacy.knows(&forged, Provider::active());
    call(&forged).assert_refused(Reason::TokenSignatureInvalid);
    assert_eq!(world.upstream().hits(), before);
    assert_eq!((legacy.questions().len(), begun.questions().len()), (asked_legacy, asked_begun));
}

/// One more entry that is asked, with more settings of the entry and of `introspect`.
fn further(name: &str, provider: &Provider, entry: &str, introspect: &str) -> String {
    let (entry, introspect) = (entry.to_owned() + "\n    ", introspect.to_owned() + "\n      ");
    format!(
        "  {name}:\n    audience: any\n    {entry}introspect:\n      {introspect}url: {}/introspect
      http_on_loopback: true\n      timeout: 5s\n      client_id: gw\n      client_secret: {{ file: secrets/idp }}\n",
        provider.origin()
    )
}

/// INT-06: several providers in one `token`. Each is shown what is its own, by the issuer a signed token names and by
/// what any other begins with, and never what is another one's.
#[test]
fn each_provider_is_shown_its_own_tokens_and_no_other() {
    let (first, second) = (Provider::start(), Provider::start());
    let by_prefix = format!("{BY_SECRET}      prefix: first_\n");
    let plan = plan(&first, &by_prefix, "    issuer: https://first.example\n").with(|plan| {
        plan.directory.write("apis/api-0.yaml", OPAQUE.replace("issuer: legacy", "issuer: [legacy, second]"));
        plan.issuers.push_str(&further(
            "second",
            &second,
            "issuer: https://second.example",
            "prefix: second_",
        ));
    });
    let world = plan.start();
    let signed = |iss: &str| world.idp().token().claim("iss", iss).sign();
    let header = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(r#"{"iss":"https://second.example"}"#));
    let (of_first, of_second) = (signed("https://first.example"), signed("https://second.example"));
    let both = [&first, &second];
    for (own, tokens) in [(0, ["first_1", &of_first]), (1, ["second_1", &of_second])] {
        for token in tokens {
            both.iter().for_each(|provider| provider.knows(token, Provider::active()));
            let before = both.map(|provider| provider.questions().len());
            for _ in 0..2 {
                world.plain().get("/opaque/open").bearer(token).send().assert_passed();
            }
            let asked = both.map(|provider| provider.questions().len());
            assert_eq!((asked[own], asked[1 - own]), (before[own] + 1, before[1 - own]), "{token}");
        }
    }
    let before = both.map(|provider| provider.questions().len());
    for (token, reason) in [
        ("third_1", Reason::TokenInactive),
        ("first", Reason::TokenInactive),
        ("FIRST_1", Reason::TokenInactive),
        (&*signed("https://third.example"), Reason::TokenIssuerRefused),
        (&*signed("https://first.example/"), Reason::TokenIssuerRefused),
        (&*world.idp().token().claim("iss", 7).sign(), Reason::TokenIssuerRefused),
        (&*world.idp().token().without("iss").sign(), Reason::TokenInactive),
    ] {
        both.iter().for_each(|provider| provider.knows(token, Provider::active()));
        refused(&world, token, reason);
    }
    assert_eq!(both.map(|provider| provider.questions().len()), before, "nobody was shown any of these");
    // One nobody could verify, for nobody knows its algorithm, still names whose it is.
    refused(&world, &header, Reason::TokenInactive);
    let asked = both.map(|provider| provider.questions().len());
    assert_eq!(asked, [before[0], before[1] + 1]);
    // The only provider of an API is not shown what names another one either.
    let alone = OPAQUE.replace("path: /opaque/*", "path: /alone/*").replace("api: opaque", "api: alone");
    let plan = self::plan(&first, BY_SECRET, "    issuer: https://first.example\n").with(|plan| {
        plan.directory.write("apis/alone.yaml", alone);
    });
    let world = plan.start();
    world.plain().get("/alone/open").bearer(&of_second).send().assert_refused(Reason::TokenIssuerRefused);
    world.plain().get("/alone/open").bearer(&of_first).send().assert_passed();
    assert_eq!(first.questions().len(), asked[0] + 1);
}

/// INT-06: a token that is signed can be verified here and asked about as well, so that a revoked one opens nothing.
#[test]
fn a_signed_token_can_be_verified_and_asked_about() {
    let provider = Provider::start();
    let chain = "{ all_of: [jwt: { issuer: bank-idp }, token: { issuer: legacy }], identity_from: jwt }";
    let entry = format!("    issuer: {ISSUER}\n");
    let settings = format!("{BY_SECRET}      cache: 0s\n      negative_cache: 0s\n");
    let plan = plan(&provider, &settings, &entry).with(|plan| {
        let api = OPAQUE.replace("{ token: { issuer: legacy } }", chain);
        let api = api.replace("identity: { name: [claims.client_id, claims.username] }\n", "");
        plan.directory.write("apis/api-0.yaml", api);
    });
    let world = plan.start();
    let token = world.idp().token().sign();
    // Good by its signature, and nobody knows it.
    refused(&world, &token, Reason::TokenInactive);
    provider.knows(&token, Provider::active());
    world.plain().get("/opaque/open").bearer(&token).send().assert_passed();
    provider.knows(&token, json!({ "active": false }));
    refused(&world, &token, Reason::TokenInactive);
    provider.behave(Manner::Status(500));
    refused(&world, &token, Reason::IntrospectionUnavailable);
    // Known, and not signed by the issuer: not even asked about.
    provider.behave(Manner::Good);
    let asked = provider.questions().len();
    let forged = world.idp().token().forged_once(r#"{"alg":"ES256","typ":"at+jwt","kid":"key-1"}"#);
    provider.knows(&forged, Provider::active());
    refused(&world, &forged, Reason::TokenSignatureInvalid);
    provider.knows(TOKEN, Provider::active());
    refused(&world, TOKEN, Reason::TokenMalformed);
    assert_eq!(provider.questions().len(), asked);
}

/// `check` names every mistake of an entry and of a chain.
#[test]
fn check_says_what_is_wrong_with_introspection() {
    let provider = Provider::start();
    for (introspect, entry, api, code, saying) in [
        ("", "", "", "missing_key", "`auth: client_secret_basic` needs `client_secret`"),
        ("      auth: private_key_jwt\n", "", "", "missing_key", "`auth: private_key_jwt` needs `key`"),
        (
            "      auth: tls_client_auth\n",
            "",
            "",
            "missing_key",
            "`tls_client_auth` needs `client_certificate`",
        ),
        ("      auth: tls_client_auth\n      client_certificate: nobody\n", "", "", "undefined", "`nobody`"),
        ("      client_secret: abc\n", "", "", "literal_secret", "a secret is written in the file"),
        (
            "      client_secret: { file: secrets/idp }\n      kid: x\n",
            "",
            "",
            "not_together",
            "`kid` has no meaning",
        ),
        ("      client_secret: { file: secrets/idp }\n      cache: 1h\n", "", "", "out_of_range", "0s to 5m"),
        (
            "      client_secret: { file: secrets/idp }\n      negative_cache: 6s\n",
            "",
            "",
            "out_of_range",
            "0s to 5s",
        ),
        (
            "      client_secret: { file: secrets/idp }\n      answers: signed\n",
            "",
            "",
            "missing_key",
            "somebody who signs",
        ),
        (
            "      client_secret: { file: secrets/idp }\n      cach: 1s\n",
            "",
            "",
            "unknown_key",
            "unknown key `cach`",
        ),
        (BY_SECRET, "", "    - jwt: { issuer: legacy }\n", "not_signed", "not verified by a signature"),
        (BY_SECRET, "", "    - token: { issuer: bank-idp }\n", "not_introspected", "nobody is asked about"),
        (BY_SECRET, "", "    - token: { issuer: legacu }\n", "undefined", "`legacu`"),
        (
            BY_SECRET,
            "",
            "    - token: { issuer: legacy }\n    - token: { issuer: second }\n",
            "providers_alike",
            "`legacy` says neither by `issuer` nor by `prefix` which tokens are its own",
        ),
        (
            "      client_secret: { file: secrets/idp }\n      prefix: se\n",
            "",
            "    - token: { issuer: [legacy, second] }\n",
            "providers_alike",
            "tokens of `legacy` and `second` may begin alike",
        ),
        (
            BY_SECRET,
            "    issuer: https://second.example\n",
            "    - token: { issuer: [legacy, second] }\n",
            "providers_alike",
            "signed tokens of `legacy` and `second` name the same issuer",
        ),
        (
            BY_SECRET,
            "    issuer: https://legacy.example\n",
            "    - token: { issuer: legacy }\n    - token: { issuer: [legacy, second] }\n",
            "providers_alike",
            "one provider is asked here in two ways",
        ),
        (
            "      client_secret: { file: secrets/idp }\n      prefix: \"a b\"\n",
            "",
            "",
            "bad_prefix",
            "no token begins with `a b`",
        ),
        (
            BY_SECRET,
            "",
            "    - token: { issuer: legacy, dpop: required, header: x-token }\n",
            "header_shared",
            "cannot come with a proof",
        ),
        (BY_SECRET, "", "    - token: { issuer: [legacy, legacy] }\n", "duplicate", "named twice"),
        (
            BY_SECRET,
            "",
            "    - all_of: [{ jwt: { issuer: bank-idp, dpop: required } }, { token: { issuer: legacy } }]\n      identity_from: jwt\n",
            "proofs_differ",
            "only one of them takes proofs",
        ),
    ] {
        println!("{saying}");
        let plan = plan(&provider, introspect, entry).with(|plan| {
            let second = "  second:\n    issuer: https://second.example\n    audience: any\n    introspect: { prefix: second_, url: https://idp.example/i, client_id: gw, client_secret: { file: secrets/idp }, trust: { file: tls/servers-ca.pem } }\n";
            plan.issuers.push_str(second);
            if !api.is_empty() {
                let chain = OPAQUE.replace("{ token: { issuer: legacy } }", &format!("\n  any_of:\n{api}"));
                plan.directory.write("apis/api-0.yaml", chain);
            }
        });
        plan.write();
        let path = plan.directory.path().to_string_lossy().into_owned();
        let output = portcullis(&["check", &path, "--format", "json"], &[]);
        assert!(!output.status.success());
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = said["findings"].as_array().expect("findings");
        let found = findings.iter().any(|finding| {
            finding["code"] == code && finding["message"].as_str().is_some_and(|text| text.contains(saying))
        });
        assert!(found, "{code} {saying}: {said:#}");
    }
}

/// REV-02: the list of revoked tokens counts whatever the provider says, also of a token that is remembered.
#[test]
fn a_revoked_token_is_refused_whatever_its_provider_says() {
    let provider = Provider::start();
    let mut said = Provider::active();
    said["sub"] = "mallory".into();
    provider.knows(TOKEN, said);
    provider.knows("another", Provider::active());
    let entry = "    revoked: { entries: [{ sub: mallory }] }\n";
    let world = plan(&provider, BY_SECRET, entry).start();
    for _ in 0..2 {
        refused(&world, TOKEN, Reason::TokenRevoked);
    }
    world.plain().get("/opaque/open").bearer("another").send().assert_passed();
}

/// JWT-27, INT-03: an entry says for whom its tokens are, or that this is not looked at, and is warned of.
#[test]
fn check_asks_for_whom_introspected_tokens_are() {
    let provider = Provider::start();
    for (to, code, good) in [
        ("", "missing_key", false),
        ("    audience: any\n", "audience_unchecked", true),
        ("    audience: https://api.bank.example\n", "", true),
    ] {
        let plan = plan(&provider, BY_SECRET, "").with(|plan| {
            plan.issuers = plan.issuers.replace("    audience: any\n", to);
        });
        plan.write();
        let path = plan.directory.path().to_string_lossy().into_owned();
        let output = portcullis(&["check", &path, "--format", "json"], &[]);
        assert_eq!(output.status.success(), good, "{to}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = said["findings"].as_array().expect("findings");
        let about = findings.iter().filter(|finding| finding["code"] == code).count();
        assert_eq!(about, usize::from(!code.is_empty()), "{said:#}");
        if code.is_empty() {
            let audience = |finding: &&Value| finding.to_string().contains("audience");
            assert_eq!(findings.iter().filter(audience).count(), 0, "{said:#}");
        }
    }
}
