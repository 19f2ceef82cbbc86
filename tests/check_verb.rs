//! `portcullis check`: every fault of every file in one run, with its place and what was meant.

use crate::rig::gateway::{Directory, portcullis};
use crate::rig::world::{BEARER, OPEN_BANKING, PUBLIC, Plan};

/// Runs `check`; its exit code, and all it said.
fn check(directory: &Directory, more: &[&str]) -> (Option<i32>, String) {
    let path = directory.path().to_string_lossy().into_owned();
    let output = portcullis(&[&["check", path.as_str()], more].concat(), &[]);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

#[test]
fn good_policies_pass() {
    let plan = Plan::new(&[OPEN_BANKING, BEARER, PUBLIC]);
    plan.write();
    let (code, said) = check(&plan.directory, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("gateway.yaml") && said.contains("api-0.yaml"), "{said}");
}

/// A policy directory with twenty faults, in four files.
fn twenty_faults() -> Directory {
    let directory = Directory::new();
    directory.write(
        "gateway.yaml",
        "version: 2
listen:
  public:
    address: nowhere
    tls:
      certificate: { file: missing.pem }
      key: literal-secret
      client_certificates: { ask: perhaps }
issuers:
  bank-idp:
    issuer: https://idp.bank.example
    audience: https://api.bank.example
    algorithms: [none]
    keys: { jwks_url: http://idp.bank.example/jwks }
  partner:
    issuer: https://partner.example
    algorithms: [ES256]
    keys: { pem: [missing.pub] }
upstreams:
  accounts: { urls: [\"ftp://accounts\"], timeout: soon }
admin: { address: 0.0.0.0:9901 }
plans: {}
",
    );
    directory.write(
        "apis/one.yaml",
        "api: one
match: { host: api.bank.example, path: /one/* }
upstream: acounts
authenticate:
  jwt: { issuer: bank-ipd, boundto: certificate }
allow:
  - { name: a, methods: [get], paths: [one] }
  - { name: b, methods: [GET], paths: [\"/*\"], when: claims.acr = 1 }
limits:
  - { per: identity, rate: many per second }
  - { per: nobody, quota: 5 per day }
",
    );
    directory.write(
        "apis/two.yaml",
        "api: two
match: { host: API.bank.example }
upstream: accounts
allow: []
limit: []
",
    );
    directory.write(
        "clients/acme.yaml",
        "clients:\n  acme:\n    expires: someday\n    credentials: [{ api_key: { hash: plain } }]\n",
    );
    directory
}

#[test]
fn every_fault_of_every_file_is_named_in_one_run() {
    let directory = twenty_faults();
    let (code, said) = check(&directory, &[]);
    assert_eq!(code, Some(1), "{said}");
    // File, line and column of each.
    for place in [
        "gateway.yaml:1:",
        "gateway.yaml:4:",
        "gateway.yaml:7:",
        "gateway.yaml:8:",
        "gateway.yaml:13:",
        "gateway.yaml:14:",
        "gateway.yaml:20:",
        "gateway.yaml:21:",
        "gateway.yaml:22:",
        "apis/one.yaml:3:",
        "apis/one.yaml:5:",
        "apis/one.yaml:7:",
        "apis/one.yaml:8:",
        "apis/one.yaml:10:",
        "apis/one.yaml:11:",
        "apis/two.yaml:2:",
        "apis/two.yaml:4:",
        "apis/two.yaml:5:",
        "clients/acme.yaml:3:",
        "clients/acme.yaml:4:",
    ] {
        assert!(said.contains(place), "nothing is said about {place}\n{said}");
    }
    let count = said.lines().filter(|line| line.starts_with("error[")).count();
    assert!(count >= 20, "only {count} faults were named\n{said}");
    assert!(said.contains('^'), "{said}");
    for rust in ["unwrap", "Option<", "serde", "panicked", "Err("] {
        assert!(!said.contains(rust), "{rust} in {said}");
    }
}

#[test]
fn near_misses_are_suggested_and_definitions_are_shown() {
    let plan = Plan::new(&[
        &OPEN_BANKING.replace("issuer: bank-idp", "issuer: bank-ipd").replace("bound_to:", "boundto:"),
        &BEARER.replace("upstream: accounts", "upstream: acounts"),
        &PUBLIC.replace("authenticate:", "autenticate:"),
    ]);
    plan.write();
    let (code, said) = check(&plan.directory, &[]);
    assert_eq!(code, Some(1));
    for wanted in ["`bank-idp`", "did you mean `bound_to`?", "`accounts`", "did you mean `authenticate`?"] {
        assert!(said.contains(wanted), "{wanted} is missing in {said}");
    }
    // Where the missing name is defined.
    assert!(said.contains("gateway.yaml:"), "{said}");
}

#[test]
fn machines_read_faults_as_json() {
    let directory = twenty_faults();
    let path = directory.path().to_string_lossy().into_owned();
    let output = portcullis(&["check", &path, "--format", "json"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("text");
    let value: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(text.matches("\"line\"").count() >= 20, "{value:#}");
}

/// Keys of parts that do not exist are unknown, never ignored.
#[test]
fn what_is_not_built_is_unknown() {
    for (file, line) in [
        ("gateway.yaml", "plans: {}\n"),
        ("gateway.yaml", "upstream_certificates: {}\n"),
        ("apis/api-0.yaml", "cors: {}\n"),
        ("apis/api-0.yaml", "websocket: true\n"),
        ("apis/api-0.yaml", "errors: { format: problem }\n"),
        ("apis/api-0.yaml", "mode: shadow\n"),
        ("apis/api-0.yaml", "timeout: 5s\n"),
    ] {
        let plan = Plan::new(&[PUBLIC]);
        plan.write();
        let text = std::fs::read_to_string(plan.directory.join(file)).expect("the file");
        plan.directory.write(file, text + line);
        let (code, said) = check(&plan.directory, &[]);
        assert_eq!(code, Some(1), "{line}: {said}");
        let key = line.split(':').next().unwrap_or_default();
        assert!(said.contains(&format!("`{key}`")), "{said}");
    }
    let plan = Plan::new(&[&PUBLIC.replace("anonymous: { because: public docs }", "token: { issuer: x }")]);
    plan.write();
    assert_eq!(check(&plan.directory, &[]).0, Some(1));
}

/// OPS-05, JWT-11: combinations that only look harmless.
#[test]
fn dangerous_combinations_are_refused() {
    for (what, change) in [
        ("mixed families", "    algorithms: [ES256, HS256]\n"),
        ("no algorithm", "    algorithms: [none]\n"),
        ("no keys", ""),
    ] {
        let plan = Plan::new(&[BEARER]);
        plan.write();
        let yaml = plan.gateway_yaml();
        let keys = format!("    keys: {}\n", plan.keys);
        let yaml = if change.is_empty() {
            yaml.replace(&keys, "")
        } else {
            yaml.replace("    algorithms: [ES256]\n", change)
        };
        plan.directory.write("gateway.yaml", yaml);
        assert_eq!(check(&plan.directory, &[]).0, Some(1), "{what}");
    }
    for (what, api) in [
        (
            "no rules",
            BEARER.replace("  - { name: anything, paths: [\"/*\"] }\n", "").replace("allow:", "allow: []"),
        ),
        (
            "unknown name in a condition",
            BEARER.replace("paths: [\"/*\"]", "paths: [\"/*\"], when: \"nobody.x == 1\""),
        ),
        ("unknown function", BEARER.replace("paths: [\"/*\"]", "paths: [\"/*\"], when: \"nothing(1)\"")),
        (
            "types that cannot match",
            BEARER.replace("paths: [\"/*\"]", "paths: [\"/*\"], when: \"request.method == 1\""),
        ),
        (
            "a condition that is no yes or no",
            BEARER.replace("paths: [\"/*\"]", "paths: [\"/*\"], when: \"1 + 1\""),
        ),
        ("a path that is no template", BEARER.replace("\"/*\"", "\"/a/../b\"")),
        ("two apis of one name", BEARER.replace("/bearer/*", "/other/*")),
        ("two apis on one path", BEARER.replace("api: bearer", "api: other")),
    ] {
        let plan = Plan::new(&[BEARER, &api]);
        plan.write();
        let (code, said) = check(&plan.directory, &[]);
        assert_eq!(code, Some(1), "{what}: {said}");
    }
}

#[test]
fn hostile_files_are_refused_in_a_moment() {
    let deep = format!("api: {}x{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for content in [
        deep.as_bytes(),
        bomb.as_bytes(),
        b"\xff\xfe\x00",
        b"api: x\napi: y\n",
        b"- 1\n- 2\n",
        b"",
        b"%YAML 9\n",
    ] {
        let plan = Plan::new(&[PUBLIC]);
        plan.write();
        plan.directory.write("apis/hostile.yaml", content);
        let start = std::time::Instant::now();
        let (code, said) = check(&plan.directory, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("hostile.yaml") && !said.contains("panicked"), "{said}");
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
        for ours in ["DuplicateKeyPolicy", "Options", "Nodes {", "Err("] {
            assert!(!said.contains(ours), "words of the program in {said}");
        }
    }
}
