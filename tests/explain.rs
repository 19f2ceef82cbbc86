//! A request is explained by the policies, before anybody sends it: the stack that serves says what it would say.

use serde_json::Value;

use crate::rig::gateway::portcullis;
use crate::rig::world::{OPEN_BANKING, PUBLIC, Plan, World};

const KEYED: &str = "\
api: keyed
match: { host: api.bank.example, path: /keyed/* }
upstream: accounts
authenticate: { any_of: [ { api_key: { header: x-api-key } }, { jwt: { issuer: bank-idp } } ] }
allow:
  - { name: anything, paths: [\"/*\"] }
limits:
  - { per: identity, rate: 5 per second, burst: 7 }
forward: { set: { x-client-id: \"{identity.name}\" } }
";

/// What `explain` says, and its exit code.
fn explain(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let policies = world.plan.directory.path().to_string_lossy().into_owned();
    let output = portcullis(&[&["explain"], arguments, &["--policies", &policies]].concat(), &[]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[track_caller]
fn assert_said(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "{line}\nin\n{said}");
    }
}

/// The keys come from where the gateway has them, and nothing is sent to the upstream.
#[test]
fn a_bound_token_is_explained_from_the_door_to_the_answer() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.idp().token().bound_to(&world.tpp_a).claim("scope", "accounts").sign();
    world.plan.directory.write("good.jwt", format!("{token}\n"));
    world.plan.directory.write("tpp-a.pem", &world.tpp_a.pem);
    world.plan.directory.write("tpp-b.pem", world.plan.third_parties.client("tpp-b").pem);
    let file = |name: &str| world.plan.directory.join(name).to_string_lossy().into_owned();
    let (token_file, own, other) = (format!("@{}", file("good.jwt")), file("tpp-a.pem"), file("tpp-b.pem"));
    let url = "https://api.bank.example/open-banking/v3/accounts";
    let (code, said) = explain(&world, &["GET", url, "--token", &token_file, "--cert", &own]);
    assert_said(
        &said,
        &[
            "request   GET /open-banking/v3/accounts for api.bank.example, from 127.0.0.1",
            "api       open-banking ",
            "CN=tpp-a, x5t#S256 ",
            "bound to x5t#S256 ",
            "jwt       good, of ",
            "rule      `read accounts` fits ",
            "apis/api-0.yaml:10",
            "=> ALLOW 200",
        ],
    );
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = explain(&world, &["GET", url, "--token", &token_file, "--cert", &other]);
    assert_said(
        &said,
        &["jwt       certificate_mismatch: the token is bound to another certificate", "=> DENY 401"],
    );
    assert_eq!(code, Some(1), "{said}");
    let payments = "https://api.bank.example/open-banking/v3/domestic-payments";
    let (_, said) =
        explain(&world, &["POST", payments, "--token", &token_file, "--cert", &own, "-d", "amount=1"]);
    assert_said(
        &said,
        &[
            "`read accounts` is for other methods",
            "`start a payment` fits but for its scope, `payments`",
            "=> DENY 403 scope_insufficient",
            "the client sees: {\"type\":\"about:blank\"",
        ],
    );
    assert!(!said.contains(&token), "the token is not for the screen");
    assert_eq!(world.upstream().hits(), 0, "nothing was sent");
}

#[test]
fn a_chain_a_limit_and_what_the_upstream_gets_are_explained() {
    let world = Plan::new(&[KEYED, PUBLIC]).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
    });
    world.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    world.directory.write("clients/acme.yaml", "clients: { acme: { attributes: { tier: gold } } }\n");
    let world = world.start();
    let url = "https://api.bank.example/keyed/x?secret=1";
    let (code, said) = explain(&world, &["GET", url, "-H", "x-api-key: nobody-has-this-key"]);
    assert_said(&said, &["chain     decided by api_key", "api_key   api_key_invalid", "=> DENY 401"]);
    assert_eq!(code, Some(1));
    assert!(!said.contains("nobody-has-this-key") && !said.contains("secret"), "{said}");
    let token = format!("authorization: Bearer {}", world.idp().token().claim("sub", "alice").sign());
    let (_, said) = explain(&world, &["GET", url, "-H", &token, "--from", "192.0.2.7"]);
    assert_said(
        &said,
        &[
            "from 192.0.2.7",
            "chain     decided by jwt",
            "jwt       good, of alice",
            "limit     `identity-rate-second` has 6 left, all again in 1 s",
            "x-client-id: ",
            "=> ALLOW 200",
        ],
    );
    let (code, said) = explain(&world, &["GET", url, "-H", &token, "--format", "json"]);
    let told: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &told["decision"], &told["rule"]), (Some(0), &"allow".into(), &"anything".into()));
    // A listener that speaks no TLS is another door.
    let (_, said) = explain(&world, &["GET", "http://api.bank.example/public/x"]);
    assert_said(&said, &["listener  plain, in clear text", "=> ALLOW 200"]);
    for (wrong, complaint) in [
        (&["GET", "/keyed/x"][..], "write the whole URL"),
        (&["G T", url], "is no method"),
        (&["GET", url, "-H", "nonsense"], "a field is a name, a colon and a value"),
        (&["GET", url, "--token", "@nowhere"], "cannot read nowhere"),
        (&["GET", url, "--listener", "none"], "there is no such listener"),
    ] {
        let (code, said) = explain(&world, wrong);
        assert!(code == Some(1) && said.contains(complaint), "{wrong:?}: {said}");
    }
    assert_eq!(explain(&world, &["GET"]).0, Some(2));
    assert_eq!(explain(&world, &["--last-denied", "--token", "x"]).0, Some(2));
}
