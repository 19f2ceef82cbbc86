//! What is done with a path, and what must hold whatever it is.

use portcullis_gateway::is_normal_path;

/// A path that is served means one thing to every reader.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    if !is_normal_path(path) {
        return;
    }
    let decoded = decode(path);
    let text = std::str::from_utf8(&decoded).expect("a normal path decodes to text");
    assert!(path.starts_with('/') && path.is_ascii());
    // Decoding changes no structure, and decoding twice changes nothing more.
    assert_eq!(text.matches('/').count(), path.matches('/').count());
    assert_eq!(decode(text), decoded);
    let segments: Vec<&str> = text.split('/').skip(1).collect();
    let last = segments.len() - 1;
    for (at, segment) in segments.iter().enumerate() {
        assert!(!segment.is_empty() || at == last);
        assert!(*segment != "." && *segment != "..");
        assert!(!segment.contains(['\\', ';', '\0', '\r', '\n', '%']));
    }
}

/// What the most careless server does: replaces every escape by its byte.
fn decode(path: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = (byte == b'%').then(|| std::str::from_utf8(tail.get(..2)?).ok()).flatten();
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                rest = &tail[2..];
            }
            None => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    decoded
}
