//! Proofs of possession: a token is worth nothing without its key, and a proof nothing a second time.

use portcullis_core::Reason;
use portcullis_jose::digest::{random, sha256};
use portcullis_jose::{Algorithm, KeyProof, SigningKey, base64url};
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::client::{Answer, Client};
use crate::rig::interop::{self, said};
use crate::rig::world::{HOST, Plan, World};

/// Keeps the credential, so that what the upstream sees can be looked at.
const API: &str = "\
api: dpop
match: { host: api.bank.example, path: /dpop/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp, dpop: required } }
allow:
  - { name: anything, paths: [\"/*\"] }
forward: { keep_credentials: true }
";

const EITHER: &str = "\
api: either
match: { host: api.bank.example, path: /either/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp, dpop: optional } }
allow:
  - { name: needs more, paths: [/scoped], scope: nobody-has-it }
  - { name: anything, paths: [/x] }
";

const NONCES: &str = "\
api: nonces
match: { host: api.bank.example, path: /nonces/* }
upstream: accounts
authenticate:
  jwt:
    issuer: bank-idp
    dpop: { use: required, nonce: required, algorithms: [ES256, EdDSA], max_age: 30s, leeway: 5s }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// Somebody who holds a key.
struct Holder(SigningKey);

impl Holder {
    fn new() -> Self {
        Self(SigningKey::generate(Algorithm::Es256).expect("a key"))
    }

    fn thumbprint(&self) -> String {
        let proof = self.prove("x", &json!({}), &json!({}));
        base64url::encode(KeyProof::parse(proof.as_bytes()).expect("a proof").thumbprint())
    }

    /// A token bound to the key.
    fn token(&self, world: &World) -> String {
        world.idp().token().claim("cnf", json!({ "jkt": self.thumbprint() })).sign()
    }

    /// A proof for `GET https://api.bank.example/dpop/x` now, changed.
    fn prove(&self, token: &str, header: &Value, changes: &Value) -> String {
        let mut jwk = self.0.public_jwk("x").expect("a public key");
        jwk.as_object_mut().expect("an object").remove("kid");
        let mut full = json!({ "typ": "dpop+jwt", "jwk": jwk });
        let mut claims = json!({
            "jti": base64url::encode(&random::<16>().expect("randomness")),
            "htm": "GET", "htu": "https://api.bank.example/dpop/x", "iat": unix_now(),
            "ath": base64url::encode(&sha256(token.as_bytes())),
        });
        for (object, changes) in [(&mut claims, changes), (&mut full, header)] {
            for (name, value) in changes.as_object().expect("an object") {
                if value.is_null() {
                    object.as_object_mut().expect("an object").remove(name);
                } else {
                    object[name] = value.clone();
                }
            }
        }
        self.0.sign(full, &claims).expect("a signature")
    }
}

fn send(client: &Client, target: &str, token: &str, proof: &str) -> Answer {
    client.get(target).header("authorization", &format!("DPoP {token}")).header("dpop", proof).send()
}

/// The nonce the gateway offers. In the first seconds of its life it takes no proof without one.
fn nonce(world: &World, holder: &Holder) -> String {
    nonce_at(world, holder, "https://api.bank.example/dpop/x")
}

/// The same, where callers see the API at another place.
fn nonce_at(world: &World, holder: &Holder, url: &str) -> String {
    let token = holder.token(world);
    let unknown = holder.prove(&token, &json!({}), &json!({ "nonce": "unknown", "htu": url }));
    let answer = send(&world.stranger(), "/dpop/x", &token, &unknown);
    answer.assert_refused(Reason::DpopNonceRequired);
    answer.header("dpop-nonce").expect("a nonce").to_owned()
}

/// DPP-11: the upstream, which cannot check a proof, gets a plain token and no proof.
#[test]
fn a_token_and_its_proof_are_let_in_and_a_plain_token_goes_on() {
    let world = World::with(&[API, EITHER]);
    let holder = Holder::new();
    let nonce = nonce(&world, &holder);
    let token = holder.token(&world);
    for client in [world.stranger(), world.client(), world.stranger().http2()] {
        let proof = holder.prove(&token, &json!({}), &json!({ "nonce": nonce }));
        send(&client, "/dpop/x?a=b", &token, &proof).assert_passed();
        let seen = world.upstream().last();
        assert_eq!(seen.value("authorization"), format!("Bearer {token}"));
        assert!(seen.values("dpop").is_empty(), "{seen:?}");
    }
    let plain = json!({ "nonce": nonce, "htu": "http://api.bank.example/dpop/x" });
    send(&world.plain(), "/dpop/x", &token, &holder.prove(&token, &json!({}), &plain)).assert_passed();
    // Where credentials are not kept, nothing of them goes on.
    let elsewhere = json!({ "nonce": nonce, "htu": "https://api.bank.example/either/x" });
    send(&world.stranger(), "/either/x", &token, &holder.prove(&token, &json!({}), &elsewhere))
        .assert_passed();
    let seen = world.upstream().last();
    assert!(seen.values("dpop").is_empty() && seen.values("authorization").is_empty(), "{seen:?}");
    world.stranger().get("/either/x").bearer(&world.idp().token().sign()).send().assert_passed();
}

/// DPP-01 to DPP-08, trap 1: each is refused for its own reason, and nothing of it reaches the upstream.
#[test]
fn what_does_not_prove_it_is_refused() {
    let world = World::with(&[API, EITHER, NONCES]);
    let (holder, thief) = (Holder::new(), Holder::new());
    let nonce = nonce(&world, &holder);
    let (token, now) = (holder.token(&world), unix_now());
    let client = world.stranger();
    let prove = |header: Value, changes: Value| {
        let mut changes = changes;
        if changes.get("nonce").is_none() {
            changes["nonce"] = json!(nonce);
        }
        holder.prove(&token, &header, &changes)
    };
    let secret = json!({ "jwk": { "kty": "oct", "k": "AAAA" } });
    for (name, proof, reason) in [
        ("another method", prove(json!({}), json!({"htm": "POST"})), Reason::DpopProofInvalid),
        (
            "another path",
            prove(json!({}), json!({"htu": "https://api.bank.example/dpop/y"})),
            Reason::DpopProofInvalid,
        ),
        (
            "another host",
            prove(json!({}), json!({"htu": "https://evil.example/dpop/x"})),
            Reason::DpopProofInvalid,
        ),
        (
            "plain http",
            prove(json!({}), json!({"htu": "http://api.bank.example/dpop/x"})),
            Reason::DpopProofInvalid,
        ),
        ("old", prove(json!({}), json!({"iat": now - 120})), Reason::DpopProofInvalid),
        ("an hour old", prove(json!({}), json!({"iat": now - 3_600})), Reason::DpopProofInvalid),
        ("of the future", prove(json!({}), json!({"iat": now + 120})), Reason::DpopProofInvalid),
        (
            "for another token",
            prove(json!({}), json!({"ath": base64url::encode(&sha256(b"x"))})),
            Reason::DpopProofInvalid,
        ),
        ("for no token", prove(json!({}), json!({"ath": null})), Reason::DpopProofInvalid),
        ("without id", prove(json!({}), json!({"jti": null})), Reason::DpopProofInvalid),
        ("with a large id", prove(json!({}), json!({"jti": "j".repeat(300)})), Reason::DpopProofInvalid),
        ("of another type", prove(json!({"typ": "JWT"}), json!({})), Reason::DpopProofInvalid),
        ("with a secret", prove(secret, json!({})), Reason::DpopProofInvalid),
        ("oversized", prove(json!({"pad": "x".repeat(9_000)}), json!({})), Reason::DpopProofInvalid),
        ("the token itself", token.clone(), Reason::DpopProofInvalid),
        ("nothing", String::new(), Reason::DpopProofInvalid),
        ("no base64", "\u{e4}.b.c".to_owned(), Reason::DpopProofInvalid),
        ("of a thief", thief.prove(&token, &json!({}), &json!({ "nonce": nonce })), Reason::DpopKeyMismatch),
        ("with a nonce of others", prove(json!({}), json!({"nonce": "x"})), Reason::DpopNonceRequired),
    ] {
        let answer = send(&client, "/dpop/x", &token, &proof);
        assert_eq!(answer.code(), reason.code(), "{name}: {}", answer.text());
        answer.assert_refused(reason);
        let error = reason.bearer_error().expect("an error").as_str();
        let challenge = answer.challenges()[0];
        let expected = format!("DPoP realm=\"dpop\", algs=\"ES256 PS256 EdDSA\", error=\"{error}\"");
        assert!(challenge.starts_with(&expected), "{name}: {challenge}");
        assert_eq!(answer.header("dpop-nonce").is_some(), reason == Reason::DpopNonceRequired, "{name}");
    }
    let good = prove(json!({}), json!({}));
    let twice = client.get("/dpop/x").header("authorization", &format!("DPoP {token}"));
    twice.header("dpop", &good).header("DPoP", &good).send().assert_refused(Reason::DpopProofInvalid);
    let alone = client.get("/dpop/x").header("authorization", &format!("DPoP {token}"));
    alone.send().assert_refused(Reason::DpopProofInvalid);
    // DPP-07: a stolen token is no bearer token, wherever proofs are taken, and with or without somebody's proof.
    for target in ["/dpop/x", "/either/x", "/nonces/x"] {
        client.get(target).bearer(&token).send().assert_refused(Reason::DpopRequired);
        client.get(target).bearer(&token).header("dpop", &good).send().assert_refused(Reason::DpopRequired);
    }
    let unbound = world.idp().token().sign();
    send(&client, "/dpop/x", &unbound, &good).assert_refused(Reason::TokenNotBound);
    client.get("/dpop/x").bearer(&unbound).send().assert_refused(Reason::TokenNotBound);
    let both = client.get("/dpop/x").header("authorization", &format!("DPoP {token}")).bearer(&token);
    both.header("dpop", &good).send().assert_refused(Reason::CredentialsAmbiguous);
    let nothing = client.get("/either/x").send();
    nothing.assert_refused(Reason::CredentialsMissing);
    assert_eq!(
        nothing.challenges(),
        ["Bearer realm=\"either\"", "DPoP realm=\"either\", algs=\"ES256 PS256 EdDSA\""]
    );
    world.assert_upstream_untouched();
}

/// DPP-06: once, on whichever worker, and over a restart.
#[test]
fn a_proof_is_taken_once_and_a_restart_changes_nothing() {
    let world = World::with(&[API, EITHER]);
    let holder = Holder::new();
    let token = holder.token(&world);
    let proof = holder.prove(&token, &json!({}), &json!({ "nonce": nonce(&world, &holder) }));
    send(&world.stranger(), "/dpop/x", &token, &proof).assert_passed();
    let before = world.upstream().hits();
    for _ in 0..4 {
        send(&world.stranger(), "/dpop/x", &token, &proof).assert_refused(Reason::DpopProofReplayed);
    }
    let ahead = holder.prove(&token, &json!({}), &json!({ "iat": unix_now() + 3 }));
    let world = world.restart();
    send(&world.stranger(), "/dpop/x", &token, &proof).assert_refused(Reason::DpopNonceRequired);
    send(&world.stranger(), "/dpop/x", &token, &ahead).assert_refused(Reason::DpopNonceRequired);
    let world = world.kill_and_restart();
    send(&world.stranger(), "/dpop/x", &token, &proof).assert_refused(Reason::DpopNonceRequired);
    assert_eq!(world.upstream().hits(), before);
    let anew = holder.prove(&token, &json!({}), &json!({ "nonce": nonce(&world, &holder) }));
    send(&world.stranger(), "/dpop/x", &token, &anew).assert_passed();
}

/// DPP-08, RFC 9449 section 7.2: what a token does not grant is told under the scheme it came with.
#[test]
fn a_missing_scope_is_told_in_the_challenge_for_proofs() {
    let world = World::with(&[API, EITHER]);
    let holder = Holder::new();
    let token = holder.token(&world);
    let changes = json!({ "nonce": nonce(&world, &holder), "htu": "https://api.bank.example/either/scoped" });
    let answer =
        send(&world.stranger(), "/either/scoped", &token, &holder.prove(&token, &json!({}), &changes));
    answer.assert_refused(Reason::ScopeInsufficient);
    let challenge = answer.challenges().into_iter().find(|challenge| challenge.starts_with("DPoP"));
    let challenge = challenge.expect("a challenge for proofs");
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"nobody-has-it\""), "{challenge}");
    world.assert_upstream_untouched();
}

/// DPP-08, DPP-09, with clients nobody here wrote: they find their way by the challenge alone.
#[test]
fn clients_of_other_libraries_are_let_in_once_they_have_a_nonce() {
    let world = World::with(&[API, NONCES]);
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    for library in ["dpop", "jose"] {
        let prove = |token: &str, url: &str, nonce: Option<&str>| -> Value {
            let document = json!({
                "library": library, "key": key, "token": token, "method": "GET", "url": url, "nonce": nonce,
            });
            serde_json::from_str(&said(interop::node("prove.mjs"), &document)).expect("JSON")
        };
        let text = |answer: &Value, name: &str| answer[name].as_str().expect("text").to_owned();
        let thumbprint = text(&prove("x", "https://x.example/", None), "thumbprint");
        let token = world.idp().token().claim("cnf", json!({ "jkt": thumbprint })).sign();
        for path in ["/dpop/accounts", "/nonces/a-b"] {
            let url = format!("https://{HOST}{path}?x=y#z");
            let hello = send(&world.stranger(), path, &token, &text(&prove(&token, &url, None), "proof"));
            let nonce = hello.header("dpop-nonce").map(str::to_owned);
            // A nonce is always asked for where the policy says so, elsewhere only in the first seconds.
            if path.starts_with("/nonces") || hello.status != 200 {
                hello.assert_refused(Reason::DpopNonceRequired);
                assert!(nonce.is_some(), "{library}: {hello:?}");
            }
            let proof = text(&prove(&token, &url, nonce.as_deref()), "proof");
            send(&world.stranger(), path, &token, &proof).assert_passed();
            let before = world.upstream().hits();
            send(&world.stranger(), path, &token, &proof).assert_refused(Reason::DpopProofReplayed);
            let elsewhere = text(&prove(&token, "https://other.example/", nonce.as_deref()), "proof");
            send(&world.stranger(), path, &token, &elsewhere).assert_refused(Reason::DpopProofInvalid);
            assert_eq!(world.upstream().hits(), before);
        }
    }
}

/// Where TLS ends in front of the gateway, the policy says what callers see.
#[test]
fn the_outside_can_be_written_down() {
    let api = API.replace("dpop: required", "dpop: { use: required, url: \"https://bank.example\" }");
    let world = Plan::new(&[&api]).start();
    let holder = Holder::new();
    let nonce = nonce_at(&world, &holder, "https://bank.example/dpop/x");
    let token = holder.token(&world);
    let outside = json!({ "nonce": nonce, "htu": "https://bank.example/dpop/x" });
    send(&world.plain(), "/dpop/x", &token, &holder.prove(&token, &json!({}), &outside)).assert_passed();
    let inside = json!({ "nonce": nonce, "htu": "http://api.bank.example/dpop/x" });
    let refused = send(&world.plain(), "/dpop/x", &token, &holder.prove(&token, &json!({}), &inside));
    refused.assert_refused(Reason::DpopProofInvalid);
}
