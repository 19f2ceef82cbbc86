//! Policies are replaced while requests are served: as a whole or not at all, and what lives on lives on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::certificates::Authority;
use crate::rig::client::{Answer, Client};
use crate::rig::eventually;
use crate::rig::gateway::Gateway;
use crate::rig::upstream::Manner;
use crate::rig::world::{BEARER, HOST, OPEN_BANKING, Plan, World};

const TOKEN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";

/// An API whose version is told to its upstream, and with it to the caller.
fn versioned(version: &str) -> String {
    format!(
        "api: versioned
match: {{ host: api.bank.example, path: /versioned/* }}
upstream: accounts
authenticate: {{ jwt: {{ issuer: bank-idp }} }}
allow:
  - {{ name: \"{version}\", paths: [\"/only-{version}\", \"/both\"] }}
limits:
  - {{ per: identity, quota: 1000 per day }}
forward: {{ set: {{ x-version: \"{version}\" }} }}
"
    )
}

/// A gateway that reads its files again when it is told to, and not by itself.
fn told(apis: &[&str]) -> Plan {
    with_admin(Plan::new(apis), "reload: { watch: false }\n")
}

fn with_admin(plan: Plan, settings: &str) -> Plan {
    let plan = plan.with(|plan| {
        plan.settings = format!("api_keys: {{ pepper: {{ file: secrets/pepper }} }}\n{settings}");
        plan.issuer = "    revoked: { push: true }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("secrets/admin-token", TOKEN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n");
    plan
}

fn tell(gateway: &Gateway, method: Method, path: &str, body: &str) -> Answer {
    let call = gateway.admin_client().request(method, path).bearer(TOKEN);
    if body.is_empty() {
        call.send()
    } else {
        call.header("content-type", "application/json").body(body.to_owned()).send()
    }
}

/// Reads the policies again: what has come of it.
#[track_caller]
fn reload(world: &World) -> Value {
    let answer = tell(&world.gateway, Method::POST, "/v1/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn other_policies_count_from_the_next_request_on() {
    let world = told(&[&versioned("a")]).start();
    let token = world.idp().token().sign();
    let ask = |path: &str| world.plain().get(&format!("/versioned/{path}")).bearer(&token).send();
    ask("only-a").assert_passed();
    ask("only-b").assert_refused(Reason::AccessDenied);
    let before = world.gateway.admin("/metrics").text();
    // A request that is under way is judged, and answered, by what it began with.
    world.upstream().behave(Manner::Slow(Duration::from_secs(2)));
    let mut slow = world.plain().connect().expect("a connection");
    let call = world.plain().get("/versioned/only-a").bearer(&token);
    let waiting = std::thread::spawn(move || slow.send(call));
    eventually("it is under way", || (world.upstream().hits() == 2).then_some(()));
    world.plan.directory.write("apis/api-0.yaml", versioned("b"));
    world.plan.directory.write("apis/api-1.yaml", BEARER);
    let outcome = reload(&world);
    assert_eq!((&outcome["changed"], &outcome["apis"]), (&json!(true), &json!(2)), "{outcome}");
    world.upstream().behave(Manner::Polite);
    world.upstream().release();
    let slow = waiting.join().expect("a thread").expect("an answer");
    slow.assert_passed();
    ask("only-a").assert_refused(Reason::AccessDenied);
    ask("only-b").assert_passed();
    assert_eq!(world.upstream().last().value("x-version"), "b");
    world.plain().get("/bearer/x").bearer(&token).send().assert_passed();
    // The same once more is no change.
    let again = reload(&world);
    assert_eq!((&again["changed"], &again["hash"]), (&json!(false), &outcome["hash"]));
    let after = world.gateway.admin("/metrics").text();
    let info = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("portcullis_config_info{")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].to_owned()
    };
    assert_ne!(info(&before), info(&after));
    assert!(info(&after).contains(outcome["hash"].as_str().expect("a hash")));
    for (result, count) in [("applied", 1.0), ("unchanged", 1.0)] {
        let label = format!("result=\"{result}\"");
        let sum = world.gateway.metric_sum("portcullis_config_reloads_total", &[&label]);
        assert!((sum - count).abs() < 0.1, "{result}: {sum}");
    }
    // Requests count under the names they were judged by.
    let passed = |rule: &str| {
        let rule = format!("rule=\"{rule}\"");
        world
            .gateway
            .metric_sum("portcullis_requests_total", &["api=\"versioned\"", &rule, "decision=\"allow\""])
    };
    assert!(
        (passed("a") - 2.0).abs() < 0.1 && (passed("b") - 1.0).abs() < 0.1,
        "{} {}",
        passed("a"),
        passed("b")
    );
    // A signal does the same.
    world.plan.directory.write("apis/api-0.yaml", versioned("c"));
    world.gateway.signal("HUP");
    eventually("it is in force", || (ask("only-c").status == 200).then_some(()));
    let shown = tell(&world.gateway, Method::GET, "/v1/config", "").json();
    assert_eq!(shown["apis"], json!(2));
    assert!(shown["settings"].as_array().is_some_and(|settings| settings.len() > 5), "{shown}");
    assert!(!shown.to_string().contains(TOKEN));
}

#[test]
fn files_with_a_fault_change_nothing() {
    let world = told(&[&versioned("a")]).start();
    let token = world.idp().token().sign();
    let ask = |path: &str| world.plain().get(&format!("/versioned/{path}")).bearer(&token).send();
    let successful = || world.gateway.metric_sum("portcullis_config_last_reload_successful", &[]) > 0.5;
    assert!(successful());
    let hash = tell(&world.gateway, Method::GET, "/v1/config", "").json()["hash"].clone();
    // One file is good and changed, the other is not: neither takes force.
    world.plan.directory.write("apis/api-0.yaml", versioned("b"));
    world.plan.directory.write("apis/api-1.yaml", BEARER.replace("upstream: accounts", "upstream: acounts"));
    let answer = tell(&world.gateway, Method::POST, "/v1/reload", "");
    assert_eq!((answer.status, answer.code()), (422, "policies_not_good".to_owned()), "{}", answer.text());
    let fault = &answer.json()["faults"][0];
    assert_eq!((&fault["file"], &fault["severity"]), (&json!("apis/api-1.yaml"), &json!("error")), "{fault}");
    ask("only-a").assert_passed();
    ask("only-b").assert_refused(Reason::AccessDenied);
    assert!(!successful());
    assert_eq!(tell(&world.gateway, Method::GET, "/v1/config", "").json()["hash"], hash);
    world.gateway.signal("HUP");
    eventually("the log shows it as `check` does", || {
        let log = world.gateway.log();
        (log.contains("those before stay in force") && log.contains("did you mean `accounts`?")).then_some(())
    });
    assert_eq!(world.gateway.admin("/readyz").status, 200);
    world.plan.directory.write("apis/api-1.yaml", BEARER);
    reload(&world);
    ask("only-b").assert_passed();
    assert!(successful());
}

#[test]
fn what_needs_a_restart_is_named_and_nothing_changes() {
    let world = told(&[&versioned("a")]).start();
    let token = world.idp().token().sign();
    let yaml = world.plan.gateway_yaml();
    for (written, instead, path) in [
        (
            "  plain:\n    address: 127.0.0.1:0\n",
            "  plain:\n    address: 127.0.0.1:1\n",
            "listen.plain.address",
        ),
        ("  plain:\n", "  other:\n", "listen.other"),
        ("store: { path: data/portcullis.redb }", "store: { path: data/other.redb }", "store"),
        ("admin: { address: 127.0.0.1:0", "admin: { address: 127.0.0.1:9", "admin.address"),
        ("reload: { watch: false }", "reload: { poll: 5s }", "reload"),
        ("version: 1\n", "version: 1\nworkers: 7\n", "workers"),
        ("api_keys: { pepper: { file: secrets/pepper } }\n", "", "api_keys"),
    ] {
        assert!(yaml.contains(written), "{written}");
        world.plan.directory.write("gateway.yaml", yaml.replacen(written, instead, 1));
        world.plan.directory.write("apis/api-0.yaml", versioned("b"));
        let answer = tell(&world.gateway, Method::POST, "/v1/reload", "");
        assert_eq!(answer.status, 422, "{path}: {}", answer.text());
        let said = answer.text();
        let wanted = format!("`{path}` cannot change while the gateway runs");
        assert!(said.contains(&wanted) && said.contains("needs_restart"), "{path}: {said}");
        world.plain().get("/versioned/only-a").bearer(&token).send().assert_passed();
    }
    // A revocation would be lost: the issuer takes none any more.
    tell(&world.gateway, Method::POST, "/v1/issuers/bank-idp/revoked-tokens", r#"{"jti": "stolen"}"#);
    world.plan.directory.write("gateway.yaml", yaml.replace("    revoked: { push: true }\n", ""));
    let answer = tell(&world.gateway, Method::POST, "/v1/reload", "");
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("would be lost"), "{}", answer.text());
    let stolen = world.idp().token().claim("jti", "stolen").sign();
    world.plain().get("/versioned/only-a").bearer(&stolen).send().assert_refused(Reason::TokenRevoked);
}

/// Counters, key sets, connections to upstreams, keys, revocations and what was used up are those from before.
#[test]
fn what_is_not_configuration_lives_on() {
    const COUNTED: &str = "api: counted
match: { host: api.bank.example, path: /counted/* }
upstream: accounts
authenticate: { any_of: [ { api_key: { header: x-api-key } }, { jwt: { issuer: bank-idp } } ] }
allow:
  - { name: anything, paths: [\"/*\"] }
limits:
  - { per: identity, quota: 6 per day }
  - { per: identity, rate: 4 per hour, burst: 4, paths: [/narrow] }
";
    let world = told(&[COUNTED]).start();
    let token = world.idp().token().sign();
    let ask = |path: &str| world.plain().get(&format!("/counted/{path}")).bearer(&token).send();
    let by_key = |key: &str| world.plain().get("/counted/x").header("x-api-key", key).send();
    let make = || {
        let made = tell(&world.gateway, Method::POST, "/v1/clients/acme/keys", "{}");
        assert_eq!(made.status, 201, "{}", made.text());
        let text = |member: &str| made.json()[member].as_str().expect("a text").to_owned();
        (text("id"), text("key"))
    };
    let (id, key) = make();
    by_key(&key).assert_passed();
    let stolen = world.idp().token().claim("jti", "stolen").claim("sub", "bob").sign();
    tell(&world.gateway, Method::POST, "/v1/issuers/bank-idp/revoked-tokens", r#"{"jti": "stolen"}"#);
    for _ in 0..3 {
        ask("narrow").assert_passed();
    }
    let (fetched, connected) = (world.idp().hits(), world.upstream().connections());
    for number in 0..3 {
        world.plan.directory.write("apis/api-1.yaml", versioned(&format!("v{number}")));
        assert_eq!(reload(&world)["changed"], json!(true));
        by_key(&key).assert_passed();
        world.plain().get("/counted/x").bearer(&stolen).send().assert_refused(Reason::TokenRevoked);
    }
    ask("narrow").assert_passed();
    ask("narrow").assert_refused(Reason::RateLimited);
    for _ in 0..2 {
        ask("wide").assert_passed();
    }
    ask("wide").assert_refused(Reason::QuotaExhausted);
    assert_eq!(world.idp().hits(), fetched, "no key set was fetched again");
    let workers = std::thread::available_parallelism().expect("processors").get();
    assert!(world.upstream().connections() <= connected.max(workers), "connections to the upstream are kept");
    // What is told after a reload counts, too, and what was made before it can be taken back.
    let keys = format!("/v1/clients/acme/keys/{id}");
    let shown = tell(&world.gateway, Method::GET, &keys, "").json();
    assert!(shown["last_used"].is_string(), "{shown}");
    assert_eq!(tell(&world.gateway, Method::DELETE, &keys, "").status, 204);
    by_key(&key).assert_refused(Reason::ApiKeyInvalid);
    let (_, second) = make();
    assert_ne!(by_key(&second).status, 401);
    // A client that is not declared any more has no keys, and has them again when it is.
    world.plan.directory.write("clients/partners.yaml", "clients:\n  other: {}\n");
    reload(&world);
    by_key(&second).assert_refused(Reason::ApiKeyInvalid);
    world.plan.directory.write("clients/partners.yaml", "clients:\n  acme: {}\n");
    reload(&world);
    assert_ne!(by_key(&second).status, 401);
}

/// Certificates, trust and secrets are read again: connections that come are judged by the new ones, and those that were
/// there under other trust are told to come again.
#[test]
fn certificates_trust_and_secrets_are_replaced() {
    let world = told(&[OPEN_BANKING, BEARER]).start();
    let token = world.bound_token();
    let call = |client: &Client| client.get("/open-banking/v3/accounts").bearer(&token);
    let mut kept = world.client().connect().expect("a connection");
    kept.send(call(&world.client())).expect("an answer").assert_passed();
    // Another certificate of the server.
    let others = Authority::new("Other bank servers");
    let server = others.server(&[HOST, "localhost", "127.0.0.1"]);
    world.plan.directory.write("tls/server.pem", &server.pem).write("tls/server.key", &server.key_pem);
    reload(&world);
    assert!(
        call(&world.client()).attempt().is_err(),
        "the old authority does not vouch for the new certificate"
    );
    let address = world.gateway.address("public");
    let client = Client::tls(address, HOST, &others).certificate(&world.tpp_a);
    call(&client).send().assert_passed();
    kept.send(call(&world.client())).expect("an answer").assert_passed();
    // Another authority of clients: what the old one certified counts no more, on no connection.
    let another = Authority::new("Another open banking root");
    world.plan.directory.write("tls/open-banking-ca.pem", another.pem());
    reload(&world);
    kept.send(call(&world.client())).expect("an answer").assert_refused(Reason::Misdirected);
    assert_ne!(call(&client).attempt().map(|answer| answer.status).unwrap_or_default(), 200);
    let tpp = Arc::new(another.client("tpp-a"));
    let bound = world.idp().token().bound_to(&tpp).sign();
    let client = Client::tls(address, HOST, &others).certificate(&tpp);
    client.get("/open-banking/v3/accounts").bearer(&bound).send().assert_passed();
    // Another token of the admin API.
    world.plan.directory.write("secrets/admin-token", "EXAMPLE-another-token-that-is-long-enough");
    reload(&world);
    assert_eq!(tell(&world.gateway, Method::POST, "/v1/reload", "").status, 401);
    // An issuer that is gone: its tokens are nobody's, however often they were good before.
    let plain = world.idp().token().sign();
    world.plain().get("/bearer/x").bearer(&plain).send().assert_passed();
    let yaml = world.plan.gateway_yaml().replace("    audience: ", "    audience: another-");
    world.plan.directory.write("gateway.yaml", yaml);
    world.gateway.signal("HUP");
    eventually("the audience is another", || {
        (world.plain().get("/bearer/x").bearer(&plain).send().status == 401).then_some(())
    });
}

/// However files are put there: written, renamed over, or as a new version of a ConfigMap.
#[test]
fn files_that_change_are_noticed() {
    let world = with_admin(Plan::new(&[&versioned("a")]), "").start();
    let token = world.idp().token().sign();
    let serves = |version: &str| {
        let path = format!("/versioned/only-{version}");
        eventually(&format!("version {version} is in force"), || {
            (world.plain().get(&path).bearer(&token).send().status == 200).then_some(())
        });
    };
    serves("a");
    world.plan.directory.write("apis/api-0.yaml", versioned("written"));
    serves("written");
    world.plan.directory.write("apis/.api-0.yaml.tmp", versioned("renamed"));
    let to = |name: &str| world.plan.directory.join(name);
    std::fs::rename(to("apis/.api-0.yaml.tmp"), to("apis/api-0.yaml")).expect("renamed");
    serves("renamed");
    // As kubelet does it: the files are links through `..data`, which is replaced in one step.
    let version = |folder: &str, version: &str| {
        std::fs::create_dir_all(to(&format!("apis/{folder}"))).expect("a folder");
        std::fs::write(to(&format!("apis/{folder}/api-0.yaml")), versioned(version)).expect("written");
        std::os::unix::fs::symlink(folder, to("apis/..data_tmp")).expect("a link");
        std::fs::rename(to("apis/..data_tmp"), to("apis/..data")).expect("renamed");
    };
    version("..2026_1", "mounted");
    std::fs::remove_file(to("apis/api-0.yaml")).expect("removed");
    std::os::unix::fs::symlink(Path::new("..data/api-0.yaml"), to("apis/api-0.yaml")).expect("a link");
    serves("mounted");
    version("..2026_2", "swapped");
    serves("swapped");
    std::fs::remove_dir_all(to("apis/..2026_1")).expect("removed");
    // A broken file stays without effect, and the next good one counts.
    std::fs::write(to("apis/..2026_2/api-0.yaml"), "api: [").expect("written");
    std::fs::write(to("gateway.yaml"), world.plan.gateway_yaml() + "\n# looked at\n").expect("written");
    eventually("it is refused", || {
        (world.gateway.metric_sum("portcullis_config_last_reload_successful", &[]) < 0.5).then_some(())
    });
    serves("swapped");
    version("..2026_3", "mended");
    serves("mended");
    // What is read from beside the policies is noticed, too, and a file that was missing when it was named.
    let yaml = world.plan.gateway_yaml();
    let named = yaml.replace("certificate: { file: tls/server.pem }", "certificate: { file: late.pem }");
    std::fs::write(to("gateway.yaml"), &named).expect("written");
    let good = || world.gateway.metric_sum("portcullis_config_last_reload_successful", &[]) > 0.5;
    eventually("it is missing", || (!good()).then_some(()));
    std::fs::copy(to("tls/server.pem"), to("late.pem")).expect("copied");
    eventually("it is there", || good().then_some(()));
    std::fs::write(to("late.pem"), "nothing").expect("written");
    eventually("it is broken", || (!good()).then_some(()));
    std::fs::copy(to("tls/server.pem"), to("late.pem")).expect("copied");
    eventually("it is mended", || good().then_some(()));
    // What is read is not what changes: nothing reads itself again and again.
    let reloads = || world.gateway.metric_sum("portcullis_config_reloads_total", &[]);
    std::thread::sleep(Duration::from_millis(600));
    let before = reloads();
    std::thread::sleep(Duration::from_millis(1_500));
    assert!((reloads() - before).abs() < 0.1, "{before} {}", reloads());
}

/// Under load every answer is of one version, whole, and none is missing.
#[test]
fn nothing_is_dropped_while_policies_change() {
    let world = told(&[&versioned("a")]).start();
    let token = world.idp().token().sign();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers = ["kept", "http2", "new"].map(|how| {
        let (stop, asked, token) = (Arc::clone(&stop), Arc::clone(&asked), token.clone());
        let client = match how {
            "http2" => world.client().http2(),
            "kept" => world.plain(),
            _ => world.client(),
        };
        std::thread::spawn(move || {
            let mut session = client.connect().expect("a connection");
            while !stop.load(Ordering::Relaxed) {
                if how == "new" {
                    session = client.connect().unwrap_or_else(|why| panic!("{how}: {}", why.0));
                }
                for path in ["both", "only-a", "only-b"] {
                    let call = client.get(&format!("/versioned/{path}")).bearer(&token);
                    let answer = session.send(call).unwrap_or_else(|why| panic!("{how} {path}: {}", why.0));
                    match (path, answer.status) {
                        (_, 200) => {}
                        ("only-a" | "only-b", 403) => drop(answer.assert_refused(Reason::AccessDenied)),
                        // The quota is used up at some time, by what is counted over all versions.
                        (_, 429) => drop(answer.assert_refused(Reason::QuotaExhausted)),
                        _ => panic!("{how} {path}: {} {}", answer.status, answer.text()),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let mut reloads = 0;
    while asked.load(Ordering::Relaxed) < 1_500 || reloads < 20 {
        let version = if reloads % 2 == 0 { "b" } else { "a" };
        world.plan.directory.write("apis/api-0.yaml", versioned(version));
        assert_eq!(reload(&world)["changed"], json!(true));
        reloads += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().expect("a caller"));
    // What was forwarded was judged by one version: its rule, its path and its header agree.
    for received in world.upstream().received() {
        let version = received.value("x-version");
        let line = received.line();
        let other = if version == "a" { "only-b" } else { "only-a" };
        assert!(!line.contains(other), "{line} under {version}");
    }
    let passed = world.upstream().hits();
    assert!(passed <= 1_000, "one quota over all versions: {passed}");
}

/// What was replaced is let go of.
#[test]
fn reloads_leave_nothing_behind() {
    let world = told(&[&versioned("a")]).start();
    let token = world.idp().token().sign();
    let held = || {
        let of = |what: &str| {
            std::fs::read_dir(format!("/proc/{}/{what}", world.gateway.id())).expect("a process").count()
        };
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", world.gateway.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("memory");
        let kilobytes: usize = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        (of("fd"), of("task"), kilobytes)
    };
    let round = |number: usize| {
        world
            .plan
            .directory
            .write("apis/api-0.yaml", versioned(if number.is_multiple_of(2) { "b" } else { "a" }));
        assert_eq!(reload(&world)["changed"], json!(true));
        world.plain().get("/versioned/both").bearer(&token).send().assert_passed();
    };
    (0..30).for_each(round);
    std::thread::sleep(Duration::from_millis(2_500));
    let before = held();
    (0..150).for_each(round);
    let mut after = held();
    // What is replaced is let go of a moment later. One held back by each reload would be 150.
    let let_go = |after: (usize, usize, usize)| after.0 <= before.0 + 15 && after.1 <= before.1 + 15;
    for _ in 0..60 {
        if let_go(after) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
        after = held();
    }
    assert!(let_go(after), "{before:?} {after:?}");
    assert!(after.2 <= before.2 + 30_000, "{before:?} {after:?} kilobytes");
}

/// What is in force, and how it is doing.
#[test]
fn keys_certificates_and_plans_are_shown() {
    let plan = told(&[BEARER]);
    plan.directory.write(
        "plans.yaml",
        "plans:\n  gold: { limits: [ { quota: 3 per day } ] }\n  old: { disabled: true, limits: [ { quota: 3 per day } ] }\n",
    );
    let world = plan.start();
    let token = world.idp().token().sign();
    world.plain().get("/bearer/x").bearer(&token).send().assert_passed();
    let get = |path: &str| tell(&world.gateway, Method::GET, path, "").json();
    let sets = get("/v1/issuers")["key_sets"].clone();
    assert_eq!((&sets[0]["issuers"], &sets[0]["usable"]), (&json!(["bank-idp"]), &json!(true)), "{sets}");
    // A new key is known as soon as an operator says so, as often as they say it.
    let fetched = world.idp().hits();
    for number in 1..=4 {
        let refreshed = tell(&world.gateway, Method::POST, "/v1/issuers/bank-idp/refresh", "");
        assert_eq!((refreshed.status, world.idp().hits()), (200, fetched + number), "{}", refreshed.text());
    }
    world.idp().serve(crate::rig::idp::Serving::Status(500));
    let failed = tell(&world.gateway, Method::POST, "/v1/issuers/bank-idp/refresh", "").json();
    assert!(failed["key_sets"][0]["last_error"].as_str().is_some_and(|why| why.contains("500")), "{failed}");
    world.plain().get("/bearer/x").bearer(&token).send().assert_passed();
    assert_eq!(tell(&world.gateway, Method::POST, "/v1/issuers/nobody/refresh", "").code(), "unknown_issuer");
    let certificates = get("/v1/certificates")["certificates"].clone();
    assert!(certificates.to_string().contains("tls/server.pem"), "{certificates}");
    assert_eq!(
        get("/v1/plans")["plans"],
        json!([{ "name": "gold", "disabled": false }, { "name": "old", "disabled": true }])
    );
    assert_eq!(world.gateway.admin_client().get("/v1/issuers").send().status, 401);
}
