//! Waiting for a rate instead of being refused by it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Faults, Moment, Reason, Rejection};
use tokio::time::Instant;

use super::measure::Measure;
use super::{Admission, LimitFacts, Limits, Reserved};

/// The longest a request may be told to wait: longer, and its client has gone.
const LONGEST: Duration = Duration::from_secs(60);
/// How many requests of one caller wait where nothing is written.
const SOME: i64 = 10;
/// And at most.
const MOST: i64 = 1_000;

/// How long requests wait for a rate, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThrottleSpec {
    wait: Duration,
    most: u32,
}

impl ThrottleSpec {
    pub(super) fn read(node: &Node, measure: Measure, faults: &mut Faults) -> Option<Self> {
        if !matches!(measure, Measure::Rate { .. }) {
            faults.error("no_use", node.place, "`throttle` is about a rate: nobody waits for the next day");
            return None;
        }
        let mut fields = Fields::of(node, "`throttle`", faults)?;
        let (wait, waiting) = (fields.require("wait", faults), fields.get("waiting"));
        fields.finish(faults);
        let wait_place = wait?.place;
        let wait = wait?.duration(faults)?;
        if wait.is_zero() || wait > LONGEST {
            faults.error("out_of_range", wait_place, "a request waits between 1ms and 60s");
            return None;
        }
        let most = waiting.map_or(Some(SOME), |node| node.integer(1..=MOST, faults))?;
        Some(Self { wait, most: u32::try_from(most).ok()? })
    }
}

/// Who waits for a rate.
#[derive(Debug)]
pub(super) struct Throttle {
    spec: ThrottleSpec,
    /// How many requests of each caller. SECURITY: each caller has places of their own, so nobody takes those of others.
    waiting: Mutex<HashMap<Box<str>, u32>>,
}

/// A place among those who wait.
struct Turn<'t> {
    throttle: &'t Throttle,
    key: Box<str>,
    wait: Duration,
}

impl Throttle {
    pub(super) fn new(spec: ThrottleSpec) -> Self {
        Self { spec, waiting: Mutex::default() }
    }

    fn turn(&self, key: &str, wait: Duration, waited: Duration) -> Option<Turn<'_>> {
        if waited.saturating_add(wait) > self.spec.wait {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(key.into()).or_insert(0);
        if *count >= self.spec.most {
            return None;
        }
        *count += 1;
        Some(Turn { throttle: self, key: key.into(), wait })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.throttle.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

fn after(now: Moment, waited: Duration) -> Moment {
    let unix_ms = now.unix_ms.saturating_add(i64::try_from(waited.as_millis()).unwrap_or(i64::MAX));
    Moment { unix_ms, monotonic: now.monotonic.saturating_add(waited) }
}

impl Limits {
    /// Waits for the limit that has refused, if it says so, and asks again, until the request is admitted or would have to
    /// wait for too long. What other limits had given is given back before.
    pub(super) async fn wait_and_take(
        &self,
        mut refusal: Rejection,
        facts: &LimitFacts<'_>,
        reserved: &mut Reserved,
    ) -> Result<Admission, Rejection> {
        let begun = Instant::now();
        let mut later = *facts;
        loop {
            let Some(turn) = self.turn(&refusal, &later, begun.elapsed()) else { return Err(refusal) };
            tokio::time::sleep(turn.wait).await;
            later.now = after(facts.now, begun.elapsed());
            match self.take(&later, false, reserved).await {
                Ok(admission) => return Ok(admission),
                Err(again) => refusal = again,
            }
        }
    }

    /// Whether a limit that has refused lets requests wait.
    pub(super) fn throttles(&self, refusal: &Rejection) -> bool {
        refusal.reason() == Reason::RateLimited
            && self.slots.iter().flat_map(super::Slot::all).any(|limit| limit.throttle.is_some())
    }

    fn turn(&self, refusal: &Rejection, facts: &LimitFacts<'_>, waited: Duration) -> Option<Turn<'_>> {
        let detail = refusal.detail().filter(|_| refusal.reason() == Reason::RateLimited)?;
        let violated = detail.violated.first()?;
        let mut limits = self.slots.iter().filter_map(|slot| slot.limit(facts.plans()));
        let limit = limits.find(|limit| limit.name == *violated)?;
        let key = limit.key(None, facts).ok()?;
        limit.throttle.as_ref()?.turn(key.as_str(), detail.retry_after?, waited)
    }
}
