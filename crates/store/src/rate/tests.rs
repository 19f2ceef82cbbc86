use super::{RateCells, RateOutcome, RateRule, RateTable};
use crate::MAX_KEY_BYTES;
use proptest::prelude::{Strategy, any, proptest};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Far from zero, as the clock of a process that has run for a while.
const NOW: Duration = Duration::from_secs(3600);

fn rule(count: u64, per: Duration, burst: u64) -> RateRule {
    RateRule { count, per, burst }
}

fn table(rule: RateRule) -> Arc<RateTable> {
    bounded(rule, 1_000).1
}

fn bounded(rule: RateRule, capacity: usize) -> (Arc<RateCells>, Arc<RateTable>) {
    let cells = Arc::new(RateCells::new(capacity));
    let table = RateTable::over(&cells, rule);
    (cells, table)
}

fn is_taken(outcome: RateOutcome) -> bool {
    matches!(outcome, RateOutcome::Taken { .. })
}

fn take_all(table: &RateTable, key: &str, now: Duration) -> u64 {
    let mut taken = 0;
    while is_taken(table.take(key, now)) {
        taken += 1;
    }
    taken
}

#[test]
fn an_idle_caller_may_take_the_burst_and_then_the_steady_rate() {
    let table = table(rule(10, SECOND, 3));
    assert_eq!(table.take("a", NOW), RateOutcome::Taken { remaining: 2, reset: Duration::from_millis(100) });
    assert_eq!(table.take("a", NOW), RateOutcome::Taken { remaining: 1, reset: Duration::from_millis(200) });
    assert_eq!(table.take("a", NOW), RateOutcome::Taken { remaining: 0, reset: Duration::from_millis(300) });
    assert_eq!(table.take("a", NOW), RateOutcome::Refused { retry_after: Duration::from_millis(100) });
    assert_eq!(take_all(&table, "a", NOW + SECOND), 3, "no more than the burst after a pause");
}

#[test]
fn retry_after_is_exact() {
    let table = table(rule(3, SECOND, 1));
    assert!(is_taken(table.take("a", NOW)));
    let RateOutcome::Refused { retry_after } = table.take("a", NOW) else { panic!("taken") };
    assert!(!is_taken(table.take("a", NOW + retry_after - Duration::from_nanos(1))));
    assert!(is_taken(table.take("a", NOW + retry_after)));
}

#[test]
fn a_rule_of_zero_allows_nothing() {
    for none in [rule(0, SECOND, 5), rule(5, SECOND, 0)] {
        let (cells, table) = bounded(none, 10);
        assert_eq!(table.take("a", NOW), RateOutcome::Refused { retry_after: SECOND });
        assert_eq!(cells.held(), 0);
    }
}

#[test]
fn a_refused_request_costs_nothing() {
    let table = table(rule(1, SECOND, 1));
    assert!(is_taken(table.take("a", NOW)));
    for _ in 0..1_000 {
        assert_eq!(table.take("a", NOW), RateOutcome::Refused { retry_after: SECOND });
    }
    assert!(is_taken(table.take("a", NOW + SECOND)));
}

#[test]
fn a_unit_given_back_can_be_taken_again_and_no_more() {
    let table = table(rule(1, SECOND, 2));
    assert_eq!(take_all(&table, "a", NOW), 2);
    table.give_back("a");
    assert_eq!(take_all(&table, "a", NOW), 1);
    for _ in 0..100 {
        table.give_back("a");
    }
    assert_eq!(take_all(&table, "a", NOW), 2, "giving back never saves up more than the burst");
    table.give_back("never seen");
    assert_eq!(take_all(&table, "never seen", NOW), 2);
}

#[test]
fn callers_do_not_share_a_cell() {
    let table = table(rule(1, SECOND, 1));
    for key in ["a", "b", "", "a\0b", "a|b"] {
        assert!(is_taken(table.take(key, NOW)), "{key:?}");
        assert!(!is_taken(table.take(key, NOW)), "{key:?}");
    }
}

#[test]
fn an_older_reading_of_the_clock_forgives_nothing() {
    let table = table(rule(1, SECOND, 1));
    assert!(is_taken(table.take("a", NOW)));
    for earlier in [Duration::ZERO, NOW - SECOND, NOW] {
        assert!(!is_taken(table.take("a", earlier)), "{earlier:?}");
    }
}

#[test]
fn threads_together_admit_exactly_the_burst() {
    let table = table(rule(1, SECOND, 5_000));
    let taken: u64 = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..1_000).filter(|_| is_taken(table.take("a", NOW))).count() as u64))
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(taken, 5_000);
}

#[test]
fn sweeping_while_threads_take_loses_no_unit() {
    for _ in 0..50 {
        let (cells, table) = bounded(rule(1, SECOND, 10), 1_000);
        let keys: Vec<String> = (0..20).map(|n| format!("caller {n}")).collect();
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let all = keys.iter().cycle().take(20 * 10);
                        all.filter(|key| is_taken(table.take(key, NOW))).count()
                    })
                })
                .collect();
            for _ in 0..20 {
                cells.sweep(NOW);
            }
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 200);
        assert_eq!(cells.held(), 20);
    }
}

#[test]
fn a_sweep_drops_idle_cells_only() {
    let (cells, table) = bounded(rule(1, SECOND, 10), 1_000);
    assert_eq!(take_all(&table, "busy", NOW), 10);
    assert!(is_taken(table.take("once", NOW)));
    cells.sweep(NOW);
    assert_eq!(cells.held(), 2);
    cells.sweep(NOW + SECOND);
    assert_eq!(cells.held(), 1);
    assert_eq!(take_all(&table, "busy", NOW + SECOND), 1, "what it had used is still used");
    assert_eq!(take_all(&table, "once", NOW + SECOND), 10);
}

#[test]
fn a_full_table_answers_strangers_by_one_shared_cell_and_forgives_nobody() {
    let (cells, table) = bounded(rule(1, SECOND, 5), 3);
    for key in ["a", "b", "c"] {
        assert_eq!(take_all(&table, key, NOW), 5);
    }
    let strangers: u64 = (0..100).map(|n| take_all(&table, &format!("stranger {n}"), NOW)).sum();
    assert_eq!((strangers, cells.held()), (5, 3));
    assert!(cells.overflowed() > 100);
    assert!(!is_taken(table.take("a", NOW)), "its debt was not washed off");

    let later = NOW + SECOND * 10;
    cells.sweep(later);
    assert_eq!(take_all(&table, "stranger 1", later), 5);
    assert_eq!(take_all(&table, "stranger 2", later), 5, "there is room again");
}

#[test]
fn the_bound_holds_when_threads_bring_new_keys() {
    let (cells, table) = bounded(rule(1, SECOND, 1), 100);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let table = &table;
            scope.spawn(move || {
                for n in 0..500 {
                    table.take(&format!("{thread} {n}"), NOW);
                }
            });
        }
    });
    assert_eq!(cells.held(), 100);
    assert_eq!(cells.map.len(), 100);
}

#[test]
fn a_key_without_end_gets_no_cell_of_its_own() {
    let (cells, table) = bounded(rule(1, SECOND, 1), 10);
    assert!(is_taken(table.take(&"k".repeat(MAX_KEY_BYTES), NOW)));
    assert_eq!(cells.held(), 1);
    assert!(is_taken(table.take(&"x".repeat(MAX_KEY_BYTES + 1), NOW)));
    assert!(!is_taken(table.take(&"y".repeat(1 << 20), NOW)));
    assert_eq!(cells.held(), 1);
}

#[test]
fn a_changed_rule_goes_on_with_the_cells_it_finds() {
    let (cells, before) = bounded(rule(10, SECOND, 10), 10);
    assert_eq!(take_all(&before, "a", NOW), 10);
    let after = RateTable::over(&cells, rule(10, SECOND, 20));
    assert_eq!(take_all(&after, "a", NOW), 10, "ten of the twenty were used before");
    assert_eq!(take_all(&before, "a", NOW), 0, "the old snapshot sees the same counter");
}

#[test]
fn a_debt_of_an_older_rule_is_cut_to_the_burst_of_the_longest_living_one() {
    let day = SECOND * 86_400;
    let (cells, slow) = bounded(rule(1, day, 10), 10);
    assert_eq!(take_all(&slow, "a", NOW), 10);
    let quick = RateTable::over(&cells, rule(1, SECOND, 10));
    cells.sweep(NOW);
    assert!(!is_taken(quick.take("a", NOW + SECOND * 11)), "the old rule is still in force for somebody");
    drop(slow);
    cells.sweep(NOW);
    assert!(!is_taken(quick.take("a", NOW)), "the whole of the new burst is used up");
    assert!(is_taken(quick.take("a", NOW + SECOND)));
}

#[test]
fn a_rule_that_was_never_put_in_force_cuts_nothing() {
    let (cells, table) = bounded(rule(1, SECOND * 3600, 10), 10);
    assert_eq!(take_all(&table, "a", NOW), 10);
    drop(RateTable::over(&cells, rule(1000, SECOND, 1)));
    cells.sweep(NOW);
    assert!(!is_taken(table.take("a", NOW + SECOND * 3599)));
}

#[test]
fn numbers_without_measure_neither_panic_nor_open() {
    let extremes = [1, 2, u64::MAX / 2, u64::MAX];
    for count in extremes {
        for burst in extremes {
            for per in [Duration::from_nanos(1), SECOND, Duration::MAX] {
                for instant in [Duration::ZERO, NOW, Duration::MAX] {
                    let (cells, table) = bounded(rule(count, per, burst), 10);
                    assert!(is_taken(table.take("a", instant)), "{count} {burst} {per:?} {instant:?}");
                    table.give_back("a");
                    cells.sweep(instant);
                    if burst == 1 {
                        assert!(is_taken(table.take("a", instant)));
                        assert!(!is_taken(table.take("a", instant)), "{count} {burst} {per:?} {instant:?}");
                    }
                }
            }
        }
    }
}

/// A leaky bucket, told the way people think of it: so many units there, and one more every interval.
struct Bucket {
    interval_ns: u128,
    capacity_ns: u128,
    level_ns: u128,
    at_ns: u128,
}

impl Bucket {
    fn of(rule: RateRule) -> Self {
        let interval_ns = rule.per.as_nanos().div_ceil(u128::from(rule.count));
        let capacity_ns = interval_ns * u128::from(rule.burst);
        Self { interval_ns, capacity_ns, level_ns: capacity_ns, at_ns: 0 }
    }

    fn take(&mut self, now: Duration) -> bool {
        let now_ns = now.as_nanos();
        self.level_ns = (self.level_ns + now_ns - self.at_ns).min(self.capacity_ns);
        self.at_ns = now_ns;
        let there = self.level_ns >= self.interval_ns;
        if there {
            self.level_ns -= self.interval_ns;
        }
        there
    }

    fn give_back(&mut self) {
        self.level_ns = (self.level_ns + self.interval_ns).min(self.capacity_ns);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    GiveBack,
    Wait(u64),
    Sweep,
}

fn step(longest_ns: u64) -> impl Strategy<Value = Step> {
    (any::<u8>(), 0..=longest_ns).prop_map(|(kind, wait)| match kind {
        0..=159 => Step::Take,
        160..=179 => Step::GiveBack,
        180..=199 => Step::Sweep,
        _ => Step::Wait(wait),
    })
}

proptest! {
    #[test]
    fn a_cell_decides_as_a_leaky_bucket_does(
        count in 1_u64..50,
        per_ns in 1_u64..10_000_000_000,
        burst in 1_u64..20,
        steps in (1_u64..5_000_000_000).prop_flat_map(|longest| proptest::collection::vec(step(longest), 1..200)),
    ) {
        let rule = rule(count, Duration::from_nanos(per_ns), burst);
        let (cells, table) = bounded(rule, 10);
        let mut bucket = Bucket::of(rule);
        let mut now = NOW;
        for step in steps {
            match step {
                Step::Take => assert_eq!(is_taken(table.take("a", now)), bucket.take(now)),
                Step::Wait(ns) => now += Duration::from_nanos(ns),
                Step::Sweep => cells.sweep(now),
                Step::GiveBack => {
                    // As a request does it: at the moment of its own take.
                    let taken = is_taken(table.take("a", now));
                    assert_eq!(taken, bucket.take(now));
                    if taken {
                        table.give_back("a");
                        bucket.give_back();
                    }
                }
            }
        }
    }
}
