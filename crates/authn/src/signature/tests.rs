use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use portcullis_core::{Clock, ManualClock, Secret};
use portcullis_jose::digest::{KeyedHash, sha256};
use portcullis_jose::{Algorithm, MessageAlgorithm, MessageKey, SigningKey};
use portcullis_store::Replays;
use serde_json::{Value, json};

use super::{Control, Message, Target, signature_base};
use crate::testing::{
    House, Memory, NOW, ask_with, bearer, clients_with, connection, evidence, head, issuers, jwks, offline,
    only_fault, sign,
};
use crate::{Chain, Evidence, WorkerTokens};

/// RFC 9421 appendix B.1.
const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----
";
const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
";
const SHARED: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
/// `created` of all its examples.
const CREATED: i64 = 1_618_884_473;
const CONTENT: &str = "{\"hello\": \"world\"}";

/// The key of that name.
fn key(name: &str) -> MessageKey {
    let pem = |text: &str| MessageKey::from_pem(text.as_bytes()).expect("a key").remove(0);
    match name {
        "test-key-rsa-pss" => pem(RSA),
        "test-key-ecc-p256" => pem(P256),
        "test-key-ed25519" => pem(ED25519),
        _ => MessageKey::from_secret(&Secret::new(STANDARD.decode(SHARED).expect("base64"))).expect("a key"),
    }
}

/// The request of appendix B.2, with a signature.
fn test_request(input: &str, signature: &str) -> Parts {
    let mut request = head(
        "/foo?param=Value&Pet=dog",
        &[
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
            (
                "content-digest",
                "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
            ),
            ("content-length", "18"),
            ("signature-input", input),
            ("signature", signature),
        ],
    );
    request.method = http::Method::POST;
    request
}

fn base_of(request: &Parts, label: &str) -> Result<String, super::SignedError> {
    let target = Target::of(request, "https");
    let message = Message { control: Control::Request(&target), headers: &request.headers, trailers: None };
    signature_base(&message, label)
}

fn value_of(headers: &HeaderMap) -> Vec<u8> {
    let text = headers["signature"].to_str().expect("text");
    STANDARD.decode(text.split(':').nth(1).expect("bytes")).expect("base64")
}

/// Appendix B.2.2, B.2.3, B.2.5 and B.2.6.
#[test]
fn requests_of_appendix_b_verify() {
    use MessageAlgorithm::{Ed25519, HmacSha256, RsaPssSha512};
    for (label, input, signature, algorithm, expected) in [
        (
            "sig-b22",
            "sig-b22=(\"@authority\" \"content-digest\" \"@query-param\";name=\"Pet\");created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\"",
            "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
            RsaPssSha512,
            "\"@authority\": example.com
\"content-digest\": sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:
\"@query-param\";name=\"Pet\": dog
\"@signature-params\": (\"@authority\" \"content-digest\" \"@query-param\";name=\"Pet\");created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\"",
        ),
        (
            "sig-b23",
            "sig-b23=(\"date\" \"@method\" \"@path\" \"@query\" \"@authority\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-rsa-pss\"",
            "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
            RsaPssSha512,
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT
\"@method\": POST
\"@path\": /foo
\"@query\": ?param=Value&Pet=dog
\"@authority\": example.com
\"content-type\": application/json
\"content-digest\": sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:
\"content-length\": 18
\"@signature-params\": (\"date\" \"@method\" \"@path\" \"@query\" \"@authority\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-rsa-pss\"",
        ),
        (
            "sig-b25",
            "sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"",
            "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
            HmacSha256,
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT
\"@authority\": example.com
\"content-type\": application/json
\"@signature-params\": (\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"",
        ),
        (
            "sig-b26",
            "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"",
            "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
            Ed25519,
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT
\"@method\": POST
\"@path\": /foo
\"@authority\": example.com
\"content-type\": application/json
\"content-length\": 18
\"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"",
        ),
    ] {
        let request = test_request(input, signature);
        let base = base_of(&request, label).expect("a base");
        assert_eq!(base, expected);
        let name = input.rsplit("keyid=\"").next().and_then(|rest| rest.split('"').next()).expect("a key id");
        assert!(key(name).verifies(algorithm, base.as_bytes(), &value_of(&request.headers)), "{label}");
        assert!(!key(name).verifies(algorithm, base.trim_end_matches('"').as_bytes(), &value_of(&request.headers)));
    }
}

/// Appendix B.2.1 signs nothing but its parameters, and SIG-02 refuses that.
#[test]
fn a_signature_over_nothing_is_refused() {
    let input = "sig-b21=();created=1618884473;keyid=\"test-key-rsa-pss\";nonce=\"b3k2pp5k7z-50gnwp.yemd\"";
    let refused = base_of(&test_request(input, "sig-b21=:AAAA:"), "sig-b21");
    assert_eq!(refused, Err(super::InputError::Covered.into()));
}

/// `Client-Cert` of appendix B.3.
const CLIENT_CERT: &str = ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgN\
VBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAM\
MAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3\
YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEY\
CuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmR\
jQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiE\
Ax/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:";

/// Appendix B.3: a proxy signs what it tells of its client's certificate (FWD-01).
#[test]
fn the_request_of_a_proxy_of_appendix_b_verifies() {
    let list = "(\"@path\" \"@query\" \"@method\" \"@authority\" \"client-cert\")";
    let parameters = ";created=1618884473;keyid=\"test-key-ecc-p256\"";
    let input = format!("ttrp={list}{parameters}");
    let mut request = test_request(
        &input,
        "ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==:",
    );
    request.headers.insert("host", HeaderValue::from_static("service.internal.example"));
    request.headers.insert("client-cert", HeaderValue::from_static(CLIENT_CERT));
    request.headers.remove("content-digest");
    let base = base_of(&request, "ttrp").expect("a base");
    let expected = format!(
        "\"@path\": /foo\n\"@query\": ?param=Value&Pet=dog\n\"@method\": POST\n\
         \"@authority\": service.internal.example\n\"client-cert\": {CLIENT_CERT}\n\
         \"@signature-params\": {list}{parameters}"
    );
    assert_eq!(base, expected);
    let algorithm = MessageAlgorithm::EcdsaP256Sha256;
    let verifies = |request: &Parts| {
        let base = base_of(request, "ttrp").expect("a base");
        key("test-key-ecc-p256").verifies(algorithm, base.as_bytes(), &value_of(&request.headers))
    };
    assert!(verifies(&request));
    // Another client's certificate under the proxy's signature.
    let other = CLIENT_CERT.replacen("MIIB", "MIIC", 1);
    request.headers.insert("client-cert", HeaderValue::from_str(&other).expect("a value"));
    assert!(!verifies(&request));
}

/// Appendix B.2.4.
#[test]
fn the_response_of_appendix_b_verifies() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        (
            "content-digest",
            "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:",
        ),
        ("content-length", "23"),
        (
            "signature-input",
            "sig-b24=(\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"",
        ),
        (
            "signature",
            "sig-b24=:wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==:",
        ),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let message =
        Message { control: Control::Response(StatusCode::OK, None), headers: &headers, trailers: None };
    let base = signature_base(&message, "sig-b24").expect("a base");
    assert!(base.starts_with("\"@status\": 200\n\"content-type\": application/json\n"), "{base}");
    let signature = value_of(&headers);
    assert!(key("test-key-ecc-p256").verifies(
        MessageAlgorithm::EcdsaP256Sha256,
        base.as_bytes(),
        &signature
    ));
}

/// Appendix B.4: what may happen on the way, and what may not.
#[test]
fn transformations_of_appendix_b_keep_or_break() {
    let signed = |method: &str, target: &str, host: &str, fields: &[(&str, &str)]| {
        let mut request = head(target, fields);
        request.method = method.parse().expect("a method");
        for (name, value) in [
            ("host", host),
            (
                "signature-input",
                "transform=(\"@method\" \"@path\" \"@authority\" \"accept\");created=1618884473;keyid=\"test-key-ed25519\"",
            ),
            (
                "signature",
                "transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:",
            ),
        ] {
            request.headers.insert(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        let base = base_of(&request, "transform").expect("a base");
        let signature = value_of(&request.headers);
        key("test-key-ed25519").verifies(MessageAlgorithm::Ed25519, base.as_bytes(), &signature)
    };
    let target = "/demo?name1=Value1&Name2=value2";
    let two = [("accept", "application/json"), ("accept", "*/*")];
    assert!(signed("GET", target, "example.org", &two));
    assert!(signed("GET", &format!("{target}&param=added"), "example.org", &two));
    assert!(signed(
        "GET",
        target,
        "EXAMPLE.org:443",
        &[("accept", "application/json, */*"), ("referer", "x")]
    ));
    assert!(!signed("POST", target, "example.org", &two));
    assert!(!signed("GET", target, "example.com", &two));
    assert!(!signed("GET", target, "example.org", &[("accept", "*/*"), ("accept", "application/json")]));
}

/// SIG-03, section 2.1 and 2.2: every component and parameter, by their own examples.
#[test]
fn components_are_written_as_the_standard_shows() {
    let mut request = head(
        "/path?param=value&foo=bar&baz=bat%2Dman&qux=&var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something",
        &[
            ("host", "WWW.Example.com:443"),
            ("x-ows-header", "  Leading and trailing whitespace.   "),
            ("cache-control", "max-age=60"),
            ("cache-control", "   must-revalidate"),
            ("example-dict", " a=1,    b=2;x=1;y=2,   c=(a   b    c), d"),
            ("example-header", "value, with, lots"),
            ("example-header", "of, commas"),
            ("x-empty-header", ""),
            ("signature-input", "x=()"),
            ("signature", "x=:AAAA:"),
        ],
    );
    request.method = http::Method::POST;
    let line = |request: &Parts, component: &str| -> Result<String, String> {
        let mut request = request.clone();
        let input = format!("x=({component});created=1;keyid=\"k\"");
        request.headers.insert("signature-input", input.parse().expect("a value"));
        let base = base_of(&request, "x").map_err(|error| error.to_string())?;
        Ok(base.lines().next().expect("a line").to_owned())
    };
    for (component, expected) in [
        ("\"@method\"", "POST"),
        ("\"@scheme\"", "https"),
        ("\"@authority\"", "www.example.com"),
        ("\"@path\"", "/path"),
        ("\"x-ows-header\"", "Leading and trailing whitespace."),
        ("\"cache-control\"", "max-age=60, must-revalidate"),
        ("\"example-dict\"", "a=1,    b=2;x=1;y=2,   c=(a   b    c), d"),
        ("\"example-dict\";sf", "a=1, b=2;x=1;y=2, c=(a b c), d"),
        ("\"example-dict\";key=\"a\"", "1"),
        ("\"example-dict\";key=\"d\"", "?1"),
        ("\"example-dict\";key=\"b\"", "2;x=1;y=2"),
        ("\"example-dict\";key=\"c\"", "(a b c)"),
        ("\"example-header\"", "value, with, lots, of, commas"),
        ("\"example-header\";bs", ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"),
        ("\"x-empty-header\"", ""),
        ("\"@query-param\";name=\"baz\"", "bat-man"),
        ("\"@query-param\";name=\"qux\"", ""),
        ("\"@query-param\";name=\"param\"", "value"),
        ("\"@query-param\";name=\"var\"", "this%20is%20a%20big%0Amultiline%20value"),
        ("\"@query-param\";name=\"bar\"", "with%20plus%20whitespace"),
        ("\"@query-param\";name=\"fa%C3%A7ade%22%3A%20\"", "something"),
    ] {
        assert_eq!(line(&request, component), Ok(format!("{component}: {expected}")), "{component}");
    }
    let target = request.uri.to_string();
    assert_eq!(line(&request, "\"@request-target\""), Ok(format!("\"@request-target\": {target}")));
    assert_eq!(
        line(&request, "\"@target-uri\""),
        Ok(format!("\"@target-uri\": https://www.example.com{target}"))
    );
    for bad in [
        "\"x-none\"",
        "\"@none\"",
        "\"@status\"",
        "\"X-OWS-Header\"",
        "x-ows-header",
        "\"@signature-params\"",
        "\"@method\";sf",
        "\"@method\";req",
        "\"@method\";tr",
        "\"@query-param\"",
        "\"@query-param\";name=\"none\"",
        "\"example-dict\";key=\"e\"",
        "\"example-dict\";key=a",
        "\"example-dict\";sf;bs",
        "\"example-dict\";unknown",
        "\"example-dict\";sf=?0",
        "\"example-dict\";tr",
        "\"example-dict\";name=\"a\"",
        "\"example-header\";key=\"a\"",
        "\"x-ows-header\";sf",
        "\"@method\" \"@method\"",
        "\"example-dict\";sf \"example-dict\";sf",
    ] {
        assert!(line(&request, bad).is_err(), "{bad}");
    }
    for (target, expected) in
        [("/?a=1&a=2", None), ("/?a=1&%61=2", None), ("/?a=%zz", Some("%25zz")), ("/?&a", Some(""))]
    {
        request.uri = target.parse().expect("a target");
        let written = line(&request, "\"@query-param\";name=\"a\"").ok();
        assert_eq!(
            written,
            expected.map(|value| format!("\"@query-param\";name=\"a\": {value}")),
            "{target}"
        );
    }
    request.uri = "/".parse().expect("a target");
    assert_eq!(line(&request, "\"@query\"").as_deref(), Ok("\"@query\": ?"));
    request.uri = "http://www.example.com/path?a".parse().expect("a target");
    assert_eq!(
        line(&request, "\"@request-target\"").as_deref(),
        Ok("\"@request-target\": http://www.example.com/path?a")
    );
    request.uri = "*".parse().expect("a target");
    assert_eq!(line(&request, "\"@request-target\"").as_deref(), Ok("\"@request-target\": *"));
    assert_eq!(line(&request, "\"@target-uri\"").as_deref(), Ok("\"@target-uri\": https://www.example.com"));
}

/// Sections 2.1.4 and 2.4: trailers, and the request a response answers.
#[test]
fn trailers_and_requests_are_reached_where_they_are_known() {
    let request = head("/foo", &[("host", "example.com"), ("signature", "sig1=:AAAA:")]);
    let target = Target::of(&request, "https");
    let asked = Message { control: Control::Request(&target), headers: &request.headers, trailers: None };
    let answer = head(
        "/",
        &[
            (
                "signature-input",
                "x=(\"@status\" \"@method\";req \"signature\";req;key=\"sig1\" \"expires\";tr);created=1;keyid=\"k\"",
            ),
            ("signature", "x=:AAAA:"),
        ],
    );
    let trailers = head("/", &[("expires", "Wed, 9 Nov 2022 07:28:00 GMT")]).headers;
    let control = Control::Response(StatusCode::SERVICE_UNAVAILABLE, Some(&asked));
    let message = Message { control, headers: &answer.headers, trailers: Some(&trailers) };
    let base = signature_base(&message, "x").expect("a base");
    assert!(
        base.starts_with(
            "\"@status\": 503\n\"@method\";req: GET\n\"signature\";req;key=\"sig1\": :AAAA:\n\
             \"expires\";tr: Wed, 9 Nov 2022 07:28:00 GMT\n"
        ),
        "{base}"
    );
    let control = Control::Response(StatusCode::SERVICE_UNAVAILABLE, None);
    assert!(signature_base(&Message { control, ..message }, "x").is_err());
}

fn house() -> House {
    let memory = Memory::default()
        .with("shared", STANDARD.decode(SHARED).expect("base64"))
        .with("rsa.pem", RSA)
        .with("ed.pem", ED25519);
    let mut house = House::new(issuers(&json!({}), &Memory::default(), &offline()));
    house.clients = clients_with(
        &json!({
            "acme": { "credentials": [
                { "signature": { "key_id": "acme-1", "secret": { "file": "shared" }, "algorithm": "hmac-sha256" } },
                { "signature": { "key_id": "acme-rsa", "public_key": { "file": "rsa.pem" }, "algorithm": "rsa-v1_5-sha256" } },
                { "signature": { "key_id": "test-key-rsa-pss", "public_key": { "file": "rsa.pem" }, "algorithm": "rsa-pss-sha512" } },
                { "signature": { "key_id": "test-key-ed25519", "public_key": { "file": "ed.pem" }, "algorithm": "ed25519" } },
            ] },
            "globex": { "expires": "2020-01-01", "credentials": [
                { "signature": { "key_id": "globex-1", "secret": { "file": "shared" }, "algorithm": "hmac-sha256" } },
            ] },
        }),
        &memory,
    );
    house
}

fn chain(written: &Value) -> Chain {
    house().chain(&json!({ "signature": written }))
}

/// A request whose signature is of this list and these parameters.
fn signed(method: &str, target: &str, list: &str, parameters: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = head(target, fields);
    request.method = method.parse().expect("a method");
    request.headers.entry("host").or_insert(HeaderValue::from_static("api.bank.example"));
    let input = format!("sig1=({list}){parameters}");
    request.headers.append("signature-input", input.parse().expect("a value"));
    request.headers.append("signature", HeaderValue::from_static("sig1=:AAAA:"));
    let target = Target::of(&request, "http");
    let message = Message { control: Control::Request(&target), headers: &request.headers, trailers: None };
    let base = signature_base(&message, "sig1").expect("a base");
    let secret = Secret::new(STANDARD.decode(SHARED).expect("base64"));
    let value = STANDARD.encode(KeyedHash::new(&secret).digest(base.as_bytes()));
    request.headers.insert("signature", format!("sig1=:{value}:").parse().expect("a value"));
    request
}

const LIST: &str = "\"@method\" \"@target-uri\"";
const PARAMETERS: &str = ";created=1800000000;keyid=\"acme-1\"";

async fn ask(chain: &Chain, request: &Parts) -> Result<String, &'static str> {
    ask_with(chain, request, "", NOW).await
}

#[tokio::test]
async fn a_good_signature_names_its_client() {
    let chain = chain(&json!({}));
    let good = Ok("client:acme");
    for parameters in [
        PARAMETERS,
        ";created=1799999999;expires=1800000001;keyid=\"acme-1\";alg=\"hmac-sha256\"",
        ";keyid=\"acme-1\";nonce=\"a\";created=1799999998;tag=\"x\";whatever=?0",
    ] {
        let request = signed("GET", "/orders?a=b", LIST, parameters, &[]);
        assert_eq!(ask(&chain, &request).await.as_deref(), good, "{parameters}");
    }
    // Which of several is meant has to be said.
    let mut request = signed("GET", "/orders/2", LIST, PARAMETERS, &[]);
    request
        .headers
        .append("signature-input", HeaderValue::from_static("proxy=(\"@method\");created=1;keyid=\"p\""));
    request.headers.append("signature", HeaderValue::from_static("proxy=:AAAA:"));
    assert_eq!(ask(&chain, &request).await, Err("credentials_ambiguous"));
    let accept = chain.accept_signatures();
    assert_eq!(accept, ["sig=(\"@method\" \"@target-uri\" \"content-digest\");created"]);
}

/// RFC 9421 appendix B.2.6 through the whole authenticator.
#[tokio::test]
async fn an_example_of_the_standard_is_let_in() {
    let mut house = house();
    house.replays = Replays::new(crate::testing::moment(CREATED - 600));
    let weak = ["path_only", "unbound_content"];
    let covers = ["@method", "@authority", "@path", "date"];
    let chain = house.chain(&json!({ "signature": { "covers": covers, "accept_weak": weak } }));
    let request = test_request(
        "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"",
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
    );
    assert_eq!(ask_with(&chain, &request, CONTENT, CREATED + 10).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask_with(&chain, &request, CONTENT, CREATED + 10).await, Err("signature_replayed"));
    assert_eq!(ask_with(&chain, &request, CONTENT, CREATED + 301).await, Err("signature_expired"));
}

/// One row for each way to be wrong.
#[tokio::test]
async fn a_bad_signature_is_refused_for_its_own_reason() {
    let chain = chain(&json!({}));
    for (list, parameters, code) in [
        (LIST, ";created=1799999699;keyid=\"acme-1\"", "signature_expired"),
        (LIST, ";created=1800000031;keyid=\"acme-1\"", "signature_not_yet_valid"),
        (LIST, ";created=1800000000;expires=1800000000;keyid=\"acme-1\"", "signature_expired"),
        (LIST, ";created=1800000000;keyid=\"acme-2\"", "signature_invalid"),
        (LIST, ";created=1800000000;keyid=\"acme-rsa\"", "signature_invalid"),
        (LIST, ";created=1800000000;keyid=\"acme-rsa\";alg=\"hmac-sha256\"", "signature_invalid"),
        (LIST, ";created=1800000000;keyid=\"acme-1\";alg=\"ed25519\"", "signature_invalid"),
        (LIST, ";created=1800000000;keyid=\"nobody\";alg=\"ed25519\"", "signature_invalid"),
        (LIST, ";created=1800000000;keyid=\"globex-1\"", "client_inactive"),
        (LIST, ";created=1800000000;keyid=\"acme-1\";alg=\"hmac-sha512\"", "signature_algorithm_refused"),
        (LIST, ";created=1800000000;keyid=\"acme-1\";alg=\"none\"", "signature_algorithm_refused"),
        ("\"@method\"", PARAMETERS, "signature_incomplete"),
        ("\"@target-uri\"", PARAMETERS, "signature_incomplete"),
        ("\"@method\" \"@path\" \"@query\"", PARAMETERS, "signature_incomplete"),
    ] {
        let request = signed("GET", "/orders", list, parameters, &[]);
        assert_eq!(ask(&chain, &request).await, Err(code), "{list} {parameters}");
    }
    for (input, signature, code) in [
        ("", "", "credentials_missing"),
        ("sig1=(\"@method\");created=1800000000;keyid=\"acme-1\"", "", "credentials_malformed"),
        ("", "sig1=:AAAA:", "signature_incomplete"),
        ("sig1=(\"@method\" \"@target-uri\");created=1800000000", "sig1=:AAAA:", "credentials_malformed"),
        ("sig1=(\"@method\" \"@target-uri\");keyid=\"acme-1\"", "sig1=:AAAA:", "credentials_malformed"),
        (
            "sig1=(\"@method\" \"@target-uri\");created=\"1800000000\";keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000.0;keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=acme",
            "sig1=:AAAA:",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=\"\"",
            "sig1=:AAAA:",
            "credentials_malformed",
        ),
        ("sig1=();created=1800000000;keyid=\"acme-1\"", "sig1=:AAAA:", "credentials_malformed"),
        ("sig1=\"@method\";created=1800000000;keyid=\"acme-1\"", "sig1=:AAAA:", "credentials_malformed"),
        (
            "sig1=(\"@method\" \"@method\" \"@target-uri\");created=1800000000;keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\" \"@status\");created=1800000000;keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "signature_invalid",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\" \"x-none\");created=1800000000;keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "signature_invalid",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\" \"host\";tr);created=1800000000;keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "signature_invalid",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=\"acme-1\"",
            "sig2=:AAAA:",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=\"acme-1\"",
            "sig1=\"AAAA\"",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=\"acme-1\"",
            "sig1=:A:",
            "credentials_malformed",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=\"acme-1\"",
            "sig1=::",
            "signature_invalid",
        ),
        (
            "sig1=(\"@method\" \"@target-uri\");created=1800000000;keyid=\"acme-1\"",
            "sig1=:AAAA:",
            "signature_invalid",
        ),
        ("sig1=(\"@method\"", "sig1=:AAAA:", "credentials_malformed"),
        ("\u{e9}", "sig1=:AAAA:", "credentials_malformed"),
    ] {
        let mut request = head("/orders", &[("host", "api.bank.example")]);
        for (name, value) in [("signature-input", input), ("signature", signature)] {
            if !value.is_empty() {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
                request.headers.insert(HeaderName::from_static(name), value);
            }
        }
        assert_eq!(ask(&chain, &request).await, Err(code), "{input} {signature}");
    }
    let many: Vec<_> = (0..9).map(|n| format!("s{n}=:AAAA:")).collect();
    let request = head(
        "/",
        &[("signature-input", "s0=(\"@method\");created=1;keyid=\"a\""), ("signature", &many.join(","))],
    );
    assert_eq!(ask(&chain, &request).await, Err("credentials_malformed"));
}

#[tokio::test]
async fn what_is_covered_cannot_be_changed() {
    let chain = chain(&json!({}));
    let list = "\"@method\" \"@target-uri\" \"x-amount\"";
    let good = || signed("GET", "/pay?to=bob", list, PARAMETERS, &[("x-amount", "10")]);
    let changes: [fn(&mut Parts); 7] = [
        |request| request.method = http::Method::DELETE,
        |request| request.uri = "/pay?to=eve".parse().expect("a target"),
        |request| drop(request.headers.insert("host", "other".parse().expect("a value"))),
        |request| drop(request.headers.insert("x-amount", "99".parse().expect("a value"))),
        |request| assert!(request.headers.append("x-amount", "99".parse().expect("a value"))),
        |request| drop(request.headers.remove("x-amount")),
        |request| {
            let input = request.headers["signature-input"]
                .to_str()
                .expect("text")
                .replace("created=18", "created=17");
            request.headers.insert(
                "signature-input",
                input.replace("=1700000000", "=1799999990").parse().expect("a value"),
            );
        },
    ];
    for change in changes {
        let mut request = good();
        change(&mut request);
        assert_eq!(ask(&chain, &request).await, Err("signature_invalid"), "{request:?}");
    }
    assert_eq!(ask(&chain, &good()).await.as_deref(), Ok("client:acme"));
}

/// SIG-06.
#[tokio::test]
async fn a_nonce_is_good_once_where_it_is_asked_for() {
    let chain = chain(&json!({ "nonce": "required" }));
    let request = |target: &str, parameters: &str| signed("GET", target, LIST, parameters, &[]);
    let nonce = ";created=1800000000;keyid=\"acme-1\";nonce=\"n1\"";
    assert_eq!(ask(&chain, &request("/a", nonce)).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask(&chain, &request("/a", nonce)).await, Err("signature_replayed"));
    assert_eq!(ask(&chain, &request("/b", nonce)).await, Err("signature_replayed"));
    let other = ";created=1800000000;keyid=\"acme-1\";nonce=\"n2\"";
    assert_eq!(ask(&chain, &request("/b", other)).await.as_deref(), Ok("client:acme"));
    for without in [PARAMETERS, ";created=1800000000;keyid=\"acme-1\";nonce=\"\""] {
        assert_eq!(ask(&chain, &request("/c", without)).await, Err("signature_incomplete"), "{without}");
    }
}

/// Content that takes its time, while what is over is forgotten as the background does it.
struct Slow<'a> {
    clock: &'a ManualClock,
    replays: &'a Replays,
    takes: Duration,
}

impl crate::Content for Slow<'_> {
    fn is_absent(&self) -> bool {
        false
    }

    fn read(&self, _: u64) -> crate::ContentFuture<'_> {
        self.clock.advance(self.takes);
        self.replays.sweep(Clock::Manual(self.clock.clone()).now());
        Box::pin(std::future::ready(Ok("pay".into())))
    }
}

/// Asks at the clock's time, with content that takes so many seconds.
async fn ask_slowly(
    chain: &Chain,
    request: &Parts,
    (replays, manual): (&Replays, &ManualClock),
    takes: u64,
) -> Result<String, &'static str> {
    let (worker, connection) = (WorkerTokens::new(1 << 20), connection(None));
    let clock = Clock::Manual(manual.clone());
    let content = Slow { clock: manual, replays, takes: Duration::from_secs(takes) };
    let plain = evidence(request, &connection, &worker, clock.now());
    let asked = chain.authenticate(&Evidence { content: Some(&content), clock: &clock, ..plain }).await;
    asked.map(|principal| principal.key.to_string()).map_err(|rejection| rejection.reason().code())
}

/// SIG-06: whoever sends their content slowly has the time that everybody has, and no second use.
#[tokio::test]
async fn a_signature_that_ends_while_content_is_waited_for_is_over() {
    for replay in ["refuse", "allow"] {
        let house = house();
        let chain = house.chain(&json!({ "signature": { "replay": replay } }));
        let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(b"pay")));
        let list = "\"@method\" \"@target-uri\" \"content-digest\"";
        let request = signed("POST", "/pay", list, PARAMETERS, &[("content-digest", &digest)]);
        let manual = ManualClock::at_unix_seconds(NOW);
        let ask = async |takes| ask_slowly(&chain, &request, (&house.replays, &manual), takes).await;
        assert_eq!(ask(5).await.as_deref(), Ok("client:acme"));
        manual.advance(Duration::from_secs(285));
        assert_eq!(
            ask(15).await,
            Err("signature_expired"),
            "opened after 290 seconds, and claimed after 305"
        );
        assert_eq!(house.replays.figures().held, 0);
    }
}

/// JWT-29: the same for a token beside it, which is judged before.
#[tokio::test]
async fn a_token_that_ends_while_another_credential_is_waited_for_is_over() {
    let key = SigningKey::generate(Algorithm::Es256).expect("a key");
    let entry = json!({
        "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": "ES256",
        "max_lifetime": "5m", "used_once": true, "keys": { "jwks": { "file": "keys.json" } },
    });
    let memory = Memory::default().with("keys.json", jwks(&[("k", &key)]));
    let entries = issuers(&json!({ "once": entry }), &memory, &offline());
    let house = House { clients: house().clients, ..House::new(entries) };
    let chain = house.chain(&json!({
        "all_of": [{ "jwt": { "issuer": "once" } }, { "signature": {} }], "identity_from": "jwt",
    }));
    let token =
        |jti: &str| bearer(&sign(&key, &json!({ "kid": "k" }), &json!({ "jti": jti, "exp": NOW + 100 })));
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(b"pay")));
    let request = |number: u8, token: &str| {
        let fields = [("content-digest", &*digest), ("authorization", token)];
        let list = "\"@method\" \"@target-uri\" \"content-digest\"";
        signed("POST", &format!("/pay/{number}"), list, PARAMETERS, &fields)
    };
    let manual = ManualClock::at_unix_seconds(NOW);
    let memories = (&house.replays, &manual);
    assert_eq!(
        ask_slowly(&chain, &request(1, &token("a")), memories, 5).await.as_deref(),
        Ok("jwt:once:tpp-a")
    );
    assert_eq!(ask_slowly(&chain, &request(2, &token("a")), memories, 5).await, Err("token_replayed"));
    manual.advance(Duration::from_secs(85));
    assert_eq!(ask_slowly(&chain, &request(3, &token("b")), memories, 180).await, Err("token_expired"));
}

/// SIG-01.
#[tokio::test]
async fn a_label_or_a_tag_chooses() {
    let labelled = chain(&json!({ "label": "sig1" }));
    let other = chain(&json!({ "label": "bank" }));
    let tagged = chain(&json!({ "tag": "bank-app" }));
    let plain = signed("GET", "/", LIST, PARAMETERS, &[]);
    let tag = signed("GET", "/", LIST, ";created=1800000000;keyid=\"acme-1\";tag=\"bank-app\"", &[]);
    assert_eq!(ask(&labelled, &plain).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask(&other, &plain).await, Err("signature_incomplete"));
    assert_eq!(ask(&tagged, &plain).await, Err("signature_incomplete"));
    assert_eq!(ask(&tagged, &tag).await.as_deref(), Ok("client:acme"));
    // What has another label is somebody else's business, and two of one tag are one too many.
    let beside = |request: &Parts| {
        let mut several = request.clone();
        for field in ["signature-input", "signature"] {
            let value = several.headers[field].to_str().expect("text").replacen("sig1", "other", 1);
            several.headers.append(field, value.parse().expect("a value"));
        }
        several
    };
    let again = signed("GET", "/again", LIST, PARAMETERS, &[]);
    assert_eq!(ask(&labelled, &beside(&again)).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask(&tagged, &beside(&tag)).await, Err("credentials_ambiguous"));
    assert_eq!(
        tagged.accept_signatures(),
        ["sig=(\"@method\" \"@target-uri\" \"content-digest\");created;tag=\"bank-app\""]
    );
}

/// ANS-06: nothing that a request with several signatures is told depends on which of their keys are known.
#[tokio::test]
async fn nobody_learns_which_of_several_keys_is_known() {
    let chain = chain(&json!({}));
    for first in ["acme-1", "nobody-1"] {
        for second in ["acme-1", "globex-1", "nobody-2"] {
            let good = format!(";created=1800000000;keyid=\"{first}\"");
            let mut request = signed("GET", "/", LIST, &good, &[]);
            let other = signed("GET", "/", LIST, &format!(";created=1800000000;keyid=\"{second}\""), &[]);
            for field in ["signature-input", "signature"] {
                let value = other.headers[field].to_str().expect("text").replacen("sig", "other", 1);
                request.headers.append(field, value.parse().expect("a value"));
            }
            assert_eq!(ask(&chain, &request).await, Err("credentials_ambiguous"), "{first} {second}");
        }
    }
}

/// DIG-01, SIG-02.
#[tokio::test]
async fn content_is_held_to_its_covered_digest() {
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(b"pay")));
    let list = "\"@method\" \"@target-uri\" \"content-digest\"";
    for (list, value, content, expected) in [
        (list, digest.as_str(), "pay", Ok("client:acme")),
        ("\"@method\" \"@target-uri\" \"content-digest\";bs", &digest, "pay", Ok("client:acme")),
        ("\"@method\" \"@target-uri\" \"content-digest\";sf", &digest, "pay", Ok("client:acme")),
        (LIST, &digest, "", Ok("client:acme")),
        (list, &digest, "pax", Err("digest_mismatch")),
        (list, &digest, "", Err("digest_mismatch")),
        (list, "md5=:AAAA:", "pay", Err("digest_missing")),
        (LIST, &digest, "pay", Err("digest_missing")),
        (
            "\"@method\" \"@target-uri\" \"content-digest\";key=\"sha-256\"",
            &digest,
            "pay",
            Err("digest_missing"),
        ),
        (list, "sha-256=AAAA", "pay", Err("credentials_malformed")),
    ] {
        let chain = chain(&json!({}));
        let request = signed("POST", "/pay", list, PARAMETERS, &[("content-digest", value)]);
        let said = ask_with(&chain, &request, content, NOW).await;
        assert_eq!(said.as_deref().map_err(|code| *code), expected, "{list} {value} {content}");
    }
}

#[tokio::test]
async fn authorization_is_covered_where_it_is_used() {
    let chain = chain(&json!({ "covers": ["@method", "@target-uri", "content-digest", "authorization"] }));
    let with = [("authorization", "Bearer abc")];
    let covered = "\"@method\" \"@target-uri\" \"authorization\"";
    assert_eq!(ask(&chain, &signed("GET", "/", LIST, PARAMETERS, &[])).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask(&chain, &signed("GET", "/1", LIST, PARAMETERS, &with)).await, Err("signature_incomplete"));
    assert_eq!(
        ask(&chain, &signed("GET", "/2", covered, PARAMETERS, &with)).await.as_deref(),
        Ok("client:acme")
    );
}

/// Where TLS ends in front of us, callers sign for `https`.
#[tokio::test]
async fn the_callers_scheme_can_be_told() {
    let list = "\"@method\" \"@target-uri\" \"@scheme\"";
    let request = signed("GET", "/", list, PARAMETERS, &[]);
    assert_eq!(ask(&chain(&json!({ "scheme": "http" })), &request).await.as_deref(), Ok("client:acme"));
    assert_eq!(ask(&chain(&json!({ "scheme": "https" })), &request).await, Err("signature_invalid"));
}

#[test]
fn faults_of_a_policy_are_told() {
    for (written, code, saying) in [
        (json!({ "covers": ["@method"] }), "covers_too_little", "other request"),
        (json!({ "covers": ["@target-uri"] }), "covers_too_little", "other request"),
        (json!({ "covers": ["@method", "@authority"] }), "covers_too_little", "other request"),
        (json!({ "covers": ["@method", "@authority", "@path"] }), "covers_too_little", "other query"),
        (
            json!({ "covers": ["@method", "@authority", "@path", "@query-param;name=\"a\""] }),
            "covers_too_little",
            "other query",
        ),
        (json!({ "covers": ["@method", "@path", "@query"] }), "covers_too_little", "other host"),
        (json!({ "covers": ["@method", "@request-target"] }), "covers_too_little", "other host"),
        (json!({ "covers": ["@method", "@target-uri"] }), "covers_too_little", "other content"),
        (
            json!({ "covers": ["@method", "@target-uri", "content-digest;key=\"sha-256\""] }),
            "covers_too_little",
            "other content",
        ),
        (
            json!({ "covers": ["date"], "accept_weak": ["unbound_target"] }),
            "covers_too_little",
            "other content",
        ),
        (json!({ "accept_weak": ["unbound"] }), "unknown_word", "unbound"),
        (json!({ "accept_weak": ["path_only", "path_only"] }), "twice", "twice"),
        (json!({ "algorithms": ["ed25519", "ed25519"] }), "twice", "twice"),
        (json!({ "covers": [] }), "empty", "must not be empty"),
        (json!({ "covers": ["@method", "@target-url"] }), "bad_component", "@target-url"),
        (json!({ "covers": ["@method", "@path", "@status"] }), "bad_component", "@status"),
        (json!({ "covers": ["@method", "@path", "Date"] }), "bad_component", "Date"),
        (json!({ "covers": ["@method", "@path", "x;req"] }), "bad_component", "x;req"),
        (json!({ "algorithms": ["hmac-sha512"] }), "unknown_word", "hmac-sha512"),
        (json!({ "nonce": "required", "replay": "allow" }), "contradiction", "replay: refuse"),
        (json!({ "label": "Sig 1" }), "bad_name", "label"),
        (json!({ "tag": "\u{e9}" }), "bad_name", "tag"),
        (json!({ "scheme": "ftp" }), "unknown_word", "ftp"),
        (json!({ "max_age": "1ms" }), "out_of_range", "whole seconds"),
    ] {
        let refused = house().compile(&json!({ "signature": written }), None);
        only_fault(refused.err().unwrap_or_else(|| panic!("{written} compiles")), code, saying);
    }
}

/// SIG-02: what binds a request, and what a policy can ask for by name.
#[test]
fn what_is_weak_can_be_asked_for_by_name() {
    for (covers, weak) in [
        (&["@method", "@target-uri", "content-digest"][..], &[][..]),
        (&["@method", "@target-uri", "digest"], &[]),
        (&["@method", "@authority", "@request-target", "content-digest"], &[]),
        (&["@method", "@authority", "@path", "@query", "content-digest"], &[]),
        (&["@method", "@authority", "@path", "content-digest"], &["path_only"]),
        (&["@method", "@path", "@query", "content-digest"], &["unbound_host"]),
        (&["@method", "@path"], &["unbound_host", "path_only", "unbound_content"]),
        (&["content-digest"], &["unbound_target"]),
        (&["date"], &["unbound_target", "unbound_content"]),
    ] {
        let written = |weak: &[&str]| {
            let mut written = json!({ "covers": covers });
            if !weak.is_empty() {
                written["accept_weak"] = json!(weak);
            }
            written
        };
        chain(&written(weak));
        // Each of the names is needed, and told.
        for left_out in 0..weak.len() {
            let mut less = weak.to_vec();
            less.remove(left_out);
            let refused = house().compile(&json!({ "signature": written(&less) }), None);
            let faults = refused.err().unwrap_or_else(|| panic!("{covers:?} with {less:?} compiles"));
            let fault = only_fault(faults, "covers_too_little", "would be good for any other");
            assert!(format!("{fault:?}").contains(weak[left_out]), "{fault:?}");
        }
    }
}

/// SIG-05: the key says what it is for.
#[test]
fn faults_of_a_credential_are_told() {
    let faults = |credential: Value| {
        let mut faults = portcullis_core::Faults::default();
        let mut spec = crate::ClientsSpec::default();
        let acme = json!({ "acme": { "credentials": [{ "signature": credential }] } });
        spec.read(&crate::testing::node(&acme), &mut faults);
        let memory = Memory::default()
            .with("rsa.pem", RSA)
            .with("ed.pem", ED25519)
            .with("two.pem", [RSA, P256].concat());
        drop(spec.compile(&crate::testing::registering(None, &memory), &mut faults));
        faults
    };
    let rsa = json!({ "file": "rsa.pem" });
    for (credential, code, saying) in [
        (json!({ "key_id": "a", "public_key": rsa }), "missing_key", "algorithm"),
        (
            json!({ "key_id": "a", "public_key": rsa, "algorithm": "ed25519" }),
            "key_algorithm_mismatch",
            "ed25519",
        ),
        (
            json!({ "key_id": "a", "public_key": rsa, "algorithm": "hmac-sha256" }),
            "key_algorithm_mismatch",
            "secret",
        ),
        (
            json!({ "key_id": "a", "secret": rsa, "algorithm": "rsa-pss-sha512" }),
            "key_algorithm_mismatch",
            "public_key",
        ),
        (
            json!({ "key_id": "a", "public_key": { "file": "two.pem" }, "algorithm": "ed25519" }),
            "bad_key",
            "are 2",
        ),
    ] {
        only_fault(faults(credential), code, saying);
    }
}
