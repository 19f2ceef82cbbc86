//! What reaches the upstream besides the request itself: nothing a caller could have forged.

use portcullis_core::Reason;

use crate::rig::raw::Raw;
use crate::rig::upstream::Manner;
use crate::rig::world::{HOST, PUBLIC, World};

const NAMING: &str = "\
api: naming
match: { host: api.bank.example, path: /naming/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
identity: { name: claims.client_id }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-client-id: \"{identity.name}\", x-tier: \"{claims.tier}\", x-request: \"{request.id}\" }
  remove: [x-internal]
";

/// PRX-05, trap 6: a caller's own copy of our headers, in any spelling, does not survive.
#[test]
fn a_forged_identity_does_not_survive() {
    let world = World::with(&[NAMING]);
    let token = world.idp().token().without("tier").sign();
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!(
        "GET /naming/x HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nX-Client-Id: admin\r\n\
         x_client_id: admin\r\nX-Client_Id: admin\r\nX-CLIENT-ID: admin\r\nX-Tier: gold\r\nX_Tier: gold\r\nX-Internal: yes\r\n\r\n"
    ));
    let answer = raw.answer();
    if answer.status == 200 {
        let received = world.upstream().last();
        assert_eq!(received.value("x-client-id"), "tpp-a");
        assert!(!received.head.to_lowercase().contains("admin"), "{}", received.head);
        // A claim the token does not have leaves no room for the caller's word.
        assert!(!received.head.to_lowercase().contains("gold"), "{}", received.head);
        assert!(received.values("x-internal").is_empty(), "{}", received.head);
    } else {
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let answer = world
        .plain()
        .get("/naming/x")
        .bearer(&world.idp().token().sign())
        .header("x-tier", "platinum")
        .send();
    answer.assert_passed();
    let received = world.upstream().last();
    assert_eq!(received.value("x-tier"), "gold");
    assert_eq!(received.value("x-client-id"), "tpp-a");
}

/// A claim cannot write a second header.
#[test]
fn a_claim_cannot_break_out_of_its_header() {
    let world = World::with(&[NAMING]);
    for tier in ["gold\r\nX-Admin: yes", "gold\nx", "g\u{f6}ld", "gold\0", " gold"] {
        let token = world.idp().token().claim("tier", tier).sign();
        let answer = world.plain().get("/naming/x").bearer(&token).send();
        answer.assert_refused(Reason::IdentityUnresolved);
    }
    world.assert_upstream_untouched();
}

/// FWD-02, PRX-04, PRX-05.
#[test]
fn headers_that_only_a_gateway_may_write_are_removed() {
    let world = World::with(&[PUBLIC]);
    let forged = [
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Tls-Client-Cert",
        "X-SSL-Client-Cert",
        "X-SSL-Client-Verify",
        "SSL-Client-Cert",
        "SSL_CLIENT_CERT",
        "X-Client-Cert",
        "X-Amzn-Mtls-Clientcert",
        "X-ARR-ClientCert",
        "Cf-Client-Cert-Sha256",
        "X-WSO2-Client-Certificate",
        "X-Client-Verify",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Real-IP",
        "X_Forwarded_For",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Keep-Alive",
    ];
    for name in forged {
        let mut raw = Raw::connect(&world.plain());
        raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n{name}: forged-value\r\n\r\n"));
        let answer = raw.answer();
        assert!(answer.status == 200 || answer.status == 400, "{name}: {}", answer.text());
        if answer.status == 200 {
            let received = world.upstream().last();
            assert!(!received.head.contains("forged-value"), "{name} survived: {}", received.head);
        }
    }
}

#[test]
fn the_upstream_learns_where_the_request_came_from() {
    let world = World::with(&[PUBLIC]);
    world.plain().get("/public/x").header("x-forwarded-for", "6.6.6.6").send().assert_passed();
    let plain = world.upstream().last();
    assert_eq!(plain.value("x-forwarded-for"), "127.0.0.1");
    assert_eq!(plain.value("x-forwarded-proto"), "http");
    assert_eq!(plain.value("x-forwarded-host"), HOST);
    world.stranger().get("/public/x").send().assert_passed();
    assert_eq!(world.upstream().last().value("x-forwarded-proto"), "https");
}

/// FWD-07, trap 6: hop-by-hop headers end here, also those that `Connection` names.
#[test]
fn hop_by_hop_headers_end_at_the_gateway() {
    let world = World::with(&[PUBLIC]);
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!(
        "GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nX-End: 2\r\n\r\n"
    ));
    raw.answer().assert_passed();
    let received = world.upstream().last();
    assert!(received.values("x-hop").is_empty(), "{}", received.head);
    assert!(received.values("te").is_empty(), "{}", received.head);
    assert_eq!(received.value("x-end"), "2");
}

#[test]
fn connection_may_not_name_what_must_reach_the_upstream() {
    let world = World::with(&[PUBLIC, NAMING]);
    for (path, named) in [
        ("/public/x", "Authorization"),
        ("/public/x", "Host"),
        ("/public/x", "X-Forwarded-For"),
        ("/public/x", "close, Content-Type"),
        ("/public/x", "Cookie"),
        ("/public/x", "Content-Length"),
        ("/public/x", "b@d name"),
        ("/naming/x", "x-client-id"),
    ] {
        let mut raw = Raw::connect(&world.plain());
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: {named}\r\n\r\n"));
        let answer = raw.answer();
        assert_eq!(answer.code(), Reason::ConnectionHeaderInvalid.code(), "{named}: {}", answer.text());
        answer.assert_refused(Reason::ConnectionHeaderInvalid);
    }
    world.assert_upstream_untouched();
}

/// What comes back is the upstream's, less what belongs to its own connection.
#[test]
fn the_answer_is_the_upstreams() {
    let world = World::with(&[PUBLIC]);
    world.upstream().behave(Manner::Says(
        b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Thing: 1\r\n\
          WWW-Authenticate: Basic realm=\"upstream\"\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
          Client-Cert: :AAAA:\r\n\r\ntea"
            .to_vec(),
    ));
    let answer = world.plain().get("/public/x").send();
    assert_eq!((answer.status, answer.text().as_str()), (418, "tea"));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(answer.header("x-thing"), Some("1"));
    assert_eq!(answer.challenges(), ["Basic realm=\"upstream\""]);
    for gone in ["keep-alive", "x-hop", "client-cert"] {
        assert!(answer.header(gone).is_none(), "{gone}: {:?}", answer.headers);
    }
}

#[test]
fn head_and_empty_answers_have_no_body() {
    let world = World::with(&[PUBLIC]);
    world.upstream().behave(Manner::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec()));
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("HEAD /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let said = {
        raw.wait_at_most(std::time::Duration::from_secs(2));
        String::from_utf8_lossy(&raw.bytes(15)).into_owned()
    };
    assert_eq!(said, "HTTP/1.1 200 OK");
    world.upstream().behave(Manner::Says(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    let answer = world.plain().get("/public/x").send();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
}

/// An upstream that speaks HTTP/1.1 and looks for no body behind a GET would take this one for its next request.
#[test]
fn a_get_with_a_body_over_http2_is_refused() {
    let world = World::with(&[PUBLIC]);
    let hidden = "GET /admin HTTP/1.1\r\nHost: api.bank.example\r\nX-Client-Id: boss\r\n\r\n";
    for method in [http::Method::GET, http::Method::HEAD] {
        let call = world.stranger().http2().request(method.clone(), "/public/x").body(hidden);
        assert_eq!(call.send().status, 400, "{method}");
    }
    world.assert_upstream_untouched();
    world.stranger().http2().get("/public/x").send().assert_passed();
}

/// Limits of the head hold for both protocols.
#[test]
fn too_many_fields_over_http2_are_refused() {
    let world = World::with(&[PUBLIC]);
    let mut call = world.stranger().http2().get("/public/x");
    for number in 0..150 {
        call = call.header(&format!("x-{number}"), "1");
    }
    call.send().assert_refused(Reason::HeadersTooLarge);
    world.assert_upstream_untouched();
}

/// Trap 23: a credential that was not checked never reaches the upstream, in whatever spelling.
#[test]
fn credentials_stop_at_the_gateway_in_every_spelling() {
    let world = World::with(&[PUBLIC, NAMING]);
    let stray = world.plain().get("/public/x").header("authorization", "Bearer not-checked").send();
    stray.assert_passed();
    assert!(!world.upstream().last().head.to_lowercase().contains("not-checked"));
    let token = world.idp().token().sign();
    let spelled = world.plain().get("/naming/x").bearer(&token).header("x_internal", "root").send();
    spelled.assert_passed();
    let received = world.upstream().last();
    assert!(!received.head.contains("root") && !received.head.contains(&token), "{}", received.head);
}
