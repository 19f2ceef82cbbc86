//! What may be written under `listen`, and what `check` says about the rest.

use serde_json::{Value, json};

use super::tls::Authority;
use super::{Clock, Files, TlsPolicyIds, compiled};

fn files() -> Files {
    let authority = Authority::new("Good CA");
    let server = authority.server(&["api.bank.example", "*.bank.example"]);
    let other = authority.server(&["other.example"]);
    let client = authority.client("client");
    Files::default()
        .with("server.pem", &server.chain)
        .with("server.key", &server.key)
        .with("other.key", &other.key)
        .with("ca.pem", authority.pem())
        .with("other-ca.pem", Authority::new("Other CA").pem())
        .with("client.pem", &client.chain)
        .with("empty.pem", "")
        .with("secret", "what-only-the-proxy-knows")
        .with("short", "0123456789abcde")
        .with("list.crl", authority.revoking(&[]))
        .with("future.crl", authority.revoking_between(&[], 2039, 2040))
        .with("junk.crl", "junk")
}

fn faults(listener: &Value) -> Vec<(&'static str, String)> {
    match compiled(listener, &files(), &Clock::System, &TlsPolicyIds::default()) {
        Ok(_) => Vec::new(),
        Err(found) => found.into_iter().map(|fault| (fault.code, fault.message)).collect(),
    }
}

#[track_caller]
fn check(listener: &Value, code: &str, words: &str) {
    let found = faults(listener);
    assert!(
        found.iter().any(|(found, message)| *found == code && message.contains(words)),
        "wanted {code} with {words:?}, found {found:?} for {listener}"
    );
}

fn tls(mut settings: Value) -> Value {
    let given = settings.as_object_mut().expect("a mapping");
    if !given.contains_key("certificate") && !given.contains_key("certificates") {
        given.insert("certificate".to_owned(), json!({ "file": "server.pem" }));
        given.insert("key".to_owned(), json!({ "file": "server.key" }));
    }
    json!({ "address": "127.0.0.1:0", "tls": settings })
}

#[test]
fn what_the_policy_language_shows_is_taken() {
    let clients = json!({
        "ask": "optional",
        "trust": { "open-banking": { "file": "ca.pem" } },
        "revocation": { "crls": ["list.crl"], "when_unknown": "deny" },
        "extended_key_usage": "required",
    });
    let listener = tls(json!({
        "client_certificates": clients,
        "hosts": {
            "mtls.bank.example": { "client_certificates": { "ask": "required", "trust": { "tpp": { "file": "other-ca.pem" } } } },
            "plain.bank.example": { "client_certificates": { "ask": "never" } },
        },
    }));
    assert_eq!(faults(&listener), []);
    assert_eq!(faults(&json!({ "address": "[::1]:0" })), []);
    let limits = json!({
        "connections": 10, "headers": "16KiB", "header_count": 50, "streams": 10, "handshake_timeout": "1s",
        "header_timeout": "2s", "idle_timeout": "3s", "write_timeout": "4s", "connection_age": "5m",
    });
    assert_eq!(faults(&json!({ "address": "127.0.0.1:0", "limits": limits })), []);
}

#[test]
fn what_is_not_known_or_not_possible_is_said() {
    check(&json!({}), "missing_key", "`address`");
    check(&json!({ "address": "localhost" }), "bad_address", "`localhost`");
    check(&json!({ "address": "127.0.0.1:0", "tsl": {} }), "unknown_key", "`tsl`");
    check(&json!({ "address": "127.0.0.1:0", "tls": {} }), "missing_key", "`certificate` and `key`");
    check(&json!({ "address": "127.0.0.1:0", "limits": { "headers": "1KiB" } }), "out_of_range", "`8KiB`");
    check(&json!({ "address": "127.0.0.1:0", "limits": { "idle_timeout": "0s" } }), "out_of_range", "zero");
    check(&json!({ "address": "127.0.0.1:0", "limits": { "connections": 0 } }), "out_of_range", "0");
    check(&tls(json!({ "hosts": { "Mtls.example": {} } })), "bad_host", "`Mtls.example`");
    check(&tls(json!({ "hosts": { "*.example": {} } })), "bad_host", "`*.example`");
}

/// A part of a later release is refused, never ignored.
#[test]
fn what_is_not_built_is_refused() {
    let address = "127.0.0.1:0";
    check(
        &json!({ "address": address, "trusted_proxies": ["10.0.0.0/8"] }),
        "unknown_key",
        "trusted_proxies",
    );
    let clients = |revocation| {
        tls(json!({ "client_certificates": {
            "ask": "required", "trust": { "a": { "file": "ca.pem" } }, "revocation": revocation,
        } }))
    };
    check(&clients(json!({ "crls": ["list.crl"], "stapling": true })), "unknown_key", "stapling");
    assert_eq!(faults(&clients(json!({ "crls": ["list.crl"], "ocsp": "off" }))), []);
    check(&clients(json!({ "ocsp": "off" })), "missing_key", "`crls` or `ocsp`");
    check(&clients(json!({ "ocsp": {} })), "one_key", "either `url`");
    check(&clients(json!({ "ocsp": { "url": "ldap://a" } })), "bad_url", "`ldap://a`");
    check(&clients(json!({ "ocsp": { "url": "http://a", "hosts": ["a"] } })), "one_key", "either `url`");
    check(&clients(json!({ "crls": ["list.crl"], "reload": "0s" })), "out_of_range", "zero");
    let holders = |changes: Value| tls(json!({ "client_certificates": changes }));
    assert_eq!(faults(&holders(json!({ "ask": "optional", "verify": "possession" }))), []);
    let mixed = json!({ "ask": "optional", "verify": "possession", "trust": { "a": { "file": "ca.pem" } } });
    check(&holders(mixed), "no_use", "looks at no path");
}

/// CVE-2026-27586 and CVE-2026-54762: a trust file that is missing or empty never turns verification off.
#[test]
fn trust_that_cannot_be_had_is_an_error() {
    let trusting = |file: &str| {
        tls(json!({ "client_certificates": { "ask": "required", "trust": { "a": { "file": file } } } }))
    };
    assert_eq!(faults(&trusting("ca.pem")), []);
    check(&trusting("missing.pem"), "unreadable", "`missing.pem`");
    check(&trusting("empty.pem"), "no_certificate", "`empty.pem`");
    check(&trusting("client.pem"), "bad_certificate", "certificate 1 of `client.pem`");
    check(&tls(json!({ "client_certificates": { "ask": "required" } })), "missing_key", "names no authority");
    check(
        &tls(json!({ "client_certificates": { "ask": "optional", "trust": {} } })),
        "missing_key",
        "names no authority",
    );
    let never = json!({ "client_certificates": { "ask": "never", "trust": { "a": { "file": "ca.pem" } } } });
    check(&tls(never), "no_use", "`ask: never`");
}

#[test]
fn revocation_lists_that_cannot_be_had_are_an_error() {
    let revoking = |list: &str| {
        tls(json!({ "client_certificates": {
            "ask": "required", "trust": { "a": { "file": "ca.pem" } }, "revocation": { "crls": [list] },
        } }))
    };
    assert_eq!(faults(&revoking("list.crl")), []);
    check(&revoking("missing.crl"), "unreadable", "`missing.crl`");
    check(&revoking("empty/"), "no_revocation_list", "`empty/`");
    check(&revoking("junk.crl"), "bad_revocation_list", "`junk.crl`");
    // RVK-01: it would stand before the list that holds now.
    check(&revoking("future.crl"), "revocation_list_early", "`future.crl`");
}

#[test]
fn certificates_and_keys_belong_together() {
    let pair =
        |chain: &str, key: &str| tls(json!({ "certificate": { "file": chain }, "key": { "file": key } }));
    assert_eq!(faults(&pair("server.pem", "server.key")), []);
    check(&pair("server.pem", "other.key"), "key_differs", "`server.pem`");
    check(&pair("server.key", "server.key"), "no_certificate", "`server.key`");
    check(&pair("server.pem", "server.pem"), "bad_key", "private key");
    check(&tls(json!({ "certificate": { "file": "server.pem" } })), "missing_key", "go together");
    let both = json!({ "certificate": { "file": "a" }, "key": { "file": "b" }, "certificates": [] });
    check(&tls(both), "one_key", "`certificates`");
}

#[test]
fn a_name_of_trust_means_the_same_everywhere() {
    let listener = |file: &str| {
        tls(json!({
            "client_certificates": { "ask": "optional", "trust": { "tpp": { "file": "ca.pem" } } },
            "hosts": { "mtls.bank.example": {
                "client_certificates": { "ask": "required", "trust": { "tpp": { "file": file } } },
            } },
        }))
    };
    assert_eq!(faults(&listener("ca.pem")), []);
    check(&listener("other-ca.pem"), "trust_differs", "`tpp`");
}

/// TLS-03: one number for what asks the same of clients, another for what does not, also after a change.
#[test]
fn policies_are_told_apart_by_what_they_ask_of_clients() {
    let ids = TlsPolicyIds::default();
    let files = files();
    let policy = |settings: Value, host: &str| {
        let compiled = compiled(&tls(settings), &files, &Clock::System, &ids).expect("good settings");
        compiled.policy_for_host(host).expect("a policy")
    };
    let asking = |ask: &str, file: &str| json!({ "client_certificates": { "ask": ask, "trust": { "a": { "file": file } } } });
    let with_host = |host: Value| json!({ "hosts": { "mtls.bank.example": host } });
    let own = policy(json!({}), "api.bank.example");
    assert_eq!(own, policy(with_host(asking("required", "ca.pem")), "api.bank.example"));
    assert_eq!(own, policy(with_host(json!({})), "mtls.bank.example"));
    let required = policy(with_host(asking("required", "ca.pem")), "mtls.bank.example");
    assert_ne!(own, required);
    assert_eq!(required, policy(asking("required", "ca.pem"), "api.bank.example"));
    assert_eq!(required, policy(with_host(asking("required", "ca.pem")), "mtls.bank.example."));
    assert_ne!(required, policy(asking("optional", "ca.pem"), "api.bank.example"));
    assert_ne!(required, policy(asking("required", "other-ca.pem"), "api.bank.example"));
    let asked = |ocsp: Value| {
        let revocation = json!({ "crls": ["list.crl"], "ocsp": ocsp });
        policy(
            json!({ "client_certificates": {
                "ask": "required", "trust": { "a": { "file": "ca.pem" } }, "revocation": revocation,
            } }),
            "api.bank.example",
        )
    };
    let strict = asked(json!({ "url": "http://ocsp.example" }));
    assert_eq!(strict, asked(json!({ "url": "http://ocsp.example" })));
    for laxer in [json!("off"), json!({ "url": "http://ocsp.example", "when_unknown": "allow" })] {
        assert_ne!(strict, asked(laxer), "who is asked, and what no answer means, decides too");
    }
}

#[test]
fn what_ends_is_known_with_its_time() {
    let clients = json!({
        "ask": "optional", "trust": { "a": { "file": "ca.pem" } }, "revocation": { "crls": ["list.crl"] },
    });
    let listener = tls(json!({ "client_certificates": clients }));
    let settings =
        compiled(&listener, &files(), &Clock::System, &TlsPolicyIds::default()).expect("good settings");
    let expiries = settings.expiries();
    let names: Vec<_> = expiries.iter().map(|expiry| &*expiry.name).collect();
    for file in ["server.pem", "ca.pem", "list.crl"] {
        assert!(names.contains(&file), "{file} of {names:?}");
    }
    assert!(settings.expiries().iter().all(|expiry| expiry.at > Clock::System.now().unix_seconds()));
}

/// FWD-01, FWD-05, OPS-05: what would trust too much is no configuration.
#[test]
fn a_certificate_header_says_who_sends_it_and_who_verifies() {
    let secret = json!({ "secret": { "header": "x-lb", "value": { "file": "secret" } } });
    let header = |changes: Value| {
        let mut written = json!({
            "from": ["10.0.0.0/24"], "proxy": secret, "format": "pem_url_encoded", "header": "x-cert",
            "trust": { "open-banking": { "file": "ca.pem" } },
        });
        for (key, value) in changes.as_object().expect("changes") {
            match value {
                Value::Null => drop(written.as_object_mut().expect("a mapping").remove(key)),
                value => written[key] = value.clone(),
            }
        }
        json!({ "address": "127.0.0.1:0", "client_certificate_header": written })
    };
    let vouched = json!({ "trust": null, "trusted_as": "by-lb" });
    let with = |mut base: Value, key: &str, value: Value| {
        base[key] = value;
        base
    };
    assert_eq!(faults(&header(json!({}))), []);
    assert_eq!(faults(&header(with(vouched.clone(), "verdict", json!({ "x-verify": "SUCCESS" })))), []);
    assert_eq!(
        faults(&header(json!({ "format": "rfc9440", "header": null, "trust": null, "trusted_as": "a" }))),
        []
    );
    assert_eq!(faults(&header(json!({ "proxy": { "address_alone": { "because": "a cable" } } }))), []);
    for (changes, code, words) in [
        (json!({ "from": null }), "missing_key", "`from`"),
        (json!({ "from": ["0.0.0.0/0"] }), "bad_range", "every address"),
        (json!({ "from": ["::/0"] }), "bad_range", "every address"),
        (json!({ "from": ["10.0.0.1/24"] }), "bad_range", "10.0.0.0/24"),
        (json!({ "from": ["lb.example"] }), "bad_range", "`lb.example`"),
        (json!({ "proxy": null }), "missing_key", "`proxy`"),
        (json!({ "proxy": { "secrte": {} } }), "unknown_key", "`secrte`"),
        (json!({ "proxy": { "address_alone": { "because": " " } } }), "empty", "say why"),
        (
            json!({ "proxy": { "secret": { "header": "x-lb", "value": { "file": "short" } } } }),
            "secret_weak",
            "16 bytes",
        ),
        (json!({ "proxy": { "certificate": { "trust": "lb" } } }), "proxy_not_pinned", "an authority alone"),
        (
            json!({ "proxy": { "certificate": { "trust": "lb", "subject": { "cn": "lb-1" } } } }),
            "undefined",
            "`lb`",
        ),
        (json!({ "format": "pem_url" }), "unknown_word", "pem_url"),
        (json!({ "header": null }), "missing_key", "no header of its own"),
        (json!({ "header": "x cert" }), "bad_header", "`x cert`"),
        (json!({ "chain_header": "x-cert" }), "bad_header", "the same"),
        (json!({ "trust": null }), "one_key", "either `trust` or `trusted_as`"),
        (json!({ "trusted_as": "by-lb" }), "one_key", "either `trust` or `trusted_as`"),
        (vouched.clone(), "missing_key", "`verdict`"),
        (with(vouched.clone(), "verdict", json!({ "x-verify": "" })), "empty", "must not be empty"),
        (
            with(vouched.clone(), "revocation", json!({ "crls": ["list.crl"] })),
            "no_use",
            "the proxy verifies",
        ),
        (with(vouched, "hash_suffices", json!(true)), "no_use", "`format: xfcc`"),
        (json!({ "hash_suffices": true }), "no_use", "cannot be verified"),
    ] {
        let found = faults(&header(changes.clone()));
        assert!(
            found.iter().any(|(found, message)| *found == code && message.contains(words)),
            "wanted {code} with {words:?}, found {found:?} for {changes}"
        );
    }
    check(&json!({ "address": "127.0.0.1:0", "proxy_protocol": {} }), "missing_key", "`from`");
    let everybody = json!({ "address": "127.0.0.1:0", "proxy_protocol": { "from": ["0.0.0.0/0"] } });
    check(&everybody, "bad_range", "every address");
    let mut relayed = header(json!({ "proxy": { "address_alone": { "because": "a cable" } } }));
    relayed["proxy_protocol"] = json!({ "from": ["10.0.0.1"] });
    check(&relayed, "address_announced", "behind a relay");
    relayed["client_certificate_header"]["proxy"] = secret.clone();
    assert_eq!(faults(&relayed), []);
    let hasty =
        json!({ "address": "127.0.0.1:0", "proxy_protocol": { "from": ["10.0.0.1"], "timeout": "0s" } });
    check(&hasty, "out_of_range", "zero");
}

/// SECURITY: a name for which a proxy answers stands for no authorities elsewhere.
#[test]
fn a_name_is_either_a_proxys_word_or_authorities() {
    let clients = json!({ "ask": "optional", "trust": { "open-banking": { "file": "ca.pem" } } });
    let mut listener = tls(json!({ "client_certificates": clients }));
    listener["client_certificate_header"] = json!({
        "from": ["10.0.0.1"], "proxy": { "address_alone": { "because": "a cable" } }, "format": "xfcc",
        "trusted_as": "open-banking",
    });
    check(&listener, "trust_differs", "a proxy's word");
    listener["client_certificate_header"]["trusted_as"] = json!("by-envoy");
    assert_eq!(faults(&listener), []);
}
