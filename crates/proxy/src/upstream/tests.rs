use serde_json::{Value, json};

use crate::rig::{Authority, Files, compile};

fn files() -> Files {
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["one"]), authority.issue(&["two"]));
    let mut files = Files::default();
    files.0.insert("ca.pem", authority.pem());
    files.0.insert("two-cas.pem", format!("{}\n{}", authority.pem(), Authority::new().pem()));
    files.0.insert("one.pem", one.certificate);
    files.0.insert("one.key", one.key);
    files.0.insert("two.key", two.key);
    files.0.insert("empty.pem", "nothing here".into());
    files.0.insert(
        "broken.pem",
        format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", authority.pem()),
    );
    files
}

/// Codes of everything wrong with it.
fn faults(spec: &Value) -> Vec<&'static str> {
    match compile(spec, &files()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|fault| fault.code).collect(),
    }
}

#[test]
fn good_upstreams_compile() {
    for spec in [
        json!({ "urls": "http://accounts" }),
        json!({ "urls": ["http://accounts:8080", "http://10.0.0.1/", "http://[::1]:81"] }),
        json!({ "urls": "http://a", "timeout": "5s", "connect_timeout": "250ms", "http": 1 }),
        json!({ "urls": "http://a", "http": 2 }),
        json!({ "urls": "http://a", "http": "auto" }),
        json!({ "urls": "https://a", "tls": { "trust": { "file": "ca.pem" } } }),
        json!({ "urls": "https://a", "tls": { "trust": { "file": "two-cas.pem" }, "server_name": "b.internal" } }),
        json!({ "urls": "https://10.0.0.1", "tls": { "trust": { "file": "ca.pem" }, "server_name": "10.0.0.2" } }),
        json!({ "urls": "https://a", "tls": { "trust": { "file": "ca.pem" },
            "client_certificate": { "certificate": { "file": "one.pem" }, "key": { "file": "one.key" } } } }),
    ] {
        assert_eq!(faults(&spec), [""; 0], "{spec}");
    }
}

#[test]
fn faults_are_named() {
    let tls = |tls: Value| json!({ "urls": "https://a", "tls": tls });
    for (spec, codes) in [
        (json!("http://a"), &["wrong_kind"][..]),
        (json!({}), &["missing_key"]),
        (json!({ "urls": [] }), &["empty"]),
        (json!({ "urls": "http://a", "retries": 3 }), &["unknown_key"]),
        (json!({ "urls": "http://a", "timeout": "0s" }), &["out_of_range"]),
        (json!({ "urls": "http://a", "connect_timeout": "2h" }), &["out_of_range"]),
        (json!({ "urls": "http://a", "timeout": 5 }), &["wrong_kind"]),
        (json!({ "urls": "http://a", "http": 3 }), &["unknown_word"]),
        (json!({ "urls": "http://a", "http": "2" }), &["unknown_word"]),
        (json!({ "urls": "a:80" }), &["bad_url"]),
        (json!({ "urls": "accounts" }), &["bad_url"]),
        (json!({ "urls": "/path" }), &["bad_url"]),
        (json!({ "urls": "ftp://a" }), &["bad_url"]),
        (json!({ "urls": "http://" }), &["bad_url"]),
        (json!({ "urls": "http://a/path" }), &["bad_url"]),
        (json!({ "urls": "http://a?q" }), &["bad_url"]),
        (json!({ "urls": "http://a#f" }), &["bad_url"]),
        (json!({ "urls": "http://user:secret@a" }), &["bad_url"]),
        (json!({ "urls": "http://a:0" }), &["bad_url"]),
        (json!({ "urls": "http://a:" }), &["bad_url"]),
        (json!({ "urls": "http://a:99999" }), &["bad_url"]),
        (json!({ "urls": "http://a b" }), &["bad_url"]),
        (json!({ "urls": "http://a..b" }), &["bad_url"]),
        (json!({ "urls": "http://[::1" }), &["bad_url"]),
        (json!({ "urls": ["ftp://a", "http://b/c"] }), &["bad_url", "bad_url"]),
        (
            json!({ "urls": ["http://a", "https://b"], "tls": { "trust": { "file": "ca.pem" } } }),
            &["mixed_schemes"],
        ),
        (json!({ "urls": "http://a", "tls": { "trust": { "file": "ca.pem" } } }), &["tls_unused"]),
        (tls(json!({ "trust": "everybody" })), &["wrong_kind"]),
        (tls(json!({ "trust": { "file": "ca.pem" }, "verify": false })), &["unknown_key"]),
        (tls(json!({ "trust": { "file": "missing.pem" } })), &["unreadable"]),
        (tls(json!({ "trust": { "file": "empty.pem" } })), &["bad_certificate"]),
        (tls(json!({ "trust": { "file": "broken.pem" } })), &["bad_certificate"]),
        (tls(json!({ "trust": { "file": "ca.pem" }, "server_name": "a b" })), &["bad_host"]),
        (tls(json!({ "trust": { "file": "ca.pem" }, "client_certificate": {} })), &["missing_key"; 2]),
        (
            tls(json!({ "trust": { "file": "ca.pem" },
                "client_certificate": { "certificate": { "file": "one.pem" }, "key": { "file": "two.key" } } })),
            &["bad_certificate"],
        ),
        (
            tls(json!({ "trust": { "file": "ca.pem" },
                "client_certificate": { "certificate": { "file": "one.pem" }, "key": { "file": "ca.pem" } } })),
            &["bad_certificate"],
        ),
        (
            tls(json!({ "trust": { "file": "ca.pem" },
                "client_certificate": { "certificate": { "file": "one.pem" }, "key": "literal" } })),
            &["literal_secret"],
        ),
        // All at once.
        (
            json!({ "urls": "http://a/b", "timeout": "0s", "http": 9, "tls": { "trust": 1, "x": 2 } }),
            &["out_of_range", "unknown_key", "unknown_word", "wrong_kind"],
        ),
    ] {
        let mut found = faults(&spec);
        found.sort_unstable();
        assert_eq!(found, codes, "{spec}");
    }
}

#[test]
fn messages_speak_to_the_writer() {
    let spec = json!({ "urls": "http://user@a" });
    let faults = compile(&spec, &files()).unwrap_err();
    assert_eq!(faults[0].message, "`http://user@a` has a user name in it");
    assert_eq!(faults[0].notes, ["write `https://host:port` or `http://host:port`"]);
    for port in ["", "0", "+80", "-80", "x", "65536"] {
        let faults = compile(&json!({ "urls": format!("http://a:{port}") }), &files()).unwrap_err();
        let said = &faults[0].message;
        assert!(said.ends_with("has no valid port") || said.ends_with("is not a URL"), "{port}: {said}");
    }
}
