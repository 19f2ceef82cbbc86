//! Carries an admitted request to an upstream and its answer back.
//!
//! An [`Upstream`] is compiled once and shared; the connections to it belong to one worker and never leave it
//! ([`Pools`]). [`hygiene`] takes from a request what a client may not say, and from an answer what concerns only
//! the hop it came over. [`HttpFetcher`] asks short questions on the background runtime, and [`GrpcCaller`] calls
//! services there.

// The fuzz target's body names this crate as the fuzzer sees it.
#[cfg(test)]
extern crate self as portcullis_proxy;

mod connect;
mod error;
mod fetcher;
mod grpc;
mod http1;
pub mod hygiene;
mod lookup;
mod outgoing;
mod pool;
#[cfg(test)]
mod rig;
mod site;
mod tls;
mod transport;
mod upstream;

pub use error::{BodyError, BodyFault, ForwardError};
pub use fetcher::HttpFetcher;
pub use grpc::GrpcCaller;
pub use http1::{AnswerRead, Fault as AnswerFault, read_answer};
pub use outgoing::BodyLimits;
pub use pool::{PoolSettings, Pools, Sending, UpstreamBody};
pub use tls::{TlsError, check_identity};
pub use upstream::{Upstream, UpstreamSpec};
