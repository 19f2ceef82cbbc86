//! Callers that are registered, changed and removed over the admin API while the gateway runs.

use std::sync::Arc;

use http::Method;
use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::client::{Answer, Client};
use crate::rig::eventually;
use crate::rig::gateway::{Gateway, portcullis};
use crate::rig::redis::Redis;
use crate::rig::world::{HOST, Plan};

const TOKEN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";

const ORDERS: &str = "\
api: orders
match: { host: api.bank.example, path: /orders/* }
upstream: accounts
authenticate: { any_of: [ { api_key: { header: x-api-key } }, { certificate: { registered: true } } ] }
allow:
  - { name: gold, paths: [/gold], when: client.attributes.tier == \"gold\" }
  - { name: everybody, paths: [/any] }
forward: { set: { x-client: \"{client.name}\" } }
";

const PLANNED: &str = "\
api: planned
match: { host: api.bank.example, path: /planned/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
plans: {}
allow:
  - { name: everything, paths: [\"/*\"] }
";

fn plan() -> Plan {
    let plan = Plan::new(&[ORDERS]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("secrets/admin-token", TOKEN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write("clients/partners.yaml", "clients:\n  declared: { attributes: { tier: gold } }\n");
    plan
}

fn tell(gateway: &Gateway, method: Method, path: &str, body: &Value) -> Answer {
    let call = gateway.admin_client().request(method, path).bearer(TOKEN);
    match body {
        Value::Null => call.send(),
        body => call.header("content-type", "application/json").body(body.to_string()).send(),
    }
}

#[track_caller]
fn register(gateway: &Gateway, body: &Value) {
    let answer = tell(gateway, Method::POST, "/v1/clients", body);
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn make_key(gateway: &Gateway, client: &str) -> String {
    let made = tell(gateway, Method::POST, &format!("/v1/clients/{client}/keys"), &json!({}));
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["key"].as_str().expect("a key").to_owned()
}

fn ask(gateway: &Gateway, path: &str, key: &str) -> Answer {
    let client = Client::plain(gateway.address("plain"), HOST);
    client.get(&format!("/orders/{path}")).header("x-api-key", key).send()
}

#[test]
fn a_client_is_registered_changed_and_removed() {
    let world = plan().start();
    let gateway = &world.gateway;
    register(gateway, &json!({ "name": "acme", "attributes": { "tier": "free" } }));
    let key = make_key(gateway, "acme");
    ask(gateway, "any", &key).assert_passed();
    assert_eq!(world.upstream().last().value("x-client"), "acme");
    ask(gateway, "gold", &key).assert_refused(Reason::AccessDenied);
    // Its key stays, and what it may do follows from what it is now.
    let path = "/v1/clients/acme";
    let changed = tell(gateway, Method::PATCH, path, &json!({ "attributes": { "tier": "gold" } }));
    assert_eq!((changed.status, &changed.json()["from"]), (200, &json!("registered")), "{}", changed.text());
    ask(gateway, "gold", &key).assert_passed();
    tell(gateway, Method::PATCH, path, &json!({ "disabled": true }));
    ask(gateway, "gold", &key).assert_refused(Reason::ClientInactive);
    tell(gateway, Method::PATCH, path, &json!({ "disabled": null, "expires": "2020-01-01" }));
    ask(gateway, "gold", &key).assert_refused(Reason::ClientInactive);
    tell(gateway, Method::PATCH, path, &json!({ "expires": null }));
    ask(gateway, "gold", &key).assert_passed();
    let shown = tell(gateway, Method::GET, "/v1/clients", &Value::Null).json();
    assert_eq!(
        shown["clients"],
        json!([
            { "name": "acme", "from": "registered", "attributes": { "tier": "gold" } },
            { "name": "declared", "from": "declared" },
        ])
    );
    // It is on disk when it is answered.
    let world = world.kill_and_restart();
    let gateway = &world.gateway;
    ask(gateway, "gold", &key).assert_passed();
    let removed = tell(gateway, Method::DELETE, path, &Value::Null);
    assert_eq!(removed.status, 200, "{}", removed.text());
    ask(gateway, "any", &key).assert_refused(Reason::ApiKeyInvalid);
    // Another one of the same name has none of its keys.
    register(gateway, &json!({ "name": "acme" }));
    ask(gateway, "any", &key).assert_refused(Reason::ApiKeyInvalid);
    let world = world.restart();
    ask(&world.gateway, "any", &key).assert_refused(Reason::ApiKeyInvalid);
    let log = world.gateway.log();
    assert!(!log.contains(&key) && !log.contains(TOKEN));
}

/// Whatever a client of the policy files can have: a key made elsewhere, a certificate, plans.
#[test]
fn a_registered_client_has_whatever_a_declared_one_can_have() {
    let plan = plan();
    plan.directory.write(
        "plans.yaml",
        "plans:\n  gold: { allow: { planned: all }, limits: [ { quota: 3 per day } ] }\n",
    );
    plan.directory.write("apis/planned.yaml", PLANNED);
    let world = plan.start();
    let gateway = &world.gateway;
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let made = portcullis(
        &["key", "create", "--declare", "--client", "acme", "--policies", &policies, "--format", "json"],
        &[],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let (key, hash) = (made["key"].as_str().expect("a key"), made["hash"].clone());
    let leaf = Arc::new(world.plan.third_parties.client("acme"));
    let record = json!({
        "name": "acme", "plans": ["gold"],
        "credentials": [ { "api_key": { "hash": hash } }, { "certificate": { "sha256": leaf.fingerprint() } } ],
    });
    register(gateway, &record);
    ask(gateway, "any", key).assert_passed();
    let by_certificate = |path: &str| world.stranger().certificate(&leaf).get(path).send();
    by_certificate("/orders/any").assert_passed();
    assert_eq!(world.upstream().last().value("x-client"), "acme");
    let planned = || world.plain().get("/planned/x").header("x-api-key", key).send();
    for _ in 0..3 {
        planned().assert_passed();
    }
    planned().assert_refused(Reason::QuotaExhausted);
    // What credentials are is not shown.
    let shown = tell(gateway, Method::GET, "/v1/clients/acme", &Value::Null);
    assert_eq!(shown.json()["credentials"], json!([{ "kind": "api_key" }, { "kind": "certificate" }]));
    assert!(!shown.text().contains(hash.as_str().expect("a hash")));
    tell(gateway, Method::PATCH, "/v1/clients/acme", &json!({ "credentials": null, "plans": null }));
    ask(gateway, "any", key).assert_refused(Reason::ApiKeyInvalid);
    assert_eq!(by_certificate("/orders/any").status, 401);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let world = plan().start();
    let gateway = &world.gateway;
    register(gateway, &json!({ "name": "acme" }));
    let key = make_key(gateway, "acme");
    let hash = tell(gateway, Method::GET, "/v1/config", &Value::Null).json()["hash"].clone();
    let long = "x".repeat(17_000);
    for (body, status, code, said) in [
        (json!({ "name": "acme" }), 409, "registered_already", "registered already"),
        (json!({ "name": "declared" }), 409, "declared_in_files", "is changed there"),
        (json!({ "name": "a", "plans": ["gold"] }), 422, "does_not_fit", "store/clients/a"),
        (json!({ "name": "a", "planns": [] }), 422, "does_not_fit", "did you mean `plans`?"),
        (json!({ "name": "a", "expires": "someday" }), 422, "does_not_fit", "not a day"),
        (json!({ "name": "" }), 422, "does_not_fit", "printable"),
        (json!({ "name": "a\nb" }), 422, "does_not_fit", "printable"),
        (
            json!({ "name": "a", "credentials": [{ "hmac": { "key_id": "k", "secret": "canary-canary" } }] }),
            422,
            "does_not_fit",
            "a secret is written",
        ),
        (
            json!({ "name": "a", "credentials": [{ "hmac": { "key_id": "k", "secret": { "file": "../../etc/hostname" } } }] }),
            422,
            "does_not_fit",
            "outside of the policy directory",
        ),
        (
            json!({ "name": "a", "credentials": [{ "jwt_key": { "kid": "k", "pem": "/etc/hostname" } }] }),
            422,
            "does_not_fit",
            "outside of the policy directory",
        ),
        (json!({ "name": "a", "attributes": { "long": long } }), 400, "unfit", "longer than"),
        (json!({ "plans": [] }), 400, "unfit", "name"),
        (json!([]), 400, "unfit", "1 to 1000"),
        (json!([{ "name": "b" }, { "name": "b" }]), 409, "registered_already", "`b`"),
        (
            json!([{ "name": "b" }, { "name": "c", "plans": ["none"] }]),
            422,
            "does_not_fit",
            "store/clients/c",
        ),
        (json!("acme"), 400, "unfit", "name"),
    ] {
        let answer = tell(gateway, Method::POST, "/v1/clients", &body);
        assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{body}: {}", answer.text());
        assert!(answer.text().contains(said), "{body}: {}", answer.text());
        assert!(!answer.text().contains("canary"), "{}", answer.text());
    }
    for (method, path, body, status) in [
        (Method::PATCH, "/v1/clients/nobody", json!({ "plans": [] }), 404),
        (Method::PATCH, "/v1/clients/declared", json!({ "disabled": true }), 409),
        (Method::PATCH, "/v1/clients/acme", json!({ "plans": ["none"] }), 422),
        (Method::PATCH, "/v1/clients/acme", json!([]), 400),
        (Method::DELETE, "/v1/clients/declared", Value::Null, 409),
        (Method::DELETE, "/v1/clients/nobody", Value::Null, 404),
        (Method::GET, "/v1/clients/nobody", Value::Null, 404),
    ] {
        let answer = tell(gateway, method.clone(), path, &body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    assert_eq!(tell(gateway, Method::GET, "/v1/config", &Value::Null).json()["hash"], hash);
    ask(gateway, "any", &key).assert_passed();
    let anybody = gateway.admin_client().post("/v1/clients", r#"{"name": "mallory"}"#).send();
    assert_eq!(anybody.status, 401);
    // Many at once, and one of the files that comes to have the name of a registered one: the file counts.
    let many: Vec<Value> = (0..300).map(|number| json!({ "name": format!("client-{number}") })).collect();
    register(gateway, &many.into());
    ask(gateway, "any", &make_key(gateway, "client-299")).assert_passed();
    world.plan.directory.write("clients/partners.yaml", "clients:\n  acme: { attributes: { tier: gold } }\n");
    eventually("the file counts", || (ask(gateway, "gold", &key).status == 200).then_some(()));
    assert_eq!(tell(gateway, Method::PATCH, "/v1/clients/acme", &json!({ "disabled": true })).status, 409);
    // What the store has of it may go; the client of the files and its keys stay.
    assert_eq!(tell(gateway, Method::DELETE, "/v1/clients/acme", &Value::Null).status, 200);
    assert_eq!(tell(gateway, Method::DELETE, "/v1/clients/acme", &Value::Null).status, 409);
    ask(gateway, "gold", &key).assert_passed();
}

/// What one gateway is told, the others that share its store know.
#[test]
fn a_client_is_registered_at_all_gateways() {
    let redis = Redis::start();
    let plan = plan();
    plan.directory.write("secrets/redis", redis.url());
    let store = "store: { redis: { url: { file: secrets/redis }, timeout: 2s } }";
    let yaml = plan.gateway_yaml().replace("store: { path: data/portcullis.redb }", store);
    plan.directory.write("gateway.yaml", yaml);
    let gateways = [Gateway::start(plan.directory.path()), Gateway::start(plan.directory.path())];
    register(&gateways[0], &json!({ "name": "acme", "attributes": { "tier": "gold" } }));
    eventually("the other one knows it", || {
        (tell(&gateways[1], Method::GET, "/v1/clients/acme", &Value::Null).status == 200).then_some(())
    });
    let key = eventually("a key of it can be made there", || {
        let made = tell(&gateways[1], Method::POST, "/v1/clients/acme/keys", &json!({}));
        (made.status == 201).then(|| made.json()["key"].as_str().expect("a key").to_owned())
    });
    for gateway in &gateways {
        eventually("it counts", || (ask(gateway, "gold", &key).status == 200).then_some(()));
    }
    assert_eq!(
        tell(&gateways[1], Method::PATCH, "/v1/clients/acme", &json!({ "attributes": {} })).status,
        200
    );
    eventually("it is less everywhere", || (ask(&gateways[0], "gold", &key).status == 403).then_some(()));
    assert_eq!(tell(&gateways[0], Method::DELETE, "/v1/clients/acme", &Value::Null).status, 200);
    for gateway in &gateways {
        eventually("it is nobody anywhere", || (ask(gateway, "any", &key).status == 401).then_some(()));
    }
}

#[test]
fn the_verb_looks_after_clients() {
    let world = plan().start();
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let admin = world.gateway.admin_address().to_string();
    let run = |arguments: &[&str]| {
        let all = [&["client"], arguments, &["--policies", &policies, "--admin", &admin]].concat();
        let output = portcullis(&all, &[]);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let (good, said) = run(&["create", "acme", "--attribute", "tier=gold", "--expires", "2099-06-30"]);
    assert!(good && said.contains("acme is registered"), "{said}");
    ask(&world.gateway, "gold", &make_key(&world.gateway, "acme")).assert_passed();
    let (good, said) = run(&["list"]);
    assert!(good && said.contains("acme      registered") && said.contains("declared  declared"), "{said}");
    let (good, said) = run(&["change", "acme", "--disabled", "--no-end"]);
    assert!(good && said.contains("disabled     true") && !said.contains("2099"), "{said}");
    let (good, said) = run(&["create", "other", "--plan", "none"]);
    assert!(!good && said.contains("422 does_not_fit"), "{said}");
    let (good, said) = run(&["remove", "acme"]);
    assert!(good && said.contains("nobody any more"), "{said}");
    let (good, said) = run(&["show", "acme"]);
    assert!(!good && said.contains("404 unknown_client"), "{said}");
}

/// A socket of the file system, which is for its owner alone and comes again after a crash.
#[test]
fn the_admin_api_listens_at_a_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = plan()
        .with(|plan| plan.admin = ", socket: data/admin.sock, token: { file: secrets/admin-token }")
        .start();
    let socket = world.plan.directory.join("data/admin.sock");
    let mode = || std::fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let second = portcullis(&["run", "--policies", &world.plan.directory.path().to_string_lossy()], &[]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("admin.sock is in use by another process"), "{said}");
    let world = world.kill_and_restart();
    assert_eq!(mode(), 0o600);
    // With the socket alone, the verbs find it.
    let yaml = world.plan.gateway_yaml().replace("admin: { address: 127.0.0.1:0, socket", "admin: { socket");
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let list = |yaml: &str| {
        world.plan.directory.write("gateway.yaml", yaml);
        let output = portcullis(&["client", "list", "--policies", &policies], &[]);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(list(&yaml).contains("declared  declared"), "{}", list(&yaml));
    world.plan.directory.write("data/file", "");
    assert!(list(&yaml.replace("admin.sock", "file")).contains("no gateway answers at"));
    let nothing = yaml.replace("socket: data/admin.sock, ", "");
    assert!(list(&nothing).contains("`admin` needs `address`, `socket` or both"), "{}", list(&nothing));
    let (status, log) = world.gateway.stop();
    assert!(status.success() && !socket.exists(), "{log}");
}
