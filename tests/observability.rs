//! What can be seen of the gateway: metrics with closed labels, one line a request, liveness and readiness.

use portcullis_core::Reason;

use crate::rig::eventually;
use crate::rig::world::{BEARER, OPEN_BANKING, PUBLIC, Plan, World};

#[test]
fn a_request_is_counted_where_it_was_decided() {
    let world = World::with(&[OPEN_BANKING]);
    let token = world.bound_token();
    for _ in 0..3 {
        world.client().get("/open-banking/v3/accounts/7").bearer(&token).send().assert_passed();
    }
    world
        .stranger()
        .get("/open-banking/v3/accounts")
        .bearer(&token)
        .send()
        .assert_refused(Reason::CertificateMissing);
    let allowed = [
        "api=\"open-banking\"",
        "rule=\"read accounts\"",
        "method=\"GET\"",
        "status=\"200\"",
        "decision=\"allow\"",
    ];
    eventually("three requests are counted", || {
        (world.gateway.metric_sum("portcullis_requests_total", &allowed) == 3.0).then_some(())
    });
    let denied = ["api=\"open-banking\"", "decision=\"deny\"", "reason=\"certificate_missing\""];
    eventually("the refusal is counted", || {
        (world.gateway.metric_sum("portcullis_decisions_total", &denied) == 1.0).then_some(())
    });
    let handshakes = ["listener=\"public\"", "result=\"completed\""];
    eventually("the handshakes are counted", || {
        (world.gateway.metric_sum("portcullis_tls_handshakes_total", &handshakes) == 4.0).then_some(())
    });
    for histogram in [
        "portcullis_request_duration_seconds",
        "portcullis_gateway_duration_seconds",
        "portcullis_upstream_duration_seconds",
    ] {
        assert!(world.gateway.metric_sum(&format!("{histogram}_count"), &[]) >= 3.0, "{histogram}");
        assert!(
            world.gateway.metric_sum(&format!("{histogram}_bucket"), &["le=\"+Inf\""]) >= 3.0,
            "{histogram}"
        );
    }
    assert!(world.gateway.metric_sum("portcullis_certificate_expiry_timestamp_seconds", &[]) > 1e9);
    assert_eq!(world.gateway.metric_sum("portcullis_build_info", &[]), 1.0);
    assert!(world.gateway.metric_sum("process_resident_memory_bytes", &[]) > 1e6);
}

/// No label holds what a caller chooses.
#[test]
fn callers_cannot_make_series() {
    let world = World::with(&[BEARER, PUBLIC]);
    let series =
        || world.gateway.admin("/metrics").text().lines().filter(|line| !line.starts_with('#')).count();
    let exercise = |number: usize| {
        let path = format!("/public/caller-{number}");
        world.plain().get(&path).header("x-request-id", &path).send().assert_passed();
        let method = http::Method::from_bytes(format!("CALLER{number}").as_bytes()).expect("a method");
        world.plain().request(method, &path).send();
        let token = world
            .idp()
            .token()
            .claim("sub", path.as_str())
            .header("kid", format!("kid-caller-{number}"))
            .sign();
        world.plain().get(&path.replace("public", "bearer")).bearer(&token).send();
        world.plain().host(&format!("caller-{number}.example")).get("/").send();
    };
    (0..5).for_each(exercise);
    let before = eventually("all of it is counted", || {
        (world.gateway.metric_sum("portcullis_requests_total", &[]) >= 20.0).then(series)
    });
    (5..40).for_each(exercise);
    eventually("all of it is counted", || {
        (world.gateway.metric_sum("portcullis_requests_total", &[]) >= 160.0).then_some(())
    });
    // Buckets that had no sample before may appear; a series for each caller would be hundreds.
    assert!(series() <= before + 20, "{before} series became {}", series());
    let page = world.gateway.admin("/metrics").text();
    let named: Vec<_> =
        page.lines().filter(|line| !line.starts_with('#') && line.contains("caller-")).collect();
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn the_page_is_what_prometheus_reads() {
    let world = World::with(&[PUBLIC]);
    world.plain().get("/public/x").send().assert_passed();
    let page = world.gateway.admin("/metrics").text();
    let mut check = std::process::Command::new("promtool");
    check.args(["check", "metrics"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = check.stderr(std::process::Stdio::piped()).spawn().expect("promtool");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), page.as_bytes())
        .expect("the page is written");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Exit code 3 is advice about names; a page that cannot be read is 1.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}

#[test]
fn every_request_has_one_line() {
    let world = World::with(&[OPEN_BANKING]);
    let call =
        world.client().get("/open-banking/v3/accounts/4711?secret=in-the-query").bearer(&world.bound_token());
    call.send().assert_passed();
    let line = eventually("the line is written", || world.gateway.access_lines().pop());
    for (name, value) in [
        ("api", "open-banking"),
        ("rule", "read accounts"),
        ("method", "GET"),
        ("path", "/accounts/{id}"),
        ("decision", "allow"),
        ("identity", "tpp-a"),
        ("auth", "jwt"),
        ("key_id", "key-1"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!(line["status"], 200, "{line}");
    assert!(line["ts"].as_str().is_some_and(|ts| ts.ends_with('Z')), "{line}");
    assert!(line["cert"].as_str().is_some_and(|cert| world.tpp_a.fingerprint().starts_with(cert)), "{line}");
    assert!(line["gateway_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert_eq!(line["out"], 6, "{line}");
    assert!(!line.to_string().contains("in-the-query") && !line.to_string().contains("4711"), "{line}");
    assert_eq!(world.gateway.access_lines().len(), 1);
}

/// The id in the caller's hands is the id in the log.
#[test]
fn a_refusal_is_found_in_the_log_by_its_id() {
    let world = World::with(&[OPEN_BANKING]);
    let answer = world.stranger().get("/open-banking/v3/accounts").bearer(&world.bound_token()).send();
    answer.assert_refused(Reason::CertificateMissing);
    let id = answer.json()["request_id"].as_str().expect("an id").to_owned();
    let line = world.gateway.access_line(&id);
    assert_eq!(line["reason"], "certificate_missing", "{line}");
    assert_eq!(line["decision"], "deny", "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
    let other = world.stranger().get("/open-banking/v3/accounts").send();
    assert_ne!(other.json()["request_id"], id.as_str());
}

#[test]
fn nothing_a_caller_sends_can_write_a_line_of_its_own() {
    let world = World::with(&[PUBLIC]);
    let forged = "/public/x%22,%22status%22:200";
    world.plain().get(forged).header("user-agent", "\"}{\"status\":500,\"request_id\":\"forged\"").send();
    eventually("the line is written", || world.gateway.access_lines().pop());
    assert!(world.gateway.access_lines().iter().all(|line| line["request_id"] != "forged"));
}

#[test]
fn the_access_log_can_be_turned_off() {
    let world = Plan::new(&[PUBLIC]).with(|plan| plan.settings = "access_log: false\n".to_owned()).start();
    world.plain().get("/public/x").send().assert_passed();
    let World { gateway, .. } = world;
    gateway.signal("TERM");
    let mut gateway = gateway;
    gateway.wait();
    assert_eq!(gateway.access_lines(), Vec::<serde_json::Value>::new());
}

#[test]
fn liveness_and_readiness_are_told_apart() {
    let world = World::with(&[BEARER]);
    assert_eq!(world.gateway.admin("/livez").status, 200);
    eventually("the keys are there", || (world.gateway.admin("/readyz").status == 200).then_some(()));
    assert_eq!(world.gateway.admin("/nothing").status, 404);
}

/// The admin listener answers to loopback names only: a web page cannot reach it by a name of its own.
#[test]
fn the_admin_listener_answers_to_loopback_names_only() {
    let world = World::with(&[PUBLIC]);
    let address = world.gateway.admin_address();
    for host in ["evil.example", "api.bank.example", "10.0.0.1"] {
        let answer = crate::rig::client::Client::plain(address, host).get("/metrics").send();
        assert_eq!(answer.status, 403, "{host}");
    }
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(
            crate::rig::client::Client::plain(address, host).get("/metrics").send().status,
            200,
            "{host}"
        );
    }
    // And the data path knows nothing of it.
    for path in ["/metrics", "/livez", "/readyz"] {
        world.plain().get(path).send().assert_refused(Reason::RouteNotFound);
    }
}
