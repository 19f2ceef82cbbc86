//! An Ozone API hub: a token for each request, in the name of a pinned certificate, with keys found by it.

use std::sync::Arc;

use portcullis_core::Reason;
use portcullis_jose::{Algorithm, base64url, digest};
use serde_json::{Value, json};

use crate::rig::certificates::{Leaf, unix_now};
use crate::rig::client::{Answer, Client};
use crate::rig::idp::{Idp, Key};
use crate::rig::interop::{self, said};
use crate::rig::token;
use crate::rig::world::{Plan, World};

const HUB: &str = "3b5c6a6e-6f1c-4a52-9d7e-0123456789ab";
const ORGANISATION: &str = "Ozone, \"API\" Hub + S\u{f6}hne";

const API: &str = "\
api: ozone
match: { host: api.bank.example, path: /ozone/* }
upstream: accounts
authenticate:
  all_of:
    - certificate: { trust: open-banking, subject: { ou: 3b5c6a6e-6f1c-4a52-9d7e-0123456789ab } }
    - jwt: { issuer: hub }
  identity_from: jwt
allow:
  - { name: anything, paths: [\"/*\"] }
forward: { set: { x-caller: \"{identity.name}\" } }
";

struct Hub {
    world: World,
    key: Arc<Key>,
}

fn hub() -> Hub {
    let plan = Plan::new(&[API]);
    let key = plan.idp.add(Algorithm::Ps256, "sig4");
    let base = plan.idp.jwks_url();
    let plan = plan.with(|plan| {
        plan.issuers = format!(
            "  hub:\n    profile: ozone\n    audience: provider-1\n    keys: {{ jwks_url: \"{base}/{{certificate.ou}}/{{certificate.cn}}/application.jwks\", http_on_loopback: true }}\n"
        );
    });
    Hub { world: plan.start(), key }
}

/// The subject of a participant's certificate.
fn participant(world: &World, organisation: &str, unit: &str, software: &str) -> Arc<Leaf> {
    Arc::new(world.plan.third_parties.leaf(software, |params| {
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CountryName, "AE");
        name.push(rcgen::DnType::OrganizationName, organisation);
        name.push(rcgen::DnType::OrganizationalUnitName, unit);
        name.push(rcgen::DnType::CommonName, software);
        params.distinguished_name = name;
    }))
}

/// A token of the hub for one request, changed.
fn signed(key: &Key, header: &Value, changes: &Value) -> String {
    let now = unix_now();
    let jti = base64url::encode(&digest::random::<16>().expect("randomness"));
    let mut claims = json!({
        "iss": ORGANISATION, "sub": HUB, "aud": "provider-1", "iat": now, "exp": now + 20, "jti": jti,
    });
    let mut full = json!({ "typ": "JOSE", "cty": "json", "kid": key.kid });
    for (object, changes) in [(&mut claims, changes), (&mut full, header)] {
        for (name, value) in changes.as_object().expect("an object") {
            if value.is_null() {
                object.as_object_mut().expect("an object").remove(name);
            } else {
                object[name] = value.clone();
            }
        }
    }
    key.key.sign(full, &claims).expect("a signature")
}

impl Hub {
    fn token(&self, changes: &Value) -> String {
        signed(&self.key, &json!({}), changes)
    }

    fn certificate(&self) -> Arc<Leaf> {
        participant(&self.world, ORGANISATION, HUB, "software-1")
    }

    fn client(&self) -> Client {
        self.world.stranger().certificate(&self.certificate())
    }

    fn send(&self, token: &str) -> Answer {
        self.client().get("/ozone/consents").bearer(token).send()
    }
}

/// OZ-01, OZ-02, OZ-06.
#[test]
fn a_hub_is_let_in_by_its_certificate_and_its_token() {
    let hub = hub();
    hub.send(&hub.token(&json!({}))).assert_passed();
    assert_eq!(hub.world.upstream().last().value("x-caller"), format!("hub:{HUB}"));
    hub.send(&hub.token(&json!({ "aud": ["x", "provider-1"] }))).assert_passed();
    hub.send(&hub.token(&json!({ "iat": unix_now() + 8, "exp": unix_now() + 30 }))).assert_passed();
}

/// JWT-29: on one connection and on another, with an idle worker or a busy one.
#[test]
fn a_token_is_taken_once() {
    let hub = hub();
    let token = hub.token(&json!({}));
    hub.send(&token).assert_passed();
    let before = hub.world.upstream().hits();
    for _ in 0..4 {
        hub.send(&token).assert_refused(Reason::TokenReplayed);
    }
    assert_eq!(hub.world.upstream().hits(), before);
    let answer = hub.send(&token);
    let bearer = answer.challenges().into_iter().find(|challenge| challenge.starts_with("Bearer"));
    assert!(bearer.is_some_and(|challenge| challenge.contains("error=\"invalid_token\"")), "{answer:?}");
}

/// OPS-01: a restart opens no window, in good order or not, and hurts nobody who signs anew.
#[test]
fn a_restart_lets_no_token_in_again() {
    let Hub { world, key } = hub();
    let certificate = participant(&world, ORGANISATION, HUB, "software-1");
    let send = |world: &World, token: &str| {
        world.stranger().certificate(&certificate).get("/ozone/x").bearer(token).send()
    };
    let used = signed(&key, &json!({}), &json!({}));
    send(&world, &used).assert_passed();
    let unused = signed(&key, &json!({}), &json!({}));
    let world = world.restart();
    let before = world.upstream().hits();
    for token in [&used, &unused] {
        send(&world, token).assert_refused(Reason::StoreUnavailable);
    }
    let world = world.kill_and_restart();
    send(&world, &used).assert_refused(Reason::StoreUnavailable);
    assert_eq!(world.upstream().hits(), before);
    send(&world, &signed(&key, &json!({}), &json!({}))).assert_passed();
}

/// The claims table of section 1.2, OZ-03 to OZ-07, JWT-17.
#[test]
fn what_a_hub_would_not_send_is_refused() {
    let hub = hub();
    let now = unix_now();
    for (name, header, changes, reason) in [
        ("iss of another", json!({}), json!({"iss": "Another"}), Reason::CertificateMismatch),
        ("sub of another", json!({}), json!({"sub": "software-1"}), Reason::CertificateMismatch),
        ("iss in a list", json!({}), json!({"iss": [ORGANISATION]}), Reason::TokenClaimInvalid),
        ("no iss", json!({}), json!({"iss": null}), Reason::TokenClaimInvalid),
        ("no sub", json!({}), json!({"sub": null}), Reason::TokenClaimInvalid),
        ("aud of another", json!({}), json!({"aud": "provider-2"}), Reason::TokenAudienceRefused),
        ("no jti", json!({}), json!({"jti": null}), Reason::TokenClaimInvalid),
        ("empty jti", json!({}), json!({"jti": ""}), Reason::TokenClaimInvalid),
        ("large jti", json!({}), json!({"jti": "j".repeat(256)}), Reason::TokenClaimInvalid),
        ("number jti", json!({}), json!({"jti": 7}), Reason::TokenClaimInvalid),
        ("long life", json!({}), json!({"exp": now + 3_600}), Reason::TokenLifetimeRefused),
        ("stale", json!({}), json!({"iat": now - 50, "exp": now - 20}), Reason::TokenExpired),
        ("future", json!({}), json!({"iat": now + 40, "exp": now + 60}), Reason::TokenNotYetValid),
        ("text exp", json!({}), json!({"exp": (now + 20).to_string()}), Reason::TokenClaimInvalid),
        ("no kid", json!({"kid": null}), json!({}), Reason::TokenSignatureInvalid),
        ("kid of another", json!({"kid": "key-1"}), json!({}), Reason::TokenSignatureInvalid),
        ("typ", json!({"typ": "JWT"}), json!({}), Reason::TokenTypeRefused),
        ("cty", json!({"cty": "JWT"}), json!({}), Reason::TokenTypeRefused),
        ("no cty", json!({"cty": null}), json!({}), Reason::TokenTypeRefused),
        (
            "x5u",
            json!({"x5u": "https://evil.example", "kid": null}),
            json!({}),
            Reason::TokenSignatureInvalid,
        ),
        ("crit", json!({"crit": ["exp"], "exp": 1}), json!({}), Reason::TokenMalformed),
    ] {
        let answer = hub.send(&signed(&hub.key, &header, &changes));
        assert_eq!(answer.code(), reason.code(), "{name}: {}", answer.text());
        answer.assert_refused(reason);
    }
    let stranger = Idp::unpublished(Algorithm::Ps256, "sig4");
    hub.send(&signed(&stranger, &json!({}), &json!({}))).assert_refused(Reason::TokenSignatureInvalid);
    let weaker = Idp::unpublished(Algorithm::Rs256, "sig4");
    hub.send(&signed(&weaker, &json!({}), &json!({}))).assert_refused(Reason::TokenAlgorithmRefused);
    let unsigned = format!(
        "{}.{}.",
        token::part(r#"{"alg":"none","typ":"JOSE","cty":"json","kid":"sig4"}"#),
        token::part("{}")
    );
    hub.send(&unsigned).assert_refused(Reason::TokenMalformed);
    hub.world.assert_upstream_untouched();
}

/// OZ-05, OZ-07, JKS-12: whose certificate is not pinned, or fits no URL, makes the gateway fetch nothing.
#[test]
fn other_participants_are_refused_and_nothing_is_fetched_for_them() {
    let hub = hub();
    let token = hub.token(&json!({}));
    let long = "s".repeat(65);
    for (unit, software) in
        [("another-unit", "software-1"), (HUB, "../x"), (HUB, "a/b"), (HUB, "a.b"), (HUB, ""), (HUB, &long)]
    {
        let certificate = participant(&hub.world, ORGANISATION, unit, software);
        let call = hub.world.stranger().certificate(&certificate).get("/ozone/x").bearer(&token);
        call.send().assert_refused(Reason::CertificateRefused);
    }
    hub.world.stranger().get("/ozone/x").bearer(&token).send().assert_refused(Reason::CertificateMissing);
    let anonymous = hub.client().get("/ozone/x").send();
    anonymous.assert_refused(Reason::CredentialsMissing);
    assert_eq!(hub.world.idp().hits(), 0);
    hub.world.assert_upstream_untouched();
    hub.send(&token).assert_passed();
    assert_eq!(hub.world.idp().hits(), 1);
}

/// Tokens of libraries nobody here wrote, in the hub's shape.
#[test]
fn tokens_of_other_libraries_are_taken_as_the_hubs() {
    let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let pem = pair.expect("a key pair").serialize_pem();
    let key = portcullis_jose::SigningKey::from_pem(Algorithm::Ps256, pem.as_bytes()).expect("the same key");
    let hub = hub();
    hub.world.idp().publish(json!({ "keys": [key.public_jwk("sig4-2027").expect("a public key")] }));
    let libraries: [fn() -> std::process::Command; 2] =
        [|| interop::node("sign_jwt.mjs"), || interop::python("sign_jwt.py")];
    for (number, library) in libraries.into_iter().enumerate() {
        let now = unix_now();
        let sign = |header: &Value, changes: &Value| {
            let mut full = json!({ "alg": "PS256", "typ": "JOSE", "cty": "json", "kid": "sig4-2027" });
            let mut claims = json!({
                "iss": ORGANISATION, "sub": HUB, "aud": "provider-1", "iat": now, "exp": now + 30,
                "jti": format!("{number} {header} {changes}"),
            });
            for (object, changes) in [(&mut claims, changes), (&mut full, header)] {
                for (name, value) in changes.as_object().expect("an object") {
                    object[name] = value.clone();
                }
            }
            said(library(), &json!({ "key": pem, "header": full, "claims": claims }))
        };
        let good = sign(&json!({}), &json!({}));
        hub.send(&good).assert_passed();
        let before = hub.world.upstream().hits();
        hub.send(&good).assert_refused(Reason::TokenReplayed);
        for (header, changes, reason) in [
            (json!({ "alg": "RS256" }), json!({}), Reason::TokenAlgorithmRefused),
            (json!({ "typ": "JWT" }), json!({}), Reason::TokenTypeRefused),
            (json!({}), json!({ "sub": "another" }), Reason::CertificateMismatch),
            (json!({}), json!({ "aud": "another" }), Reason::TokenAudienceRefused),
        ] {
            hub.send(&sign(&header, &changes)).assert_refused(reason);
        }
        assert_eq!(hub.world.upstream().hits(), before);
    }
}
