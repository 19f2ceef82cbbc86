//! Where passwords are checked: on threads of their own.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use portcullis_core::Secret;
use portcullis_jose::PasswordHash;
use portcullis_jose::digest::{KeyedHash, random};
use tokio::sync::watch;

use super::UserPass;

/// Checks that may wait for a thread. More are refused at once: whoever waited behind them would have given up.
const WAITING: usize = 64;

/// The most threads that check passwords.
const MAX_THREADS: usize = 4;

/// What tells a password that was checked from every other: the stored form, the name and the password, under a secret
/// of this process. SECURITY: it is useless to whoever reads it anywhere else, and a changed password has other ones.
pub(super) type Mark = [u8; 32];

/// What a check will say; `None` until it does.
pub(super) type Answer = watch::Receiver<Option<bool>>;

/// No check can be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Busy {
    #[error("too many passwords wait to be checked")]
    Full,
    #[error("there is no thread to check passwords on")]
    NoThread,
}

/// The threads. They are started when the first password comes, and outlive every reload.
///
/// SECURITY: half of the processors at most, so that a flood of wrong passwords leaves the workers room; and what
/// waits is bounded, so that it takes neither memory nor anybody's time.
#[derive(Clone)]
pub struct PasswordChecks {
    threads: Arc<Threads>,
    /// `None` if the system gave no randomness: then nothing is remembered.
    key: Option<Arc<KeyedHash>>,
}

#[derive(Default)]
struct Threads {
    jobs: OnceLock<Option<SyncSender<Job>>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    right: AtomicU64,
    wrong: AtomicU64,
    busy: AtomicU64,
}

/// How many passwords were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// They were right.
    pub right: u64,
    /// They were wrong.
    pub wrong: u64,
    /// They were not checked, because too many others waited.
    pub busy: u64,
}

struct Job {
    password: Secret,
    hash: Arc<PasswordHash>,
    answer: watch::Sender<Option<bool>>,
}

impl Default for PasswordChecks {
    fn default() -> Self {
        Self { threads: Arc::default(), key: fresh_key() }
    }
}

fn fresh_key() -> Option<Arc<KeyedHash>> {
    let bytes = random::<32>().ok()?;
    Some(Arc::new(KeyedHash::new(&Secret::new(bytes.to_vec()))))
}

impl PasswordChecks {
    /// The same threads, for a chain in shadow. SECURITY: its marks are others, so what was guessed where nothing is
    /// enforced is not remembered where it is.
    pub(crate) fn on_trial(&self) -> Self {
        Self { threads: Arc::clone(&self.threads), key: fresh_key() }
    }

    /// How many there were.
    pub fn counts(&self) -> CheckCounts {
        let counts = &self.threads.counts;
        CheckCounts {
            right: counts.right.load(Ordering::Relaxed),
            wrong: counts.wrong.load(Ordering::Relaxed),
            busy: counts.busy.load(Ordering::Relaxed),
        }
    }

    /// The mark of a name and a password under a stored form.
    pub(super) fn mark(&self, hash: &PasswordHash, given: &UserPass) -> Option<Mark> {
        let key = self.key.as_ref()?;
        let user = u32::try_from(given.user().len()).ok()?;
        let bytes = [hash.mark().as_slice(), &user.to_be_bytes(), given.user().as_bytes(), given.password()];
        let bytes = Secret::new(bytes.concat());
        Some(key.digest(bytes.expose()))
    }

    /// A number that follows from the name and nobody outside can foresee.
    pub(super) fn spread(&self, name: &str) -> u64 {
        let digest = self.key.as_ref().map(|key| key.digest(name.as_bytes())).unwrap_or_default();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Has a password checked. The check is made to its end, whether or not anybody still waits for it.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) fn ask(&self, hash: &Arc<PasswordHash>, password: &[u8]) -> Result<Answer, Busy> {
        let jobs = self.threads.jobs.get_or_init(|| start(&self.threads.counts));
        let jobs = jobs.as_ref().ok_or(Busy::NoThread)?;
        let (answer, answered) = watch::channel(None);
        let job = Job { password: Secret::new(password.to_vec()), hash: Arc::clone(hash), answer };
        match jobs.try_send(job) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => {
                self.threads.counts.busy.fetch_add(1, Ordering::Relaxed);
                Err(Busy::Full)
            }
            Err(TrySendError::Disconnected(_)) => Err(Busy::NoThread),
        }
    }
}

fn start(counts: &Arc<Counts>) -> Option<SyncSender<Job>> {
    let (jobs, queue) = sync_channel(WAITING);
    let queue = Arc::new(Mutex::new(queue));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut started = 0;
    for _ in 0..(processors / 2).clamp(1, MAX_THREADS) {
        let (queue, counts) = (Arc::clone(&queue), Arc::clone(counts));
        let thread = std::thread::Builder::new().name("passwords".to_owned());
        started += usize::from(thread.spawn(move || check_all(&queue, &counts)).is_ok());
    }
    (started > 0).then_some(jobs)
}

fn check_all(queue: &Mutex<Receiver<Job>>, counts: &Counts) {
    loop {
        // The lock is held while waiting, by the one thread whose turn it is; no worker ever takes it.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let right = job.hash.verify(job.password.expose());
        let count = if right { &counts.right } else { &counts.wrong };
        count.fetch_add(1, Ordering::Relaxed);
        job.answer.send_replace(Some(right));
    }
}

impl fmt::Debug for PasswordChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordChecks")
    }
}
