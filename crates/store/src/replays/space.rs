//! The keys of one kind.

use std::fmt;
use std::sync::Arc;

use portcullis_core::{Moment, Reason, Rejection};
use std::time::Duration;

use super::Memory;

/// How long a caller is told to wait where there is no room: entries end second by second.
const FULL: Duration = Duration::from_secs(1);

/// What came of claiming a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// Nobody has used it. It is used now.
    Fresh,
    /// It has been used, or is too old by its own account.
    Seen,
    /// There is no room to remember it, so it may not be used.
    Full,
    /// It was issued before the memory began, so it is not known whether it has been used.
    Before,
}

impl Claim {
    /// Fresh, or the refusal: `seen` where it was used before, and 503 where that is not known.
    ///
    /// # Errors
    /// It is not fresh.
    pub fn or_refuse(self, seen: Reason) -> Result<(), Rejection> {
        match self {
            Self::Fresh => Ok(()),
            Self::Seen => Err(Rejection::new(seen).because("it has been used before")),
            Self::Full => Err(Rejection::new(Reason::StoreUnavailable)
                .because("no room to remember that the credential is used")
                .retry_after(FULL)),
            Self::Before => Err(Rejection::new(Reason::StoreUnavailable)
                .because("the credential was issued before this process began, which may have let it through before")
                .advising("Make a new credential: this one is older than the gateway's memory.")),
        }
    }
}

/// The keys of one kind, in the memory they share with all others.
#[derive(Clone)]
pub struct ReplaySpace {
    memory: Arc<Memory>,
    /// Of fixed length, so that no two pairs of name and key run together.
    name: [u8; 16],
}

impl ReplaySpace {
    pub(super) fn new(memory: Arc<Memory>, name: &str) -> Self {
        let tag = memory.tag([name.as_bytes(), b""]);
        let mut hashed = [0; 16];
        hashed.iter_mut().zip(tag.0.to_le_bytes().into_iter().chain(tag.1.to_le_bytes())).for_each(
            |(to, byte)| {
                *to = byte;
            },
        );
        Self { memory, name: hashed }
    }

    /// Claims the credential that is known by `key`. `issued` is the second since 1970 at which it says it was made
    /// (`iat`, `created`, `Date`), `until` the first second at which it is refused for its age, leeway included.
    ///
    /// SECURITY: to be called last, when everything else about the credential is good; whoever could claim without
    /// a good credential could use up somebody else's, or the memory.
    pub fn claim(&self, key: &[u8], issued: i64, until: i64, now: Moment) -> Claim {
        self.memory.claim(self.memory.tag([&self.name, key]), None, issued, until, now)
    }

    /// The same for a credential of a known owner, who may take a share of the memory and no more: beyond it, their
    /// credentials are refused ([`Claim::Full`]) and nobody else's.
    pub fn claim_for(&self, owner: &[u8], key: &[u8], issued: i64, until: i64, now: Moment) -> Claim {
        let share = Some(self.memory.shares.of(self.memory.tag([owner, b"owner"])));
        self.memory.claim(self.memory.tag([&self.name, key]), share, issued, until, now)
    }
}

/// Two are one where a key claimed in either is claimed in both.
impl PartialEq for ReplaySpace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && self.name == other.name
    }
}

impl Eq for ReplaySpace {}

impl fmt::Debug for ReplaySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplaySpace")
    }
}
