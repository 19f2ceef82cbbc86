use super::{Algorithm, CellKind, RateCells, RateOutcome, RateRule, RateTable, RateUnit};
use crate::MAX_KEY_BYTES;
use portcullis_core::Moment;
use proptest::prelude::{Strategy, any, proptest};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Far from zero, as the clock of a process that has run for a while.
const NOW: Duration = Duration::from_secs(3600);

fn rule(count: u64, per: Duration, burst: u64) -> RateRule {
    RateRule { count, per, burst, algorithm: Algorithm::Gcra }
}

fn table(rule: RateRule) -> Arc<RateTable> {
    bounded(rule, 1_000).1
}

fn bounded(rule: RateRule, capacity: usize) -> (Arc<RateCells>, Arc<RateTable>) {
    let cells = Arc::new(RateCells::new(CellKind::Drained, capacity, Arc::default()));
    let table = RateTable::over(&cells, rule);
    (cells, table)
}

fn at(monotonic: Duration) -> Moment {
    Moment { unix_ms: 0, monotonic }
}

impl RateTable {
    fn take_at(&self, key: &str, monotonic: Duration) -> RateOutcome {
        self.take(key, at(monotonic))
    }

    /// Gives a unit back in the moment it was taken.
    fn undo(&self, key: &str, monotonic: Duration) {
        let unit = RateUnit { count: self.rule.count, taken: at(monotonic), reset: Duration::MAX };
        self.give_back(key, unit, at(monotonic));
    }
}

fn is_taken(outcome: RateOutcome) -> bool {
    matches!(outcome, RateOutcome::Taken { .. })
}

fn take_all(table: &RateTable, key: &str, now: Duration) -> u64 {
    let mut taken = 0;
    while is_taken(table.take_at(key, now)) {
        taken += 1;
    }
    taken
}

#[test]
fn an_idle_caller_may_take_the_burst_and_then_the_steady_rate() {
    let table = table(rule(10, SECOND, 3));
    assert_eq!(
        table.take_at("a", NOW),
        RateOutcome::Taken { remaining: 2, reset: Duration::from_millis(100) }
    );
    assert_eq!(
        table.take_at("a", NOW),
        RateOutcome::Taken { remaining: 1, reset: Duration::from_millis(200) }
    );
    assert_eq!(
        table.take_at("a", NOW),
        RateOutcome::Taken { remaining: 0, reset: Duration::from_millis(300) }
    );
    assert_eq!(table.take_at("a", NOW), RateOutcome::Refused { retry_after: Duration::from_millis(100) });
    assert_eq!(take_all(&table, "a", NOW + SECOND), 3, "no more than the burst after a pause");
}

#[test]
fn retry_after_is_exact() {
    let table = table(rule(3, SECOND, 1));
    assert!(is_taken(table.take_at("a", NOW)));
    let RateOutcome::Refused { retry_after } = table.take_at("a", NOW) else { panic!("taken") };
    assert!(!is_taken(table.take_at("a", NOW + retry_after - Duration::from_nanos(1))));
    assert!(is_taken(table.take_at("a", NOW + retry_after)));
}

#[test]
fn a_rule_of_zero_allows_nothing() {
    for none in [rule(0, SECOND, 5), rule(5, SECOND, 0)] {
        let (cells, table) = bounded(none, 10);
        assert_eq!(table.take_at("a", NOW), RateOutcome::Refused { retry_after: SECOND });
        assert_eq!(cells.held(), 0);
    }
}

#[test]
fn a_refused_request_costs_nothing() {
    let table = table(rule(1, SECOND, 1));
    assert!(is_taken(table.take_at("a", NOW)));
    for _ in 0..1_000 {
        assert_eq!(table.take_at("a", NOW), RateOutcome::Refused { retry_after: SECOND });
    }
    assert!(is_taken(table.take_at("a", NOW + SECOND)));
}

#[test]
fn a_unit_given_back_can_be_taken_again_and_no_more() {
    let table = table(rule(1, SECOND, 2));
    assert_eq!(take_all(&table, "a", NOW), 2);
    table.undo("a", NOW);
    assert_eq!(take_all(&table, "a", NOW), 1);
    for _ in 0..100 {
        table.undo("a", NOW);
    }
    assert_eq!(take_all(&table, "a", NOW), 2, "giving back never saves up more than the burst");
    table.undo("never seen", NOW);
    assert_eq!(take_all(&table, "never seen", NOW), 2);
}

#[test]
fn callers_do_not_share_a_cell() {
    let table = table(rule(1, SECOND, 1));
    for key in ["a", "b", "", "a\0b", "a|b"] {
        assert!(is_taken(table.take_at(key, NOW)), "{key:?}");
        assert!(!is_taken(table.take_at(key, NOW)), "{key:?}");
    }
}

#[test]
fn an_older_reading_of_the_clock_forgives_nothing() {
    let table = table(rule(1, SECOND, 1));
    assert!(is_taken(table.take_at("a", NOW)));
    for earlier in [Duration::ZERO, NOW - SECOND, NOW] {
        assert!(!is_taken(table.take_at("a", earlier)), "{earlier:?}");
    }
}

#[test]
fn threads_together_admit_exactly_the_burst() {
    let table = table(rule(1, SECOND, 5_000));
    let taken: u64 = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..1_000).filter(|_| is_taken(table.take_at("a", NOW))).count() as u64))
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
                        all.filter(|key| is_taken(table.take_at(key, NOW))).count()
                    })
                })
                .collect();
            for _ in 0..20 {
                cells.sweep(at(NOW));
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
    assert!(is_taken(table.take_at("once", NOW)));
    cells.sweep(at(NOW));
    assert_eq!(cells.held(), 2);
    cells.sweep(at(NOW + SECOND));
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
    assert!(!is_taken(table.take_at("a", NOW)), "its debt was not washed off");

    let later = NOW + SECOND * 10;
    cells.sweep(at(later));
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
                    table.take_at(&format!("{thread} {n}"), NOW);
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
    assert!(is_taken(table.take_at(&"k".repeat(MAX_KEY_BYTES), NOW)));
    assert_eq!(cells.held(), 1);
    assert!(is_taken(table.take_at(&"x".repeat(MAX_KEY_BYTES + 1), NOW)));
    assert!(!is_taken(table.take_at(&"y".repeat(1 << 20), NOW)));
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
    cells.sweep(at(NOW));
    assert!(!is_taken(quick.take_at("a", NOW + SECOND * 11)), "the old rule is still in force for somebody");
    drop(slow);
    cells.sweep(at(NOW));
    assert!(!is_taken(quick.take_at("a", NOW)), "the whole of the new burst is used up");
    assert!(is_taken(quick.take_at("a", NOW + SECOND)));
}

#[test]
fn a_rule_that_was_never_put_in_force_cuts_nothing() {
    let (cells, table) = bounded(rule(1, SECOND * 3600, 10), 10);
    assert_eq!(take_all(&table, "a", NOW), 10);
    drop(RateTable::over(&cells, rule(1000, SECOND, 1)));
    cells.sweep(at(NOW));
    assert!(!is_taken(table.take_at("a", NOW + SECOND * 3599)));
}

#[test]
fn numbers_without_measure_neither_panic_nor_open() {
    let extremes = [1, 2, u64::MAX / 2, u64::MAX];
    for count in extremes {
        for burst in extremes {
            for per in [Duration::from_nanos(1), SECOND, Duration::MAX] {
                for instant in [Duration::ZERO, NOW, Duration::MAX] {
                    let (cells, table) = bounded(rule(count, per, burst), 10);
                    assert!(is_taken(table.take_at("a", instant)), "{count} {burst} {per:?} {instant:?}");
                    table.undo("a", instant);
                    cells.sweep(at(instant));
                    if burst == 1 {
                        assert!(is_taken(table.take_at("a", instant)));
                        assert!(
                            !is_taken(table.take_at("a", instant)),
                            "{count} {burst} {per:?} {instant:?}"
                        );
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
                Step::Take => assert_eq!(is_taken(table.take_at("a", now)), bucket.take(now)),
                Step::Wait(ns) => now += Duration::from_nanos(ns),
                Step::Sweep => cells.sweep(at(now)),
                Step::GiveBack => {
                    // As a request does it: at the moment of its own take.
                    let taken = is_taken(table.take_at("a", now));
                    assert_eq!(taken, bucket.take(now));
                    if taken {
                        table.undo("a", now);
                        bucket.give_back();
                    }
                }
            }
        }
    }

    /// A unit that is given back late never leaves its caller with more than they would have had without it.
    #[test]
    fn a_unit_given_back_late_gives_nothing_more(
        count in 1_u64..20,
        burst in 1_u64..10,
        before in 0..10,
        waits in proptest::collection::vec((0_u64..300_000_000, any::<bool>()), 0..30),
    ) {
        let rule = rule(count, SECOND, burst);
        let (with, without) = (table(rule), table(rule));
        for _ in 0..before {
            assert_eq!(with.take_at("a", NOW), without.take_at("a", NOW));
        }
        let RateOutcome::Taken { reset, .. } = with.take_at("a", NOW) else { return Ok(()) };
        let mut now = NOW;
        for (wait, take) in waits {
            now += Duration::from_nanos(wait);
            if take && is_taken(with.take_at("a", now)) {
                assert!(is_taken(without.take_at("a", now)));
            }
        }
        with.give_back("a", RateUnit { count, taken: at(NOW), reset }, at(now));
        let (with, without) = (with.look(count, "a", at(now)), without.look(count, "a", at(now)));
        assert!(with.remaining <= without.remaining && with.reset >= without.reset, "{with:?} {without:?}");
    }
}
