//! A certificate-bound token passes through the gateway, with its certificate and with nothing else.

use std::process::Command;
use std::sync::Arc;

use portcullis_core::Reason;
use serde_json::json;

use crate::rig::certificates::Authority;
use crate::rig::world::{BEARER, HOST, OPEN_BANKING, World};

const ACCOUNTS: &str = "/open-banking/v3/accounts";

#[test]
fn the_holder_of_a_bound_token_reads_accounts() {
    let world = World::with(&[OPEN_BANKING]);
    world.client().get(ACCOUNTS).bearer(&world.bound_token()).send().assert_passed();
    assert_eq!(world.upstream().last().line(), format!("GET {ACCOUNTS} HTTP/1.1"));
}

#[test]
fn it_works_over_every_protocol() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.bound_token();
    world.client().http2().get(ACCOUNTS).bearer(&token).send().assert_passed();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        world.client().version(version).get(ACCOUNTS).bearer(&token).send().assert_passed();
        world.client().version(version).http2().get(ACCOUNTS).bearer(&token).send().assert_passed();
    }
}

/// CNF-03, trap 1.
#[test]
fn a_bound_token_without_the_certificate_is_refused() {
    let world = World::with(&[OPEN_BANKING]);
    let answer = world.stranger().get(ACCOUNTS).bearer(&world.bound_token()).send();
    answer.assert_refused(Reason::CertificateMissing);
    assert!(answer.challenges()[0].starts_with("Bearer realm=\"open-banking\", error=\"invalid_token\""));
    world.assert_upstream_untouched();
}

/// CNF-03.
#[test]
fn a_bound_token_with_somebody_elses_certificate_is_refused() {
    let world = World::with(&[OPEN_BANKING]);
    let thief = Arc::new(world.plan.third_parties.client("tpp-b"));
    let answer = world.stranger().certificate(&thief).get(ACCOUNTS).bearer(&world.bound_token()).send();
    answer.assert_refused(Reason::CertificateMismatch);
    assert!(answer.challenges()[0].contains("error=\"invalid_token\""), "{:?}", answer.challenges());
    world.assert_upstream_untouched();
}

/// CNF-08: there is no mode in which the same subject is enough.
#[test]
fn a_renewed_certificate_needs_a_new_token() {
    let world = World::with(&[OPEN_BANKING]);
    let renewed = Arc::new(world.plan.third_parties.client("tpp-a"));
    let client = world.stranger().certificate(&renewed);
    client.get(ACCOUNTS).bearer(&world.bound_token()).send().assert_refused(Reason::CertificateMismatch);
    let token = world.idp().token().bound_to(&renewed).sign();
    client.get(ACCOUNTS).bearer(&token).send().assert_passed();
}

/// CNF-04.
#[test]
fn a_token_that_is_not_bound_is_refused_where_bound_ones_are_asked_for() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.idp().token().sign();
    world.client().get(ACCOUNTS).bearer(&token).send().assert_refused(Reason::TokenNotBound);
    world.assert_upstream_untouched();
}

/// CNF-02.
#[test]
fn a_token_bound_by_other_means_is_refused_everywhere() {
    let world = World::with(&[OPEN_BANKING, BEARER]);
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    for cnf in [
        json!({ "jkt": jkt }),
        json!({ "jkt": jkt, "x5t#S256": world.tpp_a.thumbprint() }),
        json!({ "jwk": { "kty": "EC" } }),
        json!({ "kid": "key-1" }),
    ] {
        let token = world.idp().token().claim("cnf", cnf.clone()).sign();
        for path in [ACCOUNTS, "/bearer/x"] {
            let answer = world.client().get(path).bearer(&token).send();
            assert_eq!(answer.code(), Reason::TokenBindingUnsupported.code(), "{cnf} {path}");
            answer.assert_refused(Reason::TokenBindingUnsupported);
        }
    }
    world.assert_upstream_untouched();
}

/// CNF-01, trap 7: hexadecimal, SHA-1, padding and PEM text are not thumbprints.
#[test]
fn a_thumbprint_in_another_form_is_refused() {
    let world = World::with(&[OPEN_BANKING, BEARER]);
    let right = world.tpp_a.thumbprint();
    for cnf in [
        json!({ "x5t#S256": format!("{right}=") }),
        json!({ "x5t#S256": world.tpp_a.fingerprint() }),
        json!({ "x5t#S256": &right[..27] }),
        json!({ "x5t#S256": right.to_lowercase() }),
        json!({ "x5t#S256": [right] }),
        json!({ "x5t#S256": null }),
        json!({ "x5t": right }),
        json!({}),
        json!("x5t#S256"),
        json!(null),
        json!([]),
    ] {
        let token = world.idp().token().claim("cnf", cnf.clone()).sign();
        let answer = world.client().get(ACCOUNTS).bearer(&token).send();
        assert_eq!(answer.status, 401, "{cnf}: {}", answer.text());
    }
    world.assert_upstream_untouched();
}

/// AT-04, trap 1: `cnf` is never ignored, whatever the API says.
#[test]
fn a_bound_token_is_bound_on_an_api_that_does_not_ask_for_it() {
    let world = World::with(&[BEARER]);
    let token = world.bound_token();
    world.client().get("/bearer/x").bearer(&token).send().assert_passed();
    world.stranger().get("/bearer/x").bearer(&token).send().assert_refused(Reason::CertificateMissing);
    world.plain().get("/bearer/x").bearer(&token).send().assert_refused(Reason::CertificateMissing);
    assert_eq!(world.upstream().hits(), 1);
}

/// CNF-06, trap 13: what is remembered of a token says nothing about the next connection.
#[test]
fn a_token_seen_before_is_still_bound() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.bound_token();
    let other = Arc::new(world.plan.third_parties.client("tpp-b"));
    for _ in 0..3 {
        world.client().get(ACCOUNTS).bearer(&token).send().assert_passed();
        let stolen = world.stranger().certificate(&other).get(ACCOUNTS).bearer(&token).send();
        stolen.assert_refused(Reason::CertificateMismatch);
        world.stranger().get(ACCOUNTS).bearer(&token).send().assert_refused(Reason::CertificateMissing);
    }
    assert_eq!(world.upstream().hits(), 3);
}

/// FWD-02: a certificate in a header is no certificate.
#[test]
fn a_certificate_in_a_header_counts_for_nothing() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.bound_token();
    let pem: String = world.tpp_a.pem.lines().filter(|line| !line.starts_with('-')).collect();
    for (name, value) in [
        ("client-cert", format!(":{pem}:")),
        ("x-forwarded-client-cert", format!("Hash={}", world.tpp_a.fingerprint())),
        ("ssl-client-cert", pem.clone()),
        ("x-ssl-client-cert", pem.clone()),
        ("x-client-cert", pem),
    ] {
        let answer = world.stranger().get(ACCOUNTS).bearer(&token).header(name, &value).send();
        answer.assert_refused(Reason::CertificateMissing);
    }
    world.assert_upstream_untouched();
}

/// What the README shows, with a client of somebody else's making.
#[test]
fn curl_gets_in_with_its_certificate_and_not_without() {
    let world = World::with(&[OPEN_BANKING]);
    let directory = &world.plan.directory;
    directory.write("client/tpp-a.pem", &world.tpp_a.pem).write("client/tpp-a.key", &world.tpp_a.key_pem);
    directory.write("client/token.hdr", format!("authorization: Bearer {}\n", world.bound_token()));
    let port = world.gateway.address("public").port();
    let curl = |more: &[&str]| {
        let mut command = Command::new("curl");
        command.current_dir(directory.path()).args(["-sS", "--max-time", "20", "-o", "answer"]);
        command.args(["-w", "%{http_code} %{http_version}", "--cacert", "tls/servers-ca.pem"]);
        command.args(["--resolve", &format!("{HOST}:{port}:127.0.0.1"), "-H", "@client/token.hdr"]);
        let output =
            command.args(more).arg(format!("https://{HOST}:{port}{ACCOUNTS}")).output().expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let certificate = ["--cert", "client/tpp-a.pem", "--key", "client/tpp-a.key"];
    assert_eq!(curl(&[&certificate[..], &["--http2"]].concat()), "200 2");
    assert_eq!(curl(&[&certificate[..], &["--http1.1"]].concat()), "200 1.1");
    assert_eq!(curl(&["--http1.1"]), "401 1.1");
    assert_eq!(world.upstream().hits(), 2);
}

/// CRT-01, CRT-04: intermediates come from the client.
#[test]
fn a_certificate_below_an_intermediate_is_as_good_as_any() {
    let world = World::with(&[OPEN_BANKING]);
    let leaf = Arc::new(world.plan.third_parties.intermediate("Issuing").client("tpp-a"));
    let token = world.idp().token().bound_to(&leaf).sign();
    world.stranger().certificate(&leaf).get(ACCOUNTS).bearer(&token).send().assert_passed();
}

/// CNF-07: the listener has to trust the certificate, too.
#[test]
fn a_token_bound_to_a_strangers_certificate_opens_nothing() {
    let world = World::with(&[OPEN_BANKING]);
    let leaf = Arc::new(Authority::new("Open banking root").client("tpp-a"));
    let token = world.idp().token().bound_to(&leaf).sign();
    let attempt = world.stranger().certificate(&leaf).get(ACCOUNTS).bearer(&token).attempt();
    assert!(attempt.is_err(), "{attempt:?}");
    world.assert_upstream_untouched();
}
