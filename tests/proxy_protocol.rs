//! A proxy in front that relays bytes: whom it announces is the caller everywhere, and nobody else may announce.

use std::time::Duration;

use portcullis_core::Reason;

use crate::rig::client::Client;
use crate::rig::eventually;
use crate::rig::raw::Raw;
use crate::rig::world::{HOST, PUBLIC, Plan, World};

/// An API for callers of one network, each with two requests.
const NEAR: &str = "\
api: near
match: { host: api.bank.example, path: /near/* }
upstream: accounts
authenticate: { anonymous: { because: the address is what is tested } }
allow:
  - { name: ours, paths: [\"/*\"], from: [198.51.100.0/24, \"2001:db8::/32\"] }
limits:
  - { per: address, quota: 2 per day }
";

fn world() -> World {
    Plan::new(&[NEAR, PUBLIC])
        .with(|plan| {
            plan.listener = "    proxy_protocol: { from: [127.0.0.0/8], timeout: 1s }
  relayed:
    address: 127.0.0.1:0
    proxy_protocol: { from: [127.0.0.1], timeout: 1s }
  strange:
    address: 127.0.0.1:0
    proxy_protocol: { from: [192.0.2.0/24] }
"
            .to_owned();
        })
        .start()
}

fn line(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let own = if client.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
    format!("PROXY {family} {client} {own} 4711 443\r\n").into_bytes()
}

fn binary(client: [u8; 4]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &client, &[192, 0, 2, 1, 0x12, 0x67, 1, 0xbb]].concat()
}

fn relayed(world: &World, header: impl AsRef<[u8]>) -> Client {
    Client::plain(world.gateway.address("relayed"), HOST).announcing(header)
}

#[test]
fn the_announced_address_is_the_caller_everywhere() {
    let world = world();
    let own = |header: Vec<u8>| {
        [
            relayed(&world, &header),
            world.stranger().announcing(&header),
            world.stranger().http2().announcing(&header),
        ]
    };
    for (header, address) in [(line("198.51.100.7"), "198.51.100.7"), (line("2001:db8::7"), "2001:db8::7")] {
        for (round, client) in own(header).into_iter().enumerate() {
            let answer = client.get("/near/1").send();
            match round {
                // Limits count by it.
                2 => {
                    answer.assert_refused(Reason::QuotaExhausted);
                }
                _ => {
                    answer.assert_passed();
                    assert_eq!(world.upstream().last().value("x-forwarded-for"), address);
                }
            }
        }
    }
    relayed(&world, binary([198, 51, 100, 9])).get("/near/1").send().assert_passed();
    assert_eq!(world.upstream().last().value("x-forwarded-for"), "198.51.100.9");
    // Rules judge by it, not by the proxy's.
    relayed(&world, line("203.0.113.9")).get("/near/1").send().assert_refused(Reason::AccessDenied);
    // The log names it.
    eventually("the log says who called", || {
        world.gateway.access_lines().iter().any(|line| line["client"] == "198.51.100.9").then_some(())
    });
    // A caller's own fields say nothing beside it.
    let spoofed =
        relayed(&world, line("198.51.100.10")).get("/near/1").header("x-forwarded-for", "198.51.100.7");
    spoofed.send().assert_passed();
    assert_eq!(world.upstream().last().value("x-forwarded-for"), "198.51.100.10");
    // The proxy asks for itself whether we live.
    for itself in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        relayed(&world, itself).get("/public/1").send().assert_passed();
        assert_eq!(world.upstream().last().value("x-forwarded-for"), "127.0.0.1");
        relayed(&world, itself).get("/near/1").send().assert_refused(Reason::AccessDenied);
    }
}

/// Every connection that does not begin as it should is closed without a word.
#[test]
fn whoever_does_not_announce_is_not_served() {
    let world = world();
    let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(120));
    let udp =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c"[..], &[198, 51, 100, 7, 192, 0, 2, 1, 0, 1, 0, 1]].concat();
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[0; 216]].concat();
    let checksum = [
        &binary([198, 51, 100, 7])[..14],
        &[0, 19],
        &binary([198, 51, 100, 7])[16..],
        &[3, 0, 4, 0, 0, 0, 0],
    ]
    .concat();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("no header", Vec::new()),
        ("another case", b"proxy TCP4 198.51.100.7 192.0.2.1 4711 443\r\n".to_vec()),
        ("a bare line feed", b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\n".to_vec()),
        ("two blanks", b"PROXY TCP4  198.51.100.7 192.0.2.1 4711 443\r\n".to_vec()),
        ("leading zeros", b"PROXY TCP4 198.51.100.07 192.0.2.1 4711 443\r\n".to_vec()),
        ("the other family", b"PROXY TCP6 198.51.100.7 192.0.2.1 4711 443\r\n".to_vec()),
        ("a port too high", b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 443\r\n".to_vec()),
        ("a name", b"PROXY TCP4 localhost 192.0.2.1 4711 443\r\n".to_vec()),
        ("words behind", b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443 x\r\n".to_vec()),
        ("a line without end", long.into_bytes()),
        ("another transport", b"PROXY UDP4 198.51.100.7 192.0.2.1 4711 443\r\n".to_vec()),
        ("binary, another transport", udp),
        ("binary, a socket of the machine", unix),
        ("binary, a wrong checksum", checksum),
        ("binary, another version", b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c".to_vec()),
        ("binary, too long", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec()),
        ("binary, too short", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04".to_vec()),
    ];
    for (what, header) in &rows {
        let mut raw = Raw::connect(&relayed(&world, header));
        raw.send(format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert!(raw.try_answer().is_none(), "{what} was answered");
    }
    let malformed = ["listener=\"relayed\"", "event=\"proxy_header_malformed\""];
    eventually("they are counted", || {
        let counted = world.gateway.metric_sum("portcullis_connections_refused_total", &malformed);
        (counted >= rows.len() as f64).then_some(())
    });
    // Two headers: the second is a request, and no good one.
    let twice = [line("198.51.100.7"), line("198.51.100.8")].concat();
    let mut raw = Raw::connect(&relayed(&world, twice));
    raw.send(format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(raw.try_answer().is_none_or(|answer| answer.status >= 400));
    // TLS without a header before it.
    assert!(world.stranger().get("/public/1").attempt().is_err());
    world.assert_upstream_untouched();
}

/// A header from elsewhere than the proxy's addresses is not read, and one that does not come is not waited for.
#[test]
fn only_the_proxy_may_announce_and_not_at_its_leisure() {
    let world = world();
    let elsewhere = Client::plain(world.gateway.address("strange"), HOST).announcing(line("198.51.100.7"));
    let mut raw = Raw::connect(&elsewhere);
    raw.send(format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(raw.try_answer().is_none());
    for piece in [&b""[..], b"PROXY TCP4 198.51.100.7", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        let started = std::time::Instant::now();
        let mut raw = Raw::connect(&relayed(&world, piece));
        assert!(raw.try_answer().is_none());
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    }
    for (listener, event) in [("strange", "proxy_header_not_from_proxy"), ("relayed", "proxy_header_timeout")]
    {
        eventually("it is counted", || {
            let labels = [format!("listener=\"{listener}\""), format!("event=\"{event}\"")];
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            (world.gateway.metric_sum("portcullis_connections_refused_total", &labels) > 0.0).then_some(())
        });
    }
    // A listener without the setting reads no header: to it, the line is a broken request.
    let mut raw = Raw::connect(&world.plain().announcing(line("198.51.100.7")));
    raw.send(format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(raw.try_answer().is_none_or(|answer| answer.status == 400));
    world.assert_upstream_untouched();
}
