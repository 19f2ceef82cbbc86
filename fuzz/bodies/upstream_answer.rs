//! What is done with the bytes of an upstream's answer, and what must hold whatever they are.

use httparse::{EMPTY_HEADER, Response, Status};
use portcullis_proxy::{AnswerRead, read_answer};

/// The answer is the same in whatever pieces the bytes come. Where it is complete, a lenient reader sees the same status,
/// the same number of fields, and the same body, and ends at the same byte; and no field of it frames it anew.
pub(crate) fn run(bytes: &[u8]) {
    for asked_head in [false, true] {
        let whole = read_answer(bytes, bytes.len(), asked_head);
        for piece in [1, 7] {
            let pieces = read_answer(bytes, piece, asked_head);
            // Which of two faults is named may depend on how much was there; that there is one does not.
            assert_eq!(whole.fault.is_some(), pieces.fault.is_some());
            assert_eq!(AnswerRead { fault: None, ..whole.clone() }, AnswerRead { fault: None, ..pieces });
        }
        assert!(whole.fault.is_none() || (!whole.complete && !whole.keeps));
        assert!(!whole.keeps || (whole.complete && whole.left_over == 0));
        if let Some((_, headers)) = &whole.head {
            assert!(headers.get_all("content-length").iter().count() <= 1);
            assert!(!(headers.contains_key("content-length") && headers.contains_key("transfer-encoding")));
            assert!(
                headers.values().all(|value| !value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)))
            );
        }
        if whole.complete {
            compare(bytes, &whole, asked_head);
        }
    }
}

fn compare(bytes: &[u8], ours: &AnswerRead, asked_head: bool) {
    let (status, headers) = ours.head.as_ref().expect("a complete answer has a head");
    let theirs = lenient(bytes, asked_head).expect("a lenient reader reads what a strict one reads");
    assert_eq!((theirs.status, theirs.fields), (status.as_u16(), headers.len()));
    assert_eq!(theirs.body, ours.body);
    assert_eq!(theirs.end, bytes.len() - ours.left_over);
}

struct Lenient {
    status: u16,
    fields: usize,
    body: Vec<u8>,
    end: usize,
}

/// Reads as most clients do: takes bare line feeds, white space and signs it does not know, and believes the last word.
fn lenient(bytes: &[u8], asked_head: bool) -> Option<Lenient> {
    let mut at = 0;
    loop {
        let mut fields = [EMPTY_HEADER; 128];
        let mut response = Response::new(&mut fields);
        let Ok(Status::Complete(length)) = response.parse(bytes.get(at..)?) else { return None };
        at += length;
        let status = response.code?;
        if status < 200 {
            continue;
        }
        let field =
            |name: &str| response.headers.iter().rev().find(|field| field.name.eq_ignore_ascii_case(name));
        let rest = bytes.get(at..)?;
        let (body, length) = if asked_head || status == 204 || status == 304 {
            (Vec::new(), 0)
        } else if field("transfer-encoding").is_some() {
            chunked(rest)?
        } else if let Some(length) = field("content-length") {
            let length: usize = std::str::from_utf8(length.value).ok()?.trim().parse().ok()?;
            (rest.get(..length)?.to_vec(), length)
        } else {
            (rest.to_vec(), rest.len())
        };
        return Some(Lenient { status, fields: response.headers.len(), body, end: at + length });
    }
}

fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = line(bytes, &mut at)?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        line_end(bytes, &mut at)?;
    }
    while !line(bytes, &mut at)?.is_empty() {}
    Some((body, at))
}

fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    *at += end + 1;
    rest.get(..end).map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn line_end(bytes: &[u8], at: &mut usize) -> Option<()> {
    line(bytes, at)?.is_empty().then_some(())
}
