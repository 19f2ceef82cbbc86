//! What is done with a signed request of the older form, and what must hold whatever it is.

use http::header::AUTHORIZATION;
use portcullis_authn::signed_bytes;

use super::request;

/// Reads the credential and what it says is signed: one line for each name of its list, in its order, and never the
/// same bytes for two lists.
pub(crate) fn run(bytes: &[u8]) {
    let Some((head, _)) = request::read(bytes) else { return };
    let Some(credential) = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes().to_vec()) else {
        return;
    };
    let Ok(base) = signed_bytes(&credential, &head) else { return };
    let names = listed(&credential);
    let lines: Vec<&[u8]> = base.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), names.len(), "{names:?}");
    for (line, name) in lines.iter().zip(&names) {
        let stands_in = name == "date" && line.starts_with(b"x-aux-date: ");
        assert!(stands_in || line.starts_with(format!("{name}: ").as_bytes()), "{name}");
    }
    // A second signature beside it is never overlooked.
    let doubled = [&credential[..], b",signature=\"AAAA\""].concat();
    assert!(signed_bytes(&doubled, &head).is_err());
}

fn listed(credential: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(credential).to_lowercase();
    // Names stand before `=`, and no value before it can hold this text unless in quotes.
    let mut inside = false;
    let mut at = None;
    for (index, byte) in text.bytes().enumerate() {
        if byte == b'"' {
            inside = !inside;
        } else if !inside && text[index..].starts_with("headers") {
            at = text[index..].find('"').map(|quote| index + quote + 1);
            break;
        }
    }
    match at.and_then(|at| text[at..].split('"').next()) {
        Some(names) => names.split(' ').map(str::to_owned).collect(),
        None => vec!["date".to_owned()],
    }
}
