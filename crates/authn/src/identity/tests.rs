use std::sync::Arc;

use portcullis_core::json::{Limits, parse_object};
use portcullis_core::{AuthMethod, Faults, Identity};
use serde_json::{Value, json};

use super::{IdentityRule, IdentitySpec, token_key};
use crate::certificate;
use crate::testing::{certificate_der, node, only_fault, peer};

fn rule(written: &Value) -> IdentityRule {
    let mut faults = Faults::default();
    let spec = IdentitySpec::read(&node(written), &mut faults);
    assert!(!faults.any_error(), "{faults:?}");
    IdentityRule::compile(spec.as_ref())
}

fn token(issuer: &str, claims: &Value) -> Identity {
    let claims = parse_object(claims.to_string().as_bytes(), Limits::default()).expect("claims");
    Identity {
        method: AuthMethod::Jwt,
        key: token_key(issuer, "s"),
        subject: "s".into(),
        issuer: Some(issuer.into()),
        client: None,
        key_id: None,
        claims: Arc::new(claims),
        scopes: Arc::default(),
        certificate: None,
        expires_at: None,
    }
}

fn named(written: &Value, identity: &Identity) -> Result<(String, String), &'static str> {
    let named = rule(written).name(identity, &[]).map_err(|rejection| rejection.reason().code())?;
    Ok((named.name.to_string(), named.key.to_string()))
}

/// JWT-28, security-reliability 2.2 `limit-identity-delimiter`.
#[test]
fn no_two_callers_share_a_key() {
    assert_ne!(token_key("a:b", "c"), token_key("a", "b:c"));
    assert_ne!(token_key("a%3Ab", "c"), token_key("a:b", "c"));
    let name = json!({"name": ["claims.x", "claims.x:y"]});
    let (_, short) = named(&name, &token("i", &json!({"x": "y:z"}))).expect("a name");
    let (_, long) = named(&name, &token("i", &json!({"x:y": "z"}))).expect("a name");
    assert_eq!((&*short, &*long), ("claim:i:x:y:z", "claim:i:x%3Ay:z"));
    let (_, other) = named(&name, &token("j", &json!({"x": "y:z"}))).expect("a name");
    assert_ne!(short, other, "another issuer");
    assert_ne!(&*short, &*token_key("i", "x:y:z"), "another claim");
}

#[test]
fn a_claim_names_the_caller_if_it_can() {
    let name = json!({"name": "claims.act.id"});
    for (claims, expected) in [
        (json!({"act": {"id": "tpp"}}), Ok("tpp")),
        (json!({"act": {"id": 7}}), Ok("7")),
        (json!({"act.id": "x"}), Ok("x")),
        (json!({}), Err("identity_unresolved")),
        (json!({"act": {"id": null}}), Err("identity_unresolved")),
        (json!({"act": {"id": ""}}), Err("identity_unresolved")),
        (json!({"act": {"id": ["tpp"]}}), Err("identity_unresolved")),
        (json!({"act": {"id": true}}), Err("identity_unresolved")),
        (json!({"act": {"id": "a\r\nb"}}), Err("identity_unresolved")),
        (json!({"act": {"id": "x".repeat(256)}}), Err("identity_unresolved")),
    ] {
        let found = named(&name, &token("i", &claims)).map(|(name, _)| name);
        assert_eq!(found.as_deref().map_err(|code| *code), expected, "{claims}");
    }
}

/// The next source is for callers who lack the first, not for those whose first is bad.
#[test]
fn a_bad_value_is_not_stepped_over() {
    let name = json!({"name": ["claims.a", "claims.b"]});
    let found = |claims: Value| named(&name, &token("i", &claims)).map(|(name, _)| name);
    assert_eq!(found(json!({"b": "y"})).as_deref(), Ok("y"));
    assert_eq!(found(json!({"a": "x", "b": "y"})).as_deref(), Ok("x"));
    assert_eq!(found(json!({"a": ["x"], "b": "y"})), Err("identity_unresolved"));
}

#[test]
fn a_certificate_names_its_holder_within_its_anchor() {
    let der = certificate_der(&[(rcgen::DnType::OrganizationalUnitName, "6f1c")], &[]);
    let ou = json!({"name": "certificate.subject.ou"});
    let (tpp, staff) = (peer(&der, "tpp"), peer(&der, "staff"));
    let (name, key) = named(&ou, &certificate::identity(&tpp, None)).expect("a name");
    assert_eq!((&*name, &*key), ("6f1c", "subject:2.5.4.11:1:tpp:6f1c"));
    let (_, other) = named(&ou, &certificate::identity(&staff, None)).expect("a name");
    assert_ne!(key, other);
    let thumbprint = json!({"name": "certificate.thumbprint"});
    let (name, key) = named(&thumbprint, &certificate::identity(&tpp, None)).expect("a name");
    assert_eq!(key, format!("certificate:{name}"));
    let missing = named(&json!({"name": "certificate.subject.cn"}), &certificate::identity(&tpp, None));
    assert_eq!(missing, Err("identity_unresolved"));
}

#[test]
fn the_group_may_be_missing_but_not_broken() {
    let grouped = rule(&json!({"group": "claims.tier"}));
    let group = |claims: Value| {
        let named = grouped.name(&token("i", &claims), &[]);
        named.map(|named| named.group.map(|group| group.to_string())).map_err(|r| r.reason().code())
    };
    assert_eq!(group(json!({"tier": "gold"})), Ok(Some("gold".to_owned())));
    assert_eq!(group(json!({})), Ok(None));
    assert_eq!(group(json!({"tier": {"a": 1}})), Err("identity_unresolved"));
}

#[test]
fn faults_are_told_where_they_are() {
    for (written, code, saying) in [
        (json!({}), "missing_key", "needs `name`, `group` or both"),
        (json!({"name": "sub"}), "unknown_source", "`sub` is nothing a caller can be named by"),
        (json!({"name": "claims."}), "unknown_source", "`claims.` is nothing"),
        (json!({"name": "client.tier"}), "unknown_source", "`client.tier` is nothing"),
        (json!({"name": "certificate.subject.xx"}), "unknown_source", "is nothing a caller"),
        (json!({"name": "claims.a", "grup": "claims.b"}), "unknown_key", "unknown key `grup`"),
    ] {
        let mut faults = Faults::default();
        let _ = IdentitySpec::read(&node(&written), &mut faults);
        only_fault(faults, code, saying);
    }
}
