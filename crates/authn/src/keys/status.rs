//! How a source is doing (JKS-11).

use std::sync::Arc;
use std::time::Duration;

/// Why a set was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshReason {
    /// The first fetch.
    Start,
    /// The set was about to end, or the last attempt had failed.
    Scheduled,
    /// A token named a key that was not in the set.
    UnknownKey,
    /// An operator has asked for it.
    Asked,
}

impl RefreshReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Start, Self::Scheduled, Self::UnknownKey, Self::Asked];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Scheduled => "scheduled",
            Self::UnknownKey => "unknown_key",
            Self::Asked => "asked",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshResult {
    /// Other keys than before.
    Replaced,
    /// The same keys as before.
    Unchanged,
    /// No answer, or one that is not a key set.
    Failed,
}

impl RefreshResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Replaced, Self::Unchanged, Self::Failed];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// How often a set was fetched for one reason with one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshCount {
    /// Why.
    pub reason: RefreshReason,
    /// With what result.
    pub result: RefreshResult,
    /// How often since the source came to be.
    pub count: u64,
}

/// How one source is doing.
#[derive(Clone, Debug)]
pub struct KeySourceStatus {
    /// Its URL; the issuer itself where keys are discovered.
    pub url: Arc<str>,
    /// The issuer entries that use it.
    pub issuers: Vec<Arc<str>>,
    /// The registered clients who publish their keys there.
    pub clients: Vec<Arc<str>>,
    /// Keys that can verify something.
    pub keys: usize,
    /// Entries of the set that were left out.
    pub skipped: usize,
    /// Whether every issuer that uses it can verify tokens now; where none does, whether those of all clients can be.
    pub usable: bool,
    /// Time since the server last said that these are its keys; `None` if it never did.
    pub age: Option<Duration>,
    /// Why the last fetch failed, if it did.
    pub last_error: Option<String>,
    /// All fetches.
    pub refreshes: Vec<RefreshCount>,
    /// How often a request with an unknown key was answered from what is there, because of the cool-down.
    pub cool_downs: u64,
}

/// The counts, while they grow.
#[derive(Debug, Default)]
pub(crate) struct Record {
    counts: Vec<RefreshCount>,
    pub(crate) last_error: Option<String>,
    pub(crate) cool_downs: u64,
}

impl Record {
    pub(crate) fn count(&mut self, reason: RefreshReason, result: RefreshResult) {
        let known = |count: &&mut RefreshCount| count.reason == reason && count.result == result;
        match self.counts.iter_mut().find(known) {
            Some(count) => count.count += 1,
            None => self.counts.push(RefreshCount { reason, result, count: 1 }),
        }
    }

    pub(crate) fn counts(&self) -> Vec<RefreshCount> {
        self.counts.clone()
    }
}
