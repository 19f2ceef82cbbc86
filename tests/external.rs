//! A service of the operator's own decides: over HTTP, and in Envoy's external authorization protocol against a
//! server of grpcio and the message types its authors publish.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use portcullis_core::Reason;

use crate::rig::client::{Answer, Call};
use crate::rig::interop;
use crate::rig::upstream::{Manner, Upstream};
use crate::rig::world::{PUBLIC, Plan, World};

/// An API of which `external:` says the rest.
fn api(external: &str) -> String {
    format!(
        "\
api: orders
match: {{ host: api.bank.example, path: /orders/* }}
upstream: accounts
authenticate:
  external:
{external}
identity: {{ name: [claims.nick, claims.team.name], group: claims.tier }}
allow:
  - {{ name: gold may write, methods: [POST], paths: [\"/*\"], group: gold }}
  - {{ name: scoped, methods: [DELETE], paths: [\"/*\"], scope: \"orders:write\" }}
  - {{ name: anyone known may read, methods: [GET], paths: [\"/*\"] }}
forward:
  set: {{ x-client-id: \"{{identity.name}}\" }}
"
    )
}

/// A service over HTTP that takes the credential from `x-session`.
fn over_http(service: &Upstream, more: &str) -> String {
    api(&format!(
        "    http: {{ url: \"{}/check\", http_on_loopback: true }}
    header: x-session
    subject: header.x-user
    attributes: {{ nick: header.x-user, tier: header.x-tier }}
    upstream_headers: [x-user, x-team]
{more}",
        service.url()
    ))
}

fn says(status: &str, fields: &str, body: &str) -> Manner {
    Manner::Says(
        format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
    )
}

fn allows() -> Manner {
    says("200 OK", "x-user: alice\r\nx-tier: gold\r\nx-team: blue\r\nx-secret: inner\r\n", "")
}

fn world(more: &str) -> (World, Upstream) {
    let service = Upstream::start();
    service.behave(allows());
    let world = World::with(&[&over_http(&service, more), PUBLIC]);
    (world, service)
}

fn call(world: &World) -> Call {
    world.plain().get("/orders/1?page=2").header("x-session", "s-1")
}

/// What is promised of whatever could not be checked.
fn assert_unavailable(answer: &Answer) {
    answer.assert_refused(Reason::ExternalUnavailable);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn the_service_is_told_what_the_policy_names_and_nothing_else() {
    let (world, service) = world("    tell: { headers: [x-device], certificate: true }");
    let call = world.client().get("/orders/1?page=2").header("x-session", "s-1");
    let call = call.header("x-device", "phone").header("x-other", "hidden").header("cookie", "a=b");
    let call = call.header("x-original-method", "DELETE").header("x-original-address", "203.0.113.1");
    call.header("authorization", "Bearer not-asked-for").send().assert_passed();
    let told = service.last();
    assert_eq!(told.line(), "GET /check HTTP/1.1");
    for (name, value) in [
        ("x-session", "s-1"),
        ("x-device", "phone"),
        ("x-original-method", "GET"),
        ("x-original-uri", "/orders/1?page=2"),
        ("x-original-host", "api.bank.example"),
        ("x-original-scheme", "https"),
        ("x-original-address", "127.0.0.1"),
    ] {
        assert_eq!(told.value(name), value);
    }
    let certificate = told.value("x-original-certificate");
    assert!(certificate.starts_with(':') && certificate.ends_with(':') && certificate.len() > 100);
    for name in ["x-other", "cookie", "authorization", "forwarded", "x-forwarded-for"] {
        assert_eq!(told.values(name), Vec::<&str>::new(), "{name}");
    }
    assert!(told.body.is_empty());
}

#[test]
fn the_answer_names_the_caller_and_what_goes_on() {
    let (world, service) = world("    scopes: header.x-scopes");
    call(&world).header("x_user", "eve").send().assert_passed();
    assert!(!world.upstream().last().head.contains("eve"), "{}", world.upstream().last().head);
    call(&world).header("x-user", "mallory").header("x-team", "red").send().assert_passed();
    let received = world.upstream().last();
    assert_eq!(received.value("x-user"), "alice");
    assert_eq!(received.value("x-team"), "blue");
    assert_eq!(received.value("x-client-id"), "alice");
    // Nothing else of the answer, of what the caller said in its place, or of the credential.
    for text in ["mallory", "red", "x-secret", "x-tier", "s-1"] {
        assert!(!received.head.contains(text), "{text} in {}", received.head);
    }
    world.plain().post("/orders/1", "{}").header("x-session", "s-1").send().assert_passed();
    service.behave(says("204 No Content", "x-user: bob\r\nx-tier: free\r\n", ""));
    world
        .plain()
        .post("/orders/1", "{}")
        .header("x-session", "s-2")
        .send()
        .assert_refused(Reason::AccessDenied);
    let delete = || world.plain().request(Method::DELETE, "/orders/1").header("x-session", "s-2");
    delete().send().assert_refused(Reason::ScopeInsufficient);
    service.behave(says("200 OK", "x-user: bob\r\nx-scopes: orders:read orders:write\r\n", ""));
    delete().send().assert_passed();
    assert_eq!(world.upstream().last().values("x-team"), Vec::<&str>::new());
}

#[test]
fn a_json_answer_names_the_caller_too() {
    let service = Upstream::start();
    let body =
        r#"{"sub":"carol","tier":"gold","nick":"caz","scope":["orders:write"],"team":{"name":"green"}}"#;
    service.behave(says("200 OK", "content-type: application/json; charset=utf-8\r\n", body));
    let api = api(&format!(
        "    http: {{ url: \"{}/\", http_on_loopback: true }}\n    cookie: session\n    subject: body.sub\n    scopes: body.scope",
        service.url()
    ));
    let world = World::with(&[&api]);
    let call = |method: Method| {
        world.plain().request(method, "/orders/1").header("cookie", "theme=dark; session=s-1; lang=de")
    };
    call(Method::GET).send().assert_passed();
    assert_eq!(service.last().value("cookie"), "session=s-1", "and no other cookie");
    assert_eq!(world.upstream().last().value("x-client-id"), "caz");
    assert_eq!(world.upstream().last().value("cookie"), "theme=dark; lang=de");
    call(Method::DELETE).send().assert_passed();
    service.behave(says(
        "200 OK",
        "content-type: application/json\r\n",
        "{\"sub\":\"carol\",\"sub\":\"eve\"}",
    ));
    call(Method::GET).send().assert_refused(Reason::ExternalUnavailable);
    for body in ["{}", "{\"sub\":7}", "{\"sub\":\"\"}", "{\"sub\":\"a\\nb\"}", "{\"sub\":[\"carol\"]}"] {
        service.behave(says("200 OK", "content-type: application/json\r\n", body));
        call(Method::GET).send().assert_refused(Reason::IdentityUnresolved);
    }
    assert_eq!(world.upstream().hits(), 2);
}

#[test]
fn no_credential_is_a_challenge_and_asks_nobody() {
    let (world, service) = world("");
    for call in [
        world.plain().get("/orders/1"),
        world.plain().get("/orders/1").header("x-session", ""),
        world.plain().get("/orders/1?x-session=s-1"),
        world.plain().get("/orders/1").header("x_session", "s-1"),
    ] {
        let answer = call.send();
        answer.assert_refused(Reason::CredentialsMissing);
        assert_eq!(answer.challenges(), ["External realm=\"orders\""]);
    }
    let twice = call(&world).header("x-session", "s-2").send();
    twice.assert_refused(Reason::CredentialsAmbiguous);
    assert_eq!(service.hits(), 0);
    world.assert_upstream_untouched();
}

/// PIPE-02: whatever is not a clear answer refuses, as "could not check".
#[test]
fn whatever_is_not_a_clear_answer_is_503() {
    let (world, service) = world("");
    let long = "x".repeat(2_000_000);
    let fields = format!("x-user: alice\r\nx-long: {long}\r\n");
    for (what, manner) in [
        ("a redirect", says("302 Found", "location: /login\r\nx-user: alice\r\n", "")),
        ("not found", says("404 Not Found", "x-user: alice\r\n", "")),
        ("too many", says("429 Too Many Requests", "", "")),
        ("a fault", says("500 Internal Server Error", "x-user: alice\r\n", "")),
        ("unavailable", says("503 Service Unavailable", "", "")),
        ("garbage", Manner::SaysAndLeaves(b"ok\n".to_vec())),
        ("half an answer", Manner::SaysAndLeaves(b"HTTP/1.1 200 OK\r\nx-user: al".to_vec())),
        ("half a body", Manner::SaysAndLeaves(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec())),
        ("nothing", Manner::SaysAndLeaves(Vec::new())),
        ("silence", Manner::Silent),
        ("too slow", Manner::Slow(Duration::from_secs(2))),
        ("a long body", Manner::Long(1 << 20)),
        ("long fields", says("200 OK", &fields, "")),
        ("broken JSON", says("200 OK", "x-user: alice\r\ncontent-type: application/json\r\n", "{")),
        ("a JSON list", says("200 OK", "x-user: alice\r\ncontent-type: application/json\r\n", "[]")),
    ] {
        service.behave(manner);
        let answer = call(&world).send();
        assert_eq!(answer.status, 503, "{what}: {}", answer.text());
        answer.assert_refused(Reason::ExternalUnavailable);
    }
    world.assert_upstream_untouched();
    service.behave(allows());
    call(&world).send().assert_passed();
    let World { plan, gateway, .. } = world;
    drop(service);
    drop((plan, gateway));
}

#[test]
fn a_service_that_is_not_there_is_503() {
    let gone = Upstream::start();
    let api = over_http(&gone, "").replace(&gone.url(), "http://127.0.0.1:1");
    let world = World::with(&[&api]);
    assert_unavailable(&call(&world).send());
    world.assert_upstream_untouched();
}

#[test]
fn an_answer_that_names_nobody_or_two_lets_nobody_through() {
    let (world, service) = world("");
    for fields in ["", "x-user: \r\n", "x-user: alice\r\nx-user: bob\r\n", "x-username: alice\r\n"] {
        service.behave(says("200 OK", fields, ""));
        call(&world).send().assert_refused(Reason::IdentityUnresolved);
    }
    world.assert_upstream_untouched();
}

#[test]
fn a_denial_is_ours_to_answer() {
    let (world, service) = world("");
    service.behave(says("401 Unauthorized", "www-authenticate: Session realm=\"inner\"\r\n", "inner words"));
    let answer = call(&world).send();
    answer.assert_refused(Reason::ExternalUnauthenticated);
    assert_eq!(answer.challenges(), ["External realm=\"orders\""]);
    service.behave(says("403 Forbidden", "set-cookie: a=b\r\n", "inner words"));
    let answer = call(&world).send();
    answer.assert_refused(Reason::ExternalDenied);
    assert!(answer.header("set-cookie").is_none() && !answer.text().contains("inner words"));
    world.assert_upstream_untouched();
}

#[test]
fn a_denial_is_passed_on_where_the_policy_says_so() {
    let (world, service) = world("    deny: pass");
    let fields =
        "www-authenticate: Session realm=\"inner\"\r\ncontent-type: text/html\r\nset-cookie: a=b\r\n";
    service.behave(says("401 Unauthorized", fields, "<p>log in</p>"));
    let answer = call(&world).send();
    assert_eq!((answer.status, answer.text().as_str()), (401, "<p>log in</p>"));
    assert_eq!(answer.challenges(), ["Session realm=\"inner\""]);
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("set-cookie").is_none());
    // A 401 without a challenge gets ours: RFC 9110 section 15.5.2 wants one.
    service.behave(says("401 Unauthorized", "", ""));
    assert_eq!(call(&world).send().challenges(), ["External realm=\"orders\""]);
    service.behave(says("403 Forbidden", "content-type: text/plain\r\n", "no"));
    let answer = call(&world).send();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert!(world.gateway.metric_sum("portcullis_auth_total", &["external_denied"]) >= 1.0);
    world.assert_upstream_untouched();
}

#[test]
fn the_service_sees_the_content_only_up_to_the_bound_and_all_of_it() {
    let (world, service) = world("    tell: { content: 16B }");
    let post = |body: &str| {
        let call = world.plain().post("/orders/1", body.to_owned()).header("x-session", "s-1");
        call.header("content-type", "text/plain").send()
    };
    post("sixteen bytes 16").assert_passed();
    assert_eq!(service.last().line(), "POST /check HTTP/1.1");
    assert_eq!(
        (service.last().body.as_slice(), service.last().value("content-type")),
        (&b"sixteen bytes 16"[..], "text/plain")
    );
    assert_eq!(world.upstream().last().body, b"sixteen bytes 16");
    post("seventeen bytes17").assert_refused(Reason::BodyTooLarge);
    assert_eq!((service.hits(), world.upstream().hits()), (1, 1));
}

#[test]
fn answers_are_remembered_for_their_own_time_and_never_for_somebody_else() {
    let (world, service) = world("    tell: { headers: [x-device] }\n    cache: { at_most: 1m }");
    let as_who = |user: &str, fields: &str| says("200 OK", &format!("x-user: {user}\r\n{fields}"), "");
    let ask = |session: &str, path: &str, device: &str| {
        let call = world.plain().get(path).header("x-session", session).header("x-device", device).send();
        call.assert_passed();
        world.upstream().last().value("x-user").to_owned()
    };
    service.behave(as_who("alice", "cache-control: private, max-age=60\r\n"));
    for _ in 0..40 {
        assert_eq!(ask("s-1", "/orders/1", "phone"), "alice");
    }
    // Each worker remembers for itself.
    let asked = service.hits();
    assert!(asked < 20, "{asked}");
    service.behave(as_who("bob", "cache-control: no-store, max-age=60\r\n"));
    for (session, path, device) in [
        ("s-2", "/orders/1", "phone"),
        ("s-1", "/orders/2", "phone"),
        ("s-1", "/orders/1", "tablet"),
        ("s-1", "/orders/1", ""),
        ("S-1", "/orders/1", "phone"),
    ] {
        for _ in 0..3 {
            assert_eq!(ask(session, path, device), "bob", "{session} {path} {device}");
        }
    }
    assert_eq!(service.hits(), asked + 15, "what is not to be kept is asked every time");
    // Without a time of its own an answer counts once.
    service.behave(as_who("carol", ""));
    let before = service.hits();
    for _ in 0..3 {
        ask("s-3", "/orders/1", "phone");
    }
    assert_eq!(service.hits(), before + 3);
}

#[test]
fn a_denial_is_never_remembered() {
    let (world, service) = world("    cache: { at_most: 1m, unstated: 1m }");
    service.behave(says("403 Forbidden", "cache-control: max-age=60\r\n", ""));
    call(&world).send().assert_refused(Reason::ExternalDenied);
    service.behave(allows());
    call(&world).send().assert_passed();
}

/// A slow service delays only the requests that need its word.
#[test]
fn a_slow_service_delays_only_its_own_requests() {
    let service = Upstream::start();
    service.behave(Manner::Slow(Duration::from_secs(3)));
    let world = Plan::new(&[&over_http(&service, "    timeout: 10s"), PUBLIC])
        .with(|plan| plan.settings = "workers: 1\n".to_owned())
        .start();
    let slow = call(&world);
    let waiting = std::thread::spawn(move || (slow.send(), Instant::now()));
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..20 {
        world.plain().get("/public/1").send().assert_passed();
    }
    let done = Instant::now();
    let (answer, answered) = waiting.join().expect("an answer");
    assert!(answered > done, "the only worker was held up");
    assert_eq!(answer.status, 403, "the rig's polite answer names nobody: {}", answer.text());
}

/// Neither the credential nor what the service says ends up where somebody reads it.
#[test]
fn credentials_are_in_no_log() {
    let (world, service) = world("    tell: { headers: [x-device] }");
    service.behave(says("500 Oops", "", "inner words"));
    call(&world).header("x-device", "device-secret").send().assert_refused(Reason::ExternalUnavailable);
    let text = world.gateway.admin("/metrics").text() + &world.gateway.output() + &world.gateway.log();
    for secret in ["s-1", "device-secret", "inner words"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// The server, ended with the test.
struct Authz {
    child: Child,
    port: u16,
}

impl Authz {
    fn start(arguments: &[&std::path::Path]) -> Self {
        let mut command = interop::python("authz_server.py");
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        Self { child, port: line.trim().parse().expect("a port") }
    }
}

impl Drop for Authz {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn over_grpc(service: &str, more: &str) -> String {
    api(&format!(
        "    grpc: {service}
    header: x-session
    subject: header.x-user
    scopes: body.scope
    timeout: 1s
    upstream_headers: [x-user, x-saw, x-saw-headers, x-saw-address, x-saw-body, x-saw-context, x-saw-sni, x-saw-principal, x-saw-certificate, x-calls]
{more}"
    ))
}

fn plain_grpc(authz: &Authz, more: &str) -> String {
    over_grpc(&format!("{{ url: \"http://127.0.0.1:{}\", http_on_loopback: true }}", authz.port), more)
}

fn session(world: &World, session: &str) -> Call {
    world.plain().get("/orders/1?page=2").header("x-session", session)
}

#[test]
fn a_grpc_server_nobody_here_wrote_decides() {
    let authz = Authz::start(&[]);
    let api = plain_grpc(
        &authz,
        "    tell: { headers: [x-device], content: 1KiB, context: { api: orders-v1 }, certificate: true }",
    );
    let world = World::with(&[&api]);
    session(&world, "alice").header("x-device", "phone").header("x-other", "hidden").send().assert_passed();
    let received = world.upstream().last();
    for (name, value) in [
        ("x-user", "alice"),
        ("x-client-id", "blue"),
        ("x-saw", "GET /orders/1?page=2 api.bank.example http HTTP/1.1"),
        ("x-saw-headers", ":authority,:method,:path,:scheme,x-device,x-session"),
        ("x-saw-address", "127.0.0.1"),
        ("x-saw-context", "orders-v1"),
    ] {
        assert_eq!(received.value(name), value, "{name}");
    }
    assert_eq!(received.values("x-not-asked-for"), Vec::<&str>::new());
    world.client().get("/orders/1").header("x-session", "alice").send().assert_passed();
    let received = world.upstream().last();
    assert_eq!(received.value("x-saw-sni"), "api.bank.example");
    assert!(received.value("x-saw-principal").contains("tpp-a"), "{}", received.head);
    assert!(received.value("x-saw-certificate").starts_with("-----BEGIN%20CERTIFICATE-----%0A"));
    // Metadata grants scopes; the one that is needed is not among them.
    let delete = world.plain().request(Method::DELETE, "/orders/1").header("x-session", "alice");
    delete.send().assert_refused(Reason::ScopeInsufficient);
    let hits = world.upstream().hits();
    for (who, reason) in [
        ("nobody", Reason::IdentityUnresolved),
        ("expired", Reason::ExternalUnauthenticated),
        ("forbidden", Reason::ExternalDenied),
        ("unauthenticated", Reason::ExternalUnauthenticated),
        ("teapot", Reason::ExternalUnavailable),
        ("broken", Reason::ExternalUnavailable),
        ("abort", Reason::ExternalUnavailable),
        ("slow", Reason::ExternalUnavailable),
    ] {
        let answer = session(&world, who).send();
        answer.assert_refused(reason);
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    assert_eq!(world.upstream().hits(), hits);
    drop(authz);
    assert_unavailable(&session(&world, "alice").send());
}

#[test]
fn a_denial_of_a_grpc_server_is_passed_on_where_the_policy_says_so() {
    let authz = Authz::start(&[]);
    let world = World::with(&[&plain_grpc(&authz, "    deny: pass")]);
    let answer = session(&world, "expired").send();
    assert_eq!((answer.status, answer.text().as_str()), (401, "log in again\n"));
    assert_eq!(answer.challenges(), ["Session realm=\"authz\""]);
    world.assert_upstream_untouched();
}

#[test]
fn answers_of_a_grpc_server_are_remembered_as_it_says() {
    let authz = Authz::start(&[]);
    let api = plain_grpc(&authz, "    cache: { at_most: 1m }");
    let world = Plan::new(&[&api]).with(|plan| plan.settings = "workers: 1\n".to_owned()).start();
    let calls = |who: &str| {
        session(&world, who).send().assert_passed();
        world.upstream().last().value("x-calls").to_owned()
    };
    assert_eq!((calls("remember"), calls("remember")), ("1".to_owned(), "1".to_owned()));
    assert_eq!((calls("alice"), calls("alice")), ("2".to_owned(), "3".to_owned()));
}

/// Over TLS, with a certificate of an authority the policy names, and none of another.
#[test]
fn a_grpc_server_is_asked_over_tls_and_must_be_who_it_says() {
    let plan = Plan::new(&[]);
    let server = plan.servers.server(&["localhost"]);
    plan.directory.write("authz/chain.pem", &server.pem).write("authz/key.pem", &server.key_pem);
    let authz =
        Authz::start(&[&plan.directory.join("authz/chain.pem"), &plan.directory.join("authz/key.pem")]);
    let with_trust = |file: &str| {
        over_grpc(
            &format!("{{ url: \"https://localhost:{}\", trust: {{ file: ../tls/{file} }} }}", authz.port),
            "",
        )
    };
    plan.directory.write("apis/good.yaml", with_trust("servers-ca.pem"));
    let other = with_trust("open-banking-ca.pem")
        .replace("/orders/*", "/others/*")
        .replace("api: orders", "api: others");
    plan.directory.write("apis/other.yaml", other);
    let world = plan.start();
    session(&world, "alice").send().assert_passed();
    let hits = world.upstream().hits();
    let answer = world.plain().get("/others/1").header("x-session", "alice").send();
    assert_unavailable(&answer);
    assert_eq!(world.upstream().hits(), hits);
}
