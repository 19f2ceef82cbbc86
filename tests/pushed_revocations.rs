//! Tokens revoked over the admin API while the gateway runs (REV-02): in force with the answer, kept through whatever ends
//! the process, and told by nobody who has not the token.

use http::Method;
use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::client::{Answer, Call};
use crate::rig::eventually;
use crate::rig::gateway::{Gateway, portcullis};
use crate::rig::world::{BEARER, Plan, World};

const TOKEN: &str = "EXAMPLE-only-the-bank's-fraud-desk-knows-this";
const ENTRIES: &str = "/v1/issuers/bank-idp/revoked-tokens";

fn plan() -> Plan {
    let plan = Plan::new(&[BEARER]).with(|plan| {
        plan.issuer = "    revoked: { push: true, entries: [{ sub: mallory }] }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("secrets/admin-token", format!("{TOKEN}\n"));
    plan
}

/// A call of the admin API by somebody who has the token.
fn call(world: &World, method: Method, path: &str) -> Call {
    world.gateway.admin_client().request(method, path).bearer(TOKEN)
}

fn push(world: &World, path: &str, body: &str) -> Answer {
    call(world, Method::POST, path).header("content-type", "application/json").body(body.to_owned()).send()
}

fn entries(world: &World) -> Vec<Value> {
    let answer = call(world, Method::GET, ENTRIES).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["entries"].as_array().expect("entries").clone()
}

fn ask(world: &World, jti: &str) -> Answer {
    let token = world.idp().token().claim("jti", jti).sign();
    world.plain().get("/bearer/1").bearer(&token).send()
}

/// The very next request is refused, on a connection and by a worker that had taken the token before.
#[test]
fn a_pushed_revocation_counts_at_once_and_survives_what_ends_the_process() {
    let world = plan().with(|plan| plan.settings = "workers: 4\n".to_owned()).start();
    let token = world.idp().token().claim("jti", "stolen").sign();
    let client = world.plain();
    let mut sessions: Vec<_> = (0..8).map(|_| client.connect().expect("a connection")).collect();
    for session in &mut sessions {
        session.send(client.get("/bearer/1").bearer(&token)).expect("an answer").assert_passed();
    }
    let answer = push(&world, ENTRIES, r#"{"jti": "stolen"}"#);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    for session in &mut sessions {
        let refused = session.send(client.get("/bearer/1").bearer(&token)).expect("an answer");
        refused.assert_refused(Reason::TokenRevoked);
    }
    // Saying it twice is saying it once.
    let again = push(&world, ENTRIES, r#" { "jti" : "stolen" } "#);
    assert_eq!((again.status, again.json()["id"].as_str()), (200, Some(&*id)));
    assert_eq!(entries(&world), [json!({"id": id, "entry": {"jti": "stolen"}})]);
    let metric = world.gateway.metric_sum("portcullis_revoked_tokens", &["issuer=\"bank-idp\""]);
    assert!((metric - 2.0).abs() < f64::EPSILON, "{metric}");
    assert!(world.gateway.log().contains("changed over the admin API"), "{}", world.gateway.log());
    let world = world.kill_and_restart();
    ask(&world, "stolen").assert_refused(Reason::TokenRevoked);
    ask(&world, "other").assert_passed();
    let world = world.restart();
    ask(&world, "stolen").assert_refused(Reason::TokenRevoked);
    // Taken back, it opens doors again, and stays taken back.
    let path = format!("{ENTRIES}/{id}");
    assert_eq!(call(&world, Method::DELETE, &path).send().status, 204);
    ask(&world, "stolen").assert_passed();
    let gone = call(&world, Method::DELETE, &path).send();
    assert_eq!((gone.status, gone.json()["code"].as_str()), (404, Some("unknown_entry")));
    let world = world.kill_and_restart();
    ask(&world, "stolen").assert_passed();
    let mallory = world.idp().token().claim("sub", "mallory").sign();
    world.plain().get("/bearer/1").bearer(&mallory).send().assert_refused(Reason::TokenRevoked);
    assert!(entries(&world).is_empty(), "what stands in the policy is not the API's");
}

/// An entry may name a subject and a moment, and end by itself.
#[test]
fn an_entry_says_what_one_in_a_file_says() {
    let world = plan().start();
    let token = |sub: &str| world.idp().token().claim("sub", sub).sign();
    let (hacked, forgiven) = (token("hacked"), token("forgiven"));
    let entry = json!({"sub": "hacked", "issued_before": unix_now() + 5});
    assert_eq!(push(&world, ENTRIES, &entry.to_string()).status, 201);
    let short = json!({"sub": "forgiven", "until": unix_now() + 3});
    assert_eq!(push(&world, ENTRIES, &short.to_string()).status, 201);
    let ask = |token: &str| world.plain().get("/bearer/1").bearer(token).send();
    ask(&forgiven).assert_refused(Reason::TokenRevoked);
    eventually("the entry ends", || (ask(&forgiven).status == 200).then_some(()));
    ask(&hacked).assert_refused(Reason::TokenRevoked);
    let mut kept: Vec<_> = entries(&world).into_iter().map(|kept| kept["entry"].clone()).collect();
    kept.sort_by_key(|entry| entry["sub"].to_string());
    assert_eq!(kept, [short, entry]);
    // One that is over would revoke nothing.
    let over = push(&world, ENTRIES, &json!({"sub": "forgiven", "until": "2020-01-01"}).to_string());
    assert_eq!((over.status, over.json()["code"].as_str()), (400, Some("bad_entry")), "{}", over.text());
}

/// Every call that may not be made, and every body that is no entry: nothing changes.
#[test]
fn a_call_that_may_not_change_anything_changes_nothing() {
    let world = plan().start();
    let admin = || world.gateway.admin_client();
    let good = r#"{"jti": "stolen"}"#;
    let post = |call: Call| call.header("content-type", "application/json").body(good);
    for (what, call, status, code) in [
        ("no token", post(admin().request(Method::POST, ENTRIES)), 401, "admin_token_wrong"),
        ("a wrong token", post(admin().request(Method::POST, ENTRIES).bearer("x")), 401, "admin_token_wrong"),
        ("no token to look", admin().get(ENTRIES), 401, "admin_token_wrong"),
        (
            "no token to delete",
            admin().request(Method::DELETE, &format!("{ENTRIES}/x")),
            401,
            "admin_token_wrong",
        ),
        (
            "an unknown issuer",
            post(call(&world, Method::POST, "/v1/issuers/other/revoked-tokens")),
            404,
            "unknown_issuer",
        ),
        ("a form", call(&world, Method::POST, ENTRIES).body(good), 415, "not_json"),
    ] {
        let answer = call.send();
        let said = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
        assert_eq!(said, (status, Some(code.to_owned())), "{what}: {}", answer.text());
        assert_eq!(answer.challenges().is_empty(), status != 401, "{what}");
    }
    for body in [
        "",
        "{}",
        "null",
        "{\"jti\": 1}",
        "{\"jti\": \"\"}",
        "{\"jti\": \"a\", \"jti\": \"b\"}",
        "{\"jti\": \"a\"} x",
        "{\"until\": 1}",
        "{\"jit\": \"a\"}",
        "{\"jti\": \"a\", \"until\": \"soon\"}",
        &json!({"sub": "a".repeat(256)}).to_string(),
        "{\"jti\": {\"a\": [[[[[[]]]]]]}}",
    ] {
        let answer = push(&world, ENTRIES, body);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("bad_entry")), "{body}");
    }
    let large = push(&world, ENTRIES, &format!("{{\"jti\": \"{}\"}}", "a".repeat(2 << 20)));
    assert_eq!((large.status, large.json()["code"].as_str()), (413, Some("too_large")));
    // A page in a browser of this machine comes with a name of its own.
    let foreign = admin().host("evil.example").request(Method::POST, ENTRIES).bearer(TOKEN);
    assert_eq!(post(foreign).send().status, 403);
    assert!(entries(&world).is_empty());
    ask(&world, "stolen").assert_passed();
    let written = world.gateway.log() + &world.gateway.output();
    assert!(!written.contains(TOKEN), "the token is in the log");
}

/// Without a token nobody may change anything, and a policy that relies on it is not served.
#[test]
fn check_asks_for_a_token_and_for_a_store() {
    let world = Plan::new(&[BEARER]).start();
    let answer = push(&world, ENTRIES, r#"{"jti": "stolen"}"#);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("no_admin_token")));
    let check = |plan: &Plan, yaml: &str| {
        plan.directory.write("gateway.yaml", yaml);
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout),
        )
    };
    let plan = plan();
    let yaml = plan.gateway_yaml();
    assert!(check(&plan, &yaml).0, "{}", check(&plan, &yaml).1);
    for (written, instead, said) in [
        (", token: { file: secrets/admin-token }", "", "nobody may tell this gateway of revoked tokens"),
        ("store: { path: data/portcullis.redb }\n", "", "a restart would forget what was revoked"),
        (
            "push: true, entries: [{ sub: mallory }]",
            "push: false",
            "needs `files`, `entries` or `push: true`",
        ),
        ("{ file: secrets/admin-token }", "letmein", "written in the file"),
        ("{ file: secrets/admin-token }", "{ file: secrets/none }", "secrets/none"),
    ] {
        assert!(yaml.contains(written), "{written}");
        let (good, shown) = check(&plan, &yaml.replace(written, instead));
        assert!(!good && shown.contains(said), "{said} in\n{shown}");
    }
    plan.directory.write("secrets/admin-token", "short");
    let (good, shown) = check(&plan, &yaml);
    assert!(!good && shown.contains("32 printable characters or more"), "{shown}");
}

/// Many are told in one call, all or none, and may all be taken back.
#[test]
fn a_list_of_entries_is_taken_as_a_whole() {
    let world = plan().start();
    assert_eq!(push(&world, ENTRIES, r#"{"jti": "one"}"#).status, 201);
    let bad = push(&world, ENTRIES, r#"[{"jti": "two"}, {"jit": "three"}]"#);
    assert_eq!((bad.status, bad.json()["code"].as_str()), (400, Some("bad_entry")));
    assert!(bad.text().contains("entry 2: an entry has no `jit`"), "{}", bad.text());
    ask(&world, "two").assert_passed();
    let answer = push(&world, ENTRIES, r#"[{"jti": "one"}, {"jti": "two"}, {"jti": "three"}]"#);
    assert_eq!((answer.status, answer.json()["new"].as_u64()), (201, Some(2)), "{}", answer.text());
    assert_eq!(answer.json()["entries"].as_array().map(Vec::len), Some(3));
    let again = push(&world, ENTRIES, r#"[{"jti": "one"}, {"jti": "two"}]"#);
    assert_eq!((again.status, again.json()["new"].as_u64()), (200, Some(0)));
    let many: Vec<Value> = (0..1_001).map(|n| json!({"jti": format!("t{n}")})).collect();
    assert_eq!(push(&world, ENTRIES, &json!(many).to_string()).status, 400);
    assert_eq!(push(&world, ENTRIES, &json!(many[..1_000]).to_string()).status, 201);
    let world = world.kill_and_restart();
    for jti in ["one", "two", "three", "t0", "t999"] {
        ask(&world, jti).assert_refused(Reason::TokenRevoked);
    }
    ask(&world, "t1000").assert_passed();
    let back = call(&world, Method::DELETE, ENTRIES).send();
    assert_eq!((back.status, back.json()["taken_back"].as_u64()), (200, Some(1_003)));
    ask(&world, "one").assert_passed();
    assert!(world.kill_and_restart().gateway.log().contains("the store was opened"));
}

/// On a full disk: what is revoked is revoked, is said not to be kept, and is kept as soon as that is possible; what is to
/// be taken back stays revoked.
#[test]
fn on_a_full_disk_tokens_are_revoked_and_none_is_given_back() {
    let world = plan().start_with_full_disk();
    let code = |answer: &Answer| (answer.status, answer.json()["code"].as_str().map(str::to_owned));
    let not_kept = (503, Some("in_force_not_kept".to_owned()));
    let answer = push(&world, ENTRIES, r#"{"jti": "stolen"}"#);
    assert_eq!(code(&answer), not_kept, "{}", answer.text());
    ask(&world, "stolen").assert_refused(Reason::TokenRevoked);
    assert_eq!(code(&push(&world, ENTRIES, r#"{"jti": "stolen"}"#)), not_kept, "saying it again is no lie");
    let id = entries(&world)[0]["id"].as_str().expect("an id").to_owned();
    let back = call(&world, Method::DELETE, &format!("{ENTRIES}/{id}")).send();
    assert_eq!(code(&back), (503, Some("store_unavailable".to_owned())), "{}", back.text());
    ask(&world, "stolen").assert_refused(Reason::TokenRevoked);
    world.gateway.disk_is_full(false);
    eventually("it is kept", || (push(&world, ENTRIES, r#"{"jti": "stolen"}"#).status != 503).then_some(()));
    let world = world.kill_and_restart();
    ask(&world, "stolen").assert_refused(Reason::TokenRevoked);
}

/// What was revoked under a name is not lost because the name is: then the gateway does not start, and says why.
#[test]
fn a_start_that_would_forget_revocations_is_no_start() {
    let world = plan().start();
    assert!(world.gateway.log().contains("a new store was made; if this is not the first start"));
    assert_eq!(push(&world, ENTRIES, r#"{"jti": "stolen"}"#).status, 201);
    let World { plan, gateway, .. } = world;
    gateway.kill();
    let yaml = plan.gateway_yaml();
    let start = |yaml: &str| {
        plan.directory.write("gateway.yaml", yaml);
        let mut gateway = Gateway::spawn(plan.directory.path(), &[]);
        (gateway.wait().success(), gateway.log())
    };
    let written = "push: true, entries: [{ sub: mallory }]";
    assert!(yaml.contains(written));
    let (good, log) = start(&yaml.replace(written, "entries: [{ sub: mallory }]"));
    let said = "1 revocations of tokens of issuer `bank-idp` would be lost";
    assert!(!good && log.contains(said), "{log}");
    let (good, log) = start(&yaml.replace("  bank-idp:", "  other-idp:"));
    assert!(!good && log.contains("`bank-idp`"), "{log}");
}
