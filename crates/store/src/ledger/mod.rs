//! The one thread that writes to disk, and the way to it.

mod batch;
mod file;
mod probation;
#[cfg(test)]
mod tests;
mod writer;

use crate::LimitId;
use crate::error::StoreError;
use crate::quota::{QuotaCell, QuotaCells, QuotaOutcome, QuotaRule};
use crate::records::{RecordChanges, RecordCommand, RecordRow};
use file::Record;
pub(crate) use file::{LedgerFile, Opener};
use portcullis_core::Moment;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;
pub(crate) use writer::{Ledger, Registry};

/// How many commands may wait for the thread. More are refused at once: they would not be answered in time.
const QUEUE: usize = 16_384;

/// Where a waiting request hears what came of it.
pub(crate) type Reply = oneshot::Sender<Result<QuotaOutcome, StoreError>>;

/// Where whoever looks at a window hears what the file remembers of it.
pub(crate) type LookReply = oneshot::Sender<Result<Option<Record>, StoreError>>;

/// What the thread is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A request waits for a unit.
    Take(Take),
    /// A window's durable units run low; nobody waits.
    Extend { cells: Arc<QuotaCells>, cell: Arc<QuotaCell>, rule: QuotaRule, now: Moment },
    /// Read what the file remembers of a window.
    Look { id: LimitId, key: Arc<str>, reply: LookReply },
    /// Read or write what operators have told.
    Record(RecordCommand),
    /// Purge windows that are over from the file.
    Tidy { now: Moment },
    /// Write what was really used and end.
    Close { done: SyncSender<Result<(), StoreError>> },
}

/// A request that waits for a unit.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) unit: TakeFor,
    pub(crate) reply: Reply,
}

/// The unit a request waits for.
#[derive(Debug)]
pub(crate) struct TakeFor {
    pub(crate) cells: Arc<QuotaCells>,
    pub(crate) key: Arc<str>,
    /// The key of the window before, where it has another one.
    pub(crate) last: Option<Arc<str>>,
    pub(crate) rule: QuotaRule,
    pub(crate) now: Moment,
}

/// The sending side; clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    queue: SyncSender<Command>,
    deadline: Duration,
}

impl Commands {
    /// A queue, and how long a request waits for its answer.
    pub(crate) fn queue(deadline: Duration) -> (Self, Receiver<Command>) {
        let (queue, receiver) = sync_channel(QUEUE);
        (Self { queue, deadline }, receiver)
    }

    /// Never waits. Gives the command back if the queue is full or the thread is gone.
    pub(crate) fn send(&self, command: Command) -> Result<(), Box<Command>> {
        self.queue.try_send(command).map_err(|unsent| match unsent {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => Box::new(command),
        })
    }

    /// Asks for a unit and waits for the answer.
    pub(crate) async fn take(&self, unit: TakeFor) -> Result<QuotaOutcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.post(Command::Take(Take { unit, reply }))?;
        self.answer(answer).await
    }

    /// Asks what the file remembers of a window and waits for the answer.
    pub(crate) async fn look(&self, id: LimitId, key: Arc<str>) -> Result<Option<Record>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.post(Command::Look { id, key, reply })?;
        self.answer(answer).await
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Tells what is to become of records and waits until it is on disk, on the thread of whoever asks.
    pub(crate) fn change_records(&self, subject: Arc<str>, changes: RecordChanges) -> Result<(), StoreError> {
        let (reply, answer) = sync_channel(1);
        self.post(Command::Record(RecordCommand::Change { subject, changes, reply }))?;
        match answer.recv_timeout(self.deadline) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(StoreError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
        }
    }

    /// Reads records, however long it takes: who asks can do nothing without them.
    pub(crate) fn read_records(
        &self,
        subject: Arc<str>,
        start: String,
    ) -> Result<Vec<RecordRow>, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.post(Command::Record(RecordCommand::Beginning { subject, start, reply }))?;
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    fn post(&self, command: Command) -> Result<(), StoreError> {
        self.queue.try_send(command).map_err(|unsent| match unsent {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }

    /// Ends the thread and waits until it has written everything.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let (done, ended) = sync_channel(1);
        self.queue.send(Command::Close { done }).map_err(|_| StoreError::Closed)?;
        ended.recv().map_err(|_| StoreError::Closed)?
    }
}
