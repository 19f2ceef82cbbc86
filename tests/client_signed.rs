//! Tokens that registered clients sign themselves.

use portcullis_core::Reason;
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::world::{Plan, World};

const API: &str = "\
api: partners
match: { host: api.bank.example, path: /partners/* }
upstream: accounts
authenticate: { jwt: { issuer: partners } }
allow:
  - { name: gold may order, methods: [POST], paths: [/orders], when: client.attributes.tier == \"gold\" }
  - { name: scopes of ones own grant nothing, paths: [/admin], scope: admin }
  - { name: anything, methods: [GET], paths: [/orders] }
forward: { set: { x-caller: \"{identity.name}\" } }
";

struct Partners {
    world: World,
    acme: SigningKey,
    other: SigningKey,
}

fn partners() -> Partners {
    partners_with("")
}

/// With these settings of their issuer entry.
fn partners_with(settings: &str) -> Partners {
    let key = || SigningKey::generate(Algorithm::Es256).expect("a key");
    let (acme, other) = (key(), key());
    let plan = Plan::new(&[API]).with(|plan| {
        plan.issuers = "  partners:\n    issuer: partner\n    iss: optional\n    audience: bank\n    algorithms: [ES256]\n    keys: clients\n    max_lifetime: 5m\n"
            .to_owned()
            + settings;
    });
    plan.directory.write("keys/acme.pub", acme.public_pem().expect("PEM"));
    plan.directory.write("keys/other.pub", other.public_pem().expect("PEM"));
    plan.directory.write(
        "clients/partners.yaml",
        "clients:\n  acme:\n    attributes: { tier: gold }\n    credentials:\n      - jwt_key: { kid: acme-1, pem: ../keys/acme.pub }\n  other:\n    attributes: { tier: silver }\n    credentials:\n      - jwt_key: { kid: other-1, pem: ../keys/other.pub }\n  gone:\n    expires: 2020-01-01\n",
    );
    Partners { world: plan.start(), acme, other }
}

fn token(key: &SigningKey, kid: Option<&str>, changes: &Value) -> String {
    let now = unix_now();
    let mut claims = json!({ "sub": "acme", "aud": "bank", "iat": now, "exp": now + 60, "scope": "admin" });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    key.sign(kid.map_or_else(|| json!({}), |kid| json!({ "kid": kid })), &claims).expect("a signature")
}

/// B9.5: by `kid`, else by `sub`; name and rights are those of the client's record.
#[test]
fn a_client_is_known_by_its_key() {
    let Partners { world, acme, other } = partners();
    for kid in [Some("acme-1"), None] {
        let signed = token(&acme, kid, &json!({}));
        world.plain().post("/partners/orders", "").bearer(&signed).send().assert_passed();
        assert_eq!(world.upstream().last().value("x-caller"), "acme");
    }
    let other = token(&other, None, &json!({ "sub": "other" }));
    world.plain().get("/partners/orders").bearer(&other).send().assert_passed();
    assert_eq!(world.upstream().last().value("x-caller"), "other");
    let before = world.upstream().hits();
    world.plain().post("/partners/orders", "").bearer(&other).send().assert_refused(Reason::AccessDenied);
    let own = world.plain().get("/partners/admin").bearer(&token(&acme, None, &json!({}))).send();
    own.assert_refused(Reason::ScopeInsufficient);
    assert_eq!(world.upstream().hits(), before);
}

/// JWT-26: nobody signs for somebody else.
#[test]
fn what_the_client_did_not_sign_is_refused() {
    let Partners { world, acme, other } = partners();
    let stranger = SigningKey::generate(Algorithm::Es256).expect("a key");
    let secret = portcullis_core::Secret::new(acme.public_pem().expect("PEM").into_bytes());
    let confused = SigningKey::from_secret(Algorithm::Hs256, &secret).expect("a key");
    for (name, token, reason) in [
        ("another's key", token(&other, None, &json!({})), Reason::TokenSignatureInvalid),
        ("another's kid", token(&other, Some("other-1"), &json!({})), Reason::TokenClaimInvalid),
        ("own kid, another's key", token(&other, Some("acme-1"), &json!({})), Reason::TokenSignatureInvalid),
        ("a stranger", token(&stranger, Some("acme-1"), &json!({})), Reason::TokenSignatureInvalid),
        ("no client", token(&acme, None, &json!({ "sub": "nobody" })), Reason::TokenSignatureInvalid),
        (
            "a client without keys",
            token(&acme, None, &json!({ "sub": "gone" })),
            Reason::TokenSignatureInvalid,
        ),
        ("unknown kid", token(&acme, Some("acme-2"), &json!({})), Reason::TokenSignatureInvalid),
        ("another audience", token(&acme, None, &json!({ "aud": "x" })), Reason::TokenAudienceRefused),
        ("another issuer", token(&acme, None, &json!({ "iss": "x" })), Reason::TokenIssuerRefused),
        ("too long", token(&acme, None, &json!({ "exp": unix_now() + 600 })), Reason::TokenLifetimeRefused),
        ("public key as secret", token(&confused, Some("acme-1"), &json!({})), Reason::TokenAlgorithmRefused),
    ] {
        let answer = world.plain().get("/partners/orders").bearer(&token).send();
        assert_eq!(answer.code(), reason.code(), "{name}: {}", answer.text());
        answer.assert_refused(reason);
    }
    world.assert_upstream_untouched();
}

/// A client that names its tokens like another's has used up nothing of theirs, whatever issuer both say.
#[test]
fn what_one_client_uses_up_is_its_own() {
    let Partners { world, acme, other } = partners_with("    used_once: true\n");
    let said = json!({"iss": "partner", "jti": "one"});
    let mut others = said.clone();
    others["sub"] = "other".into();
    let first = token(&other, Some("other-1"), &others);
    let ask = |token: &str| world.plain().get("/partners/orders").bearer(token).send();
    ask(&first).assert_passed();
    ask(&first).assert_refused(Reason::TokenReplayed);
    let second = token(&acme, Some("acme-1"), &said);
    ask(&second).assert_passed();
    ask(&second).assert_refused(Reason::TokenReplayed);
}
