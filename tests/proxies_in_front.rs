//! nginx and HAProxy in front, ending TLS and telling certificates in their own ways, or relaying bytes with the PROXY
//! protocol.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use portcullis_core::Reason;

use crate::rig::certificates::{Authority, Leaf};
use crate::rig::client::{Answer, Client};
use crate::rig::fronts::{Front, free_address};
use crate::rig::world::{HOST, OPEN_BANKING, PUBLIC, Plan, World};

const SECRET: &str = "EXAMPLE-what-only-the-proxy-knows";

const REPORTS: &str = "\
api: reports
match: { host: api.bank.example, path: /reports/* }
upstream: accounts
authenticate:
  certificate: { trust: [open-banking, by-proxy] }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-thumbprint: \"{certificate.thumbprint}\" }
";

fn proxied(name: &str, settings: &str) -> String {
    format!(
        "  {name}:\n    address: 127.0.0.1:0\n    client_certificate_header:\n      from: [127.0.0.1]\n      proxy: {{ secret: {{ header: x-lb-secret, value: {{ file: secrets/lb }} }} }}\n      {}\n",
        settings.replace('\n', "\n      ")
    )
}

fn world(apis: &[&str], listeners: &str) -> World {
    Plan::new(apis)
        .with(|plan| {
            plan.directory.write("secrets/lb", SECRET);
            plan.listener = listeners.to_owned();
        })
        .start()
}

/// The proxy's own certificate and key, and the authorities it asks clients for.
fn files(world: &World) -> Vec<(&'static str, String)> {
    let server = world.plan.servers.server(&[HOST]);
    vec![
        ("server.pem", format!("{}{}", server.pem, server.key_pem)),
        ("clients.pem", world.plan.third_parties.pem().to_owned()),
    ]
}

fn named<'f>(files: &'f [(&'static str, String)]) -> Vec<(&'static str, &'f str)> {
    files.iter().map(|(name, content)| (*name, content.as_str())).collect()
}

fn through(world: &World, front: SocketAddr) -> Client {
    Client::tls(front, HOST, &world.plan.servers)
}

/// What the gateway said, whatever the proxy has added to it.
#[track_caller]
fn refused(answer: &Answer, reason: Reason) {
    assert_eq!((answer.code().as_str(), answer.status), (reason.code(), reason.status().as_u16()));
}

#[track_caller]
fn passes(world: &World, client: &Client, leaf: &Leaf) {
    client.get("/reports/1").send().assert_passed();
    let received = world.upstream().last();
    assert_eq!(received.value("x-thumbprint"), leaf.fingerprint());
    assert!(!received.head.to_lowercase().contains("x-ssl-") && !received.head.contains("x-lb-secret"));
}

/// The certificates of each row, twenty of them, because what breaks at a plus breaks one in ten (trap 5).
#[test]
fn nginx_tells_certificates() {
    let world = world(
        &[REPORTS, OPEN_BANKING],
        &(proxied(
            "ours",
            "format: pem_url_encoded\nheader: x-ssl-client-cert\ntrust: { open-banking: { file: tls/open-banking-ca.pem } }",
        ) + &proxied(
            "theirs",
            "format: pem_url_encoded\nheader: x-ssl-client-cert\nverdict: { x-ssl-client-verify: SUCCESS }\ntrusted_as: by-proxy",
        )),
    );
    let (ours, theirs) = (free_address(), free_address());
    let server = |own: SocketAddr, listener: &str| {
        format!(
            "server {{ listen {own} ssl; ssl_certificate {{dir}}/server.pem; ssl_certificate_key {{dir}}/server.pem;\n\
             ssl_client_certificate {{dir}}/clients.pem; ssl_verify_client optional_no_ca; ssl_verify_depth 3;\n\
             location / {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_set_header Host $host;\n\
             proxy_set_header X-LB-Secret {SECRET}; proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;\n\
             proxy_set_header X-SSL-Client-Verify $ssl_client_verify; }} }}\n",
            world.gateway.address(listener)
        )
    };
    let files = files(&world);
    let servers = server(ours, "ours") + &server(theirs, "theirs");
    let _nginx = Front::nginx(&servers, &named(&files), &[ours, theirs]);
    for front in [ours, theirs] {
        for number in 0..20 {
            let leaf = Arc::new(world.plan.third_parties.client(&format!("tpp-{number}")));
            passes(&world, &through(&world, front).certificate(&leaf), &leaf);
        }
        let hits = world.upstream().hits();
        // Trap 3: nginx passes on what it could not verify.
        let strange = Arc::new(Authority::new("Open banking root").client("tpp-a"));
        refused(
            &through(&world, front).certificate(&strange).get("/reports/1").send(),
            Reason::CertificateRefused,
        );
        let spoofed = through(&world, front).get("/reports/1").header("x-ssl-client-cert", "junk");
        refused(&spoofed.header("x-ssl-client-verify", "SUCCESS").send(), Reason::CertificateMissing);
        assert_eq!(world.upstream().hits(), hits);
    }
    // Bound tokens, end to end.
    let token = world.bound_token();
    let ask = |leaf: &Arc<Leaf>| {
        through(&world, ours).certificate(leaf).get("/open-banking/v3/accounts").bearer(&token).send()
    };
    ask(&world.tpp_a).assert_passed();
    refused(&ask(&Arc::new(world.plan.third_parties.client("thief"))), Reason::CertificateMismatch);
}

#[test]
fn haproxy_tells_certificates() {
    let world = world(
        &[REPORTS, OPEN_BANKING],
        &(proxied(
            "ours",
            "format: base64_der\nheader: x-ssl-client-der\nchain_header: x-ssl-chain-der\ntrust: { open-banking: { file: tls/open-banking-ca.pem } }",
        ) + &proxied(
            "theirs",
            "format: base64_der\nheader: x-ssl-client-der\nverdict: { x-ssl-client-verify: \"0\", x-ssl-client-used: \"1\" }\ntrusted_as: by-proxy",
        ) + &proxied(
            "standard",
            "format: rfc9440\ntrust: { open-banking: { file: tls/open-banking-ca.pem } }",
        )),
    );
    let fronts = [("ours", free_address()), ("theirs", free_address()), ("standard", free_address())];
    let sections: String = fronts
        .iter()
        .map(|(listener, own)| {
            format!(
                "listen {listener}\n  bind {own} ssl crt {{dir}}/server.pem ca-file {{dir}}/clients.pem verify optional crt-ignore-err all ca-ignore-err all\n  \
                 http-request set-header X-LB-Secret {SECRET}\n  \
                 http-request set-header X-SSL-Client-DER %[ssl_c_der,base64]\n  \
                 http-request set-header X-SSL-Chain-DER %[ssl_c_chain_der,base64]\n  \
                 http-request set-header X-SSL-Client-Verify %[ssl_c_verify]\n  \
                 http-request set-header X-SSL-Client-Used %[ssl_c_used]\n  \
                 http-request set-header Client-Cert :%[ssl_c_der,base64]:\n  \
                 server gateway {}\n",
                world.gateway.address(listener)
            )
        })
        .collect();
    let files = files(&world);
    let addresses: Vec<_> = fronts.iter().map(|(_, own)| *own).collect();
    let _haproxy = Front::haproxy(&sections, &named(&files), &addresses);
    for (listener, front) in fronts {
        for number in 0..10 {
            let leaf = Arc::new(world.plan.third_parties.client(&format!("tpp-{number}")));
            passes(&world, &through(&world, front).certificate(&leaf), &leaf);
        }
        let hits = world.upstream().hits();
        let strange = Arc::new(Authority::new("Open banking root").client("tpp-a"));
        let refused = through(&world, front).certificate(&strange).get("/reports/1").send();
        assert_eq!(refused.code(), Reason::CertificateRefused.code(), "{listener}: {}", refused.text());
        // Trap 2: no certificate is verify code 0, an empty header, and `::`.
        let none = through(&world, front).get("/reports/1").send();
        assert_eq!(none.code(), Reason::CertificateMissing.code(), "{listener}: {}", none.text());
        assert_eq!(world.upstream().hits(), hits, "{listener}");
    }
    let deep = Arc::new(world.plan.third_parties.intermediate("Issuing authority").client("deep"));
    passes(&world, &through(&world, fronts[0].1).certificate(&deep), &deep);
}

/// Versions 1 and 2, with and without what HAProxy adds to them, before plain HTTP and before TLS.
#[test]
fn haproxy_announces_whom_it_relays() {
    let world = world(
        &[PUBLIC],
        "    proxy_protocol: { from: [127.0.0.1] }\n  relayed:\n    address: 127.0.0.1:0\n    proxy_protocol: { from: [127.0.0.1] }\n",
    );
    let ways = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"];
    let fronts: Vec<_> = ways
        .iter()
        .flat_map(|way| [("relayed", *way), ("public", *way)])
        .map(|(listener, way)| (listener, way, free_address()))
        .collect();
    let sections: String = fronts
        .iter()
        .enumerate()
        .map(|(number, (listener, way, own))| {
            format!(
                "listen relay{number}\n  mode tcp\n  bind {own}\n  server gateway {} source 127.0.0.1 {way}\n",
                world.gateway.address(listener)
            )
        })
        .collect();
    let addresses: Vec<_> = fronts.iter().map(|(_, _, own)| *own).collect();
    let _haproxy = Front::haproxy(&sections, &[], &addresses);
    world.plan.directory.write("root.pem", world.plan.servers.pem());
    let root = world.plan.directory.join("root.pem");
    for (number, (listener, way, own)) in fronts.iter().enumerate() {
        let scheme = if *listener == "public" { "https" } else { "http" };
        let caller = format!("127.0.7.{}", number + 1);
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--noproxy",
                "*",
                "--interface",
                &caller,
                "--cacert",
            ])
            .arg(&root)
            .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", own.port())])
            .arg(format!("{scheme}://{HOST}:{}/public/1", own.port()))
            .output()
            .expect("curl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{way} before {scheme}: {said}");
        assert_eq!(world.upstream().last().value("x-forwarded-for"), caller, "{way} before {scheme}");
    }
    // Past HAProxy nobody gets in.
    assert!(world.stranger().get("/public/1").attempt().is_err());
}
