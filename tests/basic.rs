//! Names and passwords of declared clients (RFC 7617).

use std::time::{Duration, Instant};

use portcullis_core::{Reason, Secret};
use portcullis_jose::base64url;
use portcullis_jose::digest::KeyedHash;

use crate::rig::client::Answer;
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::raw::Raw;
use crate::rig::world::{HOST, PUBLIC, Plan, World};

const REPORTS: &str = "\
api: reports
match: { host: api.bank.example, path: /reports/* }
upstream: accounts
authenticate: { basic: { realm: partners } }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-client-id: \"{identity.name}\" }
";

const LOGIN: &str = "\
api: login
match: { host: api.bank.example, path: /login }
upstream: accounts
body: { max: 1KiB }
authenticate:
  basic: { body: { username: 'user=([^&]*)', password: 'password=([^&]*)' } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// `U*U`, from the tests of crypt_blowfish; cheap, for tests.
const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// What `portcullis hash` makes of a password.
fn stored(password: &str) -> String {
    let output = crate::rig::gateway::portcullis_reading(&["hash"], password);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().chain([0, 0].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            text.push(if place > chunk.len() { '=' } else { char::from(ALPHABET[six as usize]) });
        }
    }
    text
}

fn basic(text: &str) -> String {
    format!("Basic {}", base64(text.as_bytes()))
}

fn plan(apis: &[&str]) -> Plan {
    let plan = Plan::new(apis);
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:
  acme:
    credentials:
      - basic: {{ username: acme, password_hash: \"{}\" }}
      - basic: {{ username: acme-old, password_hash: \"{BCRYPT}\" }}
  globex:
    expires: 2020-01-01
    credentials:
      - basic: {{ username: globex, password_hash: \"{BCRYPT}\" }}
",
            stored("se:cret: \u{e4}"),
        ),
    );
    plan
}

fn ask(world: &World, value: &str) -> Answer {
    world.plain().get("/reports/1").header("authorization", value).send()
}

/// BAS-01: colons, UTF-8, a scheme in any case, both kinds of stored passwords.
#[test]
fn a_user_with_the_right_password_is_the_client() {
    let world = plan(&[REPORTS]).start();
    for value in [
        basic("acme:se:cret: \u{e4}"),
        basic("acme:se:cret: \u{e4}").replacen("Basic", "BASIC", 1),
        basic("acme-old:U*U"),
        basic("acme-old:U*U"),
    ] {
        ask(&world, &value).assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.value("x-client-id"), "acme");
        // KEY-03: the password goes no further.
        assert_eq!(received.values("authorization"), Vec::<&str>::new());
    }
    let metrics = world.gateway.admin("/metrics").text();
    for line in ["portcullis_password_checks_total{result=\"right\"}", "portcullis_weak_passwords 2"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// BAS-01, ANS-06: what strangers try.
#[test]
fn everything_else_is_refused_for_its_own_reason() {
    let world = plan(&[REPORTS]).start();
    let raw = |bytes: &[u8]| format!("Basic {}", base64(bytes));
    let good = basic("acme:se:cret: \u{e4}");
    let rows: Vec<(Vec<String>, Reason)> = vec![
        (vec![], Reason::CredentialsMissing),
        (vec![String::new()], Reason::CredentialsMissing),
        (vec!["Bearer abc".into()], Reason::CredentialsMissing),
        (vec!["Basicx YTpi".into()], Reason::CredentialsMissing),
        (vec!["Basic".into()], Reason::CredentialsMalformed),
        (vec!["Basic ".into()], Reason::CredentialsMalformed),
        (vec![good.clone(), good.clone()], Reason::CredentialsAmbiguous),
        (vec![good.clone(), "Bearer abc".into()], Reason::CredentialsAmbiguous),
        (vec![format!("Bearer abc, {good}")], Reason::CredentialsMalformed),
        (vec![format!("{good}, {good}")], Reason::CredentialsMalformed),
        (vec![format!("{good}=")], Reason::CredentialsMalformed),
        (vec!["Basic YTo".into()], Reason::CredentialsMalformed),
        (vec!["Basic YTp=".into()], Reason::CredentialsMalformed),
        (vec!["Basic a:b".into()], Reason::CredentialsMalformed),
        (vec!["Basic _-__".into()], Reason::CredentialsMalformed),
        (vec![raw(b"acme")], Reason::CredentialsMalformed),
        (vec![raw(b":U*U")], Reason::CredentialsMalformed),
        (vec![raw(b"acme:\xff")], Reason::CredentialsMalformed),
        (vec![raw(b"acme:U*U\0")], Reason::CredentialsMalformed),
        (vec![raw(b"acme:U*U\r\nx-client-id: globex")], Reason::CredentialsMalformed),
        (vec![raw(&[b'a'; 3000])], Reason::CredentialsMalformed),
        (vec![basic("acme:wrong")], Reason::PasswordInvalid),
        (vec![basic("acme:")], Reason::PasswordInvalid),
        (vec![basic("acme:se")], Reason::PasswordInvalid),
        (vec![basic("acme:U*U")], Reason::PasswordInvalid),
        (vec![basic("ACME:se:cret: \u{e4}")], Reason::PasswordInvalid),
        (vec![basic("acme-old:U*U ")], Reason::PasswordInvalid),
        (vec![basic("nobody:U*U")], Reason::PasswordInvalid),
        (vec![basic("somebody:se:cret: \u{e4}")], Reason::PasswordInvalid),
        (vec![basic(&format!("acme:{BCRYPT}"))], Reason::PasswordInvalid),
        (vec![basic("globex:U*U")], Reason::ClientInactive),
        (vec![basic("globex:U*V")], Reason::PasswordInvalid),
    ];
    for (values, reason) in rows {
        let mut call = world.plain().get("/reports/1");
        for value in &values {
            call = call.header("authorization", value);
        }
        let answer = call.send();
        answer.assert_refused(reason);
        if answer.status == 401 {
            assert_eq!(answer.challenges(), ["Basic realm=\"partners\", charset=\"UTF-8\""]);
        }
    }
    world.assert_upstream_untouched();
}

/// B6: name and password in the body, which goes on as it came.
#[test]
fn a_body_can_hold_the_password() {
    let world = plan(&[LOGIN]).start();
    let post = |body: &str| world.plain().post("/login", body.to_owned()).send();
    let good = "a=1&user=acme-old&password=U*U&b=%20";
    post(good).assert_passed();
    assert_eq!(world.upstream().last().body, good.as_bytes());
    for (body, reason) in [
        ("", Reason::CredentialsMissing),
        ("name=acme-old", Reason::CredentialsMissing),
        ("user=acme-old", Reason::CredentialsMalformed),
        ("password=U*U", Reason::CredentialsMalformed),
        ("user=&password=U*U", Reason::CredentialsMalformed),
        ("user=a:b&password=U*U", Reason::CredentialsMalformed),
        ("user=acme-old&password=U*U&password=U*V", Reason::CredentialsAmbiguous),
        ("user=acme-old&user=globex&password=U*U", Reason::CredentialsAmbiguous),
        ("user=acme-old&password=U*V", Reason::PasswordInvalid),
        ("user=nobody&password=U*U", Reason::PasswordInvalid),
        ("user=globex&password=U*U", Reason::ClientInactive),
        (&format!("user=acme-old&password=U*U&{}", "x".repeat(1024)), Reason::BodyTooLarge),
    ] {
        post(body).assert_refused(reason);
    }
    // A header is no credential here, and goes no further.
    let call = world.plain().post("/login", "").header("authorization", &basic("acme-old:U*U"));
    call.send().assert_refused(Reason::CredentialsMissing);
    assert_eq!(world.upstream().hits(), 1);
}

/// More passwords than can be checked in time are not checked, and who needs no check is not held up.
#[test]
fn a_flood_of_passwords_is_answered_503_and_holds_nobody_up() {
    let world = plan(&[REPORTS]).start();
    ask(&world, &basic("acme-old:U*U")).assert_passed();
    let (mut busy, mut invalid) = (0, 0);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..128)
            .map(|number| {
                let world = &world;
                scope.spawn(move || ask(world, &basic(&format!("acme:{number}"))))
            })
            .collect();
        for flood in floods {
            let answer = flood.join().expect("an answer");
            match answer.status {
                503 => {
                    answer.assert_refused(Reason::PasswordChecksBusy);
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    busy += 1;
                }
                _ => {
                    answer.assert_refused(Reason::PasswordInvalid);
                    invalid += 1;
                }
            }
        }
    });
    assert!(invalid >= 64, "{invalid} were checked, {busy} were not");
    ask(&world, &basic("acme-old:U*U")).assert_passed();
    assert_eq!(world.upstream().hits(), 2);
}

/// CHN-02: two good credentials of two clients do not go together.
#[test]
fn a_key_and_a_password_must_be_one_clients() {
    let api = REPORTS.replace(
        "{ basic: { realm: partners } }",
        "{ all_of: [{ api_key: { header: x-api-key } }, { basic: {} }], identity_from: api_key }",
    );
    let pepper = "pepper-pepper-pepper-pepper-pepper-pepper";
    let plan = plan(&[&api]).with(|plan| {
        plan.settings.push_str("api_keys: { pepper: { file: secrets/pepper } }\n");
    });
    plan.directory.write("secrets/pepper", pepper);
    let hash = KeyedHash::new(&Secret::new(pepper.into())).digest(b"umbrella-key");
    plan.directory.write(
        "clients/umbrella.yaml",
        format!(
            "clients:
  umbrella:
    credentials:
      - api_key: {{ hash: \"pk1:{}\" }}
      - basic: {{ username: umbrella, password_hash: \"{BCRYPT}\" }}
",
            base64url::encode(&hash)
        ),
    );
    let world = plan.start();
    let call = |user: &str| {
        let call = world.plain().get("/reports/1").header("x-api-key", "umbrella-key");
        call.header("authorization", &basic(user)).send()
    };
    call("acme-old:U*U").assert_refused(Reason::ClientsDiffer);
    call("umbrella:U*V").assert_refused(Reason::PasswordInvalid);
    world.assert_upstream_untouched();
    call("umbrella:U*U").assert_passed();
    assert_eq!(world.upstream().last().value("x-client-id"), "umbrella");
}

#[test]
fn passwords_are_in_no_log() {
    let world = plan(&[REPORTS]).start();
    ask(&world, &basic("acme:se:cret: \u{e4}")).assert_passed();
    ask(&world, &basic("acme:wrong-canary-4711"));
    ask(&world, &basic("canary-user-4711:x"));
    let metrics = world.gateway.admin("/metrics").text();
    let World { gateway, .. } = world;
    let output = gateway.output();
    let (_, log) = gateway.stop();
    for text in [metrics, output, log] {
        assert!(
            !text.contains("se:cret") && !text.contains("canary") && !text.contains("argon2id"),
            "{text}"
        );
        assert!(!text.contains(&base64("acme:se:cret: \u{e4}".as_bytes())), "{text}");
    }
}

/// The password is read from standard input, and never is an argument.
#[test]
fn hash_reads_no_argument_and_makes_what_counts() {
    assert!(stored("x").starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_ne!(stored("x"), stored("x"));
    let output = portcullis(&["hash", "x"], &[]);
    assert_eq!(output.status.code(), Some(2));
    for wrong in ["", "\n", "two\nlines"] {
        let output = crate::rig::gateway::portcullis_reading(&["hash"], wrong);
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}");
    }
}

/// A password that is slow to check delays its own request alone: the one worker serves everybody else meanwhile.
#[test]
fn a_slow_password_delays_only_its_own_request() {
    // Some twenty times the work of a usual one; nobody knows the password.
    let slow =
        "$argon2id$v=19$m=65536,t=8,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let plan = plan(&[REPORTS, PUBLIC]);
    plan.directory.write(
        "clients/slow.yaml",
        format!(
            "clients:\n  slow:\n    credentials:\n      - basic: {{ username: slow, password_hash: \"{slow}\" }}\n"
        ),
    );
    let world = plan.with(|plan| plan.settings = "workers: 1\n".to_owned()).start();
    world.plain().get("/public/1").send().assert_passed();
    let call = world.plain().get("/reports/1").header("authorization", &basic("slow:guess"));
    let waiting = std::thread::spawn(move || (call.send(), Instant::now()));
    std::thread::sleep(Duration::from_millis(100));
    for number in 0..3 {
        world.plain().get(&format!("/public/{number}")).send().assert_passed();
    }
    let others_done = Instant::now();
    let (answer, done) = waiting.join().expect("an answer");
    answer.assert_refused(Reason::PasswordInvalid);
    assert!(others_done < done, "others waited for the password");
}

/// Strangers who send their bodies up to the last byte have no more of them held than a worker has room for, and whoever
/// comes then is told to come again.
#[test]
fn content_that_strangers_keep_back_is_held_within_bounds() {
    let long = LOGIN.replace("1KiB", "80MiB");
    let world = plan(&[&long]).with(|plan| plan.settings += "workers: 1\n").start();
    let head =
        |length: usize| format!("POST /login HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {length}\r\n\r\n");
    let piece = vec![b'a'; 1 << 20];
    let mut hoarder = Raw::connect(&world.plain());
    hoarder.send(head(70 << 20));
    for _ in 0..66 {
        hoarder.send(&piece);
    }
    let good = "user=acme-old&password=U*U";
    let post = || world.plain().post("/login", good).send();
    eventually("the room is taken", || (post().status == 503).then_some(()));
    let answer = post();
    answer.assert_refused(Reason::Overloaded);
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(hoarder);
    eventually("the room is free again", || (post().status == 200).then_some(()));
}
