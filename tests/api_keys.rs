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
        &["key", "create", "--declare", "--client", "umbrella", "--policies", &directory, "--format", "json"],
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

/// An API that takes keys wherever they may be.
const ANYWHERE: &str = "\
api: anywhere
match: { host: api.bank.example, path: /anywhere/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key, query: api_key, cookie: key } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

const ACME: &str = "acme-key-number-one-1234567890";

/// KEY-03: what carried the key is gone, and nothing else of the query or of the cookies has changed.
#[test]
fn a_key_in_the_query_or_in_a_cookie_goes_no_further() {
    let world = plan(&[ANYWHERE]).start();
    for (target, cookies, left, cookies_left) in [
        (format!("/anywhere/1?api_key={ACME}"), None, "/anywhere/1", None),
        (format!("/anywhere/1?b=%C3%a4+&api_key={ACME}&&c;d"), None, "/anywhere/1?b=%C3%a4+&&c;d", None),
        (format!("/anywhere/1?API%5fKEY={ACME}&b"), None, "/anywhere/1?b", None),
        ("/anywhere/1?b=1".to_owned(), Some(format!("a=1; key={ACME}")), "/anywhere/1?b=1", Some("a=1")),
        ("/anywhere/1".to_owned(), Some(format!("key={ACME}")), "/anywhere/1", None),
    ] {
        let call = world.plain().get(&target);
        let call = match &cookies {
            Some(cookies) => call.header("cookie", cookies),
            None => call,
        };
        call.send().assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.line(), format!("GET {left} HTTP/1.1"), "{target}");
        assert_eq!(received.values("cookie"), cookies_left.into_iter().collect::<Vec<_>>());
        assert!(!received.head.contains(ACME), "{}", received.head);
    }
}

/// KEY-01, KEY-02: what strangers try.
#[test]
fn a_key_that_is_not_exactly_one_good_key_is_refused() {
    let world = plan(&[ANYWHERE]).start();
    let (both, other) = (format!("/anywhere/1?api_key={ACME}"), "initech-key-1234567890");
    let mistyped = format!("pc_{}AAAAAA", "k".repeat(43));
    let long = "k".repeat(513);
    type Row<'a> = (String, Vec<(&'a str, String)>, Reason);
    let rows: Vec<Row<'_>> = vec![
        ("/anywhere/1".into(), vec![], Reason::CredentialsMissing),
        ("/anywhere/1?api_key=".into(), vec![], Reason::CredentialsMissing),
        ("/anywhere/1?api_key".into(), vec![], Reason::CredentialsMissing),
        ("/anywhere/1".into(), vec![("cookie", "key=".into())], Reason::CredentialsMissing),
        ("/anywhere/1".into(), vec![("cookie", format!("key2={ACME}"))], Reason::CredentialsMissing),
        (format!("{both}&api_key={ACME}"), vec![], Reason::CredentialsAmbiguous),
        (format!("{both}&Api_Key=x"), vec![], Reason::CredentialsAmbiguous),
        (format!("{both}&%61pi_key=x"), vec![], Reason::CredentialsAmbiguous),
        (both.clone(), vec![("x-api-key", other.into())], Reason::CredentialsAmbiguous),
        (both.clone(), vec![("cookie", format!("key={ACME}"))], Reason::CredentialsAmbiguous),
        (
            "/anywhere/1".into(),
            vec![("cookie", format!("key={ACME}; key={other}"))],
            Reason::CredentialsAmbiguous,
        ),
        (
            "/anywhere/1".into(),
            vec![("cookie", format!("key={ACME}")), ("cookie", format!("KEY={ACME}"))],
            Reason::CredentialsAmbiguous,
        ),
        (format!("{both};b=1"), vec![], Reason::CredentialsMalformed),
        (format!("/anywhere/1?b=1;api_key={ACME}"), vec![], Reason::CredentialsMalformed),
        (format!("{both}&b=1;api_key=x"), vec![], Reason::CredentialsMalformed),
        (format!("{both}%2"), vec![], Reason::CredentialsMalformed),
        (format!("{both}%0a"), vec![], Reason::CredentialsMalformed),
        (format!("{both}%00"), vec![], Reason::CredentialsMalformed),
        (format!("/anywhere/1?api_key={long}"), vec![], Reason::CredentialsMalformed),
        ("/anywhere/1".into(), vec![("cookie", format!("key={long}"))], Reason::CredentialsMalformed),
        (format!("{both}+"), vec![], Reason::ApiKeyInvalid),
        (format!("/anywhere/1?api_key={}", ACME.to_uppercase()), vec![], Reason::ApiKeyInvalid),
        (format!("/anywhere/1?api_key={mistyped}"), vec![], Reason::ApiKeyInvalid),
        ("/anywhere/1?api_key=globex-key-1234567890".into(), vec![], Reason::ClientInactive),
    ];
    for (target, fields, reason) in rows {
        let mut call = world.plain().get(&target);
        for (name, value) in &fields {
            call = call.header(name, value);
        }
        call.send().assert_refused(reason);
    }
    world.assert_upstream_untouched();
}

/// KEY-02: a key has a beginning, an end and a place, and outside of them there is no such key.
#[test]
fn a_key_counts_when_and_where_its_line_says() {
    let plan = plan(&[ORDERS, ANYWHERE]);
    let line =
        |key: &str, terms: &str| format!("      - api_key: {{ hash: \"{}\", {terms} }}\n", hash_of(key));
    plan.directory.write(
        "clients/umbrella.yaml",
        [
            "clients:\n  umbrella:\n    credentials:\n".to_owned(),
            line("old-key", "expires: 2020-01-01"),
            line("present-key", "not_before: 2020-01-01, expires: 2100-01-01"),
            line("next-key", "not_before: 2100-01-01"),
            line("disabled-key", "disabled: true"),
            line("orders-key", "apis: [orders]"),
            line("local-key", "from: [127.0.0.0/8, \"::1\"]"),
            line("foreign-key", "from: [192.0.2.0/24]"),
        ]
        .concat(),
    );
    let world = plan.start();
    let call = |path: &str, key: &str| world.plain().get(path).header("x-api-key", key).send();
    for key in ["old-key", "next-key", "disabled-key", "foreign-key"] {
        call("/orders/1", key).assert_refused(Reason::ApiKeyInvalid);
    }
    call("/anywhere/1", "orders-key").assert_refused(Reason::ApiKeyInvalid);
    world.assert_upstream_untouched();
    for key in ["present-key", "orders-key", "local-key"] {
        call("/orders/1", key).assert_passed();
        assert_eq!(world.upstream().last().value("x-client-id"), "umbrella");
    }
}

/// The flags of `key create --declare` end in the line, and the line means what they say.
#[test]
fn a_key_is_made_for_a_time_and_a_place() {
    let plan = plan(&[ORDERS, ANYWHERE]);
    plan.write();
    let directory = plan.directory.path().to_string_lossy().into_owned();
    let make = |flags: &[&str]| {
        let mut arguments =
            vec!["key", "create", "--declare", "--client", "umbrella", "--policies", &directory];
        arguments.extend(flags);
        portcullis(&arguments, &[])
    };
    let output =
        make(&["--name", "2027", "--expires", "2100-01-01", "--api", "orders", "--from", "127.0.0.0/8"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (key, declared) = (text.lines().next().expect("a key"), text.split("\n\n").last().expect("lines"));
    assert!(key.starts_with("pc_") && key.len() == 52, "{key}");
    plan.directory.write("clients/umbrella.yaml", declared);
    for wrong in [
        &["--expires", "soon"][..],
        &["--not-before", "2027-01-01", "--expires", "2026-01-01"],
        &["--from", "acme.example"],
        &["--api", "two words"],
        &["--name", "two words"],
    ] {
        assert!(!make(wrong).status.success(), "{wrong:?}");
    }
    assert!(declared.contains("name: \"2027\""), "{declared}");
    let world = plan.start();
    world.plain().get("/orders/1").header("x-api-key", key).send().assert_passed();
    world.plain().get("/anywhere/1").header("x-api-key", key).send().assert_refused(Reason::ApiKeyInvalid);
}
