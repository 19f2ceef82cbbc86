//! `portcullis test`: what a policy lets through is shown by the stack that serves, with keys of the run.

use std::path::Path;

use crate::rig::gateway::{Directory, portcullis};

/// Keys that are fetched, an authority and a secret that are not there: nothing of them is touched.
const GATEWAY: &str = "\
version: 1
listen:
  public:
    address: 127.0.0.1:0
    tls:
      certificate: { file: tls/missing.pem }
      key: { file: tls/missing.key }
      client_certificates:
        ask: optional
        trust: { open-banking: { file: tls/missing-ca.pem } }
issuers:
  bank-idp:
    issuer: https://idp.bank.example
    audience: https://api.bank.example
    algorithms: [ES256]
    keys: { jwks_url: https://idp.bank.example/jwks }
api_keys: { pepper: { env: PEPPER_OF_NOBODY } }
upstreams:
  accounts: { urls: [\"http://127.0.0.1:1\"] }
";

const API: &str = "\
api: accounts
match: { host: api.bank.example, path: /accounts/* }
upstream: accounts
authenticate:
  jwt: { issuer: bank-idp, bound_to: certificate }
identity: { name: claims.client_id }
allow:
  - { name: read accounts, methods: [GET], paths: [\"/*\"], scope: accounts }
  - { name: close accounts, methods: [DELETE], paths: [\"/*\"], scope: admin }
limits:
  - { name: pace, per: identity, rate: 2 per second, burst: 2 }
forward: { set: { x-client-id: \"{identity.name}\" }, keep_credentials: true }
";

const TESTS: &str = "\
policy: accounts
now: 2026-11-01T12:00:00Z
certificates: { tpp-a: {}, tpp-b: {} }
tokens:
  good: { issuer: bank-idp, bound_to: tpp-a, claims: { client_id: tpp-a, scope: accounts } }
cases:
  - name: the holder reads
    request: GET /accounts/17
    with: { token: good, certificate: tpp-a }
    expect: { decision: allow, rule: read accounts, identity: tpp-a, upstream: { x-client-id: tpp-a } }
  - name: a stolen token is useless
    request: GET /accounts/17
    with: { token: good, certificate: tpp-b }
    expect: { decision: deny, status: 401, reason: certificate_mismatch }
  - name: the third waits
    request: GET /accounts/17
    with: { token: good, certificate: tpp-a }
    repeat: 3
    expect: { decision: deny, status: 429, reason: rate_limited }
";

/// A policy directory with these tests.
fn directory(api: &str, tests: &str) -> Directory {
    let directory = Directory::new();
    directory.write("gateway.yaml", GATEWAY).write("apis/accounts.yaml", api);
    directory.write("tests/accounts.test.yaml", tests);
    directory
}

/// Runs `test`; its exit code, and all it said.
fn run(directory: &Path, more: &[&str]) -> (Option<i32>, String) {
    let path = directory.to_string_lossy().into_owned();
    let output = portcullis(&[&["test", path.as_str()], more].concat(), &[]);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

#[test]
fn good_tests_pass_without_a_network_and_without_any_key() {
    let directory = directory(API, TESTS);
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said,
        "\
3 passed, 0 failed
1 of 2 rules exercised, 50%
  accounts: close accounts: never exercised (apis/accounts.yaml:9:13)
"
    );
}

#[test]
fn a_case_that_fails_is_told_with_its_place_and_what_the_log_would_say() {
    let tests = TESTS.replace("reason: certificate_mismatch", "reason: token_expired");
    let directory = directory(API, &tests);
    let (code, said) = run(directory.path(), &["--only", "stolen"]);
    assert_eq!(code, Some(1), "{said}");
    let (failure, _) = said.split_once("\n0 passed").expect("a count");
    assert_eq!(
        failure,
        "\
error[test_failed]: `a stolen token is useless` failed: expected reason `token_expired`, got `certificate_mismatch`
  --> tests/accounts.test.yaml:14:52
   |
14 |     expect: { decision: deny, status: 401, reason: token_expired }
   |                                                    ^^^^^^^^^^^^^ got `certificate_mismatch`
   |
   = note: the gateway would log: deny 401 certificate_mismatch: the token is bound to another certificate
"
    );
}

#[test]
fn whatever_weakens_a_policy_fails_its_tests() {
    for (strong, weak, failing) in [
        (", bound_to: certificate", "", "a stolen token is useless"),
        ("burst: 2", "burst: 3", "the third waits"),
        ("scope: accounts }\n  - { name: close", "scope: nothing }\n  - { name: close", "the holder reads"),
        ("\"{identity.name}\"", "\"somebody\"", "the holder reads"),
    ] {
        let weakened = API.replacen(strong, weak, 1);
        assert_ne!(weakened, API, "{strong}");
        // A token that names a certificate is held to it even where the policy does not ask.
        let tests =
            TESTS.replace("bound_to: tpp-a, ", if weak.is_empty() { "" } else { "bound_to: tpp-a, " });
        let directory = directory(&weakened, &tests);
        let (code, said) = run(directory.path(), &[]);
        assert_eq!(code, Some(1), "{strong}: {said}");
        assert!(said.contains(&format!("`{failing}` failed")), "{strong}: {said}");
    }
}

#[test]
fn a_binding_counts_even_where_the_policy_does_not_ask_for_it() {
    let directory = directory(&API.replace(", bound_to: certificate", ""), TESTS);
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn every_fault_of_a_file_of_tests_has_its_place_and_what_was_meant() {
    let tests = TESTS
        .replace("now: 2026-11-01T12:00:00Z", "now: yesterday")
        .replace("identity: tpp-a", "idenity: tpp-a")
        .replace("rule: read accounts", "rule: read acounts")
        .replace("certificate: tpp-b", "certificate: tpp-c")
        .replace("reason: rate_limited", "reason: rate_limitd")
        .replace("    repeat: 3\n", "    repeat: 0\n")
        .replace("issuer: bank-idp", "issuer: bank-ipd");
    let directory = directory(API, &tests);
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    for fault in [
        "--> tests/accounts.test.yaml:2:6",
        "error[unknown_key]: unknown key `idenity`",
        "did you mean `identity`?",
        "rule `read acounts` is not defined",
        "did you mean `read accounts`?",
        "apis/accounts.yaml:8:13",
        "certificate `tpp-c` is not defined",
        "did you mean `rate_limited`?",
        "0 is out of range",
        "issuer `bank-ipd` is not defined",
        "nothing was run",
    ] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
}

#[test]
fn a_case_that_expects_no_decision_is_a_fault() {
    let tests =
        TESTS.replace("expect: { decision: allow, rule: read accounts, identity: tpp-a, ", "expect: { ");
    let directory = directory(API, &tests);
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("what is expected needs `decision`"), "{said}");
}

#[test]
fn faults_of_the_policies_are_told_before_anything_is_run() {
    let directory = directory(&API.replace("scope: admin", "scop: admin"), TESTS);
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("apis/accounts.yaml:9") && said.contains("did you mean `scope`?"), "{said}");
    assert!(!said.contains("passed"), "{said}");
}

#[test]
fn machines_get_what_people_get() {
    let directory = directory(API, &TESTS.replace("status: 429", "status: 428"));
    let report = directory.join("report.xml");
    let output = portcullis(
        &[
            "test",
            &directory.path().to_string_lossy(),
            "--format",
            "json",
            "--junit",
            &report.to_string_lossy(),
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said["passed"], &said["failed"]), (&2.into(), &1.into()));
    assert_eq!(said["coverage"]["percent"], 50);
    assert_eq!(said["coverage"]["never_exercised"][0]["rule"], "close accounts");
    let failure = &said["cases"][2]["failures"][0];
    assert_eq!((&failure["what"], &failure["got"]), (&"status".into(), &"429".into()));
    assert_eq!((&failure["place"]["line"], &failure["place"]["column"]), (&19.into(), &39.into()));
    let xml = std::fs::read_to_string(report).expect("a report");
    assert!(
        xml.contains("<testsuite name=\"tests/accounts.test.yaml\" tests=\"3\" failures=\"1\">"),
        "{xml}"
    );
    assert!(xml.contains("<testcase name=\"the holder reads\" classname=\"accounts\""), "{xml}");
    assert!(xml.contains("expected status `428`, got `429`"), "{xml}");
}

#[test]
fn coverage_below_what_is_asked_for_fails_the_run() {
    let directory = directory(API, TESTS);
    assert_eq!(run(directory.path(), &["--min-coverage", "50"]).0, Some(0));
    let (code, said) = run(directory.path(), &["--min-coverage", "51"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: 50% of the rules are exercised, 51% are asked for"), "{said}");
    assert_eq!(run(directory.path(), &["--min-coverage", "101"]).0, Some(2));
}

#[test]
fn running_nothing_proves_nothing() {
    let directory = directory(API, TESTS);
    let (code, said) = run(directory.path(), &["--only", "no such case"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no case has been run"), "{said}");
    std::fs::remove_file(directory.join("tests/accounts.test.yaml")).expect("removed");
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error[no_tests]"), "{said}");
    directory.write("tests/accounts.yaml", TESTS);
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`tests/accounts.yaml` is not run"), "{said}");
}

#[test]
fn no_credential_is_printed() {
    let tests = TESTS.replace("x-client-id: tpp-a", "authorization: ");
    let directory = directory(API, &tests);
    let (code, said) = run(directory.path(), &["--format", "json"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("something that is not shown"), "{said}");
    assert!(!said.contains("eyJ") && !said.contains("Bearer e"), "{said}");
}

#[test]
fn a_case_about_one_api_that_another_answers_fails() {
    let directory = directory(API, &TESTS.replace("GET /accounts/17", "GET /other/17"));
    let other = API.replace("api: accounts", "api: other").replace("/accounts/*", "/other/*");
    directory.write("apis/other.yaml", other);
    let (code, said) = run(directory.path(), &["--only", "stolen"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected policy `accounts`, got `other`"), "{said}");
}

#[test]
fn an_api_of_many_hosts_is_asked_at_one_of_them() {
    for host in ["\"*\"", "\"*.bank.example\""] {
        let directory = directory(&API.replace("host: api.bank.example", &format!("host: {host}")), TESTS);
        let (code, said) = run(directory.path(), &[]);
        assert_eq!(code, Some(0), "{host}: {said}");
    }
}
