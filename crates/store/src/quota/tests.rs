use super::{Asked, QuotaCell, QuotaOutcome, QuotaRule, QuotaTable};
use crate::{LARGEST_BLOCK, LimitId, MAX_KEY_BYTES, Store, StoreError};
use portcullis_core::Moment;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn rule(count: u32, per: Duration) -> QuotaRule {
    QuotaRule::new(count, per)
}

fn limit() -> LimitId {
    LimitId::new("open-banking", "daily")
}

/// Both clocks, so many seconds after a beginning.
fn at(seconds: i64) -> Moment {
    at_ms(seconds * 1000)
}

fn at_ms(ms: i64) -> Moment {
    Moment {
        unix_ms: 1_700_000_000_000 + ms,
        monotonic: HOUR + Duration::from_millis(u64::try_from(ms).unwrap()),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn take(table: &QuotaTable, key: &str, now: Moment) -> QuotaOutcome {
    wait(table.take(key, now)).unwrap()
}

fn is_taken(outcome: QuotaOutcome) -> bool {
    matches!(outcome, QuotaOutcome::Taken { .. })
}

fn take_all(table: &QuotaTable, key: &str, now: Moment) -> u32 {
    wait(async {
        let mut taken = 0;
        while is_taken(table.take(key, now).await.unwrap()) {
            taken += 1;
        }
        taken
    })
}

fn table(rule: QuotaRule) -> (Store, Arc<QuotaTable>) {
    let store = Store::in_memory().unwrap();
    let table = store.quotas(&limit(), rule);
    (store, table)
}

#[test]
fn a_window_opens_with_the_first_request_and_lasts_its_period() {
    let (_store, table) = table(rule(2, HOUR));
    assert_eq!(take(&table, "a", at(100)), QuotaOutcome::Taken { remaining: 1, reset: HOUR, reached: None });
    assert_eq!(
        take(&table, "a", at(160)),
        QuotaOutcome::Taken { remaining: 0, reset: HOUR - Duration::from_secs(60), reached: None }
    );
    assert_eq!(take(&table, "a", at(3699)), QuotaOutcome::Refused { retry_after: Duration::from_secs(1) });
    assert_eq!(take(&table, "a", at(3700)), QuotaOutcome::Taken { remaining: 1, reset: HOUR, reached: None });
}

#[test]
fn a_window_that_opens_within_a_second_is_not_shorter_for_it() {
    let (_store, table) = table(rule(1, HOUR));
    assert!(is_taken(take(&table, "first", at_ms(0))));
    assert_eq!(
        take(&table, "a", at_ms(400)),
        QuotaOutcome::Taken { remaining: 0, reset: HOUR, reached: None }
    );
    assert!(!is_taken(take(&table, "a", at_ms(3_600_400))));
    let QuotaOutcome::Refused { retry_after } = take(&table, "a", at_ms(3_600_400)) else { panic!("taken") };
    assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
    assert!(is_taken(take(&table, "a", at_ms(3_601_000))));
}

#[test]
fn a_quota_of_zero_allows_nothing_and_holds_nothing() {
    let (store, table) = table(rule(0, HOUR));
    assert_eq!(take(&table, "a", at(0)), QuotaOutcome::Refused { retry_after: HOUR });
    assert_eq!((store.figures().quota_keys, store.figures().commits), (0, 0));
}

#[test]
fn every_quota_is_admitted_exactly() {
    for count in [1, 2, 3, 99, 100, 101, 199, 200, 201, 1_000, 12_345] {
        let (_store, table) = table(rule(count, HOUR));
        assert_eq!(take_all(&table, "a", at(0)), count);
        assert_eq!(take_all(&table, "a", at(3599)), 0);
        assert_eq!(take_all(&table, "a", at(3600)), count);
    }
}

#[test]
fn threads_together_admit_exactly_the_quota() {
    for count in [1_u32, 50, 3_000] {
        let (_store, table) = table(rule(count, HOUR));
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        wait(async {
                            let mut taken = 0;
                            for _ in 0..500 {
                                taken += usize::from(is_taken(table.take("a", at(0)).await.unwrap()));
                            }
                            taken
                        })
                    })
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, usize::try_from(count).unwrap());
    }
}

#[test]
fn the_last_unit_goes_to_one_of_many() {
    let (_store, table) = table(rule(1, HOUR));
    for round in 0..200 {
        let key = format!("caller {round}");
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| usize::from(is_taken(take(&table, &key, at(0)))))).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 1);
    }
}

#[test]
fn setting_the_wall_clock_gives_no_second_quota_and_freezes_none() {
    let day_ms = 86_400_000;
    let (_store, table) = table(rule(3, HOUR * 24));
    assert_eq!(take_all(&table, "a", at(0)), 3);
    for jump_ms in [-3_600_000, 3_600_000, -day_ms, day_ms, -400 * day_ms, 400 * day_ms] {
        let now = Moment { unix_ms: at(60).unix_ms + jump_ms, ..at(60) };
        assert_eq!(take_all(&table, "a", now), 0, "{jump_ms}");
    }
    let after_a_day = Moment { unix_ms: 0, ..at(86_400) };
    assert_eq!(take_all(&table, "a", after_a_day), 3);
}

#[test]
fn an_older_reading_of_the_clock_neither_fails_nor_reopens() {
    let (_store, table) = table(rule(2, HOUR));
    assert!(is_taken(take(&table, "a", at(5_000))));
    assert!(is_taken(take(&table, "a", at(10))));
    assert!(!is_taken(take(&table, "a", at(10))));
    assert!(!is_taken(take(&table, "a", at(5_001))));
}

#[test]
fn a_unit_given_back_can_be_taken_again_and_no_more() {
    let (_store, table) = table(rule(2, HOUR));
    assert_eq!(take_all(&table, "a", at(0)), 2);
    table.give_back("a", at(0));
    assert_eq!(take_all(&table, "a", at(0)), 1);
    for _ in 0..10 {
        table.give_back("a", at(0));
    }
    assert_eq!(take_all(&table, "a", at(0)), 2);
    table.give_back("never seen", at(0));
    assert_eq!(take_all(&table, "never seen", at(0)), 2);
}

#[test]
fn a_unit_of_the_last_window_is_not_given_back_to_this_one() {
    let (_store, table) = table(rule(2, HOUR));
    assert_eq!(take_all(&table, "a", at(0)), 2);
    assert_eq!(take_all(&table, "a", at(3600)), 2);
    table.give_back("a", at(3599));
    assert_eq!(take_all(&table, "a", at(3600)), 0);
}

#[test]
fn a_changed_count_keeps_what_is_used() {
    let (store, five) = table(rule(5, HOUR));
    assert_eq!(take_all(&five, "a", at(0)), 5);
    let eight = store.quotas(&limit(), rule(8, HOUR));
    assert_eq!(take_all(&eight, "a", at(1)), 3);
    let two = store.quotas(&limit(), rule(2, HOUR));
    assert_eq!(take(&two, "a", at(2)), QuotaOutcome::Refused { retry_after: HOUR - Duration::from_secs(2) });
    assert_eq!(take_all(&five, "a", at(2)), 0, "an old snapshot sees the same counter");
}

#[test]
fn a_changed_period_judges_the_window_that_is_open() {
    let (store, hourly) = table(rule(2, HOUR));
    assert_eq!(take_all(&hourly, "a", at(0)), 2);
    let daily = store.quotas(&limit(), rule(2, HOUR * 24));
    store.sweep(at(3600));
    assert_eq!(take_all(&daily, "a", at(3600)), 0);
    let minute = store.quotas(&limit(), rule(2, Duration::from_secs(60)));
    assert_eq!(take_all(&minute, "a", at(3600)), 2);
}

#[test]
fn a_rule_that_was_never_put_in_force_ends_no_window() {
    let (store, daily) = table(rule(300, HOUR * 24));
    assert_eq!(take_all(&daily, "a", at(0)), 300);
    assert!(is_taken(take(&daily, "b", at(0))));
    drop(store.quotas(&limit(), rule(300, Duration::from_secs(1))));
    store.sweep(at(3600));
    assert_eq!(store.figures().quota_keys, 2);
    assert_eq!(take_all(&daily, "b", at(3600)), 299);
}

#[test]
fn limits_do_not_share_counters_whatever_their_names() {
    let store = Store::in_memory().unwrap();
    for (api, limit) in [("a", "b"), ("a/b", ""), ("", "a/b"), ("ab", ""), ("a", "c")] {
        let table = store.quotas(&LimitId::new(api, limit), rule(1, HOUR));
        assert_eq!(take_all(&table, "caller", at(0)), 1, "{api:?} {limit:?}");
    }
}

#[test]
fn a_key_without_end_is_an_error_and_not_an_answer() {
    let (_store, table) = table(rule(5, HOUR));
    assert!(is_taken(take(&table, &"k".repeat(MAX_KEY_BYTES), at(0))));
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    assert_eq!(wait(table.take(&long, at(0))), Err(StoreError::KeyTooLong));
}

#[test]
fn in_steady_state_nobody_waits() {
    let (store, table) = table(rule(1_000_000, HOUR));
    assert!(is_taken(take(&table, "a", at(0))));
    let cell = table.cells.find("a").unwrap();
    for _ in 0..20 {
        let durable = cell.durable();
        // Half a block: what is left when the background is asked for more.
        for _ in 0..LARGEST_BLOCK / 2 {
            let mut pending = pin!(table.take("a", at(0)));
            let polled = pending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Ok(QuotaOutcome::Taken { .. }))));
        }
        while cell.durable() == durable || cell.has_asked() {
            std::thread::yield_now();
        }
    }
    assert_eq!(
        store.figures().commits,
        21,
        "one commit opens the window, and one each half block extends it"
    );
}

#[test]
fn windows_that_are_over_leave_memory() {
    let (store, table) = table(rule(5, HOUR));
    for n in 0..10 {
        assert!(is_taken(take(&table, &format!("caller {n}"), at(0))));
    }
    assert!(is_taken(take(&table, "late", at(1800))));
    store.sweep(at(3599));
    assert_eq!(store.figures().quota_keys, 11);
    store.sweep(at(3600));
    assert_eq!(store.figures().quota_keys, 1);
    assert_eq!(take_all(&table, "late", at(3600)), 4);
    assert_eq!(take_all(&table, "caller 1", at(3600)), 5);
}

#[test]
fn blocks_are_a_hundredth_within_bounds() {
    let blocks = [(1, 1), (100, 1), (199, 1), (200, 2), (10_000, 100), (102_400, 1024), (u32::MAX, 1024)];
    for (count, block) in blocks {
        assert_eq!(rule(count, HOUR).block(), block, "{count}");
    }
}

#[test]
fn periods_are_whole_seconds_within_bounds() {
    let ms = Duration::from_millis;
    let periods = [(ms(1), 1), (ms(1000), 1), (ms(1001), 2), (HOUR, 3600), (Duration::MAX, u32::MAX)];
    for (per, seconds) in periods {
        assert_eq!(rule(1, per).period(), seconds, "{per:?}");
    }
}

#[test]
fn the_largest_quota_ends_where_it_says() {
    let largest = rule(u32::MAX, HOUR);
    let cell = QuotaCell::new(Arc::from("a"), 10, 3600, u32::MAX - 1, u32::MAX);
    let Asked::Decided { outcome, extend } = cell.take(10_000, &largest) else { panic!("not decided") };
    assert_eq!(outcome, QuotaOutcome::Taken { remaining: 0, reset: HOUR, reached: None });
    assert!(!extend);
    let refused = QuotaOutcome::Refused { retry_after: HOUR };
    assert_eq!(cell.take(10_000, &largest), Asked::Decided { outcome: refused, extend: false });
    cell.extend(u32::MAX, u32::MAX);
    assert!(matches!(
        cell.take(10_000, &largest),
        Asked::Decided { outcome: QuotaOutcome::Refused { .. }, .. }
    ));
}

#[test]
fn nothing_is_handed_out_that_is_not_durable() {
    let cell = QuotaCell::new(Arc::from("a"), 10, 3600, 0, 2);
    let rule = rule(1_000, HOUR);
    for _ in 0..2 {
        assert!(matches!(cell.take(10_000, &rule), Asked::Decided { .. }));
    }
    assert_eq!(cell.take(10_000, &rule), Asked::Exhausted);
    assert_eq!(cell.retire(), Some(2));
    assert_eq!(cell.take(10_000, &rule), Asked::Retired);
    cell.give_back(u32::MAX);
    assert!(!cell.extend(1, 5), "a retired cell stays retired");
    assert_eq!(cell.retire(), None);
}

#[test]
fn a_closed_store_refuses_what_it_cannot_count() {
    let (store, table) = table(rule(5, HOUR));
    assert!(is_taken(take(&table, "a", at(0))));
    assert!(!store.figures().failing);
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(wait(table.take("a", at(0))), Err(StoreError::Closed));
    assert_eq!(wait(table.take("b", at(0))), Err(StoreError::Closed));
    assert!(store.figures().failing);
    table.give_back("a", at(0));
    store.sweep(at(1));
}
