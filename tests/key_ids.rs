//! Which of a caller's credentials it was: told to the upstream, to the log and to conditions, for the time in which a
//! client changes from one to the next (CHN-04).

use std::sync::Arc;

use portcullis_core::{Reason, Secret};
use portcullis_jose::digest::KeyedHash;
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::json;

use crate::rig::certificates::{Leaf, unix_now};
use crate::rig::client::Call;
use crate::rig::gateway::portcullis;
use crate::rig::idp::Key;
use crate::rig::standard_base64;
use crate::rig::token::Token;
use crate::rig::world::{HOST, Plan, World};

const PEPPER: &str = "pepper-pepper-pepper-pepper-pepper-pepper";
const SECRET: &str = "acme-secret-acme-secret-acme-secret-0123456789";

/// `U*U`, from the tests of crypt_blowfish; cheap, for tests.
const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// An API that tells its upstream which credential it was.
fn api(name: &str, authenticate: &str, when: &str) -> String {
    format!(
        "api: {name}
match: {{ host: {HOST}, path: /{name}/* }}
upstream: accounts
authenticate: {{ {authenticate} }}
allow:
  - {{ name: anything, paths: [\"/*\"]{when} }}
forward: {{ set: {{ x-key-id: \"{{identity.key_id}}\", x-request: \"{{request.id}}\" }} }}
"
    )
}

fn apis() -> Vec<String> {
    let successor = ", when: identity.key_id == \"mobile-2027\"";
    [
        ("tokens", "jwt: { issuer: bank-idp }", ""),
        ("assertions", "jwt: { issuer: partners }", ""),
        ("keys", "api_key: { header: x-api-key }", ""),
        ("successors", "api_key: { header: x-api-key }", successor),
        ("users", "basic: {}", ""),
        ("signed", "hmac: { algorithms: [hmac-sha256] }", ""),
        ("messages", "signature: { scheme: http }", ""),
        ("certificates", "certificate: { registered: true }", ""),
        ("anybody", "anonymous: { because: a test }", ""),
    ]
    .map(|(name, authenticate, when)| api(name, authenticate, when))
    .to_vec()
}

fn hash(key: &str) -> String {
    portcullis_authn::hash_key(&Secret::new(PEPPER.into()), key).to_string()
}

fn plan() -> Plan {
    let apis = apis();
    let plan = Plan::new(&apis.iter().map(String::as_str).collect::<Vec<_>>()).with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
        plan.issuers = "  partners:\n    issuer: partner\n    iss: optional\n    audience: bank\n    algorithms: [ES256]\n    keys: clients\n    max_lifetime: 5m\n"
            .to_owned();
    });
    plan.directory.write("secrets/pepper", PEPPER).write("secrets/acme", SECRET);
    plan
}

/// A client with two credentials of each kind, as in the middle of a rotation.
struct Rotation {
    world: World,
    assertions: [SigningKey; 2],
    leaves: [Arc<Leaf>; 2],
    /// Those of the identity provider, both in its set.
    provider: [Arc<Key>; 2],
}

fn rotation() -> Rotation {
    let plan = plan();
    let provider = [plan.idp.key(), plan.idp.add(Algorithm::Es256, "key-2")];
    let assertions = [(); 2].map(|()| SigningKey::generate(Algorithm::Es256).expect("a key"));
    let leaves = ["old", "new"].map(|name| Arc::new(plan.third_parties.client(name)));
    for (key, file) in assertions.iter().zip(["keys/old.pub", "keys/new.pub"]) {
        plan.directory.write(file, key.public_pem().expect("PEM"));
    }
    plan.directory.write(
        "clients/acme.yaml",
        format!(
            "clients:
  acme:
    credentials:
      - api_key: {{ hash: \"{}\", name: mobile-2026 }}
      - api_key: {{ hash: \"{}\", name: mobile-2027 }}
      - api_key: {{ hash: \"{}\" }}
      - basic: {{ username: acme-2026, password_hash: \"{BCRYPT}\" }}
      - basic: {{ username: acme-2027, password_hash: \"{BCRYPT}\" }}
      - hmac: {{ key_id: hmac-2026, secret: {{ file: ../secrets/acme }} }}
      - hmac: {{ key_id: hmac-2027, secret: {{ file: ../secrets/acme }} }}
      - signature: {{ key_id: sig-2026, secret: {{ file: ../secrets/acme }}, algorithm: hmac-sha256 }}
      - signature: {{ key_id: sig-2027, secret: {{ file: ../secrets/acme }}, algorithm: hmac-sha256 }}
      - certificate: {{ sha256: [\"{}\", \"{}\"] }}
      - jwt_key: {{ kid: acme-jwt-2026, pem: ../keys/old.pub }}
      - jwt_key: {{ kid: acme-jwt-2027, pem: ../keys/new.pub }}
",
            hash("the-key-of-2026-0123456789"),
            hash("the-key-of-2027-0123456789"),
            hash("the-key-without-a-name-0123456789"),
            leaves[0].fingerprint(),
            leaves[1].fingerprint(),
        ),
    );
    Rotation { world: plan.start(), assertions, leaves, provider }
}

impl Rotation {
    /// Sends it, and holds what the upstream was told against the log.
    #[track_caller]
    fn expect(&self, call: Call, expected: Option<&str>) {
        // Whatever a caller says of its key is gone before we speak.
        call.header("x-key-id", "of-the-callers-own-choice").send().assert_passed();
        let received = self.world.upstream().last();
        assert_eq!(
            received.values("x-key-id"),
            expected.into_iter().collect::<Vec<_>>(),
            "{}",
            received.head
        );
        let line = self.world.gateway.access_line(received.value("x-request"));
        assert_eq!(line.get("key_id").and_then(|id| id.as_str()), expected, "{line}");
    }

    fn signed(&self, key_id: &str) -> Call {
        let date = jiff::Timestamp::from_second(unix_now()).expect("a moment");
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let signature = mac(&format!("(request-target): get /signed/1\ndate: {date}"));
        let credential = format!(
            "Signature keyId=\"{key_id}\",headers=\"(request-target) date\",signature=\"{signature}\""
        );
        self.world.plain().get("/signed/1").header("date", &date).header("authorization", &credential)
    }

    fn message(&self, key_id: &str) -> Call {
        let list = format!("(\"@method\" \"@target-uri\");created={};keyid=\"{key_id}\"", unix_now());
        let base = format!(
            "\"@method\": GET\n\"@target-uri\": http://{HOST}/messages/1\n\"@signature-params\": {list}"
        );
        let call = self.world.plain().get("/messages/1").header("signature-input", &format!("s={list}"));
        call.header("signature", &format!("s=:{}:", mac(&base)))
    }

    fn assertion(&self, which: usize, kid: Option<&str>) -> Call {
        let now = unix_now();
        let claims = json!({ "sub": "acme", "aud": "bank", "iat": now, "exp": now + 60 });
        let header = kid.map_or_else(|| json!({}), |kid| json!({ "kid": kid }));
        let token = self.assertions[which].sign(header, &claims).expect("a signature");
        self.world.plain().get("/assertions/1").bearer(&token)
    }
}

fn mac(text: &str) -> String {
    standard_base64(&KeyedHash::new(&Secret::new(SECRET.into())).digest(text.as_bytes()))
}

#[test]
fn two_credentials_of_one_client_are_told_apart() {
    let rotation = rotation();
    let plain = rotation.world.plain();
    for (key, name) in [
        ("the-key-of-2026-0123456789", Some("mobile-2026")),
        ("the-key-of-2027-0123456789", Some("mobile-2027")),
        // What has no name gets none, and least of all a part of itself.
        ("the-key-without-a-name-0123456789", None),
    ] {
        rotation.expect(plain.get("/keys/1").header("x-api-key", key), name);
    }
    for user in ["acme-2026", "acme-2027", "acme-2026"] {
        let value = format!("Basic {}", standard_base64(format!("{user}:U*U").as_bytes()));
        rotation.expect(plain.get("/users/1").header("authorization", &value), Some(user));
    }
    for year in ["2026", "2027"] {
        let (hmac, signature) = (format!("hmac-{year}"), format!("sig-{year}"));
        rotation.expect(rotation.signed(&hmac), Some(&hmac));
        rotation.expect(rotation.message(&signature), Some(&signature));
    }
    for (which, name) in ["acme-jwt-2026", "acme-jwt-2027"].into_iter().enumerate() {
        rotation.expect(rotation.assertion(which, Some(name)), Some(name));
        rotation.expect(rotation.assertion(which, None), Some(name));
    }
    for leaf in &rotation.leaves {
        let call = rotation.world.stranger().certificate(leaf).get("/certificates/1");
        rotation.expect(call, leaf.fingerprint().get(..16));
    }
    rotation.expect(plain.get("/anybody/1"), None);
    // Callers have as many keys as they like, so no series is named after one.
    let page = rotation.world.gateway.admin("/metrics").text();
    for name in
        ["mobile-20", "hmac-20", "sig-20", "acme-20", "acme-jwt", &rotation.leaves[0].fingerprint()[..16]]
    {
        assert!(!page.contains(name), "{name}");
    }
}

/// The name is that of the key in the provider's set, whether the token says it or not; a remembered token keeps it.
#[test]
fn a_token_goes_by_the_key_that_verified_it() {
    let rotation = rotation();
    for (key, name) in rotation.provider.iter().zip(["key-1", "key-2"]) {
        let named = Token::new(key).sign();
        let nameless = Token::new(key).header("kid", serde_json::Value::Null).sign();
        for token in [&named, &named, &nameless, &nameless] {
            rotation.expect(rotation.world.plain().get("/tokens/1").bearer(token), Some(name));
        }
    }
}

/// A condition can let the new key in and keep the old one out, or one that has no name.
#[test]
fn a_condition_can_ask_for_the_new_key() {
    let rotation = rotation();
    let call = |key: &str| rotation.world.plain().get("/successors/1").header("x-api-key", key);
    rotation.expect(call("the-key-of-2027-0123456789"), Some("mobile-2027"));
    for (key, name) in
        [("the-key-of-2026-0123456789", Some("mobile-2026")), ("the-key-without-a-name-0123456789", None)]
    {
        let answer = call(key).send();
        answer.assert_refused(Reason::AccessDenied);
        // A refusal by the rules has the name in the log as well.
        let line = rotation.world.gateway.access_line(answer.json()["request_id"].as_str().expect("an id"));
        assert_eq!(line.get("key_id").and_then(|id| id.as_str()), name, "{line}");
    }
    assert_eq!(rotation.world.upstream().hits(), 1);
}

/// What `check` says to names that are none, without repeating what may be a key.
#[test]
fn bad_names_are_faults() {
    let plan = plan();
    let key = "the-key-of-2026-0123456789";
    plan.directory.write(
        "clients/acme.yaml",
        format!(
            "clients:
  acme:
    credentials:
      - api_key: {{ hash: \"{}\", name: {key} }}
      - api_key: {{ hash: \"{}\", name: mobile }}
      - api_key: {{ hash: \"{}\", name: mobile }}
  globex:
    credentials:
      - api_key: {{ hash: \"{}\", name: \"two\\nlines\" }}
",
            hash(key),
            hash("b"),
            hash("c"),
            hash("d"),
        ),
    );
    let typing = api("typing", "api_key: { header: x-api-key }", ", when: identity.keyid == \"x\"");
    plan.directory.write("apis/typing.yaml", typing.replace("{identity.key_id}", "{identity.keyid}"));
    plan.write();
    let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in [
        "error[literal_secret]: this name is a key",
        "error[key_name_twice]: client `acme` has two API keys called `mobile`",
        "error[bad_name]: the name of a key is 1 to 64 printable characters",
        "did you mean `identity.key_id`?",
        "did you mean `{identity.key_id}`?",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}
