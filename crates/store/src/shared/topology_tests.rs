//! Against real servers that stand in for each other: a cluster, and a server with a replica and Sentinels.

use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_core::{Clock, Secret};
use tempfile::TempDir;

use super::tests::{Server, ask, free_port, take, talk};
use super::{SharedCounters, SharedOutcome, SharedRule, SharedSettings, Topology};
use crate::QuotaRule;
use crate::error::{OpenError, StoreError};
use crate::replays::{Claim, Replays, SingleUse, claim_all};

const HOUR: Duration = Duration::from_secs(3_600);

fn connected(port: u16, topology: Topology, replicas: u32) -> SharedCounters {
    let url = Secret::new(format!("redis://127.0.0.1:{port}").into_bytes());
    let timeout = Duration::from_secs(2);
    let settings = SharedSettings { topology, timeout, replicas, ..SharedSettings::at(url) };
    SharedCounters::new(&settings, tokio::runtime::Handle::current()).expect("an address")
}

fn quota(count: u32) -> SharedRule {
    SharedRule::Quota(QuotaRule::new(count, HOUR))
}

async fn until<T>(what: &str, mut ready: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = Instant::now();
    loop {
        if let Some(found) = ready().await {
            return found;
        }
        assert!(waiting.elapsed() < Duration::from_secs(40), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Three servers that share the keys among them.
struct Cluster {
    servers: Vec<Server>,
    _folders: Vec<TempDir>,
}

impl Cluster {
    fn start() -> Self {
        let folders: Vec<_> = (0..3).map(|_| TempDir::new().expect("a folder")).collect();
        let start = |folder: &TempDir| {
            let folder = folder.path().to_string_lossy().into_owned();
            // The port between the servers is ten thousand above the other one.
            let port = std::iter::repeat_with(free_port).find(|port| *port < 50_000).expect("a port");
            let cluster = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
            let here = ["--dir", &folder, "--save", "", "--appendonly", "no"];
            Server::with(port, &[&cluster[..], &here].concat())
        };
        let servers: Vec<_> = folders.iter().map(start).collect();
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]);
        command.args(servers.iter().map(|server| format!("127.0.0.1:{}", server.port)));
        let output =
            command.args(["--cluster-yes"]).output().expect("redis-cli, which comes with redis-server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Self { servers, _folders: folders }
    }

    fn counters(&self) -> SharedCounters {
        let nodes = self.servers.iter().skip(1).map(|server| format!("127.0.0.1:{}", server.port));
        connected(self.servers[0].port, Topology::Cluster { nodes: nodes.collect() }, 0)
    }

    async fn key_count(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for server in &self.servers {
            let mut connection = talk(server.port).await;
            counts.push(redis::cmd("DBSIZE").query_async(&mut connection).await.expect("a number"));
        }
        counts
    }
}

/// Limits of one request on several servers: a unit of each, or none of any; single uses likewise. One server that is gone
/// takes only what it counts with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_counts_as_one_server_does() {
    let cluster = Cluster::start();
    let gateways = [cluster.counters(), cluster.counters()];
    until("the cluster answers", async || {
        gateways[0].take(vec![ask(quota(1), "first")]).await.ok()?;
        gateways[1].take(vec![ask(quota(9), "second")]).await.ok()
    })
    .await;
    // One narrow limit among several that are elsewhere.
    let asks = || {
        let wide = (0..6).map(|number| ask(quota(50), &format!("wide-{number}")));
        let mut asks: Vec<_> = wide.collect();
        asks.insert(3, ask(quota(5), "narrow"));
        asks.push(ask(quota(1), "shadow").softly(true));
        asks
    };
    for at in 0..5 {
        let outcomes = gateways[at % 2].take(asks()).await.expect("an answer");
        let taken = outcomes.iter().filter(|outcome| matches!(outcome, SharedOutcome::Taken { .. })).count();
        assert_eq!(taken, if at == 0 { 8 } else { 7 }, "{at}: {outcomes:?}");
    }
    for at in 0..10 {
        let outcomes = gateways[at % 2].take(asks()).await.expect("an answer");
        assert!(matches!(outcomes[3], SharedOutcome::Refused { .. }), "{outcomes:?}");
    }
    for number in 0..6 {
        let key = format!("wide-{number}");
        let left = gateways[1].look(ask(quota(50), &key)).await.expect("an answer").0;
        assert_eq!(left, 45, "{key}: what a refused request had taken came back");
    }
    assert!(cluster.key_count().await.iter().all(|count| *count > 0), "{:?}", cluster.key_count().await);
    // However many ask at once.
    let tasks = (0..8).map(|number| {
        let gateway = gateways[number % 2].clone();
        tokio::spawn(async move {
            let mut passed = 0;
            for _ in 0..60 {
                passed += usize::from(matches!(
                    take(&gateway, quota(200), "alice").await,
                    SharedOutcome::Taken { .. }
                ));
            }
            passed
        })
    });
    let mut passed = 0;
    for task in tasks.collect::<Vec<_>>() {
        passed += task.await.expect("a task");
    }
    assert_eq!(passed, 200);
    single_uses(&gateways).await;
    one_server_less(cluster, &gateways[0]).await;
}

async fn single_uses(gateways: &[SharedCounters; 2]) {
    let clock = Clock::System;
    let issued = clock.now().unix_seconds() + 2;
    let memories = gateways.each_ref().map(|gateway| {
        let replays = Replays::new(clock.now());
        replays.share(gateway);
        replays.space("jti")
    });
    let claim = async |at: usize, keys: &[&[u8]]| {
        let one = |key| SingleUse { space: &memories[at], key, issued, until: issued + 60 };
        let all: Vec<_> = keys.iter().map(|key| one(key)).collect();
        claim_all(b"acme", &all, &clock).await
    };
    assert_eq!(claim(0, &[b"x"]).await, Ok(()));
    assert_eq!(claim(1, &[b"a", b"b", b"c", b"x"]).await, Err((3, Claim::Seen)));
    assert_eq!(claim(0, &[b"a", b"b", b"c"]).await, Ok(()), "they are not used up");
    assert_eq!(claim(1, &[b"d", b"c"]).await, Err((1, Claim::Seen)));
    assert_eq!(claim(1, &[b"d"]).await, Ok(()), "neither over there nor here");
}

async fn one_server_less(mut cluster: Cluster, gateway: &SharedCounters) {
    drop(cluster.servers.pop());
    let (mut here, mut gone) = (0, 0);
    until("some callers are counted, and some are not", async || {
        (here, gone) = (0, 0);
        for number in 0..24 {
            match gateway.take(vec![ask(quota(1_000), &format!("caller-{number}"))]).await {
                Ok(_) => here += 1,
                Err(StoreError::NoAnswer) => gone += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        (here > 0 && gone > 0).then_some(())
    })
    .await;
}

/// A server, its replica, and three Sentinels that watch over them.
struct Watched {
    servers: Vec<Option<Server>>,
    ports: [u16; 2],
    sentinels: Vec<Server>,
    folder: TempDir,
}

impl Watched {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let ports = [free_port(), free_port()];
        let mut watched = Self { servers: vec![None, None], ports, sentinels: Vec::new(), folder };
        watched.come(0);
        watched.come(1);
        watched.sentinels = (0..3)
            .map(|number| {
                let file = watched.folder.path().join(format!("sentinel-{number}.conf"));
                let text = format!(
                    "sentinel monitor bank 127.0.0.1 {} 2\nsentinel down-after-milliseconds bank 2000\n\
                     sentinel failover-timeout bank 4000\nsentinel parallel-syncs bank 1\n",
                    ports[0]
                );
                std::fs::write(&file, text).expect("written");
                Server::with(free_port(), &[&file.to_string_lossy(), "--sentinel"])
            })
            .collect();
        watched
    }

    /// Starts one of the two: the first as what is written to, the other as its replica.
    fn come(&mut self, at: usize) {
        let master = self.ports[1 - at].to_string();
        // What a replica is sent at the beginning goes through a file.
        let folder = self.folder.path().join(at.to_string());
        let _ = std::fs::create_dir_all(&folder);
        let folder = folder.to_string_lossy();
        let mut arguments = vec!["--dir", &folder, "--save", "", "--appendonly", "yes"];
        arguments.extend(["--repl-diskless-sync-delay", "0"]);
        if at == 1 {
            arguments.extend(["--replicaof", "127.0.0.1", &master]);
        }
        self.servers[at] = Some(Server::with(self.ports[at], &arguments));
    }

    /// Stops the replica, or lets it go on.
    fn freeze_replica(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let id = self.servers[1].as_ref().expect("a replica").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    fn counters(&self, replicas: u32) -> SharedCounters {
        let others = self.sentinels.iter().skip(1).map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        let topology =
            Topology::Sentinel { service: "bank".to_owned(), nodes: others.collect(), password: None };
        connected(self.sentinels[0].port, topology, replicas)
    }
}

const UNITS: u32 = 3_000;

/// What came of callers that asked while a server was replaced by its replica.
#[derive(Debug)]
struct FailedOver {
    passed: u32,
    unanswered: u32,
    /// Units that the server had counted and its replica had not heard of.
    lag: u32,
}

/// Eight callers of two gateways on one quota. Its server is killed while its replica lags, the first Sentinel is gone, and
/// the server comes back later, as a replica.
async fn failed_over(replicas: u32) -> FailedOver {
    let mut watched = Watched::start();
    let gateways = [watched.counters(replicas), watched.counters(replicas)];
    until("the server answers, and its replica has what is written", async || {
        gateways[0].take(vec![ask(quota(9), "first")]).await.ok()?;
        gateways[1].take(vec![ask(quota(9), "second")]).await.ok()
    })
    .await;
    until("the Sentinels know the replica", async || {
        let mut connection = talk(watched.sentinels[2].port).await;
        let mut command = redis::cmd("SENTINEL");
        let found: Vec<redis::Value> =
            command.arg("REPLICAS").arg("bank").query_async(&mut connection).await.ok()?;
        (!found.is_empty()).then_some(())
    })
    .await;
    let tasks = (0..8).map(|number| {
        let gateway = gateways[number % 2].clone();
        tokio::spawn(async move {
            let (mut passed, mut unanswered) = (0_u32, 0_u32);
            for _ in 0..20_000 {
                match gateway.take(vec![ask(quota(UNITS), "alice")]).await.as_deref() {
                    Ok([SharedOutcome::Taken { .. }]) => passed += 1,
                    Ok(_) => break,
                    Err(_) => {
                        unanswered += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            (passed, unanswered)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let used = async |port: u16| {
        let mut connection = talk(port).await;
        let state: Option<String> =
            redis::cmd("GET").arg(&ask(quota(UNITS), "alice").key).query_async(&mut connection).await.ok()?;
        state?.split(' ').nth(1)?.parse::<u32>().ok()
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    // From here on the replica hears nothing.
    watched.freeze_replica(true);
    let mut connection = talk(watched.ports[0]).await;
    let mut cut = redis::cmd("CLIENT");
    let _: i64 = cut.arg("KILL").arg("TYPE").arg("replica").query_async(&mut connection).await.expect("cut");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let counted = used(watched.ports[0]).await.expect("a counter");
    watched.sentinels.remove(0);
    watched.servers[0] = None;
    watched.freeze_replica(false);
    let replicated = used(watched.ports[1]).await.unwrap_or_default();
    // It comes back as a replica.
    let new = watched.ports[1].to_string();
    until("the replica takes its place", async || {
        for sentinel in &watched.sentinels {
            let mut connection = talk(sentinel.port).await;
            let mut command = redis::cmd("SENTINEL");
            let named: Vec<String> =
                command.arg("GET-MASTER-ADDR-BY-NAME").arg("bank").query_async(&mut connection).await.ok()?;
            if named.last() != Some(&new) {
                return None;
            }
        }
        Some(())
    })
    .await;
    watched.come(0);
    let (mut passed, mut unanswered) = (0, 0);
    for task in tasks {
        let (some, lost) = task.await.expect("a task");
        (passed, unanswered) = (passed + some, unanswered + lost);
    }
    // Between the look and its end it went on counting for a moment.
    let lag = counted.saturating_sub(replicated) + UNITS / 20;
    let came = FailedOver { passed, unanswered, lag };
    println!("{replicas} replicas: {came:?} of {UNITS}; {counted} counted, {replicated} at the replica");
    came
}

/// Where replicas are waited for, what was answered is never admitted a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_replicas_have_outlives_the_server() {
    let FailedOver { passed, unanswered, .. } = failed_over(1).await;
    assert!(passed <= UNITS && passed + unanswered >= UNITS, "{passed} admitted, {unanswered} unanswered");
    assert!(unanswered > 0, "the server was gone for a while");
}

/// Where they are not, no more is admitted a second time than they had not heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_waiting_no_more_is_lost_than_replicas_lag() {
    let FailedOver { passed, unanswered, lag } = failed_over(0).await;
    assert!(passed > UNITS, "the replica lagged, or this shows nothing");
    assert!(passed <= UNITS + lag && passed + unanswered >= UNITS, "{passed} admitted, {lag} behind");
}

#[tokio::test]
async fn a_node_that_is_none_is_named() {
    let url = || Secret::new(b"redis://:canary@127.0.0.1".to_vec());
    for node in ["", "host", "host:", "host:0", "host:99999", ":6379", "user:pw@host:1", "redis://host:1"] {
        let nodes = || vec!["10.0.0.1:6379".to_owned(), node.to_owned()];
        let sentinel = Topology::Sentinel { service: "bank".to_owned(), nodes: nodes(), password: None };
        for topology in [sentinel, Topology::Cluster { nodes: nodes() }] {
            let settings = SharedSettings { topology, ..SharedSettings::at(url()) };
            let error = settings.check().expect_err(node);
            assert!(matches!(&error, OpenError::BadNode(named) if named == node), "{node}: {error:?}");
            assert!(!format!("{error:?} {settings:?}").contains("canary"));
        }
    }
}
