use std::str::FromStr as _;

use portcullis_core::{AuthMethod, Faults, Place, Secret};
use serde_json::json;

use super::key::is_mistyped;
use super::{KeyHash, PepperSpec, generate_key, hash_key};
use crate::WorkerTokens;
use crate::issuers::Issuers;
use crate::testing::{
    House, Memory, NOW, ask, ask_at, clients, connection, evidence, head, moment, node, only_fault, pepper,
    told,
};

const KEY: &str = "pc_first";

fn house() -> House {
    let hash = |key: &str| hash_key(&pepper(), key).to_string();
    let mut house = House::new(Issuers::default());
    house.clients = clients(&json!({
        "acme": {"credentials": [{"api_key": {"hash": hash(KEY)}}, {"api_key": {"hash": hash("pc_second")}}]},
        "a:b": {"expires": "2027-01-15", "credentials": [{"api_key": {"hash": hash("pc_third")}}]},
    }));
    house
}

/// KEY-01, KEY-02, security-reliability 2.8.
#[tokio::test]
async fn the_whole_key_counts_and_several_lead_to_one_client() {
    let chain = house().chain(&json!({"api_key": {"header": "x-api-key"}}));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    let long = "k".repeat(513);
    for (key, expected) in [
        (KEY, Ok("client:acme")),
        ("pc_second", Ok("client:acme")),
        ("pc_firs", Err("api_key_invalid")),
        ("pc_first1", Err("api_key_invalid")),
        ("PC_FIRST", Err("api_key_invalid")),
        ("pc_first,pc_second", Err("api_key_invalid")),
        (&hash_key(&pepper(), KEY).to_string(), Err("api_key_invalid")),
        ("pc_first pc_second", Err("credentials_malformed")),
        ("pc_fir\u{15f}t", Err("credentials_malformed")),
        (&long, Err("credentials_malformed")),
        ("", Err("credentials_missing")),
    ] {
        let asked = ask(&chain, &worker, &connection, &[("x-api-key", key)]).await;
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{key}");
    }
    let twice = [("x-api-key", KEY), ("x-api-key", KEY)];
    assert_eq!(ask(&chain, &worker, &connection, &twice).await, Err("credentials_ambiguous"));
}

#[tokio::test]
async fn an_expired_client_is_inactive_from_the_first_second_of_the_day() {
    let chain = house().chain(&json!({"api_key": {"header": "x-api-key"}}));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    let day: i64 = "2027-01-15T00:00:00Z".parse::<jiff::Timestamp>().expect("a moment").as_second();
    let key = [("x-api-key", "pc_third")];
    assert_eq!(ask_at(&chain, &worker, &connection, &key, day - 1).await.as_deref(), Ok("client:a:b"));
    assert_eq!(ask_at(&chain, &worker, &connection, &key, day).await, Err("client_inactive"));
}

/// KEY-01: `Authorization` with and without a scheme.
#[tokio::test]
async fn the_authorization_header_can_carry_a_key() {
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    let bare = house().chain(&json!({"api_key": {"header": "authorization"}}));
    let schemed = house().chain(&json!({"api_key": {"header": "Authorization", "scheme": "ApiKey"}}));
    for (chain, value, expected) in [
        (&bare, KEY, Ok("client:acme")),
        (&bare, "ApiKey pc_first", Err("credentials_malformed")),
        (&schemed, "ApiKey pc_first", Ok("client:acme")),
        (&schemed, "apikey pc_first", Ok("client:acme")),
        (&schemed, KEY, Err("credentials_missing")),
        (&schemed, "ApiKey", Err("credentials_malformed")),
        (&schemed, "Bearer pc_first", Err("credentials_missing")),
    ] {
        let asked = ask(chain, &worker, &connection, &[("authorization", value)]).await;
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{value}");
    }
}

#[test]
fn stored_hashes_are_read_in_one_form_only() {
    let hash = hash_key(&pepper(), KEY);
    let text = hash.to_string();
    assert!(text.starts_with("pk1:") && text.len() == 47);
    assert_eq!(KeyHash::from_str(&text), Ok(hash));
    assert_ne!(hash_key(&Secret::new(b"another pepper".to_vec()), KEY), hash);
    for bad in ["", "pk1:", &text[4..], &text[..46], &format!("{text}="), &text.replace("pk1", "pk2")] {
        assert!(KeyHash::from_str(bad).is_err(), "{bad}");
    }
}

#[test]
fn new_keys_are_long_and_all_different() {
    let (one, other) = (generate_key().expect("randomness"), generate_key().expect("randomness"));
    assert_ne!(one, other);
    assert!(one.starts_with("pc_") && one.len() == 52);
    assert!(!is_mistyped(one.as_bytes()));
    for at in 0..one.len() {
        let mut wrong = one.clone().into_bytes();
        wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
        // With another prefix it is no key of ours, and with another length neither.
        assert_eq!(is_mistyped(&wrong), at >= 3, "{at}");
    }
    assert!(!is_mistyped(&one.as_bytes()[..46]));
}

#[test]
fn a_pepper_is_a_secret_of_32_bytes() {
    let memory = Memory::default().with("good", "0123456789abcdef0123456789abcdef\n").with("short", "0123");
    let compile = |name: &str| {
        let mut faults = Faults::default();
        let spec = PepperSpec::read(&node(&json!({"pepper": {"file": name}})), &mut faults).expect("a spec");
        (spec.compile(&memory, &mut faults), faults)
    };
    assert!(compile("good").0 == Some(pepper()));
    only_fault(compile("short").1, "weak_secret", "4 bytes long, 32 are needed");
    only_fault(compile("gone").1, "unreadable", "`gone` is not there");
    let mut faults = Faults::default();
    assert!(PepperSpec::read(&node(&json!({"pepper": "0123"})), &mut faults).is_none());
    only_fault(faults, "literal_secret", "a secret is written in the file");
}

#[test]
fn faults_are_told_where_they_are() {
    let without_pepper = House::new(Issuers::default());
    let told_by = |house: &House, written| {
        house.compile(&json!({"api_key": written}), None).err().map(told).unwrap_or_default()
    };
    let missing = told_by(&without_pepper, json!({"header": "x-api-key"}));
    assert_eq!(missing, ["missing_pepper: `api_key` needs a pepper to look keys up with"]);
    let house = house();
    for (written, expected) in [
        (json!({}), "missing_key: `api_key` needs a place the key is read from"),
        (json!({"header": "x api"}), "bad_header: `x api` is not a header name"),
        (json!({"header": "Host"}), "bad_header: `host` cannot carry a credential"),
        (
            json!({"header": "x-api-key", "scheme": "Key"}),
            "misplaced_scheme: only `authorization` has a scheme",
        ),
        (
            json!({"header": "authorization", "scheme": "a b"}),
            "bad_scheme: `a b` is not an authentication scheme",
        ),
        (json!({"header": "x-api-key", "queri": "key"}), "unknown_key: unknown key `queri` in `api_key`"),
        (json!({"query": "a key"}), "bad_parameter: `a key` cannot name a parameter"),
        (json!({"cookie": "a;b"}), "bad_cookie: `a;b` is not the name of a cookie"),
        (json!({"query": "key", "scheme": "ApiKey"}), "misplaced_scheme: only `authorization` has a scheme"),
        (json!({"header": "cookie"}), "bad_header: `cookie` cannot carry a credential"),
    ] {
        assert_eq!(told_by(&house, written), [expected]);
    }
}

/// 100,000 clients, as the benchmark has them: found, and nobody else's.
#[test]
fn many_keys_are_told_apart() {
    let mut table = super::ApiKeys::new(&pepper());
    let hash = portcullis_jose::digest::KeyedHash::new(&pepper());
    let owner = |name: &str| {
        let client = clients(&json!({ name: {} })).get(name).expect("a client").clone();
        super::KeyOwner {
            identity: crate::clients::identity_of(&client, AuthMethod::ApiKey, None),
            client_expires_at: None,
            terms: super::KeyTerms::default(),
            bound_to: None,
        }
    };
    let (acme, other) = (owner("acme"), owner("other"));
    for number in 0..100_000_u32 {
        let digest = KeyHash(hash.digest(format!("pc_{number}").as_bytes()));
        let owner = if number == 77_777 { acme.clone() } else { other.clone() };
        assert!(table.add(digest, owner, Place::default()).is_none());
    }
    let subject =
        |key: &str| table.find(key.as_bytes()).map(|found| found.owner().identity.subject.to_string());
    assert_eq!(subject("pc_77777").as_deref(), Some("acme"));
    assert_eq!(subject("pc_77778").as_deref(), Some("other"));
    assert_eq!(subject("pc_100000"), None);
}

/// KEY-01: exactly one value, in any of the places; KEY-03 is shown by the black-box tests.
#[tokio::test]
async fn a_key_is_taken_from_the_query_and_from_cookies() {
    let chain = house().chain(&json!({"api_key": {"header": "x-api-key", "query": "key", "cookie": "key"}}));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    for (target, fields, expected) in [
        ("/?key=pc_first", &[][..], Ok("client:acme")),
        ("/?a=1&KEY=pc%5Ffirst", &[], Ok("client:acme")),
        ("/", &[("cookie", "a=b; key=pc_second")], Ok("client:acme")),
        ("/?key=pc_nobody", &[], Err("api_key_invalid")),
        ("/?key=", &[], Err("credentials_missing")),
        ("/?key=pc_first;b=1", &[], Err("credentials_malformed")),
        ("/?key=pc_first&key=pc_first", &[], Err("credentials_ambiguous")),
        ("/?key=pc_first", &[("x-api-key", KEY)], Err("credentials_ambiguous")),
        ("/?key=pc_first", &[("cookie", "key=pc_first")], Err("credentials_ambiguous")),
        ("/", &[("cookie", "key=pc_first"), ("cookie", "key=pc_first")], Err("credentials_ambiguous")),
    ] {
        let head = head(target, fields);
        let evidence = evidence(&head, &connection, &worker, moment(NOW));
        let asked = chain.authenticate(&evidence).await;
        let asked = asked.map(|caller| caller.key.to_string()).map_err(|refused| refused.reason().code());
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{target} {fields:?}");
    }
}

/// KEY-02: what a line says of its key.
#[tokio::test]
async fn a_key_counts_when_and_where_its_line_says() {
    let day = |text: &str| crate::moment(text).expect("a day");
    let hash = |key: &str| hash_key(&pepper(), key).to_string();
    let mut house = House::new(Issuers::default());
    house.clients = clients(&json!({"acme": {"expires": "2027-06-01", "credentials": [
        {"api_key": {"hash": hash("pc_old"), "expires": "2027-02-01"}},
        {"api_key": {"hash": hash("pc_new"), "not_before": "2027-01-15"}},
        {"api_key": {"hash": hash("pc_off"), "disabled": true}},
        {"api_key": {"hash": hash("pc_here"), "apis": "bank", "from": ["192.0.2.0/24", "2001:db8::1"]}},
        {"api_key": {"hash": hash("pc_there"), "from": "198.51.100.7"}},
    ]}}));
    let chain = house.chain(&json!({"api_key": {"header": "x-api-key"}}));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    for (key, at, expected) in [
        ("pc_old", day("2027-01-31"), Ok("client:acme")),
        ("pc_old", day("2027-02-01") - 1, Ok("client:acme")),
        ("pc_old", day("2027-02-01"), Err("api_key_invalid")),
        ("pc_new", day("2027-01-15") - 1, Err("api_key_invalid")),
        ("pc_new", day("2027-01-15"), Ok("client:acme")),
        ("pc_new", day("2027-06-01"), Err("client_inactive")),
        ("pc_off", day("2027-01-15"), Err("api_key_invalid")),
        ("pc_here", day("2027-01-15"), Ok("client:acme")),
        ("pc_there", day("2027-01-15"), Err("api_key_invalid")),
    ] {
        let asked = ask_at(&chain, &worker, &connection, &[("x-api-key", key)], at).await;
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{key} {at}");
    }
    let terms = super::KeyTerms { apis: Some(["other".into()].into()), ..super::KeyTerms::default() };
    assert!(terms.judge("bank", connection.address(), 0).is_err());
    assert!(terms.judge("other", connection.address(), 0).is_ok());
}

#[test]
fn lines_that_can_never_hold_are_faults() {
    let hash = hash_key(&pepper(), "pc_a").to_string();
    for (written, code, saying) in [
        (json!({"not_before": "2027-06-01", "expires": "2027-06-01"}), "never_valid", "before it begins"),
        (json!({"not_before": "soon"}), "bad_date", "not a day"),
        (json!({"disabled": "no"}), "wrong_kind", "expected `true` or `false`"),
        (json!({"apis": ["bonk"]}), "undefined", "API `bonk` is not defined"),
        (json!({"from": "10.0.0.1/8"}), "bad_network", "one address inside a network"),
        (json!({"from": "acme.example"}), "bad_network", "not a network"),
        (json!({"until": "2027-06-01"}), "unknown_key", "unknown key `until`"),
    ] {
        let mut line = written;
        line["hash"] = json!(hash);
        let written = json!({"acme": {"credentials": [{"api_key": line}]}});
        only_fault(crate::testing::client_faults(&written), code, saying);
    }
}
