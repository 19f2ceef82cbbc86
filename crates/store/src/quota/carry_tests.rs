//! What windows leave to the next one, what is told of them, and looking without taking.

use super::{QuotaKey, QuotaOutcome, QuotaRule, QuotaTable};
use crate::{LimitId, Store, StoreSettings};
use portcullis_core::Moment;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// Ten in an hour, and up to four that were left of the last one.
const CARRYING: QuotaRule = QuotaRule { count: 14, carried: 4, ..QuotaRule::new(14, HOUR) };

fn at(seconds: i64) -> Moment {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap());
    Moment { unix_ms: 1_700_000_000_000 + seconds * 1000, monotonic: HOUR + since }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn key<'k>(key: &'k str, last: Option<&'k str>) -> QuotaKey<'k> {
    QuotaKey { key, last }
}

fn quotas(store: &Store, rule: QuotaRule) -> Arc<QuotaTable> {
    store.quotas(&LimitId::new("bank", "hourly"), rule)
}

/// Takes up to so many; how many there were, and which percentages were told of on the way.
fn take(table: &QuotaTable, of: QuotaKey<'_>, most: usize, now: Moment) -> (usize, Vec<u8>) {
    wait(async {
        let mut told = Vec::new();
        for taken in 0..most {
            match table.take_of(table.rule().count, of, now).await.unwrap() {
                QuotaOutcome::Taken { reached, .. } => told.extend(reached),
                QuotaOutcome::Refused { .. } => return (taken, told),
            }
        }
        (most, told)
    })
}

fn left(table: &QuotaTable, of: QuotaKey<'_>, now: Moment) -> (u32, Option<u64>) {
    let standing = wait(table.look(table.rule().count, of, now)).unwrap();
    (standing.remaining, standing.left.map(|left| left.as_secs()))
}

#[test]
fn what_a_window_leaves_is_there_in_the_next_one_up_to_a_bound() {
    let store = Store::in_memory().unwrap();
    let table = quotas(&store, CARRYING);
    let a = key("a", None);
    assert_eq!(left(&table, a, at(0)), (10, None), "nothing was left by a window that never was");
    assert_eq!(take(&table, a, 3, at(0)).0, 3);
    assert_eq!(left(&table, a, at(60)), (7, Some(3540)));
    assert_eq!(left(&table, a, at(3600)), (14, None));
    assert_eq!(take(&table, a, 99, at(3600)).0, 14, "seven were left, and four of them are carried");
    assert_eq!(left(&table, a, at(7200)), (10, None));
    assert_eq!(take(&table, a, 8, at(7200)).0, 8);
    store.sweep(at(10_800));
    assert_eq!(take(&table, a, 99, at(10_800)).0, 12, "two were left");
}

#[test]
fn what_was_left_longer_ago_is_gone() {
    for (second, there) in [(7199, 14), (7200, 10)] {
        let store = Store::in_memory().unwrap();
        let table = quotas(&store, CARRYING);
        assert_eq!(take(&table, key("a", None), 1, at(0)).0, 1);
        store.sweep(at(second));
        assert_eq!(take(&table, key("a", None), 99, at(second)).0, there);
    }
}

#[test]
fn windows_with_keys_of_their_own_leave_to_each_other() {
    let store = Store::in_memory().unwrap();
    let table = quotas(&store, CARRYING);
    assert_eq!(take(&table, key("monday a", Some("sunday a")), 8, at(0)).0, 8);
    let tuesday = key("tuesday a", Some("monday a"));
    assert_eq!(left(&table, tuesday, at(1800)), (12, None));
    assert_eq!(take(&table, tuesday, 99, at(1800)).0, 12);
    assert_eq!(take(&table, key("thursday a", Some("wednesday a")), 99, at(3000)).0, 10);
}

#[test]
fn a_restart_forgets_neither_what_was_left_nor_what_was_carried() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { path: directory.path().join("store") };
    let (a, rule) = (key("a", None), CARRYING);
    let store = Store::open(&settings).unwrap();
    assert_eq!(take(&quotas(&store, rule), a, 7, at(0)).0, 7);
    store.close().unwrap();
    let store = Store::open(&settings).unwrap();
    let table = quotas(&store, rule);
    assert_eq!(left(&table, a, at(60)), (3, Some(3540)), "looked up in the file");
    assert_eq!(take(&table, a, 1, at(3660)).0, 1);
    store.close().unwrap();
    let store = Store::open(&settings).unwrap();
    assert_eq!(take(&quotas(&store, rule), a, 99, at(3700)).0, 12);
}

#[test]
fn each_percentage_is_told_once_a_window() {
    let store = Store::in_memory().unwrap();
    let rule = QuotaRule { alerts: [50, 80, 100, 0], ..QuotaRule::new(10, HOUR) };
    let table = quotas(&store, rule);
    let a = key("a", None);
    assert_eq!(take(&table, a, 4, at(0)).1, [0; 0]);
    for _ in 0..3 {
        let (taken, told) = take(&table, a, 1, at(0));
        assert_eq!(taken, 1);
        assert!(told == [50] || told.is_empty(), "{told:?}");
        table.give_back("a", at(0));
    }
    assert_eq!(take(&table, a, 1, at(0)).1, [0; 0], "it has been told");
    assert_eq!(take(&table, a, 99, at(0)), (5, vec![80, 100]));
    assert_eq!(take(&table, a, 99, at(3600)), (10, vec![50, 80, 100]));
    assert_eq!(take(&table, key("b", None), 10, at(3600)).1, [50, 80, 100]);
}

/// What was carried over is on top: an alert is about how much of the quota itself is left.
#[test]
fn percentages_are_of_what_is_not_carried() {
    let store = Store::in_memory().unwrap();
    let table = quotas(&store, QuotaRule { alerts: [80, 0, 0, 0], ..CARRYING });
    let a = key("a", None);
    assert_eq!(take(&table, a, 7, at(0)).1, [0; 0]);
    assert_eq!(take(&table, a, 1, at(0)).1, [80]);
    assert_eq!(take(&table, key("b", None), 1, at(0)).1, [0; 0]);
    let b = take(&table, key("b", None), 11, at(3600));
    assert_eq!(b, (11, vec![]), "fourteen are there, and three are left");
    assert_eq!(take(&table, key("b", None), 1, at(3600)).1, [80]);
}

#[test]
fn a_caller_may_have_a_count_of_its_own() {
    let store = Store::in_memory().unwrap();
    let table = quotas(&store, QuotaRule::new(1_000, HOUR));
    let takes = |of: &str, count| {
        wait(async {
            let mut taken = 0;
            while let QuotaOutcome::Taken { .. } = table.take_of(count, key(of, None), at(0)).await.unwrap() {
                taken += 1;
            }
            taken
        })
    };
    assert_eq!((takes("a", 5), takes("b", 250), takes("c", 0)), (5, 250, 0));
    assert_eq!((takes("a", 7), takes("a", 2)), (2, 0), "what is used stays used");
}
