//! One HTTP/1.1 connection: requests in, answers out, one after the other.
//!
//! All of it is one future on the worker's thread. The request being served is polled in place; its body is read from
//! the socket only when somebody asks for it ([`body`]), its answer is written as it comes, and small answers leave in
//! one write. SECURITY: what is read is judged once, by the grammar of `framing`, and the very ranges that were judged
//! become the request: no second parser could see it otherwise.

mod answer;
mod body;
mod input;
mod output;
mod request;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use answer::{Announced, Framing};
pub use body::{BrokenBody, RequestBody};
use input::{Input, Step, Trouble};
use output::Output;
use request::Facts;

use super::IncomingBody;
use super::framing::{FramingFault, HeadLimits};
use super::inbound::Inbound;
use super::limits::{LINGER_BYTES, LINGER_TIMEOUT, PIPELINED_BYTES};
use super::serve::{InFlight, Serve};
use super::watch::Protocol;

/// Why a connection ended out of order.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Its bytes are no HTTP.
    #[error("malformed: {0}")]
    Malformed(FramingFault),
    /// The client went away in the middle of something, or the socket failed.
    #[error("{0}")]
    Lost(#[from] io::Error),
    /// An answer could not be finished; its client has to see that it broke off.
    #[error("an answer broke off")]
    Answer,
}

/// The connection as its timekeeper sees it.
pub(super) fn connection<S: Serve, T: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: T,
    inbound: Rc<Inbound>,
    serve: Rc<S>,
    limits: HeadLimits,
) -> impl Protocol<Output = Result<(), Broken>> {
    let own = Rc::clone(&inbound);
    let input = Input::new(limits);
    let running =
        async move { Connection { io, input, output: Output::default(), inbound, serve }.run().await };
    Http1 { running, inbound: own }
}

pin_project! {
    struct Http1<F> {
        #[pin]
        running: F,
        inbound: Rc<Inbound>,
    }
}

impl<F: Future> Future for Http1<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().running.poll(cx)
    }
}

impl<F: Future> Protocol for Http1<F> {
    fn finish(self: Pin<&mut Self>) {
        self.inbound.close_after_answer();
    }
}

struct Connection<S, T> {
    io: T,
    input: Input,
    output: Output,
    inbound: Rc<Inbound>,
    serve: Rc<S>,
}

impl<S: Serve, T: AsyncRead + AsyncWrite + Unpin> Connection<S, T> {
    async fn run(mut self) -> Result<(), Broken> {
        let mut malformed = None;
        while let Some(next) = poll_fn(|cx| self.poll_request(cx)).await? {
            let (request, facts) = next.unwrap_or_else(|fault| {
                malformed = Some(fault);
                self.inbound.set_fault(self.inbound.served() + 1, fault);
                request::unreadable()
            });
            self.answer(request, facts).await?;
            if self.inbound.is_closing() {
                break;
            }
        }
        self.close().await?;
        malformed.map_or(Ok(()), |fault| Err(Broken::Malformed(fault)))
    }

    /// The next request, or what is wrong with it. `None` when there will be none.
    #[expect(clippy::type_complexity, reason = "named once, used once")]
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<(Request<IncomingBody>, Facts), FramingFault>>, Broken>> {
        loop {
            let found = self.input.request().transpose();
            if found.is_some() {
                self.inbound.set_within_head(false);
                return Poll::Ready(Ok(found));
            }
            if self.input.held() == 0 && self.inbound.is_closing() {
                return Poll::Ready(Ok(None));
            }
            self.inbound.set_within_head(self.input.held() > 0);
            if self.input.has_ended() || !ready!(self.input.poll_fill(&mut self.io, cx))? {
                return Poll::Ready(match self.input.held() == 0 {
                    true => Ok(None),
                    false => Err(Broken::Lost(io::ErrorKind::UnexpectedEof.into())),
                });
            }
        }
    }

    async fn answer(&mut self, request: Request<IncomingBody>, mut facts: Facts) -> Result<(), Broken> {
        let number = self.inbound.begin();
        if facts.old_version || facts.closes {
            // An old client that asks to keep the connection is answered in its own version and closed: what
            // follows on such a connection has been read differently by different servers (PRX-01).
            self.inbound.close_after_answer();
        }
        let mut in_flight = InFlight::new(Rc::clone(&self.inbound), number);
        let (head, body) = {
            let mut serving = pin!(self.serve.serve(request, &self.inbound));
            let (io, input, output, inbound) =
                (&mut self.io, &mut self.input, &mut self.output, &self.inbound);
            let response = poll_fn(|cx| {
                loop {
                    if let Poll::Ready(response) = serving.as_mut().poll(cx) {
                        return Poll::Ready(Ok(response));
                    }
                    if !poll_input(io, input, output, inbound, &mut facts, cx)? {
                        return Poll::Pending;
                    }
                }
            });
            let response: Result<Response<S::Body>, Broken> = response.await;
            response?.into_parts()
        };
        in_flight.answered();
        // A body nobody will read must be here already, or it would be waited for.
        if self.input.is_forsaken() && !self.input.settle() {
            self.inbound.close_after_answer();
        }
        let framing = Framing::of(head.status, facts, &body.size_hint());
        let announced = Announced::of(&head.headers, facts);
        let closing = self.inbound.is_closing() || framing == Framing::Close;
        answer::write_head(&mut self.output.small, &head, facts, framing, closing);
        drop(head);
        self.send(pin!(body), framing, announced, facts).await?;
        if closing || !self.input.settle() {
            self.inbound.close_after_answer();
        }
        Ok(())
    }

    /// Sends the body of an answer behind its head.
    async fn send(
        &mut self,
        mut body: Pin<&mut S::Body>,
        framing: Framing,
        announced: Option<Announced>,
        mut facts: Facts,
    ) -> Result<(), Broken> {
        let mut sending = Sending { framing, announced, done: framing == Framing::Empty };
        // Once the head has begun to go, nobody can be invited any more.
        facts.expects_continue = false;
        let Self { io, input, output, inbound, .. } = self;
        poll_fn(|cx| {
            loop {
                let taken = sending.poll_take(body.as_mut(), output, cx)?;
                let written = output.poll_write(io, cx);
                inbound.set_write_blocked(written.is_pending());
                match written {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Lost(error))),
                    Poll::Ready(Ok(())) if sending.done => return Poll::Ready(Ok(())),
                    // What filled the output has gone, so the body may have more at once.
                    Poll::Ready(Ok(())) if taken => continue,
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
                if !poll_input(io, input, output, inbound, &mut facts, cx)? {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Ends our side; then, if the client is still sending, reads and drops a little of it. Closing a socket with
    /// unread input resets it, and a reset can overtake the answer that explains it.
    async fn close(&mut self) -> Result<(), Broken> {
        self.io.shutdown().await?;
        if self.input.is_unfinished() {
            let rest = self.input.discard(&mut self.io, LINGER_BYTES);
            // Whether it came to its end or not, nobody waits for it.
            drop(tokio::time::timeout(LINGER_TIMEOUT, rest).await);
        }
        Ok(())
    }
}

/// An answer's body on its way out.
struct Sending {
    framing: Framing,
    announced: Option<Announced>,
    done: bool,
}

impl Sending {
    /// Takes from the body what it has, as long as there is room; whether it stopped for want of room.
    fn poll_take<B: Body<Data = Bytes>>(
        &mut self,
        mut body: Pin<&mut B>,
        output: &mut Output,
        cx: &mut Context<'_>,
    ) -> Result<bool, Broken> {
        while !self.done {
            if output.is_full() {
                return Ok(true);
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => self.end(None, output)?,
                Poll::Ready(Some(Err(_error))) => return Err(Broken::Answer),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.data(data, output)?,
                    Err(frame) => self.end(frame.into_trailers().ok().as_ref(), output)?,
                },
            }
            if matches!(self.framing, Framing::Length(0)) {
                self.done = true;
            }
        }
        Ok(false)
    }

    fn data(&mut self, data: Bytes, output: &mut Output) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Empty => return Err(Broken::Answer),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broken::Answer)?;
                output.push(data, b"");
            }
            Framing::Chunked => {
                answer::write_chunk_size(&mut output.small, data.len());
                output.push(data, b"\r\n");
            }
            Framing::Close => output.push(data, b""),
        }
        Ok(())
    }

    /// SECURITY: a body that is shorter than its head has said must not look whole.
    fn end(&mut self, trailers: Option<&HeaderMap>, output: &mut Output) -> Result<(), Broken> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(Broken::Answer),
            Framing::Chunked => {
                answer::write_chunked_end(&mut output.small, self.announced.as_ref(), trailers);
            }
            Framing::Length(_) | Framing::Empty | Framing::Close => {}
        }
        self.done = true;
        Ok(())
    }
}

/// Goes on with the input while a request is served; whether there is anything new for its reader. Between the end of
/// its body and its answer only the end of the connection is of interest, and a little of what is pipelined.
fn poll_input<T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    input: &mut Input,
    output: &mut Output,
    inbound: &Inbound,
    facts: &mut Facts,
    cx: &mut Context<'_>,
) -> Result<bool, Broken> {
    match input.go_on(io, facts, cx) {
        Ok(Step::Served) => return Ok(true),
        Ok(Step::Invite) => {
            output.small.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            return Ok(true);
        }
        Ok(Step::Wait) => {}
        Err(Trouble::Fault(fault)) => {
            inbound.set_fault(inbound.served(), fault);
            return Ok(true);
        }
        Err(Trouble::Lost(error)) => return Err(Broken::Lost(error)),
    }
    if let Poll::Ready(Err(error)) = output.poll_write(io, cx) {
        return Err(Broken::Lost(error));
    }
    while input.is_between_requests() && !input.has_ended() && input.held() < PIPELINED_BYTES {
        match input.poll_fill(io, cx) {
            Poll::Ready(Ok(true)) => {}
            // Some clients end their side as soon as they have said all, and then wait for the answer.
            Poll::Ready(Ok(false)) => inbound.set_input_ended(),
            Poll::Ready(Err(error)) => return Err(Broken::Lost(error)),
            Poll::Pending => break,
        }
    }
    Ok(false)
}
