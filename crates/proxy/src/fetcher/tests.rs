use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use portcullis_core::{
    Fetch, FetchError, FetchIdentity, FetchRequest, FetchResponse, FetchTrust, QUESTIONS_AT_ONCE, Secret,
    Sending,
};
use tokio::runtime::Handle;

use super::HttpFetcher;
use crate::rig::{Authority, Issued, Raw, Server, Shake, on_a_worker};

fn request(url: &str) -> FetchRequest {
    FetchRequest {
        max_bytes: 64,
        connect_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(10),
        ..FetchRequest::new(Method::GET, url)
    }
}

fn trusting(pem: &str) -> FetchTrust {
    FetchTrust { anchors: Some(pem.as_bytes().to_vec()), ..FetchTrust::default() }
}

fn made(trust: &FetchTrust) -> HttpFetcher {
    HttpFetcher::new(trust, Some(Handle::current())).unwrap()
}

fn fetcher(loopback_http: bool) -> HttpFetcher {
    made(&FetchTrust { loopback_http, ..trusting(&Authority::new().pem()) })
}

async fn fetch(request: FetchRequest) -> Result<FetchResponse, FetchError> {
    fetcher(true).fetch(request).await
}

fn field(request: &mut FetchRequest, name: &'static str, value: &'static str) {
    request.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
}

#[test]
fn document_arrives_with_what_caching_needs() {
    on_a_worker(async {
        let server = Raw::saying(
            "HTTP/1.1 200 OK\r\netag: \"v1\"\r\ncache-control: public\r\ncache-control: max-age=60\r\nage: 7\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        )
        .await;
        let mut request = request(&format!("{}/keys?set=1", server.url()));
        field(&mut request, "if-none-match", "\"v0\"");
        let answer = fetch(request).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.etag(), Some("\"v1\""));
        assert_eq!(answer.cache_control().as_deref(), Some("public, max-age=60"));
        assert_eq!(answer.age(), Some(7));
        assert_eq!(&answer.body[..], b"{\"a\":1}");
        let seen = server.seen.borrow();
        assert!(seen[0].starts_with("GET /keys?set=1 HTTP/1.1\r\n"), "{seen:?}");
        for field in [format!("host: {}", server.address), "if-none-match: \"v0\"".into()] {
            assert!(seen[0].contains(&format!("\r\n{field}\r\n")), "{seen:?}");
        }
    });
}

#[test]
fn statuses_are_returned_whatever_they_are_and_redirects_are_not_followed() {
    on_a_worker(async {
        for (said, status) in [
            ("HTTP/1.1 304 Not Modified\r\netag: \"v0\"\r\n\r\n", 304),
            ("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n", 302),
            ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", 500),
        ] {
            let server = Raw::saying(said).await;
            assert_eq!(fetch(request(&server.url())).await.unwrap().status, status);
            assert_eq!(server.seen.borrow().len(), 1);
        }
    });
}

#[test]
fn long_documents_are_refused_announced_or_not() {
    on_a_worker(async {
        let chunk = "a".repeat(33);
        let chunked = format!("21\r\n{chunk}\r\n").repeat(2);
        let unannounced = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunked}");
        for said in ["HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n", unannounced.leak()] {
            let server = Raw::saying(said).await;
            assert_eq!(fetch(request(&server.url())).await.unwrap_err(), FetchError::TooLarge(64));
        }
    });
}

#[test]
fn rude_servers_are_failed_connections() {
    on_a_worker(async {
        for said in [
            "",
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        ] {
            let server = Raw::saying_once(said).await;
            let error = fetch(request(&server.url())).await.unwrap_err();
            assert!(matches!(error, FetchError::Connection(_)), "{said}: {error}");
        }
    });
}

#[test]
fn slow_servers_time_out() {
    on_a_worker(async {
        for said in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi"] {
            let server = Raw::saying(said).await;
            let mut request = request(&server.url());
            request.total_timeout = Duration::from_millis(30);
            assert_eq!(fetch(request).await.unwrap_err(), FetchError::TimedOut(Duration::from_millis(30)));
        }
        // A port that takes connections and never shakes hands.
        let server = Raw::start(|mut peer| async move { peer.closed().await }).await;
        let mut request = request(&format!("https://{}/", server.address));
        request.connect_timeout = Duration::from_millis(30);
        assert_eq!(fetch(request).await.unwrap_err(), FetchError::TimedOut(Duration::from_millis(30)));
    });
}

/// A question that found no place among the others was never sent, and says nothing of the server.
#[test]
fn questions_beyond_those_at_once_are_not_sent() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move { peer.closed().await }).await;
        let fetcher = Rc::new(fetcher(true));
        let asked = |total_timeout| {
            let (fetcher, request) = (Rc::clone(&fetcher), request(&server.url()));
            let request = FetchRequest { total_timeout, ..request };
            tokio::task::spawn_local(async move { fetcher.fetch(request).await })
        };
        let waiting: Vec<_> = (0..QUESTIONS_AT_ONCE).map(|_| asked(Duration::from_secs(10))).collect();
        while server.connections.get() < QUESTIONS_AT_ONCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let limit = Duration::from_millis(40);
        assert_eq!(asked(limit).await.unwrap().unwrap_err(), FetchError::Unsent(limit / 2));
        assert_eq!(server.connections.get(), QUESTIONS_AT_ONCE);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[test]
fn urls_that_must_not_be_asked_are_refused_before_any_connection() {
    on_a_worker(async {
        let server = Raw::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let port = server.address.port();
        for url in [
            format!("http://user@127.0.0.1:{port}/"),
            format!("http://user:secret@localhost:{port}/"),
            format!("http://127.0.0.1:{port}/#fragment"),
            "http://192.0.2.1/".into(),
            "http://localhost.evil.example/".into(),
            "http://127.0.0.1.evil.example/".into(),
            "http://[2001:db8::1]/".into(),
            format!("ftp://127.0.0.1:{port}/"),
            format!("127.0.0.1:{port}"),
            "/keys".into(),
            String::new(),
            "http://".into(),
        ] {
            let error = fetch(request(&url)).await.unwrap_err();
            assert!(matches!(error, FetchError::Refused(_)), "{url}: {error}");
        }
        for url in [server.url(), format!("http://localhost:{port}/")] {
            let strict = fetcher(false).fetch(request(&url)).await.unwrap_err();
            assert_eq!(strict, FetchError::Refused("plain http is not allowed".into()));
            assert_eq!(fetch(request(&url)).await.unwrap().status, 200, "{url}");
        }
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn server_must_be_trusted_and_be_who_it_should_be() {
    on_a_worker(async {
        let authority = Authority::new();
        for (names, trusted, fits) in [
            (&["localhost"][..], authority.pem(), true),
            (&["elsewhere.example"], authority.pem(), false),
            (&["localhost"], Authority::new().pem(), false),
        ] {
            let shake = Shake { issued: authority.issue(names), clients: None, alpn: &["h2", "http/1.1"] };
            let server = Server::start(Some(shake), false).await;
            let fetcher = made(&trusting(&trusted));
            let answer = fetcher.fetch(request(&server.url("https"))).await;
            assert_eq!(answer.is_ok(), fits, "{names:?}: {answer:?}");
            if let Err(error) = answer {
                assert!(matches!(error, FetchError::Connection(_)));
            }
        }
    });
}

#[test]
fn anchors_must_be_readable() {
    assert!(HttpFetcher::new(&trusting("nothing"), None).is_err());
}

/// A server that counts, and closes each connection after that many answers.
async fn closing_after(answers: usize) -> Raw {
    Raw::start(move |mut peer| async move {
        for _ in 0..answers {
            if peer.message().await.is_none() {
                return;
            }
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        }
    })
    .await
}

#[test]
fn connections_are_used_again() {
    on_a_worker(async {
        let server = closing_after(100).await;
        let fetcher = fetcher(true);
        for _ in 0..5 {
            assert_eq!(&fetcher.fetch(request(&server.url())).await.unwrap().body[..], b"hi");
        }
        assert_eq!(server.connections.get(), 1);
        // Another fetcher is another trust.
        fetch(request(&server.url())).await.unwrap();
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn what_an_answer_left_unread_is_never_taken_for_the_next_one() {
    on_a_worker(async {
        let long = "a".repeat(65);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n{long}");
        let server = Raw::saying(answer.leak()).await;
        let fetcher = fetcher(true);
        for connections in 1..4 {
            let answer = fetcher.fetch(request(&server.url())).await;
            assert_eq!(answer.unwrap_err(), FetchError::TooLarge(64));
            assert_eq!(server.connections.get(), connections);
        }
    });
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_without_anybody_noticing() {
    on_a_worker(async {
        let server = closing_after(1).await;
        let fetcher = fetcher(true);
        for asked in 1..5 {
            assert!(fetcher.fetch(request(&server.url())).await.is_ok());
            assert_eq!(server.connections.get(), asked);
        }
        // A server that hangs up on the second question of each connection is asked again, on a new one, once.
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            if peer.number < 2 {
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
                peer.message().await;
            }
        })
        .await;
        assert!(fetcher.fetch(request(&server.url())).await.is_ok());
        assert!(fetcher.fetch(request(&server.url())).await.is_ok());
        let error = fetcher.fetch(request(&server.url())).await.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error}");
        assert_eq!(server.connections.get(), 3);
    });
}

/// A question that counts once goes out once, unless it certainly was not sent; whoever asks may try another anew.
#[test]
fn a_question_that_counts_once_is_never_sent_twice() {
    on_a_worker(async {
        let asked = |url: &str, sending| FetchRequest { sending, ..request(url) };
        // Every connection answers once and hangs up on its second question, having heard it.
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
            peer.message().await;
        })
        .await;
        let fetcher = fetcher(true);
        let url = server.url();
        assert!(fetcher.fetch(asked(&url, Sending::Once)).await.is_ok());
        let error = fetcher.fetch(asked(&url, Sending::Once)).await.unwrap_err();
        assert_eq!(error, FetchError::Unanswered);
        assert_eq!((server.connections.get(), server.seen.borrow().len()), (1, 2));
        assert!(fetcher.fetch(asked(&url, Sending::Once)).await.is_ok());
        // Anew, with one that is kept beside it, which is left alone.
        assert!(fetcher.fetch(asked(&url, Sending::OnceAnew)).await.is_ok());
        assert_eq!((server.connections.get(), server.seen.borrow().len()), (3, 4));
        // On a new connection there is no doubt about its age, and no second try either.
        let silent = Raw::start(|mut peer| async move { drop(peer.message().await) }).await;
        for sending in [Sending::Once, Sending::OnceAnew] {
            let error = fetcher.fetch(asked(&silent.url(), sending)).await.unwrap_err();
            assert!(matches!(error, FetchError::Connection(_)), "{error}");
        }
        assert_eq!(silent.seen.borrow().len(), 2);
        // One that was closed before anything was sent is replaced.
        let closing = closing_after(1).await;
        for connections in 1..5 {
            assert!(fetcher.fetch(asked(&closing.url(), Sending::Once)).await.is_ok());
            assert_eq!((closing.connections.get(), closing.seen.borrow().len()), (connections, connections));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_question_has_a_method_fields_and_content() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message_until("token=abc").await;
            peer.say("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 0\r\n\r\n")
                .await;
        })
        .await;
        let mut request = request(&server.url());
        request.method = Method::POST;
        request.body = Bytes::from_static(b"token=abc");
        field(&mut request, "content-type", "application/x-www-form-urlencoded");
        field(&mut request, "authorization", "Basic YTpi");
        let answer = fetch(request).await.unwrap();
        assert_eq!(answer.status.as_u16(), 401);
        assert_eq!(answer.headers["www-authenticate"], "Basic");
        let seen = server.seen.borrow();
        assert!(seen[0].starts_with("POST / HTTP/1.1\r\n"), "{seen:?}");
        for line in ["content-length: 9", "authorization: Basic YTpi", "user-agent: portcullis"] {
            assert!(seen[0].contains(&format!("\r\n{line}\r\n")), "{seen:?}");
        }
    });
}

#[test]
fn fields_and_methods_that_would_change_the_question_are_refused() {
    on_a_worker(async {
        let server = Raw::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        for name in ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"] {
            let mut request = request(&server.url());
            field(&mut request, name, "1");
            let error = fetch(request).await.unwrap_err();
            assert!(matches!(error, FetchError::Refused(_)), "{name}: {error}");
        }
        for method in [Method::CONNECT, Method::TRACE] {
            let error = fetch(FetchRequest { method, ..request(&server.url()) }).await.unwrap_err();
            assert!(matches!(error, FetchError::Refused(_)), "{error}");
        }
        let silent = HttpFetcher::new(&FetchTrust { loopback_http: true, ..FetchTrust::default() }, None);
        if let Ok(silent) = silent {
            let error = silent.fetch(request(&server.url())).await.unwrap_err();
            assert!(matches!(error, FetchError::Refused(_)), "{error}");
        }
        assert_eq!(server.connections.get(), 0);
    });
}

fn identity(issued: &Issued) -> FetchIdentity {
    FetchIdentity {
        chain: issued.certificate.as_bytes().to_vec(),
        key: Secret::new(issued.key.as_bytes().to_vec()),
    }
}

#[test]
fn our_own_certificate_is_shown_and_only_under_its_own_trust() {
    on_a_worker(async {
        let authority = Authority::new();
        let ours = authority.issue(&["gateway.example"]);
        let shake = Shake {
            issued: authority.issue(&["localhost"]),
            clients: Some(authority.pem()),
            alpn: &["http/1.1"],
        };
        let server = Server::start(Some(shake), false).await;
        let with = made(&FetchTrust { identity: Some(identity(&ours)), ..trusting(&authority.pem()) });
        for _ in 0..2 {
            assert_eq!(with.fetch(request(&server.url("https"))).await.unwrap().status.as_u16(), 200);
        }
        assert_eq!(server.noticed.connections.get(), 1);
        assert!(server.noticed.certificates.borrow()[0].is_some());
        let without = made(&trusting(&authority.pem()));
        assert!(without.fetch(request(&server.url("https"))).await.is_err());
        assert_eq!(server.noticed.requests.borrow().len(), 2);
        let stranger = authority.issue(&["stranger.example"]);
        let mixed = FetchIdentity { key: Secret::new(stranger.key.into_bytes()), ..identity(&ours) };
        assert!(
            HttpFetcher::new(&FetchTrust { identity: Some(mixed), ..trusting(&authority.pem()) }, None)
                .is_err()
        );
    });
}

/// Somebody who gives up takes neither the exchange nor its connection with them.
#[test]
fn an_exchange_whose_asker_has_gone_ends_in_order() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            while peer.message().await.is_some() {
                tokio::time::sleep(Duration::from_millis(60)).await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
            }
        })
        .await;
        let fetcher = fetcher(true);
        let given_up =
            tokio::time::timeout(Duration::from_millis(30), fetcher.fetch(request(&server.url()))).await;
        assert!(given_up.is_err());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(fetcher.fetch(request(&server.url())).await.is_ok());
        assert_eq!(server.connections.get(), 1);
    });
}
