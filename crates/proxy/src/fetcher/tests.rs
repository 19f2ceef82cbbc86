use std::time::Duration;

use portcullis_core::{Fetch, FetchError, FetchRequest, FetchResponse};

use super::{HttpFetcher, PlainHttp, Trust};
use crate::rig::{Authority, Raw, Server, Shake, on_a_worker};

fn request(url: &str) -> FetchRequest {
    FetchRequest {
        url: url.to_owned(),
        etag: None,
        max_bytes: 64,
        connect_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(10),
    }
}

fn fetcher(plain: PlainHttp) -> HttpFetcher {
    HttpFetcher::new(Trust::Anchors(Authority::new().pem().as_bytes()), plain).unwrap()
}

async fn fetch(request: FetchRequest) -> Result<FetchResponse, FetchError> {
    fetcher(PlainHttp::Loopback).fetch(request).await
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
        request.etag = Some("\"v0\"".into());
        let answer = fetch(request).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.etag.as_deref(), Some("\"v1\""));
        assert_eq!(answer.cache_control.as_deref(), Some("public, max-age=60"));
        assert_eq!(answer.age, Some(7));
        assert_eq!(&answer.body[..], b"{\"a\":1}");
        let seen = server.seen.borrow();
        assert!(seen[0].starts_with("GET /keys?set=1 HTTP/1.1\r\n"), "{seen:?}");
        for field in [
            format!("host: {}", server.address),
            "if-none-match: \"v0\"".into(),
            "accept: application/jwk-set+json, application/json".into(),
        ] {
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
            let strict = fetcher(PlainHttp::Refused).fetch(request(&url)).await.unwrap_err();
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
            let fetcher = HttpFetcher::new(Trust::Anchors(trusted.as_bytes()), PlainHttp::Refused).unwrap();
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
    assert!(HttpFetcher::new(Trust::Anchors(b"nothing"), PlainHttp::Refused).is_err());
}
