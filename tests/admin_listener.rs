//! The admin API within reach of the network: over TLS, to those who show the token or a certificate.

use std::net::TcpStream;
use std::sync::Arc;

use http::Method;
use serde_json::json;

use crate::rig::certificates::{Authority, Leaf, set_validity};
use crate::rig::client::{Client, Session};
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::world::{HOST, PUBLIC, Plan, World};

const TOKEN: &str = "EXAMPLE-0123456789-0123456789-admin";

const TLS: &str = "certificate: { file: tls/server.pem }, key: { file: tls/server.key }";

/// The settings of `admin` behind its address, in a file for the life of the test.
fn admin(settings: String) -> &'static str {
    Box::leak(settings.into_boxed_str())
}

fn with_token() -> Plan {
    exposed(format!(", tls: {{ {TLS} }}, token: {{ file: secrets/admin-token }}"))
}

fn with_certificates(more: &str, token: bool) -> Plan {
    let token = if token { ", token: { file: secrets/admin-token }" } else { "" };
    exposed(format!(
        ", tls: {{ {TLS}, client_certificates: {{ ask: required, trust: {{ operators: {{ file: tls/operators.pem }} }}{more} }} }}{token}"
    ))
}

fn exposed(settings: String) -> Plan {
    let plan = Plan::new(&[PUBLIC]).with(|plan| {
        plan.admin_address = "0.0.0.0:0";
        plan.admin = admin(settings);
        plan.settings = "reload: { watch: false }\n".to_owned();
    });
    plan.directory.write("secrets/admin-token", TOKEN);
    plan
}

fn caller(world: &World) -> Client {
    let at = ([127, 0, 0, 1], world.gateway.admin_address().port()).into();
    Client::tls(at, HOST, &world.plan.servers)
}

fn operators(plan: &Plan) -> Authority {
    let operators = Authority::new("Operators");
    plan.directory.write("tls/operators.pem", operators.pem());
    operators
}

fn with(client: Client, leaf: Leaf) -> Client {
    client.certificate(&Arc::new(leaf))
}

/// What `check` says of these settings of `admin`.
fn faults(settings: &str) -> String {
    let plan = exposed(settings.to_owned());
    operators(&plan);
    plan.write();
    let output = portcullis(&["check", plan.directory.path().to_str().expect("a path")], &[]);
    assert_eq!(output.status.code(), Some(1), "{settings}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_would_let_anybody_in_is_refused_by_check() {
    let trust = "trust: { operators: { file: tls/operators.pem } }";
    for (settings, said) in [
        (String::new(), "admin_exposed"),
        (", token: { file: secrets/admin-token }".to_owned(), "admin_exposed"),
        (format!(", tls: {{ {TLS} }}"), "admin_exposed"),
        (format!(", tls: {{ {TLS}, client_certificates: {{ ask: never }} }}"), "admin_exposed"),
        (format!(", tls: {{ {TLS}, client_certificates: {{ ask: optional, {trust} }} }}"), "unfit_for_admin"),
        (
            format!(", tls: {{ {TLS}, client_certificates: {{ ask: required, verify: possession }} }}"),
            "unfit_for_admin",
        ),
        (
            format!(
                ", tls: {{ {TLS}, client_certificates: {{ ask: required, {trust} }}, hosts: {{ a.example: {{ client_certificates: {{ ask: never }} }} }} }}"
            ),
            "unfit_for_admin",
        ),
        (format!(", tls: {{ {TLS} }}, token: {{ file: secrets/nothing }}"), "secrets/nothing"),
        (", tls: { }, token: { file: secrets/admin-token }".to_owned(), "missing_key"),
    ] {
        let told = faults(&settings);
        assert!(told.contains(said), "{settings}: {told}");
    }
}

#[test]
fn over_tls_nothing_is_told_to_those_without_the_token() {
    let world = with_token().start();
    let client = caller(&world);
    let alive = client.get("/livez").send();
    assert_eq!((alive.status, alive.text()), (200, r#"{"alive":true}"#.to_owned()));
    for path in
        ["/readyz", "/metrics", "/v1/openapi.json", "/v1/config", "/v1/denials", "/nothing", "/livez/"]
    {
        let refused = client.get(path).send();
        assert_eq!((refused.status, refused.code()), (401, "admin_token_wrong".to_owned()), "{path}");
        let wrong = client.get(path).bearer(&TOKEN.replace('a', "b")).send();
        assert_eq!((wrong.status, wrong.code()), (401, "admin_token_wrong".to_owned()), "{path}");
    }
    for path in ["/readyz", "/metrics", "/v1/openapi.json", "/v1/config", "/v1/denials"] {
        assert_eq!(client.get(path).bearer(TOKEN).send().status, 200, "{path}");
    }
    assert_eq!(client.request(Method::POST, "/v1/reload").send().status, 401);
    assert_eq!(client.request(Method::POST, "/v1/reload").bearer(TOKEN).send().status, 200);
    // The name that is called is of no matter where a certificate proves it.
    assert_eq!(caller(&world).host("elsewhere.example").get("/readyz").bearer(TOKEN).send().status, 200);
    for (header, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let page = client.get("/v1/config").bearer(TOKEN).header(header, value).send();
        assert_eq!((page.status, page.code()), (403, "from_a_page".to_owned()), "{header}");
    }
    // In clear text nobody is answered.
    let plain = Client::plain(([127, 0, 0, 1], world.gateway.admin_address().port()).into(), "localhost");
    assert!(plain.get("/livez").attempt().is_err());
    // Nor are those who begin and do not go on, and they keep nobody else out.
    let silent: Vec<_> = (0..64)
        .filter_map(|_| TcpStream::connect(("127.0.0.1", world.gateway.admin_address().port())).ok())
        .collect();
    eventually("somebody from elsewhere is answered", || {
        caller(&world).from([127, 0, 0, 2]).get("/livez").attempt().ok().filter(|answer| answer.status == 200)
    });
    drop(silent);
}

/// Whoever knocks in vain is in the audit log, as on loopback: once, and with no word of what they sent.
#[test]
fn what_is_refused_at_the_door_is_written_down() {
    let plan = with_token().with(|plan| {
        plan.admin = admin(format!("{}, audit: data/audit.jsonl", plan.admin));
    });
    let world = plan.start();
    let client = caller(&world);
    assert_eq!(client.request(Method::POST, "/v1/clients/pck_live_EXAMPLE/keys").send().status, 401);
    let page =
        client.request(Method::POST, "/v1/reload").bearer(TOKEN).header("origin", "https://evil.example");
    assert_eq!(page.send().status, 403);
    assert_eq!(client.get("/v1/config").send().status, 401, "nothing that could change something");
    // However often, and whatever they call it: ten lines a minute at most, without their words.
    for _ in 0..20 {
        assert_eq!(client.request(Method::POST, "/livez").send().status, 401);
    }
    let own = Method::from_bytes(b"EVILWORD").expect("a method");
    assert_eq!(client.request(own, "/livez").send().status, 401);
    let bad = client.request(Method::POST, "/v1/clients").bearer(TOKEN).header("content-type", "text/plain");
    assert_eq!(bad.body("{}").send().status, 415);
    let log = std::fs::read_to_string(world.plan.directory.join("data/audit.jsonl")).expect("an audit log");
    assert!(!log.contains("pck_live") && !log.contains("evil") && !log.contains("EVILWORD"), "{log}");
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("call refused")).collect();
    assert!(refused.len() <= 11, "{log}");
    let [stranger, page, .., unfit] = *refused else { panic!("{log}") };
    assert!(stranger.contains("admin_token_wrong") && page.contains("from_a_page"), "{log}");
    assert!(unfit.contains("not_json") && unfit.contains("POST /v1/clients"), "{log}");
}

#[test]
fn a_certificate_of_the_named_authority_lets_in() {
    let plan = with_certificates("", false);
    let operators = operators(&plan);
    let world = plan.start();
    let alice = with(caller(&world), operators.client("alice"));
    for path in ["/livez", "/readyz", "/metrics", "/v1/config", "/v1/denials"] {
        assert_eq!(alice.get(path).send().status, 200, "{path}");
    }
    assert_eq!(alice.request(Method::POST, "/v1/reload").send().json()["changed"], json!(false));
    // A browser would show the certificate to any page.
    let page = alice.request(Method::POST, "/v1/drain").header("origin", "null").send();
    assert_eq!((page.status, page.code()), (403, "from_a_page".to_owned()));
    assert!(caller(&world).get("/livez").attempt().is_err(), "no certificate");
    let stranger = with(caller(&world), Authority::new("Operators").client("alice"));
    assert!(stranger.get("/livez").attempt().is_err(), "of an authority of the same name");
    let partner = with(caller(&world), world.plan.third_parties.client("tpp-a"));
    assert!(partner.get("/livez").attempt().is_err(), "what callers of APIs show");
    let server = with(caller(&world), operators.server(&["alice.example"]));
    assert!(server.get("/livez").attempt().is_err(), "a server's");
    // Who may change something is another matter where there is a token.
    let certificates = world.gateway.admin_address();
    drop(world);
    let plan = with_certificates("", true);
    plan.directory.write("tls/operators.pem", operators.pem());
    let world = plan.start();
    assert_ne!(world.gateway.admin_address(), certificates);
    let alice = with(caller(&world), operators.client("alice"));
    assert_eq!(alice.get("/metrics").send().status, 200);
    let refused = alice.get("/v1/config").send();
    assert_eq!((refused.status, refused.code()), (401, "admin_token_wrong".to_owned()));
    assert_eq!(alice.get("/v1/config").bearer(TOKEN).send().status, 200);
    assert!(caller(&world).get("/livez").bearer(TOKEN).attempt().is_err(), "the token alone");
}

#[test]
fn a_certificate_that_ends_or_is_revoked_lets_in_no_longer() {
    let revocation = ", revocation: { crls: [tls/operators.crl], reload: 1s }";
    let plan = with_certificates(revocation, false);
    let operators = operators(&plan);
    let (alice, bob) = (operators.client("alice"), operators.client("bob"));
    plan.directory.write("tls/operators.crl", operators.revocation_list(&[], 3_600));
    let world = plan.start();
    let short = operators.leaf("short", |params| set_validity(params, -60, 5));
    let held = |leaf: &Arc<Leaf>| {
        let client = caller(&world).certificate(leaf);
        (client.connect().expect("a connection"), client)
    };
    let ask = |(session, client): &mut (Session, Client)| {
        let answer = session.send(client.get("/v1/config")).expect("an answer");
        (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
    };
    let (alice, bob, short) = (Arc::new(alice), Arc::new(bob), Arc::new(short));
    let (mut of_alice, mut of_bob, mut of_short) = (held(&alice), held(&bob), held(&short));
    for held in [&mut of_alice, &mut of_bob, &mut of_short] {
        assert_eq!(ask(held).0, 200);
    }
    // On the connection that is open already.
    world.plan.directory.write("tls/operators.crl", operators.revocation_list(&[&bob], 3_600));
    let not_taken = (403, "certificate_not_taken".to_owned());
    eventually("bob is revoked", || (ask(&mut of_bob) == not_taken).then_some(()));
    assert!(caller(&world).certificate(&bob).get("/livez").attempt().is_err());
    eventually("the certificate ends", || (ask(&mut of_short) == not_taken).then_some(()));
    assert_eq!(ask(&mut of_alice).0, 200);
    // An older list takes nothing back, also where the policies are read again.
    world.plan.directory.write("tls/operators.crl", operators.revocation_list_of(-9_000, &[], 3_600));
    world.plan.directory.write("gateway.yaml", world.plan.gateway_yaml().replace("grace: 10s", "grace: 11s"));
    let reloaded = of_alice.0.send(of_alice.1.request(Method::POST, "/v1/reload")).expect("an answer");
    assert!(reloaded.status != 200 && reloaded.text().contains("operators.crl"), "{}", reloaded.text());
    assert_eq!(ask(&mut of_bob), not_taken);
}

#[test]
fn what_it_shows_and_trusts_is_read_again() {
    let plan = with_certificates("", false);
    let operators = operators(&plan);
    let world = plan.start();
    let alice = Arc::new(operators.client("alice"));
    let client = caller(&world).certificate(&alice);
    let mut held = client.connect().expect("a connection");
    let listed = held.send(client.get("/v1/certificates")).expect("an answer").json();
    let own = listed["certificates"].as_array().expect("certificates").iter();
    let own: Vec<_> = own.filter(|entry| entry["listener"] == "admin").map(|entry| &entry["file"]).collect();
    assert!(
        own.contains(&&json!("tls/operators.pem")) && own.contains(&&json!("tls/server.pem")),
        "{listed}"
    );
    // Others are trusted, and another certificate is shown.
    let (others, servers) = (Authority::new("Other operators"), Authority::new("Other servers"));
    let server = servers.server(&[HOST]);
    world.plan.directory.write("tls/operators.pem", others.pem());
    world.plan.directory.write("tls/server.pem", &server.pem).write("tls/server.key", &server.key_pem);
    let reloaded = held.send(client.request(Method::POST, "/v1/reload")).expect("an answer");
    assert_eq!(reloaded.json()["changed"], json!(true), "{}", reloaded.text());
    let refused = held.send(client.get("/v1/config")).expect("an answer");
    assert_eq!((refused.status, refused.code()), (403, "certificate_not_taken".to_owned()));
    let at = ([127, 0, 0, 1], world.gateway.admin_address().port()).into();
    let bob = with(Client::tls(at, HOST, &servers), others.client("bob"));
    assert_eq!(bob.get("/v1/config").send().status, 200);
    // Whether it speaks TLS at all is decided once.
    let yaml = world.plan.gateway_yaml();
    let plain = yaml
        .replace(world.plan.admin, ", token: { file: secrets/admin-token }")
        .replace("0.0.0.0:0", "127.0.0.1:0");
    assert_ne!(plain, yaml);
    world.plan.directory.write("gateway.yaml", plain);
    let refused = bob.request(Method::POST, "/v1/reload").send();
    assert!(refused.text().contains("admin.tls"), "{}", refused.text());
    assert_eq!(bob.get("/v1/config").send().status, 200);
}

/// The verbs speak no TLS: they take the socket, and send the token nowhere else.
#[test]
fn the_verbs_take_the_socket() {
    let plan = with_token();
    plan.directory.write("secrets/pepper", "pepper-pepper-pepper-pepper-pepper-pepper\n");
    let verb = |plan: &Plan| {
        let policies = plan.directory.path().to_str().expect("a path");
        let output = portcullis(&["client", "list", "--policies", policies], &[]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let world = plan.start();
    let (code, said) = verb(&world.plan);
    assert!(code == Some(1) && said.contains("add `socket:"), "{code:?} {said}");
    drop(world);
    let plan = with_token().with(|plan| {
        plan.admin = admin(format!("{}, socket: admin.sock", plan.admin));
    });
    let world = plan.start();
    let (code, said) = verb(&world.plan);
    assert_eq!(code, Some(0), "{said}");
}
