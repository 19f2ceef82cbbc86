use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy as _};

use super::reading::read;
use super::{FramingFault, HeadLimits, HeadReader, Reading};

#[path = "../../../../../fuzz/bodies/framing.rs"]
mod fuzzed;

const LIMITS: HeadLimits = HeadLimits { bytes: 8 << 10, fields: 10 };

/// Reads the bytes whole and one by one: both must come to the same.
#[track_caller]
fn check(bytes: &[u8], expected: Option<(u64, FramingFault)>) -> Reading {
    let whole = read(LIMITS, [bytes]);
    let apart = read(LIMITS, bytes.chunks(1));
    assert_eq!(whole.fault, expected, "{}", String::from_utf8_lossy(bytes));
    assert_eq!(apart.fault, expected, "byte by byte: {}", String::from_utf8_lossy(bytes));
    assert_eq!(whole.heads, apart.heads);
    whole
}

fn head(fields: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[track_caller]
fn check_field(field: &str, expected: FramingFault) {
    check(&head(&format!("{field}\r\n")), Some((1, expected)));
}

#[test]
fn good_requests_have_no_fault_and_end_where_they_should() {
    for good in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTPS://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:\t3 \r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000003\r\n\r\n\r\n\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\r\n\n\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\nExpires: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Bytes: \u{e9}\tb\r\n\r\n",
    ] {
        let twice = [good.as_bytes(), good.as_bytes()].concat();
        let reading = check(&twice, None);
        assert!(reading.whole && reading.heads.len() == 2, "{good}: {reading:?}");
        assert_eq!(reading.heads[1] - reading.heads[0], good.len(), "{good}");
    }
}

/// PRX-01.
#[test]
fn two_framings_are_a_fault_in_either_order() {
    for fields in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
    {
        check_field(fields, FramingFault::TwoFramings);
    }
    for fields in ["Content-Length: 3\r\nContent-Length: 3", "Content-Length: 3\r\nX: y\r\ncontent-length: 4"]
    {
        check_field(fields, FramingFault::ContentLengthRepeated);
    }
}

#[test]
fn a_length_that_is_not_digits_is_a_fault() {
    for value in ["", "+3", "-3", "3,3", "3 3", "0x3", "3.0", "3;", "1234567890123456789", "\u{b2}", "3\u{b}"]
    {
        let expected = if value.ends_with('\u{b}') {
            FramingFault::FieldValue
        } else {
            FramingFault::ContentLengthInvalid
        };
        check_field(&format!("Content-Length: {value}"), expected);
    }
}

#[test]
fn every_coding_but_chunked_is_a_fault() {
    for value in [
        "",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "chunked,chunked",
        "chunked;q=1",
        "xchunked",
        "\"chunked\"",
    ] {
        check_field(&format!("Transfer-Encoding: {value}"), FramingFault::TransferCoding);
    }
    check_field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", FramingFault::TransferCoding);
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(old, Some((1, FramingFault::TransferCodingInOldVersion)));
}

#[test]
fn malformed_fields_are_faults() {
    for (field, expected) in [
        (" X: y", FramingFault::FoldedField),
        ("X: y\r\n\tfolded", FramingFault::FoldedField),
        ("X : y", FramingFault::FieldName),
        (": y", FramingFault::FieldName),
        ("X", FramingFault::FieldName),
        ("X(): y", FramingFault::FieldName),
        ("X\u{e9}: y", FramingFault::FieldName),
        ("X\0: y", FramingFault::FieldName),
        ("X: y\0", FramingFault::FieldValue),
        ("X: \u{7f}", FramingFault::FieldValue),
        ("X: y\rZ: y", FramingFault::BareCarriageReturn),
        ("X: y\nTransfer-Encoding: chunked", FramingFault::BareLineFeed),
        ("Transfer_Encoding: chunked", FramingFault::FieldNameDisguised),
        ("Transfer--Encoding: chunked", FramingFault::FieldNameDisguised),
        ("_content.length: 3", FramingFault::FieldNameDisguised),
    ] {
        check_field(field, expected);
    }
}

#[test]
fn malformed_request_lines_are_faults() {
    for (line, expected) in [
        ("", FramingFault::EmptyLines),
        ("GET /", FramingFault::RequestLine),
        ("GET", FramingFault::RequestLine),
        (" GET / HTTP/1.1", FramingFault::RequestLine),
        ("GET  / HTTP/1.1", FramingFault::Target),
        ("GET /  HTTP/1.1", FramingFault::Target),
        ("GET / HTTP/1.1 ", FramingFault::Version),
        ("GET\t/\tHTTP/1.1", FramingFault::RequestLine),
        ("G(T / HTTP/1.1", FramingFault::RequestLine),
        ("GET / HTTP/1.2", FramingFault::Version),
        ("GET / HTTP/2.0", FramingFault::Version),
        ("GET / http/1.1", FramingFault::Version),
        ("GET / a HTTP/1.1", FramingFault::Target),
        ("GET /a#b HTTP/1.1", FramingFault::Target),
        ("GET /\u{e9} HTTP/1.1", FramingFault::Target),
        ("GET /\0 HTTP/1.1", FramingFault::Target),
        ("GET a HTTP/1.1", FramingFault::Target),
        ("GET * HTTP/1.1", FramingFault::Target),
        ("GET ftp://a/ HTTP/1.1", FramingFault::Target),
        ("CONNECT /a HTTP/1.1", FramingFault::Target),
        ("GET /\r HTTP/1.1", FramingFault::BareCarriageReturn),
    ] {
        check(format!("\r\n{line}\r\nHost: a\r\n\r\n").as_bytes(), Some((1, expected)));
    }
    check(b"\nGET / HTTP/1.1\r\n\r\n", Some((1, FramingFault::BareLineFeed)));
}

#[test]
fn get_and_head_have_no_body() {
    for method in ["GET", "HEAD"] {
        for field in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            check(request.as_bytes(), Some((1, FramingFault::BodyWithoutMeaning)));
        }
    }
}

/// What stands before the line at fault was handed on; nothing behind it ever is.
#[test]
fn a_broken_body_reaches_nobody_from_the_faulty_line_on() {
    let before = head("Transfer-Encoding: chunked\r\n");
    for (body, good, expected) in [
        ("5\nhello\r\n0\r\n\r\n", "", FramingFault::BareLineFeed),
        ("5 \r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkSize),
        (" 5\r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkSize),
        ("0x5\r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkSize),
        ("\r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkSize),
        ("-1\r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkSize),
        ("ffffffffffffffff\r\nhello", "", FramingFault::ChunkSize),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkExtension),
        ("5;a\0\r\nhello\r\n0\r\n\r\n", "", FramingFault::ChunkExtension),
        ("5\r\nhelloX\r\n0\r\n\r\n", "hello", FramingFault::ChunkEnd),
        ("5\r\nhello\n0\r\n\r\n", "hello", FramingFault::BareLineFeed),
        ("5\r\nhello0\r\n\r\n", "hello", FramingFault::ChunkEnd),
        ("0\r\nX y\r\n\r\n", "", FramingFault::Trailer),
        ("0\r\nContent-Length: 5\r\n\r\n", "", FramingFault::Trailer),
        ("0\r\nHost: b\r\n\r\n", "", FramingFault::Trailer),
        ("0\r\nA: b\n\r\n", "", FramingFault::BareLineFeed),
        ("0\r\n\nGET / HTTP/1.1\r\n\r\n", "", FramingFault::BareLineFeed),
    ] {
        let bytes = [before.as_slice(), body.as_bytes()].concat();
        assert_eq!(check(&bytes, Some((1, expected))).bodies, [good.as_bytes()], "{body:?}");
    }
}

#[test]
fn a_fault_names_its_request_and_stands_for_all_that_follow() {
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    let bad = b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    check(&[good, good, bad, good].concat(), Some((3, FramingFault::Target)));
}

#[test]
fn heads_and_lines_without_end_are_bounded() {
    let many = head(&"X: y\r\n".repeat(10));
    check(&many, Some((1, FramingFault::TooManyFields)));
    let long = head(&format!("X: {}\r\n", "y".repeat(8 << 10)));
    check(&long, Some((1, FramingFault::HeadTooLarge)));
    let endless = format!("GET /{}", "y".repeat(9 << 10));
    check(endless.as_bytes(), Some((1, FramingFault::HeadTooLarge)));
    let size = [head("Transfer-Encoding: chunked\r\n"), "0".repeat(300).into_bytes()].concat();
    check(&size, Some((1, FramingFault::ChunkSize)));
    let trailers =
        [head("Transfer-Encoding: chunked\r\n"), b"0\r\n".to_vec(), "A: b\r\n".repeat(11).into_bytes()];
    check(&trailers.concat(), Some((1, FramingFault::Trailer)));
}

/// What cannot become HTTP is not waited for.
#[test]
fn an_unfinished_line_that_is_hopeless_is_a_fault_at_once() {
    for (bytes, expected) in [
        (&b"\x16\x03\x01\x02\x00"[..], FramingFault::RequestLine),
        (b" GET", FramingFault::RequestLine),
        (b"GET\t", FramingFault::RequestLine),
    ] {
        assert_eq!(read(LIMITS, [bytes]).fault, Some((1, expected)), "{bytes:?}");
    }
    for bytes in [&b""[..], b"\r", b"G", b"GET ", b"GET /x HTTP/1.1\r"] {
        assert_eq!(read(LIMITS, [bytes]).fault, None, "{bytes:?}");
    }
}

/// What the stages see is what was judged.
#[test]
fn a_head_is_mapped_to_its_bytes() {
    let bytes = b"\r\nPOST /a?b HTTP/1.0\r\nHost:a\r\nX:\t y  z \r\nEmpty: \t \r\n\r\nnext";
    let mut reader = HeadReader::new(LIMITS);
    assert!(reader.read(bytes).expect("no fault").is_some());
    let map = reader.map();
    let text = |range: &std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range.clone()]).into_owned();
    assert_eq!((text(&map.method), text(&map.target), map.old_version), ("POST".into(), "/a?b".into(), true));
    let fields: Vec<_> = map.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
    let expected = [("Host", "a"), ("X", "y  z"), ("Empty", "")];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(&bytes[map.length..], b"next");
}

/// The seeds of the fuzz target, and the corpus, through the very code that the fuzzer runs.
#[test]
fn another_parser_reads_the_seeds_alike() {
    crate::seed_tests::replay("framing", fuzzed::run);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However the bytes arrive, the stream is the same.
    #[test]
    fn pieces_do_not_change_what_is_seen(
        parts in prop::collection::vec(
            prop_oneof![
                Just(b"POST / HTTP/1.1\r\n".to_vec()), Just(b"Content-Length: 5\r\n".to_vec()),
                Just(b"Transfer-Encoding: chunked\r\n".to_vec()), Just(b"Host: a\r\n".to_vec()),
                Just(b"\r\n".to_vec()), Just(b"5\r\nhello\r\n".to_vec()), Just(b"0\r\n".to_vec()),
                Just(b"hello".to_vec()), Just(b"\n".to_vec()), prop::collection::vec(any::<u8>(), 0..4),
            ].boxed(),
            0..24,
        ),
        cuts in prop::collection::vec(1_usize..40, 1..24),
    ) {
        let bytes = parts.concat();
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        let (whole, apart) = (read(LIMITS, [bytes.as_slice()]), read(LIMITS, pieces));
        prop_assert_eq!(whole.fault.map(|(request, _)| request), apart.fault.map(|(request, _)| request));
        prop_assert_eq!(&whole.heads, &apart.heads);
        if whole.fault.is_none() {
            prop_assert_eq!(whole, apart);
        }
    }

    /// Where there is no fault, another parser finds the same heads in the same places.
    #[test]
    fn another_parser_reads_alike(
        parts in prop::collection::vec(
            prop_oneof![
                3 => Just(b"POST /a HTTP/1.1\r\nHost: a\r\n".to_vec()), 2 => Just(b"Content-Length: 5\r\n".to_vec()),
                2 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()), 3 => Just(b"\r\n".to_vec()),
                2 => Just(b"5\r\nhello\r\n".to_vec()), 2 => Just(b"0\r\n\r\n".to_vec()),
                2 => Just(b"hello".to_vec()), 1 => Just(b"\n".to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..4),
            ].boxed(),
            0..24,
        ),
    ) {
        fuzzed::run(&parts.concat());
    }
}
