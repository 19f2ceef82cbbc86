use std::sync::Barrier;
use std::time::Duration;

use portcullis_core::{Clock, ManualClock, Moment, Reason};

use super::{Claim, End, PARTS, Replays, Tag};

const START: i64 = 1_800_000_000;

fn clock() -> (ManualClock, Clock) {
    let manual = ManualClock::at_unix_seconds(START);
    let clock = Clock::Manual(manual.clone());
    manual.advance(Duration::from_secs(1));
    (manual, clock)
}

fn memory() -> Replays {
    Replays::new(Clock::Manual(ManualClock::at_unix_seconds(START)).now())
}

/// JWT-29, DPP-06: one use, whoever asks.
#[test]
fn a_key_is_fresh_once_until_its_end() {
    let (manual, clock) = clock();
    let space = memory().space("dpop");
    let (issued, until) = (START + 1, START + 61);
    assert_eq!(space.claim(b"a", issued, until, clock.now()), Claim::Fresh);
    assert_eq!(space.claim(b"a", issued, until, clock.now()), Claim::Seen);
    assert_eq!(space.claim(b"b", issued, until, clock.now()), Claim::Fresh);
    manual.advance(Duration::from_millis(59_999));
    assert_eq!(space.claim(b"a", issued, until, clock.now()), Claim::Seen);
    // From its end on it is refused whatever is remembered; a later credential may have the same key.
    manual.advance(Duration::from_secs(2));
    assert_eq!(space.claim(b"a", issued, until, clock.now()), Claim::Seen);
    assert_eq!(space.claim(b"a", START + 62, START + 122, clock.now()), Claim::Fresh);
}

#[test]
fn spaces_are_apart_and_a_name_is_a_space() {
    let (_, clock) = clock();
    let memory = memory();
    let now = clock.now();
    let claim = |space: &str, key: &[u8]| memory.space(space).claim(key, START + 1, START + 61, now);
    assert_eq!(claim("jti a", b"bc"), Claim::Fresh);
    assert_eq!(claim("jti ab", b"c"), Claim::Fresh);
    assert_eq!(claim("jti", b" abc"), Claim::Fresh);
    assert_eq!(claim("jti a", b"bc"), Claim::Seen);
    assert_eq!(claim("", b""), Claim::Fresh);
    assert_eq!(claim("", b""), Claim::Seen);
}

/// OPS-01: what an earlier run may have let through is not let through again.
#[test]
fn what_was_issued_before_the_start_is_not_fresh() {
    let (_, clock) = clock();
    let memory = Replays::new(Moment { unix_ms: START * 1000 + 1, ..clock.now() });
    assert_eq!(memory.not_before(), None);
    let space = memory.space("dpop");
    assert_eq!(memory.not_before(), Some(START + 1));
    let until = START + 3600;
    assert_eq!(space.claim(b"a", START, until, clock.now()), Claim::Before);
    assert_eq!(space.claim(b"a", i64::MIN, until, clock.now()), Claim::Before);
    assert_eq!(space.claim(b"a", START + 1, until, clock.now()), Claim::Fresh);
    let refused = Claim::Before.or_refuse(Reason::TokenExpired).expect_err("a refusal");
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
}

/// JWT-29: when full, refuse rather than forget.
#[test]
fn a_full_memory_refuses_and_forgets_nothing() {
    let (manual, clock) = clock();
    let memory = Replays::with_capacity(PARTS * 4, Moment { unix_ms: 0, monotonic: Duration::ZERO });
    let space = memory.space("dpop");
    let claim = |key: u32, until| space.claim(&key.to_be_bytes(), START, until, clock.now());
    let fresh: Vec<u32> = (0..20_000).filter(|key| claim(*key, START + 60) == Claim::Fresh).collect();
    assert_eq!(fresh.len(), PARTS * 4);
    assert_eq!(memory.figures().held, PARTS * 4);
    assert_eq!(memory.figures().full, 20_000 - 1024);
    assert!(fresh.iter().all(|key| claim(*key, START + 60) == Claim::Seen));
    assert_eq!(claim(30_000, START + 60), Claim::Full);
    let refused = Claim::Full.or_refuse(Reason::TokenExpired).expect_err("a refusal");
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
    // Room is made by a claim itself, without a sweep.
    manual.advance(Duration::from_secs(61));
    assert_eq!(claim(30_000, START + 120), Claim::Fresh);
    memory.sweep(clock.now());
    assert_eq!(memory.figures().held, 1);
}

/// OPS-02: a wall clock that is set frees nothing early.
#[test]
fn both_clocks_must_agree_that_an_entry_is_over() {
    let (manual, clock) = clock();
    let memory = memory();
    let space = memory.space("dpop");
    let claim = || space.claim(b"a", START + 1, START + 61, clock.now());
    assert_eq!(claim(), Claim::Fresh);
    manual.set_unix_seconds(START + 7200);
    memory.sweep(clock.now());
    manual.set_unix_seconds(START + 2);
    assert_eq!(claim(), Claim::Seen);
    manual.advance(Duration::from_secs(120));
    manual.set_unix_seconds(START + 30);
    memory.sweep(clock.now());
    assert_eq!(claim(), Claim::Seen);
    manual.advance(Duration::from_secs(60));
    memory.sweep(clock.now());
    assert_eq!(memory.figures().held, 0);
}

#[test]
fn ends_beyond_all_time_are_kept() {
    let (manual, clock) = clock();
    let memory = memory();
    let space = memory.space("jti");
    for until in [i64::MAX, i64::from(u32::MAX) + 5] {
        let key = until.to_be_bytes();
        assert_eq!(space.claim(&key, i64::MAX, until, clock.now()), Claim::Fresh);
        manual.advance(Duration::from_secs(86_400 * 365));
        memory.sweep(clock.now());
        assert_eq!(space.claim(&key, i64::MAX, until, clock.now()), Claim::Seen);
    }
    assert_eq!(space.claim(b"old", START + 1, i64::MIN, clock.now()), Claim::Seen);
}

/// Of many threads that present one credential at once, exactly one gets through.
#[test]
fn one_of_many_at_once_is_fresh() {
    let (_, clock) = clock();
    let (memory, now) = (memory(), clock.now());
    let (threads, rounds) = (4, 2_000_u32);
    let barrier = Barrier::new(threads);
    let fresh: usize = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (space, barrier) = (memory.space("dpop"), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let claim = |key: u32| space.claim(&key.to_be_bytes(), START + 1, START + 61, now);
                    (0..rounds).filter(|key| claim(*key) == Claim::Fresh).count()
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(fresh, rounds as usize);
}

/// What the documentation says of memory.
#[test]
fn an_entry_is_24_bytes_and_a_flood_gives_its_memory_back() {
    assert_eq!(size_of::<(Tag, End)>(), 24);
    let (manual, clock) = clock();
    let memory = memory();
    let space = memory.space("dpop");
    for key in 0..100_000_u32 {
        assert_eq!(space.claim(&key.to_be_bytes(), START + 1, START + 61, clock.now()), Claim::Fresh);
    }
    let room = || memory.0.parts.iter().map(|part| super::lock(part).entries.capacity()).sum::<usize>();
    assert!(room() < 300_000, "{}", room());
    manual.advance(Duration::from_secs(100));
    memory.sweep(clock.now());
    assert!(room() < 2_000, "{}", room());
}

/// JWT-29: whoever has good credentials of their own cannot fill the memory for everybody.
#[test]
fn one_owner_takes_a_share_and_leaves_the_rest() {
    let (manual, clock) = clock();
    let memory = Replays::with_capacity(64 * PARTS, Clock::Manual(ManualClock::at_unix_seconds(START)).now());
    let space = memory.space("jti a");
    let claim = |owner: &[u8], number: u64| {
        let now = clock.now();
        let until = now.unix_seconds() + 100;
        space.claim_for(owner, &number.to_be_bytes(), START + 1, until, now)
    };
    let fresh = |owner: &[u8], numbers: std::ops::Range<u64>| {
        numbers.filter(|number| claim(owner, *number) == Claim::Fresh).count()
    };
    let share = 8 * PARTS;
    assert_eq!(fresh(b"greedy", 0..20_000), share);
    assert_eq!(claim(b"greedy", 20_000), Claim::Full);
    // What was used stays used, and is no reason to count against anybody again.
    assert_eq!(claim(b"greedy", 0), Claim::Seen);
    assert_eq!(fresh(b"modest", 100_000..101_000), 1_000);
    // As its entries end, there is room for new ones.
    manual.advance(Duration::from_secs(10));
    let more = fresh(b"greedy", 30_000..40_000);
    assert!((share / 10 - 1..=share / 10 + 1).contains(&more), "{more}");
    assert!(memory.figures().held <= 2 * share + 1_000);
    assert!(memory.figures().full > 0);
}
