//! What is done with the digests of a request, and what must hold whatever they are.

use portcullis_authn::digests_match;

use super::request;

/// Compares the content with its digests: no digest fits two contents.
pub(crate) fn run(bytes: &[u8]) {
    let Some((head, content)) = request::read(bytes) else { return };
    let Ok(Some(fits)) = digests_match(&head.headers, content) else { return };
    let other = [content, b"."].concat();
    let other_fits = digests_match(&head.headers, &other).expect("readable twice");
    assert!(!(fits && other_fits == Some(true)));
    assert_eq!(digests_match(&head.headers, content), Ok(Some(fits)));
}
