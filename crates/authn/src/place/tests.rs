use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Request};

use super::{Place, PlaceError, Places};

fn head(target: &str, fields: &[(&str, &[u8])]) -> Parts {
    let mut request = Request::builder().uri(target);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value).expect("a header value"));
    }
    request.body(()).expect("a request").into_parts().0
}

fn found(place: &Place, head: &Parts) -> Result<Option<String>, PlaceError> {
    let found = place.find(head)?;
    Ok(found.map(|bytes| String::from_utf8(bytes.into_owned()).expect("text")))
}

fn some(text: &str) -> Result<Option<String>, PlaceError> {
    Ok(Some(text.to_owned()))
}

/// BRR-01, BRR-04, ANS-03.
#[test]
fn a_bearer_credential_is_one_field_one_scheme_one_value() {
    for (value, expected) in [
        (&b"Bearer abc"[..], some("abc")),
        (b"bEARER   abc", some("abc")),
        (b"Basic abc", Ok(None)),
        (b"BearerX abc", Ok(None)),
        (b"", Ok(None)),
        (b"Bear", Ok(None)),
        (b"Bearer", Err(PlaceError::Broken)),
        (b"Bearer   ", Err(PlaceError::Broken)),
        (b"Bearer\tabc", Err(PlaceError::Broken)),
        (b"Bearer,Bearer abc", Err(PlaceError::Broken)),
        (b"Basic abc, Bearer def", Err(PlaceError::Broken)),
        (b"Basic abc,\tBEARER def", Err(PlaceError::Broken)),
        (b"Digest username=\"bearer\", realm=\"x\"", Ok(None)),
    ] {
        let head = head("/", &[("authorization", value)]);
        assert_eq!(found(&Place::bearer(), &head), expected, "{}", value.escape_ascii());
    }
}

/// BRR-04, KEY-01: also when both fields say the same, and when one of them is of another scheme.
#[test]
fn a_repeated_field_is_refused() {
    let bearer = Place::bearer();
    for second in [&b"Bearer a"[..], b"Basic a"] {
        let head = head("/", &[("authorization", second), ("authorization", b"Bearer a")]);
        assert_eq!(found(&bearer, &head), Err(PlaceError::Repeated));
    }
    let key = Place::Header(HeaderName::from_static("x-api-key"));
    let twice = head("/", &[("x-api-key", b"a"), ("x-api-key", b"b")]);
    assert_eq!(found(&key, &twice), Err(PlaceError::Repeated));
    assert_eq!(found(&key, &head("/", &[("x-api-key", b"a")])), some("a"));
}

/// KEY-01.
#[test]
fn a_parameter_is_found_in_every_spelling_of_its_name() {
    let key = Place::Query("api_key".into());
    for (query, expected) in [
        ("api_key=abc", some("abc")),
        ("a=1&api_key=abc&b=2", some("abc")),
        ("a=1&API%5fKey=a%2Bb", some("a+b")),
        ("api_key=a+b", some("a+b")),
        ("api_key=a=b", some("a=b")),
        ("api_key=a?b", some("a?b")),
        ("", Ok(None)),
        ("api_key", Ok(None)),
        ("api_key=", Ok(None)),
        ("api_keys=abc&xapi_key=abc&=abc", Ok(None)),
        ("api_key=abc&api_key=abc", Err(PlaceError::Repeated)),
        ("api_key=abc&%61pi_key=def", Err(PlaceError::Repeated)),
        ("api_key=abc&api_key", Err(PlaceError::Repeated)),
        ("a=1;api_key=abc", Err(PlaceError::Unclear)),
        ("a=1;API_key", Err(PlaceError::Unclear)),
        ("api_key=abc;a=1", Err(PlaceError::Unclear)),
        ("api_key=abc&b=2;api_key=def", Err(PlaceError::Unclear)),
        ("api_key=a%2", Err(PlaceError::Unclear)),
        ("api_key=a%zz", Err(PlaceError::Unclear)),
        ("api_key%=abc", Ok(None)),
    ] {
        assert_eq!(found(&key, &head(&format!("/a?{query}"), &[])), expected, "{query}");
    }
}

/// KEY-03: nothing else of the target changes by a single byte.
#[test]
fn a_parameter_is_taken_out_alone() {
    for (target, left) in [
        ("/a?api_key=abc", "/a"),
        ("/a?api_key=abc&b=%C3%a4+1", "/a?b=%C3%a4+1"),
        ("/a?b=%c3&api_key=abc&&c", "/a?b=%c3&&c"),
        ("/a?b=1&API%5FKEY=abc", "/a?b=1"),
        ("/a?api_key=1&b&api_key=2", "/a?b"),
        ("/a?", "/a?"),
        ("/a?b=api_key", "/a?b=api_key"),
        ("/api_key=abc?b=1;c=2", "/api_key=abc?b=1;c=2"),
        ("http://bank.example/a?api_key=abc&b=1", "http://bank.example/a?b=1"),
        ("http://bank.example?api_key=abc", "http://bank.example/"),
    ] {
        let mut head = head(target, &[]);
        Place::Query("api_key".into()).strip(&mut head);
        assert_eq!(head.uri.to_string(), left, "{target}");
    }
}

/// KEY-01.
#[test]
fn a_cookie_is_one_of_all_fields() {
    let key = Place::Cookie("key".into());
    for (fields, expected) in [
        (&["key=abc"][..], some("abc")),
        (&["a=1; key=abc; b=2"], some("abc")),
        (&["a=1;key=\"abc\""], some("abc")),
        (&["a=1", "key = a=b "], some("a=b")),
        (&["key=", "a"], Ok(None)),
        (&["keys=abc; akey=abc; key"], Ok(None)),
        (&["a=key=abc"], Ok(None)),
        (&["key=abc; key=abc"], Err(PlaceError::Repeated)),
        (&["key=abc", "KEY=def"], Err(PlaceError::Repeated)),
        (&["key; key=abc"], Err(PlaceError::Repeated)),
    ] {
        let fields: Vec<_> = fields.iter().map(|field| ("cookie", field.as_bytes())).collect();
        assert_eq!(found(&key, &head("/", &fields)), expected, "{fields:?}");
    }
}

/// KEY-03.
#[test]
fn a_cookie_is_taken_out_alone() {
    for (fields, left) in [
        (&["key=abc"][..], &[][..]),
        (&["a=1; key=abc; b=\" 2\""], &["a=1; b=\" 2\""]),
        (&["key=abc; a=1"], &["a=1"]),
        (&["a=1;  b=2", "key=abc"], &["a=1;  b=2"]),
        (&["a=1; KEY=x; b"], &["a=1; b"]),
        (&["akey=abc; ;"], &["akey=abc; ;"]),
    ] {
        let fields: Vec<_> = fields.iter().map(|field| ("cookie", field.as_bytes())).collect();
        let mut head = head("/", &fields);
        Place::Cookie("key".into()).strip(&mut head);
        let now: Vec<_> =
            head.headers.get_all(COOKIE).iter().map(|field| field.to_str().expect("text")).collect();
        assert_eq!(now, left, "{fields:?}");
    }
}

/// KEY-01: exactly one value, wherever it may be.
#[test]
fn places_are_alternatives() {
    let places = Places::new([
        Place::Header(HeaderName::from_static("x-api-key")),
        Place::Query("key".into()),
        Place::Cookie("key".into()),
    ]);
    let at = |target: &str, fields: &[(&str, &[u8])]| {
        let head = head(target, fields);
        places.find(&head).map(|found| found.map(|found| found.place.described()))
    };
    assert_eq!(at("/", &[]), Ok(None));
    assert_eq!(at("/?key=a", &[]), some("query parameter `key`"));
    assert_eq!(at("/", &[("cookie", b"key=a")]), some("cookie `key`"));
    assert_eq!(at("/", &[("x-api-key", b"a")]), some("header `x-api-key`"));
    assert_eq!(at("/?key=a", &[("x-api-key", b"a")]), Err(PlaceError::Repeated));
    assert_eq!(at("/?key=a", &[("cookie", b"key=b")]), Err(PlaceError::Repeated));
}

#[test]
fn one_header_may_have_several_schemes() {
    let places = Places::new([Place::authorization("Signature"), Place::authorization("HMAC")]);
    let at = |value: &[u8]| {
        let head = head("/", &[("authorization", value)]);
        places.find(&head).map(|found| {
            found.map(|found| (found.place.clone(), String::from_utf8_lossy(&found.credential).into_owned()))
        })
    };
    let hmac = Place::Scheme(AUTHORIZATION, "hmac".into());
    assert_eq!(at(b"hmac keyId=\"a\""), Ok(Some((hmac, "keyId=\"a\"".to_owned()))));
    assert_eq!(at(b"Bearer a"), Ok(None));
    assert_eq!(at(b"Signature a, HMAC b"), Err(PlaceError::Broken));
    assert_eq!(at(b"HMAC"), Err(PlaceError::Broken));
}

/// SIG: a signature and what it covers are two fields of one credential, each possibly a list.
#[test]
fn markers_of_one_credential_do_not_contradict() {
    let marker = |name| Place::Marker(HeaderName::from_static(name));
    let places = Places::new([marker("signature-input"), marker("signature")]);
    let fields: [(&str, &[u8]); 3] =
        [("signature", b"a=:AA==:"), ("signature-input", b"a=()"), ("signature", b"b=:AA==:")];
    for count in 1..=fields.len() {
        assert!(places.are_filled(&head("/", &fields[..count])));
    }
    assert!(!places.are_filled(&head("/", &[])));
}

#[test]
fn what_cannot_be_told_apart_overlaps() {
    let header = || Place::Header(AUTHORIZATION);
    let rows = [
        (header(), Place::bearer(), true),
        (header(), header(), true),
        (Place::bearer(), Place::authorization("basic"), false),
        (Place::bearer(), Place::bearer(), true),
        (Place::Query("Key".into()), Place::Query("key".into()), true),
        (Place::Cookie("key".into()), Place::Query("key".into()), false),
        (
            Place::Marker(HeaderName::from_static("signature")),
            Place::Header(HeaderName::from_static("signature")),
            true,
        ),
        (header(), Place::Query("authorization".into()), false),
    ];
    for (one, other, expected) in rows {
        assert_eq!((one.overlaps(&other), other.overlaps(&one)), (expected, expected), "{one:?} {other:?}");
    }
}
