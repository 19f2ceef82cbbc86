//! The body of a request, handed from its connection to whoever serves the request.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::listener::FramingFault;

/// Why the rest of a body will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenBody {
    /// Its framing is at fault.
    #[error(transparent)]
    Framing(#[from] FramingFault),
    /// The client ended before its body.
    #[error("the client ended before its body")]
    Ended,
    /// The connection is gone.
    #[error("the connection broke")]
    Lost,
}

/// How a body goes on once what is held of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    ToCome,
    Nothing,
    Broken(BrokenBody),
}

/// What the connection and the reader of the body share. Nothing is read from the socket before the reader asks, and
/// no more than one piece is held, so a slow reader slows its client down.
#[derive(Debug)]
struct Shared {
    piece: RefCell<Option<Bytes>>,
    rest: Cell<Rest>,
    wanted: Cell<bool>,
    /// Bytes the reader has not taken yet; `None` if nobody knows.
    left: Cell<Option<u64>>,
    reader: RefCell<Option<Waker>>,
    connection: RefCell<Option<Waker>>,
}

/// The reader's end.
#[derive(Debug)]
pub struct RequestBody(Rc<Shared>);

/// The connection's end.
#[derive(Debug)]
pub(super) struct BodySender(Rc<Shared>);

/// Both ends of a body of so many bytes.
pub(super) fn channel(left: Option<u64>) -> (BodySender, RequestBody) {
    let shared = Rc::new(Shared {
        piece: RefCell::new(None),
        rest: Cell::new(Rest::ToCome),
        wanted: Cell::new(false),
        left: Cell::new(left),
        reader: RefCell::new(None),
        connection: RefCell::new(None),
    });
    (BodySender(Rc::clone(&shared)), RequestBody(shared))
}

impl BodySender {
    /// Whether anybody will ever read on.
    pub(super) fn has_reader(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Whether the reader waits for a piece; if not, it will wake the connection when it does.
    pub(super) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut connection = self.0.connection.borrow_mut();
        if !connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *connection = Some(cx.waker().clone());
        }
        self.0.wanted.get()
    }

    /// Hands a piece over; `last` says that nothing follows.
    pub(super) fn give(&self, piece: Bytes, last: bool, cx: &Context<'_>) {
        *self.0.piece.borrow_mut() = Some(piece);
        if last {
            self.0.rest.set(Rest::Nothing);
        }
        self.served(cx);
    }

    pub(super) fn end(&self, cx: &Context<'_>) {
        self.0.rest.set(Rest::Nothing);
        self.served(cx);
    }

    pub(super) fn fail(&self, why: BrokenBody, cx: &Context<'_>) {
        self.0.rest.set(Rest::Broken(why));
        self.served(cx);
    }

    /// A reader inside the connection's own task is polled again anyway; only another task has to be woken.
    fn served(&self, cx: &Context<'_>) {
        self.0.wanted.set(false);
        if let Some(reader) = self.0.reader.borrow_mut().take()
            && !reader.will_wake(cx.waker())
        {
            reader.wake();
        }
    }
}

impl Drop for BodySender {
    /// The connection is done with: what has not come will not come.
    fn drop(&mut self) {
        if self.0.rest.get() == Rest::ToCome {
            self.0.rest.set(Rest::Broken(BrokenBody::Lost));
        }
        if let Some(reader) = self.0.reader.borrow_mut().take() {
            reader.wake();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let shared = &self.0;
        let piece = shared.piece.borrow_mut().take();
        if let Some(piece) = piece {
            shared.left.set(shared.left.get().map(|left| left.saturating_sub(piece.len() as u64)));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match shared.rest.get() {
            Rest::Nothing => Poll::Ready(None),
            Rest::Broken(why) => {
                shared.rest.set(Rest::Nothing);
                Poll::Ready(Some(Err(why)))
            }
            Rest::ToCome => {
                shared.wanted.set(true);
                let mut reader = shared.reader.borrow_mut();
                if !reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *reader = Some(cx.waker().clone());
                }
                if let Some(connection) = &*shared.connection.borrow()
                    && !connection.will_wake(cx.waker())
                {
                    connection.wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.rest.get() == Rest::Nothing && self.0.piece.borrow().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.0.left.get(), self.0.rest.get()) {
            (Some(left), _) => SizeHint::with_exact(left),
            (None, Rest::Nothing) if self.is_end_stream() => SizeHint::with_exact(0),
            (None, _) => SizeHint::default(),
        }
    }
}
