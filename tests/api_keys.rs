//! API keys of declared clients.

use portcullis_core::{Reason, Secret};
use portcullis_jose::base64url;
use portcullis_jose::digest::KeyedHash;

use crate::rig::gateway::portcullis;
use crate::rig::world::{Plan, World};

const PEPPER: &str = "pepper-pepper-pepper-pepper-pepper-pepper";

const ORDERS: &str = "\
api: orders
match: { host: api.bank.example, path: /orders/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow:
  - name: anyone known may read
    methods: [GET]
    paths: [\"/*\"]
  - name: only gold may write
    methods: [POST]
    paths: [\"/*\"]
    when: client.attributes.tier == \"gold\"
forward:
  set: { x-client-id: \"{identity.name}\" }
";

/// The line of a client's file that declares a key.
fn hash_of(key: &str) -> String {
    let hash = KeyedHash::new(&Secret::new(PEPPER.as_bytes().to_vec())).digest(key.as_bytes());
    format!("pk1:{}", base64url::encode(&hash))
}

fn plan(apis: &[&str]) -> Plan {
    let plan = Plan::new(apis)
        .with(|plan| plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned());
    plan.directory.write("secrets/pepper", format!("{PEPPER}\n"));
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:
  acme:
    attributes: {{ tier: gold }}
    credentials:
      - api_key: {{ hash: \"{}\" }}
      - api_key: {{ hash: \"{}\" }}
  globex:
    expires: 2020-01-01
    credentials:
      - api_key: {{ hash: \"{}\" }}
  initech:
    attributes: {{ tier: free }}
    credentials:
      - api_key: {{ hash: \"{}\" }}
",
            hash_of("acme-key-number-one-1234567890"),
            hash_of("acme-key-number-two-1234567890"),
            hash_of("globex-key-1234567890"),
            hash_of("initech-key-1234567890"),
        ),
    );
    plan
}

fn world() -> World {
    plan(&[ORDERS]).start()
}

#[test]
fn every_key_of_a_client_leads_to_the_client() {
    let world = world();
    for key in ["acme-key-number-one-1234567890", "acme-key-number-two-1234567890"] {
        world.plain().get("/orders/1").header("x-api-key", key).send().assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.value("x-client-id"), "acme");
        // KEY-03: the key goes no further.
        assert_eq!(received.values("x-api-key"), Vec::<&str>::new());
        assert!(!received.head.contains(key));
    }
}

/// ANS-06: one reason for keys that never were and keys that no longer are.
#[test]
fn an_unknown_key_is_refused() {
    let world = world();
    for key in [
        "nobody-has-this-key-1234567890",
        "x",
        "acme-key-number-one-123456789",
        "ACME-KEY-NUMBER-ONE-1234567890",
    ] {
        let answer = world.plain().get("/orders/1").header("x-api-key", key).send();
        answer.assert_refused(Reason::ApiKeyInvalid);
        assert_eq!(answer.challenges(), ["ApiKey realm=\"orders\""]);
    }
    // The hash itself is no key.
    let answer =
        world.plain().get("/orders/1").header("x-api-key", &hash_of("initech-key-1234567890")).send();
    assert!(answer.status == 401 || answer.status == 400, "{}", answer.text());
    world.assert_upstream_untouched();
}

#[test]
fn no_key_is_a_challenge() {
    let world = world();
    for call in [
        world.plain().get("/orders/1"),
        world.plain().get("/orders/1").header("x-api-key", ""),
        world.plain().get("/orders/1?x-api-key=acme-key-number-one-1234567890"),
        world.plain().get("/orders/1").header("cookie", "x-api-key=acme-key-number-one-1234567890"),
        world.plain().get("/orders/1").header("x_api_key", "acme-key-number-one-1234567890"),
        world.plain().get("/orders/1").header("authorization", "Bearer acme-key-number-one-1234567890"),
    ] {
        let answer = call.send();
        answer.assert_refused(Reason::CredentialsMissing);
        assert_eq!(answer.challenges(), ["ApiKey realm=\"orders\""]);
    }
    world.assert_upstream_untouched();
}

/// KEY-01: exactly one value.
#[test]
fn two_keys_are_ambiguous() {
    let world = world();
    let key = "acme-key-number-one-1234567890";
    for second in [key, "initech-key-1234567890", ""] {
        let call = world.plain().get("/orders/1").header("x-api-key", key).header("x-api-key", second);
        call.send().assert_refused(Reason::CredentialsAmbiguous);
    }
    world.assert_upstream_untouched();
}

#[test]
fn a_key_no_key_can_be_is_malformed() {
    let world = world();
    for key in ["with space inside it".to_owned(), "\u{e9}\u{e9}\u{e9}".to_owned(), "k".repeat(5_000)] {
        world
            .plain()
            .get("/orders/1")
            .header("x-api-key", &key)
            .send()
            .assert_refused(Reason::CredentialsMalformed);
    }
    world.assert_upstream_untouched();
}

#[test]
fn a_client_that_has_expired_is_not_active() {
    let world = world();
    let answer = world.plain().get("/orders/1").header("x-api-key", "globex-key-1234567890").send();
    answer.assert_refused(Reason::ClientInactive);
    world.assert_upstream_untouched();
}

#[test]
fn what_is_said_of_a_client_can_decide() {
    let world = world();
    let call = |key: &str| world.plain().post("/orders/1", "{}").header("x-api-key", key);
    call("acme-key-number-one-1234567890").send().assert_passed();
    call("initech-key-1234567890").send().assert_refused(Reason::AccessDenied);
    assert_eq!(world.upstream().hits(), 1);
}

/// The whole way of a new key: made, declared, used.
#[test]
fn a_key_that_the_program_made_works_once_it_is_declared() {
    let plan = plan(&[ORDERS]);
    plan.write();
    let directory = plan.directory.path().to_string_lossy().into_owned();
    let output = portcullis(
        &["key", "create", "--client", "umbrella", "--policies", &directory, "--format", "json"],
        &[],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (key, hash) = (made["key"].as_str().expect("a key"), made["hash"].as_str().expect("a hash"));
    assert!(key.len() >= 32 && hash.starts_with("pk1:"), "{made}");
    let declared =
        format!("clients:\n  umbrella:\n    credentials:\n      - api_key: {{ hash: \"{hash}\" }}\n");
    plan.directory.write("clients/umbrella.yaml", declared);
    let world = plan.start();
    world.plain().get("/orders/1").header("x-api-key", key).send().assert_passed();
    assert_eq!(world.upstream().last().value("x-client-id"), "umbrella");
}

/// KEY-01: any header, `Authorization` with a scheme included.
#[test]
fn a_key_may_travel_in_authorization() {
    let api = ORDERS.replace("header: x-api-key", "header: authorization, scheme: ApiKey");
    let world = plan(&[&api]).start();
    let call = |value: &str| world.plain().get("/orders/1").header("authorization", value).send();
    call("ApiKey acme-key-number-one-1234567890").assert_passed();
    call("apikey initech-key-1234567890").assert_passed();
    call("Bearer acme-key-number-one-1234567890").assert_refused(Reason::CredentialsMissing);
    call("acme-key-number-one-1234567890").assert_refused(Reason::CredentialsMissing);
}

#[test]
fn keys_are_in_no_log() {
    let world = world();
    world
        .plain()
        .get("/orders/1")
        .header("x-api-key", "acme-key-number-one-1234567890")
        .send()
        .assert_passed();
    world.plain().get("/orders/1").header("x-api-key", "nobody-has-this-key-1234567890").send();
    let metrics = world.gateway.admin("/metrics").text();
    let World { gateway, .. } = world;
    let output = gateway.output();
    let (_, log) = gateway.stop();
    for text in [metrics, output, log] {
        assert!(!text.contains("acme-key-number") && !text.contains("nobody-has"), "{text}");
        assert!(!text.contains(PEPPER));
    }
}
