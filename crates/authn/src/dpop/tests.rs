use std::sync::LazyLock;

use portcullis_core::Rejection;
use portcullis_jose::digest::sha256;
use portcullis_jose::{Algorithm, SigningKey, base64url};
use serde_json::{Value, json};

use super::present_as_bearer;
use crate::testing::{
    House, Memory, NOW, connection, evidence, head, issuers, jwks, moment, offline, peer_named, sign, told,
};
use crate::{Chain, WorkerTokens};

static ISSUER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static HOLDER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static THIEF: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));

const MEMORY: usize = 1 << 20;

fn house() -> House {
    let memory = Memory::default().with("keys.json", jwks(&[("k1", &ISSUER)]));
    let entry = |profile: &str| {
        json!({
            "profile": profile, "issuer": "https://idp.example", "audience": "https://api.example",
            "algorithms": "ES256", "keys": {"jwks": {"file": "keys.json"}}, "type": ["absent", "JWT", "at+jwt"],
        })
    };
    House::new(issuers(&json!({"idp": entry("plain"), "fapi": entry("fapi2")}), &memory, &offline()))
}

fn chain(dpop: &Value) -> Chain {
    house().chain(&json!({"jwt": {"issuer": "idp", "dpop": dpop}}))
}

fn thumbprint(key: &SigningKey) -> String {
    let proof = proof(key, &json!({}), &json!({}), "x");
    let parsed = portcullis_jose::KeyProof::parse(proof.as_bytes()).expect("a proof");
    base64url::encode(parsed.thumbprint())
}

/// A token bound to the holder's key, changed.
fn token(changes: &Value) -> String {
    let mut all = json!({"cnf": {"jkt": thumbprint(&HOLDER)}, "client_id": "a", "jti": "t"});
    for (name, value) in changes.as_object().expect("an object") {
        all[name] = value.clone();
    }
    sign(&ISSUER, &json!({"kid": "k1"}), &all)
}

fn merged(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(object.as_object_mut().expect("an object").remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

/// A proof for `GET http://api.example/accounts` at [`NOW`] with that token; each has an id of its own.
fn proof(key: &SigningKey, header: &Value, claims: &Value, token: &str) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let jti = format!("proof-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut jwk = key.public_jwk("x").expect("a public key");
    jwk.as_object_mut().expect("an object").remove("kid");
    let header = merged(json!({"typ": "dpop+jwt", "jwk": jwk}), header);
    let claims = merged(
        json!({
            "jti": jti, "htm": "GET", "htu": "http://api.example/accounts", "iat": NOW,
            "ath": base64url::encode(&sha256(token.as_bytes())),
        }),
        claims,
    );
    key.sign(header, &claims).expect("a signature")
}

async fn send(
    chain: &Chain,
    worker: &WorkerTokens,
    headers: &[(&str, &str)],
    at: i64,
) -> Result<String, Rejection> {
    let mut all = vec![("host", "api.example")];
    all.extend_from_slice(headers);
    let (head, connection) = (head("/accounts?x=1", &all), connection(None));
    let asked = chain.authenticate(&evidence(&head, &connection, worker, moment(at))).await;
    asked.map(|principal| principal.key.to_string())
}

fn code(outcome: Result<String, Rejection>) -> String {
    outcome.unwrap_or_else(|rejection| rejection.reason().code().to_owned())
}

async fn with(chain: &Chain, token: &str, proof: &str) -> String {
    let worker = WorkerTokens::new(MEMORY);
    let headers = [("authorization", &*format!("DPoP {token}")), ("dpop", proof)];
    code(send(chain, &worker, &headers, NOW).await)
}

const GOOD: &str = "jwt:idp:tpp-a";

/// DPP-01 to DPP-05, DPP-10.
#[tokio::test]
async fn a_proof_is_for_this_request_this_token_and_this_moment() {
    let chain = chain(&json!("required"));
    let token = token(&json!({}));
    let other = base64url::encode(&sha256(b"another token"));
    let long = "j".repeat(256);
    for (name, header, claims, expected) in [
        ("good", json!({}), json!({}), GOOD),
        ("unknown claims and members", json!({"kid": "a", "x": 1}), json!({"x": 1}), GOOD),
        ("query and fragment", json!({}), json!({"htu": "http://api.example/accounts?y#z"}), GOOD),
        ("other spelling", json!({}), json!({"htu": "HTTP://API.example:80/./%61ccounts"}), GOOD),
        ("oldest", json!({}), json!({"iat": NOW - 59}), GOOD),
        ("newest", json!({}), json!({"iat": NOW + 10}), GOOD),
        ("fraction", json!({}), json!({"iat": 1_799_999_999.5}), GOOD),
        ("in force", json!({}), json!({"nbf": NOW, "exp": NOW + 1}), GOOD),
        ("too old", json!({}), json!({"iat": NOW - 60}), "dpop_proof_invalid"),
        ("an hour old", json!({}), json!({"iat": NOW - 3_600}), "dpop_proof_invalid"),
        ("too new", json!({}), json!({"iat": NOW + 11}), "dpop_proof_invalid"),
        ("text iat", json!({}), json!({"iat": NOW.to_string()}), "dpop_proof_invalid"),
        ("no iat", json!({}), json!({"iat": null}), "dpop_proof_invalid"),
        ("not yet", json!({}), json!({"nbf": NOW + 11}), "dpop_proof_invalid"),
        ("over", json!({}), json!({"exp": NOW}), "dpop_proof_invalid"),
        ("no htm", json!({}), json!({"htm": null}), "dpop_proof_invalid"),
        ("another method", json!({}), json!({"htm": "POST"}), "dpop_proof_invalid"),
        ("another case", json!({}), json!({"htm": "get"}), "dpop_proof_invalid"),
        ("no htu", json!({}), json!({"htu": null}), "dpop_proof_invalid"),
        ("another path", json!({}), json!({"htu": "http://api.example/payments"}), "dpop_proof_invalid"),
        ("longer path", json!({}), json!({"htu": "http://api.example/accounts/"}), "dpop_proof_invalid"),
        ("another host", json!({}), json!({"htu": "http://evil.example/accounts"}), "dpop_proof_invalid"),
        ("another scheme", json!({}), json!({"htu": "https://api.example/accounts"}), "dpop_proof_invalid"),
        ("another port", json!({}), json!({"htu": "http://api.example:81/accounts"}), "dpop_proof_invalid"),
        ("relative", json!({}), json!({"htu": "/accounts"}), "dpop_proof_invalid"),
        ("no ath", json!({}), json!({"ath": null}), "dpop_proof_invalid"),
        ("another token", json!({}), json!({ "ath": other }), "dpop_proof_invalid"),
        ("padded ath", json!({}), json!({"ath": format!("{other}=")}), "dpop_proof_invalid"),
        ("no jti", json!({}), json!({"jti": null}), "dpop_proof_invalid"),
        ("empty jti", json!({}), json!({"jti": ""}), "dpop_proof_invalid"),
        ("long jti", json!({}), json!({ "jti": long }), "dpop_proof_invalid"),
        ("jti no text", json!({}), json!({"jti": 1}), "dpop_proof_invalid"),
        ("typ", json!({"typ": "JWT"}), json!({}), "dpop_proof_invalid"),
        ("no typ", json!({"typ": null}), json!({}), "dpop_proof_invalid"),
        ("no key", json!({"jwk": null}), json!({}), "dpop_proof_invalid"),
        ("a secret", json!({"jwk": {"kty": "oct", "k": "AAAA"}}), json!({}), "dpop_proof_invalid"),
        ("crit", json!({"crit": ["x"], "x": 1}), json!({}), "dpop_proof_invalid"),
        ("a nonce of others", json!({}), json!({"nonce": "abc"}), "dpop_nonce_required"),
    ] {
        let proof = proof(&HOLDER, &header, &claims, &token);
        assert_eq!(with(&chain, &token, &proof).await, expected, "{name}");
    }
    let thiefs = proof(&THIEF, &json!({}), &json!({}), &token);
    assert_eq!(with(&chain, &token, &thiefs).await, "dpop_key_mismatch");
    let jwk = json!({"jwk": HOLDER.public_jwk("x").expect("a public key")});
    let borrowed = proof(&THIEF, &jwk, &json!({}), &token);
    assert_eq!(with(&chain, &token, &borrowed).await, "dpop_proof_invalid");
    let rs = SigningKey::generate(Algorithm::Rs256).expect("a key");
    let unlisted = proof(&rs, &json!({}), &json!({}), &token);
    assert_eq!(with(&chain, &token, &unlisted).await, "dpop_proof_invalid");
    for garbage in ["", " ", "x", "a.b.c", &token, &format!("{thiefs},{thiefs}"), &"A".repeat(10_000)] {
        assert_eq!(with(&chain, &token, garbage).await, "dpop_proof_invalid", "{garbage}");
    }
}

/// DPP-01, DPP-07, AT-04, CNF-02.
#[tokio::test]
async fn how_a_token_is_presented_must_fit_what_it_is_bound_to() {
    let (required, optional) = (chain(&json!("required")), chain(&json!("optional")));
    let plain = house().chain(&json!({"jwt": {"issuer": "idp"}}));
    let (bound, free) = (token(&json!({})), token(&json!({"cnf": {"x5t#S256": thumbprint(&THIEF)}})));
    let unbound = sign(&ISSUER, &json!({"kid": "k1"}), &json!({}));
    let worker = WorkerTokens::new(MEMORY);
    for (name, chain, scheme, token, proofs, expected) in [
        ("good", &required, "DPoP", &bound, 1, GOOD),
        ("any case", &required, "dPOp", &bound, 1, GOOD),
        ("optional, bound", &optional, "DPoP", &bound, 1, GOOD),
        ("optional, unbound", &optional, "Bearer", &unbound, 0, GOOD),
        ("a proof nobody asked for", &optional, "Bearer", &unbound, 1, GOOD),
        ("no proof", &required, "DPoP", &bound, 0, "dpop_proof_invalid"),
        ("two proofs", &required, "DPoP", &bound, 2, "dpop_proof_invalid"),
        ("downgraded", &required, "Bearer", &bound, 0, "dpop_required"),
        ("downgraded with a proof", &required, "Bearer", &bound, 1, "dpop_required"),
        ("optional, downgraded", &optional, "Bearer", &bound, 0, "dpop_required"),
        ("optional, downgraded with a proof", &optional, "Bearer", &bound, 1, "dpop_required"),
        ("unbound", &required, "DPoP", &unbound, 1, "token_not_bound"),
        ("unbound and plain", &required, "Bearer", &unbound, 0, "token_not_bound"),
        ("optional, unbound with a proof", &optional, "DPoP", &unbound, 1, "token_not_bound"),
        ("bound to a certificate", &required, "DPoP", &free, 1, "token_not_bound"),
        ("optional, bound to a certificate", &optional, "Bearer", &free, 0, "certificate_missing"),
        ("an API without proofs", &plain, "Bearer", &bound, 1, "token_binding_unsupported"),
        ("an API without proofs, DPoP", &plain, "DPoP", &bound, 1, "credentials_missing"),
    ] {
        let value = format!("{scheme} {token}");
        let made: Vec<_> = (0..proofs).map(|_| proof(&HOLDER, &json!({}), &json!({}), token)).collect();
        let mut headers = vec![("authorization", &*value)];
        headers.extend(made.iter().map(|proof| ("dpop", &**proof)));
        assert_eq!(code(send(chain, &worker, &headers, NOW).await), expected, "{name}");
    }
    let (one, two) = (format!("DPoP {bound}"), format!("Bearer {bound}"));
    let both = [("authorization", &*one), ("authorization", &*two)];
    assert_eq!(code(send(&optional, &worker, &both, NOW).await), "credentials_ambiguous");
    let list = format!("{one}, {two}");
    assert_eq!(
        code(send(&optional, &worker, &[("authorization", &list)], NOW).await),
        "credentials_malformed"
    );
}

/// CNF-02: bound to both, both must hold.
#[tokio::test]
async fn a_token_bound_to_key_and_certificate_needs_both() {
    let chain = chain(&json!("required"));
    let own = peer_named("tpp-a", "tpp");
    let cnf = json!({"jkt": thumbprint(&HOLDER), "x5t#S256": base64url::encode(&own.thumbprint)});
    let token = token(&json!({ "cnf": cnf }));
    let worker = WorkerTokens::new(MEMORY);
    for (certificate, key, expected) in [
        (Some(&own), &HOLDER, GOOD),
        (None, &HOLDER, "certificate_missing"),
        (Some(&peer_named("tpp-a", "tpp")), &HOLDER, "certificate_mismatch"),
        (Some(&own), &THIEF, "dpop_key_mismatch"),
    ] {
        let proof = proof(key, &json!({}), &json!({}), &token);
        let value = format!("DPoP {token}");
        let head = head("/accounts", &[("host", "api.example"), ("authorization", &value), ("dpop", &proof)]);
        let connection = connection(certificate.cloned());
        let asked = chain.authenticate(&evidence(&head, &connection, &worker, moment(NOW))).await;
        assert_eq!(code(asked.map(|principal| principal.key.to_string())), expected);
    }
}

/// DPP-06: also where the token is known to the worker, on another API, and by another spelling of the place.
#[tokio::test]
async fn a_proof_is_taken_once() {
    let house = house();
    let one = house.chain(&json!({"jwt": {"issuer": "idp", "dpop": "required"}}));
    let other = house.chain(&json!({"jwt": {"issuer": "fapi", "dpop": "optional"}}));
    let (worker, token) = (WorkerTokens::new(MEMORY), token(&json!({})));
    let used = proof(&HOLDER, &json!({}), &json!({}), &token);
    let value = format!("DPoP {token}");
    let headers = [("authorization", &*value), ("dpop", &*used)];
    assert_eq!(code(send(&one, &worker, &headers, NOW).await), GOOD);
    for (chain, at) in [(&one, NOW), (&one, NOW + 59), (&other, NOW)] {
        assert_eq!(code(send(chain, &worker, &headers, at).await), "dpop_proof_replayed");
    }
    assert_eq!(code(send(&one, &worker, &headers, NOW + 60).await), "dpop_proof_invalid");
    // A refused proof is not used up; the id of another key is another id.
    let early = proof(&HOLDER, &json!({}), &json!({"iat": NOW + 20}), &token);
    let headers = [("authorization", &*value), ("dpop", &*early)];
    assert_eq!(code(send(&one, &worker, &headers, NOW).await), "dpop_proof_invalid");
    assert_eq!(code(send(&one, &worker, &headers, NOW + 20).await), GOOD);
}

/// DPP-08, DPP-09, DPP-12, OPS-01.
#[tokio::test]
async fn a_nonce_is_offered_taken_and_never_guessed() {
    let chain = chain(&json!({"use": "required", "nonce": "required"}));
    let (worker, token) = (WorkerTokens::new(MEMORY), token(&json!({})));
    let value = format!("DPoP {token}");
    let ask = async |claims: Value| {
        let proof = proof(&HOLDER, &json!({}), &claims, &token);
        send(&chain, &worker, &[("authorization", &value), ("dpop", &proof)], NOW).await
    };
    let refused = ask(json!({})).await.expect_err("a nonce is needed");
    assert_eq!(refused.reason().code(), "dpop_nonce_required");
    let nonce = refused.detail().and_then(|detail| detail.nonce.clone()).expect("a nonce");
    let rendered: Vec<_> = chain.challenges().iter().map(|challenge| challenge.render(&refused)).collect();
    assert_eq!(
        rendered,
        ["DPoP realm=\"bank\", algs=\"ES256 PS256 EdDSA\", error=\"use_dpop_nonce\", \
          error_description=\"The proof of possession needs a nonce.\""]
    );
    assert_eq!(code(ask(json!({ "nonce": nonce })).await), GOOD);
    for bad in [json!("x"), json!(nonce.to_lowercase()), json!(format!("{nonce}A"))] {
        assert_eq!(code(ask(json!({ "nonce": bad })).await), "dpop_nonce_required");
    }
    assert_eq!(code(ask(json!({"nonce": ""})).await), "dpop_proof_invalid");
    let stale = ask(json!({"nonce": nonce, "iat": NOW - 60})).await;
    assert_eq!(code(stale), "dpop_proof_invalid");
}

/// OPS-01: where it is not known whether a proof was used before the start, a nonce settles it. The memory of these
/// tests began 600 seconds ago.
#[tokio::test]
async fn proofs_of_the_first_seconds_need_a_nonce() {
    let chain = chain(&json!("required"));
    let (worker, token) = (WorkerTokens::new(MEMORY), token(&json!({"iat": NOW - 700})));
    let (value, began) = (format!("DPoP {token}"), NOW - 599);
    let ask = async |claims: Value| {
        let proof = proof(&HOLDER, &json!({}), &claims, &token);
        send(&chain, &worker, &[("authorization", &value), ("dpop", &proof)], began + 5).await
    };
    let refused = ask(json!({"iat": began + 9})).await.expect_err("not known to be new");
    assert_eq!(refused.reason().code(), "dpop_nonce_required");
    let nonce = refused.detail().and_then(|detail| detail.nonce.clone()).expect("a nonce");
    assert_eq!(code(ask(json!({"iat": began - 20, "nonce": nonce})).await), GOOD);
    assert_eq!(code(ask(json!({"iat": began + 10})).await), GOOD);
}

/// FAPI 2.0: a certificate or a key, but always one of them.
#[tokio::test]
async fn a_fapi_token_is_bound_to_its_holder_in_either_way() {
    let house = house();
    let chain = house.chain(&json!({"jwt": {"issuer": "fapi", "dpop": "optional"}}));
    let own = peer_named("tpp-a", "tpp");
    let by_certificate = token(&json!({"cnf": {"x5t#S256": base64url::encode(&own.thumbprint)}}));
    let unbound = sign(&ISSUER, &json!({"kid": "k1"}), &json!({"client_id": "a", "jti": "t"}));
    let worker = WorkerTokens::new(MEMORY);
    let by_key = token(&json!({}));
    let shown = proof(&HOLDER, &json!({}), &json!({}), &by_key);
    for (value, proof, certificate, expected) in [
        (format!("DPoP {by_key}"), Some(&shown), None, "jwt:fapi:tpp-a"),
        (format!("Bearer {by_certificate}"), None, Some(&own), "jwt:fapi:tpp-a"),
        (format!("Bearer {by_certificate}"), None, None, "certificate_missing"),
        (format!("Bearer {unbound}"), None, Some(&own), "token_not_bound"),
    ] {
        let mut headers = vec![("host", "api.example"), ("authorization", &*value)];
        headers.extend(proof.map(|proof| ("dpop", &**proof)));
        let (head, connection) = (head("/accounts", &headers), connection(certificate.cloned()));
        let asked = chain.authenticate(&evidence(&head, &connection, &worker, moment(NOW))).await;
        assert_eq!(code(asked.map(|principal| principal.key.to_string())), expected);
    }
}

/// DPP-04: behind a proxy that ends TLS, the outside is what the policy says.
#[tokio::test]
async fn the_outside_may_be_written_in_the_policy() {
    let chain = chain(&json!({"use": "required", "url": "https://api.bank.example"}));
    let token = token(&json!({}));
    for (uri, expected) in [
        ("https://api.bank.example/accounts", GOOD),
        ("https://api.bank.example:443/accounts", GOOD),
        ("http://api.example/accounts", "dpop_proof_invalid"),
    ] {
        let proof = proof(&HOLDER, &json!({}), &json!({ "htu": uri }), &token);
        assert_eq!(with(&chain, &token, &proof).await, expected, "{uri}");
    }
}

/// DPP-11.
#[test]
fn a_kept_token_goes_on_as_a_plain_one() {
    for (value, expected) in [
        ("DPoP abc", "Bearer abc"),
        ("dpop   abc", "Bearer abc"),
        ("Bearer abc", "Bearer abc"),
        ("DPoPabc", "DPoPabc"),
        ("Basic abc", "Basic abc"),
    ] {
        let mut headers = head("/", &[("authorization", value)]).headers;
        present_as_bearer(&mut headers);
        assert_eq!(headers["authorization"], expected);
    }
}

#[test]
fn faults_are_told_where_they_are() {
    let house = house();
    for (written, expected) in [
        (json!("always"), "unknown_word: `always` is not one of the words here"),
        (json!({}), "missing_key: `dpop` needs `use`"),
        (json!({"use": "required", "algs": "ES256"}), "unknown_key: unknown key `algs` in `dpop`"),
        (json!({"use": "required", "algorithms": "HS256"}), "symmetric_proof: `HS256` cannot make a proof"),
        (json!({"use": "required", "algorithms": "none"}), "algorithm_none: `none` is no signature at all"),
        (json!({"use": "required", "max_age": "6m"}), "out_of_range: this must be 1s to 5m"),
        (json!({"use": "required", "max_age": "0s"}), "out_of_range: this must be 1s to 5m"),
        (json!({"use": "required", "leeway": "2m"}), "out_of_range: a leeway is at most `1m`"),
        (
            json!({"use": "required", "url": "api.example"}),
            "bad_url: `api.example` is not a scheme and a host",
        ),
    ] {
        let faults = house.compile(&json!({"jwt": {"issuer": "idp", "dpop": written}}), None);
        assert_eq!(told(faults.map(drop).expect_err("a fault")), [expected]);
    }
    let elsewhere = json!({"jwt": {"issuer": "idp", "dpop": "required", "header": "x-token"}});
    let faults = house.compile(&elsewhere, None).map(drop).expect_err("a fault");
    assert_eq!(told(faults), ["header_shared: a token in `x-token` cannot come with a proof"]);
}
