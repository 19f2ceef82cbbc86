//! Malformed HTTP: one defined answer, the connection closed, and nothing unread ever taken for a request.

use std::time::Duration;

use portcullis_core::Reason;

use crate::rig::raw::Raw;
use crate::rig::world::{BEARER, HOST, PUBLIC, Plan, World};

/// Sends bytes on a connection of their own and checks that they are refused as malformed, and that a request
/// that rides behind them is not served.
#[track_caller]
fn malformed(world: &World, bytes: &str) {
    let mut raw = Raw::connect(&world.plain());
    raw.send(bytes.as_bytes()).send(format!("GET /public/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    raw.wait_at_most(Duration::from_secs(5));
    let answer = raw.try_answer();
    if let Some(answer) = &answer {
        assert_eq!(answer.status, 400, "{bytes:?}: {}", answer.text());
    }
    let rest = raw.rest();
    assert!(rest.is_empty(), "{bytes:?} was followed by {:?}", String::from_utf8_lossy(&rest));
    let smuggled = world.upstream().received().iter().any(|request| request.head.contains("smuggled"));
    assert!(!smuggled, "{bytes:?} let a second request through");
}

fn head(fields: &str) -> String {
    format!("POST /public/x HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// PRX-01, trap 1 and 2 of the stack.
#[test]
fn two_ways_to_end_a_body_are_refused() {
    let world = World::with(&[PUBLIC]);
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: cow\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;x=y\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
    ] {
        malformed(&world, &format!("{}0\r\n\r\n", head(fields)));
    }
    world.assert_upstream_untouched();
}

#[test]
fn the_refusal_of_two_framings_says_what_it_is() {
    let world = World::with(&[PUBLIC]);
    let mut raw = Raw::connect(&world.plain());
    raw.send(head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n")).send("0\r\n\r\n");
    raw.answer().assert_refused(Reason::RequestMalformed);
    world.assert_upstream_untouched();
}

#[test]
fn broken_chunks_are_refused() {
    let world = World::with(&[PUBLIC]);
    for body in [
        "x\r\nabcd\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "0x4\r\nabcd\r\n0\r\n\r\n",
        "4 \nabcd\r\n0\r\n\r\n",
        "4\nabcd\n0\n\n",
        "4\r\nabcde\r\n0\r\n\r\n",
        "4\r\nabcdXX0\r\n\r\n",
        "fffffffffffffffff\r\nabcd\r\n0\r\n\r\n",
        "4;a=\n\r\nabcd\r\n0\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: evil.example\r\n\r\n",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(head("Transfer-Encoding: chunked\r\n")).send(body);
        raw.send(format!("GET /public/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        raw.wait_at_most(Duration::from_secs(5));
        // The body may break when the upstream already has the head; what counts is that it never got all of it.
        if let Some(answer) = raw.try_answer() {
            assert!(answer.status == 400 || answer.status == 502, "{body:?}: {}", answer.text());
        }
        let rest = raw.rest();
        assert!(rest.is_empty(), "{body:?} was followed by {:?}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(world.upstream().received().len(), 0, "{:?}", world.upstream().received());
}

#[test]
fn good_chunks_arrive_whole() {
    let world = World::with(&[PUBLIC]);
    let mut raw = Raw::connect(&world.plain());
    raw.send(head("Transfer-Encoding: chunked\r\n")).send("4\r\nabcd\r\n3;name=value\r\nefg\r\n0\r\n\r\n");
    raw.answer().assert_passed();
    assert_eq!(world.upstream().last().body, b"abcdefg");
    // Trailers are read and go nowhere.
    raw.send(head("Transfer-Encoding: chunked\r\n")).send("1\r\na\r\n0\r\nX-Client-Id: forged\r\n\r\n");
    raw.answer().assert_passed();
    assert!(!world.upstream().last().head.to_lowercase().contains("x-client-id"));
}

#[test]
fn heads_that_are_no_heads_are_refused() {
    let world = World::with(&[PUBLIC]);
    for bytes in [
        format!("GET /public/x HTTP/1.1\nHost: {HOST}\n\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\nX: y\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX: y\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX : y\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n: y\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nno colon\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX: a\r\n folded\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX: a\0b\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX: a\rb\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX(: a\r\n\r\n"),
        format!("GET  /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x  HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/a b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x HTTP/1.1 \r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x HTTP/1.2\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x HTTP/2.0\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x HTTP/0.9\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x http/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("G@T /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("\0GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("\r\n\r\n\r\nGET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
    ] {
        malformed(&world, &bytes);
    }
    world.assert_upstream_untouched();
}

/// HTTP/1.0 may not bring what it does not know.
#[test]
fn a_transfer_coding_in_an_old_version_is_refused() {
    let world = World::with(&[PUBLIC]);
    malformed(
        &world,
        &format!("POST /public/x HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    );
    world.assert_upstream_untouched();
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let world = World::with(&[PUBLIC]);
    let mut raw = Raw::connect(&world.plain());
    let padding = "a".repeat(34_000);
    raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX-Padding: {padding}\r\n\r\n"));
    raw.answer().assert_refused(Reason::HeadersTooLarge);
    let mut raw = Raw::connect(&world.plain());
    let many: String = (0..101).map(|number| format!("X-{number}: y\r\n")).collect();
    raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n{many}\r\n"));
    let answer = raw.answer();
    assert_eq!(answer.status, 431, "{}", answer.text());
    // Over HTTP/2 too: an answer, or the stream is refused.
    let call = world.stranger().http2().get("/public/x").header("x-padding", &padding);
    if let Ok(answer) = call.attempt() {
        assert_eq!(answer.status, 431, "{}", answer.text());
    }
    world.assert_upstream_untouched();
    world.plain().get("/public/x").header("x-padding", &"a".repeat(16_000)).send().assert_passed();
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let small = format!("{PUBLIC}body: {{ max: 64KiB, pause: 1s }}\n");
    let world = World::with(&[&small]);
    let answer = world.plain().post("/public/x", vec![b'x'; 65_537]).send();
    answer.assert_refused(Reason::BodyTooLarge);
    world.assert_upstream_untouched();
    world.plain().post("/public/x", vec![b'x'; 65_536]).send().assert_passed();
    // Without a length it is seen on the way; the upstream never gets a whole request.
    let received = world.upstream().received().len();
    let mut raw = Raw::connect(&world.plain());
    raw.send(head("Transfer-Encoding: chunked\r\n"));
    for _ in 0..5 {
        raw.send(format!("4000\r\n{}\r\n", "x".repeat(0x4000)));
    }
    raw.answer().assert_refused(Reason::BodyTooLarge);
    assert_eq!(world.upstream().received().len(), received);
}

/// The body stops arriving; the upstream gets no half request for a whole one.
#[test]
fn a_body_that_stops_arriving_is_refused() {
    let impatient = format!("{PUBLIC}body: {{ pause: 1s }}\n");
    let world = World::with(&[&impatient]);
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(head(framing)).send("5\r\nabcde\r\n");
        let answer = raw.answer();
        assert_eq!(answer.code(), Reason::BodyTimeout.code(), "{framing}: {}", answer.text());
        answer.assert_refused(Reason::BodyTimeout);
        assert!(raw.is_closed_within(Duration::from_secs(5)));
    }
    assert_eq!(world.upstream().received().len(), 0);
}

/// The body never stops arriving and never ends: a byte now and then buys no more than the time for a body.
#[test]
fn a_body_that_trickles_is_refused() {
    let impatient = format!("{PUBLIC}body: {{ total: 1s }}\n");
    let world = World::with(&[&impatient]);
    let mut raw = Raw::connect(&world.plain());
    raw.send(head("Transfer-Encoding: chunked\r\n"));
    for _ in 0..8 {
        raw.send("1\r\nx\r\n");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Silence alone would be waited for much longer.
    raw.wait_at_most(Duration::from_secs(8)).answer().assert_refused(Reason::BodyTimeout);
    assert_eq!(world.upstream().received().len(), 0);
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let plan = Plan::new(&[PUBLIC]);
    plan.write();
    let yaml = plan.gateway_yaml().replace(
        "  plain:\n    address: 127.0.0.1:0\n",
        "  plain:\n    address: 127.0.0.1:0\n    limits: { header_timeout: 1s, idle_timeout: 2s }\n",
    );
    plan.directory.write("gateway.yaml", yaml);
    let gateway = crate::rig::gateway::Gateway::start(plan.directory.path());
    let client = crate::rig::client::Client::plain(gateway.address("plain"), HOST);
    let mut slow = Raw::connect(&client);
    slow.send("GET /public/x HTTP/1.1\r\nHost: ");
    let mut silent = Raw::connect(&client);
    let mut idle = Raw::connect(&client);
    idle.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).answer().assert_passed();
    for connection in [&mut slow, &mut silent, &mut idle] {
        connection.wait_at_most(Duration::from_secs(8));
        if let Some(answer) = connection.try_answer() {
            assert_eq!(answer.status, 408, "{}", answer.text());
        }
        assert!(connection.is_closed_within(Duration::from_secs(8)));
    }
}

/// The class of CL.0 and of early answers: what is left of a refused request is not the next one.
#[test]
fn the_body_of_a_refused_request_is_not_the_next_request() {
    let world = World::with(&[BEARER, PUBLIC]);
    let smuggled = format!("GET /public/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for framing in [
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
    ] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(format!("POST /bearer/x HTTP/1.1\r\nHost: {HOST}\r\n{framing}"));
        raw.answer().assert_refused(Reason::CredentialsMissing);
        // The connection goes on with the next request, or is closed; either way the body was a body.
        raw.send(format!("GET /public/next HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        raw.wait_at_most(Duration::from_secs(5));
        if let Some(answer) = raw.try_answer() {
            answer.assert_passed();
            assert_eq!(world.upstream().last().line(), "GET /public/next HTTP/1.1");
        }
    }
    assert!(world.upstream().received().iter().all(|request| !request.head.contains("smuggled")));
}

/// `Expect: 100-continue` is answered by the verdict where there is one already.
#[test]
fn a_refusal_does_not_ask_for_the_body_first() {
    let world = World::with(&[BEARER]);
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!(
        "POST /bearer/x HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"
    ));
    raw.answer().assert_refused(Reason::CredentialsMissing);
    world.assert_upstream_untouched();
}

/// Every request of a connection is judged, not only the first.
#[test]
fn every_request_of_a_connection_is_judged() {
    let world = World::with(&[BEARER, PUBLIC]);
    let token = world.idp().token().sign();
    let mut raw = Raw::connect(&world.plain());
    for _ in 0..3 {
        raw.send(format!("GET /bearer/x HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n"));
        raw.answer().assert_passed();
        raw.send(format!("GET /bearer/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        raw.answer().assert_refused(Reason::CredentialsMissing);
        raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        raw.answer().assert_passed();
    }
    // Two at once: both are served, in order.
    let twice = format!(
        "GET /public/a HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET /bearer/b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    );
    raw.send(&twice);
    raw.answer().assert_passed();
    raw.answer().assert_refused(Reason::CredentialsMissing);
}

/// FWD-08: h2c by upgrade is no way around.
#[test]
fn an_upgrade_is_not_followed() {
    let world = World::with(&[PUBLIC]);
    for upgrade in ["h2c", "websocket", "x"] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(format!(
            "GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        ));
        let answer = raw.answer();
        assert!(matches!(answer.status, 200 | 400), "{upgrade}: {} {}", answer.status, answer.text());
        if answer.status == 200 {
            let received = world.upstream().last();
            assert!(received.values("upgrade").is_empty(), "{}", received.head);
            assert!(received.values("http2-settings").is_empty(), "{}", received.head);
        }
    }
}

/// A rapid reset and the like end the connection, not the process.
#[test]
fn garbage_after_the_http2_preface_ends_the_connection() {
    let mut world = World::with(&[PUBLIC]);
    for garbage in [&b"\0\0\0\x01\x05\0\0\0\x01"[..], &[0xff; 64], b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0"] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(garbage);
        raw.finish();
        raw.wait_at_most(Duration::from_secs(5));
        raw.rest();
    }
    assert!(world.gateway.is_alive());
    world.plain().get("/public/x").send().assert_passed();
}
