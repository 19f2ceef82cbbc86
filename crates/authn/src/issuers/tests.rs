use std::sync::LazyLock;

use portcullis_core::{Faults, Severity};
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::{Value, json};

use crate::testing::{Memory, issuers, jwks, offline, only_fault, try_issuers};

static MEMORY: LazyLock<Memory> = LazyLock::new(|| {
    let rsa = SigningKey::generate(Algorithm::Rs256).expect("a key");
    let ec = SigningKey::generate(Algorithm::Es256).expect("a key");
    let mut skipped: Value = serde_json::from_str(&jwks(&[("good", &ec)])).expect("JSON");
    skipped["keys"].as_array_mut().expect("a list").push(json!({"kty": "XX", "kid": "odd"}));
    Memory::default()
        .with("rsa.pem", rsa.public_pem().expect("PEM"))
        .with("ec.pem", ec.public_pem().expect("PEM"))
        .with("ec.json", jwks(&[("good", &ec)]))
        .with("skipped.json", skipped.to_string())
        .with("private.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        .with("text.pem", "hello")
        .with("ca.pem", "any")
        .with("short", "0123456789abcdef")
        .with("long", "0123456789abcdef0123456789abcdef")
});

/// An issuer that is fine, changed.
fn entry(changes: &Value) -> Value {
    let mut entry = json!({
        "issuer": "https://idp.example", "audience": "https://api.example", "algorithms": ["ES256"],
        "keys": {"pem": "ec.pem"},
    });
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(entry.as_object_mut().expect("an object").remove(name)),
            value => entry[name] = value.clone(),
        }
    }
    json!({ "idp": entry })
}

fn faults_of(written: &Value) -> Faults {
    let mut faults = Faults::default();
    let _ = try_issuers(written, &MEMORY, &offline(), &mut faults);
    faults
}

#[test]
fn every_way_to_give_keys_is_taken() {
    for (keys, algorithms) in [
        (json!({"pem": "ec.pem"}), json!("ES256")),
        (json!({"pem": ["rsa.pem", "ec.pem"]}), json!(["RS256", "PS256", "ES256"])),
        (json!({"jwks": {"file": "ec.json"}}), json!("ES256")),
        (
            json!({"jwks": serde_json::from_slice::<Value>(&MEMORY.0["ec.json"]).expect("JSON")}),
            json!("ES256"),
        ),
        (json!({"secret": {"file": "long"}}), json!("HS256")),
        (json!({"secret": {"env": "long"}}), json!("HS256")),
        (json!({"jwks_url": "https://idp.example/jwks"}), json!(["PS256", "ES256"])),
        (
            json!({"jwks_url": "https://idp.example/jwks", "refresh": "10m", "serve_stale": "0s", "trust": {"file": "ca.pem"}}),
            json!("ES256"),
        ),
        (json!({"jwks_url": "http://127.0.0.1:8080/jwks", "http_on_loopback": true}), json!("ES256")),
        (json!({"jwks_url": "http://[::1]:8080/jwks", "http_on_loopback": true}), json!("ES256")),
    ] {
        let written = entry(&json!({"keys": keys, "algorithms": algorithms}));
        assert!(issuers(&written, &MEMORY, &offline()).get("idp").is_some());
    }
}

#[test]
fn every_setting_of_a_profile_can_be_overridden() {
    let written = json!({"idp": {
        "profile": "amiko", "issuer": "amiko-eu", "iss": "required", "audience": ["a", "b"], "sole_audience": true,
        "algorithms": "PS256", "keys": {"pem": "rsa.pem"}, "leeway": {"exp": "5s", "nbf": "0s", "iat": "1m"},
        "max_lifetime": "10m", "max_age": "5m", "type": ["absent", "JOSE"], "content_type": "json",
        "required": ["jti"], "scope": "realm_access.roles", "kid": "required",
    }});
    let issuers = issuers(&written, &MEMORY, &offline());
    let rules = &issuers.get("idp").expect("an issuer").rules;
    let shown = format!("{rules:?}");
    for part in
        ["Required(\"amiko-eu\")", "sole_audience: true", "max_age: Some(300s)", "\"JOSE\"", "\"jti\""]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(rules.skew.exp.as_secs(), 5);
    assert_eq!(rules.max_lifetime.map(|life| life.as_secs()), Some(600));
}

/// OPS-05, JWT-10, JWT-11, JWT-15, JWT-16, JWT-23, JWT-27, JKS-01.
#[test]
fn dangerous_settings_are_refused() {
    let url = "https://idp.example/jwks";
    for (changes, code, saying) in [
        (json!({"algorithms": ["ES256", "none"]}), "algorithm_none", "`none` is no signature"),
        (json!({"algorithms": "NONE"}), "algorithm_none", "`none` is no signature"),
        (json!({"algorithms": "es256"}), "unknown_word", "`es256` is not a signature algorithm"),
        (json!({"algorithms": ["ES256", "HS256"]}), "mixed_algorithms", "`ES256` and `HS256` cannot share"),
        (json!({"algorithms": null}), "missing_key", "needs `algorithms`"),
        (json!({"algorithms": []}), "empty", "must not be empty"),
        (json!({"algorithms": "HS256"}), "keys_do_not_fit", "HMAC algorithms need a secret"),
        (
            json!({"algorithms": "HS256", "keys": {"jwks_url": url}}),
            "keys_do_not_fit",
            "HMAC algorithms need",
        ),
        (json!({"algorithms": "HS256", "keys": {"jwks": {"file": "ec.json"}}}), "keys_do_not_fit", "`HS256`"),
        (json!({"keys": {"secret": {"file": "long"}}}), "keys_do_not_fit", "a secret verifies only HS256"),
        (json!({"algorithms": "HS256", "keys": {"secret": {"file": "short"}}}), "weak_secret", "16 bytes"),
        (json!({"algorithms": "HS512", "keys": {"secret": {"file": "long"}}}), "keys_do_not_fit", "`HS512`"),
        (json!({"algorithms": "HS256", "keys": {"secret": {"file": "ec.pem"}}}), "weak_secret", "PEM file"),
        (json!({"algorithms": "HS256", "keys": {"secret": "abc"}}), "literal_secret", "written in the file"),
        (json!({"algorithms": ["ES256", "RS256"]}), "keys_do_not_fit", "no key here can verify `RS256`"),
        (
            json!({"profile": "fapi2", "algorithms": ["ES256", "RS256"]}),
            "algorithm_outside_profile",
            "`RS256` is not an algorithm of profile `fapi2`",
        ),
        (
            json!({"profile": "ozone", "issuer": null, "algorithms": "ES256"}),
            "algorithm_outside_profile",
            "`ES256` is not an algorithm of profile `ozone`",
        ),
        (json!({"audience": null}), "missing_key", "needs `audience`"),
        (json!({"audience": ""}), "empty", "must not be empty"),
        (
            json!({"audience": "any", "keys": {"jwks_url": url}}),
            "audience_unchecked",
            "only where keys are given",
        ),
        (
            json!({"profile": "amiko", "audience": null, "algorithms": "RS256", "keys": {"jwks_url": url}}),
            "audience_unchecked",
            "only where keys are given",
        ),
        (json!({"issuer": null}), "missing_key", "needs `issuer`"),
        (json!({"leeway": {"exp": "61s"}}), "out_of_range", "at most `1m`"),
        (json!({"leeway": {"all": "1s"}}), "unknown_key", "unknown key `all`"),
        (json!({"keys": {"jwks_url": "http://idp.example/jwks"}}), "plain_http", "https only"),
        (json!({"keys": {"jwks_url": "http://127.0.0.1/jwks"}}), "plain_http", "https only"),
        (
            json!({"keys": {"jwks_url": "http://localhost.evil/jwks", "http_on_loopback": true}}),
            "plain_http",
            "https only",
        ),
        (json!({"keys": {"jwks_url": "https://a:b@idp.example/jwks"}}), "bad_url", "without user"),
        (json!({"keys": {"jwks_url": "/jwks"}}), "bad_url", "not an absolute URL"),
        (json!({"keys": {"jwks_url": "https://idp.example/jwks#a"}}), "bad_url", "fragment"),
    ] {
        only_fault(faults_of(&entry(&changes)), code, saying);
    }
}

#[test]
fn faults_are_told_where_they_are() {
    let url = "https://idp.example/jwks";
    for (changes, code, saying) in [
        (json!({"keys": null}), "missing_key", "an issuer needs `keys`"),
        (json!({"keys": {}}), "one_key", "exactly one of"),
        (json!({"keys": {"pem": "ec.pem", "jwks_url": url}}), "one_key", "exactly one of"),
        (json!({"keys": {"pem": "ec.pem", "refresh": "5m"}}), "unknown_key", "unknown key `refresh`"),
        (json!({"keys": {"jwks_url": url, "refresh": "5s"}}), "out_of_range", "30s to 1h"),
        (json!({"keys": {"jwks_url": url, "serve_stale": "2d"}}), "out_of_range", "0s to 24h"),
        (json!({"keys": {"pem": "gone.pem"}}), "unreadable", "`gone.pem` is not there"),
        (json!({"keys": {"pem": "private.pem"}}), "bad_key", "private key"),
        (json!({"keys": {"pem": "text.pem"}}), "bad_key", "no PEM block"),
        (json!({"keys": {"jwks": {"file": "skipped.json"}}}), "bad_key", "key 2 (`odd`)"),
        (json!({"keys": {"jwks": {"file": "ec.pem"}}}), "bad_key", "not a JSON object"),
        (json!({"profile": "fapi"}), "unknown_word", "`fapi` is not one of the words"),
        (json!({"kid": "sometimes"}), "unknown_word", "`sometimes`"),
        (json!({"introspect": {}}), "missing_key", "needs `client_id`"),
        (json!({"max_age": 5}), "wrong_kind", "expected a duration"),
    ] {
        only_fault(faults_of(&entry(&changes)), code, saying);
    }
}

#[test]
fn one_run_names_every_fault() {
    let written =
        entry(&json!({"algorithms": "none", "keys": {"pem": 7}, "leeway": {"iat": "2m"}, "aud": "x"}));
    let codes: Vec<_> = faults_of(&written).into_sorted().iter().map(|fault| fault.code).collect();
    assert_eq!(codes.len(), 4, "{codes:?}");
}

/// What a worker remembers stays good over a reload that changes nothing, and for nothing else.
#[test]
fn an_entry_keeps_its_number_while_it_stays_the_same() {
    let sources = offline();
    let id = |changes: &Value| issuers(&entry(changes), &MEMORY, &sources).get("idp").expect("an issuer").id;
    let first = id(&json!({}));
    assert_eq!(first, id(&json!({})));
    for changes in [
        json!({"audience": ["https://api.example", "b"]}),
        json!({"algorithms": ["RS256"], "keys": {"pem": "rsa.pem"}}),
        json!({"keys": {"jwks": {"file": "ec.json"}}}),
        json!({"leeway": {"exp": "1s"}}),
        json!({"scope": "roles"}),
        json!({"kid": "required"}),
        json!({"keys": {"jwks_url": "https://idp.example/jwks"}}),
    ] {
        assert_ne!(first, id(&changes), "{changes}");
    }
}

/// An issuer whose tokens are introspected, changed.
fn asked(changes: &Value) -> Value {
    let introspect =
        json!({"url": "https://idp.example/i", "client_id": "gw", "client_secret": {"file": "long"}});
    let mut all = json!({"keys": null, "algorithms": null, "introspect": introspect});
    for (name, value) in changes.as_object().expect("an object") {
        all[name] = value.clone();
    }
    entry(&all)
}

/// JWT-27, INT-03: for whom a token is goes unchecked only where somebody has written so.
#[test]
fn introspected_tokens_are_for_somebody() {
    let fault = only_fault(
        faults_of(&asked(&json!({"audience": null}))),
        "missing_key",
        "`introspect` needs `audience`",
    );
    assert_eq!(fault.severity, Severity::Error);
    for changes in [json!({"audience": "any"}), json!({"profile": "amiko", "audience": null})] {
        let fault =
            only_fault(faults_of(&asked(&changes)), "audience_unchecked", "for whom the tokens of `idp`");
        assert_eq!(fault.severity, Severity::Warning);
    }
    assert!(faults_of(&asked(&json!({}))).into_sorted().is_empty());
}

/// A profile is no ornament: what it asks of tokens is asked of answers.
#[test]
fn a_profile_holds_for_answers() {
    let rules = |changes: &Value| {
        let issuers = issuers(&asked(changes), &MEMORY, &offline());
        assert!(issuers.get("idp").is_none(), "it signs nothing");
        issuers.introspected("idp").expect("an entry").rules.clone()
    };
    let plain = rules(&json!({}));
    assert!(plain.required.is_empty() && !plain.exp_required && plain.id_tokens_refused);
    let strict = rules(&json!({"profile": "fapi2", "required": ["acr"]}));
    let required: Vec<_> = strict.required.iter().map(|name| &**name).collect();
    assert_eq!(required, ["sub", "client_id", "iat", "jti", "acr"]);
    assert!(strict.exp_required);
    let short = rules(&json!({"profile": "amiko", "audience": "a", "max_lifetime": "5m"}));
    assert_eq!(short.max_lifetime.map(|life| life.as_secs()), Some(300));
    assert!(!rules(&json!({"id_tokens": true})).id_tokens_refused);
}

/// What was said by one provider is never taken for what another one says.
#[test]
fn an_introspected_entry_keeps_its_number_while_it_asks_the_same_provider() {
    let sources = offline();
    let id = |changes: &Value| {
        let issuers = issuers(&asked(changes), &MEMORY, &sources);
        issuers.introspected("idp").expect("an entry").id
    };
    let own = json!({"client_id": "gw", "client_secret": {"file": "long"}});
    let discovered = |discover: Value| json!({"discover": discover, "introspect": own});
    let mut at_the_issuer = own.clone();
    at_the_issuer["url"] = "https://idp.example".into();
    let all = [
        json!({}),
        json!({ "introspect": at_the_issuer }),
        discovered(json!(true)),
        discovered(json!({"document": "oauth"})),
        discovered(json!({"document": "openid"})),
        discovered(json!({"hosts": ["ask.example"]})),
        discovered(json!({"hosts": ["ask.example:8443"]})),
        json!({"id_tokens": true}),
    ];
    for (at, changes) in all.iter().enumerate() {
        assert_eq!(id(changes), id(changes));
        for other in &all[..at] {
            assert_ne!(id(changes), id(other), "{changes} {other}");
        }
    }
}
