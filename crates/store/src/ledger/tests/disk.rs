//! A disk that fills up, hangs, and comes back.

use super::{BLOCK, HOUR, TENS, at, is_taken, quotas, take_all, take_some, wait};
use crate::embedded::{Embedded, Tuning};
use crate::ledger::{LedgerFile, QUEUE};
use crate::{OpenError, QuotaOutcome, QuotaRule, Store, StoreError};
use redb::{BackendError, Builder, StorageBackend};
use std::future::Future;
use std::io;
use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

/// A disk in memory. Clones are the same disk, so a store can be opened again over what is on it.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
    stuck: Arc<(Mutex<bool>, Condvar)>,
    /// How many commits hang at this moment.
    hanging: Arc<AtomicUsize>,
}

impl Disk {
    fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    fn free(&self) {
        self.full.store(false, Ordering::SeqCst);
    }

    fn hang(&self) {
        *self.stuck.0.lock().unwrap() = true;
    }

    fn go_on(&self) {
        *self.stuck.0.lock().unwrap() = false;
        self.stuck.1.notify_all();
    }

    fn wait_until_it_hangs(&self) {
        while self.hanging.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        } else {
            Ok(())
        }
    }

    fn open(&self) -> Result<LedgerFile, OpenError> {
        let cannot = |source| OpenError::CannotOpen { path: "disk".into(), source };
        let database = Builder::new()
            .create_with_backend(self.clone())
            .map_err(|error| cannot(io::Error::other(error)))?;
        LedgerFile::begin(database).map_err(|error| cannot(io::Error::other(error)))
    }

    fn store(&self, tuning: Tuning) -> Store {
        let disk = self.clone();
        let opener = Box::new(move || disk.open());
        let file = self.open().unwrap();
        let last = file.clock().unwrap();
        Store::Embedded(Arc::new(Embedded::over(file, last, opener, tuning).unwrap()))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let stuck = self.stuck.1.wait_while(self.stuck.0.lock().unwrap(), |stuck| *stuck).unwrap();
        drop(stuck);
        self.hanging.fetch_sub(1, Ordering::SeqCst);
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// No test waits for a disk to be tried again.
const AT_ONCE: Tuning =
    Tuning { keys_per_table: 1_000, deadline: Duration::from_secs(60), retry: Duration::ZERO };

#[test]
fn a_full_disk_refuses_what_is_not_durable_and_nothing_else() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    assert_eq!(take_some(&table, "a", at(0), 1), 1);
    disk.fill();
    // What was made durable before is the caller's: the block that came with the first unit.
    assert_eq!(take_some(&table, "a", at(0), BLOCK), BLOCK);
    for _ in 0..3 {
        let error = wait(table.take("a", at(0))).unwrap_err();
        assert!(matches!(error, StoreError::Disk(_)), "{error:?}");
        assert!(matches!(wait(table.take("stranger", at(0))), Err(StoreError::Disk(_))));
    }
    let figures = store.figures();
    assert!(figures.failing && figures.errors > 0, "{figures:?}");

    disk.free();
    assert_eq!(take_all(&table, "a", at(0)), TENS.count - 1 - BLOCK, "nothing was lost and nothing forgiven");
    assert_eq!(take_all(&table, "stranger", at(0)), TENS.count);
    assert!(!store.figures().failing);
    store.close().unwrap();
}

#[test]
fn a_quota_that_is_used_up_says_so_even_while_the_disk_is_full() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    assert_eq!(take_all(&table, "a", at(0)), TENS.count);
    disk.fill();
    assert_eq!(wait(table.take("a", at(0))), Ok(QuotaOutcome::Refused { retry_after: HOUR }));
    disk.free();
    store.close().unwrap();
}

#[test]
fn a_disk_that_fills_at_any_moment_never_admits_too_much() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    let mut admitted = 0;
    while let Ok(QuotaOutcome::Taken { .. }) | Err(StoreError::Disk(_)) = wait(async {
        let outcome = table.take("a", at(0)).await;
        admitted += u32::from(outcome.as_ref().is_ok_and(|outcome| is_taken(*outcome)));
        if admitted % 17 == 0 {
            disk.fill();
        } else {
            disk.free();
        }
        if outcome.is_err() {
            disk.free();
        }
        outcome
    }) {}
    assert_eq!(admitted, TENS.count);
    store.close().unwrap();
}

#[test]
fn a_failing_disk_is_left_alone_for_a_while() {
    let disk = Disk::default();
    let store = disk.store(Tuning { retry: Duration::from_secs(3600), ..AT_ONCE });
    let table = quotas(&store, TENS);
    disk.fill();
    assert!(wait(table.take("a", at(0))).is_err());
    disk.free();
    let error = wait(table.take("a", at(0))).unwrap_err();
    assert!(matches!(error, StoreError::Disk(_)), "{error:?}");
    assert_eq!(store.figures().errors, 1);
}

#[test]
fn closing_over_a_full_disk_is_an_error_and_not_a_loss() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    assert_eq!(take_some(&quotas(&store, TENS), "a", at(0), 3), 3);
    disk.fill();
    assert!(matches!(store.close(), Err(StoreError::Disk(_))));
    disk.free();
    let store = disk.store(AT_ONCE);
    assert_eq!(take_all(&quotas(&store, TENS), "a", at(0)), TENS.count - 1 - BLOCK, "as after a crash");
    store.close().unwrap();
}

#[test]
fn all_that_waits_is_committed_together() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    disk.hang();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| take_some(&table, "first", at(0), 1));
        disk.wait_until_it_hangs();
        wait(async {
            let mut takes: Vec<_> = (0..500)
                .map(|n| {
                    let table = Arc::clone(&table);
                    Box::pin(async move { table.take(&format!("caller {}", n % 250), at(0)).await })
                })
                .collect();
            for take in &mut takes {
                assert!(take.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            disk.go_on();
            for take in takes {
                assert!(is_taken(take.await.unwrap()));
            }
        });
        assert_eq!(first.join().unwrap(), 1);
    });
    assert_eq!(store.figures().commits, 2);
    assert!(store.figures().total_commit >= store.figures().last_commit);
    store.close().unwrap();
}

#[test]
fn a_request_that_stops_waiting_costs_nothing() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, QuotaRule::new(3, HOUR));
    disk.hang();
    {
        let mut cancelled = pin!(table.take("a", at(0)));
        wait(async {
            assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        });
        disk.wait_until_it_hangs();
    }
    disk.go_on();
    assert_eq!(take_all(&table, "a", at(0)), 3);
    store.close().unwrap();
}

#[test]
fn a_disk_that_hangs_is_a_refusal_in_time() {
    let disk = Disk::default();
    let store = disk.store(Tuning { deadline: Duration::from_millis(20), ..AT_ONCE });
    let table = quotas(&store, TENS);
    disk.hang();
    assert_eq!(wait(table.take("a", at(0))), Err(StoreError::TimedOut));
    disk.go_on();
    store.close().unwrap();
}

#[test]
fn more_than_may_wait_are_refused_at_once() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    disk.hang();
    wait(async {
        let mut first = pin!(table.take("first", at(0)));
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        disk.wait_until_it_hangs();
        let mut waiting = Vec::new();
        for _ in 0..QUEUE {
            let mut take = Box::pin(table.take("a", at(0)));
            assert!(take.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            waiting.push(take);
        }
        assert_eq!(table.take("a", at(0)).await, Err(StoreError::Overloaded));
        disk.go_on();
        let mut admitted = 0;
        for take in waiting {
            admitted += u32::from(is_taken(take.await.unwrap()));
        }
        assert_eq!(admitted, TENS.count);
    });
    store.close().unwrap();
}

#[test]
fn callers_that_leave_memory_keep_their_exact_count() {
    let disk = Disk::default();
    let store = disk.store(Tuning { keys_per_table: 16, ..AT_ONCE });
    let table = quotas(&store, TENS);
    for round in 0..3 {
        for n in 0..64 {
            assert_eq!(take_some(&table, &format!("caller {n}"), at(round), 1 + n % 7), 1 + n % 7);
        }
        assert!(store.figures().quota_keys <= 17, "{:?}", store.figures());
    }
    for n in 0..64 {
        let outcome = wait(table.take(&format!("caller {n}"), at(4))).unwrap();
        let QuotaOutcome::Taken { remaining, .. } = outcome else { panic!("refused") };
        assert_eq!(remaining, u64::from(TENS.count - 3 * (1 + n % 7) - 1), "{n}");
    }
    store.close().unwrap();
}

#[test]
fn callers_that_cannot_leave_memory_stay_in_it() {
    let disk = Disk::default();
    let store = disk.store(Tuning { keys_per_table: 4, ..AT_ONCE });
    let table = quotas(&store, TENS);
    for n in 0..4 {
        assert_eq!(take_some(&table, &format!("caller {n}"), at(0), 3), 3);
    }
    disk.fill();
    assert!(wait(table.take("stranger", at(0))).is_err());
    for n in 0..4 {
        assert_eq!(take_some(&table, &format!("caller {n}"), at(0), 2), 2, "durable units are still there");
    }
    disk.free();
    store.close().unwrap();
}

#[test]
fn callers_that_could_not_be_put_on_disk_keep_their_exact_count() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    for n in 1..=5 {
        assert_eq!(take_some(&table, &format!("caller {n}"), at(0), n), n);
    }
    drop(table);
    // No policy names the limit any more, so its cells leave memory, and cannot.
    disk.fill();
    store.sweep(at(1));
    while store.figures().errors == 0 {
        std::thread::yield_now();
    }
    let table = quotas(&store, TENS);
    assert!(matches!(wait(table.take("caller 1", at(1))), Err(StoreError::Disk(_))));
    assert_eq!(store.figures().quota_keys, 5);
    disk.free();
    for n in 1..=5 {
        let outcome = wait(table.take(&format!("caller {n}"), at(1))).unwrap();
        let QuotaOutcome::Taken { remaining, .. } = outcome else { panic!("refused") };
        assert_eq!(remaining, u64::from(TENS.count - n - 1));
    }
    store.close().unwrap();
}

#[test]
fn a_disk_that_is_well_again_is_found_out_without_a_request() {
    let disk = Disk::default();
    let store = disk.store(AT_ONCE);
    let table = quotas(&store, TENS);
    disk.fill();
    assert!(wait(table.take("a", at(0))).is_err());
    store.sweep(at(1));
    assert!(matches!(wait(table.take("a", at(1))), Err(StoreError::Disk(_))));
    assert!(store.figures().failing);
    disk.free();
    store.sweep(at(2));
    while store.figures().failing {
        std::thread::yield_now();
    }
    store.close().unwrap();
}

/// Whether a change that was not answered in time is on disk is decided later; what is asked for after it is done after
/// it, so whoever asked can have the last word.
#[test]
fn a_change_that_was_not_answered_in_time_is_followed_by_what_was_asked_for_after_it() {
    let disk = Disk::default();
    let store = disk.store(Tuning { deadline: Duration::from_millis(20), ..AT_ONCE });
    let records = store.records("one");
    let change = |key: &str, value: Option<&[u8]>| {
        records.change([(key.to_owned(), value.map(<[u8]>::to_vec))].into(), None)
    };
    disk.hang();
    assert_eq!(change("stays", Some(b"1")), Err(StoreError::TimedOut));
    assert_eq!(change("goes", Some(b"1")), Err(StoreError::TimedOut));
    assert_eq!(change("goes", None), Err(StoreError::TimedOut));
    disk.go_on();
    assert_eq!(records.beginning("").unwrap(), [("stays".to_owned(), b"1".to_vec())]);
    store.close().unwrap();
    assert_eq!(change("late", None), Err(StoreError::Closed));
}
