//! What is done with the bytes of a key set, and what must hold whatever they are.

use portcullis_jose::{Algorithm, JwkSet, JwkSource};

/// Reads a key set as one from elsewhere and as one of our own.
pub(crate) fn run(bytes: &[u8]) {
    for source in [JwkSource::Remote, JwkSource::Local] {
        let Ok(set) = JwkSet::parse(bytes, source) else {
            continue;
        };
        assert!(set.len() + set.skipped().len() <= 100);
        let symmetric = set.keys().iter().filter(|key| key.is_symmetric()).count();
        assert!(symmetric == 0 || (source == JwkSource::Local && symmetric == set.len()), "a mixed set");
        for algorithm in Algorithm::ALL {
            let unnamed = set.candidates(None, algorithm);
            assert!(unnamed.count() <= 8);
            for key_id in set.key_ids() {
                let mut named = set.candidates(Some(key_id), algorithm);
                assert!(named.all(|key| key.key_id() == Some(key_id) && key.allows(algorithm)));
                assert!(set.candidates(Some(key_id), algorithm).count() <= 1, "an ambiguous name");
            }
        }
        for skipped in set.skipped() {
            assert!(!skipped.why.to_string().is_empty());
        }
    }
}
