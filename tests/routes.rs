//! Where a request goes: one host, one path in one form, and exactly what was matched is forwarded.

use http::Method;
use portcullis_core::Reason;

use crate::rig::raw::Raw;
use crate::rig::world::{BEARER, HOST, PUBLIC, World};

#[track_caller]
fn raw_get(world: &World, target: &str, host: &str) -> crate::rig::client::Answer {
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    raw.answer()
}

#[test]
fn what_was_matched_is_what_is_forwarded() {
    let world = World::with(&[PUBLIC]);
    for target in [
        "/public/",
        "/public/a",
        "/public/a/",
        "/public/a%20b",
        "/public/%C3%A9t%C3%A9",
        "/public/a?b=c&d=%2F..%2F//;x#",
        "/public/a?",
        "/public/a:b@c,d=e!$&'()*+",
        "/public/.well-known/x",
        "/public/a..b/...",
    ] {
        if target.contains('#') {
            continue;
        }
        raw_get(&world, target, HOST).assert_passed();
        assert_eq!(world.upstream().last().line(), format!("GET {target} HTTP/1.1"));
    }
}

/// PRX-03, trap 24: what some server would read as another path is refused, not repaired.
#[test]
fn a_path_that_could_be_read_in_two_ways_is_refused() {
    let world = World::with(&[PUBLIC, BEARER]);
    for target in [
        "/public/../bearer/x",
        "/public/./x",
        "/public/..",
        "/public/.",
        "/public//x",
        "//public/x",
        "/public/%2e%2e/bearer/x",
        "/public/%2E%2E/bearer/x",
        "/public/.%2E/x",
        "/public/a%2Fb",
        "/public/a%2fb",
        "/public/a%5Cb",
        "/public/..%5C..%5Cbearer",
        "/public/a%00",
        "/public/a%0D%0Ax",
        "/public/a;b=c",
        "/public/..;/bearer/x",
        "/public/a%3Bb",
        "/public/%252e%252e/x",
        "/public/%C0%AE%C0%AE/x",
        "/public/%FF",
        "/public/%41",
        "/public/%",
        "/public/%4",
        "/public/%zz",
    ] {
        let answer = raw_get(&world, target, HOST);
        assert_eq!(answer.code(), Reason::PathNotNormal.code(), "{target}: {}", answer.text());
        answer.assert_refused(Reason::PathNotNormal);
    }
    // Bytes that no target has are refused by whoever sees them first.
    for target in
        ["/public/a\\b", "/public/a|b", "/public/a\u{e9}", "/public/a\"b", "/public/a#b", "/public/a\u{7f}"]
    {
        let answer = raw_get(&world, target, HOST);
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    world.assert_upstream_untouched();
}

#[test]
fn what_no_api_matches_is_not_found() {
    let world = World::with(&[PUBLIC]);
    for (target, host) in [
        ("/", HOST),
        ("/publi", HOST),
        ("/publicity/x", HOST),
        ("/Public/x", HOST),
        ("/public/x", "other.bank.example"),
        ("/public/x", "api.bank.example.evil.example"),
        ("/public/x", "xapi.bank.example"),
        ("/public/x", "127.0.0.1"),
    ] {
        let answer = raw_get(&world, target, host);
        assert_eq!(answer.code(), Reason::RouteNotFound.code(), "{host}{target}: {}", answer.text());
        answer.assert_refused(Reason::RouteNotFound);
    }
    world.assert_upstream_untouched();
}

/// PRX-01.
#[test]
fn a_request_names_exactly_one_valid_host() {
    let world = World::with(&[PUBLIC]);
    for host in [
        "",
        "a b",
        "api.bank.example/x",
        "user@api.bank.example",
        "api..bank.example",
        "api.bank.example:x",
        "[::1",
        "a,b",
        "api.bank.example:123456",
    ] {
        let answer = raw_get(&world, "/public/x", host);
        assert_eq!(answer.status, 400, "{host}: {}", answer.text());
        assert!(
            matches!(answer.code().as_str(), "host_invalid" | "request_malformed"),
            "{host}: {}",
            answer.text()
        );
    }
    for head in [
        "GET /public/x HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nHost: evil.example\r\n\r\n"),
        format!("GET http://evil.example/public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ] {
        let mut raw = Raw::connect(&world.plain());
        let answer = raw.send(&head).answer();
        assert_eq!(answer.code(), Reason::HostInvalid.code(), "{head}: {}", answer.text());
        answer.assert_refused(Reason::HostInvalid);
    }
    world.assert_upstream_untouched();
}

#[test]
fn spellings_of_one_host_are_one_host() {
    let world = World::with(&[PUBLIC]);
    for host in ["API.bank.example", "api.bank.example.", "api.bank.example:8443"] {
        raw_get(&world, "/public/x", host).assert_passed();
    }
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("GET http://{HOST}/public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).answer().assert_passed();
    assert_eq!(world.upstream().last().line(), "GET /public/x HTTP/1.1");
}

/// PRX-04.
#[test]
fn some_methods_are_never_served() {
    let world = World::with(&[PUBLIC]);
    for method in [Method::TRACE, Method::CONNECT] {
        let target = if method == Method::CONNECT { format!("{HOST}:443") } else { "/public/x".to_owned() };
        let mut raw = Raw::connect(&world.plain());
        let answer = raw.send(format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).answer();
        assert_eq!(answer.code(), Reason::MethodNotAllowed.code(), "{method}: {}", answer.text());
        answer.assert_refused(Reason::MethodNotAllowed);
    }
    world.assert_upstream_untouched();
}

#[test]
fn an_api_says_which_methods_it_has() {
    let api = format!("{PUBLIC}methods: [GET, HEAD, POST]\n");
    let world = World::with(&[&api]);
    world.plain().get("/public/x").send().assert_passed();
    world.plain().post("/public/x", "body").send().assert_passed();
    for method in [Method::DELETE, Method::PUT, Method::OPTIONS, Method::PATCH] {
        let answer = world.plain().request(method, "/public/x").send();
        answer.assert_refused(Reason::MethodNotAllowed);
        let allow = answer.header("allow").expect("Allow");
        assert!(["GET", "HEAD", "POST"].iter().all(|method| allow.contains(method)), "{allow}");
    }
    // Methods are compared exactly.
    let mut raw = Raw::connect(&world.plain());
    let answer = raw.send(format!("get /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).answer();
    assert!(matches!(answer.status, 400 | 405), "{}", answer.text());
    assert_eq!(world.upstream().hits(), 2);
}

/// The more exact match wins, whatever the order of the files.
#[test]
fn the_more_exact_route_wins() {
    let exact = PUBLIC.replace("api: public", "api: exact").replace("/public/*", "/public/exact/*")
        + "forward: { set: { x-api: exact } }\n";
    let wild = PUBLIC
        .replace("api: public", "api: wild")
        .replace("host: api.bank.example", "host: \"*.bank.example\"")
        + "forward: { set: { x-api: wild } }\n";
    for apis in [[PUBLIC, &exact, &wild], [&wild, &exact, PUBLIC]] {
        let world = World::with(&apis);
        raw_get(&world, "/public/exact/x", HOST).assert_passed();
        assert_eq!(world.upstream().last().value("x-api"), "exact");
        raw_get(&world, "/public/other", HOST).assert_passed();
        assert!(world.upstream().last().values("x-api").is_empty());
        raw_get(&world, "/public/other", "www.bank.example").assert_passed();
        assert_eq!(world.upstream().last().value("x-api"), "wild");
        raw_get(&world, "/public/other", "a.www.bank.example").assert_refused(Reason::RouteNotFound);
    }
}

#[test]
fn a_route_is_found_over_http2_as_over_http1() {
    let world = World::with(&[PUBLIC]);
    let client = world.stranger().http2();
    client.get("/public/x?y=z").send().assert_passed();
    assert_eq!(world.upstream().last().line(), "GET /public/x?y=z HTTP/1.1");
    client.get("/public/%2e%2e/x").send().assert_refused(Reason::PathNotNormal);
    client.get("/nothing").send().assert_refused(Reason::RouteNotFound);
    client.request(Method::TRACE, "/public/x").send().assert_refused(Reason::MethodNotAllowed);
    client.get("/public/x").header("host", "evil.example").send().assert_refused(Reason::HostInvalid);
}

/// An API of one exact path reaches its rules, which see `/` there.
#[test]
fn an_api_of_one_path_is_served() {
    let health = "api: health\nmatch: { host: api.bank.example, path: /health }\nupstream: accounts\n\
                  authenticate: { anonymous: { because: \"load balancers look\" } }\n\
                  allow:\n  - { name: look, methods: [GET], paths: [/] }\n";
    let world = World::with(&[health]);
    raw_get(&world, "/health", HOST).assert_passed();
    raw_get(&world, "/health/", HOST).assert_refused(Reason::RouteNotFound);
    assert_eq!(world.upstream().last().line(), "GET /health HTTP/1.1");
}

/// A target without a path would be read as `/` and sent on without one.
#[test]
fn a_target_of_only_a_query_is_refused() {
    let world = World::with(&[PUBLIC]);
    let answer = raw_get(&world, "http://api.bank.example?x=/public/y", HOST);
    assert_eq!(answer.status, 400, "{}", answer.text());
    world.assert_upstream_untouched();
}
