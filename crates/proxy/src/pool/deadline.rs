//! Timeouts of one worker, without a timer per request.
//!
//! Every connection (and every HTTP/2 exchange) has a [`Watch`]: a deadline in a cell. Setting and clearing it is
//! a store to memory. One task per worker sleeps until the earliest deadline it has seen; under load most
//! requests are long answered when it wakes, so it wakes about once per timeout, not once per request.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::error::BodyFault;

/// The keeper never wakes more often than this, so a deadline is met up to this much late.
const GRAIN: Duration = Duration::from_millis(5);
/// Below so many watches, listing some that are gone does not matter.
const FEW: usize = 64;

/// All watches of a worker, and when the keeper wakes next.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    watches: RefCell<Vec<Weak<Watch>>>,
    /// When so many watches are listed, those that are gone are forgotten.
    tidy_at: Cell<usize>,
    wakes_at: Cell<Option<Instant>>,
    earlier: Notify,
}

/// Who has to act next. It decides whose timeout counts, and who is blamed when it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The upstream owes us bytes, or takes none.
    Upstream,
    /// The caller owes us the rest of the request's body.
    Caller,
}

/// How long each side may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Longest silence of the upstream.
    pub(crate) upstream: Duration,
    /// Longest silence of the caller.
    pub(crate) caller: Duration,
    /// Longest time from the first wait for the caller to the end of the request's body.
    pub(crate) body: Duration,
}

/// What happens when a deadline passes.
#[derive(Debug)]
pub(crate) enum Remedy {
    /// The connection's task is ended, which closes the socket; whoever waits on it learns that way.
    EndConnection(AbortHandle),
    /// Whoever waits is woken and ends what it holds. If nobody waits, the next sweep does.
    WakeWaiter(RefCell<Option<Waker>>),
}

/// Why an exchange goes no further, although its connection stands.
#[derive(Debug)]
pub(crate) enum Lapse {
    /// The upstream was silent for this long.
    Upstream(Duration),
    /// The caller's body failed.
    Caller(BodyFault),
}

/// One deadline.
#[derive(Debug)]
pub(crate) struct Watch {
    keeper: Rc<Deadlines>,
    remedy: Remedy,
    deadline: Cell<Option<Instant>>,
    /// The last reading of the clock: a lower bound for when the connection was last of use.
    seen: Cell<Option<Instant>>,
    turn: Cell<Turn>,
    patience: Cell<Patience>,
    /// When the request's body must be complete; set once it has been waited for.
    body_end: Cell<Option<Instant>>,
    expired: Cell<Option<Turn>>,
    fault: RefCell<Option<BodyFault>>,
}

impl Deadlines {
    /// A new watch, at rest.
    pub(crate) fn watch(self: &Rc<Self>, remedy: Remedy) -> Rc<Watch> {
        let watch = Rc::new(Watch {
            keeper: Rc::clone(self),
            remedy,
            deadline: Cell::new(None),
            seen: Cell::new(None),
            turn: Cell::new(Turn::Upstream),
            patience: Cell::default(),
            body_end: Cell::new(None),
            expired: Cell::new(None),
            fault: RefCell::new(None),
        });
        let mut watches = self.watches.borrow_mut();
        if watches.len() >= self.tidy_at.get() {
            watches.retain(|watch| watch.strong_count() > 0);
            self.tidy_at.set(2 * watches.len() + FEW);
        }
        watches.push(Rc::downgrade(&watch));
        watch
    }

    /// Sleeps until the next deadline has passed, ends what it finds overdue, calls `sweep`, and so on for ever.
    pub(crate) async fn keep(&self, sweep: impl Fn()) {
        loop {
            let now = Instant::now();
            let next = self.end_overdue(now).map(|earliest| earliest.max(now + GRAIN));
            sweep();
            self.wakes_at.set(next);
            match next {
                None => self.earlier.notified().await,
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        () = self.earlier.notified() => {}
                    }
                }
            }
        }
    }

    /// Ends what is overdue and returns the earliest deadline of the rest.
    fn end_overdue(&self, now: Instant) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        self.watches.borrow_mut().retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            match watch.deadline.get() {
                Some(deadline) if deadline <= now => watch.expire(),
                Some(deadline) => earliest = Some(earliest.map_or(deadline, |e| e.min(deadline))),
                None => {}
            }
            true
        });
        earliest
    }

    fn expect(&self, deadline: Instant) {
        if self.wakes_at.get().is_none_or(|wakes_at| deadline < wakes_at) {
            self.earlier.notify_one();
        }
    }
}

impl Watch {
    /// An exchange begins.
    pub(crate) fn begin(&self, patience: Patience) {
        self.patience.set(patience);
        self.turn.set(Turn::Upstream);
        self.deadline.set(None);
        self.body_end.set(None);
    }

    /// Somebody waits for the upstream: starts the clock if it is not running.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        if let Remedy::WakeWaiter(waiter) = &self.remedy {
            let mut waiter = waiter.borrow_mut();
            if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
                *waiter = Some(cx.waker().clone());
            }
        }
        if self.deadline.get().is_none() {
            self.start();
        }
    }

    /// Nobody waits: the upstream delivered, and what happens next is up to the reader.
    pub(crate) fn rest(&self) {
        self.deadline.set(None);
    }

    /// The connection goes back to the pool. Counted from the last look at the clock, so that handing back costs
    /// none; after a long answer that is a little early, which only closes an idle connection sooner.
    pub(crate) fn idle(&self, limit: Duration) {
        let deadline = self.seen.get().unwrap_or_else(Instant::now) + limit;
        self.turn.set(Turn::Upstream);
        self.deadline.set(Some(deadline));
        self.keeper.expect(deadline);
        if let Remedy::WakeWaiter(waiter) = &self.remedy {
            // It would keep what is left of a finished task.
            waiter.take();
        }
    }

    /// As [`Watch::idle`], counted from now.
    pub(crate) fn idle_from_now(&self, limit: Duration) {
        self.seen.set(Some(Instant::now()));
        self.idle(limit);
    }

    /// The request's body is being read, and it is now this side's turn. Restarts the clock if it runs, unless the
    /// caller was waited for before: only something that came restarts that. The one for the whole body runs on.
    pub(crate) fn turn_to(&self, turn: Turn) {
        if self.turn.replace(turn) == Turn::Caller && turn == Turn::Caller {
            return;
        }
        if turn == Turn::Caller && self.body_end.get().is_none() {
            self.body_end.set(Instant::now().checked_add(self.patience.get().body));
        }
        if self.deadline.get().is_some() {
            self.start();
        }
    }

    /// Whose silence lasted too long.
    pub(crate) fn expired(&self) -> Option<Turn> {
        self.expired.get()
    }

    /// What is wrong with a request's body of which more arrives after its time.
    ///
    /// The deadline does not see to it alone: it rests while nobody waits for the upstream.
    pub(crate) fn overdue_body(&self) -> Option<BodyFault> {
        let overdue = self.body_end.get().is_some_and(|end| end <= Instant::now());
        overdue.then(|| BodyFault::TimedOut(self.patience.get().body))
    }

    /// How long each side may take.
    pub(crate) fn patience(&self) -> Patience {
        self.patience.get()
    }

    /// Remembers why the request's body failed: hyper passes errors on as opaque boxes.
    pub(crate) fn note_fault(&self, fault: BodyFault) {
        self.fault.replace(Some(fault));
    }

    /// Why the request's body failed, if it did.
    pub(crate) fn take_fault(&self) -> Option<BodyFault> {
        self.fault.take()
    }

    /// Why whoever waits shall wait no longer, if so.
    pub(crate) fn lapse(&self) -> Option<Lapse> {
        match (self.expired.get(), self.fault.take()) {
            (Some(Turn::Upstream), _) => Some(Lapse::Upstream(self.patience.get().upstream)),
            (_, Some(fault)) => Some(Lapse::Caller(fault)),
            (Some(Turn::Caller), None) => {
                Some(Lapse::Caller(BodyFault::TimedOut(self.patience.get().caller)))
            }
            (None, None) => None,
        }
    }

    /// Wakes whoever waits: what it waits for will not come.
    pub(crate) fn wake(&self) {
        match &self.remedy {
            Remedy::EndConnection(task) => task.abort(),
            Remedy::WakeWaiter(waiter) => {
                if let Some(waiter) = waiter.take() {
                    waiter.wake();
                }
            }
        }
    }

    fn start(&self) {
        let now = Instant::now();
        let patience = self.patience.get();
        let deadline = match (self.turn.get(), self.body_end.get()) {
            (Turn::Upstream, _) => now + patience.upstream,
            (Turn::Caller, None) => now + patience.caller,
            (Turn::Caller, Some(end)) => end.min(now + patience.caller),
        };
        self.seen.set(Some(now));
        self.deadline.set(Some(deadline));
        self.keeper.expect(deadline);
    }

    fn expire(&self) {
        let deadline = self.deadline.take();
        let turn = self.turn.get();
        self.expired.set(Some(turn));
        if turn == Turn::Caller {
            let patience = self.patience.get();
            let whole = deadline == self.body_end.get();
            self.note_fault(BodyFault::TimedOut(if whole { patience.body } else { patience.caller }));
        }
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::pending;
    use std::rc::Rc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::advance;

    use super::{Deadlines, Patience, Remedy, Turn, Watch};
    use crate::error::BodyFault;

    const PATIENCE: Patience = Patience {
        upstream: Duration::from_secs(5),
        caller: Duration::from_secs(10),
        body: Duration::from_secs(300),
    };

    /// Runs a test in time that passes only when told to, with a keeper that counts its rounds.
    fn with_keeper<F: Future<Output = ()>>(test: impl FnOnce(Rc<Deadlines>, Rc<Cell<usize>>) -> F) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (deadlines, rounds) = (Rc::<Deadlines>::default(), Rc::new(Cell::new(0)));
            let (kept, counted) = (Rc::clone(&deadlines), Rc::clone(&rounds));
            spawn_local(async move { kept.keep(|| counted.set(counted.get() + 1)).await });
            test(deadlines, rounds).await;
        });
    }

    fn watch(deadlines: &Rc<Deadlines>) -> Rc<Watch> {
        let watch = deadlines.watch(Remedy::EndConnection(spawn_local(pending::<()>()).abort_handle()));
        watch.begin(PATIENCE);
        watch
    }

    fn wait(watch: &Watch) {
        watch.wait(&Context::from_waker(Waker::noop()));
    }

    async fn pass(time: Duration) {
        // The keeper must have seen the deadlines before time moves.
        tokio::task::yield_now().await;
        advance(time).await;
        tokio::task::yield_now().await;
    }

    fn ended(watch: &Watch) -> bool {
        matches!(&watch.remedy, Remedy::EndConnection(task) if task.is_finished())
    }

    #[test]
    fn silence_of_the_upstream_ends_the_connection_and_not_before() {
        with_keeper(|deadlines, _rounds| async move {
            let watch = watch(&deadlines);
            wait(&watch);
            pass(Duration::from_millis(4_990)).await;
            // Polled again without news: the clock keeps running.
            wait(&watch);
            assert_eq!(watch.expired(), None);
            pass(Duration::from_millis(20)).await;
            assert_eq!(watch.expired(), Some(Turn::Upstream));
            tokio::task::yield_now().await;
            assert!(ended(&watch));
        });
    }

    #[test]
    fn caller_who_keeps_sending_keeps_the_exchange_alive_and_one_who_stops_is_blamed() {
        with_keeper(|deadlines, _rounds| async move {
            let watch = watch(&deadlines);
            wait(&watch);
            for _ in 0..10 {
                watch.turn_to(Turn::Caller);
                pass(Duration::from_secs(9)).await;
                watch.turn_to(Turn::Upstream);
                pass(Duration::from_secs(4)).await;
            }
            assert_eq!(watch.expired(), None);
            watch.turn_to(Turn::Caller);
            pass(Duration::from_secs(11)).await;
            assert_eq!(watch.expired(), Some(Turn::Caller));
            assert_eq!(watch.take_fault(), Some(BodyFault::TimedOut(PATIENCE.caller)));
        });
    }

    /// A body that trickles is never silent, and still has to end.
    #[test]
    fn caller_who_trickles_is_given_the_time_for_a_body_and_no_more() {
        with_keeper(|deadlines, _rounds| async move {
            let watch = watch(&deadlines);
            wait(&watch);
            for _ in 0..33 {
                watch.turn_to(Turn::Caller);
                pass(Duration::from_secs(9)).await;
                watch.turn_to(Turn::Upstream);
            }
            assert_eq!((watch.expired(), watch.overdue_body()), (None, None));
            watch.turn_to(Turn::Caller);
            pass(Duration::from_millis(3_010)).await;
            assert_eq!(watch.expired(), Some(Turn::Caller));
            assert_eq!(watch.take_fault(), Some(BodyFault::TimedOut(PATIENCE.body)));
            assert_eq!(watch.overdue_body(), Some(BodyFault::TimedOut(PATIENCE.body)));
            // The next exchange begins anew.
            watch.begin(PATIENCE);
            assert_eq!(watch.overdue_body(), None);
        });
    }

    #[test]
    fn nobody_waiting_means_no_deadline() {
        with_keeper(|deadlines, _rounds| async move {
            let watch = watch(&deadlines);
            wait(&watch);
            watch.rest();
            watch.turn_to(Turn::Caller);
            pass(Duration::from_secs(3600)).await;
            assert_eq!(watch.expired(), None);
        });
    }

    #[test]
    fn idle_connection_ends_although_an_earlier_deadline_was_far_away() {
        with_keeper(|deadlines, _rounds| async move {
            let (busy, idle) = (watch(&deadlines), watch(&deadlines));
            wait(&busy);
            pass(Duration::from_millis(1)).await;
            idle.idle_from_now(Duration::from_secs(1));
            pass(Duration::from_millis(1_010)).await;
            assert_eq!((busy.expired(), idle.expired()), (None, Some(Turn::Upstream)));
        });
    }

    #[test]
    fn waiter_on_a_shared_connection_is_woken() {
        with_keeper(|deadlines, _rounds| async move {
            let watch = deadlines.watch(Remedy::WakeWaiter(RefCell::new(None)));
            watch.begin(PATIENCE);
            let start = tokio::time::Instant::now();
            std::future::poll_fn(|cx| {
                if watch.expired().is_some() {
                    return std::task::Poll::Ready(());
                }
                watch.wait(cx);
                std::task::Poll::Pending
            })
            .await;
            assert!(start.elapsed() >= PATIENCE.upstream);
        });
    }

    #[test]
    fn thousands_of_answered_requests_wake_the_keeper_a_few_times() {
        with_keeper(|deadlines, rounds| async move {
            let watch = watch(&deadlines);
            for _ in 0..10_000 {
                watch.begin(PATIENCE);
                wait(&watch);
                pass(Duration::from_millis(2)).await;
                watch.rest();
            }
            assert_eq!(watch.expired(), None);
            // Twenty seconds of traffic at five seconds' patience.
            assert!(rounds.get() < 12, "{}", rounds.get());
        });
    }

    #[test]
    fn watches_that_are_gone_are_forgotten() {
        with_keeper(|deadlines, _rounds| async move {
            let kept = watch(&deadlines);
            for _ in 0..10_000 {
                deadlines.watch(Remedy::WakeWaiter(RefCell::new(None)));
            }
            assert!(deadlines.watches.borrow().len() < 200);
            wait(&kept);
            pass(Duration::from_secs(6)).await;
            assert_eq!(kept.expired(), Some(Turn::Upstream));
        });
    }
}
