//! Client certificates: asked for as the listener says, judged by the policy, and judged again on every request.

use std::sync::Arc;

use portcullis_core::Reason;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, SanType};

use crate::rig::certificates::{Authority, Leaf, named, set_validity, unix_now};
use crate::rig::client::Client;
use crate::rig::eventually;
use crate::rig::world::{HOST, PUBLIC, Plan, World};

const REPORTS: &str = "\
api: reports
match: { host: api.bank.example, path: /reports/* }
upstream: accounts
authenticate:
  certificate: { trust: open-banking, subject: { ou: \"6f1c\" } }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-subject: \"{certificate.subject}\", x-thumbprint: \"{certificate.thumbprint}\" }
";

/// A certificate with these organisational units.
fn with_units(world: &World, units: &[&str]) -> Arc<Leaf> {
    Arc::new(world.plan.third_parties.leaf("tpp-a", |params| {
        let mut name = named("tpp-a");
        // rcgen keeps one value of each kind, so a second unit comes under its own identifier.
        for unit in units {
            name.push(DnType::OrganizationalUnitName, *unit);
        }
        params.distinguished_name = name;
    }))
}

#[track_caller]
fn refused(client: &Client, reason: Reason) {
    let answer = client.get("/reports/1").send();
    assert_eq!(answer.code(), reason.code(), "{}", answer.text());
    answer.assert_refused(reason);
    assert_eq!(answer.challenges(), ["Certificate realm=\"reports\""]);
}

#[test]
fn a_certificate_names_its_caller() {
    let world = World::with(&[REPORTS]);
    let leaf = with_units(&world, &["6f1c"]);
    world.stranger().certificate(&leaf).get("/reports/1").send().assert_passed();
    let received = world.upstream().last();
    assert!(received.value("x-subject").contains("6f1c"), "{}", received.head);
    assert_eq!(received.value("x-thumbprint"), leaf.fingerprint());
}

/// CRT-05, trap 20: trust in an authority is not enough where the policy pins something else.
#[test]
fn a_certificate_of_another_participant_is_refused() {
    let world = World::with(&[REPORTS]);
    refused(&world.stranger(), Reason::CertificateMissing);
    refused(&world.plain(), Reason::CertificateMissing);
    for units in [&[][..], &["6F1C"], &["6f1c "], &["6f1"], &["6f1c2"]] {
        refused(&world.stranger().certificate(&with_units(&world, units)), Reason::CertificateRefused);
    }
    world.assert_upstream_untouched();
}

#[test]
fn fingerprints_and_alternative_names_can_be_pinned() {
    let plan = Plan::new(&[]);
    let pinned = Arc::new(plan.third_parties.client("one"));
    let named = Arc::new(plan.third_parties.leaf("two", |params| {
        params.subject_alt_names = vec![SanType::URI("spiffe://bank/two".try_into().expect("a URI"))];
    }));
    let api = |name: &str, pin: String| {
        REPORTS
            .replace("api: reports", &format!("api: {name}"))
            .replace("/reports/", &format!("/{name}/"))
            .replace("subject: { ou: \"6f1c\" }", &pin)
    };
    plan.directory
        .write("apis/a.yaml", api("pinned", format!("fingerprints: [\"{}\"]", pinned.fingerprint())));
    plan.directory.write("apis/b.yaml", api("named", "san: { uri: \"spiffe://bank/two\" }".to_owned()));
    let world = plan.start();
    for (path, right, wrong) in [("/pinned/1", &pinned, &named), ("/named/1", &named, &pinned)] {
        world.stranger().certificate(right).get(path).send().assert_passed();
        world.stranger().certificate(wrong).get(path).send().assert_refused(Reason::CertificateRefused);
    }
}

/// CRT-06: the whole name, in its order; a name within a name is none.
#[test]
fn a_whole_subject_can_be_pinned() {
    let api = REPORTS.replace(
        "subject: { ou: \"6f1c\" }",
        "subject: \"CN=TPP A,OU=6f1c,O=Acme\\\\, Inc.\", issuer: \"CN=open  banking root\"",
    );
    let world = World::with(&[&api]);
    let leaf = |parts: &[(DnType, &str)]| {
        Arc::new(world.plan.third_parties.leaf("x", |params| {
            let mut name = rcgen::DistinguishedName::new();
            for (kind, value) in parts {
                name.push(kind.clone(), *value);
            }
            params.distinguished_name = name;
        }))
    };
    let (o, ou, cn) = (DnType::OrganizationName, DnType::OrganizationalUnitName, DnType::CommonName);
    let (acme, unit, name) = ((o.clone(), "Acme, Inc."), (ou, "6f1c"), (cn.clone(), "tpp a"));
    let good = leaf(&[acme.clone(), unit.clone(), name.clone()]);
    for parts in [
        vec![name.clone(), unit.clone(), acme.clone()],
        vec![acme.clone(), unit.clone()],
        vec![acme.clone(), unit.clone(), (cn.clone(), "tpp b")],
        vec![acme, unit, name, (DnType::CountryName, "AE")],
        vec![(o, "Acme, Inc.,OU=6f1c,CN=tpp a")],
        vec![(cn, "tpp a,OU=6f1c,O=Acme\\, Inc.")],
    ] {
        refused(&world.stranger().certificate(&leaf(&parts)), Reason::CertificateRefused);
    }
    world.assert_upstream_untouched();
    world.stranger().certificate(&good).get("/reports/1").send().assert_passed();
}

/// TLS-02: an optional listener takes whoever comes, and says who may not have what.
#[test]
fn asking_is_never_optional_or_required() {
    let world = World::with(&[PUBLIC]);
    world.stranger().get("/public/1").send().assert_passed();
    world.client().get("/public/1").send().assert_passed();

    let world = Plan::new(&[PUBLIC]).with(|plan| plan.ask = "never").start();
    world.stranger().get("/public/1").send().assert_passed();
    world.client().get("/public/1").send().assert_passed();

    let world = Plan::new(&[PUBLIC]).with(|plan| plan.ask = "required").start();
    world.client().get("/public/1").send().assert_passed();
    assert!(world.stranger().get("/public/1").attempt().is_err());
    assert_eq!(world.upstream().hits(), 1);
    eventually("the failed handshake is counted", || {
        let page = world.gateway.admin("/metrics").text();
        let lines = page.lines().filter(|line| line.starts_with("portcullis_tls_handshakes_total"));
        (lines.filter(|line| !line.contains("result=\"completed\"")).count() > 0).then_some(())
    });
}

/// CRT-01 to CRT-03: the handshake ends.
#[test]
fn a_certificate_that_is_not_good_ends_the_handshake() {
    let world = World::with(&[PUBLIC]);
    let trusted = &world.plan.third_parties;
    let leaf = |change: fn(&mut CertificateParams)| trusted.leaf("tpp-a", change);
    for (what, leaf) in [
        ("another authority of the same name", Authority::new("Open banking root").client("tpp-a")),
        ("it has expired", leaf(|params| set_validity(params, -7_200, -3_600))),
        ("it is not valid yet", leaf(|params| set_validity(params, 3_600, 7_200))),
        (
            "it is a server's",
            leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "it is an authority",
            leaf(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
        ),
    ] {
        let attempt = world.stranger().certificate(&Arc::new(leaf)).get("/public/1").attempt();
        assert!(attempt.is_err(), "{what}: {attempt:?}");
    }
    // CRT-02, and trap 10 of the stack: no purposes at all means any purpose, unless the listener says otherwise.
    let any = || Arc::new(trusted.leaf("tpp-a", |params| params.extended_key_usages.clear()));
    world.stranger().certificate(&any()).get("/public/1").send().assert_passed();
    let strict = Plan::new(&[PUBLIC]).with(|plan| {
        plan.client_certificates = "        extended_key_usage: required\n".to_owned();
    });
    let world = strict.start();
    let any = Arc::new(world.plan.third_parties.leaf("tpp-a", |params| params.extended_key_usages.clear()));
    assert!(world.stranger().certificate(&any).get("/public/1").attempt().is_err());
    world.client().get("/public/1").send().assert_passed();
}

/// TLS-05, trap 19: a connection outlives the certificate it was made with.
#[test]
fn a_certificate_that_expires_on_an_open_connection_is_refused() {
    let world = World::with(&[REPORTS]);
    let until = unix_now() + 3;
    let short = Arc::new(world.plan.third_parties.leaf("tpp-a", |params| {
        let mut name = named("tpp-a");
        name.push(DnType::OrganizationalUnitName, "6f1c");
        params.distinguished_name = name;
        set_validity(params, -60, 3);
    }));
    for client in [world.stranger().certificate(&short), world.stranger().certificate(&short).http2()] {
        if unix_now() > until {
            continue;
        }
        let mut session = client.connect().expect("a connection");
        session.send(client.get("/reports/1")).expect("an answer").assert_passed();
        let refusal = eventually("the certificate expires", || {
            let answer = session.send(client.get("/reports/1")).expect("an answer");
            (answer.status != 200).then_some(answer)
        });
        refusal.assert_refused(Reason::CertificateExpired);
    }
}

/// RVK-01.
#[test]
fn a_revoked_certificate_ends_the_handshake() {
    let revocation = "        revocation: { crls: [tls/crl/], when_unknown: deny }\n";
    let plan = Plan::new(&[PUBLIC]).with(|plan| plan.client_certificates = revocation.to_owned());
    let (good, revoked) =
        (Arc::new(plan.third_parties.client("good")), Arc::new(plan.third_parties.client("revoked")));
    plan.directory.write("tls/crl/open-banking.pem", plan.third_parties.revocation_list(&[&revoked], 3_600));
    let world = plan.start();
    world.stranger().certificate(&good).get("/public/1").send().assert_passed();
    world.stranger().get("/public/1").send().assert_passed();
    for client in [world.stranger(), world.stranger().version(&rustls::version::TLS12)] {
        assert!(client.certificate(&revoked).get("/public/1").attempt().is_err());
    }
    let due = world.gateway.metric_sum("portcullis_crl_next_update_timestamp_seconds", &[]);
    assert!((due - unix_now() as f64 - 3_600.0).abs() < 60.0, "{due}");
}

/// RVK-01: an overdue list says nothing, and nothing said is a refusal where the policy says deny.
#[test]
fn an_overdue_revocation_list_lets_nobody_in() {
    let revocation = "        revocation: { crls: [tls/crl/], when_unknown: deny }\n";
    let plan = Plan::new(&[PUBLIC]).with(|plan| plan.client_certificates = revocation.to_owned());
    plan.directory.write("tls/crl/open-banking.pem", plan.third_parties.revocation_list(&[], -60));
    plan.write();
    // Whether such a list is refused when it is read or when it is used: nobody gets in with a certificate.
    let check = crate::rig::gateway::portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
    if check.status.success() {
        let world = plan.start();
        assert!(world.client().get("/public/1").attempt().is_err());
    }
}

/// A list that becomes due while a connection is open.
#[test]
fn a_revocation_list_that_runs_out_stops_open_connections() {
    let revocation = "        revocation: { crls: [tls/crl/], when_unknown: deny }\n";
    let plan = Plan::new(&[REPORTS]).with(|plan| plan.client_certificates = revocation.to_owned());
    // Long enough for a gateway to start on a machine that has other things to do.
    plan.directory.write("tls/crl/open-banking.pem", plan.third_parties.revocation_list(&[], 12));
    let world = plan.start();
    let leaf = with_units(&world, &["6f1c"]);
    let client = world.stranger().certificate(&leaf);
    let mut session = client.connect().expect("a connection");
    session.send(client.get("/reports/1")).expect("an answer").assert_passed();
    let refusal = eventually("the list runs out", || {
        let answer = session.send(client.get("/reports/1")).expect("an answer");
        (answer.status != 200).then_some(answer)
    });
    refusal.assert_refused(Reason::CertificateExpired);
}

/// TLS-03: a host with stricter settings is not reached through a laxer handshake.
#[test]
fn a_host_with_other_tls_settings_needs_its_own_handshake() {
    let strict = "api: strict\nmatch: { host: mtls.bank.example, path: /strict/* }\nupstream: accounts\n\
                  authenticate: { anonymous: { because: the handshake is what is tested } }\n\
                  allow:\n  - { name: anything, paths: [\"/*\"] }\n";
    let plan = Plan::new(&[PUBLIC, strict]).with(|plan| {
        let both = plan.servers.server(&[HOST, "mtls.bank.example"]);
        plan.directory.write("tls/server.pem", &both.pem).write("tls/server.key", &both.key_pem);
        plan.listener = "      hosts:\n        mtls.bank.example:\n          client_certificates: { ask: required, trust: { tpp: { file: tls/open-banking-ca.pem } } }\n".to_owned();
    });
    let world = plan.start();
    let lax = world.stranger();
    lax.get("/public/1").send().assert_passed();
    for client in [lax.clone(), lax.clone().http2()] {
        let answer = client.host("mtls.bank.example").get("/strict/1").send();
        answer.assert_refused(Reason::Misdirected);
    }
    let strict = lax.server_name("mtls.bank.example").host("mtls.bank.example");
    assert!(strict.get("/strict/1").attempt().is_err());
    let holder = strict.certificate(&world.tpp_a);
    holder.get("/strict/1").send().assert_passed();
    holder.host(HOST).get("/public/1").send().assert_refused(Reason::Misdirected);
    assert_eq!(world.upstream().hits(), 2);
}

/// SNI chooses among several certificates.
#[test]
fn the_server_shows_the_certificate_that_was_asked_for() {
    let plan = Plan::new(&[PUBLIC]);
    let other = plan.servers.server(&["other.bank.example"]);
    plan.directory.write("tls/other.pem", &other.pem).write("tls/other.key", &other.key_pem);
    plan.write();
    let yaml = plan.gateway_yaml().replace(
        "      certificate: { file: tls/server.pem }\n      key: { file: tls/server.key }\n",
        "      certificates:\n        - { certificate: { file: tls/server.pem }, key: { file: tls/server.key } }\n        - { certificate: { file: tls/other.pem }, key: { file: tls/other.key } }\n",
    );
    plan.directory.write("gateway.yaml", yaml);
    let gateway = crate::rig::gateway::Gateway::start(plan.directory.path());
    for host in [HOST, "other.bank.example"] {
        // The client verifies the name, so an answer of any kind proves the certificate.
        let client = Client::tls(gateway.address("public"), host, &plan.servers);
        let answer = client.get("/nothing").send();
        answer.assert_refused(Reason::RouteNotFound);
    }
    let client = Client::tls(gateway.address("public"), "third.bank.example", &plan.servers);
    assert!(client.get("/nothing").attempt().is_err());
}

/// TLS-05, RVK-01: a list that is replaced counts at once, also on connections that stand, and a file that cannot be
/// used leaves the one before it in force.
#[test]
fn revocation_lists_are_read_again_while_the_gateway_runs() {
    let revocation = "        revocation: { crls: [tls/open-banking.crl], reload: 100ms }\n";
    let plan = Plan::new(&[REPORTS]).with(|plan| plan.client_certificates = revocation.to_owned());
    let list = |world: &World, revoked: &[&Leaf]| {
        let list = world.plan.third_parties.revocation_list(revoked, 3_600);
        // As whoever replaces such files should: whole, in one step.
        world.plan.directory.write("tls/fresh", list);
        let folder = world.plan.directory.path().join("tls");
        std::fs::rename(folder.join("fresh"), folder.join("open-banking.crl")).expect("a renamed file");
    };
    plan.directory.write("tls/open-banking.crl", plan.third_parties.revocation_list(&[], 3_600));
    let world = plan.start();
    let (good, bad) = (with_units(&world, &["6f1c"]), with_units(&world, &["6f1c"]));
    let clients = [world.stranger().certificate(&bad), world.stranger().certificate(&bad).http2()];
    let mut sessions: Vec<_> =
        clients.iter().map(|client| (client, client.connect().expect("a connection"))).collect();
    let stays = world.stranger().certificate(&good);
    let mut other = stays.connect().expect("a connection");
    for (client, session) in &mut sessions {
        session.send(client.get("/reports/1")).expect("an answer").assert_passed();
    }
    list(&world, &[&bad]);
    for (client, session) in &mut sessions {
        let refusal = eventually("the list counts", || {
            let answer = session.send(client.get("/reports/1")).expect("an answer");
            (answer.status != 200).then_some(answer)
        });
        refusal.assert_refused(Reason::CertificateRevoked);
    }
    assert!(clients[0].get("/reports/1").attempt().is_err(), "a revoked certificate shook hands");
    other.send(stays.get("/reports/1")).expect("an answer").assert_passed();
    stays.get("/reports/1").send().assert_passed();
    // A list cut off, one of nobody, none at all: what is in force stays.
    for broken in ["", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "junk"] {
        let failed = || world.gateway.metric_sum("portcullis_crl_reloads_total", &["result=\"failed\""]);
        let before = failed();
        world.plan.directory.write("tls/open-banking.crl", broken);
        eventually("the broken file is noticed", || (failed() > before).then_some(()));
        let (client, session) = &mut sessions[0];
        let answer = session.send(client.get("/reports/1")).expect("an answer");
        answer.assert_refused(Reason::CertificateRevoked);
        stays.get("/reports/1").send().assert_passed();
    }
    assert!(world.gateway.log().contains("revocation lists cannot be used"), "{}", world.gateway.log());
    // One that is older than what is known, and one that is not for this authority any more, take nothing back.
    let older = world.plan.third_parties.revocation_list_of(-9_000, &[], 3_600);
    let others = Authority::new("Others").revocation_list(&[], 3_600);
    for (replacement, said) in [
        (older, "`tls/open-banking.crl` is older than the list in force"),
        (others, "a list of the authority of `tls/open-banking.crl` is there no more"),
    ] {
        world.plan.directory.write("tls/open-banking.crl", replacement);
        eventually("it is noticed", || world.gateway.log().contains(said).then_some(()));
        let (client, session) = &mut sessions[0];
        session.send(client.get("/reports/1")).expect("an answer").assert_refused(Reason::CertificateRevoked);
        stays.get("/reports/1").send().assert_passed();
    }
    list(&world, &[]);
    eventually("the list is mended", || {
        let (client, session) = &mut sessions[0];
        let answer = session.send(client.get("/reports/1")).expect("an answer");
        (answer.status == 200).then_some(())
    });
    assert!(world.gateway.metric_sum("portcullis_crl_reloads_total", &["result=\"replaced\""]) >= 2.0);
}

/// CRT-07: where only the holder's key counts, exact keys and bound tokens are all it is good for.
#[test]
fn a_self_signed_certificate_is_good_for_its_own_key_alone() {
    let plan = Plan::new(&[REPORTS, crate::rig::world::OPEN_BANKING, PUBLIC]);
    let (own, other) =
        (Arc::new(Leaf::self_signed("tpp-a", None)), Arc::new(Leaf::self_signed("tpp-a", None)));
    let renewed = Arc::new(Leaf::self_signed("tpp-a", Some(&own.key_pem)));
    let expired = Arc::new(Leaf::self_signed_from("tpp-a", Some(&own.key_pem), -7_200, -3_600));
    let api = |name: &str, pin: String| {
        REPORTS
            .replace("api: reports", &format!("api: {name}"))
            .replace("/reports/", &format!("/{name}/"))
            .replace("trust: open-banking, subject: { ou: \"6f1c\" }", &pin)
    };
    let fingerprint = own.fingerprint();
    let key = format!("spki: [\"{}\"], verify: possession", own.key_fingerprint());
    plan.directory.write(
        "apis/a.yaml",
        api("pinned", format!("fingerprints: [\"{fingerprint}\"], verify: possession")),
    );
    plan.directory.write("apis/b.yaml", api("keyed", key.clone()));
    // It is not said that the key is enough.
    let certified = Arc::new(plan.third_parties.client("certified"));
    let (one, other_one) = (certified.fingerprint(), own.fingerprint());
    plan.directory
        .write("apis/d.yaml", api("vouched", format!("fingerprints: [\"{one}\", \"{other_one}\"]")));
    let ruled = api("ruled", key)
        .replace("paths: [\"/*\"] }", "paths: [\"/*\"], when: certificate.subject.cn == \"tpp-a\" }");
    plan.directory.write("apis/c.yaml", ruled);
    let world = plan
        .with(|plan| {
            plan.listener = "  self:\n    address: 127.0.0.1:0\n    tls:\n      certificate: { file: tls/server.pem }\n      key: { file: tls/server.key }\n      client_certificates: { ask: optional, verify: possession }\n".to_owned();
        })
        .start();
    let token = world.idp().token().bound_to(&own).sign();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stranger =
            || Client::tls(world.gateway.address("self"), HOST, &world.plan.servers).version(version);
        let client = |leaf: &Arc<Leaf>| stranger().certificate(leaf);
        client(&own).get("/pinned/1").send().assert_passed();
        // A name that nobody vouches for is told to nobody.
        assert!(world.upstream().last().values("x-subject").is_empty());
        assert_eq!(world.upstream().last().value("x-thumbprint"), own.fingerprint());
        client(&own).get("/keyed/1").send().assert_passed();
        client(&renewed).get("/keyed/1").send().assert_passed();
        client(&own).get("/open-banking/v3/accounts").bearer(&token).send().assert_passed();
        let hits = world.upstream().hits();
        for leaf in [&renewed, &other, &world.tpp_a] {
            client(leaf).get("/pinned/1").send().assert_refused(Reason::CertificateRefused);
            let bound = client(leaf).get("/open-banking/v3/accounts").bearer(&token).send();
            bound.assert_refused(Reason::CertificateMismatch);
        }
        client(&other).get("/keyed/1").send().assert_refused(Reason::CertificateRefused);
        client(&own).get("/ruled/1").send().assert_refused(Reason::AccessDenied);
        // Nobody looked at a path here, so no authority is trusted: not even for the certificate it did issue.
        for leaf in [&own, &with_units(&world, &["6f1c"])] {
            client(leaf).get("/reports/1").send().assert_refused(Reason::CertificateRefused);
        }
        // CRT-07: whoever was revoked by an authority would come in here.
        for leaf in [&own, &certified] {
            client(leaf).get("/vouched/1").send().assert_refused(Reason::CertificateRefused);
        }
        stranger().get("/pinned/1").send().assert_refused(Reason::CertificateMissing);
        assert!(client(&expired).get("/keyed/1").attempt().is_err());
        assert_eq!(world.upstream().hits(), hits);
        world.stranger().version(version).certificate(&certified).get("/vouched/1").send().assert_passed();
        // And where authorities are asked for, nobody gets in by a key alone.
        assert!(world.stranger().version(version).certificate(&own).get("/pinned/1").attempt().is_err());
    }
}

/// CRT-07: RFC 8705's own example is of version 1, which no path could hold.
#[test]
fn a_certificate_of_version_1_is_good_for_its_own_key() {
    let openssl = |arguments: &str, folder: &std::path::Path| {
        let status = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .expect("openssl runs");
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    };
    let plan = Plan::new(&[]);
    let folder = plan.directory.path().to_owned();
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout old.key -out old.csr -subj /CN=tpp-a",
        &folder,
    );
    openssl("x509 -req -in old.csr -signkey old.key -days 2 -out old.pem", &folder);
    openssl("x509 -in old.pem -outform DER -out old.der", &folder);
    let der = std::fs::read(folder.join("old.der")).expect("DER");
    let fingerprint: String =
        portcullis_jose::digest::sha256(&der).iter().map(|byte| format!("{byte:02x}")).collect();
    let api = REPORTS.replace(
        "trust: open-banking, subject: { ou: \"6f1c\" }",
        &format!("fingerprints: [\"{fingerprint}\"], verify: possession"),
    );
    plan.directory.write("apis/a.yaml", api);
    let world = plan
        .with(|plan| {
            plan.trust = String::new();
            plan.client_certificates = "        verify: possession\n".to_owned();
        })
        .start();
    std::fs::write(folder.join("root.pem"), world.plan.servers.pem()).expect("a file");
    let address = world.gateway.address("public");
    for version in ["1.2", "1.3"] {
        let output = std::process::Command::new("curl")
            .args([
                "-sS",
                "--fail",
                "--noproxy",
                "*",
                "--cacert",
                "root.pem",
                "--cert",
                "old.pem",
                "--key",
                "old.key",
            ])
            .args(["--tls-max", version, &format!("--tlsv{version}")])
            .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", address.port())])
            .arg(format!("https://{HOST}:{}/reports/1", address.port()))
            .current_dir(&folder)
            .output()
            .expect("curl runs");
        assert!(output.status.success(), "TLS {version}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.upstream().last().value("x-thumbprint"), fingerprint);
    }
}

/// CRT-05: a serial number of one authority, a key through its renewals.
#[test]
fn issuers_serial_numbers_and_keys_can_be_pinned() {
    let plan = Plan::new(&[]);
    let pinned = Arc::new(plan.third_parties.client("one"));
    let other = Arc::new(plan.third_parties.client("two"));
    let below = Arc::new(plan.third_parties.intermediate("Issuing authority").client("three"));
    let api = |name: &str, pin: String| {
        REPORTS
            .replace("api: reports", &format!("api: {name}"))
            .replace("/reports/", &format!("/{name}/"))
            .replace("subject: { ou: \"6f1c\" }", &pin)
    };
    let serial = format!("issuer: {{ cn: Open banking root }}, serials: [\"{}\"]", pinned.serial_number());
    plan.directory.write("apis/a.yaml", api("serial", serial));
    plan.directory.write("apis/b.yaml", api("issuer", "issuer: { cn: Issuing authority }".to_owned()));
    plan.directory.write("apis/c.yaml", api("key", format!("spki: [\"{}\"]", pinned.key_fingerprint())));
    let world = plan.start();
    for (path, right, wrong) in [
        ("/serial/1", &pinned, &other),
        ("/serial/1", &pinned, &below),
        ("/issuer/1", &below, &pinned),
        ("/key/1", &pinned, &other),
    ] {
        world.stranger().certificate(right).get(path).send().assert_passed();
        world.stranger().certificate(wrong).get(path).send().assert_refused(Reason::CertificateRefused);
    }
}

/// Of a chain that is longer than any path no path is looked for, whoever sends it.
#[test]
fn a_chain_that_is_longer_than_any_path_ends_the_handshake() {
    let world = World::with(&[PUBLIC]);
    let connect = |count: usize| {
        let mut leaf = world.plan.third_parties.client("tpp-a");
        leaf.pem += &world.plan.servers.pem().repeat(count);
        leaf.chain.extend(std::iter::repeat_n(world.plan.servers.der().to_vec(), count));
        let client = world.stranger().certificate(&Arc::new(leaf));
        client.connect().and_then(|mut session| session.send(client.get("/public/1")))
    };
    assert_eq!(connect(8).expect("an answer").status, 200);
    assert!(connect(9).is_err(), "the handshake ends");
}
