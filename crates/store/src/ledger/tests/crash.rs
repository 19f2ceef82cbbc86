//! What survives a restart, and what a crash costs.

use super::{HOUR, TENS, at, is_taken, later, open, quotas, restarted_at, take_all, take_some, wait};
use crate::{QuotaOutcome, QuotaRule, Store};
use portcullis_core::Clock;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A quota whose block is twenty units.
const KILLED: QuotaRule = QuotaRule::new(2_000, HOUR);
const KILLED_BLOCK: u32 = 20;

/// Names the store that a child process takes from.
const CHILD_STORE: &str = "PORTCULLIS_STORE_TEST_CHILD";

/// The file as a crash at this moment would leave it: everything that was committed, nothing closed.
fn as_after_a_crash(path: &Path) -> PathBuf {
    let copy = path.with_extension("crashed");
    fs::copy(path, &copy).unwrap();
    copy
}

/// Waits until the background has done what was asked of it: commands are answered in their order.
fn settle(store: &Store) {
    let table = quotas(store, TENS);
    assert!(is_taken(wait(table.take(&format!("settle {}", store.figures().commits), at(0))).unwrap()));
}

#[test]
fn a_clean_restart_loses_no_unit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for round in 0..5 {
        let store = open(&path);
        assert_eq!(take_some(&quotas(&store, TENS), "a", restarted_at(round * 60), 123), 123);
        store.close().unwrap();
    }
    let store = open(&path);
    assert_eq!(take_all(&quotas(&store, TENS), "a", restarted_at(3599)), 1_000 - 5 * 123);
    store.close().unwrap();
    let store = open(&path);
    assert_eq!(take_all(&quotas(&store, TENS), "a", restarted_at(3599)), 0);
    assert_eq!(take_all(&quotas(&store, TENS), "a", later(restarted_at(3599), 1)), 1_000);
    store.close().unwrap();
}

#[test]
fn a_store_that_is_merely_dropped_writes_what_was_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    assert_eq!(take_some(&quotas(&store, TENS), "a", at(0), 3), 3);
    drop(store);
    let store = loop {
        // Nobody waits for the thread of a dropped store; the file is free when it has ended.
        match Store::open(&crate::StoreSettings { path: path.clone() }) {
            Ok(store) => break store,
            Err(error) => assert!(matches!(error, crate::OpenError::Locked { .. }), "{error:?}"),
        }
    };
    assert_eq!(take_all(&quotas(&store, TENS), "a", restarted_at(1)), 997);
    store.close().unwrap();
}

#[test]
fn a_crash_admits_nothing_twice_and_costs_at_most_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    // A block of four.
    let quota = QuotaRule::new(400, HOUR);
    let store = open(&path);
    let table = quotas(&store, quota);
    for used in 1..=10 {
        assert_eq!(take_some(&table, "a", at(0), 1), 1);
        settle(&store);
        let crashed = open(&as_after_a_crash(&path));
        let record = quotas(&crashed, quota);
        let QuotaOutcome::Taken { remaining, .. } = wait(record.take("a", restarted_at(1))).unwrap() else {
            panic!("refused")
        };
        crashed.close().unwrap();
        let after = u32::try_from(remaining).unwrap() + 1;
        assert!(used + after <= 400, "{used} before, {after} after");
        assert!(used + after >= 400 - 4, "{used} before, {after} after");
    }
    store.close().unwrap();
}

#[test]
fn a_small_quota_loses_at_most_one_unit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let five = QuotaRule::new(5, HOUR);
    let store = open(&path);
    for used in 1..=5 {
        assert_eq!(take_some(&quotas(&store, five), "a", at(0), 1), 1);
        let crashed = open(&as_after_a_crash(&path));
        let after = take_all(&quotas(&crashed, five), "a", restarted_at(1));
        crashed.close().unwrap();
        assert!((4..=5).contains(&(used + after)), "{used} before, {after} after");
    }
    store.close().unwrap();
}

#[test]
fn the_wall_clock_of_a_restart_forgives_only_if_it_jumped_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    assert_eq!(take_all(&quotas(&store, TENS), "a", at(100_000)), 1_000);
    store.close().unwrap();
    for back in [99_999, 50_000, 0] {
        let store = open(&path);
        let table = quotas(&store, TENS);
        assert_eq!(take_all(&table, "a", restarted_at(back)), 0, "{back}");
        assert_eq!(take_all(&table, "a", later(restarted_at(back), 60)), 0, "{back}");
        store.sweep(later(restarted_at(back), 60));
        store.close().unwrap();
    }
    // The clock stays wrong, and the window still ends: after its period of running time.
    let store = open(&path);
    let table = quotas(&store, TENS);
    assert_eq!(take_all(&table, "a", restarted_at(0)), 0);
    // Three minutes of it have passed in the runs before this one.
    assert_eq!(take_all(&table, "a", later(restarted_at(0), 3600 - 3 * 60 - 1)), 0);
    assert_eq!(take_all(&table, "a", later(restarted_at(0), 3600 - 3 * 60)), 1_000);
    store.close().unwrap();
}

#[test]
fn a_clock_that_was_set_while_running_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let table = quotas(&store, TENS);
    assert_eq!(take_all(&table, "a", at(0)), 1_000);
    // The wall clock is put a day ahead; the next sweep sees it.
    let day = portcullis_core::Moment { unix_ms: at(86_400).unix_ms, ..at(10) };
    store.sweep(day);
    settle(&store);
    let crashed = open(&as_after_a_crash(&path));
    assert_eq!(
        take_all(&quotas(&crashed, TENS), "a", restarted_at(86_460)),
        0,
        "a minute has passed, not a day"
    );
    crashed.close().unwrap();
    store.close().unwrap();
}

#[test]
fn windows_that_are_over_leave_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let table = quotas(&store, TENS);
    for n in 0..20 {
        assert_eq!(take_some(&table, &format!("early {n}"), at(0), 1), 1);
    }
    assert_eq!(take_some(&table, "late", at(1_800), 1), 1);
    store.sweep(at(3_600));
    store.close().unwrap();
    let file = crate::ledger::LedgerFile::open(&path).unwrap();
    let keys: Vec<_> = file.scan(None, 100).unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["late"]);
}

#[test]
fn windows_of_limits_that_are_gone_leave_memory_at_once_and_the_file_when_they_are_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let table = quotas(&store, TENS);
    assert_eq!(take_some(&table, "a", at(0), 5), 5);
    drop(table);
    store.sweep(at(1));
    let table = quotas(&store, TENS);
    assert_eq!(take_some(&table, "a", at(2), 1_000), 995, "a limit that comes back finds its counters");
    drop(table);
    store.sweep(at(3_600));
    store.close().unwrap();
    assert_eq!(crate::ledger::LedgerFile::open(&path).unwrap().scan(None, 10).unwrap(), []);
}

#[test]
fn a_child_process_takes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_STORE) else {
        // Not a test of its own: `Taker` runs it in a process that can be killed.
        return;
    };
    let store = open(Path::new(&path));
    let table = quotas(&store, KILLED);
    let mut out = std::io::stdout();
    loop {
        let word = if is_taken(wait(table.take("a", Clock::System.now())).unwrap()) {
            "admitted"
        } else {
            "refused"
        };
        if writeln!(out, "{word}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// A process that takes from a store as fast as it can, and says so.
pub(super) struct Taker {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Taker {
    pub(super) fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "ledger::tests::crash::a_child_process_takes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD_STORE, path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// The next word about a request; `None` if it will say no more.
    fn word(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test harness talks on the same pipe, and its line has no end of its own before the first word.
            if let Some(word) =
                ["admitted", "refused"].into_iter().find(|word| line.trim_end().ends_with(word))
            {
                return Some(word.to_owned());
            }
        }
    }

    /// Waits for so many admissions; false if it is refused before.
    pub(super) fn admits(&mut self, many: u32) -> bool {
        (0..many).all(|_| self.word().as_deref() == Some("admitted"))
    }

    /// Kills it, as `kill -9` does.
    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Kills it and counts what it had admitted beyond what was read.
    fn kill_and_count(mut self) -> u32 {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::iter::from_fn(|| self.word()).map(|word| u32::from(word == "admitted")).sum()
    }
}

/// LIM-04, R12: killed at any moment, the gateway never admits a unit twice and forgets at most a block.
#[test]
fn kill_9_admits_nothing_twice_and_costs_at_most_a_block_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (mut admitted, mut kills) = (0, 0);
    loop {
        let mut taker = Taker::start(&path);
        let mut read = 0;
        // Another number each time, so that it dies at different points of a block and of a commit.
        while read < 1 + kills * 37 % 151 && taker.admits(1) {
            read += 1;
        }
        let exhausted = read < 1 + kills * 37 % 151;
        admitted += read + taker.kill_and_count();
        if exhausted {
            break;
        }
        kills += 1;
    }
    // A unit that was admitted when the process died may not have been spoken of.
    let bound = kills * (KILLED_BLOCK + 1);
    assert!(kills > 5, "{kills}");
    assert!(admitted <= KILLED.count, "{admitted} admitted in spite of {}", KILLED.count);
    assert!(admitted + bound >= KILLED.count, "{admitted} admitted, {kills} kills");
}
