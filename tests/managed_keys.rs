//! API keys that are made, rotated, changed and revoked over the admin API while the gateway runs (KEY-02, D10).

use http::Method;
use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::client::Answer;
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::world::{Plan, World};

const TOKEN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";
const KEYS: &str = "/v1/clients/acme/keys";

const ORDERS: &str = "\
api: orders
match: { host: api.bank.example, path: /orders/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow:
  - { name: gold, paths: [\"/*\"], when: client.attributes.tier == \"gold\" }
forward:
  set: { x-client-id: \"{identity.name}\", x-key-id: \"{identity.key_id}\" }
";

const INVOICES: &str = "\
api: invoices
match: { host: api.bank.example, path: /invoices/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow:
  - { name: anybody known, paths: [\"/*\"] }
";

fn plan() -> Plan {
    let plan = Plan::new(&[ORDERS, INVOICES]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper }, keep_expired: 0s }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("secrets/admin-token", TOKEN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write(
        "clients/partners.yaml",
        "clients:
  acme: { attributes: { tier: gold } }
  initech: { attributes: { tier: free } }
  globex: { expires: 2020-01-01 }
",
    );
    plan
}

fn call(world: &World, method: Method, path: &str, body: &Value) -> Answer {
    let call = world.gateway.admin_client().request(method, path).bearer(TOKEN);
    match body {
        Value::Null => call.send(),
        body => call.header("content-type", "application/json").body(body.to_string()).send(),
    }
}

/// Makes a key: its id, and itself.
#[track_caller]
fn make(world: &World, path: &str, body: &Value) -> (String, String) {
    let answer = call(world, Method::POST, path, body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = answer.json();
    let text = |member: &str| made.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("id"), text("key"))
}

fn ask(world: &World, path: &str, key: &str) -> Answer {
    world.plain().get(path).header("x-api-key", key).send()
}

#[test]
fn a_key_counts_at_once_and_through_whatever_ends_the_process() {
    let world = plan().start();
    let (id, key) = make(&world, KEYS, &json!({"name": "mobile-2027"}));
    assert!(key.starts_with("pc_"), "a key of our form, with a checksum");
    ask(&world, "/orders/1", &key).assert_passed();
    let received = world.upstream().last();
    assert_eq!((received.value("x-client-id"), received.value("x-key-id")), ("acme", "mobile-2027"));
    let shown = call(&world, Method::GET, &format!("{KEYS}/{id}"), &Value::Null);
    assert!(!shown.text().contains(&key) && !shown.text().contains("pk1:"), "{}", shown.text());
    assert_eq!(shown.json()["name"], "mobile-2027");
    let used = shown.json()["last_used"].as_str().expect("it was used").to_owned();
    let world = world.kill_and_restart();
    ask(&world, "/orders/1", &key).assert_passed();
    let world = world.restart();
    let shown = call(&world, Method::GET, KEYS, &Value::Null).json();
    assert_eq!(shown["keys"].as_array().map(Vec::len), Some(1));
    assert!(shown["keys"][0]["last_used"].as_str().expect("it is remembered") >= used.as_str());
    ask(&world, "/orders/1", &key).assert_passed();
    // Revoked, it is gone from everywhere.
    assert_eq!(call(&world, Method::DELETE, &format!("{KEYS}/{id}"), &Value::Null).status, 204);
    ask(&world, "/orders/1", &key).assert_refused(Reason::ApiKeyInvalid);
    let world = world.kill_and_restart();
    ask(&world, "/orders/1", &key).assert_refused(Reason::ApiKeyInvalid);
    assert_eq!(call(&world, Method::GET, KEYS, &Value::Null).json()["keys"], json!([]));
    let written = world.gateway.log() + &world.gateway.output();
    assert!(!written.contains(&key) && !written.contains(TOKEN), "a secret is in the log");
    let store = std::fs::read(world.plan.directory.join("data/portcullis.redb")).expect("the store");
    assert!(!store.windows(key.len()).any(|part| part == key.as_bytes()), "the key is in the store");
}

/// D10: two live secrets, an overlap, and then one.
#[test]
fn a_rotated_key_counts_for_the_overlap_and_its_successor_from_now_on() {
    let world = plan().start();
    let (id, old) = make(&world, KEYS, &json!({"apis": ["orders"]}));
    let rotate = |overlap: &str| {
        call(&world, Method::POST, &format!("{KEYS}/{id}/rotate"), &json!({ "overlap": overlap }))
    };
    for (overlap, code) in [("91d", "unfit"), ("soon", "unfit")] {
        let answer = rotate(overlap);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)), "{overlap}");
    }
    let (new_id, new) = make(&world, &format!("{KEYS}/{id}/rotate"), &json!({"overlap": "5s"}));
    ask(&world, "/orders/1", &old).assert_passed();
    ask(&world, "/orders/1", &new).assert_passed();
    // On the terms of the one before.
    ask(&world, "/invoices/1", &new).assert_refused(Reason::ApiKeyInvalid);
    let again = rotate("1h");
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("rotated_already")));
    let shown = call(&world, Method::GET, &format!("{KEYS}/{id}"), &Value::Null).json();
    assert_eq!(shown["replaced_by"].as_str(), Some(&*new_id));
    eventually("the old key ends", || (ask(&world, "/orders/1", &old).status == 401).then_some(()));
    ask(&world, "/orders/1", &new).assert_passed();
    // What is over is removed from the store as well, with nobody asking.
    eventually("the old key is gone", || {
        (call(&world, Method::GET, &format!("{KEYS}/{id}"), &Value::Null).status == 404).then_some(())
    });
    let world = world.restart();
    ask(&world, "/orders/1", &new).assert_passed();
    ask(&world, "/orders/1", &old).assert_refused(Reason::ApiKeyInvalid);
}

#[test]
fn a_key_counts_when_and_where_it_was_said() {
    let world = plan().start();
    let (_, later) = make(&world, KEYS, &json!({"not_before": "2100-01-01"}));
    ask(&world, "/orders/1", &later).assert_refused(Reason::ApiKeyInvalid);
    let (_, elsewhere) = make(&world, KEYS, &json!({"from": ["192.0.2.0/24"]}));
    ask(&world, "/orders/1", &elsewhere).assert_refused(Reason::ApiKeyInvalid);
    let (_, here) = make(&world, KEYS, &json!({"from": ["127.0.0.0/8"], "apis": ["invoices", "orders"]}));
    ask(&world, "/orders/1", &here).assert_passed();
    let (id, key) = make(&world, KEYS, &json!({"expires": "2100-01-01T00:00:00Z"}));
    let alter = |change: Value| call(&world, Method::PATCH, &format!("{KEYS}/{id}"), &change);
    assert_eq!(alter(json!({"disabled": true})).json()["disabled"], true);
    ask(&world, "/orders/1", &key).assert_refused(Reason::ApiKeyInvalid);
    assert_eq!(alter(json!({"disabled": false})).status, 200);
    ask(&world, "/orders/1", &key).assert_passed();
    let answer = alter(json!({"disabled": "yes"}));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("unfit")));
    // The rules and the registration of the client hold for every key of it.
    let (_, free) = make(&world, "/v1/clients/initech/keys", &Value::Null);
    ask(&world, "/orders/1", &free).assert_refused(Reason::AccessDenied);
    ask(&world, "/invoices/1", &free).assert_passed();
    let (_, ended) = make(&world, "/v1/clients/globex/keys", &Value::Null);
    ask(&world, "/invoices/1", &ended).assert_refused(Reason::ClientInactive);
    // B4: a value somebody else has made.
    let value = "EXAMPLE-token-of-the-old-gateway";
    let (_, same) = make(&world, KEYS, &json!({ "value": value }));
    assert_eq!(same, value);
    ask(&world, "/orders/1", value).assert_passed();
    let taken = call(&world, Method::POST, "/v1/clients/initech/keys", &json!({ "value": value }));
    assert_eq!((taken.status, taken.json()["code"].as_str()), (409, Some("value_taken")));
}

/// Every body that makes no sense: nothing is made of it.
#[test]
fn what_makes_no_sense_makes_no_key() {
    let world = plan().start();
    make(&world, KEYS, &json!({"name": "first"}));
    for (body, status, code) in [
        (json!({"name": "first"}), 409, "name_taken"),
        (json!({"name": ""}), 400, "unfit"),
        (json!({"name": "a "}), 400, "unfit"),
        (json!({"name": format!("pc_{}", "a".repeat(49))}), 400, "unfit"),
        (json!({"name": "a\nb"}), 400, "unfit"),
        (json!({"name": "a".repeat(65)}), 400, "unfit"),
        (json!({"name": 1}), 400, "unfit"),
        (json!({"nam": "x"}), 400, "unfit"),
        (json!([]), 400, "unfit"),
        (json!({"expires": "2020-01-01"}), 400, "unfit"),
        (json!({"expires": "soon"}), 400, "unfit"),
        (json!({"not_before": "2100-01-02", "expires": "2100-01-01"}), 400, "unfit"),
        (json!({"apis": ["none"]}), 400, "unknown_api"),
        (json!({"apis": []}), 400, "unfit"),
        (json!({"from": []}), 400, "unfit"),
        (json!({"from": ["192.0.2.1/24"]}), 400, "unfit"),
        (json!({"value": "short"}), 400, "unfit"),
        (json!({"value": "a b c d e f g h i j k l m n"}), 400, "unfit"),
        (json!({"value": "x".repeat(513)}), 400, "unfit"),
        (json!({"value": format!("pc_{}", "a".repeat(49))}), 400, "unfit"),
        (json!({"value": "EXAMPLE-0123456789-0123", "name": "EXAMPLE-0123456789-0123"}), 400, "unfit"),
    ] {
        let answer = call(&world, Method::POST, KEYS, &body);
        let said = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
        assert_eq!(said, (status, Some(code.to_owned())), "{body}: {}", answer.text());
    }
    for (method, path, code) in [
        (Method::POST, "/v1/clients/nobody/keys", "unknown_client"),
        (Method::GET, "/v1/clients/nobody/keys", "unknown_client"),
        (Method::GET, "/v1/clients/acme/keys/none", "unknown_key"),
        (Method::DELETE, "/v1/clients/acme/keys/none", "unknown_key"),
        (Method::PATCH, "/v1/clients/acme/keys/none", "unknown_key"),
        (Method::POST, "/v1/clients/acme/keys/none/rotate", "unknown_key"),
    ] {
        let answer = call(&world, method.clone(), path, &Value::Null);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some(code)), "{method} {path}");
    }
    let stranger = world.gateway.admin_client().request(Method::POST, KEYS).send();
    assert_eq!(stranger.status, 401);
    assert_eq!(
        call(&world, Method::GET, KEYS, &Value::Null).json()["keys"].as_array().map(Vec::len),
        Some(1)
    );
}

/// A client that is taken out of the policies takes its keys out of use, not out of the store.
#[test]
fn keys_of_a_client_that_is_gone_count_no_more() {
    let world = plan().start();
    let (_, key) = make(&world, "/v1/clients/initech/keys", &Value::Null);
    ask(&world, "/invoices/1", &key).assert_passed();
    world.plan.directory.write("clients/partners.yaml", "clients:\n  acme: { attributes: { tier: gold } }\n");
    let world = world.restart();
    ask(&world, "/invoices/1", &key).assert_refused(Reason::ApiKeyInvalid);
    world.plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n  initech: {}\n");
    let world = world.restart();
    ask(&world, "/invoices/1", &key).assert_passed();
}

/// No key is handed out that is not kept.
#[test]
fn on_a_full_disk_no_key_is_made() {
    let world = plan().start_with_full_disk();
    let value = "EXAMPLE-token-of-the-old-gateway";
    let answer = call(&world, Method::POST, KEYS, &json!({ "value": value }));
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("store_unavailable")),
        "{}",
        answer.text()
    );
    ask(&world, "/orders/1", value).assert_refused(Reason::ApiKeyInvalid);
    assert_eq!(call(&world, Method::GET, KEYS, &Value::Null).json()["keys"], json!([]));
}

/// What takes something away does so whatever the disk says, and is kept as soon as that is possible.
#[test]
fn on_a_full_disk_a_key_is_revoked_and_none_is_enabled() {
    let world = plan().start_with_full_disk();
    world.gateway.disk_is_full(false);
    let (leaked, leaked_key) = make(&world, KEYS, &json!({"name": "leaked"}));
    let (lent, lent_key) = make(&world, KEYS, &json!({"name": "lent"}));
    let (off, off_key) = make(&world, KEYS, &json!({"name": "off"}));
    let one = |id: &str| format!("{KEYS}/{id}");
    assert_eq!(call(&world, Method::PATCH, &one(&off), &json!({"disabled": true})).status, 200);
    world.gateway.disk_is_full(true);
    let revoke = || call(&world, Method::DELETE, &one(&leaked), &Value::Null);
    let disable = call(&world, Method::PATCH, &one(&lent), &json!({"disabled": true}));
    for (answer, expected) in [
        (revoke(), "in_force_not_kept"),
        (revoke(), "in_force_not_kept"),
        (disable, "in_force_not_kept"),
        (call(&world, Method::PATCH, &one(&off), &json!({"disabled": false})), "store_unavailable"),
        (call(&world, Method::POST, &format!("{}/rotate", one(&lent)), &Value::Null), "not_in_force"),
    ] {
        assert_eq!(answer.json()["code"].as_str(), Some(expected), "{}", answer.text());
    }
    for key in [&leaked_key, &lent_key, &off_key] {
        ask(&world, "/orders/1", key).assert_refused(Reason::ApiKeyInvalid);
    }
    world.gateway.disk_is_full(false);
    eventually("it is kept", || (revoke().status != 503).then_some(()));
    let world = world.kill_and_restart();
    for key in [&leaked_key, &lent_key, &off_key] {
        ask(&world, "/orders/1", key).assert_refused(Reason::ApiKeyInvalid);
    }
    let list = call(&world, Method::GET, KEYS, &Value::Null).json();
    assert_eq!(list["keys"].as_array().map(Vec::len), Some(2), "{list}");
}

/// A rotation gives nobody more than the key gave, and what it leaves of the key can only become less.
#[test]
fn a_rotation_goes_on_with_the_terms_and_extends_nothing() {
    let world = plan().start();
    let (id, old) = make(&world, KEYS, &json!({"expires": "2100-01-01"}));
    let (new_id, new) = make(&world, &format!("{KEYS}/{id}/rotate"), &json!({"expires": "2101-01-01"}));
    let shown = |id: &str| call(&world, Method::GET, &format!("{KEYS}/{id}"), &Value::Null).json();
    assert_eq!(
        (shown(&new_id)["expires"].as_str(), shown(&new_id)["state"].as_str()),
        (Some("2101-01-01T00:00:00Z"), Some("in_force"))
    );
    let alter = |id: &str, change: Value| call(&world, Method::PATCH, &format!("{KEYS}/{id}"), &change);
    let longer = alter(&id, json!({"expires": "2100-01-01"}));
    assert_eq!((longer.status, longer.json()["code"].as_str()), (409, Some("rotated_already")));
    assert_eq!(alter(&id, json!({"disabled": true})).json()["state"], "disabled");
    ask(&world, "/orders/1", &old).assert_refused(Reason::ApiKeyInvalid);
    ask(&world, "/orders/1", &new).assert_passed();
    assert_eq!(alter(&id, json!({"disabled": false})).status, 409, "it stays less");
    // A key that is not in force has nothing to go on with.
    assert_eq!(alter(&new_id, json!({"disabled": true})).status, 200);
    let rotated = call(&world, Method::POST, &format!("{KEYS}/{new_id}/rotate"), &Value::Null);
    assert_eq!((rotated.status, rotated.json()["code"].as_str()), (409, Some("not_in_force")));
    // One that does not count yet is followed by one that does not count yet.
    let (later, _) = make(&world, KEYS, &json!({"not_before": "2100-01-01"}));
    let (_, next) = make(&world, &format!("{KEYS}/{later}/rotate"), &Value::Null);
    ask(&world, "/orders/1", &next).assert_refused(Reason::ApiKeyInvalid);
}

/// The log says what was changed, and never a key, wherever somebody put it.
#[test]
fn every_change_is_a_line_in_the_log_and_no_key_is() {
    let world = plan().start();
    let (id, key) = make(&world, KEYS, &json!({"name": "mobile 2027"}));
    for (method, path) in [(Method::DELETE, ""), (Method::PATCH, ""), (Method::POST, "/rotate")] {
        assert_eq!(call(&world, method, &format!("{KEYS}/{key}{path}"), &Value::Null).status, 404);
    }
    assert_eq!(call(&world, Method::GET, &format!("/v1/clients/{key}/keys"), &Value::Null).status, 404);
    let (next, _) = make(&world, &format!("{KEYS}/{id}/rotate"), &Value::Null);
    let change = |body: Value| call(&world, Method::PATCH, &format!("{KEYS}/{next}"), &body);
    assert_eq!(change(json!({"disabled": true})).status, 200);
    let lines = || world.gateway.log().lines().filter(|line| line.contains("\"changed over")).count();
    assert_eq!(lines(), 3);
    assert_eq!(change(json!({"disabled": true})).status, 200);
    assert_eq!(lines(), 3, "nothing is other than it was");
    let log = world.gateway.log();
    for said in [&id, "mobile 2027", &format!("its successor is {next}"), "disabled: true"] {
        assert!(log.contains(said), "{said} in {log}");
    }
    assert!(!(log + &world.gateway.output()).contains(&key));
    // What nobody here was asked is told in the same form.
    for (method, path, status, code) in [
        (Method::GET, "/v2", 404, "no_such_path"),
        (Method::PUT, KEYS, 405, "no_such_method"),
        (Method::GET, "/v1/clients/%ff/keys", 400, "unfit"),
    ] {
        let answer = call(&world, method, path, &Value::Null);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{path}");
    }
}

/// The verbs of the command line, as somebody uses them one after the other.
#[test]
fn the_verbs_make_and_look_after_keys() {
    let world = plan().start();
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let address = world.gateway.admin_address().to_string();
    let run = |verb: &[&str]| {
        let mut arguments = [&["key"], verb, &["--client", "acme", "--policies", &policies]].concat();
        if !verb.contains(&"--admin") {
            arguments.extend(["--admin", &address]);
        }
        let output = portcullis(&arguments, &[]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let json = |verb: &[&str]| {
        let (code, said, complaint) = run(&[verb, &["--format", "json"]].concat());
        assert_eq!(code, Some(0), "{verb:?}: {complaint}");
        serde_json::from_str::<Value>(&said).expect("JSON")
    };
    let made = json(&["create", "--name", "mobile", "--api", "orders"]);
    let (id, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    ask(&world, "/orders/1", key).assert_passed();
    ask(&world, "/invoices/1", key).assert_refused(Reason::ApiKeyInvalid);
    let (_, list, _) = run(&["list"]);
    assert!(list.starts_with("ID ") && list.contains(id) && list.contains("mobile"), "{list}");
    assert!(!list.contains(key), "{list}");
    assert_eq!(json(&["show", id])["apis"], json!(["orders"]));
    let (code, said, _) = run(&["rotate", id, "--overlap", "1h"]);
    let new = said.lines().next().expect("a key").to_owned();
    assert!(code == Some(0) && said.ends_with("The old one counts for 1h longer at most.\n"), "{said}");
    ask(&world, "/orders/1", key).assert_passed();
    ask(&world, "/orders/1", &new).assert_passed();
    assert_eq!(run(&["revoke", id]).1, format!("{id} counts no more\n"));
    ask(&world, "/orders/1", key).assert_refused(Reason::ApiKeyInvalid);
    ask(&world, "/orders/1", &new).assert_passed();
    let (code, _, complaint) = run(&["revoke", id]);
    assert!(code == Some(1) && complaint.contains("404 unknown_key: no key of this client"), "{complaint}");
    let (code, _, complaint) = run(&["revoke", &new]);
    assert!(code == Some(1) && complaint.contains("16 hexadecimal digits") && !complaint.contains(&new));
    let (code, _, complaint) = run(&["list", "--admin", "192.0.2.1:9901"]);
    assert!(code == Some(2) && complaint.contains("an address of this machine"), "{complaint}");
    let (code, _, complaint) = run(&["create", "--name", "a", "--expires", "2020-01-01"]);
    assert!(code == Some(1) && complaint.contains("would end before it begins"), "{complaint}");
    let nobody = portcullis(
        &["key", "list", "--client", "acme", "--policies", &policies, "--admin", "127.0.0.1:1"],
        &[],
    );
    let complaint = String::from_utf8_lossy(&nobody.stderr);
    assert!(complaint.contains("no gateway answers at 127.0.0.1:1"), "{complaint}");
}

/// Many at once: each is made once, none is lost.
#[test]
fn keys_that_are_made_at_the_same_time_are_all_there() {
    let world = plan().start();
    let made: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..5).map(|_| make(&world, KEYS, &Value::Null).1).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("keys")).collect()
    });
    let world = world.kill_and_restart();
    for key in &made {
        ask(&world, "/orders/1", key).assert_passed();
    }
    assert_eq!(made.len(), 40);
    let held = world.gateway.metric_sum("portcullis_managed_api_keys", &[]);
    assert!((held - 40.0).abs() < f64::EPSILON, "{held}");
}
