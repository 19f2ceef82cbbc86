//! The file and the thread: what survives, what is refused, and what a failing disk does.

mod crash;
mod disk;
mod opening;

use crate::{LimitId, QuotaOutcome, QuotaRule, QuotaTable, Store, StoreSettings};
use portcullis_core::Moment;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
/// A quota whose block is ten units.
const TENS: QuotaRule = QuotaRule::new(1_000, HOUR);
const BLOCK: u32 = 10;

/// Both clocks, so many seconds after a beginning.
fn at(seconds: i64) -> Moment {
    Moment {
        unix_ms: 1_700_000_000_000 + seconds * 1000,
        monotonic: HOUR + Duration::from_secs(u64::try_from(seconds).unwrap()),
    }
}

/// The wall clock so many seconds after a beginning, in a process that has just started.
fn restarted_at(seconds: i64) -> Moment {
    Moment { monotonic: Duration::from_millis(7), ..at(seconds) }
}

/// So many seconds later, by both clocks.
fn later(than: Moment, seconds: u64) -> Moment {
    Moment {
        unix_ms: than.unix_ms + i64::try_from(seconds).unwrap() * 1000,
        monotonic: than.monotonic + Duration::from_secs(seconds),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn open(path: &Path) -> Store {
    Store::open(&StoreSettings { path: path.to_owned() }).unwrap()
}

fn quotas(store: &Store, rule: QuotaRule) -> Arc<QuotaTable> {
    store.quotas(&LimitId::new("open-banking", "daily"), rule)
}

fn is_taken(outcome: QuotaOutcome) -> bool {
    matches!(outcome, QuotaOutcome::Taken { .. })
}

fn take_some(table: &QuotaTable, key: &str, now: Moment, most: u32) -> u32 {
    wait(async {
        let mut taken = 0;
        while taken < most && is_taken(table.take(key, now).await.unwrap()) {
            taken += 1;
        }
        taken
    })
}

fn take_all(table: &QuotaTable, key: &str, now: Moment) -> u32 {
    take_some(table, key, now, u32::MAX)
}
