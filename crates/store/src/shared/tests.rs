//! Against a real `redis-server`: the same questions to the store of one process and to the shared one have the same
//! answers.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_core::{Clock, Secret};

use super::{
    FAILURES, SharedAsk, SharedCounters, SharedKey, SharedOutcome, SharedRule, SharedSettings, SharedUnit,
};
use crate::error::{OpenError, StoreError};
use crate::rate::{Algorithm, RateOutcome, RateRule};
use crate::replays::{Claim, Replays, SingleUse, claim_all};
use crate::{LimitId, MAX_KEY_BYTES, QuotaKey, QuotaOutcome, QuotaRule, Store};

/// A server of this test alone.
pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::at(free_port())
    }

    pub(super) fn at(port: u16) -> Self {
        Self::with(port, &["--save", "", "--appendonly", "no"])
    }

    /// The number of its process.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn with(port: u16, arguments: &[&str]) -> Self {
        let process = Command::new("redis-server")
            .args(arguments)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which tests/run installs");
        let server = Self { process, port };
        let waiting = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(waiting.elapsed() < Duration::from_secs(10), "redis-server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

fn counters(port: u16) -> SharedCounters {
    let url = Secret::new(format!("redis://127.0.0.1:{port}").into_bytes());
    let settings = SharedSettings { timeout: Duration::from_secs(2), ..SharedSettings::at(url) };
    SharedCounters::new(&settings, tokio::runtime::Handle::current()).expect("an address")
}

/// A connection of the test's own.
pub(super) async fn talk(port: u16) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

pub(super) fn ask(rule: SharedRule, key: &str) -> SharedAsk {
    let key = SharedKey { caller: key, windows: None };
    SharedAsk::new(&LimitId::new("bank", "limit"), rule, key).expect("a question")
}

pub(super) async fn take(counters: &SharedCounters, rule: SharedRule, key: &str) -> SharedOutcome {
    counters.take(vec![ask(rule, key)]).await.expect("an answer")[0]
}

fn is_near(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) < Duration::from_millis(1_500)
}

/// Both stores are asked the same, one unit after the other, until long after the first refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_give_the_same_answers() {
    let server = Server::start();
    let (shared, own) = (counters(server.port), Store::in_memory().expect("a store"));
    let hour = Duration::from_secs(3_600);
    let rate = |count: u64, burst: u64, algorithm: Algorithm| RateRule { count, per: hour, burst, algorithm };
    for rule in [
        rate(5, 5, Algorithm::Gcra),
        rate(5, 9, Algorithm::Gcra),
        rate(9, 1, Algorithm::Gcra),
        rate(0, 5, Algorithm::Gcra),
        rate(5, 0, Algorithm::Gcra),
        rate(7, 0, Algorithm::FixedWindow),
        rate(7, 0, Algorithm::SlidingWindow),
        rate(0, 0, Algorithm::SlidingWindow),
    ] {
        let name = format!("{rule:?}");
        let table = own.rates(&LimitId::new("bank", &name), rule);
        for at in 0..14 {
            let (local, remote) = (
                table.take("alice", Clock::System.now()),
                take(&shared, SharedRule::Rate(rule), &name).await,
            );
            match (local, remote) {
                (
                    RateOutcome::Taken { remaining, reset },
                    SharedOutcome::Taken { remaining: left, reset: until, .. },
                ) => {
                    assert!(remaining == left && is_near(reset, until), "{name} {at}: {local:?} {remote:?}");
                }
                (RateOutcome::Refused { retry_after }, SharedOutcome::Refused { retry_after: wait }) => {
                    let never = rule.count == 0 || (rule.burst == 0 && rule.algorithm == Algorithm::Gcra);
                    assert!(never || is_near(retry_after, wait), "{name} {at}: {local:?} {remote:?}");
                }
                _ => panic!("{name} {at}: {local:?} {remote:?}"),
            }
        }
    }
    for rule in [
        QuotaRule::new(6, hour),
        QuotaRule::new(0, hour),
        QuotaRule { carried: 3, ..QuotaRule::new(8, hour) },
    ] {
        let name = format!("{rule:?}");
        let table = own.quotas(&LimitId::new("bank", &name), rule);
        for at in 0..10 {
            let key = QuotaKey { key: "alice", last: None };
            let local = table.take_of(rule.count, key, Clock::System.now()).await.expect("a local answer");
            let remote = take(&shared, SharedRule::Quota(rule), &name).await;
            match (local, remote) {
                (
                    QuotaOutcome::Taken { remaining, reset, .. },
                    SharedOutcome::Taken { remaining: left, reset: until, .. },
                ) => assert!(remaining == left && is_near(reset, until), "{name} {at}: {local:?} {remote:?}"),
                (QuotaOutcome::Refused { retry_after }, SharedOutcome::Refused { retry_after: wait }) => {
                    assert!(is_near(retry_after, wait), "{name} {at}: {local:?} {remote:?}");
                }
                _ => panic!("{name} {at}: {local:?} {remote:?}"),
            }
        }
    }
}

/// All or nothing: what a refused request would have taken of other limits is left to others; what is asked softly
/// neither refuses nor takes what is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_costs_nothing() {
    let server = Server::start();
    let shared = counters(server.port);
    let hour = Duration::from_secs(3_600);
    let (wide, narrow) =
        (SharedRule::Quota(QuotaRule::new(9, hour)), SharedRule::Quota(QuotaRule::new(2, hour)));
    let both = || vec![ask(wide, "wide"), ask(narrow, "narrow")];
    let soft = || vec![ask(narrow, "narrow").softly(true), ask(wide, "wide")];
    for _ in 0..2 {
        let outcomes = shared.take(both()).await.expect("an answer");
        assert!(
            matches!(outcomes[..], [SharedOutcome::Taken { .. }, SharedOutcome::Taken { .. }]),
            "{outcomes:?}"
        );
    }
    for _ in 0..5 {
        let outcomes = shared.take(both()).await.expect("an answer");
        assert!(matches!(outcomes[..], [_, SharedOutcome::Refused { .. }]), "{outcomes:?}");
    }
    let outcomes = shared.take(soft()).await.expect("an answer");
    let [SharedOutcome::Refused { .. }, SharedOutcome::Taken { remaining: 6, .. }] = outcomes[..] else {
        panic!("{outcomes:?}");
    };
}

/// However many ask at once, from however many gateways, the last unit goes to one of them; what is given back is there
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_unit_goes_to_two() {
    let server = Server::start();
    let gateways = [counters(server.port), counters(server.port)];
    let hour = Duration::from_secs(3_600);
    let rules = [
        SharedRule::Quota(QuotaRule::new(100, hour)),
        SharedRule::Rate(RateRule { count: 100, per: hour, burst: 100, algorithm: Algorithm::Gcra }),
        SharedRule::Rate(RateRule { count: 100, per: hour, burst: 0, algorithm: Algorithm::SlidingWindow }),
    ];
    for rule in rules {
        let tasks = (0..8).map(|number| {
            let gateway = gateways[number % 2].clone();
            tokio::spawn(async move {
                let mut units = Vec::new();
                for _ in 0..40 {
                    if let SharedOutcome::Taken { unit, .. } = take(&gateway, rule, "alice").await {
                        units.push(unit);
                    }
                }
                units
            })
        });
        let mut units = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            units.extend(task.await.expect("a task"));
        }
        assert_eq!(units.len(), 100, "{rule:?}");
        for unit in units.into_iter().take(30) {
            gateways[0].return_units(&ask(rule, "alice").key, rule, (unit, 1)).await;
        }
        let mut again = 0;
        while matches!(take(&gateways[1], rule, "alice").await, SharedOutcome::Taken { .. }) {
            again += 1;
        }
        assert_eq!(again, 30, "{rule:?}");
    }
}

/// What of a unit has drained away by itself is not given back a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_has_drained_away_is_not_given_back() {
    let server = Server::start();
    let shared = counters(server.port);
    let second = Duration::from_secs(1);
    let rule = SharedRule::Rate(RateRule { count: 10, per: second, burst: 10, algorithm: Algorithm::Gcra });
    let SharedOutcome::Taken { unit: first, .. } = take(&shared, rule, "alice").await else {
        panic!("refused")
    };
    tokio::time::sleep(Duration::from_millis(150)).await;
    // The first is over, so there are ten again; giving it back makes no eleventh.
    for _ in 0..4 {
        assert!(matches!(take(&shared, rule, "alice").await, SharedOutcome::Taken { .. }));
    }
    let before = shared.look(ask(rule, "alice")).await.expect("an answer").1;
    shared.return_units(&ask(rule, "alice").key, rule, (first, 1)).await;
    let after = shared.look(ask(rule, "alice")).await.expect("an answer").1;
    assert!(before.saturating_sub(after) < Duration::from_millis(60), "{before:?} {after:?}");
}

/// A rule that was made stricter holds nobody up for what was taken under the one before, and a rate by a clock's windows
/// begins anew where its windows are others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_rate_goes_on_by_its_own_measure() {
    let server = Server::start();
    let shared = counters(server.port);
    let rate = |count: u64, per: u64, algorithm: Algorithm| {
        SharedRule::Rate(RateRule { count, per: Duration::from_secs(per), burst: count, algorithm })
    };
    for _ in 0..100 {
        take(&shared, rate(100, 86_400, Algorithm::Gcra), "alice").await;
    }
    let strict = take(&shared, rate(2, 60, Algorithm::Gcra), "alice").await;
    let SharedOutcome::Refused { retry_after } = strict else { panic!("{strict:?}") };
    assert!(retry_after <= Duration::from_secs(31), "{retry_after:?}");
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        assert!(matches!(take(&shared, rate(1, 1, algorithm), "alice").await, SharedOutcome::Taken { .. }));
        assert!(matches!(
            take(&shared, rate(1, 3_600, algorithm), "alice").await,
            SharedOutcome::Taken { .. }
        ));
        let again = take(&shared, rate(1, 3_600, algorithm), "alice").await;
        assert!(matches!(again, SharedOutcome::Refused { .. }), "{algorithm:?} {again:?}");
    }
}

/// No choice of names makes the counters of two callers one, also not by looking like another key of the store.
#[test]
fn no_key_imitates_another() {
    let quota = SharedRule::Quota(QuotaRule { carried: 1, ..QuotaRule::new(9, Duration::from_secs(60)) });
    let key = |api: &str, limit: &str, windows: Option<(&str, &str)>, caller: &str| {
        SharedAsk::new(&LimitId::new(api, limit), quota, SharedKey { caller, windows }).expect("a question")
    };
    let keys = [
        key("bank", "limit", None, "alice"),
        key("bank", "limit", None, "alice:told"),
        key("bank", "limit:alice", None, "alice"),
        key("bank", "5.limit", None, "alice"),
        key("bank", "limit", Some(("2026-11-27", "2026-11-26")), "alice"),
        key("bank", "limit", None, "2026-11-27:alice"),
        key("bank", "limit", None, ":2026-11-27:alice"),
        key("*", "limit", None, "alice"),
    ];
    let distinct: std::collections::BTreeSet<_> = keys.iter().map(|ask| ask.key.clone()).collect();
    assert_eq!(distinct.len(), keys.len(), "{distinct:#?}");
    let by_day = &keys[4];
    assert_eq!(by_day.tag, keys[0].tag, "all keys of a caller are together");
    assert!(by_day.last.as_ref().is_some_and(|last| last.contains("2026-11-26") && *last != by_day.key));
}

/// Counters come back when their time is over, and take no room after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_end() {
    let server = Server::start();
    let shared = counters(server.port);
    let second = Duration::from_secs(1);
    for rule in [
        SharedRule::Quota(QuotaRule::new(3, second)),
        SharedRule::Rate(RateRule { count: 3, per: second, burst: 3, algorithm: Algorithm::Gcra }),
    ] {
        for _ in 0..3 {
            assert!(matches!(take(&shared, rule, "alice").await, SharedOutcome::Taken { .. }));
        }
        let SharedOutcome::Refused { retry_after } = take(&shared, rule, "alice").await else {
            panic!("{rule:?}")
        };
        assert!(retry_after <= second, "{retry_after:?}");
        tokio::time::sleep(retry_after + Duration::from_millis(20)).await;
        assert!(matches!(take(&shared, rule, "alice").await, SharedOutcome::Taken { .. }), "{rule:?}");
    }
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let mut connection = talk(server.port).await;
    let held: i64 = redis::cmd("DBSIZE").query_async(&mut connection).await.expect("a number");
    assert_eq!(held, 0);
}

/// A server that is not there, comes, loses its scripts, goes, and comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_go_and_come() {
    let server = Server::start();
    let port = server.port;
    drop(server);
    let shared = counters(port);
    let rule = SharedRule::Quota(QuotaRule::new(1_000, Duration::from_secs(3_600)));
    for _ in 0..FAILURES {
        assert_eq!(shared.take(vec![ask(rule, "alice")]).await, Err(StoreError::NoAnswer));
    }
    assert!(shared.figures().is_open);
    let asked = Instant::now();
    for _ in 0..100 {
        assert_eq!(shared.take(vec![ask(rule, "alice")]).await, Err(StoreError::NoAnswer));
    }
    assert!(shared.figures().not_asked >= 90, "{:?} after {:?}", shared.figures(), asked.elapsed());
    let server = Server::at(port);
    let answers_again = async || {
        for _ in 0..200 {
            if shared.take(vec![ask(rule, "alice")]).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    assert!(answers_again().await, "{:?}", shared.figures());
    assert!(!shared.figures().is_open);
    let mut connection = talk(server.port).await;
    let _: String = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.expect("flushed");
    assert!(matches!(take(&shared, rule, "alice").await, SharedOutcome::Taken { .. }));
    drop(server);
    let _server = Server::at(port);
    assert!(answers_again().await, "{:?}", shared.figures());
}

/// A server that answers something else, and one that does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_answer_decides_nothing() {
    let rule = SharedRule::Quota(QuotaRule::new(1_000, Duration::from_secs(3_600)));
    for said in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"+OK\r\n", b""] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                let mut stream: std::net::TcpStream = stream;
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    if said.is_empty() || stream.write_all(said).is_err() {
                        break;
                    }
                }
                held.push(stream);
            }
        });
        let url = Secret::new(format!("redis://127.0.0.1:{port}").into_bytes());
        let settings = SharedSettings { timeout: Duration::from_millis(200), ..SharedSettings::at(url) };
        let shared = SharedCounters::new(&settings, tokio::runtime::Handle::current()).expect("an address");
        let asked = Instant::now();
        assert_eq!(shared.take(vec![ask(rule, "alice")]).await, Err(StoreError::NoAnswer), "{said:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{said:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_without_a_secret() {
    let settings = |url: &str| SharedSettings::at(Secret::new(url.as_bytes().to_vec()));
    for url in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://:canary@", "redis://host:port"] {
        let error = SharedCounters::new(&settings(url), tokio::runtime::Handle::current()).err();
        assert!(matches!(error, Some(OpenError::BadAddress)), "{url}: {error:?}");
        assert!(!format!("{error:?}").contains("canary"));
    }
    assert!(!format!("{:?}", settings("redis://:canary@host")).contains("canary"));
    let rule = SharedRule::Quota(QuotaRule::new(1, Duration::from_secs(1)));
    let long = "x".repeat(MAX_KEY_BYTES + 1);
    let long = SharedKey { caller: &long, windows: None };
    let asked = SharedAsk::new(&LimitId::new("bank", "limit"), rule, long);
    assert!(matches!(asked, Err(StoreError::KeyTooLong)));
}

/// What may be used once is used once, at whichever gateway; where the server does not answer, nothing is used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_counts_once_at_all_gateways() {
    let server = Server::start();
    let clock = Clock::System;
    let issued = clock.now().unix_seconds() + 2;
    let gateways = [(); 2].map(|()| {
        let replays = Replays::new(clock.now());
        replays.share(&counters(server.port));
        replays
    });
    let claim = async |at: usize, space: &str, keys: &[&str]| {
        let space = gateways[at].space(space);
        let one = |key: &'static [u8]| SingleUse { space: &space, key, issued, until: issued + 60 };
        let all: Vec<_> = keys.iter().map(|key| one(key.to_owned().to_owned().leak().as_bytes())).collect();
        claim_all(b"acme", &all, &clock).await
    };
    assert_eq!(claim(0, "jti", &["a"]).await, Ok(()));
    assert_eq!(claim(1, "jti", &["a"]).await, Err((0, Claim::Seen)));
    assert_eq!(claim(1, "dpop", &["a"]).await, Ok(()), "another kind");
    // All or nothing, also over there.
    assert_eq!(claim(1, "jti", &["b", "a"]).await, Err((1, Claim::Seen)));
    assert_eq!(claim(0, "jti", &["b", "c"]).await, Ok(()));
    assert_eq!(claim(1, "jti", &["c"]).await, Err((0, Claim::Seen)));
    drop(server);
    assert_eq!(claim(0, "jti", &["d"]).await, Err((0, Claim::Unknown)));
    assert_eq!(claim(0, "jti", &["d"]).await, Err((0, Claim::Unknown)), "not used up: nobody knows");
}

/// A block is for those who may have as much as whom it was taken for; another caller of the same counter asks the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_for_nobody_who_may_have_less() {
    let server = Server::start();
    let shared = counters(server.port);
    let asked = |count: u32| {
        let rule = SharedRule::Quota(QuotaRule::new(count, Duration::from_secs(3_600)));
        ask(rule, "acme").in_blocks_of(50, Duration::ZERO)
    };
    let taken = |outcome: &SharedOutcome| matches!(outcome, SharedOutcome::Taken { .. });
    assert!(taken(&shared.take(vec![asked(100)]).await.expect("an answer")[0]));
    assert!(shared.take_leased(&asked(100)).is_some());
    assert!(shared.take_leased(&asked(200)).is_some(), "who may have more may have these");
    assert!(shared.take_leased(&asked(40)).is_none(), "the server has counted more than forty");
    assert!(!taken(&shared.take(vec![asked(40)]).await.expect("an answer")[0]));
    assert!(shared.take_leased(&asked(100)).is_some(), "the block is still there");
    // Sixty are left to this one, who gets units alone as long as there is a block for others.
    for _ in 0..10 {
        assert!(taken(&shared.take(vec![asked(60)]).await.expect("an answer")[0]));
    }
    assert!(!taken(&shared.take(vec![asked(60)]).await.expect("an answer")[0]));
}

/// A block whose answer did not come may be lost. So that no more is, units are asked for alone until an answer comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_doubt_is_asked_for_single_units() {
    let server = Server::start();
    let shared = counters(server.port);
    let rule = SharedRule::Quota(QuotaRule::new(1_000, Duration::from_secs(3_600)));
    let asked = || ask(rule, "alice").in_blocks_of(100, Duration::ZERO);
    let mut connection = talk(server.port).await;
    let pause = async |connection: &mut redis::aio::MultiplexedConnection| {
        let _: String =
            redis::cmd("CLIENT").arg("PAUSE").arg(2_300).query_async(connection).await.expect("paused");
    };
    pause(&mut connection).await;
    assert_eq!(shared.take(vec![asked()]).await, Err(StoreError::NoAnswer));
    assert_eq!(shared.take(vec![asked()]).await.map(|said| said.len()), Ok(1), "the server goes on");
    let used = async || 1_000 - shared.look(ask(rule, "alice")).await.expect("an answer").0;
    assert!(used().await <= 101, "one block is lost at most, and one unit is used");
    assert!(shared.take_leased(&asked()).is_none());
    assert!(shared.take(vec![asked()]).await.is_ok());
    assert!(shared.take_leased(&asked()).is_some(), "it answers again: blocks again");
}

/// A percentage of a window is told once, by one of the gateways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_told_once_by_one_gateway() {
    let server = Server::start();
    let gateways = [counters(server.port), counters(server.port)];
    let hour = Duration::from_secs(3_600);
    let rule = SharedRule::Quota(QuotaRule::new(10, hour));
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = async |at: usize, caller: &str, window: i64, percent: u8| {
        let told = std::sync::Arc::clone(&told);
        let line = format!("{caller} {window} {percent}");
        let tell = move || told.lock().expect("a lock").push(line);
        gateways[at].tell_once(
            &ask(rule, caller),
            (SharedUnit(window), percent),
            (Duration::ZERO, hour),
            tell,
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for at in [0, 1, 0] {
        tell(at, "alice", 1, 80).await;
        tell(at, "bob", 1, 80).await;
    }
    for at in [1, 0] {
        tell(at, "alice", 1, 100).await;
        tell(at, "alice", 1, 80).await;
    }
    tell(0, "alice", 2, 80).await;
    drop(server);
    tell(1, "carol", 1, 80).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told = told.lock().expect("a lock").clone();
    assert_eq!(told, ["alice 1 80", "bob 1 80", "alice 1 100", "alice 2 80", "carol 1 80"]);
}

/// Blocks: asked for once in so many requests, never too much in sum, and what is not used comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_never_admit_too_much_and_come_back() {
    let server = Server::start();
    let gateways = [counters(server.port), counters(server.port)];
    let rule = SharedRule::Quota(QuotaRule::new(1_000, Duration::from_secs(3_600)));
    let started = Instant::now();
    let take = async |gateway: &SharedCounters| {
        let ask = ask(rule, "alice").in_blocks_of(50, started.elapsed());
        if let Some(SharedOutcome::Taken { remaining, .. }) = gateway.take_leased(&ask) {
            return Some(remaining);
        }
        match gateway.take(vec![ask]).await.expect("an answer")[0] {
            SharedOutcome::Taken { remaining, .. } => Some(remaining),
            _ => None,
        }
    };
    for at in 0..50 {
        let remaining = take(&gateways[0]).await.expect("a unit");
        assert_eq!(
            remaining,
            if at == 0 { 950 } else { 999 - at },
            "the first tells what is left at the server"
        );
    }
    assert!(gateways[0].figures().answered <= 2, "the next block is asked for ahead");
    let tasks = (0..8).map(|number| {
        let gateway = gateways[number % 2].clone();
        tokio::spawn(async move {
            let mut passed = 0;
            for _ in 0..300 {
                let ask = ask(rule, "alice").in_blocks_of(50, started.elapsed());
                let leased = gateway.take_leased(&ask).is_some();
                let taken = leased
                    || matches!(
                        gateway.take(vec![ask]).await.expect("an answer")[0],
                        SharedOutcome::Taken { .. }
                    );
                passed += usize::from(taken);
            }
            passed
        })
    });
    let mut passed = 50;
    for task in tasks.collect::<Vec<_>>() {
        passed += task.await.expect("a task");
    }
    assert_eq!(passed, 1_000);
    let answered: u64 = gateways.iter().map(|gateway| gateway.figures().answered).sum();
    assert!(answered < 2_400 - 1_000 + 400, "{answered} questions");
    // What one holds and does not use is there for the other, once it has gone back.
    let rule = SharedRule::Quota(QuotaRule::new(60, Duration::from_secs(3_600)));
    let bob = || ask(rule, "bob").in_blocks_of(50, started.elapsed());
    assert!(gateways[0].take(vec![bob()]).await.is_ok());
    for _ in 0..10 {
        let outcome = gateways[1].take_leased(&bob());
        if outcome.is_none() {
            let _ = gateways[1].take(vec![bob()]).await.expect("an answer");
        }
    }
    assert!(gateways[1].take_leased(&bob()).is_none());
    let refused = gateways[1].take(vec![bob()]).await.expect("an answer")[0];
    assert!(matches!(refused, SharedOutcome::Refused { .. }), "{refused:?}");
    gateways[0].return_leases(None).await;
    assert!(gateways[0].take_leased(&bob()).is_none());
    let mut rest = 0;
    while gateways[1].take_leased(&bob()).is_some()
        || matches!(gateways[1].take(vec![bob()]).await.expect("an answer")[0], SharedOutcome::Taken { .. })
    {
        rest += 1;
    }
    assert_eq!(rest, 49);
    // A block is good for no other window, and what is put back after it went back goes to the server.
    let ended = ask(rule, "carol").in_blocks_of(50, Duration::ZERO);
    let SharedOutcome::Taken { unit, .. } =
        gateways[0].take(vec![ended.clone()]).await.expect("an answer")[0]
    else {
        panic!("refused");
    };
    assert!(gateways[0].take_leased(&ended).is_some());
    assert!(
        gateways[0].take_leased(&ask(rule, "carol").in_blocks_of(50, Duration::from_secs(3_601))).is_none()
    );
    gateways[0].return_leases(None).await;
    gateways[0].put_back_leased(&ended, unit);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let strict = gateways[1].take(vec![ask(rule, "carol")]).await.expect("an answer")[0];
    assert!(
        matches!(strict, SharedOutcome::Taken { remaining: 58, .. }),
        "one is used, one was put back: {strict:?}"
    );
}
