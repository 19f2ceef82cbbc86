//! Who has been told that a quota is nearly used up: of each window and percentage, one of the gateways, once.

use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use papaya::HashMap;

use super::ask::PREFIX;
use super::{SharedAsk, SharedCounters, SharedUnit};
use crate::KEYS_PER_TABLE;

/// What is told of callers, as far as this gateway knows, by the full key of their counter.
#[derive(Default)]
pub(super) struct Told(HashMap<Arc<str>, Window, RandomState>);

#[derive(Clone, Copy)]
struct Window {
    unit: SharedUnit,
    percent: u8,
    /// When it is over, by the monotonic clock.
    ends: Duration,
}

impl Told {
    /// Notes a percentage. Whether it is news here.
    fn note(&self, key: &str, window: Window) -> bool {
        let told = self.0.pin();
        if told.len() >= KEYS_PER_TABLE && told.get(key).is_none() {
            // Nobody knows; the server does.
            return true;
        }
        let is_known = |known: &Window| known.unit == window.unit && known.percent >= window.percent;
        if told.get(key).is_some_and(is_known) {
            return false;
        }
        told.insert(key.into(), window);
        true
    }

    /// Forgets what is over.
    pub(super) fn forget(&self, now: Duration) {
        self.0.pin().retain(|_, window| window.ends > now);
    }
}

/// SECURITY: by its beginning, for the end is the caller's.
fn told_key(ask: &SharedAsk) -> String {
    format!("{PREFIX}told:{}", ask.key.strip_prefix(PREFIX).unwrap_or(&ask.key))
}

impl SharedCounters {
    /// Tells that a percentage of a quota is reached, if none of the gateways has told as much of this window, which lasts
    /// so long at that reading of the monotonic clock. Nobody waits for it. Where the server does not answer it is told:
    /// rather twice than not at all.
    pub fn tell_once(
        &self,
        ask: &SharedAsk,
        (unit, percent): (SharedUnit, u8),
        (now, left): (Duration, Duration),
        tell: impl FnOnce() + Send + 'static,
    ) {
        let window = Window { unit, percent, ends: now.saturating_add(left) };
        if !self.0.told.note(&ask.key, window) {
            return;
        }
        let (this, key) = (self.clone(), told_key(ask));
        self.0.background.spawn(async move {
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
            let mut call = this.0.tell.call();
            call.key(key.as_bytes()).arg(unit.0).arg(percent).arg(left);
            let heard = if this.lets_through() { this.answer::<u8>(&call).await.ok() } else { None };
            if heard != Some(0) {
                tell();
            }
        });
    }
}
