//! What the admin API says of itself is what it does.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::rig::gateway::portcullis;
use crate::rig::interop;
use crate::rig::world::{Plan, World};

const ADMIN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";

const KEYED: &str = "\
api: keyed
match: { host: api.bank.example, path: /keyed/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow: [ { name: anything, paths: [\"/*\"] } ]
";

fn start() -> World {
    let plan = Plan::new(&[KEYED]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.issuer = "    revoked: { push: true }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }, audit: data/audit.jsonl";
    });
    plan.directory.write("secrets/admin-token", ADMIN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n");
    plan.start()
}

fn document(world: &World) -> Value {
    let answer = world.gateway.admin("/v1/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

/// Method and path of every operation, with a mark on those that need the token.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, item): (&String, &Value)| {
        let of = |(method, operation): (&String, &Value)| {
            let mark = if operation["security"].is_array() { " with the token" } else { "" };
            format!("{method} {path}{mark}")
        };
        item.as_object().expect("operations").iter().map(of).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

#[test]
fn every_endpoint_is_in_the_document_and_asks_for_the_token_as_it_says() {
    let world = start();
    let document = document(&world);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    assert_eq!(document["components"]["securitySchemes"]["admin_token"]["scheme"], "bearer");
    let expected = [
        "get /livez",
        "get /readyz",
        "get /metrics",
        "get /v1/openapi.json",
        "get /v1/denials with the token",
        "get /v1/denials/{request_id} with the token",
        "get /v1/issuers with the token",
        "post /v1/issuers/{issuer}/refresh with the token",
        "get /v1/certificates with the token",
        "get /v1/limits with the token",
        "get /v1/plans with the token",
        "get /v1/usage with the token",
        "get /v1/config with the token",
        "post /v1/reload with the token",
        "post /v1/drain with the token",
        "get /v1/clients with the token",
        "post /v1/clients with the token",
        "get /v1/clients/{client} with the token",
        "patch /v1/clients/{client} with the token",
        "delete /v1/clients/{client} with the token",
        "get /v1/clients/{client}/keys with the token",
        "post /v1/clients/{client}/keys with the token",
        "get /v1/clients/{client}/keys/{id} with the token",
        "patch /v1/clients/{client}/keys/{id} with the token",
        "delete /v1/clients/{client}/keys/{id} with the token",
        "post /v1/clients/{client}/keys/{id}/rotate with the token",
        "get /v1/issuers/{issuer}/revoked-tokens with the token",
        "post /v1/issuers/{issuer}/revoked-tokens with the token",
        "delete /v1/issuers/{issuer}/revoked-tokens with the token",
        "delete /v1/issuers/{issuer}/revoked-tokens/{id} with the token",
    ];
    let found = operations(&document);
    assert_eq!(found, expected.iter().map(|&one| one.to_owned()).collect());
    for one in &found {
        let mut words = one.split(' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let method = method.to_uppercase().parse().expect("a method");
        let answer = world.gateway.admin_client().request(method, &path.replace(['{', '}'], "")).send();
        assert_eq!(answer.status == 401, one.ends_with("with the token"), "{one}: {}", answer.status);
    }
    let text = document.to_string();
    for secret in [ADMIN, "pepper-pepper", "acme", "bank-idp"] {
        assert!(!text.contains(secret), "{secret}: it says nothing of this gateway");
    }
}

/// Puts names of what is there into the document, so that calls get further than to what nobody knows.
fn with_examples(world: &World, mut document: Value) -> Value {
    let make = |path: &str, body: &Value| {
        let call = world.gateway.admin_client().post(path, body.to_string()).bearer(ADMIN);
        let made = call.header("content-type", "application/json").send();
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["id"].clone()
    };
    let refused = world.plain().get("/keyed/x").send();
    let denied = refused.json()["request_id"].clone();
    let key = || make("/v1/clients/acme/keys", &json!({}));
    let entry = make("/v1/issuers/bank-idp/revoked-tokens", &json!({ "sub": "alice" }));
    let body = |of: &str| match of {
        "post keys" => json!({ "name": "mobile", "expires": "2099-06-30", "apis": ["keyed"] }),
        "post clients" => {
            json!({ "name": "newcomer", "attributes": { "tier": "gold" }, "expires": "2099-06-30" })
        }
        "patch {client}" => json!({ "attributes": { "tier": "silver" } }),
        "post rotate" => json!({ "overlap": "1h" }),
        "patch {id}" => json!({ "disabled": true }),
        "post revoked-tokens" => json!([{ "sub": "bob", "until": "2099-06-30T12:00:00Z" }]),
        other => panic!("{other} has a body: what is one that makes sense?"),
    };
    // Whoever calls this ends the gateway; `lifecycle` does.
    let drain = document["paths"].as_object_mut().expect("paths").remove("/v1/drain");
    assert!(drain.is_some());
    for (path, item) in document["paths"].as_object_mut().expect("paths") {
        for (method, operation) in item.as_object_mut().expect("operations") {
            let last = path.rsplit('/').next().unwrap_or_default();
            for parameter in
                operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten()
            {
                parameter["example"] = match parameter["name"].as_str().expect("a name") {
                    "client" => json!("acme"),
                    "issuer" => json!("bank-idp"),
                    "request_id" => denied.clone(),
                    "id" if path.contains("/issuers/") => entry.clone(),
                    // One for each, for some of them are gone afterwards.
                    "id" => key(),
                    _ => continue,
                };
            }
            if operation.get("requestBody").is_some() {
                operation["requestBody"]["content"]["application/json"]["example"] =
                    body(&format!("{method} {last}"));
            }
        }
    }
    document
}

/// Runs schemathesis, which makes calls of all kinds from a document, good ones and bad ones, and holds every answer against it.
fn schemathesis(world: &World, document: &Value, token: &str) -> (bool, String) {
    world.plan.directory.write("openapi.json", document.to_string());
    let mut command = interop::python_program("schemathesis");
    // It keeps what it has found in the folder it is run in.
    command.current_dir(world.plan.directory.path()).stdin(Stdio::null());
    command.args(["run", "openapi.json", "--max-examples=10", "--seed=1", "--workers=2", "--no-color"]);
    command.args(["--request-timeout=10", "--continue-on-failure"]);
    command.arg(
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
    );
    command.arg(format!("--url=http://{}", world.gateway.admin_address()));
    command.arg(format!("--header=Authorization: Bearer {token}"));
    let output = command.output().expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn every_answer_is_one_that_the_document_says() {
    let world = start();
    let document = with_examples(&world, document(&world));
    let before = made(&world).len();
    let (good, said) = schemathesis(&world, &document, ADMIN);
    assert!(good && said.contains("Tested: 29"), "{said}");
    // It has seen what happens where all goes well, and not only refusals.
    let after = made(&world).split_off(before);
    for action in [
        "API key made",
        "API key rotated",
        "API key changed",
        "API key revoked",
        "tokens revoked",
        "revocation taken back",
    ] {
        assert!(after.iter().any(|made| made == action), "{action} is not among {after:?}");
    }
    let (good, said) = schemathesis(&world, &document, "not-the-token-of-anybody");
    assert!(good && said.contains("Tested: 29"), "{said}");
    let audit = world.plan.directory.join("data/audit.jsonl").to_string_lossy().into_owned();
    let output = portcullis(&["audit", "verify", &audit], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The actions that were made, in order.
fn made(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(world.plan.directory.join("data/audit.jsonl")).expect("the log");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let made = lines.filter(|line| line["outcome"] == "made");
    made.map(|line| line["action"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A check that finds nothing in a document that is wrong would be none.
#[test]
fn a_document_that_is_wrong_is_found_out() {
    let world = start();
    let mut document = document(&world);
    document["paths"]
        .as_object_mut()
        .expect("paths")
        .retain(|path, _| ["/livez", "/v1/denials"].contains(&&**path));
    document["components"]["schemas"]["Liveness"]["properties"]["alive"]["type"] = json!("string");
    document["paths"]["/v1/denials"]["get"]["responses"].as_object_mut().expect("responses").remove("401");
    let (good, said) = schemathesis(&world, &document, "not-the-token-of-anybody");
    assert!(!good, "{said}");
    for complaint in ["Response violates schema", "Undocumented status code"] {
        assert!(said.contains(complaint), "{said}");
    }
}
