//! Decides who is calling, from a request's head and its connection.
//!
//! A [`Chain`] is compiled from an API's `authenticate:` and asked once per request. Authenticators are a closed
//! set, one folder each; what they share is how credentials are found ([`place`]), who may sign tokens
//! or is asked about them ([`Issuers`]), where keys come from ([`KeySources`]), who is registered ([`Clients`]), what a worker
//! remembers ([`WorkerTokens`]), and who has to wait because they failed too often ([`Guard`]).

mod anonymous;
mod api_key;
mod basic;
mod binding;
mod certificate;
mod chain;
mod clients;
mod discovery;
mod dpop;
mod external;
mod guard;
mod hmac;
mod identity;
mod introspection;
mod issuers;
mod json;
mod jwt;
mod keys;
mod place;
mod revoked;
mod scheme;
mod signature;
mod signing;
#[cfg(test)]
mod testing;
mod token;
mod tokens;

pub use api_key::{
    BadKeyName, CannotIssue, IssuedKeys, KeyHash, KeyTerms, NewKey, NotAKeyHash, PepperSpec, check_key_name,
    generate_key, hash_key, is_mistyped, random_id,
};
pub use basic::{CheckCounts, PasswordChecks, UserPass, UserPassError};
pub use certificate::{
    CertificateError, KnownAuthorities, ProxyProof, ProxyProofSpec, Validity, fingerprint_alone,
    peer_certificate, thumbprint, validity,
};
pub use chain::{Chain, ChainSpec, Compiling, Content, ContentFuture, Evidence, Step, Trace, Uses};
pub use clients::{Clients, ClientsSpec, FindPlans, Registering, moment};
pub use discovery::{DiscoveryError, Metadata, Reach};
pub use dpop::{NoRandomness, Nonces};
pub use external::{ExternalAnswer, ExternalCounts, grpc_answer, grpc_reply, http_answer};
pub use guard::{Guard, GuardCounts, GuardLedger, GuardSpec};
pub use hmac::signed_bytes;
pub use identity::IdentitySpec;
pub use introspection::{IntrospectionResult, IntrospectionStatus, Introspections};
pub use issuers::{Issuers, IssuersSpec, Providers, check_url, profile_table};
pub use keys::{KeySourceStatus, KeySources, RefreshCount, RefreshReason, RefreshResult};
pub use place::{Place, PlaceError};
pub use portcullis_jose::digest::KeyedHash;
pub use portcullis_jose::digest::{legacy_sha1, sha256};
pub use revoked::{BadEntry, Entry as RevokedEntry, RevokedReload, RevokedTokens};
pub use signature::{
    BaseError, ComponentError, Control, InputError, Message, SignedError, Target, signature_base,
    signature_labels,
};
pub use signing::{DigestError, digests_match};
pub use tokens::{CacheCounts, WorkerTokens};
