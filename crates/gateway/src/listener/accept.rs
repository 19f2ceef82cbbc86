//! Sockets.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use portcullis_core::{Clock, Connection};
use rustls::server::Acceptor;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::drain::{Drain, Draining};
use super::event::{CertificateOutcome, Event, HandshakeFailure};
use super::inbound::Inbound;
use super::limits::{ACCEPT_PAUSE, BACKLOG};
use super::peer::Ends;
use super::serve::{Ending, Serve};
use super::settings::ListenerSettings;
use super::tls::{TlsPolicy, TlsSettings};
use super::{Listener, Place, peer, serve};

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, or another listener of this one, has the address.
    #[error("listener `{listener}`: {address} is in use by another process")]
    InUse {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        address: SocketAddr,
    },
    /// The port is one that only a privileged process may take, or a rule of the system forbids it.
    #[error("listener `{listener}`: not permitted to listen on {address}")]
    Forbidden {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else: above all an address this machine does not have.
    #[error("listener `{listener}`: cannot listen on {address}: {source}")]
    Other {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// One worker's socket of a listener.
#[derive(Debug)]
pub struct Bound {
    listener: Arc<Listener>,
    socket: Socket,
}

impl Bound {
    /// Where it is bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

impl Listener {
    /// Binds one socket for each worker, all to the same address and port. The kernel spreads connections over
    /// them.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(
        settings: &Arc<ListenerSettings>,
        workers: usize,
    ) -> Result<(Arc<Self>, Vec<Bound>), BindError> {
        let sockets = sockets(settings.address, workers).map_err(|source| bind_error(settings, source))?;
        let address = sockets
            .first()
            .and_then(|socket| socket.local_addr().ok()?.as_socket())
            .unwrap_or(settings.address);
        let listener =
            Arc::new(Self { name: Arc::clone(&settings.name), address, open: AtomicUsize::new(0) });
        let bound = |socket| Bound { listener: Arc::clone(&listener), socket };
        let bound = sockets.into_iter().map(bound).collect();
        Ok((listener, bound))
    }
}

fn bind_error(settings: &ListenerSettings, source: io::Error) -> BindError {
    let (listener, address) = (Arc::clone(&settings.name), settings.address);
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { listener, address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { listener, address },
        _ => BindError::Other { listener, address, source },
    }
}

/// The first socket is bound without `SO_REUSEPORT`, which would let a second gateway share the port unnoticed;
/// the option is set once it holds the port, so that its siblings may join.
fn sockets(address: SocketAddr, count: usize) -> io::Result<Vec<Socket>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let concrete = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&concrete)?;
        sockets.push(next);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Accepts and serves connections until the drain begins. Call it on a local runtime; connections become tasks
/// of it and end on their own.
///
/// # Errors
/// The socket cannot be handed to the runtime.
pub async fn run<S: Serve>(bound: Bound, serve: Rc<S>, drain: Drain, clock: Clock) -> io::Result<()> {
    let accepting = TcpListener::from_std(bound.socket.into())?;
    let door = Rc::new(Door { listener: bound.listener, serve, clock });
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.begun() => return Ok(()),
            accepted = accepting.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => door.admit(stream, peer, &drain),
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The connection was gone before we had it; the next one is as good as any. Everything else may well last, as a
/// shortage of descriptors or memory does: the next `accept` would fail at once and the loop would eat the core.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// What every connection of one socket shares.
struct Door<S> {
    listener: Arc<Listener>,
    serve: Rc<S>,
    clock: Clock,
}

impl<S: Serve> Door<S> {
    fn admit(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, drain: &Drain) {
        let name = &self.listener.name;
        // No listener comes or goes while the gateway runs, so there are always some.
        let Some(settings) = self.serve.settings(name) else { return };
        let Some(place) = self.listener.enter(settings.limits.connections) else {
            self.serve.observe(name, Event::OverCapacity);
            return;
        };
        let visit = Visit { door: Rc::clone(self), place };
        self.serve.observe(name, Event::Opened);
        let draining = drain.enter();
        tokio::task::spawn_local(async move {
            let door = &visit.door;
            door.attend(settings, stream, peer, draining).await;
        });
    }

    async fn attend(
        &self,
        settings: Arc<ListenerSettings>,
        mut stream: TcpStream,
        peer: SocketAddr,
        draining: Draining,
    ) {
        let _used = settings.in_use();
        // A small answer must not wait for the acknowledgement of the one before it.
        let _ = stream.set_nodelay(true);
        let settings = &*settings;
        let Some(ends) = self.announced(settings, &mut stream, peer).await else { return };
        let ending = match &settings.tls {
            None => {
                let connection = Connection {
                    peer: ends.peer,
                    proxy: ends.proxy,
                    shared: ends.shared,
                    listener: Arc::clone(&settings.name),
                    tls: None,
                    handshake_certificate: None,
                };
                let inbound = Inbound::new(connection, false);
                serve::connection(stream, inbound, Rc::clone(&self.serve), draining, &settings.limits).await
            }
            Some(tls) => {
                let Some((stream, inbound)) = self.handshake(settings, tls, stream, ends).await else {
                    return;
                };
                serve::connection(stream, inbound, Rc::clone(&self.serve), draining, &settings.limits).await
            }
        };
        if ending == Ending::Malformed {
            self.serve.observe(&settings.name, Event::Malformed);
        }
    }

    /// Who is at the other end: the peer of the socket, or whom the proxy there announces before anything else.
    async fn announced(
        &self,
        settings: &ListenerSettings,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<Ends> {
        let unannounced =
            Ends { peer, proxy: None, shared: settings.knows_a_proxy_at(peer.ip().to_canonical()) };
        let Some(protocol) = &settings.proxy_protocol else { return Some(unannounced) };
        match protocol.take(stream, peer).await {
            Ok(None) => Some(unannounced),
            Ok(Some(client)) => Some(Ends { peer: client, proxy: Some(peer), shared: false }),
            Err(failure) => {
                self.serve.observe(&settings.name, Event::Unannounced(failure));
                None
            }
        }
    }

    async fn handshake(
        &self,
        settings: &ListenerSettings,
        tls: &TlsSettings,
        stream: TcpStream,
        ends: Ends,
    ) -> Option<(TlsStream<TcpStream>, Rc<Inbound>)> {
        let deadline = Instant::now() + settings.limits.handshake_timeout;
        let failure = match tokio::time::timeout_at(deadline, negotiate(tls, stream)).await {
            Ok(Ok((policy, stream))) => {
                match peer::connection(ends, &settings.name, policy, stream.get_ref().1, &self.clock) {
                    Ok((connection, chain)) => {
                        self.serve.observe(&settings.name, outcome(policy, &connection));
                        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        return Some((stream, Inbound::shaken(connection, http2, chain)));
                    }
                    Err(_) => HandshakeFailure::CertificateExpired,
                }
            }
            Ok(Err(error)) => HandshakeFailure::of(&error),
            Err(_) => HandshakeFailure::Timeout,
        };
        self.serve.observe(&settings.name, Event::HandshakeFailed(failure));
        None
    }
}

/// SECURITY: the client's hello is read by rustls itself, whole, however it was cut into records; the policy is
/// chosen from what rustls found in it (CVE-2026-32305).
async fn negotiate(tls: &TlsSettings, stream: TcpStream) -> io::Result<(&TlsPolicy, TlsStream<TcpStream>)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let policy = tls.policy_for(start.client_hello().server_name());
    let stream = start.into_stream(Arc::clone(&policy.config)).await?;
    Ok((policy, stream))
}

fn outcome(policy: &TlsPolicy, connection: &Connection) -> Event {
    let certificate = match (&policy.verifier, &connection.handshake_certificate) {
        (None, _) => CertificateOutcome::NotAsked,
        (Some(_), None) => CertificateOutcome::Absent,
        (Some(_), Some(_)) => CertificateOutcome::Verified,
    };
    let version = connection.tls.as_ref().map_or("", |tls| tls.version);
    Event::Handshake { version, certificate }
}

/// One connection's stay. It ends when its task ends, in whatever way.
struct Visit<S: Serve> {
    door: Rc<Door<S>>,
    place: Place,
}

impl<S: Serve> Drop for Visit<S> {
    fn drop(&mut self) {
        let name = &self.place.0.name;
        if std::thread::panicking() {
            self.door.serve.observe(name, Event::Panicked);
        }
        self.door.serve.observe(name, Event::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::concerns_one_connection;

    #[test]
    fn accepting_pauses_after_every_error_that_may_last() {
        const ECONNABORTED: i32 = 103;
        const ECONNRESET: i32 = 104;
        const EINTR: i32 = 4;
        for code in [ECONNABORTED, ECONNRESET, EINTR] {
            assert!(concerns_one_connection(&io::Error::from_raw_os_error(code)), "{code}");
        }
        const EPERM: i32 = 1;
        const ENOMEM: i32 = 12;
        const EINVAL: i32 = 22;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const EPROTO: i32 = 71;
        const ENETDOWN: i32 = 100;
        const ENOBUFS: i32 = 105;
        for code in [EPERM, ENOMEM, EINVAL, ENFILE, EMFILE, EPROTO, ENETDOWN, ENOBUFS] {
            assert!(!concerns_one_connection(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(!concerns_one_connection(&io::Error::other("whatever comes next")));
    }
}
