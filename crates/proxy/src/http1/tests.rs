use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use proptest::collection::vec as of;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{AnswerRead, Connection, Fault, read_answer};
use crate::ForwardError;
use crate::outgoing::Outgoing;
use crate::pool::deadline::{Deadlines, Remedy};
use crate::rig::{Raw, WIDE, get, on_a_worker, upstream};
use crate::transport::Transport;

#[path = "../../../../fuzz/bodies/upstream_answer.rs"]
mod fuzzed;
#[path = "../../../../fuzz/replay.rs"]
mod replay;

/// What is read of an answer to `GET`, the same in whatever pieces it comes.
fn read(bytes: &str) -> AnswerRead {
    let whole = read_answer(bytes.as_bytes(), bytes.len(), false);
    let trickled = read_answer(bytes.as_bytes(), 1, false);
    assert_eq!((&whole, whole.fault), (&trickled, trickled.fault), "{bytes:?}");
    whole
}

#[test]
fn what_can_be_read_in_two_ways_is_not_read() {
    let many: String = (0..101).map(|number| format!("a{number}: b\r\n")).collect();
    let large = format!("a: {}\r\n", "b".repeat(64 * 1024));
    for (head, fault) in [
        ("SSH-2.0-OpenSSH_9.7\r\n", Fault::NotHttp),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Fault::NotHttp),
        ("http/1.1 200 OK\r\n\r\n", Fault::NotHttp),
        ("HTTP/2 200\r\n\r\n", Fault::NotHttp),
        ("HTTP/1.2 200 OK\r\n\r\n", Fault::Head),
        ("HTTP/1.1 20 OK\r\n\r\n", Fault::Head),
        ("HTTP/1.1 2000 OK\r\n\r\n", Fault::Head),
        ("HTTP/1.1  200 OK\r\n\r\n", Fault::Head),
        ("HTTP/1.1\t200 OK\r\n\r\n", Fault::Head),
        ("HTTP/1.1 099 OK\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 O\x01K\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\n a: b\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na: b\r\n\tc\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na : b\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na: b\r\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\n\n", Fault::BareLineFeed),
        ("HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n", Fault::BareLineFeed),
        ("HTTP/1.1 200 OK\r\na: b\r\n\n", Fault::BareLineFeed),
        (&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Fault::TooManyFields),
        (&format!("HTTP/1.1 200 OK\r\n{large}\r\n"), Fault::TooLarge),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n", Fault::TwoLengths),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", Fault::TwoLengths),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", Fault::TwoLengths),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            Fault::TwoLengths,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", Fault::Length),
        ("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\n", Fault::Length),
        ("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n", Fault::Length),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\n", Fault::Length),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\n", Fault::Length),
        ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551618\r\n\r\n", Fault::Length),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", Fault::Coding),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Fault::Coding),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n", Fault::Coding),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked;q=1\r\n\r\n", Fault::Coding),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: \x0bchunked\r\n\r\n", Fault::Head),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n", Fault::Coding),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Fault::Coding),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
            Fault::TwoLengths,
        ),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Fault::BodyWhereNoneMayBe),
        ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", Fault::BodyWhereNoneMayBe),
        ("HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\n", Fault::BodyWhereNoneMayBe),
        ("HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n", Fault::BodyWhereNoneMayBe),
        ("HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n", Fault::BodyWhereNoneMayBe),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", Fault::Switched),
        (&"HTTP/1.1 102 Processing\r\n\r\n".repeat(33), Fault::TooManyInterim),
    ] {
        for behind in ["", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
            let read = read(&format!("{head}{behind}"));
            assert_eq!((read.fault, read.keeps), (Some(fault), false), "{head:?}");
        }
    }
}

#[test]
fn chunks_are_read_strictly() {
    let long = format!("2;{}\r\nhi\r\n", "x".repeat(400));
    for (body, fault) in [
        ("\r\n", Fault::ChunkSize),
        (";x\r\nhi", Fault::ChunkSize),
        (" 2\r\nhi\r\n", Fault::ChunkSize),
        ("2 \r\nhi\r\n", Fault::ChunkSize),
        ("2\t;x\r\nhi\r\n", Fault::ChunkSize),
        ("+2\r\nhi\r\n", Fault::ChunkSize),
        ("0x2\r\nhi\r\n", Fault::ChunkSize),
        ("-0\r\n\r\n", Fault::ChunkSize),
        ("zz\r\n", Fault::ChunkSize),
        ("ffffffffffffffff\r\nhi", Fault::ChunkSize),
        ("0000000000000002\r\nhi", Fault::ChunkSize),
        ("2;a\rb\r\nhi\r\n", Fault::ChunkSize),
        ("2;a\x01\r\nhi\r\n", Fault::ChunkSize),
        (&long, Fault::ChunkSize),
        ("2\nhi\r\n", Fault::BareLineFeed),
        ("2;x\nhi\r\n", Fault::BareLineFeed),
        ("2\r\nhi\n0\r\n\r\n", Fault::ChunkEnd),
        ("2\r\nhi!\r\n", Fault::ChunkEnd),
        ("2\r\nhi\r!", Fault::ChunkEnd),
        ("0\r\na: b\n\r\n", Fault::BareLineFeed),
        ("0\r\na: b\r\n c\r\n\r\n", Fault::Head),
        ("0\r\na b\r\n\r\n", Fault::Head),
        ("0\r\nHTTP/1.1 200 OK\r\n\r\n", Fault::Head),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let read = read(&answer);
        assert_eq!((read.fault, read.complete, read.keeps), (Some(fault), false, false), "{body:?}");
    }
    let endless =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}", "a: b\r\n".repeat(4096));
    assert!(matches!(read(&endless).fault, Some(Fault::TooManyFields | Fault::TooLarge)));
}

#[test]
fn answers_end_where_the_standard_says() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for (answer, body, complete, keeps) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", true, true),
        ("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", "hi", true, true),
        ("HTTP/1.1 200 \r\ncontent-length: 002\r\n\r\nhi", "hi", true, true),
        ("HTTP/1.1 200 gr\u{fc}n\r\ncontent-length:2\r\n\r\nhi", "hi", true, true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", "hi", false, false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", true, true),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", true, false),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end", true, false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", true, false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: Keep-Alive\r\n\r\nhi", "hi", true, true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x, Close\r\n\r\nhi", "hi", true, false),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, close\r\n\r\nhi",
            "hi",
            true,
            false,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true, true),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", "", true, true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", "", true, true),
        ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", "", true, true),
        ("HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", "", true, true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi", true, true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n01;x=\"y\"\r\ni\r\n000\r\n\r\n",
            "hi",
            true,
            true,
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", "hi", false, false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi", "hi", false, false),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n",
            "hi",
            true,
            true,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nlink: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "",
            true,
            true,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", "", false, false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", "", false, false),
    ] {
        let told = read(answer);
        assert_eq!(told.fault, None, "{answer:?}");
        assert_eq!(
            (told.body.as_slice(), told.complete, told.keeps),
            (body.as_bytes(), complete, keeps),
            "{answer:?}"
        );
        if complete && !body.starts_with("until") {
            let more = read(&format!("{answer}{EVIL}"));
            assert_eq!((more.body, more.left_over, more.keeps), (told.body, EVIL.len(), false), "{answer:?}");
        }
    }
}

#[test]
fn answers_to_head_have_no_body_whatever_they_say() {
    for framing in ["content-length: 7", "transfer-encoding: chunked", "x: y"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        let told = read_answer(answer.as_bytes(), 1, true);
        assert!(told.complete && told.keeps && told.body.is_empty(), "{told:?}");
        let evil = read_answer(format!("{answer}evil!!!").as_bytes(), 64, true);
        assert!(!evil.keeps && evil.body.is_empty() && evil.left_over == 7, "{evil:?}");
    }
}

/// The connection took nothing of the request, and yet there is an answer on it.
#[test]
fn answer_to_a_request_that_never_went_out_is_no_answer() {
    on_a_worker(async {
        let server = Raw::start(|mut peer| async move {
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
            peer.closed().await;
        })
        .await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.readable().await.unwrap();
        stream.shutdown().await.unwrap();
        let mut connection = Connection::new(Transport::Plain(stream));
        let upstream = upstream(json!({ "urls": server.url() }));
        let (head, body) = get("/").into_parts();
        let request = Request::from_parts(head, Outgoing::new(body, WIDE).unwrap());
        connection.begin(request, &upstream.definition().endpoints[0]).unwrap();
        let watch = Rc::<Deadlines>::default().watch(Remedy::WakeWaiter(RefCell::default()));
        let error = std::future::poll_fn(|cx| connection.poll_head(cx, &watch)).await.unwrap_err();
        assert_eq!(error, ForwardError::Malformed(Fault::Unasked.to_string()));
    });
}

#[test]
fn seeds_of_the_fuzz_target_hold_what_it_promises() {
    replay::replay("upstream_answer", fuzzed::run);
}

/// Parts from which answers are made: most are whole, and some are what an attacker would put in between.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    let part = select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 304 Not Modified\r\n",
        "content-length: 2\r\n",
        "Content-Length: 3\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "connection: close\r\n",
        "a: b\r\n",
        "\r\n",
        "\n",
        "\r",
        "2\r\nhi\r\n",
        "1;x\r\nh\r\n",
        "3\r\n",
        "0\r\n",
        "hi",
        " ",
    ]);
    of(
        prop_oneof![9 => part.prop_map(|part: &str| part.as_bytes().to_vec()), 1 => of(any::<u8>(), 0..4)],
        0..14,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn parts_in_any_order_hold_what_the_fuzz_target_promises(bytes in parts()) {
        fuzzed::run(&bytes);
    }

    #[test]
    fn well_formed_answers_are_read_as_hyper_reads_them(
        answer in well_formed(),
        piece in 1_usize..200,
    ) {
        let ours = read_answer(&answer, piece, false);
        assert_eq!(ours.fault, None);
        assert!(ours.complete);
        let theirs = by_hyper(answer);
        assert_eq!((ours.head, ours.body, ours.trailers), theirs);
    }
}

/// Answers as good servers make them.
fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let name = "[a-zA-Z!#$%&'*+.^_`|~-][a-zA-Z0-9!#$%&'*+.^_`|~-]{0,9}-x";
    let value = prop_oneof!["[ -~\t]{0,20}", Just("gr\u{fc}n".to_owned()), Just(String::new())];
    let fields = of((name, value), 0..6);
    let body = of(of(any::<u8>(), 1..40), 0..5);
    (fields.clone(), body, 0..4_u8, fields, any::<bool>()).prop_map(
        |(fields, body, kind, trailers, hints)| {
            let mut answer = Vec::new();
            if hints {
                answer.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            }
            let lines = |fields: &[(String, String)]| -> String {
                fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
            };
            let version = if kind == 3 { "1.0" } else { "1.1" };
            answer.extend(format!("HTTP/{version} 200 OK\r\n{}", lines(&fields)).bytes());
            let whole = body.concat();
            match kind {
                0 => {
                    answer.extend(format!("Content-Length: {}\r\n\r\n", whole.len()).bytes());
                    answer.extend(whole);
                }
                1 => {
                    answer.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in body {
                        answer.extend(format!("{:X};name=value\r\n", chunk.len()).bytes());
                        answer.extend(chunk);
                        answer.extend(b"\r\n");
                    }
                    answer.extend(format!("0\r\n{}\r\n", lines(&trailers)).bytes());
                }
                _ => {
                    answer.extend(b"\r\n");
                    answer.extend(whole);
                }
            }
            answer
        },
    )
}

type Reading = (Option<(StatusCode, HeaderMap)>, Vec<u8>, Option<HeaderMap>);

/// What hyper makes of an answer.
fn by_hyper(answer: Vec<u8>) -> Reading {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (here, mut there) = tokio::io::duplex(1 << 16);
        let (mut sender, connection) = Builder::new().handshake(TokioIo::new(here)).await.unwrap();
        let running = tokio::spawn(connection);
        let server = tokio::spawn(async move {
            let mut space = [0; 1024];
            assert!(there.read(&mut space).await.unwrap() > 0);
            there.write_all(&answer).await.unwrap();
        });
        let request = Request::get("/").header("host", "h").body(Empty::<Bytes>::new()).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        server.await.unwrap();
        drop((sender, running));
        (Some((head.status, head.headers)), body.to_bytes().to_vec(), trailers)
    })
}
