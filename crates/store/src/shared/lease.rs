//! Units of quotas that were taken from the server in a block, to be handed out here without asking again.
//!
//! Units of a block are counted as used at the server before the first of them is handed out, so nothing is ever admitted
//! too much, whatever happens to this gateway; one that ends without returning them has lost them: at most two blocks of
//! each caller, for the next is asked for when half of one is left, one at a time, and units alone meanwhile. A block whose
//! answer did not come may be lost, too; after that units are asked for alone, until one comes. Blocks that lie idle go
//! back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use papaya::HashMap;

use super::SharedUnit;
use crate::{KEYS_PER_TABLE, QuotaRule};

/// How long a block lies idle before it goes back.
const IDLE: Duration = Duration::from_secs(5);

/// The blocks of this gateway, by the full key of their counter.
#[derive(Default)]
pub(super) struct Leases(HashMap<Arc<str>, Arc<Lease>, RandomState>);

/// What is left of a block.
#[derive(Debug)]
pub(super) struct Lease {
    left: AtomicU32,
    /// The rule it was taken under.
    rule: QuotaRule,
    /// What was left at the server when it was taken.
    beyond: u64,
    /// The window it is of.
    unit: SharedUnit,
    /// When that ends, by the monotonic clock; a unit is good for no other.
    ends: Duration,
    /// Whether a block is being asked for.
    asking: AtomicBool,
    /// Whether the last question was not answered.
    doubtful: AtomicBool,
    /// When it was last used, in milliseconds of the monotonic clock.
    used_at: AtomicU64,
}

/// A unit that was handed out of a block.
pub(super) struct Leased {
    pub(super) remaining: u64,
    pub(super) reset: Duration,
    pub(super) unit: SharedUnit,
    /// Whether it is time to ask for the next block, by whoever is told so.
    pub(super) ask: bool,
}

impl Leases {
    /// A unit of a block, if one is left of an open window. The next block is asked for when half of one is left, so that
    /// requests wait for none unless they outrun the server.
    ///
    /// SECURITY: only to whom the server would have given it: who may have fewer units than the caller it was taken for
    /// (a plan, a group, a count of its own, a policy that was edited) may have none that is beyond them.
    pub(super) fn take(&self, key: &str, rule: &QuotaRule, block: u32, now: Duration) -> Option<Leased> {
        let leases = self.0.pin();
        let lease = leases.get(key).filter(|lease| lease.is_for(rule))?;
        let reset = lease.ends.checked_sub(now).filter(|left| !left.is_zero())?;
        let left = lease.take()?;
        lease.used_at.store(milliseconds(now), Ordering::Relaxed);
        // Where the server has none left, asking ahead is of no use.
        let ask = left <= block / 2 && lease.beyond > 0 && !lease.asking.swap(true, Ordering::Relaxed);
        Some(Leased { remaining: lease.beyond.saturating_add(left.into()), reset, unit: lease.unit, ask })
    }

    /// Puts a unit back, if its window is still the block's.
    pub(super) fn put_back(&self, key: &str, unit: SharedUnit) -> bool {
        let leases = self.0.pin();
        let Some(lease) = leases.get(key).filter(|lease| lease.unit == unit) else { return false };
        lease.left.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// How many units to ask for: a block, or one where a block is being asked for, one is at hand that is not for this
    /// caller, the server is in doubt, or there is no room for another.
    pub(super) fn wanted(&self, key: &str, rule: &QuotaRule, block: u32) -> u32 {
        let leases = self.0.pin();
        if leases.get(key).is_none() && leases.len() >= KEYS_PER_TABLE {
            return 1;
        }
        let lease = leases.get_or_insert_with(key.into(), || Arc::new(Lease::empty()));
        let is_others = !lease.is_for(rule) && lease.left.load(Ordering::Relaxed) > 0;
        if is_others || lease.doubtful.load(Ordering::Relaxed) || lease.asking.swap(true, Ordering::Relaxed) {
            return 1;
        }
        block
    }

    /// Notes whether a question was answered.
    pub(super) fn answered(&self, key: &str, answered: bool) {
        if let Some(lease) = self.0.pin().get(key) {
            lease.doubtful.store(!answered, Ordering::Relaxed);
        }
    }

    /// Notes what came of asking for a block: so many units to be handed out. `None` if nothing did.
    pub(super) fn granted(&self, key: &str, grant: Option<(u32, Lease)>) {
        let leases = self.0.pin();
        match grant {
            None => {
                if let Some(lease) = leases.get(key) {
                    lease.asking.store(false, Ordering::Relaxed);
                }
            }
            Some((units, mut fresh)) => {
                // What is left of a block of the same window stays; of one that is over, nothing is good any more.
                let same = |old: &&Arc<Lease>| old.unit == fresh.unit && old.is_like(&fresh.rule);
                let old = leases.get(key).filter(same).map(|old| (old.take_all(), old.rule.count));
                let (left, count) = old.unwrap_or_default();
                // SECURITY: some were given to whom may have so many: they are for nobody who may have fewer.
                fresh.rule.count = if left > 0 { fresh.rule.count.max(count) } else { fresh.rule.count };
                fresh.left.store(units.saturating_add(left), Ordering::Relaxed);
                leases.insert(key.into(), Arc::new(fresh));
            }
        }
    }

    /// Takes out the blocks that lie idle, or all of them: the key, the window and the units of each.
    pub(super) fn idle(&self, now: Option<Duration>) -> Vec<(Arc<str>, SharedUnit, u32)> {
        let leases = self.0.pin();
        let limit = now.map(|now| milliseconds(now.saturating_sub(IDLE)));
        let is_idle =
            |lease: &Lease| limit.is_none_or(|limit| lease.used_at.load(Ordering::Relaxed) <= limit);
        let mut idle = Vec::new();
        for (key, lease) in &leases {
            let asking = now.is_some() && lease.asking.load(Ordering::Relaxed);
            if !asking && is_idle(lease) {
                // Whoever still holds it finds nothing left. A block that has come meanwhile stays.
                let _ = leases.remove_if(key, |_, held| Arc::ptr_eq(held, lease));
                idle.push((Arc::clone(key), lease.unit, lease.take_all()));
            }
        }
        idle.retain(|(.., units)| *units > 0);
        idle
    }
}

impl Lease {
    fn empty() -> Self {
        Self::new(QuotaRule::new(0, Duration::ZERO), 0, SharedUnit(0), Duration::ZERO, Duration::ZERO)
    }

    /// A block of a window that ends then.
    pub(super) fn new(rule: QuotaRule, beyond: u64, unit: SharedUnit, ends: Duration, now: Duration) -> Self {
        Self {
            left: AtomicU32::new(0),
            rule,
            beyond,
            unit,
            ends,
            asking: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            used_at: AtomicU64::new(milliseconds(now)),
        }
    }

    /// Whether its units are for whom that rule holds.
    fn is_for(&self, rule: &QuotaRule) -> bool {
        rule.count >= self.rule.count && self.is_like(rule)
    }

    /// Whether its windows are those of that rule.
    fn is_like(&self, rule: &QuotaRule) -> bool {
        (self.rule.per, self.rule.carried) == (rule.per, rule.carried)
    }

    /// Takes one: how many are left then.
    fn take(&self) -> Option<u32> {
        let take = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?.checked_sub(1)
    }

    fn take_all(&self) -> u32 {
        self.left.swap(0, Ordering::Relaxed)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
