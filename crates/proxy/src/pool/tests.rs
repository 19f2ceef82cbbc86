use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;
use portcullis_core::{Reason, Rejection};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use super::{PoolSettings, Pools};
use crate::rig::{
    Authority, Files, Raw, Server, Shake, TestBody, WIDE, compile, exchange, get, on_a_worker, pools, post,
    text, upstream,
};
use crate::{BodyError, BodyFault, BodyLimits, ForwardError};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// An answer that keeps its connection until it is read.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";

/// A body that the test feeds.
struct Feed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>);

impl http_body::Body for Feed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

fn fed() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>, TestBody) {
    let (feeder, feed) = mpsc::unbounded_channel();
    (feeder, Feed(feed).boxed_unsync())
}

fn data(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Lets every other task run until nothing changes any more, network included.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn idle(pools: &Pools<TestBody>) -> usize {
    let known = pools.inner.known.borrow();
    known.values().flat_map(|known| &known.pool.endpoints).map(|endpoint| endpoint.idle_len()).sum()
}

fn reason(error: ForwardError) -> Reason {
    Rejection::from(error).reason()
}

#[test]
fn request_goes_out_as_it_is_and_its_connection_is_used_again() {
    on_a_worker(async {
        let server = Raw::saying(OK).await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        for _ in 0..3 {
            let answer = exchange(&pools, &upstream, get("/a//b/%2e%2E/c;d=1?q=%20&r")).await;
            assert_eq!(answer, Ok((200, "hi".to_owned())));
        }
        assert_eq!(server.connections.get(), 1);
        assert_eq!(
            server.seen.borrow()[2],
            "GET /a//b/%2e%2E/c;d=1?q=%20&r HTTP/1.1\r\nhost: api.bank.example\r\n\r\n"
        );
    });
}

#[test]
fn concurrent_requests_have_a_connection_each_and_the_warmest_is_used_first() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            while peer.message().await.is_some() {
                let number = peer.number;
                // Of an answer whose length is known all is taken at once, and the connection is free again.
                let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1";
                peer.say(&format!("{answer}\r\n{number}\r\n0\r\n\r\n")).await;
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        let first = pools.send(&upstream, get("/"), WIDE).await.unwrap();
        let second = pools.send(&upstream, get("/"), WIDE).await.unwrap();
        assert_eq!((text(second).await, text(first).await), ("1".to_owned(), "0".to_owned()));
        for _ in 0..3 {
            assert_eq!(exchange(&pools, &upstream, get("/")).await, Ok((200, "0".to_owned())));
        }
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn answers_without_a_body_free_the_connection_at_once() {
    on_a_worker(async {
        for (method, answer) in [
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"),
            ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"),
            ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ] {
            let server = Raw::saying(answer).await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let pools = pools();
            for _ in 0..3 {
                let mut request = get("/");
                *request.method_mut() = method.parse().unwrap();
                // The body is dropped unread, as a server does that knows there is none.
                drop(pools.send(&upstream, request, WIDE).await.unwrap());
            }
            assert_eq!(server.connections.get(), 1, "{answer}");
        }
    });
}

#[test]
fn chunked_answer_with_trailers_frees_the_connection_and_loses_unsafe_trailers() {
    on_a_worker(async {
        let server = Raw::saying(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n\
             2\r\nhi\r\n0\r\ngrpc-status: 0\r\ncontent-length: 9\r\nset-cookie: a=b\r\nclient_cert: x\r\n\r\n",
        )
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        for _ in 0..2 {
            let answer = pools.send(&upstream, get("/"), WIDE).await.unwrap();
            let body = answer.into_body().collect().await.unwrap();
            let trailers = body.trailers().unwrap();
            assert_eq!(trailers.len(), 1);
            assert_eq!(trailers["grpc-status"], "0");
        }
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn interim_answers_are_not_taken_for_the_answer() {
    on_a_worker(async {
        let server = Raw::saying(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        )
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        assert_eq!(exchange(&pools(), &upstream, get("/")).await, Ok((200, "hi".to_owned())));
    });
}

#[test]
fn rude_heads_are_malformed_answers_and_the_next_request_is_fine() {
    for rude in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-len",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
        "SSH-2.0-OpenSSH_9.7\r\n",
        "HTTP/1.1 two-hundred OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "<html>hello</html>\r\n\r\n",
        "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbytes",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhiy",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        on_a_worker(async {
            let server = Raw::start(move |mut peer| async move {
                peer.message().await;
                peer.say(if peer.number == 0 { rude } else { OK }).await;
            })
            .await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let pools = pools();
            let error = exchange(&pools, &upstream, get("/")).await.unwrap_err();
            assert_eq!(reason(error), Reason::UpstreamMalformed, "{rude}");
            assert_eq!(idle(&pools), 0, "{rude}");
            assert_eq!(exchange(&pools, &upstream, get("/")).await, Ok((200, "hi".to_owned())), "{rude}");
        });
    }
}

#[test]
fn a_head_without_end_is_refused_within_bounds() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.say("HTTP/1.1 200 OK\r\n").await;
            for _ in 0..1_000_000 {
                if tokio::io::AsyncWriteExt::write_all(
                    &mut peer.stream,
                    b"a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
                )
                .await
                .is_err()
                {
                    return;
                }
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let error = exchange(&pools(), &upstream, get("/")).await.unwrap_err();
        assert_eq!(reason(error), Reason::UpstreamMalformed);
    });
}

#[test]
fn an_answer_that_breaks_off_is_a_broken_transfer_not_a_short_one() {
    for rude in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nhi",
    ] {
        on_a_worker(async {
            let server = Raw::saying_once(rude).await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let pools = pools();
            let answer = pools.send(&upstream, get("/"), WIDE).await.unwrap();
            let error = answer.into_body().collect().await.unwrap_err();
            assert!(matches!(error, BodyError::Broken(_)), "{rude}: {error}");
            assert_eq!(error.reason(), Reason::UpstreamMalformed);
            assert_eq!(idle(&pools), 0);
        });
    }
}

#[test]
fn silence_instead_of_a_head_is_a_timeout_and_closes_the_connection() {
    for said in ["", "HTTP/1.1 200 OK\r\n"] {
        on_a_worker(async {
            let closed = Rc::new(Notify::new());
            let told = Rc::clone(&closed);
            let server = Raw::start(move |mut peer| {
                let told = Rc::clone(&told);
                async move {
                    peer.message().await;
                    peer.say(said).await;
                    peer.closed().await;
                    told.notify_one();
                }
            })
            .await;
            let upstream = upstream(json!({ "urls": server.url(), "timeout": "30ms" }));
            let error = exchange(&pools(), &upstream, get("/")).await.unwrap_err();
            assert_eq!(error, ForwardError::TimedOut(Duration::from_millis(30)));
            closed.notified().await;
        });
    }
}

#[test]
fn silence_within_a_body_is_a_broken_transfer() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi").await;
            peer.closed().await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url(), "timeout": "30ms" }));
        let pools = pools();
        let answer = pools.send(&upstream, get("/"), WIDE).await.unwrap();
        let error = answer.into_body().collect().await.unwrap_err();
        assert_eq!(error, BodyError::TimedOut(Duration::from_millis(30)));
        assert_eq!(error.reason(), Reason::UpstreamTimeout);
        assert_eq!(idle(&pools), 0);
    });
}

#[test]
fn a_reader_who_takes_his_time_is_not_the_upstreams_fault() {
    on_a_worker(async {
        let server = Raw::saying(OK).await;
        let upstream = upstream(json!({ "urls": server.url(), "timeout": "10ms" }));
        let pools = pools();
        let answer = pools.send(&upstream, get("/"), WIDE).await.unwrap();
        // The caller of this gateway reads nothing for far longer than the upstream may be silent.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(text(answer).await, "hi");
    });
}

#[test]
fn bytes_behind_an_answer_are_never_the_next_answer() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for behind in [
        format!("{OK}{evil}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{evil}"),
        format!("{OK}\r\n"),
    ] {
        on_a_worker(async {
            let server = Raw::start(move |mut peer| {
                let behind = behind.clone();
                async move {
                    peer.message().await;
                    let first = peer.number == 0;
                    peer.say(if first { &behind } else { OK }).await;
                    peer.closed().await;
                }
            })
            .await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let pools = pools();
            exchange(&pools, &upstream, get("/first")).await.unwrap();
            assert_eq!(exchange(&pools, &upstream, get("/second")).await, Ok((200, "hi".to_owned())));
            assert_eq!(server.connections.get(), 2);
        });
    }
}

#[test]
fn bytes_that_come_later_on_an_idle_connection_end_it() {
    on_a_worker(async {
        let (go, said) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (gate, done) = (Rc::clone(&go), Rc::clone(&said));
        let server = Raw::start(move |mut peer| {
            let (gate, done) = (Rc::clone(&gate), Rc::clone(&done));
            async move {
                peer.message().await;
                peer.say(OK).await;
                if peer.number == 0 {
                    gate.notified().await;
                    peer.say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
                    peer.closed().await;
                    done.notify_one();
                }
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        exchange(&pools, &upstream, get("/first")).await.unwrap();
        assert_eq!(idle(&pools), 1);
        go.notify_one();
        said.notified().await;
        assert_eq!(exchange(&pools, &upstream, get("/second")).await, Ok((200, "hi".to_owned())));
        assert_eq!(server.connections.get(), 2);
    });
}

/// A server that is tired of waiting says so to nobody in particular, and closes.
#[test]
fn late_word_to_an_idle_connection_is_no_answer_to_the_next_request() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            while peer.message().await.is_some() {
                peer.say(OK).await;
                if peer.number == 0 {
                    peer.say(
                        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                    )
                    .await;
                    return;
                }
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        assert_eq!(exchange(&pools, &upstream, get("/first")).await, Ok((200, "hi".to_owned())));
        let open = || pools.inner.known.borrow().values().any(|known| known.pool.endpoints[0].sweep());
        until(|| !open()).await;
        assert_eq!(exchange(&pools, &upstream, post("/second", "hello")).await, Ok((200, "hi".to_owned())));
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn answers_that_end_with_their_connection_are_whole_and_the_last_on_it() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\n\r\nall that comes", "all that comes"),
        ("HTTP/1.0 200 OK\r\n\r\nall that comes", "all that comes"),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi"),
        ("HTTP/1.1 200 OK\r\n\r\n", ""),
    ] {
        on_a_worker(async {
            let server = Raw::saying_once(answer).await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let pools = pools();
            for connections in 1..3 {
                assert_eq!(
                    exchange(&pools, &upstream, get("/")).await,
                    Ok((200, body.to_owned())),
                    "{answer}"
                );
                assert_eq!((idle(&pools), server.connections.get()), (0, connections), "{answer}");
            }
        });
    }
}

#[test]
fn old_server_that_keeps_its_connection_keeps_it() {
    on_a_worker(async {
        let answer = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi";
        let server = Raw::saying(answer).await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        for _ in 0..3 {
            assert_eq!(exchange(&pools, &upstream, get("/")).await, Ok((200, "hi".to_owned())));
        }
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn connection_the_server_closed_meanwhile_is_replaced_without_the_caller_noticing() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message_until("hello").await;
            peer.say(OK).await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        for _ in 0..3 {
            assert_eq!(exchange(&pools, &upstream, post("/pay", "hello")).await, Ok((200, "hi".to_owned())));
            let open = || pools.inner.known.borrow().values().any(|known| known.pool.endpoints[0].sweep());
            until(|| !open()).await;
        }
        assert_eq!(server.connections.get(), 3);
        assert_eq!(server.seen.borrow().len(), 3, "each request was delivered once");
    });
}

#[test]
fn request_given_back_by_a_dying_connection_is_sent_once_on_a_fresh_one() {
    on_a_worker(async {
        // The farewell and the next request cross: the connection is still in the pool, its task has not run.
        let server = Raw::start(|mut peer| async move {
            peer.message_until("hello").await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        for round in 1..=20 {
            let answer = exchange(&pools, &upstream, post("/pay", "hello")).await;
            // Whatever the timing: an answer, or a failure that is said, and never a second delivery.
            let delivered = server.seen.borrow().len();
            assert!(delivered <= round, "request {round} was delivered twice");
            if let Err(error) = answer {
                assert_eq!(reason(error), Reason::UpstreamMalformed);
            }
        }
    });
}

#[test]
fn post_that_was_written_to_a_kept_connection_is_never_sent_again() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message_until("hello").await;
            peer.say(OK).await;
            // The second request of the connection is read whole, and answered by closing.
            peer.message_until("hello").await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        exchange(&pools, &upstream, post("/pay", "hello")).await.unwrap();
        let error = exchange(&pools, &upstream, post("/pay", "hello")).await.unwrap_err();
        assert_eq!(reason(error), Reason::UpstreamMalformed);
        assert_eq!(server.seen.borrow().len(), 2);
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn connection_close_from_the_upstream_is_obeyed() {
    on_a_worker(async {
        let server = Raw::saying("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi").await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        for _ in 0..2 {
            exchange(&pools, &upstream, get("/")).await.unwrap();
        }
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn early_answer_to_a_long_body_reaches_the_caller_and_its_connection_is_not_used_again() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            peer.closed().await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        let (feeder, body) = fed();
        feeder.send(data("some")).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        assert_eq!(exchange(&pools, &upstream, request).await, Ok((413, "no".to_owned())));
        assert_eq!(exchange(&pools, &upstream, get("/")).await, Ok((413, "no".to_owned())));
        assert_eq!(server.connections.get(), 2);
    });
}

/// A caller may read the answer only after it has sent all.
#[test]
fn body_goes_out_while_nobody_reads_the_answer_that_has_begun() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
            peer.message_until("0\r\n\r\n").await;
            peer.say("0\r\n\r\n").await;
            peer.closed().await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        let (feeder, body) = fed();
        feeder.send(data("first")).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        let answer = pools.send(&upstream, request, WIDE).await.unwrap();
        for _ in 0..100 {
            feeder.send(data("more")).unwrap();
            tokio::task::yield_now().await;
        }
        drop(feeder);
        until(|| server.seen.borrow().len() == 2).await;
        assert_eq!(server.seen.borrow()[1].matches("4\r\nmore\r\n").count(), 100);
        assert_eq!(text(answer).await, "hi");
        assert_eq!(idle(&pools), 1, "complete in both directions");
    });
}

/// The connection breaks under the body; what the upstream had to say about it has come before.
#[test]
fn early_answer_survives_the_broken_upload() {
    on_a_worker(async {
        let server = Raw::saying_once("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        let large: &'static str = "x".repeat(1 << 20).leak();
        let (feeder, body) = fed();
        for _ in 0..32 {
            feeder.send(data(large)).unwrap();
        }
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        assert_eq!(exchange(&pools, &upstream, request).await, Ok((413, "no".to_owned())));
        assert_eq!(idle(&pools), 0);
    });
}

/// A body that says of itself how long it is, and is not.
struct Announced(u64, Feed);

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        std::pin::Pin::new(&mut self.1).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

/// SECURITY: the upstream would take the next request for the rest of this one, or the rest of this one for a request.
#[test]
fn body_unlike_its_announced_length_ends_its_connection() {
    for (announced, ended) in [(9, true), (3, false)] {
        on_a_worker(async {
            let server = Raw::start(|mut peer| async move {
                peer.message().await;
                peer.closed().await;
            })
            .await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let pools = pools();
            let (feeder, feed) = mpsc::unbounded_channel();
            feeder.send(data("ab")).unwrap();
            feeder.send(data("cde")).unwrap();
            let feeder = (!ended).then_some(feeder);
            let body = Announced(announced, Feed(feed)).boxed_unsync();
            let request = Request::post("/").header("host", "h").body(body).unwrap();
            let error = exchange(&pools, &upstream, request).await.unwrap_err();
            assert!(matches!(error, ForwardError::RequestBody(BodyFault::Broken(_))), "{error}");
            assert_eq!(idle(&pools), 0);
            drop(feeder);
        });
    }
}

/// SECURITY: an empty piece written as a chunk would be the last one, and the rest a request of its own.
#[test]
fn empty_pieces_do_not_end_a_chunked_body() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message_until("0\r\n\r\n").await;
            peer.say(OK).await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let (feeder, body) = fed();
        for piece in ["", "hel", "", "", "lo", ""] {
            feeder.send(data(piece)).unwrap();
        }
        drop(feeder);
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        exchange(&pools(), &upstream, request).await.unwrap();
        assert!(server.seen.borrow()[0].ends_with("\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"));
    });
}

#[test]
fn long_bodies_pass_whole_both_ways() {
    on_a_worker(async {
        let server = Server::start(None, false).await;
        let upstream = upstream(json!({ "urls": server.url("http") }));
        let pools = pools();
        let pieces: Vec<String> =
            (0..400_usize).map(|n| format!("{n:>7}").repeat(1 + n * n % 3001)).collect();
        let (feeder, body) = fed();
        let sent = pieces.concat();
        let feeding = tokio::task::spawn_local(async move {
            for piece in pieces {
                feeder.send(Ok(Frame::data(Bytes::from(piece)))).unwrap();
                tokio::task::yield_now().await;
            }
        });
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        let (status, echoed) = exchange(&pools, &upstream, request).await.unwrap();
        feeding.await.unwrap();
        assert!(status == 200 && echoed == sent);
        assert_eq!(idle(&pools), 1);
    });
}

#[test]
fn connection_with_an_upload_nobody_finishes_is_closed() {
    on_a_worker(async {
        let closed = Rc::new(Notify::new());
        let told = Rc::clone(&closed);
        let server = Raw::start(move |mut peer| {
            let told = Rc::clone(&told);
            async move {
                peer.message().await;
                peer.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
                peer.closed().await;
                told.notify_one();
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools: Pools<TestBody> =
            Pools::new(PoolSettings { max_idle: 9, idle_timeout: Duration::from_millis(30) });
        let (feeder, body) = fed();
        feeder.send(data("some")).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        assert_eq!(exchange(&pools, &upstream, request).await, Ok((413, "no".to_owned())));
        // The caller still holds the body open and sends no more of it.
        closed.notified().await;
        drop(feeder);
    });
}

#[test]
fn body_is_held_to_its_limits() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.closed().await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        let limits = BodyLimits { max_bytes: 4, idle: Duration::from_millis(30), ..WIDE };

        let announced = pools.send(&upstream, post("/", "hello"), limits).await.unwrap_err();
        assert_eq!(announced, ForwardError::RequestBody(BodyFault::TooLarge(4)));
        assert_eq!(server.connections.get(), 0, "refused before anything was sent");
        assert_eq!(reason(announced), Reason::BodyTooLarge);

        let (feeder, body) = fed();
        feeder.send(data("hel")).unwrap();
        feeder.send(data("lo")).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        let streamed = pools.send(&upstream, request, limits).await.unwrap_err();
        assert_eq!(streamed, ForwardError::RequestBody(BodyFault::TooLarge(4)));

        let (feeder, body) = fed();
        feeder.send(data("hel")).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        let stalled = pools.send(&upstream, request, limits).await.unwrap_err();
        assert_eq!(stalled, ForwardError::RequestBody(BodyFault::TimedOut(limits.idle)));
        assert_eq!(reason(stalled), Reason::BodyTimeout);
        drop(feeder);

        let (feeder, body) = fed();
        feeder.send(Err(std::io::Error::other("bad chunk"))).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        let broken = pools.send(&upstream, request, limits).await.unwrap_err();
        assert_eq!(broken, ForwardError::RequestBody(BodyFault::Broken("bad chunk".into())));
        assert_eq!(idle(&pools), 0);
    });
}

/// Whether the upstream waits for the whole body or has begun to answer.
#[test]
fn body_that_trickles_ends_when_its_time_is_over() {
    for answer in ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"] {
        on_a_worker(async move {
            let server = Raw::start(move |mut peer| async move {
                peer.message().await;
                peer.say(answer).await;
                peer.closed().await;
            })
            .await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let (feeder, body) = fed();
            let trickle = tokio::task::spawn_local(async move {
                while feeder.send(data("a")).is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            let limits = BodyLimits { total: Duration::from_millis(100), ..WIDE };
            let request = Request::post("/").header("host", "h").body(body).unwrap();
            let pools = pools();
            let fault = match pools.send(&upstream, request, limits).await {
                Err(ForwardError::RequestBody(fault)) => fault,
                Err(error) => panic!("{error}"),
                Ok(answer) => match answer.into_body().collect().await {
                    Err(BodyError::RequestBody(fault)) => fault,
                    other => panic!("{other:?}"),
                },
            };
            assert_eq!(fault, BodyFault::TimedOut(limits.total));
            trickle.await.unwrap();
            assert_eq!(idle(&pools), 0);
        });
    }
}

#[test]
fn body_that_fails_after_the_answer_began_breaks_the_transfer() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.message().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi").await;
            peer.closed().await;
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let (feeder, body) = fed();
        feeder.send(data("some")).unwrap();
        let request = Request::post("/").header("host", "h").body(body).unwrap();
        let limits = BodyLimits { max_bytes: 6, ..WIDE };
        let pools = pools();
        let answer = pools.send(&upstream, request, limits).await.unwrap();
        feeder.send(data("more")).unwrap();
        let error = answer.into_body().collect().await.unwrap_err();
        assert_eq!(error, BodyError::RequestBody(BodyFault::TooLarge(6)));
    });
}

#[test]
fn streamed_body_arrives_chunked_whatever_the_method_and_without_its_trailers() {
    for method in ["POST", "GET", "DELETE"] {
        on_a_worker(async {
            let server = Raw::start(|mut peer| async move {
                peer.message_until("0\r\n\r\n").await;
                peer.say(OK).await;
            })
            .await;
            let upstream = upstream(json!({ "urls": server.url() }));
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-client-id", "admin".parse().unwrap());
            let (feeder, body) = fed();
            for frame in [data("hel"), data("lo"), Ok(Frame::trailers(trailers))] {
                feeder.send(frame).unwrap();
            }
            drop(feeder);
            let request = Request::builder()
                .method(method)
                .uri("/")
                .header("host", "h")
                .header("content-length", "3")
                .header("trailer", "x-client-id")
                .body(body)
                .unwrap();
            exchange(&pools(), &upstream, request).await.unwrap();
            let seen = server.seen.borrow();
            assert!(seen[0].contains("transfer-encoding: chunked\r\n"), "{seen:?}");
            assert!(!seen[0].contains("content-length"), "{seen:?}");
            assert!(seen[0].ends_with("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), "{seen:?}");
        });
    }
}

#[test]
fn endpoints_take_turns_and_a_dead_one_is_passed_over() {
    on_a_worker(async {
        let (one, two) = (Raw::saying(OK).await, Raw::saying(OK).await);
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let pools = pools();

        let fine = upstream(json!({ "urls": [one.url(), two.url()] }));
        for _ in 0..4 {
            exchange(&pools, &fine, get("/")).await.unwrap();
        }
        assert_eq!((one.seen.borrow().len(), two.seen.borrow().len()), (2, 2));

        let limping = upstream(json!({ "urls": [dead.clone(), one.url()] }));
        for _ in 0..4 {
            exchange(&pools, &limping, post("/", "hello")).await.unwrap();
        }

        let gone = upstream(json!({ "urls": [dead] }));
        let error = exchange(&pools, &gone, get("/")).await.unwrap_err();
        assert_eq!(reason(error), Reason::UpstreamUnreachable);
    });
}

#[test]
fn handshake_that_never_ends_is_no_connection() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move { peer.closed().await }).await;
        let url = format!("https://{}", server.address);
        let mut files = Files::default();
        files.0.insert("ca.pem", Authority::new().pem());
        let spec =
            json!({ "urls": url, "connect_timeout": "30ms", "tls": { "trust": { "file": "ca.pem" } } });
        let upstream = compile(&spec, &files).unwrap();
        let error = exchange(&pools(), &upstream, get("/")).await.unwrap_err();
        assert_eq!(error, ForwardError::Unreachable("no connection within 30ms".into()));
    });
}

#[test]
fn connect_is_refused_here_whoever_let_it_through() {
    on_a_worker(async {
        let server = Raw::saying(OK).await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let mut request = get("/");
        *request.method_mut() = http::Method::CONNECT;
        let error = exchange(&pools(), &upstream, request).await.unwrap_err();
        assert_eq!(error, ForwardError::TunnelRefused);
        assert!(server.seen.borrow().is_empty());
    });
}

#[test]
fn dropping_an_answer_or_the_wait_for_one_closes_the_connection() {
    on_a_worker(async {
        let closed = Rc::new(Notify::new());
        let told = Rc::clone(&closed);
        let server = Raw::start(move |mut peer| {
            let told = Rc::clone(&told);
            async move {
                let head = peer.message().await.unwrap();
                if head.starts_with("GET /body") {
                    peer.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi").await;
                }
                assert!(peer.stream.read_u8().await.is_err());
                told.notify_one();
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools = pools();
        drop(pools.send(&upstream, get("/body"), WIDE).await.unwrap());
        closed.notified().await;
        let waiting =
            tokio::time::timeout(Duration::from_millis(20), pools.send(&upstream, get("/head"), WIDE));
        assert!(waiting.await.is_err());
        closed.notified().await;
        assert_eq!(idle(&pools), 0);
    });
}

#[test]
fn idle_connections_are_closed_in_time_and_kept_in_number() {
    on_a_worker(async {
        let closed = Rc::new(Notify::new());
        let told = Rc::clone(&closed);
        let server = Raw::start(move |mut peer| {
            let told = Rc::clone(&told);
            async move {
                while peer.message().await.is_some() {
                    peer.say(CHUNKED).await;
                }
                told.notify_one();
            }
        })
        .await;
        let upstream = upstream(json!({ "urls": server.url() }));
        let pools: Pools<TestBody> =
            Pools::new(PoolSettings { max_idle: 1, idle_timeout: Duration::from_millis(50) });
        let first = pools.send(&upstream, get("/"), WIDE).await.unwrap();
        let second = pools.send(&upstream, get("/"), WIDE).await.unwrap();
        text(first).await;
        text(second).await;
        assert_eq!(idle(&pools), 1);
        closed.notified().await;
        closed.notified().await;
        until(|| idle(&pools) == 0).await;
    });
}

/// Everything needed for one TLS upstream.
struct Secure {
    server: Server,
    files: Files,
}

async fn secure(names: &[&str], clients: bool, alpn: &'static [&'static str]) -> Secure {
    let (authority, callers) = (Authority::new(), Authority::new());
    let clients = clients.then(|| callers.pem());
    let shake = Shake { issued: authority.issue(names), clients, alpn };
    let server = Server::start(Some(shake), false).await;
    let mut files = Files::default();
    files.0.insert("ca.pem", authority.pem());
    files.0.insert("other-ca.pem", Authority::new().pem());
    for (certificate, key) in [("one.pem", "one.key"), ("two.pem", "two.key")] {
        let issued = callers.issue(&["gateway"]);
        files.0.insert(certificate, issued.certificate);
        files.0.insert(key, issued.key);
    }
    Secure { server, files }
}

#[test]
fn server_certificate_is_checked_against_the_anchors_and_the_name() {
    on_a_worker(async {
        for (names, tls, fits) in [
            (&["localhost"][..], json!({ "trust": { "file": "ca.pem" } }), true),
            (&["localhost"], json!({ "trust": { "file": "other-ca.pem" } }), false),
            (
                &["localhost"],
                json!({ "trust": { "file": "ca.pem" }, "server_name": "accounts.internal" }),
                false,
            ),
            (&["accounts.internal"], json!({ "trust": { "file": "ca.pem" } }), false),
            (
                &["accounts.internal"],
                json!({ "trust": { "file": "ca.pem" }, "server_name": "accounts.internal" }),
                true,
            ),
            (&["127.0.0.1"], json!({ "trust": { "file": "ca.pem" }, "server_name": "127.0.0.1" }), true),
            (&["127.0.0.2"], json!({ "trust": { "file": "ca.pem" }, "server_name": "127.0.0.1" }), false),
            // SRV-01: a wildcard stands for one whole label.
            (
                &["*.bank.internal"],
                json!({ "trust": { "file": "ca.pem" }, "server_name": "a.bank.internal" }),
                true,
            ),
            (
                &["*.bank.internal"],
                json!({ "trust": { "file": "ca.pem" }, "server_name": "a.b.bank.internal" }),
                false,
            ),
        ] {
            let Secure { server, files } = secure(names, false, &[]).await;
            let spec = json!({ "urls": server.url("https"), "tls": tls });
            let upstream = compile(&spec, &files).unwrap();
            let answer = exchange(&pools(), &upstream, get("/")).await;
            match answer {
                Ok(_) => assert!(fits, "{spec} {names:?}"),
                Err(error) => {
                    assert!(!fits, "{spec} {names:?} {error}");
                    assert_eq!(reason(error), Reason::UpstreamUnreachable);
                }
            }
        }
    });
}

/// A server over TLS that speaks bytes: these at once, those when told to. Then it goes without a farewell.
async fn secure_raw(first: &'static str, later: &'static str) -> (Arc<crate::Upstream>, Rc<Notify>) {
    let authority = Authority::new();
    let shake = Shake { issued: authority.issue(&["localhost"]), clients: None, alpn: &[] };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(shake.config()));
    let go = Rc::new(Notify::new());
    let gate = Rc::clone(&go);
    let server = Raw::start(move |peer| {
        let (acceptor, gate) = (acceptor.clone(), Rc::clone(&gate));
        async move {
            let mut stream = acceptor.accept(peer.stream).await.unwrap();
            let mut space = [0; 1024];
            while stream.read(&mut space).await.is_ok_and(|read| read > 0) {
                stream.write_all(first.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                if peer.number == 0 {
                    gate.notified().await;
                    stream.write_all(later.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    gate.notify_one();
                    return;
                }
            }
        }
    })
    .await;
    let mut files = Files::default();
    files.0.insert("ca.pem", authority.pem());
    let url = format!("https://localhost:{}", server.address.port());
    let upstream =
        compile(&json!({ "urls": url, "tls": { "trust": { "file": "ca.pem" } } }), &files).unwrap();
    (upstream, go)
}

/// Without the farewell anybody on the way could have cut it.
#[test]
fn answer_that_ends_with_its_tls_connection_must_be_ended_by_the_server() {
    on_a_worker(async {
        let (upstream, go) = secure_raw("HTTP/1.1 200 OK\r\n\r\nhalf of", " it").await;
        let answer = pools().send(&upstream, get("/"), WIDE).await.unwrap();
        go.notify_one();
        let error = answer.into_body().collect().await.unwrap_err();
        assert!(matches!(error, BodyError::Broken(_)), "{error}");
    });
}

#[test]
fn bytes_that_come_later_on_an_idle_tls_connection_end_it() {
    on_a_worker(async {
        let (upstream, go) = secure_raw(OK, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
        let pools = pools();
        exchange(&pools, &upstream, get("/first")).await.unwrap();
        assert_eq!(idle(&pools), 1);
        go.notify_one();
        let open = || pools.inner.known.borrow().values().any(|known| known.pool.endpoints[0].sweep());
        until(|| !open()).await;
        assert_eq!(exchange(&pools, &upstream, get("/second")).await, Ok((200, "hi".to_owned())));
    });
}

#[test]
fn connections_with_different_client_certificates_are_never_shared() {
    on_a_worker(async {
        let Secure { server, files } = secure(&["localhost"], true, &[]).await;
        let with = |name: &str| {
            let certificate = json!({ "certificate": { "file": format!("{name}.pem") }, "key": { "file": format!("{name}.key") } });
            let tls = json!({ "trust": { "file": "ca.pem" }, "client_certificate": certificate });
            compile(&json!({ "urls": server.url("https"), "tls": tls }), &files).unwrap()
        };
        let pools = pools();
        for upstream in [with("one"), with("two"), with("one"), with("two")] {
            assert_eq!(exchange(&pools, &upstream, get("/")).await, Ok((200, String::new())));
        }
        // Four compiled upstreams, two definitions: an equal one finds the connection of its like (PRX-07).
        let certificates = server.noticed.certificates.take();
        assert_eq!(certificates.len(), 2);
        assert_ne!(certificates[0], certificates[1]);

        let bare = json!({ "urls": server.url("https"), "tls": { "trust": { "file": "ca.pem" } } });
        let bare = compile(&bare, &files).unwrap();
        assert!(exchange(&pools, &bare, get("/")).await.is_err());
    });
}

#[test]
fn changed_definition_never_finds_the_old_connections() {
    on_a_worker(async {
        let server = Raw::saying(OK).await;
        let pools = pools();
        let old = upstream(json!({ "urls": server.url() }));
        exchange(&pools, &old, get("/")).await.unwrap();
        let slower = upstream(json!({ "urls": server.url(), "timeout": "9s" }));
        exchange(&pools, &slower, get("/")).await.unwrap();
        assert_eq!(server.connections.get(), 1, "timeouts are not part of what a connection is");
        let more = upstream(json!({ "urls": [server.url(), "http://127.0.0.1:1"] }));
        exchange(&pools, &more, get("/")).await.unwrap();
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn pools_of_forgotten_upstreams_go_when_their_connections_have_gone() {
    on_a_worker(async {
        let server = Raw::saying(OK).await;
        let pools: Pools<TestBody> =
            Pools::new(PoolSettings { max_idle: 9, idle_timeout: Duration::from_millis(30) });
        let old = upstream(json!({ "urls": server.url() }));
        exchange(&pools, &old, get("/")).await.unwrap();
        drop(old);
        let until_gone = async {
            while !pools.inner.known.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        until_gone.await;
    });
}

#[test]
fn protocol_is_what_the_file_and_the_handshake_say() {
    on_a_worker(async {
        for (alpn, http, spoken) in [
            (&["h2", "http/1.1"][..], json!("auto"), Some("HTTP/2.0")),
            (&["http/1.1"], json!("auto"), Some("HTTP/1.1")),
            (&[], json!("auto"), Some("HTTP/1.1")),
            (&["h2", "http/1.1"], json!(1), Some("HTTP/1.1")),
            (&["h2"], json!(2), Some("HTTP/2.0")),
            (&["http/1.1"], json!(2), None),
            (&[], json!(2), None),
        ] {
            let Secure { server, files } = secure(&["localhost"], false, alpn).await;
            let spec = json!({ "urls": server.url("https"), "http": http, "tls": { "trust": { "file": "ca.pem" } } });
            let upstream = compile(&spec, &files).unwrap();
            let answer = exchange(&pools(), &upstream, post("/pay?a=b", "hello")).await;
            match spoken {
                Some(version) => {
                    assert_eq!(answer, Ok((200, "hello".to_owned())), "{spec}");
                    let requests = server.noticed.requests.borrow();
                    assert_eq!(requests[0], format!("{version} POST /pay?a=b host=api.bank.example"));
                }
                None => assert_eq!(reason(answer.unwrap_err()), Reason::UpstreamUnreachable, "{spec}"),
            }
        }
    });
}

#[test]
fn http2_requests_share_one_connection_even_when_they_all_come_first() {
    on_a_worker(async {
        let Secure { server, files } = secure(&["localhost"], false, &["h2"]).await;
        let plain = Server::start(None, true).await;
        let tls = json!({ "trust": { "file": "ca.pem" } });
        for (spec, server) in [
            (json!({ "urls": server.url("https"), "tls": tls }), &server),
            (json!({ "urls": plain.url("http"), "http": 2 }), &plain),
        ] {
            let upstream = compile(&spec, &files).unwrap();
            let pools = pools();
            let requests: Vec<_> = (0..10)
                .map(|_| {
                    let (pools, upstream) = (pools.clone(), upstream.clone());
                    tokio::task::spawn_local(
                        async move { exchange(&pools, &upstream, post("/", "hello")).await },
                    )
                })
                .collect();
            for request in requests {
                assert_eq!(request.await.unwrap(), Ok((200, "hello".to_owned())));
            }
            assert_eq!(server.noticed.connections.get(), 1, "{spec}");
        }
    });
}

#[test]
fn http2_exchange_that_times_out_leaves_the_others_alone_and_new_ones_go_elsewhere() {
    on_a_worker(async {
        let server = Server::start(None, true).await;
        let spec = json!({ "urls": server.url("http"), "http": 2, "timeout": "30ms" });
        let quick = compile(&spec, &Files::default()).unwrap();
        let pools = pools();
        let error = exchange(&pools, &quick, get("/slow")).await.unwrap_err();
        assert_eq!(error, ForwardError::TimedOut(Duration::from_millis(30)));
        assert_eq!(exchange(&pools, &quick, post("/", "hello")).await, Ok((200, "hello".to_owned())));
        assert_eq!(server.noticed.connections.get(), 2);
    });
}

#[test]
fn te_trailers_reaches_an_http2_upstream_only() {
    on_a_worker(async {
        let (one, two) = (Server::start(None, false).await, Server::start(None, true).await);
        for (server, http, seen) in [(&one, 1, ""), (&two, 2, " te=trailers")] {
            let upstream = upstream(json!({ "urls": server.url("http"), "http": http }));
            let mut request = get("/");
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            exchange(&pools(), &upstream, request).await.unwrap();
            let line = server.noticed.requests.borrow()[0].clone();
            assert!(line.ends_with(&format!("host=api.bank.example{seen}")), "{line}");
        }
    });
}

#[test]
fn http2_connection_that_ends_is_replaced() {
    on_a_worker(async {
        let server = Server::start(None, true).await;
        let upstream = upstream(json!({ "urls": server.url("http"), "http": 2 }));
        let pools: Pools<TestBody> =
            Pools::new(PoolSettings { max_idle: 9, idle_timeout: Duration::from_millis(20) });
        exchange(&pools, &upstream, get("/")).await.unwrap();
        let open = || pools.inner.known.borrow().values().any(|known| known.pool.endpoints[0].sweep());
        until(|| !open()).await;
        exchange(&pools, &upstream, get("/")).await.unwrap();
        assert_eq!(server.noticed.connections.get(), 2);
    });
}
