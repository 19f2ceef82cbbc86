//! Keeps the time of one connection.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::drain::Draining;
use super::inbound::Inbound;
use super::limits::{HALF_CLOSED_TIMEOUT, ListenLimits};

/// A connection that can be asked to end after what it carries.
pub(crate) trait Protocol: Future {
    /// Asks it.
    fn finish(self: Pin<&mut Self>);
}

pin_project! {
    /// A connection and its clock: one timer for all its deadlines, and no look at the time while requests come
    /// and go in whole pieces.
    pub(crate) struct Watched<C> {
        #[pin]
        connection: C,
        #[pin]
        timer: Sleep,
        inbound: Rc<Inbound>,
        draining: Draining,
        waker: Option<Waker>,
        finishing: bool,
        times: Times,
    }
}

struct Times {
    limits: ListenLimits,
    /// The end of the handshake.
    opened: Instant,
    /// Since when nothing was carried, as of the last look.
    idle_since: Instant,
    /// Requests at the last look.
    served: u64,
}

/// What a look at the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Look again then.
    Again(Instant),
    /// End after what is being carried, and look again then.
    Finish(Instant),
    /// End now.
    Cut,
}

impl<C: Protocol> Watched<C> {
    pub(crate) fn new(connection: C, inbound: Rc<Inbound>, draining: Draining, limits: ListenLimits) -> Self {
        let opened = Instant::now();
        let times = Times { limits, opened, idle_since: opened, served: 0 };
        let first =
            times.limits.header_timeout.min(times.limits.idle_timeout).min(times.limits.connection_age);
        let timer = tokio::time::sleep_until(opened + first);
        Self { connection, timer, inbound, draining, waker: None, finishing: false, times }
    }
}

impl<C: Protocol> Future for Watched<C> {
    /// `None` if the connection was cut.
    type Output = Option<C::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if this.inbound.is_abusive() {
            return Poll::Ready(None);
        }
        if !this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *this.waker = Some(cx.waker().clone());
            this.draining.register(cx.waker());
            // The timer has to know the waker once; after that it is enough to ask whether it is over.
            let _ = this.timer.as_mut().poll(cx);
        }
        loop {
            let unheard = this.inbound.input_ended_since().is_some() && this.inbound.is_idle();
            if !*this.finishing && (this.draining.has_begun() || unheard) {
                *this.finishing = true;
                this.connection.as_mut().finish();
                if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
            }
            // What stalls has a nearer deadline than the one the timer was set to.
            let stalled = this.times.stalled_until(this.inbound);
            let nearer = stalled.is_some_and(|until| until < this.timer.deadline());
            if !nearer && !this.timer.is_elapsed() {
                return Poll::Pending;
            }
            let next = match this.times.look(this.inbound, *this.finishing, Instant::now()) {
                Verdict::Again(next) => next,
                Verdict::Finish(next) => {
                    *this.finishing = true;
                    this.connection.as_mut().finish();
                    if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                        return Poll::Ready(Some(ended));
                    }
                    next
                }
                Verdict::Cut => return Poll::Ready(None),
            };
            this.timer.as_mut().reset(next);
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Times {
    /// The deadline of whatever the client has begun and not gone on with.
    fn stalled_until(&self, inbound: &Inbound) -> Option<Instant> {
        let head = inbound
            .head_since()
            .filter(|_| inbound.is_idle())
            .map(|since| since + self.limits.header_timeout);
        let write = inbound.write_blocked_since().map(|since| since + self.limits.write_timeout);
        let ended = inbound.input_ended_since().map(|since| since + HALF_CLOSED_TIMEOUT);
        let unclaimed = inbound.unclaimed_since().map(|since| since + self.limits.write_timeout);
        [head, write, ended, unclaimed].into_iter().flatten().min()
    }

    fn look(&mut self, inbound: &Inbound, finishing: bool, now: Instant) -> Verdict {
        if !inbound.is_idle() || inbound.served() != self.served {
            self.served = inbound.served();
            self.idle_since = now;
        }
        let stalled = self.stalled_until(inbound);
        if stalled.is_some_and(|until| until <= now) {
            return Verdict::Cut;
        }
        // A connection that says nothing at all gets no longer than one that sends half a head; and one that
        // was asked to end has no reason to stay idle.
        let patience =
            if finishing || self.served == 0 { self.limits.header_timeout } else { self.limits.idle_timeout };
        let idle_until = self.idle_since + patience;
        if idle_until <= now {
            return if finishing || self.served == 0 {
                Verdict::Cut
            } else {
                Verdict::Finish(now + self.limits.header_timeout)
            };
        }
        let old_at = self.opened + self.limits.connection_age;
        // Requests come and go without a look at the clock, so the next one is never farther than they may idle.
        let next = idle_until.min(now + self.limits.idle_timeout);
        let next = stalled.map_or(next, |until| until.min(next));
        match finishing {
            false if old_at <= now => Verdict::Finish(next),
            false => Verdict::Again(next.min(old_at)),
            true => Verdict::Again(next),
        }
    }
}
