//! What operators have told, at a server that several gateways share: each of them hears of every change.
//!
//! The server holds the records and the last changes of them. A gateway reads all of them when it begins to follow, and
//! from there on what has changed since; where it has missed something, it reads all of them again.
//!
//! # A server that has lost them
//!
//! Records bear a mark that was made with the first look at them. A gateway that finds another mark than it knew takes it
//! that the server has lost them, or that this gateway has stood alone until now: it gives the server what it has, in the
//! place of nothing that is there, and takes the rest.
//!
//! # The order of changes
//!
//! Changes have numbers. What others have changed before this gateway's own last change of the same record is not heard:
//! it is over. A change that gives somebody something expects the records to be as this gateway knows them, and fails
//! where another was faster. A change of its own that the server does not know of later, after a failover, is made again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::FromRedisValue;
use redis::streams::StreamReadReply;
use tokio::runtime::Handle;

use super::SharedSettings;
use super::ask::PREFIX;
use super::servers::{Failure, Kept, Servers};
use crate::error::{OpenError, StoreError};
use crate::records::{RecordChanges, RecordRow};

/// How long a change or a reading waits at least: nobody who calls an API waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the server is asked to wait for a change.
const LISTENING: Duration = Duration::from_secs(5);
/// How long whoever follows waits after a failure.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a gateway knows that it has changed a record.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many records are changed in one step at most: a script takes so many arguments.
pub(crate) const MOST_AT_ONCE: usize = 1_000;
/// What stands where the mark is.
const MARK: &str = "mark";

/// Records at the server. Clones are one.
#[derive(Clone)]
pub struct SharedRecords(Arc<Inner>);

struct Inner {
    /// Who this is among the gateways.
    name: String,
    servers: Servers,
    /// Apart from the others: a server answers nothing else on a connection on which somebody listens.
    listening: Servers,
    background: Handle,
    change: Kept,
    all: Kept,
    own: Mutex<Own>,
}

/// What this gateway has changed.
#[derive(Default)]
struct Own {
    /// The marks of the records it knows, by subject.
    marks: BTreeMap<String, String>,
    /// Those of the records it has a copy of.
    written: BTreeMap<String, String>,
    /// The number of its last change of each record, for [`REMEMBERED`].
    changed: BTreeMap<String, Number>,
}

/// The number of a change: milliseconds, and a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Number(u64, u64);

/// A change that was told.
struct Told {
    number: Number,
    /// By whom.
    by: String,
    /// The mark of the records it is of.
    mark: String,
    changes: RecordChanges,
}

/// Whoever has records in force, of one subject. What it does may wait for a change that is being made, so it is called where
/// that is no harm.
pub trait Follower: Send + Sync {
    /// The subject.
    fn subject(&self) -> &str;

    /// The records as they are in force.
    fn held(&self) -> BTreeMap<String, Vec<u8>>;

    /// Others have changed something.
    fn hear(&self, heard: Heard);
}

/// What others have changed.
pub struct Heard {
    records: SharedRecords,
    subject: String,
    number: Number,
    changes: RecordChanges,
}

impl Heard {
    /// The changes, without what this gateway has changed since; a record without a value is gone. To be asked under the
    /// lock under which this gateway changes records, so that none of its own is missed.
    pub fn changes(self) -> RecordChanges {
        let Self { records, subject, number, mut changes } = self;
        let own = records.own();
        changes.retain(|key, _| own.changed.get(&field(&subject, key)).is_none_or(|own| *own <= number));
        changes
    }
}

impl SharedRecords {
    pub(crate) fn new(settings: &SharedSettings, background: Handle) -> Result<Self, OpenError> {
        let patient = SharedSettings { timeout: settings.timeout.max(PATIENCE), ..settings.clone() };
        let listening =
            SharedSettings { timeout: LISTENING.saturating_mul(2), replicas: 0, ..settings.clone() };
        // The standard library keys it from the system's randomness.
        let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        Ok(Self(Arc::new(Inner {
            name: format!("{:016x}{:016x}", random(), random()),
            servers: Servers::new(&patient, &background)?,
            listening: Servers::new(&listening, &background)?,
            background,
            change: Kept::new(include_str!("change.lua")),
            all: Kept::new(include_str!("all.lua")),
            own: Mutex::default(),
        })))
    }

    /// Changes records of a subject, all or none. Where expectations are given, only if the records are like that. To be
    /// called by a thread that may wait.
    ///
    /// # Errors
    /// The server does not answer; then what has come of it is not known. [`StoreError::Conflict`] if something is not as
    /// expected; then nothing has changed.
    pub(crate) fn change(
        &self,
        subject: &str,
        changes: &RecordChanges,
        expected: Option<&RecordChanges>,
    ) -> Result<(), StoreError> {
        self.0.background.block_on(self.change_later(subject, changes, expected))
    }

    async fn change_later(
        &self,
        subject: &str,
        changes: &RecordChanges,
        expected: Option<&RecordChanges>,
    ) -> Result<(), StoreError> {
        let changes: Vec<_> = changes.iter().collect();
        for some in changes.chunks(MOST_AT_ONCE) {
            let expected = some.iter().filter_map(|(key, _)| expected?.get_key_value(*key));
            let expected: Vec<_> = expected.collect();
            let mut call = self.0.change.call();
            call.key(&records_key()).key(&changes_key());
            call.arg(&self.0.name).arg(&self.0.name).arg(expected.len());
            for (key, value) in expected.into_iter().chain(some.iter().copied()) {
                call.arg(field(subject, key)).arg(u8::from(value.is_some()));
                call.bytes(value.as_deref().unwrap_or_default());
            }
            let (number, mark) =
                self.0.servers.ask::<(String, String)>(call.kept_by_replicas()).await.map_err(no_answer)?;
            let number = Number::parse(&number).filter(|number| *number > Number::default());
            let number = number.ok_or(StoreError::Conflict)?;
            let mut own = self.own();
            own.marks.entry(subject.to_owned()).or_insert(mark);
            own.changed.extend(some.iter().map(|(key, _)| (field(subject, key), number)));
        }
        Ok(())
    }

    /// Every record of a subject. `mine` are those this gateway has kept, and the mark that they bear. To be called by a
    /// thread that may wait.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn read(
        &self,
        subject: &str,
        mine: impl FnOnce() -> Vec<RecordRow>,
        mark: Option<String>,
    ) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        if let Some(mark) = mark {
            let mut own = self.own();
            own.written.insert(subject.to_owned(), mark.clone());
            own.marks.insert(subject.to_owned(), mark);
        }
        let reading = self.catch_up(subject, || mine().into_iter().collect());
        self.0.background.block_on(reading).map(|(_, rows)| rows)
    }

    /// The mark of the records of a subject that this gateway knows, once, if it is another than that of its copy.
    pub(crate) fn unwritten_mark(&self, subject: &str) -> Option<String> {
        let mut own = self.own();
        let mark = own.marks.get(subject).cloned().filter(|mark| own.written.get(subject) != Some(mark))?;
        own.written.insert(subject.to_owned(), mark.clone());
        Some(mark)
    }

    /// Reads all records of a subject, after the server was given those it has lost: the number of the last change, and
    /// the records.
    async fn catch_up(
        &self,
        subject: &str,
        mine: impl FnOnce() -> BTreeMap<String, Vec<u8>>,
    ) -> Result<(Number, BTreeMap<String, Vec<u8>>), StoreError> {
        let (mut number, mut all) = self.all().await?;
        let mark = all.get(MARK).map(|mark| String::from_utf8_lossy(mark).into_owned());
        let mark = mark.ok_or(StoreError::NoAnswer)?;
        let is_known = self.own().marks.get(subject) == Some(&mark);
        if !is_known {
            let lost = mine().into_iter().filter(|(key, _)| !all.contains_key(&field(subject, key)));
            let lost: RecordChanges = lost.map(|(key, value)| (key, Some(value))).collect();
            if !lost.is_empty() {
                let nothing = lost.keys().map(|key| (key.clone(), None)).collect();
                self.change_later(subject, &lost, Some(&nothing)).await?;
                (number, all) = self.all().await?;
            }
            self.own().marks.insert(subject.to_owned(), mark);
        }
        let start = format!("{subject}:");
        let rows =
            all.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(&start)?.to_owned(), value)));
        Ok((number, rows.collect()))
    }

    async fn all(&self) -> Result<(Number, BTreeMap<String, Vec<u8>>), StoreError> {
        let mut call = self.0.all.call();
        call.key(&records_key()).key(&changes_key()).arg(&self.0.name);
        let (number, all) = self.0.servers.ask(&call).await.map_err(no_answer)?;
        let number = String::from_redis_value(number).ok().and_then(|number| Number::parse(&number));
        let all = BTreeMap::from_redis_value(all).map_err(|_other| StoreError::NoAnswer)?;
        Ok((number.ok_or(StoreError::NoAnswer)?, all))
    }

    /// Tells the followers what others change, for as long as the gateway runs. `is_heard` is told whether it knows
    /// everything.
    pub async fn follow(&self, followers: &[Arc<dyn Follower>], is_heard: impl Fn(bool)) {
        loop {
            if let Err(error) = self.follow_once(followers, &is_heard).await {
                is_heard(false);
                tracing::warn!(%error, "what other gateways are told is not heard");
                self.0.servers.renew();
                self.0.listening.renew();
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn follow_once(
        &self,
        followers: &[Arc<dyn Follower>],
        is_heard: &impl Fn(bool),
    ) -> Result<(), StoreError> {
        let mut last = Number(u64::MAX, u64::MAX);
        for follower in followers {
            let subject = follower.subject();
            let asked = Arc::clone(follower);
            let held = apart(move || asked.held()).await?;
            let (number, rows) = self.catch_up(subject, || held.clone()).await?;
            self.change_again(subject, &held, (number, &rows)).await?;
            let gone = held.keys().filter(|key| !rows.contains_key(*key)).map(|key| (key.clone(), None));
            let other = rows.iter().filter(|(key, value)| held.get(*key) != Some(*value));
            let other = other.map(|(key, value)| (key.clone(), Some(value.clone())));
            self.tell(follower, gone.chain(other).collect(), number).await?;
            last = last.min(number);
        }
        is_heard(true);
        loop {
            for Told { number, by, mark, changes } in self.listen(last).await? {
                // Others than those that were read: the server has lost them in between.
                if self.own().marks.values().any(|known| *known != mark) {
                    return Err(StoreError::NoAnswer);
                }
                if by != self.0.name {
                    for follower in followers {
                        let start = format!("{}:", follower.subject());
                        let own = changes.iter().filter_map(|(key, value)| {
                            Some((key.strip_prefix(&start)?.to_owned(), value.clone()))
                        });
                        self.tell(follower, own.collect(), number).await?;
                    }
                }
                last = number;
            }
            let long_ago = last.0.saturating_sub(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX));
            self.own().changed.retain(|_, changed| *changed > last || changed.0 > long_ago);
        }
    }

    async fn tell(
        &self,
        follower: &Arc<dyn Follower>,
        changes: RecordChanges,
        number: Number,
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let follower = Arc::clone(follower);
        let heard = Heard { records: self.clone(), subject: follower.subject().to_owned(), number, changes };
        apart(move || follower.hear(heard)).await
    }

    /// Changes again what this gateway has changed and the server has lost, unless another has by now.
    async fn change_again(
        &self,
        subject: &str,
        held: &BTreeMap<String, Vec<u8>>,
        (number, rows): (Number, &BTreeMap<String, Vec<u8>>),
    ) -> Result<(), StoreError> {
        let lost: Vec<String> = {
            let own = self.own();
            let later = own.changed.iter().filter(|(_, own)| **own > number);
            later
                .filter_map(|(key, _)| Some(key.strip_prefix(subject)?.strip_prefix(':')?.to_owned()))
                .collect()
        };
        for key in lost.into_iter().filter(|key| held.get(key) != rows.get(key)) {
            let as_held = RecordChanges::from([(key.clone(), held.get(&key).cloned())]);
            let as_there = RecordChanges::from([(key.clone(), rows.get(&key).cloned())]);
            match self.change_later(subject, &as_held, Some(&as_there)).await {
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for changes after that one.
    async fn listen(&self, last: Number) -> Result<Vec<Told>, StoreError> {
        let mut command = redis::cmd("XREAD");
        command.arg("BLOCK").arg(u64::try_from(LISTENING.as_millis()).unwrap_or(u64::MAX));
        command.arg("STREAMS").arg(changes_key()).arg(format!("{}-{}", last.0, last.1));
        let heard =
            self.0.listening.ask_plainly::<Option<StreamReadReply>>(&command).await.map_err(no_answer)?;
        let entries = heard.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let read = |entry: redis::streams::StreamId| {
            let number = Number::parse(&entry.id)?;
            let (mut by, mut mark) = (String::new(), String::new());
            let mut changes = RecordChanges::new();
            for (name, value) in entry.map {
                let value = Vec::<u8>::from_redis_value(value).ok()?;
                match name.split_at_checked(1) {
                    Some(("+", key)) => drop(changes.insert(key.to_owned(), Some(value))),
                    Some(("-", key)) => drop(changes.insert(key.to_owned(), None)),
                    _ if name == "by" => by = String::from_utf8(value).ok()?,
                    _ if name == MARK => mark = String::from_utf8(value).ok()?,
                    _ => return None,
                }
            }
            Some(Told { number, by, mark, changes })
        };
        // What cannot be read would be missed.
        entries.map(|entry| read(entry).ok_or(StoreError::NoAnswer)).collect()
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let (milliseconds, count) = text.split_once('-').unwrap_or((text, "0"));
        Some(Self(milliseconds.parse().ok()?, count.parse().ok()?))
    }
}

/// Does what may wait for a change that is being made. Never on a thread of the runtime: the change waits for an answer that
/// only that runtime can hear.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_panicked| StoreError::Closed)
}

/// SECURITY: no subject holds a `:`, and the mark stands under no subject.
fn field(subject: &str, key: &str) -> String {
    format!("{subject}:{key}")
}

/// Both keys are on one server of a cluster.
fn records_key() -> Vec<u8> {
    format!("{PREFIX}records:{{records}}").into_bytes()
}

fn changes_key() -> Vec<u8> {
    format!("{PREFIX}records:{{records}}:changes").into_bytes()
}

fn no_answer(_why: Failure) -> StoreError {
    StoreError::NoAnswer
}

impl std::fmt::Debug for SharedRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedRecords")
    }
}
