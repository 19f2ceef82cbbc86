//! The way to the upstream and back: streamed, never twice, and with an answer when the upstream has none.

use std::time::{Duration, Instant};

use portcullis_core::Reason;
use tokio::net::TcpSocket;

use crate::rig::client::Client;
use crate::rig::eventually;
use crate::rig::gateway::Gateway;
use crate::rig::raw::Raw;
use crate::rig::upstream::{Manner, Speaks, Upstream};
use crate::rig::world::{HOST, PUBLIC, Plan, World};

/// A port where nobody listens, and nobody else can while it is held.
fn nobody() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, format!("http://{address}"))
}

fn impatient() -> Plan {
    Plan::new(&[PUBLIC])
        .with(|plan| plan.upstream_settings = "    timeout: 1s\n    connect_timeout: 1s\n".to_owned())
}

#[test]
fn an_upstream_that_is_down_is_502() {
    let plan = impatient();
    plan.write();
    let (_held, url) = nobody();
    let yaml = plan.gateway_yaml().replace(&plan.upstream.url(), &url);
    plan.directory.write("gateway.yaml", yaml);
    let gateway = Gateway::start(plan.directory.path());
    let client = Client::plain(gateway.address("plain"), HOST);
    for _ in 0..3 {
        client.get("/public/x").send().assert_refused(Reason::UpstreamUnreachable);
    }
    eventually("the errors are counted", || {
        let errors = gateway.metric_sum("portcullis_upstream_errors_total", &["upstream=\"accounts\""]);
        (errors >= 3.0).then_some(())
    });
}

#[test]
fn an_upstream_that_is_slow_is_504() {
    let world = impatient().start();
    for manner in [
        Manner::Silent,
        Manner::Slow(Duration::from_secs(30)),
        Manner::InTwoParts(b"HTTP/1.1 200 OK\r\nContent-".to_vec(), b"Length: 0\r\n\r\n".to_vec()),
    ] {
        world.upstream().behave(manner);
        let start = Instant::now();
        world.plain().get("/public/x").send().assert_refused(Reason::UpstreamTimeout);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
    // Slow for one, and well for the next.
    world.upstream().behave(Manner::Polite);
    world.plain().get("/public/x").send().assert_passed();
}

#[test]
fn an_upstream_that_talks_nonsense_is_502() {
    let mut world = impatient().start();
    for nonsense in [
        &b"garbage\r\n\r\n"[..],
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"\xff\xfe\x00\x01",
        b"",
    ] {
        world.upstream().behave(Manner::SaysAndLeaves(nonsense.to_vec()));
        let answer = world.plain().get("/public/x").send();
        let text = String::from_utf8_lossy(nonsense).into_owned();
        assert_eq!(answer.status, 502, "{text:?}: {}", answer.text());
        assert!(
            matches!(answer.code().as_str(), "upstream_malformed" | "upstream_unreachable"),
            "{text:?}: {}",
            answer.text()
        );
    }
    world.upstream().behave(Manner::SaysAndLeaves(b"garbage\r\n\r\n".to_vec()));
    world.plain().get("/public/x").send().assert_refused(Reason::UpstreamMalformed);
    world.upstream().behave(Manner::Polite);
    world.plain().get("/public/x").send().assert_passed();
    assert!(world.gateway.is_alive());
}

/// What two readers could take differently is nobody's answer, and its connection carries no other.
#[test]
fn an_answer_that_can_be_read_in_two_ways_is_502() {
    let plan = impatient().with(|plan| plan.settings = "workers: 1\n".to_owned());
    let world = plan.start();
    let mut session = world.plain().connect().expect("a connection");
    for (number, ambiguous) in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ]
    .into_iter()
    .enumerate()
    {
        world.upstream().behave(Manner::Says(ambiguous.to_vec()));
        let answer = session.send(world.plain().get("/public/x")).expect("an answer");
        answer.assert_refused(Reason::UpstreamMalformed);
        world.upstream().behave(Manner::Polite);
        session.send(world.plain().get("/public/x")).expect("an answer").assert_passed();
        assert_eq!(world.upstream().connections(), 2 + number, "{}", String::from_utf8_lossy(ambiguous));
    }
}

/// A server that is tired of waiting says so on a connection nobody uses, just before the next request.
#[test]
fn a_late_timeout_is_no_answer_to_the_next_request() {
    let plan = Plan::new(&[PUBLIC]).with(|plan| plan.settings = "workers: 1\n".to_owned());
    let world = plan.start();
    let mut session = world.plain().connect().expect("a connection");
    let late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let hello = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n".to_vec();
    world.upstream().behave(Manner::InTwoParts(hello, late));
    session.send(world.plain().get("/public/x")).expect("an answer").assert_passed();
    world.upstream().behave(Manner::Polite);
    world.upstream().release();
    std::thread::sleep(Duration::from_millis(200));
    session.send(world.plain().get("/public/x")).expect("an answer").assert_passed();
    assert_eq!(world.upstream().connections(), 2);
}

/// A chunk that does not end where it says is not passed on as if it did.
#[test]
fn broken_chunks_are_a_broken_transfer() {
    let world = impatient().start();
    for chunks in [
        &b"2\r\nhi!\r\n0\r\n\r\n"[..],
        b"2\nhi\r\n0\r\n\r\n",
        b"2 \r\nhi\r\n0\r\n\r\n",
        b"2\r\nhi\r\n-0\r\n\r\n",
        b"2\r\nhi\r\nfffffffffffffffff\r\n",
        b"2\r\nhi\r\n0\r\nContent-Length: 2\n\r\n",
    ] {
        let answer = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks].concat();
        world.upstream().behave(Manner::Says(answer));
        for client in [world.plain(), world.stranger().http2()] {
            let answer = client.get("/public/x").attempt();
            assert!(answer.is_err(), "{}: {answer:?}", String::from_utf8_lossy(chunks));
        }
    }
    world.upstream().behave(Manner::Polite);
    world.plain().get("/public/x").send().assert_passed();
}

/// What has reached the upstream has happened, also if nobody waited for the answer.
#[test]
fn a_request_whose_caller_left_is_in_the_log() {
    let world = World::with(&[PUBLIC]);
    world.upstream().behave(Manner::Silent);
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("POST /public/pay HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\npay"));
    eventually("the upstream has the request", || (world.upstream().received().len() == 1).then_some(()));
    drop(raw);
    let line = eventually("the line is written", || world.gateway.access_lines().pop());
    assert_eq!((&line["method"], &line["api"]), (&"POST".into(), &"public".into()), "{line}");
}

/// The caller sees that the answer is not whole.
#[test]
fn an_answer_that_breaks_off_is_not_made_whole() {
    let world = impatient().start();
    for broken in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
    ] {
        world.upstream().behave(Manner::SaysAndLeaves(broken.to_vec()));
        for client in [world.plain(), world.stranger().http2()] {
            let answer = client.get("/public/x").attempt();
            assert!(
                answer.as_ref().is_err() || answer.as_ref().is_ok_and(|answer| answer.status == 502),
                "{answer:?}"
            );
        }
    }
}

/// The class of response queue poisoning: what an upstream says unasked is nobody's answer.
#[test]
fn bytes_beyond_an_answer_are_nobodys_answer() {
    let world = World::with(&[PUBLIC]);
    world.upstream().behave(Manner::Says(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
            .to_vec(),
    ));
    for _ in 0..5 {
        let answer = world.plain().get("/public/x").send();
        assert_ne!(answer.text(), "poison");
    }
    world.upstream().behave(Manner::Polite);
    for _ in 0..5 {
        assert_ne!(world.plain().get("/public/x").send().text(), "poison");
    }
}

/// PRX-08: what may have been done is not done again.
#[test]
fn a_request_is_never_sent_twice() {
    let world = impatient().start();
    world.plain().post("/public/x", "pay").send().assert_passed();
    world.upstream().behave(Manner::SaysAndLeaves(Vec::new()));
    let before = world.upstream().hits();
    let answer = world.plain().post("/public/x", "pay").send();
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(world.upstream().hits(), before + 1);
}

/// Connections are kept, and one that the upstream has closed meanwhile costs the caller nothing.
#[test]
fn connections_to_the_upstream_are_kept() {
    let plan = Plan::new(&[PUBLIC]).with(|plan| plan.settings = "workers: 1\n".to_owned());
    let world = plan.start();
    let mut session = world.plain().connect().expect("a connection");
    for _ in 0..20 {
        session.send(world.plain().get("/public/x")).expect("an answer").assert_passed();
    }
    assert_eq!(world.upstream().connections(), 1);
    world
        .upstream()
        .behave(Manner::SaysAndLeaves(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n".to_vec()));
    for _ in 0..10 {
        session.send(world.plain().get("/public/x")).expect("an answer").assert_passed();
    }
}

/// Nothing waits for a whole body, in either direction.
#[test]
fn bodies_are_streamed() {
    let world = World::with(&[PUBLIC]);
    let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec();
    world.upstream().behave(Manner::InTwoParts(first, b"6\r\nsecond\r\n0\r\n\r\n".to_vec()));
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let mut seen = Vec::new();
    while !seen.windows(5).any(|window| window == b"first") {
        seen.extend(raw.bytes(1));
    }
    world.upstream().release();
    while !seen.windows(6).any(|window| window == b"second") {
        seen.extend(raw.bytes(1));
    }
    // Upwards: the upstream answers while the caller is still sending.
    world.upstream().behave(Manner::IgnoresBody);
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("POST /public/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\nbegin"));
    raw.answer().assert_passed();
}

#[test]
fn large_bodies_pass_whole() {
    let large = format!("{PUBLIC}body: {{ max: 64MiB }}\n");
    let world = World::with(&[&large]);
    let body: Vec<u8> =
        (0..20_000_000_u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    for client in [world.plain(), world.stranger(), world.stranger().http2()] {
        client.post("/public/x", body.clone()).send().assert_passed();
        assert!(world.upstream().last().body == body, "the body has changed on its way");
    }
    world.upstream().behave(Manner::Long(20_000_000));
    for client in [world.plain(), world.stranger(), world.stranger().http2()] {
        let answer = client.get("/public/x").send();
        assert!(answer.body.len() == 20_000_000 && answer.body.iter().all(|byte| *byte == b'y'));
    }
}

#[test]
fn upstreams_speak_http2_too() {
    let plan = Plan::new(&[PUBLIC]).with(|plan| {
        plan.upstream = Upstream::speaking(Speaks::Http2);
        plan.upstream_settings = "    http: 2\n".to_owned();
    });
    let world = plan.start();
    for client in [world.plain(), world.stranger().http2()] {
        client.get("/public/x?y=z").send().assert_passed();
        assert!(
            world.upstream().last().line().ends_with("/public/x?y=z HTTP/2.0"),
            "{}",
            world.upstream().last().head
        );
    }
    world.plain().post("/public/x", "body").send().assert_passed();
    assert_eq!(world.upstream().last().body, b"body");
}

/// SRV-01, SRV-02.
#[test]
fn an_upstream_over_tls_has_to_be_who_it_says() {
    let world_of = |name: &str, trust: &str, certificate: bool| {
        Plan::new(&[PUBLIC])
            .with(|plan| {
                let client_roots = certificate.then(|| plan.third_parties.der().to_vec());
                let leaf = plan.servers.server(&[name]);
                plan.upstream = Upstream::speaking(Upstream::tls(&leaf, client_roots.as_deref()));
                let mine = plan.third_parties.client("gateway");
                plan.directory.write("tls/gateway.pem", &mine.pem).write("tls/gateway.key", &mine.key_pem);
                let ours = if certificate {
                    ", client_certificate: { certificate: { file: tls/gateway.pem }, key: { file: tls/gateway.key } }"
                } else {
                    ""
                };
                plan.upstream_settings = format!("    tls: {{ trust: {{ file: {trust} }}{ours} }}\n    connect_timeout: 2s\n");
            })
            .start()
    };
    let good = world_of("localhost", "tls/servers-ca.pem", false);
    good.plain().get("/public/x").send().assert_passed();
    for (name, trust) in [("other.example", "tls/servers-ca.pem"), ("localhost", "tls/open-banking-ca.pem")] {
        let world = world_of(name, trust, false);
        world.plain().get("/public/x").send().assert_refused(Reason::UpstreamUnreachable);
        world.assert_upstream_untouched();
    }
    let mutual = world_of("localhost", "tls/servers-ca.pem", true);
    mutual.plain().get("/public/x").send().assert_passed();
    assert!(mutual.upstream().certificates().iter().all(Option::is_some));
}

/// The request moves on to the next endpoint as long as nothing of it was sent.
#[test]
fn an_endpoint_that_is_down_is_passed_over() {
    let plan = impatient();
    plan.write();
    let (_held, down) = nobody();
    let both = format!("\"{down}\", \"{}\"", plan.upstream.url());
    let yaml = plan.gateway_yaml().replace(&format!("\"{}\"", plan.upstream.url()), &both);
    plan.directory.write("gateway.yaml", yaml);
    let gateway = Gateway::start(plan.directory.path());
    let client = Client::plain(gateway.address("plain"), HOST);
    for _ in 0..10 {
        client.get("/public/x").send().assert_passed();
    }
    assert_eq!(plan.upstream.hits(), 10);
}

/// A caller that leaves ends its request.
#[test]
fn a_caller_that_leaves_frees_what_it_used() {
    let mut world = World::with(&[PUBLIC]);
    world.upstream().behave(Manner::Silent);
    for _ in 0..50 {
        let mut raw = Raw::connect(&world.plain());
        raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        drop(raw);
    }
    eventually("no connection is left", || {
        (world.gateway.metric_sum("portcullis_connections", &["listener=\"plain\""]) == 0.0).then_some(())
    });
    eventually("no request is left", || {
        (world.gateway.metric_sum("portcullis_requests_in_flight", &[]) == 0.0).then_some(())
    });
    world.upstream().behave(Manner::Polite);
    world.plain().get("/public/x").send().assert_passed();
    assert!(world.gateway.is_alive());
}
