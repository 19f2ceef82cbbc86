//! What is remembered about one request, for the log line and the metrics.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use portcullis_authn::Trace;
use portcullis_core::{AuthMethod, Moment, Reason};
use portcullis_policy::{Permit, Told};

use crate::snapshot::LocalApi;

/// Goes in with the request and comes back with the reply, in the one heap box of its passage: no map, no lock.
pub(crate) struct Ledger {
    pub(crate) id: RequestId,
    /// The clocks when the request was opened: its only reading for decisions.
    pub(crate) opened: Moment,
    pub(crate) method: Method,
    pub(crate) api: Option<Rc<LocalApi>>,
    /// The rule that allowed it.
    pub(crate) rule: Option<Permit>,
    pub(crate) auth: AuthRecord,
    /// What a chain in shadow would have said, or for what a limit in shadow would have refused.
    pub(crate) shadow: Option<Result<(), Reason>>,
    pub(crate) principal: Option<Arc<str>>,
    /// Which of the caller's credentials it was.
    pub(crate) key_id: Option<Arc<str>>,
    pub(crate) certificate: Option<[u8; 32]>,
    /// The limit that refused, by name.
    pub(crate) limit: Option<Arc<str>>,
    pub(crate) reason: Option<Reason>,
    /// Inner words of a refusal, for the operator only.
    pub(crate) inner: Option<String>,
    pub(crate) status: StatusCode,
    /// Time since `opened` at which the request went to the upstream.
    pub(crate) forwarded_at: Option<Duration>,
    /// Time since `opened` at which the head of the upstream's answer had arrived.
    pub(crate) answered_at: Option<Duration>,
    pub(crate) upstream_status: Option<StatusCode>,
    pub(crate) bytes_out: u64,
    /// The target's path, kept when no template says where a refused request went: no API, or no rule of the API
    /// that was asked.
    pub(crate) path: Option<String>,
    /// What each stage has to say beside its verdict, where the request is explained.
    pub(crate) notes: Option<Box<Notes>>,
}

/// What is noted of a request that somebody has explained; of others nothing is.
#[derive(Default)]
pub(crate) struct Notes {
    /// What the chain did.
    pub(crate) trace: Trace,
    /// The caller's plans.
    pub(crate) plans: Vec<Arc<str>>,
    /// What each rule said.
    pub(crate) rules: Vec<Told>,
}

/// How the authentication went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AuthRecord {
    /// It was not reached.
    #[default]
    NotReached,
    /// Refused; by which scheme is in the reason.
    Refused { took: Duration },
    /// Verified, the naming identity by this method.
    Verified { method: AuthMethod, took: Duration },
}

impl Ledger {
    /// Opens the record of a request.
    pub(crate) fn open(id: RequestId, opened: Moment, method: Method) -> Self {
        Self {
            id,
            opened,
            method,
            api: None,
            rule: None,
            auth: AuthRecord::NotReached,
            shadow: None,
            principal: None,
            key_id: None,
            certificate: None,
            limit: None,
            reason: None,
            inner: None,
            status: client_gone(),
            forwarded_at: None,
            answered_at: None,
            upstream_status: None,
            bytes_out: 0,
            path: None,
            notes: None,
        }
    }
}

impl Ledger {
    /// `allow`, `deny`, or what became of a request whose client did not wait for either.
    pub(crate) fn decision(&self) -> &'static str {
        match self.reason {
            Some(_) => "deny",
            None if self.status == client_gone() => "abandoned",
            None => "allow",
        }
    }
}

/// What stands in the log of a request that its client gave up before there was an answer. Nobody receives it; the
/// number is the one nginx made customary.
fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

/// A UUID version 7 (RFC 9562 section 5.7): sorts by time, printed only when somebody reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            value >> 96,
            (value >> 80) & 0xffff,
            (value >> 64) & 0xffff,
            (value >> 48) & 0xffff,
            value & 0xffff_ffff_ffff
        )
    }
}

/// Makes the request ids of one worker. They name requests, they guard nothing: a counter mixed with a random
/// start is enough, and asking the kernel for randomness on every request is not.
pub(crate) struct RequestIds {
    counter: Cell<u64>,
    mix: ahash::RandomState,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { counter: Cell::new(0), mix: ahash::RandomState::new() }
    }
}

impl RequestIds {
    pub(crate) fn next(&self, now: Moment) -> RequestId {
        let count = self.counter.get().wrapping_add(1);
        self.counter.set(count);
        let random = u128::from(self.mix.hash_one(count));
        let time = u128::from(now.unix_ms.unsigned_abs() & 0xffff_ffff_ffff);
        let low = u128::from(count) & 0x0fff;
        RequestId((time << 80) | (0x7 << 76) | (low << 64) | (0b10 << 62) | (random & 0x3fff_ffff_ffff_ffff))
    }
}

#[cfg(test)]
mod tests {
    use super::RequestIds;
    use portcullis_core::{Clock, ManualClock};

    #[test]
    fn request_ids_are_version_7_and_differ() {
        let now = Clock::Manual(ManualClock::at_unix_seconds(1_700_000_000)).now();
        let ids = RequestIds::default();
        let (first, second) = (ids.next(now).to_string(), ids.next(now).to_string());
        assert_ne!(first, second);
        assert_eq!(first.len(), 36);
        assert!(first.starts_with("018bcfe5-6800-7"), "{first}");
        assert!(matches!(first.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{first}");
    }
}
