//! The nouns every room of the gateway speaks.
//!
//! Nothing here does I/O. A type lives in this crate when two rooms that may not see each other must agree
//! on it: what a caller proved ([`Identity`]), why a request was refused ([`Reason`]), where in a policy file
//! something stands ([`Place`]).

pub mod chunk;
mod client;
mod clock;
mod connection;
pub mod diagnostic;
pub mod document;
mod fetch;
mod identity;
pub mod json;
mod materials;
mod outbound;
mod problem;
pub mod quantity;
mod reason;
mod rejection;
mod secret;
mod unary;

pub use client::{Client, PlanId, PlanSet};
pub use clock::{Clock, ManualClock, Moment};
pub use connection::{
    CertificateSource, Connection, NameAttribute, PeerCertificate, Standing, SubjectAlternativeName,
    TlsFacts, TlsPolicyId,
};
pub use diagnostic::{Diagnostic, Faults, FileId, Place, Severity, Spanned, nearest};
pub use fetch::{
    Fetch, FetchError, FetchFuture, FetchIdentity, FetchRequest, FetchResponse, FetchTrust, Fetchers,
    MakeFetcher, QUESTIONS_AT_ONCE, Sending,
};
pub use identity::{AuthMethod, Identity, Principal};
pub use materials::{Materials, NamedFiles, SecretSpec};
pub use outbound::{OutboundCertificates, OutboundSpec};
pub use problem::Problem;
pub use reason::{BearerError, LogLevel, Reason};
pub use rejection::{Challenge, Detail, Passed, Rejection, Scheme};
pub use secret::Secret;
pub use unary::{Callers, MakeCaller, Unary, UnaryCall, UnaryError, UnaryFuture};
