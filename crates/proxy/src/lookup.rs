//! The addresses of one endpoint as one worker knows them.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::connect::ConnectError;

/// Name resolution may take this part of the time for the whole connection before the addresses of the last good
/// answer are used instead.
const RESOLVE_SHARE: u32 = 2;

/// For so long after a failure nobody asks or waits again.
const PAUSE: Duration = Duration::from_secs(1);

/// Resolves the endpoint's name: one question at a time, whoever asks, and none for a moment after a failure.
///
/// SECURITY: a question occupies a thread of the resolver until it is answered, even if nobody waits any more. If
/// each connection asked for itself, a slow name server would fill that pool, and with it every other upstream's.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    state: RefCell<State>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The addresses of the last good answer.
    addresses: Vec<SocketAddr>,
    /// The last failure, if it is not yet followed by a good answer.
    failure: Option<(Instant, ConnectError)>,
    asking: bool,
}

impl Lookup {
    /// All addresses of the endpoint: a fresh answer, or the last good one where there is none in time.
    ///
    /// `question` asks for `name`; it is dropped unheard while another is under way. Must be called on a `LocalSet` or local runtime.
    ///
    /// # Errors
    /// Name resolution fails, or takes more than its share of `limit`, and never succeeded before.
    pub(crate) async fn addresses<Q>(
        self: &Rc<Self>,
        name: &Arc<str>,
        limit: Duration,
        question: Q,
    ) -> Result<Vec<SocketAddr>, ConnectError>
    where
        Q: Future<Output = Result<Vec<SocketAddr>, ConnectError>> + 'static,
    {
        let now = Instant::now();
        if self.state.borrow().failed_lately(now) {
            return self.state.borrow().known();
        }
        let answered = self.answered.notified();
        self.ask(name, question);
        let share = limit / RESOLVE_SHARE;
        if timeout_at(now + share, answered).await.is_err() {
            let why = format!("no answer within {share:?}");
            self.state.borrow_mut().fail(ConnectError::Resolve(Arc::clone(name), why));
        }
        self.state.borrow().known()
    }

    /// A task of its own, so that the answer counts even if whoever asked has gone.
    fn ask<Q>(self: &Rc<Self>, name: &Arc<str>, question: Q)
    where
        Q: Future<Output = Result<Vec<SocketAddr>, ConnectError>> + 'static,
    {
        if std::mem::replace(&mut self.state.borrow_mut().asking, true) {
            return;
        }
        let (lookup, name) = (Rc::clone(self), Arc::clone(name));
        tokio::task::spawn_local(async move {
            let answer = question.await;
            let mut state = lookup.state.borrow_mut();
            state.asking = false;
            match answer {
                Ok(addresses) => state.succeed(&name, addresses),
                Err(error) => state.fail(error),
            }
            drop(state);
            lookup.answered.notify_waiters();
        });
    }
}

impl State {
    fn failed_lately(&self, now: Instant) -> bool {
        self.failure.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) < PAUSE)
    }

    fn known(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        match &self.failure {
            Some((_, error)) if self.addresses.is_empty() => Err(error.clone()),
            _ => Ok(self.addresses.clone()),
        }
    }

    fn succeed(&mut self, name: &str, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
        if self.failure.take().is_some() {
            tracing::info!(name, addresses = ?self.addresses, "name resolution works again");
        }
    }

    /// Only the first failure in a row is worth a line.
    fn fail(&mut self, error: ConnectError) {
        if self.failure.is_none() {
            let addresses = &self.addresses;
            tracing::warn!(%error, ?addresses, "name resolution fails; using the last known addresses");
        }
        self.failure = Some((Instant::now(), error));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{Future, pending, ready};
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{Instant, advance, sleep};

    use super::Lookup;
    use crate::connect::ConnectError;

    const LIMIT: Duration = Duration::from_secs(4);

    type Answer = Result<Vec<SocketAddr>, ConnectError>;

    fn good(last: u8) -> Answer {
        Ok(vec![SocketAddr::from(([192, 0, 2, last], 443))])
    }

    fn bad() -> Answer {
        Err(ConnectError::Resolve("accounts".into(), "the name server is out".into()))
    }

    /// Runs a test in time that passes only while everybody waits.
    fn in_still_time<F: Future<Output = ()>>(test: impl FnOnce(Rc<Lookup>) -> F) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, test(Rc::default()));
    }

    #[test]
    fn many_who_ask_at_once_share_one_question() {
        in_still_time(|lookup| async move {
            let asked = Rc::new(Cell::new(0));
            let callers: Vec<_> = (0..100)
                .map(|_| {
                    let (lookup, asked) = (Rc::clone(&lookup), Rc::clone(&asked));
                    spawn_local(async move {
                        let question = async move {
                            asked.set(asked.get() + 1);
                            sleep(Duration::from_millis(10)).await;
                            good(1)
                        };
                        lookup.addresses(&"accounts".into(), LIMIT, question).await
                    })
                })
                .collect();
            for caller in callers {
                assert_eq!(caller.await.unwrap(), good(1));
            }
            assert_eq!(asked.get(), 1);
            // What was answered is not kept: the next one asks again.
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(good(2))).await, good(2));
        });
    }

    #[test]
    fn after_a_failure_the_last_known_addresses_are_used_at_once_and_nobody_asks() {
        in_still_time(|lookup| async move {
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(good(1))).await, good(1));
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(bad())).await, good(1));
            assert_eq!(
                lookup.addresses(&"accounts".into(), LIMIT, async { unreachable!("nobody asks") }).await,
                good(1)
            );
            advance(Duration::from_millis(999)).await;
            assert_eq!(
                lookup.addresses(&"accounts".into(), LIMIT, async { unreachable!("nobody asks") }).await,
                good(1)
            );
            advance(Duration::from_millis(1)).await;
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(good(2))).await, good(2));
        });
    }

    #[test]
    fn a_name_that_never_resolved_fails_at_once_for_a_moment() {
        in_still_time(|lookup| async move {
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(bad())).await, bad());
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(good(1))).await, bad());
            advance(Duration::from_secs(1)).await;
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(good(1))).await, good(1));
        });
    }

    #[test]
    fn a_question_without_answer_is_waited_for_once_and_never_doubled() {
        in_still_time(|lookup| async move {
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, ready(good(1))).await, good(1));
            let start = Instant::now();
            assert_eq!(lookup.addresses(&"accounts".into(), LIMIT, pending()).await, good(1));
            assert_eq!(start.elapsed(), LIMIT / 2);
            assert_eq!(
                lookup.addresses(&"accounts".into(), LIMIT, async { unreachable!("one is under way") }).await,
                good(1)
            );
            assert_eq!(start.elapsed(), LIMIT / 2);
            advance(Duration::from_secs(1)).await;
            assert_eq!(
                lookup.addresses(&"accounts".into(), LIMIT, async { unreachable!("one is under way") }).await,
                good(1)
            );
        });
    }

    #[test]
    fn an_answer_counts_although_whoever_asked_has_gone() {
        in_still_time(|lookup| async move {
            let question = async {
                sleep(Duration::from_secs(1)).await;
                good(1)
            };
            let asking = Rc::clone(&lookup);
            let first =
                spawn_local(async move { asking.addresses(&"accounts".into(), LIMIT, question).await });
            advance(Duration::from_millis(1)).await;
            first.abort();
            let second =
                lookup.addresses(&"accounts".into(), LIMIT, async { unreachable!("one is under way") }).await;
            assert_eq!(second, good(1));
        });
    }
}
