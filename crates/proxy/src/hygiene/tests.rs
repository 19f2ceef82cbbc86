use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use portcullis_core::{Connection, Reason, TlsFacts, TlsPolicyId};

use super::{ForwardedFields, names, prepare_request, prepare_response, prepare_trailers, remove_aliases};

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    lines
}

/// The glance at the first letters lets nothing by that a table knows, however its words are joined.
#[test]
fn no_known_name_slips_by_its_first_letters() {
    let spelled = |table: &names::Table| -> Vec<String> {
        let names = table.names.iter().map(|name| (*name).to_owned());
        let prefixes = table.prefixes.iter().map(|prefix| format!("{prefix}x"));
        let all = names.chain(prefixes);
        all.flat_map(|name| ["-", "_", "."].map(|joint| name.replace('-', joint))).collect()
    };
    let wso2 = ["-", "_", "."].map(|joint| format!("{}client-certificate", names::WSO2).replace('-', joint));
    let certificates = || spelled(&names::OF_THE_CERTIFICATE).into_iter().chain(wso2.clone());
    let tables = [&names::ONE_HOP, &names::OF_THE_REQUEST, &names::OF_THE_USER];
    let at_the_door: Vec<_> = tables.into_iter().flat_map(spelled).chain(certificates()).collect();
    assert!(at_the_door.len() > 150, "{}", at_the_door.len());
    for name in at_the_door.iter().map(String::as_str).chain(["content_length", "content.length"]) {
        assert!(names::stops_at_the_door(name), "{name}");
    }
    let back = spelled(&names::ONE_HOP).into_iter().filter(|name| name != "trailer").chain(certificates());
    for name in back {
        assert!(names::stops_on_the_way_back(&name), "{name}");
    }
    for name in ["content-length", "content-type", "accept", "x-request-id", "trailer", "cookie"] {
        assert!(!names::stops_on_the_way_back(name), "{name}");
        assert_eq!(names::stops_at_the_door(name), name == "trailer", "{name}");
    }
}

#[test]
fn fields_a_caller_may_not_send_are_removed_in_every_spelling() {
    for name in [
        // Hop by hop (PRX-05), and h2c (PRX-04).
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Expect",
        // Overrides (PRX-04).
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-URI",
        "X-Original-Host",
        "X-Envoy-Original-Path",
        "X-Host",
        "X-HTTP-Host-Override",
        // Forwarded (PRX-05).
        "Forwarded",
        "X-Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Uri",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-User",
        "X-Real-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Original-Forwarded-For",
        "X-Envoy-External-Address",
        "WL-Proxy-Client-IP",
        "WL-Proxy-SSL",
        "Proxy-Client-IP",
        "X-Originating-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "X-Azure-ClientIP",
        "X-Azure-SocketIP",
        "X-AppEngine-User-IP",
        "X-Scheme",
        "Front-End-Https",
        // Who an authenticating proxy says is calling (FWD-02).
        "Remote-User",
        "X-Remote-User",
        "X-Goog-Authenticated-User-Email",
        "X-Goog-Authenticated-User-Id",
        "X-MS-Client-Principal",
        "X-MS-Client-Principal-Name",
        "X-Amzn-Oidc-Data",
        "X-Amzn-Oidc-Identity",
        "X-Auth-Request-User",
        "X-Auth-Request-Email",
        // Certificates (FWD-02).
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Tls-Client-Cert",
        "X-Forwarded-Tls-Client-Cert-Info",
        "X-SSL-Cert",
        "X-SSL-Client-Verify",
        "SSL-CLIENT-CERT",
        "SSL-Client-S-DN",
        "X-Client-Cert",
        "X-Client-Certificate",
        "X-Client-Cert-Chain",
        "X-Amzn-Mtls-Clientcert",
        "X-Amzn-Mtls-Clientcert-Leaf",
        "X-ARR-ClientCert",
        "Cf-Client-Cert-Der-Base64",
        "Cf-Client-Cert-Sha256",
        "x-wso2-mutual-auth-cert",
        "X-WSO2-CLIENT-CERTIFICATE",
        "X-Client-Verify",
    ] {
        let underscored = name.replace('-', "_");
        let mixed = name.replacen('-', "_", 1);
        let dotted = name.replace('-', ".");
        for spelling in [name, &name.to_uppercase(), &underscored, &mixed, &dotted] {
            let mut headers = map(&[("accept", "a"), (spelling, "1"), ("host", "h"), (spelling, "2")]);
            prepare_request(&mut headers, &[]).unwrap();
            assert_eq!(lines(&headers), ["accept: a", "host: h"], "{spelling}");
        }
    }
}

/// PRX-05: behind CGI and its kind each of these is the length of the body, beside the one that was checked.
#[test]
fn a_length_in_disguise_is_removed_and_the_true_one_stays() {
    for disguise in ["content_length", "Content_Length", "CONTENT_LENGTH", "content.length", "content~length"]
    {
        let mut headers = map(&[("content-length", "5"), (disguise, "0"), ("content_type", "stays")]);
        prepare_request(&mut headers, &[]).unwrap();
        assert_eq!(lines(&headers), ["content-length: 5", "content_type: stays"], "{disguise}");
    }
}

#[test]
fn fields_that_only_look_alike_stay() {
    for name in [
        "accept",
        "authorization",
        "cookie",
        "content-length",
        "content-type",
        "client-id",
        "expires",
        "from",
        "te-x",
        "hosting",
        "keep",
        "proxy",
        "ssl",
        "trail",
        "upgrade-insecure-requests",
        "user-agent",
        "x-api-key",
        "x-client-id",
        "x-wso2-tenant",
        "content_lengths",
        "front-end",
        "remote",
        "remote-users",
        "wl-x",
        "www-authenticate",
        "x-amzn-trace-id",
        "x-auth-token",
        "x-azure-ref",
        "x-ms-client-request-id",
        "x-schema",
        "x-fapi-interaction-id",
        "x-idempotency-key",
        "x-request-id",
        "x-ssl",
        "forwarded-x",
        "via",
        "cdn_loop",
        "my_header",
    ] {
        let mut headers = map(&[(name, "1"), (name, "2")]);
        prepare_request(&mut headers, &[]).unwrap();
        assert_eq!(headers.get_all(name).iter().count(), 2, "{name}");
    }
}

#[test]
fn connection_may_name_options_and_hop_by_hop_fields() {
    for (value, left) in [
        ("close", &["x-a: 1", "x-b: 2"][..]),
        ("Keep-Alive", &["x-a: 1", "x-b: 2"]),
        ("keep-alive, Upgrade", &["x-a: 1", "x-b: 2"]),
        ("Upgrade, HTTP2-Settings", &["x-a: 1", "x-b: 2"]),
        ("TE", &["x-a: 1", "x-b: 2"]),
        ("", &["x-a: 1", "x-b: 2"]),
        (" , ,close,", &["x-a: 1", "x-b: 2"]),
        ("x-a", &["x-b: 2"]),
        ("close,\tX-A ,x-b", &[]),
        ("x-not-there", &["x-a: 1", "x-b: 2"]),
    ] {
        let mut headers = map(&[("connection", value), ("x-a", "1"), ("x-b", "2")]);
        prepare_request(&mut headers, &[]).unwrap();
        assert_eq!(lines(&headers), left, "{value}");
    }
}

#[test]
fn connection_that_names_what_must_arrive_is_refused() {
    let protected = [HeaderName::from_static("x-client-id"), HeaderName::from_static("x-bank-key")];
    for value in [
        "authorization",
        "Authorization",
        "close, Cookie",
        "host",
        "content-length",
        "content-type",
        "content-digest",
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "forwarded",
        "x-real-ip",
        "client-cert",
        "x_ssl_client_cert",
        "x-api-key",
        "dpop",
        "signature-input",
        "x-idempotency-key",
        "x-fapi-financial-id",
        "sec-fetch-site",
        "x-http-method-override",
        "proxy-authorization",
        "x-client-id",
        "x_client_id",
        "X-Bank-Key",
        "two words",
        "\"quoted\"",
        "a;b",
        "caf\u{e9}",
    ] {
        let mut headers = map(&[("connection", value), ("authorization", "Bearer t")]);
        let rejection = prepare_request(&mut headers, &protected).unwrap_err();
        assert_eq!(rejection.reason(), Reason::ConnectionHeaderInvalid, "{value}");
    }
}

#[test]
fn every_connection_field_is_read_not_only_the_first() {
    let mut headers = map(&[("connection", "close"), ("connection", "x-a"), ("x-a", "1")]);
    prepare_request(&mut headers, &[]).unwrap();
    assert!(headers.is_empty());
    let mut headers = map(&[("connection", "close"), ("connection", "keep-alive, authorization")]);
    assert!(prepare_request(&mut headers, &[]).is_err());
}

#[test]
fn te_is_reduced_to_trailers() {
    for (values, left) in [
        (&["trailers"][..], Some("trailers")),
        (&["Trailers, gzip;q=0.5"], Some("trailers")),
        (&["gzip", "trailers"], Some("trailers")),
        (&["gzip"], None),
        (&["trailers-x"], None),
        (&[""], None),
    ] {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("te", HeaderValue::from_static(value));
        }
        prepare_request(&mut headers, &[]).unwrap();
        let all: Vec<_> = headers.get_all("te").iter().collect();
        assert_eq!(all.first().map(|te| te.to_str().unwrap()), left, "{values:?}");
        assert!(all.len() < 2);
    }
}

#[test]
fn aliases_of_our_own_fields_are_removed_before_we_set_them() {
    let ours = [HeaderName::from_static("x-client-id"), HeaderName::from_static("x_group")];
    let mut headers = map(&[
        ("x-client-id", "admin"),
        ("X_Client_ID", "admin"),
        ("x.client.id", "admin"),
        ("x-client_id", "admin"),
        ("x-group", "admin"),
        ("x_group", "admin"),
        ("x-client-ident", "stays"),
    ]);
    remove_aliases(&mut headers, &ours);
    assert_eq!(lines(&headers), ["x-client-ident: stays"]);
}

#[test]
fn answer_keeps_everything_but_its_own_hop_and_certificates() {
    let mut headers = map(&[
        ("connection", "close, x-hop, set-cookie"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy-authenticate", "Basic"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("client-cert", ":AA==:"),
        ("Client_Cert_Chain", ":AA==:"),
        ("x-forwarded-client-cert", "Hash=1"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("www-authenticate", "Bearer"),
        ("trailer", "grpc-status"),
        ("content-length", "5"),
        ("x-forwarded-for", "kept: it is the upstream's word"),
    ]);
    prepare_response(&mut headers);
    assert_eq!(
        lines(&headers),
        [
            "content-length: 5",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "trailer: grpc-status",
            "www-authenticate: Bearer",
            "x-forwarded-for: kept: it is the upstream's word",
        ]
    );
}

#[test]
fn trailers_keep_what_may_trail() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("grpc-message", "fine"),
        ("content-digest", "sha-256=:AA==:"),
        ("server-timing", "total;dur=1"),
        ("x-checksum", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("Content_Type", "text/html"),
        ("host", "evil"),
        ("authorization", "Bearer"),
        ("set-cookie", "a=b"),
        ("cache-control", "public"),
        ("location", "/evil"),
        ("www-authenticate", "Basic"),
        ("connection", "close"),
        ("trailer", "x"),
        ("client-cert", "x"),
        ("x-forwarded-for", "1.2.3.4"),
    ]);
    prepare_trailers(&mut trailers);
    assert_eq!(
        lines(&trailers),
        [
            "content-digest: sha-256=:AA==:",
            "grpc-message: fine",
            "grpc-status: 0",
            "server-timing: total;dur=1",
            "x-checksum: 1",
        ]
    );
}

#[test]
fn forwarded_fields_tell_of_our_own_connection() {
    let plain = Connection {
        peer: "[::ffff:192.0.2.7]:4711".parse().unwrap(),
        proxy: None,
        shared: false,
        listener: "public".into(),
        tls: None,
        handshake_certificate: None,
    };
    let facts = TlsFacts { policy: TlsPolicyId(0), version: "TLSv1.3", server_name: None };
    let secure =
        Connection { peer: "[2001:db8::1]:4711".parse().unwrap(), tls: Some(facts), ..plain.clone() };
    for (connection, headers, target, expected) in [
        (
            &plain,
            map(&[("host", "api.bank.example")]),
            "/",
            &[
                "host: api.bank.example",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: api.bank.example",
                "x-forwarded-proto: http",
            ][..],
        ),
        (
            &secure,
            map(&[]),
            "https://api.bank.example:8443/",
            &[
                "x-forwarded-for: 2001:db8::1",
                "x-forwarded-host: api.bank.example:8443",
                "x-forwarded-proto: https",
            ],
        ),
        // A route that did not clean up still cannot let a caller's word stand beside ours.
        (
            &plain,
            map(&[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")]),
            "/",
            &["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http"],
        ),
    ] {
        let mut headers = headers;
        let target: Uri = target.parse().unwrap();
        ForwardedFields::of(connection).add(&mut headers, &target);
        assert_eq!(lines(&headers), expected);
    }
}

#[test]
fn values_that_are_not_text_are_no_obstacle() {
    // FWD-11
    let mut headers = HeaderMap::new();
    headers.insert("x-ssl-client-cert", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    headers.insert("accept", HeaderValue::from_bytes(b"\xff").unwrap());
    prepare_request(&mut headers, &[]).unwrap();
    assert_eq!(headers.len(), 1);
    headers.insert("connection", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(prepare_request(&mut headers, &[]).unwrap_err().reason(), Reason::ConnectionHeaderInvalid);
}
