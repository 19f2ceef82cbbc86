//! A certified provider, as it is: found by its own metadata, its keys rotated, its opaque tokens asked about, its bound
//! tokens held to what they are bound to.

use portcullis_core::Reason;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use crate::rig::client::{Answer, Client};
use crate::rig::eventually;
use crate::rig::interop::{self, said};
use crate::rig::oidc::{OPAQUE, OidcProvider, SECRET, SIGNED};
use crate::rig::world::{HOST, Plan, World};

/// An API of the bank with that chain.
fn api(name: &str, chain: &str) -> String {
    format!(
        "api: {name}
match: {{ host: api.bank.example, path: /{name}/* }}
upstream: accounts
authenticate: {{ {chain} }}
forward: {{ set: {{ x-caller: \"{{identity.name}}\" }} }}
allow:
  - {{ name: anything, paths: [\"/*\"], scope: accounts }}
"
    )
}

/// A bank whose tokens come from the provider. `introspect` says how it is asked.
fn bank(introspect: &str) -> (World, OidcProvider) {
    let apis = [
        api("signed", "jwt: { issuer: oidc }"),
        api("signed-proven", "jwt: { issuer: oidc, dpop: required }"),
        api("signed-bound", "jwt: { issuer: oidc, bound_to: certificate }"),
        api("opaque", "token: { issuer: oidc }"),
        api("opaque-proven", "token: { issuer: oidc, dpop: required }"),
        api("opaque-bound", "token: { issuer: oidc, bound_to: certificate }"),
        api("either", "any_of: [jwt: { issuer: oidc }, token: { issuer: oidc }]"),
    ];
    let plan = Plan::new(&apis.each_ref().map(String::as_str));
    let own = plan.servers.client("gateway");
    let public =
        portcullis_jose::SigningKey::from_pem(portcullis_jose::Algorithm::Es256, own.key_pem.as_bytes());
    let public = public.expect("a key").public_jwk("gateway-1").expect("a public key");
    let clients = json!([
        OidcProvider::client("tpp-a", &json!({})),
        OidcProvider::client("tpp-m", &json!({ "tls_client_certificate_bound_access_tokens": true })),
        OidcProvider::client("gateway", &json!({ "grant_types": [] })),
        OidcProvider::client(
            "gateway-by-key",
            &json!({
                "grant_types": [], "client_secret": null, "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": "ES256", "jwks": { "keys": [public] },
            })
        ),
    ]);
    let provider = OidcProvider::start(&plan.servers, &clients, &["key-1"]);
    let plan = plan.with(|plan| {
        plan.directory.write("secrets/idp", SECRET).write("secrets/gateway.key", &own.key_pem);
        plan.issuers = format!(
            "  oidc:
    issuer: {}
    audience: [{SIGNED}, {OPAQUE}]
    algorithms: [ES256]
    discover: {{ trust: {{ file: tls/servers-ca.pem }} }}
    introspect:
      timeout: 5s
{introspect}",
            provider.issuer
        );
    });
    (plan.start(), provider)
}

const BY_SECRET: &str = "      client_id: gateway\n      client_secret: { file: secrets/idp }\n";

fn none() -> Value {
    json!({})
}

fn get(client: &Client, path: &str, token: &str) -> Answer {
    client.get(path).bearer(token).send()
}

/// DSC-01, JKS-05, JKS-08: found by its metadata; a new key is taken when it is first named, and one that is no longer
/// published stops counting.
#[test]
fn keys_are_discovered_and_rotated() {
    let (world, provider) = bank(BY_SECRET);
    let token = || provider.token("tpp-a", SIGNED, &none()).0;
    let (first, kept) = (token(), token());
    get(&world.plain(), "/signed/x", &first).assert_passed();
    assert_eq!(world.upstream().last().value("x-caller"), "oidc:tpp-a");
    // Two keys for a while, as it should be: tokens of both count.
    provider.rotate(&["key-2", "key-1"]);
    let second = token();
    get(&world.plain(), "/signed/x", &second).assert_passed();
    get(&world.plain(), "/signed/x", &first).assert_passed();
    // The old one goes. It counts until the set is read again, which the next unknown key brings about.
    provider.rotate(&["key-3"]);
    let third = token();
    eventually("the set is read again", || {
        (get(&world.plain(), "/signed/x", &third).status == 200).then_some(())
    });
    let before = world.upstream().hits();
    for removed in [&first, &kept, &second] {
        get(&world.plain(), "/signed/x", removed).assert_refused(Reason::TokenSignatureInvalid);
    }
    assert_eq!(world.upstream().hits(), before);
    assert_eq!(provider.introspections(), 0, "nobody was asked about signed tokens");
}

/// INT-01 to INT-04: active, revoked, expired; somebody else's; and a provider that is gone is 503, never 401.
#[test]
fn opaque_tokens_are_asked_about() {
    let (world, mut provider) = bank(&format!("{BY_SECRET}      cache: 1s\n"));
    let token = || provider.token("tpp-a", OPAQUE, &none()).0;
    let (good, revoked, unheard) = (token(), token(), token());
    for path in ["/opaque/x", "/either/x"] {
        get(&world.plain(), path, &good).assert_passed();
        assert_eq!(world.upstream().last().value("x-caller"), "oidc:client:tpp-a");
    }
    assert_eq!(provider.introspections(), 1, "two APIs, one question");
    let before = world.upstream().hits();
    // Revoked before it was seen, and after.
    provider.revoke("tpp-a", &revoked);
    get(&world.plain(), "/opaque/x", &revoked).assert_refused(Reason::TokenInactive);
    provider.revoke("tpp-a", &good);
    std::thread::sleep(Duration::from_millis(1_100));
    get(&world.plain(), "/opaque/x", &good).assert_refused(Reason::TokenInactive);
    // Expired before it was seen.
    let (short, _) = provider.token("tpp-a", OPAQUE, &json!({ "ttl": 1 }));
    std::thread::sleep(Duration::from_millis(2_100));
    get(&world.plain(), "/opaque/x", &short).assert_refused(Reason::TokenInactive);
    get(&world.plain(), "/opaque/x", "never-heard-of").assert_refused(Reason::TokenInactive);
    // Meant for somebody else, says the provider, and is active.
    let (elsewhere, _) = provider.token("tpp-a", "https://other.example", &none());
    get(&world.plain(), "/opaque/x", &elsewhere).assert_refused(Reason::TokenAudienceRefused);
    // It answers 400 to a signed token, which says nothing about the token.
    let (signed, _) = provider.token("tpp-a", SIGNED, &none());
    get(&world.plain(), "/opaque/x", &signed).assert_refused(Reason::IntrospectionUnavailable);
    provider.kill();
    for _ in 0..8 {
        let answer = get(&world.plain(), "/opaque/x", &unheard);
        answer.assert_refused(Reason::IntrospectionUnavailable);
        assert_eq!(answer.status, 503);
    }
    assert_eq!(world.upstream().hits(), before);
}

/// INT-07, RFC 9701: its signed answers are believed; and RFC 7523: it believes our assertions, each once.
#[test]
fn signed_answers_and_our_assertions_are_understood() {
    let by_key = "      client_id: gateway-by-key
      auth: private_key_jwt
      key: { file: secrets/gateway.key }
      kid: gateway-1
      algorithm: ES256
      answers: signed
      cache: 0s
";
    let (world, provider) = bank(by_key);
    let (token, _) = provider.token("tpp-a", OPAQUE, &none());
    for asked in 1..4 {
        get(&world.plain(), "/opaque/x", &token).assert_passed();
        assert_eq!(provider.introspections(), asked);
    }
    let before = world.upstream().hits();
    provider.revoke("tpp-a", &token);
    get(&world.plain(), "/opaque/x", &token).assert_refused(Reason::TokenInactive);
    assert_eq!(world.upstream().hits(), before);
}

/// CNF-01 to CNF-06: it binds tokens to the certificate it saw, and the gateway holds them to it, signed or not.
#[test]
fn tokens_it_bound_to_a_certificate_are_for_its_holder() {
    let (world, provider) = bank(BY_SECRET);
    let (own, other) = (Arc::clone(&world.tpp_a), Arc::new(world.plan.third_parties.client("tpp-b")));
    for (kind, resource) in [("signed", SIGNED), ("opaque", OPAQUE)] {
        let bound = provider.bound_token("tpp-m", resource, &own);
        let (free, _) = provider.token("tpp-a", resource, &none());
        // What the token says holds whether or not the API asks for it.
        for path in [format!("/{kind}/x"), format!("/{kind}-bound/x")] {
            get(&world.stranger().certificate(&own), &path, &bound).assert_passed();
            let before = world.upstream().hits();
            get(&world.stranger().certificate(&other), &path, &bound)
                .assert_refused(Reason::CertificateMismatch);
            get(&world.stranger(), &path, &bound).assert_refused(Reason::CertificateMissing);
            get(&world.plain(), &path, &bound).assert_refused(Reason::CertificateMissing);
            assert_eq!(world.upstream().hits(), before);
        }
        let before = world.upstream().hits();
        let path = format!("/{kind}-bound/x");
        get(&world.stranger().certificate(&own), &path, &free).assert_refused(Reason::TokenNotBound);
        assert_eq!(world.upstream().hits(), before);
    }
}

/// DPP-01 to DPP-08: it binds tokens to the key a client proved, and the gateway takes them with a proof of that key
/// alone, signed or not.
#[test]
fn tokens_it_bound_to_a_key_are_for_its_holder() {
    let (world, provider) = bank(BY_SECRET);
    let key = || rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let (own, other) = (key(), key());
    for (kind, resource) in [("signed", SIGNED), ("opaque", OPAQUE)] {
        let (token, word) = provider.token("tpp-a", resource, &json!({ "key": own }));
        assert_eq!(word, "DPoP");
        let path = format!("/{kind}-proven/x");
        let prove = |key: &str, nonce: Option<&str>| {
            let document = json!({
                "library": "dpop", "key": key, "token": token, "method": "GET",
                "url": format!("https://{HOST}{path}"), "nonce": nonce,
            });
            let made: Value =
                serde_json::from_str(&said(interop::node("prove.mjs"), &document)).expect("JSON");
            made["proof"].as_str().expect("a proof").to_owned()
        };
        let send = |proof: &str| {
            let call = world.stranger().get(&path).header("authorization", &format!("DPoP {token}"));
            call.header("dpop", proof).send()
        };
        let hello = send(&prove(&own, Some("unknown")));
        hello.assert_refused(Reason::DpopNonceRequired);
        let nonce = hello.header("dpop-nonce").expect("a nonce").to_owned();
        let proof = prove(&own, Some(&nonce));
        send(&proof).assert_passed();
        let before = world.upstream().hits();
        send(&proof).assert_refused(Reason::DpopProofReplayed);
        send(&prove(&other, Some(&nonce))).assert_refused(Reason::DpopKeyMismatch);
        get(&world.stranger(), &path, &token).assert_refused(Reason::DpopRequired);
        // Where no proofs are taken, a token that needs one opens nothing.
        get(&world.stranger(), &format!("/{kind}/x"), &token).assert_refused(Reason::TokenBindingUnsupported);
        let (free, _) = provider.token("tpp-a", resource, &none());
        get(&world.stranger(), &path, &free).assert_refused(Reason::TokenNotBound);
        assert_eq!(world.upstream().hits(), before);
    }
}
