//! A request written as a line with method and target, a line for each field, an empty line, and content.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};

/// The request, if the bytes are one.
pub(crate) fn read(bytes: &[u8]) -> Option<(Parts, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let content = bytes.get(end + 2..).unwrap_or_default();
    let mut lines = bytes.get(..end)?.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut head = Request::builder().method(method).uri(target).body(()).ok()?.into_parts().0;
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(at);
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        head.headers.try_append(HeaderName::from_bytes(name).ok()?, value).ok()?;
    }
    Some((head, content))
}
