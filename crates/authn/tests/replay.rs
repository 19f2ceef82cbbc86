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
#[path = "../../../fuzz/bodies/external_answer.rs"]
mod external_answer;
#[cfg(test)]
#[path = "../../../fuzz/bodies/hmac.rs"]
mod hmac;
#[cfg(test)]
#[path = "../../../fuzz/bodies/message_signature.rs"]
mod message_signature;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
#[cfg(test)]
#[path = "../../../fuzz/bodies/request.rs"]
mod request;

#[cfg(test)]
mod seeds {
    use crate::replay::replay;

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
    fn seeds_of_external_answers_hold() {
        replay("external_answer", crate::external_answer::run);
    }

    #[test]
    fn seeds_of_credentials_hold() {
        replay("credentials", crate::credentials::run);
    }
}
