//! The corpus of requests that desynchronise servers, sent as they are (PRX-01).

use super::{Rig, on_worker, statuses};

/// Cases the corpus calls compliant or acceptable and that are refused, each with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("Different Transfer-Encoding headers", CODINGS),
    ("Different Transfer-Encoding headers combined", CODINGS),
    ("Transfer-Encoding with a param: chunked;custom_param", CODINGS),
    ("Correct TE OK", CODINGS),
    ("Transfer-Encoding: identity and chunked OK", CODINGS),
    ("Multiple transfer encoding headers in a single request OK", CODINGS),
    ("TE with custom parameters OK", CODINGS),
    ("Compliant URL", "its target holds a fragment and a backslash"),
    ("International in URI", "RFC 3986 has no byte above 0x7e in a target"),
    ("Empty URI", "RFC 9112 section 3.2 has no empty target"),
    ("[space] in URI", "RFC 9112 section 3 has two spaces in a request line"),
    ("Extra spaces in version", "RFC 9112 section 3 has two spaces in a request line"),
    ("Non-RFC, but OK HTTP/0.9", VERSIONS),
    ("Empty version, which means HTTP/0.9", VERSIONS),
    ("Unknown but OK HTTP/1.2", VERSIONS),
    ("No TE/CL headers, some others are non-compliant", FIELDS),
    ("TE and some others are non-compliant", FIELDS),
    ("CL and some others are non-compliant", FIELDS),
    ("A non-essential header with a non-printable character (x01)", FIELDS),
    (r"Some-Header\\x01", FIELDS),
    (r"\\x01Some-Header", FIELDS),
    (r"Some-Header: \\x01value", FIELDS),
    (r"Some-Header: value\\x01", FIELDS),
];

const CODINGS: &str = "the only transfer coding taken is `chunked`";
const VERSIONS: &str = "the only versions taken are HTTP/1.0 and HTTP/1.1";
const FIELDS: &str = "a field with a malformed name or value is never passed on";

/// Good requests whose bodies are too long to send here: they are taken and then break off.
const UNFINISHED: &[&str] = &["Large Size OK"];

struct Case {
    tier: &'static str,
    reason: &'static str,
    name: &'static str,
    raw: Vec<u8>,
}

fn cases() -> Vec<Case> {
    include_str!("../corpus/desync.txt").lines().filter(|line| !line.starts_with('#')).map(case).collect()
}

fn case(line: &'static str) -> Case {
    let [tier, reason, name, body, head] =
        line.split('\t').collect::<Vec<_>>().try_into().expect("five columns");
    let mut raw = unescape(head);
    match body {
        "chunked" => raw.extend_from_slice(b"0\r\n\r\n"),
        count => raw.extend(std::iter::repeat_n(b'x', count.parse().expect("a count"))),
    }
    Case { tier, reason, name, raw }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                let digits = std::str::from_utf8(&digits).expect("digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
            }
            other => panic!("unknown escape {other:?}"),
        }
    }
    bytes
}

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[test]
fn what_desynchronises_servers_is_never_served() {
    on_worker(|| async {
        let mut wrong = Vec::new();
        for case in cases() {
            let rig = Rig::plain(serde_json::json!({}));
            let answers = rig.exchange(&[&case.raw, CANARY].concat()).await;
            let seen = rig.recorder.targets();
            let good = matches!(case.tier, "compliant" | "acceptable");
            let refused = REFUSED.iter().any(|(name, _)| *name == case.name);
            // Whatever is served must end where the next request begins.
            let right = if UNFINISHED.contains(&case.name) {
                seen.len() == 1
            } else if good && !refused {
                seen.len() == 2 && seen.last().is_some_and(|last| last == "/canary")
            } else {
                seen.is_empty() && statuses(&answers).iter().all(|status| (400..500).contains(status))
            };
            if !right {
                wrong.push(format!(
                    "{} {} `{}`: {seen:?} {:?}",
                    case.tier,
                    case.reason,
                    case.name,
                    statuses(&answers)
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn the_corpus_is_whole_and_its_exceptions_exist() {
    let cases = cases();
    assert_eq!(cases.len(), 158);
    for (name, why) in REFUSED {
        assert!(cases.iter().any(|case| case.name == *name) && !why.is_empty(), "{name}");
    }
}
