//! Asking the servers: scripts they keep, over connections that are made again when they break.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind};
use tokio::runtime::Handle;

use super::settings::{SharedSettings, Way};
use crate::error::OpenError;

/// How many connections there are where replicas are waited for: a server answers nothing else on one meanwhile.
const WAITING: usize = 16;
/// The longest time that finding a server and connecting to it may take.
const LONGEST_CONNECTING: Duration = Duration::from_secs(10);

/// Connections to the servers.
pub(super) struct Servers {
    links: Box<[Link]>,
    next: AtomicUsize,
    replicas: u32,
    timeout: Duration,
}

/// A script that servers keep.
pub(super) struct Kept {
    text: &'static str,
    hash: String,
}

/// One call of a script.
pub(super) struct Call<'s> {
    script: &'s Kept,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
    /// Whether what it writes must be on replicas before it is answered.
    is_kept: bool,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Asked<'c> {
    Script(&'c Call<'c>),
    Command(&'c Cmd),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    TimedOut,
    /// SECURITY: only the kind of it: what a server says may repeat what it was sent.
    Failed(ErrorKind),
    /// Fewer replicas than that have it.
    NotReplicated,
}

enum Link {
    Server(Server),
    /// It makes its connections again by itself.
    Cluster(Box<ClusterConnection>),
}

/// A connection to the one server that is written to.
struct Server {
    way: Arc<Way>,
    background: Handle,
    config: AsyncConnectionConfig,
    current: Mutex<Option<Connecting>>,
}

/// A connection that is made once for all who wait for it.
type Connecting = Shared<BoxFuture<'static, Result<MultiplexedConnection, ErrorKind>>>;

impl Kept {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call { script: self, keys: Vec::new(), arguments: Vec::new(), is_kept: false }
    }
}

impl Call<'_> {
    pub(super) fn key(&mut self, key: &[u8]) -> &mut Self {
        self.keys.push(key.to_vec());
        self
    }

    pub(super) fn arg(&mut self, argument: impl fmt::Display) -> &mut Self {
        self.arguments.push(argument.to_string().into_bytes());
        self
    }

    pub(super) fn bytes(&mut self, argument: &[u8]) -> &mut Self {
        self.arguments.push(argument.to_vec());
        self
    }

    /// It is answered when replicas have it, too, where they are waited for.
    pub(super) fn kept_by_replicas(&mut self) -> &mut Self {
        self.is_kept = true;
        self
    }

    fn command(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script.hash).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }

    fn loading(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.script.text);
        command
    }
}

impl Servers {
    /// Nobody is connected to before the first question.
    pub(super) fn new(settings: &SharedSettings, background: &Handle) -> Result<Self, OpenError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connecting()))
            // A question has its own; a connection on which one was slow is as good as before.
            .set_response_timeout(None);
        let count = if settings.replicas == 0 { 1 } else { WAITING };
        let way = Arc::new(settings.way()?);
        let link = |_| match &*way {
            Way::Alone(_) | Way::Sentinel(_) => Link::Server(Server {
                way: Arc::clone(&way),
                background: background.clone(),
                config: config.clone(),
                current: Mutex::new(None),
            }),
            Way::Cluster(client) => {
                let _entered = background.enter();
                Link::Cluster(Box::new(client.get_pending_async_connection_with_config(Default::default())))
            }
        };
        let links = (0..count).map(link).collect();
        Ok(Self { links, next: AtomicUsize::new(0), replicas: settings.replicas, timeout: settings.timeout })
    }

    /// Whether keys live on different servers.
    pub(super) fn is_cluster(&self) -> bool {
        self.links.iter().any(|link| matches!(link, Link::Cluster(_)))
    }

    /// Calls a script. What it did if there is no answer is not known.
    pub(super) async fn ask<T: FromRedisValue>(&self, call: &Call<'_>) -> Result<T, Failure> {
        self.ask_for(Asked::Script(call)).await
    }

    /// Asks what is no script.
    pub(super) async fn ask_plainly<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        self.ask_for(Asked::Command(command)).await
    }

    async fn ask_for<T: FromRedisValue>(&self, asked: Asked<'_>) -> Result<T, Failure> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.links.len().max(1);
        let Some(link) = self.links.get(next) else { return Err(Failure::Failed(ErrorKind::Client)) };
        let asking = async {
            match link {
                Link::Cluster(connection) => {
                    let mut connection = ClusterConnection::clone(connection);
                    asked.ask(&mut connection).await.map_err(failed)
                }
                Link::Server(server) => server.ask(asked, self.replicas, self.timeout).await,
            }
        };
        tokio::time::timeout(self.timeout, asking).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Leaves the connections there are: nothing comes out of them.
    pub(super) fn renew(&self) {
        for link in &self.links {
            if let Link::Server(server) = link {
                *server.current() = None;
            }
        }
    }
}

impl Server {
    async fn ask<T: FromRedisValue>(
        &self,
        asked: Asked<'_>,
        replicas: u32,
        timeout: Duration,
    ) -> Result<T, Failure> {
        let connecting = self.connecting();
        let answer = match (connecting.clone().await, asked) {
            (Err(kind), _) => Err(Failure::Failed(kind)),
            (Ok(mut connection), Asked::Script(call)) if call.is_kept && replicas > 0 => {
                ask_replicated(&mut connection, call, replicas, timeout).await
            }
            (Ok(mut connection), asked) => asked.ask(&mut connection).await.map_err(failed),
        };
        if let Err(Failure::Failed(kind)) = answer
            && is_over(kind)
        {
            self.leave(&connecting);
        }
        answer
    }

    /// The connection. Where there is none, one is made by a task of its own: it is made also if whoever needs it first
    /// does not wait that long.
    fn connecting(&self) -> Connecting {
        let mut current = self.current();
        let connecting = current.get_or_insert_with(|| {
            let (way, config) = (Arc::clone(&self.way), self.config.clone());
            let connecting = async move {
                let made = tokio::time::timeout(LONGEST_CONNECTING, connect(&way, &config)).await;
                made.map_or(Err(ErrorKind::Io), |made| made.map_err(|error| error.kind()))
            };
            let connecting = connecting.boxed().shared();
            self.background.spawn(connecting.clone());
            connecting
        });
        connecting.clone()
    }

    /// Leaves a connection of which nothing more comes; not one that another has made since.
    fn leave(&self, over: &Connecting) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|current| current.ptr_eq(over)) {
            *current = None;
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Connecting>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(way: &Way, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisError> {
    match way {
        Way::Alone(client) => client.get_multiplexed_async_connection_with_config(config).await,
        Way::Sentinel(client) => client.lock().await.get_async_connection_with_config(config).await,
        Way::Cluster(_) => Err((ErrorKind::Client, "a cluster has many connections").into()),
    }
}

impl Asked<'_> {
    async fn ask<T: FromRedisValue>(self, connection: &mut impl ConnectionLike) -> Result<T, RedisError> {
        let call = match self {
            Self::Command(command) => return command.query_async(connection).await,
            Self::Script(call) => call,
        };
        let command = call.command();
        match command.query_async(connection).await {
            Err(error) if is_unknown(&error) => {
                call.loading().exec_async(connection).await?;
                command.query_async(connection).await
            }
            answer => answer,
        }
    }
}

/// The same, and waits for replicas.
///
/// SECURITY: both in one go, over one connection: `WAIT` is about what that connection has written, and a new one has
/// written nothing.
async fn ask_replicated<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    call: &Call<'_>,
    replicas: u32,
    timeout: Duration,
) -> Result<T, Failure> {
    let mut both = redis::pipe();
    both.add_command(call.command());
    both.cmd("WAIT").arg(replicas).arg(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
    let answer = both.query_async::<(T, u32)>(connection).await;
    let answer = match answer {
        Err(error) if is_unknown(&error) => {
            call.loading().exec_async(connection).await.map_err(failed)?;
            both.query_async(connection).await
        }
        answer => answer,
    };
    let (answer, have_it) = answer.map_err(failed)?;
    if have_it < replicas { Err(Failure::NotReplicated) } else { Ok(answer) }
}

fn failed(error: RedisError) -> Failure {
    Failure::Failed(error.kind())
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether a connection is of no use any more: it is broken, or leads to a server that is not written to any more.
fn is_over(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Server(said) => matches!(said, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown),
        _ => true,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::NotReplicated => f.write_str("too few replicas have it in time"),
            Self::Failed(kind) => write!(f, "{kind:?}"),
        }
    }
}
