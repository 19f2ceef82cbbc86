//! Chains: any of, over all of; a bad credential never falls through to a weaker one.

use std::sync::Arc;

use portcullis_core::{Reason, Secret};
use portcullis_jose::base64url;
use portcullis_jose::digest::KeyedHash;

use crate::rig::gateway::portcullis;
use crate::rig::world::{Plan, World};

const PEPPER: &str = "pepper-pepper-pepper-pepper-pepper-pepper";
const KEY: &str = "partner-key-1234567890-1234567890";

const PARTNERS: &str = "\
api: partners
match: { host: api.bank.example, path: /partners/* }
upstream: accounts
authenticate:
  any_of:
    - all_of:
        - certificate: { trust: open-banking }
        - jwt: { issuer: bank-idp }
      identity_from: jwt
    - api_key: { header: x-api-key }
allow:
  - { name: anyone known may read, methods: [GET], paths: [\"/*\"] }
forward:
  set: { x-caller: \"{identity.name}\", x-method: \"{identity.method}\" }
";

fn plan(api: &str) -> Plan {
    let plan = Plan::new(&[api])
        .with(|plan| plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned());
    let hash = KeyedHash::new(&Secret::new(PEPPER.as_bytes().to_vec())).digest(KEY.as_bytes());
    plan.directory.write("secrets/pepper", PEPPER);
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:\n  partner:\n    credentials:\n      - api_key: {{ hash: \"pk1:{}\" }}\n",
            base64url::encode(&hash)
        ),
    );
    plan
}

#[test]
fn either_alternative_lets_its_callers_in() {
    let world = plan(PARTNERS).start();
    world.client().get("/partners/1").bearer(&world.idp().token().sign()).send().assert_passed();
    assert_eq!(world.upstream().last().value("x-method"), "jwt");
    world.stranger().get("/partners/1").header("x-api-key", KEY).send().assert_passed();
    assert_eq!(world.upstream().last().value("x-caller"), "partner");
    assert_eq!(world.upstream().last().value("x-method"), "api_key");
}

#[test]
fn half_of_an_alternative_is_not_enough() {
    let world = plan(PARTNERS).start();
    let token = world.idp().token().sign();
    world.stranger().get("/partners/1").bearer(&token).send().assert_refused(Reason::CertificateMissing);
    let answer = world.client().get("/partners/1").send();
    answer.assert_refused(Reason::CredentialsMissing);
    let answer = world.stranger().get("/partners/1").send();
    answer.assert_refused(Reason::CredentialsMissing);
    // ANS-02: a challenge for each way in, none with an error.
    let challenges = answer.challenges();
    for scheme in ["Bearer", "ApiKey", "Certificate"] {
        let wanted = format!("{scheme} realm=\"partners\"");
        assert!(challenges.contains(&wanted.as_str()), "{challenges:?}");
    }
    world.assert_upstream_untouched();
}

/// CHN-01, trap 25: what is presented and bad ends the request.
#[test]
fn a_bad_credential_does_not_fall_through_to_a_weaker_one() {
    let world = plan(PARTNERS).start();
    let expired = world.idp().token().claim("exp", 1).sign();
    world.client().get("/partners/1").bearer(&expired).send().assert_refused(Reason::TokenExpired);
    for call in [
        world.client().get("/partners/1").bearer(&expired).header("x-api-key", KEY),
        world.client().get("/partners/1").bearer("x").header("x-api-key", KEY),
        world.stranger().get("/partners/1").bearer(&expired).header("x-api-key", KEY),
    ] {
        let answer = call.send();
        assert!(matches!(answer.status, 400 | 401), "{}", answer.text());
    }
    world
        .stranger()
        .get("/partners/1")
        .header("x-api-key", "wrong-key-1234567890")
        .send()
        .assert_refused(Reason::ApiKeyInvalid);
    world.assert_upstream_untouched();
}

#[test]
fn two_kinds_of_credentials_are_ambiguous_even_if_both_are_good() {
    let world = plan(PARTNERS).start();
    let token = world.idp().token().sign();
    let answer = world.client().get("/partners/1").bearer(&token).header("x-api-key", KEY).send();
    answer.assert_refused(Reason::CredentialsAmbiguous);
    world.assert_upstream_untouched();
}

/// CHN-03: the policy says who names the caller.
#[test]
fn the_policy_says_which_credential_names_the_caller() {
    let by_certificate = PARTNERS.replace("identity_from: jwt", "identity_from: certificate");
    let world = plan(&by_certificate).start();
    let other = Arc::new(world.plan.third_parties.client("somebody else"));
    let token = world.idp().token().sign();
    world.stranger().certificate(&other).get("/partners/1").bearer(&token).send().assert_passed();
    assert_eq!(world.upstream().last().value("x-method"), "certificate");
    let silent = PARTNERS.replace("      identity_from: jwt\n", "");
    let plan = plan(&silent);
    plan.write();
    let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("identity_from"), "{said}");
}

/// A name the credential does not have is a refusal, not an empty name.
#[test]
fn a_caller_who_cannot_be_named_is_refused() {
    let api = "\
api: named
match: { host: api.bank.example, path: /named/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
identity: { name: claims.tenant }
allow:
  - { name: anything, paths: [\"/*\"] }
";
    let world = World::with(&[api]);
    let named = world.idp().token().claim("tenant", "t-7").sign();
    world.plain().get("/named/1").bearer(&named).send().assert_passed();
    for token in [
        world.idp().token(),
        world.idp().token().claim("tenant", ""),
        world.idp().token().claim("tenant", 7.5),
        world.idp().token().claim("tenant", serde_json::json!(["a"])),
        world.idp().token().claim("tenant", "line\r\nbreak"),
        world.idp().token().claim("tenant", "t".repeat(300)),
    ] {
        let answer = world.plain().get("/named/1").bearer(&token.sign()).send();
        assert_eq!(answer.code(), Reason::IdentityUnresolved.code(), "{}", answer.text());
        answer.assert_refused(Reason::IdentityUnresolved);
    }
    assert_eq!(world.upstream().hits(), 1);
}

/// CHN-08: public APIs say so, and why.
#[test]
fn an_api_is_public_only_if_it_says_so() {
    for (authenticate, wanted) in [
        ("authenticate: { anonymous: { because: public docs } }", 0),
        ("authenticate: anonymous", 1),
        ("authenticate: { anonymous: {} }", 1),
        ("", 1),
    ] {
        let api = format!(
            "api: public\nmatch: {{ host: \"*\", path: /* }}\nupstream: accounts\n{authenticate}\nallow:\n  - {{ name: all, paths: [\"/*\"] }}\n"
        );
        let plan = Plan::new(&[&api]);
        plan.write();
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        assert_eq!(
            output.status.code(),
            Some(wanted),
            "{authenticate}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
