//! What is done with policy files, and what must hold whatever they are.

use std::path::Path;

use portcullis_gateway::{Environment, load_texts};

const GATEWAY: &str = include_str!("../seeds/policy_files/gateway.yaml");

/// A load ends, and what is not a plan has an error with a place in a file. The first byte says which file the rest
/// is; the other files are good ones.
pub(crate) fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let texts = match which % 3 {
        0 => vec![("gateway.yaml", text)],
        1 => vec![("gateway.yaml", GATEWAY), ("apis/a.yaml", text)],
        _ => vec![("gateway.yaml", GATEWAY), ("clients/a.yaml", text)],
    };
    // A directory without files: nothing a policy names can be read.
    let loaded = load_texts(Path::new("/nonexistent"), &texts, &Environment::default());
    assert_eq!(
        loaded.plan.is_none(),
        loaded.faults.iter().any(|fault| fault.severity == portcullis_core::Severity::Error)
    );
    for fault in &loaded.faults {
        assert!(!fault.message.is_empty());
        let place = fault.place.expect("every fault of a file has a place");
        let source = loaded.sources.text(place.file);
        let (start, end) = (place.offset as usize, (place.offset + place.length) as usize);
        assert!(source.get(start..end).is_some(), "{place:?} lies in the file and between characters");
    }
}
