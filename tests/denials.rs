//! Why a request was refused, asked of the running gateway.

use http::Method;
use portcullis_core::Reason;
use serde_json::Value;

use crate::rig::client::Answer;
use crate::rig::gateway::portcullis;
use crate::rig::world::{BEARER, PUBLIC, Plan, World};

const TOKEN: &str = "EXAMPLE-only-the-people-on-call-know-this-one";

fn plan() -> Plan {
    let plan = Plan::new(&[BEARER, PUBLIC]).with(|plan| {
        plan.admin = ", token: { file: secrets/admin-token }";
        plan.settings = "workers: 2\naccess_log: false\n".to_owned();
    });
    plan.directory.write("secrets/admin-token", TOKEN);
    plan
}

fn look(world: &World, path: &str) -> Answer {
    world.gateway.admin_client().request(Method::GET, path).bearer(TOKEN).send()
}

fn denials(world: &World, query: &str) -> Vec<Value> {
    let answer = look(world, &format!("/v1/denials{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().get("denials").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The newest first, of all workers, whether or not there is a log; and nothing secret.
#[test]
fn refusals_are_told_with_their_reasons() {
    let world = plan().start();
    assert!(denials(&world, "").is_empty());
    let token = world.idp().token().claim("exp", 1).claim("nbf", 1).claim("iat", 1).sign();
    world.plain().get("/bearer/x?secret=1").bearer(&token).send().assert_refused(Reason::TokenExpired);
    world.plain().get("/public/x").send().assert_passed();
    let refused = world.plain().get("/nowhere/x?secret=1").send();
    refused.assert_refused(Reason::RouteNotFound);
    let id = refused.json()["request_id"].as_str().expect("an id").to_owned();
    let all = denials(&world, "");
    let reasons: Vec<_> = all.iter().map(|denial| denial["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["route_not_found", "token_expired"], "what passed is not here");
    assert_eq!((all[0]["request_id"].as_str(), all[0]["path"].as_str()), (Some(&*id), Some("/nowhere/x")));
    assert!(all[1]["detail"].as_str().is_some_and(|why| why.contains("exp")), "{}", all[1]);
    assert_eq!(denials(&world, "?limit=1").len(), 1);
    assert_eq!(denials(&world, "?api=bearer")[0]["reason"], "token_expired");
    assert_eq!(denials(&world, "?reason=route_not_found").len(), 1);
    assert!(denials(&world, "?api=other").is_empty());
    assert_eq!(look(&world, &format!("/v1/denials/{id}")).json()["reason"], "route_not_found");
    let unknown = look(&world, "/v1/denials/019a");
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("unknown_request")));
    for wrong in ["?limit=x", "?limit=-1", "?resaon=x"] {
        let answer = look(&world, &format!("/v1/denials{wrong}"));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("unfit")), "{wrong}");
    }
    assert_eq!(world.gateway.admin("/v1/denials").status, 401, "who was refused is nobody else's business");
    let told = look(&world, "/v1/denials").text();
    assert!(!told.contains("secret") && !told.contains(&token), "{told}");
}

/// `explain`, as somebody on call uses it.
#[test]
fn the_last_refusal_is_explained() {
    let world = plan().start();
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let address = world.gateway.admin_address().to_string();
    let explain = |which: &[&str]| {
        let output =
            portcullis(&[&["explain"], which, &["--policies", &policies, "--admin", &address]].concat(), &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = explain(&["--last-denied"]);
    assert!(code == Some(1) && said.contains("has refused nothing"), "{said}");
    let refused = world.plain().get("/bearer/x").bearer("not-a-token").send();
    refused.assert_refused(Reason::TokenMalformed);
    let id = refused.json()["request_id"].as_str().expect("an id").to_owned();
    for which in [&["--last-denied"][..], &["--request-id", &id]] {
        let (code, said) = explain(which);
        assert_eq!(code, Some(0), "{said}");
        for line in ["api       bearer", "=>        DENY 401 token_malformed", &format!("id        {id}")] {
            assert!(said.contains(line), "{line} in\n{said}");
        }
    }
    assert_eq!(explain(&["--request-id", "019a"]).0, Some(1));
    for usage in [&[][..], &["--request-id", "x y"], &["--last-denied", "--request-id", "019a"]] {
        assert_eq!(explain(usage).0, Some(2), "{usage:?}");
    }
}
