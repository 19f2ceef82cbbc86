//! `Ended` → `Reply`: the only place where a refusal becomes bytes.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use pin_project_lite::pin_project;
use portcullis_core::{Challenge, Problem, Reason, Rejection, Scheme};
use tower::{Layer, Service};

use crate::body::ReplyBody;
use crate::exchange::{Ended, Outcome, Reply};
use crate::passage::Passage;
use crate::snapshot::Api;

/// See [`Respond`].
#[derive(Clone, Copy)]
pub(crate) struct RespondLayer;

impl<N> Layer<N> for RespondLayer {
    type Service = Respond<N>;

    fn layer(&self, next: N) -> Respond<N> {
        Respond { next }
    }
}

/// Turns a refusal into its answer; whatever else comes back passes.
#[derive(Clone, Copy)]
pub(crate) struct Respond<N> {
    next: N,
}

impl<A, N: Service<A, Response = Reply, Error = Ended>> Service<A> for Respond<N> {
    type Response = Reply;
    type Error = Infallible;
    type Future = RespondFuture<N::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, given: A) -> Self::Future {
        RespondFuture { running: self.next.call(given) }
    }
}

pin_project! {
    /// The rest of the stack, and then the answer.
    pub(crate) struct RespondFuture<T> {
        #[pin]
        running: T,
    }
}

impl<T: Future<Output = Result<Reply, Ended>>> Future for RespondFuture<T> {
    type Output = Result<Reply, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(ready!(self.project().running.poll(cx)).unwrap_or_else(answer)))
    }
}

fn answer(Ended { outcome, passage }: Ended) -> Reply {
    match outcome {
        Outcome::Refused(rejection) => refusal(&rejection, passage),
        Outcome::Told(json) => told(json, passage),
    }
}

/// What the gateway tells a caller about themselves.
fn told(json: Bytes, mut passage: Box<Passage>) -> Reply {
    passage.ledger.status = StatusCode::OK;
    let body = (passage.ledger.method != Method::HEAD).then_some(json);
    let mut response = Response::new(ReplyBody::Own(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Reply { response, passage }
}

fn refusal(rejection: &Rejection, mut passage: Box<Passage>) -> Reply {
    let ledger = &mut passage.ledger;
    let reason = rejection.reason();
    ledger.reason = Some(reason);
    ledger.status = reason.status();
    ledger.inner = rejection.detail().and_then(|detail| detail.inner.clone());
    let request_id = ledger.id.to_string();
    let passed = rejection.detail().and_then(|detail| detail.passed.as_ref());
    let body = match passed {
        Some(passed) => passed.body.clone(),
        None => Bytes::from(Problem::new(rejection, &request_id).to_json()),
    };
    // Under HTTP/2 nothing below keeps the body of an answer to HEAD back.
    let body = (ledger.method != Method::HEAD).then_some(body);
    let mut response = Response::new(ReplyBody::Own(body));
    *response.status_mut() = reason.status();
    write_fields(response.headers_mut(), rejection, ledger.api.as_ref().map(|api| &***api));
    Reply { response, passage }
}

fn write_fields(headers: &mut HeaderMap, rejection: &Rejection, api: Option<&Api>) {
    let passed = rejection.detail().and_then(|detail| detail.passed.as_ref());
    let kind = match passed {
        None => Some(HeaderValue::from_static("application/problem+json")),
        Some(passed) => passed.content_type.clone(),
    };
    headers.extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
    // A stored refusal would outlive its reason (ANS-05).
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let status = rejection.reason().status();
    let challenged = status == StatusCode::UNAUTHORIZED || rejection.reason().bearer_error().is_some();
    let theirs = passed.map(|passed| passed.challenges.as_slice()).unwrap_or_default();
    if challenged && !theirs.is_empty() {
        headers.extend(theirs.iter().map(|theirs| (header::WWW_AUTHENTICATE, theirs.clone())));
    } else if challenged && let Some(api) = api {
        // One field for each challenge: clients stumble over combined ones (ANS-02).
        for challenge in api.chain.challenges() {
            if let Ok(value) = HeaderValue::from_str(&challenge.render(rejection)) {
                headers.append(header::WWW_AUTHENTICATE, value);
            }
        }
        // A certificate that a proxy told may be refused where the chain asks for none: a 401 has its challenge.
        let is_asked_for = api.chain.challenges().iter().any(|own| own.scheme == Scheme::Certificate);
        if rejection.scheme() == Some(Scheme::Certificate) && !is_asked_for {
            let challenge = Challenge::new(Scheme::Certificate, Arc::clone(&api.name));
            if let Ok(value) = HeaderValue::from_str(&challenge.render(rejection)) {
                headers.append(header::WWW_AUTHENTICATE, value);
            }
        }
    }
    if status == StatusCode::UNAUTHORIZED
        && let Some(api) = api
    {
        for wanted in api.chain.accept_signatures() {
            headers.append(HeaderName::from_static("accept-signature"), wanted.clone());
        }
    }
    if matches!(rejection.reason(), Reason::DigestMissing | Reason::DigestMismatch) {
        // RFC 9530 section 4 (DIG-01).
        let wanted = HeaderValue::from_static("sha-256=10, sha-512=3");
        headers.insert(HeaderName::from_static("want-content-digest"), wanted);
    }
    if let Some(limits) = api.and_then(|api| api.limits.as_ref()) {
        limits.write_refusal_fields(rejection, headers);
    }
    let Some(detail) = rejection.detail() else { return };
    if let Some(wait) = detail.retry_after {
        let whole_seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds.max(1)));
    }
    if let Some(nonce) = detail.nonce.as_deref().and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
        headers.insert("dpop-nonce", nonce);
    }
    if let Some(methods) = detail.allow.as_deref().and_then(|methods| HeaderValue::from_str(methods).ok()) {
        headers.insert(header::ALLOW, methods);
    }
}
