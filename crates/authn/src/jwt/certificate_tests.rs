//! Tokens that belong to a certificate: profiles `ozone` and `wso2`, keys found by a certificate, single use.

use std::sync::{Arc, LazyLock};

use portcullis_core::{ManualClock, PeerCertificate};
use portcullis_jose::{Algorithm, SigningKey};
use rcgen::DnType;
use serde_json::{Value, json};

use crate::testing::{
    Answer, House, KeyServer, Memory, NOW, ask_at, bearer, certificate_der, connection, issuers, jwks,
    offline, only_fault, peer, peer_named, told, try_issuers,
};
use crate::{Chain, WorkerTokens};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Ps256).expect("a key"));
static STRANGER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Ps256).expect("a key"));

const HUB: &str = "3b5c6a6e-0000-4000-8000-0123456789ab";
const O: &str = "Ozone, \"API\" Hub + Söhne";
const MEMORY: usize = 1 << 20;

fn hub(changes: &[(DnType, &str)]) -> Arc<PeerCertificate> {
    let mut subject = vec![
        (DnType::CountryName, "AE"),
        (DnType::OrganizationName, O),
        (DnType::OrganizationalUnitName, HUB),
        (DnType::CommonName, "software-1"),
    ];
    for (kind, value) in changes {
        subject.retain(|(known, _)| known != kind);
        subject.push((kind.clone(), value));
    }
    peer(&certificate_der(&subject, &[]), "tpp")
}

fn written() -> Value {
    json!({
        "hub": {
            "profile": "ozone", "audience": "provider-1",
            "keys": {"jwks_url": "https://keys.example/{certificate.ou}/{certificate.cn}/application.jwks"},
        },
        "fixed": {"profile": "ozone", "audience": "provider-1", "keys": {"jwks": {"file": "keys.json"}}},
        "wso2": {
            "profile": "wso2", "issuer": "https://is.example", "audience": "https://api.example",
            "keys": {"jwks": {"file": "keys.json"}}, "cnf": "object_or_text",
        },
        "once": {
            "issuer": "https://once.example", "audience": "a", "algorithms": "PS256", "max_lifetime": "5m",
            "used_once": true, "keys": {"jwks": {"file": "keys.json"}}, "leeway": {"exp": "10s"},
        },
        "renamed": {
            "issuer": "https://once.example", "audience": "a", "algorithms": "PS256", "max_lifetime": "5m",
            "used_once": true, "keys": {"jwks": {"file": "keys.json"}},
        },
        "login": {
            "issuer": "https://login.example", "audience": ["client-1", "client-2"], "algorithms": "PS256",
            "id_tokens": true, "keys": {"jwks": {"file": "keys.json"}},
        },
    })
}

fn memory() -> Memory {
    Memory::default().with("keys.json", jwks(&[("sig4", &KEY)]))
}

fn house() -> (Arc<KeyServer>, House) {
    let server = Arc::new(KeyServer::default());
    server.serve(jwks(&[("sig4", &KEY)]));
    let sources = server.sources(&ManualClock::at_unix_seconds(NOW));
    (server, House::new(issuers(&written(), &memory(), &sources)))
}

fn pinned(issuer: &str) -> Value {
    json!({
        "all_of": [{"certificate": {"trust": "tpp", "subject": {"ou": HUB}}}, {"jwt": {"issuer": issuer}}],
        "identity_from": "jwt",
    })
}

/// A token of the hub, changed; each has an id of its own unless it is changed.
fn token(key: &SigningKey, header: &Value, changes: &Value) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let jti = format!("id-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut claims = json!({
        "iss": O, "sub": HUB, "aud": "provider-1", "iat": NOW, "exp": NOW + 20, "jti": jti,
    });
    let mut full = json!({"typ": "JOSE", "cty": "json", "kid": "sig4"});
    for (object, changes) in [(&mut claims, changes), (&mut full, header)] {
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => drop(object.as_object_mut().expect("an object").remove(name)),
                value => object[name] = value.clone(),
            }
        }
    }
    key.sign(full, &claims).expect("a signature")
}

async fn present(chain: &Chain, certificate: Option<Arc<PeerCertificate>>, token: &str) -> String {
    present_at(chain, &WorkerTokens::new(MEMORY), certificate, token, NOW).await
}

async fn present_at(
    chain: &Chain,
    worker: &WorkerTokens,
    certificate: Option<Arc<PeerCertificate>>,
    token: &str,
    at: i64,
) -> String {
    let (connection, value) = (connection(certificate), bearer(token));
    let asked = ask_at(chain, worker, &connection, &[("authorization", &value)], at).await;
    asked.unwrap_or_else(str::to_owned)
}

/// OZ-01 to OZ-07, JWT-23, the claims table of section 1.2.
#[tokio::test]
async fn a_hub_is_held_to_the_names_in_its_certificate() {
    let (_, house) = house();
    for issuer in ["hub", "fixed"] {
        let chain = house.chain(&pinned(issuer));
        let good = format!("jwt:{issuer}:{HUB}");
        let long = "x".repeat(256);
        for (name, header, changes, expected) in [
            ("good", json!({}), json!({}), good.as_str()),
            ("aud in a list", json!({}), json!({"aud": ["x", "provider-1"]}), &good),
            ("exp within the skew", json!({}), json!({"exp": NOW - 9}), &good),
            ("iat within the skew", json!({}), json!({"iat": NOW + 10}), &good),
            ("exp", json!({}), json!({"exp": NOW - 10, "iat": NOW - 30}), "token_expired"),
            ("iat", json!({}), json!({"iat": NOW + 11}), "token_not_yet_valid"),
            ("nbf", json!({}), json!({"nbf": NOW + 11}), "token_not_yet_valid"),
            ("life", json!({}), json!({"exp": NOW + 61}), "token_lifetime_refused"),
            ("no exp", json!({}), json!({"exp": null}), "token_claim_invalid"),
            ("no iat", json!({}), json!({"iat": null}), "token_claim_invalid"),
            ("no jti", json!({}), json!({"jti": null}), "token_claim_invalid"),
            ("long jti", json!({}), json!({"jti": long}), "token_claim_invalid"),
            ("jti no text", json!({}), json!({"jti": 7}), "token_claim_invalid"),
            ("no iss", json!({}), json!({"iss": null}), "token_claim_invalid"),
            ("iss in a list", json!({}), json!({"iss": [O]}), "token_claim_invalid"),
            ("iss of another", json!({}), json!({"iss": "Ozone"}), "certificate_mismatch"),
            ("iss spelled else", json!({}), json!({"iss": O.to_uppercase()}), "certificate_mismatch"),
            ("sub of another", json!({}), json!({"sub": "software-1"}), "certificate_mismatch"),
            ("no aud", json!({}), json!({"aud": null}), "token_claim_invalid"),
            ("aud of another", json!({}), json!({"aud": "provider-2"}), "token_audience_refused"),
            ("no kid", json!({"kid": null}), json!({}), "token_signature_invalid"),
            ("kid of nobody", json!({"kid": "sig5"}), json!({}), "token_signature_invalid"),
            ("no typ", json!({"typ": null}), json!({}), "token_type_refused"),
            ("typ", json!({"typ": "JWT"}), json!({}), "token_type_refused"),
            ("no cty", json!({"cty": null}), json!({}), "token_type_refused"),
            ("cty", json!({"cty": "JWT"}), json!({}), "token_type_refused"),
        ] {
            let token = token(&KEY, &header, &changes);
            assert_eq!(present(&chain, Some(hub(&[])), &token).await, expected, "{issuer} {name}");
        }
        let strangers = token(&STRANGER, &json!({}), &json!({}));
        assert_eq!(present(&chain, Some(hub(&[])), &strangers).await, "token_signature_invalid");
        let rs = SigningKey::generate(Algorithm::Rs256).expect("a key");
        let other = token(&rs, &json!({}), &json!({}));
        assert_eq!(present(&chain, Some(hub(&[])), &other).await, "token_algorithm_refused");
        assert_eq!(present(&chain, None, &token(&KEY, &json!({}), &json!({}))).await, "certificate_missing");
        let elsewhere = peer_named("x", "staff");
        assert_eq!(
            present(&chain, Some(elsewhere), &token(&KEY, &json!({}), &json!({}))).await,
            "certificate_refused"
        );
    }
}

/// OZ-05 to OZ-07, JKS-12: nothing is fetched for a certificate the API has not pinned, or whose names fit no URL.
#[tokio::test]
async fn keys_are_fetched_for_pinned_certificates_with_plain_names_only() {
    let (server, house) = house();
    let chain = house.chain(&pinned("hub"));
    let ask =
        async |certificate| present(&chain, Some(certificate), &token(&KEY, &json!({}), &json!({}))).await;
    let other_unit = hub(&[(DnType::OrganizationalUnitName, "another-unit")]);
    assert_eq!(ask(other_unit).await, "certificate_refused");
    let long = "x".repeat(65);
    for name in ["a/b", "a.b", "..", "a b", "", "%2e", "ä", "a_b", &long, "a?b", "a#b", "a@b"] {
        let odd = hub(&[(DnType::CommonName, name)]);
        assert_eq!(ask(odd).await, "certificate_refused", "{name}");
    }
    assert_eq!(server.count(), 0);
    let twice = [
        (DnType::OrganizationName, O),
        (DnType::OrganizationalUnitName, HUB),
        (DnType::CommonName, "one"),
        (DnType::CustomDnType(vec![2, 5, 4, 3]), "two"),
    ];
    assert_eq!(ask(peer(&certificate_der(&twice, &[]), "tpp")).await, "certificate_refused");
    assert_eq!(server.count(), 0);
    assert_eq!(ask(hub(&[])).await, format!("jwt:hub:{HUB}"));
    let asked: Vec<_> = server.asked.lock().expect("no panic").iter().map(|get| get.url.clone()).collect();
    assert_eq!(asked, [format!("https://keys.example/{HUB}/software-1/application.jwks")]);
}

/// JKS-09, JWT-26: a token that is known under one certificate's keys is not known under another's.
#[tokio::test]
async fn each_certificate_has_its_own_keys() {
    let (server, house) = house();
    let chain = house.chain(&pinned("hub"));
    let worker = WorkerTokens::new(MEMORY);
    let at = async |cn: &str, key: &SigningKey, jti: &str| {
        let token = token(key, &json!({}), &json!({"jti": jti}));
        present_at(&chain, &worker, Some(hub(&[(DnType::CommonName, cn)])), &token, NOW).await
    };
    let good = format!("jwt:hub:{HUB}");
    assert_eq!(at("one", &KEY, "a").await, good);
    server.serve(jwks(&[("sig4", &STRANGER)]));
    assert_eq!(at("two", &STRANGER, "b").await, good);
    assert_eq!(at("two", &KEY, "c").await, "token_signature_invalid");
    assert_eq!(at("one", &STRANGER, "d").await, "token_signature_invalid");
    let token = token(&KEY, &json!({}), &json!({"jti": "e"}));
    let one = hub(&[(DnType::CommonName, "one")]);
    assert_eq!(present_at(&chain, &worker, Some(one), &token, NOW).await, good);
    let two = hub(&[(DnType::CommonName, "two")]);
    assert_eq!(present_at(&chain, &worker, Some(two), &token, NOW).await, "token_signature_invalid");
}

/// OZ-03, JKS-07: no answer is no verdict.
#[tokio::test(start_paused = true)]
async fn without_keys_nothing_is_said_about_a_token() {
    let (server, house) = house();
    let chain = house.chain(&pinned("hub"));
    server.answer([Answer::Fails(portcullis_core::FetchError::Connection("refused".to_owned()))]);
    let token = token(&KEY, &json!({}), &json!({}));
    assert_eq!(present(&chain, Some(hub(&[])), &token).await, "keys_unavailable");
}

/// JWT-29: the second use is refused, whatever a worker remembers; and what is refused is not used up.
#[tokio::test]
async fn a_token_that_is_used_once_is_used_once() {
    let (_, house) = house();
    let chain = house.chain(&json!({"jwt": {"issuer": "once"}}));
    let worker = WorkerTokens::new(MEMORY);
    let signed = |changes: &Value| {
        let mut all = json!({"iss": "https://once.example", "sub": "a", "aud": "a", "exp": NOW + 60});
        for (name, value) in changes.as_object().expect("an object") {
            all[name] = value.clone();
        }
        token(&KEY, &json!({"typ": "JWT", "cty": null}), &all)
    };
    let at = async |token: &str, seconds| present_at(&chain, &worker, None, token, seconds).await;
    let first = signed(&json!({"jti": "1"}));
    assert_eq!(at(&first, NOW - 30).await, "token_not_yet_valid");
    assert_eq!(at(&first, NOW).await, "jwt:once:a");
    assert_eq!(at(&first, NOW).await, "token_replayed");
    assert_eq!(at(&first, NOW + 69).await, "token_replayed");
    assert_eq!(at(&first, NOW + 70).await, "token_expired");
    let renamed = signed(&json!({"jti": "1", "sub": "b"}));
    assert_eq!(at(&renamed, NOW).await, "token_replayed");
    assert_eq!(at(&signed(&json!({"jti": "2"})), NOW).await, "jwt:once:a");
    assert_eq!(at(&signed(&json!({"jti": "1 "})), NOW).await, "jwt:once:a");
    // OPS-01: the memory of these tests began 600 seconds ago.
    let old = signed(&json!({"jti": "3", "iat": NOW - 601, "exp": NOW - 302}));
    assert_eq!(at(&old, NOW - 400).await, "store_unavailable");
    assert_eq!(at(&signed(&json!({"jti": null})), NOW).await, "token_claim_invalid");
}

/// JWT-29: an entry of another name for the same issuer takes no token twice.
#[tokio::test]
async fn a_token_is_used_up_whatever_its_issuers_entry_is_called() {
    let (_, house) = house();
    let claims = json!({"iss": "https://once.example", "sub": "a", "aud": "a", "exp": NOW + 60});
    let token = token(&KEY, &json!({"typ": "JWT", "cty": null}), &claims);
    for (entry, expected) in
        [("once", "jwt:once:a"), ("renamed", "token_replayed"), ("once", "token_replayed")]
    {
        let chain = house.chain(&json!({"jwt": {"issuer": entry}}));
        assert_eq!(present(&chain, None, &token).await, expected, "{entry}");
    }
}

/// JWT-29: nobody uses up a token without showing all that must come with it.
#[tokio::test]
async fn a_token_is_not_used_up_by_somebody_without_the_other_credential() {
    let (_, mut house) = house();
    let hash = crate::hash_key(&crate::testing::pepper(), "pc_good").to_string();
    house.clients = crate::testing::clients(&json!({"acme": {"credentials": [{"api_key": {"hash": hash}}]}}));
    let chain = house.chain(&json!({
        "all_of": [{"jwt": {"issuer": "once"}}, {"api_key": {"header": "x-api-key"}}], "identity_from": "jwt",
    }));
    let claims = json!({"iss": "https://once.example", "sub": "a", "aud": "a", "exp": NOW + 60});
    let value = bearer(&token(&KEY, &json!({"typ": "JWT", "cty": null}), &claims));
    let (worker, connection) = (WorkerTokens::new(MEMORY), connection(None));
    for (key, expected) in
        [("pc_bad", "api_key_invalid"), ("pc_good", "jwt:once:a"), ("pc_good", "token_replayed")]
    {
        let headers = [("authorization", &*value), ("x-api-key", key)];
        let asked = ask_at(&chain, &worker, &connection, &headers, NOW).await;
        assert_eq!(asked.unwrap_or_else(str::to_owned), expected);
    }
}

/// WS-08, WS-10, the profile table of section 4.6.
#[tokio::test]
async fn a_wso2_token_is_bound_to_the_certificate() {
    let (_, house) = house();
    let chain = house.chain(&json!({"jwt": {"issuer": "wso2"}}));
    let mine = hub(&[]);
    let thumbprint = portcullis_jose::base64url::encode(&mine.thumbprint);
    let signed = |header: &Value, cnf: &Value| {
        let changes = json!({"iss": "https://is.example", "aud": "https://api.example", "cnf": cnf});
        token(&KEY, header, &changes)
    };
    let plain = json!({"typ": "JWT", "cty": null});
    let object = json!({ "x5t#S256": thumbprint });
    let text = json!(object.to_string());
    let good = format!("jwt:wso2:{HUB}");
    for (name, header, cnf, certificate, expected) in [
        ("object", plain.clone(), &object, Some(&mine), good.as_str()),
        ("at+jwt", json!({"typ": "at+jwt", "cty": null}), &object, Some(&mine), &good),
        ("no typ", json!({"typ": null, "cty": null}), &object, Some(&mine), &good),
        ("text", plain.clone(), &text, Some(&mine), &good),
        ("no certificate", plain.clone(), &object, None, "certificate_missing"),
        ("text, no certificate", plain.clone(), &text, None, "certificate_missing"),
        ("not bound", plain.clone(), &Value::Null, Some(&mine), "token_not_bound"),
        (
            "no kid",
            json!({"typ": "JWT", "cty": null, "kid": null}),
            &object,
            Some(&mine),
            "token_signature_invalid",
        ),
        (
            "another's",
            plain.clone(),
            &object,
            Some(&hub(&[(DnType::CommonName, "x")])),
            "certificate_mismatch",
        ),
    ] {
        let token = signed(&header, cnf);
        assert_eq!(present(&chain, certificate.cloned(), &token).await, expected, "{name}");
    }
}

/// JWT-32, OpenID Connect Core section 3.1.3.7.
#[tokio::test]
async fn id_tokens_are_taken_where_they_are_asked_for() {
    let (_, house) = house();
    let chain = house.chain(&json!({"jwt": {"issuer": "login"}}));
    for (name, changes, expected) in [
        ("plain", json!({}), "jwt:login:a"),
        ("with nonce", json!({"nonce": "n", "at_hash": "h"}), "jwt:login:a"),
        ("azp", json!({"azp": "client-2"}), "jwt:login:a"),
        ("azp for several", json!({"aud": ["client-1", "x"], "azp": "client-1"}), "jwt:login:a"),
        ("several without azp", json!({"aud": ["client-1", "x"]}), "token_claim_invalid"),
        ("azp of another", json!({"azp": "x"}), "token_audience_refused"),
        ("azp no text", json!({"azp": ["client-1"]}), "token_claim_invalid"),
        ("nonce no text", json!({"nonce": 7}), "token_claim_invalid"),
        ("no iat", json!({"iat": null}), "token_claim_invalid"),
    ] {
        let mut all = json!({"iss": "https://login.example", "sub": "a", "aud": "client-1"});
        for (name, value) in changes.as_object().expect("an object") {
            all[name] = value.clone();
        }
        let token = token(&KEY, &json!({"typ": "JWT", "cty": null}), &all);
        assert_eq!(present(&chain, None, &token).await, expected, "{name}");
    }
}

/// OZ-05, JKS-12: an unpinned certificate in front of such keys is a fault of the policy.
#[test]
fn policies_that_would_fetch_for_anybody_are_refused() {
    let house = House::new(issuers(&written(), &memory(), &offline()));
    for chain in [
        json!({"jwt": {"issuer": "hub"}}),
        json!({"all_of": [{"certificate": {"trust": "tpp"}}, {"jwt": {"issuer": "hub"}}], "identity_from": "jwt"}),
    ] {
        let faults = house.compile(&chain, None).map(drop).expect_err("a fault");
        assert_eq!(
            told(faults),
            [
                "certificate_not_pinned: this issuer's keys are found by the caller's certificate, and any certificate would do"
            ]
        );
    }
    assert!(house.compile(&pinned("hub"), None).is_ok());
    let mut nobody_asks = House::new(issuers(&written(), &memory(), &offline()));
    nobody_asks.anchors.clear();
    let faults =
        nobody_asks.compile(&json!({"jwt": {"issuer": "wso2"}}), None).map(drop).expect_err("a fault");
    only_fault(faults, "certificate_never_asked", "no listener asks");
}

/// OZ-03, OZ-07, JWT-29.
#[test]
fn faults_in_such_issuers_are_told_where_they_are() {
    let url = |url: &str| json!({"keys": {"jwks_url": url}});
    for (changes, code, saying) in [
        (url("https://keys.example/{certificate.unit}/k"), "unknown_word", "`unit` is not an attribute"),
        (url("https://keys.example/{ou}/k"), "bad_url", "one whole segment"),
        (url("https://keys.example/a{certificate.ou}/k"), "bad_url", "one whole segment"),
        (url("https://keys.example/{certificate.ou}a/k"), "bad_url", "one whole segment"),
        (url("https://{certificate.ou}/k"), "bad_url", "one whole segment"),
        (url("https://keys.example/k?o=/{certificate.ou}"), "bad_url", "one whole segment"),
        (url("https://keys.example/{certificate.ou"), "bad_url", "one whole segment"),
        (url("https://keys.example/certificate.ou}"), "bad_url", "one whole segment"),
        (url("http://keys.example/{certificate.ou}"), "plain_http", "https only"),
        (
            json!({"keys": {"jwks_url": "https://k.example/{certificate.ou}", "serve_stale": "6m"}}),
            "out_of_range",
            "10m at most, together",
        ),
        (
            json!({"keys": {"jwks_url": "https://k.example/{certificate.ou}", "refresh": "11m"}}),
            "out_of_range",
            "10m at most, together",
        ),
        (json!({"issuer": "x"}), "two_issuers", "already says what `iss` must be"),
        (json!({"certificate_claims": {"iss": "org"}}), "unknown_word", "`org` is not an attribute"),
        (json!({"certificate_claims": {"sub": "ou"}}), "missing_key", "an issuer needs `issuer`"),
        (json!({"max_lifetime": "25h"}), "missing_key", "`max_lifetime` of 24h at most"),
        (json!({"audience": null}), "missing_key", "needs `audience`"),
        (json!({"cnf": "text"}), "unknown_word", "`text` is not one of the words"),
        (json!({"bound_to": "address"}), "unknown_word", "`address` is not one of the words"),
    ] {
        let mut entry = json!({"profile": "ozone", "audience": "p", "keys": {"jwks": {"file": "keys.json"}}});
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => drop(entry.as_object_mut().expect("an object").remove(name)),
                value => entry[name] = value.clone(),
            }
        }
        let mut faults = portcullis_core::Faults::default();
        let _ = try_issuers(&json!({ "hub": entry }), &memory(), &offline(), &mut faults);
        only_fault(faults, code, saying);
    }
}
