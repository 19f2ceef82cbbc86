//! Replays the fuzz seeds through the bodies of the fuzz targets, with every run of the test suite.

#[cfg(test)]
#[path = "../../../fuzz/bodies/credentials.rs"]
mod credentials;
#[cfg(test)]
#[path = "../../../fuzz/bodies/digest_fields.rs"]
mod digest_fields;
#[cfg(test)]
#[path = "../../../fuzz/bodies/discovery.rs"]
mod discovery;
#[cfg(test)]
#[path = "../../../fuzz/bodies/hmac.rs"]
mod hmac;
#[cfg(test)]
#[path = "../../../fuzz/bodies/message_signature.rs"]
mod message_signature;
#[cfg(test)]
#[path = "../../../fuzz/bodies/request.rs"]
mod request;

#[cfg(test)]
mod seeds {
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let mut replayed = 0;
        for entry in fs::read_dir(&folder).expect("the seeds are kept") {
            let path = entry.expect("a seed").path();
            run(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
            replayed += 1;
        }
        assert!(replayed >= 20, "{target} has {replayed} seeds");
    }

    #[test]
    fn seeds_of_signed_requests_hold() {
        replay("hmac", crate::hmac::run);
    }

    #[test]
    fn seeds_of_message_signatures_hold() {
        replay("message_signature", crate::message_signature::run);
    }

    #[test]
    fn seeds_of_digests_hold() {
        replay("digest_fields", crate::digest_fields::run);
    }

    #[test]
    fn seeds_of_metadata_hold() {
        replay("discovery", crate::discovery::run);
    }

    #[test]
    fn seeds_of_credentials_hold() {
        replay("credentials", crate::credentials::run);
    }
}
