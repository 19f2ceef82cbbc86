//! Whatever a caller or a provider may do wrongly about an opaque token: the exact reason, whether the provider was asked
//! at all, nothing at the upstream, and nobody else the worse for it.

use portcullis_core::Reason;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rig::certificates::unix_now;
use crate::rig::client::Client;
use crate::rig::eventually;
use crate::rig::idp::{AUDIENCE, ISSUER};
use crate::rig::provider::{Manner, Provider};
use crate::rig::world::{Plan, World};

const API: &str = "\
api: opaque
match: { host: api.bank.example, path: /opaque/* }
upstream: accounts
authenticate: { token: { issuer: legacy } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// As long as a token may be that is shown to a provider.
const LONGEST: usize = 4096;

fn plan(provider: &Provider) -> Plan {
    Plan::new(&[API]).with(|plan| {
        plan.directory.write("secrets/idp", "secret");
        plan.issuers = format!(
            "  legacy:
    issuer: {ISSUER}
    audience: {AUDIENCE}
    introspect:
      url: {}/introspect
      http_on_loopback: true
      timeout: 1s
      client_id: gw
      client_secret: {{ file: secrets/idp }}
",
            provider.origin()
        );
    })
}

fn world(provider: &Provider) -> World {
    plan(provider).start()
}

/// A good answer about a token, changed; `null` drops a member.
fn said(changes: &Value) -> Value {
    let mut said = Provider::active();
    said["iss"] = ISSUER.into();
    said["aud"] = AUDIENCE.into();
    for (name, value) in changes.as_object().expect("an object") {
        said[name] = value.clone();
    }
    said.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    said
}

/// A good token, which must be let in whatever was tried before it.
#[track_caller]
fn assert_unharmed(world: &World, provider: &Provider, number: usize) {
    let token = format!("good-{number}");
    provider.knows(&token, said(&json!({})));
    world.plain().get("/opaque/x").bearer(&token).send().assert_passed();
}

/// INT-01: what is no token is shown to nobody.
#[test]
fn credentials_of_every_shape_are_refused_before_anybody_is_asked() {
    let provider = Provider::start();
    let world = world(&provider);
    let oversized = format!("Bearer {}", "a".repeat(LONGEST + 1));
    let huge = format!("Bearer {}", "a".repeat(12 * 1024));
    let foreign = format!("Bearer {}", world.idp().token().claim("iss", "https://other.example").sign());
    let rows: &[(&str, &[&str], Reason)] = &[
        ("missing", &[], Reason::CredentialsMissing),
        ("another scheme", &["Basic YTpi"], Reason::CredentialsMissing),
        ("a proof's scheme where no proofs are taken", &["DPoP a"], Reason::CredentialsMissing),
        ("empty", &["Bearer"], Reason::CredentialsMalformed),
        ("blank", &["Bearer  "], Reason::CredentialsMalformed),
        ("doubled", &["Bearer a", "Bearer b"], Reason::CredentialsAmbiguous),
        ("doubled and the same", &["Bearer a", "Bearer a"], Reason::CredentialsAmbiguous),
        ("doubled in one field", &["Bearer a, Bearer b"], Reason::CredentialsMalformed),
        ("two words", &["Bearer a b"], Reason::CredentialsMalformed),
        ("quoted", &["Bearer \"a\""], Reason::CredentialsMalformed),
        ("percent-encoded", &["Bearer a%20b"], Reason::CredentialsMalformed),
        ("padded in the middle", &["Bearer a=b"], Reason::CredentialsMalformed),
        ("nothing but padding", &["Bearer ==="], Reason::CredentialsMalformed),
        ("a form's separator", &["Bearer a&token=b"], Reason::CredentialsMalformed),
        ("a line's end, escaped", &["Bearer a\\r\\nb"], Reason::CredentialsMalformed),
        ("a byte too long", &[&oversized], Reason::TokenMalformed),
        ("much too long", &[&huge], Reason::TokenMalformed),
        ("signed by somebody else", &[&foreign], Reason::TokenIssuerRefused),
    ];
    for (number, (what, fields, reason)) in rows.iter().enumerate() {
        println!("{what}");
        assert_unharmed(&world, &provider, number);
        let (before, asked) = (world.upstream().hits(), provider.questions().len());
        let call = world.plain().get("/opaque/x");
        let call = fields.iter().fold(call, |call, field| call.header("authorization", field));
        call.send().assert_refused(*reason);
        assert_eq!((world.upstream().hits(), provider.questions().len()), (before, asked), "{what}");
    }
    // The longest there may be is shown, whole.
    let longest = "a".repeat(LONGEST);
    world.plain().get("/opaque/x").bearer(&longest).send().assert_refused(Reason::TokenInactive);
    let question = provider.questions().pop().expect("a question");
    assert_eq!(question.value("token"), Some(&*longest));
}

/// INT-02, INT-03: tokens that are none, or not for this caller, or not for us, and each is asked about once.
#[test]
fn tokens_that_are_good_for_nothing_here_are_refused_by_what_is_said_of_them() {
    let provider = Provider::start();
    let world = world(&provider);
    let (own, thief) = (world.client(), world.stranger());
    let thief = thief.certificate(&Arc::new(world.plan.third_parties.client("tpp-b")));
    let (nobody, now) = (world.plain(), unix_now());
    let bound = json!({ "cnf": { "x5t#S256": world.tpp_a.thumbprint() } });
    let inactive = json!({ "active": false, "sub": "user-1", "exp": now + 300 });
    let key =
        json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }, "token_type": "DPoP" });
    let rows: Vec<(&str, &Client, Option<Value>, Reason)> = vec![
        ("unknown", &own, None, Reason::TokenInactive),
        ("revoked", &own, Some(inactive), Reason::TokenInactive),
        ("somebody else's", &thief, Some(said(&bound)), Reason::CertificateMismatch),
        ("somebody else's, shown by nobody", &nobody, Some(said(&bound)), Reason::CertificateMissing),
        ("bound to a key nobody proves", &own, Some(said(&key)), Reason::TokenBindingUnsupported),
        (
            "for another audience",
            &own,
            Some(said(&json!({ "aud": "https://other.example" }))),
            Reason::TokenAudienceRefused,
        ),
        ("for nobody", &own, Some(said(&json!({ "aud": null }))), Reason::TokenClaimInvalid),
        (
            "of another issuer",
            &own,
            Some(said(&json!({ "iss": "https://other.example" }))),
            Reason::TokenIssuerRefused,
        ),
        ("over", &own, Some(said(&json!({ "exp": now }))), Reason::TokenExpired),
        ("not yet", &own, Some(said(&json!({ "nbf": now + 60 }))), Reason::TokenNotYetValid),
        ("a refresh token", &own, Some(said(&json!({ "token_type": null }))), Reason::TokenTypeRefused),
        ("of no kind we know", &own, Some(said(&json!({ "token_type": "mac" }))), Reason::TokenTypeRefused),
        (
            "of nobody",
            &own,
            Some(said(&json!({ "sub": null, "client_id": null }))),
            Reason::TokenClaimInvalid,
        ),
        (
            "bound to we know not what",
            &own,
            Some(said(&json!({ "cnf": {} }))),
            Reason::TokenBindingUnsupported,
        ),
    ];
    for (number, (what, client, said, reason)) in rows.into_iter().enumerate() {
        println!("{what}");
        assert_unharmed(&world, &provider, number);
        let token = format!("row-{number}");
        if let Some(said) = said {
            provider.knows(&token, said);
        }
        let (before, asked) = (world.upstream().hits(), provider.questions().len());
        for _ in 0..3 {
            client.get("/opaque/x").bearer(&token).send().assert_refused(reason);
        }
        assert_eq!((world.upstream().hits(), provider.questions().len()), (before, asked + 1), "{what}");
    }
}

/// INT-02, INT-05: a provider that answers in no way that says something is 503, about that token alone.
#[test]
fn answers_of_every_shape_are_503_and_harm_nobody_else() {
    let provider = Provider::start();
    let world = world(&provider);
    let (json_kind, good) = ("application/json", said(&json!({})).to_string());
    let body = |text: &str| Manner::Body(json_kind, text.as_bytes().to_vec());
    let mut huge = good.clone().into_bytes();
    huge.resize(70 * 1024, b' ');
    let deep = format!("{{\"active\":true,\"x\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let rows: Vec<(&str, Manner)> = vec![
        ("nothing", body("")),
        ("no JSON", body("active=true")),
        ("cut off", body(&good[..good.len() - 1])),
        ("more than one", body(&format!("{good}{good}"))),
        ("a list", body(&format!("[{good}]"))),
        ("text", body("\"active\"")),
        ("`active` as text", body(&good.replace("true", "\"true\""))),
        ("`active` as a number", body(&good.replace("true", "1"))),
        ("`active` twice", body(&good.replace("\"active\":true", "\"active\":true,\"active\":true"))),
        ("no `active`", body(&good.replace("\"active\":true,", ""))),
        ("without end", body(&deep)),
        ("no UTF-8", Manner::Body(json_kind, b"{\"active\":true,\"sub\":\"\xff\"}".to_vec())),
        ("huge", Manner::Body(json_kind, huge)),
        ("another kind", Manner::Body("text/plain", good.clone().into_bytes())),
        (
            "signed, and nobody asked for that",
            Manner::Body("application/token-introspection+jwt", b"a.b.c".to_vec()),
        ),
        ("no content", Manner::Status(204)),
        ("partial", Manner::Status(206)),
        ("elsewhere", Manner::Redirect(format!("{}/introspect", provider.origin()))),
        ("a bad question", Manner::Status(400)),
        ("we are unknown", Manner::Status(401)),
        ("we may not", Manner::Status(403)),
        ("not there", Manner::Status(404)),
        ("too many", Manner::Status(429)),
        ("broken", Manner::Status(500)),
        ("away", Manner::Status(503)),
        ("hung up", Manner::Down),
        ("too slow", Manner::Slow(Duration::from_secs(3))),
    ];
    for (number, (what, manner)) in rows.into_iter().enumerate() {
        println!("{what}");
        let token = format!("row-{number}");
        provider.knows(&token, said(&json!({})));
        provider.behave_for(&token, manner);
        assert_unharmed(&world, &provider, number);
        let before = world.upstream().hits();
        for _ in 0..2 {
            let answer = world.plain().get("/opaque/x").bearer(&token).send();
            answer.assert_refused(Reason::IntrospectionUnavailable);
            assert!(answer.challenges().is_empty(), "{what}: {:?}", answer.challenges());
        }
        assert_eq!(world.upstream().hits(), before, "{what}");
        // It is remembered for a moment, and no longer.
        provider.behave_for(&token, Manner::Good);
        eventually("it is asked about again", || {
            (world.plain().get("/opaque/x").bearer(&token).send().status == 200).then_some(())
        });
    }
}

/// INT-05: what a caller can bring about with a token of its own never shuts the provider off, however often; what
/// the provider does on its own does.
#[test]
fn callers_cannot_shut_the_provider_off() {
    let provider = Provider::start();
    let world = world(&provider);
    let shut = || world.gateway.metric_sum("portcullis_introspection_shut", &["issuer=\"legacy\""]);
    let huge = Manner::Body("application/json", vec![b' '; 70 * 1024]);
    let mut number = 0;
    for manner in [
        Manner::Good,
        Manner::Status(400),
        Manner::Status(403),
        Manner::Status(404),
        Manner::Status(413),
        Manner::Status(500),
        Manner::Body("application/json", b"{}".to_vec()),
        Manner::Body("text/html", b"{}".to_vec()),
        huge,
    ] {
        for _ in 0..8 {
            number += 1;
            let token = format!("odd-{number}");
            provider.behave_for(&token, manner.clone());
            let asked = provider.questions().len();
            assert_ne!(world.plain().get("/opaque/x").bearer(&token).send().status, 200);
            assert_eq!(provider.questions().len(), asked + 1, "it was asked: {number}");
        }
        assert_eq!(shut(), 0.0);
    }
    for manner in [
        Manner::Status(401),
        Manner::Status(429),
        Manner::Status(502),
        Manner::Status(503),
        Manner::Status(504),
        Manner::Down,
    ] {
        for _ in 0..5 {
            number += 1;
            let token = format!("odd-{number}");
            provider.behave_for(&token, manner.clone());
            let answer = world.plain().get("/opaque/x").bearer(&token).send();
            answer.assert_refused(Reason::IntrospectionUnavailable);
        }
        assert_eq!(shut(), 1.0, "{manner:?}");
        eventually("it is asked again", || {
            number += 1;
            let token = format!("good-{number}");
            provider.knows(&token, said(&json!({})));
            (world.plain().get("/opaque/x").bearer(&token).send().status == 200).then_some(())
        });
        assert_eq!(shut(), 0.0);
    }
}

/// INT-05: a slow answer delays the request it is about, and no other, not even one with another token of the same
/// provider on the same worker.
#[test]
fn a_slow_answer_delays_its_own_request_alone() {
    let provider = Provider::start();
    let plan = plan(&provider).with(|plan| {
        plan.settings = "workers: 1\n".to_owned();
        plan.issuers = plan.issuers.replace("timeout: 1s", "timeout: 10s");
    });
    let world = plan.start();
    let wait = Duration::from_secs(3);
    provider.knows("slow", said(&json!({})));
    provider.behave_for("slow", Manner::Slow(wait));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let begun = Instant::now();
            world.plain().get("/opaque/x").bearer("slow").send().assert_passed();
            begun.elapsed()
        });
        eventually("the slow question is under way", || (!provider.questions().is_empty()).then_some(()));
        let begun = Instant::now();
        for number in 0..5 {
            assert_unharmed(&world, &provider, number);
        }
        let quick = begun.elapsed();
        let slow = slow.join().expect("an answer");
        assert!(slow >= wait, "{slow:?}");
        assert!(quick < wait / 2, "{quick:?} beside {slow:?}");
    });
}
