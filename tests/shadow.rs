//! Chains that are tried and not enforced.

use portcullis_core::Reason;

use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::world::{BEARER, Plan, World};

const TRIAL: &str = "\
api: trial
match: { host: api.bank.example, path: /trial/* }
upstream: accounts
authenticate:
  mode: shadow
  any_of:
    - jwt: { issuer: bank-idp }
    - jwt: { issuer: bank-idp, header: x-token }
allow:
  - { name: reading, methods: [GET], paths: [\"/*\"] }
  - { name: writing, methods: [POST], paths: [\"/*\"], scope: accounts }
forward:
  set: { x-client-id: \"{identity.name}\" }
";

/// Everybody passes, nobody has a name, what claims one is removed, and what the chain would say is written down.
#[test]
fn a_chain_in_shadow_lets_everybody_pass_and_names_nobody() {
    let world = World::with(&[TRIAL, BEARER]);
    let good = format!("Bearer {}", world.idp().token().sign());
    let expired = format!(
        "Bearer {}",
        world.idp().token().claim("exp", 1_700_000_000).claim("iat", 1_699_999_000).sign()
    );
    for values in [vec![], vec![&*good], vec![&*expired], vec!["Bearer x"], vec![&*good, &*good]] {
        let mut call = world.plain().get("/trial/1").header("x-client-id", "admin");
        for value in values {
            call = call.header("authorization", value);
        }
        call.send().assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.values("x-client-id"), ["anonymous"]);
        assert_eq!(received.values("authorization"), Vec::<&str>::new());
    }
    let hits = world.upstream().hits();
    // A scope that a good token has is nobody's while the chain is in shadow, and no credential is asked for.
    let answer = world.plain().post("/trial/1", "{}").header("authorization", &good).send();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.challenges().is_empty());
    // Beside it, a chain is enforced, and no failure of a trial makes anybody wait there.
    for _ in 0..50 {
        world.plain().get("/trial/1").header("authorization", "Bearer a.b.c").send().assert_passed();
    }
    world.plain().get("/bearer/1").send().assert_refused(Reason::CredentialsMissing);
    world.plain().get("/bearer/1").header("authorization", &good).send().assert_passed();
    assert_eq!(world.upstream().hits(), hits + 51);

    let metrics = eventually("the metrics are told", || {
        let text = world.gateway.admin("/metrics").text();
        text.contains("portcullis_shadow_denials_total{api=\"trial\",reason=\"token_malformed\"}")
            .then_some(text)
    });
    for reason in ["credentials_missing", "token_expired", "credentials_ambiguous"] {
        let line = format!("portcullis_shadow_denials_total{{api=\"trial\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    for word in
        ["would_allow", "credentials_missing", "token_expired", "credentials_ambiguous", "token_malformed"]
    {
        eventually(word, || {
            let lines = world.gateway.access_lines();
            lines
                .iter()
                .find(|line| line["shadow"] == word && line["identity"] == "anonymous")
                .map(|_line| ())
        });
    }
}

/// Nobody is left in doubt that the API is open.
#[test]
fn a_chain_in_shadow_is_told_by_check() {
    let plan = Plan::new(&[TRIAL]);
    plan.write();
    let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("chain_in_shadow") && said.contains("anybody may call `trial`"), "{said}");
}
