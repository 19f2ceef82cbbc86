use std::sync::Arc;

use portcullis_core::{Faults, Reason, Rejection, Spanned};
use portcullis_jose::PasswordHash;
use serde_json::{Value, json};

use super::extraction::Extraction;
use super::{PasswordChecks, PasswordMemory, UserPass, UserPassError};
use crate::WorkerTokens;
use crate::issuers::Issuers;
use crate::testing::{House, NOW, ask, client_faults, clients, connection, moment, only_fault, told};

/// `U*U`, from the tests of crypt_blowfish; cheap, for tests.
const WEAK: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

fn base64(text: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn basic(text: &str) -> String {
    format!("Basic {}", base64(text.as_bytes()))
}

fn stored(password: &str) -> String {
    PasswordHash::make(password.as_bytes()).expect("randomness")
}

fn house() -> House {
    let mut house = House::new(Issuers::default());
    house.clients = clients(&json!({
        "acme": {"credentials": [
            {"basic": {"username": "acme", "password_hash": stored("se:cret: ä")}},
            {"basic": {"username": "acme-2", "password_hash": WEAK}},
        ]},
        "ended": {"expires": "2027-01-15", "credentials": [{"basic": {"username": "ended", "password_hash": WEAK}}]},
    }));
    house
}

/// BAS-01, RFC 7617 section 2.
#[test]
fn name_and_password_are_what_rfc_7617_says() {
    let parsed = |encoded: &str| {
        UserPass::parse(encoded.as_bytes())
            .map(|given| (given.user().to_owned(), String::from_utf8_lossy(given.password()).into_owned()))
    };
    let pair = |user: &str, password: &str| Ok((user.to_owned(), password.to_owned()));
    // Sections 2 and 2.1.
    assert_eq!(parsed("QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
    assert_eq!(parsed("dGVzdDoxMjPCow=="), pair("test", "123£"));
    assert_eq!(parsed(&base64("a:b:c::".as_bytes())), pair("a", "b:c::"));
    assert_eq!(parsed(&base64("a:".as_bytes())), pair("a", ""));
    assert_eq!(parsed(&base64(b":b")), pair("", "b"));
    let unnamed = |may_be_empty| UserPass::parse(base64(b":b").as_bytes())?.with_name(may_be_empty).map(drop);
    assert_eq!((unnamed(false), unnamed(true)), (Err(UserPassError::NoUser), Ok(())));
    for (encoded, expected) in [
        (base64(b"ab"), UserPassError::NoColon),
        (base64(b""), UserPassError::NoColon),
        (base64(b"a:\xff"), UserPassError::NotUtf8),
        (base64(b"a:b\0"), UserPassError::Control),
        (base64(b"a\n:b"), UserPassError::Control),
        (base64("a:\u{85}".as_bytes()), UserPassError::Control),
        (base64(b"a:\x7f"), UserPassError::Control),
        (base64(&[b'a'; 256].iter().copied().chain(*b":b").collect::<Vec<_>>()), UserPassError::TooLong),
        (base64(&[b'a'; 1600]), UserPassError::TooLong),
        // One byte, four texts: only one is base64.
        ("YTo=".replace('=', ""), UserPassError::NotBase64),
        ("YTp=".to_owned(), UserPassError::NotBase64),
        ("YTo==".to_owned(), UserPassError::NotBase64),
        ("YTo= ".to_owned(), UserPassError::NotBase64),
        ("YT o=".to_owned(), UserPassError::NotBase64),
        (base64(b"a:\xfb\xff").replace('/', "_"), UserPassError::NotBase64),
        ("YTpi,YTpi".to_owned(), UserPassError::NotBase64),
    ] {
        assert_eq!(parsed(&encoded).err(), Some(expected), "{encoded}");
    }
    assert_eq!(format!("{:?}", UserPass::parse(b"YTpi").expect("parsed")), "UserPass(redacted)");
}

/// BAS-01: a password without a name counts where the policy says so, and is its own client's there.
#[tokio::test]
async fn an_empty_name_counts_only_where_it_is_asked_for() {
    let mut house = house();
    house.clients = clients(&json!({
        "unnamed": {"credentials": [{"basic": {"username": "", "password_hash": WEAK}}]},
        "named": {"credentials": [{"basic": {"username": "named", "password_hash": WEAK}}]},
    }));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    for (written, value, expected) in [
        (json!({}), ":U*U", Err("credentials_malformed")),
        (json!({"empty_username": "refuse"}), ":U*U", Err("credentials_malformed")),
        (json!({"empty_username": "allow"}), ":U*U", Ok("client:unnamed")),
        (json!({"empty_username": "allow"}), ":wrong", Err("password_invalid")),
        (json!({"empty_username": "allow"}), "named:U*U", Ok("client:named")),
    ] {
        let chain = house.chain(&json!({ "basic": written }));
        let asked = ask(&chain, &worker, &connection, &[("authorization", &basic(value))]).await;
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{written} {value}");
    }
}

#[tokio::test]
async fn the_right_password_of_a_user_is_taken_and_no_other() {
    let chain = house().chain(&json!({"basic": {"realm": "partners"}}));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    for (value, expected) in [
        (basic("acme:se:cret: ä"), Ok("client:acme")),
        (basic("acme:se:cret: ä").replacen("Basic", "bAsIc", 1), Ok("client:acme")),
        (basic("acme-2:U*U"), Ok("client:acme")),
        (basic("acme:U*U"), Err("password_invalid")),
        (basic("acme:se"), Err("password_invalid")),
        (basic("acme:"), Err("password_invalid")),
        (basic("ACME:se:cret: ä"), Err("password_invalid")),
        (basic("nobody:se:cret: ä"), Err("password_invalid")),
        // The password of whoever stands in for a name nobody has.
        (basic("nobody:U*U"), Err("password_invalid")),
        (basic("nobody-else:U*U"), Err("password_invalid")),
        (basic("ended:U*U"), Err("client_inactive")),
        (basic("ended:wrong"), Err("password_invalid")),
        (WEAK.to_owned(), Err("credentials_missing")),
        ("Basic".to_owned(), Err("credentials_malformed")),
        ("Basic acme:U*U".to_owned(), Err("credentials_malformed")),
        (basic("acme"), Err("credentials_malformed")),
        (basic(":U*U"), Err("credentials_malformed")),
    ] {
        for _again in 0..2 {
            let asked = ask(&chain, &worker, &connection, &[("authorization", &value)]).await;
            assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{value}");
        }
    }
    let missing = Rejection::new(Reason::CredentialsMissing);
    assert_eq!(chain.challenges()[0].render(&missing), "Basic realm=\"partners\", charset=\"UTF-8\"");
}

/// Only what was right is remembered, for as long as the policy says, and only under its stored form.
#[tokio::test]
async fn a_right_password_is_remembered_for_a_short_time() {
    let house = house();
    let chain = house.chain(&json!({"basic": {"remember": "30s"}}));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    let right = basic("acme-2:U*U");
    let wrong = basic("acme-2:U*V");
    for _ in 0..3 {
        assert!(ask(&chain, &worker, &connection, &[("authorization", &right)]).await.is_ok());
        assert!(ask(&chain, &worker, &connection, &[("authorization", &wrong)]).await.is_err());
    }
    assert_eq!(worker.password_counts(), (2, 4));
    assert_eq!((house.passwords.counts().right, house.passwords.counts().wrong), (1, 3));

    // Another stored form of the same password is another password.
    let given = UserPass::parse(base64(b"acme-2:U*U").as_bytes()).expect("parsed");
    let checks = PasswordChecks::default();
    let hash = |text: &str| PasswordHash::parse(text).expect("a hash");
    let marks: Vec<_> = [WEAK, &stored("U*U")].map(|text| checks.mark(&hash(text), &given)).to_vec();
    assert!(marks[0].is_some() && marks[0] != marks[1]);
    assert_eq!(marks[0], checks.mark(&hash(WEAK), &given));
    assert_ne!(marks[0], PasswordChecks::default().mark(&hash(WEAK), &given));
}

/// SECURITY: a chain in shadow refuses nobody, so a password that was found out there must not be known where it counts.
#[tokio::test]
async fn what_was_right_in_shadow_is_checked_again_where_it_counts() {
    let house = house();
    let (trial, chain) =
        (house.chain(&json!({"mode": "shadow", "basic": {}})), house.chain(&json!({"basic": {}})));
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    let right = basic("acme-2:U*U");
    for (chain, checked) in [(&trial, 1), (&trial, 1), (&chain, 2), (&chain, 2), (&trial, 2)] {
        assert!(ask(chain, &worker, &connection, &[("authorization", &right)]).await.is_ok());
        assert_eq!(house.passwords.counts().right, checked);
    }
}

#[test]
fn what_is_remembered_ends_and_is_bounded() {
    let memory = PasswordMemory::default();
    let life = std::time::Duration::from_secs(30);
    let mark = |number: u32| {
        let mut mark = [0; 32];
        mark[..4].copy_from_slice(&number.to_be_bytes());
        mark
    };
    let now = moment(NOW);
    let later = portcullis_core::Moment { monotonic: now.monotonic + life, ..now };
    memory.remember(mark(0), now, std::time::Duration::ZERO);
    assert!(!memory.knows(&mark(0), now));
    memory.remember(mark(0), now, life);
    assert!(memory.knows(&mark(0), now) && !memory.knows(&mark(1), now));
    assert!(!memory.knows(&mark(0), later));
    for number in 1..10_000 {
        memory.remember(mark(number), now, life);
    }
    assert!(!memory.knows(&mark(0), now) && memory.knows(&mark(9_999), now));
    assert_eq!((0..10_000).filter(|number| memory.knows(&mark(*number), now)).count(), 4096);
}

/// Many requests with one password at once cost one check; more different ones than can wait are not checked.
#[tokio::test]
async fn checks_are_shared_and_bounded() {
    let checks = PasswordChecks::default();
    let memory = PasswordMemory::default();
    let hash = Arc::new(PasswordHash::parse(&stored("right")).expect("a hash"));
    let given = |text: &str| UserPass::parse(base64(text.as_bytes()).as_bytes()).expect("parsed");
    let same = given("acme:right");
    let together = tokio::join!(
        memory.verify(&checks, &hash, &same),
        memory.verify(&checks, &hash, &same),
        memory.verify(&checks, &hash, &same),
    );
    assert_eq!(together, (Ok(true), Ok(true), Ok(true)));
    assert_eq!(checks.counts().right, 1);

    let mut asked = 0;
    let busy = (0..10_000).find_map(|number| {
        asked = number;
        checks.ask(&hash, format!("{number}").as_bytes()).err()
    });
    assert!(busy.is_some_and(|busy| Rejection::from(busy).reason() == Reason::PasswordChecksBusy));
    assert!(asked >= 64 && checks.counts().busy == 1, "{asked}");
}

#[test]
fn a_name_nobody_has_always_has_the_same_stand_in() {
    let checks = PasswordChecks::default();
    let house = house();
    let users = house.clients.users();
    let stand_in = |name: &str| users.stand_in(name, &checks).map(|user| user.hash.mark().to_owned());
    let names: Vec<String> = (0..100).map(|number| format!("nobody-{number}")).collect();
    for name in &names {
        assert_eq!(stand_in(name), stand_in(name));
    }
    let different: std::collections::BTreeSet<_> = names.iter().map(|name| stand_in(name)).collect();
    assert_eq!(different.len(), 3 - 1, "two users have one stored form");
    assert!(clients(&json!({})).users().stand_in("nobody", &checks).is_none());
}

/// B6: name and password in the content.
#[test]
fn a_body_holds_one_name_and_one_password_or_none() {
    let text = |text: &str| Spanned::new(text.to_owned(), portcullis_core::Place::default());
    let extraction = Extraction::compile(
        &text("\"user\":\"([^\"]*)\""),
        &text("\"password\":\"([^\"]*)\""),
        &mut Faults::default(),
    )
    .expect("patterns");
    let read = |body: &str| {
        let read = extraction.read(body.as_bytes());
        read.map(|found| {
            found.map(|given| format!("{}|{}", given.user(), String::from_utf8_lossy(given.password())))
        })
        .map_err(|rejection| rejection.reason())
    };
    for (body, expected) in [
        (r#"{"user":"acme","password":"a:b"}"#, Ok(Some("acme|a:b".to_owned()))),
        (r#"{"password":"","user":"acme"}"#, Ok(Some("acme|".to_owned()))),
        ("", Ok(None)),
        (r#"{"name":"acme"}"#, Ok(None)),
        (r#"{"user":"acme"}"#, Err(Reason::CredentialsMalformed)),
        (r#"{"password":"b"}"#, Err(Reason::CredentialsMalformed)),
        // Whether an empty name counts is not for the patterns to say.
        (r#"{"user":"","password":"b"}"#, Ok(Some("|b".to_owned()))),
        (r#"{"user":"a:b","password":"b"}"#, Err(Reason::CredentialsMalformed)),
        ("{\"user\":\"a\nb\",\"password\":\"b\"}", Err(Reason::CredentialsMalformed)),
        (r#"{"user":"acme","password":"a","password":"b"}"#, Err(Reason::CredentialsAmbiguous)),
        (r#"{"user":"acme","user":"globex","password":"a"}"#, Err(Reason::CredentialsAmbiguous)),
    ] {
        assert_eq!(read(body), expected, "{body}");
    }
    let not_utf8 = extraction.read(b"\"user\":\"a\",\"password\":\"\xff\"");
    assert_eq!(not_utf8.map(|_| ()).map_err(|refused| refused.reason()), Err(Reason::CredentialsMalformed));
}

#[test]
fn faults_are_told_where_they_are() {
    let house = house();
    let body = |username: &str| json!({"body": {"username": username, "password": "p=(.*)"}});
    let told_by =
        |written: &Value| house.compile(&json!({"basic": written}), None).err().map(told).unwrap_or_default();
    for (written, expected) in [
        (json!({"realms": "x"}), "unknown_key: unknown key `realms` in `basic`"),
        (json!({"realm": "a\"b"}), "bad_realm: a realm is printable ASCII without `\"` and `\\`"),
        (json!({"remember": "10m"}), "out_of_range: a password that was right is remembered for at most 5m"),
        (json!({"body": {"username": "u=(.*)"}}), "missing_key: `body` needs `password`"),
        (body("u=.*"), "bad_pattern: a pattern has exactly one group, this has 0"),
        (body("(u)=(.*)"), "bad_pattern: a pattern has exactly one group, this has 2"),
        (body("u=(.*"), "bad_pattern: this is not a pattern: unclosed group"),
    ] {
        assert_eq!(told_by(&written), [expected], "{written}");
    }
    let among_others = json!({"any_of": [{"basic": body("u=(.*)")}, {"api_key": {"header": "x-api-key"}}]});
    let told = house.compile(&among_others, None).err().map(told).unwrap_or_default();
    assert_eq!(told, ["content_among_others: a credential in the body cannot be one of several ways"]);
}

#[test]
fn users_are_declared_once_and_with_a_stored_password() {
    let user = |username: &str, hash: &str| json!({"basic": {"username": username, "password_hash": hash}});
    let of = |credentials: Value| json!({"acme": {"credentials": credentials}});
    let strong = stored("x");
    for (written, code, saying) in [
        (of(json!([user("a", "secret")])), "bad_password_hash", "this is no stored password"),
        (of(json!([user("a:b", &strong)])), "bad_username", "without colon"),
        (of(json!([user("a\nb", &strong)])), "bad_username", "without colon"),
        (of(json!([user(&"a".repeat(256), &strong)])), "bad_username", "at most 255 bytes"),
        (of(json!([user("a", &strong), user("a", &strong)])), "username_twice", "two users called `a`"),
        (of(json!([{"basic": {"username": "a"}}])), "missing_key", "needs `password_hash`"),
        (of(json!([user("a", WEAK)])), "weak_password_hash", "client `acme` is stored in a form"),
    ] {
        let fault = only_fault(client_faults(&written), code, saying);
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }
    assert!(clients(&of(json!([user("a", &strong)]))).weak_passwords() == 0);
    assert!(house().clients.weak_passwords() == 2);
}
