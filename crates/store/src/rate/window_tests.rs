use super::window::MOST_IN_A_WINDOW;
use super::{Algorithm, CellKind, RateCells, RateOutcome, RateRule, RateTable, RateUnit};
use portcullis_core::Moment;
use proptest::prelude::{any, proptest};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// Where a minute of the wall clock begins.
const BEGINNING_MS: i64 = 1_790_000_040_000;

fn at(ms: i64) -> Moment {
    let since = Duration::from_millis(u64::try_from(3_600_000 + ms).unwrap());
    Moment { unix_ms: BEGINNING_MS + ms, monotonic: since }
}

fn counting(algorithm: Algorithm, count: u64) -> (Arc<RateCells>, Arc<RateTable>) {
    let rule = RateRule { count, per: MINUTE, burst: count, algorithm };
    let cells = Arc::new(RateCells::new(CellKind::of(rule), 100, Arc::default()));
    // The first reading is what windows are aligned by.
    cells.clock.at(at(0));
    let table = RateTable::over(&cells, rule);
    (cells, table)
}

fn take_all(table: &RateTable, ms: i64) -> u64 {
    (0..).take_while(|_| matches!(table.take("a", at(ms)), RateOutcome::Taken { .. })).count() as u64
}

fn wait_ms(table: &RateTable, ms: i64) -> i64 {
    match table.take("a", at(ms)) {
        RateOutcome::Refused { retry_after } => i64::try_from(retry_after.as_millis()).unwrap(),
        taken @ RateOutcome::Taken { .. } => panic!("{taken:?}"),
    }
}

#[test]
fn fixed_windows_are_those_of_the_clock() {
    let (_, table) = counting(Algorithm::FixedWindow, 3);
    let taken = |remaining, seconds| RateOutcome::Taken { remaining, reset: Duration::from_secs(seconds) };
    assert_eq!(table.take("a", at(50_000)), taken(2, 10));
    assert_eq!(table.take("a", at(50_000)), taken(1, 10));
    assert_eq!(table.take("a", at(59_000)), taken(0, 1));
    assert_eq!(wait_ms(&table, 59_999), 1);
    assert_eq!(table.take("a", at(60_000)), taken(2, 60), "the minute begins anew");
    assert_eq!(take_all(&table, 60_000), 2);
    assert_eq!(take_all(&table, 600_000), 3);
}

#[test]
fn a_sliding_window_counts_the_part_of_the_last_one_that_still_lies_in_it() {
    let (_, table) = counting(Algorithm::SlidingWindow, 10);
    assert_eq!(take_all(&table, 59_000), 10);
    assert_eq!(take_all(&table, 60_000), 0, "around a boundary nothing passes twice");
    assert_eq!(wait_ms(&table, 60_000), 6_000);
    assert_eq!(take_all(&table, 65_999), 0);
    assert_eq!(take_all(&table, 66_000), 1);
    assert_eq!(take_all(&table, 90_000), 4, "half of the last one, and five of this");
    assert_eq!(take_all(&table, 119_999), 4);
    assert_eq!(take_all(&table, 240_000), 10);
}

#[test]
fn a_refused_request_costs_nothing_and_the_wait_is_exact() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        for count in [1, 2, 7, 60] {
            let (_, table) = counting(algorithm, count);
            let mut now = 12_345;
            for _ in 0..200 {
                take_all(&table, now);
                let wait = wait_ms(&table, now);
                assert!(wait > 0);
                assert!((0..20).all(|_| wait_ms(&table, now + wait - 1) > 0));
                now += wait;
                assert!(take_all(&table, now) > 0, "{algorithm:?} {count} {now}");
            }
        }
    }
}

#[test]
fn a_unit_is_given_back_to_its_own_window() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (_, table) = counting(algorithm, 4);
        let unit = |ms| RateUnit { count: 4, taken: at(ms), reset: MINUTE };
        assert_eq!(take_all(&table, 1_000), 4);
        table.give_back("a", unit(1_000), at(1_000));
        assert_eq!(take_all(&table, 1_000), 1);
        let fresh = take_all(&table, 119_000);
        // Of the last window: it frees nothing of this one but what still weighs.
        (0..10).for_each(|_| table.give_back("a", unit(1_000), at(119_000)));
        let more = take_all(&table, 119_000);
        assert_eq!((fresh, more), if algorithm == Algorithm::FixedWindow { (4, 0) } else { (3, 1) });
        (0..10).for_each(|_| table.give_back("a", unit(1_000), at(200_000)));
        assert!(take_all(&table, 200_000) <= 4);
        table.give_back("never seen", unit(1_000), at(1_000));
    }
}

#[test]
fn an_older_reading_and_a_clock_that_is_set_forgive_nothing() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (_, table) = counting(algorithm, 2);
        assert_eq!(take_all(&table, 61_000), 2);
        assert_eq!(take_all(&table, 59_000), 0, "another thread has read the clock earlier");
        for by in [-86_400_000, 60_000, 86_400_000] {
            let set = Moment { unix_ms: BEGINNING_MS + by, ..at(62_000) };
            assert!(matches!(table.take("a", set), RateOutcome::Refused { .. }), "{by}");
        }
    }
}

#[test]
fn a_sweep_drops_what_is_past_and_nothing_else() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (cells, table) = counting(algorithm, 2);
        assert_eq!(take_all(&table, 1_000), 2);
        cells.sweep(at(59_999));
        cells.sweep(at(119_999));
        assert_eq!(cells.held(), 1, "the last window still counts");
        cells.sweep(at(120_000));
        assert_eq!((cells.held(), cells.map.len()), (0, 0));
        assert_eq!(take_all(&table, 120_000), 2);
    }
}

fn taken_one() -> RateOutcome {
    RateOutcome::Taken { remaining: 0, reset: MINUTE }
}

#[test]
fn strangers_of_a_full_table_are_served_again_however_long_it_takes() {
    let (cells, table) = counting(Algorithm::FixedWindow, 1);
    assert_eq!((0..200).filter(|n| table.take(&n.to_string(), at(0)) == taken_one()).count(), 101);
    assert_eq!((cells.held(), cells.overflowed()), (100, 100));
    cells.sweep(at(120_000));
    // Half of all numbers of windows later, and a little less.
    let years = 60_000 * (1 << 23);
    (0..100)
        .for_each(|n| assert!(matches!(table.take(&n.to_string(), at(years)), RateOutcome::Taken { .. })));
    assert!(matches!(table.take("stranger", at(years)), RateOutcome::Taken { .. }));
}

#[test]
fn looking_takes_nothing_and_says_what_a_take_would() {
    for algorithm in [Algorithm::Gcra, Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (cells, table) = counting(algorithm, 5);
        assert_eq!(table.look(5, "a", at(0)).remaining, 5);
        assert_eq!(cells.held(), 0);
        for left in (0..5).rev() {
            assert!(matches!(table.take("a", at(0)), RateOutcome::Taken { .. }));
            let standing = table.look(5, "a", at(0));
            assert_eq!(standing.remaining, left, "{algorithm:?}");
            assert!(standing.reset > Duration::ZERO);
        }
        assert_eq!(table.look(5, "a", at(300_000)).remaining, 5);
        assert_eq!(table.look(5, "a", at(300_000)).reset, Duration::ZERO);
    }
}

#[test]
fn a_caller_may_have_a_count_of_its_own() {
    for algorithm in [Algorithm::Gcra, Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (_, table) = counting(algorithm, 100);
        let takes = |key: &str, count: u64| {
            (0..200).filter(|_| matches!(table.take_of(count, key, at(0)), RateOutcome::Taken { .. })).count()
        };
        assert_eq!((takes("three", 3), takes("all", 100), takes("none", 0)), (3, 100, 0), "{algorithm:?}");
        // It has been given more: what is used stays used, as units of windows, and as time of a pace.
        let more = if algorithm == Algorithm::Gcra { 0 } else { 7 };
        assert_eq!(takes("three", 10), more, "{algorithm:?}");
    }
}

#[test]
fn threads_together_admit_exactly_the_count() {
    let (cells, table) = counting(Algorithm::SlidingWindow, 5_000);
    let taken: u64 = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let one = || matches!(table.take("a", at(0)), RateOutcome::Taken { .. });
                    (0..1_000).filter(|_| one()).count() as u64
                })
            })
            .collect();
        (0..50).for_each(|_| cells.sweep(at(0)));
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(taken, 5_000);
}

#[test]
fn the_largest_count_fits_its_cell() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (_, table) = counting(algorithm, u64::MAX);
        assert_eq!(take_all(&table, 0), MOST_IN_A_WINDOW);
        assert_eq!(table.look(u64::MAX, "a", at(0)).remaining, 0);
    }
}

proptest! {
    /// The bound that `window.rs` states: no stretch of time `t`, up to a period, sees more than `n * (1 + t / p)`.
    #[test]
    fn the_error_of_a_sliding_window_is_bounded(
        count in 1_u64..40,
        steps in proptest::collection::vec((0_i64..20_000, 1_usize..30), 1..120),
        swept in any::<bool>(),
    ) {
        let (cells, table) = counting(Algorithm::SlidingWindow, count);
        let (mut now, mut passed) = (0, VecDeque::new());
        for (wait, tries) in steps {
            now += wait;
            if swept {
                cells.sweep(at(now));
            }
            for _ in 0..tries {
                if matches!(table.take("a", at(now)), RateOutcome::Taken { .. }) {
                    passed.push_back(now);
                }
            }
            while passed.front().is_some_and(|first| now - first > 60_000) {
                passed.pop_front();
            }
            for (before, first) in passed.iter().enumerate() {
                let seen = (passed.len() - before) as u64;
                let stretch = u64::try_from(now - first).unwrap();
                assert!(seen * 60_000 <= count * (60_000 + stretch), "{seen} of {count} in {stretch} ms");
            }
        }
    }
}
