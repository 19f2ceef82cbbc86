//! `/v1/limits` and `/v1/usage`: operators see what limits there are, and where a caller stands; nothing is counted by it.

use http::Method;
use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::client::Answer;
use crate::rig::world::{Plan, World};

const ADMIN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";

const METERED: &str = "\
api: metered
match: { host: api.bank.example, path: /metered/* }
upstream: accounts
authenticate: { any_of: [ { jwt: { issuer: bank-idp } }, { api_key: { header: x-api-key } } ] }
plans: { claim: pol, required: false }
allow:
  - { name: everything, paths: [\"/*\"] }
limits:
  - { name: own, per: identity, quota: 3 per day }
  - { name: of-clients, per: client, rate: 10 per hour }
  - { name: of-addresses, per: address, quota: 100 per day }
  - { name: of-tenants, per: claims.tenant, quota: 50 per day, paths: [/tenants/*] }
  - { name: trial, per: api, quota: 2 per day, mode: shadow }
";

const PLANS: &str = "\
plans:
  gold:
    allow: { metered: all }
    limits:
      - { quota: 7 per day }
  closed:
    disabled: true
    allow: { metered: all }
";

const CLIENTS: &str = "\
clients:
  acme: { plans: [gold] }
  globex: {}
  shut: { plans: [closed] }
";

fn world() -> World {
    let plan = Plan::new(&[METERED]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("plans.yaml", PLANS).write("clients/partners.yaml", CLIENTS);
    plan.directory.write("secrets/admin-token", ADMIN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.start()
}

fn look(world: &World, path: &str) -> Answer {
    world.gateway.admin_client().get(path).bearer(ADMIN).send()
}

/// What is left of each limit, or why that is not known.
fn left(world: &World, caller: &str) -> Value {
    let answer = look(world, &format!("/v1/usage?api=metered&{caller}"));
    assert_eq!(answer.status, 200, "{caller}: {}", answer.text());
    let told = answer.json();
    let limits = told["limits"].as_array().expect("a list").iter().map(|limit| {
        let name = limit["name"].as_str().expect("a name").to_owned();
        let left = if limit["unknown"].is_null() { &limit["remaining"] } else { &limit["unknown"] };
        (name, left.clone())
    });
    Value::Object(limits.collect())
}

#[test]
fn operators_see_where_a_caller_stands() {
    let world = world();
    let made = world.gateway.admin_client().request(Method::POST, "/v1/clients/acme/keys").bearer(ADMIN);
    let made = made.header("content-type", "application/json").body("{}").send().json();
    let key = made["key"].as_str().expect("a key").to_owned();
    let alice = world.idp().token().claim("sub", "al:ice").claim("tenant", "north").sign();
    for _ in 0..2 {
        world.plain().get("/metered/things").header("x-api-key", &key).send().assert_passed();
    }
    world.plain().get("/metered/things").bearer(&alice).send().assert_passed();
    for _ in 0..3 {
        // Looking takes nothing.
        let acme = left(&world, "client=acme&address=127.0.0.1");
        assert_eq!(
            (&acme["own"], &acme["of-clients"], &acme["of-addresses"]),
            (&json!(1), &json!(8), &json!(97)),
            "{acme}"
        );
    }
    let told = look(&world, "/v1/usage?api=metered&client=acme").json();
    assert_eq!(told["plans"], json!(["gold"]));
    let of_plan = told["limits"].as_array().expect("a list").iter().find(|limit| limit["limit"] == 7);
    assert_eq!(of_plan.map(|limit| &limit["remaining"]), Some(&json!(5)), "{told}");
    assert!(
        told["limits"].as_array().expect("a list").iter().all(|limit| limit["name"] != "trial"),
        "{told}"
    );
    // Who is no client is asked for by the key, and what nobody can know is not made up.
    let alice = left(&world, "caller=jwt:bank-idp:al:ice");
    assert_eq!((&alice["own"], &alice["of-clients"]), (&json!(2), &json!(9)), "{alice}");
    assert!(
        alice["of-addresses"].as_str().is_some_and(|why| why.contains("address is not known")),
        "{alice}"
    );
    assert!(alice["of-tenants"].as_str().is_some_and(|why| why.contains("tenant")), "{alice}");
    assert_eq!(left(&world, "caller=jwt:bank-idp:al")["own"], json!(3), "another caller");
    assert_eq!(left(&world, "client=globex&address=127.0.0.2")["of-addresses"], json!(100));
    let nobody = left(&world, "address=127.0.0.1");
    assert!(nobody["own"].as_str().is_some_and(|why| why.contains("not known")), "{nobody}");
    assert_eq!(nobody["of-addresses"], json!(97));
    let shut = look(&world, "/v1/usage?api=metered&client=shut").json();
    assert_eq!((&shut["no_plans"], shut.get("plans")), (&json!("plan_missing"), None), "{shut}");
    // The last unit is there for the client, and then no more.
    world.plain().get("/metered/things").header("x-api-key", &key).send().assert_passed();
    world
        .plain()
        .get("/metered/things")
        .header("x-api-key", &key)
        .send()
        .assert_refused(Reason::QuotaExhausted);
    assert_eq!(left(&world, "client=acme")["own"], json!(0));
}

#[test]
fn operators_see_what_limits_there_are() {
    let world = world();
    let told = look(&world, "/v1/limits").json();
    let limits = told["limits"].as_array().expect("a list");
    let named =
        |name: &str| limits.iter().find(|limit| limit["name"] == name).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(
        named("of-tenants"),
        &json!({ "api": "metered", "name": "of-tenants", "kind": "quota", "limit": 50, "window_seconds": 86_400.0,
            "per": ["claims.tenant"], "shadow": false })
    );
    assert_eq!((&named("of-clients")["kind"], &named("trial")["shadow"]), (&json!("rate"), &json!(true)));
    assert!(limits.iter().any(|limit| limit["plan"] == "gold" && limit["limit"] == 7), "{told}");
}

#[test]
fn bad_questions_are_refused() {
    let world = world();
    for (path, status, code) in [
        ("/v1/usage", 400, "unfit"),
        ("/v1/usage?api=metered&cleint=acme", 400, "unfit"),
        ("/v1/usage?api=metered&address=nowhere", 400, "unfit"),
        ("/v1/usage?api=other&client=acme", 404, "unknown_api"),
        ("/v1/usage?api=metered&client=nobody", 404, "unknown_client"),
    ] {
        let answer = look(&world, path);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
    }
    for path in ["/v1/usage?api=metered&client=acme", "/v1/limits"] {
        assert_eq!(world.gateway.admin_client().get(path).send().status, 401, "{path}");
    }
}
