//! What is done with the query, the cookies and the password of a stranger, and what must hold whatever they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderValue, Request};
use portcullis_authn::{Place, UserPass};

/// Reads the bytes as each of the three.
pub(crate) fn run(bytes: &[u8]) {
    password(bytes);
    query(bytes);
    cookies(bytes);
}

/// What is taken has exactly one spelling, and its parts are what they must be.
fn password(bytes: &[u8]) {
    let Ok(given) = UserPass::parse(bytes) else { return };
    assert!(!given.user().contains(':'));
    let password = std::str::from_utf8(given.password()).expect("UTF-8");
    assert!(!given.user().chars().chain(password.chars()).any(char::is_control));
    assert_eq!(STANDARD.encode(format!("{}:{password}", given.user())).as_bytes(), bytes);
}

/// What is found is gone when it is taken out, and the rest is what it was.
fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(request) = Request::builder().uri(format!("/a?{text}")).body(()) else { return };
    let (mut head, ()) = request.into_parts();
    let before = head.uri.query().unwrap_or_default().to_owned();
    let found = stripped(&Place::Query("key".into()), &mut head);
    assert_eq!(head.uri.path(), "/a");
    let mut pairs = before.split('&');
    for kept in head.uri.query().into_iter().flat_map(|query| query.split('&')) {
        assert!(pairs.any(|pair| pair == kept), "{kept} is new");
    }
    assert!(found || head.uri.query().unwrap_or_default().len() <= before.len());
}

fn cookies(bytes: &[u8]) {
    let mut head = Request::new(()).into_parts().0;
    for field in bytes.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(field) else { return };
        head.headers.append(COOKIE, value);
    }
    let before: Vec<Vec<u8>> = pairs(&head);
    let found = stripped(&Place::Cookie("key".into()), &mut head);
    let after = pairs(&head);
    assert!(after.len() + usize::from(found) <= before.len());
    let mut left = before.iter();
    for kept in &after {
        assert!(left.any(|pair| pair == kept), "{} is new", kept.escape_ascii());
    }
}

fn pairs(head: &Parts) -> Vec<Vec<u8>> {
    let fields = head.headers.get_all(COOKIE).iter();
    fields
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .map(|pair| pair.trim_ascii().to_owned())
        .collect()
}

/// Whether there was one credential.
fn stripped(place: &Place, head: &mut Parts) -> bool {
    let found = matches!(place.find(head), Ok(Some(_)));
    place.strip(head);
    if found {
        assert_eq!(place.find(head), Ok(None));
    }
    found
}
