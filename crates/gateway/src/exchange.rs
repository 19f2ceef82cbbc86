//! A request on its way through the stages, and the proofs it gathers.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use portcullis_core::{Connection, Moment, PeerCertificate, PlanSet, Principal, Rejection};
use portcullis_policy::Admission;

use crate::body::ReplyBody;
use crate::passage::Passage;
use crate::snapshot::LocalApi;
use crate::unread;

/// One request, with the proof `S` of the last stage it passed. Only a stage's own module can make its proof,
/// so a request that skipped a check is a compile error. It is small, because every stage hands it on by value; what
/// is large travels in the passage.
pub(crate) struct Exchange<S> {
    /// The request, where it comes from, what it is judged by, who carries it, and what is remembered about it.
    pub(crate) passage: Box<Passage>,
    /// The proof.
    pub(crate) proof: S,
}

/// The request was taken from its connection.
pub(crate) struct Accepted;

/// It is well-formed and an API serves it.
pub(crate) struct Routed {
    pub(crate) api: Rc<LocalApi>,
    /// Where the part of the path below the API's prefix begins, in bytes.
    pub(crate) below: usize,
}

/// Its caller is who they say.
pub(crate) struct Authenticated {
    pub(crate) routed: Routed,
    pub(crate) principal: Principal,
}

/// The caller's record and plans say that they may call at all.
pub(crate) struct Entitled {
    pub(crate) authenticated: Authenticated,
    /// The caller's plans, where the API takes some.
    pub(crate) plans: Option<PlanSet>,
}

/// A rule allows it.
pub(crate) struct Authorized {
    pub(crate) entitled: Entitled,
}

/// It is within every limit: the only proof that reaches an upstream.
pub(crate) struct Admitted {
    pub(crate) api: Rc<LocalApi>,
    pub(crate) principal: Principal,
    /// Where the caller stands with the API's limits, if it has any.
    pub(crate) admission: Option<Admission>,
}

impl<S> Exchange<S> {
    /// Goes on with the next proof.
    pub(crate) fn advance<T>(self, next: impl FnOnce(S) -> T) -> Exchange<T> {
        Exchange { passage: self.passage, proof: next(self.proof) }
    }

    /// Ends here with a refusal.
    pub(crate) fn refuse(self, rejection: impl Into<Rejection>) -> Ended {
        self.end(Outcome::Refused(rejection.into()))
    }

    /// Ends here with an answer of the gateway's own, as JSON.
    pub(crate) fn tell(self, json: String) -> Ended {
        self.end(Outcome::Told(json.into()))
    }

    fn end(mut self, outcome: Outcome) -> Ended {
        unread::let_go(self.passage.head.version, self.passage.take_body());
        Ended { outcome, passage: self.passage }
    }

    /// Method, target and headers.
    pub(crate) fn head(&self) -> &Parts {
        &self.passage.head
    }

    /// The connection's facts.
    pub(crate) fn connection(&self) -> &Connection {
        self.passage.inbound.connection()
    }

    /// The caller's certificate; see [`Passage::certificate`].
    pub(crate) fn certificate(&self) -> Option<&Arc<PeerCertificate>> {
        self.passage.certificate()
    }

    /// The one reading of the clocks this request is judged by.
    pub(crate) fn now(&self) -> Moment {
        self.passage.ledger.opened
    }
}

/// A request that goes no further.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) passage: Box<Passage>,
}

/// How it ended.
pub(crate) enum Outcome {
    Refused(Rejection),
    /// The gateway itself has the answer.
    Told(Bytes),
}

/// An answer, with the record of how it came about.
pub(crate) struct Reply {
    pub(crate) response: http::Response<ReplyBody>,
    pub(crate) passage: Box<Passage>,
}
