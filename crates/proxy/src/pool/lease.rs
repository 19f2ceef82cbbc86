//! An HTTP/1.1 connection of a pool: kept, lent for one exchange, and taken back or closed.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::task::AbortHandle;

use super::answer::UpstreamBody;
use super::deadline::{Deadlines, Lapse, Patience, Remedy, Watch};
use super::endpoint::Endpoint;
use crate::error::{BodyError, ForwardError};
use crate::http1::{Broken, Connection, Head, Piece};
use crate::outgoing::Outgoing;
use crate::transport::Transport;
use crate::upstream::Origin;

/// An HTTP/1.1 connection. It is a value: dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Kept<B> {
    connection: RefCell<Connection<B>>,
    watch: Rc<Watch>,
}

/// An HTTP/1.1 connection while it carries an exchange. It goes back to its endpoint only by [`Lease::give_back`];
/// dropped before that, it is closed, because nobody knows what is still in it.
#[derive(Debug)]
pub(crate) struct Lease<B> {
    kept: Rc<Kept<B>>,
    home: Rc<Endpoint<B>>,
    /// Sends the rest of the request while the answer is read.
    uploading: Option<AbortHandle>,
}

impl<B> Kept<B> {
    pub(crate) fn new(transport: Transport, deadlines: &Rc<Deadlines>) -> Rc<Self> {
        let watch = deadlines.watch(Remedy::WakeWaiter(RefCell::new(None)));
        Rc::new(Self { connection: RefCell::new(Connection::new(transport)), watch })
    }

    /// Whether the next request may go out on it: it is open, and nothing has come that nobody asked for.
    pub(crate) fn is_usable(&self) -> bool {
        self.watch.expired().is_none() && self.connection.borrow_mut().is_quiet()
    }

    pub(crate) const fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }
}

impl<B> Lease<B> {
    pub(crate) const fn new(kept: Rc<Kept<B>>, home: Rc<Endpoint<B>>) -> Self {
        Self { kept, home, uploading: None }
    }

    /// The answer was read to its end: takes the connection back if it can be used again.
    ///
    /// One that is still sending a body the upstream did not wait for is closed, because nobody would ever end a
    /// caller's trickle into it.
    pub(crate) fn give_back(self) {
        let mut connection = self.kept.connection.borrow_mut();
        if connection.is_free() && self.kept.watch.expired().is_none() {
            connection.shrink();
            drop(connection);
            self.home.keep(&self.kept);
        }
    }

    /// Bytes of the answer's body that are to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.kept.connection.borrow().left()
    }

    /// The next piece of the answer's body, and whether it is the last.
    pub(crate) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Result<(Piece, bool), BodyError>> {
        let mut connection = self.kept.connection.borrow_mut();
        let watch = &self.kept.watch;
        match connection.poll_piece(cx) {
            Poll::Ready(Ok(piece)) => {
                watch.rest();
                let last = !matches!(piece, Piece::Data(_)) || connection.is_over();
                Poll::Ready(Ok((piece, last)))
            }
            Poll::Ready(Err(broken)) => Poll::Ready(Err(body_error(watch.lapse(), &broken))),
            Poll::Pending => match watch.lapse() {
                Some(lapse) => Poll::Ready(Err(body_error(Some(lapse), &Broken::Ended))),
                None => {
                    watch.wait(cx);
                    Poll::Pending
                }
            },
        }
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    /// Begins an exchange.
    ///
    /// # Errors
    /// The request cannot be sent. Nothing of it was.
    pub(crate) fn begin(
        &self,
        request: Request<Outgoing<B>>,
        origin: &Origin,
        patience: Patience,
    ) -> Result<(), ForwardError> {
        self.kept.connection.borrow_mut().begin(request, origin)?;
        self.kept.watch.begin(patience);
        Ok(())
    }

    /// Waits for the head of the answer, and meanwhile sends the request.
    pub(crate) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Head, ForwardError>> {
        let watch = &self.kept.watch;
        let polled = self.kept.connection.borrow_mut().poll_head(cx, watch);
        match polled {
            Poll::Ready(Ok(head)) => {
                watch.rest();
                Poll::Ready(Ok(head))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(watch.lapse().map_or(error, forward_error))),
            Poll::Pending => match watch.lapse() {
                Some(lapse) => Poll::Ready(Err(forward_error(lapse))),
                None => {
                    watch.wait(cx);
                    Poll::Pending
                }
            },
        }
    }

    /// The answer whose head has come.
    pub(crate) fn answer(mut self, head: Head) -> Response<UpstreamBody<B>> {
        let mut connection = self.kept.connection.borrow_mut();
        let whole = connection.whole();
        let sent = connection.is_sent();
        drop(connection);
        let body = match whole {
            Some(body) => {
                self.give_back();
                UpstreamBody::whole(body)
            }
            None => {
                if !sent {
                    self.upload_beside();
                }
                UpstreamBody::arriving(self)
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        answer
    }

    /// The answer began before the request was sent. The rest is sent by a task of its own: whoever reads the answer
    /// may stop reading until its own caller has sent all.
    fn upload_beside(&mut self) {
        let kept = Rc::downgrade(&self.kept);
        let uploading = std::future::poll_fn(move |cx| poll_upload(&kept, cx));
        self.uploading = Some(tokio::task::spawn_local(uploading).abort_handle());
    }
}

/// Ready when there is nothing more to send, or nobody to send it to.
fn poll_upload<B>(kept: &Weak<Kept<B>>, cx: &mut Context<'_>) -> Poll<()>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let Some(kept) = kept.upgrade() else { return Poll::Ready(()) };
    let polled = kept.connection.borrow_mut().poll_upload(cx, &kept.watch);
    polled.map(|sent| {
        if let Err(fault) = sent {
            kept.watch.note_fault(fault);
            kept.watch.wake();
        }
    })
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        if let Some(uploading) = &self.uploading {
            uploading.abort();
        }
    }
}

fn forward_error(lapse: Lapse) -> ForwardError {
    match lapse {
        Lapse::Upstream(limit) => ForwardError::TimedOut(limit),
        Lapse::Caller(fault) => ForwardError::RequestBody(fault),
    }
}

fn body_error(lapse: Option<Lapse>, broken: &Broken) -> BodyError {
    match lapse {
        Some(Lapse::Upstream(limit)) => BodyError::TimedOut(limit),
        Some(Lapse::Caller(fault)) => BodyError::RequestBody(fault),
        None => BodyError::Broken(broken.to_string()),
    }
}
