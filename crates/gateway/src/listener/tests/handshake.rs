//! Handshakes: who gets in, under which policy, and what the stages learn.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use portcullis_core::{Clock, Connection, Faults, ManualClock, Place, Spanned};
use rcgen::{
    CrlDistributionPoint, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SubjectPublicKeyInfo, date_time_ymd,
};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, CipherSuite, HandshakeKind, ProtocolVersion};
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::client_verifier::ClientVerifier;
use super::super::revocation::Revocation;
use super::super::spec::{Ask, Depth, Purpose, RevocationSpec, WhenUnknown};
use super::super::trust::TrustSet;
use super::super::{CertificateOutcome, Event, HandshakeFailure, ListenerSettings, TlsPolicyIds};
use super::tls::{Authority, Client, Credential, Promiscuous, authority_params, client_params, params, read};
use super::{Files, Rig, compiled, on_worker, statuses};

/// 2026-06-01.
const NOW: i64 = 1_780_272_000;

/// The world of most tests: an authority that is trusted, one that is not, and a server.
struct World {
    trusted: Authority,
    stranger: Authority,
    files: Files,
    manual: ManualClock,
    handshake_timeout: &'static str,
}

impl World {
    fn new() -> Self {
        let (trusted, stranger) = (Authority::new("Trusted CA"), Authority::new("Stranger CA"));
        let server = Authority::new("Server CA").server(&["api.bank.example", "*.bank.example"]);
        let files = Files::default()
            .with("server.pem", &server.chain)
            .with("server.key", &server.key)
            .with("ca.pem", trusted.pem())
            .with("stranger.pem", stranger.pem());
        Self { trusted, stranger, files, manual: ManualClock::at_unix_seconds(NOW), handshake_timeout: "30s" }
    }

    fn clock(&self) -> Clock {
        Clock::Manual(self.manual.clone())
    }

    fn settings(&self, mut tls: Value) -> Arc<ListenerSettings> {
        let given = tls.as_object_mut().expect("a mapping");
        if !given.contains_key("certificates") {
            given.insert("certificate".to_owned(), json!({ "file": "server.pem" }));
            given.insert("key".to_owned(), json!({ "file": "server.key" }));
        }
        let listener = json!({ "address": "127.0.0.1:0", "tls": tls, "limits": { "handshake_timeout": self.handshake_timeout } });
        compiled(&listener, &self.files, &self.clock(), &TlsPolicyIds::default()).expect("good settings")
    }

    fn rig(&self, tls: Value) -> Rig {
        Rig::start(&self.settings(tls), &self.clock())
    }

    /// A listener that asks in that way and trusts the trusted authority.
    fn asking(&self, ask: &str) -> Rig {
        self.asking_with(ask, json!({}))
    }

    fn asking_with(&self, ask: &str, more: Value) -> Rig {
        let mut clients = json!({ "ask": ask, "trust": { "open-banking": { "file": "ca.pem" } } });
        let members = clients.as_object_mut().expect("a mapping");
        members.extend(more.as_object().expect("a mapping").clone());
        self.rig(json!({ "client_certificates": clients }))
    }
}

fn last(rig: &Rig) -> Connection {
    rig.recorder.connections.borrow().last().cloned().expect("a request")
}

async fn is_taken(rig: &Rig, credential: &Credential) -> bool {
    match Client::new(Some(credential)).get(rig).await {
        Ok(answer) => {
            assert_eq!(statuses(&answer), [200]);
            assert_eq!(
                last(rig).handshake_certificate.map(|own| own.der.to_vec()),
                Some(credential.certificates()[0].to_vec())
            );
            true
        }
        Err(_) => false,
    }
}

#[track_caller]
fn failed(rig: &Rig) -> Vec<HandshakeFailure> {
    let events = rig.recorder.events.borrow();
    let failures = events.iter().filter_map(|event| match event {
        Event::HandshakeFailed(failure) => Some(*failure),
        _ => None,
    });
    failures.collect()
}

async fn is_refused(rig: &Rig, credential: &Credential, as_what: HandshakeFailure) {
    assert!(!is_taken(rig, credential).await, "{as_what:?}");
    assert_eq!(failed(rig).pop(), Some(as_what));
}

/// TLS-02.
#[test]
fn a_listener_asks_as_it_is_told() {
    on_worker(|| async {
        let world = World::new();
        let client = world.trusted.client("tpp");
        for version in [&TLS12, &TLS13] {
            let with = Client::speaking(Some(&client), &[version]);
            let without = Client::speaking(None, &[version]);
            let never = world.rig(json!({ "client_certificates": { "ask": "never" } }));
            assert_eq!(statuses(&with.get(&never).await.expect("an answer")), [200]);
            assert!(last(&never).handshake_certificate.is_none());
            let optional = world.asking("optional");
            assert_eq!(statuses(&without.get(&optional).await.expect("an answer")), [200]);
            assert!(last(&optional).handshake_certificate.is_none());
            assert_eq!(statuses(&with.get(&optional).await.expect("an answer")), [200]);
            assert!(last(&optional).handshake_certificate.is_some());
            let required = world.asking("required");
            assert!(without.get(&required).await.is_err());
            assert_eq!(failed(&required), [HandshakeFailure::CertificateMissing]);
            assert_eq!(statuses(&with.get(&required).await.expect("an answer")), [200]);
            let name = if version.version == ProtocolVersion::TLSv1_2 { "TLSv1.2" } else { "TLSv1.3" };
            for (rig, certificate) in [
                (&never, CertificateOutcome::NotAsked),
                (&optional, CertificateOutcome::Absent),
                (&required, CertificateOutcome::Verified),
            ] {
                assert!(rig.recorder.has(Event::Handshake { version: name, certificate }));
            }
        }
    });
}

/// CRT-08, and what policies refer to.
#[test]
fn the_stages_learn_the_certificate_and_its_anchor() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.asking("optional");
        let client = world.trusted.client("tpp");
        assert!(is_taken(&rig, &client).await);
        let connection = last(&rig);
        let certificate = connection.handshake_certificate.expect("a certificate");
        assert_eq!(&*certificate.der, client.certificates()[0].as_ref());
        assert_eq!(certificate.trusted_by, ["open-banking"].map(Arc::<str>::from));
        assert_eq!(&*certificate.subject_text, "CN=tpp");
        let tls = connection.tls.expect("TLS");
        assert_eq!(tls.server_name.as_deref(), Some("api.bank.example"));
        assert_eq!(Some(tls.policy), rig.settings.policy_for_host("api.bank.example"));
        assert_eq!(&*connection.listener, "door");
    });
}

/// CRT-01, CRT-03: also where a certificate is optional, a bad one is not "none".
#[test]
fn certificates_of_strangers_are_refused() {
    on_worker(|| async {
        let world = World::new();
        for ask in ["optional", "required"] {
            let rig = world.asking(ask);
            is_refused(&rig, &world.stranger.client("tpp"), HandshakeFailure::CertificateUntrusted).await;
            let same_name = Authority::new("Trusted CA").client("tpp");
            is_refused(&rig, &same_name, HandshakeFailure::CertificateUnfit).await;
            assert!(rig.recorder.targets().is_empty());
        }
    });
}

#[test]
fn certificates_outside_their_validity_are_refused() {
    on_worker(|| async {
        let world = World::new();
        let (mut past, mut future) = (client_params("past"), client_params("future"));
        past.not_after = date_time_ymd(2026, 5, 1);
        future.not_before = date_time_ymd(2026, 7, 1);
        let rig = world.asking("optional");
        is_refused(&rig, &world.trusted.sign(past), HandshakeFailure::CertificateExpired).await;
        is_refused(&rig, &world.trusted.sign(future), HandshakeFailure::CertificateExpired).await;
    });
}

/// TLS-05: what is remembered of a chain is not that it is valid.
#[test]
fn a_remembered_chain_is_refused_once_its_time_is_over() {
    on_worker(|| async {
        let world = World::new();
        let mut soon = client_params("soon");
        soon.not_after = date_time_ymd(2026, 7, 1);
        let client = world.trusted.sign(soon);
        let rig = world.asking("required");
        assert!(is_taken(&rig, &client).await);
        assert!(is_taken(&rig, &client).await);
        let certificates = rig
            .recorder
            .connections
            .borrow()
            .iter()
            .map(|c| c.handshake_certificate.clone())
            .collect::<Vec<_>>();
        let [Some(first), Some(second)] = certificates.as_slice() else { panic!("two certificates") };
        assert!(Arc::ptr_eq(first, second), "parsed and verified once");
        world.manual.set_unix_seconds(first.valid_until);
        assert!(is_taken(&rig, &client).await);
        world.manual.set_unix_seconds(first.valid_until + 1);
        is_refused(&rig, &client, HandshakeFailure::CertificateExpired).await;
    });
}

#[test]
fn the_shortest_validity_of_the_path_counts() {
    on_worker(|| async {
        let world = World::new();
        let mut middle = authority_params("Middle CA");
        middle.not_after = date_time_ymd(2026, 8, 1);
        let middle = world.trusted.intermediate(middle);
        let client = middle.client("tpp");
        let rig = world.asking("required");
        assert!(is_taken(&rig, &client).await);
        let until = last(&rig).handshake_certificate.expect("a certificate").valid_until;
        assert_eq!(until, date_time_ymd(2026, 8, 1).unix_timestamp());
        world.manual.set_unix_seconds(until + 1);
        is_refused(&rig, &client, HandshakeFailure::CertificateExpired).await;
    });
}

/// An authority's own certificate ends as well: webpki does not ask.
#[test]
fn an_expired_anchor_vouches_for_nobody() {
    on_worker(|| async {
        let mut world = World::new();
        let mut old = authority_params("Old CA");
        old.not_after = date_time_ymd(2026, 5, 1);
        let old = Authority::root(old);
        world.files = std::mem::take(&mut world.files).with("ca.pem", old.pem());
        let rig = world.asking("required");
        is_refused(&rig, &old.client("tpp"), HandshakeFailure::CertificateExpired).await;
    });
}

/// CRT-02 and trap 10.
#[test]
fn the_purpose_of_a_certificate_is_checked() {
    on_worker(|| async {
        let world = World::new();
        let (if_present, required) = (
            world.asking("optional"),
            world.asking_with("optional", json!({ "extended_key_usage": "required" })),
        );
        let mut server = params("server only");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = world.trusted.sign(server);
        let without = world.trusted.sign(params("no purpose"));
        for rig in [&if_present, &required] {
            is_refused(rig, &server, HandshakeFailure::CertificateUnfit).await;
            assert!(is_taken(rig, &world.trusted.client("tpp")).await);
        }
        assert!(is_taken(&if_present, &without).await);
        is_refused(&required, &without, HandshakeFailure::CertificateUnfit).await;
    });
}

/// CRT-01, CRT-02.
#[test]
fn keys_that_may_not_do_what_they_did_are_refused() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.asking("optional");
        let mut authority = client_params("an authority");
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        is_refused(&rig, &world.trusted.sign(authority), HandshakeFailure::CertificateUnfit).await;
        let mut encipher = client_params("may not sign");
        encipher.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        is_refused(&rig, &world.trusted.sign(encipher), HandshakeFailure::CertificateUntrusted).await;
        let mut middle = authority_params("may not certify");
        middle.key_usages = vec![KeyUsagePurpose::CrlSign];
        let middle = world.trusted.intermediate(middle);
        is_refused(&rig, &middle.client("tpp"), HandshakeFailure::CertificateUntrusted).await;
        let mut no_authority = params("no authority");
        no_authority.is_ca = IsCa::ExplicitNoCa;
        let no_authority = world.trusted.intermediate(no_authority);
        assert!(!is_taken(&rig, &no_authority.client("tpp")).await);
    });
}

/// CRT-01: 1,024 bits.
#[test]
fn a_weak_key_is_refused() {
    let world = World::new();
    let weak = SubjectPublicKeyInfo::from_pem(include_str!("rsa1024.pub.pem")).expect("a key");
    let (chain, serial) = world.trusted.certify(client_params("weak"), &weak);
    let credential = Credential { chain, key: String::new(), serial };
    let clients = json!({ "ask": "required", "trust": { "a": { "file": "ca.pem" } } });
    let settings = world.settings(json!({ "client_certificates": clients }));
    let verifier = settings.tls.as_ref().and_then(|tls| tls.own.verifier.clone()).expect("a verifier");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
    assert!(verifier.accept(&credential.certificates()[0], &[], now).is_err());
    assert!(verifier.accept(&world.trusted.client("strong").certificates()[0], &[], now).is_ok());
}

/// CRT-01: four intermediates, not five.
#[test]
fn paths_are_bounded() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.asking("required");
        let mut authority = world.trusted.intermediate(authority_params("CA 1"));
        for number in 2..=4 {
            authority = authority.intermediate(authority_params(&format!("CA {number}")));
        }
        assert!(is_taken(&rig, &authority.client("tpp")).await);
        let fifth = authority.intermediate(authority_params("CA 5"));
        assert!(!is_taken(&rig, &fifth.client("tpp")).await);
    });
}

#[test]
fn a_certificate_is_known_by_every_anchor_it_leads_to() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.rig(json!({ "client_certificates": { "ask": "required", "trust": {
            "open-banking": { "file": "ca.pem" }, "strangers": { "file": "stranger.pem" }, "again": { "file": "ca.pem" },
        } } }));
        assert!(is_taken(&rig, &world.trusted.client("tpp")).await);
        let mut names = last(&rig).handshake_certificate.expect("a certificate").trusted_by.clone();
        names.sort();
        assert_eq!(names, ["again", "open-banking"].map(Arc::<str>::from));
        assert!(is_taken(&rig, &world.stranger.client("other")).await);
        assert_eq!(
            last(&rig).handshake_certificate.expect("a certificate").trusted_by,
            ["strangers"].map(Arc::<str>::from)
        );
    });
}

#[test]
fn revoked_certificates_are_refused() {
    on_worker(|| async {
        let mut world = World::new();
        let (good, bad) = (world.trusted.client("good"), world.trusted.client("bad"));
        let list = world.trusted.revoking(&[&bad]);
        world.files = std::mem::take(&mut world.files).with("crl/list.pem", list);
        for lists in [json!(["crl/list.pem"]), json!(["crl/"])] {
            let rig = world.asking_with("optional", json!({ "revocation": { "crls": lists } }));
            assert!(is_taken(&rig, &good).await);
            is_refused(&rig, &bad, HandshakeFailure::CertificateRevoked).await;
        }
    });
}

/// The newest list of an issuer counts, in whatever order the files come.
#[test]
fn an_older_list_beside_a_newer_one_changes_nothing() {
    on_worker(|| async {
        let mut world = World::new();
        let (good, bad) = (world.trusted.client("good"), world.trusted.client("bad"));
        let (old, new) = (
            world.trusted.revoking_between(&[&good], 2023, 2025),
            world.trusted.revoking_between(&[&bad], 2026, 2027),
        );
        world.files = std::mem::take(&mut world.files).with("old.pem", old).with("new.pem", new);
        for lists in [["old.pem", "new.pem"], ["new.pem", "old.pem"]] {
            let rig = world.asking_with("optional", json!({ "revocation": { "crls": lists } }));
            assert!(is_taken(&rig, &good).await);
            assert_eq!(
                last(&rig).handshake_certificate.expect("a certificate").valid_until,
                date_time_ymd(2027, 1, 1).unix_timestamp() - 1
            );
            is_refused(&rig, &bad, HandshakeFailure::CertificateRevoked).await;
        }
    });
}

#[test]
fn a_list_that_is_out_of_date_vouches_for_nobody() {
    on_worker(|| async {
        let mut world = World::new();
        let client = world.trusted.client("tpp");
        let list = world.trusted.revoking_between(&[], 2026, 2027);
        world.files = std::mem::take(&mut world.files).with("list.pem", list);
        let rig = world.asking_with("required", json!({ "revocation": { "crls": ["list.pem"] } }));
        assert!(is_taken(&rig, &client).await);
        // The second in which the next list is due is the first without this one, also for a chain that is
        // remembered.
        let due = date_time_ymd(2027, 1, 1).unix_timestamp();
        world.manual.set_unix_seconds(due - 1);
        assert!(is_taken(&rig, &client).await);
        world.manual.set_unix_seconds(due);
        is_refused(&rig, &client, HandshakeFailure::RevocationUnknown).await;
        let fresh = world.trusted.client("fresh");
        is_refused(&rig, &fresh, HandshakeFailure::RevocationUnknown).await;
    });
}

#[test]
fn an_issuer_without_a_list_is_refused_unless_the_file_says_otherwise() {
    on_worker(|| async {
        let mut world = World::new();
        let list = world.stranger.revoking(&[]);
        world.files = std::mem::take(&mut world.files).with("list.pem", list);
        let client = world.trusted.client("tpp");
        for (when, taken) in [(json!("deny"), false), (json!("allow"), true)] {
            let revocation = json!({ "crls": ["list.pem"], "when_unknown": when });
            let rig = world.asking_with("required", json!({ "revocation": revocation }));
            assert_eq!(is_taken(&rig, &client).await, taken);
        }
        let rig = world.asking_with("required", json!({ "revocation": { "crls": ["list.pem"] } }));
        is_refused(&rig, &client, HandshakeFailure::RevocationUnknown).await;
    });
}

/// RVK-03: whether the authorities of a path must be listed is the operator's to say.
#[test]
fn a_path_is_asked_about_as_deep_as_is_written() {
    on_worker(|| async {
        let mut world = World::new();
        let middle = world.trusted.intermediate(authority_params("Middle CA"));
        let (good, bad) = (middle.client("good"), middle.client("bad"));
        world.files = std::mem::take(&mut world.files).with("middle.pem", middle.revoking(&[&bad]));
        for (revocation, taken) in [
            (json!({ "crls": ["middle.pem"], "depth": "leaf" }), true),
            (json!({ "crls": ["middle.pem"], "depth": "chain" }), false),
            (json!({ "crls": ["middle.pem"] }), false),
        ] {
            let rig = world.asking_with("required", json!({ "revocation": revocation }));
            assert_eq!(is_taken(&rig, &good).await, taken);
            assert!(!is_taken(&rig, &bad).await);
        }
    });
}

/// RVK-03, RFC 9608: a certificate of which its authority says that nobody will revoke it needs no list, the
/// authorities above it need theirs, and one that also names a source of revocation says nothing of the kind.
#[test]
fn a_certificate_that_is_never_revoked_needs_no_list() {
    on_worker(|| async {
        let mut world = World::new();
        let middle = world.trusted.intermediate(authority_params("Middle CA"));
        let never = || {
            let mut params = client_params("short-lived");
            params.custom_extensions =
                vec![CustomExtension::from_oid_content(&[2, 5, 29, 56], vec![0x05, 0x00])];
            params
        };
        let mut both = never();
        let uris = vec!["http://crl.bank.example/1.crl".to_owned()];
        both.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        let (short, plain) = (middle.sign(never()), middle.client("plain"));
        let (contradictory, direct) = (middle.sign(both), world.trusted.sign(never()));
        let revoked = middle.sign(never());
        world.files = std::mem::take(&mut world.files)
            .with("root.pem", world.trusted.revoking(&[]))
            .with("stranger-list.pem", world.stranger.revoking(&[]))
            .with("middle-list.pem", middle.revoking(&[&revoked]));
        let rig = world.asking_with("required", json!({ "revocation": { "crls": ["root.pem"] } }));
        assert!(is_taken(&rig, &short).await);
        is_refused(&rig, &plain, HandshakeFailure::RevocationUnknown).await;
        is_refused(&rig, &contradictory, HandshakeFailure::RevocationUnknown).await;
        // Nobody speaks of the authority between.
        let rig = world.asking_with("required", json!({ "revocation": { "crls": ["stranger-list.pem"] } }));
        is_refused(&rig, &short, HandshakeFailure::RevocationUnknown).await;
        assert!(is_taken(&rig, &direct).await);
        // A list that has it counts whatever it says of itself.
        let lists = json!(["root.pem", "middle-list.pem"]);
        let rig = world.asking_with("required", json!({ "revocation": { "crls": lists } }));
        assert!(is_taken(&rig, &short).await);
        is_refused(&rig, &revoked, HandshakeFailure::CertificateRevoked).await;
    });
}

/// Where revocation is asked for, a check that cannot be made is no check that is passed.
#[test]
fn no_lists_at_all_vouch_for_nobody() {
    let world = World::new();
    let mut faults = Faults::default();
    let name = |text: &str| Spanned::new(text.to_owned(), Place::default());
    let algorithms = super::super::tls::provider().signature_verification_algorithms;
    let client = world.trusted.client("tpp").certificates();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
    for when_unknown in [WhenUnknown::Deny, WhenUnknown::Allow] {
        let spec = RevocationSpec {
            lists: Vec::new(),
            when_unknown,
            depth: Depth::Chain,
            reload: Duration::from_secs(1),
            ocsp: None,
        };
        let revocation = Revocation::load(&spec, &world.files, NOW, None, &mut faults).map(Arc::new);
        let set = TrustSet::load(&name("open-banking"), &name("ca.pem"), &world.files, &mut faults);
        let sets = vec![set.expect("a set")];
        let verifier =
            ClientVerifier::new(Ask::Required, sets, revocation, Purpose::CheckedIfPresent, algorithms);
        let refused = verifier.accept(&client[0], &client[1..], now).expect_err("nobody said it is good");
        assert_eq!(refused, CertificateError::UnknownRevocationStatus.into());
    }
}

/// RUSTSEC-2026-0049 and its kin: a list counts only if the issuer signed it.
#[test]
fn a_forged_list_is_not_believed() {
    on_worker(|| async {
        let mut world = World::new();
        let forged = Authority::new("Trusted CA").revoking(&[]);
        world.files = std::mem::take(&mut world.files).with("list.pem", forged);
        let rig = world.asking_with("required", json!({ "revocation": { "crls": ["list.pem"] } }));
        assert!(!is_taken(&rig, &world.trusted.client("tpp")).await);
    });
}

fn hosts() -> Value {
    json!({
        "client_certificates": { "ask": "optional", "trust": { "open-banking": { "file": "ca.pem" } } },
        "hosts": {
            "mtls.bank.example": {
                "client_certificates": { "ask": "required", "trust": { "tpp": { "file": "stranger.pem" } } },
            },
            "open.bank.example": { "client_certificates": { "ask": "never" } },
            "public.bank.example": { "client_certificates": { "ask": "never" } },
        },
    })
}

/// TLS-03.
#[test]
fn the_server_name_chooses_the_policy_and_the_stages_learn_which() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.rig(hosts());
        let (ours, theirs) = (world.trusted.client("ours"), world.stranger.client("theirs"));
        for name in ["mtls.bank.example", "MTLS.Bank.Example"] {
            assert!(Client::new(None).named(name).get(&rig).await.is_err());
            assert!(Client::new(Some(&ours)).named(name).get(&rig).await.is_err());
            assert!(Client::new(Some(&theirs)).named(name).get(&rig).await.is_ok());
            let connection = last(&rig);
            let policy = rig.settings.policy_for_host("mtls.bank.example");
            assert_eq!(connection.tls.map(|tls| tls.policy), policy);
            assert_eq!(
                connection.handshake_certificate.map(|own| own.trusted_by.clone()),
                Some(vec!["tpp".into()])
            );
        }
        assert!(Client::new(Some(&theirs)).get(&rig).await.is_err());
        assert!(Client::new(Some(&ours)).get(&rig).await.is_ok());
        // An address is no server name: the listener's own settings hold.
        assert!(Client::new(Some(&ours)).named("127.0.0.1").get(&rig).await.is_ok());
        let tls = last(&rig).tls.expect("TLS");
        assert_eq!((tls.server_name, Some(tls.policy)), (None, rig.settings.policy_for_host("x")));
    });
}

/// CVE-2026-32305: however the hello is cut up, its name is found.
#[test]
fn a_hello_in_pieces_gets_the_same_policy() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.rig(hosts());
        let (client, mut inner) = tokio::io::duplex(1);
        let mut outer = rig.connect().await;
        outer.set_nodelay(true).expect("a socket");
        tokio::task::spawn_local(async move { tokio::io::copy_bidirectional(&mut inner, &mut outer).await });
        let client_end = Client::new(None).named("mtls.bank.example");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client_end.config));
        let mut stream = connector
            .connect("mtls.bank.example".try_into().expect("a name"), client)
            .await
            .expect("TLS 1.3");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err());
        rig.recorder.observed(Event::HandshakeFailed(HandshakeFailure::CertificateMissing)).await;
    });
}

#[test]
fn the_server_name_chooses_the_certificate() {
    on_worker(|| async {
        let mut world = World::new();
        let authority = Authority::new("Server CA");
        let (exact, wild) = (authority.server(&["api.bank.example"]), authority.server(&["*.bank.example"]));
        world.files = std::mem::take(&mut world.files)
            .with("exact.pem", &exact.chain)
            .with("exact.key", &exact.key)
            .with("wild.pem", &wild.chain)
            .with("wild.key", &wild.key);
        let pair = |name: &str| json!({ "certificate": { "file": format!("{name}.pem") }, "key": { "file": format!("{name}.key") } });
        let rig = world.rig(json!({ "certificates": [pair("wild"), pair("exact")] }));
        for (name, expected) in [
            ("api.bank.example", &exact),
            ("API.bank.example", &exact),
            ("other.bank.example", &wild),
            ("a.b.bank.example", &wild),
            ("elsewhere.example", &wild),
        ] {
            let stream = Client::new(None).named(name).connect(&rig).await.expect("a handshake");
            let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
            assert_eq!(shown, expected.certificates()[0], "{name}");
        }
    });
}

/// TLS-01, and the cost of a handshake: AES-128 whatever the client would rather have.
#[test]
fn versions_suites_and_protocols_are_ours_to_choose() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.rig(json!({}));
        for (version, suite) in [
            (&TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ] {
            let stream = Client::speaking(None, &[version]).connect(&rig).await.expect("a handshake");
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.negotiated_cipher_suite().map(|suite| suite.suite()), Some(suite));
        }
        for (offered, agreed) in [
            ([b"http/1.1".as_slice(), b"h2".as_slice()].as_slice(), Some(b"h2".as_slice())),
            (&[b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let stream = Client::new(None).offering(offered).connect(&rig).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        }
        assert!(Client::new(None).offering(&[b"spdy/3"]).connect(&rig).await.is_err());
    });
}

#[test]
fn http2_is_spoken_where_it_was_agreed() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.asking("required");
        let client = Client::new(Some(&world.trusted.client("tpp"))).offering(&[b"h2"]);
        let stream = client.connect(&rig).await.expect("a handshake");
        let builder = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let (mut sender, driver) =
            builder.handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream)).await.expect("a connection");
        tokio::task::spawn_local(driver);
        for path in ["/one", "/two"] {
            let uri = format!("https://api.bank.example{path}");
            let answer = sender.send_request(Request::get(uri).body(Empty::new()).expect("a request")).await;
            assert_eq!(answer.expect("an answer").status(), 200);
        }
        assert_eq!(rig.recorder.targets().len(), 2);
        assert!(last(&rig).handshake_certificate.is_some());
        rig.drain.begin();
        rig.drain.ended().await;
    });
}

/// TLS-04, CVE-2025-23419, trap 9.
#[test]
fn sessions_are_resumed_within_a_policy_only_and_never_where_certificates_are_asked_for() {
    on_worker(|| async {
        let world = World::new();
        for version in [&TLS12, &TLS13] {
            let rig = world.rig(hosts());
            // One configuration: a client binds its sessions to its own verifier and certificate as well.
            let credential = world.trusted.client("ours");
            let base = Client::speaking(Some(&credential), &[version]);
            let kind = async |server_name: &'static str, sessions: &rustls::client::Resumption| {
                let mut client = Client { config: base.config.clone(), server_name };
                client.config.resumption = sessions.clone();
                let mut stream = client.connect(&rig).await.expect("a handshake");
                let kind = stream.get_ref().1.handshake_kind();
                // The tickets of TLS 1.3 come with the answer.
                read(&mut stream).await.expect("an answer");
                kind
            };
            let sessions = Promiscuous::store();
            assert_eq!(kind("open.bank.example", &sessions).await, Some(HandshakeKind::Full), "{version:?}");
            assert_eq!(kind("open.bank.example", &sessions).await, Some(HandshakeKind::Resumed));
            // The same settings, but another server name: rustls compares it, and so do we not have to.
            assert_ne!(kind("public.bank.example", &sessions).await, Some(HandshakeKind::Resumed));
            assert_ne!(kind("api.bank.example", &sessions).await, Some(HandshakeKind::Resumed));
            let sessions = Promiscuous::store();
            for _ in 0..3 {
                assert_ne!(
                    kind("api.bank.example", &sessions).await,
                    Some(HandshakeKind::Resumed),
                    "{version:?}"
                );
            }
        }
    });
}

#[test]
fn a_stalled_handshake_is_cut() {
    on_worker(|| async {
        let world = World { handshake_timeout: "300ms", ..World::new() };
        for sent in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01"] {
            let rig = world.rig(json!({}));
            let mut stream = rig.connect().await;
            stream.write_all(sent).await.expect("sent");
            assert_eq!(super::read_to_end(&mut stream).await, "");
            rig.recorder.observed(Event::HandshakeFailed(HandshakeFailure::Timeout)).await;
            rig.recorder.observed(Event::Closed).await;
            assert_eq!(rig.listener.open(), 0);
        }
    });
}

#[test]
fn what_is_not_tls_is_sorted() {
    on_worker(|| async {
        let world = World::new();
        let rig = world.rig(json!({}));
        let answer = rig.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(statuses(&answer), [0_u16; 0]);
        rig.recorder.observed(Event::HandshakeFailed(HandshakeFailure::Malformed)).await;
        drop(rig.connect().await);
        rig.recorder.observed(Event::HandshakeFailed(HandshakeFailure::Disconnected)).await;
    });
}

/// No early data, and nothing that could bring it (RFC 8446 section 8).
#[test]
fn early_data_is_off() {
    let settings = World::new().settings(hosts());
    let tls = settings.tls.as_ref().expect("TLS");
    for policy in std::iter::once(&tls.own).chain(tls.hosts.values()) {
        assert_eq!(policy.config.max_early_data_size, 0);
        assert!(!policy.config.send_half_rtt_data);
        assert_eq!(policy.config.send_tls13_tickets == 0, policy.verifier.is_some());
        assert!(!policy.config.ticketer.enabled());
    }
}
