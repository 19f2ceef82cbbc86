use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use portcullis_core::Secret;
use portcullis_jose::digest::{KeyedHash, sha256};
use serde_json::{Value, json};

use super::parameters::{Parameters, ParametersError};
use super::signed_bytes;
use crate::testing::{
    House, Memory, NOW, ask_with, clients_with, head, issuers, jwks, offline, only_fault, sign,
};
use crate::{Chain, Clients};

const DATE: &str = "Fri, 15 Jan 2027 08:00:00 GMT";
/// Of sixty-four bytes, so that it serves every hash.
const ACME: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const INITECH: &str = "initech-initech-initech-initech-initech";

fn clients() -> Clients {
    let memory = Memory::default().with("acme", ACME).with("initech", INITECH);
    clients_with(
        &json!({
            "acme": { "credentials": [{ "hmac": { "key_id": "acme-1", "secret": { "file": "acme" } } }] },
            "initech": { "credentials": [
                { "hmac": { "key_id": "initech-1", "secret": { "file": "initech" }, "algorithm": "hmac-sha256" } },
            ] },
            "globex": { "expires": "2020-01-01", "credentials": [
                { "hmac": { "key_id": "globex-1", "secret": { "file": "acme" } } },
            ] },
        }),
        &memory,
    )
}

fn house() -> House {
    let mut house = House::new(issuers(&json!({}), &Memory::default(), &offline()));
    house.clients = clients();
    house
}

fn chain(written: &Value) -> Chain {
    house().chain(&json!({ "hmac": written }))
}

fn usual() -> Chain {
    chain(&json!({ "algorithms": ["hmac-sha256"] }))
}

/// A request with a signature over what its credential lists.
fn signed(secret: &str, method: &str, target: &str, parameters: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = head(target, fields);
    request.method = method.parse().expect("a method");
    let unsigned = format!("{parameters},signature=\"AAAA\"");
    // Where there is nothing to sign, nothing is.
    let base = signed_bytes(unsigned.as_bytes(), &request).unwrap_or_default();
    let signature = KeyedHash::new(&Secret::new(secret.as_bytes().to_vec())).digest(&base);
    let credential = format!("Signature {parameters},signature=\"{}\"", STANDARD.encode(signature));
    request.headers.insert("authorization", credential.parse().expect("a value"));
    request
}

const USUAL: &str = "keyId=\"acme-1\",algorithm=\"hmac-sha256\",headers=\"(request-target) date\"";

async fn get(parameters: &str, fields: &[(&str, &str)], now: i64) -> Result<String, &'static str> {
    ask_with(&usual(), &signed(ACME, "GET", "/orders/1?a=b", parameters, fields), "", now).await
}

/// B8: the parse rules.
#[test]
fn parameters_are_names_with_quoted_values() {
    let parse = |text: &str| Parameters::parse(text.as_bytes());
    let good = [
        "keyId=\"a\",signature=\"aGk=\"",
        "KEYID=\"a\" , Signature=\"aGk=\"",
        "keyId=\"a\",algorithm=\"hs2019\",headers=\"(request-target) Date\",created=1,expires=2.5,signature=\"aGk=\"",
        "signature=\"aGk%3D\",keyId=\"a\"",
        "signature=\"aGk%3d\",keyId=\"a\"",
        "signature=\"%61Gk%3d\",keyId=\"a, b = c\"",
    ];
    for text in good {
        let parameters = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parameters.signature, b"hi", "{text}");
    }
    let full = parse(good[2]).expect("parameters");
    assert_eq!((full.created, full.expires, full.expires_text.as_deref()), (Some(1), Some(2), Some("2.5")));
    let long = format!("keyId=\"{}\",signature=\"aGk=\"", "k".repeat(9000));
    let many = (0..65).map(|n| format!("h{n}")).collect::<Vec<_>>().join(" ");
    let many = format!("keyId=\"a\",headers=\"{many}\",signature=\"aGk=\"");
    for (text, error) in [
        ("", ParametersError::NotParameters),
        ("abc", ParametersError::NotParameters),
        ("keyId=\"a\",signature=\"aGk=\",", ParametersError::NotParameters),
        ("keyId=\"a\";signature=\"aGk=\"", ParametersError::NotParameters),
        ("keyId=\"a\" signature=\"aGk=\"", ParametersError::NotParameters),
        ("keyId=\"a,signature=aGk=", ParametersError::NotParameters),
        ("keyId=\"a\\\"b\",signature=\"aGk=\"", ParametersError::NotParameters),
        ("keyId=\"\u{e4}\",signature=\"aGk=\"", ParametersError::NotParameters),
        ("keyId=\"a\n\",signature=\"aGk=\"", ParametersError::NotParameters),
        ("keyId=\"a\"", ParametersError::Missing),
        ("signature=\"aGk=\"", ParametersError::Missing),
        ("keyId=\"\",signature=\"aGk=\"", ParametersError::Missing),
        ("keyId=\"a\",signature=\"\"", ParametersError::Missing),
        ("keyId=\"a\",keyid=\"b\",signature=\"aGk=\"", ParametersError::Repeated),
        ("keyId=\"a\",signature=\"aGk=\",signature=\"aGk=\"", ParametersError::Repeated),
        ("keyId=\"a\",nonce=\"x\",signature=\"aGk=\"", ParametersError::Unknown),
        ("keyId=a,signature=\"aGk=\"", ParametersError::Unknown),
        ("keyId=\"a\",signature=aGk", ParametersError::Unknown),
        ("keyId=\"a\",created=\"1\",signature=\"aGk=\"", ParametersError::Time),
        ("keyId=\"a\",created=1.5,signature=\"aGk=\"", ParametersError::Time),
        ("keyId=\"a\",created=-1,signature=\"aGk=\"", ParametersError::Time),
        ("keyId=\"a\",created=,signature=\"aGk=\"", ParametersError::Time),
        ("keyId=\"a\",created=9999999999999999,signature=\"aGk=\"", ParametersError::Time),
        ("keyId=\"a\",expires=1.,signature=\"aGk=\"", ParametersError::Time),
        ("keyId=\"a\",headers=\"\",signature=\"aGk=\"", ParametersError::Covered),
        ("keyId=\"a\",headers=\"date  host\",signature=\"aGk=\"", ParametersError::Covered),
        ("keyId=\"a\",headers=\"date Date\",signature=\"aGk=\"", ParametersError::Covered),
        (
            "keyId=\"a\",headers=\"date (REQUEST-target) (request-target)\",signature=\"aGk=\"",
            ParametersError::Covered,
        ),
        ("keyId=\"a\",headers=\"(unknown)\",signature=\"aGk=\"", ParametersError::Covered),
        (&many, ParametersError::Covered),
        ("keyId=\"a\",signature=\"aGk\"", ParametersError::Signature),
        ("keyId=\"a\",signature=\"aG%k=\"", ParametersError::Signature),
        ("keyId=\"a\",signature=\"aGk%3\"", ParametersError::Signature),
        ("keyId=\"a\",signature=\"aGk%E9\"", ParametersError::Signature),
        ("keyId=\"a\",signature=\"aGl=\"", ParametersError::Signature),
        ("keyId=\"a\",signature=\"-_8=\"", ParametersError::Signature),
        (&long, ParametersError::TooLong),
    ] {
        assert_eq!(parse(text).err(), Some(error), "{text}");
    }
}

/// draft-cavage-http-signatures-12 appendix C: what is signed.
#[test]
fn bases_agree_with_the_draft() {
    let mut request = head(
        "/foo?param=value&pet=dog",
        &[
            ("host", "example.com"),
            ("date", "Sun, 05 Jan 2014 21:31:40 GMT"),
            ("content-type", "application/json"),
            ("digest", "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="),
            ("content-length", "18"),
            ("x-two", " one"),
            ("x-two", "two "),
            ("x-empty", ""),
        ],
    );
    request.method = http::Method::POST;
    let base = |parameters: &str| {
        let credential = format!("keyId=\"Test\",{parameters}signature=\"aGk=\"");
        signed_bytes(credential.as_bytes(), &request).map(|base| String::from_utf8(base).expect("text"))
    };
    for (parameters, expected) in [
        ("", "date: Sun, 05 Jan 2014 21:31:40 GMT"),
        (
            "headers=\"(request-target) host date\",",
            "(request-target): post /foo?param=value&pet=dog\nhost: example.com\ndate: Sun, 05 Jan 2014 21:31:40 GMT",
        ),
        (
            "headers=\"(request-target) host date content-type digest content-length\",",
            "(request-target): post /foo?param=value&pet=dog\nhost: example.com\n\
             date: Sun, 05 Jan 2014 21:31:40 GMT\ncontent-type: application/json\n\
             digest: SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=\ncontent-length: 18",
        ),
        // Section 2.3: the parameters, a field of two lines, and one that is empty.
        (
            "created=1402170695,expires=1402170699.25,headers=\"(created) (expires) X-Two X-Empty\",",
            "(created): 1402170695\n(expires): 1402170699.25\nx-two: one, two\nx-empty: ",
        ),
    ] {
        assert_eq!(base(parameters).as_deref(), Ok(expected));
    }
    for missing in
        ["headers=\"x-none\",", "headers=\"(created)\",", "headers=\"(expires)\",", "headers=\"x-aux-date\","]
    {
        assert!(base(missing).is_err(), "{missing}");
    }
}

/// B8: a date that stands in for `Date` is signed under its own name.
#[test]
fn an_auxiliary_date_stands_in() {
    let request = head("/", &[("date", DATE), ("x-aux-date", "Fri, 15 Jan 2027 09:00:00 GMT")]);
    for listed in ["date", "x-aux-date"] {
        let credential = format!("keyId=\"a\",headers=\"{listed}\",signature=\"aGk=\"");
        let base = signed_bytes(credential.as_bytes(), &request).expect("something to sign");
        assert_eq!(base, b"x-aux-date: Fri, 15 Jan 2027 09:00:00 GMT", "{listed}");
    }
}

/// B8, A1.7: vectors for the four hashes, made with another implementation of HMAC.
#[tokio::test]
async fn the_four_hashes_verify() {
    const THEN: i64 = 1_388_957_500;
    let chain = chain(&json!({
        "algorithms": ["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha1"],
        "accept_weak": ["sha1"],
    }));
    for (algorithm, signature) in [
        ("hmac-sha1", "RzkypxgQNkL6NfE5bq6a+2e8LuM="),
        ("hmac-sha256", "Hmr5Voq/5yCu8Il2hC9ITIgWDJ4DoLUbmOHDgR26Zl4="),
        ("hmac-sha384", "T1VuQTD5addUc+PQ7OXZqtP/us9/sKpYHIp6qoal86RAIM7o1zDo0tLNNqOqoGwu"),
        (
            "hmac-sha512",
            "zCjYw/3w7KNOL2HUNdueun9EMPS9r/vF786zA+/up5luwodVYPCRcAV/wj7598c3GfqnGH0ZSOSqcl8s28Rumg==",
        ),
    ] {
        let credential = format!(
            "HMAC keyId=\"acme-1\",algorithm=\"{algorithm}\",headers=\"(request-target) host date\",signature=\"{signature}\""
        );
        let mut request = head(
            "/foo?param=value&pet=dog",
            &[
                ("host", "example.com"),
                ("date", "Sun, 05 Jan 2014 21:31:40 GMT"),
                ("authorization", &credential),
            ],
        );
        request.method = http::Method::POST;
        let replayable = house_before(THEN).chain(&json!({ "hmac": {
            "algorithms": ["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha1"],
            "accept_weak": ["sha1"],
        } }));
        assert_eq!(
            ask_with(&replayable, &request, "", THEN + 5).await.as_deref(),
            Ok("client:acme"),
            "{algorithm}"
        );
        assert_eq!(ask_with(&chain, &request, "", THEN + 900).await, Err("signature_expired"), "{algorithm}");
        request.method = http::Method::PUT;
        assert_eq!(ask_with(&chain, &request, "", THEN + 5).await, Err("signature_invalid"), "{algorithm}");
    }
}

/// One whose memory reaches back further.
fn house_before(unix_seconds: i64) -> House {
    let mut house = house();
    house.replays = portcullis_store::Replays::new(crate::testing::moment(unix_seconds - 600));
    house
}

/// CAV-01, HMC-01.
#[tokio::test]
async fn a_good_signature_names_its_client() {
    let date = [("date", DATE)];
    assert_eq!(get(USUAL, &date, NOW).await.as_deref(), Ok("client:acme"));
    for parameters in [
        "keyId=\"acme-1\",headers=\"(request-target) date\"",
        "keyId=\"acme-1\",algorithm=\"hs2019\",headers=\"date (request-target)\"",
        "keyId=\"acme-1\",algorithm=\"HMAC-SHA256\",headers=\"(request-target) date\"",
        "keyId=\"acme-1\",algorithm=\"hs2019\",created=1800000000,headers=\"(request-target) (created)\"",
        "keyId=\"acme-1\",created=1799999990,expires=1800000001,headers=\"(request-target) (created) (expires)\"",
    ] {
        assert_eq!(get(parameters, &date, NOW).await.as_deref(), Ok("client:acme"), "{parameters}");
    }
}

/// One row for each way to be wrong.
#[tokio::test]
async fn a_bad_signature_is_refused_for_its_own_reason() {
    let date = [("date", DATE)];
    for (parameters, fields, now, code) in [
        (USUAL, &date[..], NOW + 301, "signature_expired"),
        (USUAL, &date, NOW - 31, "signature_not_yet_valid"),
        (USUAL, &[("date", "2027-01-15T08:00:00Z")], NOW, "credentials_malformed"),
        (USUAL, &[("date", "Friday, 15-Jan-27 08:00:00 GMT")], NOW, "credentials_malformed"),
        (USUAL, &[("date", "Thu, 15 Jan 2027 08:00:00 GMT")], NOW, "credentials_malformed"),
        (USUAL, &[("date", DATE), ("x-aux-date", "Fri, 15 Jan 2027 07:00:00 GMT")], NOW, "signature_expired"),
        ("keyId=\"acme-2\",headers=\"(request-target) date\"", &date, NOW, "signature_invalid"),
        ("keyId=\"initech-1\",headers=\"(request-target) date\"", &date, NOW, "signature_invalid"),
        ("keyId=\"globex-1\",headers=\"(request-target) date\"", &date, NOW, "client_inactive"),
        ("keyId=\"acme-1\"", &date, NOW, "signature_incomplete"),
        ("keyId=\"acme-1\",headers=\"date\"", &date, NOW, "signature_incomplete"),
        ("keyId=\"acme-1\",headers=\"(request-target)\"", &date, NOW, "signature_incomplete"),
        (
            "keyId=\"acme-1\",algorithm=\"hmac-sha1\",headers=\"(request-target) date\"",
            &date,
            NOW,
            "signature_algorithm_refused",
        ),
        (
            "keyId=\"acme-1\",algorithm=\"hmac-sha512\",headers=\"(request-target) date\"",
            &date,
            NOW,
            "signature_algorithm_refused",
        ),
        (
            "keyId=\"acme-1\",algorithm=\"none\",headers=\"(request-target) date\"",
            &date,
            NOW,
            "signature_algorithm_refused",
        ),
        (
            "keyId=\"acme-1\",expires=1800000000,headers=\"(request-target) date\"",
            &date,
            NOW,
            "signature_expired",
        ),
        (
            "keyId=\"acme-1\",created=1799990000,headers=\"(request-target) (created)\"",
            &date,
            NOW,
            "signature_expired",
        ),
    ] {
        assert_eq!(get(parameters, fields, now).await, Err(code), "{parameters} {fields:?}");
    }
}

#[tokio::test]
async fn what_is_signed_cannot_be_changed() {
    let chain = usual();
    let covered = "keyId=\"acme-1\",headers=\"(request-target) date host x-amount\"";
    let good = || {
        signed(ACME, "GET", "/pay?to=bob", covered, &[("date", DATE), ("host", "bank"), ("x-amount", "10")])
    };
    let changes: [fn(&mut Parts); 7] = [
        |request| request.method = http::Method::DELETE,
        |request| request.uri = "/pay?to=eve".parse().expect("a target"),
        |request| request.uri = "/pay".parse().expect("a target"),
        |request| drop(request.headers.insert("x-amount", "99".parse().expect("a value"))),
        |request| assert!(request.headers.append("x-amount", "99".parse().expect("a value"))),
        |request| drop(request.headers.remove("x-amount")),
        |request| drop(request.headers.insert("host", "other".parse().expect("a value"))),
    ];
    for change in changes {
        let mut request = good();
        change(&mut request);
        assert_eq!(ask_with(&chain, &request, "", NOW).await, Err("signature_invalid"), "{request:?}");
    }
    let mut twice = good();
    twice.headers.append("date", DATE.parse().expect("a value"));
    assert_eq!(ask_with(&chain, &twice, "", NOW).await, Err("credentials_malformed"));
    assert_eq!(ask_with(&chain, &good(), "", NOW).await.as_deref(), Ok("client:acme"));
}

/// HMC-02.
#[tokio::test]
async fn a_signature_is_good_once() {
    let chain = usual();
    let request = |date: &str| signed(ACME, "GET", "/orders/1", USUAL, &[("date", date)]);
    let first = request(DATE);
    assert_eq!(ask_with(&chain, &first, "", NOW).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask_with(&chain, &first, "", NOW).await, Err("signature_replayed"));
    // Also to the very end of its window, and spelled in another way.
    assert_eq!(ask_with(&chain, &first, "", NOW + 300).await, Err("signature_replayed"));
    let mut spelled = first.clone();
    let credential = spelled.headers["authorization"].to_str().expect("text").replace('=', "%3D");
    let credential = credential
        .replace("keyId%3D", "keyid=")
        .replace("algorithm%3D", "algorithm=")
        .replace("headers%3D", "headers=")
        .replace("signature%3D", "signature=");
    spelled.headers.insert("authorization", credential.parse().expect("a value"));
    assert_eq!(ask_with(&chain, &spelled, "", NOW).await, Err("signature_replayed"));
    // An end that nobody signed does not have it forgotten earlier.
    let mut ending = request("Fri, 15 Jan 2027 08:00:01 GMT");
    let credential =
        format!("{},expires=1800000002", ending.headers["authorization"].to_str().expect("text"));
    ending.headers.insert("authorization", credential.parse().expect("a value"));
    assert_eq!(ask_with(&chain, &ending, "", NOW + 1).await.as_deref(), Ok("client:acme"));
    let plain = request("Fri, 15 Jan 2027 08:00:01 GMT");
    assert_eq!(ask_with(&chain, &plain, "", NOW + 60).await, Err("signature_replayed"));
    // Where the policy allows it, it is allowed.
    let lenient = self::chain(&json!({ "algorithms": ["hmac-sha256"], "replay": "allow" }));
    for _ in 0..2 {
        assert_eq!(ask_with(&lenient, &first, "", NOW).await.as_deref(), Ok("client:acme"));
    }
}

/// DIG-01, HMC-02.
#[tokio::test]
async fn content_is_held_to_its_signed_digest() {
    let chain = usual();
    let digest = |content: &str| format!("SHA-256={}", STANDARD.encode(sha256(content.as_bytes())));
    let with = "keyId=\"acme-1\",headers=\"(request-target) date digest\"";
    let without = "keyId=\"acme-1\",headers=\"(request-target) date\"";
    let newer = "keyId=\"acme-1\",headers=\"(request-target) date content-digest\"";
    let rfc9530 = format!("sha-256=:{}:", STANDARD.encode(sha256(b"pay")));
    for (parameters, name, value, content, expected) in [
        (with, "digest", digest("pay").as_str(), "pay", Ok("client:acme")),
        (newer, "content-digest", &rfc9530, "pay", Ok("client:acme")),
        (with, "digest", &digest(""), "", Ok("client:acme")),
        (without, "x-nothing", "", "", Ok("client:acme")),
        (with, "digest", &digest("pay"), "pax", Err("digest_mismatch")),
        (with, "digest", &digest("pay"), "", Err("digest_mismatch")),
        (with, "digest", &format!("{},sha-512=AAAA", digest("pay")), "pay", Err("digest_mismatch")),
        (newer, "content-digest", &rfc9530, "pax", Err("digest_mismatch")),
        (with, "digest", "MD5=AAAA", "pay", Err("digest_missing")),
        (without, "digest", &digest("pay"), "pay", Err("digest_missing")),
        (with, "digest", "SHA-256=:AAAA:", "pay", Err("credentials_malformed")),
    ] {
        let request = signed(ACME, "POST", "/pay", parameters, &[("date", DATE), (name, value)]);
        let fresh = usual();
        let said = ask_with(&fresh, &request, content, NOW).await;
        assert_eq!(said.as_deref().map_err(|code| *code), expected, "{parameters} {value} {content}");
    }
    // One that was refused for its content has not been used up.
    let request = signed(ACME, "POST", "/pay", with, &[("date", DATE), ("digest", &digest("pay"))]);
    assert_eq!(ask_with(&chain, &request, "pax", NOW).await, Err("digest_mismatch"));
    assert_eq!(ask_with(&chain, &request, "pay", NOW).await.as_deref(), Ok("client:acme"));
}

#[tokio::test]
async fn a_key_is_held_to_its_own_algorithm() {
    let chain = chain(&json!({ "algorithms": ["hmac-sha384", "hmac-sha256"] }));
    let named =
        |key: &str| format!("keyId=\"{key}\",algorithm=\"hmac-sha256\",headers=\"(request-target) date\"");
    let initech = signed(INITECH, "GET", "/", &named("initech-1"), &[("date", DATE)]);
    assert_eq!(ask_with(&chain, &initech, "", NOW).await.as_deref(), Ok("client:initech"));
    // Nothing says that this is about the algorithm: that would tell that the key exists.
    for key in ["initech-1", "nobody-1"] {
        let parameters =
            format!("keyId=\"{key}\",algorithm=\"hmac-sha384\",headers=\"(request-target) date\"");
        let request = signed(INITECH, "GET", "/", &parameters, &[("date", DATE)]);
        assert_eq!(ask_with(&chain, &request, "", NOW).await, Err("signature_invalid"), "{key}");
    }
}

#[tokio::test]
async fn paths_alone_are_signed_where_the_policy_says_so() {
    let chain = chain(&json!({
        "algorithms": ["hmac-sha256"], "request_target": "path_only", "accept_weak": ["path_only"],
    }));
    let mut request = signed(ACME, "GET", "/orders", USUAL, &[("date", DATE)]);
    request.uri = "/orders?page=2".parse().expect("a target");
    assert_eq!(ask_with(&chain, &request, "", NOW).await.as_deref(), Ok("client:acme"));
    let full = signed(ACME, "GET", "/orders?page=2", USUAL, &[("date", DATE)]);
    assert_eq!(ask_with(&chain, &full, "", NOW).await, Err("signature_invalid"));
}

#[tokio::test]
async fn what_is_not_listed_is_what_the_policy_says() {
    let weak = |unlisted: &str, covers: &str| {
        chain(&json!({
            "algorithms": ["hmac-sha256"], "covers": [covers], "unlisted": unlisted,
            "accept_weak": ["unbound_target", "unbound_content"],
        }))
    };
    let dated = signed(ACME, "GET", "/", "keyId=\"acme-1\"", &[("date", DATE)]);
    assert_eq!(ask_with(&weak("date", "date"), &dated, "", NOW).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask_with(&weak("(created)", "(created)"), &dated, "", NOW).await, Err("signature_invalid"));
    let listed = "keyId=\"acme-1\",created=1800000000,headers=\"(created)\"";
    let mut created = signed(ACME, "GET", "/", listed, &[]);
    let credential =
        created.headers["authorization"].to_str().expect("text").replace(",headers=\"(created)\"", "");
    created.headers.insert("authorization", credential.parse().expect("a value"));
    assert_eq!(ask_with(&weak("(created)", "date"), &created, "", NOW).await.as_deref(), Ok("client:acme"));
}

#[tokio::test]
async fn a_request_without_a_signature_is_for_nobody() {
    let chain = usual();
    for (fields, code) in [
        (&[][..], "credentials_missing"),
        (&[("authorization", "Bearer abc")], "credentials_missing"),
        (&[("authorization", "Signature")], "credentials_malformed"),
        (&[("authorization", "Signature abc")], "credentials_malformed"),
        (&[("authorization", "HMAC abc"), ("authorization", "HMAC abc")], "credentials_ambiguous"),
        (&[("authorization", "Basic abc, Signature keyId=\"a\"")], "credentials_malformed"),
        (&[("signature", "keyId=\"acme-1\",signature=\"aGk=\"")], "credentials_missing"),
    ] {
        assert_eq!(ask_with(&chain, &head("/", fields), "", NOW).await, Err(code), "{fields:?}");
    }
    assert_eq!(
        chain.challenges()[0].render(&portcullis_core::Reason::CredentialsMissing.into()),
        "Signature realm=\"bank\", headers=\"(request-target) date digest\""
    );
}

#[test]
fn faults_of_a_policy_are_told() {
    let fault = |written: &Value| {
        let refused = house().compile(&json!({ "hmac": written }), None);
        refused.err().unwrap_or_else(|| panic!("{written} compiles"))
    };
    for (written, code, saying) in [
        (json!({}), "missing_key", "algorithms"),
        (json!({ "algorithms": ["hmac-sha1"] }), "weak_algorithm", "SHA-1"),
        (json!({ "algorithms": ["hmac-md5"] }), "unknown_word", "hmac-md5"),
        (json!({ "algorithms": ["hmac-sha256", "hmac-sha256"] }), "twice", "twice"),
        (json!({ "algorithms": ["hmac-sha256"], "covers": ["date"] }), "covers_too_little", "other request"),
        (
            json!({ "algorithms": ["hmac-sha256"], "covers": ["(request-target)"] }),
            "covers_too_little",
            "when a request was signed",
        ),
        (
            json!({ "algorithms": ["hmac-sha256"], "covers": ["(request-target)", "date"] }),
            "covers_too_little",
            "other content",
        ),
        (
            json!({ "algorithms": ["hmac-sha256"], "request_target": "path_only" }),
            "covers_too_little",
            "other query",
        ),
        (
            json!({
                "algorithms": ["hmac-sha256"], "covers": ["(request-target)", "date", "digest"],
                "request_target": "path_only", "accept_weak": ["unbound_content"],
            }),
            "covers_too_little",
            "other query",
        ),
        (
            json!({ "algorithms": ["hmac-sha256"], "covers": ["date"], "accept_weak": ["unbound_target"] }),
            "covers_too_little",
            "other content",
        ),
        (
            json!({ "algorithms": ["hmac-sha256"], "covers": ["(request-target)", "date", "a b"] }),
            "bad_header",
            "a b",
        ),
        (json!({ "algorithms": ["hmac-sha256"], "max_age": "0s" }), "out_of_range", "1s to 3600s"),
        (json!({ "algorithms": ["hmac-sha256"], "max_age": "2h" }), "out_of_range", "1s to 3600s"),
        (json!({ "algorithms": ["hmac-sha256"], "leeway": "10m" }), "out_of_range", "0s to 300s"),
        (json!({ "algorithms": ["hmac-sha256"], "cover": ["date"] }), "unknown_key", "cover"),
    ] {
        only_fault(fault(&written), code, saying);
    }
}

#[test]
fn faults_of_a_credential_are_told() {
    let faults = |credential: Value| {
        let mut faults = portcullis_core::Faults::default();
        let mut spec = crate::ClientsSpec::default();
        let acme = json!({ "acme": { "credentials": [{ "hmac": credential }] } });
        spec.read(&crate::testing::node(&acme), &mut faults);
        let memory = Memory::default().with("short", "short").with("acme", ACME).with("x.pem", "no key");
        drop(spec.compile(&crate::testing::registering(None, &memory), &mut faults));
        faults
    };
    let acme = json!({ "file": "acme" });
    for (credential, code, saying) in [
        (json!({ "key_id": "a", "secret": { "file": "short" } }), "bad_key", "5 bytes"),
        (json!({ "key_id": "a", "secret": { "file": "none" } }), "unreadable", "none"),
        (json!({ "key_id": "a", "public_key": { "file": "x.pem" } }), "bad_key", "PEM"),
        (json!({ "key_id": "a" }), "missing_key", "either"),
        (
            json!({ "key_id": "a", "secret": acme, "public_key": { "file": "x.pem" } }),
            "missing_key",
            "either",
        ),
        (json!({ "secret": acme }), "missing_key", "key_id"),
        (json!({ "key_id": "a\"b", "secret": acme }), "bad_name", "key id"),
        (
            json!({ "key_id": "a", "secret": acme, "algorithm": "rsa-sha256" }),
            "key_algorithm_mismatch",
            "rsa-v1_5-sha256",
        ),
    ] {
        only_fault(faults(credential), code, saying);
    }
    let mut twice = portcullis_core::Faults::default();
    let mut spec = crate::ClientsSpec::default();
    let key = json!({ "hmac": { "key_id": "a", "secret": acme } });
    let two = json!({ "acme": { "credentials": [key] }, "initech": { "credentials": [key] } });
    spec.read(&crate::testing::node(&two), &mut twice);
    let memory = Memory::default().with("acme", ACME);
    drop(spec.compile(&crate::testing::registering(None, &memory), &mut twice));
    only_fault(twice, "key_twice", "more than once");
}

/// What is used up is used up when all of an `all_of` is good: who has one part of it cannot spoil it for its owner.
#[tokio::test]
async fn nothing_is_used_up_by_a_request_that_is_refused() {
    let key = portcullis_jose::SigningKey::generate(portcullis_jose::Algorithm::Es256).expect("a key");
    let memory = Memory::default().with("keys.json", jwks(&[("k1", &key)]));
    let once = json!({"idp": {
        "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256",
        "keys": {"jwks": {"file": "keys.json"}}, "type": ["absent", "JWT", "at+jwt"],
        "used_once": true, "max_lifetime": "1h",
    }});
    let mut house = House::new(issuers(&once, &memory, &offline()));
    house.clients = clients();
    let hmac = json!({ "algorithms": ["hmac-sha256"], "header": "signature" });
    let chain = house.chain(
        &json!({ "all_of": [{ "hmac": hmac }, { "jwt": { "issuer": "idp" } }], "identity_from": "jwt" }),
    );
    let token = |id: &str| sign(&key, &json!({"kid": "k1"}), &json!({"jti": id, "client_id": "a"}));
    let with = |made: &Parts, token: &str| {
        let mut request = made.clone();
        let signature = made.headers["authorization"].to_str().expect("text").replacen("Signature ", "", 1);
        request.headers.insert("signature", signature.parse().expect("a value"));
        request.headers.insert("authorization", format!("Bearer {token}").parse().expect("a value"));
        request
    };
    let one = signed(ACME, "GET", "/1", USUAL, &[("date", DATE)]);
    let other = signed(ACME, "GET", "/2", USUAL, &[("date", DATE)]);
    let stolen = signed("x".repeat(64).as_str(), "GET", "/1", USUAL, &[("date", DATE)]);
    let (first, second) = (token("t-1"), token("t-2"));
    let forged = first.rsplit_once('.').map(|(signed, _)| format!("{signed}.AAAA")).expect("a token");
    for (request, expected) in [
        (with(&one, &forged), Err("token_signature_invalid")),
        (with(&stolen, &first), Err("signature_invalid")),
        (with(&one, &first), Ok(())),
        (with(&other, &first), Err("token_replayed")),
        (with(&one, &second), Err("signature_replayed")),
    ] {
        let asked = ask_with(&chain, &request, "", NOW).await;
        assert_eq!(asked.map(drop), expected);
    }
}

/// A request that was overheard and is sent again is no success: it forgives its sender nothing.
#[tokio::test]
async fn a_replay_forgives_no_failures() {
    let mut house = house();
    let settings = json!({ "caller": { "failures": 2 }, "shared_addresses": [] });
    let mut faults = portcullis_core::Faults::default();
    let guard = crate::GuardSpec::read(&crate::testing::node(&settings), &mut faults).expect("a guard");
    house.guard = guard.compile(&std::sync::Arc::default());
    let chain = house.chain(&json!({ "hmac": { "algorithms": ["hmac-sha256"] } }));
    let overheard = signed(ACME, "GET", "/1", USUAL, &[("date", DATE)]);
    let guess = signed("x".repeat(64).as_str(), "GET", "/1", USUAL, &[("date", DATE)]);
    for (request, expected) in [
        (&overheard, Ok(())),
        (&guess, Err("signature_invalid")),
        (&overheard, Err("signature_replayed")),
        (&guess, Err("signature_invalid")),
        (&guess, Err("too_many_failures")),
    ] {
        assert_eq!(ask_with(&chain, request, "", NOW).await.map(drop), expected);
    }
}
