//! What one worker remembers of passwords that were right.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Moment;
use portcullis_jose::PasswordHash;

use super::UserPass;
use super::checks::{Answer, Busy, Mark, PasswordChecks};

/// How many passwords are remembered. The oldest goes first.
const KNOWN: usize = 4096;

/// How many answers that nobody waits for any more may lie around.
const RUNNING: usize = 256;

/// The memory. SECURITY: only that a password was right is remembered, under its mark and for a short time; a wrong
/// one is checked again whenever it comes, so guesses push nothing out. Whether the client still counts is judged on
/// every request.
#[derive(Debug, Default)]
pub(crate) struct PasswordMemory {
    known: RefCell<Known>,
    /// Checks under way, so that many requests with one password cost one check.
    running: RefCell<HashMap<Mark, Answer, ahash::RandomState>>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

#[derive(Debug, Default)]
struct Known {
    until: HashMap<Mark, Duration, ahash::RandomState>,
    order: VecDeque<Mark>,
}

impl PasswordMemory {
    /// Whether a password of that mark was right a short while ago.
    pub(super) fn knows(&self, mark: &Mark, now: Moment) -> bool {
        self.known.borrow().until.get(mark).is_some_and(|until| now.monotonic < *until)
    }

    /// The same, counted.
    pub(super) fn is_remembered(&self, mark: &Mark, now: Moment) -> bool {
        let known = self.knows(mark, now);
        let count = if known { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
        known
    }

    /// How often it knew a password, and how often not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    /// Remembers that it was right.
    pub(super) fn remember(&self, mark: Mark, now: Moment, life: Duration) {
        if life.is_zero() {
            return;
        }
        let mut known = self.known.borrow_mut();
        while known.order.len() >= KNOWN {
            let Some(oldest) = known.order.pop_front() else { break };
            known.until.remove(&oldest);
        }
        if known.until.insert(mark, now.monotonic + life).is_none() {
            known.order.push_back(mark);
        }
    }

    /// Whether it is the password: of a check under way for the same one, or of one that is made for it.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) async fn verify(
        &self,
        checks: &PasswordChecks,
        hash: &Arc<PasswordHash>,
        given: &UserPass,
    ) -> Result<bool, Busy> {
        let mark = checks.mark(hash, given);
        let under_way = mark.and_then(|mark| self.running.borrow().get(&mark).cloned());
        let mut answer = match under_way {
            Some(answer) => answer,
            None => self.begin(checks, mark, hash, given)?,
        };
        let said = answer.wait_for(Option::is_some).await.map(|said| *said);
        if let Some(mark) = mark {
            self.running.borrow_mut().remove(&mark);
        }
        // Nothing is said if the thread ended: then nothing is known.
        said.ok().flatten().ok_or(Busy::NoThread)
    }

    fn begin(
        &self,
        checks: &PasswordChecks,
        mark: Option<Mark>,
        hash: &Arc<PasswordHash>,
        given: &UserPass,
    ) -> Result<Answer, Busy> {
        let answer = checks.ask(hash, given.password())?;
        if let Some(mark) = mark {
            let mut running = self.running.borrow_mut();
            if running.len() >= RUNNING {
                // Whoever waited for these has gone.
                running.retain(|_, answer| answer.borrow().is_none());
            }
            running.insert(mark, answer.clone());
        }
        Ok(answer)
    }
}
