//! Kinds of limits: windows, counts of one's own, answers that are counted, and counters that are shared.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use portcullis_core::{Faults, Moment};
use portcullis_store::Store;

use super::{AlertHook, Callers, CheckedLimits, LimitFacts, Limits, LimitsSpec, Reserved, SharedLimits};
use crate::fixtures::{Caller, NOON, node, said};

const ALL: Callers = Callers { anonymous: false, tokens: true, groups: true };

fn compile(
    source: &str,
    callers: Callers,
    shared: &mut SharedLimits,
) -> (Option<CheckedLimits>, Vec<String>) {
    let mut faults = Faults::default();
    let spec = LimitsSpec::read(&node(source), &mut faults);
    let plan = spec.and_then(|spec| spec.compile(callers, shared, &mut faults));
    (plan, faults.into_sorted().iter().map(said).collect())
}

fn limits(source: &str) -> Limits {
    let (plan, faults) = compile(source, ALL, &mut SharedLimits::default());
    assert_eq!(faults, [""; 0], "{source}");
    plan.expect("limits").open("bank", &Store::in_memory().expect("a store"), &AlertHook::default())
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn facts(caller: &Caller, now: Moment) -> LimitFacts<'_> {
    LimitFacts {
        principal: Some(&caller.principal),
        method: &caller.head.method,
        path_in_api: &caller.path_in_api,
        address: Some(caller.address),
        plans: None,
        now,
    }
}

/// Sends requests that are answered like that until one is refused.
fn admitted(limits: &Limits, caller: &Caller, status: u16, most: usize) -> usize {
    let status = StatusCode::from_u16(status).expect("a status");
    let one = || {
        let mut reserved = Reserved::default();
        let admitted = wait_for(limits.admit(&facts(caller, NOON), &mut reserved)).is_ok();
        limits.settle(reserved, status, NOON);
        admitted
    };
    (0..most).take_while(|_| one()).count()
}

fn faults_of(source: &str) -> String {
    compile(source, ALL, &mut SharedLimits::default()).1.join(" / ")
}

#[test]
fn what_cannot_be_counted_is_a_fault_that_says_why() {
    for (source, said) in [
        (r#"[{"rate": "5 per second", "algorithm": "fixed_window", "burst": 9}]"#, "a window has no burst"),
        (r#"[{"rate": "5 per 10ms", "algorithm": "sliding_window"}]"#, "a window lasts at least a second"),
        (r#"[{"rate": "2000000 per hour", "algorithm": "fixed_window"}]"#, "larger than 1000000"),
        (r#"[{"quota": "5 per day", "algorithm": "gcra"}]"#, "`algorithm` goes with `rate`"),
        (r#"[{"quota": "5 per day", "burst": 5}]"#, "`burst` goes with `rate`"),
        (r#"[{"rate": "5 per day", "carry_over": 5}]"#, "`carry_over` goes with `quota`"),
        (r#"[{"quota": "5 per day", "alerts": [90, 80]}]"#, "rising order"),
        (r#"[{"rate": "5 per day", "count": "failures"}]"#, "has no identity to count by"),
        (r#"[{"rate": "5 per day", "count": {"responses": [700]}}]"#, "no status"),
        (r#"[{"rate": "5 per day", "count": {"responses": ["2x"]}}]"#, "no status"),
        (r#"[{"rate": "claims.rpm per minute"}]"#, "needs its bounds"),
        (r#"[{"rate": "claims.rpm per minute, at most 10, else 60"}]"#, "more than `at most 10`"),
        (r#"[{"rate": "claims.rpm per minute, at most 10, else 1", "burst": 3}]"#, "is that count"),
        (
            r#"[{"rate": "5 per minute", "algorithm": "fixed_window", "groups": {"a": "5 per hour"}}]"#,
            "the window of a group",
        ),
    ] {
        assert!(faults_of(source).contains(said), "{source}: {}", faults_of(source));
    }
}

#[test]
fn callers_have_the_counts_they_bring_within_bounds() {
    let limits = limits(r#"[{"rate": "claims.rpm per minute, at most 10, else 3", "name": "own"}]"#);
    for (claims, there) in [
        (r#"{"rpm": 7}"#, 7),
        (r#"{"rpm": 0}"#, 0),
        (r#"{"rpm": 9223372036854775807}"#, 10),
        // What is no whole number, or negative, is never more than having none.
        (r#"{"rpm": 1e30}"#, 3),
        (r#"{"rpm": -1}"#, 3),
        (r#"{"rpm": 7.5}"#, 3),
        (r#"{"rpm": "7"}"#, 3),
        ("{}", 3),
    ] {
        let mut caller = Caller::with_token().claims(claims);
        caller.principal.key = claims.into();
        assert_eq!(admitted(&limits, &caller, 200, 50), there, "{claims}");
    }
    let caller = Caller::with_token().claims(r#"{"rpm": 7}"#);
    let mut headers = http::HeaderMap::new();
    let admission =
        wait_for(limits.admit(&facts(&caller, NOON), &mut Reserved::default())).expect("admitted");
    limits.write_fields(&admission, StatusCode::OK, &mut headers);
    assert_eq!(headers["ratelimit-policy"], r#""own";q=7;w=60"#);
    assert_eq!(headers["ratelimit"], r#""own";r=6;t=9"#);
}

#[test]
fn only_answers_that_are_counted_use_a_unit_up() {
    for kind in [
        r#""rate": "3 per hour""#,
        r#""rate": "3 per hour", "algorithm": "fixed_window""#,
        r#""quota": "3 per day""#,
    ] {
        let limits = limits(&format!(r#"[{{{kind}, "count": {{"responses": ["2xx", 404]}}}}]"#));
        let caller = Caller::with_token();
        assert_eq!(admitted(&limits, &caller, 500, 20), 20, "{kind}");
        assert_eq!(admitted(&limits, &caller, 403, 20), 20, "{kind}");
        assert_eq!(admitted(&limits, &caller, 404, 2), 2);
        assert_eq!(admitted(&limits, &caller, 201, 20), 1, "{kind}");
        assert_eq!(admitted(&limits, &caller, 500, 20), 0, "it is judged before it is answered");
    }
}

/// Units are taken before the answer, so no more requests are under way than are left; and whoever goes without
/// waiting for the answer has used one.
#[test]
fn a_request_under_way_holds_its_unit() {
    let limits = limits(r#"[{"rate": "2 per hour", "count": {"responses": ["2xx"]}}]"#);
    let caller = Caller::with_token();
    let mut under_way = Reserved::default();
    for _ in 0..2 {
        wait_for(limits.admit(&facts(&caller, NOON), &mut under_way)).expect("admitted");
    }
    assert_eq!(admitted(&limits, &caller, 500, 5), 0);
    limits.settle(under_way, StatusCode::BAD_GATEWAY, NOON);
    let mut abandoned = Reserved::default();
    wait_for(limits.admit(&facts(&caller, NOON), &mut abandoned)).expect("admitted");
    drop(abandoned);
    assert_eq!(admitted(&limits, &caller, 200, 5), 1);
}

#[test]
fn failures_are_counted_before_anybody_is_known() {
    let limits = limits(r#"[{"per": "address", "rate": "2 per hour", "count": "failures"}]"#);
    assert!(limits.count_failures());
    let caller = Caller::with_token();
    let stranger = LimitFacts { principal: None, ..facts(&caller, NOON) };
    let send = |status: StatusCode| {
        let mut reserved = Reserved::default();
        let passed = wait_for(limits.admit_unknown(&stranger, &mut reserved)).is_ok();
        limits.settle(reserved, status, NOON);
        passed
    };
    assert!((0..20).all(|_| send(StatusCode::OK)));
    assert!(send(StatusCode::UNAUTHORIZED) && send(StatusCode::FORBIDDEN));
    assert!(!send(StatusCode::OK));
    assert_eq!(admitted(&limits, &caller, 200, 5), 5, "it is asked once, and not again after authentication");
}

#[test]
fn limits_that_share_a_name_have_one_counter_and_one_rule() {
    let rule = r#"[{"quota": "3 per day", "shared_as": "both"}]"#;
    let (mut shared, store) = (SharedLimits::default(), Store::in_memory().expect("a store"));
    let mut open = |api: &str| {
        let (plan, faults) = compile(rule, ALL, &mut shared);
        assert_eq!(faults, [""; 0]);
        plan.expect("limits").open(api, &store, &AlertHook::default())
    };
    let (one, two) = (open("one"), open("two"));
    let caller = Caller::with_token();
    assert_eq!((admitted(&one, &caller, 200, 2), admitted(&two, &caller, 200, 9)), (2, 1));
    let other = r#"[{"quota": "4 per day", "shared_as": "both"}]"#;
    let (plan, faults) = compile(other, ALL, &mut shared);
    assert!(plan.is_none());
    assert!(
        faults[0].contains("must have one rule") && faults[0].contains("the other one is here"),
        "{faults:?}"
    );
    let twice = r#"[{"quota": "3 per day", "shared_as": "x"}, {"quota": "3 per day", "shared_as": "x", "name": "y"}]"#;
    assert!(faults_of(twice).contains("two limits `x`"));
}

#[test]
fn a_calendar_carries_over_and_quotas_tell_when_they_run_out() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    let hook = AlertHook::new(move |alert| {
        hook.lock().expect("whole").push((alert.identity.to_owned(), alert.percent, alert.remaining));
    });
    let rule = r#"[{"quota": "10 per day", "window": "calendar", "carry_over": 4, "alerts": [80, 100]}]"#;
    let (plan, _) = compile(rule, ALL, &mut SharedLimits::default());
    let limits = plan.expect("limits").open("bank", &Store::in_memory().expect("a store"), &hook);
    let caller = Caller::with_token();
    assert_eq!(admitted(&limits, &caller, 200, 8), 8);
    assert_eq!(*told.lock().expect("whole"), [("tpp-a".to_owned(), 80, 2)]);
    let day = Duration::from_secs(86_400);
    let next = Moment { unix_ms: NOON.unix_ms + 86_400_000, monotonic: NOON.monotonic + day };
    let one = || wait_for(limits.admit(&facts(&caller, next), &mut Reserved::default())).is_ok();
    assert_eq!((0..50).take_while(|_| one()).count(), 12, "two were left");
}

#[test]
fn limits_that_can_never_meet_their_callers_are_warned_of() {
    let nobody = Callers { anonymous: false, tokens: false, groups: false };
    for (source, word) in [
        (r#"[{"per": "claims.tenant", "rate": "5 per second"}]"#, "nobody who calls this API has a token"),
        (r#"[{"rate": "claims.rpm per minute, at most 9, else 1"}]"#, "has a token"),
        (r#"[{"rate": "5 per second", "groups": {"gold": "9 per second"}}]"#, "is in a group"),
    ] {
        let (plan, faults) = compile(source, nobody, &mut SharedLimits::default());
        assert!(plan.is_some() && faults[0].contains(word), "{faults:?}");
    }
}

/// Who may wait is let through at the pace of the rate, in the place of their own; who would wait for too long, and who is
/// one too many, is refused at once.
#[tokio::test(start_paused = true)]
async fn a_rate_may_be_waited_for() {
    let limits = limits(
        r#"[{"rate": "10 per second", "burst": 1, "throttle": {"wait": "250ms", "waiting": 2}}, {"rate": "9 per day"}]"#,
    );
    let (alice, mut bob) = (Caller::with_token(), Caller::with_token());
    bob.principal.key = "bob".into();
    let began = tokio::time::Instant::now();
    let one = async |caller: &Caller| {
        let now = Moment { monotonic: NOON.monotonic + began.elapsed(), ..NOON };
        let facts = facts(caller, now);
        let admitted = limits.admit(&facts, &mut Reserved::default()).await;
        admitted.map(|_| began.elapsed().as_millis()).map_err(|rejection| rejection.reason())
    };
    let limited = Err(portcullis_core::Reason::RateLimited);
    let (a, b, c, d, e, other) =
        tokio::join!(one(&alice), one(&alice), one(&alice), one(&alice), one(&alice), one(&bob));
    assert_eq!((a, b, d, e, other), (Ok(0), Ok(100), limited, limited, Ok(0)));
    assert!(matches!(c, Ok(200..=201)), "{c:?}");
    // Every place is free again, and what was refused or waited for is counted once.
    let (f, g) = tokio::join!(one(&alice), one(&alice));
    assert!(f.is_ok() && g.is_ok(), "{f:?} {g:?}");
    for _ in 0..4 {
        assert!(one(&alice).await.is_ok());
    }
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(one(&alice).await, limited, "nine were let through");
}

#[test]
fn what_cannot_be_waited_for_is_a_fault() {
    for (source, said) in [
        (r#"[{"quota": "5 per day", "throttle": {"wait": "1s"}}]"#, "`throttle` is about a rate"),
        (r#"[{"rate": "5 per day", "throttle": {"wait": "2m"}}]"#, "waits between 1ms and 60s"),
        (r#"[{"rate": "5 per day", "throttle": {"waiting": 5}}]"#, "needs `wait`"),
        (r#"[{"rate": "5 per day", "throttle": {"wait": "1s", "waiting": 0}}]"#, "out of range"),
        (r#"[{"rate": "5 per day", "lease": 5}]"#, "`lease` is about a quota"),
        (r#"[{"quota": "5 per day", "lease": 5, "count": {"responses": [200]}}]"#, "counted one by one"),
        (r#"[{"quota": "5 per day", "when_store_fails": "ignore"}]"#, "not one of the words here"),
    ] {
        let found = faults_of(source);
        assert!(found.contains(said), "{source}: {said} in {found}");
    }
}
