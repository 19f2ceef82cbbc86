//! The threads that carry requests.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use portcullis_core::Clock;
use portcullis_proxy::{PoolSettings, Pools};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::access_log::AccessLog;
use crate::denials::{Denial, DenialFilter};
use crate::events::Events;
use crate::listener::{self, Bound, Drain};
use crate::snapshot::Snapshot;
use crate::stack::stack;
use crate::telemetry::Telemetry;
use crate::worker::{Door, Worker};

/// How often a worker hands over its counters.
const TICK: Duration = Duration::from_secs(1);

/// How long a scrape waits for a worker that is busy.
const PATIENCE: Duration = Duration::from_millis(500);

/// What every worker gets.
#[derive(Clone)]
pub(crate) struct Equipment {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) events: Events,
    pub(crate) telemetry: Telemetry,
    pub(crate) clock: Clock,
}

/// All workers.
pub(crate) struct Crew {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    /// Set when a listener ends that nobody has told to.
    broken: Arc<AtomicBool>,
}

enum Command {
    /// Hand over what was counted, then say so.
    HandOver(oneshot::Sender<()>),
    /// Judge by another configuration from here on, then say so.
    Adopt(Arc<Snapshot>, oneshot::Sender<()>),
    /// Tell refusals.
    Denials(DenialFilter, oneshot::Sender<Vec<Denial>>),
    /// Take no more connections; say whether all requests were answered in time.
    Drain(Duration, oneshot::Sender<bool>),
}

impl Crew {
    /// Starts one thread for each set of sockets.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub(crate) fn start(sockets: Vec<Vec<Bound>>, equipment: &Equipment) -> io::Result<Self> {
        let mut crew = Self { commands: Vec::new(), threads: Vec::new(), broken: Arc::default() };
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (ready, started) = sync_channel(1);
            let (equipment, broken) = (equipment.clone(), Arc::clone(&crew.broken));
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || carry(&ready, sockets, equipment, receiver, broken))?;
            // An event loop belongs to its thread from the start, so only the thread knows whether it has one.
            started.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
            crew.commands.push(sender);
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// Has every worker hand over its counters, as far as it answers in time.
    pub(crate) async fn hand_over(&self) {
        // A worker that is busy or gone answers late or never; its counters come with the next scrape.
        drop(tokio::time::timeout(PATIENCE, join_all(self.ask(Command::HandOver))).await);
    }

    /// Has every worker judge by another configuration from here on. Whether all of them have said that they do; one that
    /// is busy does so when it comes to it.
    pub(crate) async fn adopt(&self, snapshot: &Arc<Snapshot>) -> bool {
        let answers = join_all(self.ask(|answer| Command::Adopt(Arc::clone(snapshot), answer)));
        let answered = tokio::time::timeout(PATIENCE, answers).await;
        answered.is_ok_and(|answers| answers.into_iter().all(|answer| answer.is_ok()))
    }

    /// The latest refusals of all workers that answer in time, the latest first.
    pub(crate) async fn denials(&self, filter: &DenialFilter) -> Vec<Denial> {
        let asked = self.ask(|answer| Command::Denials(filter.clone(), answer));
        let answers = join_all(asked.into_iter().map(|answer| tokio::time::timeout(PATIENCE, answer))).await;
        let mut denials: Vec<Denial> = answers.into_iter().flatten().flatten().flatten().collect();
        denials.sort_by(|a, b| b.at().cmp(a.at()));
        denials.truncate(filter.most);
        denials
    }

    /// Has every worker end its connections. Whether all requests were answered.
    pub(crate) async fn drain(&self, grace: Duration) -> bool {
        let answers = join_all(self.ask(|answer| Command::Drain(grace, answer)));
        // A worker that is stuck says nothing; it is not waited for longer than the others.
        let answered = tokio::time::timeout(grace + PATIENCE, answers).await;
        answered.is_ok_and(|answers| answers.into_iter().all(|ended| ended.unwrap_or(false)))
    }

    fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<oneshot::Receiver<T>> {
        let ask = |sender: &mpsc::UnboundedSender<Command>| {
            let (answer, receiver) = oneshot::channel();
            // A worker that has ended drops the answer, which is an answer.
            drop(sender.send(command(answer)));
            receiver
        };
        self.commands.iter().map(ask).collect()
    }

    /// Whether every worker runs and has all its listeners.
    pub(crate) fn is_whole(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every thread has ended, but not for one that is stuck.
    pub(crate) fn join(self) {
        drop(self.commands);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn carry(
    ready: &SyncSender<io::Result<()>>,
    sockets: Vec<Bound>,
    equipment: Equipment,
    commands: mpsc::UnboundedReceiver<Command>,
    broken: Arc<AtomicBool>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    runtime.block_on(work(sockets, equipment, commands, broken));
    // A name that is still being looked up must not keep the process.
    runtime.shutdown_background();
}

async fn work(
    sockets: Vec<Bound>,
    equipment: Equipment,
    mut commands: mpsc::UnboundedReceiver<Command>,
    broken: Arc<AtomicBool>,
) {
    let Equipment { snapshot, access_log, events, telemetry, clock } = equipment;
    let pools = Pools::new(PoolSettings::default());
    let worker = Rc::new(Worker::new(snapshot, pools, access_log, events, clock.clone()));
    let door = Rc::new(Door { worker: Rc::clone(&worker), stack: stack(), telemetry: telemetry.clone() });
    let drain = Drain::default();
    for socket in sockets {
        let listening = listener::run(socket, Rc::clone(&door), drain.clone(), clock.clone());
        let (broken, drain) = (Arc::clone(&broken), drain.clone());
        let listening = tokio::task::spawn_local(listening);
        tokio::task::spawn_local(async move {
            let ended = listening.await;
            if !drain.has_begun() {
                broken.store(true, Ordering::Relaxed);
                tracing::error!(?ended, "a listener ended");
            }
        });
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::HandOver(answer)) => {
                    worker.hand_over(&telemetry);
                    let _ = answer.send(());
                }
                Some(Command::Adopt(snapshot, answer)) => {
                    worker.adopt(snapshot);
                    let _ = answer.send(());
                }
                Some(Command::Denials(filter, answer)) => {
                    let _ = answer.send(worker.denials.find(&filter));
                }
                Some(Command::Drain(grace, answer)) => {
                    drain.begin();
                    let ending = drain.clone();
                    tokio::task::spawn_local(async move {
                        let _ = answer.send(tokio::time::timeout(grace, ending.ended()).await.is_ok());
                    });
                }
                None => return,
            },
            _ = tick.tick() => worker.hand_over(&telemetry),
        }
    }
}
