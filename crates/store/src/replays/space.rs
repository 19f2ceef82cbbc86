//! The keys of one kind.

use std::fmt;
use std::sync::Arc;

use portcullis_core::{Clock, Reason, Rejection};
use std::time::Duration;

use super::shares::Mark;
use super::terms::Terms;
use super::{Claimed, Memory, Tag};
use crate::shared::{SharedCounters, UsedUp};

/// How long a caller is told to wait where there is no room: entries end second by second.
const FULL: Duration = Duration::from_secs(1);

/// How much the clocks of gateways may differ that share what was used.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

/// What came of claiming a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// Nobody has used it. It is used now.
    Fresh,
    /// It has been used.
    Seen,
    /// It is too old by its own account.
    Over,
    /// There is no room to remember it, so it may not be used.
    Full,
    /// There is little room, and its owner holds its share of the memory.
    Crowded,
    /// It was issued before the memory began, so it is not known whether it has been used.
    Before,
    /// Other gateways may have let it through, and cannot be asked.
    Unknown,
}

impl Claim {
    /// Fresh, or the refusal: `seen` where it was used before, `over` where it is too old, and 503 where it is not known
    /// whether it was used, or will not be.
    ///
    /// # Errors
    /// It is not fresh.
    pub fn or_refuse(self, seen: Reason, over: Reason) -> Result<(), Rejection> {
        let unavailable = |why| Rejection::new(Reason::StoreUnavailable).because(why);
        match self {
            Self::Fresh => Ok(()),
            Self::Seen => Err(Rejection::new(seen).because("it has been used before")),
            Self::Over => Err(Rejection::new(over).because("it has ended since the request began")),
            Self::Unknown => Err(unavailable("the shared store does not answer").retry_after(FULL)),
            Self::Full => Err(unavailable("the memory of used credentials is full").retry_after(FULL)),
            Self::Crowded => Err(unavailable(
                "the memory of used credentials is half full, and this caller holds its share of it",
            )
            .retry_after(FULL)),
            Self::Before => Err(unavailable(
                "the credential was issued before this process began, which may have let it through before",
            )
            .advising("Make a new credential: this one is older than the gateway's memory.")),
        }
    }
}

/// The keys of one kind, in the memory they share with all others.
#[derive(Clone)]
pub struct ReplaySpace {
    memory: Arc<Memory>,
    /// Of fixed length, so that no two pairs of name and key run together.
    name: [u8; 14],
    /// The same for other gateways.
    full_name: Arc<str>,
    /// Where rules say how long its credentials count.
    terms: Option<Arc<Terms>>,
}

impl ReplaySpace {
    pub(super) fn new(memory: Arc<Memory>, full_name: &str, terms: Option<Arc<Terms>>) -> Self {
        let Tag(name) = memory.tag([full_name.as_bytes(), b""]);
        Self { memory, name, full_name: full_name.into(), terms }
    }
}

/// Two are one where a key claimed in either is claimed in both.
impl PartialEq for ReplaySpace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && self.name == other.name
    }
}

impl Eq for ReplaySpace {}

/// A credential that may be used once.
#[derive(Clone, Copy)]
pub struct SingleUse<'a> {
    /// The credentials of its kind.
    pub space: &'a ReplaySpace,
    /// What it is known by among them.
    pub key: &'a [u8],
    /// The second since 1970 at which it says it was made (`iat`, `created`, `Date`).
    pub issued: i64,
    /// The first second since 1970 at which it is refused for its age, leeway included.
    pub until: i64,
}

impl SingleUse<'_> {
    fn claim(&self, owner: &[u8], clock: &Clock) -> Result<Claimed, Claim> {
        let Self { space: ReplaySpace { memory, name, terms, .. }, key, issued, until } = *self;
        let owner = Mark::of(memory.tag([owner, b"owner"]));
        memory.claim(memory.tag([name, key]), owner, (issued, until), terms.as_deref(), clock)
    }
}

/// Claims credentials of one owner, who holds a share of the memory where it is half full, and no more: beyond it, their
/// credentials are refused ([`Claim::Crowded`]) and nobody else's. Where one cannot be claimed, none is: what came before
/// it can be used still.
///
/// SECURITY: to be called last, when everything else about the credentials is good; whoever could claim without good
/// credentials could use up somebody else's, or the memory.
///
/// # Errors
/// The first that is not fresh, counted from 0, and what it is instead.
pub async fn claim_all(owner: &[u8], all: &[SingleUse<'_>], clock: &Clock) -> Result<(), (usize, Claim)> {
    let mut claimed = Vec::new();
    for (at, one) in all.iter().enumerate() {
        match one.claim(owner, clock) {
            Ok(done) => claimed.push((one.space, done)),
            Err(claim) => {
                release(claimed.iter());
                return Err((at, claim));
            }
        }
    }
    let shared = all.first().and_then(|one| one.space.memory.shared.get());
    match shared {
        None => Ok(()),
        // Boxed, so that what few requests wait for does not widen the future of every one.
        Some(shared) => {
            Box::pin(claim_with_others(all, shared, clock)).await.inspect_err(|(seen_at, claim)| {
                // What has been used stays used; what came with it can be used still. What nobody knows may be tried again.
                let unseen =
                    claimed.iter().enumerate().filter(|(at, _)| *claim != Claim::Seen || at != seen_at);
                release(unseen.map(|(_, claimed)| claimed));
            })
        }
    }
}

fn release<'a, 's: 'a>(claimed: impl Iterator<Item = &'a (&'s ReplaySpace, Claimed)>) {
    claimed.for_each(|(space, done)| space.memory.release(done));
}

/// Claims at the server what was fresh here.
async fn claim_with_others(
    all: &[SingleUse<'_>],
    shared: &SharedCounters,
    clock: &Clock,
) -> Result<(), (usize, Claim)> {
    let now = clock.now().unix_seconds();
    let used = all.iter().map(|one| {
        let SingleUse { space, key, issued, until } = *one;
        let kept = space.terms.as_ref().and_then(|terms| terms.kept_until(issued, now));
        let left = kept.map_or(until, |kept| kept.max(until)).saturating_sub(now);
        let remembered = Duration::from_secs(u64::try_from(left).unwrap_or_default()) + CLOCKS_DIFFER;
        UsedUp { space: &space.full_name, key, remembered }
    });
    match shared.claim(&used.collect::<Vec<_>>()).await {
        Ok(None) => Ok(()),
        Ok(Some(at)) => Err((at, Claim::Seen)),
        Err(_no_answer) => Err((0, Claim::Unknown)),
    }
}

impl fmt::Debug for ReplaySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplaySpace")
    }
}
