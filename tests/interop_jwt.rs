//! Tokens signed by libraries nobody here wrote, in the shapes that the systems in front of us give them.

use portcullis_core::Reason;
use serde_json::json;

use crate::rig::certificates::unix_now;
use crate::rig::idp::{AUDIENCE, ISSUER};
use crate::rig::interop::{self, said};
use crate::rig::world::{BEARER, Plan};

#[test]
fn tokens_of_other_libraries_are_read_as_they_mean_them() {
    let plan = Plan::new(&[BEARER]).with(|plan| plan.keys = "{ pem: [keys/signer.pem] }".to_owned());
    let (signer, stranger) = (plan.servers.client("signer"), plan.servers.client("stranger"));
    plan.directory.write("keys/signer.pem", &signer.pem);
    let world = plan.start();
    let now = unix_now();
    let document = |key: &str| {
        json!({
            "key": key, "header": { "alg": "ES256", "typ": "at+jwt" },
            "claims": { "iss": ISSUER, "aud": AUDIENCE, "sub": "tpp-a", "client_id": "tpp-a", "iat": now, "exp": now + 60 },
        })
    };
    for library in [|| interop::node("sign_jwt.mjs"), || interop::python("sign_jwt.py")] {
        let good = said(library(), &document(&signer.key_pem));
        world.plain().get("/bearer/x").bearer(&good).send().assert_passed();
        let before = world.upstream().hits();
        let forged = said(library(), &document(&stranger.key_pem));
        world.plain().get("/bearer/x").bearer(&forged).send().assert_refused(Reason::TokenSignatureInvalid);
        assert_eq!(world.upstream().hits(), before);
    }
}

const AMIKO: &str = "\
api: amiko
match: { host: api.bank.example, path: /amiko/* }
upstream: accounts
authenticate: { jwt: { issuer: amiko } }
allow:
  - { name: anything, paths: [\"/*\"] }
forward: { set: { x-caller: \"{identity.name}\" } }
";

/// How a library's script is started, and what it must be given as `typ` to write none.
type Library = (fn() -> std::process::Command, Option<serde_json::Value>);

/// The libraries, and how each is told to write no `typ`: jose writes none unless told, PyJWT one unless told.
fn libraries() -> [Library; 2] {
    [(|| interop::node("sign_jwt.mjs"), None), (|| interop::python("sign_jwt.py"), Some(json!(null)))]
}

/// Section 1.1 of the requirements: RS256, `type` instead of `typ`, no `kid`, `iss` and `aud` optional, an hour.
#[test]
fn tokens_of_an_amiko_connector_are_taken_as_they_come() {
    let pair = || {
        rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .expect("a key pair")
    };
    let (signer, stranger) = (pair(), pair());
    let plan = Plan::new(&[AMIKO]).with(|plan| {
        plan.issuers = "  amiko: { profile: amiko, keys: { pem: [keys/amiko.pub] } }\n".to_owned();
    });
    plan.directory.write("keys/amiko.pub", signer.public_key_pem());
    let world = plan.start();
    let now = unix_now();
    let claims = |changes: &serde_json::Value| {
        let mut claims = json!({ "sub": "account-1", "iat": now, "exp": now + 3_600, "branch": "HQ" });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    };
    for (library, typ) in libraries() {
        let sign = |key: &rcgen::KeyPair, header: serde_json::Value, claims: serde_json::Value| {
            let mut header = header;
            if let (None, Some(nothing)) = (header.get("typ"), &typ) {
                header["typ"] = nothing.clone();
            }
            said(library(), &json!({ "key": key.serialize_pem(), "header": header, "claims": claims }))
        };
        let header = || json!({ "type": "JWT", "alg": "RS256" });
        let call = |token: &str| world.plain().get("/amiko/cases").bearer(token).send();
        call(&sign(&signer, header(), claims(&json!({})))).assert_passed();
        assert_eq!(world.upstream().last().value("x-caller"), "amiko:account-1");
        call(&sign(&signer, header(), claims(&json!({"iss": "amiko", "aud": "any"})))).assert_passed();
        call(&sign(&signer, json!({ "typ": "JWT", "alg": "RS256" }), claims(&json!({})))).assert_passed();
        let before = world.upstream().hits();
        for (token, reason) in [
            (sign(&stranger, header(), claims(&json!({}))), Reason::TokenSignatureInvalid),
            (sign(&signer, json!({ "alg": "PS256" }), claims(&json!({}))), Reason::TokenAlgorithmRefused),
            (sign(&signer, header(), claims(&json!({"iss": "other"}))), Reason::TokenIssuerRefused),
            (sign(&signer, header(), claims(&json!({"exp": now + 3_700}))), Reason::TokenLifetimeRefused),
            (
                sign(&signer, header(), claims(&json!({"iat": now - 3_700, "exp": now - 100}))),
                Reason::TokenExpired,
            ),
            (sign(&signer, header(), claims(&json!({"sub": ""}))), Reason::TokenClaimInvalid),
            (
                sign(&signer, json!({ "typ": "at+jwt", "alg": "RS256" }), claims(&json!({}))),
                Reason::TokenTypeRefused,
            ),
        ] {
            call(&token).assert_refused(reason);
        }
        assert_eq!(world.upstream().hits(), before);
    }
}
