//! What the admin API says of itself is what it does.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

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

/// Schemathesis makes calls of all kinds from the document, good ones and bad ones, and holds every answer against it.
#[test]
fn every_answer_is_one_that_the_document_says() {
    let world = start();
    let document = document(&world).to_string();
    // Names that are there, so that calls get further than to what nobody knows.
    let named = document
        .replace("\"name\":\"client\",", "\"name\":\"client\",\"example\":\"acme\",")
        .replace("\"name\":\"issuer\",", "\"name\":\"issuer\",\"example\":\"bank-idp\",");
    assert_eq!(named.matches("\"example\"").count(), 10, "{named}");
    world.plan.directory.write("openapi.json", &named);
    for token in [ADMIN, "not-the-token-of-anybody"] {
        let mut schemathesis = interop::python_program("schemathesis");
        schemathesis.arg("run").arg(world.plan.directory.join("openapi.json"));
        schemathesis.arg(format!("--url=http://{}", world.gateway.admin_address()));
        schemathesis.arg(format!("--header=Authorization: Bearer {token}"));
        schemathesis.args([
            "--max-examples=10",
            "--seed=1",
            "--workers=2",
            "--request-timeout=10",
            "--no-color",
        ]);
        schemathesis.arg(
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        );
        // It keeps what it has found in the folder it is run in.
        schemathesis.current_dir(world.plan.directory.path()).stdin(Stdio::null());
        let output = schemathesis.output().expect("schemathesis runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let audit = world.plan.directory.join("data/audit.jsonl").to_string_lossy().into_owned();
    let output = crate::rig::gateway::portcullis(&["audit", "verify", &audit], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
