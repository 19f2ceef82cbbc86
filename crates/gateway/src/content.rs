//! Reads the content of a request before it is forwarded, for authenticators that sign over it.

use std::cell::Cell;
use std::fmt::Display;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use portcullis_authn::ContentFuture;
use portcullis_core::{Reason, Rejection};
use portcullis_proxy::{BodyFault, BodyLimits};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::request_body::RequestBody;

/// How many bytes a worker gathers at once for requests that are still being judged. One alone may be as long as its API
/// takes.
const ROOM: u64 = 64 << 20;

/// The room of one worker for content that is being gathered.
///
/// SECURITY: whoever is being judged is a stranger, who may send many bodies up to their last byte and keep that back.
#[derive(Default)]
pub(crate) struct Room {
    taken: Cell<u64>,
}

/// A part of the room, given back when it is dropped.
struct Part<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Part<'_> {
    /// Takes more; `false` if there is no more.
    fn grow(&mut self, by: usize) -> bool {
        let by = by as u64;
        let taken = self.room.taken.get();
        let fits = taken.saturating_add(by) <= ROOM || taken == self.bytes;
        if fits {
            self.bytes = self.bytes.saturating_add(by);
            self.room.taken.set(taken.saturating_add(by));
        }
        fits
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.room.taken.set(self.room.taken.get().saturating_sub(self.bytes));
    }
}

/// Why content is not had.
#[derive(Debug, PartialEq, Eq)]
enum NotGathered {
    /// The body itself is at fault.
    Fault(BodyFault),
    /// Others have taken the room.
    Full,
}

impl From<BodyFault> for NotGathered {
    fn from(fault: BodyFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<NotGathered> for Rejection {
    fn from(why: NotGathered) -> Self {
        match why {
            NotGathered::Fault(fault) => Self::new(fault.reason()).because(format!("request body: {fault}")),
            NotGathered::Full => Self::new(Reason::Overloaded)
                .because("too much content is gathered for requests that are being judged")
                .retry_after(Duration::from_secs(1)),
        }
    }
}

/// The body of a request whose chain may ask for its content.
pub(crate) struct Content {
    /// Empty only while it is being read.
    body: Cell<Option<RequestBody>>,
    limits: BodyLimits,
    room: Rc<Room>,
}

impl Content {
    /// Nothing is read yet.
    pub(crate) const fn of(body: RequestBody, limits: BodyLimits, room: Rc<Room>) -> Self {
        Self { body: Cell::new(Some(body)), limits, room }
    }

    /// Gives the body back: as it came, or whole if somebody has asked.
    pub(crate) fn into_body(self) -> RequestBody {
        self.body.into_inner().unwrap_or(RequestBody::Whole(None))
    }

    async fn once(&self, at_most: u64) -> Result<Bytes, Rejection> {
        let body = self.body.take().ok_or_else(|| {
            Rejection::new(Reason::InternalError).because("the content is asked for while it is being read")
        })?;
        let mut streaming = match body {
            RequestBody::Whole(content) => {
                self.body.set(Some(RequestBody::Whole(content.clone())));
                let content = content.unwrap_or_default();
                return if content.len() as u64 > at_most {
                    Err(NotGathered::Fault(BodyFault::TooLarge(at_most)).into())
                } else {
                    Ok(content)
                };
            }
            streaming @ RequestBody::Streaming(_) => streaming,
        };
        let limits = BodyLimits { max_bytes: self.limits.max_bytes.min(at_most), ..self.limits };
        match collect(&mut streaming, limits, &self.room).await {
            Ok(content) => {
                self.body.set(Some(RequestBody::whole(content.clone())));
                Ok(content)
            }
            Err(why) => {
                self.body.set(Some(streaming));
                Err(why.into())
            }
        }
    }
}

impl portcullis_authn::Content for Content {
    fn is_absent(&self) -> bool {
        let body = self.body.take();
        let absent = body.as_ref().is_some_and(Body::is_end_stream);
        self.body.set(body);
        absent
    }

    fn read(&self, at_most: u64) -> ContentFuture<'_> {
        Box::pin(self.once(at_most))
    }
}

/// All of a body, under the limits that hold for one that is passed on. Trailers are dropped, as they are there.
async fn collect<B>(body: &mut B, limits: BodyLimits, room: &Room) -> Result<Bytes, NotGathered>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    if body.size_hint().lower() > limits.max_bytes {
        return Err(BodyFault::TooLarge(limits.max_bytes).into());
    }
    let mut part = Part { room, bytes: 0 };
    let start = Instant::now();
    let end = start.checked_add(limits.total);
    let mut clock = pin!(sleep_until(start));
    let mut gathered = Gathered::default();
    while !body.is_end_stream() {
        let patience = wind(clock.as_mut(), end, limits);
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = clock.as_mut() => return Err(BodyFault::TimedOut(patience).into()),
        };
        match frame {
            None => break,
            Some(Err(error)) => return Err(BodyFault::Broken(error.to_string()).into()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                let length = data.len();
                gathered.add(data, limits.max_bytes)?;
                if !part.grow(length) {
                    return Err(NotGathered::Full);
                }
            }
        }
    }
    Ok(gathered.finish())
}

/// Sets the clock to when the next piece is due, and says which patience then ends.
fn wind(clock: Pin<&mut Sleep>, end: Option<Instant>, limits: BodyLimits) -> Duration {
    let pause = Instant::now() + limits.idle;
    let (due, patience) = match end {
        Some(end) if end < pause => (end, limits.total),
        _ => (pause, limits.idle),
    };
    clock.reset(due);
    patience
}

/// What has arrived. A body that came in one piece is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn add(&mut self, data: Bytes, max_bytes: u64) -> Result<(), BodyFault> {
        let length = self.first.len().max(self.all.len()).saturating_add(data.len());
        if length as u64 > max_bytes {
            return Err(BodyFault::TooLarge(max_bytes));
        }
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
            return Ok(());
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&data);
        Ok(())
    }

    fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::{Empty, Full, StreamBody};
    use portcullis_proxy::{BodyFault, BodyLimits};

    use portcullis_authn::Content as _;
    use portcullis_core::Reason;

    use super::{Content, NotGathered, Part, ROOM, Room, collect};
    use crate::request_body::RequestBody;

    const LIMITS: BodyLimits =
        BodyLimits { max_bytes: 10, idle: Duration::from_secs(5), total: Duration::from_secs(12) };

    /// Pieces, each after some seconds.
    fn body(
        pieces: &'static [(u64, &'static str)],
    ) -> impl http_body::Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let frames = stream::iter(pieces).then(|(wait, text)| async move {
            tokio::time::sleep(Duration::from_secs(*wait)).await;
            match *text {
                "!" => Err(std::io::Error::other("reset")),
                "?" => Ok(Frame::trailers(http::HeaderMap::new())),
                text => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
            }
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_gathered_within_its_limits() {
        let too_slow = |seconds| Err(BodyFault::TimedOut(Duration::from_secs(seconds)));
        let room = Room::default();
        for (pieces, expected) in [
            (&[][..], Ok("")),
            (&[(0, "")], Ok("")),
            (&[(0, "hello")], Ok("hello")),
            (&[(0, "hello"), (0, ""), (4, "world")], Ok("helloworld")),
            (&[(0, "hello"), (0, "?")], Ok("hello")),
            (&[(0, "hello"), (0, "world"), (0, "!")], Err(BodyFault::Broken("reset".into()))),
            (&[(0, "hello world")], Err(BodyFault::TooLarge(10))),
            (&[(0, "hello"), (0, " "), (0, "world")], Err(BodyFault::TooLarge(10))),
            (&[(6, "hello")], too_slow(5)),
            (&[(1, "h"), (6, "i")], too_slow(5)),
            // Never silent for long, and never done.
            (&[(4, "a"), (4, "b"), (3, "c"), (3, "d")], too_slow(12)),
        ] {
            let gathered = collect(&mut body(pieces), LIMITS, &room).await;
            let gathered = gathered.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert_eq!(gathered, expected.map(str::to_owned).map_err(NotGathered::Fault), "{pieces:?}");
            assert_eq!(room.taken.get(), 0, "what ended holds nothing");
        }
    }

    /// Whoever wants less than there is gets nothing of it, also of a body that was read before.
    #[tokio::test]
    async fn a_body_that_is_there_is_held_to_what_is_asked_for() {
        let content = Content::of(RequestBody::whole(Bytes::from_static(b"hello")), LIMITS, Rc::default());
        assert_eq!(content.read(5).await.expect("a body"), "hello");
        let refused = content.read(4).await.expect_err("a refusal");
        assert_eq!(refused.reason(), Reason::BodyTooLarge);
        assert_eq!(content.read(u64::MAX).await.expect("a body"), "hello");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_says_it_is_too_long_is_not_read() {
        let mut long = Full::new(Bytes::from_static(b"hello world"));
        let refused = collect(&mut long, LIMITS, &Room::default()).await;
        assert_eq!(refused, Err(NotGathered::Fault(BodyFault::TooLarge(10))));
        assert!(!http_body::Body::is_end_stream(&long));
        let mut none = Empty::<Bytes>::new();
        let nothing = collect::<Empty<Bytes>>(&mut none, LIMITS, &Room::default()).await;
        assert_eq!(nothing, Ok(Bytes::new()));
    }

    /// What came in one piece is not copied.
    #[tokio::test(start_paused = true)]
    async fn a_body_of_one_piece_keeps_its_memory() {
        let content = Bytes::from(vec![7; 10]);
        let gathered =
            collect(&mut Full::new(content.clone()), LIMITS, &Room::default()).await.expect("a body");
        assert_eq!(gathered.as_ptr(), content.as_ptr());
    }

    /// Strangers who send all but the last byte do not have more held than a worker has room for; one alone may be long.
    #[tokio::test(start_paused = true)]
    async fn no_more_is_gathered_at_once_than_there_is_room_for() {
        let room = Room::default();
        let mut alone = Part { room: &room, bytes: 0 };
        assert!(alone.grow(usize::try_from(ROOM).expect("a length")) && alone.grow(1));
        let refused = collect(&mut Full::new(Bytes::from_static(b"hello")), LIMITS, &room).await;
        assert_eq!(refused, Err(NotGathered::Full));
        drop(alone);
        assert_eq!(
            collect(&mut Full::new(Bytes::from_static(b"hello")), LIMITS, &room).await.expect("room"),
            "hello"
        );
        assert_eq!(room.taken.get(), 0);
    }
}
