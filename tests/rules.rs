//! What a caller may do: the first rule that fits wins, and where none fits nothing is allowed.

use http::Method;
use portcullis_core::Reason;
use serde_json::json;

use crate::rig::world::{OPEN_BANKING, World};

const RULES: &str = "\
api: rules
match: { host: api.bank.example, path: /rules/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
identity: { name: claims.client_id, group: claims.tier }
allow:
  - { name: any of two, methods: [GET], paths: [/any], any_scope: [accounts.read, accounts] }
  - { name: both, methods: [GET], paths: [/both], scope: [accounts, payments] }
  - { name: gold, methods: [GET], paths: [/gold], group: gold }
  - { name: local, methods: [GET], paths: [/local], from: [127.0.0.0/8] }
  - { name: remote, methods: [GET], paths: [/remote], from: [203.0.113.0/24] }
  - { name: one, methods: [GET], paths: [\"/items/{id}\"] }
  - { name: large, methods: [POST], paths: [/amount], when: \"claims.limit >= 100\" }
  - { name: header, methods: [GET], paths: [/header], when: 'request.headers[\"x-mode\"] == \"safe\"' }
";

/// CHN-05.
#[test]
fn a_scope_that_is_missing_is_named() {
    let world = World::with(&[OPEN_BANKING]);
    for scope in ["payments", "", "accounts.read", "ACCOUNTS", "accountsx", "account s"] {
        let token = world.idp().token().claim("scope", scope).bound_to(&world.tpp_a).sign();
        let answer = world.client().get("/open-banking/v3/accounts").bearer(&token).send();
        answer.assert_refused(Reason::ScopeInsufficient);
        let challenge = answer.challenges()[0];
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
        assert!(challenge.ends_with("scope=\"accounts\""), "{challenge}");
    }
    world.assert_upstream_untouched();
}

#[test]
fn what_no_rule_allows_is_denied() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.bound_token();
    for (method, path) in [
        (Method::DELETE, "/open-banking/v3/accounts"),
        (Method::GET, "/open-banking/v3/domestic-payments"),
        (Method::GET, "/open-banking/v3/accounts/1/transactions"),
        (Method::GET, "/open-banking/v3/accounts/"),
        (Method::GET, "/open-banking/v3/Accounts"),
        (Method::GET, "/open-banking/v3/accounts/1/balances/2"),
        (Method::HEAD, "/open-banking/v3/nothing"),
    ] {
        let answer = world.client().request(method.clone(), path).bearer(&token).send();
        if method == Method::HEAD {
            assert_eq!(answer.status, 403, "{path}");
        } else {
            assert_eq!(answer.code(), Reason::AccessDenied.code(), "{method} {path}: {}", answer.text());
            answer.assert_refused(Reason::AccessDenied);
        }
    }
    world.assert_upstream_untouched();
}

#[test]
fn a_condition_decides() {
    let world = World::with(&[OPEN_BANKING]);
    let pay = |acr: &str| {
        let token = world.idp().token().claim("acr", acr).bound_to(&world.tpp_a).sign();
        world.client().post("/open-banking/v3/domestic-payments", "{}").bearer(&token).send()
    };
    pay("urn:openbanking:psd2:sca").assert_passed();
    pay("password").assert_refused(Reason::AccessDenied);
    pay("urn:openbanking:psd2:sca ").assert_refused(Reason::AccessDenied);
    let token = world.idp().token().without("acr").bound_to(&world.tpp_a).sign();
    let call = world.client().post("/open-banking/v3/domestic-payments", "{}").bearer(&token);
    call.send().assert_refused(Reason::AccessDenied);
    assert_eq!(world.upstream().hits(), 1);
}

#[test]
fn rules_judge_scopes_groups_addresses_templates_and_conditions() {
    let world = World::with(&[RULES]);
    let good = world.idp().token();
    let get = |path: &str, token: &str| world.plain().get(path).bearer(token).send();
    get("/rules/any", &good.sign()).assert_passed();
    get("/rules/any", &good.clone().claim("scope", "accounts.read").sign()).assert_passed();
    get("/rules/any", &good.clone().claim("scope", "other").sign()).assert_refused(Reason::ScopeInsufficient);
    get("/rules/both", &good.sign()).assert_passed();
    get("/rules/both", &good.clone().claim("scope", "accounts").sign())
        .assert_refused(Reason::ScopeInsufficient);
    get("/rules/gold", &good.sign()).assert_passed();
    get("/rules/gold", &good.clone().claim("tier", "silver").sign()).assert_refused(Reason::AccessDenied);
    get("/rules/local", &good.sign()).assert_passed();
    get("/rules/remote", &good.sign()).assert_refused(Reason::AccessDenied);
    get("/rules/items/7", &good.sign()).assert_passed();
    for path in ["/rules/items", "/rules/items/", "/rules/items/7/8", "/rules/itemsx/7"] {
        get(path, &good.sign()).assert_refused(Reason::AccessDenied);
    }
    let pay = |limit: serde_json::Value| {
        world.plain().post("/rules/amount", "x").bearer(&good.clone().claim("limit", limit).sign()).send()
    };
    pay(json!(100)).assert_passed();
    // Wrong kinds and missing names are no, never yes.
    for limit in [json!(99), json!("100"), json!(null), json!([100]), json!(true)] {
        pay(limit).assert_refused(Reason::AccessDenied);
    }
    world.plain().get("/rules/header").bearer(&good.sign()).header("x-mode", "safe").send().assert_passed();
    for mode in ["unsafe", "SAFE", ""] {
        let call = world.plain().get("/rules/header").bearer(&good.sign()).header("x-mode", mode);
        call.send().assert_refused(Reason::AccessDenied);
    }
    get("/rules/header", &good.sign()).assert_refused(Reason::AccessDenied);
}

/// JWT-33: scopes as text, and as a list whose members are not split.
#[test]
fn scopes_are_read_as_they_are_granted() {
    let world = World::with(&[RULES]);
    let get = |scopes: &[(&str, serde_json::Value)]| {
        let mut token = world.idp().token().without("scope");
        for (name, value) in scopes {
            token = token.claim(name, value.clone());
        }
        world.plain().get("/rules/any").bearer(&token.sign()).send()
    };
    get(&[("scope", json!("x accounts y"))]).assert_passed();
    get(&[("scp", json!(["x", "accounts"]))]).assert_passed();
    get(&[("scp", json!("accounts"))]).assert_passed();
    get(&[("scp", json!(["x accounts"]))]).assert_refused(Reason::ScopeInsufficient);
    get(&[]).assert_refused(Reason::ScopeInsufficient);
}

/// Of two spellings that an upstream takes for one, none finds a way around a rule: neither of a path, nor of a method, nor
/// of a field.
#[test]
fn what_is_spelled_differently_is_not_judged_differently() {
    const VERBS: &str = "\
api: verbs
match: { host: api.bank.example, path: /verbs/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
allow:
  - { name: release, paths: [\"/payments:release\"], scope: release }
  - { name: start, methods: [POST], paths: [/start], scope: payments }
  - { name: own, paths: [/own], when: 'request.path != \"/verbs/own\" || request.headers[\"x-tenant\"] == \"mine\"' }
  - { name: anything else, paths: [\"/{id}\"], when: 'request.path != \"/verbs/payments:release\" && !request.path.endsWith(\"own\")' }
";
    const VERBS_ELSEWHERE: &str = "\
api: elsewhere
match: { host: api.bank.example, path: \"/verbs:all/*\" }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
allow: [ { name: anything, paths: [\"/*\"] } ]
";
    const CATCH_ALL: &str = "\
api: all
match: { host: api.bank.example, path: /* }
upstream: accounts
authenticate: { anonymous: { because: public docs } }
allow: [ { name: anything, paths: [\"/*\"] } ]
";
    let world = World::with(&[VERBS, VERBS_ELSEWHERE, CATCH_ALL]);
    let token = world.idp().token().claim("scope", "accounts").sign();
    let ask = |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        world.plain().request(method, path).bearer(&token).send()
    };
    for path in ["/verbs/payments:release", "/verbs/payments%3Arelease"] {
        ask("POST", path).assert_refused(Reason::ScopeInsufficient);
    }
    ask("GET", "/verbs/alice%40bank.example").assert_passed();
    assert_eq!(world.upstream().last().line(), "GET /verbs/alice%40bank.example HTTP/1.1", "as it was sent");
    ask("GET", "/verbs:all/x").assert_passed();
    ask("GET", "/verbs%3Aall/x").assert_refused(Reason::PathNotNormal);
    for method in ["post", "Post", "get", "PURGE", "M-SEARCH"] {
        ask(method, "/verbs/start").assert_refused(Reason::MethodNotAllowed);
    }
    let own = |fields: &[(&str, &str)]| {
        let call = world.plain().get("/verbs/own").bearer(&token);
        fields.iter().fold(call, |call, (name, value)| call.header(name, value)).send()
    };
    own(&[("x-tenant", "mine")]).assert_passed();
    own(&[("x-tenant", "theirs")]).assert_refused(Reason::AccessDenied);
    for other in ["x_tenant", "X.Tenant"] {
        own(&[("x-tenant", "mine"), (other, "theirs")]).assert_refused(Reason::RequestMalformed);
    }
}
