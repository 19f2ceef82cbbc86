//! Events over webhooks: signed, tried again, counted when they are lost, and without a secret.

use std::time::Duration;

use http::Method;
use portcullis_authn::KeyedHash;
use portcullis_core::{Reason, Secret};
use serde_json::{Value, json};

use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::upstream::{Manner, Received, Upstream};
use crate::rig::world::{BEARER, Plan, World};

const TOKEN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";
const KEY: &str = "EXAMPLE-what-only-the-receiver-of-events-knows";

const KEYED: &str = "\
api: keyed
match: { host: api.bank.example, path: /keyed/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow: [ { name: anything, paths: [\"/*\"] } ]
limits: [ { per: identity, quota: 4 per hour, alerts: [50] } ]
";

fn plan(hook: &Upstream, more: &str) -> Plan {
    let url = hook.url();
    let plan = Plan::new(&[KEYED, BEARER]).with(|plan| {
        plan.settings = format!(
            "api_keys: {{ pepper: {{ file: secrets/pepper }} }}\nevents:\n  webhooks:\n    desk: {{ url: \"{url}/events\", secret: {{ file: secrets/hook }}, http_on_loopback: true{more} }}\n"
        );
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("secrets/hook", format!("whsec_{}\n", base64(KEY.as_bytes())));
    plan.directory.write("secrets/admin-token", TOKEN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n");
    plan
}

fn make_key(world: &World) -> String {
    let call = world.gateway.admin_client().request(Method::POST, "/v1/clients/acme/keys").bearer(TOKEN);
    let made = call.header("content-type", "application/json").body("{}").send();
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["key"].as_str().expect("a key").to_owned()
}

/// The events of a kind that have arrived, whose signatures are good.
fn events(hook: &Upstream, kind: &str) -> Vec<Value> {
    let read = |received: &Received| {
        let (id, second) = (received.value("webhook-id"), received.value("webhook-timestamp"));
        let signed = [id.as_bytes(), b".", second.as_bytes(), b".", &received.body].concat();
        let key = KeyedHash::new(&Secret::new(KEY.as_bytes().to_vec()));
        let expected = format!("v1,{}", base64(&key.digest(&signed)));
        assert_eq!(received.value("webhook-signature"), expected);
        assert_eq!(received.value("content-type"), "application/json");
        serde_json::from_slice::<Value>(&received.body).expect("JSON")
    };
    hook.received().iter().map(read).filter(|event| event["type"] == kind).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn what_happens_is_told_signed_and_without_secrets() {
    let hook = Upstream::start();
    let world = plan(&hook, "").start();
    let key = make_key(&world);
    let made = eventually("a key is told of", || events(&hook, "key.changed").into_iter().next());
    assert_eq!((&made["data"]["action"], &made["data"]["of"]), (&json!("API key made"), &json!("acme")));
    let ask = |key: &str| world.plain().get("/keyed/x").header("x-api-key", key).send();
    for _ in 0..2 {
        ask(&key).assert_passed();
    }
    let alert = eventually("an alert is told of", || events(&hook, "quota.alert").into_iter().next());
    assert_eq!((&alert["data"]["percent"], &alert["data"]["remaining"]), (&json!(50), &json!(2)));
    for _ in 0..2 {
        ask(&key).assert_passed();
    }
    ask(&key).assert_refused(Reason::QuotaExhausted);
    for number in 0..5 {
        ask(&format!("nobody-has-the-key-number-{number}")).assert_refused(Reason::ApiKeyInvalid);
    }
    let failed = eventually("failures are told of", || events(&hook, "auth.failed").into_iter().next());
    assert_eq!(
        (&failed["data"]["api"], &failed["data"]["reason"]),
        (&json!("keyed"), &json!("api_key_invalid"))
    );
    assert_eq!((&failed["data"]["count"], &failed["data"]["addresses"]), (&json!(5), &json!(["127.0.0.1"])));
    let exceeded = eventually("limits are told of", || events(&hook, "limit.exceeded").into_iter().next());
    assert_eq!((&exceeded["data"]["identity"], &exceeded["data"]["count"]), (&json!("acme"), &json!(1)));
    assert!(events(&hook, "certificate.ending").iter().all(|event| event["data"]["certificate"].is_string()));
    let told: String =
        hook.received().iter().map(|received| String::from_utf8_lossy(&received.body).into_owned()).collect();
    let log = world.gateway.log();
    for secret in [&key, TOKEN, KEY, "nobody-has-the-key"] {
        assert!(!told.contains(secret) && !log.contains(secret), "{secret}");
    }
    let delivered =
        world.gateway.metric_sum("portcullis_webhook_deliveries_total", &["result=\"delivered\""]);
    assert!(delivered >= 4.0, "{delivered}");
}

/// An event that is not taken is tried again, comes under the same id, and nothing else waits for it.
#[test]
fn an_event_that_is_not_taken_is_tried_again() {
    let hook = Upstream::start();
    hook.behave(Manner::Says(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec()));
    let world = plan(&hook, ", kinds: [key.changed]").start();
    let key = make_key(&world);
    world.plain().get("/keyed/x").header("x-api-key", &key).send().assert_passed();
    eventually("it was tried", || (hook.hits() >= 2).then_some(()));
    hook.behave(Manner::Polite);
    eventually("it is delivered", || {
        let sum = world.gateway.metric_sum("portcullis_webhook_deliveries_total", &["result=\"delivered\""]);
        (sum >= 1.0).then_some(())
    });
    let ids: Vec<String> =
        hook.received().iter().map(|received| received.value("webhook-id").to_owned()).collect();
    assert!(ids.len() >= 3 && ids.iter().all(|id| *id == ids[0] && id.starts_with("msg_")), "{ids:?}");
    // Gone is gone: it is not tried again, and counted.
    hook.behave(Manner::Says(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_vec()));
    make_key(&world);
    eventually("it is lost", || {
        let sum = world.gateway.metric_sum("portcullis_webhook_deliveries_total", &["result=\"failed\""]);
        (sum >= 1.0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(hook.received().last().map(|received| received.value("webhook-id") != ids[0]), Some(true));
    assert!(world.gateway.log().contains("an event is lost"));
}

#[test]
fn check_says_what_is_wrong_with_a_webhook() {
    let hook = Upstream::start();
    let plan = plan(&hook, "");
    plan.write();
    let yaml = plan.gateway_yaml();
    let check = |yaml: &str| {
        plan.directory.write("gateway.yaml", yaml);
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stderr) + &text(&output.stdout))
    };
    assert!(check(&yaml).0, "{}", check(&yaml).1);
    for (written, instead, said) in [
        ("hook }, http_on_loopback: true", "hook }", "events are told with https only"),
        ("secret: { file: secrets/hook }", "secret: letmein", "a secret is written in the file"),
        ("secret: { file: secrets/hook }, ", "", "a webhook needs `secret`"),
        (
            "hook }, http_on_loopback: true",
            "hook }, http_on_loopback: true, kinds: [key.change]",
            "key.changed",
        ),
        ("hook }, http_on_loopback: true", "hook }, http_on_loopback: true, kinds: []", "must not be empty"),
        ("hook }, http_on_loopback: true", "hook }, http_on_loopback: true, kind: x", "unknown key `kind`"),
    ] {
        assert!(yaml.contains(written), "{written} in {yaml}");
        let (good, shown) = check(&yaml.replace(written, instead));
        assert!(!good && shown.contains(said), "{said} in\n{shown}");
    }
    plan.directory.write("secrets/hook", "short");
    let (good, shown) = check(&yaml);
    assert!(!good && shown.contains("24 bytes or more"), "{shown}");
}
