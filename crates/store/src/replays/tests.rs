use std::sync::Barrier;
use std::time::Duration;

use portcullis_core::{Clock, ManualClock, Moment, Reason};

use super::{Claim, Entry, PARTS, ReplaySpace, Replays, SingleUse, Tag, claim_all};

/// A memory that shares nothing waits for nobody.
fn at_once(owner: &[u8], all: &[SingleUse<'_>], clock: &Clock) -> Result<(), (usize, Claim)> {
    let claiming = std::pin::pin!(claim_all(owner, all, clock));
    match claiming.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(claimed) => claimed,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

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

impl ReplaySpace {
    /// Each key is its own owner's.
    fn claim(&self, key: &[u8], issued: i64, until: i64, clock: &Clock) -> Claim {
        self.claim_for(key, key, (issued, until), clock)
    }

    fn claim_for(&self, owner: &[u8], key: &[u8], (issued, until): (i64, i64), clock: &Clock) -> Claim {
        match at_once(owner, &[SingleUse { space: self, key, issued, until }], clock) {
            Ok(()) => Claim::Fresh,
            Err((at, claim)) => {
                assert!(at == 0 && claim != Claim::Fresh, "{at} {claim:?}");
                claim
            }
        }
    }
}

/// JWT-29, DPP-06: one use, whoever asks.
#[test]
fn a_key_is_fresh_once_until_its_end() {
    let (manual, clock) = clock();
    let space = memory().space("dpop");
    let (issued, until) = (START + 1, START + 61);
    assert_eq!(space.claim(b"a", issued, until, &clock), Claim::Fresh);
    assert_eq!(space.claim(b"a", issued, until, &clock), Claim::Seen);
    assert_eq!(space.claim(b"b", issued, until, &clock), Claim::Fresh);
    manual.advance(Duration::from_millis(59_999));
    assert_eq!(space.claim(b"a", issued, until, &clock), Claim::Seen);
    // From its end on it is refused whatever is remembered; a later credential may have the same key.
    manual.advance(Duration::from_secs(2));
    assert_eq!(space.claim(b"a", issued, until, &clock), Claim::Over);
    assert_eq!(space.claim(b"a", START + 62, START + 122, &clock), Claim::Fresh);
}

#[test]
fn spaces_are_apart_and_a_name_is_a_space() {
    let (_, clock) = clock();
    let memory = memory();
    let claim = |space: &str, key: &[u8]| memory.space(space).claim(key, START + 1, START + 61, &clock);
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
    assert_eq!(space.claim(b"a", START, until, &clock), Claim::Before);
    assert_eq!(space.claim(b"a", i64::MIN, until, &clock), Claim::Before);
    assert_eq!(space.claim(b"a", START + 1, until, &clock), Claim::Fresh);
    let refused =
        Claim::Before.or_refuse(Reason::TokenReplayed, Reason::TokenExpired).expect_err("a refusal");
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
}

/// JWT-29: when full, refuse rather than forget.
#[test]
fn a_full_memory_refuses_and_forgets_nothing() {
    let (manual, clock) = clock();
    let memory = Replays::with_capacity(PARTS * 4, Moment { unix_ms: 0, monotonic: Duration::ZERO });
    let space = memory.space("dpop");
    let claim = |key: u32, until| space.claim(&key.to_be_bytes(), START, until, &clock);
    let fresh: Vec<u32> = (0..20_000).filter(|key| claim(*key, START + 60) == Claim::Fresh).collect();
    assert_eq!(fresh.len(), PARTS * 4);
    assert_eq!(memory.figures().held, PARTS * 4);
    assert_eq!(memory.figures().full, 20_000 - 1024);
    assert!(fresh.iter().all(|key| claim(*key, START + 60) == Claim::Seen));
    assert_eq!(claim(30_000, START + 60), Claim::Full);
    let refused = Claim::Full.or_refuse(Reason::TokenReplayed, Reason::TokenExpired).expect_err("a refusal");
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
    let claim = || space.claim(b"a", START + 1, START + 61, &clock);
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
        assert_eq!(space.claim(&key, i64::MAX, until, &clock), Claim::Fresh);
        manual.advance(Duration::from_secs(86_400 * 365));
        memory.sweep(clock.now());
        assert_eq!(space.claim(&key, i64::MAX, until, &clock), Claim::Seen);
    }
    assert_eq!(space.claim(b"old", START + 1, i64::MIN, &clock), Claim::Over);
}

/// Of many threads that present one credential at once, exactly one gets through.
#[test]
fn one_of_many_at_once_is_fresh() {
    let (_, clock) = clock();
    let memory = memory();
    let (threads, rounds) = (4, 2_000_u32);
    let barrier = Barrier::new(threads);
    let fresh: usize = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (space, barrier, clock) = (memory.space("dpop"), &barrier, &clock);
                scope.spawn(move || {
                    barrier.wait();
                    let claim = |key: u32| space.claim(&key.to_be_bytes(), START + 1, START + 61, clock);
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
    assert_eq!(size_of::<(Tag, Entry)>(), 24);
    let (manual, clock) = clock();
    let memory = memory();
    let space = memory.space("dpop");
    for key in 0..100_000_u32 {
        assert_eq!(space.claim(&key.to_be_bytes(), START + 1, START + 61, &clock), Claim::Fresh);
    }
    let room = || memory.0.parts.iter().map(|part| super::lock(part).entries.capacity()).sum::<usize>();
    assert!(room() < 300_000, "{}", room());
    manual.advance(Duration::from_secs(100));
    memory.sweep(clock.now());
    assert!(room() < 2_000, "{}", room());
}

/// What has ended while its request was held up is over, also where its first use has been forgotten.
#[test]
fn what_is_forgotten_is_over_and_not_fresh() {
    let (manual, clock) = clock();
    let memory = memory();
    let space = memory.space("signature");
    assert_eq!(space.claim(b"a", START + 1, START + 61, &clock), Claim::Fresh);
    manual.advance(Duration::from_secs(62));
    memory.sweep(clock.now());
    assert_eq!(memory.figures().held, 0);
    let claim = space.claim(b"a", START + 1, START + 61, &clock);
    assert_eq!(claim, Claim::Over);
    let refused =
        claim.or_refuse(Reason::SignatureReplayed, Reason::SignatureExpired).expect_err("a refusal");
    assert_eq!(refused.reason(), Reason::SignatureExpired);
}

/// What one request would use up is used up whole or not at all.
#[test]
fn of_several_all_are_claimed_or_none() {
    let (_, clock) = clock();
    let memory = memory();
    let (tokens, proofs) = (memory.space("jti"), memory.space("dpop"));
    let one = |space, key| SingleUse { space, key, issued: START + 1, until: START + 61 };
    let all =
        |keys: [&'static [u8]; 2]| at_once(b"acme", &[one(&tokens, keys[0]), one(&proofs, keys[1])], &clock);
    assert_eq!(all([b"token", b"proof"]), Ok(()));
    assert_eq!(all([b"other", b"proof"]), Err((1, Claim::Seen)));
    assert_eq!(memory.figures().held, 2);
    // The token that came with a bad proof is good still, and the first one is used as before.
    assert_eq!(all([b"token", b"new"]), Err((0, Claim::Seen)));
    assert_eq!(all([b"other", b"new"]), Ok(()));
    assert_eq!(all([b"other", b"third"]), Err((0, Claim::Seen)));
    // Not even with itself.
    assert_eq!(at_once(b"acme", &[one(&tokens, b"x"), one(&tokens, b"x")], &clock), Err((1, Claim::Seen)));
    assert_eq!(tokens.claim(b"x", START + 1, START + 61, &clock), Claim::Fresh);
}

/// JWT-29: whoever has good credentials of their own cannot fill the memory for everybody.
#[test]
fn one_owner_takes_half_and_leaves_the_rest() {
    let (manual, clock) = clock();
    let memory = Replays::with_capacity(64 * PARTS, Clock::Manual(ManualClock::at_unix_seconds(START)).now());
    let space = memory.space("jti");
    let claim = |owner: &[u8], number: u64| {
        let until = clock.now().unix_seconds() + 100;
        space.claim_for(owner, &number.to_be_bytes(), (START + 1, until), &clock)
    };
    let fresh = |owner: &[u8], numbers: std::ops::Range<u64>| {
        numbers.filter(|number| claim(owner, *number) == Claim::Fresh).count()
    };
    assert_eq!(fresh(b"greedy", 0..20_000), 32 * PARTS);
    assert_eq!(claim(b"greedy", 20_000), Claim::Crowded);
    // What was used stays used, and is no reason to count against anybody again.
    assert_eq!(claim(b"greedy", 0), Claim::Seen);
    let share = 8 * PARTS;
    assert_eq!(fresh(b"modest", 100_000..104_000), share);
    assert_eq!(memory.figures().held, 32 * PARTS + share);
    assert!(memory.figures().crowded > 0);
    assert_eq!(memory.figures().full, 0);
    let refused =
        Claim::Crowded.or_refuse(Reason::TokenReplayed, Reason::TokenExpired).expect_err("a refusal");
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
    // As its entries end, there is room for new ones.
    manual.advance(Duration::from_secs(102));
    memory.sweep(clock.now());
    assert_eq!(memory.figures().held, 0);
    assert_eq!(fresh(b"greedy", 200_000..220_000), 32 * PARTS);
}

/// Long-lived credentials do not keep an owner from short-lived ones, and no rate is asked for while there is room.
#[test]
fn how_long_entries_live_says_nothing_about_a_share() {
    let (_, clock) = clock();
    let memory = Replays::with_capacity(64 * PARTS, Clock::Manual(ManualClock::at_unix_seconds(START)).now());
    let space = memory.space("jti");
    let now = clock.now().unix_seconds();
    for (number, life) in (0..3_000_u64).zip([3_600, 10].into_iter().cycle()) {
        let claim = space.claim_for(b"owner", &number.to_be_bytes(), (START + 1, now + life), &clock);
        assert_eq!(claim, Claim::Fresh, "{number}");
    }
}

/// What was used under one rule is not fresh under a more patient one, of the same policies or of later ones.
#[test]
fn a_loosened_rule_brings_nothing_back() {
    let (manual, clock) = clock();
    let memory = memory();
    let (strict, patient) = (memory.space_of_age("signature", 60), memory.space_of_age("signature", 300));
    let by = |space: &ReplaySpace, max_age: i64, key: &[u8], issued: i64| {
        space.claim(key, issued, issued + max_age + 1, &clock)
    };
    let wait = |seconds| {
        manual.advance(Duration::from_secs(seconds));
        memory.sweep(clock.now());
    };
    let made = START + 1;
    assert_eq!(by(&strict, 60, b"a", made), Claim::Fresh);
    wait(100);
    assert_eq!(by(&strict, 60, b"a", made), Claim::Over);
    assert_eq!(by(&patient, 300, b"a", made), Claim::Seen);
    assert_eq!(by(&patient, 300, b"b", made), Claim::Fresh);
    // A reload lets signatures be an hour old. What was made before may have been used and forgotten.
    wait(300);
    assert_eq!(memory.figures().held, 0);
    let latest = START + 380;
    assert_eq!(by(&patient, 300, b"c", latest), Claim::Fresh);
    let hour = memory.space_of_age("signature", 3600);
    assert_eq!(by(&hour, 3600, b"a", made), Claim::Over);
    assert_eq!(by(&hour, 3600, b"c", latest), Claim::Seen);
    assert_eq!(by(&hour, 3600, b"d", latest), Claim::Fresh);
    assert_eq!(by(&hour, 3600, b"e", latest + 1), Claim::Fresh);
    wait(1000);
    assert_eq!(by(&hour, 3600, b"c", latest), Claim::Over);
    assert_eq!(by(&hour, 3600, b"e", latest + 1), Claim::Seen);
    assert_eq!(by(&hour, 3600, b"f", latest + 1), Claim::Fresh);
    // Another kind has terms of its own, and so has a trial.
    assert_eq!(by(&memory.space_of_age("hmac", 3600), 3600, b"a", made), Claim::Fresh);
    assert_eq!(by(&memory.on_trial().space_of_age("signature", 3600), 3600, b"a", made), Claim::Fresh);
}
