use std::sync::{Arc, LazyLock};

use portcullis_core::{PeerCertificate, Secret};
use portcullis_jose::{Algorithm, SigningKey, base64url};
use serde_json::{Value, json};

use super::query_carries_token;
use crate::testing::{
    House, Memory, NOW, ask, ask_at, bearer, certificate_der, claims, connection, evidence, head, issuers,
    jwks, moment, offline, peer, peer_named, sign, told,
};
use crate::{Chain, Validity, WorkerTokens, peer_certificate};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static STRANGER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Rs256).expect("a key"));

const MEMORY: usize = 1 << 20;

fn house() -> House {
    let memory = Memory::default()
        .with("keys.json", jwks(&[("k1", &KEY), ("other", &STRANGER)]))
        .with("rsa.pem", RSA.public_pem().expect("a public key"))
        .with("secret", "0123456789abcdef0123456789abcdef");
    let written = json!({
        "idp": {
            "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256",
            "keys": {"jwks": {"file": "keys.json"}}, "max_lifetime": "1h",
        },
        "at": {
            "profile": "rfc9068", "issuer": "https://idp.example", "audience": ["https://api.example", "other"],
            "algorithms": "ES256", "keys": {"jwks": {"file": "keys.json"}},
        },
        "amiko": {"profile": "amiko", "keys": {"pem": ["rsa.pem"]}},
        "hmac": {
            "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "HS256",
            "keys": {"secret": {"file": "secret"}},
        },
    });
    House::new(issuers(&written, &memory, &offline()))
}

fn chain(issuer: &str) -> Chain {
    house().chain(&json!({"jwt": {"issuer": issuer}}))
}

fn token(changes: &Value) -> String {
    sign(&KEY, &json!({"kid": "k1"}), changes)
}

/// A token made of parts, whatever they are.
fn raw(header: &str, payload: &str) -> String {
    let signed =
        format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload.as_bytes()));
    format!("{signed}.{}", base64url::encode(&[7; 64]))
}

fn flipped(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let flipped = if parts[part].starts_with('A') { "B" } else { "A" };
    parts[part].replace_range(..1, flipped);
    parts.join(".")
}

async fn refused(chain: &Chain, token: &str) -> &'static str {
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(None));
    let value = bearer(token);
    let first = ask(chain, &worker, &connection, &[("authorization", &value)]).await;
    let again = ask(chain, &worker, &connection, &[("authorization", &value)]).await;
    assert_eq!(first, again, "the memory changes nothing");
    first.err().unwrap_or("accepted")
}

/// Asks for every token and compares the answer.
async fn expect(chain: &Chain, rows: Vec<(&str, String, &str)>) {
    for (name, token, expected) in rows {
        assert_eq!(refused(chain, &token).await, expected, "{name}");
    }
}

fn with_header(header: &Value) -> String {
    sign(&KEY, header, &json!({}))
}

#[tokio::test]
async fn good_tokens_are_taken_in_every_form_they_have() {
    let rows = vec![
        ("plain", token(&json!({})), "accepted"),
        ("JWT-20 fraction", token(&json!({"exp": 1_800_000_300.5})), "accepted"),
        ("JWT-21 last second", token(&json!({"exp": NOW + 1})), "accepted"),
        ("JWT-22 nbf in the skew", token(&json!({"nbf": NOW + 10})), "accepted"),
        ("JWT-27 list", token(&json!({"aud": ["x", "https://api.example"]})), "accepted"),
        ("JWT-30 typ", with_header(&json!({"kid": "k1", "typ": "application/JWT"})), "accepted"),
        ("JWT-06 unknown member", with_header(&json!({"kid": "k1", "type": "JWT"})), "accepted"),
        (
            "JWT-17 ignored hint",
            with_header(&json!({"kid": "k1", "jku": "https://evil.example"})),
            "accepted",
        ),
        ("JWK-05 no kid", with_header(&json!({})), "accepted"),
    ];
    expect(&chain("idp"), rows).await;
}

/// JWT-01 to JWT-05, JWT-08, BRR-01.
#[tokio::test]
async fn misshapen_tokens_are_refused_for_the_right_reason() {
    let good = token(&json!({}));
    let payload = claims(&json!({})).to_string();
    let rows = vec![
        ("JWT-02 two segments", good.rsplit_once('.').expect("a dot").0.to_owned(), "token_malformed"),
        ("JWT-02 five segments", format!("{good}.a.b"), "token_malformed"),
        ("JWT-02 dots", ".".repeat(10_000), "token_malformed"),
        ("JWT-01 size", format!("{}{good}", "A".repeat(16 * 1024)), "token_malformed"),
        ("JWT-03 padding", format!("{good}="), "token_malformed"),
        ("JWT-02 alphabet", good.replacen('.', "+.", 1), "token_malformed"),
        ("BRR-01 comma", format!("{good},{good}"), "credentials_malformed"),
        ("BRR-01 inner space", format!("{good} {good}"), "credentials_malformed"),
        ("BRR-01 other byte", format!("{good}\""), "credentials_malformed"),
        ("changed header", flipped(&good, 0), "token_malformed"),
        ("JWT-04 twice", raw(r#"{"alg":"ES256","\u0061lg":"none"}"#, &payload), "token_malformed"),
        ("JWT-05 crit", with_header(&json!({"kid": "k1", "crit": ["exp"], "exp": 1})), "token_malformed"),
        ("JWT-05 empty crit", with_header(&json!({"kid": "k1", "crit": []})), "token_malformed"),
        ("JWT-05 b64", with_header(&json!({"kid": "k1", "b64": false})), "token_malformed"),
        ("JWT-08 zip", with_header(&json!({"kid": "k1", "zip": "DEF"})), "token_malformed"),
        ("JWK-03 long kid", with_header(&json!({"kid": "k".repeat(257)})), "token_malformed"),
        ("JWK-03 kid not text", with_header(&json!({"kid": {"a": 1}})), "token_malformed"),
    ];
    expect(&chain("idp"), rows).await;
}

/// JWT-10 to JWT-17, JWK-05.
#[tokio::test]
async fn what_the_issuer_did_not_sign_is_refused_for_the_right_reason() {
    let rs = RSA.sign(json!({"kid": "k1"}), &claims(&json!({}))).expect("a signature");
    let hs = SigningKey::from_secret(Algorithm::Hs256, &Secret::new(vec![7; 32])).expect("a key");
    let hs = hs.sign(json!({"kid": "k1"}), &claims(&json!({}))).expect("a signature");
    let payload = claims(&json!({})).to_string();
    let strangers = |kid: &str| sign(&STRANGER, &json!({ "kid": kid }), &json!({}));
    let rows = vec![
        ("JWT-10 none", raw(r#"{"alg":"none"}"#, &payload), "token_algorithm_refused"),
        ("JWT-10 nOnE", raw(r#"{"alg":"nOnE","kid":"k1"}"#, &payload), "token_algorithm_refused"),
        ("JWT-10 case", raw(r#"{"alg":"es256","kid":"k1"}"#, &payload), "token_algorithm_refused"),
        ("JWT-10 list", raw(r#"{"alg":["ES256"],"kid":"k1"}"#, &payload), "token_malformed"),
        ("JWT-10 missing", raw(r#"{"kid":"k1"}"#, &payload), "token_malformed"),
        ("JWT-10 another", rs, "token_algorithm_refused"),
        ("JWT-11 HMAC", hs, "token_algorithm_refused"),
        ("wrong signature", raw(r#"{"alg":"ES256","kid":"k1"}"#, &payload), "token_signature_invalid"),
        ("changed signature", flipped(&token(&json!({})), 2), "token_signature_invalid"),
        ("changed claims", flipped(&token(&json!({})), 1), "token_signature_invalid"),
        ("another key of the set", strangers("k1"), "token_signature_invalid"),
        ("JWK-05 unknown kid", with_header(&json!({"kid": "k9"})), "token_signature_invalid"),
        ("JWK-03 kid as path", with_header(&json!({"kid": "../../k1"})), "token_signature_invalid"),
    ];
    expect(&chain("idp"), rows).await;
}

/// JWT-20 to JWT-32, security-reliability 2.1.
#[tokio::test]
async fn wrong_claims_are_refused_for_the_right_reason() {
    let rows = vec![
        ("JWT-30 dpop", with_header(&json!({"kid": "k1", "typ": "dpop+jwt"})), "token_type_refused"),
        ("JWT-30 JOSE", with_header(&json!({"kid": "k1", "typ": "JOSE"})), "token_type_refused"),
        ("JWT-31 nested", with_header(&json!({"kid": "k1", "cty": "JWT"})), "token_type_refused"),
        ("JWT-32 ID token", token(&json!({"nonce": "n"})), "token_type_refused"),
        ("JWT-25 slash", token(&json!({"iss": "https://idp.example/"})), "token_issuer_refused"),
        ("JWT-25 missing", token(&json!({"iss": null})), "token_claim_invalid"),
        ("JWT-25 list", token(&json!({"iss": ["https://idp.example"]})), "token_claim_invalid"),
        ("JWT-27 longer", token(&json!({"aud": "https://api.example.evil"})), "token_audience_refused"),
        ("JWT-27 prefix", token(&json!({"aud": "https://api.exampl"})), "token_audience_refused"),
        ("JWT-27 empty list", token(&json!({"aud": []})), "token_audience_refused"),
        ("JWT-27 missing", token(&json!({"aud": null})), "token_claim_invalid"),
        ("JWT-21 expired", token(&json!({"exp": NOW})), "token_expired"),
        ("JWT-21 no exp", token(&json!({"exp": null})), "token_claim_invalid"),
        ("JWT-20 text exp", token(&json!({"exp": "1800000300"})), "token_claim_invalid"),
        ("JWT-20 huge exp", token(&json!({"exp": 1e300})), "token_claim_invalid"),
        ("JWT-20 negative exp", token(&json!({"exp": -1})), "token_claim_invalid"),
        ("JWT-22 nbf", token(&json!({"nbf": NOW + 11})), "token_not_yet_valid"),
        ("JWT-20 text nbf", token(&json!({"nbf": "0"})), "token_claim_invalid"),
        ("JWT-22 iat", token(&json!({"iat": NOW + 11})), "token_not_yet_valid"),
        ("JWT-24 lifetime", token(&json!({"exp": NOW + 3_591})), "token_lifetime_refused"),
        ("JWT-28 no sub", token(&json!({"sub": null})), "token_claim_invalid"),
        ("JWT-28 empty sub", token(&json!({"sub": ""})), "token_claim_invalid"),
        ("JWT-28 long sub", token(&json!({"sub": "s".repeat(256)})), "token_claim_invalid"),
        ("line feed in sub", token(&json!({"sub": "a\r\nx-admin: 1"})), "token_claim_invalid"),
        ("NUL in sub", token(&json!({"sub": "a\u{0}b"})), "token_claim_invalid"),
    ];
    expect(&chain("idp"), rows).await;
}

/// AT-01, AT-02.
#[tokio::test]
async fn rfc_9068_tokens_need_their_type_and_claims() {
    let chain = chain("at");
    let full = json!({"client_id": "tpp-a", "jti": "j-1"});
    let typed = |changes: &Value| sign(&KEY, &json!({"kid": "k1", "typ": "at+jwt"}), changes);
    for (token, expected) in [
        (typed(&full), "accepted"),
        (sign(&KEY, &json!({"kid": "k1", "typ": "application/at+JWT"}), &full), "accepted"),
        (sign(&KEY, &json!({"kid": "k1"}), &full), "token_type_refused"),
        (sign(&KEY, &json!({"kid": "k1", "typ": "JWT"}), &full), "token_type_refused"),
        (sign(&KEY, &json!({"typ": "at+jwt"}), &full), "token_signature_invalid"),
        (typed(&json!({"client_id": "tpp-a"})), "token_claim_invalid"),
        (typed(&json!({"client_id": "tpp-a", "jti": ""})), "token_claim_invalid"),
        (typed(&json!({"jti": "j-1"})), "token_claim_invalid"),
    ] {
        assert_eq!(refused(&chain, &token).await, expected, "{token}");
    }
}

/// Section 1.1: no `kid`, `type` instead of `typ`, no `iss`, no `aud`, an hour of life.
#[tokio::test]
async fn amiko_tokens_are_taken_as_they_are() {
    let chain = chain("amiko");
    let sign = |header: Value, claims: Value| RSA.sign(header, &claims).expect("a signature");
    let times = |life: i64| json!({"iat": NOW, "exp": NOW + life, "sub": "konto-1", "extra": {"a": 1}});
    let with = |name: &str, value: Value| {
        let mut claims = times(3_600);
        claims[name] = value;
        claims
    };
    for (token, expected) in [
        (sign(json!({"type": "JWT"}), times(3_600)), "accepted"),
        (sign(json!({"typ": "JWT"}), times(60)), "accepted"),
        (sign(json!({"kid": "whatever"}), times(60)), "accepted"),
        (sign(Value::Null, with("iss", "amiko".into())), "accepted"),
        (sign(Value::Null, with("aud", json!(["anyone"]))), "accepted"),
        (sign(Value::Null, with("iss", "Amiko".into())), "token_issuer_refused"),
        (sign(Value::Null, times(3_611)), "token_lifetime_refused"),
        (sign(Value::Null, with("iat", Value::Null)), "token_claim_invalid"),
        (sign(Value::Null, with("sub", json!(7))), "token_claim_invalid"),
        (sign(json!({"typ": "at+jwt"}), times(60)), "token_type_refused"),
        (KEY.sign(Value::Null, &times(60)).expect("a signature"), "token_algorithm_refused"),
    ] {
        assert_eq!(refused(&chain, &token).await, expected, "{token}");
    }
}

/// JWT-11, trap 11: a public key never does as a secret.
#[tokio::test]
async fn hmac_takes_the_secret_alone() {
    let chain = chain("hmac");
    let hs = |secret: &[u8]| {
        let key = SigningKey::from_secret(Algorithm::Hs256, &Secret::new(secret.to_vec())).expect("a key");
        key.sign(json!({"kid": "any"}), &claims(&json!({}))).expect("a signature")
    };
    assert_eq!(refused(&chain, &hs(b"0123456789abcdef0123456789abcdef")).await, "accepted");
    assert_eq!(refused(&chain, &hs(b"0123456789abcdef0123456789abcdeg")).await, "token_signature_invalid");
    let pem = RSA.public_pem().expect("a public key");
    assert_eq!(refused(&self::chain("amiko"), &hs(pem.as_bytes())).await, "token_algorithm_refused");
}

/// JWT-28: two issuers may use the same `sub`.
#[tokio::test]
async fn a_caller_is_keyed_by_issuer_and_subject() {
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(None));
    let value = bearer(&token(&json!({"sub": "a:b%c", "scope": "accounts payments accounts"})));
    let head = head("/", &[("authorization", &value)]);
    let principal = chain("idp")
        .authenticate(&evidence(&head, &connection, &worker, moment(NOW)))
        .await
        .expect("a caller");
    assert_eq!((&*principal.key, &*principal.name), ("jwt:idp:a:b%c", "idp:a:b%c"));
    assert_eq!(principal.identity.issuer.as_deref(), Some("idp"));
    assert_eq!(&*principal.identity.subject, "a:b%c");
    assert_eq!(&*principal.identity.scopes, ["accounts", "payments"].map(Arc::<str>::from));
    assert_eq!(principal.identity.expires_at, Some(NOW + 299));
    assert!(principal.others.is_empty());
}

/// BRR-01 to BRR-05.
#[tokio::test]
async fn a_token_travels_in_one_place_only() {
    let house = house();
    let chain = house.chain(&json!({"jwt": {"issuer": "idp"}}));
    let custom = house.chain(&json!({"jwt": {"issuer": "idp", "header": "x-token"}}));
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(None));
    let token = token(&json!({}));
    let value = bearer(&token);
    let cases = [
        (&chain, vec![], Err("credentials_missing")),
        (&chain, vec![("authorization", "Basic abc")], Err("credentials_missing")),
        (&chain, vec![("authorization", "Bearer")], Err("credentials_malformed")),
        (&chain, vec![("authorization", &value), ("authorization", &value)], Err("credentials_ambiguous")),
        (
            &chain,
            vec![("authorization", "Basic abc"), ("authorization", &value)],
            Err("credentials_ambiguous"),
        ),
        (&custom, vec![("authorization", &value)], Err("credentials_missing")),
        (&custom, vec![("x-token", &token)], Ok("jwt:idp:tpp-a")),
        (&custom, vec![("x-token", &value)], Err("credentials_malformed")),
        (&custom, vec![("x-token", &token), ("x-token", &token)], Err("credentials_ambiguous")),
    ];
    for (chain, headers, expected) in cases {
        let asked = ask(chain, &worker, &connection, &headers).await;
        assert_eq!(asked.as_deref().map_err(|code| *code), expected, "{headers:?}");
    }
    let in_query = head("/a?x=1&access_token=abc", &[("authorization", &value)]);
    let refused = chain.authenticate(&evidence(&in_query, &connection, &worker, moment(NOW))).await;
    assert_eq!(refused.err().map(|rejection| rejection.reason().code()), Some("credentials_malformed"));
}

/// BRR-02.
#[test]
fn a_token_in_the_query_is_found_in_every_spelling() {
    for (uri, expected) in [
        ("/a", false),
        ("/a?", false),
        ("/a?access_token=x", true),
        ("/a?access_token", true),
        ("/a?b=c&access_token=", true),
        ("/a?b=c;access_token=x", true),
        ("/a?access%5ftoken=x", true),
        ("/a?%61ccess_toke%6E=x", true),
        ("/a?Access_Token=x", true),
        ("/a?b=access_token", false),
        ("/a?access_tokens=x", false),
        ("/a?my_access_token=x", false),
        ("/a?access%5", false),
        ("/access_token=x", false),
    ] {
        assert_eq!(query_carries_token(&uri.parse().expect("a URI")), expected, "{uri}");
    }
}

fn bound_to(certificate: &PeerCertificate) -> Value {
    json!({"cnf": {"x5t#S256": base64url::encode(&certificate.thumbprint)}})
}

/// CNF-03, CNF-04, CNF-06, AT-04, trap 1: held to whatever the API says, also from memory.
#[tokio::test]
async fn a_bound_token_is_good_on_its_own_connection_alone() {
    let house = house();
    let lax = house.chain(&json!({"jwt": {"issuer": "idp"}}));
    let strict = house.chain(&json!({"jwt": {"issuer": "idp", "bound_to": "certificate"}}));
    let (own, other) = (peer_named("tpp-a", "tpp"), peer_named("tpp-a", "tpp"));
    let (plain, bound) = (token(&json!({})), token(&bound_to(&own)));
    let worker = WorkerTokens::new(MEMORY);
    for (token, certificate, from_lax, from_strict) in [
        (&plain, None, "accepted", "token_not_bound"),
        (&plain, Some(&own), "accepted", "token_not_bound"),
        (&bound, Some(&own), "accepted", "accepted"),
        (&bound, None, "certificate_missing", "certificate_missing"),
        (&bound, Some(&other), "certificate_mismatch", "certificate_mismatch"),
        (&bound, Some(&own), "accepted", "accepted"),
    ] {
        let (connection, value) = (connection(certificate.cloned()), bearer(token));
        for (chain, expected) in [(&lax, from_lax), (&strict, from_strict)] {
            let asked = ask(chain, &worker, &connection, &[("authorization", &value)]).await;
            assert_eq!(asked.err().unwrap_or("accepted"), expected);
        }
    }
    assert_eq!((worker.counts().misses, worker.counts().hits), (2, 10));
}

/// CNF-01, CNF-02, trap 7, also where the API does not ask for bound tokens.
#[tokio::test]
async fn a_binding_that_cannot_be_checked_is_refused() {
    let chain = chain("idp");
    let own = peer_named("tpp-a", "tpp");
    let hex: String = own.thumbprint.iter().map(|byte| format!("{byte:02x}")).collect();
    let thumb = base64url::encode(&own.thumbprint);
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(Some(own)));
    for (cnf, expected) in [
        (json!({"x5t#S256": thumb}), "accepted"),
        (json!({"jkt": thumb}), "token_binding_unsupported"),
        (json!({"jkt": thumb, "x5t#S256": thumb}), "token_binding_unsupported"),
        (json!({"jwk": {}}), "token_binding_unsupported"),
        (json!({"x5t": thumb}), "token_binding_unsupported"),
        (json!({}), "token_binding_unsupported"),
        (json!(thumb), "token_claim_invalid"),
        (json!([]), "token_claim_invalid"),
        (json!({"x5t#S256": hex}), "token_claim_invalid"),
        (json!({"x5t#S256": format!("{thumb}=")}), "token_claim_invalid"),
        (json!({"x5t#S256": [thumb]}), "token_claim_invalid"),
        (json!({"x5t#S256": null}), "token_claim_invalid"),
    ] {
        let value = bearer(&token(&json!({ "cnf": cnf })));
        let asked = ask(&chain, &worker, &connection, &[("authorization", &value)]).await;
        assert_eq!(asked.err().unwrap_or("accepted"), expected, "{cnf}");
    }
}

/// TLS-05: connections outlive certificates.
#[tokio::test]
async fn a_bound_token_ends_with_its_certificate() {
    let chain = house().chain(&json!({"jwt": {"issuer": "idp", "bound_to": "certificate"}}));
    let der = certificate_der(&[], &[]);
    let path = Validity { from: 0, until: NOW + 5 };
    let source = portcullis_core::CertificateSource::Handshake;
    let own = Arc::new(peer_certificate(&der, path, vec!["tpp".into()], source).expect("a certificate"));
    let value = bearer(&token(&bound_to(&own)));
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(Some(own)));
    let headers = [("authorization", &*value)];
    assert!(ask_at(&chain, &worker, &connection, &headers, NOW + 5).await.is_ok());
    assert_eq!(ask_at(&chain, &worker, &connection, &headers, NOW + 6).await, Err("certificate_expired"));
}

/// CNF-08: a renewed certificate, of the same key and subject, is another certificate.
#[tokio::test]
async fn a_renewed_certificate_does_not_inherit_tokens() {
    let chain = house().chain(&json!({"jwt": {"issuer": "idp"}}));
    let key = rcgen::KeyPair::generate().expect("a key");
    let issue = |serial: u64| {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(serial.into());
        peer(params.self_signed(&key).expect("a certificate").der(), "tpp")
    };
    let (old, new) = (issue(1), issue(2));
    assert_ne!(old.thumbprint, new.thumbprint);
    let value = bearer(&token(&bound_to(&old)));
    let worker = WorkerTokens::new(MEMORY);
    let headers = [("authorization", &*value)];
    assert!(ask(&chain, &worker, &connection(Some(old)), &headers).await.is_ok());
    assert_eq!(ask(&chain, &worker, &connection(Some(new)), &headers).await, Err("certificate_mismatch"));
}

/// Security-reliability 2.2: what one API learned is no verdict for another.
#[tokio::test]
async fn the_memory_is_bound_to_the_issuer_entry() {
    let house = house();
    let (idp, at) =
        (house.chain(&json!({"jwt": {"issuer": "idp"}})), house.chain(&json!({"jwt": {"issuer": "at"}})));
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(None));
    let value = bearer(&token(&json!({})));
    let headers = [("authorization", &*value)];
    for _ in 0..2 {
        assert_eq!(ask(&idp, &worker, &connection, &headers).await.as_deref(), Ok("jwt:idp:tpp-a"));
        assert_eq!(ask(&at, &worker, &connection, &headers).await, Err("token_type_refused"));
    }
    assert_eq!(worker.counts().hits, 1);
    assert_eq!(worker.counts().held, 1);
}

/// Trap 13: past `exp` a token is neither taken nor kept.
#[tokio::test]
async fn the_memory_ends_with_the_token() {
    let chain = chain("idp");
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(None));
    let value = bearer(&token(&json!({})));
    let headers = [("authorization", &*value)];
    assert!(ask_at(&chain, &worker, &connection, &headers, NOW).await.is_ok());
    assert_eq!(worker.counts().held, 1);
    assert!(ask_at(&chain, &worker, &connection, &headers, NOW + 299).await.is_ok());
    assert_eq!(ask_at(&chain, &worker, &connection, &headers, NOW + 300).await, Err("token_expired"));
    assert_eq!(worker.counts().held, 0);
    // A clock that was set back makes it good again, by verifying it again.
    assert!(ask_at(&chain, &worker, &connection, &headers, NOW).await.is_ok());
}

#[test]
fn faults_are_told_where_they_are() {
    let house = house();
    for (written, expected) in [
        (json!({}), "missing_key: `jwt` needs `issuer`"),
        (json!({"issuer": "ipd"}), "undefined: issuer `ipd` is not defined"),
        (json!({"issuer": "idp", "bound_to": "dpop"}), "unknown_word: `dpop` is not one of the words here"),
        (json!({"issuer": "idp", "boundto": "certificate"}), "unknown_key: unknown key `boundto` in `jwt`"),
        (
            json!({"issuer": "idp", "header": "content-length"}),
            "bad_header: `content-length` cannot carry a credential",
        ),
    ] {
        let told = house.compile(&json!({"jwt": written}), None).map_err(told).expect_err("a fault");
        assert_eq!(told, [expected]);
    }
    let undefined = house.compile(&json!({"jwt": {"issuer": "ipd"}}), None).expect_err("a fault");
    let fault = undefined.into_sorted().remove(0);
    assert_eq!(fault.label.as_deref(), Some("did you mean `idp`?"));
    assert_eq!(fault.related.len(), 4);
    let mut house = house;
    house.anchors.clear();
    let bound = house.compile(&json!({"jwt": {"issuer": "idp", "bound_to": "certificate"}}), None);
    let told = bound.map_err(told).expect_err("a fault");
    assert_eq!(
        told,
        ["certificate_never_asked: no listener asks for client certificates, so no token could ever be used"]
    );
}
