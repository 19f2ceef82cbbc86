//! SHA-256, borrowed from the TLS provider: this crate needs no other cryptography.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// A SHA-256 value.
pub(crate) type Digest = [u8; 32];

/// SHA-256 over all parts, each with its length before it, so that no two lists of parts have one text. `None`
/// if the provider has no SHA-256, which it has.
pub(crate) fn of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Option<Digest> {
    let mut hash = TLS13_AES_128_GCM_SHA256.tls13()?.common.hash_provider.start();
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finish().as_ref().try_into().ok()
}
