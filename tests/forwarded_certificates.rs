//! Where TLS ends in front of the gateway: the certificate a trusted proxy tells is the caller's, and nobody else can
//! tell one (FWD-01 to FWD-11, traps 2 to 7 of the requirements).

use std::fmt::Write as _;
use std::sync::Arc;

use portcullis_core::Reason;
use portcullis_jose::base64url;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa};

use crate::rig::certificates::{Authority, Leaf, set_validity};
use crate::rig::client::{Answer, Call, Client};
use crate::rig::eventually;
use crate::rig::upstream::Manner;
use crate::rig::world::{HOST, OPEN_BANKING, PUBLIC, Plan, World};

const SECRET: &str = "EXAMPLE-what-only-the-proxy-knows";

/// An API that takes whatever certificate of the authority, and tells the upstream which one it was.
const REPORTS: &str = "\
api: reports
match: { host: api.bank.example, path: /reports/* }
upstream: accounts
authenticate:
  certificate: { trust: open-banking }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-thumbprint: \"{certificate.thumbprint}\", x-subject: \"{certificate.subject}\" }
";

const TRUST: &str = "trust: { open-banking: { file: tls/open-banking-ca.pem } }";

/// Header fields of one request.
type Fields = Vec<(&'static str, String)>;

/// One more listener behind a proxy that shows the secret.
fn proxied(name: &str, settings: &str) -> String {
    format!(
        "  {name}:\n    address: 127.0.0.1:0\n    client_certificate_header:\n      from: [127.0.0.1]\n      proxy: {{ secret: {{ header: x-lb-secret, value: {{ file: secrets/lb }} }} }}\n      {}\n",
        settings.replace('\n', "\n      ")
    )
}

fn world(listeners: &[(&str, &str)]) -> World {
    Plan::new(&[REPORTS, OPEN_BANKING, PUBLIC])
        .with(|plan| {
            plan.directory.write("secrets/lb", SECRET);
            for (name, settings) in listeners {
                plan.listener.push_str(&proxied(name, settings));
            }
        })
        .start()
}

/// The proxy in front of a listener, as the gateway sees it.
fn proxy(world: &World, listener: &str) -> Client {
    Client::plain(world.gateway.address(listener), HOST)
}

/// A request the proxy passes on.
fn told(world: &World, listener: &str, headers: &[(&str, &str)]) -> Answer {
    with(proxy(world, listener).get("/reports/1").header("x-lb-secret", SECRET), headers).send()
}

fn with(call: Call, headers: &[(&str, &str)]) -> Call {
    headers.iter().fold(call, |call, (name, value)| call.header(name, value))
}

fn percent(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => write!(escaped, "%{byte:02X}").expect("a string grows"),
        }
    }
    escaped
}

/// Standard base64 with padding.
fn encoded(der: &[u8]) -> String {
    let text = base64url::encode(der).replace('-', "+").replace('_', "/");
    let padding = "=".repeat(text.len().wrapping_neg() % 4);
    text + &padding
}

/// Base64 of the certificate.
fn base64(leaf: &Leaf) -> String {
    encoded(&leaf.chain[0])
}

/// The first certificate alone.
fn pem(leaf: &Leaf) -> String {
    let end = "-----END CERTIFICATE-----";
    let at = leaf.pem.find(end).expect("PEM");
    format!("{}{end}\n", &leaf.pem[..at])
}

/// From now on the upstream answers with these fields.
fn answering(world: &World, fields: &[(&str, &str)]) {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n{lines}\r\nhello\n");
    world.upstream().behave(Manner::Says(answer.into_bytes()));
}

/// FWD-09: what a told certificate has opened is kept by no cache between the caller and us, and a field that callers do
/// not send is none they could tell answers apart by.
#[test]
fn no_cache_hands_on_what_a_told_certificate_has_opened() {
    let world = world(&[("rfc9440", &format!("format: rfc9440\n{TRUST}"))]);
    let leaf = Arc::new(world.plan.third_parties.client("tpp-a"));
    let value = format!(":{}:", base64(&leaf));
    let open = || told(&world, "rfc9440", &[("client-cert", &value)]);
    let cache_control = |answer: &Answer| answer.header("cache-control").map(str::to_owned);
    for (upstream, expected) in [
        (&[][..], "no-store"),
        (&[("cache-control", "public, max-age=600"), ("cdn-cache-control", "max-age=600")], "no-store"),
        (&[("cache-control", "private, max-age=5")], "private, max-age=5"),
        (&[("cache-control", "private"), ("x-accel-expires", "600")], "private"),
        (&[("edge-control", "cache-maxage=10m"), ("surrogate-control", "max-age=600")], "no-store"),
        (&[("netlify-cdn-cache-control", "max-age=600")], "no-store"),
    ] {
        answering(&world, upstream);
        let answer = open();
        answer.assert_passed();
        assert_eq!(cache_control(&answer).as_deref(), Some(expected));
        for (name, _) in upstream.iter().filter(|(name, _)| *name != "cache-control") {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
    answering(&world, &[("cache-control", "public"), ("vary", "Accept, Client-Cert")]);
    let own = world.stranger().certificate(&leaf).get("/reports/1").send();
    own.assert_passed();
    assert_eq!(own.header("vary"), Some("*"));
    assert_eq!(cache_control(&own).as_deref(), Some("public"));
}

/// FWD-10: each format of the requirements' table, as its product writes it.
#[test]
fn every_format_names_the_caller() {
    let own = |format: &str| format!("format: {format}\nheader: x-caller\n{TRUST}");
    let known = |format: &str| format!("format: {format}\n{TRUST}");
    let listeners = [
        ("rfc9440", known("rfc9440")),
        ("gcp", format!("format: rfc9440\nheader: x-caller\nchain_header: x-caller-chain\n{TRUST}")),
        ("xfcc", known("xfcc")),
        ("nginx", own("pem_url_encoded")),
        ("apache", own("pem")),
        ("haproxy", format!("format: base64_der\nheader: x-caller\nchain_header: x-caller-chain\n{TRUST}")),
        ("alb", known("alb")),
        ("alb-verified", known("alb_verified")),
        ("traefik", known("traefik")),
        ("cloudflare", known("cloudflare")),
        ("azure", known("azure_app_service")),
        ("wso2", known("wso2")),
    ];
    let listeners: Vec<_> = listeners.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let world = world(&listeners);
    let below = world.plan.third_parties.intermediate("Issuing authority");
    for round in 0..3 {
        let leaf = world.plan.third_parties.client(&format!("tpp-{round}"));
        let deep = below.client("tpp-deep");
        let (text, plain) = (pem(&leaf), base64(&leaf));
        let between = encoded(&deep.chain[1]);
        let deep_der = [deep.chain[1].clone(), world.plan.third_parties.der().to_vec()].concat();
        let alb = percent(&text).replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        let rows: Vec<(&str, &Leaf, Fields)> = vec![
            ("rfc9440", &leaf, vec![("client-cert", format!(":{plain}:"))]),
            (
                "rfc9440",
                &deep,
                vec![
                    ("client-cert", format!(":{}:", base64(&deep))),
                    ("client-cert-chain", format!(":{between}:")),
                ],
            ),
            ("gcp", &leaf, vec![("x-caller", format!(":{plain}:")), ("x-caller-chain", String::new())]),
            (
                "xfcc",
                &leaf,
                vec![(
                    "x-forwarded-client-cert",
                    format!("Hash={};Cert=\"{}\";Subject=\"CN=a\";URI=", leaf.fingerprint(), percent(&text)),
                )],
            ),
            ("xfcc", &deep, vec![("x-forwarded-client-cert", format!("Chain=\"{}\"", percent(&deep.pem)))]),
            ("nginx", &leaf, vec![("x-caller", percent(&text))]),
            ("apache", &leaf, vec![("x-caller", text.replace('\n', " "))]),
            ("apache", &leaf, vec![("x-caller", text.trim().replace('\n', ""))]),
            ("haproxy", &leaf, vec![("x-caller", plain.clone())]),
            ("haproxy", &deep, vec![("x-caller", base64(&deep)), ("x-caller-chain", encoded(&deep_der))]),
            ("alb", &leaf, vec![("x-amzn-mtls-clientcert", alb.clone())]),
            ("alb", &deep, vec![("x-amzn-mtls-clientcert", percent(&deep.pem))]),
            ("alb-verified", &leaf, vec![("x-amzn-mtls-clientcert-leaf", alb)]),
            (
                "traefik",
                &deep,
                vec![("x-forwarded-tls-client-cert", percent(&format!("{},{between}", base64(&deep))))],
            ),
            ("cloudflare", &leaf, vec![("cf-client-cert-der-base64", plain.clone())]),
            ("azure", &leaf, vec![("x-arr-clientcert", plain.clone())]),
            ("wso2", &leaf, vec![("x-wso2-mutual-auth-cert", percent(&text))]),
            ("wso2", &leaf, vec![("x-wso2-mutual-auth-cert", text.replace('\n', "\\r\\n"))]),
            ("wso2", &leaf, vec![("x-wso2-mutual-auth-cert", plain.clone())]),
        ];
        for (listener, leaf, headers) in rows {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            told(&world, listener, &headers).assert_passed();
            let received = world.upstream().last();
            assert_eq!(received.value("x-thumbprint"), leaf.fingerprint(), "{listener}");
            for (name, _) in headers.iter().chain(&[("x-lb-secret", "")]) {
                assert!(received.values(name).is_empty(), "{listener}: `{name}` went on to the upstream");
            }
        }
    }
    let taken = world.gateway.metric_sum("portcullis_forwarded_certificates_total", &["result=\"taken\""]);
    assert!(taken >= 57.0, "{taken}");
}

/// Each row is refused for its own reason, and nothing reaches the upstream.
#[test]
fn what_the_proxy_tells_is_judged() {
    let settings = format!("format: pem_url_encoded\nheader: x-ssl-client-cert\n{TRUST}");
    let world = world(&[("proxied", &settings)]);
    let trusted = &world.plan.third_parties;
    let leaf = |change: fn(&mut CertificateParams)| percent(&pem(&trusted.leaf("tpp-a", change)));
    let good = leaf(|_| ());
    let plus = (0..64)
        .map(|_| percent(&pem(&trusted.client("tpp-a"))))
        .find(|text| text.contains("%2B"))
        .expect("a certificate with a plus");
    let strange = percent(&pem(&Authority::new("Open banking root").client("tpp-a")));
    let rows: Vec<(&str, Fields, Reason)> = vec![
        ("none", vec![], Reason::CertificateMissing),
        ("an empty one", vec![("x-ssl-client-cert", String::new())], Reason::CertificateMissing),
        ("no value of Apache", vec![("x-ssl-client-cert", "(null)".into())], Reason::CertificateMissing),
        (
            "two of them",
            vec![("x-ssl-client-cert", good.clone()), ("x-ssl-client-cert", good.clone())],
            Reason::CertificateHeaderInvalid,
        ),
        (
            "two that differ, the first empty",
            vec![("x-ssl-client-cert", String::new()), ("x-ssl-client-cert", good.clone())],
            Reason::CertificateHeaderInvalid,
        ),
        ("junk", vec![("x-ssl-client-cert", "junk".into())], Reason::CertificateHeaderInvalid),
        (
            "bytes beyond ASCII",
            vec![("x-ssl-client-cert", "-----BEGIN ö".into())],
            Reason::CertificateHeaderInvalid,
        ),
        ("oversized", vec![("x-ssl-client-cert", "A".repeat(40_000))], Reason::HeadersTooLarge),
        (
            "a cut percent sign",
            vec![("x-ssl-client-cert", format!("{good}%"))],
            Reason::CertificateHeaderInvalid,
        ),
        (
            "cut in the middle",
            vec![("x-ssl-client-cert", good[..good.len() / 2].into())],
            Reason::CertificateHeaderInvalid,
        ),
        (
            "a form decoder was at work (trap 5)",
            vec![("x-ssl-client-cert", plus.replace("%2B", "%20"))],
            Reason::CertificateHeaderInvalid,
        ),
        (
            "PEM around something else",
            vec![(
                "x-ssl-client-cert",
                percent("-----BEGIN CERTIFICATE-----\nMAMCAQc=\n-----END CERTIFICATE-----"),
            )],
            Reason::CertificateHeaderInvalid,
        ),
        (
            "another format (FWD-03)",
            vec![("client-cert", format!(":{}:", base64(&trusted.client("tpp-a"))))],
            Reason::CertificateMissing,
        ),
        ("another spelling (trap 6)", vec![("x_ssl_client_cert", good.clone())], Reason::CertificateMissing),
        (
            "another authority of the same name",
            vec![("x-ssl-client-cert", strange)],
            Reason::CertificateRefused,
        ),
        (
            "expired",
            vec![("x-ssl-client-cert", leaf(|params| set_validity(params, -7_200, -3_600)))],
            Reason::CertificateExpired,
        ),
        (
            "not valid yet",
            vec![("x-ssl-client-cert", leaf(|params| set_validity(params, 3_600, 7_200)))],
            Reason::CertificateExpired,
        ),
        (
            "a server's (trap 20)",
            vec![(
                "x-ssl-client-cert",
                leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            )],
            Reason::CertificateRefused,
        ),
        (
            "an authority",
            vec![(
                "x-ssl-client-cert",
                leaf(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            )],
            Reason::CertificateRefused,
        ),
        (
            "nominated by Connection (trap 6)",
            vec![("x-ssl-client-cert", good.clone()), ("connection", "x-ssl-client-cert".into())],
            Reason::ConnectionHeaderInvalid,
        ),
        (
            "the secret nominated by Connection",
            vec![("x-ssl-client-cert", good.clone()), ("connection", "x-lb-secret".into())],
            Reason::ConnectionHeaderInvalid,
        ),
    ];
    for (what, headers, reason) in &rows {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = told(&world, "proxied", &headers);
        assert_eq!(answer.code(), reason.code(), "{what}: {}", answer.text());
        answer.assert_refused(*reason);
    }
    // Whoever cannot show the secret is nobody's proxy, whatever else they send.
    let header = ("x-ssl-client-cert", good.as_str());
    for unsaid in [vec![header], vec![header, ("x_lb_secret", SECRET)]] {
        with(proxy(&world, "proxied").get("/reports/1"), &unsaid)
            .send()
            .assert_refused(Reason::CertificateMissing);
    }
    // One that is there and is not the secret may be what a stranger sent and the proxy passed on (FWD-06).
    for spoiled in [
        vec![header, ("x-lb-secret", "")],
        vec![header, ("x-lb-secret", "EXAMPLE-what-only-the-proxy-know")],
        vec![header, ("x-lb-secret", SECRET), ("x-lb-secret", SECRET)],
    ] {
        with(proxy(&world, "proxied").get("/reports/1"), &spoiled)
            .send()
            .assert_refused(Reason::CertificateHeaderInvalid);
    }
    // Trap 6: the same header on a listener that has no proxy, with all it takes.
    for client in [world.plain(), world.stranger(), world.stranger().http2()] {
        let call = client.get("/reports/1").header("x-lb-secret", SECRET);
        with(call, &[header]).send().assert_refused(Reason::CertificateMissing);
    }
    // A certificate that is refused is refused everywhere on that listener, also where none is needed, as a handshake
    // would end; and its 401 has a challenge.
    let strange = percent(&pem(&Authority::new("Strangers").client("tpp-a")));
    let public = proxy(&world, "proxied").get("/public/1").header("x-lb-secret", SECRET);
    let answer = public.header("x-ssl-client-cert", &strange).send();
    answer.assert_refused(Reason::CertificateRefused);
    assert_eq!(answer.challenges(), ["Certificate realm=\"public\""]);
    world.assert_upstream_untouched();
    // What is left is good, and no header of the proxy's goes on anywhere.
    told(&world, "proxied", &[header]).assert_passed();
    let public =
        world.plain().get("/public/1").header("x-lb-secret", "mine").header("x_ssl_client_cert", &good);
    public.send().assert_passed();
    let received = world.upstream().last();
    assert!(received.values("x-lb-secret").is_empty() && received.values("x_ssl_client_cert").is_empty());
}

/// CNF-03 and CNF-06, where the certificate comes in a header: a request is judged by its own, never by the one before.
#[test]
fn bound_tokens_are_bound_to_what_the_proxy_tells() {
    let settings = format!("format: rfc9440\n{TRUST}");
    let world = world(&[("proxied", &settings)]);
    let (own, other) = (world.tpp_a.clone(), world.plan.third_parties.client("tpp-b"));
    let token = world.bound_token();
    let client = proxy(&world, "proxied");
    let mut session = client.connect().expect("a connection");
    let mut ask = |certificate: Option<&Leaf>| {
        let call = client.get("/open-banking/v3/accounts").bearer(&token).header("x-lb-secret", SECRET);
        let call = match certificate {
            Some(leaf) => call.header("client-cert", &format!(":{}:", base64(leaf))),
            None => call,
        };
        session.send(call).expect("an answer")
    };
    for _ in 0..2 {
        ask(Some(&own)).assert_passed();
        ask(Some(&other)).assert_refused(Reason::CertificateMismatch);
        ask(None).assert_refused(Reason::CertificateMissing);
    }
    assert_eq!(world.upstream().hits(), 2);
}

/// FWD-05, traps 2 and 3: where the proxy verifies, its verdict is compulsory and exact.
#[test]
fn the_word_of_a_proxy_that_verifies_is_needed() {
    let haproxy = "format: base64_der\nheader: x-ssl-client-der\nverdict: { x-ssl-client-verify: \"0\", x-ssl-client-used: \"1\" }\ntrusted_as: by-proxy";
    let nginx = "format: pem_url_encoded\nheader: x-ssl-client-cert\nverdict: { x-ssl-client-verify: SUCCESS }\ntrusted_as: by-proxy";
    let plan = Plan::new(&[&REPORTS.replace("open-banking }", "by-proxy }")]).with(|plan| {
        plan.directory.write("secrets/lb", SECRET);
        plan.listener = proxied("haproxy", haproxy) + &proxied("nginx", nginx);
    });
    let world = plan.start();
    // Whoever certified it is the proxy's affair; what the certificate says of itself is judged here as well.
    let authority = Authority::new("Only the proxy knows it");
    let leaf = authority.client("tpp-a");
    let (der, text) = (base64(&leaf), percent(&pem(&leaf)));
    let (verify, used) = ("x-ssl-client-verify", "x-ssl-client-used");
    for (what, headers, reason) in [
        (
            "no certificate, as HAProxy says it",
            vec![("x-ssl-client-der", ""), (verify, "0"), (used, "0")],
            Reason::CertificateMissing,
        ),
        ("a verdict alone", vec![(verify, "0"), (used, "1")], Reason::CertificateMissing),
        (
            "verified, but not used",
            vec![("x-ssl-client-der", &*der), (verify, "0"), (used, "0")],
            Reason::CertificateRefused,
        ),
        (
            "not verified",
            vec![("x-ssl-client-der", &*der), (verify, "20"), (used, "1")],
            Reason::CertificateRefused,
        ),
        ("no verdict", vec![("x-ssl-client-der", &*der)], Reason::CertificateRefused),
        ("half a verdict", vec![("x-ssl-client-der", &*der), (verify, "0")], Reason::CertificateRefused),
        (
            "two verdicts",
            vec![("x-ssl-client-der", &*der), (verify, "0"), (verify, "0"), (used, "1")],
            Reason::CertificateRefused,
        ),
    ] {
        let answer = told(&world, "haproxy", &headers);
        assert_eq!(answer.code(), reason.code(), "{what}: {}", answer.text());
        answer.assert_refused(reason);
    }
    for verdict in ["FAILED:unable to verify the first certificate", "NONE", "success", "SUCCESS ,", ""] {
        let answer = told(&world, "nginx", &[("x-ssl-client-cert", &text), (verify, verdict)]);
        assert_eq!(answer.code(), Reason::CertificateRefused.code(), "{verdict}: {}", answer.text());
    }
    for (change, reason) in [
        (
            (|params| set_validity(params, -7_200, -3_600)) as fn(&mut CertificateParams),
            Reason::CertificateExpired,
        ),
        (
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Reason::CertificateRefused,
        ),
        (
            |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            Reason::CertificateRefused,
        ),
    ] {
        let bad = percent(&pem(&authority.leaf("tpp-a", change)));
        told(&world, "nginx", &[("x-ssl-client-cert", &bad), (verify, "SUCCESS")]).assert_refused(reason);
    }
    world.assert_upstream_untouched();
    told(&world, "haproxy", &[("x-ssl-client-der", &der), (verify, "0"), (used, "1")]).assert_passed();
    told(&world, "nginx", &[("x-ssl-client-cert", &text), (verify, "SUCCESS")]).assert_passed();
    // The verdict is the request's: the certificate is known by now, and still worth nothing without.
    told(&world, "nginx", &[("x-ssl-client-cert", &text)]).assert_refused(Reason::CertificateRefused);
    assert!(world.upstream().last().values("x-ssl-client-verify").is_empty());
}

/// Trap 4, and what a fingerprint alone is good for.
#[test]
fn the_nearest_envoy_is_believed() {
    let hash = "format: xfcc\ntrusted_as: by-envoy\nhash_suffices: true";
    let whole = "format: xfcc\ntrusted_as: by-envoy";
    let world = Plan::new(&[&REPORTS.replace("open-banking }", "by-envoy }"), OPEN_BANKING])
        .with(|plan| {
            plan.directory.write("secrets/lb", SECRET);
            plan.listener = proxied("hash", hash) + &proxied("whole", whole);
        })
        .start();
    let (own, thief) = (&world.tpp_a, world.plan.third_parties.client("thief"));
    let token = world.bound_token();
    let ask = |listener: &str, xfcc: &str| {
        let call = proxy(&world, listener).get("/open-banking/v3/accounts").bearer(&token);
        call.header("x-lb-secret", SECRET).header("x-forwarded-client-cert", xfcc).send()
    };
    let (real, stolen) = (own.fingerprint(), thief.fingerprint());
    ask("hash", &format!("Hash={stolen},By=spiffe://gw;Hash={real};Subject=\"CN=tpp-a\"")).assert_passed();
    for (xfcc, reason) in [
        (
            format!("Hash={real},By=spiffe://gw;Hash={stolen};Subject=\"CN=thief\""),
            Reason::CertificateMismatch,
        ),
        (
            format!("Hash={real};Subject=\",By=spiffe://gw;Hash={stolen};Subject=\"CN=thief\""),
            Reason::CertificateHeaderInvalid,
        ),
        (format!("Hash={real};Subject=\",By=spiffe://gw;Hash={stolen}"), Reason::CertificateHeaderInvalid),
        (format!("Hash={real},By=spiffe://gw"), Reason::CertificateHeaderInvalid),
        // Trap 7: no other digest, and no other spelling of it.
        (format!("Hash={}", &real[..40]), Reason::CertificateHeaderInvalid),
        (format!("Hash={}", own.thumbprint()), Reason::CertificateHeaderInvalid),
    ] {
        let answer = ask("hash", &xfcc);
        assert_eq!(answer.code(), reason.code(), "{xfcc}: {}", answer.text());
    }
    ask("whole", &format!("Hash={real}")).assert_refused(Reason::CertificateRefused);
    assert_eq!(world.upstream().hits(), 1);
}

/// RVK-01 for certificates in headers: revoked is 401, not known is 503.
#[test]
fn revocation_is_asked_for_forwarded_certificates() {
    let lists = |name: &str| {
        format!("format: rfc9440\n{TRUST}\nrevocation: {{ crls: [tls/{name}.crl], reload: 100ms }}")
    };
    let plan = Plan::new(&[REPORTS]);
    let (good, revoked) = (plan.third_parties.client("good"), plan.third_parties.client("revoked"));
    plan.directory.write("tls/own.crl", plan.third_parties.revocation_list(&[&revoked], 3_600));
    plan.directory.write("tls/other.crl", Authority::new("Others").revocation_list(&[], 3_600));
    plan.directory.write("secrets/lb", SECRET);
    let world = plan
        .with(|plan| plan.listener = proxied("own", &lists("own")) + &proxied("other", &lists("other")))
        .start();
    let ask =
        |listener, leaf: &Leaf| told(&world, listener, &[("client-cert", &format!(":{}:", base64(leaf)))]);
    ask("own", &revoked).assert_refused(Reason::CertificateRevoked);
    ask("other", &good).assert_refused(Reason::RevocationUnknown);
    world.assert_upstream_untouched();
    ask("own", &good).assert_passed();
    // The certificate is known by now; a list that comes later counts all the same.
    let list = world.plan.third_parties.revocation_list(&[&good], 3_600);
    world.plan.directory.write("tls/own.crl", list);
    let refusal = eventually("the list counts", || {
        let answer = ask("own", &good);
        (answer.status != 200).then_some(answer)
    });
    refusal.assert_refused(Reason::CertificateRevoked);
}

/// WS-04 and FWD-06: a caller's own handshake wins over any header, and the proxy's own certificate is nobody's.
#[test]
fn the_handshake_of_a_caller_wins_and_that_of_the_proxy_never_counts() {
    let plan = Plan::new(&[REPORTS]);
    let balancers = Authority::new("Load balancers");
    let (balancer, stranger) = (Arc::new(balancers.client("lb-1")), Arc::new(balancers.client("lb-2")));
    plan.directory.write("tls/lb-ca.pem", balancers.pem());
    let world = plan
        .with(|plan| {
            // The keys of the listener `public` go on here.
            plan.listener = format!(
                "    client_certificate_header:\n      from: [127.0.0.1]\n      proxy: {{ certificate: {{ trust: balancers, fingerprints: [\"{}\"] }} }}\n      format: rfc9440\n      trust: {{ open-banking: {{ file: tls/open-banking-ca.pem }} }}\n",
                balancer.fingerprint()
            );
            plan.trust = "open-banking: { file: tls/open-banking-ca.pem }, balancers: { file: tls/lb-ca.pem }".to_owned();
        })
        .start();
    let (own, other) =
        (Arc::new(world.plan.third_parties.client("own")), world.plan.third_parties.client("other"));
    let header = format!(":{}:", base64(&other));
    let ask = |client: Client, told: bool| {
        let call = client.get("/reports/1");
        if told { call.header("client-cert", &header).send() } else { call.send() }
    };
    for http2 in [false, true] {
        let client = |leaf: &Arc<Leaf>| {
            let client = world.stranger().certificate(leaf);
            if http2 { client.http2() } else { client }
        };
        // From the proxy: what it tells, and nothing if it tells nothing.
        ask(client(&balancer), true).assert_passed();
        assert_eq!(world.upstream().last().value("x-thumbprint"), other.fingerprint());
        ask(client(&balancer), false).assert_refused(Reason::CertificateMissing);
        // From a caller that shook hands: their own, whatever they send.
        ask(client(&own), true).assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.value("x-thumbprint"), own.fingerprint());
        assert!(received.values("client-cert").is_empty(), "{}", received.head);
        // Another certificate of the proxies' authority is no proxy, and is not one the API takes.
        ask(client(&stranger), true).assert_refused(Reason::CertificateRefused);
        let nobody = if http2 { world.stranger().http2() } else { world.stranger() };
        ask(nobody, true).assert_refused(Reason::CertificateMissing);
    }
    assert_eq!(world.upstream().hits(), 4);
}

/// FWD-12: as the one who ends TLS the gateway writes what the upstream reads, after the caller's own copies are gone,
/// and nothing without a certificate.
#[test]
fn the_gateway_hands_a_certificate_on_in_the_words_of_the_upstream() {
    let telling = "\
api: telling
match: { host: api.bank.example, path: /telling/* }
upstream: accounts
authenticate: { anonymous: { because: what is handed on is what is tested } }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set:
    client-cert: \"{certificate.rfc9440}\"
    x-forwarded-client-cert: \"{certificate.xfcc}\"
    x-ssl-client-cert: \"{certificate.pem_url_encoded}\"
    x-wso2-client-certificate: \"{certificate.pem_one_line}\"
    x-client-cert-der: \"{certificate.base64_der}\"
";
    let world = World::with(&[telling]);
    let names = [
        "client-cert",
        "x-forwarded-client-cert",
        "x-ssl-client-cert",
        "x-wso2-client-certificate",
        "x-client-cert-der",
    ];
    let forged: Vec<_> =
        names.iter().map(|name| (*name, "forged")).chain([("x_ssl_client_cert", "forged")]).collect();
    with(world.stranger().get("/telling/1"), &forged).send().assert_passed();
    let received = world.upstream().last();
    assert!(!received.head.contains("forged"), "{}", received.head);
    assert!(names.iter().all(|name| received.values(name).is_empty()), "{}", received.head);
    with(world.client().get("/telling/1"), &forged).send().assert_passed();
    let received = world.upstream().last();
    let (leaf, text) = (&world.tpp_a, percent(&pem(&world.tpp_a)));
    assert_eq!(received.value("client-cert"), format!(":{}:", base64(leaf)));
    assert_eq!(received.value("x-client-cert-der"), base64(leaf));
    assert_eq!(received.value("x-ssl-client-cert"), text);
    let one_line = format!("-----BEGIN CERTIFICATE-----{}-----END CERTIFICATE-----", base64(leaf));
    assert_eq!(received.value("x-wso2-client-certificate"), one_line);
    assert_eq!(
        received.value("x-forwarded-client-cert"),
        format!("Hash={};Cert=\"{text}\";Subject=\"CN=tpp-a\"", leaf.fingerprint())
    );
}

/// FWD-06: also where the proxy proves itself by other means, what it shows in its handshake is its own.
#[test]
fn a_certificate_the_proxy_shows_beside_its_proof_names_nobody() {
    for proof in [
        "{ secret: { header: x-lb-secret, value: { file: secrets/lb } } }",
        "{ address_alone: { because: a cable } }",
    ] {
        let world = Plan::new(&[REPORTS, PUBLIC])
            .with(|plan| {
                plan.directory.write("secrets/lb", SECRET);
                plan.listener = format!(
                    "    client_certificate_header:\n      from: [127.0.0.1]\n      proxy: {proof}\n      format: rfc9440\n      {TRUST}\n"
                );
            })
            .start();
        let (balancer, other) = (world.tpp_a.clone(), world.plan.third_parties.client("other"));
        let through =
            || world.stranger().certificate(&balancer).get("/reports/1").header("x-lb-secret", SECRET);
        through().send().assert_refused(Reason::CertificateMissing);
        if proof.contains("secret") {
            // What a stranger has sent beside the secret of the proxy does not make the proxy's certificate a caller's.
            for spoiled in ["x", SECRET] {
                let spoiled = through().header("x-lb-secret", spoiled);
                spoiled.send().assert_refused(Reason::CertificateHeaderInvalid);
            }
        }
        world.assert_upstream_untouched();
        through().header("client-cert", &format!(":{}:", base64(&other))).send().assert_passed();
        assert_eq!(world.upstream().last().value("x-thumbprint"), other.fingerprint());
    }
}
