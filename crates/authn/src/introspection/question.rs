//! One question to a provider, and the reading of its answer.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use portcullis_core::json::Limits;
use portcullis_core::{FetchError, FetchResponse, Moment, Rejection, Sending};
use portcullis_jose::{CompactJws, Introspected, IntrospectionError, JwsError, JwsLimits};

use super::client::QuestionError;
use super::source::{Active, Answer, Provider, Signed};
use crate::discovery::DiscoveryError;

/// The largest answer, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer that says something. The texts never hold the token nor the answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("{0}")]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the provider answered {0}: it does not know us, or not by these credentials")]
    Refused(u16),
    #[error("the provider answered {0}")]
    Status(u16),
    #[error("{0}")]
    Answer(#[from] IntrospectionError),
    #[error("the answer is not `application/json`")]
    Kind,
    #[error("the answer is not signed, and this provider signs its answers")]
    Unsigned,
    #[error("the signed answer is not acceptable: {0}")]
    Jws(#[from] JwsError),
    #[error("the signed answer is not acceptable: {0:?}")]
    Signature(Rejection),
    #[error("the token is not text")]
    NotText,
    #[error("the question broke off")]
    Lost,
}

/// What a question without a good answer says of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is down, overwhelmed, or does not know us.
    Provider,
    /// It answers, if only to this question in no good way.
    Question,
    /// Nothing: it was not asked.
    Nobody,
}

impl AskError {
    /// Who is to blame. SECURITY: what a stranger can bring about with a token of their own making must not shut the
    /// provider off for everybody, so only its failing to answer at all counts against it, and its saying that it is
    /// not there or has too much to do. Any other error of its own may be about this one token (INT-05).
    pub(super) const fn blame(&self) -> Blame {
        match self {
            Self::Fetch(error) | Self::Discovery(DiscoveryError::Fetch(error)) => match error {
                FetchError::Connection(_) | FetchError::TimedOut(_) | FetchError::Unanswered => {
                    Blame::Provider
                }
                FetchError::TooLarge(_) => Blame::Question,
                FetchError::Refused(_) | FetchError::Unsent(_) => Blame::Nobody,
            },
            // No token is part of that question.
            Self::Discovery(DiscoveryError::Status(429 | 500..)) => Blame::Provider,
            Self::Refused(status) | Self::Status(status) => match status {
                401 | 429 | 502..=504 => Blame::Provider,
                _ => Blame::Question,
            },
            Self::Answer(_) | Self::Kind | Self::Unsigned | Self::Jws(_) | Self::Signature(_) => {
                Blame::Question
            }
            Self::Discovery(_) | Self::Question(_) | Self::NotText | Self::Lost => Blame::Nobody,
        }
    }
}

/// Asks, and reads the answer.
pub(super) async fn ask(provider: Arc<Provider>, token: Arc<[u8]>) -> Result<Answer, AskError> {
    let url = provider.endpoint.url().await?;
    // Only now: to find the provider may have taken a while.
    let asked = provider.clock.now();
    let text = std::str::from_utf8(&token).map_err(|_| AskError::NotText)?;
    // The fetcher has its own limits; this one holds whatever it does.
    let limit = provider.settings.timeout + CONNECT_TIMEOUT;
    let response = tokio::time::timeout(limit, send(&provider, &url, text, asked))
        .await
        .map_err(|_| FetchError::TimedOut(limit))??;
    let said = match response.status.as_u16() {
        200 => read(&response, provider.signed.as_ref(), asked).await?,
        status @ (401 | 403) => return Err(AskError::Refused(status)),
        status => return Err(AskError::Status(status)),
    };
    Ok(match said {
        Introspected::Inactive => Answer::Inactive,
        Introspected::Active(claims) => {
            let times = provider.rules.check_claims(&claims).ok();
            let end_ms = times.and_then(|times| times.unusable_from_ms(&provider.rules));
            let ends_in = end_ms.map(|end| end.saturating_sub(asked.unix_ms).max(0).unsigned_abs());
            let cache = provider.settings.cache;
            let life = ends_in.map_or(cache, |left| cache.min(Duration::from_millis(left)));
            // Counted from the question, for who knows when the provider looked.
            let until = asked.monotonic.saturating_add(life);
            let lets_in = times.is_some() && ends_in != Some(0);
            Answer::Active(Arc::new(Active { claims, lets_in, until, bytes: response.body.len() }))
        }
    })
}

/// Sends the question. SECURITY: an assertion of ours counts once (RFC 7523 section 3), and whoever hung up may have
/// heard it: what goes out again is a question with another one.
async fn send(provider: &Provider, url: &str, token: &str, asked: Moment) -> Result<FetchResponse, AskError> {
    let question = |sending| {
        let mut request = provider.client.question(url, token, provider.signed.is_some(), asked)?;
        request.max_bytes = MAX_BYTES;
        request.connect_timeout = CONNECT_TIMEOUT.min(provider.settings.timeout);
        request.total_timeout = provider.settings.timeout;
        request.sending = sending;
        Ok::<_, QuestionError>(request)
    };
    if !provider.client.is_named_once() {
        return Ok(provider.fetch.fetch(question(Sending::Again)?).await?);
    }
    match provider.fetch.fetch(question(Sending::Once)?).await {
        Err(FetchError::Unanswered) => Ok(provider.fetch.fetch(question(Sending::OnceAnew)?).await?),
        answered => Ok(answered?),
    }
}

async fn read(
    response: &FetchResponse,
    signed: Option<&Signed>,
    asked: Moment,
) -> Result<Introspected, AskError> {
    let kind = response.field(&CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    let is = |wanted: &str| kind.trim().eq_ignore_ascii_case(wanted);
    let Some(signed) = signed else {
        return if is("application/json") {
            Ok(Introspected::read(&response.body)?)
        } else {
            Err(AskError::Kind)
        };
    };
    if !is("application/token-introspection+jwt") {
        return Err(AskError::Unsigned);
    }
    let limits = JwsLimits { token: MAX_BYTES, ..JwsLimits::default() };
    let jws = CompactJws::parse(&*response.body, limits)?;
    let verified = signed.issuer.verify_signature(&jws, asked).await.map_err(AskError::Signature)?;
    let claims = verified.claims(Limits::default())?;
    Ok(Introspected::of_signed(jws.header(), &claims, &signed.provider, &signed.recipient, asked)?)
}
