use std::sync::Arc;

use portcullis_core::json::{Limits, parse_object};
use portcullis_core::{AuthMethod, Faults, Identity, Reason};
use serde_json::{Value, json};

use super::{RevokedReload, RevokedSpec, RevokedTokens};
use crate::identity::token_key;
use crate::testing::{Memory, NOW, moment, node, only_fault, told};

fn token(claims: &Value) -> Identity {
    let claims = parse_object(claims.to_string().as_bytes(), Limits::default()).expect("claims");
    Identity {
        method: AuthMethod::Jwt,
        key: token_key("bank-idp", "alice"),
        subject: "alice".into(),
        issuer: Some("bank-idp".into()),
        client: None,
        key_id: None,
        claims: Arc::new(claims),
        scopes: Arc::default(),
        certificate: None,
        expires_at: None,
    }
}

fn load(written: &Value, memory: &Memory, faults: &mut Faults) -> Option<RevokedTokens> {
    let spec = RevokedSpec::read(&node(written), faults)?;
    RevokedTokens::load(&"bank-idp".into(), &spec, memory, faults)
}

fn list(written: &Value, memory: &Memory) -> RevokedTokens {
    let mut faults = Faults::default();
    let list = load(written, memory, &mut faults);
    list.unwrap_or_else(|| panic!("{:#?}", told(faults)))
}

fn refused(list: &RevokedTokens, claims: &Value) -> bool {
    match list.check(&token(claims), moment(NOW)) {
        Ok(()) => false,
        Err(rejection) => {
            assert_eq!(rejection.reason(), Reason::TokenRevoked);
            true
        }
    }
}

/// REV-02: everything an entry says must hold.
#[test]
fn an_entry_names_the_tokens_of_which_all_of_it_holds() {
    let good = json!({"jti": "j1", "sub": "alice", "client_id": "tpp-a", "iat": NOW - 100});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims").remove(name);
        claims
    };
    for (entry, claims, expected) in [
        (json!({"jti": "j1"}), good.clone(), true),
        (json!({"jti": "J1"}), good.clone(), false),
        (json!({"jti": "j1"}), without("jti"), false),
        (json!({"jti": "1"}), with("jti", json!(1)), false),
        (json!({"sub": "alice"}), good.clone(), true),
        (json!({"sub": "alic"}), good.clone(), false),
        (json!({"client": "tpp-a"}), good.clone(), true),
        (json!({"client": "tpp-a"}), without("client_id"), false),
        (json!({"client": "web"}), with("azp", json!("web")), true),
        (json!({"client": "tpp-a"}), with("azp", json!("web")), true),
        (json!({"client": "alice"}), good.clone(), false),
        (json!({"issued_before": NOW - 100}), good.clone(), false),
        (json!({"issued_before": NOW - 99}), good.clone(), true),
        (json!({"issued_before": NOW - 100}), with("iat", json!(NOW as f64 - 100.5)), true),
        (json!({"issued_before": NOW - 100}), with("iat", json!(NOW as f64 - 99.5)), false),
        (json!({"issued_before": 1}), without("iat"), true),
        (json!({"sub": "alice", "issued_before": NOW}), good.clone(), true),
        (json!({"sub": "bob", "issued_before": NOW}), good.clone(), false),
        (json!({"sub": "alice", "client": "tpp-b"}), good.clone(), false),
        (json!({"jti": "j1", "sub": "bob"}), good.clone(), false),
        (json!({"jti": "j1", "until": NOW}), good.clone(), false),
        (json!({"jti": "j1", "until": NOW + 1}), good.clone(), true),
        (json!({"sub": "alice", "until": "2100-01-01"}), good.clone(), true),
        (json!({"sub": "alice", "until": "2020-01-01T00:00:00Z"}), good.clone(), false),
    ] {
        let inline = list(&json!({"entries": [entry]}), &Memory::default());
        assert_eq!(refused(&inline, &claims), expected, "{entry} {claims}");
        let memory = Memory::default().with("list", json!([{"jti": "other"}, entry]).to_string());
        let of_file = list(&json!({"files": ["list"]}), &memory);
        assert_eq!(refused(&of_file, &claims), expected, "{entry} {claims} in a file");
    }
}

/// Entries that say nothing but when a token was issued are looked at for every token: those that add nothing are left out,
/// and nothing else is.
#[test]
fn of_entries_without_a_name_each_that_adds_something_counts() {
    let entry = |before: i64, until: Option<i64>| json!({"issued_before": before, "until": until.unwrap_or(i64::MAX)});
    let (early, soon, late) = (NOW - 300, NOW - 200, NOW - 100);
    for entries in [
        [entry(soon, None), entry(early, None), entry(early, Some(NOW + 9)), entry(late, Some(NOW))],
        [entry(late, Some(NOW)), entry(early, Some(NOW + 9)), entry(soon, None), entry(soon, Some(NOW + 5))],
    ] {
        let list = list(&json!({ "entries": entries }), &Memory::default());
        assert_eq!(list.len(), 4);
        assert!(refused(&list, &json!({"iat": soon - 1})));
        assert!(!refused(&list, &json!({"iat": soon})), "the entry about it is over");
        let token = token(&json!({"iat": late - 1}));
        assert!(list.check(&token, moment(NOW - 1)).is_err(), "and was in force before");
    }
}

/// Where providers name the client in a claim of their own, that one counts, and no other beside it.
#[test]
fn the_claim_that_names_the_client_can_be_another_one() {
    let written = json!({"entries": [{"client": "tpp-a"}], "client_claim": "tpp_id"});
    let other = list(&written, &Memory::default());
    assert!(refused(&other, &json!({"tpp_id": "tpp-a"})));
    assert!(!refused(&other, &json!({"tpp_id": "tpp-b"})));
    assert!(!refused(&other, &json!({"client_id": "tpp-a", "azp": "tpp-a"})));
}

/// Two entries under one name are two entries.
#[test]
fn entries_of_one_name_stand_beside_one_another() {
    let both = list(
        &json!({"entries": [{"sub": "alice", "client": "tpp-b"}, {"sub": "alice", "client": "tpp-a"}]}),
        &Memory::default(),
    );
    assert!(refused(&both, &json!({"sub": "alice", "client_id": "tpp-a"})));
    assert!(refused(&both, &json!({"sub": "alice", "client_id": "tpp-b"})));
    assert!(!refused(&both, &json!({"sub": "alice", "client_id": "tpp-c"})));
}

/// OPS-03: a file that cannot be used as a whole changes nothing.
#[test]
fn what_cannot_be_read_leaves_the_list_before_in_force() {
    let with = |text: &str| Memory::default().with("list", text);
    let held = list(&json!({"files": ["list"]}), &with(r#"[{"sub": "alice"}]"#));
    let alice = json!({"sub": "alice"});
    let bob = json!({"sub": "bob"});
    assert_eq!(held.reload(&with(r#"[{"sub": "alice"}]"#)), RevokedReload::Unchanged);
    for broken in [
        "",
        "[",
        "{}",
        r#"[{"sub": "bob"}, {}]"#,
        r#"[{"sub": "bob"}, {"sub": ""}]"#,
        r#"[{"sub": "bob"}, {"sup": "x"}]"#,
        r#"[{"sub": "bob", "sub": "alice"}]"#,
        r#"[{"sub": "bob"}] x"#,
    ] {
        let reload = held.reload(&with(broken));
        assert!(matches!(reload, RevokedReload::Failed { again: false, .. }), "{broken}: {reload:?}");
        let again = held.reload(&with(broken));
        assert!(matches!(again, RevokedReload::Failed { again: true, .. }), "{broken}: {again:?}");
        assert!(refused(&held, &alice) && !refused(&held, &bob), "{broken}");
        assert_eq!(held.reload(&with(r#"[{"sub": "alice"}]"#)), RevokedReload::Unchanged);
    }
    assert!(matches!(held.reload(&Memory::default()), RevokedReload::Failed { .. }));
    assert!(refused(&held, &alice));
    assert_eq!(held.reload(&with(r#"[{"sub": "bob"}]"#)), RevokedReload::Replaced);
    assert!(!refused(&held, &alice) && refused(&held, &bob));
    assert_eq!(held.len(), 1);
    assert_eq!(held.reload(&with("[]")), RevokedReload::Replaced);
    assert!(held.is_empty() && !refused(&held, &bob));
}

#[test]
fn faults_are_told_where_they_are() {
    let memory = || {
        Memory::default()
            .with("object", "{}")
            .with("cut", "[{\"sub\": \"a\"")
            .with("bad", r#"[{"sub": "a"}, {"until": 1}]"#)
    };
    for (written, code, saying) in [
        (json!({}), "missing_key", "needs `files`, `entries` or `push: true`"),
        (json!({"entries": []}), "empty", "must not be empty"),
        (json!({"entries": ["a"]}), "bad_entry", "an entry is a mapping"),
        (json!({"entries": [{}]}), "bad_entry", "it would name every token"),
        (json!({"entries": [{"until": "2027-01-01"}]}), "bad_entry", "it would name every token"),
        (json!({"entries": [{"jit": "a"}]}), "bad_entry", "an entry has no `jit`"),
        (json!({"entries": [{"sub": 7}]}), "bad_entry", "`sub` is text"),
        (json!({"entries": [{"issued_before": "soon"}]}), "bad_entry", "`issued_before` is a day"),
        (json!({"entries": [{"sub": "a"}], "reload": "5s"}), "no_use", "`reload` is about `files`"),
        (json!({"files": ["object"], "reload": "2h"}), "out_of_range", "1s to 1h"),
        (json!({"files": ["nowhere"]}), "unreadable", "`nowhere`"),
        (json!({"files": ["object"]}), "bad_list", "`object` is an object"),
        (json!({"files": ["cut"]}), "bad_list", "`cut` cannot be read"),
        (json!({"files": ["bad"]}), "bad_entry", "`bad`, entry 2"),
        (json!({"entries": [{"sub": "a"}], "client_claim": ""}), "empty", "must not be empty"),
        (
            json!({"entries": [{"sub": "a"}], "client_claim": "c".repeat(256)}),
            "bad_name",
            "at most 255 bytes",
        ),
        (json!({"file": "bad"}), "unknown_key", "unknown key `file`"),
    ] {
        let mut faults = Faults::default();
        let _ = load(&written, &memory(), &mut faults);
        if written.get("file").is_some() {
            assert!(told(faults).iter().any(|fault| fault.contains(saying)), "{saying}");
        } else {
            only_fault(faults, code, saying);
        }
    }
}
