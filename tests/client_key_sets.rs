//! Keys that registered clients publish themselves: each set speaks for its own client alone.

use std::sync::Arc;

use portcullis_core::Reason;
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::client::Answer;
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::idp::{Idp, Key, Serving};
use crate::rig::world::{Plan, World};

const API: &str = "\
api: partners
match: { host: api.bank.example, path: /partners/* }
upstream: accounts
authenticate: { jwt: { issuer: partners } }
allow:
  - { name: anything, paths: [\"/*\"] }
forward: { set: { x-caller: \"{client.name}\" } }
";

/// Two clients that publish their keys, and one whose key the operator holds under the name `other-1`.
struct Partners {
    world: World,
    acme: Idp,
    globex: Idp,
    other: SigningKey,
}

fn plan() -> Plan {
    Plan::new(&[API]).with(|plan| {
        plan.issuers = "  partners:\n    issuer: partner\n    iss: optional\n    audience: bank\n    algorithms: [ES256]\n    keys: clients\n    max_lifetime: 5m\n"
            .to_owned();
    })
}

fn partners() -> Partners {
    let (acme, globex) = (Idp::start(), Idp::start());
    let other = SigningKey::generate(Algorithm::Es256).expect("a key");
    let plan = plan();
    plan.directory.write("keys/other.pub", other.public_pem().expect("PEM"));
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:
  acme: {{ credentials: [jwt_key: {{ jwks_url: \"{}\", http_on_loopback: true }}] }}
  globex:
    credentials:
      - jwt_key: {{ jwks_url: \"{}\", http_on_loopback: true }}
      - jwt_key: {{ kid: globex-held, pem: ../keys/other.pub }}
  other: {{ credentials: [jwt_key: {{ kid: other-1, pem: ../keys/other.pub }}] }}
  ended: {{ expires: 2020-01-01, credentials: [jwt_key: {{ jwks_url: \"{}\", http_on_loopback: true }}] }}
",
            acme.jwks_url(),
            globex.jwks_url(),
            acme.jwks_url(),
        ),
    );
    Partners { world: plan.start(), acme, globex, other }
}

fn token(key: &SigningKey, kid: Option<&str>, sub: &str) -> String {
    changed(key, kid, sub, &json!({}))
}

fn changed(key: &SigningKey, kid: Option<&str>, sub: &str, changes: &Value) -> String {
    let now = unix_now();
    let mut claims = json!({ "sub": sub, "aud": "bank", "iat": now, "exp": now + 60 });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    key.sign(kid.map_or_else(|| json!({}), |kid| json!({ "kid": kid })), &claims).expect("a signature")
}

fn ask(world: &World, token: &str) -> Answer {
    world.plain().get("/partners/1").bearer(token).send()
}

fn own(key: &Arc<Key>, sub: &str) -> String {
    token(&key.key, Some(&key.kid), sub)
}

/// B9.5: the subject leads to the client, the client to its set.
#[test]
fn a_client_is_known_by_the_keys_it_publishes() {
    let Partners { world, acme, globex, other } = partners();
    for (token, name) in [
        (own(&acme.key(), "acme"), "acme"),
        (own(&globex.key(), "globex"), "globex"),
        (token(&acme.key().key, None, "acme"), "acme"),
        (token(&other, Some("globex-held"), "globex"), "globex"),
        (token(&other, Some("other-1"), "other"), "other"),
    ] {
        for _ in 0..2 {
            ask(&world, &token).assert_passed();
            assert_eq!(world.upstream().last().value("x-caller"), name);
        }
    }
    // The name of somebody else's key, for a key of one's own: nobody else is asked.
    let namesake = acme.add(Algorithm::Es256, "other-1");
    ask(&world, &own(&namesake, "acme")).assert_passed();
    assert_eq!(world.upstream().last().value("x-caller"), "acme");
}

/// JWT-26, JWK-05: no set speaks for another client, whatever a token says.
#[test]
fn a_set_speaks_for_its_own_client_alone() {
    let Partners { world, acme, globex, other } = partners();
    let stranger = Idp::unpublished(Algorithm::Es256, "key-1");
    let refused = Reason::TokenSignatureInvalid;
    for (what, token, reason) in [
        ("another's set, under the same key name", own(&globex.key(), "acme"), refused),
        ("another's set, no key name", token(&globex.key().key, None, "acme"), refused),
        ("nobody's key", own(&stranger, "acme"), refused),
        ("the key of a client whom the operator knows", token(&other, Some("other-1"), "acme"), refused),
        ("a key of one's own, for one whom the operator knows", own(&acme.key(), "other"), refused),
        ("for nobody", own(&acme.key(), "nobody"), refused),
        ("a set for a held key's name", token(&globex.key().key, Some("globex-held"), "globex"), refused),
        (
            "another audience",
            changed(&acme.key().key, Some("key-1"), "acme", &json!({ "aud": "x" })),
            Reason::TokenAudienceRefused,
        ),
        (
            "too long",
            changed(&acme.key().key, Some("key-1"), "acme", &json!({ "exp": unix_now() + 600 })),
            Reason::TokenLifetimeRefused,
        ),
        (
            "expired",
            changed(
                &acme.key().key,
                Some("key-1"),
                "acme",
                &json!({ "iat": unix_now() - 120, "exp": unix_now() - 60 }),
            ),
            Reason::TokenExpired,
        ),
        ("an ended client", own(&acme.key(), "ended"), Reason::ClientInactive),
    ] {
        let answer = ask(&world, &token);
        assert_eq!(answer.code(), reason.code(), "{what}: {}", answer.text());
        answer.assert_refused(reason);
    }
    world.assert_upstream_untouched();
}

/// JKS-08, JKS-09: a key that is withdrawn takes its tokens with it, also those a worker remembers, and nobody else's.
#[test]
fn a_key_that_is_withdrawn_takes_its_tokens_with_it() {
    let Partners { world, acme, globex, .. } = partners();
    let (old, others) = (own(&acme.key(), "acme"), own(&globex.key(), "globex"));
    for token in [&old, &others, &old, &others] {
        ask(&world, token).assert_passed();
    }
    let hits = globex.hits();
    let next = acme.add(Algorithm::Es256, "key-2");
    acme.remove("key-1");
    // The unknown key id makes the gateway look again.
    ask(&world, &own(&next, "acme")).assert_passed();
    ask(&world, &old).assert_refused(Reason::TokenSignatureInvalid);
    ask(&world, &others).assert_passed();
    assert_eq!(globex.hits(), hits);
}

/// JKS-07: what cannot be asked is 503, and it is nobody's matter but the client's own.
#[test]
fn a_set_that_cannot_be_fetched_stops_its_own_client() {
    let (acme, globex) = (Idp::start(), Idp::start());
    acme.serve(Serving::Down);
    let plan = plan();
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:\n  acme: {{ credentials: [jwt_key: {{ jwks_url: \"{}\", http_on_loopback: true }}] }}\n  globex: {{ credentials: [jwt_key: {{ jwks_url: \"{}\", http_on_loopback: true }}] }}\n",
            acme.jwks_url(),
            globex.jwks_url(),
        ),
    );
    let world = plan.start();
    ask(&world, &own(&acme.key(), "acme")).assert_refused(Reason::KeysUnavailable);
    ask(&world, &own(&globex.key(), "acme")).assert_refused(Reason::KeysUnavailable);
    world.assert_upstream_untouched();
    ask(&world, &own(&globex.key(), "globex")).assert_passed();
    assert_eq!(world.gateway.admin("/readyz").status, 200);
}

/// ANS-06, JKS-07: while a held set counts, names it does not have are refused, whatever has become of the server.
#[test]
fn made_up_key_names_are_refused_while_the_server_is_down() {
    let Partners { world, acme, .. } = partners();
    let good = own(&acme.key(), "acme");
    ask(&world, &good).assert_passed();
    acme.serve(Serving::Down);
    let answers = (0..40).map(|number| {
        let token = token(&acme.key().key, Some(&format!("made-up-{number}")), "acme");
        let code = ask(&world, &token).code();
        assert!(
            [Reason::TokenSignatureInvalid, Reason::KeysUnavailable]
                .iter()
                .any(|reason| code == reason.code()),
            "{code}"
        );
        code == Reason::TokenSignatureInvalid.code()
    });
    let refused = answers.filter(|refused| *refused).count();
    assert!(refused >= 20, "{refused} of 40 were refused, the others told to come again");
    ask(&world, &own(&acme.key(), "acme")).assert_passed();
    ask(&world, &good).assert_passed();
}

/// JKS-11: how a client's set is doing can be seen, and the gateway is well without it.
#[test]
fn the_sets_of_clients_are_listed() {
    let Partners { world, acme, globex, .. } = partners();
    ask(&world, &own(&acme.key(), "acme")).assert_passed();
    ask(&world, &own(&globex.key(), "globex")).assert_passed();
    acme.add(Algorithm::Es256, "key-2");
    let metric = |name: &str, label: &str| world.gateway.metric_sum(name, &[label]);
    eventually("the sets are counted", || {
        let keys = metric("portcullis_client_jwks_keys", "client=\"globex\"");
        ((keys - 1.0).abs() < f64::EPSILON).then_some(())
    });
    let page = world.gateway.admin("/metrics").text();
    assert!(page.contains("portcullis_client_jwks_age_seconds{client=\"acme\"}"), "{page}");
    assert!(!page.contains("portcullis_jwks_keys{issuer=\"acme\"}"), "{page}");
    acme.serve(Serving::Status(500));
    ask(&world, &token(&acme.key().key, Some("key-9"), "acme"));
    let said = eventually("the failure is told", || {
        let ready = world.gateway.admin("/readyz");
        assert_eq!(ready.status, 200);
        let said = ready.text();
        said.contains("last fetch failed").then_some(said)
    });
    assert!(said.contains(&format!("keys of client acme at {}", acme.jwks_url())), "{said}");
    let failed = world
        .gateway
        .metric_sum("portcullis_client_jwks_refresh_total", &["client=\"acme\"", "result=\"failed\""]);
    assert!(failed >= 1.0, "{failed}");
}

/// Trap 27: a token that a worker remembers, and that its client has withdrawn, is a guess like any other.
#[test]
fn a_withdrawn_token_is_watched_by_the_guard() {
    let (acme, plan) = (Idp::start(), plan());
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:\n  acme: {{ credentials: [jwt_key: {{ jwks_url: \"{}\", http_on_loopback: true }}] }}\n",
            acme.jwks_url()
        ),
    );
    let world =
        plan.with(|plan| plan.guard = "guard: { caller: { failures: 3 }, shared_addresses: [] }").start();
    let old = own(&acme.key(), "acme");
    let client = world.plain();
    let mut session = client.connect().expect("a connection");
    let mut ask = |token: &str| session.send(client.get("/partners/1").bearer(token)).expect("an answer");
    ask(&old).assert_passed();
    let next = acme.add(Algorithm::Es256, "key-2");
    acme.remove("key-1");
    ask(&own(&next, "acme")).assert_passed();
    for _ in 0..3 {
        ask(&old).assert_refused(Reason::TokenSignatureInvalid);
    }
    ask(&old).assert_refused(Reason::TooManyFailures);
}

/// JKS-05: made-up key names are no reason to ask a client's server again and again.
#[test]
fn made_up_key_names_cause_no_storm() {
    let Partners { world, acme, .. } = partners();
    ask(&world, &own(&acme.key(), "acme")).assert_passed();
    let client = world.plain();
    let mut session = client.connect().expect("a connection");
    for number in 0..500 {
        let token = token(&acme.key().key, Some(&format!("made-up-{number}")), "acme");
        let answer = session.send(client.get("/partners/1").bearer(&token)).expect("an answer");
        assert_eq!(answer.code(), Reason::TokenSignatureInvalid.code(), "{number}: {}", answer.text());
    }
    assert!(acme.hits() <= 4, "the key set was fetched {} times", acme.hits());
}

/// JKS-01, JKS-02: only what is configured is asked, over TLS.
#[test]
fn what_could_be_turned_against_us_is_refused_by_check() {
    let plan = plan();
    plan.write();
    for (key, words) in [
        ("{ jwks_url: \"http://keys.acme.example/jwks\" }", "https only"),
        ("{ jwks_url: \"http://127.0.0.1:1/jwks\" }", "https only"),
        ("{ jwks_url: \"http://10.0.0.1/jwks\", http_on_loopback: true }", "https only"),
        ("{ jwks_url: \"file:///etc/passwd\" }", "not an absolute URL"),
        ("{ jwks_url: \"https://user@keys.acme.example/jwks\" }", "without user"),
        ("{ jwks_url: \"https://keys.example/{certificate.ou}\" }", "at one URL"),
        ("{ jwks_url: \"https://keys.acme.example/jwks\", kid: a }", "unknown key `kid`"),
        ("{ jwks_url: \"https://keys.acme.example/jwks\", refresh: 1s }", "30s to 1h"),
        (
            "{ jwks_url: \"https://keys.acme.example/a\" } }, { jwt_key: { jwks_url: \"https://keys.acme.example/b\" }",
            "at two places",
        ),
    ] {
        plan.directory
            .write("clients/a.yaml", format!("clients:\n  a: {{ credentials: [{{ jwt_key: {key} }}] }}\n"));
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{key}: {said}");
    }
}
