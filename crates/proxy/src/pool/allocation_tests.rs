//! What an exchange on a kept connection takes from the allocator.

use std::io::{Read as _, Write as _};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::Body as _;
use serde_json::json;

use crate::rig::{WIDE, get, on_a_worker, pools, upstream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi";

/// A server on a thread of its own, so that what it takes is not counted.
fn server() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut space = [0; 1024];
        while stream.read(&mut space).is_ok_and(|read| read > 0) {
            stream.write_all(ANSWER).unwrap();
        }
    });
    url
}

/// Polls, and counts what that takes.
fn counted<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> (Poll<T>, u64) {
    let mut polled = Poll::Pending;
    let counted = allocation_counter::measure(|| polled = poll(&mut Context::from_waker(Waker::noop())));
    (polled, counted.count_total)
}

#[test]
fn exchange_on_a_kept_connection_takes_the_map_of_the_fields_and_nothing_else() {
    on_a_worker(async {
        let upstream = upstream(json!({ "urls": server() }));
        let pools = pools();
        for round in 0..8 {
            let request = get("/v3/accounts/17");
            let mut started = None;
            let begun = allocation_counter::measure(|| started = Some(pools.send(&upstream, request, WIDE)));
            let mut sending = pin!(started.unwrap());
            let (sent, sent_count) = counted(|cx| sending.as_mut().poll(cx));
            assert!(sent.is_pending());
            // The first ones make the connection and its buffers.
            let (answer, answer_count) = if round < 3 {
                (Poll::Ready(sending.await), 0)
            } else {
                // Lets the event loop notice the answer.
                tokio::time::sleep(Duration::from_millis(30)).await;
                counted(|cx| sending.as_mut().poll(cx))
            };
            let Poll::Ready(Ok(answer)) = answer else { panic!("an answer: {answer:?}") };
            assert_eq!(answer.status(), 200);
            let mut body = pin!(answer.into_body());
            let (data, body_count) = counted(|cx| body.as_mut().poll_frame(cx));
            let Poll::Ready(Some(Ok(frame))) = data else { panic!("the body is here") };
            assert_eq!(frame.into_data().unwrap(), "hi");
            if round >= 3 {
                assert_eq!(
                    (begun.count_total, sent_count, answer_count, body_count),
                    (0, 0, 2, 0),
                    "{round}"
                );
            }
        }
    });
}
