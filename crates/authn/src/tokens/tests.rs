use std::rc::Rc;
use std::sync::Arc;

use portcullis_core::json::{Limits, parse_object};
use portcullis_core::{AuthMethod, Identity};
use portcullis_jose::{Algorithm, ClaimRules, CompactJws, JwsLimits, SigningKey};
use serde_json::json;

use super::{KnownToken, WorkerTokens, weight};
use crate::identity::IdentityRule;
use crate::keys::EntryId;
use crate::testing::{NOW, moment, offline, peer, peer_named};

fn entry(description: u8) -> EntryId {
    offline().entry_id([description; 32])
}

fn known(ends_ms: Option<i64>) -> Rc<KnownToken> {
    let key = SigningKey::generate(Algorithm::Hs256).expect("a key");
    let token = key.sign(json!({}), &json!({})).expect("a signature");
    let jws = CompactJws::parse(&token, JwsLimits::default()).expect("a token");
    let claims = format!(r#"{{"iss":"i","aud":"a","sub":"s","exp":{}}}"#, NOW + 300);
    let claims = parse_object(claims.as_bytes(), Limits::default()).expect("claims");
    let rules = ClaimRules::new("i", vec!["a".into()]);
    let times = rules.check_static(jws.header(), &claims).expect("good claims");
    let identity = Arc::new(Identity {
        method: AuthMethod::Jwt,
        key: "jwt:i:s".into(),
        subject: "s".into(),
        issuer: Some("i".into()),
        client: None,
        key_id: None,
        claims: Arc::new(claims),
        scopes: Arc::default(),
        certificate: None,
        expires_at: None,
    });
    Rc::new(KnownToken::new(identity, times, ends_ms, None))
}

/// Security-reliability 2.2: all bytes, the entry, the generation, and `exp`.
#[test]
fn only_exactly_the_same_question_is_answered() {
    let worker = WorkerTokens::new(1 << 20);
    let (one, other) = (entry(1), entry(2));
    let end = (NOW + 300) * 1000;
    let token = b"aaaa.bbbb.cccc";
    worker.remember(one, 7, token, &known(Some(end)));
    let finds =
        |id, generation, token: &[u8], second| worker.find(id, generation, token, moment(second)).is_some();
    assert!(finds(one, 7, token, NOW));
    assert!(!finds(other, 7, token, NOW));
    assert!(!finds(one, 7, b"aaaa.bbbb.cccd", NOW));
    assert!(!finds(one, 7, b"aaaa.bbbb.ccc", NOW));
    assert!(!finds(one, 7, b"aaaa.bbbb.ccccc", NOW));
    assert!(worker.holds(one, token) && !worker.holds(other, token));
    assert!(finds(one, 7, token, NOW + 299));
    assert!(!finds(one, 7, token, NOW + 300));
    assert!(!finds(one, 7, token, NOW), "gone at its end");
    worker.remember(one, 7, token, &known(Some(end)));
    assert!(!finds(one, 8, token, NOW));
    assert_eq!(worker.counts().held, 0, "gone with its keys");
    worker.remember(one, 7, token, &known(None));
    assert_eq!(worker.counts().held, 0, "what never ends is not remembered");
}

#[test]
fn the_memory_is_bounded_and_keeps_what_is_used() {
    let token = |number: usize| format!("{number:0>700}").into_bytes();
    let room = 100;
    let worker = WorkerTokens::new(room * weight(&token(0)));
    let (id, known) = (entry(1), known(Some(i64::MAX)));
    for number in 0..room {
        worker.remember(id, 1, &token(number), &known);
    }
    assert_eq!((worker.counts().held, worker.counts().evictions), (room, 0));
    for number in room..room * 50 {
        for used in 0..10 {
            assert!(worker.find(id, 1, &token(used), moment(NOW)).is_some(), "{number}: {used}");
        }
        worker.remember(id, 1, &token(number), &known);
        let counts = worker.counts();
        assert!(counts.bytes <= room * weight(&token(0)));
        assert_eq!(counts.bytes, counts.held * weight(&token(0)));
    }
    assert_eq!(worker.counts().held, room);
    let tokens = worker.tokens.borrow();
    assert_eq!(tokens.ring.len(), tokens.slots.len());
    assert!(tokens.slots.iter().all(|(hash, slot)| tokens.ring[slot.at.get()] == *hash));
}

#[test]
fn a_memory_without_room_remembers_nothing() {
    let worker = WorkerTokens::new(0);
    worker.remember(entry(1), 1, b"a.b.c", &known(Some(i64::MAX)));
    assert_eq!(worker.counts().held, 0);
}

#[test]
fn a_caller_is_named_once_for_each_rule() {
    let known = known(Some(i64::MAX));
    let rule = IdentityRule::compile(None);
    let first = known.named(&rule).expect("a name");
    let again = known.named(&rule).expect("a name");
    assert!(Arc::ptr_eq(&first.name, &again.name) && Arc::ptr_eq(&first.key, &again.key));
}

/// Two connections may hold one certificate and differ in what their verifiers found.
#[test]
fn a_certificate_is_known_for_its_own_connection_only() {
    let worker = WorkerTokens::new(0);
    let certificate = peer_named("a", "tpp");
    let owners = Arc::default();
    let first = worker.certificate(&certificate, &owners).identity;
    assert!(Arc::ptr_eq(&first, &worker.certificate(&certificate, &owners).identity));
    assert!(!Arc::ptr_eq(&first, &worker.certificate(&certificate, &Arc::default()).identity));
    let elsewhere = peer(&certificate.der, "staff");
    let other = worker.certificate(&elsewhere, &owners).identity;
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(
        &*other.certificate.as_ref().expect("a certificate").trusted_by,
        ["staff"].map(Arc::<str>::from)
    );
    assert_eq!(first.key, other.key);
}
