//! Against a real `redis-server`: what one gateway is told, all of them know.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_core::Secret;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::tests::{Server, free_port};
use super::{Follower, Heard, SharedSettings};
use crate::records::{RecordChanges, Records};
use crate::{Shared, Store, StoreError, StoreSettings};

/// A gateway that has records in force.
struct Gateway {
    store: Store,
    records: Records,
    held: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Gateway {
    fn start(port: u16, folder: &Path) -> Result<Arc<Self>, StoreError> {
        let store = Store::open(&StoreSettings { path: folder.join("store.redb") }).expect("a store");
        let url = Secret::new(format!("redis://127.0.0.1:{port}").into_bytes());
        let shared = Shared::at(&SharedSettings::at(url), &Handle::current()).expect("an address");
        let store = store.sharing(shared);
        let records = store.records("keys");
        // A gateway reads them before it serves, on a thread of its own.
        let held = tokio::task::block_in_place(|| records.all());
        let held = held.inspect_err(|_| store.close().expect("closed"))?;
        let gateway = Self { store, records, held: Mutex::new(held.into_iter().collect()) };
        let gateway = Arc::new(gateway);
        let (followers, shared) =
            ([Arc::clone(&gateway) as Arc<dyn Follower>], gateway.records.shared().expect("shared").clone());
        tokio::spawn(async move { shared.follow(&followers, |_| {}).await });
        Ok(gateway)
    }

    /// As an operator tells it: in force here when it is at the server.
    fn put(&self, key: &str, value: Option<&str>, expected: Option<Option<&str>>) -> Result<(), StoreError> {
        let row = |value: Option<&str>| {
            RecordChanges::from([(key.to_owned(), value.map(|value| value.as_bytes().to_vec()))])
        };
        let expected = expected.map(row);
        let mut held = self.held.lock().expect("a lock");
        tokio::task::block_in_place(|| self.records.change(row(value), expected.as_ref()))?;
        apply(&mut held, row(value));
        Ok(())
    }

    fn knows(&self) -> String {
        let held = self.held.lock().expect("a lock");
        let rows = held.iter().map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)));
        rows.collect::<Vec<_>>().join(" ")
    }

    async fn comes_to_know(&self, wanted: &str) {
        let waiting = Instant::now();
        while self.knows() != wanted {
            assert!(waiting.elapsed() < Duration::from_secs(20), "{} instead of {wanted}", self.knows());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Follower for Gateway {
    fn subject(&self) -> &str {
        "keys"
    }

    fn held(&self) -> BTreeMap<String, Vec<u8>> {
        self.held.lock().expect("a lock").clone()
    }

    fn hear(&self, heard: Heard) {
        let mut held = self.held.lock().expect("a lock");
        let changes = heard.changes();
        apply(&mut held, changes.clone());
        self.records.copy(changes);
    }
}

fn apply(held: &mut BTreeMap<String, Vec<u8>>, changes: RecordChanges) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(held.insert(key, value)),
            None => drop(held.remove(&key)),
        }
    }
}

fn folders() -> [TempDir; 2] {
    [(); 2].map(|()| TempDir::new().expect("a folder"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_one_gateway_is_told_all_of_them_know() {
    let (server, folders) = (Server::start(), folders());
    let one = Gateway::start(server.port, folders[0].path()).expect("a start");
    one.put("a", Some("1"), Some(None)).expect("written");
    let other = Gateway::start(server.port, folders[1].path()).expect("a start");
    assert_eq!(other.knows(), "a=1", "what was told before it came");
    other.put("b", Some("2"), Some(None)).expect("written");
    one.comes_to_know("a=1 b=2").await;
    one.put("a", None, None).expect("written");
    other.comes_to_know("b=2").await;
    // Both at once: one of them is too late, and nothing of it is written.
    let told = [one.put("c", Some("one"), Some(None)), other.put("c", Some("other"), Some(None))];
    assert_eq!(told, [Ok(()), Err(StoreError::Conflict)]);
    other.comes_to_know("b=2 c=one").await;
    // As many changes as come, in whatever order they are heard, both end with the same.
    for number in 0..200 {
        let gateway = if number % 3 == 0 { &one } else { &other };
        gateway.put("d", Some(&number.to_string()), None).expect("written");
    }
    for gateway in [&one, &other] {
        gateway.comes_to_know("b=2 c=one d=199").await;
    }
    one.store.close().expect("closed");
}

/// A start without the server goes by the copy, and hears what it has missed; a first one is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_starts_by_its_copy_and_catches_up() {
    let port = free_port();
    let folders = folders();
    assert_eq!(
        Gateway::start(port, folders[0].path()).err(),
        Some(StoreError::NoAnswer),
        "nobody knows what was told"
    );
    let disk = TempDir::new().expect("a folder");
    let place = disk.path().to_string_lossy().into_owned();
    let durable = ["--dir", &*place, "--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let server = Server::with(port, &durable);
    let one = Gateway::start(port, folders[0].path()).expect("a start");
    let other = Gateway::start(port, folders[1].path()).expect("a start");
    one.put("a", Some("1"), Some(None)).expect("written");
    one.put("b", Some("1"), Some(None)).expect("written");
    other.comes_to_know("a=1 b=1").await;
    one.store.close().expect("closed");
    drop(one);
    other.put("a", None, None).expect("written");
    other.put("c", Some("1"), None).expect("written");
    drop(server);
    assert_eq!(other.put("d", Some("1"), None), Err(StoreError::NoAnswer));
    let copy = TempDir::new().expect("a folder");
    std::fs::copy(folders[0].path().join("store.redb"), copy.path().join("store.redb")).expect("copied");
    let again = Gateway::start(port, copy.path()).expect("a start without the server");
    assert_eq!(again.knows(), "a=1 b=1", "as of the last time");
    let _server = Server::with(port, &durable);
    for gateway in [&again, &other] {
        gateway.comes_to_know("b=1 c=1").await;
    }
}

/// A server that has lost everything is told again, and what gateways had told before they shared a server comes together.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_has_lost_the_records_is_told_again() {
    let (port, folders) = (free_port(), folders());
    for (folder, value) in folders.iter().zip(["1", "2"]) {
        let alone = Store::open(&StoreSettings { path: folder.path().join("store.redb") }).expect("a store");
        let other = RecordChanges::from([("of another subject".to_owned(), Some(value.into()))]);
        alone.own_records("others").change(other, None).expect("written");
        let rows = [("both".to_owned(), Some(value.into())), (value.to_owned(), Some(b"own".to_vec()))];
        alone.own_records("keys").change(rows.into(), None).expect("written");
        alone.close().expect("closed");
    }
    let server = Server::at(port);
    let one = Gateway::start(port, folders[0].path()).expect("a start");
    let other = Gateway::start(port, folders[1].path()).expect("a start");
    for gateway in [&one, &other] {
        gateway.comes_to_know("1=own 2=own both=1").await;
    }
    // Subjects do not come at once, and none is lost because another was there before.
    let others = tokio::task::block_in_place(|| one.store.records("others").all()).expect("an answer");
    assert_eq!(others, [("of another subject".to_owned(), b"1".to_vec())]);
    drop(server);
    let _server = Server::at(port);
    let third = TempDir::new().expect("a folder");
    let waiting = Instant::now();
    loop {
        let gateway = Gateway::start(port, third.path()).expect("a start");
        if gateway.knows() == "1=own 2=own both=1" {
            break;
        }
        gateway.store.close().expect("closed");
        assert!(waiting.elapsed() < Duration::from_secs(20), "{}", gateway.knows());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((one.knows(), other.knows()), ("1=own 2=own both=1".into(), "1=own 2=own both=1".into()));
}

/// What a failover to a replica that lags has lost is told again by whoever had told it, unless another has changed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_change_that_was_lost_is_made_again() {
    let (server, folders) = (Server::start(), folders());
    let one = Gateway::start(server.port, folders[0].path()).expect("a start");
    let other = Gateway::start(server.port, folders[1].path()).expect("a start");
    other.put("other", Some("1"), None).expect("written");
    one.put("kept", Some("1"), None).expect("written");
    one.put("lost", Some("1"), None).expect("written");
    for gateway in [&one, &other] {
        gateway.comes_to_know("kept=1 lost=1 other=1").await;
    }
    let mut connection = super::tests::talk(server.port).await;
    let script = "redis.call('HDEL', KEYS[1], 'keys:lost')
        local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
        return redis.call('XDEL', KEYS[2], last[1][1])";
    let mut losing = redis::cmd("EVAL");
    losing.arg(script).arg(2).arg("portcullis:1:records:{records}");
    losing.arg("portcullis:1:records:{records}:changes");
    assert_eq!(losing.query_async::<i64>(&mut connection).await.expect("lost"), 1);
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").to_owned();
    let _: i64 = kill.query_async(&mut connection).await.expect("cut off");
    let waiting = Instant::now();
    let is_there = async || {
        let mut asking = redis::cmd("HGET");
        asking.arg("portcullis:1:records:{records}").arg("keys:lost");
        asking.query_async::<Option<String>>(&mut connection.clone()).await.expect("an answer")
    };
    while is_there().await.is_none() {
        assert!(waiting.elapsed() < Duration::from_secs(10), "it stays lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for gateway in [&one, &other] {
        gateway.comes_to_know("kept=1 lost=1 other=1").await;
    }
}

/// What was removed while a gateway could not hear is not brought back by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_removed_meanwhile_stays_removed() {
    let (server, folders) = (Server::start(), folders());
    let one = Gateway::start(server.port, folders[0].path()).expect("a start");
    let other = Gateway::start(server.port, folders[1].path()).expect("a start");
    one.put("a", Some("1"), Some(None)).expect("written");
    other.comes_to_know("a=1").await;
    let mut connection = super::tests::talk(server.port).await;
    let cut = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").to_owned();
    for _ in 0..5 {
        let _: i64 = cut.query_async(&mut connection).await.expect("cut off");
        while one.put("a", None, None).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        for gateway in [&one, &other] {
            gateway.comes_to_know("").await;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!((one.knows(), other.knows()), (String::new(), String::new()));
        while one.put("a", Some("1"), None).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        other.comes_to_know("a=1").await;
    }
}
