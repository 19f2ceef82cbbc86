//! What a listener bears, and for how long.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use portcullis_core::Connection;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::super::limits::ABANDONED_REQUESTS;
use super::super::serve::{self, Ending};
use super::super::{Inbound, Listener, TlsPolicyIds};
use super::{Clock, Event, Files, Rig, Service, compiled, on_worker, read_to_end, statuses, until};

const GOOD: &[u8] = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n";

/// How long an action took, with a wide margin for a busy machine.
async fn takes(action: impl Future<Output = ()>, at_least: Duration) {
    let begun = Instant::now();
    action.await;
    let took = begun.elapsed();
    assert!(took >= at_least, "too early: {took:?}");
    assert!(took < at_least + Duration::from_secs(5), "too late: {took:?}");
}

#[test]
fn a_silent_connection_is_cut_after_the_header_timeout() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "header_timeout": "200ms", "idle_timeout": "1h" }));
        let mut stream = rig.connect().await;
        takes(async { assert_eq!(read_to_end(&mut stream).await, "") }, Duration::from_millis(200)).await;
    });
}

#[test]
fn a_slow_head_is_cut_also_when_it_is_not_the_first() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "header_timeout": "800ms", "idle_timeout": "1h" }));
        for before in [b"".as_slice(), GOOD] {
            let mut stream = rig.connect().await;
            stream.write_all(before).await.expect("sent");
            if !before.is_empty() {
                let mut answer = [0; 512];
                assert!(stream.read(&mut answer).await.expect("an answer") > 0);
            }
            stream.write_all(b"GET / HTTP/1.1\r\nHost").await.expect("sent");
            takes(async { assert_eq!(read_to_end(&mut stream).await, "") }, Duration::from_millis(700)).await;
        }
        assert_eq!(rig.recorder.targets(), ["/good"]);
    });
}

#[test]
fn an_idle_connection_is_closed_after_the_idle_timeout() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "header_timeout": "1h", "idle_timeout": "200ms" }));
        let mut stream = rig.connect().await;
        stream.write_all(GOOD).await.expect("sent");
        takes(
            async { assert_eq!(statuses(&read_to_end(&mut stream).await), [200]) },
            Duration::from_millis(200),
        )
        .await;
    });
}

#[test]
fn a_request_in_flight_is_not_idle() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "header_timeout": "100ms", "idle_timeout": "100ms" }));
        let mut stream = rig.connect().await;
        stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        let still_open = tokio::time::timeout(Duration::from_millis(600), read_to_end(&mut stream)).await;
        assert!(still_open.is_err());
    });
}

/// Its request and the end of its input come in one piece here, which is easily taken for a client that has gone.
#[test]
fn a_client_that_ends_its_side_is_answered() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        // Both are in the socket before the worker looks for the first time.
        for _ in 0..20 {
            let mut stream = std::net::TcpStream::connect(rig.address).expect("a connection");
            std::io::Write::write_all(&mut stream, &[GOOD, GOOD].concat()).expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("our side ended");
            stream.set_nonblocking(true).expect("a socket");
            let mut stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
            assert_eq!(statuses(&read_to_end(&mut stream).await), [200, 200]);
        }
        until(|| rig.listener.open() == 0).await;
    });
}

#[test]
fn a_client_that_does_not_take_its_answer_is_cut() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "write_timeout": "200ms" }));
        let mut stream = rig.connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        takes(rig.recorder.observed(Event::Closed), Duration::from_millis(200)).await;
    });
}

/// TLS-05.
#[test]
fn an_old_connection_is_closed_behind_an_answer() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "connection_age": "300ms" }));
        let mut stream = rig.connect().await;
        let mut answers = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if stream.write_all(GOOD).await.is_err() {
                break;
            }
            let mut answer = [0; 512];
            match stream.read(&mut answer).await {
                Ok(read) if read > 0 => answers.extend_from_slice(&answer[..read]),
                _ => break,
            }
        }
        assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5));
        assert!(statuses(&String::from_utf8_lossy(&answers)).iter().all(|status| *status == 200));
    });
}

#[test]
fn one_connection_too_many_is_closed_at_once_and_places_are_given_back() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "connections": 2 }));
        let (mut first, _second) = (rig.connect().await, rig.connect().await);
        first.write_all(GOOD).await.expect("sent");
        let mut answer = [0; 512];
        assert!(first.read(&mut answer).await.expect("an answer") > 0);
        let mut third = rig.connect().await;
        assert_eq!(read_to_end(&mut third).await, "");
        rig.recorder.observed(Event::OverCapacity).await;
        drop(first);
        until(|| rig.listener.open() < 2).await;
        assert_eq!(statuses(&rig.exchange(GOOD).await), [200]);
    });
}

#[test]
fn heads_that_are_too_large_are_answered_431() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "headers": "8KiB", "header_count": 20 }));
        let request = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        for fields in [
            format!("X: {}\r\n", "y".repeat(9 << 10)),
            format!("X: {}\r\n", "y".repeat(60 << 10)),
            "X: y\r\n".repeat(20),
            "X: y\r\n".repeat(2_000),
        ] {
            let answers = rig.exchange(&request(&fields)).await;
            assert_eq!(statuses(&answers), [431], "{}", fields.len());
            assert!(answers.contains("headers_too_large"), "{answers}");
        }
        assert!(rig.recorder.targets().is_empty());
        // CVE-2025-30204: ten thousand dots are only long.
        let dots = format!("Authorization: Bearer {}\r\n", ".".repeat(7_000));
        assert_eq!(statuses(&rig.exchange(&request(&dots)).await), [200]);
    });
}

#[test]
fn more_fields_than_by_default_can_be_allowed() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "header_count": 200 }));
        let request =
            |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count)).into_bytes();
        assert_eq!(statuses(&rig.exchange(&request(200)).await), [200]);
        assert_eq!(statuses(&rig.exchange(&request(201)).await), [431]);
    });
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let listener = json!({ "address": rig.address.to_string() });
        let settings = compiled(&listener, &Files::default(), &Clock::System, &TlsPolicyIds::default());
        let error = Listener::bind(&settings.expect("good settings"), 1).expect_err("it is in use");
        assert_eq!(
            error.to_string(),
            format!("listener `door`: {} is in use by another process", rig.address)
        );
    });
}

#[test]
fn all_workers_share_the_port_the_system_chose() {
    on_worker(|| async {
        let listener = json!({ "address": "127.0.0.1:0" });
        let settings = compiled(&listener, &Files::default(), &Clock::System, &TlsPolicyIds::default());
        let (listener, bound) = Listener::bind(&settings.expect("good settings"), 4).expect("a free port");
        assert_eq!(bound.len(), 4);
        assert!(bound.iter().all(|bound| bound.address() == Some(listener.address())));
        assert_ne!(listener.address().port(), 0);
    });
}

#[test]
fn a_panic_ends_its_connection_and_nothing_else() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let mut other = rig.connect().await;
        assert_eq!(rig.exchange(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await, "");
        rig.recorder.observed(Event::Panicked).await;
        rig.recorder.observed(Event::Closed).await;
        other.write_all(GOOD).await.expect("sent");
        other.shutdown().await.expect("our side ended");
        assert_eq!(statuses(&read_to_end(&mut other).await), [200]);
        until(|| rig.listener.open() == 0).await;
    });
}

#[test]
fn draining_ends_idle_connections_and_lets_requests_finish() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let (mut idle, mut busy) = (rig.connect().await, rig.connect().await);
        let head = b"POST /busy HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel";
        busy.write_all(head).await.expect("sent");
        until(|| *rig.recorder.begun.borrow() > 0 && rig.listener.open() == 2).await;
        rig.drain.begin();
        assert_eq!(read_to_end(&mut idle).await, "");
        assert_eq!(rig.drain.open(), 1);
        busy.write_all(b"lo").await.expect("sent");
        let answers = read_to_end(&mut busy).await;
        assert_eq!(statuses(&answers), [200]);
        assert!(answers.contains("connection: close"), "{answers}");
        rig.drain.ended().await;
        assert!(tokio::net::TcpStream::connect(rig.address).await.is_err());
    });
}

/// Trap 5: neither the preface nor the first request may be waited for without end.
#[test]
fn an_http2_connection_without_a_request_is_cut() {
    on_worker(|| async {
        for sent in
            [b"".as_slice(), b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"]
        {
            let rig = Rig::plain(json!({ "header_timeout": "200ms", "idle_timeout": "1h" }));
            let (mut client, server) = tokio::io::duplex(64 << 10);
            let served = serve_http2(&rig, server);
            client.write_all(sent).await.expect("sent");
            takes(
                async { assert_eq!(served.await.expect("no panic"), Ending::Cut) },
                Duration::from_millis(200),
            )
            .await;
        }
    });
}

/// Flow control lets a client of HTTP/2 hold an answer, and an upstream's connection, without blocking a socket.
#[test]
fn an_http2_client_that_does_not_take_its_answer_is_cut() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "write_timeout": "200ms", "idle_timeout": "300ms" }));
        let (mut sender, served) = http2(&rig).await;
        let request = Request::get("http://a/large").body(Empty::new()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        takes(async { assert_eq!(served.await.expect("no panic"), Ending::Cut) }, Duration::from_millis(200))
            .await;
        drop(answer);
    });
}

/// Slow answers are the upstream's affair: nobody waits for the client.
#[test]
fn an_http2_answer_that_is_long_in_coming_is_not_the_clients_fault() {
    on_worker(|| async {
        let rig = Rig::plain(json!({ "write_timeout": "50ms", "idle_timeout": "50ms" }));
        let (mut sender, served) = http2(&rig).await;
        let request = Request::get("http://a/never").body(Empty::new()).expect("a request");
        let answer = tokio::time::timeout(Duration::from_millis(500), sender.send_request(request)).await;
        assert!(answer.is_err() && !served.is_finished());
    });
}

/// CVE-2023-44487: requests opened only to be reset.
#[test]
fn a_client_that_abandons_its_requests_is_cut() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let (mut sender, served) = http2(&rig).await;
        let mut opened = 0;
        while sender.ready().await.is_ok() && opened < 10 * ABANDONED_REQUESTS {
            let request = Request::get("http://a/never").body(Empty::new()).expect("a request");
            let answer = sender.send_request(request);
            opened += 1;
            let begun = *rig.recorder.begun.borrow();
            let taken_up = async {
                while *rig.recorder.begun.borrow() == begun {
                    tokio::task::yield_now().await;
                }
            };
            // Dropped once the service has it: the reset that h2's own bounds do not count.
            tokio::select! {
                _ = answer => {}
                () = taken_up => {}
            }
        }
        assert_eq!(served.await.expect("no panic"), Ending::Cut);
        let begun = *rig.recorder.begun.borrow();
        assert!((ABANDONED_REQUESTS..=2 * ABANDONED_REQUESTS).contains(&begun), "{begun}");
    });
}

/// Serves HTTP/2 without the TLS that agrees on it.
fn serve_http2(rig: &Rig, server: DuplexStream) -> JoinHandle<Ending> {
    let limits = rig.settings.limits.clone();
    let connection = Connection {
        peer: rig.address,
        proxy: None,
        shared: false,
        listener: "door".into(),
        tls: None,
        handshake_certificate: None,
    };
    let service = Rc::new(Service(Rc::clone(&rig.recorder), std::sync::Arc::clone(&rig.settings)));
    let (inbound, draining) = (Inbound::new(connection, true), rig.drain.enter());
    tokio::task::spawn_local(
        async move { serve::connection(server, inbound, service, draining, &limits).await },
    )
}

/// A client of such a connection.
async fn http2(rig: &Rig) -> (SendRequest<Empty<bytes::Bytes>>, JoinHandle<Ending>) {
    let (client, server) = tokio::io::duplex(64 << 10);
    let served = serve_http2(rig, server);
    let builder = hyper::client::conn::http2::Builder::new(Local);
    let (sender, driver) = builder.handshake(TokioIo::new(client)).await.expect("a connection");
    tokio::task::spawn_local(driver);
    (sender, served)
}

#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
