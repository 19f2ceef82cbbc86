//! What is done with the bytes of a proof of possession, and what must hold whatever they are.

use portcullis_jose::{KeyProof, Origin, Target};

/// Reads and verifies a proof, and the place it names. What is no proof may still be the text of a place.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        place(text);
    }
    let Ok(proof) = KeyProof::parse(bytes) else { return };
    assert!(!proof.algorithm().is_symmetric());
    let Ok(claims) = proof.verify() else { return };
    assert!((1..=255).contains(&claims.id.len()) && !claims.method.is_empty() && !claims.uri.is_empty());
    assert!(claims.nonce.is_none_or(|nonce| (1..=255).contains(&nonce.len())));
    assert!(claims.issued_ms >= 0);
    place(&claims.uri);
}

/// A place that was normalised is in normal form, and nothing in it could end it for another reader.
fn place(text: &str) {
    if let Some(origin) = Origin::parse(text) {
        let target = Target::at(origin, "").expect("the root of an origin");
        assert_eq!(Target::parse(&target.to_string()), Some(target));
    }
    let Some(target) = Target::parse(text) else { return };
    let normal = target.to_string();
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()), "{normal}");
    assert!(!normal.contains(['?', '#', '\\']), "{normal}");
    let path = normal.splitn(4, '/').nth(3).expect("a path");
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{normal}");
    assert_eq!(Target::parse(&normal), Some(target), "{text}");
}
