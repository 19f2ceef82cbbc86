//! The decoder on its own: what each product writes, and what nobody should.

#[path = "../../../../../fuzz/bodies/certificate_header.rs"]
mod fuzzed;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

use super::decode::{self, DecodeError};
use super::format::{Format, Placement, ReadError, Told};
use super::xfcc;

/// Bytes that look like DER from outside, and whose base64 holds `+`, `/` and padding.
fn der() -> Vec<u8> {
    let body: Vec<u8> = (0..=255).chain([0xfb, 0xef, 0xbe, 0xff, 0xfe]).collect();
    [&[0x30, 0x82, 0x01, 0x05][..], &body].concat()
}

fn lines(der: &[u8], end: &str) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----{end}{}{end}-----END CERTIFICATE-----{end}", lines.join(end))
}

/// As nginx's `$ssl_client_escaped_cert`: everything but unreserved characters.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// As an AWS load balancer: `+`, `=` and `/` stay bare.
fn escaped_by_alb(text: &str) -> String {
    escaped(text).replace("%2B", "+").replace("%3D", "=").replace("%2F", "/")
}

fn read(format: Format, text: &[u8]) -> Result<Told, ReadError> {
    let placement = Placement { format, header: HeaderName::from_static("x-cert"), chain: None };
    let mut headers = HeaderMap::new();
    headers.insert("x-cert", HeaderValue::from_bytes(text).expect("a value"));
    match placement.find(&headers)? {
        Some(found) => placement.read(&found),
        None => Ok(Told::Nothing),
    }
}

/// FWD-04, FWD-10, WS-02, WS-03, traps 2 and 5.
#[test]
fn every_way_of_writing_a_certificate_is_read() {
    let der = der();
    let base64 = STANDARD.encode(&der);
    assert!(base64.contains('+') && base64.contains('/') && base64.ends_with('='), "{base64}");
    let pem = lines(&der, "\n");
    let forms = [
        (Format::Rfc9440, format!(":{base64}:")),
        (Format::Rfc9440, format!("  :{}: ", STANDARD_NO_PAD.encode(&der))),
        (Format::PemUrlEncoded, escaped(&pem)),
        (Format::PemUrlEncoded, escaped_by_alb(&pem)),
        (Format::PemUrlEncoded, escaped(&lines(&der, "\r\n"))),
        (Format::Pem, lines(&der, " ")),
        (Format::Pem, lines(&der, "\t")),
        (Format::Pem, lines(&der, "")),
        (Format::Pem, lines(&der, "\\n")),
        (Format::Pem, lines(&der, "\\r\\n")),
        (Format::Base64Der, base64.clone()),
        (Format::Base64Der, STANDARD_NO_PAD.encode(&der)),
        (Format::Traefik, escaped(&base64)),
        (Format::Wso2, base64.clone()),
        (Format::Wso2, escaped(&base64)),
        (Format::Wso2, lines(&der, "")),
        (Format::Wso2, lines(&der, " ")),
        (Format::Wso2, lines(&der, "\\r\\n")),
        (Format::Wso2, escaped(&pem)),
        (Format::Wso2, escaped(&pem).replace("%20", "+")),
        (Format::Wso2, escaped(&lines(&der, ""))),
        (Format::Xfcc, format!("By=spiffe://gw;Cert=\"{}\";Subject=\"CN=a\"", escaped(&pem))),
        (Format::Xfcc, format!("hash=;cERT=\"{}\"", escaped(&pem))),
    ];
    for (format, text) in forms {
        assert_eq!(read(format, text.as_bytes()), Ok(Told::Chain(vec![der.clone()])), "{format:?}: {text}");
    }
    for (format, text) in [
        (Format::Rfc9440, "::"),
        (Format::Rfc9440, ""),
        (Format::Pem, "(null)"),
        (Format::Base64Der, " "),
        (Format::PemUrlEncoded, ""),
        (Format::Xfcc, ""),
    ] {
        assert_eq!(read(format, text.as_bytes()), Ok(Told::Nothing), "{format:?}: {text}");
    }
}

/// FWD-10, FWD-11: what is broken is said to be broken, whatever its bytes.
#[test]
fn what_is_no_certificate_is_said_to_be_none() {
    let der = der();
    let base64 = STANDARD.encode(&der);
    let pem = lines(&der, "\n");
    let cut = |text: &str, by: usize| text[..text.len() - by].to_owned();
    let many = lines(&der, "").repeat(decode::MOST + 1);
    let no_crlf = lines(&der, "");
    for (format, text, why) in [
        (Format::Rfc9440, base64.clone(), DecodeError::ByteSequence),
        (Format::Rfc9440, format!(":{}:", URL_SAFE.encode(&der)), DecodeError::ByteSequence),
        (Format::Rfc9440, format!(":{base64}:;a=1"), DecodeError::ByteSequence),
        (Format::Rfc9440, format!(":{base64}:, :{base64}:"), DecodeError::ByteSequence),
        (Format::Rfc9440, format!(":{} {}:", &base64[..4], &base64[4..]), DecodeError::ByteSequence),
        (Format::PemUrlEncoded, cut(&escaped(&pem), 6), DecodeError::Pem),
        (Format::PemUrlEncoded, escaped(&pem).replace("%0A", "%0"), DecodeError::Percent),
        (Format::PemUrlEncoded, escaped(&pem).replace("%0A", "%zz"), DecodeError::Percent),
        (Format::PemUrlEncoded, format!("{}%", escaped(&pem)), DecodeError::Percent),
        (Format::PemUrlEncoded, base64.clone(), DecodeError::Pem),
        // A form decoder on the way has made blanks of the pluses: the base64 is short, never silently another.
        (Format::PemUrlEncoded, escaped(&pem).replace("%2B", "%20"), DecodeError::Base64),
        (Format::Pem, no_crlf.replace('+', "-"), DecodeError::Base64),
        (Format::Pem, format!("subject=CN=a {no_crlf}"), DecodeError::Pem),
        (Format::Pem, format!("{no_crlf} junk"), DecodeError::Pem),
        (Format::Pem, no_crlf.replace("END", "BEGIN"), DecodeError::Pem),
        (Format::Pem, no_crlf.replace("CERTIFICATE", "PRIVATE KEY"), DecodeError::Pem),
        (Format::Pem, "-----BEGIN CERTIFICATE----------END CERTIFICATE-----".to_owned(), DecodeError::Base64),
        (Format::Pem, many, DecodeError::TooMany),
        (Format::Base64Der, format!("{base64}!"), DecodeError::Base64),
        (Format::Base64Der, format!("{base64}===="), DecodeError::Base64),
        (Format::Base64Der, "a".to_owned(), DecodeError::Base64),
        (Format::Traefik, format!("{base64},,{base64}"), DecodeError::Base64),
        (Format::Traefik, vec![base64; decode::MOST + 1].join(","), DecodeError::TooMany),
        (Format::Wso2, "%".to_owned(), DecodeError::Percent),
    ] {
        let name = HeaderName::from_static("x-cert");
        assert_eq!(
            read(format, text.as_bytes()),
            Err(ReadError::Undecodable(name, why)),
            "{format:?}: {text}"
        );
    }
    for format in [
        Format::Rfc9440,
        Format::Xfcc,
        Format::PemUrlEncoded,
        Format::Pem,
        Format::Base64Der,
        Format::Traefik,
        Format::Wso2,
    ] {
        for bytes in [&b"\xff\xfe"[..], b"\x80", b"-----BEGIN \xc3\xb6", b"%ff%fe", b":\xff:"] {
            assert!(read(format, bytes).is_err(), "{format:?}: {}", bytes.escape_ascii());
        }
    }
}

/// FWD-03, and RFC 9440 section 2.3.
#[test]
fn a_header_is_there_once_and_a_chain_never_alone() {
    let (header, chain) =
        (HeaderName::from_static("client-cert"), HeaderName::from_static("client-cert-chain"));
    let placement = Placement { format: Format::Rfc9440, header: header.clone(), chain: Some(chain.clone()) };
    let value = |der: &[u8]| HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).expect("a value");
    let (leaf, one, two) = (der(), vec![0x30, 1, 1], vec![0x30, 1, 2]);
    let mut headers = HeaderMap::new();
    headers.append(&chain, value(&one));
    assert_eq!(placement.find(&headers).err(), Some(ReadError::ChainAlone(chain.clone(), header.clone())));
    headers.append(&header, value(&leaf));
    headers.append(&chain, value(&two));
    let found = placement.find(&headers).expect("readable").expect("a certificate");
    assert_eq!(placement.read(&found), Ok(Told::Chain(vec![leaf.clone(), one, two])));
    headers.append(&header, value(&leaf));
    assert_eq!(placement.find(&headers).err(), Some(ReadError::Repeated(header)));
}

/// HAProxy's `ssl_c_chain_der`.
#[test]
fn der_values_in_a_row_are_told_apart() {
    let (one, two) = (der(), vec![0x30, 0x03, 2, 1, 7]);
    let long = [&[0x30, 0x83, 0x01, 0x00, 0x00][..], &vec![7; 65_536]].concat();
    let medium = [&[0x30, 0x81, 0x80][..], &[7; 128]].concat();
    let all = [one, two.clone(), long, medium];
    assert_eq!(decode::der_sequence(&all.concat()), Ok(all.to_vec()));
    for broken in [
        &b"\x30"[..],
        b"\x31\x00",
        b"\x30\x02\x01",
        b"\x30\x80\x00\x00",
        b"\x30\x81\x7f",
        b"\x30\x82\x00\x80",
        b"\x30\x84\x00\x00\x00\x01\x00",
    ] {
        assert_eq!(decode::der_sequence(broken), Err(DecodeError::Der), "{}", broken.escape_ascii());
    }
    assert_eq!(decode::der_sequence(&two.repeat(decode::MOST + 1)), Err(DecodeError::TooMany));
}

/// Trap 4: the nearest proxy's element counts, and inside quotes only `\"` is an escape.
#[test]
fn the_last_element_of_xfcc_counts() {
    let (good, evil) = ("ab".repeat(32), "cd".repeat(32));
    let hash =
        |text: &str| xfcc::last(text.as_bytes()).map(|element| element.hash.map(|hash| hash.into_owned()));
    let said = Ok(Some(good.clone().into_bytes()));
    for text in [
        format!("Hash={good}"),
        format!("By=x;Hash={good};Subject=\"CN=a\""),
        format!("Hash={evil},Hash={good}"),
        format!("Hash={evil};Subject=\"CN=x,O=y\" , Hash={good}").replace(" ,", ","),
        format!(
            "Hash={evil},By=http://front;Hash={good};Subject=\"O=Acme Bank\\, PJSC \\+ S\\C3\\B6hne\";URI=spiffe://a"
        ),
        format!("Hash={evil},Hash=\"{good}\";DNS=a;DNS=b"),
        format!("Subject=\"a\\\"b,Hash={evil}\";Hash={good}"),
    ] {
        assert_eq!(hash(&text), said, "{text}");
    }
    for text in [
        // A caller leaves a quote open, to swallow the proxy's own element.
        format!("By=x;Subject=\",Hash={good}"),
        format!("By=x;Subject=\",By=y;Hash={good};Subject=\"CN=a\""),
        format!("By=x;Subject=\",By=y;Hash={good};Subject=\"\";URI=a"),
        format!("By=\"x\"y,Hash={good}"),
        format!("By=x\"y,Hash={good}"),
        format!("Hash={good};Hash={evil}"),
        format!("Hash={good};"),
        format!("Hash={good},"),
        format!(",Hash={good}"),
        "=".to_owned(),
        "Hash".to_owned(),
        format!("Hash:{good}"),
    ] {
        assert_eq!(xfcc::last(text.as_bytes()), Err(DecodeError::Xfcc), "{text}");
    }
}

/// What XFCC says twice must agree; a fingerprint is SHA-256 in hex and nothing else (trap 7).
#[test]
fn xfcc_must_agree_with_itself() {
    let (der, other) = (der(), vec![0x30, 1, 1]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let hash = hex(&portcullis_authn::thumbprint(&der));
    let (cert, strange) = (escaped(&lines(&der, "\n")), escaped(&lines(&other, "\n")));
    let told = |text: String| read(Format::Xfcc, text.as_bytes());
    assert_eq!(told(format!("Hash={hash};Cert=\"{cert}\"")), Ok(Told::Chain(vec![der.clone()])));
    assert_eq!(
        told(format!("Hash={hash};Cert=\"{cert}\";Chain=\"{cert}{strange}\"")),
        Ok(Told::Chain(vec![der.clone(), other]))
    );
    assert_eq!(told(format!("Hash={hash}")), Ok(Told::Fingerprint(portcullis_authn::thumbprint(&der))));
    for text in [
        format!("Hash={hash};Cert=\"{strange}\""),
        format!("Hash={hash};Chain=\"{strange}{cert}\""),
        format!("Cert=\"{cert}\";Chain=\"{strange}{cert}\""),
        format!("Hash={}", &hash[..40]),
        format!("Hash={}", STANDARD.encode(portcullis_authn::thumbprint(&der))),
        "By=x;Subject=\"CN=a\"".to_owned(),
    ] {
        assert!(told(text.clone()).is_err(), "{text}");
    }
}

#[test]
fn seeds_hold_what_the_fuzz_target_promises() {
    crate::seed_tests::replay("certificate_header", fuzzed::run);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Trap 5, "works on my certificate": whatever bytes a certificate has, every form gives them back.
    #[test]
    fn any_certificate_survives_every_form(body in prop::collection::vec(any::<u8>(), 130..260)) {
        let der = [&[0x30, 0x82, u8::try_from(body.len() >> 8).expect("short"), u8::try_from(body.len() & 255).expect("a byte")][..], &body].concat();
        let pem = lines(&der, "\n");
        for (format, text) in [
            (Format::Rfc9440, format!(":{}:", STANDARD.encode(&der))),
            (Format::PemUrlEncoded, escaped(&pem)),
            (Format::PemUrlEncoded, escaped_by_alb(&pem)),
            (Format::Pem, lines(&der, " ")),
            (Format::Wso2, escaped_by_alb(&lines(&der, ""))),
            (Format::Traefik, escaped(&STANDARD.encode(&der))),
        ] {
            prop_assert_eq!(read(format, text.as_bytes()), Ok(Told::Chain(vec![der.clone()])));
        }
    }

    #[test]
    fn any_bytes_hold_what_the_fuzz_target_promises(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzed::run(&bytes);
    }
}
