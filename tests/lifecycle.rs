//! How the process begins and ends: with one clear line when it cannot, and without dropping anybody when it must.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::rig::gateway::{Gateway, portcullis};
use crate::rig::raw::Raw;
use crate::rig::upstream::Manner;
use crate::rig::world::{BEARER, HOST, PUBLIC, Plan, World};

/// Starts a gateway that cannot start; what it says, and in how many lines of its own.
fn fails_to_start(plan: &Plan) -> String {
    let mut gateway = Gateway::spawn(plan.directory.path(), &[]);
    let status = gateway.wait();
    let said = gateway.log() + &gateway.output();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_port_in_use_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let plan = Plan::new(&[PUBLIC]);
    plan.write();
    let yaml = plan
        .gateway_yaml()
        .replace("  plain:\n    address: 127.0.0.1:0", &format!("  plain:\n    address: {address}"));
    plan.directory.write("gateway.yaml", yaml);
    let said = fails_to_start(&plan);
    assert!(said.contains(&address), "{said}");
    assert!(said.lines().count() <= 3, "{said}");
}

#[test]
fn a_store_that_is_not_ours_is_said_in_one_line() {
    for content in [&b"this is somebody else's file\n"[..], &[0; 4096], b"SQLite format 3\0"] {
        let plan = Plan::new(&[PUBLIC]);
        plan.directory.write("data/portcullis.redb", content);
        plan.write();
        let said = fails_to_start(&plan);
        assert!(said.contains("portcullis.redb"), "{said}");
        assert!(said.lines().count() <= 3, "{said}");
        let left = std::fs::read(plan.directory.join("data/portcullis.redb")).expect("the file");
        assert_eq!(left, content, "somebody else's file was changed");
    }
}

#[test]
fn policies_with_faults_do_not_start() {
    let plan = Plan::new(&["api: broken\n"]);
    plan.write();
    assert!(fails_to_start(&plan).contains("api-0.yaml"));
    let plan = Plan::new(&[PUBLIC]);
    plan.write();
    plan.directory.write("gateway.yaml", plan.gateway_yaml() + "plans: {}\n");
    assert!(fails_to_start(&plan).contains("plans"));
}

#[test]
fn a_directory_that_is_not_there_is_said() {
    let output = portcullis(&["run", "--policies", "/nonexistent/policies"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("/nonexistent/policies"), "{said}");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for arguments in [&["nonsense"][..], &["run", "--nonsense"], &["check", "--format", "xml"]] {
        assert_eq!(portcullis(arguments, &[]).status.code(), Some(2), "{arguments:?}");
    }
    let version = portcullis(&["--version"], &[]);
    assert!(version.status.success() && String::from_utf8_lossy(&version.stdout).starts_with("portcullis "));
    for shell in ["bash", "zsh", "fish"] {
        let script = portcullis(&["completions", shell], &[]);
        assert!(script.status.success() && script.stdout.len() > 200, "{shell}");
    }
}

/// SIGTERM: what is under way ends well, readiness says no, and then the process is gone.
#[test]
fn a_request_under_way_is_finished_after_sigterm() {
    let plan = Plan::new(&[PUBLIC]);
    plan.write();
    let yaml = plan.gateway_yaml().replace("lame_duck: 100ms, grace: 10s", "lame_duck: 2s, grace: 10s");
    plan.directory.write("gateway.yaml", yaml);
    let mut gateway = Gateway::start(plan.directory.path());
    let client = crate::rig::client::Client::plain(gateway.address("plain"), HOST);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin".to_vec();
    plan.upstream.behave(Manner::InTwoParts(head, b"-done".to_vec()));
    let mut raw = Raw::connect(&client);
    raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    crate::rig::eventually("the upstream has the request", || (plan.upstream.hits() == 1).then_some(()));
    gateway.signal("TERM");
    crate::rig::eventually("readiness says no", || (gateway.admin("/readyz").status == 503).then_some(()));
    // Load balancers need time to notice; whoever comes meanwhile is served.
    let mut late = Raw::connect(&client);
    late.send(format!("GET /nothing HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    assert_eq!(late.answer().status, 404);
    plan.upstream.release();
    let answer = raw.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "begin-done"));
    assert!(gateway.wait().success(), "{}", gateway.log());
}

#[test]
fn an_idle_gateway_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let mut world = World::with(&[PUBLIC]);
        let _idle = Raw::connect(&world.plain());
        let _used = {
            let mut session = world.plain().connect().expect("a connection");
            session.send(world.plain().get("/public/x")).expect("an answer").assert_passed();
            session
        };
        let start = Instant::now();
        world.gateway.signal(signal);
        assert!(world.gateway.wait().success());
        assert!(start.elapsed() < Duration::from_secs(8), "{signal}: {:?}", start.elapsed());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut world = World::with(&[PUBLIC]);
    world.upstream().behave(Manner::Silent);
    let mut raw = Raw::connect(&world.plain());
    raw.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    crate::rig::eventually("the upstream has the request", || (world.upstream().hits() == 1).then_some(()));
    let start = Instant::now();
    world.gateway.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    world.gateway.signal("TERM");
    world.gateway.wait();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Settings can be overridden by the environment; policies cannot.
#[test]
fn settings_can_be_overridden_and_policies_cannot() {
    let plan = Plan::new(&[PUBLIC, BEARER]);
    plan.write();
    let directory = plan.directory.path().to_string_lossy().into_owned();
    let config =
        |environment: &[(&str, &str)]| portcullis(&["config", "--policies", &directory], environment);
    let output = config(&[("PORTCULLIS_ADMIN__ADDRESS", "127.0.0.1:4242")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("127.0.0.1:4242"), "{said}");
    assert!(said.contains("PORTCULLIS_ADMIN__ADDRESS"), "each value comes with its source: {said}");
    let json = portcullis(&["config", "--policies", &directory, "--format", "json"], &[]);
    serde_json::from_slice::<serde_json::Value>(&json.stdout).expect("JSON");
    for name in ["PORTCULLIS_APIS__PUBLIC__UPSTREAM", "PORTCULLIS_LISTEN__PLAIN__NONSENSE"] {
        let output = config(&[(name, "x")]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
    // Kubernetes sets this one for a service of our name: somebody should know, and nothing stops.
    let checked = portcullis(&["check", &directory], &[("PORTCULLIS_PORT", "tcp://10.0.0.1:80")]);
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("warning[stray_variable]"), "{said}");
    assert!(said.contains("PORTCULLIS_PORT") && !said.contains("10.0.0.1"), "{said}");
}

/// `policies/` is a working set: it serves as it stands.
#[test]
fn the_shipped_policies_serve_as_they_stand() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let data = crate::rig::gateway::Directory::new();
    let store = data.join("portcullis.redb").to_string_lossy().into_owned();
    let mut gateway = Gateway::spawn(
        &shipped,
        &[
            ("PORTCULLIS_LISTEN__PUBLIC__ADDRESS", "127.0.0.1:0"),
            ("PORTCULLIS_ADMIN__ADDRESS", "127.0.0.1:0"),
            ("PORTCULLIS_STORE__PATH", &store),
            ("PORTCULLIS_SHUTDOWN__LAME_DUCK", "100ms"),
        ],
    );
    crate::rig::eventually("it is ready", || {
        assert!(gateway.is_alive(), "{}", gateway.log());
        gateway.output().contains("ready admin").then_some(())
    });
    gateway.signal("TERM");
    assert!(gateway.wait().success(), "{}", gateway.log());
}
