//! What reaches the service, and what a client reads, when the bytes are not what they seem.

use proptest::prelude::{Just, ProptestConfig, Strategy as _, any, prop, prop_assert, prop_oneof, proptest};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::read_along;
use super::{Event, Rig, on_worker, read_to_end, statuses, until};

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";

/// Trap 1, PRX-01: some servers drop the length and serve one chunked request.
#[test]
fn length_and_chunked_together_are_answered_400_and_closed() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let smuggled =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG";
        let answers = rig.exchange(format!("{smuggled}{GOOD}").as_bytes()).await;
        assert_eq!(statuses(&answers), [400]);
        assert!(answers.contains("connection: close") && answers.contains("request_malformed"), "{answers}");
        assert!(rig.recorder.targets().is_empty());
    });
}

/// Traps 2, 3 and 4: what lenient servers take.
#[test]
fn what_lenient_servers_take_is_answered_400() {
    on_worker(|| async {
        for bad in [
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "\x16\x03\x01\x02\0\x01\0\x01",
        ] {
            let rig = Rig::plain(json!({}));
            let answers = rig.exchange(format!("{bad}{GOOD}").as_bytes()).await;
            assert_eq!(statuses(&answers), [400], "{bad}");
            assert!(answers.contains("request_malformed"), "{bad}: {answers}");
            assert!(rig.recorder.targets().is_empty(), "{bad}");
        }
    });
}

#[test]
fn a_malformed_head_is_noticed() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let answers = rig.exchange(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
        assert_eq!(statuses(&answers), [400]);
        rig.recorder.observed(Event::Malformed).await;
    });
}

#[test]
fn good_requests_before_a_faulty_one_are_served_and_none_after() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let bad = "GET /bad HTTP/1.1\r\nHost: a\nX: y\r\n\r\n";
        let answers = rig.exchange(format!("{GOOD}{GOOD}{bad}{GOOD}").as_bytes()).await;
        assert_eq!(statuses(&answers), [200, 200, 400]);
        assert_eq!(rig.recorder.targets(), ["/good", "/good"]);
    });
}

#[test]
fn a_chunked_body_that_breaks_is_refused_and_nothing_behind_it_is_read() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let mut stream = rig.connect().await;
        let head = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        until(|| *rig.recorder.begun.borrow() > 0).await;
        stream.write_all(format!("0\nX: y\r\n\r\n{GOOD}").as_bytes()).await.expect("sent");
        let answers = read_to_end(&mut stream).await;
        assert_eq!(statuses(&answers), [400]);
        assert!(answers.contains("request_malformed"), "{answers}");
        let seen = rig.recorder.seen.borrow();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].body, None);
    });
}

/// The CL.0 class: bytes of an unread body are never the next request, and the answer is not cut off by a reset.
#[test]
fn an_unread_body_is_never_the_next_request() {
    on_worker(|| async {
        for size in [GOOD.len(), 100_000] {
            let rig = Rig::plain(json!({}));
            let mut stream = rig.connect().await;
            let head = format!("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("sent");
            let mut answer = vec![0; 512];
            let read = stream.read(&mut answer).await.expect("an early answer");
            let early = String::from_utf8_lossy(&answer[..read]).into_owned();
            assert_eq!(statuses(&early), [401], "{early}");
            // The connection may be closed by now.
            let _ = stream.write_all(GOOD.repeat(size / GOOD.len()).as_bytes()).await;
            let rest = read_to_end(&mut stream).await;
            assert_eq!(statuses(&rest), [0_u16; 0], "{rest}");
            assert_eq!(rig.recorder.targets(), ["/unread"]);
        }
    });
}

#[test]
fn an_early_answer_arrives_though_the_body_is_still_being_sent() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let mut stream = rig.connect().await;
        let body = "x".repeat(60 << 10);
        let head = format!("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 10 << 20);
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(body.as_bytes()).await.expect("sent");
        let answers = read_to_end(&mut stream).await;
        assert_eq!(statuses(&answers), [401], "{answers}");
    });
}

#[test]
fn a_body_that_was_already_here_lets_the_connection_go_on() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let post = "POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        let answers = rig.exchange(format!("{post}{GOOD}").as_bytes()).await;
        assert_eq!(statuses(&answers), [401, 200]);
        assert_eq!(rig.recorder.targets(), ["/unread", "/good"]);
    });
}

/// PRX-01: no keep-alive for HTTP/1.0, whatever it asks for.
#[test]
fn an_old_client_gets_one_answer() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let old = "GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
        let answers = rig.exchange(format!("{old}{GOOD}").as_bytes()).await;
        assert_eq!(statuses(&answers), [200]);
        assert_eq!(rig.recorder.targets(), ["/old"]);
    });
}

/// A plain listener speaks HTTP/1.1 only.
#[test]
fn http2_with_prior_knowledge_is_not_spoken() {
    on_worker(|| async {
        let rig = Rig::plain(json!({}));
        let answers = rig.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(!answers.contains("served"));
        assert!(rig.recorder.targets().is_empty());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// The service is handed the good requests before a faulty one and nothing else, with the bodies they have.
    #[test]
    fn what_is_served_is_what_was_judged(
        parts in prop::collection::vec(
            prop_oneof![
                3 => Just(b"POST /a HTTP/1.1\r\nHost: a\r\n".to_vec()),
                2 => Just(b"Content-Length: 5\r\n".to_vec()),
                2 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
                3 => Just(b"\r\n".to_vec()),
                2 => Just(b"5\r\nhello\r\n".to_vec()),
                2 => Just(b"0\r\n\r\n".to_vec()),
                2 => Just(b"hello".to_vec()),
                1 => Just(b"\n".to_vec()),
                1 => prop::collection::vec(any::<u8>(), 0..4),
            ].boxed(),
            0..20,
        ),
    ) {
        let bytes = parts.concat();
        let reading = read_along(&bytes, 1);
        let good = match reading.fault {
            Some((request, _)) => request - 1,
            None => reading.heads.len() as u64,
        };
        let mut seen = Vec::new();
        on_worker(|| async {
            let rig = Rig::plain(json!({}));
            rig.exchange(&bytes).await;
            seen = rig.recorder.seen.borrow().iter().filter_map(|seen| seen.body.clone()).collect();
        });
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(seen.len() as u64 <= good, "{} requests served of {good}: {text:?}", seen.len());
        prop_assert!(reading.bodies.starts_with(&seen), "{seen:?} of {:?}: {text:?}", reading.bodies);
    }
}
