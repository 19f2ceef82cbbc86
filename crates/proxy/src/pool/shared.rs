//! An HTTP/2 connection: one per endpoint and worker, with all exchanges side by side on it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;

use super::deadline::{Deadlines, Remedy, Watch};
use crate::connect::ConnectError;
use crate::outgoing::Outgoing;
use crate::transport::Transport;

/// Bytes an upstream may send ahead on one exchange before the caller has read them.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all exchanges of a connection together.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Largest header block of an answer, in bytes after decoding.
const HEADER_LIST: u32 = 64 * 1024;

/// A handle on the connection; clones are the same connection.
#[derive(Debug)]
pub(crate) struct Shared<B> {
    pub(crate) sender: http2::SendRequest<Outgoing<B>>,
    usage: Rc<Usage>,
}

#[derive(Debug)]
struct Usage {
    streams: Cell<usize>,
    /// Runs while there is no exchange.
    watch: Rc<Watch>,
}

/// One exchange on the connection.
#[derive(Debug)]
pub(crate) struct Stream {
    usage: Rc<Usage>,
    watch: Rc<Watch>,
    idle_timeout: Duration,
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), usage: Rc::clone(&self.usage) }
    }
}

impl<B> Shared<B> {
    /// Whether both are handles on one connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.usage, &other.usage)
    }

    /// Whether a new exchange may be begun on it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.usage.watch.expired().is_none()
    }
}

impl<B> Shared<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    /// Greets the server and starts the connection's task.
    pub(crate) async fn start(
        transport: Transport,
        deadlines: &Rc<Deadlines>,
        idle_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|error| ConnectError::Dial(error.to_string()))?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        let watch = deadlines.watch(Remedy::EndConnection(task.abort_handle()));
        watch.idle(idle_timeout);
        Ok(Self { sender, usage: Rc::new(Usage { streams: Cell::new(0), watch }) })
    }
}

impl Stream {
    /// Counts one more exchange on the connection.
    pub(crate) fn open<B>(shared: &Shared<B>, deadlines: &Rc<Deadlines>, idle_timeout: Duration) -> Self {
        let usage = Rc::clone(&shared.usage);
        usage.streams.set(usage.streams.get() + 1);
        usage.watch.rest();
        Self { usage, watch: deadlines.watch(Remedy::WakeWaiter(RefCell::new(None))), idle_timeout }
    }

    /// The deadline of the exchange.
    pub(crate) const fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.usage.streams.get().saturating_sub(1);
        self.usage.streams.set(left);
        if left == 0 {
            self.usage.watch.idle_from_now(self.idle_timeout);
        }
    }
}

/// Runs hyper's own tasks on the thread of the connection.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}
