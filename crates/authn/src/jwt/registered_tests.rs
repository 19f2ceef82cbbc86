//! Tokens that registered clients sign themselves: keys by `kid`, else by `sub` (B9.5).

use std::sync::LazyLock;

use portcullis_core::Faults;
use portcullis_jose::{Algorithm, CompactJws, JwsLimits, SignatureInvalid, SigningKey};
use serde_json::{Value, json};

use super::ClientKeys;
use crate::testing::{
    House, Memory, NOW, ask, bearer, connection, node, offline, only_fault, pepper, registering,
    try_issuers_beside,
};
use crate::{Clients, ClientsSpec, Issuers, WorkerTokens};

static ACME: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static NEXT: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static OTHER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));

fn memory() -> Memory {
    Memory::default()
        .with("acme.pub", ACME.public_pem().expect("PEM"))
        .with("next.pub", NEXT.public_pem().expect("PEM"))
        .with("other.pub", OTHER.public_pem().expect("PEM"))
        .with("two.pub", [ACME.public_pem(), NEXT.public_pem()].map(|pem| pem.expect("PEM")).concat())
}

fn key(kid: &str, pem: &str) -> Value {
    json!({"jwt_key": {"kid": kid, "pem": pem}})
}

fn compiled(clients: &Value, issuer: &Value) -> (Clients, Issuers, Faults) {
    let mut faults = Faults::default();
    let mut spec = ClientsSpec::default();
    spec.read(&node(clients), &mut faults);
    let clients = spec.compile(&registering(Some(&pepper()), &memory()), &mut faults);
    let written = json!({ "clients": issuer });
    let issuers = try_issuers_beside(&clients, &written, &memory(), &offline(), &mut faults);
    (clients, issuers.unwrap_or_default(), faults)
}

fn issuer() -> Value {
    json!({
        "issuer": "self", "iss": "optional", "audience": "https://api.example", "algorithms": "ES256",
        "keys": "clients", "max_lifetime": "10m",
    })
}

fn house() -> House {
    let (clients, issuers, faults) = compiled(
        &json!({
            "acme": {"credentials": [key("acme-1", "acme.pub"), key("acme-2", "next.pub")]},
            "other": {"credentials": [key("other-1", "other.pub")]},
        }),
        &issuer(),
    );
    assert!(!faults.any_error(), "{:#?}", faults.into_sorted());
    let mut house = House::new(issuers);
    house.clients = clients;
    house
}

fn signed(key: &SigningKey, kid: Option<&str>, claims: &Value) -> String {
    let mut all =
        json!({"sub": "acme", "aud": "https://api.example", "iat": NOW, "exp": NOW + 60, "scope": "admin"});
    for (name, value) in claims.as_object().expect("an object") {
        match value {
            Value::Null => drop(all.as_object_mut().expect("an object").remove(name)),
            value => all[name] = value.clone(),
        }
    }
    let header = kid.map_or_else(|| json!({}), |kid| json!({ "kid": kid }));
    key.sign(header, &all).expect("a signature")
}

/// B9.5, JWT-26.
#[tokio::test]
async fn the_key_is_found_by_its_name_or_else_by_the_subject() {
    let chain = house().chain(&json!({"jwt": {"issuer": "clients"}}));
    let (worker, connection) = (WorkerTokens::new(1 << 20), connection(None));
    for (name, token, expected) in [
        ("by kid", signed(&ACME, Some("acme-1"), &json!({})), Ok("client:acme")),
        ("by the other kid", signed(&NEXT, Some("acme-2"), &json!({})), Ok("client:acme")),
        ("by subject", signed(&ACME, None, &json!({})), Ok("client:acme")),
        ("by subject, next key", signed(&NEXT, None, &json!({})), Ok("client:acme")),
        ("another client", signed(&OTHER, None, &json!({"sub": "other"})), Ok("client:other")),
        ("wrong kid", signed(&ACME, Some("acme-2"), &json!({})), Err("token_signature_invalid")),
        ("unknown kid", signed(&ACME, Some("acme-3"), &json!({})), Err("token_signature_invalid")),
        ("kid of another", signed(&ACME, Some("other-1"), &json!({})), Err("token_signature_invalid")),
        ("for another, own kid", signed(&OTHER, Some("other-1"), &json!({})), Err("token_claim_invalid")),
        ("for another, no kid", signed(&OTHER, None, &json!({})), Err("token_signature_invalid")),
        ("for nobody", signed(&ACME, None, &json!({"sub": "nobody"})), Err("token_signature_invalid")),
        ("no subject", signed(&ACME, None, &json!({"sub": null})), Err("token_signature_invalid")),
        ("no subject, kid", signed(&ACME, Some("acme-1"), &json!({"sub": null})), Err("token_claim_invalid")),
        (
            "subject no text",
            signed(&ACME, Some("acme-1"), &json!({"sub": ["acme"]})),
            Err("token_claim_invalid"),
        ),
    ] {
        for _ in 0..2 {
            let asked = ask(&chain, &worker, &connection, &[("authorization", &bearer(&token))]).await;
            assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{name}");
        }
    }
}

/// A client grants itself nothing: scopes in a token it signs itself are its own word.
#[tokio::test]
async fn a_client_grants_itself_no_scope() {
    use crate::testing::{evidence, head, moment};
    let chain = house().chain(&json!({"jwt": {"issuer": "clients"}}));
    let (worker, connection) = (WorkerTokens::new(1 << 20), connection(None));
    let value = bearer(&signed(&ACME, None, &json!({})));
    let head = head("/", &[("authorization", &value)]);
    let principal = chain.authenticate(&evidence(&head, &connection, &worker, moment(NOW))).await;
    let principal = principal.expect("a caller");
    assert!(principal.identity.scopes.is_empty());
    assert_eq!(&*principal.name, "acme");
    assert_eq!(principal.client().map(|client| &*client.name), Some("acme"));
}

#[test]
fn faults_are_told_where_they_are() {
    let acme = |credentials: Value| json!({"acme": {"credentials": credentials}});
    let good = acme(json!([key("acme-1", "acme.pub")]));
    for (clients, issuer, code, saying) in [
        (json!({"acme": {}}), issuer(), "missing_key", "no client has a `jwt_key`"),
        (
            acme(json!([key("a", "acme.pub"), key("a", "next.pub")])),
            issuer(),
            "key_twice",
            "more than one key",
        ),
        (acme(json!([key("a", "acme.pub"), key("b", "gone.pub")])), issuer(), "unreadable", "not there"),
        (acme(json!([key("a", "acme.pub"), key("b", "two.pub")])), issuer(), "bad_key", "here are 2"),
        (
            good,
            json!({"issuer": "self", "audience": "a", "algorithms": "HS256", "max_lifetime": "5m", "keys": "clients"}),
            "keys_do_not_fit",
            "HMAC",
        ),
        (
            acme(json!([{"jwt_key": {"pem": "acme.pub"}}])),
            json!({"issuer": "s", "audience": "a", "algorithms": "ES256", "keys": {"pem": "acme.pub"}}),
            "missing_key",
            "needs `kid`",
        ),
    ] {
        only_fault(compiled(&clients, &issuer).2, code, saying);
    }
}

/// A reload that expires a client: what a worker remembers of its token is not what the new policies say.
#[tokio::test]
async fn a_remembered_token_leads_to_the_record_in_force() {
    use crate::testing::{evidence, head, moment};
    let sources = offline();
    let chain = |record: Value| {
        let mut client = record;
        client["credentials"] = json!([key("acme-1", "acme.pub")]);
        let (mut faults, mut spec) = (Faults::default(), ClientsSpec::default());
        spec.read(&node(&json!({ "acme": client })), &mut faults);
        let clients = spec.compile(&registering(Some(&pepper()), &memory()), &mut faults);
        let written = json!({ "clients": issuer() });
        let issuers = try_issuers_beside(&clients, &written, &memory(), &sources, &mut faults);
        House::new(issuers.expect("issuers")).chain(&json!({"jwt": {"issuer": "clients"}}))
    };
    let (worker, connection) = (WorkerTokens::new(1 << 20), connection(None));
    let value = bearer(&signed(&ACME, None, &json!({})));
    let head = head("/", &[("authorization", &value)]);
    for (record, expires) in
        [(json!({}), false), (json!({"expires": "2020-01-01"}), true), (json!({}), false)]
    {
        let chain = chain(record);
        for _ in 0..2 {
            let principal = chain.authenticate(&evidence(&head, &connection, &worker, moment(NOW))).await;
            let client = principal.expect("a caller").client().cloned().expect("a client");
            assert_eq!(client.expires_at.is_some(), expires);
        }
    }
}

#[test]
fn tokens_that_clients_sign_themselves_end_soon() {
    let mut endless = issuer();
    endless.as_object_mut().expect("an object").remove("max_lifetime");
    let clients = json!({"acme": {"credentials": [key("acme-1", "acme.pub")]}});
    only_fault(compiled(&clients, &endless).2, "missing_key", "need a `max_lifetime`");
}

/// What a worker remembers ends when a key or a record changes.
#[test]
fn a_changed_key_makes_another_entry() {
    let id = |pem: &str, record: Value| {
        let mut client = record;
        client["credentials"] = json!([key("acme-1", pem)]);
        let clients = json!({ "acme": client });
        let mut faults = Faults::default();
        let mut spec = ClientsSpec::default();
        spec.read(&node(&clients), &mut faults);
        let clients = spec.compile(&registering(Some(&pepper()), &memory()), &mut faults);
        clients.jwt_keys().described()
    };
    let first = id("acme.pub", json!({}));
    assert_eq!(first, id("acme.pub", json!({})));
    assert_ne!(first, id("next.pub", json!({})));
    assert_ne!(first, id("acme.pub", json!({"expires": "2027-01-01"})));
    assert_ne!(first, id("acme.pub", json!({"attributes": {"tier": "gold"}})));
}

/// ANS-06: a token that leads to no key costs what one with a wrong signature does, whatever it is signed with: there is a
/// key for the work, the work is done, and nobody's signature is good.
#[test]
fn a_token_that_leads_to_nobody_is_verified_all_the_same() {
    for algorithm in Algorithm::ALL {
        let Some(stand_in) = ClientKeys::stand_in(algorithm) else {
            assert!(algorithm.is_symmetric(), "{algorithm:?} has none");
            continue;
        };
        assert!(!algorithm.is_symmetric() && stand_in.allows(algorithm), "{algorithm:?}");
        let key = SigningKey::generate(algorithm).expect("a key");
        let token = signed(&key, Some("nobody's"), &json!({}));
        let jws = CompactJws::parse(token.as_bytes(), JwsLimits::default()).expect("a token");
        assert_eq!(jws.verify(stand_in).err(), Some(SignatureInvalid::Wrong), "{algorithm:?}");
        let again = ClientKeys::stand_in(algorithm).expect("a key");
        assert!(std::ptr::eq(stand_in, again), "made once, or the making would tell");
    }
}
