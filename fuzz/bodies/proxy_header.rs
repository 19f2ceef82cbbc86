//! What is done with the first bytes of a connection that a proxy relays, and what must hold whatever they are.

use portcullis_gateway::listener::{Announced, proxy_header};

/// However the bytes come, piece by piece or at once, the same is read and the same number of them is taken.
pub(crate) fn run(bytes: &[u8]) {
    let whole = proxy_header(bytes);
    let mut stepwise = Ok(None);
    for end in 0..=bytes.len() {
        let seen = bytes.get(..end).unwrap_or_default();
        match proxy_header(seen) {
            Ok(None) => {}
            decided => {
                stepwise = decided;
                break;
            }
        }
    }
    match (whole, stepwise) {
        // Which fault is named may depend on how much was there; that there is one does not.
        (Err(_), Err(_)) => {}
        (whole, stepwise) => assert_eq!(whole, stepwise, "the pieces say something else"),
    }
    let Ok(Some((announced, length))) = whole else { return };
    assert!(length <= bytes.len(), "more was taken than there is");
    let header = bytes.get(..length).unwrap_or_default();
    assert_eq!(proxy_header(header), Ok(Some((announced, length))), "what follows changes what is read");
    if header.starts_with(b"PROXY ") {
        assert!(length <= 107 && header.ends_with(b"\r\n") && !header[..length - 2].contains(&b'\n'));
        if let Announced::Client(client) = announced {
            let text = std::str::from_utf8(header).expect("an address is text");
            assert_eq!(text.starts_with("PROXY TCP4 "), client.is_ipv4(), "the family is another");
        }
    }
}
