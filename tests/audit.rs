//! The audit log: every change over the admin API is on the disk, in a chain that shows when somebody alters it.

use http::Method;
use portcullis_core::Reason;
use portcullis_jose::digest::sha256;
use serde_json::{Value, json};

use crate::rig::client::Answer;
use crate::rig::eventually;
use crate::rig::gateway::{Gateway, portcullis};
use crate::rig::world::{Plan, World};

const ADMIN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";

const KEYED: &str = "\
api: keyed
match: { host: api.bank.example, path: /keyed/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow: [ { name: anything, paths: [\"/*\"] } ]
";

fn plan() -> Plan {
    let plan = Plan::new(&[KEYED]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.issuer = "    revoked: { push: true }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }, audit: data/audit.jsonl";
    });
    plan.directory.write("secrets/admin-token", ADMIN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n");
    plan
}

fn call(gateway: &Gateway, method: Method, path: &str, body: &Value) -> Answer {
    let call = gateway.admin_client().request(method, path).bearer(ADMIN);
    call.header("content-type", "application/json").body(body.to_string()).send()
}

fn lines(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.plan.directory.join("data/audit.jsonl")).expect("the log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// `action`, `of` and `outcome` of each line.
fn told(world: &World) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines(world)
        .iter()
        .map(|line| (text(&line["action"]), text(&line["of"]), text(&line["outcome"])))
        .collect()
}

fn verify(world: &World, more: &[&str]) -> (Option<i32>, String) {
    let path = world.plan.directory.join("data/audit.jsonl").to_string_lossy().into_owned();
    let output = portcullis(&[&["audit", "verify", &path], more].concat(), &[]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_change_is_a_link_of_a_chain() {
    let world = plan().start();
    let made = call(&world.gateway, Method::POST, "/v1/clients/acme/keys", &json!({ "name": "mobile" }));
    assert_eq!(made.status, 201, "{}", made.text());
    let (id, key) = (made.json()["id"].as_str().expect("an id").to_owned(), made.json()["key"].clone());
    let key = key.as_str().expect("a key").to_owned();
    let of = |id: &str| format!("/v1/clients/acme/keys/{id}");
    assert_eq!(call(&world.gateway, Method::PATCH, &of(&id), &json!({ "disabled": true })).status, 200);
    assert_eq!(call(&world.gateway, Method::DELETE, &of(&key), &json!({})).status, 404);
    assert_eq!(call(&world.gateway, Method::DELETE, &of(&id), &json!({})).status, 204);
    let revoked = "/v1/issuers/bank-idp/revoked-tokens";
    for status in [201, 200] {
        assert_eq!(call(&world.gateway, Method::POST, revoked, &json!({ "sub": "alice" })).status, status);
    }
    let key_of = format!("acme/{id}");
    let expected = [
        ("API key made", "", "asked"),
        ("API key made", "acme", "made"),
        ("API key changed", "", "asked"),
        ("API key changed", &key_of, "made"),
        ("API key revoked", "", "asked"),
        ("API key revoked", "", "refused"),
        ("API key revoked", "", "asked"),
        ("API key revoked", &key_of, "made"),
        ("tokens revoked", "", "asked"),
        ("tokens revoked", "bank-idp", "made"),
        ("tokens revoked", "", "asked"),
        ("tokens revoked", "bank-idp", "unchanged"),
    ];
    let expected =
        expected.map(|(action, of, outcome)| (action.to_owned(), of.to_owned(), outcome.to_owned()));
    assert_eq!(told(&world), expected);
    let text = std::fs::read_to_string(world.plan.directory.join("data/audit.jsonl")).expect("the log");
    for secret in [&*key, ADMIN, "pepper-pepper"] {
        assert!(!text.contains(secret), "{secret}");
    }
    let (code, said) = verify(&world, &[]);
    assert!(code == Some(0) && said.starts_with("12 lines, whole; the last one is "), "{said}");
    // It goes on after a restart, and after one that nobody wished for.
    let world = world.kill_and_restart();
    assert_eq!(call(&world.gateway, Method::POST, revoked, &json!({ "sub": "bob" })).status, 201);
    let (code, said) = verify(&world, &["--format", "json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["whole"], &said["lines"]), (Some(0), &json!(true), &json!(14)), "{said}");
    // Whoever has changed it is found out, and nothing is added to what they left.
    let path = world.plan.directory.join("data/audit.jsonl");
    let changed = std::fs::read_to_string(&path).expect("text").replacen("alice", "alive", 1);
    let World { plan, gateway, .. } = world;
    let (status, log) = gateway.stop();
    assert!(status.success(), "{log}");
    std::fs::write(&path, changed).expect("written");
    let output = portcullis(&["audit", "verify", &path.to_string_lossy()], &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("audit.jsonl:11: the line before this one is not the one that was written"),
        "{said}"
    );
    let output = portcullis(&["run", "--policies", &plan.directory.path().to_string_lossy()], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the audit log: ") && said.contains(":11: "), "{said}");
}

/// What cannot be written down gives nothing; what takes something away is made all the same.
#[test]
fn a_full_disk_gives_nothing_and_takes_all_the_same() {
    let world = plan().start();
    let made = call(&world.gateway, Method::POST, "/v1/clients/acme/keys", &json!({}));
    let (id, key) = (made.json()["id"].clone(), made.json()["key"].clone());
    let (id, key) = (id.as_str().expect("an id"), key.as_str().expect("a key"));
    let World { plan, gateway, .. } = world;
    let (status, log) = gateway.stop();
    assert!(status.success(), "{log}");
    let world = plan.start_with_full_disk();
    let refused = call(&world.gateway, Method::POST, "/v1/clients/acme/keys", &json!({}));
    assert_eq!((refused.status, refused.code()), (503, "audit_unavailable".to_owned()), "{}", refused.text());
    let ask = || world.plain().get("/keyed/x").header("x-api-key", key).send();
    ask().assert_passed();
    let taken = call(&world.gateway, Method::DELETE, &format!("/v1/clients/acme/keys/{id}"), &json!({}));
    assert_eq!((taken.status, taken.code()), (503, "in_force_not_kept".to_owned()), "{}", taken.text());
    ask().assert_refused(Reason::ApiKeyInvalid);
    world.gateway.disk_is_full(false);
    eventually("it is kept", || {
        let taken = call(&world.gateway, Method::DELETE, &format!("/v1/clients/acme/keys/{id}"), &json!({}));
        [204, 404].contains(&taken.status).then_some(())
    });
    let (code, said) = verify(&world, &[]);
    assert_eq!(code, Some(0), "{said}");
}

/// Whoever is refused before anything is tried is in it, too; but nobody can fill the disk by being refused.
#[test]
fn calls_that_are_refused_are_written_down_and_cannot_fill_the_disk() {
    let world = plan().start();
    let keys = "/v1/clients/acme/keys";
    let stranger = |method: Method| {
        let call = world.gateway.admin_client().request(method, keys).bearer("not-the-token");
        call.header("content-type", "application/json").body("{}").send()
    };
    assert_eq!(stranger(Method::GET).status, 401);
    assert_eq!(told(&world), [], "who only looks changes nothing");
    let form = world.gateway.admin_client().request(Method::POST, keys).bearer(ADMIN);
    let form = form.header("content-type", "text/plain").body("{}").send();
    assert_eq!((form.status, form.code()), (415, "not_json".to_owned()));
    assert_eq!(call(&world.gateway, Method::POST, keys, &json!({ "nmae": "x" })).status, 400);
    for _ in 0..25 {
        assert_eq!(stranger(Method::POST).status, 401);
    }
    let all = lines(&world);
    let why = |line: &Value| line["what"].as_str().expect("why").to_owned();
    let expected = ["not_json", "unfit"].into_iter().chain(["admin_token_wrong"; 10]);
    assert_eq!(all.iter().map(why).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for line in &all {
        assert_eq!(line["action"], "call refused");
        assert_eq!(line["of"], "POST /v1/clients/{client}/keys");
        assert_eq!(line["outcome"], "refused");
    }
    let text = std::fs::read_to_string(world.plan.directory.join("data/audit.jsonl")).expect("the log");
    assert!(!text.contains("not-the-token"), "{text}");
    // Whoever has the token is written down all the same.
    assert_eq!(call(&world.gateway, Method::POST, keys, &json!({})).status, 201);
    assert_eq!(lines(&world).len(), all.len() + 2);
    let (code, said) = verify(&world, &[]);
    assert_eq!(code, Some(0), "{said}");
}

/// A log that can grow no more, beside a store that can: what is taken away is in force and kept, and whoever asked is told
/// that it is not written down.
#[test]
fn what_is_taken_and_not_written_down_is_told() {
    let plan = plan();
    let mut chain = String::new();
    let mut previous = "0".repeat(64);
    for seq in 1..=80 {
        let line = json!({
            "seq": seq, "ts": "2026-01-01T00:00:00.000Z", "action": "API key made", "what": "x".repeat(100_000),
            "outcome": "made", "previous": previous,
        })
        .to_string();
        previous = sha256(line.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        chain += &line;
        chain.push('\n');
    }
    plan.directory.write("data/audit.jsonl", &chain);
    plan.write();
    let gateway = Gateway::start_with_small_disk(plan.directory.path());
    let made = call(&gateway, Method::POST, "/v1/clients/acme/keys", &json!({}));
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let path = plan.directory.join("data/audit.jsonl");
    gateway.files_end_at(std::fs::metadata(&path).expect("the log").len());
    let refused = call(&gateway, Method::POST, "/v1/clients/acme/keys", &json!({}));
    assert_eq!((refused.status, refused.code()), (503, "audit_unavailable".to_owned()), "{}", refused.text());
    let of = format!("/v1/clients/acme/keys/{id}");
    let taken = call(&gateway, Method::DELETE, &of, &json!({}));
    assert_eq!(
        (taken.status, taken.code()),
        (503, "in_force_not_written_down".to_owned()),
        "{}",
        taken.text()
    );
    assert_eq!(call(&gateway, Method::GET, &of, &json!({})).status, 404, "it is gone");
    assert!(gateway.log().contains("the audit log cannot be written"), "{}", gateway.log());
    gateway.files_end_at(u64::from(u32::MAX));
    assert_eq!(call(&gateway, Method::POST, "/v1/clients/acme/keys", &json!({})).status, 201);
    let output = portcullis(&["audit", "verify", &path.to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(0));
}

/// The verb finds the file by the policies, and says with its exit code what it has found.
#[test]
fn the_verb_finds_the_file_and_tells_broken_from_unreadable() {
    let world = plan().start();
    assert_eq!(call(&world.gateway, Method::POST, "/v1/clients/acme/keys", &json!({})).status, 201);
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let output = portcullis(&["audit", "verify", "--policies", &policies], &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with("2 lines, whole"), "{said}");
    let missing = world.plan.directory.join("data/none.jsonl");
    let output = portcullis(&["audit", "verify", &missing.to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(2));
    std::fs::write(&missing, "{}\n").expect("written");
    let output = portcullis(&["audit", "verify", &missing.to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(1));
}
