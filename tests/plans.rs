//! Plans: what callers may do and how often follows from them, request by request.

use http::Method;
use portcullis_core::Reason;

use crate::rig::client::Answer;
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::world::{Plan, World};

const ADMIN: &str = "EXAMPLE-only-the-people-of-the-portal-know-this";

const ORDERS: &str = "\
api: orders
match: { host: api.bank.example, path: /orders/* }
upstream: accounts
authenticate: { any_of: [ { jwt: { issuer: bank-idp } }, { api_key: { header: x-api-key } } ] }
plans: { claim: pol, client_claim: azp, scopes: { orders.all: gold } }
allow:
  - { name: read, methods: [GET], paths: [\"/*\"] }
  - { name: write, methods: [POST], paths: [\"/*\"] }
";

const SHOP: &str = "\
api: shop
match: { host: api.bank.example, path: /shop/* }
upstream: accounts
authenticate: { any_of: [ { jwt: { issuer: bank-idp } }, { api_key: { header: x-api-key } } ] }
plans: { claim: pol }
usage: /usage
allow:
  - { name: everything, paths: [\"/*\"] }
";

const PLANS: &str = "\
plans:
  free:
    allow: { orders: [read], shop: all }
    limits:
      - { quota: 5 per day }
  gold:
    allow: { orders: all }
    limits:
      - { quota: 7 per day }
  staff:
    allow: { orders: { rules: all, limits: [ { quota: unlimited } ] } }
  closed:
    disabled: true
    allow: { orders: all }
";

const CLIENTS: &str = "\
clients:
  acme: { plans: [gold] }
  globex: {}
  ended: { plans: [gold], expires: 2020-01-01 }
";

fn plan() -> Plan {
    let plan = Plan::new(&[ORDERS, SHOP]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.admin = ", token: { file: secrets/admin-token }";
    });
    plan.directory.write("plans.yaml", PLANS).write("clients/partners.yaml", CLIENTS);
    plan.directory.write("secrets/admin-token", ADMIN);
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    plan
}

fn get(world: &World, path: &str, token: &str) -> Answer {
    world.plain().get(path).bearer(token).send()
}

#[test]
fn a_plan_gives_rules_and_what_it_does_not_give_is_refused() {
    let world = plan().start();
    let token = |subject: &str| world.idp().token().claim("sub", subject);
    let of = |subject: &str, plan: &str| token(subject).claim("pol", plan).sign();
    let post = |token: &str| world.plain().request(Method::POST, "/orders/1").bearer(token).send();
    let other_scope = token("c").claim("scope", "openid").sign();
    for (what, answer, reason) in [
        ("no plan", get(&world, "/orders/1", &token("a").sign()), Reason::PlanMissing),
        (
            "no plan, and no scopes that count",
            get(&world, "/shop/1", &token("a").sign()),
            Reason::PlanMissing,
        ),
        ("no such plan", get(&world, "/orders/1", &of("a", "platinum")), Reason::PlanMissing),
        ("a disabled plan", get(&world, "/orders/1", &of("a", "closed")), Reason::PlanMissing),
        ("no scope of a plan", get(&world, "/orders/1", &other_scope), Reason::PlanMissing),
        ("another rule", post(&of("a", "free")), Reason::NotInPlan),
        ("another API", get(&world, "/shop/1", &of("a", "gold")), Reason::NotInPlan),
        (
            "an ended client",
            get(&world, "/orders/1", &token("a").claim("azp", "ended").sign()),
            Reason::ClientInactive,
        ),
    ] {
        assert_eq!(answer.code(), reason.code(), "{what}: {}", answer.text());
        answer.assert_refused(reason);
    }
    world.assert_upstream_untouched();
    get(&world, "/orders/1", &of("b", "free")).assert_passed();
    post(&of("b", "gold")).assert_passed();
    post(&token("c").claim("scope", "openid orders.all").sign()).assert_passed();
    post(&token("d").claim("azp", "acme").sign()).assert_passed();
    for why in [
        "rule `write` is in no plan of the caller",
        "nothing gives the caller a plan",
        "the claim names a plan that there is not",
        "a plan of the caller is disabled",
        "none of the scopes stands for a plan",
    ] {
        let is_told = || world.gateway.access_lines().iter().any(|line| line["detail"] == why);
        eventually(why, || is_told().then_some(()));
    }
}

/// One counter for all APIs of a plan, the better of two plans, and none where it is unlimited; kept over a restart.
#[test]
fn limits_of_plans_count_across_their_apis() {
    let world = plan().start();
    let of =
        |subject: &str, plans: &[&str]| world.idp().token().claim("sub", subject).claim("pol", plans).sign();
    let free = of("a", &["free"]);
    let first = get(&world, "/orders/1", &free);
    first.assert_passed();
    assert_eq!(first.header("ratelimit-policy"), Some("\"free-identity-quota-day\";q=5;w=86400"));
    assert_eq!(first.header("ratelimit"), Some("\"free-identity-quota-day\";r=4;t=86400"));
    for _ in 0..4 {
        get(&world, "/shop/1", &free).assert_passed();
    }
    let refused = get(&world, "/orders/1", &free);
    refused.assert_refused(Reason::QuotaExhausted);
    assert_eq!(refused.header("ratelimit-policy"), Some("\"free-identity-quota-day\";q=5;w=86400"));
    get(&world, "/shop/1", &free).assert_refused(Reason::QuotaExhausted);
    // Another plan has counters of its own, and where both hold the larger quota counts.
    let both = of("a", &["free", "gold"]);
    for _ in 0..7 {
        get(&world, "/orders/1", &both).assert_passed();
    }
    get(&world, "/orders/1", &both).assert_refused(Reason::QuotaExhausted);
    let staff = of("a", &["free", "gold", "staff"]);
    let answer = get(&world, "/orders/1", &staff);
    answer.assert_passed();
    assert_eq!(answer.header("ratelimit"), None);
    let other = of("b", &["free"]);
    let world = world.kill_and_restart();
    get(&world, "/shop/1", &free).assert_refused(Reason::QuotaExhausted);
    get(&world, "/orders/1", &other).assert_passed();
    let count =
        world.gateway.metric_sum("portcullis_limit_checks_total", &["limit=\"free-identity-quota-day\""]);
    assert!(count >= 1.0, "{count}");
}

#[test]
fn keys_that_are_made_while_it_runs_have_the_plan_of_their_client() {
    let world = plan().start();
    let make = |client: &str| {
        let call = world.gateway.admin_client().request(Method::POST, &format!("/v1/clients/{client}/keys"));
        let made = call.bearer(ADMIN).header("content-type", "application/json").body("{}").send();
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["key"].as_str().expect("a key").to_owned()
    };
    let ask = |path: &str, key: &str| world.plain().get(path).header("x-api-key", key).send();
    let (acme, globex) = (make("acme"), make("globex"));
    ask("/orders/1", &acme).assert_passed();
    ask("/shop/1", &acme).assert_refused(Reason::NotInPlan);
    ask("/orders/1", &globex).assert_refused(Reason::PlanMissing);
}

#[test]
fn plans_are_explained_and_checked() {
    let world = plan().start();
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let run = |arguments: &[&str]| {
        let output = portcullis(arguments, &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    };
    let token = world.idp().token().claim("pol", &["free", "staff"][..]).sign();
    let free = world.idp().token().claim("pol", "free").sign();
    let url = "http://api.bank.example/orders/1";
    let said = run(&["explain", "GET", url, "--token", &token, "--policies", &policies]);
    assert!(said.contains("plan      free, staff") && said.contains("apis/api-0.yaml:5"), "{said}");
    let said = run(&["explain", "POST", url, "--token", &free, "--policies", &policies]);
    assert!(
        said.contains("`write` is in no plan of the caller") && said.contains("403 not_in_plan"),
        "{said}"
    );
    let usage = "http://api.bank.example/shop/usage";
    let said = run(&["explain", "GET", usage, "--token", &free, "--policies", &policies]);
    assert!(said.contains("=> ALLOW 200, the gateway itself would answer"), "{said}");
    for (file, written, instead, expected) in [
        ("plans.yaml", "shop: all", "shpo: all", "there is no API `shpo`"),
        ("plans.yaml", "[read]", "[raed]", "API `orders` has no rule `raed`"),
        ("plans.yaml", "quota: 7", "quota: -7", "not a whole number"),
        ("plans.yaml", "disabled: true", "disable: true", "unknown key `disable`"),
        ("clients/partners.yaml", "[gold]", "[glod]", "did you mean `gold`?"),
        ("apis/api-0.yaml", "orders.all: gold", "orders.all: silver", "there is no plan `silver`"),
        ("apis/api-1.yaml", "plans: { claim: pol }\n", "", "API `shop` takes no plans"),
        (
            "apis/api-1.yaml",
            "any_of: [ { jwt",
            "any_of: [ { anonymous: { because: docs } }, { jwt",
            "have no plan",
        ),
    ] {
        let before = std::fs::read_to_string(world.plan.directory.join(file)).expect("a file");
        assert!(before.contains(written), "{written}");
        world.plan.directory.write(file, before.replacen(written, instead, 1));
        let said = run(&["check", &policies]);
        assert!(said.contains(expected), "{expected} in\n{said}");
        world.plan.directory.write(file, &before);
    }
    let said = run(&["check", &policies]);
    assert!(said.contains(" 0 errors"), "{said}");
}
