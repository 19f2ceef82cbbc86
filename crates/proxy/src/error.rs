//! What can go wrong between here and the upstream, and which refusal each failure is.

use std::time::Duration;

use portcullis_core::{Reason, Rejection};

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// No connection to any endpoint. Nothing of the request was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection stood, and the head of the answer did not come within the upstream's `timeout`.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer cannot be passed on, or the connection broke before one came.
    #[error("{0}")]
    Malformed(String),
    /// The caller's body failed while it was being passed on.
    #[error("request body: {0}")]
    RequestBody(BodyFault),
    /// The request names no host that could be passed on.
    #[error("the request names no valid host")]
    HostInvalid,
    /// `CONNECT` asks for a tunnel. SECURITY: bytes in a tunnel would pass every check (PRX-04).
    #[error("the method asks for a tunnel")]
    TunnelRefused,
}

/// What was wrong with the caller's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Longer than the limit, in bytes.
    #[error("longer than {0} bytes")]
    TooLarge(u64),
    /// Nothing arrived for this long, or not all of it within this time.
    #[error("not arrived within {0:?}")]
    TimedOut(Duration),
    /// The caller went away, or its framing broke.
    #[error("{0}")]
    Broken(String),
}

/// Why an answer's body broke off after its head was passed on. The caller must see a broken transfer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The upstream sent nothing for this long.
    #[error("the upstream sent nothing for {0:?}")]
    TimedOut(Duration),
    /// The upstream's connection or framing broke.
    #[error("the upstream broke off: {0}")]
    Broken(String),
    /// The caller's own body failed while the answer was under way.
    #[error("request body: {0}")]
    RequestBody(BodyFault),
}

impl From<ForwardError> for Rejection {
    fn from(error: ForwardError) -> Self {
        let reason = match &error {
            ForwardError::Unreachable(_) => Reason::UpstreamUnreachable,
            ForwardError::TimedOut(_) => Reason::UpstreamTimeout,
            ForwardError::Malformed(_) => Reason::UpstreamMalformed,
            ForwardError::RequestBody(fault) => fault.reason(),
            ForwardError::HostInvalid => Reason::HostInvalid,
            ForwardError::TunnelRefused => Reason::MethodNotAllowed,
        };
        Self::new(reason).because(error.to_string())
    }
}

impl BodyFault {
    /// The reason a caller is refused with.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TooLarge(_) => Reason::BodyTooLarge,
            Self::TimedOut(_) => Reason::BodyTimeout,
            Self::Broken(_) => Reason::RequestMalformed,
        }
    }
}

impl BodyError {
    /// The reason, for the log line: the status has been sent already.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TimedOut(_) => Reason::UpstreamTimeout,
            Self::Broken(_) => Reason::UpstreamMalformed,
            Self::RequestBody(fault) => fault.reason(),
        }
    }
}
