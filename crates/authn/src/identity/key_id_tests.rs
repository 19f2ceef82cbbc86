//! Which of a caller's credentials it was (CHN-04), for every kind of them.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use portcullis_core::{PeerCertificate, Principal, Secret};
use portcullis_jose::digest::KeyedHash;
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::{Value, json};

use crate::api_key::{generate_key, hash_key};
use crate::hmac::signed_bytes;
use crate::testing::{
    House, Memory, NOW, bearer, certificate_der, client_faults, clients, clients_with, connection, evidence,
    head, issuers, jwks, moment, offline, only_fault, peer, pepper, sign,
};
use crate::{Chain, WorkerTokens, thumbprint};

static OLD: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static NEW: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));

/// `U*U`, from the tests of crypt_blowfish; cheap, for tests.
const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn house_of(credentials: &Value) -> House {
    let memory = Memory::default().with("secret", SECRET);
    let mut house = House::new(issuers(&json!({}), &Memory::default(), &offline()));
    house.clients = clients_with(&json!({"acme": {"credentials": credentials}}), &memory);
    house
}

async fn caller(
    chain: &Chain,
    worker: &WorkerTokens,
    head: &Parts,
    certificate: Option<&Arc<PeerCertificate>>,
) -> Principal {
    let connection = connection(certificate.cloned());
    chain.authenticate(&evidence(head, &connection, worker, moment(NOW))).await.expect("a caller")
}

/// The key id of whoever sends these fields.
async fn key_id(chain: &Chain, fields: &[(&str, &str)]) -> Option<String> {
    let caller = caller(chain, &WorkerTokens::new(0), &head("/", fields), None).await;
    caller.identity.key_id.as_deref().map(str::to_owned)
}

fn issued_by(keys: &Value, algorithm: &str) -> Chain {
    let memory = Memory::default()
        .with("keys.json", jwks(&[("2026", &OLD), ("2027", &NEW)]))
        .with("controls.json", jwks(&[("a\r\nb", &OLD), ("", &NEW)]))
        .with("old.pem", OLD.public_pem().expect("a public key"))
        .with("secret", SECRET);
    let written = json!({"idp": {
        "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": algorithm,
        "keys": keys, "max_lifetime": "1h",
    }});
    House::new(issuers(&written, &memory, &offline())).chain(&json!({"jwt": {"issuer": "idp"}}))
}

/// Not what the header says: a token may name no key, and a key may have no name.
#[tokio::test]
async fn a_token_has_the_name_of_the_key_that_verified_it() {
    let set = issued_by(&json!({"jwks": {"file": "keys.json"}}), "ES256");
    let controls = issued_by(&json!({"jwks": {"file": "controls.json"}}), "ES256");
    let pem = issued_by(&json!({"pem": ["old.pem"]}), "ES256");
    let shared = issued_by(&json!({"secret": {"file": "secret"}}), "HS256");
    let secret =
        SigningKey::from_secret(Algorithm::Hs256, &Secret::new(SECRET.as_bytes().to_vec())).expect("a key");
    for (chain, key, header, expected) in [
        (&set, &*OLD, json!({"kid": "2026"}), Some("2026")),
        (&set, &*NEW, json!({"kid": "2027"}), Some("2027")),
        (&set, &*OLD, json!({}), Some("2026")),
        (&set, &*NEW, json!({}), Some("2027")),
        (&pem, &*OLD, json!({"kid": "of the token's own choice"}), None),
        (&pem, &*OLD, json!({}), None),
        (&shared, &secret, json!({"kid": "any"}), None),
        // What is shown in logs and headers is something to read.
        (&controls, &*OLD, json!({"kid": "a\r\nb"}), None),
        (&controls, &*NEW, json!({}), None),
    ] {
        let worker = WorkerTokens::new(1 << 20);
        let value = bearer(&sign(key, &header, &json!({})));
        let head = head("/", &[("authorization", &value)]);
        let first = caller(chain, &worker, &head, None).await;
        assert_eq!(first.identity.key_id.as_deref(), expected, "{header}");
        // A remembered token keeps it, and nothing is made anew.
        let again = caller(chain, &worker, &head, None).await;
        assert!(Arc::ptr_eq(&first.identity, &again.identity), "{header}");
    }
}

#[tokio::test]
async fn an_api_key_is_called_what_its_line_says_and_nothing_else() {
    let hash = |key: &str| hash_key(&pepper(), key).to_string();
    let house = house_of(&json!([
        {"api_key": {"hash": hash("pc_old"), "name": "mobile 2026"}},
        {"api_key": {"hash": hash("pc_new"), "name": "mobile 2027", "expires": "2028-01-01"}},
        {"api_key": {"hash": hash("pc_unnamed")}},
    ]));
    let chain = house.chain(&json!({"api_key": {"header": "x-api-key"}}));
    for (key, expected) in
        [("pc_old", Some("mobile 2026")), ("pc_new", Some("mobile 2027")), ("pc_unnamed", None)]
    {
        assert_eq!(key_id(&chain, &[("x-api-key", key)]).await.as_deref(), expected, "{key}");
    }
}

/// Two keys of one client have two names; of two clients each may call its own as it likes.
#[test]
fn names_of_api_keys_are_names_and_no_keys() {
    let made = generate_key().expect("randomness");
    let key = |key: &str, name: &Value| json!({"api_key": {"hash": hash_key(&pepper(), key).to_string(), "name": name}});
    let of = |credentials: Value| json!({"acme": {"credentials": credentials}});
    for (written, code, saying) in [
        (
            of(json!([key("a", &json!("x")), key("b", &json!("x"))])),
            "key_name_twice",
            "two API keys called `x`",
        ),
        (of(json!([key("partners-own-key", &json!("partners-own-key"))])), "literal_secret", "name is a key"),
        (of(json!([key("a", &json!(made))])), "literal_secret", "name is a key"),
        (of(json!([key("a", &json!(format!("mobile {made}")))])), "literal_secret", "name is a key"),
        (of(json!([key("a", &json!("x".repeat(65)))])), "bad_name", "1 to 64 printable characters"),
        (of(json!([key("a", &json!(" x"))])), "bad_name", "no space at an end"),
        (of(json!([key("a", &json!("a\nb"))])), "bad_name", "printable"),
        (of(json!([key("a", &json!("\u{e9}"))])), "bad_name", "printable"),
        (of(json!([key("a", &json!(["x"]))])), "wrong_kind", "expected"),
    ] {
        let fault = only_fault(client_faults(&written), code, saying).to_string();
        assert!(!fault.contains(&made) && !fault.contains("partners-own-key"), "{fault}");
    }
    let both = clients(&json!({
        "acme": {"credentials": [key("a", &json!("x".repeat(64))), key("b", &json!("y"))]},
        "globex": {"credentials": [key("c", &json!("y"))]},
    }));
    assert_eq!(both.len(), 2);
}

#[test]
fn a_kid_in_a_clients_file_is_something_to_read() {
    for kid in ["a\nb".to_owned(), "k".repeat(257)] {
        let written = json!({"acme": {"credentials": [{"jwt_key": {"kid": kid, "pem": "acme.pub"}}]}});
        only_fault(client_faults(&written), "bad_name", "1 to 256 bytes long, without control characters");
    }
}

#[tokio::test]
async fn a_password_is_called_by_its_user() {
    let house = house_of(&json!([
        {"basic": {"username": "acme-2026", "password_hash": BCRYPT}},
        {"basic": {"username": "acme-2027", "password_hash": BCRYPT}},
        {"basic": {"username": "", "password_hash": BCRYPT}},
    ]));
    let chain = house.chain(&json!({"basic": {"empty_username": "allow"}}));
    for (user, expected) in [("acme-2026", Some("acme-2026")), ("acme-2027", Some("acme-2027")), ("", None)] {
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:U*U")));
        assert_eq!(key_id(&chain, &[("authorization", &value)]).await.as_deref(), expected, "{user}");
    }
}

#[tokio::test]
async fn a_signature_has_the_id_of_its_key() {
    let secret = json!({"file": "secret"});
    let house = house_of(&json!([
        {"hmac": {"key_id": "acme-2026", "secret": secret}},
        {"hmac": {"key_id": "acme-2027", "secret": secret}},
        {"signature": {"key_id": "acme-2028", "secret": secret, "algorithm": "hmac-sha256"}},
    ]));
    let hash = KeyedHash::new(&Secret::new(SECRET.as_bytes().to_vec()));
    let chain = house.chain(&json!({"hmac": {"algorithms": ["hmac-sha256"]}}));
    let date = [("date", "Fri, 15 Jan 2027 08:00:00 GMT")];
    for id in ["acme-2026", "acme-2027"] {
        let parameters = format!("keyId=\"{id}\",headers=\"(request-target) date\"");
        let unsigned = format!("{parameters},signature=\"AAAA\"");
        let base = signed_bytes(unsigned.as_bytes(), &head("/", &date)).expect("a base");
        let value = format!("Signature {parameters},signature=\"{}\"", STANDARD.encode(hash.digest(&base)));
        let fields = [date[0], ("authorization", value.as_str())];
        assert_eq!(key_id(&chain, &fields).await.as_deref(), Some(id));
    }
    let chain = house.chain(&json!({"signature": {"scheme": "https"}}));
    let input = format!("(\"@method\" \"@target-uri\");created={NOW};keyid=\"acme-2028\"");
    let base =
        format!("\"@method\": GET\n\"@target-uri\": https://api.example/\n\"@signature-params\": {input}");
    let (input, value) =
        (format!("s={input}"), format!("s=:{}:", STANDARD.encode(hash.digest(base.as_bytes()))));
    let fields = [("host", "api.example"), ("signature-input", &input), ("signature", &value)];
    assert_eq!(key_id(&chain, &fields).await.as_deref(), Some("acme-2028"));
}

/// The first digits of its thumbprint, where it is a client's; of any other the thumbprint is the caller.
#[tokio::test]
async fn a_certificate_of_a_client_has_a_short_name() {
    let leaf = |name: &str| certificate_der(&[(rcgen::DnType::CommonName, name)], &[]);
    let (old, new, stranger) = (leaf("old"), leaf("new"), leaf("stranger"));
    let hex = |der: &[u8]| {
        let mut text = String::new();
        crate::certificate::name::push_hex(&mut text, &thumbprint(der));
        text
    };
    let house = house_of(&json!([{"certificate": {"sha256": [hex(&old), hex(&new)]}}]));
    let chain = house.chain(&json!({"certificate": {"trust": "tpp"}}));
    let worker = WorkerTokens::new(0);
    for (der, expected) in [(&old, Some(&hex(&old)[..16])), (&new, Some(&hex(&new)[..16])), (&stranger, None)]
    {
        let peer = peer(der, "tpp");
        let first = caller(&chain, &worker, &head("/", &[]), Some(&peer)).await;
        assert_eq!(first.identity.key_id.as_deref(), expected);
        let again = caller(&chain, &worker, &head("/", &[]), Some(&peer)).await;
        assert!(Arc::ptr_eq(&first.identity, &again.identity), "made once for a connection");
    }
}

#[tokio::test]
async fn whoever_shows_nothing_has_no_key() {
    let chain = house_of(&json!([{"basic": {"username": "a", "password_hash": BCRYPT}}]))
        .chain(&json!({"anonymous": {"because": "a test"}}));
    assert_eq!(key_id(&chain, &[]).await, None);
}
