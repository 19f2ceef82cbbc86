//! What is done with a stream of HTTP/1.1 requests, and what must hold whatever it is.

use httparse::{EMPTY_HEADER, Request, Status};
use portcullis_gateway::listener::{Reading, read_along};

/// Requests are read alike in whatever pieces the bytes come, and where there is no fault, the parser of hyper, which
/// many servers behind a gateway share, finds the same heads in the same places.
pub(crate) fn run(bytes: &[u8]) {
    let reading = read_along(bytes, 1);
    let whole = read_along(bytes, bytes.len());
    // Which of two faults of one line is named may depend on how much of it was there; that there is one does not.
    let request = |reading: &Reading| reading.fault.map(|(request, _)| request);
    assert_eq!((request(&reading), &reading.heads), (request(&whole), &whole.heads));
    if reading.fault.is_none() {
        assert_eq!(reading, whole);
    }
    let good = match reading.fault {
        Some((request, _)) => usize::try_from(request - 1).expect("few requests"),
        None => reading.heads.len(),
    };
    let theirs = hyper_heads(bytes);
    // A head whose body is at fault is whole itself, but its request is refused. What comes behind is refused too.
    for (number, end) in theirs.iter().take(good).enumerate() {
        assert_eq!(reading.heads.get(number), Some(end), "request {} ends elsewhere", number + 1);
    }
    if reading.fault.is_none() {
        assert!(theirs.len() <= good, "hyper sees {} requests of {good}", theirs.len());
    }
}

/// Where each head ends, as hyper 1.12 reads: lenient where it is lenient.
fn hyper_heads(bytes: &[u8]) -> Vec<usize> {
    let (mut heads, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let mut fields = [EMPTY_HEADER; 100];
        let mut request = Request::new(&mut fields);
        let Ok(Status::Complete(length)) = request.parse(rest) else { break };
        at += length;
        let Some(body) = body(&request) else { break };
        heads.push(at);
        let rest = bytes.get(at..).unwrap_or_default();
        match body {
            Body::Length(length) => at = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)),
            Body::Chunked => match chunked(rest) {
                Some(length) => at += length,
                None => break,
            },
        }
    }
    heads
}

enum Body {
    Length(u64),
    Chunked,
}

/// hyper's `Server::parse`, after httparse; `None` where it answers 400 by itself.
fn body(request: &Request<'_, '_>) -> Option<Body> {
    let (mut length, mut coding, mut chunked) = (None, false, false);
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if request.version != Some(1) {
                return None;
            }
            coding = true;
            length = None;
            let last = field.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if field.name.eq_ignore_ascii_case("content-length") && !coding {
            let digits = std::str::from_utf8(field.value).ok().filter(|text| !text.is_empty())?;
            let value = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
            if length.is_some_and(|known| known != value) {
                return None;
            }
            length = Some(value);
        }
    }
    match (coding, chunked) {
        (true, true) => Some(Body::Chunked),
        (true, false) => None,
        (false, _) => Some(Body::Length(length.unwrap_or(0))),
    }
}

/// The length of a chunked body with its trailers, as hyper's decoder walks it; `None` if it breaks or goes on.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes.get(at..)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(line.get(..digits)?).ok()?, 16).ok()?;
        let end = line.iter().position(|byte| *byte == b'\r')?;
        let spaces = line.get(digits..end)?;
        let extension = spaces.iter().position(|byte| *byte == b';').unwrap_or(spaces.len());
        let lenient = spaces.get(..extension)?.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        if !lenient || spaces.contains(&b'\n') || line.get(end + 1) != Some(&b'\n') {
            return None;
        }
        at += end + 2;
        if size == 0 {
            return trailers(bytes.get(at..)?).map(|length| at + length);
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        if bytes.get(at..at.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
}

fn trailers(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes.get(at..)?;
        let end = line.iter().position(|byte| *byte == b'\r')?;
        if line.get(end + 1) != Some(&b'\n') {
            return None;
        }
        at += end + 2;
        if end == 0 {
            return Some(at);
        }
    }
}
