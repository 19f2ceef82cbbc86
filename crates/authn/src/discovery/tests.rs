use portcullis_core::{Clock, FetchError, FetchResponse, FetchTrust, ManualClock};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use super::{Discovery, DiscoveryError, DiscoverySettings, Metadata};
use crate::testing::{Answer, KeyServer, NOW, ok};

fn settings() -> DiscoverySettings {
    DiscoverySettings {
        issuer: "https://idp.example/t".into(),
        documents: vec!["https://idp.example/1".to_owned(), "https://idp.example/2".to_owned()],
        hosts: vec!["keys.example".parse().expect("a host"), "mtls.example:8443".parse().expect("a host")],
        trust: FetchTrust::default(),
        serve_stale: Duration::from_hours(1),
    }
}

fn document(changes: &Value) -> String {
    let mut document = json!({
        "issuer": "https://idp.example/t",
        "jwks_uri": "https://keys.example/jwks",
        "introspection_endpoint": "https://idp.example/ask",
        "mtls_endpoint_aliases": {"introspection_endpoint": "https://keys.example/mtls"},
    });
    for (name, value) in changes.as_object().expect("an object") {
        document[name] = value.clone();
    }
    document.to_string()
}

fn read(changes: &Value) -> Result<Metadata, DiscoveryError> {
    Metadata::read(document(changes).as_bytes(), settings().reach())
}

/// DSC-01, DSC-02, JKS-02.
#[test]
fn a_document_is_the_issuers_own_and_leads_nowhere_else() {
    let good = read(&json!({})).expect("a document");
    assert_eq!(good.jwks_uri().as_deref(), Ok("https://keys.example/jwks"));
    assert_eq!(good.introspection_endpoint(false).as_deref(), Ok("https://idp.example/ask"));
    assert_eq!(good.introspection_endpoint(true).as_deref(), Ok("https://keys.example/mtls"));
    let bare =
        read(&json!({"jwks_uri": null, "introspection_endpoint": null, "mtls_endpoint_aliases": null}));
    let bare = bare.expect("a document");
    assert_eq!(bare.jwks_uri(), Err(DiscoveryError::Missing("jwks_uri")));
    assert_eq!(bare.introspection_endpoint(true), Err(DiscoveryError::Missing("introspection_endpoint")));
    for issuer in [json!("https://idp.example/t/"), json!("https://IDP.example/t"), json!(7), json!(null)] {
        assert_eq!(read(&json!({ "issuer": issuer })), Err(DiscoveryError::OtherIssuer));
    }
    for url in [
        "http://idp.example/jwks",
        "https://idp.example.evil/jwks",
        "https://evil.example/jwks",
        "https://keys.example@evil.example/jwks",
        "https://evil@idp.example/jwks",
        "https://idp.example/jwks#x",
        "ftp://idp.example/jwks",
        "http://127.0.0.1/jwks",
        "https://idp.example:8443/jwks",
        "https://idp.example:80/jwks",
        "https://idp.example:/jwks",
        "https://idp.example:+443/jwks",
        "https://idp.example:99999/jwks",
        "https://keys.example:8443/jwks",
        "https://mtls.example/jwks",
        "https://mtls.example:443/jwks",
        "http://mtls.example:8443/jwks",
        "https://idp.example./jwks",
        "https://",
        "jwks",
        "",
    ] {
        // Who needs it is refused, and nobody else.
        for (changes, refused) in [
            (json!({ "jwks_uri": url }), [true, false, false]),
            (json!({ "introspection_endpoint": url, "mtls_endpoint_aliases": null }), [false, true, true]),
            (json!({ "introspection_endpoint": url }), [false, true, false]),
            (json!({ "mtls_endpoint_aliases": { "introspection_endpoint": url } }), [false, false, true]),
        ] {
            let document = read(&changes).expect("a document");
            let asked = [
                document.jwks_uri(),
                document.introspection_endpoint(false),
                document.introspection_endpoint(true),
            ];
            for (asked, refused) in asked.into_iter().zip(refused) {
                assert_eq!(matches!(asked, Err(DiscoveryError::Refused(..))), refused, "{changes} {asked:?}");
                assert_eq!(asked.is_ok(), !refused, "{changes} {asked:?}");
            }
        }
    }
}

/// DSC-02, JKS-02: a port that is configured is part of the place, and so is the scheme.
#[test]
fn ports_and_schemes_are_held_to_like_hosts() {
    for url in [
        "https://idp.example/jwks",
        "https://IDP.EXAMPLE/jwks",
        "https://idp.example:443/jwks",
        "https://keys.example:443/jwks",
        "https://mtls.example:8443/jwks",
    ] {
        assert!(read(&json!({ "jwks_uri": url })).is_ok_and(|read| read.jwks_uri().is_ok()), "{url}");
    }
    let local = |issuer: &str, loopback_http, url: &str| {
        let settings = DiscoverySettings {
            issuer: issuer.into(),
            trust: FetchTrust { loopback_http, ..FetchTrust::default() },
            ..settings()
        };
        let text = document(&json!({
            "issuer": issuer, "jwks_uri": url, "introspection_endpoint": null, "mtls_endpoint_aliases": null,
        }));
        Metadata::read(text.as_bytes(), settings.reach()).and_then(|read| read.jwks_uri()).is_ok()
    };
    assert!(local("http://127.0.0.1:9000", true, "http://127.0.0.1:9000/jwks"));
    assert!(local("http://127.0.0.1", true, "http://127.0.0.1:80/jwks"));
    assert!(!local("http://127.0.0.1:9000", true, "http://127.0.0.1:9001/jwks"), "another port");
    assert!(!local("http://127.0.0.1:9000", true, "http://127.0.0.1/jwks"), "another port");
    assert!(!local("http://127.0.0.1:9000", false, "http://127.0.0.1:9000/jwks"), "not allowed");
    // Whoever is reached with https leads to https, whatever is allowed beside it.
    assert!(!local("https://127.0.0.1:9000", true, "http://127.0.0.1:9000/jwks"));
}

struct Bench {
    server: Arc<KeyServer>,
    clock: ManualClock,
    discovery: Arc<Discovery>,
}

impl Bench {
    /// Lets the background do what is due.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn jwks_uri(&self) -> Result<Arc<str>, DiscoveryError> {
        self.discovery.metadata().await?.jwks_uri()
    }
}

fn bench() -> Bench {
    let (server, clock) = (Arc::new(KeyServer::default()), ManualClock::at_unix_seconds(NOW));
    let background = Some(tokio::runtime::Handle::current());
    let discovery = Discovery::new(settings(), server.clone(), Clock::Manual(clock.clone()), background);
    Bench { server, clock, discovery: Arc::new(discovery) }
}

fn status(status: u16) -> FetchResponse {
    FetchResponse { status: http::StatusCode::from_u16(status).expect("a status"), ..ok("{}") }
}

#[tokio::test]
async fn a_document_is_kept_for_a_while_and_then_read_again() {
    let bench = bench();
    bench.server.answer([Answer::Response(ok(document(&json!({}))))]);
    for _ in 0..3 {
        assert!(bench.discovery.metadata().await.is_ok());
    }
    assert_eq!(bench.server.count(), 1);
    bench.clock.advance(Duration::from_mins(10));
    bench.server.answer([Answer::Response(ok(document(&json!({"jwks_uri": "https://idp.example/new"}))))]);
    assert_eq!(bench.jwks_uri().await.as_deref(), Ok("https://keys.example/jwks"), "nobody waits for it");
    bench.settle().await;
    assert_eq!(bench.jwks_uri().await.as_deref(), Ok("https://idp.example/new"));
    assert_eq!(bench.server.count(), 2);
}

/// A provider that does not answer delays nobody as long as something is known of it, and is read once at a time.
#[tokio::test(start_paused = true)]
async fn what_still_counts_is_given_at_once() {
    let bench = bench();
    bench.server.answer([Answer::Response(ok(document(&json!({}))))]);
    assert!(bench.discovery.metadata().await.is_ok());
    bench.clock.advance(Duration::from_mins(30));
    bench.server.answer([Answer::Slow(Duration::from_secs(5), ok(document(&json!({}))))]);
    let begun = tokio::time::Instant::now();
    for _ in 0..10 {
        assert!(bench.discovery.metadata().await.is_ok());
        bench.settle().await;
    }
    assert_eq!((begun.elapsed(), bench.server.count()), (Duration::ZERO, 2));
    // Where nothing counts any more they wait, all for the one that is under way.
    bench.clock.advance(Duration::from_mins(40));
    let (one, other) = tokio::join!(bench.discovery.metadata(), bench.discovery.metadata());
    assert!(one.is_ok() && other.is_ok());
    assert_eq!((begun.elapsed(), bench.server.count()), (Duration::from_secs(5), 2));
}

/// What cannot be read again still counts for a time, and nobody is asked all the time meanwhile.
#[tokio::test]
async fn an_old_document_counts_for_a_time_and_then_nothing_does() {
    let bench = bench();
    let Bench { server, clock, discovery } = &bench;
    server.answer([Answer::Response(ok(document(&json!({}))))]);
    assert!(discovery.metadata().await.is_ok());
    server.fail();
    clock.advance(Duration::from_mins(69));
    // The pauses grow up to eight seconds.
    for (count, pause) in [(2, 1), (3, 2), (4, 4), (5, 8), (6, 8), (7, 8)] {
        for _ in 0..3 {
            assert!(discovery.metadata().await.is_ok());
            bench.settle().await;
        }
        clock.advance(Duration::from_millis(pause * 1_000 - 1));
        assert!(discovery.metadata().await.is_ok());
        bench.settle().await;
        assert_eq!(server.count(), count);
        clock.advance(Duration::from_millis(1));
    }
    clock.advance(Duration::from_mins(1));
    let gone = DiscoveryError::Fetch(FetchError::Connection("refused".to_owned()));
    assert_eq!(discovery.metadata().await, Err(gone.clone()));
    assert_eq!(discovery.metadata().await, Err(gone));
    assert_eq!(server.count(), 8);
    // And begin anew when it is back.
    server.answer([Answer::Response(ok(document(&json!({}))))]);
    clock.advance(Duration::from_secs(8));
    assert!(discovery.metadata().await.is_ok());
    server.fail();
    clock.advance(Duration::from_mins(20));
    assert!(discovery.metadata().await.is_ok());
    bench.settle().await;
    clock.advance(Duration::from_secs(1));
    assert!(discovery.metadata().await.is_ok());
    bench.settle().await;
    assert_eq!(server.count(), 11);
}

/// The second place is looked at only where there is nothing at the first.
#[tokio::test]
async fn the_second_place_is_no_second_opinion() {
    let good = || Answer::Response(ok(document(&json!({}))));
    for (first, asked, found) in [
        (Answer::Response(status(404)), 2, true),
        (Answer::Response(status(410)), 2, true),
        (Answer::Response(status(400)), 1, false),
        (Answer::Response(status(401)), 1, false),
        (Answer::Response(status(403)), 1, false),
        (Answer::Response(status(429)), 1, false),
        (Answer::Response(status(500)), 1, false),
        (Answer::Response(status(302)), 1, false),
        (Answer::Response(ok("{}")), 1, false),
        (Answer::Response(ok("<html>")), 1, false),
        (Answer::Response(ok(document(&json!({"issuer": "https://evil.example"})))), 1, false),
        (Answer::Fails(FetchError::TimedOut(Duration::from_secs(5))), 1, false),
    ] {
        let Bench { server, discovery, .. } = bench();
        server.answer([first, good()]);
        assert_eq!(discovery.metadata().await.is_ok(), found);
        assert_eq!(server.count(), asked);
    }
}
