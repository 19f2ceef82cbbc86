//! Requests signed by RFC 9421: SIG-01 to SIG-08, DIG-01.

use portcullis_core::{Reason, Secret};
use portcullis_jose::digest::{KeyedHash, sha256};

use crate::rig::certificates::unix_now;
use crate::rig::client::{Call, Client};
use crate::rig::raw::Raw;
use crate::rig::standard_base64;
use crate::rig::world::{HOST, Plan, World};

const PAYMENTS: &str = "\
api: payments
match: { host: api.bank.example, path: /payments/* }
upstream: accounts
authenticate:
  signature: {}
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-client-id: \"{identity.name}\" }
";

const SECRET: &str = "acme-secret-acme-secret-acme-secret-0123456789";
const OTHER: &str = "initech-secret-initech-secret-initech-secret";

fn plan(apis: &[&str]) -> Plan {
    let plan = Plan::new(apis);
    plan.directory.write("secrets/acme", SECRET).write("secrets/initech", OTHER);
    plan.directory.write(
        "clients/partners.yaml",
        "clients:
  acme:
    credentials:
      - signature: { key_id: acme-1, secret: { file: ../secrets/acme }, algorithm: hmac-sha256 }
  initech:
    credentials:
      - signature: { key_id: initech-1, secret: { file: ../secrets/initech }, algorithm: hmac-sha256 }
  globex:
    expires: 2020-01-01
    credentials:
      - signature: { key_id: globex-1, secret: { file: ../secrets/acme }, algorithm: hmac-sha256 }
",
    );
    plan
}

fn world() -> World {
    plan(&[PAYMENTS]).start()
}

/// A request as it is signed, each component with its value.
#[derive(Clone)]
struct Signing {
    method: &'static str,
    target: String,
    components: Vec<(String, String)>,
    parameters: String,
    secret: &'static str,
}

impl Signing {
    fn of(method: &'static str, target: &str) -> Self {
        let components = vec![
            ("\"@method\"".to_owned(), method.to_owned()),
            ("\"@target-uri\"".to_owned(), format!("http://{HOST}{target}")),
        ];
        let parameters = format!(";created={};keyid=\"acme-1\"", unix_now());
        Self { method, target: target.to_owned(), components, parameters, secret: SECRET }
    }

    fn field(mut self, name: &str, value: impl Into<String>) -> Self {
        self.components.push((format!("\"{name}\""), value.into()));
        self
    }

    fn digest(self, content: &[u8]) -> Self {
        self.field("content-digest", format!("sha-256=:{}:", standard_base64(&sha256(content))))
    }

    fn parameters(mut self, parameters: impl Into<String>) -> Self {
        self.parameters = parameters.into();
        self
    }

    fn at(self, offset: i64) -> Self {
        let parameters = format!(";created={};keyid=\"acme-1\"", unix_now() + offset);
        self.parameters(parameters)
    }

    fn only(mut self, names: &[&str]) -> Self {
        self.components.retain(|(name, _)| names.contains(&name.trim_matches('"')));
        self
    }

    fn list(&self) -> String {
        let names: Vec<&str> = self.components.iter().map(|(name, _)| name.as_str()).collect();
        format!("({}){}", names.join(" "), self.parameters)
    }

    fn value(&self) -> String {
        let lines: Vec<_> =
            self.components.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let base = format!("{}\"@signature-params\": {}", lines.concat(), self.list());
        let secret = Secret::new(self.secret.as_bytes().to_vec());
        format!(":{}:", standard_base64(&KeyedHash::new(&secret).digest(base.as_bytes())))
    }

    fn call(&self, client: &Client) -> Call {
        let mut call = client.request(self.method.parse().expect("a method"), &self.target);
        for (name, value) in &self.components {
            let name = name.trim_matches('"');
            if !name.starts_with('@') {
                call = call.header(name, value);
            }
        }
        call.header("signature-input", &format!("sig1={}", self.list()))
            .header("signature", &format!("sig1={}", self.value()))
    }
}

#[test]
fn a_signed_request_is_let_through_under_its_clients_name() {
    let world = world();
    for (number, extra) in
        ["", ";alg=\"hmac-sha256\"", ";nonce=\"n\"", ";tag=\"t\"", ";expires=9999999999"].iter().enumerate()
    {
        let parameters = format!(";created={};keyid=\"acme-1\"{extra}", unix_now());
        let signing = Signing::of("GET", &format!("/payments/{number}?a=b&c")).parameters(parameters);
        signing.call(&world.plain()).send().assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.value("x-client-id"), "acme");
        // KEY-03: the credential goes no further.
        assert_eq!(received.values("signature"), Vec::<&str>::new());
        assert_eq!(received.values("signature-input"), Vec::<&str>::new());
    }
    // SIG-04: under TLS the target is another one, over HTTP/2 it is the same.
    for client in [world.stranger(), world.stranger().http2()] {
        let mut signing = Signing::of("GET", "/payments/tls?a=b")
            .field("x-version", format!("{}", world.upstream().hits()));
        signing.components[1].1 = format!("https://{HOST}/payments/tls?a=b");
        signing.components.push(("\"@authority\"".to_owned(), HOST.to_owned()));
        signing.components.push(("\"@scheme\"".to_owned(), "https".to_owned()));
        signing.components.push(("\"@request-target\"".to_owned(), "/payments/tls?a=b".to_owned()));
        signing.components.push(("\"@path\"".to_owned(), "/payments/tls".to_owned()));
        signing.components.push(("\"@query\"".to_owned(), "?a=b".to_owned()));
        signing.components.push(("\"host\"".to_owned(), HOST.to_owned()));
        let mut call = client.get(&signing.target).header("x-version", &signing.components[2].1);
        call = call.header("signature-input", &format!("sig1={}", signing.list()));
        call.header("signature", &format!("sig1={}", signing.value())).send().assert_passed();
    }
}

#[test]
fn every_fault_is_refused_for_its_own_reason() {
    let world = world();
    let now = unix_now();
    let get = || Signing::of("GET", "/payments/1");
    let by = |key: &str| get().parameters(format!(";created={now};keyid=\"{key}\""));
    for (signing, reason) in [
        (get().at(-302), Reason::SignatureExpired),
        (get().at(90), Reason::SignatureNotYetValid),
        (
            get().parameters(format!(";created={now};expires={now};keyid=\"acme-1\"")),
            Reason::SignatureExpired,
        ),
        (by("initech-1"), Reason::SignatureInvalid),
        (by("nobody-1"), Reason::SignatureInvalid),
        (by("globex-1"), Reason::ClientInactive),
        (Signing { secret: OTHER, ..get() }, Reason::SignatureInvalid),
        (
            get().parameters(format!(";created={now};keyid=\"acme-1\";alg=\"ed25519\"")),
            Reason::SignatureInvalid,
        ),
        (
            get().parameters(format!(";created={now};keyid=\"acme-1\";alg=\"hmac-sha1\"")),
            Reason::SignatureAlgorithmRefused,
        ),
        (get().only(&["@method"]), Reason::SignatureIncomplete),
        (get().only(&["@target-uri"]), Reason::SignatureIncomplete),
        (get().only(&[]), Reason::CredentialsMalformed),
        (get().parameters(format!(";created={now}")), Reason::CredentialsMalformed),
        (get().parameters(";keyid=\"acme-1\""), Reason::CredentialsMalformed),
        (get().parameters(format!(";created=\"{now}\";keyid=\"acme-1\"")), Reason::CredentialsMalformed),
        (get().field("@none", "x"), Reason::CredentialsMalformed),
        (get().field("@status", "200"), Reason::SignatureInvalid),
        (get().field("@method", "GET"), Reason::CredentialsMalformed),
        // What hygiene takes out at the door is not there to be covered.
        (get().field("x-forwarded-for", "192.0.2.1"), Reason::SignatureInvalid),
    ] {
        let answer = signing.call(&world.plain()).send();
        answer.assert_refused(reason);
        if reason.status() == 401 {
            assert_eq!(answer.challenges(), ["MessageSignature realm=\"payments\""]);
            // SIG-07.
            let wanted = "sig=(\"@method\" \"@target-uri\" \"content-digest\");created";
            assert_eq!(answer.header("accept-signature"), Some(wanted));
        }
    }
    let plain = world.plain();
    plain.get("/payments/1").send().assert_refused(Reason::CredentialsMissing);
    let good = get();
    let (input, value) = (format!("sig1={}", good.list()), format!("sig1={}", good.value()));
    let long = format!("sig1=:{}:", "A".repeat(20_000));
    for (inputs, values, reason) in [
        (vec![input.as_str()], vec![], Reason::CredentialsMalformed),
        (vec![], vec![value.as_str()], Reason::SignatureIncomplete),
        (vec![""], vec![""], Reason::SignatureIncomplete),
        (vec![input.as_str()], vec!["sig2=:AAAA:"], Reason::CredentialsMalformed),
        (vec![input.as_str()], vec!["sig1=AAAA"], Reason::CredentialsMalformed),
        (vec![input.as_str()], vec!["sig1=:A:"], Reason::CredentialsMalformed),
        (vec![input.as_str()], vec!["sig1=:AAAA:"], Reason::SignatureInvalid),
        (vec![input.as_str()], vec!["sig1=::"], Reason::SignatureInvalid),
        (vec![input.as_str()], vec![value.as_str(), "sig1=:AAAA:"], Reason::SignatureInvalid),
        (vec!["sig1"], vec![value.as_str()], Reason::CredentialsMalformed),
        (vec!["sig1=\"@method\""], vec![value.as_str()], Reason::CredentialsMalformed),
        (vec!["sig1=(@method)"], vec![value.as_str()], Reason::CredentialsMalformed),
        (vec!["\u{e9}"], vec![value.as_str()], Reason::CredentialsMalformed),
        (vec![input.as_str()], vec![long.as_str()], Reason::CredentialsMalformed),
    ] {
        let mut call = plain.get("/payments/1");
        for input in inputs {
            call = call.header("signature-input", input);
        }
        for value in values {
            call = call.header("signature", value);
        }
        call.send().assert_refused(reason);
    }
    world.assert_upstream_untouched();
}

#[test]
fn a_signature_is_for_one_request_and_one_time() {
    let world = world();
    let signing = Signing::of("GET", "/payments/1?to=bob").field("x-amount", "10");
    let sent = |method: &str, target: &str, amount: &str| {
        let call =
            world.plain().request(method.parse().expect("a method"), target).header("x-amount", amount);
        let call = call.header("signature-input", &format!("sig1={}", signing.list()));
        call.header("signature", &format!("sig1={}", signing.value())).send()
    };
    sent("DELETE", "/payments/1?to=bob", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/payments/1?to=eve", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/payments/2?to=bob", "10").assert_refused(Reason::SignatureInvalid);
    sent("GET", "/payments/1?to=bob", "99").assert_refused(Reason::SignatureInvalid);
    // Another host would be another API, and TLS another scheme.
    signing.call(&world.stranger()).send().assert_refused(Reason::SignatureInvalid);
    world.assert_upstream_untouched();
    sent("GET", "/payments/1?to=bob", "10").assert_passed();
    sent("GET", "/payments/1?to=bob", "10").assert_refused(Reason::SignatureReplayed);
    assert_eq!(world.upstream().hits(), 1);
}

/// SIG-06: the memory forgets what is over every five seconds; whoever opens a second request before and ends it after
/// that has no second use.
#[test]
fn a_signature_that_ends_while_content_is_sent_is_over() {
    let world = plan(&[&PAYMENTS.replace("{}", "{ max_age: 3s }")]).start();
    let signing = Signing::of("POST", "/payments/1").digest(b"pay");
    let (field, digest) = &signing.components[2];
    let head = format!(
        "POST /payments/1 HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 3\r\n{}: {digest}\r\nsignature-input: sig1={}\r\nsignature: sig1={}\r\n\r\n",
        field.trim_matches('"'),
        signing.list(),
        signing.value(),
    );
    let [mut first, mut second] = [(); 2].map(|()| Raw::connect(&world.plain()));
    second.send(&head);
    first.send(&head).send("pay").answer().assert_passed();
    std::thread::sleep(std::time::Duration::from_secs(11));
    second.send("pay").answer().assert_refused(Reason::SignatureExpired);
    assert_eq!(world.upstream().hits(), 1);
}

/// SIG-06.
#[test]
fn a_nonce_is_used_once() {
    let api = PAYMENTS.replace("{}", "{ nonce: required, tag: bank-app }");
    let world = plan(&[&api]).start();
    let with = |target: &str, parameters: &str| {
        let parameters = format!(";created={};keyid=\"acme-1\"{parameters}", unix_now());
        Signing::of("GET", target).parameters(parameters).call(&world.plain()).send()
    };
    with("/payments/1", ";nonce=\"a\";tag=\"bank-app\"").assert_passed();
    with("/payments/2", ";nonce=\"a\";tag=\"bank-app\"").assert_refused(Reason::SignatureReplayed);
    with("/payments/2", ";nonce=\"b\";tag=\"other\"").assert_refused(Reason::SignatureIncomplete);
    with("/payments/2", ";nonce=\"b\"").assert_refused(Reason::SignatureIncomplete);
    with("/payments/2", ";tag=\"bank-app\"").assert_refused(Reason::SignatureIncomplete);
    with("/payments/2", ";nonce=\"b\";tag=\"bank-app\"").assert_passed();
    assert_eq!(world.upstream().hits(), 2);
}

/// DIG-01, DIG-02.
#[test]
fn content_reaches_the_upstream_only_with_its_covered_digest() {
    let world = world();
    let body = b"{\"amount\": 10}".to_vec();
    let post = |number: u8| Signing::of("POST", &format!("/payments/{number}"));
    post(0).digest(&body).call(&world.plain()).body(body.clone()).send().assert_passed();
    assert_eq!(world.upstream().last().body, body);
    for (signing, content, reason) in [
        (post(1).digest(&body), &b"{\"amount\": 99}"[..], Reason::DigestMismatch),
        (post(2).digest(&body), b"", Reason::DigestMismatch),
        (post(3), &body, Reason::DigestMissing),
        (post(4).field("content-digest", "md5=:AAAA:"), &body, Reason::DigestMissing),
        (post(5).field("content-digest", "sha-256"), &body, Reason::CredentialsMalformed),
    ] {
        let answer = signing.call(&world.plain()).body(content.to_vec()).send();
        answer.assert_refused(reason);
        if reason != Reason::CredentialsMalformed {
            assert_eq!(answer.header("want-content-digest"), Some("sha-256=10, sha-512=3"));
        }
    }
    assert_eq!(world.upstream().hits(), 1);
    // Nobody is asked for a body whose head is refused.
    let forged = Signing { secret: OTHER, ..post(6).digest(&body) };
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!(
        "POST /payments/6 HTTP/1.1\r\nHost: {HOST}\r\nContent-Digest: {}\r\nSignature-Input: sig1={}\r\nSignature: \
         sig1={}\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n",
        forged.components[2].1,
        forged.list(),
        forged.value()
    ));
    raw.answer().assert_refused(Reason::SignatureInvalid);
    assert_eq!(world.upstream().hits(), 1);
}

/// SIG-01: what a proxy on the way has signed as well is its own business, once it is said which one is ours.
#[test]
fn a_signature_of_somebody_else_beside_it_does_no_harm_where_ours_has_a_label() {
    let labelled = PAYMENTS.replace("signature: {}", "signature: { label: sig1 }");
    let world = plan(&[&labelled]).start();
    for (number, first) in [true, false].into_iter().enumerate() {
        let signing = Signing::of("GET", &format!("/payments/{number}"));
        let own = (format!("sig1={}", signing.list()), format!("sig1={}", signing.value()));
        let other = ("proxy=(\"@method\");created=1;keyid=\"proxy\"".to_owned(), "proxy=:AAAA:".to_owned());
        let both = if first { [&own, &other] } else { [&other, &own] };
        let mut call = world.plain().get(&signing.target);
        for (input, value) in both {
            call = call.header("signature-input", input).header("signature", value);
        }
        call.send().assert_passed();
        assert_eq!(world.upstream().last().value("x-client-id"), "acme");
    }
}
