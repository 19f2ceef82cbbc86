//! Ending the connections of one worker without cutting off what they carry.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The signal of one worker to all its listeners and connections. Clones are the same signal.
#[derive(Clone, Debug, Default)]
pub struct Drain(Rc<State>);

#[derive(Debug, Default)]
struct State {
    begun: Cell<bool>,
    next: Cell<u64>,
    connections: RefCell<HashMap<u64, Option<Waker>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Drain {
    /// Nothing more is accepted; connections close as soon as the requests they carry are answered.
    pub fn begin(&self) {
        self.0.begun.set(true);
        for waker in self.0.connections.borrow_mut().values_mut().filter_map(Option::take) {
            waker.wake();
        }
        self.wake_waiting();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.begun.get()
    }

    /// Connections that are open on this worker.
    pub fn open(&self) -> usize {
        self.0.connections.borrow().len()
    }

    /// Waits until it has begun.
    pub async fn begun(&self) {
        self.wait(|drain| drain.has_begun()).await;
    }

    /// Waits until it has begun and every connection has ended.
    pub async fn ended(&self) {
        self.wait(|drain| drain.has_begun() && drain.open() == 0).await;
    }

    async fn wait(&self, done: impl Fn(&Self) -> bool) {
        poll_fn(|cx| {
            if done(self) {
                return Poll::Ready(());
            }
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn wake_waiting(&self) {
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }

    /// Registers a connection.
    pub(crate) fn enter(&self) -> Draining {
        let number = self.0.next.get();
        self.0.next.set(number.wrapping_add(1));
        self.0.connections.borrow_mut().insert(number, None);
        Draining { drain: self.clone(), number }
    }
}

/// One connection's end of the signal.
#[derive(Debug)]
pub(crate) struct Draining {
    drain: Drain,
    number: u64,
}

impl Draining {
    pub(crate) fn has_begun(&self) -> bool {
        self.drain.has_begun()
    }

    /// Whom to wake when it begins.
    pub(crate) fn register(&self, waker: &Waker) {
        self.drain.0.connections.borrow_mut().insert(self.number, Some(waker.clone()));
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.drain.0.connections.borrow_mut().remove(&self.number);
        if self.drain.has_begun() {
            self.drain.wake_waiting();
        }
    }
}
