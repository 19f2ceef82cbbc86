use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Clock, Connection, Faults, ManualClock, Reason};
use serde_json::{Value, json};

use super::records::{Record, Records};
use super::spec::Settings;
use super::{Attempt, Guard, GuardLedger, GuardSpec, Network, Watching};
use crate::WorkerTokens;
use crate::testing::{House, NOW, clients, head, issuers, node, offline, only_fault, pepper};

const HERE: &str = "192.0.2.7";
const THERE: &str = "198.51.100.9";
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

fn guard(written: &Value) -> Guard {
    let mut faults = Faults::default();
    let spec = GuardSpec::read(&node(written), &mut faults).expect("a guard");
    assert!(!faults.any_error());
    spec.compile(&Arc::default())
}

fn default_guard() -> Guard {
    GuardSpec::default().compile(&Arc::default())
}

/// A connection from an address.
fn from(address: &str) -> Connection {
    let peer = (address.parse::<IpAddr>().expect("an address"), 4711).into();
    Connection { peer, ..crate::testing::connection(None) }
}

/// A request of an address at a time, in milliseconds.
struct At<'g>(&'g Guard, &'static str, u64);

impl At<'_> {
    fn watching(&self) -> Watching<'_> {
        let Self(guard, address, now) = self;
        let moment = portcullis_core::Moment { unix_ms: 0, monotonic: Duration::from_millis(*now) };
        guard.watch(&from(address), moment).watching.expect("a guard that is on")
    }

    /// What becomes of an attempt: the wait it is told, or that it was made and how it went.
    fn tries(&self, name: u64, succeeds: bool) -> Result<(), u64> {
        let watching = self.watching();
        if !watching.alert {
            if !succeeds {
                watching.failed(name);
            }
            return Ok(());
        }
        match watching.try_for(name) {
            Err(wait) => Err(wait.left),
            Ok(Attempt::Watched { held, .. }) if !succeeds => {
                watching.failed(name);
                held.map_or(Ok(()), Err)
            }
            Ok(Attempt::Watched { name, pair, address, tells, .. }) => {
                watching.give_back(name, pair, address);
                if tells {
                    watching.succeeded(name);
                }
                Ok(())
            }
            Ok(other) => panic!("{other:?}"),
        }
    }

    fn fails(&self, name: u64) -> Result<(), u64> {
        self.tries(name, false)
    }

    fn succeeds(&self, name: u64) -> Result<(), u64> {
        self.tries(name, true)
    }
}

/// PIPE-05.
#[test]
fn after_five_failures_every_further_one_doubles_the_wait() {
    let guard = guard(&json!({ "caller": { "longest_wait": "2m" } }));
    let mut now = MINUTE;
    for _ in 0..5 {
        assert_eq!(At(&guard, HERE, now).fails(1), Ok(()));
    }
    for exponent in 0..10 {
        let wait = (SECOND << exponent).min(2 * MINUTE);
        assert_eq!(At(&guard, HERE, now).fails(1), Err(wait));
        assert_eq!(At(&guard, HERE, now + wait - 1).succeeds(1), Err(1), "not even with the right secret");
        now += wait;
        assert_eq!(At(&guard, HERE, now).fails(1), Ok(()), "after {wait}");
    }
}

#[test]
fn waiting_out_a_wait_lets_one_attempt_through_and_not_all_that_have_gathered() {
    let guard = default_guard();
    for _ in 0..5 {
        At(&guard, HERE, MINUTE).fails(1).expect("let through");
    }
    let at = At(&guard, HERE, MINUTE + SECOND);
    let watching = at.watching();
    assert!(watching.try_for(1).is_ok());
    for _ in 0..20 {
        assert!(watching.try_for(1).is_err(), "a second attempt before the first one has ended");
    }
}

#[test]
fn an_attempt_that_is_given_up_half_way_has_used_its_wait() {
    let guard = default_guard();
    for _ in 0..5 {
        At(&guard, HERE, MINUTE).fails(1).expect("let through");
    }
    assert!(At(&guard, HERE, MINUTE + SECOND).watching().try_for(1).is_ok());
    assert_eq!(At(&guard, HERE, MINUTE + SECOND).succeeds(1), Err(SECOND));
}

#[test]
fn what_could_not_be_checked_uses_no_wait() {
    let guard = default_guard();
    for _ in 0..5 {
        At(&guard, HERE, MINUTE).fails(1).expect("let through");
    }
    let at = At(&guard, HERE, MINUTE + SECOND);
    let Ok(Attempt::Watched { name, pair, address, .. }) = at.watching().try_for(1) else {
        panic!("let through")
    };
    at.watching().give_back(name, pair, address);
    assert_eq!(at.succeeds(1), Ok(()));
}

#[test]
fn failures_are_forgotten_one_by_one() {
    let guard = default_guard();
    for _ in 0..5 {
        At(&guard, HERE, MINUTE).fails(1).expect("let through");
    }
    // One of five is forgotten, so one more makes it wait again, and no longer than the first time.
    let later = MINUTE + 15 * MINUTE;
    assert_eq!(At(&guard, HERE, later).fails(1), Ok(()));
    assert_eq!(At(&guard, HERE, later).fails(1), Err(SECOND));
    // All are forgotten.
    let much_later = later + 5 * 15 * MINUTE;
    for _ in 0..5 {
        assert_eq!(At(&guard, HERE, much_later).fails(1), Ok(()));
    }
    assert_eq!(At(&guard, HERE, much_later).fails(1), Err(SECOND));
}

#[test]
fn a_success_forgives_its_own_name_and_nothing_else() {
    let guard = guard(&json!({ "address": { "failures": 4 } }));
    let at = |now| At(&guard, HERE, now);
    for _ in 0..4 {
        at(MINUTE).fails(1).expect("let through");
    }
    at(MINUTE).succeeds(1).expect("let through");
    for _ in 0..4 {
        assert_eq!(at(MINUTE).fails(1), Ok(()), "the name begins anew");
    }
    // SECURITY: an account of one's own, used between guesses, buys no further guesses at others: the address has
    // failed under one name, and twice since its success.
    assert_eq!(at(MINUTE).fails(2), Ok(()));
    assert_eq!(at(MINUTE).succeeds(99), Ok(()), "an account of its own");
    assert_eq!(at(MINUTE).fails(3), Ok(()));
    assert_eq!(at(MINUTE).fails(4), Err(SECOND));
}

/// Trap 27: a claimed name alone never refuses.
#[test]
fn no_number_of_failures_elsewhere_keeps_an_address_from_its_name() {
    let guard = default_guard();
    let addresses: Vec<String> = (0..250).map(|last| format!("203.0.113.{last}")).collect();
    for (at, address) in addresses.iter().enumerate() {
        for _ in 0..5 {
            let address: &'static str = address.clone().leak();
            let _ = At(&guard, address, MINUTE + at as u64).fails(1);
        }
    }
    // The victim, from an address that has failed with other names too.
    assert_eq!(At(&guard, HERE, MINUTE).fails(7), Ok(()));
    assert_eq!(At(&guard, HERE, MINUTE).succeeds(1), Ok(()));
    assert_eq!(At(&guard, THERE, MINUTE).succeeds(1), Ok(()));
    // But now the first failure under that name makes an address wait.
    assert_eq!(At(&guard, THERE, MINUTE).fails(1), Ok(()));
    assert_eq!(At(&guard, THERE, MINUTE).fails(1), Err(SECOND));
    assert_eq!(At(&guard, HERE, MINUTE).succeeds(1), Ok(()));
}

#[test]
fn many_names_make_an_address_wait_and_one_name_repeated_does_not() {
    let guard = default_guard();
    for name in 0..50 {
        assert_eq!(At(&guard, HERE, MINUTE).fails(100 + name), Ok(()), "{name}");
    }
    assert_eq!(At(&guard, HERE, MINUTE).fails(1), Err(SECOND));
    assert_eq!(At(&guard, HERE, MINUTE).succeeds(2), Err(SECOND));
    assert_eq!(At(&guard, THERE, MINUTE).succeeds(2), Ok(()), "another address");
    // A stale key, tried again and again for an hour, takes nothing from its neighbours.
    let guard = default_guard();
    for second in 0..3_600 {
        let _ = At(&guard, HERE, MINUTE + second * SECOND).fails(1);
        assert_eq!(At(&guard, HERE, MINUTE + second * SECOND).succeeds(2), Ok(()));
    }
}

#[test]
fn who_has_succeeded_of_late_is_not_held_up_by_neighbours() {
    let guard = default_guard();
    At(&guard, HERE, MINUTE).fails(1).expect("let through");
    At(&guard, HERE, MINUTE).succeeds(2).expect("let through");
    for name in 0..50 {
        let _ = At(&guard, HERE, MINUTE).fails(100 + name);
    }
    assert!(At(&guard, HERE, MINUTE).succeeds(3).is_err(), "a stranger");
    assert_eq!(At(&guard, HERE, MINUTE).succeeds(2), Ok(()));
    // SECURITY: whoever borrows that name has the guesses of any name, and no more.
    for _ in 0..5 {
        assert_eq!(At(&guard, HERE, MINUTE).fails(2), Ok(()));
    }
    assert_eq!(At(&guard, HERE, MINUTE).fails(2), Err(SECOND));
}

#[test]
fn where_an_address_is_many_callers_only_names_are_counted() {
    let guard = guard(&json!({ "shared_addresses": ["192.0.2.0/24"] }));
    for name in 0..500 {
        assert_eq!(At(&guard, HERE, MINUTE).fails(name), Ok(()));
    }
    for _ in 0..5 {
        assert_eq!(At(&guard, HERE, MINUTE).fails(1_000), Ok(()));
    }
    assert_eq!(At(&guard, HERE, MINUTE).fails(1_000), Err(SECOND), "a failure is told to wait");
    // Loopback is such an address where nothing is written.
    let guard = default_guard();
    for name in 0..100 {
        assert_eq!(At(&guard, "127.0.0.1", MINUTE).fails(name), Ok(()));
    }
}

/// Trap 27: whoever shares an address with somebody cannot shut out their name there.
#[test]
fn behind_a_shared_address_only_what_fails_is_held_up() {
    let guard = guard(&json!({ "shared_addresses": ["192.0.2.0/24"] }));
    for round in 0..50 {
        let failed = At(&guard, HERE, MINUTE).fails(1);
        assert_eq!(failed.is_ok(), round < 5, "{round}: {failed:?}");
    }
    // The longest wait by now, and the owner of the name passes within it.
    assert!(At(&guard, HERE, MINUTE).fails(1).is_err_and(|left| left > MINUTE));
    assert_eq!(At(&guard, HERE, MINUTE).succeeds(1), Ok(()));
    // From an address of one's own the same failures are waited for by everybody.
    for _ in 0..5 {
        let _ = At(&guard, THERE, MINUTE).fails(1);
    }
    assert!(At(&guard, THERE, MINUTE).succeeds(1).is_err());
}

/// Which addresses are proxies' is for the listener to say, connection by connection.
#[test]
fn behind_a_proxy_that_does_not_say_who_calls_only_what_fails_is_held_up() {
    let guard = guard(&json!({ "shared_addresses": [] }));
    let moment = portcullis_core::Moment { unix_ms: 0, monotonic: Duration::from_millis(MINUTE) };
    for _ in 0..10 {
        let _ = At(&guard, HERE, MINUTE).fails(1);
    }
    let tries = |connection: &Connection| {
        guard.watch(connection, moment).watching.expect("a guard that is on").try_for(1).is_ok()
    };
    assert!(tries(&Connection { shared: true, ..from(HERE) }));
    assert!(!tries(&from(HERE)), "the same address, at a listener that knows no proxy there");
}

#[test]
fn an_address_is_all_of_its_64_bit_network() {
    let same = |one: &str, other: &str| {
        let of = |text: &str| Network::of(text.parse::<IpAddr>().expect("an address").to_canonical());
        of(one) == of(other)
    };
    assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
    assert!(!same("192.0.2.1", "192.0.2.2"));
    assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(same("192.0.2.1", "64:ff9b::192.0.2.1"));
    assert!(!same("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"));
}

/// SECURITY: a flood of failures by others, or under other names, does not erase a record that says more.
#[test]
fn a_flood_does_not_push_out_a_record_that_says_more() {
    let settings =
        Arc::new(Settings { shared: vec!["::/0".parse().expect("a network")], ..Settings::default() });
    let ledger = Arc::new(GuardLedger::with_room(64, 512));
    let guard = Guard { settings: Some(settings), ledger };
    for _ in 0..5 {
        At(&guard, "2001:db8::1", MINUTE).fails(1).expect("let through");
    }
    assert!(At(&guard, "2001:db8::1", MINUTE).fails(1).is_err());
    for name in 0..100_000 {
        let _ = At(&guard, "2001:db8::1", MINUTE).fails(1_000 + name);
    }
    assert!(At(&guard, "2001:db8::1", MINUTE).fails(1).is_err(), "it erased its own record");
    let counts = guard.ledger.counts(Duration::from_millis(MINUTE));
    assert!(counts.names <= 512, "{counts:?}");
}

#[test]
fn room_is_bounded_and_taken_only_when_needed() {
    let records = Records::new(512);
    assert_eq!(records.find(7), None);
    assert_eq!(records.held(0), 0);
    for key in 0..10_000_u64 {
        let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        records.enter(key, 0, |record| record.clear_at = 10);
    }
    assert!(records.held(0) <= 512);
    assert_eq!(records.held(10), 0, "all are forgotten");
    assert_eq!(Record::default().failures(5, 0), 0);
}

#[test]
fn settings_are_read_and_judged() {
    let fault = |written: Value, code: &str, saying: &str| {
        let mut faults = Faults::default();
        GuardSpec::read(&node(&written), &mut faults);
        only_fault(faults, code, saying);
    };
    fault(json!("on"), "unknown_word", "`on` is not one of the words here");
    fault(json!({ "calller": {} }), "unknown_key", "unknown key `calller`");
    fault(json!({ "caller": { "failures": 0 } }), "out_of_range", "0 is out of range");
    fault(json!({ "caller": { "forget": "0s" } }), "out_of_range", "the guard's times");
    fault(json!({ "address": { "longest_wait": "2d" } }), "out_of_range", "the guard's times");
    fault(json!({ "name": { "longest_wait": "1m" } }), "unknown_key", "unknown key `longest_wait`");
    fault(json!({ "shared_addresses": "10.0.0.0/8" }), "wrong_kind", "expected a list of networks");
    fault(json!({ "shared_addresses": ["10.0.0.1/8"] }), "bad_network", "has bits behind its prefix");
    fault(json!({ "shared_addresses": ["::ffff:10.0.0.0/104"] }), "bad_network", "never fits");
    fault(json!({ "shared_addresses": ["lb"] }), "bad_network", "no address or network");
    let mut faults = Faults::default();
    let off = GuardSpec::read(&node(&json!("off")), &mut faults).expect("a guard").compile(&Arc::default());
    assert!(off.watch(&from(HERE), moment(0)).watching.is_none());
}

fn moment(seconds: u64) -> portcullis_core::Moment {
    portcullis_core::Moment { unix_ms: NOW * 1000, monotonic: Duration::from_secs(seconds) }
}

/// The chain asks the guard before it asks the authenticator, and tells it what came of it.
#[tokio::test]
async fn a_chain_asks_the_guard_first() {
    let key = "acme-key-1234567890";
    let hash = crate::hash_key(&pepper(), key).to_string();
    let mut house = House::new(issuers(&json!({}), &Default::default(), &offline()));
    house.clients = clients(&json!({ "acme": { "credentials": [{ "api_key": { "hash": hash } }] } }));
    house.guard = guard(&json!({ "address": { "failures": 3 }, "shared_addresses": [] }));
    let chain = house.chain(&json!({ "api_key": { "header": "x-api-key" } }));
    let clock = ManualClock::at_unix_seconds(NOW);
    let worker = WorkerTokens::new(1 << 16);
    let connection = crate::testing::connection(None);
    let ask = async |key: Option<&str>| {
        let headers: Vec<_> = key.iter().map(|key| ("x-api-key", *key)).collect();
        let head = head("/", &headers);
        let now = Clock::Manual(clock.clone()).now();
        match chain.authenticate(&crate::testing::evidence(&head, &connection, &worker, now)).await {
            Ok(_) => Ok(()),
            Err(rejection) => {
                Err((rejection.reason(), rejection.detail().and_then(|detail| detail.retry_after)))
            }
        }
    };
    assert_eq!(ask(Some(key)).await, Ok(()));
    for guess in ["guess-1", "guess-1", "guess-2", "guess-3"] {
        assert_eq!(ask(Some(guess)).await, Err((Reason::ApiKeyInvalid, None)), "{guess}");
    }
    let waits = Err((Reason::TooManyFailures, Some(Duration::from_secs(1))));
    assert_eq!(ask(Some("guess-4")).await, waits);
    assert_eq!(ask(Some(key)).await, waits);
    // Who presents nothing guesses nothing.
    assert_eq!(ask(None).await, Err((Reason::CredentialsMissing, None)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(ask(Some(key)).await, Ok(()));
    assert_eq!(ask(Some("guess-4")).await, Err((Reason::ApiKeyInvalid, None)));
    // Now that the key has been seen to be good here, guessing by others does not hold it up.
    assert_eq!(ask(Some("guess-5")).await, Err((Reason::TooManyFailures, Some(Duration::from_secs(2)))));
    assert_eq!(ask(Some(key)).await, Ok(()));
}

/// SECURITY: a chain in shadow is no place to guess at, and what fails there makes nobody wait where it counts.
#[tokio::test]
async fn chains_in_shadow_have_a_guard_of_their_own() {
    let key = "acme-key-1234567890";
    let hash = crate::hash_key(&pepper(), key).to_string();
    let mut house = House::new(issuers(&json!({}), &Default::default(), &offline()));
    house.clients = clients(&json!({ "acme": { "credentials": [{ "api_key": { "hash": hash } }] } }));
    house.guard = guard(&json!({ "address": { "failures": 3 }, "shared_addresses": [] }));
    let trials = ["bank", "shop"].map(|realm| {
        house.chain(&json!({ "mode": "shadow", "api_key": { "header": format!("x-{realm}-key") } }))
    });
    let chain = house.chain(&json!({ "api_key": { "header": "x-bank-key" } }));
    let (worker, connection) = (WorkerTokens::new(1 << 16), crate::testing::connection(None));
    let ask = async |chain: &crate::Chain, header: &str, key: &str| {
        crate::testing::ask(chain, &worker, &connection, &[(header, key)]).await.err()
    };
    for guess in ["guess-1", "guess-2", "guess-3"] {
        assert_eq!(ask(&trials[0], "x-bank-key", guess).await, Some("api_key_invalid"), "{guess}");
    }
    assert_eq!(ask(&trials[0], "x-bank-key", "guess-4").await, Some("too_many_failures"));
    assert_eq!(ask(&trials[1], "x-shop-key", "guess-4").await, Some("too_many_failures"));
    assert_eq!(ask(&chain, "x-bank-key", key).await, None);
    assert_eq!(ask(&chain, "x-bank-key", "guess-5").await, Some("api_key_invalid"));
}

/// Content that is there.
struct Received(&'static str);

impl crate::Content for Received {
    fn is_absent(&self) -> bool {
        false
    }

    fn read(&self, _at_most: u64) -> crate::ContentFuture<'_> {
        Box::pin(std::future::ready(Ok(bytes::Bytes::from_static(self.0.as_bytes()))))
    }
}

/// SECURITY: names in the content are counted one by one, as those in the head are: a good password of one's own forgives
/// no guess at another's, and nobody else at the address has to wait.
#[tokio::test]
async fn names_in_the_content_are_told_apart() {
    /// `U*U`, from the tests of crypt_blowfish.
    const WEAK: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    let user = |name: &str| json!({"credentials": [{"basic": {"username": name, "password_hash": WEAK}}]});
    let mut house = House::new(issuers(&json!({}), &Default::default(), &offline()));
    house.clients =
        clients(&json!({ "mallory": user("mallory"), "victim": user("victim"), "third": user("third") }));
    house.guard = guard(&json!({ "caller": { "failures": 3 }, "shared_addresses": [] }));
    let extraction = json!({ "username": "user=([^&]*)", "password": "password=(.*)" });
    let chain = house.chain(&json!({ "basic": { "body": extraction, "remember": "0s" } }));
    let (worker, connection) = (WorkerTokens::new(1 << 16), crate::testing::connection(None));
    let head = head("/", &[]);
    let ask = async |content: &'static str| {
        let received = Received(content);
        let evidence = crate::testing::evidence(&head, &connection, &worker, moment(MINUTE));
        let evidence = crate::Evidence { content: Some(&received), ..evidence };
        chain.authenticate(&evidence).await.err().map(|rejection| rejection.reason())
    };
    for _ in 0..3 {
        assert_eq!(ask("user=victim&password=guess").await, Some(Reason::PasswordInvalid));
        assert_eq!(ask("user=mallory&password=U*U").await, None);
    }
    assert_eq!(ask("user=victim&password=guess").await, Some(Reason::TooManyFailures));
    assert_eq!(ask("user=third&password=U*U").await, None, "a neighbour");
    assert_eq!(ask("user=third").await, Some(Reason::CredentialsMalformed));
}
