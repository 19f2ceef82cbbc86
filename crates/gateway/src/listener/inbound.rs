//! One accepted connection as the stages see it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_core::{Connection, Moment, PeerCertificate};
use portcullis_proxy::hygiene::ForwardedFields;
use tokio::time::Instant;

use super::framing::FramingFault;
use super::limits::ABANDONED_REQUESTS;
use super::ocsp::Ocsp;
use super::standing::HandshakeChain;

/// A connection and what has been noticed about it. It lives on one worker; its cells are written by whoever reads
/// and writes it.
#[derive(Debug)]
pub struct Inbound {
    connection: Connection,
    chain: Option<HandshakeChain>,
    http2: bool,
    /// Requests handed up so far: the number of the newest one, counted from 1.
    served: Cell<u64>,
    /// Requests whose answer has not been sent to its end.
    in_flight: Cell<u64>,
    /// HTTP/2 requests that the client dropped before they were answered.
    abandoned: Cell<u64>,
    fault: Cell<Option<(u64, FramingFault)>>,
    head_since: Cell<Option<Instant>>,
    write_blocked_since: Cell<Option<Instant>>,
    input_ended_since: Cell<Option<Instant>>,
    /// HTTP/2 answers whose next piece nobody has asked for, by the number of their request, each with since when.
    unclaimed: RefCell<HashMap<u64, Instant>>,
    closing: Cell<bool>,
    forwarded: OnceCell<ForwardedFields>,
}

impl Inbound {
    /// A connection nothing has happened on.
    pub fn new(connection: Connection, http2: bool) -> Rc<Self> {
        Self::shaken(connection, http2, None)
    }

    /// The same after a handshake whose certificate may be revoked while the connection stands.
    pub(crate) fn shaken(connection: Connection, http2: bool, chain: Option<HandshakeChain>) -> Rc<Self> {
        Rc::new(Self {
            connection,
            chain,
            http2,
            served: Cell::new(0),
            in_flight: Cell::new(0),
            abandoned: Cell::new(0),
            fault: Cell::new(None),
            head_since: Cell::new(None),
            write_blocked_since: Cell::new(None),
            input_ended_since: Cell::new(None),
            unclaimed: RefCell::default(),
            closing: Cell::new(false),
            forwarded: OnceCell::new(),
        })
    }

    /// The connection.
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The certificate of the handshake as it stands now, where something has become known since.
    pub(crate) fn superseding_certificate(&self, now: Moment) -> Option<Arc<PeerCertificate>> {
        let first = self.connection.handshake_certificate.as_ref()?;
        self.chain.as_ref()?.superseding(first, now)
    }

    /// Who is asked online about the certificate of the handshake.
    pub(crate) fn online(&self) -> Option<&Arc<Ocsp>> {
        self.chain.as_ref()?.online()
    }

    /// What upstreams are told about it; made for its first request.
    pub(crate) fn forwarded(&self) -> &ForwardedFields {
        self.forwarded.get_or_init(|| ForwardedFields::of(&self.connection))
    }

    /// What is wrong with the framing of the request being served. Ask at the start, and again when its body
    /// breaks off: a body is judged as it arrives. Whoever gets a fault must refuse the request.
    pub fn framing_fault(&self) -> Option<FramingFault> {
        // Pipelined requests before the faulty one are good. HTTP/1.1 serves one request at a time, so the
        // newest is the one that asks.
        self.fault.get().and_then(|(request, fault)| (request <= self.served.get()).then_some(fault))
    }

    pub(crate) const fn is_http2(&self) -> bool {
        self.http2
    }

    pub(crate) fn set_fault(&self, request: u64, fault: FramingFault) {
        self.fault.set(Some((request, fault)));
    }

    /// Whether the next answer is to be the last of the connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get() || self.framing_fault().is_some()
    }

    pub(crate) fn close_after_answer(&self) {
        self.closing.set(true);
    }

    /// A request is handed up; says its number.
    pub(crate) fn begin(&self) -> u64 {
        let request = self.served.get().saturating_add(1);
        self.served.set(request);
        self.in_flight.set(self.in_flight.get().saturating_add(1));
        request
    }

    pub(crate) fn end(&self, request: u64) {
        if self.http2 {
            self.unclaimed.borrow_mut().remove(&request);
        }
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    pub(crate) fn abandon(&self) {
        self.abandoned.set(self.abandoned.get().saturating_add(1));
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// SECURITY: a client that opens requests only to reset them makes us and our upstreams work for nothing
    /// (CVE-2023-44487); h2's own bounds count only requests that were not yet taken up.
    pub(crate) fn is_abusive(&self) -> bool {
        let abandoned = self.abandoned.get();
        abandoned > ABANDONED_REQUESTS && abandoned.saturating_mul(2) > self.served.get()
    }

    pub(crate) fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// The time is read only when a head did not arrive in one piece.
    pub(crate) fn set_within_head(&self, within: bool) {
        match (within, self.head_since.get()) {
            (true, None) => self.head_since.set(Some(Instant::now())),
            (false, Some(_)) => self.head_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(crate) fn write_blocked_since(&self) -> Option<Instant> {
        self.write_blocked_since.get()
    }

    pub(crate) fn set_write_blocked(&self, blocked: bool) {
        match (blocked, self.write_blocked_since.get()) {
            (true, None) => self.write_blocked_since.set(Some(Instant::now())),
            (false, Some(_)) => self.write_blocked_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(crate) fn input_ended_since(&self) -> Option<Instant> {
        self.input_ended_since.get()
    }

    /// The client has said all it will say, and waits for the answer to a request.
    pub(crate) fn set_input_ended(&self) {
        if self.input_ended_since.get().is_none() {
            self.input_ended_since.set(Some(Instant::now()));
        }
        self.closing.set(true);
    }

    /// A piece of an answer was handed out, or the next one is asked for. On HTTP/2 a client that opens no window
    /// blocks no write: all that shows is that nobody asks. HTTP/1.1 shows it at the socket.
    pub(crate) fn set_unclaimed(&self, request: u64, handed_out: bool) {
        if !self.http2 {
            return;
        }
        let mut unclaimed = self.unclaimed.borrow_mut();
        match handed_out {
            true => unclaimed.insert(request, Instant::now()),
            false => unclaimed.remove(&request),
        };
    }

    /// Since when the client has let its most neglected answer wait.
    pub(crate) fn unclaimed_since(&self) -> Option<Instant> {
        if self.http2 { self.unclaimed.borrow().values().min().copied() } else { None }
    }
}
