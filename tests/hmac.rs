//! Requests signed in the older form (draft-cavage-http-signatures): HMC-01, HMC-02, CAV-01, CAV-02, B8.

use std::time::Duration;

use portcullis_core::{Reason, Secret};
use portcullis_jose::digest::{KeyedHash, sha256};

use crate::rig::certificates::unix_now;
use crate::rig::client::Call;
use crate::rig::raw::Raw;
use crate::rig::standard_base64;
use crate::rig::world::{HOST, Plan, World};

const ORDERS: &str = "\
api: orders
match: { host: api.bank.example, path: /orders/* }
upstream: accounts
body: { max: 64KiB, pause: 2s }
authenticate:
  hmac: { algorithms: [hmac-sha256, rsa-sha256] }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-client-id: \"{identity.name}\" }
";

const SECRET: &str = "acme-secret-acme-secret-acme-secret-0123456789";
const OTHER: &str = "initech-secret-initech-secret-initech-secret";

fn plan(apis: &[&str]) -> Plan {
    let plan = Plan::new(apis);
    plan.directory.write("secrets/acme", format!("{SECRET}\n")).write("secrets/initech", OTHER);
    plan.directory.write(
        "clients/partners.yaml",
        "clients:
  acme:
    credentials:
      - hmac: { key_id: acme-1, secret: { file: ../secrets/acme } }
  initech:
    credentials:
      - hmac: { key_id: initech-1, secret: { file: ../secrets/initech }, algorithm: hmac-sha256 }
  globex:
    expires: 2020-01-01
    credentials:
      - hmac: { key_id: globex-1, secret: { file: ../secrets/acme } }
",
    );
    plan
}

fn world() -> World {
    plan(&[ORDERS]).start()
}

/// A date so many seconds from now.
fn date(offset: i64) -> String {
    let moment = jiff::Timestamp::from_second(unix_now() + offset).expect("a moment");
    moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A request as it is signed. Fields are signed in their order, behind the target.
#[derive(Clone)]
struct Signing<'s> {
    method: &'s str,
    target: &'s str,
    key_id: &'s str,
    secret: &'s str,
    fields: Vec<(&'s str, String)>,
    parameters: &'s str,
}

impl<'s> Signing<'s> {
    fn of(method: &'s str, target: &'s str) -> Self {
        Self {
            method,
            target,
            key_id: "acme-1",
            secret: SECRET,
            fields: vec![("date", date(0))],
            parameters: "",
        }
    }

    fn with(mut self, name: &'s str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn dated(mut self, offset: i64) -> Self {
        self.fields[0].1 = date(offset);
        self
    }

    fn digest(self, content: &[u8]) -> Self {
        self.with("digest", format!("SHA-256={}", standard_base64(&sha256(content))))
    }

    fn parameters(mut self, parameters: &'s str) -> Self {
        self.parameters = parameters;
        self
    }

    fn key(mut self, key_id: &'s str, secret: &'s str) -> Self {
        (self.key_id, self.secret) = (key_id, secret);
        self
    }

    /// What follows the scheme.
    fn credential(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| *name).collect();
        let lines: Vec<String> = self.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let base =
            format!("(request-target): {} {}\n{}", self.method.to_lowercase(), self.target, lines.join("\n"));
        let signature = KeyedHash::new(&Secret::new(self.secret.as_bytes().to_vec())).digest(base.as_bytes());
        format!(
            "keyId=\"{}\"{},headers=\"(request-target) {}\",signature=\"{}\"",
            self.key_id,
            self.parameters,
            names.join(" "),
            standard_base64(&signature)
        )
    }

    fn authorization(&self) -> String {
        format!("Signature {}", self.credential())
    }

    fn call(&self, world: &World) -> Call {
        let mut call = world.plain().request(self.method.parse().expect("a method"), self.target);
        for (name, value) in &self.fields {
            call = call.header(name, value);
        }
        call.header("authorization", &self.authorization())
    }
}

#[test]
fn a_signed_request_is_let_through_under_its_clients_name() {
    let world = world();
    for (number, scheme) in ["Signature", "HMAC", "signature", "hMaC"].into_iter().enumerate() {
        let signing = Signing::of("GET", "/orders/1?a=b&c").with("x-number", number.to_string());
        let mut call = world.plain().get(signing.target);
        for (name, value) in &signing.fields {
            call = call.header(name, value);
        }
        call.header("authorization", &format!("{scheme} {}", signing.credential())).send().assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.value("x-client-id"), "acme");
        // KEY-03: the credential goes no further.
        assert_eq!(received.values("authorization"), Vec::<&str>::new());
    }
    let encoded = Signing::of("GET", "/orders/2");
    let authorization = encoded.authorization();
    let (before, signature) = authorization.split_once("signature=\"").expect("a signature");
    let escaped = signature.replace('=', "%3d").replace('+', "%2B").replace('/', "%2f");
    world
        .plain()
        .get("/orders/2")
        .header("date", &encoded.fields[0].1)
        .header("authorization", &format!("{before}signature=\"{escaped}"))
        .send()
        .assert_passed();
    let auxiliary = Signing::of("GET", "/orders/3").with("x-aux-date", date(0));
    let auxiliary = Signing { fields: auxiliary.fields[1..].to_vec(), ..auxiliary };
    auxiliary.call(&world).header("date", &date(-9000)).send().assert_passed();
}

#[test]
fn every_fault_is_refused_for_its_own_reason() {
    let world = world();
    let get = || Signing::of("GET", "/orders/1");
    let good = get().authorization();
    let send = |authorization: &str| {
        world.plain().get("/orders/1").header("date", &date(0)).header("authorization", authorization).send()
    };
    for (signing, reason) in [
        (get().dated(-302), Reason::SignatureExpired),
        (get().dated(90), Reason::SignatureNotYetValid),
        (get().key("acme-1", OTHER), Reason::SignatureInvalid),
        (get().key("initech-1", SECRET), Reason::SignatureInvalid),
        (get().key("nobody-1", SECRET), Reason::SignatureInvalid),
        (get().key("globex-1", SECRET), Reason::ClientInactive),
        (get().parameters(",algorithm=\"hmac-sha1\""), Reason::SignatureAlgorithmRefused),
        (get().parameters(",algorithm=\"rsa-sha256\""), Reason::SignatureInvalid),
        (get().parameters(",algorithm=\"none\""), Reason::SignatureAlgorithmRefused),
        (get().parameters(",expires=1"), Reason::SignatureExpired),
        (get().parameters(",keyId=\"acme-1\""), Reason::CredentialsMalformed),
        (get().parameters(",nonce=\"1\""), Reason::CredentialsMalformed),
    ] {
        let answer = signing.call(&world).send();
        answer.assert_refused(reason);
        if reason.status() == 401 {
            let challenge = "Signature realm=\"orders\", headers=\"(request-target) date digest\"";
            assert_eq!(answer.challenges(), [challenge]);
        }
    }
    for (authorization, reason) in [
        (String::new(), Reason::CredentialsMissing),
        ("Bearer abc".to_owned(), Reason::CredentialsMissing),
        ("Signature".to_owned(), Reason::CredentialsMalformed),
        ("HMAC dGVzdA==".to_owned(), Reason::CredentialsMalformed),
        (good.replace("(request-target) date", "date"), Reason::SignatureIncomplete),
        (good.replace("(request-target) date", "(request-target)"), Reason::SignatureIncomplete),
        (good.replace("headers=\"(request-target) date\",", ""), Reason::SignatureIncomplete),
        (good.replace("(request-target) date", "(request-target) date date"), Reason::CredentialsMalformed),
        (good.replace("(request-target) date", "(request-target) date x-none"), Reason::SignatureInvalid),
        (good.replace("signature=\"", "signature=\"A"), Reason::CredentialsMalformed),
        (good.replace("signature=\"", "signature=\"AAAA"), Reason::SignatureInvalid),
        (good.replace("keyId=\"acme-1\"", "keyId=\"\""), Reason::CredentialsMalformed),
        (good.replace("keyId=\"acme-1\"", "keyId=acme-1"), Reason::CredentialsMalformed),
        (format!("{good},signature=\"AAAA\""), Reason::CredentialsMalformed),
        (format!("{good}, Signature {}", get().credential()), Reason::CredentialsMalformed),
        (good.replace("acme-1", &"k".repeat(9000)), Reason::CredentialsMalformed),
    ] {
        send(&authorization).assert_refused(reason);
    }
    let twice = get().call(&world).header("authorization", &good).send();
    twice.assert_refused(Reason::CredentialsAmbiguous);
    let dates = get().call(&world).header("date", &date(0)).send();
    dates.assert_refused(Reason::CredentialsMalformed);
    let mut other_target = get().call(&world);
    other_target = other_target.header("x-original-url", "/orders/2");
    other_target.send().assert_passed();
    assert_eq!(world.upstream().hits(), 1);
}

#[test]
fn a_signature_is_for_one_request() {
    let world = world();
    let signing = Signing::of("GET", "/orders/1?to=bob").with("x-amount", "10");
    let sent = |method: &str, target: &str, amount: &str| {
        let mut call = world.plain().request(method.parse().expect("a method"), target);
        call = call.header("date", &signing.fields[0].1).header("x-amount", amount);
        call.header("authorization", &signing.authorization()).send()
    };
    sent("DELETE", "/orders/1?to=bob", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/orders/1?to=eve", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/orders/1", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/orders/2?to=bob", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/orders/1?to=bob", "99").assert_refused(Reason::SignatureInvalid);
    world.assert_upstream_untouched();
    sent("GET", "/orders/1?to=bob", "10").assert_passed();
    // HMC-02: and for one time.
    sent("GET", "/orders/1?to=bob", "10").assert_refused(Reason::SignatureReplayed);
    assert_eq!(world.upstream().hits(), 1);
}

/// HMC-02: all workers share what has been used.
#[test]
fn a_replay_is_refused_on_every_connection() {
    let world = plan(&[ORDERS]).with(|plan| plan.settings = "workers: 4\n".to_owned()).start();
    let signing = Signing::of("GET", "/orders/1");
    let passed = (0..24).filter(|_| signing.call(&world).send().status == 200).count();
    assert_eq!(passed, 1);
    assert_eq!(world.upstream().hits(), 1);
}

/// DIG-01, DIG-02: the upstream sees no end of a body that is another.
#[test]
fn content_reaches_the_upstream_only_with_its_signed_digest() {
    let world = world();
    let body = b"{\"amount\": 10}".to_vec();
    let post = || Signing::of("POST", "/orders/1");
    post().digest(&body).call(&world).body(body.clone()).send().assert_passed();
    let received = world.upstream().last();
    assert_eq!(received.body, body);
    assert_eq!(received.value("content-length"), body.len().to_string());
    let refused = [
        (post().digest(&body).with("x-n", "1"), &b"{\"amount\": 99}"[..], Reason::DigestMismatch),
        (post().digest(&body).with("x-n", "2"), b"", Reason::DigestMismatch),
        (post().with("x-n", "3"), &body, Reason::DigestMissing),
        (post().with("digest", "MD5=AAAA"), &body, Reason::DigestMissing),
        (post().with("digest", "SHA-256=!"), &body, Reason::CredentialsMalformed),
    ];
    for (signing, content, reason) in refused {
        let answer = signing.call(&world).body(content.to_vec()).send();
        answer.assert_refused(reason);
        if reason != Reason::CredentialsMalformed {
            assert_eq!(answer.header("want-content-digest"), Some("sha-256=10, sha-512=3"));
        }
    }
    // A digest that nobody signed says nothing.
    let unsigned = format!("SHA-256={}", standard_base64(&sha256(&body)));
    let answer = post().with("x-n", "4").call(&world).header("digest", &unsigned).body(body.clone()).send();
    answer.assert_refused(Reason::DigestMissing);
    assert_eq!(world.upstream().hits(), 1);
    // Over HTTP/2 and in chunks it is the same content.
    let signing = post().digest(&body).with("x-n", "5");
    let mut call = world.stranger().http2().post(signing.target, body.clone());
    for (name, value) in &signing.fields {
        call = call.header(name, value);
    }
    call.header("authorization", &signing.authorization()).send().assert_passed();
    assert_eq!(world.upstream().last().body, body);
    let signing = post().digest(b"hello world").with("x-n", "6");
    let mut raw = Raw::connect(&world.plain());
    raw.send(head_of(&signing, "Transfer-Encoding: chunked"));
    raw.send("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    raw.answer().assert_passed();
    let received = world.upstream().last();
    assert_eq!((received.body.as_slice(), received.value("content-length")), (&b"hello world"[..], "11"));
    assert_eq!(received.values("transfer-encoding"), Vec::<&str>::new());
}

fn head_of(signing: &Signing<'_>, framing: &str) -> String {
    let fields: Vec<_> = signing.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "{} {} HTTP/1.1\r\nHost: {HOST}\r\n{}Authorization: {}\r\n{framing}\r\n\r\n",
        signing.method,
        signing.target,
        fields.concat(),
        signing.authorization()
    )
}

/// Who has no good signature cannot make the gateway read a body, and is not asked for it.
#[test]
fn a_body_is_asked_for_only_where_the_head_is_good() {
    let world = world();
    let body = b"hello";
    let post = || Signing::of("POST", "/orders/1").digest(body);
    let expecting = "Expect: 100-continue\r\nContent-Length: 5";
    for (signing, reason) in [
        (post().key("acme-1", OTHER), Reason::SignatureInvalid),
        (post().key("nobody-1", SECRET), Reason::SignatureInvalid),
        (post().dated(-1000), Reason::SignatureExpired),
    ] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(head_of(&signing, expecting));
        raw.answer().assert_refused(reason);
    }
    world.assert_upstream_untouched();
    let mut raw = Raw::connect(&world.plain());
    raw.send(head_of(&post(), expecting));
    let interim = raw.bytes(b"HTTP/1.1 100 Continue\r\n\r\n".len());
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    raw.send(body);
    raw.answer().assert_passed();
    assert_eq!(world.upstream().last().body, body);
}

/// The limits of the API's bodies hold while one is read to be judged.
#[test]
fn a_body_that_is_judged_is_held_to_the_limits() {
    let world = world();
    let large = vec![b'x'; 65_537];
    let announced = Signing::of("POST", "/orders/1").digest(&large);
    announced.call(&world).body(large.clone()).send().assert_refused(Reason::BodyTooLarge);
    let chunked = Signing::of("POST", "/orders/2").digest(&large);
    let mut raw = Raw::connect(&world.plain());
    raw.send(head_of(&chunked, "Transfer-Encoding: chunked")).send(format!("{:x}\r\n", large.len()));
    raw.send(&large).send("\r\n0\r\n\r\n");
    raw.answer().assert_refused(Reason::BodyTooLarge);
    let silent = Signing::of("POST", "/orders/3").digest(b"hello");
    let mut raw = Raw::connect(&world.plain());
    raw.wait_at_most(Duration::from_secs(20));
    raw.send(head_of(&silent, "Content-Length: 5")).send("he");
    raw.answer().assert_refused(Reason::BodyTimeout);
    world.assert_upstream_untouched();
}

#[test]
fn a_key_in_the_signature_header_is_looked_for_where_the_policy_says() {
    let api = ORDERS.replace("rsa-sha256]", "rsa-sha256], header: signature, replay: allow");
    let world = plan(&[&api]).start();
    let signing = Signing::of("GET", "/orders/1");
    let call = || world.plain().get("/orders/1").header("date", &signing.fields[0].1);
    for _ in 0..2 {
        call().header("signature", &signing.credential()).send().assert_passed();
        assert_eq!(world.upstream().last().values("signature"), Vec::<&str>::new());
    }
    call()
        .header("authorization", &signing.authorization())
        .send()
        .assert_refused(Reason::CredentialsMissing);
}

/// A restart forgets what was used, so what was signed before it is not taken.
#[test]
fn a_restart_does_not_let_a_signature_be_used_again() {
    let world = world();
    let signing = Signing::of("GET", "/orders/1");
    signing.call(&world).send().assert_passed();
    let world = world.restart();
    let before = world.upstream().hits();
    signing.call(&world).send().assert_refused(Reason::StoreUnavailable);
    assert_eq!(world.upstream().hits(), before);
    Signing::of("GET", "/orders/1").call(&world).send().assert_passed();
}

/// PIPE-05: who guesses, waits; and the guard counts by the key that is named.
#[test]
fn whoever_guesses_at_a_key_has_to_wait() {
    let world = plan(&[ORDERS]).with(|plan| plan.guard = "guard: { shared_addresses: [] }").start();
    let guess = |number: u8| {
        Signing::of("GET", "/orders/1")
            .with("x-n", number.to_string())
            .key("acme-1", OTHER)
            .call(&world)
            .send()
    };
    let waiting = (0..50).map(guess).find(|answer| answer.status == 429).expect("a wait");
    waiting.assert_refused(Reason::TooManyFailures);
    Signing::of("GET", "/orders/1").call(&world).send().assert_refused(Reason::TooManyFailures);
    world.assert_upstream_untouched();
}

#[test]
fn nothing_of_a_secret_or_a_signature_is_logged() {
    let world = world();
    let signing = Signing::of("GET", "/orders/1");
    let credential = signing.credential();
    let (_, signature) = credential.split_once("signature=\"").expect("a signature");
    signing.call(&world).send().assert_passed();
    signing.call(&world).send().assert_refused(Reason::SignatureReplayed);
    signing.clone().key("acme-1", OTHER).call(&world).send().assert_refused(Reason::SignatureInvalid);
    let (_, log) = world.gateway.stop();
    for text in [SECRET, OTHER, signature.trim_end_matches('"')] {
        assert!(!log.contains(text), "{text}");
    }
}
