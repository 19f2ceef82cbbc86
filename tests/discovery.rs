//! Providers that say themselves where their keys are and where they are asked.

use portcullis_core::Reason;
use portcullis_jose::Algorithm;
use serde_json::{Value, json};

use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::idp::{AUDIENCE, Idp};
use crate::rig::provider::Provider;
use crate::rig::world::{Plan, World};

const API: &str = "\
api: discovered
match: { host: api.bank.example, path: /discovered/* }
upstream: accounts
authenticate:
  any_of:
    - jwt: { issuer: discovered }
    - token: { issuer: discovered }
allow:
  - { name: open, paths: [/open] }
";

/// The issuer of a provider: with a path, so that both ways to insert one are seen.
fn issuer(provider: &Provider) -> String {
    format!("{}/tenant", provider.origin())
}

const OAUTH: &str = "/.well-known/oauth-authorization-server/tenant";
const OPENID: &str = "/tenant/.well-known/openid-configuration";

fn metadata(provider: &Provider) -> Value {
    json!({
        "issuer": issuer(provider),
        "jwks_uri": format!("{}/keys", provider.origin()),
        "introspection_endpoint": format!("{}/ask", provider.origin()),
        "response_types_supported": ["code"],
    })
}

fn plan(provider: &Provider) -> Plan {
    Plan::new(&[API]).with(|plan| {
        plan.directory.write("secrets/idp", "secret");
        plan.issuers = format!(
            "  discovered:
    issuer: {}
    audience: {AUDIENCE}
    algorithms: [ES256]
    discover: {{ http_on_loopback: true }}
    introspect: {{ client_id: gw, client_secret: {{ file: secrets/idp }}, timeout: 5s }}
",
            issuer(provider)
        );
    })
}

fn signed(world: &World, provider: &Provider) -> String {
    world.idp().token().claim("iss", issuer(provider)).sign()
}

fn call(world: &World, token: &str) -> crate::rig::client::Answer {
    world.plain().get("/discovered/open").bearer(token).send()
}

/// DSC-01: RFC 8414's place first, then OpenID's.
#[test]
fn keys_and_the_endpoint_are_found_in_either_document() {
    for (document, read) in [(OAUTH, vec![OAUTH]), (OPENID, vec![OAUTH, OPENID])] {
        let provider = Provider::start();
        let plan = plan(&provider);
        provider.publish(document, 200, metadata(&provider));
        provider.publish("/keys", 200, plan.idp.set());
        let world = plan.start();
        call(&world, &signed(&world, &provider)).assert_passed();
        provider.knows("opaque", Provider::active());
        call(&world, "opaque").assert_refused(Reason::TokenClaimInvalid);
        let mut said = Provider::active();
        said["aud"] = AUDIENCE.into();
        provider.knows("for-us", said);
        call(&world, "for-us").assert_passed();
        assert!(provider.questions().iter().all(|question| question.line == "POST /ask"));
        let documents: Vec<String> = provider.read().into_iter().filter(|path| path != "/keys").collect();
        assert_eq!(documents, read, "read once for both");
    }
}

/// DSC-01, DSC-02, JKS-02: each row is one thing that is wrong with a document. What needs it is 503: all of it where the
/// document is somebody else's, else what the URL is for.
#[test]
fn what_is_wrong_in_a_document_is_not_used() {
    let elsewhere = Provider::start();
    let rows: Vec<(&str, Value)> = vec![
        ("issuer", Value::Null),
        ("issuer", json!("https://evil.example")),
        ("issuer", json!(["x"])),
        ("issuer", json!("SLASH")),
        ("jwks_uri", json!(format!("{}/keys", elsewhere.origin().replace("127.0.0.1", "127.0.0.2")))),
        ("jwks_uri", json!(format!("{}/keys", elsewhere.origin()))),
        ("introspection_endpoint", json!(format!("{}/ask", elsewhere.origin()))),
        ("jwks_uri", json!("https://evil.example/keys")),
        ("jwks_uri", json!("http://169.254.169.254/keys")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!("/keys")),
        ("jwks_uri", json!("http://user@127.0.0.1/keys")),
        ("jwks_uri", json!("http://127.0.0.1/keys#x")),
        ("jwks_uri", json!(7)),
        ("jwks_uri", Value::Null),
        ("introspection_endpoint", json!("https://evil.example/ask")),
    ];
    for (name, value) in rows {
        println!("{name}: {value}");
        let provider = Provider::start();
        let plan = plan(&provider);
        let mut document = metadata(&provider);
        document[name] = if value == "SLASH" { json!(format!("{}/", issuer(&provider))) } else { value };
        if document[name].is_null() {
            document.as_object_mut().expect("an object").remove(name);
        }
        provider.publish(OAUTH, 200, document);
        // A second opinion at the other place is never asked for.
        provider.publish(OPENID, 200, metadata(&provider));
        provider.publish("/keys", 200, plan.idp.set());
        provider.knows("opaque", Provider::active());
        let world = plan.start();
        call(&world, "opaque").assert_refused(match name {
            "jwks_uri" => Reason::TokenClaimInvalid,
            _ => Reason::IntrospectionUnavailable,
        });
        assert_eq!(provider.questions().len(), usize::from(name == "jwks_uri"));
        world.assert_upstream_untouched();
        let answer = call(&world, &signed(&world, &provider));
        match name {
            "introspection_endpoint" => {
                answer.assert_passed();
            }
            _ => {
                answer.assert_refused(Reason::KeysUnavailable);
                world.assert_upstream_untouched();
            }
        }
        assert!(!provider.read().contains(&OPENID.to_owned()), "{:?}", provider.read());
        assert!(elsewhere.read().is_empty() && elsewhere.questions().is_empty());
    }
}

#[test]
fn a_provider_that_cannot_be_discovered_is_503_until_it_can() {
    let provider = Provider::start();
    let plan = plan(&provider);
    provider.publish(OAUTH, 500, json!({}));
    provider.publish("/keys", 200, plan.idp.set());
    let world = plan.start();
    call(&world, &signed(&world, &provider)).assert_refused(Reason::KeysUnavailable);
    call(&world, "opaque").assert_refused(Reason::IntrospectionUnavailable);
    world.assert_upstream_untouched();
    assert_eq!(world.gateway.admin("/readyz").status, 503);
    let said = world.gateway.admin("/readyz").text();
    assert!(said.contains("issuer discovered") && said.contains("metadata was answered 500"), "{said}");
    provider.publish(OAUTH, 200, metadata(&provider));
    eventually("the keys are found", || {
        (call(&world, &signed(&world, &provider)).status == 200).then_some(())
    });
    let unknown = eventually("the endpoint is found", || {
        let answer = call(&world, "never-heard-of");
        (answer.status == 401).then_some(answer)
    });
    unknown.assert_refused(Reason::TokenInactive);
}

/// JKS-05 through discovery: a new key is found by the first token it signs.
#[test]
fn rotated_keys_of_a_discovered_provider_are_found() {
    let provider = Provider::start();
    let plan = plan(&provider);
    provider.publish(OAUTH, 200, metadata(&provider));
    provider.publish("/keys", 200, plan.idp.set());
    let world = plan.start();
    call(&world, &signed(&world, &provider)).assert_passed();
    let key = world.idp().add(Algorithm::Es256, "key-2");
    provider.publish("/keys", 200, world.idp().set());
    let token = crate::rig::token::Token::new(&key).claim("iss", issuer(&provider)).sign();
    call(&world, &token).assert_passed();
    let stranger = Idp::unpublished(Algorithm::Es256, "key-3");
    let token = crate::rig::token::Token::new(&stranger).claim("iss", issuer(&provider)).sign();
    call(&world, &token).assert_refused(Reason::TokenSignatureInvalid);
}

/// RFC 8705 section 5: another endpoint for calls with a certificate, on a host and port that must be named.
#[test]
fn the_endpoint_for_certificates_is_preferred_by_those_who_show_one() {
    let plan = Plan::new(&[&API.replace("    - jwt: { issuer: discovered }\n", "")]);
    let leaf = plan.servers.server(&["localhost"]);
    let (plain, mutual) =
        (Provider::start_tls(&leaf, None), Provider::start_tls(&leaf, Some(&plan.third_parties)));
    let ours = plan.third_parties.client("gateway");
    let mut document = metadata(&plain);
    document["mtls_endpoint_aliases"] =
        json!({ "introspection_endpoint": format!("{}/ask", mutual.origin()) });
    plain.publish(OAUTH, 200, document);
    mutual.knows("opaque", Provider::active());
    let plan = plan.with(|plan| {
        plan.directory.write("tls/own.pem", &ours.pem).write("tls/own.key", &ours.key_pem);
        plan.issuers = format!(
            "  discovered:
    issuer: {}
    audience: any
    discover: {{ document: oauth, trust: {{ file: tls/servers-ca.pem }}, hosts: [\"{}\"] }}
    introspect: {{ client_id: gw, auth: tls_client_auth, client_certificate: own, timeout: 5s }}
",
            issuer(&plain),
            mutual.origin().trim_start_matches("https://"),
        );
        plan.settings =
            "certificates: { own: { certificate: { file: tls/own.pem }, key: { file: tls/own.key } } }\n"
                .into();
    });
    let world = plan.start();
    call(&world, "opaque").assert_passed();
    assert!(mutual.questions()[0].certificate.is_some());
    assert!(plain.questions().is_empty());
    // The right host alone leads to the port of https and to no other one.
    let named = world.plan.issuers.clone();
    let plan = world.plan.with(|plan| {
        plan.issuers = named.replace(mutual.origin().trim_start_matches("https://"), "localhost");
    });
    drop(world.gateway);
    call(&plan.start(), "opaque").assert_refused(Reason::IntrospectionUnavailable);
    assert_eq!(mutual.questions().len(), 1);
}

#[test]
fn check_says_what_is_wrong_with_discovery() {
    let provider = Provider::start();
    for (from, to, code, saying) in [
        (
            "    discover: {",
            "    keys: { jwks_url: https://idp.example/jwks }\n    discover: {",
            "one_key",
            "not both",
        ),
        ("http_on_loopback: true }\n", "http_on_loopback: false }\n", "plain_http", "https only"),
        ("discover: { http_on_loopback: true }", "discover: false", "wrong_kind", "expected `true`"),
        ("http_on_loopback: true }\n", "documents: oauth }\n", "unknown_key", "unknown key `documents`"),
        (
            "http_on_loopback: true }\n",
            "http_on_loopback: true, refresh: 1s }\n",
            "out_of_range",
            "30s to 1h",
        ),
        (
            "http_on_loopback: true }\n",
            "http_on_loopback: true, hosts: [\"keys.example:none\"] }\n",
            "bad_host",
            "`keys.example:none` is not a host",
        ),
    ] {
        println!("{saying}");
        let plan = plan(&provider).with(|plan| {
            assert!(plan.issuers.contains(from), "{}", plan.issuers);
            plan.issuers = plan.issuers.replacen(from, to, 1);
        });
        plan.write();
        let path = plan.directory.path().to_string_lossy().into_owned();
        let output = portcullis(&["check", &path], &[]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && said.contains(code) && said.contains(saying), "{code}: {said}");
    }
    let plan = plan(&provider).with(|plan| {
        let from = format!("    issuer: {}\n", issuer(&provider));
        plan.issuers = plan.issuers.replace(&from, "");
    });
    plan.write();
    let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("`discover` needs `issuer`"), "{said}");
}
