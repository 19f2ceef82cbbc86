use portcullis_core::{FetchError, Moment, Reason, Secret};
use portcullis_jose::{Algorithm, IntrospectionError, SigningKey};
use std::time::Duration;

use super::client::{ClientAuth, OurClient, QuestionError};
use super::question::{AskError, Blame};
use crate::discovery::DiscoveryError;
use crate::testing::NOW;

const AT: Moment = Moment { unix_ms: NOW * 1000, monotonic: Duration::ZERO };

fn question(id: &str, auth: ClientAuth) -> (Option<String>, String) {
    let client = OurClient { id: id.into(), auth };
    let asked = client.question("https://idp.example/i?x=1", "a+b/c~d", false, AT).expect("a question");
    assert!(!format!("{client:?} {asked:?}").contains("s3cret"));
    assert_eq!(asked.url, "https://idp.example/i?x=1", "the token is not in the URL");
    let field = asked.headers.get("authorization").map(|field| field.to_str().expect("text").to_owned());
    (field, String::from_utf8(asked.body.to_vec()).expect("text"))
}

/// RFC 6749 section 2.3.1: both parts are encoded like a form before they are joined.
#[test]
fn the_secret_travels_in_one_place_and_unambiguously() {
    let secret = || Secret::new("s3cret:%&+ \u{e4}".into());
    let form = "token=a%2Bb%2Fc%7Ed&token_type_hint=access_token";
    let (field, body) = question("a:b", ClientAuth::Basic(secret()));
    // `a%3Ab:s3cret%3A%25%26%2B+%C3%A4`
    assert_eq!(field.as_deref(), Some("Basic YSUzQWI6czNjcmV0JTNBJTI1JTI2JTJCKyVDMyVBNA=="));
    assert_eq!(body, form);
    let (field, body) = question("a:b", ClientAuth::Post(secret()));
    assert_eq!(field, None);
    assert_eq!(body, format!("{form}&client_id=a%3Ab&client_secret=s3cret%3A%25%26%2B+%C3%A4"));
    let (field, body) = question("gw", ClientAuth::Tls);
    assert_eq!((field, body), (None, format!("{form}&client_id=gw")));
    let key = Box::new(SigningKey::generate(Algorithm::Es256).expect("a key"));
    let auth = ClientAuth::PrivateKeyJwt { key, key_id: None, audience: "https://idp.example".into() };
    let (field, body) = question("gw", auth);
    assert_eq!(field, None);
    assert!(body.starts_with(&format!("{form}&client_id=gw&client_assertion_type=urn%3Aietf%3A")), "{body}");
}

/// What a stranger can bring about with a token shuts nobody off, and what was never asked says nothing.
#[test]
fn only_what_is_the_providers_own_fault_counts_against_it() {
    use Blame::{Nobody, Provider, Question};
    for (error, blame) in [
        (AskError::Status(204), Question),
        (AskError::Status(302), Question),
        (AskError::Status(400), Question),
        (AskError::Refused(403), Question),
        (AskError::Status(404), Question),
        (AskError::Status(405), Question),
        (AskError::Status(413), Question),
        (AskError::Status(422), Question),
        (AskError::Status(429), Provider),
        (AskError::Status(500), Question),
        (AskError::Status(501), Question),
        (AskError::Status(502), Provider),
        (AskError::Status(503), Provider),
        (AskError::Status(504), Provider),
        (AskError::Status(505), Question),
        (AskError::Status(599), Question),
        (AskError::Refused(401), Provider),
        (AskError::Kind, Question),
        (AskError::Unsigned, Question),
        (AskError::Answer(IntrospectionError::Active), Question),
        (AskError::Signature(Reason::TokenSignatureInvalid.into()), Question),
        (AskError::NotText, Nobody),
        (AskError::Lost, Nobody),
        (AskError::Question(QuestionError::Unsendable), Nobody),
        (AskError::Fetch(FetchError::TimedOut(Duration::from_secs(1))), Provider),
        (AskError::Fetch(FetchError::Connection("refused".into())), Provider),
        (AskError::Fetch(FetchError::Unanswered), Provider),
        (AskError::Fetch(FetchError::TooLarge(1)), Question),
        (AskError::Fetch(FetchError::Refused("plain http".into())), Nobody),
        (AskError::Fetch(FetchError::Unsent(Duration::from_secs(1))), Nobody),
        (AskError::Discovery(DiscoveryError::Fetch(FetchError::Unanswered)), Provider),
        (AskError::Discovery(DiscoveryError::Fetch(FetchError::Unsent(Duration::from_secs(1)))), Nobody),
        (AskError::Discovery(DiscoveryError::Status(503)), Provider),
        (AskError::Discovery(DiscoveryError::Status(404)), Nobody),
        (AskError::Discovery(DiscoveryError::OtherIssuer), Nobody),
    ] {
        assert_eq!(error.blame(), blame, "{error}");
    }
}
