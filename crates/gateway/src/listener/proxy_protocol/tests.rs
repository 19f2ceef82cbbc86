#[path = "../../../../../fuzz/bodies/proxy_header.rs"]
mod fuzzed;

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Announced, ProxyHeaderError, ProxyHeaderFailure, ProxyProtocol, proxy_header};

/// A binary header for a client at 192.0.2.7:4711, with these further values behind the addresses.
fn binary(command: u8, family: u8, values: &[u8]) -> Vec<u8> {
    let addresses: Vec<u8> = match family {
        0x21 => [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1], &[0x12, 0x67, 1, 0xbb]].concat(),
        0x00 => Vec::new(),
        _ => vec![192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb],
    };
    let length = u16::try_from(addresses.len() + values.len()).expect("short");
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length.to_be_bytes(), &addresses, values].concat()
}

fn client(address: &str) -> Announced {
    Announced::Client(address.parse().expect("an address"))
}

#[test]
fn both_versions_are_read_to_the_letter() {
    let noop = [4, 0, 2, 0, 0];
    for (bytes, announced) in [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), client("192.0.2.7:4711")),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), client("[2001:db8::7]:4711")),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
            client("255.255.255.255:65535"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Announced::Itself),
        (b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n".to_vec(), Announced::Itself),
        (binary(0x21, 0x11, &[]), client("192.0.2.7:4711")),
        (binary(0x21, 0x21, &[]), client("[2001:db8::7]:4711")),
        (binary(0x21, 0x11, &noop), client("192.0.2.7:4711")),
        // The TLV of a proxy that ended TLS, with a verdict and a name: of no meaning here.
        (
            binary(0x21, 0x11, &[0x20, 0, 11, 0x07, 0, 0, 0, 0, 0x22, 0, 3, b'a', b'b', b'c']),
            client("192.0.2.7:4711"),
        ),
        (binary(0x20, 0x00, &[]), Announced::Itself),
        (binary(0x20, 0x11, &[]), Announced::Itself),
        (binary(0x21, 0x00, &[1, 2, 3]), Announced::Itself),
    ] {
        let length = bytes.len();
        assert_eq!(proxy_header(&bytes), Ok(Some((announced, length))), "{}", bytes.escape_ascii());
        let followed = [&bytes[..], b"\x16\x03\x01GET / HTTP/1.1\r\n"].concat();
        assert_eq!(proxy_header(&followed), Ok(Some((announced, length))), "{}", bytes.escape_ascii());
        for end in 0..length {
            assert_eq!(proxy_header(&bytes[..end]), Ok(None), "{end} of {}", bytes.escape_ascii());
        }
    }
}

#[test]
fn nothing_is_repaired_or_guessed() {
    use ProxyHeaderError::{Binary, Checksum, Line, Missing, Transport};
    let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(107));
    let mut lied = binary(0x21, 0x11, &[]);
    lied[15] = 11;
    let mut huge = binary(0x21, 0x11, &[]);
    huge[14] = 0xff;
    for (bytes, error) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
        (b"\x16\x03\x01".to_vec(), Missing),
        (b"proxy TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Missing),
        (b" PROXY".to_vec(), Missing),
        (b"PROXY\tTCP4".to_vec(), Missing),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443 \r\n".to_vec(), Line),
        (b"PROXY TCP4  192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443 1\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.07 192.0.2.1 4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2 192.0.2.1 4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP6 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP6 fe80::1%eth0 2001:db8::1 4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 04711 443\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 +4711 443\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 65536\r\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 \xff 443\r\n".to_vec(), Line),
        (b"PROXY UNKNOWN\rx\r\n".to_vec(), Line),
        (long.into_bytes(), Line),
        (b"PROXY tcp4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Transport),
        (b"PROXY UNKNOWNX 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Transport),
        (b"PROXY UDP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Transport),
        (binary(0x22, 0x11, &[]), Binary),
        (binary(0x11, 0x11, &[]), Binary),
        (binary(0x21, 0x12, &[]), Transport),
        (binary(0x21, 0x31, &[]), Transport),
        (binary(0x21, 0x01, &[]), Transport),
        (lied, Binary),
        (huge, Binary),
        (binary(0x21, 0x11, &[4]), Binary),
        (binary(0x21, 0x11, &[4, 0, 2, 0]), Binary),
        (binary(0x21, 0x11, &[3, 0, 4, 0, 0, 0, 0]), Checksum),
        (binary(0x21, 0x11, &[3, 0, 3, 0, 0, 0]), Binary),
    ] {
        assert_eq!(proxy_header(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

/// The check value of the standard: CRC-32C of `123456789`; and a header that carries its own.
#[test]
fn a_checksum_that_fits_is_taken() {
    assert_eq!(super::parse::crc32c(b"123456789", 0..0), 0xe306_9283);
    let mut header = binary(0x21, 0x11, &[3, 0, 4, 0, 0, 0, 0]);
    let at = header.len() - 4;
    let sum = super::parse::crc32c(&header, at..at + 4);
    header[at..].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(proxy_header(&header), Ok(Some((client("192.0.2.7:4711"), header.len()))));
    let twice = [&header[..], &header[at - 3..]].concat();
    let mut twice = twice;
    twice[15] += 7;
    assert!(proxy_header(&twice).is_err());
}

async fn taken(pieces: &[&[u8]], from: &str) -> (Result<Option<SocketAddr>, ProxyHeaderFailure>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut sender =
        TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    sender.set_nodelay(true).expect("no delay");
    let (mut stream, peer) = listener.accept().await.expect("a connection");
    let settings =
        ProxyProtocol { from: vec![from.parse().expect("a range")], timeout: Duration::from_millis(300) };
    let sending = async {
        for piece in pieces {
            sender.write_all(piece).await.expect("written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (result, ()) = tokio::join!(settings.take(&mut stream, peer), sending);
    drop(sender);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the rest");
    (result, rest)
}

/// What follows the header is left for TLS or HTTP, however the pieces come.
#[tokio::test]
async fn the_header_is_taken_off_and_nothing_more() {
    let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";
    let there = Ok(Some("192.0.2.7:4711".parse().expect("an address")));
    let both = [&line[..], b"rest"].concat();
    assert_eq!(taken(&[&both], "127.0.0.0/8").await, (there, b"rest".to_vec()));
    assert_eq!(
        taken(&[&line[..7], &line[7..40], &both[40..]], "127.0.0.0/8").await,
        (there, b"rest".to_vec())
    );
    let padded = binary(0x21, 0x11, &[&[4, 4, 0][..], &[0; 1_024]].concat());
    let both = [&padded[..], b"rest"].concat();
    assert_eq!(taken(&[&both[..600], &both[600..]], "127.0.0.0/8").await, (there, b"rest".to_vec()));
    assert_eq!(taken(&[b"PROXY UNKNOWN\r\nrest"], "127.0.0.0/8").await, (Ok(None), b"rest".to_vec()));
    for (pieces, from, failure) in [
        (&both[..], "192.0.2.0/24", ProxyHeaderFailure::NotTheProxy),
        (&line[..9], "127.0.0.0/8", ProxyHeaderFailure::Timeout),
        (b"", "127.0.0.0/8", ProxyHeaderFailure::Timeout),
        (b"GET / HTTP/1.1\r\n\r\n", "127.0.0.0/8", ProxyHeaderFailure::Malformed),
    ] {
        assert_eq!(taken(&[pieces], from).await.0, Err(failure));
    }
}

#[test]
fn seeds_hold_what_the_fuzz_target_promises() {
    crate::seed_tests::replay("proxy_header", fuzzed::run);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_hold_what_the_fuzz_target_promises(
        start in prop_oneof![
            Just(b"PROXY TCP4 1.2.3.4 5.6.7.8 ".to_vec()), Just(b"PROXY ".to_vec()),
            Just(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec()), Just(b"\r\n\r\n\0\r\nQUIT\n".to_vec()), Just(Vec::new()),
        ].boxed(),
        rest in prop::collection::vec(any::<u8>(), 0..48),
        end in prop_oneof![Just(b"\r\n".to_vec()), Just(Vec::new())].boxed(),
    ) {
        fuzzed::run(&[start, rest, end].concat());
    }
}
