//! What is done with a request's message signatures, and what must hold whatever they are.

use std::collections::BTreeSet;

use portcullis_authn::{Control, Message, Target, signature_base, signature_labels};

use super::request;

/// Builds the signature base of each label: a line for each component and no other, each once, and the list itself,
/// which read again gives the same base.
pub(crate) fn run(bytes: &[u8]) {
    let Some((mut head, _)) = request::read(bytes) else { return };
    let Ok(labels) = labels(&head) else { return };
    for label in labels {
        let Ok(base) = base(&head, &label) else { continue };
        assert!(base.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n')), "{base}");
        let mut lines: Vec<&str> = base.lines().collect();
        let parameters =
            lines.pop().expect("a last line").strip_prefix("\"@signature-params\": ").expect("the list");
        let identifiers: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(identifiers.len(), lines.len(), "{base}");
        assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with('"')), "{base}");
        let strict = format!("{label}={parameters}");
        head.headers.insert("signature-input", strict.parse().expect("a field"));
        // A list that covers its own field changes it by being written strictly.
        if !lines.iter().any(|line| line.starts_with("\"signature-input\"")) {
            assert_eq!(self::base(&head, &label).as_deref(), Ok(base.as_str()));
        }
        return;
    }
}

fn labels(head: &http::request::Parts) -> Result<Vec<String>, portcullis_authn::InputError> {
    let target = Target::of(head, "https");
    signature_labels(&Message { control: Control::Request(&target), headers: &head.headers, trailers: None })
}

fn base(head: &http::request::Parts, label: &str) -> Result<String, portcullis_authn::SignedError> {
    let target = Target::of(head, "https");
    let message = Message { control: Control::Request(&target), headers: &head.headers, trailers: None };
    signature_base(&message, label)
}
