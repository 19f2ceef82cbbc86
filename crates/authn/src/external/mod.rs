//! `external`: a service of the operator's own decides, over HTTP or in Envoy's external authorization protocol.
//!
//! SECURITY: the service is told what the policy names and nothing else; its answer counts only for the request it
//! was asked about, or for requests that are the same in every part the policy names, among them always the
//! credential. Whatever is not a clear answer refuses (PIPE-02): "could not check" is 503, never a yes.
//!
//! A call is made on the background runtime and waited for under the policy's limit, so a slow service delays only
//! the requests that need its word.

mod answer;
mod cache;
mod calls;
mod grpc;
mod http;
mod key;
mod messages;
mod question;
mod spec;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{HeaderMap, HeaderName};
use bytes::Bytes;
use portcullis_core::{Fetch, FetchError, FetchResponse, Reason, Rejection, Scheme, Unary, UnaryError};

pub(crate) use cache::Answers;
pub(crate) use calls::Calls;
pub use calls::ExternalCounts;
pub(crate) use spec::ExternalSpec;

use crate::chain::{Evidence, Outcome};
use crate::guard::Claim;
use crate::place::{Found, Place, Places};
use answer::{Reading, Source, Verdict};
use cache::{Answered, Asker};
use key::Part;
use question::Question;

/// The authenticator.
pub(crate) struct External {
    asker: Asker,
    /// The most calls of one worker that may be under way.
    at_once: usize,
    /// Where the credential is; without one the service is asked about every request.
    places: Option<Places>,
    scheme: Scheme,
    service: Service,
    /// Host and port of the service: part of the names it gives.
    name: Arc<str>,
    timeout: Duration,
    told: Told,
    reading: Reading,
    /// Whether a denial is answered in the service's own words.
    pass: bool,
    cache: Option<Cache>,
}

/// How the service is asked.
enum Service {
    Http { client: Arc<dyn Fetch>, url: String },
    Grpc { client: Arc<dyn Unary>, context: Vec<(String, String)> },
}

/// What the service is told beside the credential and what every request has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    headers: Vec<HeaderName>,
    certificate: bool,
    /// The longest content it may see.
    content: Option<u64>,
}

/// Which answers are remembered, and how long.
#[derive(Clone, Debug)]
struct Cache {
    /// What the answers do not depend on.
    ignored: Vec<Part>,
    at_most: Duration,
    /// How long an answer counts that says nothing about it.
    unstated: Duration,
}

impl External {
    /// Where the credential is looked for.
    pub(crate) const fn places(&self) -> Option<&Places> {
        self.places.as_ref()
    }

    /// The scheme of its challenge.
    pub(crate) const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether the service sees the content of requests.
    pub(crate) const fn reads_content(&self) -> bool {
        self.told.content.is_some()
    }

    /// The fields of an answer that go on to the upstream.
    pub(crate) fn upstream_headers(&self) -> &[HeaderName] {
        &self.reading.upstream_headers
    }

    /// The credential itself: only the service knows whose name is in it. A caller without one claims nothing.
    pub(crate) fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        match self.places.as_ref().map(|places| places.find(evidence.head)) {
            Some(Ok(Some(found))) => {
                into.write(&found.credential);
                Claim::Named
            }
            Some(Ok(None) | Err(_)) | None => Claim::Absent,
        }
    }

    /// Asks the service, or remembers what it said.
    pub(crate) async fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        let found = match self.places.as_ref().map(|places| places.find(evidence.head)) {
            None => None,
            Some(Ok(Some(found))) => Some(found),
            Some(Ok(None)) => return Outcome::Absent,
            Some(Err(error)) => return Outcome::Rejected(error.rejection(self.scheme)),
        };
        // Boxed, so that waiting for a service does not widen the future of every request.
        match Box::pin(self.decide(evidence, found.as_ref())).await {
            Ok(answered) => Outcome::Answered(answered.identity, answered.upstream),
            Err(rejection) => Outcome::Rejected(rejection.of(self.scheme)),
        }
    }

    async fn decide(
        &self,
        evidence: &Evidence<'_>,
        found: Option<&Found<'_, '_>>,
    ) -> Result<Answered, Rejection> {
        let key =
            self.cache.as_ref().map(|cache| (cache, key::of(&cache.ignored, &self.told, evidence, found)));
        if let Some((_, key)) = &key
            && let Some(answered) = evidence.worker.answers().find(self.asker, key, evidence.now)
        {
            evidence.worker.calls().count(|counts| counts.remembered += 1);
            return Ok(answered);
        }
        let question = Question::of(self, evidence, found).await?;
        let verdict = {
            let _under_way = evidence.worker.calls().begin(self.asker, self.at_once).ok_or_else(busy)?;
            self.ask(question).await
        };
        evidence.worker.calls().count(|counts| match &verdict {
            Ok(Verdict::Allowed(_)) => counts.allowed += 1,
            Ok(Verdict::Denied(_)) => counts.denied += 1,
            Err(_) => counts.unavailable += 1,
        });
        let mut allowed = match verdict? {
            Verdict::Denied(denied) => return Err(denied.rejection(self.pass)),
            Verdict::Allowed(allowed) => allowed,
        };
        let cache = key.as_ref().map(|(cache, _)| *cache);
        allowed.counts_for = cache.and_then(|cache| cache.time(allowed.counts_for));
        let answered = self.reading.read(&self.name, allowed, evidence.now)?;
        if let Some((_, key)) = key {
            evidence.worker.answers().remember(self.asker, key, &answered);
        }
        Ok(answered)
    }

    async fn ask(&self, question: Question<'_>) -> Result<Verdict, Rejection> {
        match &self.service {
            Service::Http { client, url } => {
                let request = http::request(url, self.timeout, question)?;
                http::verdict(client.fetch(request).await.map_err(unheard)?)
            }
            Service::Grpc { client, context } => {
                let call = grpc::call(context, self.timeout, question);
                grpc::verdict(client.call(call).await.map_err(not_called)?)
            }
        }
    }
}

impl Cache {
    /// How long an answer is remembered; `None` for not at all.
    fn time(&self, stated: Option<Duration>) -> Option<Duration> {
        Some(stated.unwrap_or(self.unstated).min(self.at_most)).filter(|time| !time.is_zero())
    }
}

/// Why nothing was heard is for the log; the caller learns that nothing can be said.
fn unheard(error: FetchError) -> Rejection {
    let why = match error {
        FetchError::Refused(_)
        | FetchError::Connection(_)
        | FetchError::Unanswered
        | FetchError::TimedOut(_)
        | FetchError::Unsent(_)
        | FetchError::TooLarge(_) => error.to_string(),
    };
    unavailable(&why)
}

fn not_called(error: UnaryError) -> Rejection {
    let why = match error {
        UnaryError::Connection(_) | UnaryError::TimedOut(_) | UnaryError::Status(_) => error.to_string(),
    };
    unavailable(&why)
}

/// SECURITY: what cannot be asked about is refused. A service that hangs would otherwise gather all requests, each with
/// its content.
fn busy() -> Rejection {
    unavailable("too many calls are under way")
}

fn unavailable(why: &str) -> Rejection {
    Rejection::new(Reason::ExternalUnavailable)
        .because(format!("the external service: {why}"))
        .retry_after(Duration::from_secs(1))
}

/// What an answer of a service comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalAnswer {
    /// The request may go on, if the answer names a caller at the place that is asked for.
    Allows(Option<Arc<str>>),
    /// It may not.
    Denies,
    /// Nothing that can be relied on.
    Nothing,
}

/// What an answer over HTTP comes to, where `subject` is `header.NAME` or `body.PATH`.
pub fn http_answer(response: FetchResponse, subject: &str) -> ExternalAnswer {
    ExternalAnswer::of(http::verdict(response), subject)
}

/// What the message of an answer over gRPC comes to.
pub fn grpc_answer(message: Bytes, subject: &str) -> ExternalAnswer {
    ExternalAnswer::of(grpc::verdict(message), subject)
}

/// The message in which a service allows over gRPC, with this metadata, or denies with a status; with these headers.
/// For whoever stands in for one.
pub fn grpc_reply(verdict: Result<&[(String, String)], i32>, headers: &[(String, String)]) -> Bytes {
    grpc::reply(verdict, headers)
}

impl ExternalAnswer {
    fn of(verdict: Result<Verdict, Rejection>, subject: &str) -> Self {
        match verdict {
            Ok(Verdict::Allowed(allowed)) => {
                Self::Allows(Source::parse(subject).and_then(|source| source.name(&allowed)))
            }
            Ok(Verdict::Denied(_)) => Self::Denies,
            Err(_) => Self::Nothing,
        }
    }
}

/// The fields that go on, as an answer gave them.
pub(crate) type UpstreamFields = Arc<HeaderMap>;

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "External({})", self.name)
    }
}

/// The scheme of a challenge for a credential at these places.
fn scheme_of(places: Option<&Places>) -> Scheme {
    let words = places.into_iter().flat_map(Places::iter).map(|place| match place {
        Place::Scheme(_, word) if **word == *"bearer" => Scheme::Bearer,
        _ => Scheme::External,
    });
    words.into_iter().next().unwrap_or(Scheme::External)
}
